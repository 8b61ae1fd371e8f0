"""What a request touches of the memory that was reserved for the worst case."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.domain.config import Config
from autotune.domain.model import ModelFacts
from autotune.domain.workload import Workload
from autotune.facts.plan import MemoryPlanner
from autotune.facts.touched import Batch, TouchedMemory, largest_batches
from tests.factories import make_model

SLIDING = make_model(
    model_id="slides", architecture="gemma3", n_layers=6, n_heads=(4,) * 6, n_heads_kv=(1,) * 6,
    sliding_window=512, is_sliding=(True, True, False) * 2, n_vocab=50_000,
)  # fmt: skip
MODELS = {"dense": make_model(n_vocab=32_000), "sliding": SLIDING}
UBATCHES = (16, 32, 64, 128, 256, 512, 1024, 2048)

configs = st.builds(
    lambda n_ctx, flash_attn: Config(n_ctx=n_ctx, n_batch=2048, n_ubatch=16, flash_attn=flash_attn),
    n_ctx=st.integers(8, 64).map(lambda blocks: 256 * blocks),
    flash_attn=st.sampled_from(["off", "on"]),
)
workloads = st.builds(
    Workload, n_prompt=st.integers(0, 1500), n_gen=st.just(4), n_depth=st.sampled_from([0, 300])
)


def test_a_request_is_computed_in_full_batches_and_a_rest() -> None:
    """Only the last full batch counts: it attends to more tokens than those before it."""
    workload = Workload(n_prompt=600, n_gen=8, n_depth=1000)

    assert [*largest_batches(workload, 512)] == [
        Batch(1, 1), Batch(512, 512), Batch(488, 1000), Batch(512, 1512), Batch(88, 1600),
    ]  # fmt: skip
    assert [*largest_batches(Workload(n_prompt=0, n_gen=8), 512)] == [Batch(1, 1)]


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@given(config=configs, workload=workloads)
def test_more_room_is_never_less_memory(
    model: ModelFacts, config: Config, workload: Workload
) -> None:
    """Doubling the physical batch spreads tensors and lengthens them, never the reverse."""
    touched = TouchedMemory(model)
    sizes = [touched.n_bytes(config.replace(n_ubatch=n), workload) for n in UBATCHES]

    assert sizes == sorted(sizes)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@given(config=configs, n_prompt=st.integers(1, 1024))
def test_a_longer_prompt_never_touches_less(
    model: ModelFacts, config: Config, n_prompt: int
) -> None:
    """Twice the prompt: the same batches and more."""
    touched = TouchedMemory(model)
    sizes = [
        touched.n_bytes(config.replace(n_ubatch=512), Workload(n_prompt=n, n_gen=1))
        for n in (n_prompt, 2 * n_prompt)
    ]

    assert sizes == sorted(sizes)


@pytest.mark.parametrize("flash_attn", ["off", "on"])
def test_logits_of_a_prompt_are_reserved_but_not_touched(flash_attn: str) -> None:
    """32,000 words × 512 tokens × 4 bytes are 62 MiB that no prompt ever writes."""
    config = Config(n_ctx=1024, flash_attn=flash_attn)
    reserved = MemoryPlanner(MODELS["dense"]).plan(config).total_bytes(component="compute")
    touched = TouchedMemory(MODELS["dense"])

    assert reserved > 512 * 32_000 * 4
    assert touched.n_bytes(config, Workload(n_prompt=512, n_gen=4)) < reserved / 4
    assert touched.n_bytes(config, Workload(n_prompt=16, n_gen=4)) < reserved / 40


def test_a_turned_cache_changes_little() -> None:
    """Its matrices are small and always written."""
    plain, turned = (
        TouchedMemory(MODELS["dense"]).n_bytes(
            Config(n_ctx=1024, flash_attn="on", type_k=kv_type, type_v=kv_type),
            Workload(n_prompt=256),
        )
        for kv_type in ("f16", "q8_0")
    )

    assert turned == pytest.approx(plain, rel=0.2)
