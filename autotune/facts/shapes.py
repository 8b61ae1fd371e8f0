"""Hyperparameters of published models, each from the model's own ``config.json``.

A test counts the parameters of every shape against the published total.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The hyperparameters of one published model."""

    architecture: str
    label: str
    """Size as llama.cpp prints it, such as ``30B.A3B``."""
    n_params: float
    """Published number of weights."""
    n_layers: int
    n_embd: int
    n_ff: int
    """Width of the dense feed-forward blocks; 0 where every layer has experts only."""
    n_heads: int
    n_heads_kv: int
    key_length: int
    n_vocab: int
    is_tied: bool = False
    n_ff_matrices: int = 3
    """Matrices of a feed-forward block: 3 with a gate, 2 without."""
    n_experts: int = 0
    n_experts_used: int = 0
    n_ff_expert: int = 0
    n_ff_shared: int = 0
    """Width of the experts that every token uses."""
    n_dense_layers: int = 0
    """Leading layers without experts."""
    expert_period: int = 1
    """Every ``expert_period``-th layer has experts."""
    window: int = 0
    """Tokens of the sliding window; 0 without one."""
    full_period: int = 1
    """Every ``full_period``-th layer sees the whole context."""
    is_recurrent: bool = False
    """Whether the layers in between keep a state instead of a window."""
    state_elements: int = 0
    """Of a layer that keeps one, its convolution's history included."""
    kv_lora_rank: int = 0
    attention_params: int = 0
    """Weights of one layer's attention, where heads and widths do not tell."""

    @property
    def n_expert_layers(self) -> int:
        """Layers with experts."""
        if not self.n_experts:
            return 0
        return (self.n_layers - self.n_dense_layers) // self.expert_period

    def weights(self) -> dict[str, float]:
        """Number of weights by tensor group."""
        wide = self.n_heads * self.key_length
        narrow = self.n_heads_kv * self.key_length
        attention = self.attention_params or self.n_embd * (2 * wide + 2 * narrow)
        moe = self.n_expert_layers
        dense = (self.n_layers - moe) * self.n_ff + moe * self.n_ff_shared
        table = float(self.n_vocab * self.n_embd)
        return {
            "attention": float(self.n_layers * attention),
            "ffn": float(self.n_ff_matrices * self.n_embd * dense),
            "experts": float(3 * moe * self.n_experts * self.n_embd * self.n_ff_expert),
            "embedding": table,
            "output": 0.0 if self.is_tied else table,
        }

    @property
    def n_active(self) -> float:
        """Weights that one token multiplies."""
        weights = self.weights()
        share = self.n_experts_used / self.n_experts if self.n_experts else 1.0
        looked_up = 0.0 if self.is_tied else weights["embedding"]
        return sum(weights.values()) - looked_up - (1 - share) * weights["experts"]


def _dense(
    architecture: str, label: str, n_params: float, *layers: int, vocab: int, **more: Any
) -> Shape:
    """layers: n_layers, n_embd, n_ff, n_heads, n_heads_kv, key_length."""
    n_layers, n_embd, n_ff, n_heads, n_heads_kv, key_length = layers
    return Shape(
        architecture=architecture, label=label, n_params=n_params * 1e9, n_layers=n_layers,
        n_embd=n_embd, n_ff=n_ff, n_heads=n_heads, n_heads_kv=n_heads_kv, key_length=key_length,
        n_vocab=vocab, **more,
    )  # fmt: skip


def _moe(
    architecture: str, label: str, n_params: float, *layers: int, experts: tuple[int, int, int],
    vocab: int, **more: Any,
) -> Shape:  # fmt: skip
    """layers as in :func:`_dense`; experts: how many, how many a token uses, their width."""
    return _dense(
        architecture, label, n_params, *layers, vocab=vocab, n_experts=experts[0],
        n_experts_used=experts[1], n_ff_expert=experts[2], **more,
    )  # fmt: skip


_MLA = {"kv_lora_rank": 512}
_STATE_ELEMENTS = 32 * 128 * 128 + 3 * (32 + 2 * 16) * 128
"""Of 32 value heads and 16 key heads of 128, and of the convolution over their last 3 tokens."""
_SEES_ALL_AT_4 = {
    "full_period": 4, "is_recurrent": True, "attention_params": 32_100_000,
    "state_elements": _STATE_ELEMENTS,
}  # fmt: skip
SHAPES: tuple[Shape, ...] = (
    _dense("llama", "SmolLM2 135M", 0.1345, 30, 576, 1536, 9, 3, 64, vocab=49152, is_tied=True),
    _dense("llama", "SmolLM2 360M", 0.3618, 32, 960, 2560, 15, 5, 64, vocab=49152, is_tied=True),
    _dense("llama", "SmolLM2 1.7B", 1.711, 24, 2048, 8192, 32, 32, 64, vocab=49152, is_tied=True),
    _dense("llama", "TinyLlama 1.1B", 1.100, 22, 2048, 5632, 32, 4, 64, vocab=32000),
    _dense("llama", "Llama-3.2 1B", 1.236, 16, 2048, 8192, 32, 8, 64, vocab=128256, is_tied=True),
    _dense("llama", "Llama-3.2 3B", 3.213, 28, 3072, 8192, 24, 8, 128, vocab=128256, is_tied=True),
    _dense("llama", "Yi 6B", 6.061, 32, 4096, 11008, 32, 4, 128, vocab=64000),
    _dense("llama", "Llama-2 7B", 6.738, 32, 4096, 11008, 32, 32, 128, vocab=32000),
    _dense("llama", "Mistral 7B", 7.242, 32, 4096, 14336, 32, 8, 128, vocab=32000),
    _dense("llama", "Llama-3 8B", 8.030, 32, 4096, 14336, 32, 8, 128, vocab=128256),
    _dense("llama", "Solar 10.7B", 10.73, 48, 4096, 14336, 32, 8, 128, vocab=32000),
    _dense("llama", "Mistral Nemo 12B", 12.248, 40, 5120, 14336, 32, 8, 128, vocab=131072),
    _dense("llama", "Llama-2 13B", 13.016, 40, 5120, 13824, 40, 40, 128, vocab=32000),
    _dense("llama", "InternLM2 20B", 19.86, 48, 6144, 16384, 48, 8, 128, vocab=92544),
    _dense("llama", "Mistral Small 22B", 22.247, 56, 6144, 16384, 48, 8, 128, vocab=32768),
    _dense("llama", "Mistral Small 24B", 23.572, 40, 5120, 32768, 32, 8, 128, vocab=131072),
    _dense("llama", "Llama 30B", 32.529, 60, 6656, 17920, 52, 52, 128, vocab=32000),
    _dense("llama", "DeepSeek Coder 33B", 33.343, 62, 7168, 19200, 56, 8, 128, vocab=32256),
    _dense("llama", "CodeLlama 34B", 33.744, 48, 8192, 22016, 64, 8, 128, vocab=32000),
    _dense("llama", "Yi 34B", 34.389, 60, 7168, 20480, 56, 8, 128, vocab=64000),
    _dense("llama", "Llama 65B", 65.286, 80, 8192, 22016, 64, 64, 128, vocab=32000),
    _dense("llama", "Llama-2 70B", 68.977, 80, 8192, 28672, 64, 8, 128, vocab=32000),
    _dense("llama", "Llama-3 70B", 70.554, 80, 8192, 28672, 64, 8, 128, vocab=128256),
    _dense("llama", "Mistral Large 123B", 122.61, 88, 12288, 28672, 96, 8, 128, vocab=32768),
    _dense("llama", "Llama-3.1 405B", 405.85, 126, 16384, 53248, 128, 8, 128, vocab=128256),
    _moe("llama", "8x7B", 46.703, 32, 4096, 0, 32, 8, 128, vocab=32000, experts=(8, 2, 14336)),
    _moe("llama", "8x22B", 140.62, 56, 6144, 0, 48, 8, 128, vocab=32768, experts=(8, 2, 16384)),
    _moe("llama4", "17Bx16E", 107.77, 48, 5120, 0, 40, 8, 128, vocab=202048,
         experts=(16, 1, 8192), n_ff_shared=8192, window=8192, full_period=4),
    _moe("llama4", "17Bx128E", 400.71, 48, 5120, 16384, 40, 8, 128, vocab=202048,
         experts=(128, 1, 8192), n_ff_shared=8192, expert_period=2, window=8192, full_period=4),
    _dense("qwen2", "0.5B", 0.494, 24, 896, 4864, 14, 2, 64, vocab=151936, is_tied=True),
    _dense("qwen2", "1.5B", 1.544, 28, 1536, 8960, 12, 2, 128, vocab=151936, is_tied=True),
    _dense("qwen2", "3B", 3.086, 36, 2048, 11008, 16, 2, 128, vocab=151936, is_tied=True),
    _dense("qwen2", "7B", 7.616, 28, 3584, 18944, 28, 4, 128, vocab=152064),
    _dense("qwen2", "14B", 14.770, 48, 5120, 13824, 40, 8, 128, vocab=152064),
    _dense("qwen2", "32B", 32.764, 64, 5120, 27648, 40, 8, 128, vocab=152064),
    _dense("qwen2", "72B", 72.706, 80, 8192, 29568, 64, 8, 128, vocab=152064),
    _moe("qwen2moe", "A2.7B", 14.316, 24, 2048, 0, 16, 16, 128, vocab=151936,
         experts=(60, 4, 1408), n_ff_shared=5632),
    _moe("qwen2moe", "57B.A14B", 57.409, 28, 3584, 0, 28, 4, 128, vocab=151936,
         experts=(64, 8, 2560), n_ff_shared=20480),
    _dense("qwen3", "0.6B", 0.596, 28, 1024, 3072, 16, 8, 128, vocab=151936, is_tied=True),
    _dense("qwen3", "1.7B", 1.721, 28, 2048, 6144, 16, 8, 128, vocab=151936, is_tied=True),
    _dense("qwen3", "4B", 4.022, 36, 2560, 9728, 32, 8, 128, vocab=151936, is_tied=True),
    _dense("qwen3", "8B", 8.191, 36, 4096, 12288, 32, 8, 128, vocab=151936),
    _dense("qwen3", "14B", 14.768, 40, 5120, 17408, 40, 8, 128, vocab=151936),
    _dense("qwen3", "32B", 32.762, 64, 5120, 25600, 64, 8, 128, vocab=151936),
    _moe("qwen3moe", "30B.A3B", 30.532, 48, 2048, 0, 32, 4, 128, vocab=151936,
         experts=(128, 8, 768)),
    _moe("qwen3moe", "235B.A22B", 235.09, 94, 4096, 0, 64, 4, 128, vocab=151936,
         experts=(128, 8, 1536)),
    _moe("qwen3moe", "480B.A35B", 480.15, 62, 6144, 0, 96, 8, 128, vocab=151936,
         experts=(160, 8, 2560)),
    _moe("qwen3next", "80B.A3B", 79.674, 48, 2048, 0, 16, 2, 256, vocab=151936,
         experts=(512, 10, 512), n_ff_shared=512, **_SEES_ALL_AT_4),
    _moe("qwen35moe", "35B.A3B", 34.661, 40, 2048, 0, 16, 2, 256, vocab=248320,
         experts=(256, 8, 512), n_ff_shared=512, **_SEES_ALL_AT_4),
    _dense("gemma", "2B", 2.506, 18, 2048, 16384, 8, 1, 256, vocab=256000, is_tied=True),
    _dense("gemma", "7B", 8.538, 28, 3072, 24576, 16, 16, 256, vocab=256000, is_tied=True),
    _dense("gemma2", "2B", 2.614, 26, 2304, 9216, 8, 4, 256, vocab=256000, is_tied=True,
           window=4096, full_period=2),
    _dense("gemma2", "9B", 9.242, 42, 3584, 14336, 16, 8, 256, vocab=256000, is_tied=True,
           window=4096, full_period=2),
    _dense("gemma2", "27B", 27.227, 46, 4608, 36864, 32, 16, 128, vocab=256000, is_tied=True,
           window=4096, full_period=2),
    _dense("gemma3", "270M", 0.268, 18, 640, 2048, 4, 1, 256, vocab=262144, is_tied=True,
           window=512, full_period=6),
    _dense("gemma3", "1B", 1.000, 26, 1152, 6912, 4, 1, 256, vocab=262144, is_tied=True,
           window=512, full_period=6),
    _dense("gemma3", "4B", 3.880, 34, 2560, 10240, 8, 4, 256, vocab=262144, is_tied=True,
           window=1024, full_period=6),
    _dense("gemma3", "12B", 11.766, 48, 3840, 15360, 16, 8, 256, vocab=262144, is_tied=True,
           window=1024, full_period=6),
    _dense("gemma3", "27B", 27.009, 62, 5376, 21504, 32, 16, 128, vocab=262144, is_tied=True,
           window=1024, full_period=6),
    _moe("gemma4", "26B.A4B", 25.233, 30, 2816, 0, 16, 8, 256, vocab=262144, is_tied=True,
         experts=(128, 8, 704), n_ff_shared=2112, window=1024, full_period=6,
         attention_params=37_000_000),
    _dense("phi2", "3B", 2.780, 32, 2560, 10240, 32, 32, 80, vocab=51200, n_ff_matrices=2),
    _dense("phi3", "3.8B", 3.821, 32, 3072, 8192, 32, 32, 96, vocab=32064),
    _dense("phi3", "4B", 3.836, 32, 3072, 8192, 24, 8, 128, vocab=200064, is_tied=True),
    _dense("phi3", "14B", 13.960, 40, 5120, 17920, 40, 10, 128, vocab=32064),
    _dense("phi3", "14.7B", 14.660, 40, 5120, 17920, 40, 10, 128, vocab=100352),
    _moe("gpt-oss", "20B", 20.915, 24, 2880, 0, 64, 8, 64, vocab=201088, experts=(32, 4, 2880),
         window=128, full_period=2),
    _moe("gpt-oss", "120B", 116.829, 36, 2880, 0, 64, 8, 64, vocab=201088,
         experts=(128, 4, 2880), window=128, full_period=2),
    _moe("deepseek2", "16B", 15.706, 27, 2048, 10944, 16, 1, 576, vocab=102400,
         experts=(64, 6, 1408), n_ff_shared=2816, n_dense_layers=1, attention_params=13_760_000,
         **_MLA),
    _moe("deepseek2", "236B", 235.74, 60, 5120, 12288, 128, 1, 576, vocab=102400,
         experts=(160, 6, 1536), n_ff_shared=3072, n_dense_layers=1,
         attention_params=149_200_000, **_MLA),
    _moe("deepseek2", "671B", 671.03, 61, 7168, 18432, 128, 1, 576, vocab=129280,
         experts=(256, 8, 2048), n_ff_shared=2048, n_dense_layers=3,
         attention_params=187_100_000, **_MLA),
    _dense("glm4", "9B", 9.400, 40, 4096, 13696, 32, 2, 128, vocab=151552),
    _dense("glm4", "32B", 32.566, 61, 6144, 23040, 48, 2, 128, vocab=151552),
    _moe("glm4moe", "106B.A12B", 110.469, 47, 4096, 10944, 96, 8, 128, vocab=151552,
         experts=(128, 8, 1408), n_ff_shared=1408, n_dense_layers=1),
    _moe("glm4moe", "355B.A32B", 358.34, 93, 5120, 12288, 96, 8, 128, vocab=151552,
         experts=(160, 8, 1536), n_ff_shared=1536, n_dense_layers=3),
    _moe("hunyuan-moe", "A13B", 80.393, 32, 4096, 0, 32, 8, 128, vocab=128167, is_tied=True,
         experts=(64, 8, 3072), n_ff_shared=3072),
    _moe("dots1", "142B", 142.774, 62, 4096, 10944, 32, 32, 128, vocab=152064,
         experts=(128, 6, 1408), n_ff_shared=2816, n_dense_layers=1),
    _moe("ernie4_5-moe", "21B.A3B", 21.826, 28, 2560, 12288, 20, 4, 128, vocab=103424,
         is_tied=True, experts=(64, 6, 1536), n_ff_shared=3072, n_dense_layers=1),
    _moe("olmoe", "A1.7B", 6.919, 16, 2048, 0, 16, 16, 128, vocab=50304, experts=(64, 8, 1024)),
    _moe("minimax-m2", "230B.A10B", 228.70, 62, 3072, 0, 48, 8, 128, vocab=200064,
         experts=(256, 8, 1536)),
    _dense("granite", "2B", 2.534, 40, 2048, 8192, 32, 8, 64, vocab=49155, is_tied=True),
    _dense("granite", "8B", 8.171, 40, 4096, 12800, 32, 8, 128, vocab=49155, is_tied=True),
    _dense("command-r", "35B", 34.981, 40, 8192, 22528, 64, 64, 128, vocab=256000, is_tied=True),
    _dense("falcon", "7B", 7.217, 32, 4544, 18176, 71, 1, 64, vocab=65024, n_ff_matrices=2),
    _dense("starcoder2", "3B", 3.030, 30, 3072, 12288, 24, 2, 128, vocab=49152, is_tied=True,
           n_ff_matrices=2),
    _dense("starcoder2", "7B", 7.400, 32, 4608, 18432, 36, 4, 128, vocab=49152, n_ff_matrices=2),
    _dense("starcoder2", "15B", 15.958, 40, 6144, 24576, 48, 4, 128, vocab=49152,
           n_ff_matrices=2),
    _dense("stablelm", "3B", 2.795, 32, 2560, 6912, 32, 32, 80, vocab=50304),
    _dense("seed_oss", "36B", 36.151, 64, 5120, 27648, 80, 8, 128, vocab=155136),
)  # fmt: skip
"""Published shapes: hyperparameters from each model's ``config.json``."""
