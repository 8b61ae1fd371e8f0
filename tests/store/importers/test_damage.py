"""Files that are not as they should be: what is good is kept, what is bad is named."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autotune.domain.errors import DataError, UserError
from autotune.store.importers.files import read_file
from tests.store.importers.excerpts import (
    MARKDOWN,
    make_row,
    write_csv,
    write_json,
    write_jsonl,
    write_sql,
)


@pytest.mark.parametrize(
    ("cells", "cause"),
    [
        ({"avg_ts": "abc"}, "avg_ts is 'abc', not a number"),
        ({"avg_ts": "nan"}, "no rate above 0"),
        ({"avg_ts": "-nan"}, "no rate above 0"),
        ({"avg_ts": -12.5}, "no rate above 0"),
        ({"avg_ts": 0}, "no rate above 0"),
        ({"avg_ts": 1e12}, "1e+12 tokens per second are no rate"),
        ({"n_prompt": 0}, "no tokens: n_prompt and n_gen are 0"),
        ({"n_prompt": -5}, "n_prompt is -5, below 0"),
        ({"n_prompt": 1.5}, "n_prompt is 1.5, not a whole number"),
        ({"model_size": 10**30}, "model_size is 1e+30, not a whole number"),
        ({"model_filename": "", "model_type": ""}, "no model"),
        ({"test_time": "yesterday"}, "test_time is 'yesterday', not a date"),
        (
            {"test_time": "0001-01-01T00:00:00+23:00"},
            "test_time is '0001-01-01T00:00:00+23:00', not a date",
        ),
        (
            {"tensor_buft_overrides": "exps=CPU"},
            "tensor_buft_overrides=exps=CPU: single tensors elsewhere are not a knob yet",
        ),
        ({"backends": "WebGPU"}, "backend 'WebGPU' is not known"),
        ({"devices": "WebGPU0"}, "backend 'WebGPU0' is not known"),
        (
            {"devices": "CUDA0/RPC0"},
            "devices=CUDA0/RPC0: another machine's devices are not a knob yet",
        ),
        ({"avg_ts": 1e-10}, "1e-10 tokens per second are no rate"),
    ],
)
def test_a_bad_row_is_named_and_the_good_ones_are_kept(
    tmp_path: Path, cells: dict[str, Any], cause: str
) -> None:
    """With the line and the column."""
    told = read_file(write_csv(tmp_path / "t.csv", make_row(), make_row(**cells), make_row()))

    assert told.problems == (f"line 3: {cause}",)
    assert [test.place for test in told.tests] == ["line 2", "line 4"]


@pytest.mark.parametrize(
    ("cells", "cause"),
    [
        ({"load_ms": -500}, "load_ms is -500, no time that a load takes"),
        ({"load_ms": 1e300}, "load_ms is 1e+300, no time that a load takes"),
        ({"gpu_mem_mib": 1e30}, "gpu_mem_mib is 1e+30, more than any machine has"),
        ({"ram_mib": 1e303}, "ram_mib is 1e+303, more than any machine has"),
        ({"extra": f"n_ctx={10**30}"}, f"n_ctx is {10**30}, above {2**31}"),
        ({"samples_ts": [1e-300, 5.0]}, "1e-300 tokens per second are no rate"),
    ],
)
def test_a_number_that_no_database_holds_costs_one_row(
    tmp_path: Path, cells: dict[str, Any], cause: str
) -> None:
    """It would end the import of all the others."""
    told = read_file(write_jsonl(tmp_path / "t.jsonl", make_row() | cells, make_row()))

    assert told.problems == (f"row 1: {cause}",)
    assert len(told.tests) == 1


def test_numbers_of_any_length_are_read(tmp_path: Path) -> None:
    """A sample, a size in a printed table, a mean of the application."""
    samples = write_jsonl(tmp_path / "t.jsonl", make_row() | {"samples_ts": [10**400, 5]})
    table, cache = tmp_path / "t.md", tmp_path / "c.json"
    table.write_text(MARKDOWN.replace("8.03 B", "inf B"), encoding="utf-8")
    record = {"backend": "llamafile", "model": "qwen2.5-7b.gguf", "tokens_per_second": 5,
              "memory_usage_mb": 1, "size_mb": 1e308, "usage_count": 10**400}  # fmt: skip
    cache.write_text(json.dumps({"a": record, "b": record | {"usage_count": 1, "size_mb": 9}}))

    assert read_file(samples).tests[0].samples_tps == (5.0,)
    assert read_file(table).tests[0].n_params is None
    told = read_file(cache)
    assert told.problems == ("entry 1: reps is '1" + "0" * 39 + "', not a number",)
    assert len(told.tests) == 1


def test_a_row_of_another_length_is_named(tmp_path: Path) -> None:
    """A line of a log, or a row cut off at the end."""
    file = write_csv(tmp_path / "t.csv", make_row())
    file.write_text(file.read_text() + "llama_print_timings: done\n")

    told = read_file(file)

    assert len(told.tests) == 1
    assert told.problems == ("line 3: 1 cells, but 42 columns",)


@pytest.mark.parametrize("cut", [100, 240])
def test_a_row_cut_off_inside_a_cell_costs_itself(tmp_path: Path, cut: int) -> None:
    """Its open quote does not swallow what was appended, be it another table's header."""
    file = write_csv(tmp_path / "t.csv", make_row())
    header, row = file.read_text().splitlines()
    old = write_csv(tmp_path / "old.csv", make_row(2023)).read_text()
    file.write_text(f"{header}\n{row[:cut]}\n{row}\n{row[:cut]}\n{old}")

    told = read_file(file)

    assert [test.place for test in told.tests] == ["line 3", "line 6"]
    assert [problem.split(":")[0] for problem in told.problems] == ["line 2", "line 4"]


def test_a_cell_of_two_lines_is_one_cell(tmp_path: Path) -> None:
    """Somebody's remark in a table of their own."""
    file = write_csv(tmp_path / "t.csv", make_row() | {"extra": 'first\nsecond; "n_ctx=8192"'})

    told = read_file(file)

    assert (len(told.tests), told.problems) == (1, ())


def test_json_that_was_cut_off_keeps_what_is_whole(tmp_path: Path) -> None:
    """A run that was stopped never closed its list."""
    file = write_json(tmp_path / "t.json", make_row(), make_row(), make_row())
    text = file.read_text()
    file.write_text(text[: text.rindex('"stddev_ns"')])

    told = read_file(file)

    assert len(told.tests) == 2
    assert told.problems[0].endswith("damaged JSON")


def test_a_damaged_line_of_jsonl_costs_one_row(tmp_path: Path) -> None:
    """And something that is no test is named too."""
    good = write_jsonl(tmp_path / "t.jsonl", make_row()).read_text()
    file = tmp_path / "all.jsonl"
    file.write_text(f'{good}{{"avg_ts": 1,\n{good}{{"note": 1}}\n[1, 2]\n{good}')

    told = read_file(file)

    assert len(told.tests) == 3
    assert told.problems == ("line 2: damaged JSON", "row 4: not a test", "row 5: not a test")


def test_a_damaged_statement_costs_one_row(tmp_path: Path) -> None:
    """SQL goes on with the next."""
    file = write_sql(tmp_path / "t.sql", make_row(), make_row())
    file.write_text(file.read_text().replace("VALUES", "VALEUS", 1))

    told = read_file(file)

    assert len(told.tests) == 1
    assert 'near "VALEUS": syntax error' in told.problems[0]


def test_an_apostrophe_in_a_path_costs_its_own_row(tmp_path: Path) -> None:
    """llama-bench does not double it, so the statement never ends."""
    file = write_sql(tmp_path / "t.sql", make_row(model_filename="?"), make_row(), make_row())
    file.write_text(file.read_text().replace("?", "/home/bob's/m.gguf"))

    told = read_file(file)

    assert [test.model for test in told.tests] == ["Meta-Llama-3-8B-Instruct-Q8_0.gguf"] * 2
    assert len(told.problems) == 1
    assert "SQL: near" in told.problems[0]


def test_an_apostrophe_does_not_swallow_the_next_table(tmp_path: Path) -> None:
    """The table of another version begins below the statement that never ends."""
    old = write_sql(tmp_path / "old.sql", make_row(2023), make_row(2023, model_filename="?"))
    new = write_sql(tmp_path / "new.sql", make_row(2026))
    file = tmp_path / "all.sql"
    file.write_text(old.read_text().replace("?", "/home/bob's/m.gguf") + new.read_text())

    told = read_file(file)

    assert [test.flash_attn for test in told.tests] == [None, "on"]
    assert len(told.problems) == 1


@pytest.mark.parametrize(
    "harm",
    [
        "ATTACH DATABASE '{other}' AS other; CREATE TABLE other.t (a);",
        "INSERT INTO llama_bench (avg_ts) SELECT load_extension('x');",
        "INSERT INTO llama_bench (avg_ts) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL "
        "SELECT i + 1 FROM n) SELECT i FROM n;",
        "CREATE VIRTUAL TABLE v USING fts5(a);",
        "CREATE TRIGGER t AFTER INSERT ON llama_bench BEGIN SELECT 1; END;",
    ],
)
def test_a_script_can_do_no_harm(tmp_path: Path, harm: str) -> None:
    """It fills a table in memory, and nothing else."""
    other = tmp_path / "other.db"
    file = write_sql(tmp_path / "t.sql", make_row())
    file.write_text(file.read_text() + harm.format(other=other) + "\n")

    told = read_file(file)

    assert len(told.tests) == 1
    assert not other.exists()


@pytest.mark.parametrize("letter", ["\0", "\x1b", "\u202e"])
def test_an_unprintable_letter_does_not_reach_the_terminal(tmp_path: Path, letter: str) -> None:
    """Nor does it end the reading."""
    file = write_sql(tmp_path / "t.sql", make_row(), make_row())
    text = file.read_text().replace("VALUES", f"VAL{letter}UES", 1)
    file.write_text(text, encoding="utf-8")

    told = read_file(file)

    assert len(told.tests) == 1
    assert len(told.problems) == 1
    assert told.problems[0].isprintable()


def test_a_table_row_that_is_no_test_is_named(tmp_path: Path) -> None:
    """Wrong cells, no test, no rate."""
    file = tmp_path / "t.md"
    bad = MARKDOWN.replace("pp512 |", "what |", 1).replace("100.25 ± 0.11", "failed")
    file.write_text(bad.replace("|  1 | pp512+tg128", "| pp512+tg128"), encoding="utf-8")

    told = read_file(file)

    assert told.tests == ()
    assert told.problems == (
        "line 5: test is 'what'", "line 6: t/s is 'failed'", "line 7: 7 cells, but 8 columns",
    )  # fmt: skip


@pytest.mark.parametrize("rate", ["10,000.50", "10 000.50", "1e5", "48,1", "10,000.50 ± 1,200.5"])
def test_a_rate_in_another_notation_is_named(tmp_path: Path, rate: str) -> None:
    """Its first digits are not the rate, nor are the others its deviation."""
    file = tmp_path / "t.md"
    file.write_text(MARKDOWN.replace("10000.50 ± 19.50", rate), encoding="utf-8")

    told = read_file(file)

    assert told.problems == (f"line 5: t/s is {rate!r}",)
    assert [test.tps for test in told.tests] == [100.25, 412.0]


@pytest.mark.parametrize(
    "sign", [" ± ", "±", " +- ", " +/- ", " \u00c2\u00b1 ", " \ufffd ", " ┬▒ "]
)
def test_a_deviation_is_read_whatever_became_of_its_sign(tmp_path: Path, sign: str) -> None:
    """Encodings spoil it, and people type it."""
    file = tmp_path / "t.md"
    file.write_text(MARKDOWN.replace(" ± ", sign), encoding="utf-8")

    first, *_ = read_file(file).tests

    assert (first.tps, first.tps_sd) == (10000.5, 19.5)


@pytest.mark.parametrize("deviation", ["nan", "-nan", "NaN", "nan(ind)", "n/a"])
def test_a_rate_is_good_whose_deviation_is_no_number(tmp_path: Path, deviation: str) -> None:
    """One repetition has none; a rate that is no number itself is named."""
    file = tmp_path / "t.md"
    text = MARKDOWN.replace("10000.50 ± 19.50", f"12.3 ± {deviation}")
    file.write_text(text.replace("100.25 ± 0.11", "nan ± nan"), encoding="utf-8")

    told = read_file(file)

    assert (told.tests[0].tps, told.tests[0].tps_sd) == (12.3, None)
    assert told.problems == ("line 6: t/s is 'nan ± nan'",)


@pytest.mark.parametrize(
    "content",
    [b"", b"hello\n", b"\x00\x01\x02\xff" * 100, b"{}", b"[]", b"a,b,c\n1,2,3\n", b"[1]",
     b"| a | b |\n", b"{" * 5000, b"CREATE TABLE t (a);"],
)  # fmt: skip
def test_what_is_no_benchmark_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    """The line lists what is understood."""
    file = tmp_path / "t.bin"
    file.write_bytes(content)

    with pytest.raises(DataError, match="JSON, JSONL, CSV, markdown or SQL") as caught:
        read_file(file)
    assert "\n" not in str(caught.value)


def test_a_table_without_a_row_is_refused(tmp_path: Path) -> None:
    """The benchmark was stopped before its first result."""
    file = write_csv(tmp_path / "t.csv", make_row())
    file.write_text(file.read_text().splitlines()[0])

    with pytest.raises(DataError, match="no test in it"):
        read_file(file)


def test_a_file_that_is_not_there_is_a_typing_error(tmp_path: Path) -> None:
    """So is a folder."""
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(UserError, match="cannot be read"):
            read_file(path)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damage_anywhere_never_crashes(tmp_path: Path, data: st.DataObject) -> None:
    """Bytes overwritten in any format give tests, problems or one line."""
    write = data.draw(st.sampled_from([write_csv, write_json, write_jsonl, write_sql]))
    content = bytearray(write(tmp_path / "t.txt", make_row(), make_row()).read_bytes())
    for _ in range(data.draw(st.integers(1, 20))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file = tmp_path / "damaged.txt"
    file.write_bytes(content[: data.draw(st.integers(0, len(content)))])

    with contextlib.suppress(DataError):
        assert all(problem.isprintable() for problem in read_file(file).problems)
