"""Telemetry of machines that never existed: what physics says, times what nobody writes down."""

from __future__ import annotations

import itertools

import numpy as np

from autotune.domain.imported import ImportedTest
from autotune.domain.run import Reason
from autotune.domain.study import Observation
from autotune.facts.imported import observe_tests

_MODELS = (
    ("llama 1B Q4_0", 1_235_814_400), ("qwen2 3B Q4_0", 3_085_938_688),
    ("llama 8B Q4_0", 8_030_261_248), ("qwen2 14B Q4_0", 14_770_033_664),
    ("gemma2 9B Q4_0", 9_241_705_984), ("qwen3moe 30B.A3B Q4_0", 30_532_122_624),
)  # fmt: skip
_GPUS = (
    ("NVIDIA GeForce RTX 3090", 936e9, 71e12), ("NVIDIA GeForce RTX 4090", 1008e9, 165e12),
    ("NVIDIA A100-SXM4-80GB", 2039e9, 312e12), ("NVIDIA GeForce RTX 3060", 360e9, 25e12),
)  # fmt: skip
_EFFICIENCY = 0.7
_LAUNCH_S = 1e-3
"""Per token: what small models are bound by."""


def strangers_tests(*, seed: int = 0, fails: bool = False) -> list[ImportedTest]:
    """Prompt and generation tests of six models on four GPUs, with 2 % noise.

    With ``fails``, the largest model's long prompts never succeed.
    """
    random = np.random.default_rng(seed)
    return [
        _test(model, gpu, n_prompt, n_gen, flash, random, fails)
        for model, gpu, flash in itertools.product(_MODELS, _GPUS, ("off", "on"))
        for n_prompt, n_gen in ((128, 0), (512, 0), (2048, 0), (0, 32), (0, 128))
    ]


def _test(
    model: tuple[str, int],
    gpu: tuple[str, float, float],
    n_prompt: int,
    n_gen: int,
    flash: str,
    random: np.random.Generator,
    fails: bool,
) -> ImportedTest:
    (model_type, n_params), (name, read, flops) = model, gpu
    n_bytes = int(n_params * 0.58)
    share = 0.11 if "A3B" in model_type else 1.0
    noise = np.exp(random.normal(0, 0.02)) * (1.05 if flash == "off" else 1.0)
    if n_gen:
        tps = 1 / ((n_bytes * share / read / _EFFICIENCY + _LAUNCH_S) * noise)
    else:
        tps = n_prompt / ((2 * n_params * share * n_prompt / flops / _EFFICIENCY + 0.01) * noise)
    failed = fails and n_prompt == 2048 and n_params > 14e9
    return ImportedTest(
        source="nobody", machine=name, gpu=name, api="CUDA", build="100",
        model=model_type.replace(" ", "-"), model_type=model_type, model_bytes=n_bytes,
        n_params=n_params, quantization="Q4_0", n_prompt=n_prompt, n_gen=n_gen, n_threads=8,
        n_batch=2048, n_ubatch=512, n_gpu_layers=99, flash_attn=flash,
        tps=None if failed else tps, reason=Reason.CRASH if failed else None,
    )  # fmt: skip


def strangers(*, seed: int = 0, fails: bool = False) -> tuple[Observation, ...]:
    """The same as observations."""
    observations, problems = observe_tests(strangers_tests(seed=seed, fails=fails))
    assert not problems
    return observations
