"""Whom rows are about: models, families and places, by name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autotune.predict.places import DEVICE

Strings = npt.NDArray[np.str_]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Subjects:
    """Whom rows are about; names of shape (n,), places of shape (n, len(WIDTHS))."""

    groups: Strings
    """One model on one machine with one backend."""
    families: Strings
    places: Strings
    configs: Strings
    """Which rows are the same configuration of the same build, whatever the workload."""
    kinds: Ints
    """Number of each row's group, family and places together: names are slow to compare."""

    def take(self, rows: Ints | Bools) -> Subjects:
        """Those of some rows."""
        return Subjects(
            self.groups[rows],
            self.families[rows],
            self.places[rows],
            self.configs[rows],
            self.kinds[rows],
        )

    def distinct(self) -> tuple[Subjects, Ints]:
        """(one row of each kind, which of them each row is)."""
        _, first, index = np.unique(self.kinds, return_index=True, return_inverse=True)
        return self.take(first), index

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def devices(self) -> Strings:
        """The device of each row, whatever drives it; shape (n,)."""
        kinds, index = self.distinct()
        names = [str(device).split("/", 1)[0] for device in kinds.places[:, DEVICE]]
        return np.array(names, dtype=str)[index]

    @property
    def on_gpu(self) -> Bools:
        """Whether each row's engine computes with a GPU; shape (n,)."""
        kinds, index = self.distinct()
        return ~np.char.endswith(kinds.places[:, DEVICE], "/CPU")[index]
