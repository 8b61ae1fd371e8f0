"""The choice and its explanation."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from autotune.domain.config import Config
from autotune.domain.errors import NothingFitsError, UserError
from autotune.domain.machine import GPUFacts
from autotune.domain.prediction import Hardware, Target
from autotune.domain.quality import QualityCost
from autotune.domain.run import Reason
from autotune.domain.workload import Workload
from autotune.measure.simulated import SimulatedRunner
from autotune.predict.predictor import Predictor
from autotune.recommend.candidates import choose_n_ctx, search_space, thread_counts
from autotune.recommend.choose import recommend
from tests.factories import make_machine, make_model
from tests.simulation import DEFAULT, MACHINE, SMALL, TRUTH, WORKLOAD, make_cases, simulate

CASES = make_cases()
PLENTY = 8 * 1024**3


def truth_s(config: Config) -> float:
    """The true request time."""
    return SimulatedRunner(SMALL, TRUTH).request_s(config, WORKLOAD)


def test_with_enough_runs_the_best_configuration_is_chosen() -> None:
    """A tenth of the space measured: the choice is within 5 % of the best there is."""
    predictor = Predictor().fit(simulate(CASES[::10]))
    chosen = recommend(
        predictor, CASES, target=Target.BALANCED, default=DEFAULT, available_bytes=PLENTY
    )

    best = min(truth_s(case.config) for case in CASES)
    assert truth_s(chosen.config) <= best * 1.05


def test_every_changed_knob_has_a_reason_with_its_number() -> None:
    """A person sees what each change buys, and where that is known from."""
    predictor = Predictor().fit(simulate(CASES[::10]))
    chosen = recommend(
        predictor, CASES, target=Target.BALANCED, default=DEFAULT, available_bytes=PLENTY
    )
    changed = set(chosen.config.differences(DEFAULT)) - {"n_batch"}

    assert len(chosen.reasons) == max(len(changed), 1)
    for knob in changed:
        assert any(reason.startswith(f"{knob}=") for reason in chosen.reasons)
    assert all("×" in reason or "memory" in reason for reason in chosen.reasons)
    assert 0 < chosen.confidence <= 1


def test_ties_go_to_the_default() -> None:
    """Where nothing is faster by more than the noise, nothing is changed."""
    predictor = Predictor().fit(simulate(CASES[::5]))
    same = [
        dataclasses.replace(CASES[0], config=DEFAULT.replace(use_mmap=m)) for m in (False, True)
    ]
    chosen = recommend(
        predictor, same, target=Target.BALANCED, default=DEFAULT, available_bytes=PLENTY
    )

    assert chosen.config == DEFAULT
    assert chosen.reasons == ("the newcomer's default is already the best candidate",)


def test_no_candidate_uses_more_threads_than_it_may() -> None:
    """On a machine with a quota of one processor there is one thread count."""
    assert thread_counts(make_machine(n_usable=1)) == (1,)
    assert thread_counts(make_machine(n_usable=4)) == (1, 2, 3, 4)
    many = thread_counts(make_machine(n_usable=48, n_logical=64, n_physical=32))
    assert max(many) == 48
    assert 32 in many


@pytest.mark.parametrize(
    ("target", "n_ctx"), [(Target.SPEED, 2048), (Target.BALANCED, 4096), (Target.QUALITY, 8192)]
)
def test_the_context_follows_the_target_within_the_models_limit(target: Target, n_ctx: int) -> None:
    """A model trained for 8192 tokens never gets 16384."""
    assert choose_n_ctx(target, make_model(n_ctx_train=8192), WORKLOAD) == n_ctx


def test_the_context_holds_the_workload() -> None:
    """A longer request takes the target's next size, one beyond the model is refused."""
    long = Workload(n_prompt=3000, n_gen=500)

    assert choose_n_ctx(Target.SPEED, make_model(n_ctx_train=8192), long) == 4096
    with pytest.raises(UserError, match="trained for 2048"):
        choose_n_ctx(Target.SPEED, make_model(n_ctx_train=2048), long)


def test_gpu_layers_are_candidates_only_where_the_engine_has_a_gpu() -> None:
    """None, quarters and all; a driver without an engine for it is no GPU."""
    seen = GPUFacts(name="Card", total_bytes=24 * 1024**3)
    usable = dataclasses.replace(seen, device="CUDA0")

    def layers(gpus: tuple[GPUFacts, ...], hardware: Hardware) -> set[int]:
        space = search_space(
            make_model(),
            dataclasses.replace(MACHINE, gpus=gpus),
            default=DEFAULT,
            workload=WORKLOAD,
            hardware=hardware,
        )
        return {config.n_gpu_layers for config in space.configs() if config != DEFAULT}

    assert layers((usable,), Hardware.AUTO) == {0, 1, 2, 4, -1}
    assert layers((usable,), Hardware.GPU) == {1, 2, 4, -1}
    assert layers((seen,), Hardware.AUTO) == {0}
    assert layers((usable,), Hardware.CPU) == {0}
    with pytest.raises(NothingFitsError, match="no GPU that the engine can use"):
        layers((seen,), Hardware.GPU)


def test_confidence_is_the_same_for_the_same_seed() -> None:
    """Randomness is an argument."""
    predictor = Predictor().fit(simulate(CASES[::40]))
    again = [
        recommend(
            predictor,
            CASES,
            target=Target.BALANCED,
            default=DEFAULT,
            available_bytes=PLENTY,
            seed=7,
        ).confidence
        for _ in range(2)
    ]

    assert np.ptp(again) == 0


def test_an_alternative_gives_up_no_more_speed_than_it_must() -> None:
    """Threads save no memory: of all short contexts the fastest is named, and only once."""
    large = DEFAULT.replace(n_ctx=8192, n_threads=2, n_threads_batch=2)
    configs = [large] + [
        large.replace(n_ctx=1024, n_threads=threads, n_threads_batch=threads) for threads in (1, 2)
    ]
    cases = [dataclasses.replace(CASES[0], config=config) for config in configs]
    (other,) = recommend(
        Predictor().fit([]), cases, target=Target.BALANCED, default=large, available_bytes=PLENTY,
        chosen=0,
    ).alternatives  # fmt: skip

    assert other.prediction.config.n_threads == 2
    assert "less memory" in other.trade


def test_a_lossy_answer_says_what_it_costs() -> None:
    """Measured, or that nobody has; undoing flash attention undoes the cache that needs it."""
    lossy = DEFAULT.replace(flash_attn="on", type_k="q8_0", type_v="q8_0")
    cases = [CASES[0], dataclasses.replace(CASES[0], config=lossy)]
    cost = QualityCost(kl_mean=0.0038, kl_p99=0.016, top1_agreement=0.969, n_tokens=800)
    asked = {"target": Target.BALANCED, "default": DEFAULT, "available_bytes": PLENTY, "chosen": 1}
    told, untold = (
        recommend(Predictor().fit([]), cases, quality=quality, **asked).reasons  # type: ignore[arg-type]
        for quality in ({("q8_0", "q8_0"): cost}, {})
    )

    assert any(reason.startswith("flash_attn=on") for reason in told)
    assert "0.0038 nats per token" in told[-1]
    assert "96.9%" in told[-1]
    assert "autotune quality MODEL" in untold[-1]


def test_what_was_proven_is_explained_although_it_had_failed_before() -> None:
    """Crashes make it unlikely to run; the confirmation ran."""
    last = len(CASES) - 1
    crashed = [
        dataclasses.replace(observation, run_id=i, reason=Reason.CRASH)
        for i, observation in enumerate(simulate(CASES[-1:]) * 5)
    ]
    predictor = Predictor().fit(crashed)
    chosen = recommend(
        predictor,
        CASES,
        target=Target.BALANCED,
        default=DEFAULT,
        available_bytes=PLENTY,
        chosen=last,
    )

    assert predictor.forecast(CASES[-1:]).p_success[0] < 0.5
    assert chosen.config == CASES[last].config
    assert 0 <= chosen.confidence <= 1
