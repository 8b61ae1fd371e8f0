"""File types: what a name says, and which element types stand behind it."""

from __future__ import annotations

import pytest

from autotune.facts.quantization import element_bits, find_file_type, tensor_types


@pytest.mark.parametrize(
    ("text", "file_type"),
    [
        ("qwen3moe 30B.A3B Q4_K - Medium", "Q4_K_M"),
        ("qwen3moe 235B.A22B Q3_K - Medium", "Q3_K_M"),
        ("llama 7B Q2_K - Small", "Q2_K_S"),
        ("hunyuan-moe A13B Q6_K", "Q6_K"),
        ("qwen35moe 35B.A3B IQ4_NL - 4.5 bpw", "IQ4_NL"),
        ("llama 8B IQ3_XXS - 3.0625 bpw", "IQ3_XXS"),
        ("llama 7B mostly Q4_0", "Q4_0"),
        ("gpt-oss 120B MXFP4 MoE", "MXFP4"),
        ("gpt-oss ?B F16", "F16"),
        ("llama 7B BF16", "BF16"),
        ("UD-Q4_K_XL", "Q4_K_XL"),
        ("Qwen3-Coder-30B-A3B-Instruct-UD-Q4_K_XL.gguf", "Q4_K_XL"),
        ("shisa-v2-llama3.1-8b.i1-Q4_K_M.gguf", "Q4_K_M"),
        ("gpt-oss-120b-mxfp4-00001-of-00003.gguf", "MXFP4"),
        ("model-q6_k-00001-of-00002.gguf", "Q6_K"),
        ("ggml-model-q5_1.bin", "Q5_1"),
        ("Meta-Llama-3-8B-Instruct-IQ2_XXS", "IQ2_XXS"),
        ("bitnet-TQ1_0", "TQ1_0"),
        ("Qwen3.6-35B-A3B-DYNAMIC.gguf", None),
        ("", None),
    ],
)
def test_a_text_names_its_file_type(text: str, file_type: str | None) -> None:
    """llama.cpp's words, file names, and those of Unsloth; a size is no type."""
    assert find_file_type(text) == file_type


@pytest.mark.parametrize(
    ("file_type", "main", "output", "bits"),
    [
        ("Q4_K_M", "Q4_K", "Q6_K", 4.89),
        ("q4_k_s", "Q4_K", "Q6_K", 4.67),
        ("Q4_K_XL", "Q4_K", "Q6_K", 4.5),
        ("Q3_K_L", "Q3_K", "Q6_K", 4.30),
        ("Q6_K", "Q6_K", "Q6_K", 6.56),
        ("Q8_0", "Q8_0", "Q8_0", 8.5),
        ("Q4_0", "Q4_0", "Q6_K", 4.5),
        ("IQ2_M", "IQ2_S", "Q6_K", 2.93),
        ("IQ4_NL", "IQ4_NL", "Q6_K", 4.68),
        ("MXFP4", "MXFP4", "Q6_K", 4.25),
        ("F16", "F16", "F16", 16.0),
        ("BF16", "BF16", "BF16", 16.0),
    ],
)
def test_a_mixture_has_a_main_type_and_a_finer_output(
    file_type: str, main: str, output: str, bits: float
) -> None:
    """Above six and a half bits the output layer is nothing special."""
    types = tensor_types(file_type)

    assert (types.main, types.output) == (main, output)
    assert types.bits_per_weight == pytest.approx(bits, abs=0.01)
    assert element_bits(types.main) <= types.bits_per_weight + 0.2


def test_an_unknown_file_type_is_taken_for_the_usual_one() -> None:
    """Most files that people run are Q4_K_M."""
    assert tensor_types("DYNAMIC") == tensor_types("Q4_K_M")
    assert tensor_types("F16").is_float
    assert not tensor_types("Q8_0").is_float
