"""The library ctransformers 0.2.27, frozen in 2023 with the llama.cpp of that time.

It prints nothing while it loads, so only times and the context are known of a load. Its threads
spin while they wait for one another: where another program computes, as many threads as processors
can take a hundred times as long as one (SmolLM2 on 2 cores: 0.3 to 126 tok/s, against 60).
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from autotune.backends import ctransformers_files
from autotune.backends.ctransformers_session import CtransformersSession
from autotune.backends.protocol import EngineError
from autotune.domain.config import Config
from autotune.domain.errors import GGUFError
from autotune.domain.machine import Build, MachineFacts
from autotune.domain.run import Reason
from autotune.facts.gpu import EngineDevice

_MAX_BATCH = 512
"""The compute buffer is made for so many tokens, whatever is asked for."""
_FIXED = (
    *("flash_attn", "type_k", "type_v", "n_gpu_layers", "offload_kqv", "op_offload", "split_mode"),
    *("main_gpu", "tensor_split", "n_parallel"),
)
"""Knobs that the library does not have: it computes on the processor, one sequence, f16 cache."""


class CtransformersBackend:
    """ctransformers on the processor. Importing this file does not import the library."""

    name = "ctransformers"

    def __init__(self) -> None:
        self._library = ""

    def library(self) -> str:
        """The file that the library chooses for this processor. Raises ImportError.

        Looked for once: it takes a second each time, which is no part of a load.
        """
        if not self._library:
            from ctransformers.lib import find_library

            try:
                self._library = find_library()
            except OSError as error:
                raise ImportError("there is none of its libraries for this system") from error
        return self._library

    def build(self) -> Build:
        """Version, and which instruction set its library is compiled for."""
        variant = Path(self.library()).parent.name
        return Build(
            backend=self.name, version=version(self.name), devices=("CPU",), system_info=variant
        )

    def gpus(self) -> tuple[EngineDevice, ...]:
        """None: the library that is chosen computes on the processor."""
        return ()

    def default_config(self, *, n_ctx: int, machine: MachineFacts) -> Config:
        """``AutoModelForCausalLM.from_pretrained(path, context_length=…)``, nothing else set.

        Source: ``Config`` in ``ctransformers/llm.py`` and ``EvalInternal`` in ``models/llm.h``:
        eight tokens at once, every logical processor up to four, half of them above.
        """
        n_batch = min(8, n_ctx)
        n_logical = machine.n_logical or machine.n_processors
        n_threads = n_logical if n_logical <= 4 else n_logical // 2
        return Config(
            n_ctx=n_ctx,
            n_batch=n_batch,
            n_ubatch=n_batch,
            n_threads=n_threads,
            n_threads_batch=n_threads,
        )

    def why_not(self, model_path: Path) -> str:
        """What of a file is newer than 2023: see :class:`protocol.KnowsFiles`."""
        return ctransformers_files.why_not(model_path)

    def load(self, model_path: Path, config: Config) -> CtransformersSession:
        """Load a model. Raises EngineError with UNSUPPORTED for one that is newer than 2023."""
        _require(config)
        try:
            problem = self.why_not(model_path)
        except GGUFError as error:
            raise EngineError(Reason.LOAD_ERROR, str(error)) from error
        if problem:
            message = f"ctransformers of 2023 cannot load {model_path.name}: {problem}"
            raise EngineError(Reason.UNSUPPORTED, message)
        return CtransformersSession(self.library(), model_path, config)

    def log_excerpt(self) -> str:
        """Nothing: the library says nothing."""
        return ""


def _require(config: Config) -> None:
    """Refuse what the library has no knob for. Raises EngineError."""
    plain = Config()
    for knob in _FIXED:
        value, only = getattr(config, knob), getattr(plain, knob)
        if value != only and (knob, value) != ("flash_attn", "auto"):
            message = f"ctransformers has no {knob}={value}: leave it at {only}"
            raise EngineError(Reason.CONSTRAINT, message)
    if config.n_ubatch > _MAX_BATCH:
        message = f"ctransformers computes at most {_MAX_BATCH} tokens at once: lower n_ubatch"
        raise EngineError(Reason.CONSTRAINT, message)
