"""The commands as a person types them, on the real engine with a real model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from autotune.backends.protocol import EngineError
from autotune.backends.registry import backend_names
from autotune.cli.main import main
from autotune.domain.config import KNOBS
from autotune.domain.plan import MemoryPlan
from autotune.domain.prediction import TARGETS
from autotune.domain.run import Reason
from autotune.measure.planner import ExactPlanner
from autotune.tune.confirmation import CONFIRM_PAIRS, MOST_PAIRS
from tests.backends.programs import find_server
from tests.engine_isa import assumed_copies_bytes, copies_bytes, engine_repacks

QUICK = ("--workload", "pp64+tg8", "--n-ctx", "512")


class Shell:
    """Runs the command line in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def run(self, *words: object) -> tuple[int, str, str]:
        """(exit status, standard output, standard error) of ``autotune WORDS``."""
        self._monkeypatch.setattr(sys, "argv", ["autotune", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = self._capsys.readouterr()
        return int(caught.value.code or 0), out, err

    def json(self, *words: object) -> Any:
        """The JSON document that a successful command prints."""
        status, out, err = self.run(*words, "--json")
        assert status == 0, err
        return json.loads(out)


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """A shell with a home of its own."""
    return Shell(monkeypatch, capsys)


def test_the_whole_arrow(shell: Shell, smollm2_path: Path) -> None:
    """tune measures and proves; runs lists all of it; show, recommend and predict use it."""
    tuned = shell.json("tune", smollm2_path, *QUICK, "--trials", 3, "--time-limit", "2m")

    assert set(tuned["expected"]) == set(TARGETS)
    assert set(tuned["config"]) == set(KNOBS)
    assert tuned["evidence"] == "measured"
    assert tuned["winner"]["measured"]["decode_tps"]["n"] >= 2  # more, unless the machine is busy
    assert tuned["default"]["measured"]["decode_tps"]["median"] > 0
    assert tuned["speedup"]["request"] >= 1 or tuned["is_default"]
    assert tuned["trials"] <= 3

    runs = shell.json("runs")
    assert runs[-1]["purpose"] == "probe"
    confirmed = [run for run in runs if run["purpose"] == "confirm"]
    by_turns = range(2 * CONFIRM_PAIRS, 2 * MOST_PAIRS + 1, 2)
    assert len(confirmed) in {CONFIRM_PAIRS, *by_turns}  # the default alone, or with a challenger
    assert all(run["state"] == "complete" for run in runs)

    shown = shell.json("show", runs[0]["run_id"])
    assert len(shown["generations"]) >= 3
    assert len(shown["generations"][0]["token_ns"]) == 8
    assert set(shown["predicted"]) == set(TARGETS)

    exported = json.loads(shell.run("export", smollm2_path, "--format", "json")[1])
    assert exported["config"] == tuned["winner"]["config"]
    assert exported["speedup"] == tuned["speedup"]["request"]
    assert exported["study_id"] == tuned["study_id"]

    again = shell.json("tune", smollm2_path, *QUICK, "--trials", 3, "--time-limit", "2m")
    assert again["measured_at"] is not None
    assert again["winner"] == tuned["winner"]
    assert len(shell.json("runs")) == len(runs), "what was measured lately is not measured again"

    recommended = shell.json("recommend", smollm2_path, *QUICK)
    assert recommended["evidence"] in {"measured", "calibrated"}
    assert 0 < recommended["confidence"] <= 1
    assert recommended["reasons"]
    lines = shell.run("recommend", smollm2_path, *QUICK)[1].splitlines()
    assert any(line.startswith(f"llama-server -m {smollm2_path} -c 512 ") for line in lines)
    assert any(line.startswith(f"llama_cpp.Llama('{smollm2_path}', n_ctx=512, ") for line in lines)

    predicted = shell.json("predict", smollm2_path, "--set", "n_ctx=512", "--workload", "pp64+tg8")
    assert predicted["evidence"] == "measured"
    measured = tuned["default"]["measured"]["decode_tps"]["median"]
    assert predicted["expected"]["decode_tps"]["q50"] == pytest.approx(measured, rel=0.5)


def test_bench_measures_one_configuration_and_stores_it(shell: Shell, smollm2_path: Path) -> None:
    """What was set was run; the row is there; the table fits a terminal."""
    document = shell.json(
        "bench", smollm2_path, "--set", "n_ctx=512", "--set", "flash_attn=on",
        "--workload", "pp32+tg4",
    )  # fmt: skip

    assert document["config"]["flash_attn"] == "on"
    assert document["measured"]["prefill_tps"]["median"] > 0
    assert document["evidence"] == "physics"
    (stored,) = shell.json("runs", smollm2_path)
    assert stored["run_id"] == document["run_id"]
    status, out, _ = shell.run("bench", smollm2_path, "--set", "n_ctx=512", "--workload", "tg4")
    assert status == 0
    assert "decode" in out
    assert max(map(len, out.splitlines())) <= 80


def test_limits_and_the_front(shell: Shell, smollm2_path: Path) -> None:
    """What cannot be kept is one line with the best there is; the front is a table and JSON."""
    for limit, complaint in (
        (("--max-ttft", "1ms"), "the first token takes"),
        (("--max-memory", "50M"), "50 MiB may be used; a smaller model would fit"),
        (("--max-memory", "much"), "write 512M or 2G"),
    ):
        status, out, err = shell.run("recommend", smollm2_path, *limit)
        assert (status, out) == (1 if "write" not in complaint else 2, "")
        assert complaint in err
        assert err.count("\n") == 1

    front = shell.json("recommend", smollm2_path, "--pareto", "--workload", "chat")
    assert [row["request_s"] for row in front] == sorted(row["request_s"] for row in front)
    assert {row["config"]["type_k"] for row in front} > {"f16"}
    assert "not measured" in shell.run("recommend", smollm2_path, "--pareto")[1]

    for workload, absent in (("tg8", "prefill"), ("pp64", "decode")):  # not an endless speed
        asked = ("predict", smollm2_path, "--workload", workload)
        assert f"{absent}_tps" in (expected := shell.json(*asked)["expected"])
        assert [name for name, value in expected.items() if value is None] == [f"{absent}_tps"]
        (row,) = [line for line in shell.run(*asked)[1].splitlines() if line.startswith(absent)]
        assert row.split() == [absent, "–", "–"]

    advice = shell.run("recommend", smollm2_path)[1]
    assert "physics; probability to be within 5% of the best " in advice
    assert advice.count("× the time\n") == advice.count("\nor ")  # which way it goes is said

    told = shell.json("predict", smollm2_path, "--set", "n_threads=2")
    assert told["evidence"] == "physics"
    assert told["settled_by"].startswith("autotune bench ")
    assert told["settled_by"].endswith("--set n_threads=2")


def test_bench_measures_on_another_backend(
    shell: Shell, smollm2_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program is asked for its GPUs, its newcomer's default is the base, its runs are kept."""
    monkeypatch.setenv("AUTOTUNE_LLAMA_SERVER", str(find_server()))
    document = shell.json(
        "bench", smollm2_path, "--backend", "llama-server", "--set", "n_ctx=512",
        "--workload", "pp32+tg4",
    )  # fmt: skip

    assert document["backend"] == "llama-server"
    assert (document["config"]["flash_attn"], document["config"]["n_batch"]) == ("auto", 512)
    assert document["measured"]["decode_tps"]["median"] > 0
    (stored,) = shell.json("runs", smollm2_path)
    assert shell.json("show", stored["run_id"])["backend"] == "llama-server"


def test_a_backend_that_cannot_be_used_says_why(
    shell: Shell, smollm2_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unknown: bad input, with the names. Not installed: the cure; the doctor misses nothing."""
    monkeypatch.setenv("AUTOTUNE_LLAMAFILE", "/nonexistent/llamafile")
    status, _, err = shell.run("bench", smollm2_path, "--backend", "nonesuch")
    assert status == 2
    assert "llama-server, llamafile" in err

    status, _, err = shell.run("bench", smollm2_path, "--backend", "llamafile")
    assert status == 1
    assert "AUTOTUNE_LLAMAFILE=FILE" in err
    document = shell.json("doctor")
    assert set(document["backends"]) == set(backend_names())
    assert "AUTOTUNE_LLAMAFILE=FILE" in document["backends"]["llamafile"]["problem"]
    assert document["missing"] == []


def test_inspect_shows_the_file_and_the_plan(shell: Shell, smollm2_path: Path) -> None:
    """Layers, types and bytes; the KV cache follows n_ctx."""
    document = shell.json("inspect", smollm2_path, "--set", "n_ctx=8192")
    kv = [entry for entry in document["plan"]["entries"] if entry["component"] == "kv"]

    assert document["model"]["n_layers"] == 30
    assert sum(entry["n_bytes"] for entry in kv) == 8192 * 30 * 2 * 3 * 64 * 2
    assert (document["plan"]["source"], document["analytic"]["source"]) == ("engine", "analytic")
    exact, ours = (document[of]["total_bytes"] for of in ("plan", "analytic"))
    copies = copies_bytes(smollm2_path, engine_repacks())
    not_made = assumed_copies_bytes(smollm2_path) - copies
    assert exact == pytest.approx(ours - not_made, rel=0.02)
    status, out, _ = shell.run("inspect", smollm2_path)
    assert status == 0
    assert "Q4_1" in out
    assert "source engine" in out


def test_inspect_gives_the_engines_reason_for_an_illegal_combination(
    shell: Shell, smollm2_path: Path
) -> None:
    """Exit 2 and one line, before anything is printed."""
    status, out, err = shell.run("inspect", smollm2_path, "--set", "n_parallel=300")

    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert "n_seq_max must be <= 256" in err


def test_inspect_does_without_an_engine(
    shell: Shell, smollm2_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our own plan, and a remark that says so."""

    def refuse(*_: object) -> MemoryPlan:
        raise EngineError(Reason.UNSUPPORTED, "llama-cpp-python is missing")

    monkeypatch.setattr(ExactPlanner, "plan", refuse)
    status, out, err = shell.run("inspect", smollm2_path)

    assert status == 0
    assert "source analytic" in out
    assert "llama-cpp-python is missing" in err


def test_doctor_names_machine_engine_and_store(shell: Shell) -> None:
    """Everything a measurement needs, and that nothing is missing here."""
    document = shell.json("doctor")

    assert document["machine"]["n_usable"] >= 1
    assert document["backends"]["llama-cpp-python"]["commit"]
    assert document["missing"] == []
    status, out, _ = shell.run("doctor")
    assert status == 0
    assert "nothing that is needed is missing" in out


def test_doctor_says_what_an_engine_says_to_the_letter(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brackets in it, of a path or of a command that installs something, are no markup."""
    monkeypatch.setenv("AUTOTUNE_LLAMAFILE", "/nowhere/[bold]/[/opt]/llamafile")
    status, out, _ = shell.run("doctor")

    assert status == 0
    assert "no program /nowhere/[bold]/[/opt]/llamafile;" in out


def test_the_store_is_made_checked_and_copied(shell: Shell, tmp_path: Path) -> None:
    """upgrade makes it, check approves it, backup copies it."""
    assert shell.run("db", "check")[0] == 2
    assert shell.json("db", "upgrade")["state"] == "current"
    assert shell.json("db", "check")["revision"]
    assert shell.json("db", "backup", tmp_path / "copy.db")["bytes"] > 0
    assert shell.json("db", "check", "--db", tmp_path / "copy.db")["state"] == "current"


def test_an_empty_store_says_how_to_fill_it(shell: Shell) -> None:
    """No table without rows."""
    status, out, _ = shell.run("runs")

    assert status == 0
    assert out == "no runs yet: autotune bench MODEL or autotune tune MODEL makes some\n"


def damaged(smollm2: Path, folder: Path) -> dict[str, Path]:
    """Files that are not usable models, by what is wrong with them."""
    header = smollm2.read_bytes()[:200_000]
    files = {
        "missing": folder / "missing.gguf",
        "directory": folder,
        "empty": folder / "empty.gguf",
        "truncated": folder / "truncated.gguf",
        "magic": folder / "magic.gguf",
    }
    files["empty"].write_bytes(b"")
    files["truncated"].write_bytes(header)
    files["magic"].write_bytes(b"ABCD" + header[4:])
    return files


@pytest.mark.parametrize("kind", ["missing", "directory", "empty", "truncated", "magic"])
@pytest.mark.parametrize("command", ["tune", "bench", "inspect", "recommend", "predict", "quality"])
def test_an_unusable_file_is_one_line(
    shell: Shell, smollm2_path: Path, tmp_path: Path, command: str, kind: str
) -> None:
    """Exit 2, one line that names the file, no traceback, no row."""
    path = damaged(smollm2_path, tmp_path)[kind]
    status, out, err = shell.run(command, path)

    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert path.name in err
    assert shell.run("runs")[1].startswith("no runs yet")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--set", "n_thread=2"], "did you mean n_threads?"),
        (["--set", "n_threads=two"], "give a whole number"),
        (["--set", "type_v=q8_0"], "needs flash attention"),
        (["--set", "n_ctx=128"], "needs 640 tokens, n_ctx is 128"),
        (["--workload", "lots"], "write pp512+tg128@d0"),
        (["--workload", "pp512x4"], "one request at a time"),
        (["--db", "/proc/nowhere/store.db"], "use another --db"),
    ],
)
def test_bad_options_are_one_line(
    shell: Shell, smollm2_path: Path, words: list[str], complaint: str
) -> None:
    """Exit 2 with the cure; nothing is run."""
    status, _, err = shell.run("bench", smollm2_path, *words)

    assert status == 2
    assert complaint in err
    assert err.count("\n") == 1


def test_an_unknown_option_is_bad_input(shell: Shell, smollm2_path: Path) -> None:
    """Exit 2, as for every other mistyping."""
    assert shell.run("bench", smollm2_path, "--fast")[0] == 2
    assert shell.run("tune", smollm2_path, "--target", "luxury")[0] == 2
    assert shell.run("tune", smollm2_path, "--time-limit", "soon")[0] == 2


def test_a_gpu_that_is_not_there_is_failed_work(shell: Shell, smollm2_path: Path) -> None:
    """Exit 1: the input was fine."""
    status, _, err = shell.run("recommend", smollm2_path, "--hardware", "gpu")

    assert status == 1
    assert "no GPU that the engine can use" in err


def test_an_architecture_that_the_engine_does_not_know_fails_with_its_words(
    shell: Shell, tmp_path: Path
) -> None:
    """Exit 1; the row is stored as unsupported, and recommend says what is known."""
    import gguf
    import numpy as np

    path = tmp_path / "strange.gguf"
    writer = gguf.GGUFWriter(path, "nonesuch")
    writer.add_block_count(1)
    writer.add_context_length(2048)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_token_list(["a", "b"])
    writer.add_tensor("token_embd.weight", np.zeros((2, 64), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    status, _, err = shell.run("bench", path, "--workload", "pp8+tg2")
    (run,) = shell.json("runs")

    assert status == 1
    assert "unknown model architecture: 'nonesuch'" in err
    assert run["reason"] == "unsupported"


def test_a_store_from_the_future_is_refused(shell: Shell, home: Path) -> None:
    """Exit 2, and the file stays as it is."""
    import sqlite3
    from contextlib import closing

    shell.json("db", "upgrade")
    with closing(sqlite3.connect(home / "autotune.db")) as connection:
        connection.execute("UPDATE autotune_revision SET version_num = '9999'")
        connection.commit()
    status, _, err = shell.run("runs")

    assert status == 2
    assert "newer autotune" in err


@pytest.mark.parametrize("run_id", [7, 10**30])
def test_a_run_that_does_not_exist_says_how_to_find_one(shell: Shell, run_id: int) -> None:
    """Exit 2 and the command that lists them, also for a number that no database can hold."""
    status, _, err = shell.run("show", run_id)

    assert status == 2
    assert "autotune runs" in err


def test_more_runs_than_a_database_can_count_are_not_asked_for(shell: Shell) -> None:
    """A limit above everything is none."""
    assert shell.run("runs", "--limit", 10**30)[0] == 0
