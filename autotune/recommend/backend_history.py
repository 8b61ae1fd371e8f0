"""What each backend did with one model on one machine, from the stored runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from autotune.domain.run import Reason
from autotune.domain.stored import RunState, StoredRun

_OF_THE_CONFIG = frozenset({Reason.OOM, Reason.CONSTRAINT})
"""Failures that another configuration may not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendHistory:
    """Runs of one model on one machine by one backend, without those that somebody stopped."""

    runs: tuple[StoredRun, ...] = ()
    """Newest first."""

    @property
    def n_runs(self) -> int:
        """Runs that ended by themselves."""
        return len(self.runs)

    @property
    def n_failed(self) -> int:
        """Runs that failed, for whatever reason."""
        return sum(run.state is RunState.FAILED for run in self.runs)

    @property
    def last_words(self) -> str:
        """How the newest failure was explained, in one line; empty without one."""
        failed = (run for run in self.runs if run.state is RunState.FAILED)
        return next((" ".join(run.message.split()) or str(run.reason) for run in failed), "")

    def refused_by(self, build: str) -> StoredRun | None:
        """The newest run in which this build did not know the model; None where it ever ran.

        An empty build means any. A model that ran once is known: what was refused was a knob.
        """
        runs = self._of(build)
        if any(run.reason is None for run in runs):
            return None
        return next((run for run in runs if run.reason is Reason.UNSUPPORTED), None)

    def reliability(self, build: str) -> float:
        """Share of this build's runs that succeeded, those not counted whose configuration failed.

        One success is added to both, so that a backend without runs is trusted and one failure
        halves the trust.
        """
        told = [run for run in self._of(build) if run.reason not in _OF_THE_CONFIG]
        n_ok = sum(run.reason is None for run in told)
        return (n_ok + 1) / (len(told) + 1)

    def _of(self, build: str) -> tuple[StoredRun, ...]:
        return tuple(run for run in self.runs if not (build and run.build) or run.build == build)


def read_history(runs: Iterable[StoredRun], *, machine_id: str) -> dict[str, BackendHistory]:
    """The history of each backend, from the stored runs of one model, newest first."""
    found: dict[str, list[StoredRun]] = defaultdict(list)
    for run in runs:
        ended = run.state is not RunState.RUNNING and run.discarded_at is None
        is_label = run.reason is None or run.reason.is_label
        if run.machine_id == machine_id and ended and is_label:
            found[run.backend].append(run)
    return {name: BackendHistory(runs=tuple(own)) for name, own in found.items()}
