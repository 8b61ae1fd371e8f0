"""The plan is what the engine's own dry run says, for real models and real shapes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from autotune.domain.config import Config
from autotune.domain.units import MIB
from autotune.facts.gguf import read_model
from autotune.facts.plan import MemoryPlanner
from tests.facts.dry_run import dry_run
from tests.facts.shapes import deepseek, dense, jamba

PRINTED = 0.011
"""The engine prints hundredths of a MiB."""


def grid(
    *,
    n_ctx: Sequence[int] = (512, 3000, 4096, 8192, 32768),
    n_ubatch: Sequence[int] = (16, 64, 128, 512),
    types: Sequence[tuple[str, str]] = (("f16", "f16"), ("q8_0", "f16"), ("q8_0", "q4_0")),
    **more: Sequence[Any],
) -> Iterator[Config]:
    """Every legal combination, with and without flash attention."""
    names, values = [*more], itertools.product(*more.values())
    extras = [dict(zip(names, each, strict=True)) for each in values]
    for ctx, ubatch, flash, (type_k, type_v), extra in itertools.product(
        n_ctx, n_ubatch, ("off", "on"), types, extras
    ):
        if flash == "off" and type_v != "f16":
            continue
        yield Config(
            n_ctx=ctx,
            n_batch=min(ctx, 2048),
            n_ubatch=ubatch,
            flash_attn=flash,
            type_k=type_k,
            type_v=type_v,
            **extra,
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """One component of one configuration, planned and asked for, in MiB."""

    config: Config
    component: str
    plan: float
    engine: float

    @property
    def error(self) -> float:
        """Distance in MiB."""
        return abs(self.plan - self.engine)


def compare(path: Path, configs: Sequence[Config]) -> list[Comparison]:
    """Every component of every configuration."""
    planner = MemoryPlanner(read_model(path))
    engine = dry_run(path, [config.as_dict() for config in configs])
    assert all(sizes["compute"] > 0 for sizes in engine)
    return [
        Comparison(
            config,
            component,
            planner.plan(config).total_bytes(component=component) / MIB,
            sizes[component],
        )
        for config, sizes in zip(configs, engine, strict=True)
        for component in ("kv", "recurrent", "compute", "output")
    ]


def test_smollm2_is_planned_to_the_byte(smollm2_path: Path) -> None:
    """100 configurations of a dense model."""
    assert [c for c in compare(smollm2_path, list(grid())) if c.error > PRINTED] == []


def test_gemma3_is_planned_to_the_byte(gemma3_path: Path) -> None:
    """200 configurations of a model with sliding windows, whose two caches are rounded apart."""
    configs = list(grid(swa_full=(True, False)))
    assert [c for c in compare(gemma3_path, configs) if c.error > 2 * PRINTED] == []


def test_parallel_sequences_have_caches_of_their_own(smollm2_path: Path) -> None:
    """Each is rounded up to 256 cells by itself."""
    configs = list(grid(n_ctx=(512, 3000, 8192), n_ubatch=(60,), n_parallel=(1, 2, 3, 5)))
    assert [c for c in compare(smollm2_path, configs) if c.error > PRINTED] == []


def test_automatic_flash_attention_is_on(smollm2_path: Path) -> None:
    """The processor supports it, so the engine takes it."""
    configs = [Config(n_ctx=8192, flash_attn="auto")]
    assert [c for c in compare(smollm2_path, configs) if c.error > PRINTED] == []


SHAPES: dict[str, Callable[[Path], Path]] = {
    "llama-3-8b": dense,
    "qwen3-0.6b": partial(
        dense,
        architecture="qwen3",
        n_embd=1024,
        n_heads=16,
        n_ff=3072,
        n_vocab=151_936,
    ),
    "gemma3-4b": partial(
        dense,
        architecture="gemma3",
        n_layers=12,
        n_embd=2560,
        n_heads=8,
        n_heads_kv=4,
        head=256,
        n_ff=10_240,
        n_vocab=262_208,
        attention__sliding_window=1024,
    ),
    "mixtral-8x7b": partial(dense, n_vocab=32_000, n_experts=8, n_used=2),
    "qwen3-30b-a3b": partial(
        dense,
        architecture="qwen3moe",
        n_embd=2048,
        n_heads_kv=4,
        n_ff=768,
        n_vocab=151_936,
        n_experts=128,
        n_used=8,
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_common_shapes_are_planned_exactly(tmp_path: Path, name: str) -> None:
    """Caches within hundredths of a MiB, compute buffers within half a percent."""
    path = SHAPES[name](tmp_path / f"{name}.gguf")
    swa_full = (True, False) if name.startswith("gemma") else (True,)
    configs = list(grid(n_ctx=(512, 4096, 32768), n_ubatch=(64, 512), swa_full=swa_full))
    for c in compare(path, configs):
        share = 0.005 if c.component == "compute" else 0.0
        assert c.error <= max(2 * PRINTED, share * c.engine), c


@pytest.mark.parametrize(("write", "share"), [(jamba, 0.12), (deepseek, 0.35)])
def test_uncommon_shapes_have_exact_caches(
    tmp_path: Path, write: Callable[[Path], Path], share: float
) -> None:
    """Recurrent states and compressed caches are exact, compute buffers a fair estimate."""
    path = write(tmp_path / "model.gguf")
    configs = list(grid(n_ctx=(512, 8192), n_ubatch=(64, 512), types=(("f16", "f16"),)))
    for c in compare(path, configs):
        allowed = share * c.engine if c.component == "compute" else PRINTED
        assert c.error <= allowed, c
