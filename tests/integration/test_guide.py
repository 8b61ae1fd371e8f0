"""The integration guide, typed from top to bottom: each block runs, and its figures are in rows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from autotune.domain.run import Purpose
from autotune.domain.stored import StoredRun
from autotune.domain.units import MIB
from autotune.store.store import Store
from tests.backends.programs import find_server, write_llamafile
from tests.integration.guide import Reader, read_blocks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the application runs, with its store."""
    return tmp_path_factory.mktemp("application")


@pytest.fixture(scope="module")
def reader(
    folder: Path, smollm2_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Reader]:
    """Somebody who has typed all of it; what each block printed is in ``printed``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("AUTOTUNE_DB", str(folder / "store.db"))
        programs = tmp_path_factory.mktemp("programs")
        write_llamafile(programs / "llamafile")
        path = (str(programs), str(find_server().parent), os.environ["PATH"])
        patch.setenv("PATH", os.pathsep.join(path))
        reader = Reader(smollm2_path)
        try:
            for block in read_blocks():
                reader.type(block)
            yield reader
        finally:
            reader.close()


@pytest.fixture(scope="module")
def uses(reader: Reader, folder: Path) -> list[StoredRun]:
    """What the application loaded, oldest first."""
    reader.flush()
    with Store.open(folder / "store.db", now=lambda: datetime.now(UTC)) as store:
        runs = store.list_runs(limit=None)
    return sorted((r for r in runs if r.purpose is Purpose.USER), key=lambda r: r.run_id)


def test_every_block_runs(reader: Reader) -> None:
    """All 28 of them, with only import lines and the model's path changed."""
    assert len(reader.printed) == 28
    assert "✅ Model loaded successfully!" in reader.printed[16]
    assert "✅ Performance optimizer is active" in reader.printed[21]
    assert "✅ Diagnostics completed" in reader.printed[26]
    assert "Dashboard data ready" in reader.printed[27]


def test_what_the_manager_loaded_is_a_row(reader: Reader, uses: list[StoredRun]) -> None:
    """Load time and memory as printed are those of the row."""
    loads = {f"Load time: {(run.load_s or 0) * 1e3:.1f}ms": run for run in uses}
    (run,) = [run for line, run in loads.items() if line in reader.printed[16]]

    assert f"Backend: {run.backend}" in reader.printed[16]
    assert run.reason is None
    line = next(x for x in reader.printed[16].splitlines() if x.startswith("Memory usage: "))
    printed_mb = int(line.removeprefix("Memory usage: ").removesuffix("MB"))
    # The row's peak has grown with the answers; the line was printed after the load.
    assert 50 < printed_mb <= (run.peak_rss_bytes or 0) / MIB + 1


def test_what_was_generated_is_text_and_counted(reader: Reader, uses: list[StoredRun]) -> None:
    """One answer and three in a batch, then a benchmark: each is a generation of that load."""
    answers = reader.names["batch_responses"]

    assert [type(answer) for answer in answers] == [str, str, str]
    assert sum(map(len, answers)) > 20  # one of them may end at once: they are drawn by chance
    assert all(f"Response {number}: " in reader.printed[16] for number in (1, 2, 3))
    assert "Generated response for" not in reader.printed[16]
    assert "Total generations: 4" in reader.printed[17]
    assert any(run.n_reps >= 4 + 15 for run in uses)


def test_the_benchmark_prints_what_the_rows_hold(
    reader: Reader, uses: list[StoredRun], folder: Path
) -> None:
    """Its rate lies among those of the load's generations."""
    metrics = reader.names["benchmark"]["average_metrics"]
    run_id = max(uses, key=lambda run: run.n_reps).run_id
    with Store.open(folder / "store.db", now=lambda: datetime.now(UTC)) as store:
        record = store.load_run(run_id)
    assert record.run is not None
    rates = [g.decode_tps for g in record.run.generations if g.decode_tps]

    assert metrics["success_rate"] == 1.0
    assert min(metrics["overall_response_time"], metrics["first_token_latency"]) > 0
    assert min(rates) <= metrics["overall_tokens_per_sec"] <= max(rates)


def test_a_batch_without_a_manager_is_answered(reader: Reader) -> None:
    """The optimizer's queue serves from the model that was recommended and loaded before."""
    answers = [reader.names["urgent_result"], *reader.names["results"]]

    assert [type(answer) for answer in answers] == [str] * 4
    assert sum(map(len, answers)) > 20


def test_what_the_optimizer_recommends_can_run_here(reader: Reader) -> None:
    """ctransformers was named first and cannot load the file: it is not what is recommended."""
    recommendation = reader.names["recommendation"]

    assert recommendation.recommended_backend != "ctransformers"
    assert recommendation.recommended_config.name == recommendation.recommended_backend
    assert 0 <= recommendation.confidence_score <= 1


def test_the_custom_json_cache_is_a_store_beside_it(reader: Reader, folder: Path) -> None:
    """``cache_file="custom_cache.json"`` names no file that exists: nothing is lost or invented."""
    assert (folder / "custom_cache.db").is_file()
    assert not (folder / "custom_cache.json").exists()
    assert (folder / "performance_report.json").is_file()
