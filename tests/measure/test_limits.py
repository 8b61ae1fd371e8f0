"""Real limits of the system: a quota of processor time, a limit of memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from autotune.domain.config import Config
from autotune.domain.run import Reason, Trial
from autotune.domain.units import MIB
from autotune.domain.workload import Workload
from autotune.facts.activity import count_oom_kills
from autotune.measure.runner import LocalRunner
from tests.measure.cgroups import cgroup

_ENTER = """\
import os, pathlib, sys
pathlib.Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
"""


def inside(group: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process that has entered a control group."""
    command = [sys.executable, "-c", _ENTER + code, str(group), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_with_a_quota_of_one_processor_one_thread_is_recommended(smollm2_path: Path) -> None:
    """Two processors are there, time for one is granted: more threads would wait for each other."""
    code = (
        "from autotune.cli.main import main\n"
        "sys.argv = ['autotune', 'recommend', sys.argv[2], '--json']; main()\n"
    )
    with cgroup("cpu", cfs_period_us=100_000, cfs_quota_us=100_000) as group:
        done = inside(group, code, str(smollm2_path))
    assert done.returncode == 0, done.stderr
    config = json.loads(done.stdout)["config"]

    assert (config["n_threads"], config["n_threads_batch"]) == (1, 1)


def test_a_kernel_oom_kill_is_out_of_memory(smollm2_path: Path) -> None:
    """The kernel kills the child at the group's limit; the counter is the evidence."""
    trial = Trial(
        model_path=smollm2_path,
        config=Config(n_ctx=2048, use_mmap=False),
        workload=Workload(n_prompt=64, n_gen=4),
    )

    with cgroup("memory", limit_in_bytes=120 * MIB) as group:

        def enter(what: str) -> None:
            if what == "loading":
                import psutil

                (child,) = psutil.Process().children()
                (group / "cgroup.procs").write_text(str(child.pid))

        run = LocalRunner("llama-cpp-python").run(trial, notify=enter)

    assert run.reason is Reason.OOM, run.message
    assert "out of memory" in run.message


def test_a_system_that_counts_no_kills_counts_zero(tmp_path: Path) -> None:
    """No /proc, no evidence."""
    assert count_oom_kills(tmp_path) == 0
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/vmstat").write_text("pgfault 12\noom_kill 3\n")
    assert count_oom_kills(tmp_path) == 3
