"""The loop of a study: forecast, try the most promising, learn, stop, prove.

The newcomer's default is always the first trial. At the end, default and winner are run again in
fresh processes, alternating, and only those runs are reported: a search picks lucky samples, a
confirmation does not. Where the winner does not beat the default beyond noise, the default is
the answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence, Set

import numpy as np

from autotune.domain.config import Config
from autotune.domain.errors import MeasurementError, NothingFitsError
from autotune.domain.prediction import Recommendation
from autotune.domain.run import Purpose, Run
from autotune.domain.study import Observation, StudyState
from autotune.features.case import Case
from autotune.measure.runner import Runner
from autotune.predict.life import current_predictor, learn
from autotune.recommend.choose import Candidates, choose, recommend, survey
from autotune.store.store import Store
from autotune.tune.anchor import EVERY_TRIALS, WAITS_S, Anchor
from autotune.tune.confirmation import CONFIRM_PAIRS, confirm, run_s
from autotune.tune.ledger import Ledger, log_request_s, request_s
from autotune.tune.model_guided import make_strategy
from autotune.tune.past import Trials
from autotune.tune.question import Answer, Progress, Question
from autotune.tune.recording import RecordedRunner
from autotune.tune.strategy import Strategy, StrategyName
from autotune.tune.verdict import pool, process_noise_sd, speedup

STOP_RATIO = 0.01
"""Below this promised gain a trial is not worth its time."""
FINALISTS, RACE_ROUNDS = 3, 2
PLAIN_RATIO = 0.10
"""The plainest candidate this close behind the best joins the race."""
PATIENCE = 2
"""Rounds in a row without a promise before the search ends."""
_TRIAL_SHARE = 0.05
"""Share of a study's time after which a noisy trial is not repeated further."""


def tune(
    question: Question,
    *,
    runner: Runner,
    store: Store,
    notify: Callable[[Progress], None] = lambda _progress: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    strategy: StrategyName = StrategyName.MODEL_GUIDED,
    past: Trials | None = None,
) -> Answer:
    """Carry out a study and record all of it.

    ``past`` are the trials of this study from before it was stopped: it goes on where it was.

    Raises MeasurementError when the default cannot be measured, NothingFitsError when no
    candidate is feasible; KeyboardInterrupt passes through after everything measured is kept.
    """
    rng = np.random.default_rng(question.study.seed)
    chosen = make_strategy(strategy, rng, default=question.study.default)
    loop = _Loop(question, runner, store, chosen, past, notify=notify, clock=clock, sleep=sleep)
    study_id = loop.study_id
    try:
        answer = loop.carry_out()
        store.record_recommendation(
            answer.recommendation,
            machine_id=question.subject.machine_id,
            model_id=question.subject.model.model_id,
            study_id=study_id,
            speedup=answer.speedup.request if answer.speedup else None,
        )
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
        strategy: Strategy,
        past: Trials | None,
        *,
        notify: Callable[[Progress], None],
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._question, self._store = question, store
        self._notify, self._clock, self._sleep = notify, clock, sleep
        self._past, self._started = past, clock() - (past.spent_s if past else 0.0)
        self._predictor = current_predictor(store, question.subject.api)
        self._observations: list[Observation] = [*store.observations()]
        self._strategy = strategy
        self._ledger = Ledger(question.cases, question.study.default, question.limits)
        self._default: Run | None = None
        self._failure = ""
        self._anchors: list[Run] = []
        self._n_discarded = 0
        self._anchor: Anchor | None = None
        self.study_id = self._open_study()
        self._recorded = RecordedRunner(
            question.subject,
            runner,
            store,
            memory_limit_bytes=question.available_bytes,
            study_id=self.study_id,
        )

    def _open_study(self) -> int:
        if self._past is not None:
            self._store.resume_study(self._past.study_id)
            return self._past.study_id
        return self._store.start_study(
            self._question.study,
            machine_id=self._question.subject.machine_id,
            model_id=self._question.subject.model.model_id,
        )

    def carry_out(self) -> Answer:
        """Default, search, confirmation."""
        self._candidates()  # refuses at once when nothing fits
        if self._past is None or not self._go_on(self._past):
            # What cannot be gone on with costs none of the time.
            self._started += self._past.spent_s if self._past else 0.0
            self._past = None
            default = self._try(0, Purpose.PROBE)
            self._failure = default.message
            if default.ok:
                self._default, self._anchor = default, Anchor(default)
                self._anchors.append(default)
                self._ledger.confirm_provisional()
        self._search()
        self._race()
        self._learn()
        expected = self._predictor.forecast(self._question.cases, verbatim=False).request().mean
        winner = self._ledger.winner(expected, noise_sd=process_noise_sd(self._anchors))
        if winner is None:
            raise self._nothing()
        return self._confirm(winner)

    def _nothing(self) -> MeasurementError | NothingFitsError:
        """Why there is no answer."""
        name, limits = self._question.subject.model_path.name, self._question.limits
        if self._ledger.breaks_limits:
            return NothingFitsError(f"nothing that ran of {name} keeps {limits}: allow more")
        return MeasurementError(f"no configuration of {name} could be measured: {self._failure}")

    def _go_on(self, past: Trials) -> bool:
        """Take up the trials of a stopped study; False where the machine is not what it was.

        The anchor decides, as within a study.
        """
        index_of = {case.config: index for index, case in enumerate(self._question.cases)}
        known = [(index_of.get(run.trial.config), run_id, run) for run_id, run in past.runs]
        default = next((run for index, _, run in known if index == 0 and run.ok), None)
        if default is None:
            return False
        tried = [told for told in known if told[2].trial.purpose is Purpose.EXPLORE]
        if Anchor(default).has_drifted(self._measure_anchor("anchor of the stopped study")):
            self._forget({run_id for _, run_id, _ in tried})
            return False
        self._default, self._anchor = default, Anchor(default)
        self._anchors.append(default)
        self._ledger.add(0, past.runs[0][0], default)
        self._strategy.tell(0, log_request_s(default))
        for index, run_id, run in tried:
            if index is not None:
                self._ledger.add(index, run_id, run)
                self._strategy.tell(index, log_request_s(run))
        self._ledger.confirm_provisional()
        self._learn()
        return True

    def _candidates(self) -> Candidates:
        return survey(
            self._predictor,
            self._question.cases,
            available_bytes=self._question.available_bytes,
            limits=self._question.limits,
        )

    def _search(self) -> None:
        """Try candidates until the budget is spent or nothing promises more than noise."""
        quiet = 0
        while self._ledger.n_trials < self._question.study.max_trials and quiet < PATIENCE:
            candidates = self._candidates()
            best = self._best_log_s(candidates)
            quiet = quiet + 1 if self._strategy.promise(candidates, best) < STOP_RATIO else 0
            index = self._strategy.ask(candidates, best)
            if index is None or quiet >= PATIENCE or not self._has_time_for(candidates, index):
                break
            self._try(index, Purpose.EXPLORE)
            if self._ledger.n_provisional >= EVERY_TRIALS and not self._is_steady():
                break
        if self._ledger.n_provisional:
            self._is_steady()

    def _race(self) -> None:
        """Run the fastest candidates again, by turns: one lucky run must not decide."""
        near, default = self._candidates(), self._question.study.default
        plain = choose(near, default=default, tie_ratio=PLAIN_RATIO)
        finalists = self._ledger.finalists(FINALISTS, plain=plain)
        for _ in range(RACE_ROUNDS if len(finalists) > 1 else 0):
            for index in finalists:
                best = self._ledger.best
                if best is None or self._left_s() < best.elapsed_s + self._confirmation_s():
                    return
                case = self._question.cases[index]
                _, run = self._run(case, Purpose.REBENCH, "racing")
                self._ledger.repeat(index, run)

    def _is_steady(self) -> bool:
        """Re-measure the anchor: is the machine what it was?

        After a drift the trials since the last clean anchor are forgotten, and the search goes on
        only when the machine has recovered in time.
        """
        if self._anchor is None or not self._has_time_for_anchor():
            return True
        anchor = self._measure_anchor("anchor")
        if not self._anchor.has_drifted(anchor):
            self._anchors.append(anchor)
            self._ledger.confirm_provisional()
            return True
        self._discard()
        return self._recovers(self._anchor)

    def _recovers(self, anchor: Anchor) -> bool:
        """Wait, longer each time, until the anchor is what it was; False when it is not in time."""
        for wait_s in WAITS_S:
            if not self._has_time_for_anchor(wait_s):
                return False
            self._sleep(wait_s)
            if anchor.has_recovered(self._measure_anchor("waiting: the machine has drifted")):
                return True
        return False

    def _measure_anchor(self, doing: str) -> Run:
        return self._run(self._question.cases[0], Purpose.PROBE, doing)[1]

    def _discard(self) -> None:
        """The trials since the last clean anchor are neither results nor lessons."""
        discarded = self._ledger.discard_provisional()
        self._n_discarded += len(discarded)
        for index in discarded.values():
            self._strategy.forget(index)
        self._forget(discarded.keys())

    def _forget(self, run_ids: Set[int]) -> None:
        self._store.discard_runs(run_ids)
        self._observations = [o for o in self._observations if o.run_id not in run_ids]
        self._learn()

    def _has_time_for_anchor(self, wait_s: float = 0.0) -> bool:
        """Whether one more run of the default and the confirmation fit into what is left."""
        assert self._default is not None
        return self._left_s() > wait_s + self._default.elapsed_s + self._confirmation_s()

    def _best_log_s(self, candidates: Candidates) -> float:
        """Log request seconds to beat: the best measured; anything is better than nothing."""
        best = self._ledger.best
        if best is None:
            return float(candidates.forecast.request().mean[candidates.feasible > 0].max())
        return float(np.log(request_s(best)))

    def _has_time_for(self, candidates: Candidates, index: int) -> bool:
        """Whether a trial and the confirmation after it fit into what is left."""
        trial_s = run_s(candidates.forecast.prediction(index))
        return self._left_s() > trial_s + self._confirmation_s()

    def _confirmation_s(self) -> float:
        """Expected duration of the confirmation: default and best, alternating."""
        runs = [run for run in (self._default, self._ledger.best) if run is not None]
        return CONFIRM_PAIRS * sum(run.elapsed_s for run in runs)

    def _left_s(self) -> float:
        return self._question.study.time_limit_s - (self._clock() - self._started)

    def _try(self, index: int, purpose: Purpose) -> Run:
        """Run one candidate, enter it, and learn from it."""
        run_id, run = self._run(self._question.cases[index], purpose)
        self._ledger.add(index, run_id, run)
        self._strategy.tell(index, log_request_s(run))
        self._learn()
        return run

    def _learn(self) -> None:
        self._predictor = learn(self._predictor, self._observations, self._question.subject.api)

    def _run(self, case: Case, purpose: Purpose, why: str = "") -> tuple[int, Run]:
        """(run id, run) of one recorded run; what it taught joins the observations."""
        forecast = self._predictor.forecast([case], available_bytes=self._question.available_bytes)
        run_id, run = self._recorded.run(
            case,
            forecast.prediction(0),
            purpose=purpose,
            sampling_s=self._question.study.time_limit_s * _TRIAL_SHARE,
            notify=lambda doing: self._tell(case.config, why or doing),
        )
        self._observations.append(self._store.observation(run_id))
        return run_id, run

    def _tell(self, config: Config, doing: str) -> None:
        self._notify(
            Progress(
                trial=self._ledger.n_trials + 1,
                max_trials=self._question.study.max_trials,
                doing=doing,
                config=config,
                elapsed_s=self._clock() - self._started,
                left_s=max(self._left_s(), 0.0),
                best=self._ledger.best,
                default=self._default,
            )
        )

    def _confirm(self, winner: int) -> Answer:
        """Default and winner again, alternating, in fresh processes; only these are reported."""
        if self._default is None:
            _, again = self._run(self._question.cases[0], Purpose.PROBE, "the default, once more")
            if again.ok:
                self._default = again
                self._anchors.append(again)
        found = confirm(
            self._confirmed,
            winner,
            has_default=self._default is not None,
            anchors=self._anchors,
            left_s=self._left_s,
        )
        if self._default is None:
            return self._answer(winner, found.winners, None)
        if (found.is_proven and self._keeps(found.winners)) or not self._keeps(found.defaults):
            return self._answer(winner, found.winners, found.defaults)
        return self._answer(0, found.defaults, found.defaults)

    def _keeps(self, runs: Sequence[Run]) -> bool:
        """Whether a configuration stays within the limits."""
        return self._question.limits.keeps(pool(runs).measurement)

    def _confirmed(self, index: int) -> Run:
        """A fresh run of a candidate; one failure is forgiven.

        A default that crashes all the same is judged by its last good run.
        """
        case = self._question.cases[index]
        _, run = self._run(case, Purpose.CONFIRM, "confirming")
        if not run.ok:
            _, run = self._run(case, Purpose.CONFIRM, "confirming, once more")
        return run if run.ok or index or not self._anchors else self._anchors[-1]

    def _answer(self, index: int, runs: Sequence[Run], defaults: Sequence[Run] | None) -> Answer:
        if not all(run.ok for run in runs):
            raise MeasurementError(f"the winner ran once and then failed: {runs[-1].message}")
        if not self._keeps(runs):
            limits = self._question.limits
            raise NothingFitsError(f"what kept {limits} at first no longer did: allow more")
        winner, default = pool(runs), pool(defaults) if defaults else None
        return Answer(
            study_id=self.study_id,
            default=default,
            winner=winner,
            is_default=index == 0,
            speedup=speedup(winner, default) if default else None,
            recommendation=self._recommendation(index),
            n_trials=self._ledger.n_trials,
            elapsed_s=self._clock() - self._started,
            n_discarded=self._n_discarded,
            n_resumed=len(self._past.runs) if self._past else 0,
        )

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
            limits=self._question.limits,
            quality=self._store.quality_costs(self._question.subject.model.model_id),
            chosen=index,
        )
