"""Exact memory plans from a child process that stays warm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from autotune.backends.protocol import EngineError
from autotune.domain.config import Config
from autotune.domain.plan import MemoryPlan
from autotune.domain.run import Reason
from autotune.measure.messages import unpack_plan
from autotune.measure.process import WorkerProcess

_REFUSALS = frozenset({Reason.CONSTRAINT, Reason.LOAD_ERROR, Reason.UNSUPPORTED})
"""Answers of a child that is well."""


class ExactPlanner:
    """Asks the engine what configurations would allocate. Leaving the context ends its child.

    The first plan pays for the child and for the model's metadata (about a second), the following
    ones of the same model take milliseconds.
    """

    def __init__(self, backend: str, *, deadline_s: float = 60.0) -> None:
        self._backend = backend
        self._deadline_s = deadline_s
        self._worker: WorkerProcess | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def plan(self, model_path: Path, config: Config) -> MemoryPlan:
        """The engine's own plan.

        Raises EngineError: CONSTRAINT with the engine's words for an illegal combination,
        UNSUPPORTED where the engine is missing or cannot plan, CRASH if it dies of the question
        twice, TIMEOUT after ``deadline_s``. The planner can be asked again after each of them.
        """
        try:
            return self._ask(model_path, config)
        except EngineError as error:
            if error.reason is not Reason.CRASH:
                raise
        return self._ask(model_path, config)

    def plan_many(
        self, model_path: Path, configs: Sequence[Config]
    ) -> tuple[MemoryPlan | EngineError, ...]:
        """A plan, or the reason why there is none, for each configuration in the order given."""
        answers: dict[int, MemoryPlan | EngineError] = {}
        # The metadata are read once for each placement of the layers.
        for index in sorted(range(len(configs)), key=lambda i: str(configs[i].layer_split)):
            try:
                answers[index] = self.plan(model_path, configs[index])
            except EngineError as error:
                answers[index] = error
        return tuple(answers[index] for index in range(len(configs)))

    def _ask(self, model_path: Path, config: Config) -> MemoryPlan:
        if self._worker is None:
            self._worker = WorkerProcess(self._backend, deadline_s=self._deadline_s)
        self._worker.restart_deadline()
        try:
            answer = self._worker.ask("plan", path=str(model_path), config=config.as_dict())
        except BaseException as error:
            if not isinstance(error, EngineError) or error.reason not in _REFUSALS:
                self.close()  # dead, or still busy with a question that nobody waits for
            raise
        return unpack_plan(answer["plan"])

    def close(self) -> None:
        """End the child. Another plan starts a new one."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None
