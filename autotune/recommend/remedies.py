"""When nothing fits: what does not, and what would.

Every remedy was asked of the predictor before it is named: a smaller context, a quantised cache,
fewer layers on the GPU, another quantisation of the model.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

from autotune.domain.config import Config
from autotune.domain.limits import Limits
from autotune.domain.units import human_bytes, human_seconds
from autotune.features.case import Array, Case
from autotune.predict.forecast import Forecast
from autotune.predict.predictor import Predictor

_MIN_P_SUCCESS = 0.5
_Z = 1.645
_LOSSY = "q8_0"
"""The cache type that ``--allow-lossy`` adds."""
_LEAST_BITS = 1.5
"""No quantisation of llama.cpp is smaller."""


def nothing_fits(
    predictor: Predictor, forecast: Forecast, *, usable_bytes: int, limits: Limits
) -> str:
    """One line: what the least demanding candidate needs, what there is, and what would fit."""
    peaks = sure_peak_bytes(forecast)
    least = int(np.argmin(peaks))
    case, needed = forecast.cases[least], float(peaks[least])
    allowed = min(usable_bytes, limits.memory_bytes or usable_bytes)
    if needed <= allowed and forecast.p_success.max() < _MIN_P_SUCCESS:
        return (
            f"nothing is likely to run on {case.backend}: the likeliest configuration succeeds "
            f"with {forecast.p_success.max():.0%}; autotune runs MODEL shows what failed, autotune "
            "bench MODEL tries again"
        )
    runs = (peaks <= allowed) & (forecast.p_success >= _MIN_P_SUCCESS)
    if runs.any() and limits.ttft_s is not None:
        fastest = human_seconds(float(np.exp(forecast.ttft.mean[runs].min())))
        return f"nothing fits: the first token takes {fastest} at best; raise --max-ttft"
    remedies: list[str] = []
    for ways in (_smaller_contexts(case), _quantised_caches(case), _without_gpu(case)):
        fitting = (
            text
            for text, other in ways
            if _fits(predictor, other, usable_bytes=usable_bytes, allowed=allowed)
        )
        remedies.extend(itertools.islice(fitting, 1))  # the mildest of each kind
    bits = _bits_that_fit(case, needed, allowed)
    if bits is not None:
        remedies.append(f"a quantisation of at most {bits:.1f} bits per weight")
    would = " or ".join(remedies) or "a smaller model"
    return (
        f"nothing fits: the smallest configuration needs about {human_bytes(needed)}, "
        f"{human_bytes(allowed)} may be used; {would} would fit"
    )


def sure_peak_bytes(forecast: Forecast) -> Array:
    """The 95 % quantile of peak memory, in bytes; shape (n_cases,)."""
    return np.asarray(forecast.peak_bytes * (1 + _Z * forecast.peak_sd_ratio))


def _smaller_contexts(case: Case) -> Iterator[tuple[str, Case]]:
    """(what to do, the case after it), the mildest first; so do the others."""
    size = case.config.n_ctx // 2
    while size >= max(case.workload.n_tokens, 256):
        yield f"--n-ctx {size}", _changed(case, n_ctx=size)
        size //= 2


def _quantised_caches(case: Case) -> Iterator[tuple[str, Case]]:
    if case.model.can_quantise_cache:
        other = _changed(case, type_k=_LOSSY, type_v=_LOSSY, flash_attn="on")
        yield f"--allow-lossy ({_LOSSY} cache)", other


def _without_gpu(case: Case) -> Iterator[tuple[str, Case]]:
    if case.config.n_gpu_layers:
        yield "--hardware cpu", _changed(case, n_gpu_layers=0)


def _changed(case: Case, **knobs: object) -> Case:
    config: Config = case.config
    n_ctx = int(str(knobs.get("n_ctx", config.n_ctx)))
    batch = {"n_batch": min(config.n_batch, n_ctx), "n_ubatch": min(config.n_ubatch, n_ctx)}
    return dataclasses.replace(case, config=config.replace(**{**batch, **knobs}))


def _fits(predictor: Predictor, case: Case, *, usable_bytes: int, allowed: float) -> bool:
    forecast = predictor.forecast([case], available_bytes=usable_bytes)
    runs = bool(forecast.p_success[0] >= _MIN_P_SUCCESS)
    return runs and bool(sure_peak_bytes(forecast)[0] <= allowed)


def _bits_that_fit(case: Case, needed: float, allowed: float) -> float | None:
    """Bits per weight at which the weights would leave enough for the rest; None for none."""
    rest = needed - case.model.weight_bytes
    bits = 8 * (allowed - rest) / case.model.n_params
    return bits if bits >= _LEAST_BITS else None
