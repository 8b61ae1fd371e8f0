"""Shapes of published models, counted; and which one a table means."""

from __future__ import annotations

import pytest

from autotune.domain.errors import DataError
from autotune.facts.catalogue import described_model, find_shape
from autotune.facts.shapes import SHAPES, Shape


def name_of(shape: Shape) -> str:
    return f"{shape.architecture} {shape.label}"


@pytest.mark.parametrize("shape", SHAPES, ids=name_of)
def test_a_shape_has_as_many_weights_as_were_published(shape: Shape) -> None:
    """Counted from its widths: within 2 %, which norms, biases and routers make up."""
    assert sum(shape.weights().values()) == pytest.approx(shape.n_params, rel=0.02)


@pytest.mark.parametrize("shape", SHAPES, ids=name_of)
def test_llama_cpps_description_finds_its_shape(shape: Shape) -> None:
    """As ``model_type`` prints it, with the number of weights."""
    text = f"{shape.architecture} {shape.label.split()[-1]} Q4_K - Medium"

    assert find_shape(text, shape.n_params) == (shape, True)


@pytest.mark.parametrize(
    ("label", "n_active"),
    [("30B.A3B", 3.3), ("235B.A22B", 22), ("80B.A3B", 3.5), ("A13B", 13), ("106B.A12B", 12.5),
     ("120B", 5.1), ("8x7B", 12.9), ("671B", 37), ("17Bx16E", 17), ("230B.A10B", 10)],
)  # fmt: skip
def test_a_mixture_multiplies_as_many_weights_as_were_published(
    label: str, n_active: float
) -> None:
    """Published counts are round, and some count the embedding."""
    (shape,) = [s for s in SHAPES if s.label == label and s.n_experts]

    assert shape.n_active / 1e9 == pytest.approx(n_active, rel=0.1)


@pytest.mark.parametrize(
    ("text", "n_params", "found"),
    [
        ("glm4moe 106B.A12B Q4_K - Medium GLM-4.5-Air-UD-Q4_K_XL", 110468824832, "106B.A12B"),
        ("hunyuan-moe A13B Q6_K", 80393183232, "A13B"),
        ("llama4 17Bx16E (Scout) Q4_K - Medium", 107769861184, "17Bx16E"),
        ("llama 13B Q4_K - Medium Mistral-Small-3.1-24B-Instruct-2503", 23572403200,
         "Mistral Small 24B"),
        ("dots1 142B Q4_K - Medium", 142774381696, "142B"),
        ("gpt-oss ?B F16", 116829156672, "120B"),
        ("llama 7B Q4_0", 6738415616, "Llama-2 7B"),
        ("qwen3moe 30B.A3B Q4_K - Medium", 30532122624, "30B.A3B"),
        ("qwen35moe 35B.A3B IQ4_NL - 4.5 bpw", 34660610688, "35B.A3B"),
        ("gemma4 26B.A4B Q4_K - Medium", 25233142046, "26B.A4B"),
        ("llama 256M Q4_1", 134515008, "SmolLM2 135M"),
        ("Qwen2.5-14B-Instruct", 14770033664, "14B"),
    ],
)  # fmt: skip
def test_real_rows_find_their_shape(text: str, n_params: int, found: str) -> None:
    """The number of weights decides, the kind where two have as many."""
    shape, is_exact = find_shape(text, n_params)

    assert (shape.label, is_exact) == (found, True)


@pytest.mark.parametrize(
    ("name", "architecture", "label"),
    [
        ("Qwen3-30B-A3B-UD-Q4_K_XL", "qwen3moe", "30B.A3B"),
        ("Qwen3-235B-A22B-Instruct-2507-UD-Q3_K_XL", "qwen3moe", "235B.A22B"),
        ("Qwen3-Next-80B-A3B-Instruct-UD-Q4_K_XL.gguf", "qwen3next", "80B.A3B"),
        ("Qwen3-32B-Q8_0", "qwen3", "32B"),
        ("Qwen2.5-0.5B-Instruct", "qwen2", "0.5B"),
        ("Meta-Llama-3-8B-Instruct-IQ2_XXS", "llama", "Llama-3 8B"),
        ("shisa-v2-llama3.3-70b.i1-Q4_K_M", "llama", "Llama-3 70B"),
        ("Llama-3.2-1B-Instruct", "llama", "Llama-3.2 1B"),
        ("llama-2-7b.Q4_K_M.gguf", "llama", "Llama-2 7B"),
        ("Llama-4-Scout-17B-16E-Instruct-UD-Q4_K_XL", "llama4", "17Bx16E"),
        ("Mixtral-8x7B-Instruct-v0.1.Q4_K_M.gguf", "llama", "8x7B"),
        ("Hunyuan-A13B-Instruct-UD-Q6_K_XL", "hunyuan-moe", "A13B"),
        ("gemma-3-27b-it-UD-Q4_K_XL", "gemma3", "27B"),
        ("gemma-2-9b-it", "gemma2", "9B"),
        ("gpt-oss-20b-F16", "gpt-oss", "20B"),
        ("DeepSeek-R1-671B", "deepseek2", "671B"),
        ("SmolLM2-135M-Instruct", "llama", "SmolLM2 135M"),
        ("codellama-34b", "llama", "CodeLlama 34B"),
    ],
)
def test_a_name_alone_finds_its_shape(name: str, architecture: str, label: str) -> None:
    """Family and size are enough, however they are joined."""
    shape, is_exact = find_shape(name)

    assert (shape.architecture, shape.label, is_exact) == (architecture, label, True)


def test_an_unknown_model_gets_the_nearest_shape_stretched() -> None:
    """It says so; the weights are its own, and so many experts work as its name says."""
    dense, dense_exact = find_shape("newarch 20B", 20.5e9)
    mixture, _ = find_shape("newmoe 60B.A6B Q4_K - Medium", 60e9)

    assert not dense_exact
    assert sum(dense.weights().values()) == pytest.approx(20.5e9, rel=0.1)
    assert dense.n_experts == 0
    assert sum(mixture.weights().values()) == pytest.approx(60e9, rel=0.1)
    assert mixture.n_active == pytest.approx(6e9, rel=0.25)


@pytest.mark.parametrize(
    ("text", "n_params", "n_layers"),
    [("qwen2 1B Q8_0", 630_167_424, 24), ("qwen2 1.5B Q4_K - Medium", 1_777_088_000, 28)],
)
def test_an_export_may_write_a_shared_table_twice(text: str, n_params: int, n_layers: int) -> None:
    """The published files of Qwen2.5 do: the same shape, and one table that is only looked up."""
    shape, is_exact = find_shape(text, n_params)

    assert is_exact
    assert (shape.n_layers, shape.is_tied) == (n_layers, False)
    table = shape.n_vocab * shape.n_embd
    assert shape.n_active == pytest.approx(n_params - table, rel=0.01)


def test_a_model_with_experts_is_not_taken_for_a_dense_one() -> None:
    """Though it has as many weights as one: a token reads far fewer."""
    shape, is_exact = find_shape("lfm2moe 8B.A1B Q4_0", 8.03e9)

    assert shape.n_experts > 0
    assert not is_exact


def test_a_name_that_says_nothing_is_refused() -> None:
    """Eight billion weights would be a guess; bytes tell how many there are."""
    with pytest.raises(DataError, match="'ggml-model-q4_0' is not known, and its size"):
        find_shape("ggml-model-q4_0")

    weighed = described_model(name="ggml-model-q4_0", model_bytes=4_500_000_000)
    assert weighed.n_params == pytest.approx(8e9, rel=0.05)


def test_a_described_model_weighs_what_the_table_says() -> None:
    """Bytes and elements, whatever the mixture of types; a token reads its share."""
    model = described_model(
        name="Qwen3-30B-A3B-UD-Q4_K_XL", model_type="qwen3moe 30B.A3B Q4_K - Medium",
        n_params=30532122624, model_bytes=17709692928, quantization="UD-Q4_K_XL",
    )  # fmt: skip

    assert model.n_params == pytest.approx(30532122624, rel=1e-6)
    assert model.weight_bytes == pytest.approx(17709692928, rel=1e-6)
    assert model.quantization == "Q4_K_XL"
    assert model.active_bytes == pytest.approx(2.2e9, rel=0.05)
    assert (model.n_layers, len(model.n_heads_kv)) == (48, 48)


def test_a_dynamic_mixture_spares_the_experts() -> None:
    """What experts in the main type leave over is in what every token reads, up to Q8_0."""
    mixed = described_model(
        name="Qwen3-235B-A22B-Instruct-2507-UD-Q3_K_XL", n_params=235_093_634_560,
        model_bytes=104_100_000_000,
    )  # fmt: skip
    bits = {t.group: 8 * t.n_bytes / t.n_elements for t in mixed.tensors}
    plain = described_model(
        name="Qwen3-235B-A22B-Q3_K_M", n_params=235_093_634_560, model_bytes=104_100_000_000
    )

    assert bits["experts"] == pytest.approx(3.44, abs=0.01)
    assert 6 < bits["attention"] < 7
    assert mixed.weight_bytes == pytest.approx(104_100_000_000, rel=1e-6)
    # Decode on a Strix Halo moves 140 GB/s by the plain mixture, 175 by this one, 190 elsewhere.
    assert mixed.active_bytes / plain.active_bytes == pytest.approx(1.25, abs=0.03)


def test_a_dynamic_mixture_that_is_larger_has_finer_experts() -> None:
    """All else is in Q8_0 at most."""
    model = described_model(
        name="Hunyuan-A13B-Instruct-UD-Q6_K_XL", n_params=80_393_183_232, model_bytes=70_500_000_000
    )
    bits = {t.group: 8 * t.n_bytes / t.n_elements for t in model.tensors}

    assert [bits["attention"], bits["ffn"]] == pytest.approx([8.5, 8.5])
    assert 6.6 < bits["experts"] < 7


def test_of_experts_without_k_quants_nothing_is_left_over() -> None:
    """Rows of 1408 are in Q5_0 and Q8_0, nobody knows how many: all layers are taken as alike."""
    model = described_model(
        name="GLM-4.5-Air-UD-Q4_K_XL", n_params=110_468_824_832, model_bytes=73_000_000_000
    )
    bits = {t.group: 8 * t.n_bytes / t.n_elements for t in model.tensors}

    assert bits["attention"] == pytest.approx(bits["experts"])


def test_beside_experts_in_mxfp4_all_is_q8() -> None:
    """As llama-quantize makes it: the file weighs 63.4 GB."""
    model = described_model(name="gpt-oss-120b-mxfp4", n_params=116_829_156_672)

    assert {t.group: t.type for t in model.tensors} == {
        "attention": "Q8_0", "experts": "MXFP4", "embedding": "Q8_0", "output": "Q8_0",
    }  # fmt: skip


def test_experts_of_gpt_oss_are_quantised_where_its_file_says_f16() -> None:
    """The file is a quarter of what F16 would weigh."""
    model = described_model(
        name="gpt-oss-20b-F16", model_type="gpt-oss ?B F16", n_params=20914757184,
        model_bytes=13779630336,
    )  # fmt: skip

    types = {tensor.group: tensor.type for tensor in model.tensors}
    assert (types["experts"], types["attention"]) == ("MXFP4", "F16")
    assert model.weight_bytes == pytest.approx(13779630336, rel=1e-6)


def test_a_window_and_a_state_keep_their_layers_apart() -> None:
    """Every sixth layer of Gemma 3 sees everything; of Qwen3-Next every fourth keeps a cache."""
    gemma = described_model(name="gemma-3-27b-it", n_params=27009346304)
    hybrid = described_model(name="Qwen3-Next-80B-A3B", n_params=79674391296)

    assert [gemma.is_sliding[layer] for layer in range(6)] == [True] * 5 + [False]
    assert gemma.sliding_window == 1024
    assert [hybrid.n_heads_kv[layer] for layer in range(4)] == [0, 0, 0, 2]
    assert hybrid.state_elements == 128 * 4096 + 3 * (4096 + 2 * 16 * 128)
    assert not hybrid.slides
