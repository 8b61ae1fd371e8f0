"""The choice among backends, on a simulated machine whose truth is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest

from autotune.domain.errors import NothingFitsError
from autotune.domain.prediction import Evidence, Target
from autotune.domain.run import Purpose, Reason
from autotune.domain.stored import RunState, StoredRun
from autotune.domain.study import Observation
from autotune.features.case import Case
from autotune.predict.predictor import Predictor
from autotune.recommend.backend_history import BackendHistory, read_history
from autotune.recommend.selection import BackendSelection, Offer, select_backend
from tests.factories import STARTED_AT
from tests.simulation import DEFAULT, MACHINE, SMALL, WORKLOAD, make_cases, scaled_model, simulate

PLENTY = 8 * 1024**3
CASES = make_cases()[::40]
LLAMA, SERVER, TRANSFORMERS = "llama-cpp-python", "llama-server", "transformers"


def cases_of(backend: str, cases: Sequence[Case] = CASES) -> tuple[Case, ...]:
    """The candidates of one backend."""
    return tuple(dataclasses.replace(case, backend=backend) for case in cases)


def ran(
    backend: str, cases: Sequence[Case] = CASES, *, seed: int = 0, slower: float = 1.0
) -> list[Observation]:
    """Runs of candidates by a backend that takes so many times the simulated time."""
    return [
        dataclasses.replace(
            o,
            run_id=o.run_id + 1000 * seed,
            backend=backend,
            prefill_tps=(o.prefill_tps or 0) / slower,
            decode_tps=(o.decode_tps or 0) / slower,
        )
        for o in simulate(cases, seed=seed)
    ]


def offers(predictor: Predictor, *backends: str) -> list[Offer]:
    """Installed backends that may all be chosen."""
    return [
        Offer(
            backend=backend,
            build="1",
            predictor=predictor,
            cases=cases_of(backend),
            available_bytes=PLENTY,
        )
        for backend in backends
    ]


def select(
    offered: Sequence[Offer], history: dict[str, BackendHistory] | None = None, **priorities: int
) -> BackendSelection:
    """The choice for a balanced target."""
    return select_backend(offered, history or {}, target=Target.BALANCED, priorities=priorities)


def stored(
    backend: str, run_id: int, reason: Reason | None = None, *, message: str = "", build: str = "1"
) -> StoredRun:
    """One finished run of the small model."""
    return StoredRun(
        run_id=run_id,
        study_id=None,
        machine_id="m",
        model_id=SMALL.model_id,
        model_name=SMALL.name,
        backend=backend,
        build=build,
        config=DEFAULT,
        workload=WORKLOAD,
        purpose=Purpose.PROBE,
        state=RunState.FAILED if reason else RunState.COMPLETE,
        started_at=STARTED_AT,
        reason=reason,
        message=message,
    )


def histories(*runs: StoredRun) -> dict[str, BackendHistory]:
    """What stored runs, newest first, say of each backend."""
    return read_history(runs, machine_id="m")


def test_the_faster_of_two_measured_backends_is_chosen_with_its_figures() -> None:
    """The reasons name what was measured, and how often."""
    predictor = Predictor().fit([*ran(LLAMA), *ran(TRANSFORMERS, slower=3)])
    selection = select(offers(predictor, TRANSFORMERS, LLAMA))
    first, second = selection.ranking

    assert selection.chosen.backend == first.name == LLAMA
    assert any("measured once here" in reason for reason in first.reasons)
    assert any("the time of llama-cpp-python" in reason for reason in second.reasons)
    assert first.confidence > 0.95
    assert second.confidence < 0.05
    assert selection.chosen.reasons[: len(first.reasons)] == first.reasons


def test_a_wide_interval_does_not_win() -> None:
    """What was never run here is not chosen for its median; the run that settles it is named."""
    predictor = Predictor().fit(ran(TRANSFORMERS, slower=1.7))
    selection = select(offers(predictor, LLAMA, TRANSFORMERS))
    first, second = selection.ranking

    assert first.name == TRANSFORMERS
    assert second.time_s < first.time_s, "its median promises more"
    assert second.recommendation is not None
    assert second.recommendation.prediction.evidence is not Evidence.MEASURED
    assert any("autotune bench MODEL --backend llama-cpp-python" in line for line in second.reasons)


def test_a_wide_interval_wins_where_its_worst_is_better() -> None:
    """Pessimism is no prejudice: the one that was measured is far behind."""
    predictor = Predictor().fit(ran(TRANSFORMERS, slower=30))

    assert select(offers(predictor, TRANSFORMERS, LLAMA)).chosen.backend == LLAMA


def test_ties_go_by_the_guides_order() -> None:
    """Nothing was run: llama.cpp is llama.cpp; unknown names come last."""
    predictor = Predictor().fit([])
    names = [SERVER, LLAMA, "llamafile"]
    selection = select(offers(predictor, *names))

    assert [v.name for v in selection.ranking] == ["llamafile", LLAMA, SERVER]
    assert "comes first in the order of backends" in selection.ranking[1].reasons[-1]


def test_priorities_go_before_the_guides_order() -> None:
    """And decide nothing but ties."""
    predictor = Predictor().fit([])
    tied = select(offers(predictor, SERVER, LLAMA, "llamafile"), **{SERVER: -1, "llamafile": 1})
    assert [v.name for v in tied.ranking] == [SERVER, LLAMA, "llamafile"]

    measured = Predictor().fit([*ran(LLAMA), *ran(SERVER, slower=2, seed=1)])
    assert select(offers(measured, SERVER, LLAMA), **{SERVER: -1}).chosen.backend == LLAMA


def test_an_engine_that_unpacks_the_file_reads_more_of_it() -> None:
    """Without a single run transformers is expected behind llama.cpp, and larger."""
    predictor = Predictor().fit([])
    first, second = select(offers(predictor, TRANSFORMERS, LLAMA)).ranking

    assert (first.name, second.name) == (LLAMA, TRANSFORMERS)
    assert second.peak_bytes > 3.9 * SMALL.n_params
    assert second.time_s > 2 * first.time_s


def test_a_model_that_a_backend_does_not_know_is_learned() -> None:
    """One refused run: not chosen again, with the engine's words; the predictor knows it too."""
    refused = dataclasses.replace(
        ran("ctransformers", CASES[:1])[0],
        reason=Reason.UNSUPPORTED, prefill_tps=None, decode_tps=None,
    )  # fmt: skip
    predictor = Predictor().fit([refused, *ran(LLAMA, CASES[:1], seed=1)])
    history = histories(
        stored("ctransformers", 7, Reason.UNSUPPORTED, message="unknown\nmodel architecture")
    )
    selection = select(offers(predictor, "ctransformers", LLAMA), history)
    last = selection.ranking[-1]

    assert selection.chosen.backend == LLAMA
    assert (last.name, last.is_usable, last.is_final) == ("ctransformers", False, True)
    assert last.reasons == ("does not know this model (run 7): unknown model architecture",)
    forecast = predictor.forecast([*cases_of("ctransformers"), *cases_of(LLAMA)])
    assert forecast.p_success[: len(CASES)].max() < 0.05
    assert forecast.p_success[len(CASES) :].min() > 0.8


def test_another_build_may_know_what_the_last_one_did_not() -> None:
    """The refusal is the build's, not the backend's."""
    refusal = stored("ctransformers", 7, Reason.UNSUPPORTED, build="0")
    history = histories(refusal)["ctransformers"]

    assert history.refused_by("1") is None
    assert history.refused_by("0") == history.refused_by("") == refusal


def test_what_is_refused_of_a_model_that_ran_is_a_knob() -> None:
    """A success outweighs it."""
    history = histories(stored(LLAMA, 8, Reason.UNSUPPORTED), stored(LLAMA, 7))[LLAMA]

    assert history.refused_by("1") is None


def test_a_model_of_a_refused_architecture_is_presumed_unknown() -> None:
    """Not chosen, and not final: one run may show that it was something else."""
    other = scaled_model("other", 50)
    case = dataclasses.replace(CASES[0], backend="ctransformers", model=other)
    refused = dataclasses.replace(ran("ctransformers", [case])[0], reason=Reason.UNSUPPORTED)
    selection = select(offers(Predictor().fit([refused]), "ctransformers", LLAMA))
    last = selection.ranking[-1]

    assert (last.name, last.is_usable, last.is_final) == ("ctransformers", False, False)
    assert "another model of the architecture llama" in last.reasons[0]


def test_a_backend_that_fails_is_no_choice_after_two_runs() -> None:
    """One crash doubles its expected time, two rule it out."""
    predictor = Predictor().fit([])
    crashes = [stored("llamafile", n, Reason.CRASH, message="killed by SIGILL") for n in (9, 8)]
    once = select(offers(predictor, "llamafile", LLAMA), histories(crashes[0]))
    twice = select(offers(predictor, "llamafile", LLAMA), histories(*crashes))

    assert once.chosen.backend == twice.chosen.backend == LLAMA
    assert [v.is_usable for v in once.ranking] == [True, True]
    assert once.ranking[1].score_s == pytest.approx(2 * once.ranking[0].score_s, rel=0.1)
    assert any("1 of 1 runs of this model failed" in line for line in once.ranking[1].reasons)
    assert not twice.ranking[1].is_usable
    assert "killed by SIGILL" in twice.ranking[1].reasons[0]


def test_running_out_of_memory_is_the_configurations_fault() -> None:
    """It does not make a backend less reliable."""
    history = histories(stored(LLAMA, 9, Reason.OOM), stored(LLAMA, 8, Reason.CONSTRAINT))[LLAMA]

    assert history.reliability("1") == 1
    assert history.n_failed == 2


def test_runs_of_other_machines_and_stopped_ones_are_no_history() -> None:
    """Nor those that were taken back."""
    stranger = dataclasses.replace(stored(LLAMA, 1, Reason.CRASH), machine_id="other")
    stopped = stored(LLAMA, 2, Reason.CANCELLED)
    taken_back = dataclasses.replace(stored(LLAMA, 3), discarded_at=STARTED_AT)

    assert histories(stranger, stopped, taken_back) == {}


def test_where_nothing_can_be_used_one_line_says_why() -> None:
    """Each backend with its reason and its cure."""
    missing = [
        Offer(
            backend="llamafile", problem="put it on PATH or name it with AUTOTUNE_LLAMAFILE=FILE"
        ),
        Offer(backend=TRANSFORMERS, problem="pip install transformers"),
    ]
    tiny = dataclasses.replace(offers(Predictor().fit([]), LLAMA)[0], available_bytes=10**6)
    with pytest.raises(NothingFitsError, match="no backend can be used: llamafile: put it") as told:
        select([*missing, tiny])

    assert "pip install transformers; llama-cpp-python: nothing fits" in str(told.value)
    assert "\n" not in str(told.value)


def test_a_backend_without_the_gpu_that_is_wanted_is_not_chosen() -> None:
    """Its problem is why; the other one is the only choice, and says so."""
    predictor = Predictor().fit([])
    no_gpu = Offer(backend=LLAMA, problem="no GPU that the engine can use")
    selection = select([no_gpu, *offers(predictor, SERVER)])

    assert selection.chosen.backend == SERVER
    assert "llama-server: the only backend that can be used here" in selection.chosen.reasons
    assert selection.ranking[1].reasons == ("no GPU that the engine can use",)


def test_a_slow_load_counts_by_its_share() -> None:
    """Twenty requests share a load: 20 s of it cost a request of 1 s as much again."""
    quick, slow = ran(LLAMA, slower=1.02), ran(SERVER)
    slow = [
        dataclasses.replace(o, load=dataclasses.replace(o.load, model_s=o.load.model_s + 60))
        for o in slow
        if o.load
    ]
    selection = select(offers(Predictor().fit([*quick, *slow]), LLAMA, SERVER))

    assert selection.chosen.backend == LLAMA
    assert MACHINE.gpus == ()
