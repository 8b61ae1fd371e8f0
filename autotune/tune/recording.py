"""Runs that leave a trace: the prediction is written before, the result after."""

from __future__ import annotations

from collections.abc import Callable

from autotune.domain.prediction import Prediction
from autotune.domain.run import MAX_REPS, SAMPLING_S, Purpose, Run, Trial
from autotune.features.case import Case
from autotune.measure.runner import Runner
from autotune.recommend.subject import Subject
from autotune.store.store import Store

_TIMEOUT_FACTOR = 4.0
_MIN_TIMEOUT_S = 60.0


class RecordedRunner:
    """Runs trials of one subject and keeps every one of them in the store."""

    def __init__(
        self,
        subject: Subject,
        runner: Runner,
        store: Store,
        *,
        memory_limit_bytes: int | None,
        study_id: int | None = None,
    ) -> None:
        self._subject, self._runner, self._store = subject, runner, store
        self._memory_limit_bytes, self._study_id = memory_limit_bytes, study_id
        store.close_dead_runs()  # a reboot or kill -9 may have left some open

    def run(
        self,
        case: Case,
        prediction: Prediction,
        *,
        purpose: Purpose,
        n_reps: int = 3,
        sampling_s: float = SAMPLING_S,
        notify: Callable[[str], None] = lambda _what: None,
    ) -> tuple[int, Run]:
        """(run id, run). Ctrl-C leaves a cancelled row and passes through."""
        trial = Trial(
            model_path=self._subject.model_path,
            config=case.config,
            workload=case.workload,
            purpose=purpose,
            n_reps=n_reps,
            max_reps=max(n_reps, MAX_REPS),
            sampling_s=sampling_s,
            timeout_s=timeout_s(prediction, n_reps),
            memory_limit_bytes=self._memory_limit_bytes,
        )
        run_id = self._store.begin_run(
            trial,
            machine_id=self._subject.machine_id,
            model_id=self._subject.model.model_id,
            backend=self._runner.backend,
            study_id=self._study_id,
            prediction=prediction,
        )
        try:
            run = self._runner.run(trial, notify=notify)
        except KeyboardInterrupt:
            self._store.cancel_run(run_id)
            raise
        self._store.finish_run(run_id, run)
        return run_id, run


def timeout_s(prediction: Prediction, n_reps: int) -> float:
    """Well beyond the 95 % quantile of what a run with its warm-ups should take, in seconds."""
    workload = prediction.workload
    request_s = workload.n_prompt / prediction.prefill_tps.q05 + (
        workload.n_gen / prediction.decode_tps.q05
    )
    expected_s = prediction.load_s.q95 + 2 * (n_reps + 2) * request_s
    if workload.n_prompt:
        expected_s += workload.n_depth / prediction.prefill_tps.q05
    # Of a prompt that nobody asked for nothing is predicted: at worst it is read word by word.
    fill_s = 0.0 if workload.n_prompt else workload.n_depth / prediction.decode_tps.q05
    return max(_TIMEOUT_FACTOR * expected_s, _MIN_TIMEOUT_S) + fill_s
