"""Which layers slide, remember or share, by llama.cpp's rules for each architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autotune.domain.model import ModelFacts
from autotune.facts.gguf import read_model
from tests.facts.gguf_files import LLAMA, write_gguf

S, F = True, False


def model_of(folder: Path, architecture: str, **keys: Any) -> ModelFacts:
    """Eight layers of an architecture; ``__`` in a name stands for a dot."""
    dotted = {name.replace("__", "."): value for name, value in keys.items()}
    path = folder / f"{architecture}.gguf"
    shape = {**LLAMA, "block_count": 8, **dotted}
    return read_model(write_gguf(path, architecture=architecture, keys=shape, tensors=()))


@pytest.mark.parametrize(
    ("architecture", "is_sliding"),
    [
        ("gemma2", (S, F, S, F, S, F, S, F)),
        ("gemma3", (S, S, S, S, S, F, S, S)),
        ("gemma3n", (S, S, S, S, F, S, S, S)),
        ("gpt-oss", (S, F, S, F, S, F, S, F)),
        ("cohere2", (S, S, S, F, S, S, S, F)),
        ("olmo2", (S, S, S, F, S, S, S, F)),
        ("cohere2moe", (F, S, S, S, F, S, S, S)),
        ("plamo3", (S, S, S, S, S, S, S, F)),
        ("llama", ()),
        ("qwen2", ()),
        ("phi3", ()),
    ],
)
def test_the_period_belongs_to_the_architecture(
    tmp_path: Path, architecture: str, is_sliding: tuple[bool, ...]
) -> None:
    """Unlisted architectures and phi3 ignore the window that their files name."""
    model = model_of(tmp_path, architecture, attention__sliding_window=128)
    assert model.is_sliding == is_sliding
    assert model.sliding_window == (128 if is_sliding else 0)


def test_the_file_may_name_another_period(tmp_path: Path) -> None:
    """A number is a period, a list has a flag for each layer."""
    keys = {"attention__sliding_window": 128}
    by_number = model_of(tmp_path, "gemma3", attention__sliding_window_pattern=2, **keys)
    assert by_number.is_sliding == (S, F) * 4
    flags = [True, False, False, True] * 2
    by_list = model_of(tmp_path, "gemma4", attention__sliding_window_pattern=flags, **keys)
    assert by_list.is_sliding == tuple(flags)
    all_full = model_of(tmp_path, "gemma3", attention__sliding_window_pattern=1, **keys)
    assert (all_full.is_sliding, all_full.sliding_window) == ((), 0)


def test_windows_have_defaults_and_exceptions(tmp_path: Path) -> None:
    """Some windows are llama.cpp's own, and 0 in the file turns sliding off."""
    assert model_of(tmp_path, "gemma2").sliding_window == 4096
    assert model_of(tmp_path, "gemma3").is_sliding == ()
    assert model_of(tmp_path, "llama4").sliding_window == 8192
    assert model_of(tmp_path, "llama4", attention__sliding_window=0).is_sliding == ()
    assert model_of(tmp_path, "smallthinker").is_sliding == ()
    thinker = model_of(tmp_path, "smallthinker", attention__sliding_window=99)
    assert (thinker.sliding_window, thinker.is_sliding) == (4096, (F, S, S, S) * 2)
    assert model_of(tmp_path, "exaone4", attention__sliding_window=128).is_sliding == ()
    exaone = model_of(tmp_path, "exaone4", attention__sliding_window=128, block_count=64)
    assert exaone.is_sliding == (S, S, S, F) * 16


def test_layers_that_share_a_cache_hold_none(tmp_path: Path) -> None:
    """gemma3n caches its first 20 layers, gemma4 all but the shared ones."""
    assert model_of(tmp_path, "gemma3n", block_count=30).n_heads_kv == (2,) * 20 + (0,) * 10
    gemma4 = model_of(tmp_path, "gemma4", attention__shared_kv_layers=3)
    assert gemma4.n_heads_kv == (2,) * 5 + (0,) * 3


def test_prediction_layers_at_the_end_hold_no_cache(tmp_path: Path) -> None:
    """Next-token-prediction layers are in the file, but not in the forward pass."""
    model = model_of(tmp_path, "glm4moe", nextn_predict_layers=1)
    assert model.n_heads_kv == (2,) * 7 + (0,)


def test_a_recurrent_model_keeps_a_state_instead_of_a_cache(tmp_path: Path) -> None:
    """Mamba: 3 × 1,536 of history and 16 × 1,536 of state."""
    keys = {"ssm__conv_kernel": 4, "ssm__inner_size": 1536, "ssm__state_size": 16}
    model = model_of(tmp_path, "mamba", **keys)
    assert model.is_recurrent == (True,) * 8
    assert model.n_heads_kv == (0,) * 8
    assert model.state_elements == (3 + 16) * 1536


def test_a_hybrid_model_has_layers_of_both_kinds(tmp_path: Path) -> None:
    """No heads mark a recurrent layer, an interval marks the others, or every layer is both."""
    heads = [0, 0, 2, 0, 0, 2, 0, 0]
    ssm = {"ssm__conv_kernel": 4, "ssm__inner_size": 128, "ssm__state_size": 16}
    jamba = model_of(tmp_path, "jamba", attention__head_count_kv=heads, **ssm)
    assert jamba.is_recurrent == tuple(head == 0 for head in heads)
    assert jamba.n_heads_kv == tuple(heads)
    qwen = model_of(tmp_path, "qwen3next", ssm__group_count=2, **ssm)
    assert qwen.is_recurrent == (True, True, True, False) * 2
    assert qwen.n_heads_kv == (0, 0, 0, 2) * 2
    assert qwen.state_elements == 3 * (128 + 2 * 2 * 16) + 16 * 128
    falcon = model_of(tmp_path, "falcon-h1", **ssm)
    assert (falcon.is_recurrent, falcon.n_heads_kv) == ((True,) * 8, (2,) * 8)
    flags = [False, True] * 4
    named = model_of(tmp_path, "qwen35", attention__recurrent_layers=flags, **ssm)
    assert named.is_recurrent == tuple(flags)


def test_nemotron_has_layers_that_keep_nothing(tmp_path: Path) -> None:
    """Without heads and without a feed-forward block it is recurrent, with one it is neither."""
    model = model_of(
        tmp_path,
        "nemotron_h",
        attention__head_count_kv=[0, 2, 0, 0] * 2,
        feed_forward_length=[0, 0, 512, 0] * 2,
        ssm__conv_kernel=4,
        ssm__inner_size=128,
        ssm__state_size=16,
    )
    assert model.is_recurrent == (True, False, False, True) * 2
    assert model.n_heads_kv == (0, 2, 0, 0) * 2


@pytest.mark.parametrize(
    ("architecture", "keys", "elements"),
    [
        ("rwkv7", {"wkv__head_size": 64}, 2 * 64 + 64 * 64),
        ("rwkv6qwen2", {"wkv__head_size": 64, "token_shift_count": 1}, 64 + 64 * 64),
        ("lfm2", {"shortconv__l_cache": 3, "attention__head_count_kv": [0, 2] * 4}, 2 * 64),
        (
            "kimi-linear",
            {"kda__head_dim": 16, "ssm__conv_kernel": 4, "attention__head_count_kv": [0, 2] * 4},
            4 * 16 * (3 * 3 + 16),
        ),
        ("minimax-01", {}, 4 * 16**2),
    ],
)
def test_states_have_the_size_of_their_kind(
    tmp_path: Path, architecture: str, keys: dict[str, Any], elements: int
) -> None:
    """Embedding 64, four heads of 16: each formula of ``llama_hparams`` in turn."""
    assert model_of(tmp_path, architecture, **keys).state_elements == elements
