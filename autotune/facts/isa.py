"""Instruction-set extensions under one name, whatever a system calls them.

Only those that ggml has kernels for (``ggml_cpu_has_…`` in ``ggml-cpu.c``).
"""

from __future__ import annotations

from collections.abc import Iterable

_OTHER_NAMES = {
    # Linux, x86 flags
    "pni": "sse3",
    "avx512vbmi": "avx512_vbmi",
    # llama.cpp's own words
    "avx512": "avx512f",
    "fp16_va": "fp16",
    "matmul_int8": "i8mm",
    # Linux, ARM features
    "asimd": "neon",
    "asimddp": "dotprod",
    "asimdhp": "fp16",
    # macOS, machdep.cpu.features and leaf7_features
    "avx1.0": "avx",
    "avx512vnni": "avx512_vnni",
    # macOS, hw.optional
    "advsimd": "neon",
    "feat_dotprod": "dotprod",
    "feat_fp16": "fp16",
    "feat_i8mm": "i8mm",
    "feat_sme": "sme",
    # Linux, RISC-V and POWER and Z
    "v": "riscv_v",
    "vx": "vxe",
}
_KNOWN = frozenset(
    (
        *("sse3", "ssse3", "avx", "avx2", "avx_vnni", "fma", "f16c", "bmi2", "amx_int8"),
        *("avx512f", "avx512bw", "avx512_vbmi", "avx512_vnni", "avx512_bf16"),
        *("neon", "dotprod", "fp16", "i8mm", "sve", "sme", "riscv_v", "vsx", "vxe"),
    )
)


def normalise_isa(words: Iterable[str]) -> tuple[str, ...]:
    """The known extensions among ``words`` under our names, sorted and without repeats."""
    lower = (word.lower() for word in words)
    return tuple(sorted({_OTHER_NAMES.get(word, word) for word in lower} & _KNOWN))
