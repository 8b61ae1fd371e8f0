"""What lossy knobs cost in quality, measured in a child process of its own.

The text that is read, ``quality.txt``, was written for this project and has its licence
(Apache-2.0): a story, a dialogue, code, JSON, figures. Costs over another text differ, so whoever
changes it starts a new series: the store keeps a hash of it with every figure.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from autotune.domain.config import Config
from autotune.domain.machine import Build
from autotune.domain.quality import QualityCost, reference_of
from autotune.measure.messages import unpack_build, unpack_quality
from autotune.measure.process import WorkerProcess

TEXT_FILE = Path(__file__).with_name("quality.txt")


class QualityMeter:
    """Judges configurations in one child process. Leaving the context ends it.

    The first one of a model pays for loading it; each reads the text twice, as itself and as its
    reference.
    """

    def __init__(
        self,
        backend: str,
        *,
        text: str | None = None,
        deadline_s: float = 1800.0,
        memory_limit_bytes: int | None = None,
    ) -> None:
        self.text = text if text is not None else TEXT_FILE.read_text(encoding="utf-8")
        """What is read; by default the text that ships with the package."""
        self._worker = WorkerProcess(
            backend, deadline_s=deadline_s, memory_limit_bytes=memory_limit_bytes
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._worker.close()

    def build(self) -> Build:
        """The engine that judges. Raises EngineError where there is none that works."""
        return unpack_build(self._worker.ask("build")["build"])

    def cost(self, model_path: Path, config: Config) -> QualityCost:
        """What a configuration loses against the same one with its cache in f16.

        Raises EngineError: CONSTRAINT with the engine's words for a combination that it refuses,
        after which another can be judged; OOM, TIMEOUT or CRASH where the child is gone.
        """
        self._worker.restart_deadline()
        answer = self._worker.ask(
            "quality",
            path=str(model_path),
            config=config.as_dict(),
            reference=reference_of(config).as_dict(),
            text=self.text,
        )
        return unpack_quality(answer["quality"])
