"""What llama.cpp knows of an architecture and the file does not say: which layers keep what.

Source: ``load_arch_hparams`` of each file in llama.cpp's ``src/models``, ``llama_hparams`` and
``llama_model::create_memory``, at revision 0c1e57098. An architecture that is not listed here has
full attention in every layer, whatever its keys say: llama.cpp reads ``sliding_window`` only for
the ones that are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autotune.facts.keys import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Sliding:
    """How an architecture spreads sliding-window layers."""

    period: int = 1
    """Every ``period``-th layer is full; 1 makes every layer full, 0 none."""
    dense_first: bool = False
    """Whether the full layer opens the period; by default it closes it."""
    window: int = 0
    """Tokens of the window where the file does not say; 0 means that then no layer slides."""
    forced_window: int = 0
    """Tokens that llama.cpp takes instead of any window above 0 in the file."""

    def slides(self, layer: int, period: int) -> bool:
        """``llama_hparams::set_swa_pattern``."""
        return period == 0 or layer % period != (0 if self.dense_first else period - 1)


_SLIDING: Mapping[str, Sliding] = {
    "afmoe": Sliding(period=4),
    "cohere2": Sliding(period=4),
    "cohere2moe": Sliding(period=4, dense_first=True),
    "deepseek4": Sliding(period=0),
    "dots3note": Sliding(),
    "exaone-moe": Sliding(period=4, window=128),
    "exaone4": Sliding(period=4, window=4096),
    "gemma-embedding": Sliding(period=6),
    "gemma2": Sliding(period=2, window=4096),
    "gemma3": Sliding(period=6),
    "gemma3n": Sliding(period=5),
    "gemma4": Sliding(),
    "gpt-oss": Sliding(period=2),
    "granite_swa": Sliding(),
    "laguna": Sliding(period=4, dense_first=True),
    "lfm2": Sliding(period=0),
    "lfm2moe": Sliding(period=0),
    "llama4": Sliding(period=4, window=8192, forced_window=8192),
    "maple": Sliding(),
    "mellum": Sliding(period=4),
    "mimo2": Sliding(),
    "modern-bert": Sliding(period=3, dense_first=True),
    "muse-glimmer": Sliding(period=4),
    "olmo2": Sliding(period=4),
    "plamo3": Sliding(period=8),
    "smallthinker": Sliding(period=4, dense_first=True, forced_window=4096),
    "spark2_5": Sliding(),
    "step35": Sliding(),
}
"""A plain ``Sliding()`` belongs to the architectures whose files carry one flag per layer."""

_EXAONE4_SLIDING_LAYERS = 64
"""Only the 32B model of that architecture slides."""

_RECURRENT = {"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"}
_BOTH = {"falcon-h1"}
_RECURRENT_WITHOUT_HEADS = {
    *("jamba", "plamo2", "granitehybrid", "lfm2", "lfm2moe", "kimi-linear", "kimi-k3"),
    *("bailingmoe3", "glm5-next"),
}
_RECURRENT_WITHOUT_HEADS_OR_FFN = {"nemotron_h", "nemotron_h_moe"}
_FULL_ATTENTION_INTERVAL = {
    **dict.fromkeys(("qwen3next", "qwen35", "qwen35moe", "qwen4exp"), 4),
    "minimax-01": 8,
}
_GEMMA3N_CACHING_LAYERS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """What each layer keeps between tokens; every tuple has shape (n_layers,), or is empty."""

    n_heads_kv: tuple[int, ...]
    """Key/value heads of the layer's own cache; 0 where it keeps none."""
    sliding_window: int
    is_sliding: tuple[bool, ...]
    is_recurrent: tuple[bool, ...]
    state_elements: int


def read_layers(keys: Keys) -> Layers:
    """What llama.cpp will make of the layers of this file."""
    window, is_sliding = _sliding(keys)
    is_recurrent = _recurrent(keys)
    return Layers(
        n_heads_kv=_caching_heads(keys, is_recurrent),
        sliding_window=window,
        is_sliding=is_sliding,
        is_recurrent=is_recurrent,
        state_elements=_state_elements(keys) if is_recurrent else 0,
    )


def _sliding(keys: Keys) -> tuple[int, tuple[bool, ...]]:
    rule = _SLIDING.get(keys.architecture)
    window = keys.integer("attention.sliding_window", rule.window if rule else 0)
    if rule is None or window == 0:
        return 0, ()
    if keys.architecture == "exaone4" and keys.n_layers != _EXAONE4_SLIDING_LAYERS:
        return 0, ()
    flags = _sliding_flags(keys, rule)
    return (rule.forced_window or window, flags) if any(flags) else (0, ())


def _sliding_flags(keys: Keys, rule: Sliding) -> tuple[bool, ...]:
    """One flag per layer; a number in the file is a period, a list is the flags themselves."""
    flags = keys.listed("attention.sliding_window_pattern")
    if flags is not None:
        return tuple(map(bool, flags))
    period = keys.integer("attention.sliding_window_pattern", rule.period)
    recurrent = _recurrent(keys) or (False,) * keys.n_layers
    return tuple(
        layer < keys.n_trunk and rule.slides(layer, period) and not recurrent[layer]
        for layer in range(keys.n_layers)
    )


def _recurrent(keys: Keys) -> tuple[bool, ...]:
    """Whether each layer keeps a state; empty for the architectures that keep none."""
    architecture = keys.architecture
    heads = keys.per_layer("attention.head_count_kv", keys.integer("attention.head_count"))
    if architecture in _RECURRENT | _BOTH:
        return (True,) * keys.n_layers
    if architecture in _RECURRENT_WITHOUT_HEADS:
        return tuple(n_heads == 0 for n_heads in heads)
    if architecture in _RECURRENT_WITHOUT_HEADS_OR_FFN:
        n_ff = keys.per_layer("feed_forward_length")
        return tuple(n_heads == 0 == width for n_heads, width in zip(heads, n_ff, strict=True))
    if architecture in _FULL_ATTENTION_INTERVAL:
        return _recurrent_by_interval(keys)
    return ()


def _recurrent_by_interval(keys: Keys) -> tuple[bool, ...]:
    flags = keys.listed("attention.recurrent_layers")
    if flags is not None:
        return tuple(map(bool, flags))
    interval = keys.integer("full_attention_interval", _FULL_ATTENTION_INTERVAL[keys.architecture])
    if not interval:
        raise keys.wrong("full_attention_interval", 0, "no interval")
    return tuple(
        layer < keys.n_trunk and (layer + 1) % interval != 0 for layer in range(keys.n_layers)
    )


def _caching_heads(keys: Keys, is_recurrent: tuple[bool, ...]) -> tuple[int, ...]:
    heads = keys.per_layer("attention.head_count_kv", keys.integer("attention.head_count"))
    n_caching = min(_n_caching(keys), keys.n_trunk)
    without = is_recurrent if keys.architecture not in _BOTH else ()
    return tuple(
        n_heads if layer < n_caching and not (without and without[layer]) else 0
        for layer, n_heads in enumerate(heads)
    )


def _n_caching(keys: Keys) -> int:
    """Layers, from the first, with a cache of their own; later ones read an earlier one's."""
    if keys.architecture == "gemma3n":
        return _GEMMA3N_CACHING_LAYERS
    return keys.n_layers - keys.integer("attention.shared_kv_layers")


def _state_elements(keys: Keys) -> int:
    """``llama_hparams::n_embd_r`` + ``n_embd_s``: convolution history and state of a layer."""
    n_embd, n_heads = keys.integer("embedding_length"), keys.integer("attention.head_count")
    kernel = keys.integer("ssm.conv_kernel")
    if head_size := keys.integer("wkv.head_size"):
        return n_embd * (keys.integer("token_shift_count", 2) + head_size)
    if kept := keys.integer("shortconv.l_cache"):
        return n_embd * (kept - 1)
    if head_size := keys.integer("kda.head_dim"):
        return n_heads * head_size * (3 * (kernel - 1 if kernel else 3) + head_size)
    if keys.architecture == "minimax-01":
        return n_heads * keys.integer("attention.key_length", n_embd // max(n_heads, 1)) ** 2
    inner, state = keys.integer("ssm.inner_size"), keys.integer("ssm.state_size")
    history = inner + 2 * keys.integer("ssm.group_count") * state
    return max(kernel - 1, 0) * history + state * inner
