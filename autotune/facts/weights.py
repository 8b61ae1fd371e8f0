"""Where the weights of a model end up in memory, and which of them llama.cpp copies.

Source: ``llama_model_base::load_tensors``, ``make_cpu_buft_list`` and ``select_weight_buft`` of
llama.cpp, ``ggml_repack_get_optimal_repack_type`` and ``amx.cpp`` of ggml, revision 0c1e57098.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from autotune.domain.model import ModelFacts
from autotune.facts.placement import CPU, Placement

_X86 = frozenset({"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"})
_ARM = _X86 | {"Q5_K", "Q6_K", "Q8_0", "Q1_0"}
_AMX = frozenset({"Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "F16"})
_REPACKS: tuple[tuple[frozenset[str], frozenset[str]], ...] = (
    (frozenset({"avx2"}), _X86),
    (frozenset({"avx512f"}), frozenset({"Q2_K"})),
    (frozenset({"neon", "dotprod"}), _ARM),
    (frozenset({"amx_int8", "avx512_vnni"}), _AMX),
)
_INTERLEAVED_ROWS = 8


def repacked_types(isa: Iterable[str]) -> frozenset[str]:
    """Element types that llama.cpp copies into a layout of its own while it loads onto the CPU.

    ``isa`` names the extensions that both the processor and the engine's build have.
    """
    present = frozenset(isa)
    return frozenset().union(*(types for needed, types in _REPACKS if needed <= present))


class Weights:
    """The weight bytes of one model by where they go."""

    def __init__(self, model: ModelFacts, repacks: frozenset[str]) -> None:
        by_group: dict[str, int] = defaultdict(int)
        for tensor in model.tensors:
            by_group[tensor.group] += tensor.n_bytes
        self._embedding = by_group["embedding"]
        self._input = self._embedding + by_group["lookup"]
        in_layers = model.weight_bytes - self._input - by_group["output"]
        layers = model.layer_bytes or (in_layers // model.n_layers,) * model.n_layers
        self._until = [*accumulate(layers, initial=0)]
        self._output = model.weight_bytes - self._input - self._until[-1]
        self._largest_layer = max(layers)
        self._is_tied = model.is_tied
        self.repacked = sum(_repacked(model, repacks, tied=True))
        """Bytes of the repacked copies; a tied embedding is copied for the output layer."""
        self._moved = sum(_repacked(model, repacks, tied=False))

    def by_device(self, placement: Placement, *, mapped: bool) -> Mapping[str, int]:
        """Bytes on each device. A mapped tensor keeps its pages besides its repacked copy.

        The embedding stays on the CPU; a tied one is copied to where the output layer is.
        """
        sizes = dict.fromkeys(placement.devices, 0)
        sizes[CPU] = self._input - (0 if mapped else self._moved)
        for run in placement.runs:
            sizes[run.device] += self._until[run.end] - self._until[run.first]
        copied = self._embedding if self._is_tied and placement.output != CPU else 0
        sizes[placement.output] += self._output + copied
        return sizes

    def largest_copy(self, placement: Placement) -> int:
        """Bytes of host weights that a GPU may hold at once while it computes for the CPU."""
        head = self._embedding if self._is_tied else self._output
        return max(self._largest_layer, head if placement.output == CPU else 0)


def _repacked(model: ModelFacts, repacks: frozenset[str], *, tied: bool) -> Iterator[int]:
    looked_up = ("lookup",) if tied and model.is_tied else ("lookup", "embedding")
    for tensor in model.tensors:
        if tensor.type not in repacks or tensor.group in looked_up:
            continue
        if tensor.group in ("embedding", "output") and model.n_vocab % _INTERLEAVED_ROWS:
            continue  # of all matrices only these have a row for each word
        yield tensor.n_bytes
