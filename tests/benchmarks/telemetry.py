"""What does telemetry cost a generation? With and without, alternating, on the real engine."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from autotune.domain import stats
from autotune.domain.config import Config
from autotune.domain.request import TextRequest
from autotune.facts.gguf import read_model
from autotune.store.store import Store
from autotune.store.telemetry import Telemetry, Ticket
from tests.benchmarks.models import models
from tests.benchmarks.table import print_table
from tests.factories import make_machine

if TYPE_CHECKING:
    from autotune.serving.loaded_model import LoadedModel

PAIRS = 30
MAX_TOKENS = 32
CALLS = 1000
MACHINE_ID = "here"


def main() -> None:
    """Print the time of a generation with and without, and that of the call alone."""
    rows = [(name, *_row(path)) for name, path in models()]
    headers = ("model", "without", "with", "difference", "the call", "of a generation", "dropped")
    print_table(f"a generation of {MAX_TOKENS} tokens, {PAIRS} pairs, medians", headers, rows)


def _row(path: Path) -> tuple[str, ...]:
    from autotune.serving.loaded_model import LoadedModel

    config = Config(n_ctx=1024, n_batch=256, n_ubatch=256, n_threads=2, n_threads_batch=2)
    with (
        LoadedModel.load("llama-cpp-python", path, config) as model,
        _telemetry(path) as telemetry,
    ):
        ticket = telemetry.loaded(
            model.run, machine_id=MACHINE_ID, model_id=read_model(path).model_id
        )
        _request_s(model)  # the first one warms up
        without, observed = [], []
        for _ in range(PAIRS):
            without.append(_request_s(model))
            observed.append(_request_s(model, telemetry, ticket))
        call_s = _call_s(model, telemetry, ticket)
        telemetry.flush()
        before, after = stats.median(without), stats.median(observed)
        return (
            f"{before * 1e3:.2f} ms",
            f"{after * 1e3:.2f} ms",
            f"{(after - before) * 1e3:+.3f} ms",
            f"{call_s * 1e3:.4f} ms",
            f"{call_s / before:.4%}",
            str(telemetry.dropped),
        )


def _request_s(
    model: LoadedModel, telemetry: Telemetry | None = None, ticket: Ticket | None = None
) -> float:
    """Seconds until the caller has the answer, and has reported it."""
    started = time.perf_counter()
    generation = model.generate(TextRequest(prompt="The sea", max_tokens=MAX_TOKENS)).generation
    if telemetry is not None and ticket is not None and generation is not None:
        telemetry.generated(ticket, generation)
    return time.perf_counter() - started


def _call_s(model: LoadedModel, telemetry: Telemetry, ticket: Ticket) -> float:
    """Seconds of one report while the thread writes, mean of many."""
    generation = model.generate(TextRequest(prompt="The sea", max_tokens=512)).generation
    assert generation is not None
    spent = 0.0
    for _ in range(CALLS // 100):
        started = time.perf_counter()
        for _ in range(100):
            telemetry.generated(ticket, generation)
        spent += time.perf_counter() - started
        telemetry.flush()
    return spent / CALLS


@contextmanager
def _telemetry(model_path: Path) -> Iterator[Telemetry]:
    """Into a store of its own."""

    def now() -> datetime:
        return datetime.now(UTC)

    with (
        tempfile.TemporaryDirectory() as folder,
        Store.open(Path(folder) / "store.db", now=now) as store,
    ):
        store.record_machine(MACHINE_ID, make_machine())
        store.record_model(read_model(model_path), model_path)
        with Telemetry(store, now=now) as telemetry:
            yield telemetry
