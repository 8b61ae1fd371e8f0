"""Engines are learned apart; backends of one engine share what their machine does."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from autotune.domain.config import Config
from autotune.domain.study import Observation
from autotune.features.case import Case
from autotune.predict.forecast import Forecast
from autotune.predict.predictor import Predictor
from autotune.predict.state import dump_predictor, load_predictor
from tests.simulation import make_cases, scaled_model, simulate

CASES = make_cases()[::40]
LLAMA, SERVER, TRANSFORMERS, STRANGER = "llama-cpp-python", "llama-server", "transformers", "other"


def on(backend: str, cases: Sequence[Case] = CASES) -> tuple[Case, ...]:
    """The same cases on another backend."""
    return tuple(dataclasses.replace(case, backend=backend) for case in cases)


def ran(backend: str, cases: Sequence[Case] = CASES, *, slower: float = 1.0) -> list[Observation]:
    """Runs by a backend that takes so many times the simulated time."""
    return [
        dataclasses.replace(
            o,
            backend=backend,
            prefill_tps=(o.prefill_tps or 0) / slower,
            decode_tps=(o.decode_tps or 0) / slower,
        )
        for o in simulate(cases)
    ]


def numbers(forecast: Forecast) -> np.ndarray:
    """Everything that a forecast says, case by case."""
    beliefs = (forecast.prefill, forecast.decode, forecast.load, forecast.ttft)
    told = [array for belief in beliefs for array in (belief.mean, belief.sd)]
    return np.array([*told, forecast.peak_bytes, forecast.peak_sd_ratio, forecast.p_success])


def test_another_engines_runs_change_nothing() -> None:
    """However slow transformers was, llama.cpp is predicted as before."""
    alone = Predictor().fit(ran(LLAMA)).forecast(on(LLAMA))
    beside = Predictor().fit([*ran(LLAMA), *ran(TRANSFORMERS, slower=9)]).forecast(on(LLAMA))

    assert np.array_equal(numbers(alone), numbers(beside))


def test_backends_of_one_engine_inform_each_other() -> None:
    """A machine on which llama-cpp-python reaches half is not expected to be fast in the server."""
    others = [
        case
        for name, size in (("a", 60), ("b", 200), ("c", 400))
        for case in make_cases(scaled_model(name, size))[::40]
    ]
    blank = Predictor().fit([]).forecast(on(SERVER)).decode.mean
    usual = Predictor().fit(ran(LLAMA, others)).forecast(on(SERVER)).decode.mean
    slow = Predictor().fit(ran(LLAMA, others, slower=3)).forecast(on(SERVER)).decode.mean

    assert np.all(slow > usual + 0.5 * np.log(3))
    assert np.all(slow > blank)


def test_cases_of_several_engines_are_answered_in_their_order() -> None:
    """One batch gives what each engine's own batch gives."""
    predictor = Predictor().fit([*ran(LLAMA), *ran(TRANSFORMERS, slower=3)])
    mixed = [case for pair in zip(on(LLAMA), on(TRANSFORMERS), strict=True) for case in pair]
    together = predictor.forecast(mixed)

    assert [case.backend for case in together.cases] == [LLAMA, TRANSFORMERS] * len(CASES)
    assert np.array_equal(numbers(together)[:, ::2], numbers(predictor.forecast(on(LLAMA))))
    assert np.array_equal(numbers(together)[:, 1::2], numbers(predictor.forecast(on(TRANSFORMERS))))


def test_an_engine_that_nobody_described_is_doubted_more() -> None:
    """A factor of four either way, not of two; and its memory with it."""
    predictor = Predictor().fit(ran(LLAMA))
    stranger, known = predictor.forecast(on(STRANGER)), Predictor().fit([]).forecast(on(LLAMA))

    assert np.all(stranger.decode.sd > 1.5 * known.decode.sd)
    assert np.all(stranger.peak_sd_ratio > known.peak_sd_ratio)


def test_an_engine_that_unpacks_the_file_needs_memory_for_all_of_it() -> None:
    """Four bytes for each weight and cached element; the context that is not used costs nothing."""
    config = Config(n_ctx=8192, type_k="f32", type_v="f32")
    short = config.replace(n_ctx=1024)
    cases = [dataclasses.replace(CASES[0], backend=TRANSFORMERS, config=c) for c in (config, short)]
    peak = Predictor().fit([]).forecast(cases).peak_bytes

    assert peak[0] == peak[1]
    assert peak[0] > 4 * CASES[0].model.n_params


def test_a_state_keeps_every_engine() -> None:
    """What is stored answers as what was fitted, for all of them."""
    predictor = Predictor().fit([*ran(LLAMA), *ran(TRANSFORMERS, slower=3)])
    revived = load_predictor(dump_predictor(predictor))
    cases = [*on(LLAMA), *on(TRANSFORMERS), *on(STRANGER)]

    assert np.array_equal(numbers(predictor.forecast(cases)), numbers(revived.forecast(cases)))
