"""The feature table: documented, finite, and the same for training rows and candidates."""

from __future__ import annotations

import numpy as np
import pytest

from autotune.domain.config import Config
from autotune.domain.workload import Workload
from autotune.features.columns import (
    COLUMNS,
    FEATURES,
    KNOB_COLUMNS,
    PHASES,
    build_features,
)
from tests.factories import make_model
from tests.features.test_physics import in_type, make_case


def test_every_feature_has_a_name_of_its_own_a_unit_and_a_reason() -> None:
    """The table is the documentation."""
    names = [feature.name for feature in FEATURES]

    assert len(set(names)) == len(names)
    assert all(feature.unit and feature.source and feature.reason for feature in FEATURES)
    assert all(set(feature.phases) <= set("pdls") and feature.phases for feature in FEATURES)


def test_features_are_finite_at_the_edges() -> None:
    """No prompt, one thread, one token, an empty page cache: numbers all the same."""
    cases = [
        make_case(workload=Workload(n_prompt=0, n_gen=1)),
        make_case(workload=Workload(n_prompt=1, n_gen=0), cached_ratio=0.0),
        make_case(config=Config(n_ctx=64, n_batch=1, n_ubatch=1), cached_ratio=None),
    ]
    table = build_features(cases)

    for phase in PHASES:
        assert table.x[phase].shape == (3, len(COLUMNS[phase]))
        assert np.isfinite(table.x[phase]).all()


def test_only_knob_columns_differ_between_workloads_of_a_model() -> None:
    """What the per-model correction looks at is what can change; the rest is the ensemble's."""
    ours = make_case(config=Config(n_threads=1, n_threads_batch=1))
    theirs = make_case(config=Config(n_threads=8, n_threads_batch=8, flash_attn="on", n_ubatch=64))
    table = build_features([ours, theirs])
    follow = {"decode_floor", "decode_is_memory",
              "prefill_floor", "prefill_balance", "rows_per_matrix"}  # fmt: skip
    for phase in ("prefill", "decode"):
        changed = np.flatnonzero(table.x[phase][0] != table.x[phase][1])
        names = {COLUMNS[phase][column] for column in changed}
        knobs = {COLUMNS[phase][column] for column in KNOB_COLUMNS[phase]}

        assert names - knobs <= follow
        assert len(names & knobs) >= 2


def test_a_phase_does_not_see_the_knobs_of_another() -> None:
    """Threads of prefill do not decode; the physical batch does not either."""
    ours = make_case(config=Config(n_threads=2, n_threads_batch=1, n_ubatch=512))
    theirs = make_case(config=Config(n_threads=2, n_threads_batch=8, n_ubatch=64))
    x = build_features([ours, theirs]).x

    assert (x["decode"][0] == x["decode"][1]).all()
    assert (x["prefill"][0] != x["prefill"][1]).any()


@pytest.mark.parametrize(
    ("api", "kind", "n_prompt", "n_ubatch", "share"),
    [
        ("ROCm", "Q6_K", 7, 512, 0),
        ("ROCm", "Q6_K", 8, 512, 1),
        ("ROCm", "Q6_K", 63, 512, 1),
        ("ROCm", "Q6_K", 64, 512, 0),
        ("ROCm", "Q6_K", 512, 32, 1),
        ("CUDA", "Q3_K", 32, 512, 1),
        ("Vulkan", "Q6_K", 32, 512, 0),
        ("CPU", "Q6_K", 32, 512, 0),
        ("ROCm", "Q4_K", 32, 512, 0),
    ],
)
def test_small_batches_on_cuda_feel_the_scales_of_their_weights(
    api: str, kind: str, n_prompt: int, n_ubatch: int, share: float
) -> None:
    """From 8 to 63 tokens at once weights are multiplied as integers, scale by scale."""
    case = make_case(
        model=in_type(kind),
        api=api,
        config=Config(n_ubatch=n_ubatch),
        workload=Workload(n_prompt=n_prompt, n_gen=1),
    )
    column = COLUMNS["prefill"].index("fine_integer_share")

    assert build_features([case]).x["prefill"][0, column] == pytest.approx(share)


def test_models_keep_their_columns_apart() -> None:
    """Two models in one batch do not share columns."""
    x = build_features([make_case(), make_case(model=make_model(n_embd=4096))]).x

    assert (x["decode"][0] != x["decode"][1]).any()


def test_no_cases_are_an_empty_table() -> None:
    """An empty store builds an empty table, not an error."""
    assert build_features([]).x["decode"].shape == (0, len(COLUMNS["decode"]))
