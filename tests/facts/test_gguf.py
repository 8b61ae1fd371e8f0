"""The facts of a model: what the header says, what llama.cpp adds to it, what is no model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autotune.domain.errors import GGUFError
from autotune.facts.gguf import read_model
from tests.facts.gguf_files import LLAMA, TENSORS, write_gguf

WEIGHTS = (
    ("token_embd.weight", (64, 96), "Q8_0"),
    ("per_layer_token_embd.weight", (64, 96), "Q8_0"),
    ("output_norm.weight", (64,), "F32"),
    ("output.weight", (64, 96), "Q4_0"),
    ("rope_freqs.weight", (16,), "F32"),
    ("blk.0.attn_norm.weight", (64,), "F32"),
    ("blk.0.attn_q.weight", (64, 64), "Q4_0"),
    ("blk.0.attn_q_norm.weight", (16,), "F32"),
    ("blk.0.ffn_gate_inp.weight", (64, 8), "F32"),
    ("blk.0.ffn_gate_exps.weight", (64, 32, 8), "Q4_0"),
    ("blk.0.ffn_up_shexp.weight", (64, 32), "Q4_0"),
    ("blk.1.ssm_in.weight", (64, 32), "Q4_0"),
)


def test_smollm2_is_read_as_its_card_describes_it(smollm2_path: Path) -> None:
    """A dense model with grouped heads and a tied embedding."""
    model = read_model(smollm2_path)
    assert (model.architecture, model.quantization, model.name[:7]) == ("llama", "Q4_1", "Smollm2")
    assert (model.n_layers, model.n_embd, model.n_ff, model.n_vocab) == (30, 576, 1536, 49152)
    assert (set(model.n_heads), set(model.n_heads_kv)) == ({9}, {3})
    assert (model.key_length, model.value_length, model.n_ctx_train) == (64, 64, 8192)
    assert model.n_params == 134_515_008
    assert model.is_tied
    assert not model.slides
    assert model.file_bytes == smollm2_path.stat().st_size


def test_gemma3_slides_in_five_layers_of_six(gemma3_path: Path) -> None:
    """The period is not in the file: llama.cpp knows it."""
    model = read_model(gemma3_path)
    assert (model.architecture, model.n_vocab, model.sliding_window) == ("gemma3", 262144, 512)
    assert model.is_sliding == ((True,) * 5 + (False,)) * 3
    assert (model.key_length, model.n_heads[0], model.n_heads_kv[0]) == (256, 4, 1)


def test_layers_add_up_to_the_weights(smollm2_path: Path, gemma3_path: Path) -> None:
    """What is not in a layer is the embedding and the last norm."""
    for path in (smollm2_path, gemma3_path):
        model = read_model(path)
        embedding = sum(t.n_bytes for t in model.tensors if t.group == "embedding")
        assert model.weight_bytes - sum(model.layer_bytes) == embedding + 4 * model.n_embd


def test_tensors_are_grouped_by_what_they_do(tmp_path: Path) -> None:
    """Norms are never counted as attention, experts apart from other feed-forward weights."""
    model = read_model(write_gguf(tmp_path / "groups.gguf", tensors=WEIGHTS))
    counts = {
        group: sum(t.n_tensors for t in model.tensors if t.group == group)
        for group in {t.group for t in model.tensors}
    }
    assert counts == {
        "embedding": 1,
        "lookup": 1,
        "output": 1,
        "attention": 1,
        "ffn": 2,
        "experts": 1,
        "other": 5,
    }
    assert model.layer_bytes[1] == 64 * 32 // 32 * 18


def test_a_table_of_rows_is_not_read_for_every_token(tmp_path: Path) -> None:
    """Per-layer embeddings cost one row, also where the token embedding is tied."""
    tied = [tensor for tensor in WEIGHTS if tensor[0] != "output.weight"]
    model = read_model(write_gguf(tmp_path / "tied.gguf", tensors=tied))
    read = {tensor.group for tensor, _ in model.active_tensors}
    assert "embedding" in read
    assert "lookup" not in read


def test_lists_give_each_layer_its_own_number(tmp_path: Path) -> None:
    """Key/value heads and widths may differ from layer to layer."""
    keys = {**LLAMA, "attention.head_count_kv": [1, 4], "feed_forward_length": [128, 256]}
    model = read_model(write_gguf(tmp_path / "uneven.gguf", keys=keys))
    assert model.n_heads_kv == (1, 4)
    assert model.n_ff == 256


def test_a_list_of_the_wrong_length_is_refused(tmp_path: Path) -> None:
    """llama.cpp refuses it as well."""
    path = write_gguf(tmp_path / "odd.gguf", keys={**LLAMA, "attention.head_count_kv": [1, 2, 3]})
    with pytest.raises(GGUFError, match="is '3 values', there are 2 layers"):
        read_model(path)


def test_heads_without_a_length_share_the_embedding(tmp_path: Path) -> None:
    """The default of llama.cpp, and the file's own word before it."""
    assert read_model(write_gguf(tmp_path / "a.gguf")).key_length == 16
    keys = {**LLAMA, "attention.key_length": 32, "attention.value_length": 8}
    model = read_model(write_gguf(tmp_path / "b.gguf", keys=keys))
    assert (model.key_length, model.value_length) == (32, 8)


def test_words_are_counted_by_tokeniser_key_or_embedding(tmp_path: Path) -> None:
    """In that order."""
    words = {"tokenizer.ggml.tokens": [f"w{n}" for n in range(7)]}
    keys = {**LLAMA, "vocab_size": 80}
    both = write_gguf(tmp_path / "both.gguf", keys=keys, plain_keys=words)
    assert read_model(both).n_vocab == 7
    assert read_model(write_gguf(tmp_path / "key.gguf", keys=keys)).n_vocab == 80
    assert read_model(write_gguf(tmp_path / "rows.gguf")).n_vocab == 96


def test_experts_are_counted(tmp_path: Path) -> None:
    """Their width falls back on the common one, as in Mixtral's files."""
    keys = {**LLAMA, "expert_count": 8, "expert_used_count": 2}
    model = read_model(write_gguf(tmp_path / "mixtral.gguf", keys=keys))
    assert (model.n_experts, model.n_experts_used, model.n_ff_expert) == (8, 2, 128)
    keys["expert_feed_forward_length"] = 32
    assert read_model(write_gguf(tmp_path / "fine.gguf", keys=keys)).n_ff_expert == 32


def test_a_compressed_cache_needs_both_of_its_keys(tmp_path: Path) -> None:
    """Old conversions of DeepSeek name the rank, but cache whole heads."""
    keys = {**LLAMA, "attention.kv_lora_rank": 48, "attention.key_length": 56}
    old = read_model(write_gguf(tmp_path / "old.gguf", architecture="deepseek2", keys=keys))
    keys |= {"attention.key_length_mla": 32, "attention.value_length_mla": 16}
    new = read_model(write_gguf(tmp_path / "new.gguf", architecture="deepseek2", keys=keys))
    assert (old.kv_lora_rank, new.kv_lora_rank) == (0, 48)
    assert old.cached_elements(0) == (2 * 56, 2 * 16)
    assert new.cached_elements(0) == (2 * 56, 0)


def test_a_split_model_is_the_sum_of_its_parts(tmp_path: Path) -> None:
    """Keys from the first part, tensors from all."""
    for part in range(2):
        write_gguf(
            tmp_path / f"big-0000{part + 1}-of-00002.gguf",
            keys=LLAMA if part == 0 else {},
            plain_keys={"split.no": part, "split.count": 2},
            tensors=TENSORS[2 * part : 2 * part + 2],
        )
    whole = read_model(write_gguf(tmp_path / "whole.gguf"))
    split = read_model(tmp_path / "big-00001-of-00002.gguf")
    assert set(split.tensors) == set(whole.tensors)
    assert split.layer_bytes == whole.layer_bytes
    assert split.file_bytes == sum(p.stat().st_size for p in tmp_path.glob("big-*"))
    assert len(split.model_id) == 16


def test_a_split_model_names_what_is_missing(tmp_path: Path) -> None:
    """A later part given first, a renamed first part, an absent second one."""
    split: dict[str, Any] = {"split.no": 0, "split.count": 2}
    first = write_gguf(tmp_path / "big-00001-of-00002.gguf", plain_keys=split)
    with pytest.raises(GGUFError, match=r"big-00002-of-00002.gguf: no such file: check the path"):
        read_model(first)
    later = write_gguf(tmp_path / "big-00002-of-00002.gguf", plain_keys=split | {"split.no": 1})
    for path in (later, first.rename(tmp_path / "renamed.gguf")):
        with pytest.raises(GGUFError, match="give the file whose name ends in -00001-of-00002"):
            read_model(path)


@pytest.mark.parametrize("missing", ["block_count", "embedding_length", "context_length"])
def test_a_file_that_is_no_language_model_says_so(tmp_path: Path, missing: str) -> None:
    """Projectors, adapters and vocabulary files are GGUF as well."""
    keys = {key: value for key, value in LLAMA.items() if key != missing}
    path = write_gguf(tmp_path / "mmproj.gguf", architecture="clip", keys=keys)
    with pytest.raises(GGUFError, match=f"no key 'clip.{missing}', so it is not a language model"):
        read_model(path)


def test_a_damaged_count_of_layers_is_not_believed(tmp_path: Path) -> None:
    """Four billion layers would fill the memory with tuples."""
    path = write_gguf(tmp_path / "odd.gguf", keys={**LLAMA, "block_count": 2**32 - 1})
    with pytest.raises(GGUFError, match=r"llama\.cpp allows 512"):
        read_model(path)


def test_a_key_of_the_wrong_kind_is_named(tmp_path: Path) -> None:
    """A word where a count belongs."""
    path = write_gguf(tmp_path / "odd.gguf", keys={**LLAMA, "block_count": "two"})
    with pytest.raises(GGUFError, match=r"llama\.block_count is 'two', not a count"):
        read_model(path)


def test_models_are_told_apart_by_their_header(tmp_path: Path) -> None:
    """The identity travels with the file, not with its name."""
    first = read_model(write_gguf(tmp_path / "a.gguf"))
    again = read_model(write_gguf(tmp_path / "b.gguf"))
    other = read_model(write_gguf(tmp_path / "c.gguf", keys={**LLAMA, "context_length": 1024}))
    assert first.model_id == again.model_id != other.model_id
    assert first.name == "a"
