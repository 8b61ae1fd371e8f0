"""The predictor: one for each engine, fitted on observations, asked about cases of any of them."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Sequence

from autotune.domain.engine import LLAMA_CPP, engine_of
from autotune.domain.study import Observation
from autotune.features.case import Array, Case
from autotune.predict.calibration import COVERAGE
from autotune.predict.engine_predictor import EnginePredictor
from autotune.predict.engines import by_engine, forecast_each
from autotune.predict.forecast import Forecast


class Predictor:
    """Learns from observations: of each engine for itself, see :class:`EnginePredictor`."""

    predictor_id: int | None = None
    """Number in the store, where it is kept there."""
    cached: bool = False
    """Whether it was read from the store as it was, with nothing left to learn."""

    def fit(
        self, observations: Sequence[Observation], *, prior: Sequence[Observation] = ()
    ) -> Predictor:
        """Learn. Runs that were cancelled or interrupted teach nothing; failures teach success.

        ``prior`` is what others measured elsewhere: it teaches the general part alone.
        """
        own, others = by_engine(observations), by_engine(prior)
        self._engines = {
            name: EnginePredictor(name).fit(own.get(name, ()), prior=others.get(name, ()))
            for name in {LLAMA_CPP.name: None, **own, **others}
        }
        self.n_runs_ = count_runs(observations)
        return self

    def adapt(self, observations: Sequence[Observation]) -> Predictor:
        """Learn all that observations say of their own models on their own machines.

        The general part stays as it was fitted.
        """
        self.cached = False
        own = by_engine(observations)
        for name in {**self._engines, **own}:
            self._engine(name).adapt(own.get(name, ()))
        return self

    def out_of_group(self, observations: Sequence[Observation]) -> dict[str, Array]:
        """Errors of the general parts: see :meth:`EnginePredictor.out_of_group`."""
        found: dict[str, Array] = {}
        for name, own in by_engine(observations).items():
            found |= self._engine(name).out_of_group(own)
        return found

    def fit_success(self, taught: Sequence[tuple[Observation, Case]]) -> Predictor:
        """Learn from successes and failures alone what can run."""
        found: dict[str, list[tuple[Observation, Case]]] = defaultdict(list)
        for pair in taught:
            found[engine_of(pair[1].backend).name].append(pair)
        for name, pairs in found.items():
            self._engine(name).fit_success(pairs)
        return self

    def forecast(
        self,
        cases: Sequence[Case],
        *,
        available_bytes: int | None = None,
        coverage: float = COVERAGE,
        verbatim: bool = True,
    ) -> Forecast:
        """Predict many cases in one batch.

        ``available_bytes`` is the memory that may be used now; by default all the machine has.
        ``coverage`` is the share that mean ± z sd holds. Unless ``verbatim``, what was measured is
        predicted all the same.
        """

        def of_engine(name: str, its: Sequence[Case]) -> Forecast:
            return self._engine(name).forecast(
                its, available_bytes=available_bytes, coverage=coverage, verbatim=verbatim
            )

        forecast = forecast_each(cases, of_engine)
        return dataclasses.replace(forecast, predictor_id=self.predictor_id)

    def refuses_kin(self, case: Case) -> bool:
        """See :meth:`EnginePredictor.refuses_kin`."""
        return self._engine(engine_of(case.backend).name).refuses_kin(case)

    def _engine(self, name: str) -> EnginePredictor:
        """The predictor of an engine; of one that nobody ran, physics and what is typical."""
        if name not in self._engines:
            self._engines[name] = EnginePredictor(name).fit(())
        return self._engines[name]


def count_runs(observations: Iterable[Observation]) -> int:
    """How many runs they are of."""
    return sum(observation.counts for observation in observations)
