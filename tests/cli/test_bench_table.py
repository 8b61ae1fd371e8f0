"""What ``autotune bench`` prints of a measurement."""

from __future__ import annotations

import dataclasses

import pytest

from autotune.cli.bench import print_run
from autotune.domain.prediction import Interval
from tests.factories import make_run
from tests.store.examples import make_prediction


def test_long_numbers_fit_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A row a line, in 80 columns; a unit that both ends share is said once."""
    run = make_run()
    rate = Interval(q05=21.93, q50=43.71, q95=187.2)
    prediction = dataclasses.replace(make_prediction(), prefill_tps=rate, decode_tps=rate)
    print_run(7, run, prediction, run.trial.config)
    lines = capsys.readouterr().out.splitlines()

    assert lines[0] == "default"
    assert [line.split("  ")[0] for line in lines[1:7]] == [
        "measured", "load", "peak memory", "prefill", "decode", "first token",
    ]  # fmt: skip
    assert max(map(len, lines[1:7])) <= 80
    assert sum(line.endswith("43.7 tok/s (21.9 – 187 tok/s)") for line in lines) == 2
