"""A configuration in llama.cpp's own words: the parameters of a model and of a context."""

from __future__ import annotations

import ctypes
from typing import Any

from autotune.domain.config import Config

_KV_TYPES = {
    "f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "iq4_nl": 20,
    "bf16": 30,
}  # fmt: skip
"""ggml_type numbers."""
_FLASH_ATTN = {"auto": -1, "off": 0, "on": 1}
_SPLIT_MODES = {"none": 0, "layer": 1, "row": 2, "tensor": 3}
_LOAD_MODES = {(False, False): 0, (True, False): 1, (False, True): 2, (True, True): 3}
"""llama_load_mode by (use_mmap, use_mlock): none, mmap, mlock, mmap and mlock."""

LOAD_MODE_WORDS = {
    (False, False): "none", (True, False): "mmap", (False, True): "mlock",
    (True, True): "mmap+mlock",
}  # fmt: skip
"""What llama.cpp's programs call these modes: ``--load-mode``."""


def model_params(llama: Any, config: Config) -> Any:
    """``llama_model_params`` of a configuration."""
    params = llama.llama_model_default_params()
    params.n_gpu_layers = config.n_gpu_layers
    params.split_mode = _SPLIT_MODES[config.split_mode]
    params.main_gpu = config.main_gpu
    params.load_mode = _LOAD_MODES[config.use_mmap, config.use_mlock]
    if config.tensor_split:
        shares = (ctypes.c_float * llama.llama_max_devices())(*config.tensor_split)
        params.tensor_split = shares
        params._keep_alive = shares
    return params


def context_params(llama: Any, config: Config) -> Any:
    """``llama_context_params`` of a configuration."""
    params = llama.llama_context_default_params()
    params.n_ctx = config.n_ctx
    params.n_batch = config.n_batch
    params.n_ubatch = config.n_ubatch
    params.n_seq_max = config.n_parallel
    params.n_threads = config.n_threads
    params.n_threads_batch = config.n_threads_batch
    params.flash_attn_type = _FLASH_ATTN[config.flash_attn]
    params.type_k = _KV_TYPES[config.type_k]
    params.type_v = _KV_TYPES[config.type_v]
    params.offload_kqv = config.offload_kqv
    params.op_offload = config.op_offload
    params.swa_full = config.swa_full
    return params
