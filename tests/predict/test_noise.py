"""What repeats of one configuration tell of a machine's noise, and what it does to intervals."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from autotune.domain.run import Purpose
from autotune.domain.study import Observation
from autotune.features.case import Case
from autotune.predict.noise import NOISE_SD, noise_by_machine
from autotune.predict.predictor import Predictor
from autotune.predict.rows import build_rows
from tests.simulation import make_cases, simulate

NOISY = 0.1


def test_repeats_are_pooled_by_machine() -> None:
    """Two hundred pairs that differ by a tenth tell it to a few percent; the other is quiet."""
    rng = np.random.default_rng(0)
    pairs = [(float(a), float(b)) for a, b in np.exp(rng.normal(0, NOISY, (200, 2)))]

    noise = noise_by_machine([("noisy", pair) for pair in pairs] + [("quiet", (1.0, 1.0))] * 200)

    assert noise["noisy"] == pytest.approx(NOISY, rel=0.1)
    assert noise["quiet"] == NOISE_SD


def test_one_pair_tells_little() -> None:
    """Of two runs that lie 20 % apart, the spread alone would be 0.14."""
    noise = noise_by_machine([("here", (1.0, float(np.exp(0.2))))])

    assert NOISE_SD < noise["here"] < 0.09


def test_what_was_not_repeated_tells_nothing() -> None:
    assert noise_by_machine([("here", (1.0,)), ("here", ()), ("there", (2.0,))]) == {}


def uses(case: Case, *, spread: float, n: int = 5) -> list[Observation]:
    """Ordinary uses of one configuration, fast and slow by turns."""
    (once,) = simulate([case])
    rate = once.decode_tps or 1.0
    return [
        dataclasses.replace(
            once,
            run_id=i,
            purpose=Purpose.USER,
            decode_tps=rate * float(np.exp(spread * (-1) ** i)),
            prefill_tps=(once.prefill_tps or 1.0) * 2.0 ** (i % 3),
        )
        for i in range(n)
    ]


def test_a_few_uses_show_a_noisy_machine() -> None:
    """Five answers 16 % apart promise no sixth within 5 %."""
    case = make_cases()[0]
    wide, narrow = (
        float(Predictor().fit(uses(case, spread=s)).forecast([case]).decode.sd[0])
        for s in (0.08, 0.005)
    )

    assert wide > 2 * narrow
    assert 1.645 * wide > 0.1


def test_prompts_of_ordinary_use_are_no_repeats() -> None:
    """They are of about a length: how far they lie apart is not the machine's noise."""
    case = make_cases()[0]
    rows = build_rows([(use, case) for use in uses(case, spread=0.08)])

    assert rows.noise_sd["prefill"] == {}
    assert all(sd > NOISE_SD for sd in rows.noise_sd["decode"].values())
    assert len(rows.noise_sd["decode"]) == 1


def test_a_run_is_worth_what_its_machine_lets_it() -> None:
    """One measured answer is verbatim; how wide it is, repeats of other configurations say."""
    rng = np.random.default_rng(1)
    asked, *others = make_cases()[:40:4]
    once = simulate(others)
    again = [
        dataclasses.replace(o, run_id=i, decode_tps=(o.decode_tps or 1) * rng.lognormal(0, NOISY))
        for i, o in enumerate(once * 3)
    ]
    quiet, noisy = (
        Predictor().fit([*simulate([asked]), *others]).forecast([asked]).decode
        for others in (once, again)
    )

    assert noisy.mean[0] == quiet.mean[0]
    assert quiet.sd[0] == NOISE_SD
    assert noisy.sd[0] == pytest.approx(NOISY, rel=0.4)
