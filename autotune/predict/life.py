"""The life of a predictor: fitted, kept, asked, adapted to new rows, and replaced when worth it.

A state is used as long as features and libraries are those it was fitted with. New rows are learned
at once (:meth:`Predictor.adapt`, milliseconds); when they have become many, the general part is
fitted anew, and replaces the old one only where its out-of-group errors are not worse. The reason
is written down either way.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata

import numpy as np

from autotune.domain.errors import AutotuneError, DataError
from autotune.domain.stored import StoredPredictor
from autotune.domain.study import Observation
from autotune.features.case import Array
from autotune.features.columns import FEATURE_VERSION
from autotune.predict.predictor import Predictor, count_runs
from autotune.predict.prior import load_prior
from autotune.predict.state import dump_predictor, load_predictor
from autotune.store.store import Store

STATE_VERSION = 10
"""Raised whenever a fitted part means something else than before."""
WORSE_RATIO = 0.05
"""A fit this much worse in any partition does not replace the one before."""
GROWTH_RATIO = 0.2
"""The general part is fitted anew when there are this many more runs than it has seen …"""
ALWAYS_BELOW = 50
"""… and always as long as it has seen fewer than these."""
QUICK_RUNS = 400
"""So few are fitted in half a second."""
MIN_ROWS = 20
"""Fewer rows of a partition do not judge."""
_log = logging.getLogger(__name__)


def versions() -> str:
    """What a state depends on: its own layout, the features, and the libraries that fitted it."""
    libraries = "/".join(metadata.version(name) for name in ("numpy", "scikit-learn"))
    return f"{STATE_VERSION}/{FEATURE_VERSION}/{libraries}"


def current_predictor(
    store: Store, api: str, *, clock: Callable[[], float] = time.monotonic
) -> Predictor:
    """The predictor that knows every finished run of the store.

    ``api`` is what the engine computes with here; it decides about the prior. Answers from the
    stored state where nothing has changed; else adapts it or fits anew, and stores that. A store
    that cannot be written does without: the answer is the same, and has no number.
    """
    started, fingerprint = clock(), store.fingerprint()
    kept = store.latest_predictor(api=api, versions=versions())
    old = _revived(kept)
    if old is not None and kept is not None and kept.fingerprint == fingerprint:
        old.cached = True
        return old
    observations = store.observations()
    fit = _renew(old, observations, api)
    try:
        fit.predictor.predictor_id = store.record_predictor(
            api=api,
            versions=versions(),
            fingerprint=fingerprint,
            n_runs=count_runs(observations),
            promoted=fit.promoted,
            reason=fit.reason,
            errors=fit.errors,
            elapsed_s=clock() - started,
            state=dump_predictor(fit.predictor),
        )
    except AutotuneError as error:
        _log.warning("the fit is not kept: %s", error)
    _log.info("predictor %s: %s", fit.predictor.predictor_id, fit.reason)
    return fit.predictor


def borrowed_predictor(store: Store, api: str) -> Predictor:
    """The predictor for an engine that computes with something that is not in this machine.

    Nearly all that it knows is the prior: a stored one is adapted, never fitted anew (8 s).
    """
    kept = store.latest_predictor(api=api, versions=versions())
    old = _revived(kept)
    if old is None or kept is None:
        return current_predictor(store, api)
    return old if kept.fingerprint == store.fingerprint() else old.adapt(store.observations())


def learn(predictor: Predictor, observations: Sequence[Observation], api: str) -> Predictor:
    """A predictor that knows these runs, within a study: fitted where that is quick, else adapted.

    Not judged and not stored: what a study ends with is.
    """
    prior = load_prior(api)
    if len(prior) + len(observations) > QUICK_RUNS:
        return predictor.adapt(observations)
    fitted = Predictor().fit(observations, prior=prior)
    fitted.predictor_id = predictor.predictor_id
    return fitted


@dataclass(frozen=True, slots=True)
class Renewal:
    """A predictor that knows the newest rows, and how it came to be."""

    predictor: Predictor
    promoted: bool
    """Whether its general part is new."""
    reason: str
    errors: dict[str, float]
    """Median out-of-group errors of the general part in use, by partition."""


def _renew(old: Predictor | None, observations: Sequence[Observation], api: str) -> Renewal:
    if old is not None and not _has_grown(old, count_runs(observations)):
        adapted = old.adapt(observations)
        reason = f"adapted to {count_runs(observations)} runs"
        return Renewal(adapted, promoted=False, reason=reason, errors={})
    new = Predictor().fit(observations, prior=load_prior(api))
    return judge(old, new, observations)


def judge(old: Predictor | None, new: Predictor, observations: Sequence[Observation]) -> Renewal:
    """The new predictor, unless the old one's general part was better somewhere.

    Both are judged on the same rows, each family predicted by what has not seen it.
    """
    after = new.out_of_group(observations)
    if old is None or old.n_runs_ < ALWAYS_BELOW:
        # Of a handful of runs neither fit can be called the better one.
        reason = f"fitted to {count_runs(observations)} runs"
        return Renewal(new, promoted=True, reason=reason, errors=_medians(after))
    before = old.out_of_group(observations)
    worse = {name: _worse(before[name], after[name]) for name in before}
    name = max(worse, key=lambda key: worse[key], default="")
    if name and worse[name] > WORSE_RATIO:
        reason = f"kept: the new fit was {worse[name]:.0%} worse at {name}"
        _log.warning("%s", reason)
        adapted = old.adapt(observations)
        return Renewal(adapted, promoted=False, reason=reason, errors=_medians(before))
    told = f"at worst {worse[name]:+.0%} at {name}" if worse.get(name, -1) > -1 else "few to judge"
    reason = f"refitted to {count_runs(observations)} runs; {told}"
    return Renewal(new, promoted=True, reason=reason, errors=_medians(after))


def _worse(before: Array, after: Array) -> float:
    """Relative growth of the median error on rows that neither has seen; −1 where they are few."""
    both = np.isfinite(before) & np.isfinite(after)
    if both.sum() < MIN_ROWS:
        return -1.0
    was, now = (float(np.median(np.abs(errors[both]))) for errors in (before, after))
    return now / max(was, 1e-9) - 1


def _medians(errors: dict[str, Array]) -> dict[str, float]:
    known = {name: values[np.isfinite(values)] for name, values in errors.items()}
    return {
        name: float(np.expm1(np.median(np.abs(values))))
        for name, values in known.items()
        if len(values)
    }


def _has_grown(old: Predictor, n_runs: int) -> bool:
    return n_runs < ALWAYS_BELOW or n_runs > old.n_runs_ * (1 + GROWTH_RATIO)


def _revived(kept: StoredPredictor | None) -> Predictor | None:
    """The stored state; None where there is none that can be read."""
    if kept is None or kept.state is None:
        return None
    try:
        predictor = load_predictor(kept.state)
    except DataError as error:
        _log.warning("%s", error)
        return None
    predictor.predictor_id = kept.predictor_id
    return predictor
