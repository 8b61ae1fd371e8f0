"""The contest: every usable backend is met once, the best is tuned, and near rivals are raced.

First contact is the newcomer's default, run once, of the most promising backend first; a backend
that fails costs one short run and is stored as what it is. What is predicted from these runs
decides which one is tuned. A rival whose own best configuration is expected within the noise of the
tuned one then runs against it by turns, and takes its place where it is proven faster, or as fast
with less memory.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from autotune.domain.errors import MeasurementError, NothingFitsError
from autotune.domain.prediction import Recommendation, Target
from autotune.domain.run import SAMPLING_S, Purpose, Run
from autotune.domain.stored import RunState
from autotune.measure.runner import Runner
from autotune.predict.life import current_predictor
from autotune.recommend.choose import recommend
from autotune.recommend.selection import BackendSelection, BackendVerdict
from autotune.store.store import Store
from autotune.tune.backends import Contender, choose_backend, histories
from autotune.tune.confirmation import CONFIRM_PAIRS, run_s
from autotune.tune.loop import tune
from autotune.tune.past import FRESH, past_answer, stopped_trials
from autotune.tune.question import Answer, Progress, Question
from autotune.tune.race import Champion, race
from autotune.tune.recording import RecordedRunner
from autotune.tune.strategy import StrategyName
from autotune.tune.verdict import Measured, pool, speedup

NEAR_RATIO = 0.10
"""A rival that is expected to be slower by more than this is not raced."""
MOST_RIVALS = 2
_CONTACT_SHARE = 0.5
"""Share of the time limit after which no further backend is met, if one can be used."""
_MOST_RESERVED = 0.4
"""Share of the time after the contacts that the races may have."""
_QUICK_SHARE = 0.1
"""Share of the time limit up to which a first contact may be repeated, if something spoiled it."""
_SAMPLING_SHARE = 0.02
"""Share of the time limit after which a noisy first contact is not repeated further."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """What came of a backend."""

    name: str
    problem: str = ""
    """Why it did not run; empty where it did."""
    default: Measured | None = None
    """Its newcomer's default."""
    best: Measured | None = None
    """The best configuration that was put to the proof; None where none was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContestAnswer:
    """The backend to use, with its configuration, and what every backend did."""

    recommendation: Recommendation
    winner: Measured
    question: Question
    """The winning backend's."""
    study: Answer
    """The study of the backend that was tuned."""
    contacts: tuple[Contact, ...]
    ranking: tuple[BackendVerdict, ...]
    """How the backends stand after all runs; the winning one is first."""
    elapsed_s: float


def contest(
    contenders: Sequence[Contender],
    *,
    runner_of: Callable[[str], Runner],
    store: Store,
    now: Callable[[], datetime],
    target: Target,
    time_limit_s: float,
    fresh: bool = False,
    strategy: StrategyName = StrategyName.MODEL_GUIDED,
    say: Callable[[str], None] = lambda _what: None,
    notify: Callable[[Question, Progress], None] = lambda _question, _progress: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> ContestAnswer:
    """Meet, choose, tune, race; every run is recorded.

    ``runner_of`` gives what measures a backend. What was measured within a week, with the same
    build, is not measured again unless ``fresh``. ``say`` is told what is being done between
    studies, ``notify`` where a study stands.

    Raises NothingFitsError where no backend can be used; MeasurementError where none that can be
    used could be measured.
    """
    ring = _Contest(
        contenders,
        _Means(runner_of, store, now, strategy, fresh=fresh, say=say, notify=notify),
        deadline=clock() + time_limit_s,
        clock=clock,
        sleep=sleep,
    )
    return ring.carry_out(target, started=clock())


@dataclass(frozen=True, slots=True)
class _Means:
    """What a contest is carried out with."""

    runner_of: Callable[[str], Runner]
    store: Store
    now: Callable[[], datetime]
    strategy: StrategyName
    fresh: bool
    say: Callable[[str], None]
    notify: Callable[[Question, Progress], None]


class _Contest:
    """The state of a contest in progress."""

    def __init__(
        self,
        contenders: Sequence[Contender],
        means: _Means,
        *,
        deadline: float,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._contenders, self._means = contenders, means
        self._deadline, self._clock, self._sleep = deadline, clock, sleep
        self._contacts: dict[str, Contact] = {}

    def carry_out(self, target: Target, *, started: float) -> ContestAnswer:
        """Contacts, study, races."""
        for name in self._promising_first(target):
            self._contacts[name] = self._meet(self._contender(name))
        selection = choose_backend(self._contenders, self._means.store, target=target)
        question, study = self._tune(selection)
        tuned = _tuned(question, study)
        self._keep(tuned)
        known = study.measured_at is not None  # and so is what came of its races
        champion, told = (tuned, ()) if known else self._race(tuned, selection.ranking)
        after = choose_backend(self._contenders, self._means.store, target=target)
        return ContestAnswer(
            recommendation=self._recommendation(champion, tuned, study, told),
            winner=champion.measured,
            question=champion.question,
            study=study,
            contacts=tuple(self._contacts[contender.name] for contender in self._contenders),
            ranking=_led_by(champion.name, after.ranking),
            elapsed_s=self._clock() - started,
        )

    def _promising_first(self, target: Target) -> list[str]:
        """All backends, by what is known of them: the time may run out before the last."""
        try:
            ranking = choose_backend(self._contenders, self._means.store, target=target).ranking
        except NothingFitsError:  # by what is remembered: a contact may prove that wrong
            return [contender.name for contender in self._contenders]
        return [verdict.name for verdict in ranking]

    def _meet(self, contender: Contender) -> Contact:
        """The newcomer's default, once; or what is known of it."""
        question, name = contender.question, contender.name
        if question is None:
            return Contact(name=name, problem=contender.problem)
        if not self._means.fresh:
            if (known := self._known(question, contender.build)) is not None:
                return Contact(name=name, default=pool([known]))
            history = histories(question, self._means.store).get(name)
            if history and (refusal := history.refused_by(contender.build)):
                return Contact(name=name, problem=f"run {refusal.run_id}: {history.last_words}")
        if self._is_late(question.study.time_limit_s):
            return Contact(name=name, problem="not met, the time ran out: raise --time-limit")
        self._means.say(f"first contact: {name}")
        run = self._run(question, 0, Purpose.PROBE, share=_SAMPLING_SHARE)
        if run.is_contaminated and run.elapsed_s < _QUICK_SHARE * question.study.time_limit_s:
            # A neighbour must not decide between backends.
            again = self._run(question, 0, Purpose.PROBE, share=_SAMPLING_SHARE)
            run = again if again.ok and not again.is_contaminated else run
        if run.ok:
            return Contact(name=name, default=pool([run]))
        return Contact(name=name, problem=f"{run.reason}: {' '.join(run.message.split())}")

    def _is_late(self, time_limit_s: float) -> bool:
        """Whether the time that is left is wanted for the study."""
        was_met = any(contact.default for contact in self._contacts.values())
        return was_met and self._left_s() < (1 - _CONTACT_SHARE) * time_limit_s

    def _known(self, question: Question, build: str) -> Run | None:
        """A good run of the default that is not old, by the same build."""
        subject, study = question.subject, question.study
        wanted = (subject.machine_id, study.backend, build, study.default, study.workload)
        for run in self._means.store.list_runs(model_id=subject.model.model_id, limit=None):
            told = (run.machine_id, run.backend, run.build, run.config, run.workload)
            is_good = run.state is RunState.COMPLETE and run.discarded_at is None
            is_exact = told == wanted and run.purpose is not Purpose.USER
            if is_exact and is_good and self._means.now() - run.started_at <= FRESH:
                return self._means.store.load_run(run.run_id).run
        return None

    def _tune(self, selection: BackendSelection) -> tuple[Question, Answer]:
        """The study of the best backend; of the next one, where it cannot be measured after all."""
        problem: MeasurementError | NothingFitsError | None = None
        usable = [verdict for verdict in selection.ranking if verdict.is_usable]
        for place, verdict in enumerate(usable):
            question = self._question(verdict.name)
            left_s = max(self._left_s(), 1.0)
            reserve_s = min(self._reserve_s(usable[place + 1 :]), left_s * _MOST_RESERVED)
            study = dataclasses.replace(question.study, time_limit_s=left_s - reserve_s)
            question = dataclasses.replace(question, study=study)
            try:
                return question, self._answer(question, self._contender(verdict.name).build)
            except (MeasurementError, NothingFitsError) as error:
                problem = problem or error
        assert problem is not None, "a selection has a usable backend"
        raise problem

    def _answer(self, question: Question, build: str) -> Answer:
        means, past = self._means, None
        if not means.fresh:
            known = past_answer(question, means.store, build=build, now=means.now)
            if known is not None:
                return known
            past = stopped_trials(question, means.store, build=build, now=means.now)
        return tune(
            question,
            runner=means.runner_of(question.study.backend),
            store=means.store,
            notify=lambda progress: means.notify(question, progress),
            clock=self._clock,
            sleep=self._sleep,
            strategy=means.strategy,
            past=past,
        )

    def _race(
        self, champion: Champion, ranking: Sequence[BackendVerdict]
    ) -> tuple[Champion, tuple[str, ...]]:
        """(champion after all, what was seen): rivals within the noise run against it by turns."""
        champion_s = champion.measured.measurement.request_s.median
        rivals = [v.name for v in ranking if v.is_usable and v.name != champion.name]
        told = []
        for name in rivals[:MOST_RIVALS]:
            question = self._question(name)
            best = self._best(question)
            rival_s = best.prediction.request_s
            is_late = self._left_s() < 2 * run_s(best.prediction)
            if is_late or rival_s > champion_s * (1 + NEAR_RATIO):
                continue
            self._means.say(f"{champion.name} against {name}")
            index = [case.config for case in question.cases].index(best.config)
            result = race(
                champion,
                (question, index),
                run=lambda q, i: self._run(q, i, Purpose.CONFIRM),
                left_s=self._left_s,
            )
            for side in result.sides:
                self._keep(side)
            champion = result.winner
            told.append(result.told)
        return champion, tuple(told)

    def _keep(self, side: Champion) -> None:
        met = self._contacts[side.name]
        self._contacts[side.name] = dataclasses.replace(met, problem="", best=side.measured)

    def _best(self, question: Question, chosen: int | None = None) -> Recommendation:
        """A backend's own best configuration by all that is known now, or the chosen one."""
        study = question.study
        return recommend(
            current_predictor(self._means.store, question.subject.api),
            question.cases,
            target=study.target,
            default=study.default,
            available_bytes=question.available_bytes,
            limits=question.limits,
            quality=self._means.store.quality_costs(question.subject.model.model_id),
            chosen=chosen,
        )

    def _recommendation(
        self, champion: Champion, tuned: Champion, study: Answer, told: tuple[str, ...]
    ) -> Recommendation:
        """That of the study, or of the rival that won the race; why this backend comes first."""
        if champion.name == tuned.name:
            found = study.recommendation
            return dataclasses.replace(found, reasons=(*told, *found.reasons))
        found = self._best(champion.question, champion.index)
        found = dataclasses.replace(found, reasons=(*told, *found.reasons))
        default = self._contacts[champion.name].default
        self._means.store.record_recommendation(
            found,
            machine_id=champion.question.subject.machine_id,
            model_id=champion.question.subject.model.model_id,
            study_id=study.study_id,
            speedup=speedup(champion.measured, default).request if default else None,
        )
        return found

    def _run(self, question: Question, index: int, purpose: Purpose, *, share: float = 1.0) -> Run:
        """One recorded run of a candidate."""
        means, case = self._means, question.cases[index]
        predictor = current_predictor(means.store, question.subject.api)
        forecast = predictor.forecast([case], available_bytes=question.available_bytes)
        recorded = RecordedRunner(
            question.subject,
            means.runner_of(case.backend),
            means.store,
            memory_limit_bytes=question.available_bytes,
        )
        sampling_s = min(SAMPLING_S, share * question.study.time_limit_s)
        _, run = recorded.run(case, forecast.prediction(0), purpose=purpose, sampling_s=sampling_s)
        return run

    def _contender(self, name: str) -> Contender:
        return next(contender for contender in self._contenders if contender.name == name)

    def _question(self, name: str) -> Question:
        question = self._contender(name).question
        assert question is not None, "only contenders with a question are ranked as usable"
        return question

    def _left_s(self) -> float:
        return self._deadline - self._clock()

    def _reserve_s(self, others: Sequence[BackendVerdict]) -> float:
        """What the races after the study will take."""
        near = [v.recommendation for v in others[:MOST_RIVALS] if v.recommendation]
        return sum(2 * CONFIRM_PAIRS * run_s(rival.prediction) for rival in near)


def _tuned(question: Question, study: Answer) -> Champion:
    configs = [case.config for case in question.cases]
    index = configs.index(study.winner.config)
    return Champion(question=question, index=index, measured=study.winner)


def _led_by(name: str, ranking: Sequence[BackendVerdict]) -> tuple[BackendVerdict, ...]:
    return tuple(sorted(ranking, key=lambda verdict: verdict.name != name))
