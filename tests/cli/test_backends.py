"""``--backend auto`` as a person types it, on the real engines with a real model."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotune.backends.registry import BUILT_IN
from tests.backends.programs import find_server, write_llamafile
from tests.cli.test_commands import Shell

QUICK = ("--workload", "pp16+tg4", "--n-ctx", "512")


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """A shell in which llama-server is installed and llamafile is not."""
    monkeypatch.setenv("AUTOTUNE_LLAMA_SERVER", str(find_server()))
    monkeypatch.setenv("AUTOTUNE_LLAMAFILE", "/nonexistent/llamafile")
    return Shell(monkeypatch, capsys)


def test_recommend_chooses_among_installed_backends(shell: Shell, smollm2_path: Path) -> None:
    """Nothing is run: each backend with its state, the chosen one first, a cure for the missing."""
    document = shell.json("recommend", smollm2_path, *QUICK, "--backend", "auto")
    ranking = {verdict["backend"]: verdict for verdict in document["ranking"]}

    assert set(ranking) >= set(BUILT_IN)
    assert document["backend"] == document["ranking"][0]["backend"]
    assert ranking["llama-cpp-python"]["is_usable"]
    assert ranking["llama-server"]["is_usable"]
    assert not ranking["llamafile"]["is_usable"]
    assert "AUTOTUNE_LLAMAFILE=FILE" in ranking["llamafile"]["reasons"][0]
    assert not ranking["ctransformers"]["is_usable"]
    assert document["reasons"][0].startswith(f"{document['backend']}: decode ")
    status, out, _ = shell.run("recommend", smollm2_path, *QUICK, "--backend", "auto")
    assert status == 0
    assert "llamafile is missing" in out
    table = out.splitlines()[: 1 + len(ranking)]
    assert max(map(len, table)) <= 80
    assert shell.run("runs")[1].startswith("no runs yet")


def test_recommend_for_one_backend(shell: Shell, smollm2_path: Path) -> None:
    """A name restricts; one that is not installed is one line with the cure."""
    document = shell.json("recommend", smollm2_path, *QUICK, "--backend", "llama-server")
    assert document["backend"] == "llama-server"
    assert [verdict["backend"] for verdict in document["ranking"]] == ["llama-server"]

    status, out, err = shell.run("recommend", smollm2_path, "--backend", "llamafile")
    assert (status, out) == (1, "")
    assert "AUTOTUNE_LLAMAFILE=FILE" in err
    assert err.count("\n") == 1
    assert shell.run("recommend", smollm2_path, "--backend", "nonesuch")[0] == 2


def test_tune_meets_every_backend_and_tunes_the_best(shell: Shell, smollm2_path: Path) -> None:
    """One table over all of them, a winner that was confirmed, and advice that export reads."""
    words = ("--backend", "auto", "--trials", 2, "--time-limit", "40s")
    document = shell.json("tune", smollm2_path, *QUICK, *words)
    backends = {backend["backend"]: backend for backend in document["backends"]}
    runs = shell.json("runs")

    assert set(backends) >= set(BUILT_IN)
    for name in ("llama-cpp-python", "llama-server"):
        assert backends[name]["default"]["measured"]["decode_tps"]["median"] > 0
        assert any(run["backend"] == name and run["purpose"] == "probe" for run in runs)
    assert "AUTOTUNE_LLAMAFILE=FILE" in backends["llamafile"]["problem"]
    assert backends["ctransformers"]["default"] is None
    assert document["winner"]["runs"] >= 2
    assert document["ranking"][0]["backend"] == document["backend"]
    assert backends[document["backend"]]["best"]["config"] == document["config"]
    exported = shell.run("export", smollm2_path, "--format", "json")[1]
    assert f'"backend": "{document["backend"]}"' in exported

    chosen = shell.json("recommend", smollm2_path, *QUICK, "--backend", "auto")
    tried = {verdict["backend"] for verdict in chosen["ranking"] if verdict["runs"]}
    assert tried >= {"llama-cpp-python", "llama-server"}
    assert "llamafile" not in tried
    assert chosen["evidence"] in {"measured", "calibrated"}


def test_what_runs_it_and_what_measures_it_are_two_words(shell: Shell, smollm2_path: Path) -> None:
    """--backend names an engine, --runner another program's procedure."""
    for words, cure in (
        (("--runner", "llama-server"), "--backend llama-server"),
        (("--runner", "stopwatch"), "--runner llama-bench"),
        (("--runner", "llama-bench", "--backend", "auto"), "leave it out"),
    ):
        status, _, err = shell.run("tune", smollm2_path, *words)
        assert status == 2
        assert cure in err
        assert err.count("\n") == 1


def test_a_llamafile_is_measured_as_its_own_program(
    shell: Shell, smollm2_path: Path, tmp_path: Path
) -> None:
    """No llamafile is installed; it is the very model that its GGUF file is."""
    model = write_llamafile(tmp_path / "SmolLM2.llamafile", model=smollm2_path)
    words = ("--backend", "llamafile", "--workload", "pp16+tg4", "--set", "n_ctx=512")
    status, _, err = shell.run("bench", smollm2_path, *words)
    assert status == 1
    assert "AUTOTUNE_LLAMAFILE=FILE" in err

    run = shell.json("bench", model, *words, "--reps", 1)

    assert run["ok"]
    assert run["backend"] == "llamafile"
    facts = [shell.json("inspect", path)["model"] for path in (model, smollm2_path)]
    assert facts[0] == facts[1]
