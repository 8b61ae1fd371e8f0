"""Scratch memory that a request really touches.

llama.cpp reserves its compute buffer for full batches over a full cache with logits of every token.
A smaller batch keeps the places of that reservation and writes the beginning of each
(``ggml_gallocr_alloc_graph``); what is never written never becomes resident. Beside the buffer lies
the work buffer, into which the inputs of matrix products are converted (``ggml_graph_plan``).
Revision 0c1e57098; 94 measured peaks agree within 0.6 %, see ``tests/benchmarks/memory.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from autotune.domain.config import Config
from autotune.domain.model import ModelFacts
from autotune.domain.workload import Workload
from autotune.facts.compute_buffer import F16, Attention, Forward, telling_layers

_CONVERTED_BYTES = 9 / 8
"""Bytes of an element in the 8-bit blocks that quantised weights are multiplied with."""


class Batch(NamedTuple):
    """Tokens that are computed at once."""

    n_tokens: int
    n_cached: int
    """Tokens in the cache afterwards, these included."""


def largest_batches(workload: Workload, n_ubatch: int) -> Iterator[Batch]:
    """The batches of one request that no other of its batches exceeds; at least one."""
    yield Batch(1, 1)
    for n_tokens, before in ((workload.n_depth, 0), (workload.n_prompt, workload.n_depth)):
        n_rest = n_tokens % n_ubatch
        if n_tokens >= n_ubatch:
            yield Batch(n_ubatch, before + n_tokens - n_rest)
        if n_rest:
            yield Batch(n_rest, before + n_tokens)


class TouchedMemory:
    """What requests touch of the scratch memory of one model. Graphs are remembered."""

    def __init__(self, model: ModelFacts) -> None:
        self._model = model
        self._layers = telling_layers(model)
        self._widest = max(model.n_ff, model.n_experts_used * model.n_ff_expert)
        self._request = lru_cache(maxsize=4096)(self._new_request)
        self._places = lru_cache(maxsize=1024)(self._new_places)
        self._sizes = lru_cache(maxsize=1024)(self._new_sizes)

    def n_bytes(
        self, config: Config, workload: Workload, attention: Attention | None = None
    ) -> int:
        """Bytes of compute and work buffer that become resident when ``workload`` is served.

        ``attention`` is that of the configuration, where it is known already.
        """
        attention = attention or Attention.of(self._model, config)
        return self._request(attention, config.n_ubatch, workload)

    def _new_request(self, attention: Attention, n_ubatch: int, workload: Workload) -> int:
        batches = [*largest_batches(workload, n_ubatch)]
        places = self._places(attention, n_ubatch)
        sizes = [self._sizes(attention.over(batch.n_cached), batch.n_tokens) for batch in batches]
        written = [*map(max, zip(*sizes, strict=True))]
        spans = ((place, place + written[tensor]) for tensor, place in places.items())
        return _covered(spans) + max(self._work_bytes(attention, batch) for batch in batches)

    def _new_places(self, attention: Attention, n_tokens: int) -> Mapping[int, int]:
        """Addresses in the reserved buffer, by tensor."""
        if attention.is_constant_free and n_tokens > 1:
            one = self._places(attention, 1)
            return {tensor: n_tokens * place for tensor, place in one.items()}
        forward = Forward(self._model, attention, n_tokens)
        forward.run(self._layers, n_vocab=self._model.n_vocab)
        return forward.graph.place().addresses

    def _new_sizes(self, attention: Attention, n_tokens: int) -> Sequence[int]:
        """Bytes that a batch writes of each tensor; its last token alone gets logits."""
        forward = Forward(self._model, attention, n_tokens, n_outputs=1)
        forward.run(self._layers, n_vocab=self._model.n_vocab)
        sizes = forward.graph.sizes
        sizes[forward.graph.inputs["embeddings"]] = 0  # tokens come as numbers, not as vectors
        return sizes

    def _work_bytes(self, attention: Attention, batch: Batch) -> int:
        """Attention odds are halved for the product with values; everything else goes to 8 bits."""
        cells = 0 if attention.flash else attention.over(batch.n_cached).cells
        odds = max(self._model.n_heads) * cells * F16
        return int(batch.n_tokens * max(self._widest * _CONVERTED_BYTES, odds))


def _covered(spans: Iterable[tuple[int, int]]) -> int:
    """Length of the union of spans."""
    covered = reached = 0
    for start, end in sorted(spans):
        if end > reached:
            covered += end - max(start, reached)
            reached = end
    return covered
