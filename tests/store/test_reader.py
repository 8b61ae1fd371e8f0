"""What is found again: tables of runs, and what a predictor learns from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from autotune.domain.conditions import Conditions, Contamination
from autotune.domain.config import Config
from autotune.domain.errors import UserError
from autotune.domain.machine import DiskFacts, DiskProbe
from autotune.domain.prediction import Target
from autotune.domain.run import Generation, Purpose, Reason
from autotune.domain.stored import StoredRecommendation
from autotune.domain.workload import Workload
from autotune.store.store import Store
from autotune.store.use import Ended, Generated, Loaded, Use
from tests.factories import make_generation, make_machine, make_model, make_run, make_trial
from tests.store import examples

CONFIG = make_trial().config


def test_a_stored_run_shows_medians(store: Store) -> None:
    """Over its repetitions; what was not measured is None."""
    token_ns = (10_000_000, 20_000_000, 40_000_000)
    generations = tuple(
        make_generation(repetition=i, token_ns=(ns,) * 4, ttft_ns=None)
        for i, ns in enumerate(token_ns)
    )
    examples.record(store, make_run(generations=generations))

    (stored,) = store.list_runs()
    assert stored.decode_tps == pytest.approx(50)
    assert stored.prefill_tps == pytest.approx(640)
    assert stored.ttft_s is None
    assert stored.load_s == pytest.approx(0.25)
    assert (stored.n_reps, stored.model_name, stored.build) == (3, "tiny", "0.3.36+0c1e57098")


def test_runs_are_listed_newest_first(store: Store) -> None:
    """Of one model or study, as many as asked for."""
    store.record_model(make_model(model_id="other"), examples.MODEL_PATH)
    study_id = examples.start_study(store)
    numbers = [
        examples.record(store),
        examples.record(store, study_id=study_id),
        examples.record(store, model_id="other"),
    ]

    def listed(**options: object) -> list[int]:
        return [run.run_id for run in store.list_runs(**options)]  # type: ignore[arg-type]

    assert listed() == numbers[::-1]
    assert listed(limit=1) == numbers[2:]
    assert listed(study_id=study_id) == numbers[1:2]
    assert listed(model_id="other") == numbers[2:]
    assert store.count_runs() == 3


def test_the_unknown_is_refused_with_a_cure(store: Store) -> None:
    """One line each."""
    with pytest.raises(UserError, match="no run 7: autotune runs lists them"):
        store.load_run(7)
    with pytest.raises(UserError, match="no run 7: autotune runs lists them"):
        store.observation(7)
    with pytest.raises(UserError, match="no study 7"):
        store.load_study(7)
    with pytest.raises(UserError, match="no machine x"):
        store.load_machine("x")
    with pytest.raises(UserError, match="no model x"):
        store.load_model("x")


def test_an_observation_has_all_that_a_predictor_learns_from(store: Store) -> None:
    """Facts, question and answer of one run."""
    run = make_run()
    run_id = examples.record(store, run)

    observation = store.observation(run_id)
    assert observation.machine == make_machine()
    assert observation.probe == store.load_probe(examples.MACHINE_ID)
    assert observation.model == make_model()
    assert observation.config == run.trial.config
    assert observation.workload == run.trial.workload
    assert observation.load == run.load
    assert observation.peak_rss_bytes == run.peak_rss_bytes
    assert observation.decode_tps == pytest.approx(100)
    assert store.observations() == (observation,)


def test_a_failure_teaches_under_the_workload_it_was_asked_for(store: Store) -> None:
    """Without rates: it generated nothing."""
    examples.record(store, make_run(reason=Reason.OOM, generations=(), build=None, load=None))

    (observation,) = store.observations()
    assert observation.reason is Reason.OOM
    assert observation.workload == make_trial().workload
    assert (observation.decode_tps, observation.load, observation.build) == (None, None, "")


def test_only_what_says_something_is_learnt_from(store: Store) -> None:
    """Open, cancelled and interrupted runs are left out, however they were closed."""
    examples.begin(store)
    for reason in (Reason.CANCELLED, Reason.INTERRUPTED):
        examples.record(store, make_run(reason=reason, generations=()))
    store.cancel_run(examples.begin(store))
    kept = [
        examples.record(store),
        examples.record(store, make_run(reason=Reason.TIMEOUT, generations=())),
    ]

    assert [observation.run_id for observation in store.observations()] == kept


def test_results_of_another_procedure_are_not_mixed_in(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are listed, and not learnt from."""
    monkeypatch.setattr("autotune.store.run_rows.MEASURE_VERSION", 0)
    examples.record(store)

    assert store.observations() == ()
    assert store.count_runs() == 1


def test_observations_can_be_of_one_machine_and_backend(store: Store) -> None:
    """Both filters, alone and together."""
    store.record_machine("other", make_machine(cpu="Other"))
    here = examples.record(store)
    there = examples.record(store, machine_id="other", backend="llama-server")

    def found(**options: str) -> list[int]:
        return [observation.run_id for observation in store.observations(**options)]

    assert found() == [here, there]
    assert found(machine_id="other") == [there]
    assert found(backend=examples.BACKEND) == [here]
    assert found(machine_id="other", backend=examples.BACKEND) == []


def test_equal_facts_are_one_instance(store: Store) -> None:
    """Ten thousand observations hold one machine, not ten thousand."""
    for _ in range(2):
        examples.record(store)

    first, second = store.observations()
    assert first.machine is second.machine
    assert first.model is second.model
    assert first.config is second.config
    assert first.workload is second.workload


def test_many_runs_take_no_more_queries_than_few(store: Store) -> None:
    """What is asked of the database does not grow with what is in it."""
    queries: list[str] = []
    event.listen(
        store.database.reader, "before_cursor_execute", lambda *call: queries.append(call[2])
    )

    def count() -> int:
        queries.clear()
        store.observations()
        store.list_runs()
        return len(queries)

    examples.record(store)
    few = count()
    for n_threads in range(1, 20):
        trial = make_trial(config=make_trial().config.replace(n_threads=n_threads))
        examples.record(store, make_run(trial=trial))

    assert count() == few


def test_each_workload_of_a_run_is_an_observation(store: Store) -> None:
    """Medians never mix two workloads."""
    long = Workload(n_prompt=640, n_gen=4)
    generations = (make_generation(), make_generation(workload=long))
    run_id = examples.record(store, make_run(generations=generations))

    found = {observation.workload: observation for observation in store.observations()}
    rates = {workload: observation.prefill_tps for workload, observation in found.items()}
    assert rates == {make_trial().workload: pytest.approx(640), long: pytest.approx(6400)}
    largest, smaller = found[long], found[make_trial().workload]
    assert (largest.counts, largest.load, largest.peak_rss_bytes) == (
        True, make_run().load, make_run().peak_rss_bytes,
    )  # fmt: skip
    assert (smaller.counts, smaller.load, smaller.peak_rss_bytes) == (False, None, None)
    assert store.observation(run_id) == largest


def use(store: Store, *sizes: tuple[int, int, int], **changes: Any) -> int:
    """Record a run of ordinary use with generations of these (n_prompt, n_gen, n_depth)."""
    generations = tuple(
        make_generation(
            workload=Workload(n_prompt=n_prompt, n_gen=n_gen, n_depth=n_depth),
            repetition=i,
            token_ns=(10_000_000,) * n_gen,
        )
        for i, (n_prompt, n_gen, n_depth) in enumerate(sizes)
    )
    trial = make_trial(purpose=Purpose.USER)
    return examples.record(store, make_run(trial=trial, generations=generations, **changes))


def test_ordinary_use_is_grouped_by_size(store: Store) -> None:
    """No two requests are alike: those of about a size are; what is too short tells nothing."""
    use(store, (500, 100, 0), (520, 120, 20), (3, 200, 900), (500, 5, 0), (2, 3, 0))

    found = {seen.workload: seen for seen in store.observations()}
    read = Workload(n_prompt=512, n_gen=128)
    went_on = Workload(n_prompt=4, n_gen=256, n_depth=1024)
    short = Workload(n_prompt=512, n_gen=4)
    assert set(found) == {read, went_on, short}
    assert found[read].prefill_tps == pytest.approx(5100)
    assert found[went_on].prefill_tps is None
    assert found[went_on].decode_tps == pytest.approx(100)
    assert found[short].decode_tps is None
    assert [workload for workload, seen in found.items() if seen.counts] == [went_on]


def test_a_long_use_teaches_as_much_as_a_few_measured_runs(store: Store) -> None:
    """Its commonest sizes and its newest generations; a thousand more change nothing."""
    sizes = [(2**i, 32, 0) for i in range(5, 16)]
    use(store, *(size for size in sizes for _ in range(3)), *[(100, 32, 0)] * 300)

    found = store.observations()
    assert [seen.workload for seen in found] == [Workload(n_prompt=128, n_gen=32)]
    use(store, *(size for size in sizes for _ in range(3)))
    assert len(store.observations()) == 1 + 8


def test_a_table_shows_what_a_model_was_used_for_most(store: Store) -> None:
    """Its commonest size with its rates, and how many generations there were."""
    use(store, (500, 100, 0), (64, 32, 0), (60, 31, 0))

    (stored,) = store.list_runs()
    assert (stored.workload, stored.n_reps) == (Workload(n_prompt=64, n_gen=32), 3)
    assert stored.decode_tps == pytest.approx(100)
    assert store.load_run(stored.run_id).summary == stored


@pytest.mark.parametrize("reason", [Reason.INTERRUPTED, Reason.CANCELLED])
def test_use_that_was_cut_short_teaches_all_the_same(store: Store, reason: Reason) -> None:
    """Somebody closed the application: what it generated, it generated; memory may grow yet."""
    use(store, (64, 32, 0), reason=reason)
    examples.record(store, make_run(reason=reason, trial=make_trial(purpose=Purpose.USER),
                                    load=None, generations=()))  # fmt: skip

    (seen,) = store.observations()
    assert (seen.reason, seen.decode_tps) == (None, pytest.approx(100))
    assert (seen.load, seen.peak_rss_bytes) == (make_run().load, None)


def test_the_fingerprint_follows_use_from_afar(store: Store) -> None:
    """At 1, 4, 16 … generations and at the end: a predictor that refits at each does no more."""
    generation = make_generation(workload=Workload(n_prompt=64, n_gen=32))
    run = make_run(trial=make_trial(purpose=Purpose.USER), generations=())
    loaded = Loaded(run=run, machine_id=examples.MACHINE_ID, model_id=examples.MODEL_ID)
    run_id, seen = None, [store.fingerprint()]
    for i in range(20):
        new = Generated(generation=generation, repetition=i, ended_at=examples.epoch())
        run_id = store.record_use(Use(loaded=loaded, generations=(new,)), run_id=run_id)
        seen.append(store.fingerprint())
    store.record_use(Use(loaded=loaded, ending=Ended(run=run, at=examples.epoch())), run_id=run_id)
    seen.append(store.fingerprint())

    changes = [i for i in range(1, len(seen)) if seen[i] != seen[i - 1]]
    assert changes == [1, 4, 16, 21]


def test_the_disk_of_a_model_is_kept_with_its_place(store: Store) -> None:
    """Read rates come back; a place that nobody probed has none; runs know their disk."""
    examples.record(store)
    trial = make_run().trial
    model_id = make_model().model_id
    assert store.load_disk(model_id, trial.model_path) is None
    probe = DiskProbe(cached_bytes_per_s=12e9, disk_bytes_per_s=None)
    store.record_disk(model_id, trial.model_path, DiskFacts(mount="/", kind="ssd"), probe)

    assert store.load_disk(model_id, trial.model_path) == probe
    assert store.load_disk(model_id, Path("elsewhere.gguf")) is None
    (observation,) = store.observations()
    assert observation.disk == probe


def spoiled(n_clean: int, n_dirty: int) -> tuple[Generation, ...]:
    """Clean samples at 100 tokens per second, then contaminated ones at 5."""
    clean = [make_generation(repetition=i) for i in range(n_clean)]
    dirty = [
        make_generation(
            repetition=n_clean + i,
            token_ns=(200_000_000,) * 4,
            conditions=Conditions(foreign_cpu_ratio=0.5),
        )
        for i in range(n_dirty)
    ]
    return (*clean, *dirty)


@pytest.mark.parametrize(
    ("n_clean", "n_dirty", "contaminated", "decode_tps"),
    [(3, 5, False, 100), (1, 4, True, 100), (0, 3, True, 5)],
)
def test_rates_are_those_of_the_clean_samples(
    store: Store, n_clean: int, n_dirty: int, contaminated: bool, decode_tps: float
) -> None:
    """In tables and lessons as in the run's own summary; too few of them mark the run."""
    run = make_run(generations=spoiled(n_clean, n_dirty))
    run_id = examples.record(store, run)

    (stored,), (observation,) = store.list_runs(), store.observations()
    assert run.measurement is not None
    assert run.measurement.decode_tps is not None
    assert stored.decode_tps == pytest.approx(decode_tps)
    assert observation.decode_tps == pytest.approx(run.measurement.decode_tps.median)
    assert observation.contaminated is contaminated
    assert store.load_run(run_id).run == run


def test_an_observation_tells_the_conditions_that_a_predictor_may_use(store: Store) -> None:
    """Heat in steps of ten degrees, the power source, and whether the load was disturbed."""
    conditions = Conditions(cpu_celsius_max=78.4, on_ac=False, foreign_cpu_ratio=0.01)
    examples.record(
        store, make_run(conditions=conditions, load_contamination=(Contamination.SWAP,))
    )
    examples.record(store, make_run(conditions=Conditions()))

    told, untold = store.observations()
    assert (told.temperature_bucket, told.on_ac, told.foreign_cpu_ratio) == (70, False, 0.01)
    assert (told.contaminated, told.load_contaminated) == (False, True)
    assert (untold.temperature_bucket, untold.on_ac, untold.foreign_cpu_ratio) == (None, None, None)
    assert not untold.load_contaminated


def advise(store: Store, *, config: Config = CONFIG, **options: Any) -> int:
    """Record advice, by default for the example model on the example machine."""
    where = {"machine_id": examples.MACHINE_ID, "model_id": examples.MODEL_ID}
    prediction = examples.make_prediction(config=config)
    return store.record_recommendation(
        examples.make_recommendation(prediction=prediction), **{**where, **options}
    )


def advised(store: Store) -> StoredRecommendation | None:
    """What is found for the example model on the example machine."""
    return store.find_recommendation(machine_id=examples.MACHINE_ID, model_id=examples.MODEL_ID)


def test_the_newest_advice_is_found(store: Store, clock: examples.Clock) -> None:
    """With all that was said; of another machine or model it says nothing."""
    store.record_machine("other", make_machine(cpu="Other"))
    store.record_model(make_model(model_id="other"), examples.MODEL_PATH)
    advise(store, machine_id="other")
    advise(store, model_id="other")
    assert advised(store) is None
    advise(store)
    clock.advance(60)
    config = CONFIG.replace(n_threads=7, tensor_split=(3.0, 1.0))
    newest = advise(store, config=config)

    found = advised(store)
    assert found is not None
    assert (found.recommendation_id, found.config) == (newest, config)
    assert (found.workload, found.target) == (make_trial().workload, Target.SPEED)
    assert (found.backend, found.confidence) == (examples.BACKEND, 0.8)
    assert found.reasons == ("measured", "fits")
    assert (found.study_id, found.speedup, found.is_measured) == (None, None, False)
    assert found.made_at == clock()


@pytest.mark.parametrize("speedup", [1.0, None])
def test_what_a_study_ended_with_comes_before_what_was_only_predicted(
    store: Store, speedup: float | None
) -> None:
    """However new the prediction; of studies the newest, even if the default does not run there."""
    study_id = examples.start_study(store)
    advise(store, study_id=study_id, speedup=1.4)
    newest = advise(store, study_id=study_id, speedup=speedup)
    advise(store)

    found = advised(store)
    assert found is not None
    assert (found.recommendation_id, found.speedup) == (newest, speedup)
    assert found.is_measured
