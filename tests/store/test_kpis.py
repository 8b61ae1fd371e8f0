"""Each figure against rows whose answer is known by hand."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.dialects import postgresql

from autotune.domain.conditions import Conditions
from autotune.domain.run import Generation, LoadTime, Purpose, Reason, Run
from autotune.domain.workload import Workload
from autotune.store.kpis import QUERIES, Kpis, Scope
from autotune.store.store import Store
from autotune.store.use import Ended, Generated, Loaded, Use
from tests.factories import make_generation, make_machine, make_model, make_run, make_trial
from tests.store import examples


def answer(n_gen: int = 20, *, token_ms: float = 10, **changes: Any) -> Generation:
    """64 prompt tokens in 0.1 s, then some tokens, each as long."""
    workload = Workload(n_prompt=64, n_gen=n_gen)
    ns = (int(token_ms * 1e6),) * n_gen
    return make_generation(**{"workload": workload, "token_ns": ns, **changes})


def used(**changes: Any) -> Run:
    """A model that an application loaded."""
    trial = make_trial(model_path=examples.MODEL_PATH, purpose=Purpose.USER)
    return make_run(**{"trial": trial, "generations": (), "elapsed_s": 0.25, **changes})


def use(store: Store, *generations: Generation, run: Run | None = None, **options: Any) -> int:
    """A load by an application, its generations, and its end where the load succeeded."""
    run = run or used()
    at = options.pop("ended_at", run.started_at)
    where = {"machine_id": examples.MACHINE_ID, "model_id": examples.MODEL_ID}
    new = (
        Generated(generation=generation, repetition=i, ended_at=at)
        for i, generation in enumerate(generations)
    )
    ending = Ended(run=run, at=at) if run.ok else None
    loaded = Loaded(run=run, **{**where, **options})
    return store.record_use(Use(loaded=loaded, generations=tuple(new), ending=ending), run_id=None)


def load_of(seconds: float) -> LoadTime:
    """So many seconds in all."""
    return LoadTime(model_s=seconds - 0.02, context_s=0.01, first_eval_s=0.01)


def values(found: Kpis) -> dict[str, float | None]:
    """Figure → value."""
    return {field.name: getattr(found, field.name).value for field in dataclasses.fields(found)}


def test_of_nothing_nothing_is_known(store: Store) -> None:
    """No figure is 0 for want of rows; measured runs are no use."""
    examples.record(store)

    found = store.kpis()
    assert set(values(found).values()) == {None}
    assert found.load_s.n == 0
    assert set(QUERIES) == set(values(found))


def test_load_time_is_the_median_of_loads_that_succeeded(store: Store) -> None:
    """Two in the middle: their mean."""
    for seconds in (0.1, 0.2, 0.4, 5.0):
        use(store, run=used(load=load_of(seconds)))
    use(store, run=used(load=None, reason=Reason.OOM))

    found = store.kpis().load_s
    assert (found.value, found.unit, found.n) == (pytest.approx(0.3), "s", 4)


def test_load_success_counts_loads(store: Store) -> None:
    """Three of four: one ran out of memory; a crash later and a stopped load are no failed load."""
    use(store)
    use(store)
    use(store, run=used(load=None, reason=Reason.OOM))
    use(store, run=used(load=None, reason=Reason.CANCELLED))
    crashed = use(store, answer())
    with store.database.write() as session:
        session.execute(
            text("UPDATE load_run SET state = 'failed', reason = 'crash' WHERE run_id = :id"),
            {"id": crashed},
        )

    found = store.kpis().load_success_ratio
    assert (found.value, found.n) == (0.75, 4)


def test_memory_at_the_load_is_not_the_peak_of_the_run(store: Store) -> None:
    """The final peak is larger, and is another figure."""
    run_id = use(store, run=used(peak_rss_bytes=50_000_000))
    later = used(peak_rss_bytes=90_000_000)
    loaded = Loaded(run=later, machine_id=examples.MACHINE_ID, model_id=examples.MODEL_ID)
    store.record_use(
        Use(loaded=loaded, ending=Ended(run=later, at=later.started_at)), run_id=run_id
    )

    found = store.kpis().load_memory_bytes
    assert (found.value, found.unit, found.n) == (50_000_000, "bytes", 1)


def test_what_a_failed_load_took_is_no_models_memory(store: Store) -> None:
    """It was stopped half-way, or far above; a model that died later was loaded."""
    weights = make_model().weight_bytes
    use(store, run=used(peak_rss_bytes=2 * weights))
    use(store, run=used(peak_rss_bytes=4 * weights, reason=Reason.CRASH))
    for reason in (Reason.OOM, Reason.CANCELLED):
        use(store, run=used(peak_rss_bytes=8 * weights, load=None, reason=reason))

    found = store.kpis()
    assert (found.load_memory_bytes.value, found.load_memory_bytes.n) == (3 * weights, 2)
    efficiency = found.memory_efficiency_ratio
    assert (efficiency.value, efficiency.n) == (pytest.approx(0.375), 2)


def test_tokens_per_second_are_tokens_over_seconds(store: Store) -> None:
    """10 tokens in 0.1 s and 90 in 3.9 s: 25 per second, not the mean of 100 and 23."""
    use(store, answer(10, token_ms=10), answer(90, token_ms=3900 / 90))

    found = store.kpis().decode_tps
    assert (found.value, found.unit, found.n) == (pytest.approx(25, rel=1e-6), "tok/s", 2)


def test_first_token_and_response_are_medians(store: Store) -> None:
    """Of three answers the middle one; prompt and tokens together are the response."""
    use(store, *(answer(n, ttft_ns=n * 10**7) for n in (10, 20, 300)))

    found = store.kpis()
    assert (found.ttft_s.value, found.ttft_s.n) == (pytest.approx(0.2), 3)
    assert (found.response_s.value, found.response_s.n) == (pytest.approx(0.1 + 0.2), 3)


def test_gpu_utilisation_is_that_of_generations_that_used_one(store: Store) -> None:
    """The third told nothing, which is not idle."""
    use(store, *(answer(conditions=Conditions(gpu_utilisation_ratio=r)) for r in (0.5, 0.9, None)))

    found = store.kpis().gpu_utilisation_ratio
    assert (found.value, found.n) == (pytest.approx(0.7), 2)


def test_memory_efficiency_is_weights_over_the_peak(store: Store) -> None:
    """In memory and on the GPU together."""
    weights = make_model().weight_bytes
    use(store, run=used(peak_rss_bytes=4 * weights))
    use(store, run=used(peak_rss_bytes=None))

    found = store.kpis().memory_efficiency_ratio
    assert (found.value, found.n) == (pytest.approx(0.25), 1)


def test_backend_switches_follow_the_order_of_loads(store: Store) -> None:
    """a b b a on one machine: two switches in three; another machine's loads do not interfere."""
    store.record_machine("other", make_machine(cpu="Other"))
    for i, backend in enumerate(("a", "b", "b", "a")):
        at = examples.epoch() + timedelta(minutes=i)
        use(store, run=used(backend=backend, started_at=at))
        use(store, run=used(backend="c", started_at=at), machine_id="other")

    here = store.kpis(Scope(machine_id=examples.MACHINE_ID)).backend_switch_ratio
    everywhere = store.kpis().backend_switch_ratio
    assert (here.value, here.n) == (pytest.approx(2 / 3), 3)
    assert (everywhere.value, everywhere.n) == (pytest.approx(2 / 6), 6)


def advise(store: Store, **options: Any) -> int:
    """Record advice for the example model."""
    confidence = options.pop("confidence", 0.8)
    return store.record_recommendation(
        examples.make_recommendation(confidence=confidence),
        machine_id=examples.MACHINE_ID,
        model_id=examples.MODEL_ID,
        **options,
    )


def test_confidence_and_cache_hits_are_of_recommendations(store: Store) -> None:
    """A study's answer is no hit and no miss."""
    advise(store, confidence=0.5, cached=True)
    advise(store, confidence=0.9, cached=True)
    advise(store, confidence=1.0, cached=False)
    advise(store, confidence=0.8)

    found = store.kpis()
    assert (found.confidence_ratio.value, found.confidence_ratio.n) == (pytest.approx(0.8), 4)
    assert (found.cache_hit_ratio.value, found.cache_hit_ratio.n) == (pytest.approx(2 / 3), 3)


def test_advice_is_followed_by_the_same_backend_and_configuration(store: Store) -> None:
    """One followed it, one took another backend, one other knobs; one had none."""
    advice = advise(store)
    config = make_trial().config.replace(n_threads=1)
    other = make_trial(model_path=examples.MODEL_PATH, purpose=Purpose.USER, config=config)
    use(store, recommendation_id=advice)
    use(store, run=used(backend="another"), recommendation_id=advice)
    use(store, run=used(trial=other), recommendation_id=advice)
    use(store)

    found = store.kpis().followed_ratio
    assert (found.value, found.n) == (pytest.approx(1 / 3), 3)


def test_improvement_is_the_later_half_over_the_earlier(store: Store) -> None:
    """40 ms a token, then 20: twice as fast. A model that was loaded once tells nothing.

    Guesses make an answer faster, and not the engine.
    """
    store.record_model(make_model(model_id="once"), examples.MODEL_PATH)
    use(store, answer(20), model_id="once")
    for i, token_ms in enumerate((40, 40, 20, 20)):
        at = examples.epoch() + timedelta(minutes=i)
        guessed = answer(20, token_ms=1, n_drafted=8)
        use(store, answer(20, token_ms=token_ms), answer(2), guessed, run=used(started_at=at))

    found = store.kpis().improvement_ratio
    assert (found.value, found.n) == (pytest.approx(2), 1)


def test_figures_are_of_a_model_and_of_a_time(store: Store) -> None:
    """A model that was loaded long ago and generates today counts for today's generations."""
    store.record_model(make_model(model_id="other"), examples.MODEL_PATH)
    today = examples.epoch() + timedelta(days=3)
    use(store, answer(token_ms=10), ended_at=examples.epoch())
    use(store, answer(token_ms=20), ended_at=today)
    use(store, answer(token_ms=40), ended_at=examples.epoch(), model_id="other")

    def rate(**scope: Any) -> float | None:
        return store.kpis(Scope(**scope)).decode_tps.value

    assert rate(since=today) == pytest.approx(50)
    assert store.kpis(Scope(since=today)).load_s.value is None
    assert rate(model_id="other") == pytest.approx(25)
    assert rate(model_id="nobody") is None
    assert rate(machine_id="nobody") is None


def test_what_was_taken_back_does_not_count(store: Store) -> None:
    """The machine had drifted, or somebody cleared what was learned."""
    store.discard_runs([use(store, answer())])

    assert set(values(store.kpis()).values()) == {None}


@pytest.mark.parametrize("name", QUERIES)
def test_every_query_is_one_select_of_both_databases(name: str) -> None:
    """Nothing in it is SQLite's own."""
    _, meaning, query = QUERIES[name]
    scope = Scope(machine_id="m", model_id="n", since=examples.epoch())
    words = str(query(scope).compile(dialect=postgresql.dialect()))

    assert words.startswith("SELECT")
    assert ";" not in words
    assert meaning
    assert query.__doc__
