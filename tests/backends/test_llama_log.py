"""llama.cpp's log lines, as recorded from the library, read into values."""

from __future__ import annotations

import pytest

from autotune.backends.llama_log import read_problems, read_reason, read_report
from autotune.domain.run import Reason
from autotune.domain.units import MIB

CPU = """\
load_tensors:   CPU_Mapped model buffer size =   235.16 MiB
load_tensors:   CPU_REPACK model buffer size =    12.66 MiB
llama_context: n_ctx                 = 1024
llama_context: flash_attn            = disabled
llama_context:        CPU  output buffer size =     1.00 MiB
llama_kv_cache:        CPU KV buffer size =     3.00 MiB
llama_kv_cache:        CPU KV buffer size =    15.00 MiB
sched_reserve:        CPU compute buffer size =   514.50 MiB
"""
CUDA = """\
load_tensors: offloading 32 repeating layers to GPU
load_tensors: offloaded 33/33 layers to GPU
load_tensors:   CPU_Mapped model buffer size =   281.81 MiB
load_tensors:        CUDA0 model buffer size =  4403.49 MiB
llama_context: flash_attn            = auto
resolve_fused_ops: Flash Attention enabled
llama_kv_cache:      CUDA0 KV buffer size =   512.00 MiB
sched_reserve:      CUDA0 compute buffer size =   258.50 MiB
sched_reserve:  CUDA_Host compute buffer size =    24.01 MiB
"""
VULKAN = """\
init:    Vulkan0 KV buffer size = 19200.00 MiB
llama_context:    Vulkan0 compute buffer size =  1174.00 MiB
llama_context: Vulkan_Host compute buffer size =    18.01 MiB
"""
"""From llama.cpp issue 12728 (2025-04)."""
VULKAN_FULL = """\
ggml_vulkan: Device memory allocation of size 2166360064 failed.
ggml_vulkan: Requested buffer size exceeds device memory allocation limit: ErrorOutOfDeviceMemory
ggml_gallocr_reserve_n: failed to allocate Vulkan0 buffer of size 2166360064
"""
CUDA_2024 = """\
llm_load_tensors: offloaded 49/49 layers to GPU
llm_load_tensors:        CPU buffer size =   315.30 MiB
"""
"""From a log of an RTX 3090 Ti in ik_llama.cpp pull request 370."""


PROGRAM = """\
0.00.005.646 W srv  llama_server: security: no API key is set
0.00.007.975 E gguf_init_from_reader: invalid magic characters: 'not ', expected 'GGUF'
0.00.008.150 I srv    load_model: preserve_reasoning kwarg: not supported, cannot be used
"""
PROGRAM_2024 = """\
llama_model_loader: loaded meta data with 33 key-value pairs
llama_model_load: error loading model: unknown model architecture: 'nonesuch'
"""


def test_a_programs_problems_are_told_by_level_else_by_their_words() -> None:
    """What it says for information is no problem, whatever its words."""
    magic = "gguf_init_from_reader: invalid magic characters: 'not ', expected 'GGUF'"

    assert read_problems(PROGRAM) == [magic]
    assert read_problems(PROGRAM, "WE") == [
        "srv  llama_server: security: no API key is set", magic
    ]  # fmt: skip
    (line,) = read_problems(PROGRAM_2024)
    assert read_reason([line], otherwise=Reason.LOAD_ERROR) is Reason.UNSUPPORTED


def test_a_vulkan_log_is_read_by_the_same_code() -> None:
    """Its devices have other names, nothing else."""
    report = read_report(VULKAN.splitlines(keepends=True))

    assert report.total_bytes("kv") == 19200 * MIB
    assert {b.device for b in report.buffers} == {"Vulkan0", "Vulkan_Host"}
    assert read_reason(VULKAN_FULL.splitlines(), otherwise=Reason.CRASH) is Reason.OOM


def test_older_builds_are_read_too() -> None:
    """A buffer without a kind holds the model."""
    report = read_report(CUDA_2024.splitlines(keepends=True))

    assert report.total_bytes("model") == round(315.3 * MIB)
    assert (report.layers_offloaded, report.layers_total) == (49, 49)


def test_a_processor_log_names_buffers_by_kind() -> None:
    """Several buffers of a kind add up; nothing was offloaded."""
    report = read_report(CPU.splitlines(keepends=True))

    assert report.total_bytes("kv") == 18 * MIB
    assert report.total_bytes("compute") == round(514.5 * MIB)
    assert report.total_bytes("recurrent") is None
    assert (report.flash_attn, report.n_ctx, report.layers_offloaded) == (False, 1024, None)


def test_a_gpu_log_names_devices_and_layers() -> None:
    """What auto became, and how many layers really moved."""
    report = read_report(CUDA.splitlines(keepends=True))

    assert (report.layers_offloaded, report.layers_total) == (33, 33)
    assert report.flash_attn is True
    assert {b.device for b in report.buffers} == {"CPU_Mapped", "CUDA0", "CUDA_Host"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("error loading model: unknown model architecture: 'nonesuch'", Reason.UNSUPPORTED),
        ("ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer", Reason.OOM),
        ("quantized V cache requires flash_attn to be enabled", Reason.CONSTRAINT),
        ("error loading model: tensor 'x' data is not within the file bounds", Reason.LOAD_ERROR),
    ],
)
def test_the_engines_words_decide_the_reason(line: str, reason: Reason) -> None:
    """Known phrases are evidence; anything else stays what the caller knows."""
    assert read_reason([line], otherwise=Reason.LOAD_ERROR) is reason
