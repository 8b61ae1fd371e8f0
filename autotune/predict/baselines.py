"""What a predictor has to beat: one constant, the nearest run, raw columns, the old constants."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from autotune.features.case import Array, Case
from autotune.predict.rows import Rows
from autotune.predict.splits import Rows_

_GUIDE_TPS = {"llama-cpp-python": 50.0, "transformers": 35.0, "llamafile": 40.0}
"""Tokens per second that the integration guide's original program assumes; 2.5 times with a GPU,
for every model, quantisation and thread count."""
_GUIDE_MS_PER_MB = {"llama-cpp-python": 0.08, "transformers": 0.15, "llamafile": 0.12}
_GUIDE_DEFAULT_TPS, _GUIDE_DEFAULT_MS = 45.0, 0.10


def roofline_constant(rows: Rows, phase: str, train: Rows_, test: Rows_) -> Array:
    """Log seconds: the roofline times the median slowdown."""
    floor = np.log(getattr(rows.table.roofline, f"{phase}_s")[test])
    return np.asarray(floor + np.median(rows.slowdown(phase)[train]))


def nearest_measured(rows: Rows, phase: str, train: Rows_, test: Rows_) -> Array:
    """Log seconds: the roofline times the slowdown of the most similar run."""
    from sklearn.neighbors import KNeighborsRegressor

    x = rows.table.x[phase]
    scale = np.maximum(x[train].std(axis=0), 1e-9)
    nearest = KNeighborsRegressor(1).fit(x[train] / scale, rows.slowdown(phase)[train])
    floor = np.log(getattr(rows.table.roofline, f"{phase}_s")[test])
    return np.asarray(floor + nearest.predict(x[test] / scale))


def raw_boosting(rows: Rows, phase: str, train: Rows_, test: Rows_) -> Array:
    """Log seconds per token, boosted on knobs and sizes without any physics."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    raw = np.array([_raw(case) for case in rows.cases])
    unit = np.log([_n_tokens(case, phase) for case in rows.cases])
    y = np.log(rows.seconds[phase]) - unit
    boosted = HistGradientBoostingRegressor(random_state=0).fit(raw[train], y[train])
    return np.asarray(boosted.predict(raw[test]) + unit[test])


def guide_constants(rows: Rows, phase: str, train: Rows_, test: Rows_) -> Array:
    """Log seconds by the constants of the integration guide's original program."""
    del train
    return np.log([_guide_seconds(rows.cases[int(row)], phase) for row in test])


def _guide_seconds(case: Case, phase: str) -> float:
    if phase == "load":
        ms = _GUIDE_MS_PER_MB.get(case.backend, _GUIDE_DEFAULT_MS)
        return case.model.file_bytes / 1e6 * ms / 1000
    tps = _GUIDE_TPS.get(case.backend, _GUIDE_DEFAULT_TPS)
    return _n_tokens(case, phase) / (tps * (2.5 if case.api != "CPU" else 1.0))


def _n_tokens(case: Case, phase: str) -> float:
    return float(max(case.workload.n_prompt, 1)) if phase == "prefill" else 1.0


def _raw(case: Case) -> list[float]:
    config, work, model = case.config, case.workload, case.model
    return [
        float(model.file_bytes), float(model.n_params), float(config.n_threads),
        float(config.n_batch), float(config.n_ubatch), float(config.n_ctx),
        float(config.n_gpu_layers), float(config.flash_attn != "off"), float(config.use_mmap),
        float(work.n_prompt), float(work.n_gen), float(work.n_depth),
        float(sum(map(ord, case.api))), float(case.cached_ratio or 0.0),
    ]  # fmt: skip


Baseline = Callable[[Rows, str, Rows_, Rows_], Array]
BASELINES: dict[str, Baseline] = {
    "roofline_constant": roofline_constant,
    "nearest_measured": nearest_measured,
    "raw_boosting": raw_boosting,
    "guide_constants": guide_constants,
}
