"""transformers: caches of sliding windows, kept whole or not."""

from __future__ import annotations

import os

import numpy as np
import pytest

from autotune.backends.transformers_library import import_libraries
from autotune.backends.transformers_model import TorchModel
from autotune.domain.config import Config
from tests.backends.tiny_models import write_tiny_model

pytest.importorskip("transformers", reason="not installed: pip install -e '.[test]'")

F32 = Config(n_ctx=256, n_batch=64, n_ubatch=64, type_k="f32", type_v="f32")


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, TorchModel]:
    """A gemma3 of seven layers with windows of 8 tokens, by swa_full."""
    path = tmp_path_factory.mktemp("gemma3") / "tiny.gguf"
    write_tiny_model(path, architecture="gemma3", n_layers=7, window=8)
    libraries = import_libraries(os.environ)
    return {full: TorchModel(libraries, path, F32.replace(swa_full=full)) for full in (True, False)}


def test_windows_keep_their_size_or_everything(windows: dict[bool, TorchModel]) -> None:
    """The same logits; the plan knows how much is kept."""
    logits, kept = {}, {}
    for full, model in windows.items():
        cache = model.new_cache()
        with model._torch.inference_mode():
            model.compute(range(20), cache)
            logits[full] = model.compute([21], cache).numpy()
        kept[full] = [layer.keys.shape[-2] for layer in cache.layers]

    np.testing.assert_allclose(logits[True], logits[False], rtol=1e-3, atol=1e-4)
    assert kept[True] == [21] * 7
    assert kept[False] == [7] * 5 + [21] + [7]


def test_only_a_cache_that_has_everything_can_be_cut(windows: dict[bool, TorchModel]) -> None:
    """What a window dropped is gone; within the window it is there."""
    for full, model in windows.items():
        cache, short = model.new_cache(), model.new_cache()
        with model._torch.inference_mode():
            model.compute(range(20), cache)
            model.compute(range(6), short)

        assert model.cut_cache(short, 4)
        assert short.get_seq_length() == 4
        assert model.cut_cache(cache, 12) is full


def test_a_cut_cache_goes_on_as_if_nothing_had_been(windows: dict[bool, TorchModel]) -> None:
    """Twenty tokens cut to twelve, and the thirteenth: as twelve and the thirteenth."""
    model = windows[True]
    with model._torch.inference_mode():
        cut, straight = model.new_cache(), model.new_cache()
        model.compute(range(20), cut)
        assert model.cut_cache(cut, 12)
        model.compute(range(12), straight)
        ours, theirs = model.compute([99], cut), model.compute([99], straight)

    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-3, atol=1e-4)
