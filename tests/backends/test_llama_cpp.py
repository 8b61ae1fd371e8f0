"""The llama.cpp library: what its backend says of it. The rest is in the contract of all."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import llama_cpp
import pytest

from autotune.backends.llama_cpp import LlamaCppBackend
from autotune.backends.protocol import EngineError
from autotune.domain.config import Config
from autotune.domain.run import Reason
from autotune.domain.workload import Workload
from tests.factories import make_machine


@pytest.fixture(scope="module")
def backend() -> LlamaCppBackend:
    """The library, initialised once."""
    return LlamaCppBackend()


def test_the_build_says_who_it_is(backend: LlamaCppBackend) -> None:
    """Version, revision and devices come from the library itself."""
    build = backend.build()

    assert build.version == llama_cpp.__version__
    assert build.commit
    assert "CPU" in build.devices


def test_the_newcomers_default_is_the_librarys(backend: LlamaCppBackend) -> None:
    """Our idea of Llama(model_path, n_ctx=…) is held against the library's signature."""
    default = backend.default_config(n_ctx=2048, machine=make_machine(n_logical=2))
    parameters = inspect.signature(llama_cpp.Llama.__init__).parameters

    for name in ("n_batch", "n_ubatch", "use_mmap", "use_mlock", "offload_kqv", "n_gpu_layers"):
        assert getattr(default, name) == parameters[name].default
    assert parameters["flash_attn"].default is (default.flash_attn != "off")
    assert parameters["n_threads"].default is None


def test_the_newcomers_default_is_what_a_real_llama_gets(
    backend: LlamaCppBackend, smollm2_path: Path
) -> None:
    """A Llama made with nothing but a context has our default's threads and batches."""
    import os

    llama = llama_cpp.Llama(str(smollm2_path), n_ctx=1024, verbose=False)
    default = backend.default_config(n_ctx=1024, machine=make_machine(n_logical=os.cpu_count()))
    params = llama.context_params
    swa_full, llama_threads = params.swa_full, (params.n_threads, params.n_threads_batch)
    batches = (params.n_batch, params.n_ubatch)
    llama.close()

    assert llama_threads == (default.n_threads, default.n_threads_batch)
    assert batches == (default.n_batch, default.n_ubatch)
    assert swa_full == default.swa_full


def test_the_log_outlives_the_backend(smollm2_path: Path) -> None:
    """llama.cpp goes on calling whoever listened last, also when that backend is gone."""
    code = f"""
import gc, llama_cpp
from autotune.backends.engine_log import EngineLog
from autotune.backends.llama_cpp import LlamaCppBackend
backend = LlamaCppBackend()
backend.build()
del backend
gc.collect()
assert EngineLog._installed is not None
llama_cpp.Llama({str(smollm2_path)!r}, n_ctx=64, vocab_only=True).close()
print("alive")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "alive"
    assert "ctypes callback" not in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are text")
def test_a_file_whose_name_is_no_text_is_loaded(
    backend: LlamaCppBackend, smollm2_path: Path, tmp_path: Path
) -> None:
    """Linux takes any bytes for a name; the library gets them as they are."""
    path = tmp_path / os.fsdecode(b"caf\xe9.gguf")
    path.symlink_to(smollm2_path)
    config = Config(n_ctx=256, n_batch=64, n_ubatch=64)

    backend.load(path, config).close()
    assert backend.plan(path, config).total_bytes() > 0


def test_a_request_that_outgrows_its_share_of_the_context_is_refused(
    backend: LlamaCppBackend, smollm2_path: Path
) -> None:
    """Of two sequences each has half: as with the server a constraint, no crash of the engine."""
    session = backend.load(smollm2_path, Config(n_ctx=512, n_batch=64, n_ubatch=64, n_parallel=2))
    try:
        with pytest.raises(EngineError, match="does not fit into n_ctx=256") as caught:
            session.sample(Workload(n_prompt=250, n_gen=7), seed=1)
        assert len(session.sample(Workload(n_prompt=250, n_gen=6), seed=1).token_ns) == 6
    finally:
        session.close()

    assert caught.value.reason is Reason.CONSTRAINT
