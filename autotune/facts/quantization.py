"""File types of quantised models: which element type holds what, and at how many bits.

A file type such as ``Q4_K_M`` is a mixture: most weights in one element type, the output layer in a
finer one. Bits per weight are those of Llama-3.1-8B in llama.cpp's ``tools/quantize/README.md``;
the finer types are ``llama_tensor_get_type`` in its ``llama-quant.cpp``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from autotune.facts.element_types import ELEMENT_TYPES

_BITS: Mapping[str, float] = {
    "IQ1_S": 2.0042, "IQ1_M": 2.1460, "IQ2_XXS": 2.3824, "IQ2_XS": 2.5882, "IQ2_S": 2.7403,
    "IQ2_M": 2.9294, "IQ3_XXS": 3.2548, "IQ3_XS": 3.4977, "IQ3_S": 3.6606, "IQ3_M": 3.7628,
    "IQ4_XS": 4.4597, "IQ4_NL": 4.6818, "Q2_K_S": 2.9697, "Q2_K": 3.1593, "Q3_K_S": 3.6429,
    "Q3_K_M": 3.9960, "Q3_K_L": 4.2979, "Q4_K_S": 4.6672, "Q4_K_M": 4.8944, "Q5_K_S": 5.5704,
    "Q5_K_M": 5.7036, "Q6_K": 6.5633, "Q8_0": 8.5008, "F16": 16.0005,
}  # fmt: skip
_MAIN = {
    "IQ2_M": "IQ2_S", "IQ3_M": "IQ3_S", "IQ3_XS": "IQ3_XXS", "Q2_K_L": "Q2_K", "Q3_K_XL": "Q3_K",
}  # fmt: skip
"""Mixtures whose name is not the name of their main element type, size letters aside."""
_NAME = re.compile(
    r"(?<![A-Z0-9])(IQ[1-4]_(?:XXS|XS|NL|S|M)|T?Q\d_K?_?(?:XL|[SML0-1])?|MXFP4|NVFP4|BF16|F16|F32)"
    r"(?![A-Z0-9])"
)
_LLAMA_BENCH = {" - SMALL": "_S", " - MEDIUM": "_M", " - LARGE": "_L"}
_ELEMENT_BITS = {t.name: 8 * t.block_bytes / t.block_elements for t in ELEMENT_TYPES.values()}
_FLOATS = ("F16", "F32", "BF16")
_FINE_BITS = 6.5
"""Above that the output layer is of the main type itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorTypes:
    """The element types of a quantised file."""

    main: str
    """ggml type of the layers' weights."""
    output: str
    """ggml type of the output layer."""
    bits_per_weight: float
    """Over the whole file, for a model without an unusual share of output layer."""

    @property
    def is_float(self) -> bool:
        """Whether the main type is not quantised."""
        return self.main in _FLOATS


def find_file_type(text: str) -> str | None:
    """The file type that a text names, such as ``Q4_K_M`` in a file's name; None without one."""
    plain = text.upper().replace("-", "_") if " - " not in text else text.upper()
    for words, suffix in _LLAMA_BENCH.items():
        plain = plain.replace(words, suffix)
    found = _NAME.findall(plain)
    return str(found[-1]).rstrip("_") if found else None


def tensor_types(file_type: str) -> TensorTypes:
    """The element types behind a file type; of one that nobody knows, those of ``Q4_K_M``."""
    name = file_type.upper()
    main = _MAIN.get(name) or re.sub(r"(?<=_K)_(S|M|L|XL)$", "", name)
    if main not in _ELEMENT_BITS:
        return tensor_types("Q4_K_M")
    bits = _ELEMENT_BITS[main]
    return TensorTypes(
        main=main,
        output=main if bits > _FINE_BITS else "Q6_K",
        bits_per_weight=_BITS.get(name, bits),
    )


def element_bits(type_name: str) -> float:
    """Bits per element of a ggml type."""
    return _ELEMENT_BITS[type_name]
