"""How much scratch memory a graph of tensors needs when ggml places it.

ggml reserves one buffer for all intermediate tensors of a forward pass. It walks the graph once,
puts each tensor into the best-fitting gap that earlier tensors have left, lets some operations
write over their input, and notes the highest address (``ggml-alloc.c``: ``ggml_dyn_tallocr_alloc``
and ``ggml_gallocr_alloc_graph_impl``). Gaps that fit nothing make the buffer up to 5 % larger than
the largest sum of live tensors, so the walk is repeated here instead of summed up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

_UNBOUNDED = 1 << 62


@dataclass(frozen=True, slots=True)
class Places:
    """A buffer laid out for a graph."""

    addresses: Mapping[int, int]
    """Of every tensor in the buffer, by its number."""
    peak: int
    """Size of the buffer, alignment left out."""


@dataclass(slots=True)
class Graph:
    """Tensors in the order in which the engine computes them. Sizes may be in any unit."""

    sizes: list[int] = field(default_factory=list)
    sources: list[tuple[int, ...]] = field(default_factory=list)
    may_overwrite: list[bool] = field(default_factory=list)
    inputs: dict[str, int] = field(default_factory=dict)

    def input(self, name: str, size: int) -> int:
        """The tensor that the caller fills before the pass, created when first asked for."""
        if name not in self.inputs:
            self.inputs[name] = self._append(size, (), overwrite=False)
        return self.inputs[name]

    def node(self, size: int, *sources: int, overwrite: bool = False) -> int:
        """A computed tensor. ``overwrite``: it may take the place of a source that dies with it.

        Size 0 is an operation that writes into memory of its own, such as the KV cache.
        """
        return self._append(size, sources, overwrite=overwrite)

    def _append(self, size: int, sources: tuple[int, ...], *, overwrite: bool) -> int:
        self.sizes.append(size)
        self.sources.append(sources)
        self.may_overwrite.append(overwrite)
        return len(self.sizes) - 1

    def peak(self) -> int:
        """Size of the buffer that ggml reserves, alignment left out."""
        return self.place().peak

    def place(self) -> Places:
        """Where ggml puts each tensor, and how large that makes the buffer."""
        uses = [0] * len(self.sizes)
        for sources in self.sources:
            for source in sources:
                uses[source] += 1
        space, at, addresses = _Space(), {}, {}
        for tensor in self.inputs.values():  # ggml places all inputs first
            at[tensor] = addresses[tensor] = space.take(self.sizes[tensor])
        for tensor, sources in enumerate(self.sources):
            if self.sizes[tensor] and tensor not in at:
                dying = self._overwritten(tensor, uses, at)
                at[tensor] = space.take(self.sizes[tensor]) if dying is None else at.pop(dying)
                addresses[tensor] = at[tensor]
            for source in sources:
                uses[source] -= 1
                if not uses[source] and source in at:
                    space.give_back(at.pop(source), self.sizes[source])
        return Places(addresses, space.peak)

    def _overwritten(self, tensor: int, uses: list[int], at: dict[int, int]) -> int | None:
        """The source whose place a tensor takes; None without one."""
        if self.may_overwrite[tensor]:
            for source in self.sources[tensor]:
                if source in at and uses[source] == 1 and self.sizes[source] == self.sizes[tensor]:
                    return source
        return None


class _Space:
    """Free gaps sorted by address; the last one never ends."""

    def __init__(self) -> None:
        self.gaps = [[0, _UNBOUNDED]]
        self.peak = 0

    def take(self, size: int) -> int:
        """The address of the smallest gap that fits, the later of equals, the last if none does."""
        best = self.gaps[-1]
        for gap in self.gaps[:-1]:
            if size <= gap[1] <= best[1]:
                best = gap
        address = best[0]
        best[0] += size
        best[1] -= size
        if not best[1]:
            self.gaps.remove(best)
        self.peak = max(self.peak, address + size)
        return address

    def give_back(self, address: int, size: int) -> None:
        """Open a gap and join it with the ones that it touches."""
        index = next(i for i, gap in enumerate(self.gaps) if gap[0] > address)
        if self.gaps[index][0] == address + size:
            size += self.gaps.pop(index)[1]
        if index and sum(self.gaps[index - 1]) == address:
            self.gaps[index - 1][1] += size
        else:
            self.gaps.insert(index, [address, size])
