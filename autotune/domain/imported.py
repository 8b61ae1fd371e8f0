"""One measured test of somebody else's telemetry: what it says, and nothing that it does not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from autotune.domain.run import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedTest:
    """A row of a foreign table. Whatever it leaves out is None."""

    source: str
    """Who measured it: the attribution that goes with the row."""
    place: str = ""
    """Where it stands in its file, such as ``line 12``."""
    machine: str | None = None
    """The machine's name in that telemetry."""
    cpu: str | None = None
    gpu: str | None = None
    """Name of the GPU; of several alike, of one of them."""
    n_gpus: int | None = None
    api: str | None = None
    """What the engine computes with: ``CUDA``, ``ROCm``, ``Vulkan``, ``Metal`` or ``CPU``."""
    backend: str = "llama-bench"
    """The inference engine."""
    build: str | None = None
    """Version of the engine, as the source writes it."""
    model: str | None = None
    """Name of the model or of its file."""
    model_type: str | None = None
    """llama.cpp's own words, such as ``qwen3moe 30B.A3B Q4_K - Medium``."""
    model_bytes: int | None = None
    """Bytes of the tensors."""
    n_params: int | None = None
    quantization: str | None = None
    n_prompt: int = 0
    n_gen: int = 0
    n_depth: int = 0
    n_ctx: int | None = None
    n_threads: int | None = None
    n_batch: int | None = None
    n_ubatch: int | None = None
    n_gpu_layers: int | None = None
    """Layers asked for on GPUs; −1 or more than there are means all."""
    n_cpu_moe: int | None = None
    """Layers whose experts stay on the CPU."""
    flash_attn: str | None = None
    """``off``, ``on`` or ``auto``."""
    type_k: str | None = None
    type_v: str | None = None
    use_mmap: bool | None = None
    offload_kqv: bool | None = None
    op_offload: bool | None = None
    split_mode: str | None = None
    tps: float | None = None
    """Tokens per second over all tokens of the test; None for one that failed or only loaded."""
    tps_sd: float | None = None
    samples_tps: tuple[float, ...] = ()
    """The rate of each repetition; empty where only the mean was kept."""
    n_reps: int | None = None
    load_s: float | None = None
    peak_vram_bytes: int | None = None
    peak_rss_bytes: int | None = None
    reason: Reason | None = None
    """Why it failed."""
    measured_at: datetime | None = None
    is_hearsay: bool = False
    """Whether an application told of it, and nobody knows how it was measured."""

    @property
    def kind(self) -> str:
        """``pp`` (prompt only), ``tg`` (generation only) or ``pg`` (one behind the other)."""
        return "pg" if self.n_prompt and self.n_gen else "pp" if self.n_prompt else "tg"
