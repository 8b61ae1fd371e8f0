"""Predicted peaks of memory against measured ones, by a regressor that did not see them."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from autotune.domain.config import KV_BYTES_PER_ELEMENT, Config
from autotune.domain.machine import GPUFacts
from autotune.domain.plan import MemoryPlan
from autotune.domain.units import MIB
from autotune.domain.workload import Workload
from autotune.facts.plan import plan_memory
from autotune.features.case import Case
from autotune.predict.memory import MemoryRegressor
from tests.factories import make_machine
from tests.predict.memory_runs import Z_95, MemoryRuns, load_runs, make_case

RUNS = load_runs()
FITTED = MemoryRegressor().fit(RUNS.cases, RUNS.peak_bytes)


def like(index: int, **changes: object) -> Case:
    """A recorded case under another configuration."""
    case = RUNS.cases[index]
    return dataclasses.replace(case, config=case.config.replace(**changes))


MODELS = {RUNS.cases[index].model.name: index for index in (0, len(RUNS.cases) - 1)}


def plan_of(case: Case) -> MemoryPlan:
    """The analytic plan, without repacked copies."""
    return plan_memory(case.model, case.config)


def test_the_recording_is_worth_the_figures() -> None:
    """Two models, and of each at least two dozen runs with every knob that changes memory."""
    for index in MODELS.values():
        mine = [case for case in RUNS.cases if case.model == RUNS.cases[index].model]
        assert len({case.config for case in mine}) >= 20
        for knob in ("n_ctx", "n_ubatch", "type_k", "type_v", "flash_attn", "use_mmap"):
            assert len({getattr(case.config, knob) for case in mine}) > 1, knob
        assert len({case.workload for case in mine}) == 3
    assert {case.config.swa_full for case in RUNS.cases} == {True, False}


def test_the_reserved_buffers_alone_are_far_off() -> None:
    """What the learned part, and the touched part, are held against."""
    reserved = np.array([plan_of(case).host_bytes for case in RUNS.cases])

    assert RUNS.mape(reserved) > 0.3


@pytest.mark.parametrize(("left_out", "bar"), [("configs", 0.01), ("models", 0.03)])
def test_peaks_of_what_was_left_out_are_predicted(left_out: str, bar: float) -> None:
    """Within 3 % for an unknown model, 1 % for an unknown configuration; quantiles hold."""
    peak, sd = RUNS.left_out(getattr(RUNS, left_out))

    assert RUNS.mape(peak) <= bar
    assert RUNS.exceeded(peak, sd) <= 0.05


def test_the_first_prediction_on_a_machine_is_close_already() -> None:
    """Nothing was learned: typical values alone, and an honest doubt about them."""
    peak, sd = RUNS.unseen()

    assert RUNS.mape(peak) <= 0.03
    assert RUNS.exceeded(peak, sd) <= 0.05


def test_doubt_shrinks_with_runs_of_the_same_model() -> None:
    """And stays for a model that nobody has run, however many others were."""
    few = slice(0, 4)
    first = RUNS.cases[0].model
    stranger = [
        dataclasses.replace(RUNS.cases[0], model=dataclasses.replace(first, architecture="new"))
    ]
    some = MemoryRegressor().fit(RUNS.cases[few], RUNS.peak_bytes[few])
    asked = RUNS.cases[4:5]

    assert (
        FITTED.predict(asked)[1] < some.predict(asked)[1] < RUNS.unseen()[1][4] / RUNS.peak_bytes[4]
    )
    assert FITTED.predict(stranger)[1] > 2 * FITTED.predict(asked)[1]


def test_one_family_on_three_machines_is_one_family() -> None:
    """What its vocabulary takes it takes on each of them: the next one is told no more by that."""
    mine = np.array([case.model == RUNS.cases[0].model for case in RUNS.cases])
    here = [case for case, is_mine in zip(RUNS.cases, mine, strict=True) if is_mine]
    everywhere = [dataclasses.replace(case, machine_id=name) for name in "abc" for case in here]
    other = RUNS.cases[-1:]
    assert not mine[-1]

    def moved(cases: list[Case], peaks: np.ndarray) -> float:
        """How far 20 MiB more of the one family move what is expected of the other, in MiB."""
        before, after = (
            MemoryRegressor().fit(cases, peaks + more).predict(other)[0][0]
            for more in (0, 20 * MIB)
        )
        return float(after - before) / MIB

    peaks = RUNS.peak_bytes[mine]
    assert 0 < moved(everywhere, np.tile(peaks, 3)) <= moved(here, peaks)


def test_a_gpus_driver_is_doubted_until_it_was_seen() -> None:
    """What a GPU's runtime takes of the host's memory, nobody knows before."""
    gpu = GPUFacts(name="GPU", total_bytes=8 * 1024**3, device="CUDA0")
    case = RUNS.cases[0]
    with_gpu = dataclasses.replace(case, machine_id="other", machine=make_machine(gpus=(gpu,)))
    doubt = [MemoryRegressor().fit([], np.empty(0)).predict([each])[1] for each in (case, with_gpu)]

    assert doubt[1] > 3 * doubt[0]


@pytest.mark.parametrize("model", MODELS)
def test_the_peak_grows_with_what_it_is_made_of(model: str) -> None:
    """With the context, the physical batch and the bytes of a cached element."""
    index = MODELS[model]
    shapes = itertools.product(("off", "on"), (True, False), (64, 600, 2000))
    for flash_attn, swa_full, n_prompt in shapes:
        base = like(index, n_ctx=4096, n_batch=2048, flash_attn=flash_attn, swa_full=swa_full)
        base = dataclasses.replace(base, workload=Workload(n_prompt=n_prompt, n_gen=4))

        def peaks(knob: str, *values: object, base: Case = base) -> np.ndarray:
            configs = [base.config.replace(**{knob: value}) for value in values]
            return FITTED.predict([dataclasses.replace(base, config=c) for c in configs])[0]

        assert np.all(np.diff(peaks("n_ctx", *range(2304, 9000, 256))) > 0)
        assert np.all(np.diff(peaks("n_ubatch", 16, 32, 64, 128, 256, 512, 1024, 2048)) >= 0)
        by_size = sorted(KV_BYTES_PER_ELEMENT, key=lambda name: KV_BYTES_PER_ELEMENT[name])
        assert np.all(np.diff(peaks("type_k", *by_size)) >= 0)


def test_threads_are_free() -> None:
    """Configurations that differ in nothing that takes memory have one peak."""
    cases = [like(0, n_threads=n, n_threads_batch=m) for n in (1, 2, 4) for m in (1, 8)]

    assert len(set(FITTED.predict(cases)[0])) == 1


def test_a_peak_that_fits_no_theory_widens_the_interval() -> None:
    """An engine that touches everything it reserved: the fit is poor, and says so."""
    full = np.array([float(plan_of(case).host_bytes) for case in RUNS.cases])
    wild = MemoryRuns(cases=RUNS.cases, peak_bytes=full)
    fitted = MemoryRegressor().fit(wild.cases, wild.peak_bytes)
    peak, ratio = fitted.predict(wild.cases)

    assert np.median(ratio) > 0.05
    assert wild.exceeded(peak, ratio * peak) < 0.2
    assert np.all(peak + Z_95 * ratio * peak > 0)


def test_depth_is_counted_with_its_copy() -> None:
    """A measured run keeps a copy of a depth's cache: 512 tokens of it."""
    shallow, deep = (
        make_case(
            RUNS.cases[0].machine, RUNS.cases[0].model, Config(n_ctx=4096),
            Workload(n_prompt=256, n_gen=4, n_depth=depth),
        )
        for depth in (0, 512)
    )  # fmt: skip
    before, after = FITTED.predict([shallow, deep])[0]

    assert after - before > 512 * 23_040
