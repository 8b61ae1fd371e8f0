"""The cost of a lossy knob: its summary, its reference, and what cannot be asked for."""

from __future__ import annotations

import pytest

from autotune.domain.config import Config
from autotune.domain.errors import ConfigError
from autotune.domain.quality import QualityCost, reference_of, require_cacheable
from tests.factories import make_model


def test_positions_become_a_mean_a_tail_and_a_share() -> None:
    """Of 101 positions the one of rank 99 is the 99th percentile."""
    kl = [position / 100 for position in range(101)]
    cost = QualityCost.of(kl[::-1], [position % 4 > 0 for position in range(1, 102)])

    assert cost.kl_mean == pytest.approx(0.5)
    assert cost.kl_p99 == pytest.approx(0.99)
    assert cost.top1_agreement == pytest.approx(76 / 101)
    assert cost.n_tokens == 101


def test_the_reference_differs_in_its_cache_alone() -> None:
    """Threads, batches and flash attention stay, so that they cost nothing."""
    config = Config(n_threads=3, flash_attn="on", type_k="q4_0", type_v="q8_0")

    assert config.differences(reference_of(config)) == {
        "type_k": ("q4_0", "f16"),
        "type_v": ("q8_0", "f16"),
    }


@pytest.mark.parametrize(
    ("lengths", "config", "knob"),
    [
        ({"key_length": 80}, Config(type_k="q8_0"), "type_k"),
        ({"value_length": 80}, Config(flash_attn="on", type_v="q4_0"), "type_v"),
        ({"key_length_sliding": 80}, Config(type_k="iq4_nl"), "type_k"),
    ],
)
def test_heads_that_blocks_do_not_divide_are_refused(
    lengths: dict[str, int], config: Config, knob: str
) -> None:
    """One line with the knob, the reason and the cure."""
    with pytest.raises(
        ConfigError, match=rf"{knob}=.* blocks of 32 .* heads of 80: use {knob}=f16"
    ):
        require_cacheable(make_model(**lengths), config)


@pytest.mark.parametrize(
    ("lengths", "config"),
    [
        ({"key_length": 80}, Config(flash_attn="on", type_v="q8_0")),
        ({"key_length": 80, "value_length": 80}, Config(type_k="bf16", type_v="f32")),
        ({"key_length": 96}, Config(type_k="q8_0")),
    ],
)
def test_what_fits_or_is_not_packed_is_left_alone(lengths: dict[str, int], config: Config) -> None:
    """A cache without blocks takes heads of any size."""
    require_cacheable(make_model(**lengths), config)
