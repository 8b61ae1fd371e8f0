"""Configurations: what is legal, what is equal, what a person may type."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.domain.config import KV_BYTES_PER_ELEMENT, Config, parse_changes
from autotune.domain.errors import ConfigError

configs = st.builds(
    Config,
    n_ctx=st.integers(2048, 65536),
    n_batch=st.integers(512, 2048),
    n_ubatch=st.integers(1, 512),
    n_threads=st.integers(1, 128),
    n_threads_batch=st.integers(1, 128),
    flash_attn=st.sampled_from(["on", "auto"]),
    type_k=st.sampled_from(sorted(KV_BYTES_PER_ELEMENT)),
    type_v=st.sampled_from(sorted(KV_BYTES_PER_ELEMENT)),
    use_mmap=st.booleans(),
    n_gpu_layers=st.integers(-1, 99),
    tensor_split=st.none() | st.tuples(st.floats(0, 1), st.floats(0, 1)),
)


@given(configs)
def test_a_configuration_survives_the_way_to_json_and_back(config: Config) -> None:
    """from_dict is the inverse of as_dict, and the identity stays."""
    again = Config.from_dict(config.as_dict())

    assert again == config
    assert again.config_id == config.config_id


@given(configs, configs)
def test_equal_identity_means_equal_configuration(ours: Config, theirs: Config) -> None:
    """Two configurations share an identity exactly when they are equal."""
    assert (ours.config_id == theirs.config_id) == (ours == theirs)


def test_changes_are_read_with_their_types() -> None:
    """Numbers, switches, words and shares each become what they are."""
    config = parse_changes(
        ["n_ctx=8192", "use_mmap=false", "flash_attn=1", "tensor_split=3/1"], Config()
    )

    assert (config.n_ctx, config.use_mmap, config.flash_attn) == (8192, False, "on")
    assert config.tensor_split == (3.0, 1.0)


def test_batches_that_were_not_named_follow_the_ones_that_were() -> None:
    """A small context pulls the batches down, a large physical batch pulls the logical one up."""
    small = parse_changes(["n_ctx=256"], Config())
    large = parse_changes(["n_ubatch=1024"], Config())

    assert (small.n_batch, small.n_ubatch) == (256, 256)
    assert (large.n_batch, large.n_ubatch) == (1024, 1024)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("n_thread=2", "did you mean n_threads?"),
        ("colour=red", "unknown knob 'colour': knobs are n_ctx"),
        ("n_ctx", "has no value: write n_ctx=VALUE"),
        ("n_ctx=many", "n_ctx='many' is not valid: give a whole number"),
        ("n_threads=0", "n_threads=0 is not valid: give a whole number above 0"),
        ("n_ctx=99999999999999", "n_ctx=99999999999999 is not valid: give at most 2147483647"),
        ("n_gpu_layers=4294967296", "give at most 2147483647"),
        ("n_threads=513", "n_threads=513 is not valid: give at most 512"),
        ("use_mmap=maybe", "give true or false"),
        ("flash_attn=fast", "give one of off, on, auto"),
        ("type_k=q3", "type_k='q3' is not valid"),
        ("type_v=q8_0", "needs flash attention: add flash_attn=on"),
        ("n_gpu_layers=-2", "give −1 (all), 0 or a layer count"),
        ("tensor_split=a/b", "give shares such as 3/1"),
        ("main_gpu=-1", "give the number of a GPU"),
    ],
)
def test_a_bad_change_is_one_line_that_names_the_cure(change: str, complaint: str) -> None:
    """Whatever is wrong with --set, one line says what would be right."""
    with pytest.raises(ConfigError) as caught:
        parse_changes([change], Config())

    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("batches", "complaint"),
    [
        ({"n_batch": 1024, "n_ctx": 512, "n_ubatch": 1}, "n_batch=1024 is above n_ctx=512"),
        ({"n_batch": 128, "n_ubatch": 256}, "n_ubatch=256 is above n_batch=128"),
    ],
)
def test_batches_nest(batches: dict[str, int], complaint: str) -> None:
    """n_ubatch ≤ n_batch ≤ n_ctx."""
    with pytest.raises(ConfigError, match=complaint):
        Config(**batches)


def test_differences_name_the_knobs() -> None:
    """Only what differs is named, ours first."""
    assert Config(n_threads=2).differences(Config()) == {"n_threads": (2, 1)}
