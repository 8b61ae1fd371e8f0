"""llama-bench's tables in every format and of every year say the same."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from autotune.domain.imported import ImportedTest
from autotune.domain.run import Reason
from autotune.domain.units import MIB
from autotune.facts.imported import observe_tests
from autotune.store.importers.columns import read_test
from autotune.store.importers.files import read_file
from autotune.store.imports import import_key
from tests.store.importers.excerpts import (
    COLUMNS,
    MARKDOWN,
    decode_row,
    make_row,
    write_csv,
    write_json,
    write_jsonl,
    write_sql,
)

Writer = Callable[..., Path]
STRIX = "AMD RYZEN AI MAX+ 395 w/ Radeon 8060S"
"""What some drivers call the graphics core."""
WRITERS: list[Writer] = [write_csv, write_json, write_jsonl, write_sql]


def read_one(path: Path) -> ImportedTest:
    """The only test of a file without problems."""
    told = read_file(path)
    assert told.problems == ()
    (test,) = told.tests
    return test


@pytest.mark.parametrize("year", COLUMNS)
@pytest.mark.parametrize("write", WRITERS)
def test_every_format_of_every_year_is_read(tmp_path: Path, write: Writer, year: int) -> None:
    """The suffix says nothing; columns came and went."""
    told = read_file(write(tmp_path / "results.txt", make_row(year), decode_row(year)))

    assert told.problems == ()
    prompt, generation = told.tests
    assert (prompt.kind, prompt.n_prompt, prompt.tps) == ("pp", 512, 10000.5)
    assert (generation.kind, generation.n_gen, generation.tps) == ("tg", 128, 100.25)
    for test in told.tests:
        assert (test.api, test.gpu) == ("CUDA", "NVIDIA GeForce RTX 4090")
        assert test.cpu == "Intel i7-10700K"
        assert (test.model, test.n_params) == ("Meta-Llama-3-8B-Instruct-Q8_0.gguf", 8030261248)
        assert (test.n_threads, test.n_batch, test.n_gpu_layers) == (8, 2048, 99)
        assert test.build == "4567 0c1e570"
        assert test.measured_at == datetime(2026, 5, 3, 11, 30, 15, tzinfo=UTC)
        assert test.source == "results.txt"
        assert test.use_mmap is (None if year == 2023 else True)
        assert test.flash_attn == (None if year == 2023 else "on")


def test_one_test_is_the_same_in_every_format(tmp_path: Path) -> None:
    """JSON has samples besides; where the file lies and what it is called says nothing."""
    files = [write(tmp_path / f"{write.__name__}.txt", make_row()) for write in WRITERS]

    tests = [read_one(file) for file in files]

    assert len({import_key(test) for test in tests}) == 1
    assert tests[1].samples_tps == (9999.5, 10001.5)
    assert tests[1].n_reps == 2


def test_the_printed_table_is_read_with_the_log_around_it(tmp_path: Path) -> None:
    """GPU and build stand above and below; sizes have units; a depth follows the test."""
    file = tmp_path / "post.md"
    file.write_text(MARKDOWN, encoding="utf-8")

    told = read_file(file)

    assert told.problems == ()
    prompt, generation, both = told.tests
    assert (prompt.gpu, prompt.build, prompt.api) == (
        "NVIDIA GeForce RTX 4090", "4567 0c1e570", "CUDA",
    )  # fmt: skip
    assert prompt.model_type == "llama 8B Q8_0"
    assert prompt.n_params == 8_030_000_000
    assert prompt.model_bytes == pytest.approx(7.95 * 1024**3)
    assert (prompt.tps, prompt.tps_sd, prompt.flash_attn) == (10000.5, 19.5, "on")
    assert (generation.n_gen, generation.n_depth, generation.tps) == (128, 4096, 100.25)
    assert both.kind == "pg"


@pytest.mark.parametrize(
    ("log", "gpu"),
    [
        ("  Device 0: AMD Radeon RX 7900 XTX, gfx1100 (0x1100), VMM: no", "AMD Radeon RX 7900 XTX"),
        (
            "ggml_vulkan: 0 = Radeon 8060S Graphics (RADV STRIX_HALO) (radv) | uma: 1 | fp16: 1",
            "Radeon 8060S Graphics (RADV STRIX_HALO)",
        ),
        ("ggml_metal_init: GPU name:   Apple M2 Max", "Apple M2 Max"),
        ("ggml_metal_device_init: GPU name:   MTL0 (Apple M4)", "Apple M4"),
        ("ggml_metal_device_init: GPU name:   MTL0", None),
    ],
)
def test_each_backend_names_its_gpu_in_its_own_way(
    tmp_path: Path, log: str, gpu: str | None
) -> None:
    """CUDA and ROCm, Vulkan, Metal; for a time Metal named none."""
    file = tmp_path / "log.txt"
    file.write_text(f"{log}\n{MARKDOWN[MARKDOWN.index('| model') :]}", encoding="utf-8")

    assert {test.gpu for test in read_file(file).tests} == {gpu}


def test_each_log_names_its_own_gpus(tmp_path: Path) -> None:
    """Two runs in one file, of which the first was stopped before it told its build."""
    file = tmp_path / "log.txt"
    file.write_text(MARKDOWN[: MARKDOWN.index("build:")] + MARKDOWN, encoding="utf-8")

    assert [test.n_gpus for test in read_file(file).tests] == [1] * 6


def test_old_tables_of_the_printed_kind_are_read(tmp_path: Path) -> None:
    """2023 wrote a space in the test, and a processor has no GPU."""
    file = tmp_path / "old.md"
    file.write_text(
        "| model | size | params | backend | threads | test | t/s |\n"
        "| --- | --- | --- | --- | --- | --- | --- |\n"
        "| llama 7B mostly Q4_0 | 3.56 GiB | 6.74 B | CPU | 16 | pp 512 | **48.1 ± 0.2** |\n"
    )

    test = read_one(file)

    assert (test.api, test.gpu, test.n_threads) == ("CPU", None, 16)
    assert (test.n_prompt, test.tps, test.build) == (512, 48.1, None)


@pytest.mark.parametrize(
    ("year", "cells", "expected"),
    [
        (2024, {"cuda": 0, "metal": "true"}, {"api": "Metal"}),
        (2024, {"cuda": 0}, {"api": "CPU"}),
        (2024, {"gpu_info": "AMD Radeon RX 6800"}, {"api": "ROCm"}),
        (2025, {"backends": "Vulkan,RPC"}, {"api": "Vulkan"}),
        (2025, {"backends": "BLAS,RPC"}, {"api": "CPU"}),
        (2025, {"backends": "BLAS", "gpu_info": ""}, {"api": "CPU", "gpu": None, "n_gpus": None}),
        (2025, {"gpu_info": "NVIDIA L4, NVIDIA L4"}, {"gpu": "NVIDIA L4", "n_gpus": 2}),
        (2024, {"gpu_info": "NVIDIA L4/NVIDIA L4"}, {"gpu": "NVIDIA L4", "n_gpus": 2}),
        (2025, {"gpu_info": STRIX}, {"gpu": STRIX, "n_gpus": 1}),
        (2025, {"flash_attn": False, "use_mmap": False}, {"flash_attn": "off", "use_mmap": False}),
        (2026, {"flash_attn": -1, "load_mode": "dio"}, {"flash_attn": "auto", "use_mmap": False}),
        (2026, {"load_mode": "mmap+mlock"}, {"use_mmap": True}),
        (2026, {"load_mode": "auto"}, {"use_mmap": None}),
        (2026, {"no_kv_offload": 1}, {"offload_kqv": False}),
        (2026, {"model_filename": r"D:\models\a.gguf"}, {"model": "a.gguf"}),
    ],
)
def test_words_of_all_years_mean_the_same(
    tmp_path: Path, year: int, cells: dict[str, Any], expected: dict[str, Any]
) -> None:
    """Flags, words and numbers; what a table leaves out stays unknown."""
    test = read_one(write_json(tmp_path / "one.json", make_row(year, **cells)))

    assert {name: getattr(test, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("backends", "devices", "api"),
    [
        ("CUDA,Vulkan", "Vulkan0", "Vulkan"),
        ("CUDA,Vulkan", "CUDA0/CUDA1", "CUDA"),
        ("CUDA,Vulkan", "auto", "CUDA"),
        ("Vulkan", "", "Vulkan"),
        ("MTL,BLAS", "BLAS", "CPU"),
        ("WebGPU", "none", "CPU"),
    ],
)
def test_the_chosen_devices_tell_what_computed(
    tmp_path: Path, backends: str, devices: str, api: str
) -> None:
    """``backends`` lists what was compiled in, used or not."""
    row = make_row(2026, backends=backends, devices=devices)

    assert read_one(write_csv(tmp_path / "t.csv", row)).api == api


def test_a_run_that_was_given_no_device_is_the_processors(tmp_path: Path) -> None:
    """llama-bench prints the layers that were asked for: none of them was on a GPU."""
    table = (
        MARKDOWN.replace("| backend |", "| backend | dev  |")
        .replace("| ------- |", "| ------- | ---- |")
        .replace("| CUDA    |", "| CUDA    | none |")
    )
    printed = tmp_path / "t.md"
    printed.write_text(table, encoding="utf-8")
    rows = write_json(tmp_path / "t.json", make_row(devices="none", n_gpu_layers=-1))
    tests = [*read_file(printed).tests, *read_file(rows).tests]

    seen, problems = observe_tests(tests)

    assert problems == ()
    assert [(one.api, one.config.n_gpu_layers) for one in seen] == [("CPU", 0)] * 4


def test_weights_that_are_not_lent_to_the_gpu_are_another_configuration(tmp_path: Path) -> None:
    """``-nopo 0,1``, as rows and as the printed table shortens it."""
    table = "\n".join(
        f"{line} {cell} |"
        for line, cell in zip(MARKDOWN.splitlines()[2:6], ("nopo", "---:", "0", "1"), strict=True)
    ).replace("tg128 @ d4096", "pp512")
    printed = tmp_path / "t.md"
    printed.write_text(table, encoding="utf-8")
    rows = [make_row(2025), make_row(2025, no_op_offload=1)]
    files = [printed, write_csv(tmp_path / "t.csv", *rows), write_json(tmp_path / "t.json", *rows)]

    for file in files:
        seen, problems = observe_tests(read_file(file).tests)

        assert problems == ()
        assert [one.config.op_offload for one in seen] == [True, False]
        assert len({one.config.config_id for one in seen}) == 2


def test_tables_of_two_years_in_one_file_are_two_tables(tmp_path: Path) -> None:
    """People append; each header holds until the next."""
    old, new = (write_csv(tmp_path / f"{y}.csv", make_row(y)).read_text() for y in (2023, 2026))
    file = tmp_path / "all.csv"
    file.write_text(f"ggml_cuda_init: found 1 CUDA devices\n{old}{new}")

    told = read_file(file)

    assert told.problems == ()
    assert [test.flash_attn for test in told.tests] == [None, "on"]


def test_scripts_of_two_years_in_one_file_are_two_tables(tmp_path: Path) -> None:
    """The second ``IF NOT EXISTS`` is another version's: its columns are not the first's."""
    scripts = [
        write_sql(tmp_path / f"{number}.sql", make_row(year), decode_row(year)).read_text()
        for number, year in enumerate((2023, 2026, 2026, 2024))
    ]
    file = tmp_path / "all.sql"
    file.write_text("BEGIN TRANSACTION;\n" + "COMMIT;\nBEGIN TRANSACTION;\n".join(scripts))

    told = read_file(file)

    assert told.problems == ()
    assert [test.kind for test in told.tests] == ["pp", "tg"] * 4
    assert [test.flash_attn for test in told.tests] == [None] * 2 + ["on"] * 6
    assert [test.place for test in told.tests] == [f"row {number}" for number in range(1, 9)]


@pytest.mark.parametrize("between", ["", "\n", "\nllama_perf: [1] done\nggml: next\n"])
def test_a_list_that_was_appended_to_another_is_read(tmp_path: Path, between: str) -> None:
    """``>>`` after the first run; what an engine logs behind a list is no row."""
    first = write_json(tmp_path / "1.json", make_row()).read_text().rstrip()
    second = write_json(tmp_path / "2.json", decode_row(), decode_row()).read_text()
    file = tmp_path / "all.json"
    file.write_text(f"{first}{between}{second}llama_perf: done\n")

    told = read_file(file)

    assert told.problems == ()
    assert [test.kind for test in told.tests] == ["pp", "tg", "tg"]


def test_a_file_of_another_encoding_is_read(tmp_path: Path) -> None:
    """PowerShell's ``>`` writes UTF-16."""
    file = write_csv(tmp_path / "utf16.csv", make_row())
    file.write_bytes(file.read_text().encode("utf-16"))

    assert read_one(file).tps == 10000.5


COMMON = "source,machine,gpu,n_gpu,cpu,backend,build,model,model_type,size_bytes,n_params,quant,kind,n_prompt,n_gen,n_depth,flash_attn,load_mode,no_kv_offload,extra,ts,ts_std,reps,load_ms,gpu_mem_mib,status"  # noqa: E501


def test_the_common_table_of_public_sets_is_read(tmp_path: Path) -> None:
    """It names source and machine itself, and repeats a prompt in the depth that follows it."""
    file = tmp_path / "set.csv"
    file.write_text(
        f"{COMMON}\n"
        "someone,box,RTX 4090,1,i7-10700K,CUDA,6111,Llama-3-8B-Q8_0,,,8030261248,Q8_0,tg,134,256,"
        "134,0,none,1,llama-cpp-python via x;n_ctx=16384,24.8,0.1,5,,1000,ok\n"
        "someone,box,,,,,,Llama-3-8B-Q8_0,,,,Q8_0,pp,512,0,0,0,,,build=hip;x=1,,,,,,failed\n"
    )

    told = read_file(file, machine="not this one")

    assert told.problems == ()
    good, failed = told.tests
    assert (good.source, good.machine, good.backend) == ("someone", "box", "llama-cpp-python")
    assert (good.n_prompt, good.n_gen, good.n_depth, good.n_ctx) == (0, 256, 134, 16384)
    assert (good.use_mmap, good.offload_kqv, good.n_reps) == (False, False, 5)
    assert good.peak_vram_bytes == 1000 * MIB
    assert (failed.reason, failed.tps, failed.build) == (Reason.CRASH, None, "hip+x")


def test_what_was_switched_on_is_as_good_as_another_build() -> None:
    """What was measured, counted or switched off is not."""
    row = {"model": "m", "build": "6077", "n_prompt": "512", "ts": "100"}

    def build(extra: str) -> str | None:
        return read_test({**row, "extra": extra}, source="x").build

    assert build("build=hip;hipblaslt=1;dur_s=1;n_ctx=1") == "6077 hip+hipblaslt"
    assert build("build=hip;hipblaslt=0;max_power_w=1") == "6077 hip"
    assert build("tuned=True; fast = on") == "6077 fast+tuned"
    assert build("GGML_CUDA_FORCE_MMQ=1;use_fa=1") == "6077 GGML_CUDA_FORCE_MMQ+use_fa"
    assert build("via something") == "6077"


@pytest.mark.parametrize(
    ("status", "rate", "reason"),
    [
        ("completed", 100, None),
        ("Passed", 100, None),
        ("success", 100, None),
        ("what nobody knows", 100, None),
        ("what nobody knows", "", Reason.CRASH),
        ("failed", 100, Reason.CRASH),
        ("oom", "", Reason.OOM),
        ("load_error", "", Reason.LOAD_ERROR),
        ("cancelled", "", Reason.CANCELLED),
        ("cancelled", 100, Reason.CANCELLED),
        ("interrupted", "", Reason.INTERRUPTED),
        ("skipped", "nan", Reason.CANCELLED),
    ],
)
def test_a_status_is_a_failure_only_where_it_says_so(
    status: str, rate: object, reason: Reason | None
) -> None:
    """An unknown word beside a rate is no failure; what was not run failed at nothing."""
    row = {"model": "m", "n_prompt": "512", "status": status, "ts": rate}

    test = read_test(row, source="x")

    assert (test.reason, test.tps) == (reason, None if reason else 100)
