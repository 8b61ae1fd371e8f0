"""The live line of a study: trial, configuration, elapsed, best so far, time left; its verdict."""

from __future__ import annotations

from rich.status import Status

from autotune.cli.output import changes_text, messages
from autotune.domain.config import Config
from autotune.domain.limits import Limits
from autotune.domain.run import Run
from autotune.domain.units import human_seconds
from autotune.tune.question import Answer, Progress


class StudyDisplay:
    """Shows where a study stands."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self._shown = 0

    def show(self, progress: Progress, default: Config) -> None:
        """Update the live line; where nobody watches, print one line a trial."""
        changes = changes_text(progress.config, default)
        text = (
            f"trial {progress.trial}/{progress.max_trials} [bold]{changes}[/] {progress.doing} · "
            f"{human_seconds(progress.elapsed_s)}, {human_seconds(progress.left_s)} left"
            f"{_best(progress)}"
        )
        if messages.is_terminal or progress.trial != self._shown:
            self.say(text)
        self._shown = progress.trial

    def say(self, text: str) -> None:
        """Put something else into the live line; where nobody watches, print it."""
        if messages.is_terminal:
            self._status.update(text)
        else:
            messages.print(text, soft_wrap=True)


def _best(progress: Progress) -> str:
    best, default = _request_s(progress.best), _request_s(progress.default)
    return f" · best {default / best:.2f}× default" if best and default else ""


def _request_s(run: Run | None) -> float | None:
    return run.measurement.request_s.median if run and run.measurement else None


def verdict_line(answer: Answer, limits: Limits) -> str:
    """Why the default is the answer, or cannot be; empty where it was beaten."""
    if answer.is_default and answer.n_trials > 1:
        return "The default is the answer: nothing beat it beyond noise."
    if answer.is_default:
        return "The default is the answer: nothing else was tried."
    if answer.default is None:
        return "The default does not run here."
    if not limits.keeps(answer.default.measurement):
        return f"The default does not keep {limits}."
    return ""
