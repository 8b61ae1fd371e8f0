"""Exact plans from a warm child: right, quick, and robust against its death."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from autotune.backends.protocol import EngineError
from autotune.domain.config import Config
from autotune.domain.plan import MemoryPlan
from autotune.domain.run import Reason
from autotune.domain.units import MIB
from autotune.facts.gguf import read_model
from autotune.facts.plan import MemoryPlanner
from autotune.measure import planner as planner_module
from autotune.measure.planner import ExactPlanner
from autotune.measure.worker import Worker
from tests.engine_isa import engine_repacks
from tests.facts.shapes import deepseek, jamba

BACKEND = "llama-cpp-python"
CHANGES = (
    *({"n_ctx": n_ctx} for n_ctx in (512, 1000, 4096, 8192)),
    *({"n_ubatch": n_ubatch} for n_ubatch in (16, 64, 256)),
    *({"flash_attn": flash_attn} for flash_attn in ("on", "auto")),
    {"flash_attn": "on", "type_k": "q8_0", "type_v": "q8_0"},
    {"flash_attn": "on", "type_k": "q5_1", "type_v": "iq4_nl"},
    {"type_k": "q4_0"},
    {"flash_attn": "on", "type_k": "f32", "type_v": "bf16"},
    {"swa_full": False},
    {"swa_full": False, "n_ctx": 8192, "n_ubatch": 128},
    {"n_parallel": 4},
    {"use_mmap": False},
)
CONFIGS = [Config().replace(**{"n_batch": 512, **change}) for change in CHANGES]
REFUSED = Config(n_parallel=300)
"""llama.cpp serves at most 256 sequences."""


@pytest.fixture(scope="module")
def planner() -> Iterator[ExactPlanner]:
    """One child for all tests, as a study would have it; it is gone in the end."""
    before = set(psutil.Process().children())
    with ExactPlanner(BACKEND) as planner:
        yield planner
    assert set(psutil.Process().children()) <= before


def analytic(path: Path, config: Config) -> MemoryPlan:
    """Our own formulas' plan of a real model in this build of the engine."""
    return MemoryPlanner(read_model(path), repacks=engine_repacks()).plan(config)


@pytest.mark.parametrize("model", ["smollm2_path", "gemma3_path"])
def test_the_engine_and_our_formulas_agree(
    planner: ExactPlanner, model: str, request: pytest.FixtureRequest
) -> None:
    """Weights, repacked copies and caches to the byte, everything together within 2 %."""
    path = request.getfixturevalue(model)
    for config, plan in zip(CONFIGS, planner.plan_many(path, CONFIGS), strict=True):
        assert isinstance(plan, MemoryPlan), (config, plan)
        ours = analytic(path, config)
        assert (plan.source, ours.source) == ("engine", "analytic")
        for component in ("weights", "repack", "kv"):
            sizes = [each.total_bytes(component=component) for each in (plan, ours)]
            assert sizes[0] == sizes[1], (component, config)
        assert plan.total_bytes() == pytest.approx(ours.total_bytes(), rel=0.02)


@pytest.mark.parametrize("write", [jamba, deepseek])
def test_states_and_compressed_caches_are_read_too(
    planner: ExactPlanner, tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    """A hybrid of attention and recurrence, and a latent cache without values."""
    path = write(tmp_path / "model.gguf")
    config = Config(n_ctx=2048, flash_attn="on")
    plan, ours = planner.plan(path, config), analytic(path, config)

    for component in ("kv", "recurrent"):
        expected = ours.total_bytes(component=component)
        assert plan.total_bytes(component=component) == pytest.approx(expected, abs=0.01 * MIB)
    assert plan.total_bytes(component="compute") > 0


def test_following_plans_are_quick(
    planner: ExactPlanner, smollm2_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The child keeps the metadata. Shown, not asserted: a busy machine proves nothing."""
    planner.plan(smollm2_path, Config())
    start = time.perf_counter()
    for n_ctx in range(512, 512 * 21, 512):
        planner.plan(smollm2_path, Config(n_ctx=n_ctx))
    with capsys.disabled():
        sys.stdout.write(f"\n{(time.perf_counter() - start) * 50:.1f} ms per exact plan\n")


def test_an_illegal_combination_is_refused_in_the_engines_words(
    planner: ExactPlanner, smollm2_path: Path
) -> None:
    """And the child lives on."""
    with pytest.raises(EngineError, match="n_seq_max must be <= 256") as caught:
        planner.plan(smollm2_path, REFUSED)
    assert caught.value.reason is Reason.CONSTRAINT

    no_gpu = Config(split_mode="tensor", n_gpu_layers=2)
    with pytest.raises(EngineError, match="needs >= 1 devices") as caught:
        planner.plan(smollm2_path, no_gpu)
    assert caught.value.reason is Reason.CONSTRAINT


def test_many_plans_come_in_the_order_of_the_question(
    planner: ExactPlanner, smollm2_path: Path
) -> None:
    """A refusal is an answer among others, whatever the order they were asked in."""
    configs = [Config(n_gpu_layers=1), REFUSED, Config(n_ctx=1024), Config(n_ctx=2048)]
    first, refused, *others = planner.plan_many(smollm2_path, configs)

    assert isinstance(first, MemoryPlan)
    assert isinstance(refused, EngineError)
    sizes = [plan.total_bytes(component="kv") for plan in others if isinstance(plan, MemoryPlan)]
    assert sizes == [1024 * 23_040, 2048 * 23_040]


def test_a_file_that_is_no_model_is_a_load_error(planner: ExactPlanner, tmp_path: Path) -> None:
    """In the engine's words, and the next question is answered."""
    path = tmp_path / "noise.gguf"
    path.write_bytes(b"GGUFnoise" * 50)
    with pytest.raises(EngineError, match=r"noise\.gguf") as caught:
        planner.plan(path, Config())
    assert caught.value.reason is Reason.LOAD_ERROR


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_dead_child_is_replaced(planner: ExactPlanner, smollm2_path: Path) -> None:
    """Killed between two questions: the second one starts another child and is answered."""
    expected = planner.plan(smollm2_path, Config())
    (child,) = (c for c in psutil.Process().children() if "autotune.measure.worker" in c.cmdline())
    child.send_signal(signal.SIGKILL)

    assert planner.plan(smollm2_path, Config()) == expected


class DyingWorker:
    """A child that dies of every question."""

    started = 0

    def __init__(self, _backend: str, *, deadline_s: float) -> None:
        DyingWorker.started += 1

    def restart_deadline(self) -> None:
        """Nothing to count."""

    def ask(self, do: str, **_arguments: object) -> dict[str, object]:
        """Die."""
        raise EngineError(Reason.CRASH, f"killed by SIGABRT over {do}")

    def close(self) -> None:
        """Already gone."""


def test_a_question_that_kills_twice_is_given_up(
    monkeypatch: pytest.MonkeyPatch, smollm2_path: Path
) -> None:
    """One restart, then a typed error; the planner may be asked again."""
    monkeypatch.setattr(planner_module, "WorkerProcess", DyingWorker)
    with ExactPlanner(BACKEND) as planner:
        for n_started in (2, 4):
            with pytest.raises(EngineError, match="SIGABRT") as caught:
                planner.plan(smollm2_path, Config())
            assert caught.value.reason is Reason.CRASH
            assert DyingWorker.started == n_started


def test_a_hanging_child_is_a_timeout(smollm2_path: Path) -> None:
    """Its deadline counts from each question, not from its birth."""
    with ExactPlanner(BACKEND, deadline_s=0.0) as planner:
        with pytest.raises(EngineError, match="no answer within") as caught:
            planner.plan(smollm2_path, Config())
        assert caught.value.reason is Reason.TIMEOUT


class Planless:
    """A backend that cannot say what it would allocate."""

    name = "planless"

    def log_excerpt(self) -> str:
        """Nothing was logged."""
        return ""


def test_a_backend_without_plans_says_so() -> None:
    """An answer with its reason, not an exception."""
    worker = Worker(Planless())  # type: ignore[arg-type]
    answer = worker.answer({"do": "plan", "path": "m.gguf", "config": Config().as_dict()})

    assert (answer["ok"], answer["reason"]) == (False, Reason.UNSUPPORTED)
    assert "planless cannot plan" in answer["message"]
