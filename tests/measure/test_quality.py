"""Quality costs from a child process: right, refused with a reason, and gone afterwards."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from autotune.backends.llama_cpp import LlamaCppBackend
from autotune.backends.protocol import EngineError
from autotune.domain.config import Config
from autotune.domain.quality import QualityCost, reference_of
from autotune.domain.run import Reason
from autotune.measure.messages import pack, unpack_quality
from autotune.measure.quality import TEXT_FILE, QualityMeter
from autotune.measure.worker import Worker
from tests.store.examples import make_quality

BACKEND = LlamaCppBackend.name
TEXT = TEXT_FILE.read_text(encoding="utf-8")[:500]
CONFIG = Config(n_threads=2, n_threads_batch=2, flash_attn="on", type_k="q8_0", type_v="q8_0")


def workers() -> list[psutil.Process]:
    """Our children with an engine in them."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "autotune.measure.worker" in child.cmdline()]


@pytest.fixture
def meter() -> Iterator[QualityMeter]:
    """One child, gone in the end."""
    before = set(workers())
    with QualityMeter(BACKEND, text=TEXT) as meter:
        yield meter
    assert set(workers()) <= before


def test_the_child_measures_what_the_engine_does(meter: QualityMeter, smollm2_path: Path) -> None:
    """The same figures as in this process, to the last bit; and the build that made them."""
    found = meter.cost(smollm2_path, CONFIG)
    expected = LlamaCppBackend().quality(
        smollm2_path, CONFIG, reference=reference_of(CONFIG), text=TEXT
    )

    assert found == expected
    assert meter.build() == LlamaCppBackend().build()


def test_a_refusal_leaves_the_child_fit_for_the_next(
    meter: QualityMeter, smollm2_path: Path
) -> None:
    """The engine's words, its reason, and another configuration of the same model."""
    with pytest.raises(EngineError, match="needs >= 1 devices"):
        meter.cost(smollm2_path, CONFIG.replace(split_mode="tensor", n_gpu_layers=2))

    assert meter.cost(smollm2_path, CONFIG).kl_mean > 0
    assert len(workers()) == 1


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_child_that_dies_is_a_crash(meter: QualityMeter, smollm2_path: Path) -> None:
    """Typed, with the signal's name."""
    (child,) = workers()
    child.send_signal(signal.SIGKILL)
    with pytest.raises(EngineError, match="SIGKILL") as caught:
        meter.cost(smollm2_path, CONFIG)
    assert caught.value.reason is Reason.CRASH


def test_a_child_that_hangs_is_a_timeout(smollm2_path: Path) -> None:
    """Nobody waits for ever."""
    with QualityMeter(BACKEND, deadline_s=0.0) as meter:
        with pytest.raises(EngineError, match="no answer within") as caught:
            meter.cost(smollm2_path, CONFIG)
        assert caught.value.reason is Reason.TIMEOUT


class Mute:
    """A backend that gives out no distributions."""

    name = "mute"

    def log_excerpt(self) -> str:
        """Nothing was logged."""
        return ""


def test_a_backend_that_cannot_judge_says_so() -> None:
    """An answer with its reason, not an exception."""
    config = CONFIG.as_dict()
    worker = Worker(Mute())  # type: ignore[arg-type]
    answer = worker.answer(
        {"do": "quality", "path": "m.gguf", "config": config, "reference": config, "text": TEXT}
    )

    assert (answer["ok"], answer["reason"]) == (False, Reason.UNSUPPORTED)
    assert "mute gives out no distributions" in answer["message"]


def test_a_cost_survives_the_pipe() -> None:
    """What the child packs, the parent unpacks."""
    cost: QualityCost = make_quality()

    assert unpack_quality(pack(cost)) == cost


def test_the_text_that_ships_is_what_it_claims_to_be() -> None:
    """Prose, code and data of some 850 tokens, in plain ASCII that every tokenizer reads alike."""
    text = TEXT_FILE.read_text(encoding="utf-8")

    assert text.isascii()
    assert 3000 < len(text) < 4000
    assert "```python" in text
    assert '{"ship"' in text
