"""Whole studies on simulated machines, recorded in a real store."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from autotune.domain.config import Config
from autotune.domain.errors import MeasurementError, NothingFitsError
from autotune.domain.limits import Limits
from autotune.domain.run import Purpose, Reason, Run, Trial
from autotune.domain.study import StudyState
from autotune.measure.simulated import SimulatedMachine, SimulatedRunner
from autotune.store.store import Store
from autotune.tune.loop import tune
from autotune.tune.question import Answer, Progress
from tests.factories import make_trial
from tests.simulation import DEFAULT, SMALL, TRUTH, WORKLOAD, make_cases, make_question


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    with Store.open(tmp_path / "store.db", now=lambda: datetime.now(UTC)) as store:
        yield store


def no_sleep(_seconds: float) -> None:
    """Simulated machines recover at once."""


def study(
    store: Store,
    *,
    machine: SimulatedMachine = TRUTH,
    seed: int = 0,
    default: Config = DEFAULT,
    **changes: object,
) -> tuple[Answer, SimulatedRunner]:
    """A study on a simulated machine."""
    runner = SimulatedRunner(SMALL, machine, seed=seed)
    question = make_question(store, default=default, seed=seed, **changes)
    return tune(question, runner=runner, store=store, sleep=no_sleep), runner


def test_a_study_finds_a_configuration_near_the_best(store: Store) -> None:
    """Twelve trials out of 256 candidates end within 5 % of the true best."""
    answer, runner = study(store)
    best = min(runner.request_s(case.config, WORKLOAD) for case in make_cases())

    assert runner.request_s(answer.winner.config, WORKLOAD) <= best * 1.05
    assert answer.speedup is not None
    assert answer.speedup.request > 1.02


def test_the_answer_is_kept(store: Store) -> None:
    """As advice for this model on this machine, with what it gained."""
    answer, _ = study(store)
    stored = store.load_study(answer.study_id)
    advice = store.find_recommendation(machine_id=stored.machine_id, model_id=stored.model_id)

    assert advice is not None
    assert answer.speedup is not None
    assert advice.is_measured
    assert advice.study_id == answer.study_id
    assert advice.speedup == answer.speedup.request
    assert advice.config == answer.winner.config
    assert (advice.workload, advice.reasons) == (WORKLOAD, answer.recommendation.reasons)


def test_every_run_is_stored_with_the_prediction_made_before_it(store: Store) -> None:
    """One row for each run: default first, trials with anchors between, confirmation last."""
    answer, _ = study(store)
    runs = store.list_runs(study_id=answer.study_id, limit=None)
    records = [store.load_run(run.run_id) for run in runs]
    purposes = [record.trial.purpose for record in sorted(records, key=lambda r: r.summary.run_id)]

    assert purposes.count(Purpose.EXPLORE) == answer.n_trials - 1
    assert purposes.count(Purpose.PROBE) == 1 + (answer.n_trials - 1 + 3) // 4
    assert purposes[0] is Purpose.PROBE
    assert purposes[-4:] == [Purpose.CONFIRM] * 4
    assert all(record.prediction is not None for record in records)
    assert store.load_study(answer.study_id).state is StudyState.COMPLETE


def test_only_fresh_runs_are_reported(store: Store) -> None:
    """What is reported was measured in the confirmation: two runs of three repetitions."""
    answer, _ = study(store)

    assert answer.winner.n_runs == 2
    assert answer.winner.measurement.request_s.n == 6


@pytest.mark.parametrize("seed", range(8))
def test_a_study_never_ends_slower_than_the_default(store: Store, seed: int) -> None:
    """Noise of 5 % and occasional crashes: the truth of the winner is never below the default."""
    machine = SimulatedMachine(noise_sd=0.05, crash_probability=0.05)
    answer, runner = study(store, machine=machine, seed=seed)

    assert runner.request_s(answer.winner.config, WORKLOAD) <= (
        runner.request_s(DEFAULT, WORKLOAD) * 1.0001
    )


def test_where_nothing_is_better_the_default_is_the_answer(store: Store) -> None:
    """A default that is already the best is confirmed, not replaced by a lucky sample."""
    best = DEFAULT.replace(n_ubatch=256, n_threads=4, flash_attn="on")
    answer, _ = study(store, default=best)

    assert answer.is_default
    assert answer.winner.config == best
    assert answer.speedup is not None
    assert answer.speedup.request == 1


def test_the_search_stops_when_nothing_promises_more_than_noise(store: Store) -> None:
    """A second study of the same question needs fewer trials than the first."""
    first, _ = study(store, max_trials=60)
    second, _ = study(store, seed=1, max_trials=60)

    assert second.n_trials < first.n_trials < 60


def test_the_time_limit_is_kept(store: Store) -> None:
    """A budget for about four trials makes about four, the confirmation included."""
    runner = SimulatedRunner(SMALL, TRUTH)
    question = make_question(store, time_limit_s=60.0, max_trials=100)
    answer = tune(
        question, runner=runner, store=store, clock=lambda: runner.elapsed_s, sleep=no_sleep
    )

    assert answer.elapsed_s <= 75
    assert answer.n_trials < 40


class Interrupting:
    """A runner that is stopped by the user at its third trial."""

    backend = "simulated"

    def __init__(self) -> None:
        self._inner, self._count = SimulatedRunner(SMALL, TRUTH), 0

    def run(self, trial: Trial, *, notify: Callable[[str], None] = lambda _what: None) -> Run:
        """Two trials, then Ctrl-C."""
        self._count += 1
        if self._count == 3:
            raise KeyboardInterrupt
        return self._inner.run(trial, notify=notify)


def test_ctrl_c_keeps_what_was_measured(store: Store) -> None:
    """Two complete runs, one cancelled, a stopped study."""
    with pytest.raises(KeyboardInterrupt):
        tune(make_question(store), runner=Interrupting(), store=store, sleep=no_sleep)
    (stored,) = store.list_studies()
    reasons = [run.reason for run in store.list_runs(study_id=stored.study_id)]

    assert sorted(reasons, key=str) == [None, None, Reason.CANCELLED]
    assert stored.state is StudyState.STOPPED


def test_a_machine_on_which_nothing_runs_says_so(store: Store) -> None:
    """Every trial crashes: one error, a failed study, all the rows."""
    machine = SimulatedMachine(crash_probability=1.0)
    with pytest.raises(MeasurementError, match=r"no configuration of small\.gguf could be meas"):
        study(store, machine=machine, max_trials=4)
    (stored,) = store.list_studies()

    assert stored.state is StudyState.FAILED
    assert len(store.list_runs(study_id=stored.study_id)) == 4


def test_nothing_is_run_when_nothing_fits(store: Store) -> None:
    """Refused before the first trial."""
    question = dataclasses.replace(make_question(store), available_bytes=10 * 1024**2)
    with pytest.raises(NothingFitsError):
        tune(question, runner=SimulatedRunner(SMALL, TRUTH), store=store)

    assert store.list_runs() == ()


def test_progress_tells_trial_best_and_time(store: Store) -> None:
    """Every trial is announced with the best so far and the time left."""
    seen: list[Progress] = []
    tune(
        make_question(store, max_trials=4),
        runner=SimulatedRunner(SMALL, TRUTH),
        store=store,
        sleep=no_sleep,
        notify=seen.append,
    )

    assert [progress.trial for progress in seen[:4]] == [1, 2, 3, 4]
    assert seen[0].best is None
    assert seen[-1].best is not None
    assert 0 <= seen[-1].left_s <= 600


class CrashingDefault:
    """A runner whose default runs once and then never again."""

    backend = "simulated"

    def __init__(self) -> None:
        self._inner, self._ran = SimulatedRunner(SMALL, TRUTH), 0

    def run(self, trial: Trial, *, notify: Callable[[str], None] = lambda _what: None) -> Run:
        """The confirmation of the default crashes."""
        run = self._inner.run(trial, notify=notify)
        if trial.config != DEFAULT or trial.purpose is not Purpose.CONFIRM:
            return run
        return dataclasses.replace(run, reason=Reason.CRASH, generations=(), load=None)


def test_a_winner_that_runs_is_the_answer_where_the_default_does_not(store: Store) -> None:
    """It is compared with the default's last good run."""
    answer = tune(make_question(store), runner=CrashingDefault(), store=store, sleep=no_sleep)

    assert not answer.is_default
    assert answer.winner.config != DEFAULT
    assert answer.default is not None
    assert answer.speedup is not None
    assert answer.speedup.request > 1.02


def test_the_fastest_candidates_race_before_one_is_put_to_the_proof(store: Store) -> None:
    """Three finalists, two more runs each, by turns; one lucky run does not decide."""
    answer, _ = study(store, machine=SimulatedMachine(noise_sd=0.05), max_trials=8)
    runs = sorted(store.list_runs(study_id=answer.study_id, limit=None), key=lambda r: r.run_id)
    raced = [run.config for run in runs if run.purpose is Purpose.REBENCH]

    assert len(raced) == 6
    assert raced[:3] == raced[3:]
    assert len(set(raced)) == 3
    assert DEFAULT not in raced
    assert answer.winner.config in {*raced, DEFAULT}


def test_the_race_usually_holds_a_plain_one(tmp_path: Path) -> None:
    """Flash attention and a smaller batch gain nothing here: somebody without them is in it.

    Not always: one unlucky run may speak against the plainest.
    """
    machine = SimulatedMachine(noise_sd=0.03, best_ubatch=512, flash_attn_factor=1.0)
    slow = DEFAULT.replace(n_threads=1, n_threads_batch=1)
    threads = {"n_threads", "n_threads_batch"}
    with_plain = 0
    for seed in range(4):
        with Store.open(tmp_path / f"{seed}.db", now=lambda: datetime.now(UTC)) as store:
            answer, _ = study(store, machine=machine, default=slow, max_trials=8, seed=seed)
            runs = store.list_runs(study_id=answer.study_id, limit=None)
        raced = {run.config for run in runs if run.purpose is Purpose.REBENCH}
        with_plain += any(set(config.differences(slow)) <= threads for config in raced)

    assert with_plain >= 3


def test_there_is_no_race_without_time_for_the_confirmation(store: Store) -> None:
    """The proof comes first."""
    runner = SimulatedRunner(SMALL, TRUTH)
    answer = tune(
        make_question(store, time_limit_s=45.0, max_trials=100),
        runner=runner, store=store, clock=lambda: runner.elapsed_s, sleep=no_sleep,
    )  # fmt: skip

    assert answer.elapsed_s <= 60
    assert answer.winner.n_runs >= 2


def test_an_answer_keeps_the_limits(store: Store) -> None:
    """The default is fast and takes too much memory: what keeps the limit is the answer."""
    fast = DEFAULT.replace(n_ubatch=256, n_threads=4, flash_attn="on")
    runner = SimulatedRunner(SMALL, TRUTH)
    peaks = {
        case.config: runner.run(make_trial(config=case.config, workload=WORKLOAD)).peak_rss_bytes
        for case in make_cases(default=fast)
    }
    most = peaks[fast] or 0
    limit = (min(peak or 0 for peak in peaks.values()) + most) // 2
    study(store, default=fast)  # so that memory is known
    answer, _ = study(store, default=fast, limits=Limits(memory_bytes=limit))

    assert answer.default is not None
    assert (answer.default.measurement.peak_memory_bytes or 0) > limit
    assert (answer.winner.measurement.peak_memory_bytes or 0) <= limit
    assert not answer.is_default
    assert answer.recommendation.config == answer.winner.config


class Growing:
    """A runner whose confirmed winner takes more memory than it did before."""

    backend = "simulated"

    def __init__(self, limit_bytes: int) -> None:
        self._inner, self._limit_bytes = SimulatedRunner(SMALL, TRUTH), limit_bytes

    def run(self, trial: Trial, *, notify: Callable[[str], None] = lambda _what: None) -> Run:
        """As simulated, but for the last runs of any but the default."""
        run = self._inner.run(trial, notify=notify)
        is_last = trial.purpose is Purpose.CONFIRM and trial.config != DEFAULT
        peak_bytes = self._limit_bytes * 2 if is_last else self._limit_bytes // 2
        return dataclasses.replace(run, peak_rss_bytes=peak_bytes if run.ok else None)


def test_a_winner_that_breaks_a_limit_in_the_end_leaves_the_default(store: Store) -> None:
    """It keeps the limit, and was confirmed beside it."""
    limit = TRUTH.ram_bytes // 4
    question = make_question(store, limits=Limits(memory_bytes=limit))
    answer = tune(question, runner=Growing(limit), store=store, sleep=no_sleep)

    assert answer.is_default
    assert answer.winner.measurement.peak_memory_bytes == limit // 2


def test_where_nothing_that_ran_keeps_the_limits_it_is_one_line(store: Store) -> None:
    """A prediction had promised more than was measured."""
    machine = SimulatedMachine(
        read_bytes_per_s=TRUTH.read_bytes_per_s / 3, flops_per_s=TRUTH.flops_per_s / 3
    )
    runner = SimulatedRunner(SMALL, machine)
    trials = [make_trial(config=case.config, workload=WORKLOAD) for case in make_cases()]
    measured = [run.measurement for run in map(runner.run, trials)]
    first_s = min(m.ttft_s.low for m in measured if m and m.ttft_s)
    with pytest.raises(NothingFitsError, match="--max-ttft"):
        study(store, machine=machine, limits=Limits(ttft_s=0.9 * first_s))
    assert store.list_studies()[0].state is StudyState.FAILED
