"""Fitted trees as plain arrays: what a recommendation needs of scikit-learn without importing it.

scikit-learn grows the trees; importing it takes a second, which a recommender that answers in one
cannot spend. A grown tree is five arrays, so it is also stored as such: no pickle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from autotune.features.case import Array

if TYPE_CHECKING:
    from sklearn.tree import DecisionTreeRegressor

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
_MANY_ROWS = 200
"""Rows from which it pays to see first what they have in common."""


@dataclass(frozen=True, slots=True)
class Forest:
    """A sum of regression trees: ``offset + scale · Σ tree(x)``.

    The nodes of all trees lie behind each other; a leaf is its own child.
    """

    roots: Ints
    """First node of each tree; shape (n_trees,)."""
    feature: Ints
    """Column that each node asks for; shape (n_nodes,), as all below."""
    threshold: npt.NDArray[np.float32]
    """A row goes left when its value is at most this."""
    left: Ints
    right: Ints
    value: npt.NDArray[np.float32]
    depth: int
    """Steps from a root to the deepest leaf."""
    offset: float
    scale: float

    @classmethod
    def of(
        cls, trees: Sequence[DecisionTreeRegressor], *, offset: float = 0.0, scale: float = 1.0
    ) -> Forest:
        """The forest of fitted scikit-learn trees."""
        grown = [tree.tree_ for tree in trees]
        counts = np.array([tree.node_count for tree in grown])
        roots = np.concatenate([[0], np.cumsum(counts)[:-1]])

        def joined(name: str) -> Any:
            return np.concatenate([np.ravel(getattr(tree, name)) for tree in grown])

        first = np.repeat(roots, counts)
        itself = np.arange(len(first))
        is_leaf = joined("children_left") < 0
        return cls(
            roots=roots.astype(np.int32),
            feature=np.where(is_leaf, 0, joined("feature")).astype(np.int32),
            # Rounded down, so that a value equal to the threshold's neighbour stays on its side.
            threshold=_round_down(joined("threshold")),
            left=np.where(is_leaf, itself, joined("children_left") + first).astype(np.int32),
            right=np.where(is_leaf, itself, joined("children_right") + first).astype(np.int32),
            value=joined("value").astype(np.float32),
            depth=max(tree.max_depth for tree in grown),
            offset=offset,
            scale=scale,
        )

    def predict(self, x: Array) -> Array:
        """Predictions of rows of shape (n, n_features); shape (n,)."""
        values = np.ascontiguousarray(x, dtype=np.float32)
        n, width = values.shape
        if n < _MANY_ROWS:
            left, right, roots, depth = self.left, self.right, self.roots, self.depth
        else:
            left, right, roots, depth = self._shortened(values.min(axis=0), values.max(axis=0))
        children = np.stack([right, left], axis=1).ravel().astype(np.intp)
        node = np.repeat(roots[None].astype(np.intp), n, axis=0)
        start = (np.arange(n) * width)[:, None]
        for _ in range(depth):
            told = _at(values, _at(self.feature, node) + start)
            node = _at(children, 2 * node + (told <= _at(self.threshold, node)))
        return np.asarray(self.offset + self.scale * _at(self.value, node).sum(axis=1, dtype=float))

    def _shortened(self, low: Floats, high: Floats) -> tuple[Ints, Ints, Ints, int]:
        """(left, right, roots, depth) for rows between ``low`` and ``high``, (n_features,) each.

        Candidates of one model share most columns: nodes that send all of them one way are passed.
        """
        itself = np.arange(len(self.feature), dtype=np.int32)
        all_right = low[self.feature] > self.threshold
        all_left = high[self.feature] <= self.threshold
        to = np.where(all_left, self.left, np.where(all_right, self.right, itself))
        while not np.array_equal(further := to[to], to):
            to = further
        left, right, roots = to[self.left], to[self.right], to[self.roots]
        depth, nodes = 0, roots
        while len(nodes := nodes[left[nodes] != nodes]):
            nodes = np.unique(np.concatenate([left[nodes], right[nodes]]))
            depth += 1
        return left, right, roots, depth

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The state, for storing."""
        return {
            "roots": self.roots, "feature": self.feature, "threshold": self.threshold,
            "left": self.left, "right": self.right, "value": self.value,
            "numbers": np.array([self.depth, self.offset, self.scale]),
        }  # fmt: skip

    @classmethod
    def from_arrays(cls, arrays: dict[str, npt.NDArray[Any]]) -> Forest:
        """The inverse of :meth:`arrays`."""
        depth, offset, scale = arrays["numbers"]
        rest = {name: value for name, value in arrays.items() if name != "numbers"}
        return cls(**rest, depth=int(depth), offset=float(offset), scale=float(scale))


def _at(values: npt.NDArray[Any], index: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """``values.ravel()[index]``, four times as fast: indices are known to lie inside."""
    return np.take(values, index, mode="clip")


def _round_down(threshold: Array) -> npt.NDArray[np.float32]:
    """The largest 32-bit number that is not above each threshold."""
    near = threshold.astype(np.float32)
    below = np.nextafter(near, np.float32(-np.inf))
    return np.asarray(np.where(near > threshold, below, near), dtype=np.float32)
