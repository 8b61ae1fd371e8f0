"""The compute buffer of a llama.cpp context, from the shape of the model.

The forward pass of a decoder is replayed tensor by tensor (:mod:`autotune.facts.graph_memory`) in
the order in which ``llm_graph_context`` and ``src/models/llama.cpp`` build it. Every tensor grows
with the tokens of one physical batch, so the graph is built for one token and the peak multiplied;
only the rotation matrices of a quantised cache are constant.

Post-norms, query/key norms, biases and soft-capping are computed in place and change nothing, which
is why one graph serves most architectures. Against llama.cpp's own dry run it is exact for Llama,
Qwen 2 and 3, Gemma 2 and 3, Mixtral and Qwen 3 MoE (``tests/facts/test_plan_against_engine.py``).
It falls short by 1 to 11 % for recurrent and hybrid models, up to 7 % for gpt-oss, 16 % where
projections are fused (Phi 3) and 31 % for DeepSeek's compressed attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from autotune.domain.config import LOSSLESS_KV_TYPES, Config
from autotune.domain.model import ModelFacts
from autotune.facts.graph_memory import Graph

F32, F16, I64 = 4, 2, 8
_CELL_PADDING = 256
_ROTATION_UNIT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerShape:
    """What decides the tensors of one layer: their elements per token."""

    n_heads: int
    query: int
    key: int
    value: int
    attended: int
    """Output of the attention, before its projection."""
    is_sliding: bool


class Attention(NamedTuple):
    """What a configuration decides about the attention of one forward pass.

    A tuple, because making and hashing it is the innermost loop of a search.
    """

    cells: int
    """Cache cells of one sequence."""
    cells_sliding: int
    """Cache cells of one sequence in a sliding-window layer."""
    flash: bool
    key_rotation: int = 0
    """Side of the matrix that turns keys before a quantised cache stores them; 0 without."""
    value_rotation: int = 0

    @classmethod
    def of(cls, model: ModelFacts, config: Config) -> Attention:
        """As llama.cpp sets it up for a context; ``auto`` flash attention is on."""
        cells = cells_sliding = _padded(_padded(config.n_ctx) // config.n_parallel)
        if not config.swa_full:
            cells_sliding = _padded(min(cells, model.sliding_window + config.n_ubatch))
        return cls(
            cells=cells,
            cells_sliding=cells_sliding,
            flash=config.flash_attn != "off",
            key_rotation=_rotation(config.type_k, model.key_length),
            value_rotation=min(_ROTATION_UNIT, _rotation(config.type_v, model.value_length)),
        )

    @property
    def is_constant_free(self) -> bool:
        """Whether every tensor grows with the tokens of a batch: no matrix turns the cache."""
        return not (self.key_rotation or self.value_rotation)

    def over(self, n_cached: int) -> Attention:
        """The same attention over the first ``n_cached`` tokens only."""
        used = _padded(n_cached)
        return self._replace(
            cells=min(self.cells, used), cells_sliding=min(self.cells_sliding, used)
        )


class ComputeBuffer:
    """Compute buffers of one model. Peaks are remembered, because candidates share them."""

    def __init__(self, model: ModelFacts) -> None:
        self.model = model
        self.layers = telling_layers(model)
        self._peaks: dict[tuple[Attention, int, bool], int] = {}

    def n_bytes(self, attention: Attention, n_tokens: int, *, with_logits: bool = True) -> int:
        """Bytes of the buffer for physical batches of ``n_tokens``.

        ``with_logits=False`` is a device that holds layers, but not the output layer.
        """
        if attention.is_constant_free:
            return n_tokens * self._peak(attention, 1, with_logits=with_logits)
        return self._peak(attention, n_tokens, with_logits=with_logits)

    def input_bytes(self, attention: Attention, n_tokens: int) -> int:
        """Bytes of the host's own buffer when every layer is elsewhere: embeddings and mask."""
        mask = attention.cells * (F16 if attention.flash else F32)
        return n_tokens * (self.model.n_embd * F32 + mask)

    def _peak(self, attention: Attention, n_tokens: int, *, with_logits: bool) -> int:
        key = (attention, n_tokens, with_logits)
        if key not in self._peaks:
            forward = Forward(self.model, attention, n_tokens)
            forward.run(self.layers, n_vocab=with_logits * self.model.n_vocab)
            self._peaks[key] = forward.graph.peak()
        return self._peaks[key]


def telling_layers(model: ModelFacts) -> tuple[LayerShape, ...]:
    """The layers that show every succession of two kinds, and the last one.

    Where a tensor lands depends on the layer before, and a model has few kinds of layers: all
    others repeat what these do.
    """
    *body, last = [_layer_shape(model, layer) for layer in range(model.n_layers)]
    successions = dict.fromkeys(zip((None, *body), body, strict=False))
    return (*(layer for _, layer in successions), last)


def _layer_shape(model: ModelFacts, layer: int) -> LayerShape:
    slides = bool(model.is_sliding) and model.is_sliding[layer]
    key_length = (slides and model.key_length_sliding) or model.key_length
    value_length = (slides and model.value_length_sliding) or model.value_length
    key, value = model.cached_elements(layer)
    n_heads = model.n_heads[layer]
    return LayerShape(
        n_heads=n_heads,
        query=n_heads * key_length,
        key=key,
        value=value,
        attended=n_heads * value_length,
        is_sliding=slides,
    )


class Forward:
    """One forward pass as a graph of tensors; sizes in bytes.

    ``n_outputs`` tokens get logits: all of them, unless told otherwise.
    """

    def __init__(
        self,
        model: ModelFacts,
        attention: Attention,
        n_tokens: int,
        *,
        n_outputs: int | None = None,
    ) -> None:
        self.model, self.attention = model, attention
        self.graph = Graph()
        self.n_outputs = n_tokens if n_outputs is None else n_outputs
        self.widest_value = max(model.cached_elements(i)[1] for i in range(model.n_layers))
        self.half = F16 * n_tokens
        self.index = I64 * n_tokens
        self.carry(n_tokens)

    def carry(self, n_tokens: int) -> None:
        """So many tokens from here on."""
        self.float = F32 * n_tokens
        self.hidden = self.model.n_embd * self.float

    def run(self, layers: Sequence[LayerShape], *, n_vocab: int) -> None:
        """The pass through ``layers``, and the logits."""
        graph = self.graph
        residual = graph.node(self.hidden, graph.input("tokens", self.float))
        graph.input("embeddings", self.hidden)  # for callers who bring vectors; never freed
        for layer in layers[:-1]:
            residual = self.layer(layer, residual)
        residual = self.layer(layers[-1], residual, is_last=True)
        graph.node(n_vocab * self.float, self.normed(residual))

    def normed(self, source: int) -> int:
        """Normalised, in place where nobody else needs the source, and scaled in place."""
        return self.graph.node(self.hidden, source, overwrite=True)

    def layer(self, layer: LayerShape, residual: int, *, is_last: bool = False) -> int:
        """Attention and feed-forward; only the rows that become logits leave the last attention."""
        graph = self.graph
        mixed = self.attend(layer, self.normed(residual))
        if is_last:
            self.carry(self.n_outputs)
            rows = graph.input("output rows", self.float)
            mixed = graph.node(self.hidden, mixed, rows)
            residual = graph.node(self.hidden, residual, rows)
        residual = graph.node(self.hidden, mixed, residual, overwrite=True)
        normed = self.normed(residual)
        fed = self.experts(normed) if self.model.n_experts else self.dense(normed)
        return graph.node(self.hidden, fed, residual, overwrite=True)

    def attend(self, layer: LayerShape, normed: int) -> int:
        """Scores over the cache, odds, weighted values, the projection back."""
        graph, attention = self.graph, self.attention
        query, key, value = self.projections(layer, normed)
        kind = " sliding" if layer.is_sliding else ""
        graph.node(0, key, graph.input("key rows" + kind, self.index))
        per_row = 1 if attention.flash else self.widest_value  # Vᵀ is written by element
        graph.node(0, value, graph.input("value rows" + kind, self.index * per_row))
        cells = attention.cells_sliding if layer.is_sliding else attention.cells
        mask = graph.input("mask" + kind, cells * (self.half if attention.flash else self.float))
        attended = layer.attended * self.float
        if attention.flash:
            heads = graph.node(attended, query, mask)
        else:
            scores = graph.node(layer.n_heads * cells * self.float, query)
            odds = graph.node(layer.n_heads * cells * self.float, scores, mask, overwrite=True)
            heads = graph.node(attended, graph.node(attended, odds))  # and side by side again
        turn = self.turn("value" + kind, attention.value_rotation)
        return graph.node(self.hidden, self.rotated(heads, turn))

    def projections(self, layer: LayerShape, normed: int) -> tuple[int, int, int]:
        """Query, key and value; the key before the value in models with sliding layers."""
        kind = " sliding" if layer.is_sliding else ""
        key_turn = self.turn("key" + kind, self.attention.key_rotation)
        query = self.rotated(self.positioned(normed, layer.query), key_turn)
        if self.model.slides:
            key = self.rotated(self.positioned(normed, layer.key), key_turn)
        value_turn = self.turn("value" + kind, self.attention.value_rotation)
        value = self.rotated(self.graph.node(layer.value * self.float, normed), value_turn)
        if not self.model.slides:
            key = self.rotated(self.positioned(normed, layer.key), key_turn)
        return query, key, value

    def positioned(self, normed: int, width: int) -> int:
        """Projected, then turned by position: not in place, as its source is seen by a view."""
        projected = self.graph.node(width * self.float, normed)
        positions = self.graph.input("positions", self.float)
        return self.graph.node(width * self.float, projected, positions)

    def turn(self, name: str, side: int) -> int | None:
        """The rotation matrix of a quantised cache, which ggml meets before what it turns."""
        return self.graph.input(name + " turn", side * side * F32) if side else None

    def rotated(self, source: int, turn: int | None) -> int:
        """Multiplied by a rotation matrix, if there is one."""
        if turn is None:
            return source
        return self.graph.node(self.graph.sizes[source], turn, source)

    def dense(self, normed: int) -> int:
        """Gate and up projections, their product, the way down."""
        graph, wide = self.graph, self.model.n_ff * self.float
        gate, up = graph.node(wide, normed), graph.node(wide, normed)
        return graph.node(self.hidden, graph.node(wide, gate, up))

    def experts(self, normed: int) -> int:
        """``build_moe_ffn``: the router, the chosen experts' projections, their weighted sum."""
        graph, model, used = self.graph, self.model, self.model.n_experts_used
        wide = used * model.n_ff_expert * self.float
        logits = graph.node(model.n_experts * self.float, normed)
        odds = graph.node(model.n_experts * self.float, logits, overwrite=True)
        chosen = graph.node(model.n_experts * self.float, odds)
        weights = graph.node(used * self.float, odds, chosen)
        weights = graph.node(used * self.float, weights, graph.node(self.float, weights))
        gate, up = graph.node(wide, normed, chosen), graph.node(wide, normed, chosen)
        spread = graph.node(used * self.hidden, graph.node(wide, gate, up), chosen)
        spread = graph.node(used * self.hidden, spread, weights, overwrite=True)
        total = graph.node(self.hidden, spread)
        for _ in range(used - 2):
            total = graph.node(self.hidden, total, spread, overwrite=True)
        return total


def _rotation(kv_type: str, head_length: int) -> int:
    """Side of the largest Hadamard matrix that divides a head, for a quantised cache; else 0."""
    if kv_type in LOSSLESS_KV_TYPES or head_length % _ROTATION_UNIT:
        return 0
    return head_length & -head_length


def _padded(cells: int) -> int:
    """llama.cpp rounds every cache up to a multiple of 256 cells."""
    return -(-cells // _CELL_PADDING) * _CELL_PADDING
