"""Exports in the hands of the real programs, which are asked what they understood."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from autotune.domain.config import FLASH_ATTN, KV_BYTES_PER_ELEMENT, SPLIT_MODES, Config
from autotune.domain.prediction import Target
from autotune.domain.stored import StoredRecommendation
from autotune.facts.gguf import read_model
from autotune.measure.process import kill_group
from autotune.recommend.export.llama_cpp_python import python_line
from autotune.recommend.export.llama_server import server_environment, server_line
from autotune.recommend.export.program import Program, export
from tests.factories import STARTED_AT, make_trial

UNUSUAL = Config(
    n_ctx=1024, n_batch=256, n_ubatch=64, n_threads=1, n_threads_batch=2, flash_attn="on",
    type_k="q8_0", type_v="q4_0", use_mmap=False, offload_kqv=False, op_offload=False,
    split_mode="none", swa_full=False,
)  # fmt: skip
"""As few defaults of anything as a machine without a GPU can load."""
PARAMETERS = {
    "model": ("n_gpu_layers", "split_mode", "main_gpu", "load_mode"),
    "context": ("n_ctx", "n_batch", "n_ubatch", "n_threads", "n_threads_batch", "type_k", "type_v",
                "flash_attn_type", "offload_kqv", "op_offload", "swa_full"),
}  # fmt: skip
ASK = f"""
import json, sys
from autotune.backends import llama_params
from autotune.domain.config import Config
config = Config.from_dict(json.loads(sys.argv[1]))
measured = {{"model": llama_params.model_params(llama_cpp, config),
            "context": llama_params.context_params(llama_cpp, config)}}
loaded = {{"model": llm.model_params, "context": llm.context_params}}
values = [{{f"{{part}}.{{name}}": getattr(of[part], name)
           for part, names in {PARAMETERS!r}.items() for name in names}}
          for of in (measured, loaded)]
text = llm("One, two,", max_tokens=2, temperature=0)["choices"][0]["text"]
json.dump({{"values": values, "text": text, "n_ctx": llm.n_ctx(), "path": llm.model_path}},
          sys.stdout)
llm.close()
"""
"""What our own engine sets, beside what the exported code set; and a proof that it generates."""


def advise(config: Config) -> StoredRecommendation:
    """A winner."""
    return StoredRecommendation(
        recommendation_id=1, study_id=1, backend="llama-cpp-python", config=config,
        target=Target.SPEED, workload=make_trial().workload, confidence=0.9, reasons=(),
        speedup=1.2, made_at=STARTED_AT,
    )  # fmt: skip


@pytest.fixture
def nastily(tmp_path: Path) -> Callable[[Path], Path]:
    """Gives a model a second name that every language would misread unquoted."""

    def link(model: Path) -> Path:
        path = tmp_path / 'it\'s "$HOME"\n# ünï.gguf'
        path.symlink_to(model)
        return path

    return link


def snippet(path: Path, config: Config) -> str:
    """The exported code."""
    return export(Program.LLAMA_CPP_PYTHON, advise(config), path=path, model=read_model(path))


def line(path: Path, config: Config) -> str:
    """The line that ``tune`` prints, which leaves out what Llama does by itself."""
    return f"import llama_cpp\nllm = {python_line(path, config)}\n"


@pytest.mark.parametrize("code", [snippet, line], ids=lambda code: code.__name__)
@pytest.mark.parametrize(
    "config", [UNUSUAL, Config(n_ctx=512), Config(n_ctx=512, type_k="bf16", type_v="bf16")],
    ids=["unusual", "plain", "bf16"],
)  # fmt: skip
def test_python_loads_what_was_measured(
    code: Callable[[Path, Config], str],
    config: Config,
    nastily: Callable[[Path], Path],
    smollm2_path: Path,
) -> None:
    """Run for real: every engine parameter is the one that our own runs set, and it generates."""
    path = nastily(smollm2_path)
    done = subprocess.run(
        [sys.executable, "-c", code(path, config) + ASK, json.dumps(config.as_dict())],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout)
    measured, loaded = answer["values"]

    assert loaded == measured
    assert answer["path"] == str(path)
    assert answer["n_ctx"] == config.n_ctx
    assert answer["text"]


def server_program() -> Path:
    """llama.cpp's own server."""
    program = shutil.which("llama-server") or shutil.which(".native/bin/llama-server")
    if program is None:
        pytest.skip("llama-server is not here: make native builds it")
    return Path(program).absolute()


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A llama-server that a shell started."""

    def __init__(self, port: int, log: Path, process: subprocess.Popen[bytes]) -> None:
        self._port, self._log, self._process = port, log, process

    def ask(self, path: str) -> Any:
        """The JSON answer of an endpoint, once the model is loaded."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}") as answer:
                    return json.load(answer)
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.05)
        raise AssertionError(f"no answer: {self.log[-2000:]}")

    @property
    def log(self) -> str:
        """All that the server has said."""
        return self._log.read_text(errors="replace")


@contextmanager
def started(script: str, folder: Path, *words: object) -> Iterator[Server]:
    """The server that a shell script starts; ``$OURS`` in it is replaced by where it listens."""
    port, log = free_port(), folder / "server.log"
    # -lv 4 tells the engine's parameters.
    ours = f"--host 127.0.0.1 --port {port} --no-warmup -lv 4"
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith("LLAMA_ARG_")
    }
    environ["PATH"] = f"{server_program().parent}{os.pathsep}{environ['PATH']}"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            ["sh", "-c", script.replace("$OURS", ours), *map(str, words)],
            env=environ, stdout=stream, stderr=stream, start_new_session=True,
        )  # fmt: skip
    try:
        yield Server(port, log, process)
    finally:
        kill_group(process)


def by_command(path: Path, config: Config, folder: Path) -> tuple[object, ...]:
    """(script, words) of the exported command line."""
    text = export(Program.LLAMA_SERVER, advise(config), path=path, model=read_model(path))
    return (f"{text.rstrip()} $OURS",)


def by_environment(path: Path, config: Config, folder: Path) -> tuple[object, ...]:
    """(script, words) of the exported file of variables, and of the flags that it asks for."""
    text = server_environment(path, config, slides=read_model(path).slides)
    flags = re.findall(r"has no variable: add (.+)", text)
    assert len(flags) == 2
    file = folder / "tuned.env"
    file.write_text(text)
    return (f'set -a; . "$0"; set +a; llama-server {" ".join(flags)} $OURS', file)


@pytest.mark.skipif(os.name != "posix", reason="the export is for a POSIX shell")
@pytest.mark.parametrize("by", [by_command, by_environment], ids=lambda by: by.__name__)
@pytest.mark.parametrize("swa_full", [True, False])
def test_llama_server_runs_what_was_exported(
    by: Callable[[Path, Config, Path], tuple[Any, ...]],
    swa_full: bool,
    nastily: Callable[[Path], Path],
    gemma3_path: Path,
    tmp_path: Path,
) -> None:
    """Started by a shell: its answers and its log name every knob that a CPU build has."""
    path = nastily(gemma3_path)
    config = UNUSUAL.replace(n_ctx=4096, n_parallel=2, swa_full=swa_full)
    script, *words = by(path, config, tmp_path)
    with started(script, tmp_path, *words) as server:
        props, slots = server.ask("/props"), server.ask("/slots")

    log = server.log
    assert props["model_path"] == str(path)
    assert props["total_slots"] == config.n_parallel
    assert [slot["n_ctx"] for slot in slots] == [2048, 2048]  # n_ctx over n_parallel
    assert said(log, "n_ctx") == "4096"
    assert said(log, "n_batch") == "256"
    assert said(log, "n_ubatch") == "64"
    assert said(log, "flash_attn") == "enabled"
    assert "n_threads = 1 (n_threads_batch = 2)" in log
    assert "(load_mode = none)" in log
    assert "K (q8_0)" in log
    assert "V (q4_0)" in log
    # Layers that slide: all cells, or the window of 512 and a batch of 64 in steps of 256.
    assert cells(log) == ({2048} if swa_full else {2048, 768})


@pytest.mark.parametrize(
    "config",
    [
        *(Config(type_k=name, type_v=name, flash_attn="on") for name in KV_BYTES_PER_ELEMENT),
        *(Config(split_mode=mode, main_gpu=1, n_gpu_layers=-1) for mode in SPLIT_MODES),
        *(Config(use_mmap=a, use_mlock=b) for a in (True, False) for b in (True, False)),
        *(Config(flash_attn=word, tensor_split=(3.0, 0.123456789)) for word in FLASH_ATTN),
    ],
    ids=lambda config: "-".join(config.differences(Config())) or "plain",
)
def test_llama_server_knows_every_word(config: Config) -> None:
    """Whatever a knob is: the server reads all flags and variables before it tells its version."""
    path = Path("tiny.gguf")
    _, *flags = shlex.split(server_line(path, config, slides=True))
    lines = shlex.split(server_environment(path, config, slides=True), comments=True)
    environ = dict(word.split("=", 1) for word in lines)

    for words, variables in ((flags, {}), ([], environ)):
        done = version_of(*words, **variables)
        assert done.returncode == 0, done.stderr
        assert "version:" in done.stdout + done.stderr


def test_llama_server_refuses_what_it_does_not_know() -> None:
    """A planted fault: flags that this revision has no more, and values that it never had."""
    assert "invalid argument: --no-mmap" in version_of("--no-mmap").stderr
    assert version_of("-lm", "mapped").returncode != 0
    assert "LLAMA_ARG_CACHE_TYPE_K" in version_of(LLAMA_ARG_CACHE_TYPE_K="q9_9").stderr


def version_of(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """What the server answers to words and variables followed by ``--version``."""
    return subprocess.run(
        [str(server_program()), *words, "--version"],
        env=variables, capture_output=True, text=True, check=False,
    )  # fmt: skip


def said(log: str, name: str) -> str | None:
    """What the engine's last context said of itself."""
    return (re.findall(rf"llama_context: {name} += (\S+)", log) or [None])[-1]


def cells(log: str) -> set[int]:
    """Sizes of the caches."""
    return {int(n) for n in re.findall(r"llama_kv_cache: size = .*\( *(\d+) cells", log)}
