"""The dry run's log, read into a plan: of the real engine, and of recorded GPUs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autotune.backends.llama_cpp import LlamaCppBackend
from autotune.backends.llama_dry_run import DryRun
from autotune.backends.protocol import EngineError, Plans
from autotune.domain.config import Config
from autotune.domain.run import Reason
from autotune.domain.units import MIB
from autotune.facts.gguf import read_model

CONFIG = Config(n_ctx=512, n_batch=128, n_ubatch=128)


@pytest.mark.parametrize("flash_attn", ["off", "auto"])
def test_what_was_planned_is_what_gets_allocated(smollm2_path: Path, flash_attn: str) -> None:
    """The plan against the buffers of a real load, component by component."""
    backend = LlamaCppBackend()
    config = CONFIG.replace(flash_attn=flash_attn)
    plan = backend.plan(smollm2_path, config)
    session = backend.load(smollm2_path, config)
    report = session.report()
    session.close()

    for component in ("kv", "compute", "output"):
        allocated = report.total_bytes(component)
        assert plan.total_bytes(component=component) == pytest.approx(allocated, abs=0.01 * MIB)
    weights = plan.total_bytes(component="weights")
    assert weights == pytest.approx(report.total_bytes("model"), rel=1e-3)


def test_the_backend_plans() -> None:
    """What the worker asks before it hands on the question."""
    assert isinstance(LlamaCppBackend(), Plans)


# Twenty layers on the processor, ten and the output layer on a GPU: the lines of a CUDA build.
LOADED = "".join(
    f"load_tensors: layer {i:3d} assigned to device {'CPU' if i < 20 else 'CUDA0'}, is_swa = 0\n"
    for i in range(31)
)
CREATED = (
    "llama_context:  CUDA_Host  output buffer size =     0.19 MiB\n"
    + "".join(
        f"llama_kv_cache: layer {i:3d}: dev = {'CPU' if i < 20 else 'CUDA0'}\n" for i in range(30)
    )
    + "llama_kv_cache:        CPU KV buffer size =     0.00 MiB\n"
    "llama_kv_cache:      CUDA0 KV buffer size =     0.00 MiB\n"
    "llama_kv_cache: size =   11.25 MiB (   512 cells,  30 layers,  1/1 seqs), "
    "K (f16):    5.62 MiB, V (f16):    5.62 MiB\n"
    "sched_reserve:      CUDA0 compute buffer size =   120.50 MiB\n"
    "sched_reserve:  CUDA_Host compute buffer size =     2.25 MiB\n"
)


class RecordedLog:
    """A log that was written elsewhere."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def clear(self) -> None:
        """As the real one."""
        self.lines.clear()


def recorded_library(log: RecordedLog, *, loaded: str = LOADED, created: str = CREATED) -> Any:
    """A llama.cpp that does nothing but say what a real one said."""

    def say(text: str) -> int:
        log.lines += text.splitlines(keepends=True)
        return 1

    return SimpleNamespace(
        llama_model_default_params=SimpleNamespace,
        llama_context_default_params=SimpleNamespace,
        llama_model_load_from_file=lambda _path, _params: say(loaded),
        llama_init_from_model=lambda _model, _params: say(created),
        llama_free=lambda _context: None,
        llama_model_free=lambda _model: None,
    )


def plan_by_device(path: Path, **recording: str) -> dict[tuple[str, str], int]:
    """Bytes by component and device of a recorded dry run."""
    log = RecordedLog()
    dry_run = DryRun(recorded_library(log, **recording), log, path, CONFIG)  # type: ignore[arg-type]
    return {(e.component, e.device): e.n_bytes for e in dry_run.plan(CONFIG).entries}


def test_a_gpu_gets_what_the_log_gives_it(smollm2_path: Path) -> None:
    """Layers and caches by layer, the tied embedding twice; pinned buffers are the host's."""
    sizes = plan_by_device(smollm2_path)
    model = read_model(smollm2_path)
    of_layers = sum(model.layer_bytes[20:])
    embedding = sum(t.n_bytes for t in model.tensors if t.group == "embedding")

    assert sizes["weights", "CUDA0"] == pytest.approx(of_layers + embedding, rel=1e-3)
    assert sizes["weights", "CPU"] == model.weight_bytes - (sizes["weights", "CUDA0"] - embedding)
    assert sizes["kv", "CUDA0"] == 512 * 10 * 768
    assert sizes["kv", "CPU"] == 512 * 20 * 768
    assert sizes["compute", "CUDA0"] == round(120.5 * MIB)
    assert sizes["compute", "CPU"] == round(2.25 * MIB)
    assert sizes["output", "CPU"] == round(0.19 * MIB)
    assert ("repack", "CPU") not in sizes


def test_the_printed_size_of_a_cache_wins(smollm2_path: Path) -> None:
    """Where the header disagrees it only weighs the layers: two thirds and one third of 30 MiB."""
    sizes = plan_by_device(
        smollm2_path, created=CREATED.replace("size =   11.25", "size =   30.00")
    )

    assert sizes["kv", "CPU"] == 20 * MIB
    assert sizes["kv", "CUDA0"] == 10 * MIB


@pytest.mark.parametrize(
    "silence",
    [{"loaded": ""}, {"created": CREATED.replace(": dev =", ": on")}],
    ids=["layers", "caches"],
)
def test_a_log_that_leaves_out_devices_is_not_guessed(
    smollm2_path: Path, silence: dict[str, str]
) -> None:
    """Another llama.cpp may log otherwise: then there is no exact plan."""
    with pytest.raises(EngineError, match="does not say where") as caught:
        plan_by_device(smollm2_path, **silence)
    assert caught.value.reason is Reason.UNSUPPORTED
