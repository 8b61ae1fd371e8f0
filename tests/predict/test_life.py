"""The life of a predictor: kept, asked, adapted, replaced, refused."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select, update

from autotune.domain.errors import DataError
from autotune.domain.run import Purpose
from autotune.domain.study import Observation
from autotune.measure.simulated import SimulatedRunner
from autotune.predict import life
from autotune.predict.life import current_predictor, judge
from autotune.predict.predictor import Predictor
from autotune.predict.state import dump_predictor, load_predictor
from autotune.store.store import Store
from autotune.store.tables import PredictorRow
from autotune.tune.recording import RecordedRunner
from tests.simulation import (
    MACHINE,
    PROBE,
    TRUTH,
    make_cases,
    make_subject,
    scaled_model,
    simulate,
)

MODELS = [scaled_model(str(i), 40 * 2**i) for i in range(4)]
CASES = make_cases()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store that knows the simulated machine."""
    with Store.open(tmp_path / "store.db", now=lambda: datetime.now(UTC)) as store:
        store.record_machine("m", MACHINE)
        store.record_probe("m", PROBE)
        yield store


def run(store: Store, *, n_runs: int, model: int = 0, skip: int = 0) -> None:
    """Runs of one model, recorded with their predictions."""
    subject = make_subject(MODELS[model])
    store.record_model(subject.model, subject.model_path)
    recorded = RecordedRunner(
        subject, SimulatedRunner(subject.model, TRUTH), store, memory_limit_bytes=None
    )
    predictor = current_predictor(store, "CPU")
    for case in make_cases(subject.model)[skip : skip + n_runs]:
        prediction = predictor.forecast([case]).prediction(0)
        recorded.run(case, prediction, purpose=Purpose.EXPLORE)


def fits(store: Store) -> list[PredictorRow]:
    """Every fit, oldest first."""
    with store.database.read() as session:
        rows = list(session.scalars(select(PredictorRow).order_by(PredictorRow.predictor_id)))
        session.expunge_all()
        return rows


def beliefs(predictor: Predictor) -> np.ndarray:
    """All that a predictor says of many cases."""
    forecast = predictor.forecast(CASES)
    phases = [forecast.prefill, forecast.decode, forecast.load, forecast.ttft]
    numbers = [column for belief in phases for column in (belief.mean, belief.sd)]
    return np.array([*numbers, forecast.peak_bytes, forecast.peak_sd_ratio, forecast.p_success])


def many() -> list[Observation]:
    """Enough rows of enough families for every member of the ensemble."""
    return simulate([case for model in MODELS for case in make_cases(model)[::9]])


def test_a_state_says_what_the_predictor_said() -> None:
    """To the last bit, of seen and unseen models; nothing in it is a pickle."""
    predictor = Predictor().fit([*many(), *simulate(CASES[:5])])
    state = dump_predictor(predictor)

    assert beliefs(load_predictor(state)) == pytest.approx(beliefs(predictor), rel=1e-12)
    assert load_predictor(state).forecast(CASES[:9]).evidence == (
        predictor.forecast(CASES[:9]).evidence
    )


@pytest.mark.parametrize("state", [b"", b"\x80\x04pickle", b"x\x9c\x03\x00\x00\x00\x00\x01"])
def test_a_damaged_state_is_refused_in_one_line(state: bytes) -> None:
    """And says what happens next."""
    with pytest.raises(DataError, match="it is refitted"):
        load_predictor(state)


def test_only_known_parts_are_kept() -> None:
    """A part that the reader would not know is a mistake of the writer's."""
    predictor = Predictor().fit([])
    predictor.stray = object()  # type: ignore[attr-defined]

    with pytest.raises(TypeError, match="object is not part"):
        dump_predictor(predictor)


def test_unchanged_rows_are_not_fitted_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second question is answered from the state, of a fit that has a number."""
    run(store, n_runs=6)
    first = current_predictor(store, "CPU")
    n_fits = len(fits(store))
    monkeypatch.setattr(Predictor, "fit", None)
    second = current_predictor(store, "CPU")

    assert second.predictor_id == first.predictor_id == fits(store)[-1].predictor_id
    assert beliefs(second) == pytest.approx(beliefs(first))
    assert len(fits(store)) == n_fits
    assert (first.cached, second.cached) == (False, True)


def test_new_rows_are_learned_at_once(store: Store) -> None:
    """Few new ones adapt the fit; the state is that of the newest alone."""
    for model in range(3):
        run(store, n_runs=20, model=model)
    current_predictor(store, "CPU")
    run(store, n_runs=3, skip=40)
    predictor = current_predictor(store, "CPU")
    case = make_cases(MODELS[0])[41]

    assert predictor.forecast([case]).evidence[0] == "measured"
    *before, last = fits(store)
    assert last.reason == "adapted to 63 runs"
    assert not last.promoted
    assert last.state is not None
    assert all(fit.state is None for fit in before)


def test_many_new_rows_are_fitted_and_judged(store: Store) -> None:
    """Beyond a fifth more; what decided is written down."""
    for model in range(3):
        run(store, n_runs=20, model=model)
    current_predictor(store, "CPU")
    run(store, n_runs=20, model=3)
    current_predictor(store, "CPU")

    last = fits(store)[-1]
    assert last.reason.startswith(("refitted to 80 runs", "kept: the new fit was"))
    assert last.errors_json.count("on m/simulated/CPU") == 3


def test_a_worse_fit_does_not_replace_a_better_one(caplog: pytest.LogCaptureFixture) -> None:
    """The planted fault: a fit on shuffled rates. The old one goes on, and knows the new rows."""
    honest = many()
    rates = np.random.default_rng(0).permutation([o.decode_tps for o in honest])
    shuffled = [
        dataclasses.replace(o, decode_tps=rate) for o, rate in zip(honest, rates, strict=True)
    ]
    old, new = Predictor().fit(honest), Predictor().fit(shuffled)
    rows = [*honest, *simulate(CASES[:3])]
    with caplog.at_level(logging.WARNING):
        kept = judge(old, new, rows)

    assert not kept.promoted
    assert kept.predictor is old
    assert kept.reason.startswith("kept: the new fit was")
    assert "decode on m/simulated/CPU" in kept.reason
    assert kept.reason in caplog.text
    assert kept.predictor.forecast(CASES[:1]).evidence[0] == "measured"
    assert judge(new, Predictor().fit(honest), rows).promoted


@pytest.mark.parametrize("change", [{"versions": "0/0/0.0/0.0"}, {"state": b"damaged"}])
def test_a_state_that_is_not_ours_is_fitted_anew(store: Store, change: dict[str, object]) -> None:
    """Other features, other libraries, or damage: the rows are the record."""
    run(store, n_runs=6)
    first = current_predictor(store, "CPU")
    with store.database.write() as session:
        session.execute(update(PredictorRow).values(**change))
    second = current_predictor(store, "CPU")

    assert second.predictor_id != first.predictor_id
    assert beliefs(second) == pytest.approx(beliefs(first))
    assert fits(store)[-1].reason == "fitted to 6 runs"


def test_versions_name_what_a_state_depends_on() -> None:
    """Layout, features and libraries."""
    layout, features, numpy, sklearn = life.versions().split("/")

    assert layout.isdigit()
    assert features.isdigit()
    assert numpy == np.__version__
    assert sklearn[0].isdigit()
