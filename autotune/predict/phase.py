"""How far from the roofline a phase runs, learned.

The target is the log slowdown: log(measured seconds / roofline seconds), which transfers between
models and configurations where seconds do not. Learned is what lies beyond what is typical of the
engine (:mod:`autotune.predict.typical`), in three stages:

1. places: what this build of an engine does on this device, from the other models run there
   (:mod:`autotune.predict.place_effects`);
2. what they leave over, by an ensemble over all models and machines
   (:mod:`autotune.predict.ensemble`): trees that saw places as a column would blur the steps
   between them (Hajjem, Bellavance, Larocque, "Mixed-effects random forest for clustered data",
   Journal of Statistical Computation and Simulation 84(6), 2014);
3. for a model with runs on this machine, a Gaussian process on what the ensemble misses
   (:mod:`autotune.predict.process`).

The second is fitted twice: with the place effects for devices on which something was run, without
them for others. Both are cross-fitted: families (devices) are dealt into folds, and each is always
predicted by the ensemble of the fold that has not seen it. So the third stage corrects, and the
intervals cover, what really happens with a new model (Chernozhukov et al., "Double/debiased machine
learning", Econometrics Journal 21, 2018).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from autotune.features.case import Array
from autotune.features.columns import COLUMNS, KNOB_COLUMNS
from autotune.predict.calibration import ABROAD, COVERAGE, Calibration, tier_of
from autotune.predict.ensemble import Ensemble, deal_folds, fit_ensembles, fit_linear
from autotune.predict.noise import NOISE_SD
from autotune.predict.place_effects import PlaceEffects, locate
from autotune.predict.places import BUILD, DEVICE, MACHINE
from autotune.predict.process import KERNELS, Process
from autotune.predict.subjects import Bools, Ints, Strings, Subjects
from autotune.predict.typical import Slowdown

CONTAMINATED_SD = 0.25
"""How far a contaminated run lies from the truth: a busy neighbour makes a run slower by a tenth,
or by half."""
_CONTAMINATED_WEIGHT = 0.1
"""Weight of a contaminated run in the general part; a clean one weighs 1."""
_OF_MODEL = [MACHINE, BUILD]
"""The places to which a model may be peculiar: its interface to the device, and the build."""
_MIN_FAMILIES = 3
"""Fewer families say nothing of the next one."""
_NOBODY = ""
"""A family that was never run: to it all of them are others."""
_MEMBER_SD = 0.08
"""Doubt about an ensemble whose members agree: it is scaled by the calibration."""
_MIN_DEVICES = 3
"""Fewer devices do not tell how far the next one lies from them."""
_DEVICES_OF_PRIOR = 4.0
"""So many of them count as much as what is typical of the engine."""
_MIN_DEVICE_ROWS = 10
"""Nor do those that were hardly run."""
_ON_PAPER_SD = {"prefill": 0.9, "decode": 0.42, "load": 0.6}
"""How far what is typical of the engine lies from the truth on a GPU of which only published
constants are known (public telemetry: prefill reaches 4 to 50 % of the arithmetic on paper, decode
30 to 80 % of the bandwidth)."""
SUPPORT_MARGIN = 2.0
"""How far beyond the smallest and largest measured value a column may lie: columns are logarithms
to base two, so four times as far. Beyond that the general part is not asked."""
_PRETENDED_RUNS = (1, 2, 5)
"""Numbers of runs that calibration pretends to have."""


@dataclass(frozen=True, slots=True)
class Belief:
    """Normal beliefs about log slowdowns; shape (n_cases,) each."""

    mean: Array
    sd: Array
    """Conformal: mean ± 1.645 sd covers 90 %."""


class PhaseRegressor:
    """Log slowdown of one phase. Without data it answers the prior."""

    def __init__(self, phase: str, typical: Slowdown) -> None:
        self.phase, self.typical, self.prior_sd = phase, typical, typical.sd
        self._on_paper_sd = max(typical.sd, _ON_PAPER_SD[phase])
        names = COLUMNS[phase]
        self._floor = names.index(f"{phase}_floor") if f"{phase}_floor" in names else None
        self._on_host = names.index("on_host")
        self._knobs = list(KNOB_COLUMNS[phase])
        self._kernel = KERNELS[phase]

    def fit(
        self,
        x: Array,
        y: Array,
        subjects: Subjects,
        *,
        is_clean: Bools,
        noise_sd: Mapping[str, float] = MappingProxyType({}),
    ) -> PhaseRegressor:
        """Learn the general part from rows x of shape (n, n_features) and log slowdowns y (n,).

        Rows that are not clean count little; clean ones spread by their machine's ``noise_sd``.
        :meth:`adapt` adds what single models peculiarly do.
        """
        self.noise_sd_ = dict(noise_sd)
        self.n_rows_ = len(y)
        self.processes_: dict[str, Process] = {}
        self.counts_: dict[str, int] = {}
        self.calibration_ = Calibration({})
        if not self.n_rows_:
            return self
        weight = np.where(is_clean, 1.0, _CONTAMINATED_WEIGHT)
        beyond = y - self._typical(x, subjects)
        self._fit_general(x, beyond, weight, subjects)
        mean, sd = self._general(x, subjects)
        if len(self.folds_) >= _MIN_FAMILIES:
            scores = self._scores(x, beyond, y - mean, sd, is_clean, subjects)
            self.calibration_ = Calibration.fit(scores)
        return self

    def adapt(
        self,
        x: Array,
        y: Array,
        subjects: Subjects,
        *,
        is_clean: Bools,
        noise_sd: Mapping[str, float] = MappingProxyType({}),
    ) -> PhaseRegressor:
        """Condition on all that was measured of these models on their machines.

        The general part stays. It may be without any row: then the prior is what is corrected.
        """
        self.processes_, self.counts_, self.noise_sd_ = {}, {}, dict(noise_sd)
        residual, noise = y - self._general(x, subjects)[0], self._noise(is_clean, subjects)
        for group in np.unique(subjects.groups):
            rows = np.flatnonzero(subjects.groups == group)
            process = self._process(x, residual, noise, subjects, rows)
            self.processes_[str(group)] = process
            self.counts_[str(group)] = len(np.unique(subjects.configs[rows]))
        return self

    def out_of_group(self, x: Array, y: Array, subjects: Subjects) -> Array:
        """Errors of the general part on families that it has not seen; shape (n,).

        NaN where it has: a fit to one family alone has nothing to leave out.
        """
        error = y - self._general(x, subjects)[0]
        alone = self.folds_ if self.n_rows_ and len(set(self.folds_.values())) < 2 else {}
        seen = np.array([str(family) in alone for family in subjects.families], dtype=bool)
        return np.where(seen, np.nan, error)

    def _fit_general(self, x: Array, y: Array, weight: Array, subjects: Subjects) -> None:
        # The prior counts as half a run, so that a single odd row does not become the rule.
        self.center_ = weight @ y / (weight.sum() + 0.5)
        self.low_, self.high_ = x.min(axis=0), x.max(axis=0)
        self.n_families_ = len(np.unique(subjects.families))
        where, x = locate(self.phase, x, subjects), self._told(x)
        families, devices, y = subjects.families, subjects.devices, y - self.center_
        rest = y - fit_linear(x, y, weight).predict(x)
        self.places_ = PlaceEffects.fit(where, rest, devices=devices)
        left = y - self.places_.total(where)
        self.folds_ = deal_folds(families)
        fold = _numbers(self.folds_, families)
        self.home_ = fit_ensembles(x, left, weight, families, fold)
        _, counts = np.unique(devices, return_counts=True)
        self.n_devices_ = len(counts)
        few = (counts >= _MIN_DEVICE_ROWS).sum() < _MIN_DEVICES
        self.devices_ = {} if few else deal_folds(devices)
        abroad = fold if few else _numbers(self.devices_, devices)
        self.abroad_ = fit_ensembles(x, y, weight, families, abroad)
        self.abroad_sd_: float | None = None
        if self.devices_:
            error = y - _cross_fitted(self.abroad_, x, abroad)[0]
            self.abroad_sd_ = float(np.hypot(_MEMBER_SD, _balanced_rms(error, weight, devices)))

    def predict(self, x: Array, subjects: Subjects, *, coverage: float = COVERAGE) -> Belief:
        """Beliefs for rows x, of models and machines that may or may not have been seen."""
        mean, sd = self._general(x, subjects)
        supported = self.is_supported(x)
        home, abroad = (self.calibration_.factor(t, coverage) for t in (tier_of(0), ABROAD))
        sd *= np.where(self._is_home(subjects), home, abroad)
        noise, told = self.noise_of(subjects), np.zeros(len(x), dtype=bool)
        for group, rows, place in self._met(subjects):
            process = self.processes_[group]
            shift, spread = process.predict(x[rows][:, self._knobs], place)
            factor = self.calibration_.factor(tier_of(self.counts_[group]), coverage)
            mean[rows] += shift
            sd[rows] = factor * np.hypot(spread, noise[rows])
            told[rows] = True
        # Far from everything measured no doubt is smaller than the prior's.
        doubt = self._doubt(subjects)
        doubt = np.where(told | self._is_home(subjects), np.maximum(sd, doubt), doubt)
        return Belief(mean, np.where(supported, sd, doubt))

    def mean(self, x: Array, subjects: Subjects) -> Array:
        """The means of :meth:`predict` without their doubt, in half the time; shape (n,)."""
        mean, _ = self._general(x, subjects)
        for group, rows, place in self._met(subjects):
            mean[rows] += self.processes_[group].mean(x[rows][:, self._knobs], place)
        return mean

    def _met(self, subjects: Subjects) -> Iterator[tuple[str, Bools, Strings]]:
        """(group, its rows, their interface and build) of each kind whose model was run here."""
        kinds, index = subjects.distinct()
        for number, group in enumerate(kinds.groups):
            if str(group) in self.processes_:
                yield str(group), index == number, kinds.places[[number]][:, _OF_MODEL]

    def is_supported(self, x: Array) -> Bools:
        """Whether rows lie near enough to what was measured; shape (n,)."""
        if not self.n_rows_:
            return np.zeros(len(x), dtype=bool)
        margin = SUPPORT_MARGIN
        near = (x >= self.low_ - margin) & (x <= self.high_ + margin)
        return np.asarray(near.all(axis=1), dtype=bool)

    def _general(self, x: Array, subjects: Subjects) -> tuple[Array, Array]:
        """(mean, doubt) of stages 1 and 2; the prior, where there was nothing to learn from."""
        typical = self._typical(x, subjects)
        if not self.n_rows_:
            return typical, self._doubt(subjects)
        known, supported = self._is_home(subjects), self.is_supported(x)
        mean, sd = np.empty((2, len(x)))
        where = locate(self.phase, x, subjects)
        effect, unknown = self.places_.total(where), self.places_.doubt(where)
        x, fold = self._told(x), _numbers(self.folds_, where.families)[where.index]
        away = _numbers(self.devices_, subjects.devices) if self.devices_ else fold
        for rows, told in (
            (known, _cross_fitted(self.home_, x[known], fold[known])),
            (~known, _cross_fitted(self.abroad_, x[~known], away[~known])),
        ):
            mean[rows], sd[rows] = told
        mean[known] += effect[known]
        theirs = mean[~known], sd[~known], subjects.take(~known)
        mean[~known], sd[~known] = self._beside_prior(*theirs)
        mean[~supported] = -self.center_
        has_few = len(self.folds_) < _MIN_FAMILIES
        floor = self.prior_sd if has_few else _MEMBER_SD
        sd[known] = np.hypot(np.hypot(sd[known], floor), unknown[known])
        return typical + self.center_ + mean, np.maximum(sd, self.prior_sd) if has_few else sd

    def _typical(self, x: Array, subjects: Subjects) -> Array:
        """What is typical of the engine; shape (n,)."""
        layer_ms = np.ones(len(x)) if self._floor is None else 2 ** x[:, self._floor]
        return self.typical.mean(subjects.on_gpu & (x[:, self._on_host] < 1), layer_ms)

    def _doubt(self, subjects: Subjects) -> Array:
        """How far what is typical of the engine lies from the truth on each device; shape (n,)."""
        return np.where(subjects.on_gpu, self._on_paper_sd, self.prior_sd)

    def _beside_prior(self, mean: Array, spread: Array, subjects: Subjects) -> tuple[Array, Array]:
        """What other devices tell of a new one, and what is typical of the engine, as one belief.

        Each counts by its precision: where devices say little of the next one, the prior stands.
        """
        doubt = self._doubt(subjects)
        # Of few devices nobody knows how far the next one lies.
        apart = self.abroad_sd_ or doubt * (_DEVICES_OF_PRIOR / self.n_devices_) ** 0.5
        theirs = 1 / (apart**2 + spread**2)
        typical = 1 / doubt**2
        precision = theirs + typical
        return (theirs * mean - typical * self.center_) / precision, precision**-0.5

    def _told(self, x: Array) -> Array:
        """The columns that the general part may see; shape as x.

        How models differ cannot be learned from one or two families: all that tells them apart
        is left to the roofline (two models fitted a third 47 % off, the roofline alone 23 %).
        """
        if self.n_families_ >= _MIN_FAMILIES:
            return x
        told = np.zeros_like(x)
        told[:, self._knobs] = x[:, self._knobs]
        return told

    def noise_of(self, subjects: Subjects) -> Array:
        """Spread of one configuration between clean runs on each row's machine; shape (n,)."""
        kinds, index = subjects.distinct()
        machines = kinds.places[:, MACHINE]
        return np.array([self.noise_sd_.get(str(m), NOISE_SD) for m in machines])[index]

    def _noise(self, is_clean: Bools, subjects: Subjects) -> Array:
        """Standard deviations of measured log slowdowns."""
        return np.where(is_clean, self.noise_of(subjects), CONTAMINATED_SD)

    def _is_home(self, subjects: Subjects) -> Bools:
        """Whether anything was run on each row's device; where families are many, of others."""
        if not self.n_rows_:
            return np.zeros(len(subjects.families), dtype=bool)
        kinds, index = subjects.distinct()
        families = np.where(len(self.folds_) < _MIN_FAMILIES, _NOBODY, kinds.families)
        return self.places_.is_told(DEVICE, kinds.places[:, DEVICE], families)[index]

    def _scores(
        self,
        columns: Array,
        y: Array,
        residual: Array,
        sd: Array,
        is_clean: Bools,
        subjects: Subjects,
    ) -> dict[str, tuple[Array, Strings]]:
        """|error| / sd by tier, on rows that the prediction had not seen."""
        home = self._is_home(subjects)
        scores: dict[str, list[tuple[Array, Strings]]] = {
            tier_of(0): [((np.abs(residual) / sd)[home], subjects.families[home])]
        }
        if self.devices_:
            fold = _numbers(self.devices_, subjects.devices)
            told = _cross_fitted(self.abroad_, columns, fold)
            mean, spread = self._beside_prior(*told, subjects)
            scores[ABROAD] = [(np.abs(y - self.center_ - mean) / spread, subjects.families)]
        for tier, rows, error in self._pretend(columns, residual, is_clean, subjects):
            scores.setdefault(tier, []).append((error, subjects.families[rows]))
        return {
            tier: (np.concatenate([s for s, _ in found]), np.concatenate([f for _, f in found]))
            for tier, found in scores.items()
        }

    def _pretend(
        self, x: Array, residual: Array, is_clean: Bools, subjects: Subjects
    ) -> Iterator[tuple[str, Ints, Array]]:
        """Models with few of their runs known: (tier, the other rows, their scores)."""
        random = np.random.default_rng(0)
        noise, least = self._noise(is_clean, subjects), self.noise_of(subjects)
        for group in np.unique(subjects.groups):
            rows = np.flatnonzero(subjects.groups == group)
            configs = np.unique(subjects.configs[rows])
            for n_runs in _PRETENDED_RUNS:
                if len(configs) <= n_runs:
                    continue
                chosen = random.choice(configs, n_runs, replace=False)
                known = np.isin(subjects.configs[rows], chosen)
                process = self._process(x, residual, noise, subjects, rows[known])
                others = rows[~known]
                where = subjects.places[others][:, _OF_MODEL]
                shift, spread = process.predict(x[others][:, self._knobs], where)
                error = np.abs(residual[others] - shift) / np.hypot(spread, least[others])
                yield tier_of(n_runs), others, error

    def _process(
        self,
        x: Array,
        residual: Array,
        noise: Array,
        subjects: Subjects,
        rows: Ints,
    ) -> Process:
        return Process.fit(
            self._kernel,
            x[rows][:, self._knobs],
            subjects.places[rows][:, _OF_MODEL],
            residual[rows],
            noise[rows],
        )


def _numbers(dealt: dict[str, int], names: Strings) -> Ints:
    """The fold of each name; −1 of one that was not dealt."""
    return np.array([dealt.get(str(name), -1) for name in names], dtype=np.intp)


def _cross_fitted(ensembles: tuple[Ensemble, ...], x: Array, fold: Ints) -> tuple[Array, Array]:
    """(mean, spread) of each row by the ensemble of its fold; by all, where it has none."""
    mean, spread = np.zeros((2, len(x)))
    for number in np.unique(fold):
        rows = fold == number
        chosen = ensembles if number < 0 else (ensembles[number],)
        told = [ensemble.predict(x[rows]) for ensemble in chosen]
        mean[rows] = np.mean([m for m, _ in told], axis=0)
        spread[rows] = np.mean([s for _, s in told], axis=0)
    return mean, spread


def _balanced_rms(error: Array, weight: Array, groups: Strings) -> float:
    """Root of the weighted mean square in which every group counts alike."""
    of = [groups == group for group in np.unique(groups)]
    squares = [np.average(error[rows] ** 2, weights=weight[rows]) for rows in of]
    return float(np.sqrt(np.mean(squares)))
