"""The server's own troubles: ports that are taken, settings of others, caches that slide."""

from __future__ import annotations

import _thread
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import psutil
import pytest

from autotune.backends.llama_server import LlamaServerBackend, ServerSession, free_port
from autotune.backends.llamafile import LlamafileBackend, with_own_program
from autotune.backends.protocol import EngineError
from autotune.domain.config import Config
from autotune.domain.machine import GPUFacts
from autotune.domain.run import Reason
from autotune.domain.workload import Workload
from tests.backends.programs import environ_with, find_server, write_llamafile
from tests.factories import make_machine

SMALL = Config(n_ctx=512, n_batch=128, n_ubatch=128)
SHORT = Workload(n_prompt=8, n_gen=3)


def make_backend(
    *, choose_port: Callable[[], int] = free_port, pids: list[int] | None = None, **settings: object
) -> LlamaServerBackend:
    """A backend on the real server."""
    return LlamaServerBackend(
        environ_with(AUTOTUNE_LLAMA_SERVER=find_server(), **settings),
        announce=(pids if pids is not None else []).append,
        choose_port=choose_port,
    )


@contextmanager
def loaded(backend: LlamaServerBackend, path: Path, config: Config) -> Iterator[ServerSession]:
    """A session that is closed whatever happens."""
    session = backend.load(path, config)
    try:
        yield session
    finally:
        session.close()


class Stranger(BaseHTTPRequestHandler):
    """Another server, which is well and has a model of its own."""

    def do_GET(self) -> None:
        body = json.dumps({"status": "ok", "data": [{"id": "theirs", "meta": {"n_vocab": 3}}]})
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_port_that_was_just_taken_is_left_to_its_owner(smollm2_path: Path) -> None:
    """A listener that says nothing, then a server that seems healthy: the third port is used."""
    pids: list[int] = []
    stranger = ThreadingHTTPServer(("127.0.0.1", 0), Stranger)
    Thread(target=stranger.serve_forever, daemon=True).start()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ports = iter([silent.getsockname()[1], stranger.server_address[1], free_port()])
        backend = make_backend(choose_port=lambda: next(ports), pids=pids)
        with loaded(backend, smollm2_path, SMALL) as session:
            assert len(session.sample(SHORT, seed=1).token_ns) == 3
    stranger.shutdown()
    stranger.server_close()

    assert len(set(pids)) == 3
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_ports_run_out_at_last(smollm2_path: Path) -> None:
    """An error with its reason, and no process."""
    pids: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        backend = make_backend(choose_port=lambda: int(silent.getsockname()[1]), pids=pids)
        with pytest.raises(EngineError, match="no free port") as caught:
            backend.load(smollm2_path, SMALL)

    assert caught.value.reason is Reason.LOAD_ERROR
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_load_that_is_interrupted_leaves_no_server(smollm2_path: Path) -> None:
    """Ctrl-C while it starts."""
    pids: list[int] = []

    def announce(pid: int) -> None:
        pids.append(pid)
        _thread.interrupt_main()

    backend = LlamaServerBackend(
        environ_with(AUTOTUNE_LLAMA_SERVER=find_server()), announce=announce
    )
    with pytest.raises(KeyboardInterrupt):
        backend.load(smollm2_path, SMALL)

    assert len(pids) == 1
    assert not psutil.pid_exists(pids[0])


def test_settings_of_the_environment_change_nothing(smollm2_path: Path) -> None:
    """A key would shut us out, a proxy is not asked, a model of their own would be loaded."""
    backend = make_backend(
        LLAMA_API_KEY="secret", LLAMA_ARG_MODEL_DRAFT="/nonexistent", LLAMA_ARG_N_PREDICT=1,
        http_proxy="http://127.0.0.1:9", HTTP_PROXY="http://127.0.0.1:9",
    )  # fmt: skip
    with loaded(backend, smollm2_path, SMALL) as session:
        assert len(session.sample(SHORT, seed=1).token_ns) == 3


@pytest.mark.parametrize("n_depth", [300, 700])
def test_depth_is_exact_behind_a_sliding_window(gemma3_path: Path, n_depth: int) -> None:
    """Less deep than the window and deeper: the server goes back to a copy, or need not."""
    config = Config(n_ctx=1024, n_batch=256, n_ubatch=256, swa_full=False)
    with loaded(make_backend(), gemma3_path, config) as session:
        for seed in (1, 2):
            sample = session.sample(Workload(n_prompt=12, n_gen=2, n_depth=n_depth), seed=seed)
            assert len(sample.token_ns) == 2


@pytest.mark.skipif(os.name != "posix", reason="signals are the system's")
def test_a_server_that_dies_is_a_crash_with_its_signal(smollm2_path: Path) -> None:
    """In the middle of a request and before the next."""
    pids: list[int] = []
    backend = make_backend(pids=pids)
    with loaded(backend, smollm2_path, SMALL) as session:
        killer = Thread(target=lambda: os.kill(pids[0], signal.SIGKILL))
        killer.start()
        with pytest.raises(EngineError, match="killed by SIGKILL") as caught:
            session.sample(Workload(n_prompt=200, n_gen=200), seed=1)
        killer.join()
        assert caught.value.reason is Reason.CRASH
        with pytest.raises(EngineError, match="killed by SIGKILL"):
            session.sample(SHORT, seed=1)


def test_a_newcomer_gets_the_servers_defaults() -> None:
    """Physical cores, automatic flash attention, and every layer on a GPU that can be used."""
    default = make_backend().default_config(n_ctx=4096, machine=make_machine(n_physical=1))
    gpu = make_machine(gpus=(GPUFacts(name="H100", device="CUDA0"),))

    assert (default.n_threads, default.n_threads_batch) == (1, 1)
    assert (default.n_batch, default.n_ubatch) == (2048, 512)
    assert (default.flash_attn, default.swa_full, default.n_gpu_layers) == ("auto", False, 0)
    assert make_backend().default_config(n_ctx=512, machine=gpu).n_gpu_layers == -1


def test_a_real_server_has_the_newcomers_defaults() -> None:
    """What its own help says of them, so that another build is noticed here."""
    text = make_backend().installed().help

    for option, default in (
        ("--batch-size N", "2048"),
        ("--ubatch-size N", "512"),
        ("--flash-attn [on|off|auto]", "'auto'"),
        ("--swa-full", "false"),
        ("--n-gpu-layers N", "auto"),
    ):
        described = text[text.index(option) :][:400]
        assert f"default: {default}" in " ".join(described.split())


def test_a_model_that_is_a_llamafile_is_its_own_program(smollm2_path: Path, tmp_path: Path) -> None:
    """No other program is needed; its vocabulary is told by the server."""
    model = write_llamafile(tmp_path / "SmolLM2.llamafile", model=smollm2_path)
    environ = environ_with(AUTOTUNE_LLAMAFILE=tmp_path / "nothing")
    with pytest.raises(ImportError, match="AUTOTUNE_LLAMAFILE=FILE"):
        LlamafileBackend(with_own_program(environ, smollm2_path)).build()
    backend = LlamafileBackend(with_own_program(environ, model))
    assert backend.build().version.endswith("0.9.3")
    with loaded(backend, model, SMALL) as session:
        assert len(session.sample(SHORT, seed=1).token_ns) == 3
