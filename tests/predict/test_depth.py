"""Candidates that differ in depth share what is asked of the regressor, and nothing changes."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from autotune.features.case import Case
from autotune.features.columns import build_features
from autotune.predict.depth import KNOTS
from autotune.predict.predictor import Predictor
from autotune.predict.prior import load_prior
from autotune.predict.rows import subjects_of
from tests.simulation import make_cases, scaled_model, simulate

DEPTHS = (0, 64, 512, 600, 2048, 2500, 3000)
PREDICTOR = Predictor().fit(
    simulate([case for i in range(4) for case in make_cases(scaled_model(str(i), 40 * 2**i))[::9]])
)


def at(case: Case, n_depth: float) -> Case:
    """The same case with so many cached tokens."""
    workload = dataclasses.replace(case.workload, n_depth=int(n_depth))
    return dataclasses.replace(case, workload=workload)


def one_by_one(case: Case) -> float:
    """Log seconds of a token, from the regressor asked at every knot of this case alone."""
    n_depth = case.workload.n_depth
    knots = [knot for knot in KNOTS if knot < n_depth]
    knots.append(next(knot for knot in KNOTS if knot >= n_depth))
    cases = [at(case, knot) for knot in knots]
    table = build_features(cases)
    regressor = PREDICTOR._engine("simulated")._phases["decode"]
    slowdown = regressor.predict(table.x["decode"], subjects_of(cases)).mean
    logs = np.maximum.accumulate(slowdown + np.log(table.roofline.decode_s))
    return float(np.log(np.interp(n_depth, knots, np.exp(logs))))


def test_many_candidates_are_told_what_each_alone_is_told() -> None:
    """In one batch of mixed models, knobs and depths; deeper ones do not change shallower ones."""
    models = (scaled_model("1", 80), scaled_model("new", 120))
    cases = [at(c, d) for m in models for c in make_cases(m)[::41] for d in DEPTHS]
    told = PREDICTOR.forecast(cases, verbatim=False).decode.mean
    expected = [
        one_by_one(case) if case.workload.n_depth else told[i] for i, case in enumerate(cases)
    ]

    assert len(cases) > 50
    assert told == pytest.approx(np.array(expected), abs=1e-6)


def test_features_at_another_depth_are_those_of_that_case() -> None:
    """Columns and roofline of rows moved to a depth equal those built from such cases."""
    cases = [at(case, 100) for case in make_cases()[::29]]
    table = build_features(cases)
    rows, n_depth = np.array([2, 0, 2]), np.array([0.0, 700.0, 2048.0])
    x, floor_s = table.at_depth(rows, n_depth)
    there = build_features(
        [at(cases[row], depth) for row, depth in zip(rows, n_depth, strict=True)]
    )

    assert x == pytest.approx(there.x["decode"])
    assert floor_s == pytest.approx(there.roofline.decode_s)


def test_a_curve_over_depth_depends_on_nothing_else() -> None:
    """Of cases with equal decode knobs, on a GPU with host layers, all columns are equal."""
    case = next(c for o in load_prior("CUDA") if (c := Case.of(o)) and c.api == "CUDA")
    knobs: dict[str, tuple[object, ...]] = {
        "n_ctx": (16384, 32768), "n_batch": (64, 512), "n_ubatch": (32, 64), "n_threads": (1, 2),
        "n_threads_batch": (1, 8), "n_gpu_layers": (0, 12, -1), "offload_kqv": (True, False),
        "op_offload": (True, False), "use_mmap": (True, False),
    }  # fmt: skip
    choices = [
        dict(zip(knobs, chosen, strict=True)) for chosen in itertools.product(*knobs.values())
    ]
    cases = [
        at(dataclasses.replace(case, config=case.config.replace(**chosen)), 5000)
        for chosen in choices
    ]
    table = build_features(cases)
    _, first, curve = np.unique(
        table.arrays.decode_knobs, axis=0, return_index=True, return_inverse=True
    )

    assert len(first) == 12
    assert (table.x["decode"] == table.x["decode"][first][curve.ravel()]).all()
    assert (table.roofline.decode_s == table.roofline.decode_s[first][curve.ravel()]).all()
