"""An engine of 2023 at the command line: measured where it can be, one clear line where not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.backends.old_models import write_old_model
from tests.cli.test_commands import Shell, shell

__all__ = ["shell"]

pytest.importorskip("ctransformers", reason="not installed: pip install -e '.[test]'")


def test_a_file_of_2023_is_measured(shell: Shell, tmp_path: Path) -> None:
    """The newcomer's batch, a stored run, and a row in the doctor's list.

    One thread: those of 2023 spin while they wait, for seconds where somebody else computes.
    """
    path = write_old_model(tmp_path / "tiny.gguf", type_name="Q4_0")
    document = shell.json(
        "bench", path, "--backend", "ctransformers", "--workload", "pp32+tg4", "--set", "n_ctx=512",
        "--set", "n_threads=1", "--set", "n_threads_batch=1",
    )  # fmt: skip

    assert (document["backend"], document["config"]["n_batch"]) == ("ctransformers", 8)
    assert document["measured"]["decode_tps"]["median"] > 0
    (stored,) = shell.json("runs", path)
    assert shell.json("show", stored["run_id"])["backend"] == "ctransformers"
    found = shell.json("doctor")["backends"]["ctransformers"]
    assert (found["version"], found["devices"]) == ("0.2.27", ["CPU"])


def test_a_model_of_today_is_refused_in_one_line(shell: Shell, smollm2_path: Path) -> None:
    """Stored as unsupported, with the reason; exit status 1."""
    status, out, err = shell.run("bench", smollm2_path, "--backend", "ctransformers")

    assert (status, out) == (1, "")
    assert err.splitlines()[-1] == (
        "autotune: run 1 failed (unsupported): ctransformers of 2023 cannot load "
        f"{smollm2_path.name}: its vocabulary has no scores, which files of 2023 had"
    )
    (stored,) = shell.json("runs", smollm2_path)
    assert (stored["state"], stored["reason"]) == ("failed", "unsupported")
