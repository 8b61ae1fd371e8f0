"""llama.cpp's own ``llama-bench`` as a runner: the measure that others know, and our yardstick.

One invocation for each phase of a request. Decode follows the prompt, as in our own procedure, so
it is asked for at depth ``n_depth + n_prompt``. llama-bench neither tells load times nor the time
of single tokens, has one thread count for each invocation (ours has two: one for each phase),
sizes the context by the test, and never keeps full-size sliding-window caches.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from autotune.backends.llama_log import read_reason
from autotune.backends.llama_params import LOAD_MODE_WORDS
from autotune.backends.protocol import EngineError
from autotune.domain.config import Config
from autotune.domain.errors import UserError
from autotune.domain.machine import Build
from autotune.domain.run import Generation, Reason, Run, Trial
from autotune.domain.units import human_seconds
from autotune.measure.observe import MemoryObserver
from autotune.measure.process import POLL_S, kill_group

NAME = "llama-bench"


def find_llama_bench(setting: str | None, environ: Mapping[str, str]) -> Path:
    """The program to use: the setting, else ``AUTOTUNE_LLAMA_BENCH``, else from ``PATH``.

    Raises UserError where there is none.
    """
    wanted = setting or environ.get("AUTOTUNE_LLAMA_BENCH") or NAME
    found = shutil.which(wanted, path=environ.get("PATH"))
    if found is None:
        raise UserError(
            f"there is no program {wanted}: build llama.cpp's llama-bench and put it on PATH, or "
            "name it with --llama-bench FILE"
        )
    return Path(found)


class LlamaBenchRunner:
    """Trials by llama-bench, in the same records as our own."""

    backend = NAME

    def __init__(
        self,
        program: Path,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._program, self._now, self._clock = program, now, clock

    def run(self, trial: Trial, *, notify: Callable[[str], None] = lambda _what: None) -> Run:
        """Both phases of the request, ``n_reps`` repetitions each."""
        started_at, started = self._now(), self._clock()
        call = _Call(self._program, trial, self._clock)
        facts: dict[str, Any] = {}
        try:
            notify("prefill")
            prefill = call.measure(*prefill_test(trial)) if trial.workload.n_prompt else []
            notify("decode")
            decode = call.measure(*decode_test(trial)) if trial.workload.n_gen else []
            facts["generations"] = tuple(_generations(trial, prefill, decode))
        except EngineError as error:
            facts |= {"reason": error.reason, "message": str(error), "log_excerpt": call.log}
        return Run(
            trial=trial,
            backend=self.backend,
            build=call.build,
            started_at=started_at,
            elapsed_s=self._clock() - started,
            peak_anon_bytes=call.peak("peak_anon_bytes"),
            peak_file_bytes=call.peak("peak_file_bytes"),
            peak_rss_bytes=call.peak("peak_bytes"),
            **facts,
        )


class _Call:
    """The invocations of one trial: one deadline, one highest memory."""

    def __init__(self, program: Path, trial: Trial, clock: Callable[[], float]) -> None:
        self._program, self._trial, self._clock = program, trial, clock
        self._deadline = clock() + trial.timeout_s
        self._memory: list[MemoryObserver] = []
        self.build: Build | None = None
        self.log = ""

    def measure(self, test: Sequence[str], n_threads: int) -> list[int]:
        """Nanoseconds of each repetition of one test. Raises EngineError."""
        command = [
            str(self._program), *arguments(self._trial.model_path, self._trial.config),
            "-t", str(n_threads), "-r", str(self._trial.n_reps), "-o", "json", *test,
        ]  # fmt: skip
        row = _read(self._execute(command))
        self.build = _build(row)
        return list(row["samples_ns"])

    def _execute(self, command: Sequence[str]) -> str:
        """Standard output of a successful call; the process group is gone afterwards."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as log:
            process = subprocess.Popen(
                command, stdout=out, stderr=log, start_new_session=os.name == "posix"
            )
            try:
                self._wait(process)
            finally:
                kill_group(process)
                self.log = _tail(log)
            if process.returncode != 0:
                raise EngineError(_reason(self.log), self.log.strip() or "llama-bench failed")
            out.seek(0)
            return out.read()

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        memory = MemoryObserver(process.pid)
        self._memory.append(memory)
        limit = self._trial.memory_limit_bytes
        while process.poll() is None:
            memory.poll()
            if limit is not None and (memory.resident_bytes or 0) > limit:
                raise EngineError(Reason.OOM, "stopped at the memory limit")
            if self._clock() > self._deadline:
                limit_s = human_seconds(self._trial.timeout_s)
                raise EngineError(Reason.TIMEOUT, f"no answer within {limit_s}")
            time.sleep(POLL_S)

    def peak(self, name: str) -> int | None:
        """Highest figure of a kind over the invocations."""
        peaks = [getattr(memory, name) for memory in self._memory]
        return max((peak for peak in peaks if peak is not None), default=None)


def arguments(model: Path, config: Config) -> list[str]:
    """llama-bench's options for a configuration, threads and test left out."""
    words = [
        "-m", str(model), "-b", str(config.n_batch), "-ub", str(config.n_ubatch),
        "-fa", config.flash_attn, "-ctk", config.type_k, "-ctv", config.type_v,
        "-ngl", str(config.n_gpu_layers),
    ]  # fmt: skip
    load_mode = LOAD_MODE_WORDS[config.use_mmap, config.use_mlock]
    if load_mode != "mmap":  # the default of every version, also of those without the option
        words += ["-lm", load_mode]
    if config.n_gpu_layers:
        words += ["-sm", config.split_mode, "-mg", str(config.main_gpu)]
        words += ["-nkvo", str(int(not config.offload_kqv))]
        words += ["-nopo", str(int(not config.op_offload))]
    if config.tensor_split:
        words += ["-ts", "/".join(f"{share:g}" for share in config.tensor_split)]
    return words


def prefill_test(trial: Trial) -> tuple[list[str], int]:
    """(test options, threads) of the prompt."""
    workload = trial.workload
    test = ["-p", str(workload.n_prompt), "-n", "0", "-d", str(workload.n_depth)]
    return test, trial.config.n_threads_batch


def decode_test(trial: Trial) -> tuple[list[str], int]:
    """(test options, threads) of the generated tokens, behind the prompt."""
    workload = trial.workload
    depth = workload.n_depth + workload.n_prompt
    return ["-p", "0", "-n", str(workload.n_gen), "-d", str(depth)], trial.config.n_threads


def _generations(
    trial: Trial, prefill: Sequence[int], decode: Sequence[int]
) -> Sequence[Generation]:
    """The i-th prompt and the i-th decode as one request; they were not measured together."""
    return [
        Generation(
            workload=trial.workload,
            repetition=index,
            prefill_ns=prefill[index] if prefill else None,
            decode_ns=decode[index] if decode else None,
        )
        for index in range(trial.n_reps)
    ]


def _read(output: str) -> dict[str, Any]:
    """The one result of a call."""
    try:
        (row,) = json.loads(output)
    except ValueError:
        raise EngineError(Reason.CRASH, "llama-bench printed no result") from None
    return dict(row)


def _build(row: Mapping[str, Any]) -> Build:
    return Build(
        backend=NAME,
        version=f"b{row['build_number']}",
        commit=row["build_commit"],
        devices=tuple(row["backends"].split(",")),
    )


def _reason(log: str) -> Reason:
    return read_reason([log], otherwise=Reason.LOAD_ERROR)


def _tail(stream: IO[str]) -> str:
    """The last lines of what a call said."""
    stream.seek(0)
    return " ".join(stream.read()[-2000:].splitlines()[-3:])
