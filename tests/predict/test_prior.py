"""What ships with the package: complete, attributed, and worth more than physics alone."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from autotune.domain.run import Purpose
from autotune.features.case import Case
from autotune.predict.predictor import Predictor
from autotune.predict.prior import PRIOR_FILE, load_prior
from autotune.predict.rows import build_rows


def test_a_processor_gets_no_prior() -> None:
    """The public sets hold GPUs only."""
    assert load_prior("CPU") == ()


def test_every_row_is_an_imported_run() -> None:
    """Of three machines, each row with a rate or a reason."""
    observations = load_prior("Vulkan")

    assert len(observations) > 4000
    assert all(o.purpose is Purpose.IMPORT for o in observations)
    assert all(o.reason or o.prefill_tps or o.decode_tps for o in observations)
    assert len({o.machine_id for o in observations}) == 3


def test_the_sources_are_named() -> None:
    """Each source in the file stands with its licence beside it."""
    told = PRIOR_FILE.with_name("SOURCES.md").read_text(encoding="utf-8")

    for source in ("lhl/strix-halo-testing", "matt-c1/llama-cpp-speed", "hogeheer499-commits"):
        assert source in told


def test_the_prior_beats_physics_on_machines_that_it_has_not_seen() -> None:
    """Each machine told by the others and by physics alone: prompts gain, decode needs no prior."""
    observations = [o for o in load_prior("CUDA") if o.reason is None]
    errors: dict[tuple[str, str], list[float]] = defaultdict(list)
    for held_out in {o.machine_id for o in observations}:
        rest = [o for o in observations if o.machine_id != held_out]
        pairs = [(o, c) for o in observations if o.machine_id == held_out and (c := Case.of(o))]
        rows = build_rows(pairs)
        for name, taught in (("prior", rest), ("physics", [])):
            forecast = Predictor().fit(taught).forecast(rows.cases)
            for phase in ("prefill", "decode"):
                error = getattr(forecast, phase).mean - np.log(rows.seconds[phase])
                errors[name, phase].extend(np.abs(error[np.isfinite(error)]))
    typical = {key: float(np.median(found)) for key, found in errors.items()}

    assert typical["prior", "prefill"] < 0.85 * typical["physics", "prefill"]
    assert typical["prior", "decode"] < 0.1


def test_another_matrix_library_is_not_a_repeat() -> None:
    """hipBLASLt reads long prompts more than twice as fast as the same build without it."""
    rates: dict[object, dict[bool, float]] = defaultdict(dict)
    for o in load_prior("CUDA"):
        case = Case.of(o)
        if case and o.prefill_tps and "llama.cpp-hip" in case.build and o.workload.n_prompt >= 512:
            build, _, switch = case.build.partition("+")
            key = build, case.model.model_id, case.workload, case.config.flash_attn
            rates[key][switch == "hipblaslt"] = o.prefill_tps
    ratios = [both[True] / both[False] for both in rates.values() if len(both) == 2]

    assert len(ratios) > 100
    assert np.median(ratios) > 2


def test_generation_through_a_web_interface_teaches_nothing() -> None:
    """It took 10 ms for each token: an RTX 4090 would be called half as fast as it is."""
    through_web = [o for o in load_prior("CUDA") if o.backend == "llama-cpp-python"]

    assert through_web
    assert all(o.decode_tps is None for o in through_web)
