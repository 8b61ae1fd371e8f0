"""``autotune quality`` as a person types it, on the real engine with a real model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from autotune.backends.protocol import EngineError
from autotune.cli.options import DEFAULT_BACKEND
from autotune.domain.config import Config
from autotune.facts.gguf import read_model
from autotune.measure import quality as quality_module
from autotune.measure.planner import ExactPlanner
from autotune.store.store import Store
from tests.cli.test_commands import Shell, shell
from tests.facts.shapes import dense
from tests.store.examples import epoch

__all__ = ["shell"]


@pytest.fixture
def short_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A beginning of the text, about 110 tokens: the command is under test, not the figures."""
    text = quality_module.TEXT_FILE.read_text(encoding="utf-8")[:500]
    file = tmp_path / "short.txt"
    file.write_text(text, encoding="utf-8")
    monkeypatch.setattr(quality_module, "TEXT_FILE", file)
    return text


@pytest.mark.usefixtures("short_text")
def test_three_caches_are_judged_where_none_is_named(
    shell: Shell, smollm2_path: Path, home: Path
) -> None:
    """A table that fits a terminal, dearer with every bit less; and three rows in the store."""
    status, out, _ = shell.run("quality", smollm2_path)

    assert status == 0
    assert max(map(len, out.splitlines())) <= 80
    caches = [line.split()[:2] for line in out.splitlines()[1:4]]
    assert caches == [[f"type_k={c}", f"type_v={c}"] for c in ("q8_0", "q5_1", "q4_0")]
    assert "against an f16 cache" in out
    with Store.open(home / "autotune.db", now=epoch) as store:
        costs = store.quality_costs(read_model(smollm2_path).model_id)
    assert len(costs) == 3
    assert 0 < costs["q8_0", "q8_0"].kl_mean < costs["q4_0", "q4_0"].kl_mean
    assert f"{costs['q5_1', 'q5_1'].kl_mean:.3g}" in out


@pytest.mark.usefixtures("short_text")
def test_a_named_cache_is_judged_alone(shell: Shell, smollm2_path: Path, home: Path) -> None:
    """What was set was measured, against itself with f16; the document is what is stored."""
    document = shell.json("quality", smollm2_path, "--set", "type_k=q8_0", "--set", "n_threads=2")
    (told,) = document["costs"]
    config, reference = (Config.from_dict(told[name]) for name in ("config", "reference"))

    assert (config.type_k, config.type_v, config.n_threads) == ("q8_0", "f16", 2)
    assert config.differences(reference) == {"type_k": ("q8_0", "f16")}
    with Store.open(home / "autotune.db", now=epoch) as store:
        costs = store.quality_costs(read_model(smollm2_path).model_id)
    assert {name: told[name] for name in ("kl_mean", "kl_p99", "top1_agreement", "n_tokens")} == {
        name: getattr(costs["q8_0", "f16"], name)
        for name in ("kl_mean", "kl_p99", "top1_agreement", "n_tokens")
    }


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--set", "n_threads=2"], "is the reference itself: add --set type_k=q8_0"),
        (["--set", "type_k=q3_0"], "give one of f32"),
        (["--set", "type_v=q8_0", "--set", "flash_attn=off"], "needs flash attention"),
        (["--set", "type_k"], "write type_k=VALUE"),
    ],
)
def test_bad_options_are_one_line(
    shell: Shell, smollm2_path: Path, words: list[str], complaint: str
) -> None:
    """Exit 2 with the cure; nothing is run."""
    status, out, err = shell.run("quality", smollm2_path, *words)

    assert (status, out) == (2, "")
    assert complaint in err
    assert err.count("\n") == 1


@pytest.mark.usefixtures("short_text")
def test_the_engines_refusal_is_bad_input(shell: Shell, smollm2_path: Path) -> None:
    """Exit 2 and one line with its reason."""
    words = ["--set", "type_k=q8_0", "--set", "split_mode=tensor", "--set", "n_gpu_layers=2"]
    status, out, err = shell.run("quality", smollm2_path, *words)

    assert (status, out) == (2, "")
    assert "needs >= 1 devices" in err
    assert err.count("\n") == 1


def test_heads_that_blocks_do_not_divide_are_refused_as_the_engine_would(
    shell: Shell, tmp_path: Path
) -> None:
    """Before anything is started, with the cure; llama.cpp's own dry run agrees."""
    path = dense(
        tmp_path / "odd.gguf", n_layers=1, n_embd=320, n_heads=4, n_heads_kv=2, head=80,
        n_ff=640, n_vocab=1024,
    )  # fmt: skip
    status, out, err = shell.run("quality", path)

    assert (status, out) == (2, "")
    assert "heads of 80: use type_k=f16" in err
    assert err.count("\n") == 1
    config = Config(flash_attn="on", type_k="q8_0")
    with (
        ExactPlanner(DEFAULT_BACKEND) as planner,
        pytest.raises(EngineError, match="does not divide n_embd_head_k=80"),
    ):
        planner.plan(path, config)


@pytest.mark.skipif(os.name != "posix", reason="signals of a terminal are POSIX")
def test_ctrl_c_leaves_no_orphan(smollm2_path: Path) -> None:
    """Stopped while the engine computes: exit 130, silence, and the child is gone."""
    process = subprocess.Popen(
        [sys.executable, "-m", "autotune", "quality", str(smollm2_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    child = _computing_child(psutil.Process(process.pid))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)

    assert process.returncode == 130
    assert "Traceback" not in err
    _, alive = psutil.wait_procs([child], timeout=5)
    assert alive == []


def _computing_child(parent: psutil.Process) -> psutil.Process:
    """The worker, once it has the model in memory."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for child in parent.children():
            if any(mapped.path.endswith(".gguf") for mapped in child.memory_maps()):
                return child
        time.sleep(0.05)
    raise AssertionError("no child has loaded the model")
