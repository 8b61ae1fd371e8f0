"""Search spaces enumerate legal points once."""

from __future__ import annotations

from autotune.domain.config import Config
from autotune.domain.space import Parameter, SearchSpace


def test_illegal_points_are_left_out_and_the_base_comes_first() -> None:
    """A quantised value cache without flash attention is never offered."""
    space = SearchSpace(
        base=Config(),
        parameters=(
            Parameter(knob="flash_attn", values=("off", "on")),
            Parameter(knob="type_v", values=("f16", "q8_0")),
        ),
    )
    configs = space.configs()

    assert configs[0] == Config()
    assert {(c.flash_attn, c.type_v) for c in configs} == {
        ("off", "f16"),
        ("on", "f16"),
        ("on", "q8_0"),
    }


def test_points_that_mean_the_same_are_folded() -> None:
    """Each configuration appears once, and the logical batch follows the physical one."""
    space = SearchSpace(
        base=Config(), parameters=(Parameter(knob="n_ubatch", values=(512, 1024, 512)),)
    )

    assert [(c.n_ubatch, c.n_batch) for c in space.configs()] == [(512, 512), (1024, 1024)]
