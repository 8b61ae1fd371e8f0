"""The seam between measuring and inference engines.

A backend loads a model into a session; a session answers samples: one request, timed. Only
:mod:`autotune.measure.worker` calls these, in a process of its own, so an engine may crash.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from autotune.domain.config import Config
from autotune.domain.engine import EngineTraits, engine_of
from autotune.domain.errors import MeasurementError
from autotune.domain.machine import Build, MachineFacts
from autotune.domain.plan import MemoryPlan
from autotune.domain.quality import QualityCost
from autotune.domain.request import TextCompletion, TextRequest
from autotune.domain.run import EngineReport, LoadTime, Reason
from autotune.domain.workload import Workload
from autotune.facts.gpu import EngineDevice


class EngineError(MeasurementError):
    """The engine refused or failed; carries the reason that the run is stored with."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    @classmethod
    def killed(cls, who: str, number: int) -> EngineError:
        """The engine's process ``who`` died of a signal that nobody sent; with the cure, if any."""
        name = signal.Signals(number).name
        cure = _CURES.get(name, "")
        return cls(Reason.CRASH, f"{who} was killed by {name}{cure}")


_CURES = {
    "SIGILL": ": it was built for another processor, or with a broken use of this one's AMX: "
    "build it here, with CFLAGS and CXXFLAGS=-U__AMX_INT8__"
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The raw times of one request, in nanoseconds."""

    prefill_ns: int | None
    """The prompt, without sampling; None for a workload without one."""
    ttft_ns: int | None
    """The prompt and the first token sampled from it; None for a workload without a prompt."""
    token_ns: tuple[int, ...]
    """Each decode step with its sampling; shape (n_gen,)."""
    prefill_cpu_ns: int | None
    """Processor time of the engine's process over the prompt; None for a workload without one."""
    decode_cpu_ns: int
    """Processor time of the engine's process over the decode steps."""


class Session(Protocol):
    """A loaded model with its context."""

    @property
    def load(self) -> LoadTime:
        """How long loading took, by phase."""

    def sample(self, workload: Workload, *, seed: int) -> Sample:
        """Serve one request of random tokens and time it. Raises EngineError.

        The cache starts empty, ``n_depth`` tokens are put into it outside the clock, and exactly
        ``n_gen`` tokens are generated: end-of-text is banned.
        """

    def generate(self, request: TextRequest, *, on_text: Callable[[str], bool]) -> TextCompletion:
        """Answer one request of ordinary use. Raises EngineError.

        ``on_text`` is given each piece of the answer as it comes, and ends it by returning False.
        While the prompt is computed it is given empty text now and then, which only asks whether
        to go on. The pieces together are the text of the completion. A vocabulary's names of
        control tokens in the prompt, such as ``<|im_end|>``, mean them.
        What the cache still has of the prompt is not computed again. Raises with CONSTRAINT for a
        prompt that leaves no room for a token in the context, with UNSUPPORTED for a request that
        the engine refuses otherwise; after both it goes on. No message quotes the request.
        """

    def report(self) -> EngineReport:
        """What the engine says it did."""

    def close(self) -> None:
        """Give the memory back."""


@runtime_checkable
class Backend(Protocol):
    """An inference engine."""

    name: str
    """The name used in configurations, tables and the store."""

    def build(self) -> Build:
        """Which build is installed. Raises ImportError where library or program is missing."""

    def gpus(self) -> tuple[EngineDevice, ...]:
        """The GPUs that the installed build can use."""

    def default_config(self, *, n_ctx: int, machine: MachineFacts) -> Config:
        """What a newcomer to this machine gets who sets nothing but the context."""

    def load(self, model_path: Path, config: Config) -> Session:
        """Load a model. Raises EngineError with the reason when the engine cannot."""

    def log_excerpt(self) -> str:
        """The engine's latest warnings and errors, newest last."""


@runtime_checkable
class Plans(Protocol):
    """A backend that knows what a configuration would allocate without allocating it."""

    def plan(self, model_path: Path, config: Config) -> MemoryPlan:
        """The engine's own plan.

        Raises EngineError: for an illegal combination of knobs with CONSTRAINT and the engine's
        words.
        """


@runtime_checkable
class Judges(Protocol):
    """A backend that gives out the distribution of the next token at every position of a text."""

    def quality(
        self, model_path: Path, config: Config, *, reference: Config, text: str
    ) -> QualityCost:
        """How far the configuration's distributions lie from the reference's over a text.

        The text is cut to the context that the model was trained for. Raises EngineError: for an
        illegal combination of knobs with CONSTRAINT and the engine's words; with UNSUPPORTED for
        a text that is too short to judge by, and for a model without a vocabulary to read it with.
        """


@runtime_checkable
class KnowsFiles(Protocol):
    """A backend that tells by a file's header alone that it cannot load it."""

    def why_not(self, model_path: Path) -> str:
        """What of the file the engine does not know; empty where nothing speaks against it.

        Imports no library. Raises GGUFError for a file that is no sound GGUF file.
        """


@runtime_checkable
class HasKnobs(Protocol):
    """A backend that says which knobs its engine has, where autotune does not know the engine."""

    knobs: frozenset[str]
    """Names of knobs that may differ from its default; the others are never tried."""


def traits_of(backend: Backend) -> EngineTraits:
    """What is known of the engine behind a backend, by what it says itself where it does."""
    traits = engine_of(backend.name)
    return replace(traits, knobs=backend.knobs) if isinstance(backend, HasKnobs) else traits
