"""What was learned of models and backends survives, and nothing is ever silently lost."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from autotune.domain.errors import DataError, GGUFError, UserError
from autotune.domain.run import Purpose, Reason
from autotune.integration.cache import ModelPerformanceCache
from autotune.integration.profiles import BackendPerformanceProfile
from autotune.store.store import Store
from tests.factories import STARTED_AT, make_machine
from tests.store.importers.test_app_cache import RECORD, write
from tests.store.test_engine import unprivileged

LIBRARY = "llama-cpp-python"
SAW = {"load_time_ms": 2500.0, "memory_usage_mb": 6000, "tokens_per_second": 45.5}
PROFILE_KEYS = {"model_hash", "size_mb", "parameter_count", "quantization", "architecture"}
PERFORMANCE_KEYS = {
    "backend_name", "load_time_ms", "memory_usage_mb", "tokens_per_second", "success_rate",
    "usage_count",
}  # fmt: skip


def open_cache(file: Path, **options: Any) -> ModelPerformanceCache:
    return ModelPerformanceCache(file, machine=make_machine, now=lambda: STARTED_AT, **options)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cache.db"


@pytest.fixture
def cache(file: Path) -> Iterator[ModelPerformanceCache]:
    cache = open_cache(file)
    yield cache
    cache.close()


def performance(cache: ModelPerformanceCache, model: Path) -> BackendPerformanceProfile:
    found = cache.get_backend_performance(model, "ctransformers")
    assert found is not None
    return found


def test_a_model_is_described_by_its_own_header(
    cache: ModelPerformanceCache, smollm2_path: Path
) -> None:
    """The guide's keys, with the file's own values; what was claimed of it is not believed."""
    assert cache.get_model_profile(smollm2_path) is None

    cache.store_model_profile(str(smollm2_path), 7500, quantization="Q4_0")
    profile = cache.get_model_profile(str(smollm2_path))

    assert profile is not None
    assert profile.keys() >= PROFILE_KEYS
    assert (profile["architecture"], profile["quantization"]) == ("llama", "Q4_1")
    assert profile.size_mb == round(smollm2_path.stat().st_size / 1024**2)
    assert (profile.parameter_count, profile.layer_count) == (134_515_008, 30)


def test_a_report_is_kept_and_survives_the_process(
    cache: ModelPerformanceCache, file: Path, smollm2_path: Path
) -> None:
    """In the guide's words and units; another cache on the same store knows it."""
    assert cache.get_backend_performance(smollm2_path, "ctransformers") is None
    cache.store_backend_performance("ctransformers", smollm2_path, {"cpu_cores": 2}, **SAW)
    cache.close()

    again = open_cache(file)
    found = performance(again, smollm2_path)
    again.close()

    assert found.keys() >= PERFORMANCE_KEYS
    assert {name: found[name] for name in SAW} == pytest.approx(SAW)
    assert (found.success_rate, found.usage_count, found.reported_count) == (1.0, 1, 1)
    assert found.hardware_config == {"cpu_cores": 2}


def test_zero_means_not_known(cache: ModelPerformanceCache, smollm2_path: Path) -> None:
    """The original averaged zeros in; here they are NULL in the store and None outside."""
    cache.store_backend_performance("ctransformers", smollm2_path, {}, 0.0, 0, 0.0)
    cache.store_backend_performance("ctransformers", smollm2_path, {}, **SAW)

    found = performance(cache, smollm2_path)
    rows = cache.store.list_runs()

    assert (found.tokens_per_second, found.load_time_ms) == (45.5, 2500.0)
    assert found.usage_count == 2
    assert (rows[1].load_s, rows[1].decode_tps, rows[1].peak_rss_bytes) == (None, None, None)


def test_a_report_is_nobodys_measurement(cache: ModelPerformanceCache, smollm2_path: Path) -> None:
    """It is marked as told by somebody, spoilt, and its memory does not teach."""
    run_id = cache.store_backend_performance("ctransformers", smollm2_path, {}, **SAW)

    record = cache.store.load_run(run_id)
    (seen,) = cache.store.observations()

    assert (record.summary.purpose, record.source) == (Purpose.IMPORT, "application")
    assert seen.contaminated
    assert seen.load_contaminated
    assert seen.peak_rss_bytes is None
    assert seen.decode_tps == pytest.approx(45.5)


def test_a_failure_is_kept_with_its_reason(
    cache: ModelPerformanceCache, smollm2_path: Path
) -> None:
    """Half of the uses failed; of a failed one no rate is believed."""
    store = cache.store_backend_performance
    store("ctransformers", smollm2_path, {}, **SAW)
    store("ctransformers", smollm2_path, {}, success_rate=0.0, reason=Reason.OOM)

    assert performance(cache, smollm2_path).success_rate == 0.5
    assert cache.store.list_runs()[0].reason is Reason.OOM


def test_a_json_name_has_its_store_beside_it(tmp_path: Path) -> None:
    """The guide's own example: the file is not there, and never made."""
    cache = open_cache(tmp_path / "custom_cache.json")
    stats = cache.get_stats()
    cache.close()

    assert stats["cache_file"] == str(tmp_path / "custom_cache.db")
    assert (stats["total_models"], stats["total_backend_profiles"]) == (0, 0)
    assert sorted(path.suffix for path in tmp_path.glob("custom_cache.*")) == [".db"]


def test_an_old_json_cache_is_imported_once(tmp_path: Path, smollm2_path: Path) -> None:
    """What it tells of a model is found by the name of the file; the JSON stays as it was."""
    json_file = write(tmp_path / "model_performance_cache.json", RECORD)
    text = json_file.read_text().replace("mistral-7b-instruct.Q4_0", smollm2_path.stem)
    json_file.write_text(text)

    for _ in range(2):
        cache = open_cache(json_file)
        stats, found = cache.get_stats(), performance(cache, smollm2_path)
        cache.close()

    assert (stats["total_models"], stats["total_backend_profiles"]) == (1, 1)
    assert (found.tokens_per_second, found.memory_usage_mb) == (45.5, 6000)
    assert json_file.read_text() == text


@pytest.mark.parametrize("text", ["{}", "", json.dumps({"model_profiles": {}})])
def test_an_empty_json_cache_tells_nothing(tmp_path: Path, text: str) -> None:
    """The original writes one at its first start."""
    (tmp_path / "c.json").write_text(text)
    cache = open_cache(tmp_path / "c.json")

    assert cache.get_stats()["total_runs"] == 0
    cache.close()


@pytest.mark.parametrize("text", ["{oops", "[1, 2]", "\x00\x01"])
def test_a_damaged_json_cache_is_refused_with_the_cure(tmp_path: Path, text: str) -> None:
    """Nothing is imported by halves, and nobody has to guess."""
    (tmp_path / "c.json").write_text(text)

    with pytest.raises(DataError, match=r"c\.json is no performance cache .* another cache_file"):
        open_cache(tmp_path / "c.json")


def test_what_is_no_store_is_refused_with_the_cure(tmp_path: Path) -> None:
    """The message speaks of the argument that was given."""
    (tmp_path / "c.db").write_text("no database at all, but long enough to be looked at" * 20)

    with pytest.raises(DataError, match=r"c\.db is not an autotune database: use another cache_f"):
        open_cache(tmp_path / "c.db")


def test_clearing_copies_first_and_only_marks(
    cache: ModelPerformanceCache, file: Path, smollm2_path: Path
) -> None:
    """Everything is in the copy, and still in the store; it teaches and counts no more."""
    cache.store_backend_performance("ctransformers", smollm2_path, {}, **SAW)

    copies = [cache.clear(), cache.clear()]

    assert cache.get_stats()["total_backend_profiles"] == 0
    assert cache.store.observations() == ()
    assert cache.store.count_runs() == 1
    assert len(set(copies)) == 2
    assert copies[0] is not None
    with Store.open(copies[0], now=lambda: STARTED_AT) as old:
        assert len(old.observations()) == 1


def test_clearing_one_model_leaves_the_others(
    cache: ModelPerformanceCache, smollm2_path: Path, gemma3_path: Path
) -> None:
    """A profile of the other model is as it was."""
    for model in (smollm2_path, gemma3_path):
        cache.store_backend_performance("ctransformers", model, {}, **SAW)

    cache.clear(smollm2_path)

    assert cache.get_backend_performance(smollm2_path) == {}
    assert performance(cache, gemma3_path).usage_count == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"load_time_ms": -1.0}, "load_time_ms=-1.0 is not valid: give a number, 0 or more"),
        ({"tokens_per_second": float("nan")}, "tokens_per_second=nan is not valid"),
        ({"memory_usage_mb": True}, "memory_usage_mb=True is not valid"),
        ({"success_rate": 1.5}, "success_rate=1.5 is not valid: give a number, 0 to 1"),
        ({"hardware_config": {"gpu": object()}}, "hardware_config is not valid"),
    ],
)
def test_absurd_figures_are_refused(
    cache: ModelPerformanceCache, smollm2_path: Path, arguments: dict[str, Any], said: str
) -> None:
    """With the name, the value and what would be valid; nothing is kept of them."""
    with pytest.raises(UserError, match=said):
        cache.store_backend_performance("ctransformers", smollm2_path, **arguments)
    assert cache.store.count_runs() == 0


def test_a_missing_or_unreadable_model_is_a_typed_error(
    cache: ModelPerformanceCache, tmp_path: Path
) -> None:
    """Of every method; one line that names the file."""
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF but no more")
    for path in (tmp_path / "missing.gguf", broken):
        for ask in (cache.store_model_profile, cache.get_model_profile,
                    cache.get_backend_performance, cache.clear):  # fmt: skip
            with pytest.raises(GGUFError, match=path.name):
                ask(path)


@pytest.mark.skipif(os.name == "nt", reason="permissions work otherwise there")
def test_a_store_that_cannot_be_written_is_read(smollm2_path: Path) -> None:
    """Somebody else's store answers; writing raises, and says how that is cured."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        model = shutil.copy(smollm2_path, folder / smollm2_path.name)
        cache = open_cache(folder / "c.db")
        cache.store_backend_performance("ctransformers", model, {}, **SAW)
        cache.close()
        (folder / "c.db").chmod(0o444)

        with unprivileged():
            cache = open_cache(folder / "c.db")
            assert performance(cache, Path(model)).tokens_per_second == 45.5
            with pytest.raises(UserError, match=r"c\.db cannot be written: make the file"):
                cache.store_backend_performance("ctransformers", model, {}, **SAW)
            cache.close()


def test_the_rows_are_what_the_profile_says(
    cache: ModelPerformanceCache, file: Path, smollm2_path: Path
) -> None:
    """The figures are read back from the table, not remembered."""
    for tps in (40.0, 50.0, 60.0):
        cache.store_backend_performance("ctransformers", smollm2_path, {}, tokens_per_second=tps)
    with closing(sqlite3.connect(file)) as database:
        rates = database.execute("SELECT decode_tps FROM generation_run ORDER BY 1").fetchall()

    assert [rate for (rate,) in rates] == pytest.approx([40.0, 50.0, 60.0])
    assert performance(cache, smollm2_path).tokens_per_second == 50.0
