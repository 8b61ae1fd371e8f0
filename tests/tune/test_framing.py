"""Questions as applications frame them: one backend or several, with or without a GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from autotune.backends.protocol import traits_of
from autotune.backends.registry import get_backend
from autotune.domain.errors import NothingFitsError, UserError
from autotune.domain.machine import Build
from autotune.domain.prediction import Hardware, Target
from autotune.domain.workload import Workload
from autotune.facts.gpu import EngineDevice
from autotune.measure.engine import Engine, ask_engines
from autotune.store.store import Store
from autotune.tune.backends import choose_backend, frame_contenders
from autotune.tune.framing import Wishes, frame_question
from autotune.tune.question import Question

GPU = EngineDevice(
    name="CUDA0", description="NVIDIA H100", total_bytes=80 * 10**9, free_bytes=79 * 10**9
)
LLAMA, SERVER = "llama-cpp-python", "llama-server"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One store for all: the machine is probed once."""
    path = tmp_path_factory.mktemp("framing") / "store.db"
    with Store.open(path, now=lambda: datetime.now(UTC)) as store:
        yield store


def wishes(hardware: Hardware = Hardware.AUTO, n_ctx: int | None = 512) -> Wishes:
    """A short request."""
    return Wishes(workload=Workload(n_prompt=64, n_gen=8), hardware=hardware, n_ctx=n_ctx)


def question(store: Store, path: Path, hardware: Hardware) -> Question:
    """Asked of a llama-server that can use a GPU."""
    return frame_question(
        path, store, backend=SERVER, wishes=wishes(hardware), environ={}, engine_gpus=[GPU]
    )


def engine(*gpus: EngineDevice) -> Engine:
    """An installed engine with these GPUs."""
    return Engine(build=Build(backend=SERVER, version="1"), gpus=gpus)


def test_the_hardware_that_is_preferred_is_what_candidates_use(
    store: Store, smollm2_path: Path
) -> None:
    """cpu: no layer on a GPU, not even by default; gpu: some in each; auto: both."""
    layers = {
        hardware: {
            case.config.n_gpu_layers for case in question(store, smollm2_path, hardware).cases
        }
        for hardware in Hardware
    }

    assert layers[Hardware.CPU] == {0}
    assert 0 not in layers[Hardware.GPU]
    assert layers[Hardware.AUTO] > {0, -1}


def test_a_backend_without_a_gpu_is_told_apart_from_one_with(
    store: Store, smollm2_path: Path
) -> None:
    """A demand that one cannot meet is its problem; the other one is chosen."""
    engines = {LLAMA: engine(), SERVER: engine(GPU), "llamafile": "put it on PATH"}
    contenders = frame_contenders(
        smollm2_path, store, engines=engines, wishes=wishes(Hardware.GPU), environ={}
    )
    selection = choose_backend(contenders, store, target=Target.BALANCED)

    assert [bool(contender.problem) for contender in contenders] == [True, False, True]
    assert "no GPU that the engine can use" in contenders[0].problem
    assert selection.chosen.backend == SERVER
    assert selection.chosen.config.n_gpu_layers != 0


def test_where_no_backend_has_the_gpu_it_is_one_line(store: Store, smollm2_path: Path) -> None:
    """With each one's reason."""
    contenders = frame_contenders(
        smollm2_path, store, engines={LLAMA: engine()}, wishes=wishes(Hardware.GPU), environ={}
    )
    with pytest.raises(NothingFitsError, match="no GPU that the engine can use"):
        choose_backend(contenders, store, target=Target.BALANCED)


def test_what_a_header_tells_needs_no_run(store: Store, smollm2_path: Path) -> None:
    """ctransformers of 2023 does not know the file: not chosen, and yet to be met by a contest."""
    engines = {"ctransformers": engine(), LLAMA: engine()}
    contenders = frame_contenders(smollm2_path, store, engines=engines, wishes=wishes(), environ={})
    selection = choose_backend(contenders, store, target=Target.BALANCED)

    assert selection.chosen.backend == LLAMA
    assert selection.ranking[1].reasons[0].startswith("cannot load this model: ")
    assert contenders[0].question is not None
    assert {case.config.n_ubatch for case in contenders[0].question.cases} >= {8, 64}


def test_what_cannot_be_asked_is_refused_before_anything_is_entered(
    store: Store, smollm2_path: Path
) -> None:
    """An unknown backend, and a context that does not hold the request."""
    for backend, n_ctx, cure in (("nonesuch", 512, "choose one of"), (LLAMA, 32, "raise n_ctx")):
        with pytest.raises(UserError, match=cure):
            frame_question(
                smollm2_path, store, backend=backend, wishes=wishes(n_ctx=n_ctx), environ={}
            )


def test_engines_are_asked_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answers for itself: its build, or why there is none."""
    monkeypatch.setenv("AUTOTUNE_LLAMAFILE", "/nonexistent/llamafile")
    engines = ask_engines([LLAMA, "llamafile"])

    assert isinstance(engines[LLAMA], Engine)
    assert "AUTOTUNE_LLAMAFILE=FILE" in str(engines["llamafile"])


def test_a_backend_may_say_which_knobs_it_has() -> None:
    """Of an engine that nobody describes nothing is searched but what it names."""
    backend = get_backend(LLAMA, os.environ)
    assert traits_of(backend).knobs is None

    backend.name = "stranger"
    assert traits_of(backend).knobs == frozenset()
    backend.knobs = frozenset({"n_threads"})  # type: ignore[attr-defined]
    assert traits_of(backend).knobs == {"n_threads"}
