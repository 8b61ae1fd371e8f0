"""The loop of a study: forecast, try the most promising, learn, stop, prove.

The newcomer's default is always the first trial. At the end, default and winner are run again in
fresh processes, alternating, and only those runs are reported: a search picks lucky samples, a
confirmation does not. Where the winner does not beat the default beyond noise, the default is
the answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from autotune.domain.config import Config
from autotune.domain.errors import MeasurementError
from autotune.domain.prediction import Prediction, Recommendation
from autotune.domain.run import Purpose, Run
from autotune.domain.study import Observation, Study, StudyState
from autotune.features.case import Case
from autotune.measure.runner import Runner
from autotune.predict.predictor import Predictor
from autotune.recommend.choose import TIE_RATIO, Candidates, choose, recommend, survey
from autotune.recommend.subject import Subject
from autotune.store.store import Store
from autotune.tune.model_guided import ModelGuided
from autotune.tune.recording import RecordedRunner
from autotune.tune.verdict import Measured, Speedup, is_faster, pool, speedup

STOP_RATIO = 0.01
"""Below this promised gain a trial is not worth its time."""
PATIENCE = 2
"""Rounds in a row without a promise before the search ends."""
CONFIRM_PAIRS = 2
_RUN_OVERHEAD_S = 2.0
_SAMPLES_PER_RUN = 5
"""Warm-ups and repetitions of an ordinary run."""
_TRIAL_SHARE = 0.05
"""Share of a study's time after which a noisy trial is not repeated further."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A study with everything that stands still while it runs."""

    study: Study
    subject: Subject
    cases: tuple[Case, ...]
    """The candidates; the first is the default."""
    available_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a study stands."""

    trial: int
    max_trials: int
    doing: str
    config: Config
    elapsed_s: float
    left_s: float
    """Time that the budget still allows."""
    best: Run | None
    default: Run | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The result of a study."""

    study_id: int
    default: Measured | None
    """None where the default itself cannot run."""
    winner: Measured
    is_default: bool
    """Whether the default is the answer: nothing beat it beyond noise."""
    speedup: Speedup | None
    """None without a default to compare with."""
    recommendation: Recommendation
    n_trials: int
    elapsed_s: float


def tune(
    question: Question,
    *,
    runner: Runner,
    store: Store,
    notify: Callable[[Progress], None] = lambda _progress: None,
    clock: Callable[[], float] = time.monotonic,
) -> Answer:
    """Carry out a study and record all of it.

    Raises MeasurementError when the default cannot be measured, NothingFitsError when no
    candidate is feasible; KeyboardInterrupt passes through after everything measured is kept.
    """
    loop = _Loop(question, runner, store, notify, clock)
    study_id = loop.study_id
    try:
        answer = loop.carry_out()
    except KeyboardInterrupt:
        store.finish_study(study_id, StudyState.STOPPED, "stopped by the user")
        raise
    except BaseException as error:
        store.finish_study(study_id, StudyState.FAILED, str(error))
        raise
    store.finish_study(study_id, StudyState.COMPLETE, "")
    return answer


class _Loop:
    """The state of one study in progress."""

    def __init__(
        self,
        question: Question,
        runner: Runner,
        store: Store,
        notify: Callable[[Progress], None],
        clock: Callable[[], float],
    ) -> None:
        self._question, self._store = question, store
        self._notify, self._clock = notify, clock
        self._started = clock()
        self._observations: list[Observation] = list(store.observations())
        self._predictor = Predictor().fit(self._observations)
        self._strategy = ModelGuided(np.random.default_rng(question.study.seed))
        self._runs: list[Run] = []
        self._measured: dict[int, Run] = {}
        self.study_id = store.start_study(
            question.study,
            machine_id=question.subject.machine_id,
            model_id=question.subject.model.model_id,
        )
        self._recorded = RecordedRunner(
            question.subject,
            runner,
            store,
            memory_limit_bytes=question.available_bytes,
            study_id=self.study_id,
        )

    def carry_out(self) -> Answer:
        """Default, search, confirmation."""
        self._candidates()  # refuses at once when nothing fits
        default = self._try(0, Purpose.PROBE)
        self._search()
        if not self._measured:
            raise MeasurementError(
                f"no configuration of {self._question.subject.model_path.name} could be measured: "
                f"{default.message}"
            )
        return self._confirm(self._winner())

    def _candidates(self) -> Candidates:
        candidates = survey(
            self._predictor,
            self._question.cases,
            available_bytes=self._question.available_bytes,
        )
        choose(candidates, default=self._question.study.default)
        return candidates

    def _search(self) -> None:
        """Try candidates until the budget is spent or nothing promises more than noise."""
        quiet = 0
        while len(self._runs) < self._question.study.max_trials and quiet < PATIENCE:
            candidates = self._candidates()
            best = self._best_log_s(candidates)
            quiet = quiet + 1 if self._strategy.promise(candidates, best) < STOP_RATIO else 0
            index = self._strategy.ask(candidates, best)
            if index is None or quiet >= PATIENCE or not self._has_time_for(candidates, index):
                return
            self._try(index, Purpose.EXPLORE)

    def _best_log_s(self, candidates: Candidates) -> float:
        """Log request seconds to beat: the best measured, else the default's expectation."""
        best = self._best
        if best is None:
            return float(candidates.forecast.request().mean[0])
        return float(np.log(_request_s(best)))

    def _has_time_for(self, candidates: Candidates, index: int) -> bool:
        """Whether a trial and the confirmation after it fit into what is left."""
        trial_s = _run_s(float(np.exp(candidates.forecast.request().mean[index])))
        return self._left_s() > trial_s + self._confirmation_s()

    def _confirmation_s(self) -> float:
        """Expected duration of the confirmation: default and best, alternating."""
        runs = [run for run in (self._measured.get(0), self._best) if run is not None]
        return CONFIRM_PAIRS * sum(_run_s(_request_s(run)) for run in runs)

    def _left_s(self) -> float:
        return self._question.study.time_limit_s - (self._clock() - self._started)

    def _try(self, index: int, purpose: Purpose) -> Run:
        """Run one candidate, learn from it, and keep it if it is the best."""
        run = self._run(self._question.cases[index], purpose)
        self._runs.append(run)
        self._strategy.tell(index)
        self._learn()
        if run.measurement is not None:
            self._measured[index] = run
        return run

    @property
    def _best(self) -> Run | None:
        """The fastest run so far."""
        return min(self._measured.values(), key=_request_s, default=None)

    def _winner(self) -> int:
        """Of the configurations that tie with the fastest, the one nearest to the default."""
        limit = min(map(_request_s, self._measured.values())) * (1 + TIE_RATIO)
        tied = [index for index, run in self._measured.items() if _request_s(run) <= limit]
        cases, default = self._question.cases, self._question.study.default
        return min(
            tied,
            key=lambda index: (
                len(cases[index].config.differences(default)),
                _request_s(self._measured[index]),
            ),
        )

    def _learn(self) -> None:
        self._predictor = Predictor().fit(self._observations)

    def _run(self, case: Case, purpose: Purpose) -> Run:
        """One recorded run; what it taught joins the observations."""
        run_id, run = self._recorded.run(
            case,
            self._predict(case),
            purpose=purpose,
            sampling_s=self._question.study.time_limit_s * _TRIAL_SHARE,
            notify=lambda doing: self._tell(case.config, doing),
        )
        self._observations.append(self._store.observation(run_id))
        return run

    def _predict(self, case: Case) -> Prediction:
        forecast = self._predictor.forecast([case], available_bytes=self._question.available_bytes)
        return forecast.prediction(0)

    def _tell(self, config: Config, doing: str) -> None:
        self._notify(
            Progress(
                trial=len(self._runs) + 1,
                max_trials=self._question.study.max_trials,
                doing=doing,
                config=config,
                elapsed_s=self._clock() - self._started,
                left_s=max(self._left_s(), 0.0),
                best=self._best,
                default=self._runs[0] if self._runs else None,
            )
        )

    def _confirm(self, winner: int) -> Answer:
        """Default and winner again, alternating, in fresh processes; only these are reported."""
        has_default = self._runs[0].ok
        defaults, winners = [], []
        for _ in range(CONFIRM_PAIRS):
            if has_default:
                defaults.append(self._confirmed(0))
            winners.append(self._confirmed(winner) if winner else defaults[-1])
        beaten = winner != 0 and (not has_default or is_faster(winners, defaults))
        default = pool(defaults) if has_default else None
        best = pool(winners if beaten else defaults)
        return Answer(
            study_id=self.study_id,
            default=default,
            winner=best,
            is_default=not beaten,
            speedup=speedup(best, default) if default else None,
            recommendation=self._recommendation(winner if beaten else 0),
            n_trials=len(self._runs),
            elapsed_s=self._clock() - self._started,
        )

    def _confirmed(self, index: int) -> Run:
        run = self._run(self._question.cases[index], Purpose.CONFIRM)
        if not run.ok:
            raise MeasurementError(f"the confirmation run failed: {run.message}")
        return run

    def _recommendation(self, index: int) -> Recommendation:
        """The confirmed configuration, explained by the predictor that saw every run."""
        self._learn()
        study = self._question.study
        return recommend(
            self._predictor,
            self._question.cases,
            target=study.target,
            default=study.default,
            available_bytes=self._question.available_bytes,
            chosen=index,
        )


def _run_s(request_s: float) -> float:
    """Seconds that a run with its load and warm-ups usually takes."""
    return _RUN_OVERHEAD_S + _SAMPLES_PER_RUN * request_s


def _request_s(run: Run) -> float:
    measurement = run.measurement
    assert measurement is not None, "only measured runs are compared"
    return measurement.request_s.median
