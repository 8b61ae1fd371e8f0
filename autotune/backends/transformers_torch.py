"""Hugging Face's transformers on PyTorch: reads a GGUF file and de-quantises it.

Every weight becomes a number of one floating type, and the cache holds numbers of the same type:
``type_k`` and ``type_v``, which must be equal, choose it for both. A model takes its parameters
times 4 bytes (f32) or 2 (f16, bf16), however small its file is.

Knobs that mean something here: ``n_ctx`` (a limit that we keep to; the cache grows with its
tokens), ``n_ubatch`` (tokens of the prompt that are computed at once), ``n_threads`` of decode and
``n_threads_batch`` of prefill, ``flash_attn`` (off: attention step by step, ``eager``; on:
PyTorch's fused kernels, ``sdpa``; auto: as transformers chooses, which is ``sdpa`` wherever it
can), ``type_k``/``type_v``, ``swa_full``, ``n_gpu_layers`` (0: processor, −1: the GPU
``main_gpu`` where PyTorch has one). The others change nothing: ``n_batch``, ``use_mmap``,
``use_mlock``, ``op_offload``, ``split_mode``, ``tensor_split``. What cannot be obeyed is refused:
a quantised cache, some layers on the GPU, a cache elsewhere than its layers, parallel sequences.

Nothing is looked up on a hub, ever. GPUs are those of CUDA and ROCm; Apple's are not used.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path

from autotune.backends.protocol import EngineError
from autotune.backends.transformers_library import Libraries, import_libraries
from autotune.backends.transformers_session import TransformersSession
from autotune.domain.config import Config
from autotune.domain.machine import Build, MachineFacts
from autotune.domain.plan import MemoryPlan
from autotune.domain.run import Reason
from autotune.facts.dequantised import plan_dequantised, refuse
from autotune.facts.gguf import read_model
from autotune.facts.gpu import EngineDevice


class TransformersBackend:
    """transformers with PyTorch. Importing this file does not import the libraries."""

    name = "transformers"

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        self._environ = environ
        self._imported: Libraries | None = None

    def _libraries(self) -> Libraries:
        """The libraries, imported once."""
        if self._imported is None:
            self._imported = import_libraries(self._environ)
        return self._imported

    def build(self) -> Build:
        """Versions of transformers and PyTorch, and the devices."""
        libraries = self._libraries()
        torch, transformers = libraries.torch, libraries.transformers
        return Build(
            backend=self.name,
            version=f"{transformers.__version__}, torch {torch.__version__}",
            devices=("CPU", *(gpu.name for gpu in self.gpus())),
            system_info=f"CPU capability {torch.backends.cpu.get_cpu_capability()}",
        )

    def gpus(self) -> tuple[EngineDevice, ...]:
        """The GPUs that this build of PyTorch can use."""
        libraries = self._libraries()
        return tuple(_gpu(libraries, i) for i in range(libraries.torch.cuda.device_count()))

    def default_config(self, *, n_ctx: int, machine: MachineFacts) -> Config:
        """``AutoModelForCausalLM.from_pretrained(folder, gguf_file=…)`` with nothing else set.

        Everything is float32, on the processor; ``generate`` computes the whole prompt at once,
        with fused attention and windows of their own size, with PyTorch's own choice of threads:
        one for each physical core. Held against the libraries in the tests.
        """
        n_threads = machine.n_physical or machine.n_processors
        return Config(
            n_ctx=n_ctx,
            n_batch=n_ctx,
            n_ubatch=n_ctx,
            n_threads=n_threads,
            n_threads_batch=n_threads,
            flash_attn="auto",
            type_k="f32",
            type_v="f32",
            swa_full=False,
        )

    def load(self, model_path: Path, config: Config) -> TransformersSession:
        """Read a model and its tokeniser."""
        libraries = self._libraries()
        libraries.log.clear()
        return TransformersSession(libraries, model_path, config)

    def plan(self, model_path: Path, config: Config) -> MemoryPlan:
        """What will be allocated, from the file's header: see :class:`protocol.Plans`.

        Needs no library, and reads nothing but the header.
        """
        for problem in refuse(config):
            raise EngineError(Reason.CONSTRAINT, f"transformers {problem}")
        return plan_dequantised(read_model(model_path), config)

    def log_excerpt(self) -> str:
        """What transformers warned of, and the words of its last failure."""
        return self._imported.log.excerpt() if self._imported else ""


def _gpu(libraries: Libraries, index: int) -> EngineDevice:
    cuda = libraries.torch.cuda
    free_bytes, total_bytes = cuda.mem_get_info(index)
    return EngineDevice(
        name=f"{libraries.gpu_family}{index}",
        description=cuda.get_device_name(index),
        total_bytes=total_bytes,
        free_bytes=free_bytes,
    )
