"""The memory plan: known figures, where things go, and what may never happen."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.domain.config import Config
from autotune.domain.machine import GPUFacts
from autotune.domain.model import ModelFacts, TensorSum
from autotune.domain.plan import COMPONENTS
from autotune.domain.units import GIB, MIB
from autotune.facts.gguf import read_model
from autotune.facts.placement import Run, place_layers
from autotune.facts.plan import MemoryPlanner, plan_memory
from autotune.facts.weights import repacked_types
from tests.factories import make_model

GPUS = (
    GPUFacts(name="A", total_bytes=24 * GIB, free_bytes=24 * GIB, device="CUDA0"),
    GPUFacts(name="B", total_bytes=8 * GIB, free_bytes=8 * GIB, device="CUDA1"),
)
AVX2 = repacked_types(("avx2",))


def mib(model: ModelFacts, component: str, **knobs: Any) -> float:
    """One component of a plan, in MiB, as the engine would print it."""
    config = Config(n_batch=512, n_ubatch=512, **{"n_ctx": 4096, **knobs})
    return round(plan_memory(model, config).total_bytes(component=component) / MIB, 2)


def test_logged_figures_are_reproduced(smollm2_path: Path, gemma3_path: Path) -> None:
    """What llama.cpp printed for these two files."""
    smollm2, gemma3 = read_model(smollm2_path), read_model(gemma3_path)
    assert mib(smollm2, "weights") == 92.1
    assert mib(smollm2, "kv") == 90.0
    assert mib(smollm2, "output") == 0.19
    assert mib(smollm2, "compute", flash_attn="on") == 98.25
    assert mib(smollm2, "compute", n_ctx=8192) == 166.38
    assert mib(gemma3, "weights") == 235.16
    assert mib(gemma3, "kv", n_ctx=8192) == 144.0
    assert mib(gemma3, "kv", n_ctx=8192, swa_full=False) == 39.0
    assert mib(gemma3, "compute", flash_attn="on") == 514.5


def test_a_quantised_cache_is_smaller_by_its_blocks(smollm2_path: Path) -> None:
    """34 bytes for 32 elements instead of 64."""
    model = read_model(smollm2_path)
    assert mib(model, "kv", type_k="q8_0", type_v="q8_0", flash_attn="on") == round(90 * 34 / 64, 2)


def test_repacked_weights_are_counted_twice_only_when_mapped(gemma3_path: Path) -> None:
    """A mapped original keeps its pages; a read one is moved. Measured: 12.66 MiB of Q4_K."""
    model = read_model(gemma3_path)
    mapped = plan_memory(model, Config(), repacks=AVX2)
    read = plan_memory(model, Config(use_mmap=False), repacks=AVX2)
    for plan in (mapped, read):
        assert round(plan.total_bytes(component="repack") / MIB, 2) == 12.66
    assert round(mapped.total_bytes(component="weights") / MIB, 2) == 235.16
    assert round(read.total_bytes(component="weights") / MIB, 2) == 222.51


@pytest.mark.parametrize(
    ("isa", "types"),
    [
        ((), set()),
        (("avx",), set()),
        (("avx2", "fma"), {"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"}),
        (("avx2", "avx512f"), {"Q4_0", "Q4_K", "IQ4_NL", "MXFP4", "Q2_K"}),
        (("neon",), set()),
        (
            ("dotprod", "neon"),
            {"Q4_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "MXFP4", "Q8_0", "Q1_0"},
        ),
    ],
)
def test_the_processor_decides_what_is_repacked(isa: tuple[str, ...], types: set[str]) -> None:
    """As ``ggml_repack_get_optimal_repack_type`` has it; Q4_1 is in none of the lists."""
    assert repacked_types(isa) == types


def test_a_tied_embedding_is_copied_for_the_output_layer() -> None:
    """It is looked up in the original and multiplied from the copy, if its rows fit."""
    embedding = TensorSum(
        group="embedding", type="Q4_0", n_tensors=1, n_elements=64_000, n_bytes=36_000
    )
    tied = make_model(tensors=(embedding,), n_vocab=1000)
    config = Config(use_mmap=False)
    assert plan_memory(tied, config, repacks=AVX2).total_bytes(component="repack") == 36_000
    assert plan_memory(tied, config, repacks=AVX2).total_bytes(component="weights") == 36_000
    odd = replace(tied, model_id="odd", n_vocab=1001)
    assert plan_memory(odd, config, repacks=AVX2).total_bytes(component="repack") == 0
    untied = replace(
        tied, model_id="untied", tensors=(embedding, replace(embedding, group="output"))
    )
    assert plan_memory(untied, config, repacks=AVX2).total_bytes(component="repack") == 36_000


def test_without_flash_attention_values_are_as_wide_as_the_widest_layer() -> None:
    """V is stored transposed then, and every layer gets the same rows."""
    model = make_model(n_heads_kv=(1, 2, 2, 4), model_id="uneven")
    cells, bytes_ = 4096, 2
    key, value = 9 * 64, 9 * 64
    assert mib(model, "kv", flash_attn="on") == cells * (key + value) * bytes_ / MIB
    assert mib(model, "kv") == cells * (key + 4 * 4 * 64) * bytes_ / MIB


def test_layers_go_to_the_gpu_from_the_last_one(smollm2_path: Path) -> None:
    """The output layer first: a tied embedding is copied for it."""
    model = read_model(smollm2_path)
    one = plan_memory(model, Config(n_gpu_layers=1), gpus=GPUS[:1])
    embedding = sum(t.n_bytes for t in model.tensors if t.group == "embedding")
    last_norm = 4 * model.n_embd
    assert one.total_bytes(component="weights", device="CUDA0") == embedding + last_norm
    two = plan_memory(model, Config(n_gpu_layers=2), gpus=GPUS[:1])
    moved = two.total_bytes(component="weights", device="CUDA0")
    assert moved - embedding - last_norm == model.layer_bytes[-1]
    everything = plan_memory(model, Config(n_gpu_layers=-1), gpus=GPUS[:1])
    assert everything.total_bytes(component="weights", device="CPU") == embedding
    assert everything == plan_memory(model, Config(n_gpu_layers=99), gpus=GPUS[:1])


def test_the_cache_follows_its_layers_unless_it_is_kept(smollm2_path: Path) -> None:
    """``offload_kqv=False`` leaves all of it in the machine's memory."""
    model = read_model(smollm2_path)
    half = Config(n_gpu_layers=16)
    split = plan_memory(model, half, gpus=GPUS[:1])
    assert split.total_bytes(component="kv", device="CUDA0") == 45 * MIB
    assert split.total_bytes(component="kv", device="CPU") == 45 * MIB
    kept = plan_memory(model, half.replace(offload_kqv=False), gpus=GPUS[:1])
    assert kept.total_bytes(component="kv", device="CPU") == 90 * MIB


def test_several_gpus_share_by_free_memory_or_as_told() -> None:
    """Three quarters and a quarter of 32 slots, or the shares that the configuration names."""
    runs = place_layers(Config(n_gpu_layers=-1), 31, gpus=GPUS).runs
    assert runs == (
        Run(device="CUDA0", first=0, end=24),
        Run(device="CUDA1", first=24, end=31),
    )
    told = place_layers(Config(n_gpu_layers=16, tensor_split=(1.0, 1.0)), 31, gpus=GPUS)
    assert [(run.device, run.first) for run in told.runs] == [
        ("CPU", 0),
        ("CUDA0", 16),
        ("CUDA1", 24),
    ]
    assert told.output == "CUDA1"
    alone = place_layers(Config(n_gpu_layers=-1, split_mode="none", main_gpu=1), 31, gpus=GPUS)
    assert alone.devices == ("CPU", "CUDA1")


def test_a_gpu_that_the_engine_cannot_use_holds_nothing() -> None:
    """A driver may see a GPU that this build of the engine was not compiled for."""
    unusable = (GPUFacts(name="A", total_bytes=24 * GIB),)
    plan = plan_memory(make_model(), Config(n_gpu_layers=-1), gpus=unusable, repacks=AVX2)
    assert plan.vram_bytes == 0
    assert plan == plan_memory(make_model(), Config(), repacks=AVX2)


def test_a_build_that_sees_a_gpu_repacks_nothing(gemma3_path: Path) -> None:
    """Even with every layer on the processor: the GPU's host buffer is asked first."""
    plan = plan_memory(read_model(gemma3_path), Config(), repacks=AVX2, gpus=GPUS)
    assert plan.total_bytes(component="repack") == 0


CONFIGS = st.builds(
    lambda n_ctx, n_ubatch, **knobs: Config(
        n_ctx=n_ctx, n_batch=min(n_ctx, 512), n_ubatch=min(n_ubatch, n_ctx, 512), **knobs
    ),
    n_ctx=st.integers(1, 40_000),
    n_ubatch=st.integers(1, 512),
    flash_attn=st.sampled_from(["on", "auto"]),
    type_k=st.sampled_from(["f32", "f16", "q8_0", "q4_0"]),
    type_v=st.sampled_from(["f32", "f16", "q8_0", "q4_0"]),
    n_gpu_layers=st.integers(-1, 8),
    offload_kqv=st.booleans(),
    use_mmap=st.booleans(),
    swa_full=st.booleans(),
    n_parallel=st.integers(1, 4),
)
MODEL = make_model(
    model_id="hybrid",
    sliding_window=512,
    is_sliding=(True, False, True, False),
    is_recurrent=(False, False, False, True),
    state_elements=1000,
)


@given(CONFIGS)
def test_a_plan_is_positive_and_adds_up(config: Config) -> None:
    """Every entry has a known component and bytes; host and GPU are all of it."""
    plan = plan_memory(MODEL, config, gpus=GPUS, repacks=AVX2)
    assert all(entry.n_bytes > 0 and entry.component in COMPONENTS for entry in plan.entries)
    assert plan.host_bytes + plan.vram_bytes == plan.total_bytes()
    assert plan.total_bytes(component="weights") >= MODEL.weight_bytes


@given(CONFIGS)
def test_more_context_never_takes_less(config: Config) -> None:
    """Twice the window: cache and compute buffer grow or stay."""
    longer = config.replace(n_ctx=2 * config.n_ctx)
    for component in ("kv", "recurrent", "weights"):
        before = plan_memory(MODEL, config).total_bytes(component=component)
        assert plan_memory(MODEL, longer).total_bytes(component=component) >= before


@given(CONFIGS)
def test_a_window_never_takes_more_than_the_whole(config: Config) -> None:
    """The sliding cache is at most as long as the full one."""
    full = plan_memory(MODEL, config.replace(swa_full=True))
    window = plan_memory(MODEL, config.replace(swa_full=False))
    assert window.total_bytes(component="kv") <= full.total_bytes(component="kv")


@given(CONFIGS, st.integers(0, 4))
def test_every_layer_is_somewhere(config: Config, n_layers: int) -> None:
    """Without GPUs, with one, with two: runs cover all layers, in order, without gaps."""
    for gpus in ((), GPUS[:1], GPUS):
        runs = place_layers(config, n_layers + 1, gpus=gpus).runs
        assert [run.first for run in runs] == [0, *(run.end for run in runs[:-1])]
        assert runs[-1].end == n_layers + 1


def test_thousands_of_configurations_are_planned_at_once(gemma3_path: Path) -> None:
    """2,000 in a twentieth of a second of processor time, usually in half of that."""
    planner = MemoryPlanner(read_model(gemma3_path))
    configs = [
        Config(n_ctx=n_ctx, n_ubatch=n_ubatch, flash_attn=flash, n_threads=n_threads)
        for n_ctx in (1024, 2048, 4096, 8192, 16384)
        for n_ubatch in (32, 64, 128, 256, 512)
        for flash in ("on", "off")
        for n_threads in range(1, 41)
    ]
    seconds = []
    for _ in range(5):
        started = time.process_time()
        for config in configs:
            planner.plan(config)
        seconds.append(time.process_time() - started)
    assert len(configs) == 2000
    assert min(seconds) < 0.05
