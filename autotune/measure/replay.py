"""A runner that answers from recorded runs: a search replayed on what was really measured."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterable

from autotune.domain.config import Config
from autotune.domain.run import Reason, Run, Trial
from autotune.domain.workload import Workload


class ReplayRunner:
    """Answers a trial with one of the recorded runs of its configuration and workload.

    Several recordings of one configuration are drawn from with a seed, so that noise is replayed
    as well. A configuration that was never recorded is a run that failed by constraint.
    """

    def __init__(self, backend: str, runs: Iterable[Run], *, seed: int = 0) -> None:
        self.backend = backend
        self._rng = random.Random(seed)  # noqa: S311 - which recording, not secrets
        self._recorded: dict[tuple[Config, Workload], list[Run]] = {}
        for run in runs:
            key = run.trial.config, run.trial.workload
            self._recorded.setdefault(key, []).append(run)
        if not self._recorded:
            raise ValueError("nothing to replay")
        self._any = next(iter(self._recorded.values()))[0]
        self.elapsed_s = 0.0
        """Seconds that all its answers took when they were recorded."""

    def run(self, trial: Trial, *, notify: Callable[[str], None] = lambda _what: None) -> Run:
        """One recorded run, as if it had been made for this trial."""
        notify("replaying")
        runs = self._recorded.get((trial.config, trial.workload))
        if runs is None:
            return self._unknown(trial)
        run = dataclasses.replace(self._rng.choice(runs), trial=trial, backend=self.backend)
        self.elapsed_s += run.elapsed_s
        return run

    def _unknown(self, trial: Trial) -> Run:
        return Run(
            trial=trial,
            backend=self.backend,
            build=None,
            started_at=self._any.started_at,
            elapsed_s=0.0,
            reason=Reason.CONSTRAINT,
            message="this configuration was never recorded",
        )
