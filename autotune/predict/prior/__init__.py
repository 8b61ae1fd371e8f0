"""The prior: public telemetry that ships with the package, so that a first answer is not a blank.

Measured with llama-bench and llama-cpp-python by others and published under free licences;
repeats are folded into their median. Sources, licences and what was changed: ``SOURCES.md`` beside
the file. It holds GPUs only: what they reach says nothing of a processor.
"""

from __future__ import annotations

import csv
import gzip
import io
from functools import cache
from pathlib import Path

from autotune.domain.study import Observation
from autotune.facts.imported import observe_tests
from autotune.store.importers.columns import read_test

PRIOR_FILE = Path(__file__).with_name("public.csv.gz")


def load_prior(api: str) -> tuple[Observation, ...]:
    """What others measured with what this machine's engine computes with.

    Nothing for ``CPU``.
    """
    return () if api == "CPU" else _public()


@cache
def _public() -> tuple[Observation, ...]:
    text = gzip.decompress(PRIOR_FILE.read_bytes()).decode()
    tests = [read_test(row, source="public") for row in csv.DictReader(io.StringIO(text))]
    observations, problems = observe_tests(tests)
    assert not problems, problems[0]
    return observations
