"""What is peculiar to one model on one machine: a Gaussian process with a fixed kernel.

It sees the residuals of the few runs that there are and says how far they carry to other
configurations. A fixed kernel cannot overfit a handful of runs (one that is fitted to them can:
p90 errors rose from 29 to 50 % on public telemetry). Only how large the effects are may follow from
the runs, where these contradict the kernel. Rasmussen & Williams, "Gaussian Processes for
Machine Learning", 2006, algorithm 2.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autotune.features.case import Array

Strings = npt.NDArray[np.str_]
MAX_POINTS = 300
"""More residuals of one model say little that is new; the last ones are kept."""
_WIDER = (1.5, 2.0, 3.0, 4.0)
"""How many times as large as the kernel says the effects of one model may be."""
_WIDER_SD = float(np.log(2.0))
"""Doubt about the kernel's standard deviations: a factor of two either way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """Offset plus Matérn-5/2 over the knobs, all variances of log slowdowns."""

    offset_sd: float
    """How far a model's own efficiency lies from the general one, before it was run."""
    shape_sd: float
    """How far the effect of a knob on one model lies from its general effect."""
    interface_sd: float
    """How far one interface to a device lies from the next, on one model."""
    build_sd: float
    """How far one build of the engine lies from the next, on one model."""
    length_scale: float
    """Distance in knob columns (factors of two, mostly) over which effects resemble each other."""

    def between(self, x: Array, z: Array, alike: Array) -> Array:
        """Covariances of rows x and z; shape (len(x), len(z)), as that of ``alike``.

        ``alike`` is the covariance of their interfaces and builds.
        """
        squares = np.sum(x**2, axis=1)[:, None] + np.sum(z**2, axis=1) - 2 * x @ z.T
        distance = np.maximum(squares, 0.0, out=squares)
        distance *= 5 / self.length_scale**2
        np.sqrt(distance, out=distance)
        matern = np.exp(-distance)
        matern *= 1 + distance * (1 + distance / 3)
        matern *= self.shape_sd**2
        matern += self.offset_sd**2 + alike
        return np.asarray(matern)

    def widened(self, factor: float) -> Kernel:
        """The same with all effects so many times as large."""
        return Kernel(
            offset_sd=factor * self.offset_sd,
            shape_sd=factor * self.shape_sd,
            interface_sd=factor * self.interface_sd,
            build_sd=factor * self.build_sd,
            length_scale=self.length_scale,
        )

    @property
    def variance(self) -> float:
        """Of a row about which nothing is known."""
        places = self.interface_sd**2 + self.build_sd**2
        return self.offset_sd**2 + places + self.shape_sd**2


KERNELS = {
    "prefill": Kernel(
        offset_sd=0.30, shape_sd=0.25, interface_sd=0.35, build_sd=0.12, length_scale=3.0
    ),
    "decode": Kernel(
        offset_sd=0.25, shape_sd=0.12, interface_sd=0.10, build_sd=0.06, length_scale=3.0
    ),
    "load": Kernel(
        offset_sd=0.40, shape_sd=0.15, interface_sd=0.10, build_sd=0.10, length_scale=3.0
    ),
}
"""Fixed: few runs cannot choose them."""


@dataclass(frozen=True, slots=True)
class Process:
    """A kernel conditioned on residuals."""

    kernel: Kernel
    x: Array
    places: Strings
    """Interface and build of each row; shape (n, 2)."""
    inverse: Array
    """Of the noisy covariance matrix; shape (n, n)."""
    alpha: Array

    @classmethod
    def fit(
        cls, kernel: Kernel, x: Array, places: Strings, residual: Array, noise_sd: Array
    ) -> Process:
        """Condition on residuals of shape (n,) at rows of shape (n, n_knobs), run in places.

        Where they lie further apart than the kernel expects, the most likely wider one is taken.
        """
        last = slice(-MAX_POINTS, None)
        told = x[last], places[last], residual[last], noise_sd[last]
        process = cls._conditioned(kernel, *told)
        if process._surprise(told[2]) <= 1:
            return process
        found = [(process._likelihood(told[2]), process)]
        for factor in _WIDER:
            wider = cls._conditioned(kernel.widened(factor), *told)
            unlikely = np.log(factor) ** 2 / (2 * _WIDER_SD**2)
            found.append((wider._likelihood(told[2]) - unlikely, wider))
        return max(found, key=lambda pair: pair[0])[1]

    @classmethod
    def _conditioned(
        cls, kernel: Kernel, x: Array, places: Strings, residual: Array, noise_sd: Array
    ) -> Process:
        alike = _alike(kernel, places, places)
        inverse = np.linalg.inv(kernel.between(x, x, alike) + np.diag(noise_sd**2))
        return cls(kernel, x, places, np.asarray(inverse, dtype=float), inverse @ residual)

    def _surprise(self, residual: Array) -> float:
        """Mean square of the residuals that were conditioned on, in what the kernel expects."""
        return float(residual @ self.alpha / max(len(residual), 1))

    def _likelihood(self, residual: Array) -> float:
        """Log marginal likelihood, up to a constant."""
        _, log_determinant = np.linalg.slogdet(self.inverse)
        return 0.5 * float(log_determinant - residual @ self.alpha)

    def mean(self, x: Array, places: Strings) -> Array:
        """The residual at rows of shape (n, n_knobs); shape (n,)."""
        return np.asarray(self._cross(x, places) @ self.alpha)

    def predict(self, x: Array, places: Strings) -> tuple[Array, Array]:
        """(mean, standard deviation) of the residual at rows of shape (n, n_knobs).

        ``places`` are as many, or the one of all rows.
        """
        cross = self._cross(x, places)
        explained = np.sum((cross @ self.inverse) * cross, axis=1)
        return cross @ self.alpha, np.sqrt(np.maximum(self.kernel.variance - explained, 1e-8))

    def _cross(self, x: Array, places: Strings) -> Array:
        return self.kernel.between(x, self.x, _alike(self.kernel, places, self.places))


def _alike(kernel: Kernel, places: Strings, others: Strings) -> Array:
    """Covariances of interfaces and builds; shape (len(places), len(others))."""
    interface, build = (
        (places[:, i, None] == others[:, i]).astype(float) for i in range(places.shape[1])
    )
    # Whoever does not name a build means the one that was run.
    build = np.maximum(build, interface * np.char.endswith(places[:, 1], "/")[:, None])
    return np.asarray(kernel.interface_sd**2 * interface + kernel.build_sd**2 * build)
