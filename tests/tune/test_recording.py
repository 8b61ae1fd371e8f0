"""How long a run may take, and how long it is expected to."""

from __future__ import annotations

import pytest

from autotune.domain.prediction import Interval
from autotune.domain.workload import Workload
from autotune.tune.confirmation import run_s
from autotune.tune.recording import timeout_s
from tests.store.examples import make_prediction

DEEP = Workload(n_prompt=0, n_gen=16, n_depth=4096)
SLOW = {
    # Of no prompt nothing is predicted: its time is none, its rate is endless.
    "prefill_tps": Interval(q05=1e12, q50=1e12, q95=1e12),
    "decode_tps": Interval(q05=3.0, q50=4.0, q95=5.0),
}


def test_a_depth_without_a_prompt_has_time_to_be_filled() -> None:
    """At worst word by word."""
    shallow = make_prediction(workload=Workload(n_prompt=0, n_gen=16), **SLOW)
    deep = make_prediction(workload=DEEP, **SLOW)

    assert timeout_s(deep, 3) - timeout_s(shallow, 3) == pytest.approx(4096 / 3.0)


def test_a_trial_takes_its_load_and_its_depth_too() -> None:
    """Not its requests alone: a large model on a slow disk would leave no time for the proof."""
    usual = make_prediction()
    slow_to_load = make_prediction(load_s=Interval(q05=50.0, q50=60.2, q95=70.0))
    deep = make_prediction(workload=DEEP, **SLOW)

    assert run_s(slow_to_load) - run_s(usual) == pytest.approx(60.0)
    assert run_s(deep) > 4096 / 4.0
