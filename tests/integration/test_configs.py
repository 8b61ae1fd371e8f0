"""What applications set, as the guide writes it, and what becomes of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.domain.config import Config
from autotune.domain.errors import UserError
from autotune.domain.machine import GPUFacts
from autotune.domain.request import TextRequest
from autotune.integration.configs import BackendConfig, GenerationConfig, priorities_of
from tests.factories import make_machine, make_model

DEFAULT = Config(n_ctx=2048, n_threads=1, n_threads_batch=2)
"""What a backend's own default might be."""


def make_gpu_machine() -> Any:
    """Sixteen processors, and one GPU that the engine can use."""
    gpu = GPUFacts(name="Imaginary", device="CUDA0", total_bytes=8 * 1024**3)
    return make_machine(n_usable=16, gpus=(gpu,))


def to_config(config: BackendConfig, **changes: Any) -> Config:
    """On a machine with a GPU, for a model of 4 layers trained for 8192 tokens."""
    values = {"model": make_model(), "machine": make_gpu_machine(), "default": DEFAULT}
    return config.to_config(**{**values, **changes})


def test_the_guides_configuration_means_what_it_says() -> None:
    """Its example, word for word; the 32 layers are all that the model has."""
    custom_config = BackendConfig(
        name="ctransformers",
        gpu_enabled=True,
        gpu_layers=32,
        context_size=4096,
        batch_size=512,
        threads=8,
        custom_args={"temperature": 0.7, "top_p": 0.9, "use_mmap": True},
    )

    assert to_config(custom_config) == Config(
        n_ctx=4096, n_batch=512, n_ubatch=512, n_threads=8, n_threads_batch=8, n_gpu_layers=5
    )
    sampling = custom_config.generation_config(max_tokens=9)
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens) == (0.7, 0.9, 9)


def test_defaults_and_order_of_arguments_are_the_originals() -> None:
    """Code that was written for it goes on working."""
    assert BackendConfig("llamafile").to_dict() == {
        "name": "llamafile", "enabled": True, "priority": 0, "gpu_enabled": True,
        "gpu_layers": -1, "context_size": 4096, "batch_size": 512, "threads": -1,
        "custom_args": {},
    }  # fmt: skip
    assert GenerationConfig().to_dict() == {
        "max_tokens": 512, "temperature": 0.7, "top_p": 0.9, "top_k": 40, "repeat_penalty": 1.1,
        "seed": None, "stop": None, "stream": False,
    }  # fmt: skip
    assert BackendConfig("x", False, 3, False, 0, 512, 64, 2, {}).threads == 2
    assert GenerationConfig(1, 0.0, 1.0, 1, 1.0, 5, ["."], True).stop_sequences == ["."]


@pytest.mark.parametrize(
    ("config", "n_gpu_layers"),
    [
        (BackendConfig("x"), -1),
        (BackendConfig("x", gpu_layers=3), 3),
        (BackendConfig("x", gpu_layers=0), 0),
        (BackendConfig("x", gpu_layers=99), 5),
        (BackendConfig("x", gpu_enabled=False, gpu_layers=3), 0),
        (BackendConfig("x", custom_args={"n_gpu_layers": 2}), 2),
    ],
)
def test_layers_go_to_the_gpu_as_asked_for(config: BackendConfig, n_gpu_layers: int) -> None:
    """All, none or some of them, never more than the model has."""
    assert to_config(config).n_gpu_layers == n_gpu_layers


def test_without_a_gpu_nothing_is_offloaded() -> None:
    """So the store does not know the same run under two names."""
    assert to_config(BackendConfig("x"), machine=make_machine()).n_gpu_layers == 0


def test_what_is_not_said_is_the_defaults() -> None:
    """Threads above all: the default's are the backend's, or the advice."""
    config = to_config(BackendConfig("x"), default=DEFAULT.replace(flash_attn="on"))

    assert (config.n_threads, config.n_threads_batch, config.flash_attn) == (1, 2, "on")


def test_what_cannot_be_had_is_brought_to_what_can() -> None:
    """More threads than processors, and a context beyond the training, are never better."""
    config = to_config(BackendConfig("x", threads=64, context_size=100_000))
    assert (config.n_threads, config.n_threads_batch, config.n_ctx) == (16, 16, 8192)

    tiny = to_config(BackendConfig("x", context_size=256))
    assert (tiny.n_ctx, tiny.n_batch, tiny.n_ubatch) == (256, 256, 256)


def test_knobs_go_over_fields_as_they_are_given() -> None:
    """Python's own values are understood, and batches follow those that were named."""
    custom = {
        "flash_attn": True, "type_k": "q8_0", "type_v": "q8_0", "use_mmap": False,
        "n_threads": 20, "n_ubatch": 1024, "tensor_split": [3, 1],
    }  # fmt: skip
    config = to_config(BackendConfig("x", threads=2, custom_args=custom))

    assert (config.flash_attn, config.type_k, config.use_mmap) == ("on", "q8_0", False)
    assert (config.n_threads, config.n_threads_batch) == (20, 2)
    assert (config.n_batch, config.n_ubatch, config.tensor_split) == (1024, 1024, (3.0, 1.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "give the name of a backend"),
        ({"priority": "first"}, "priority='first' is not valid: give a whole number"),
        ({"gpu_layers": -2}, "gpu_layers=-2 is not valid: give a whole number, -1 to 10000"),
        ({"context_size": 0}, "context_size=0 is not valid"),
        ({"context_size": 10**9}, "context_size=1000000000 is not valid"),
        ({"batch_size": 2.5}, "batch_size=2.5 is not valid: give a whole number"),
        ({"threads": 0}, "threads=0 is not valid: give −1"),
        ({"threads": "8"}, "threads='8' is not valid: give a whole number"),
        ({"custom_args": None}, "custom_args=None is not valid: give a dict"),
        ({"custom_args": {"use_map": True}}, "knows no 'use_map': did you mean use_mmap\\?"),
        ({"custom_args": {"frobnicate": 1}}, "knows no 'frobnicate': it takes n_ctx, .*top_p"),
        ({"custom_args": {"use_mmap": "maybe"}}, "use_mmap='maybe' is not valid: give true"),
        ({"custom_args": {"n_batch": 2.5}}, "n_batch='2.5' is not valid: give a whole number"),
        ({"custom_args": {"n_threads": 10**6}}, "n_threads=1000000 is not valid: give at most 512"),
        ({"custom_args": {"type_k": "q9"}}, "type_k='q9' is not valid: give one of f32"),
        ({"custom_args": {"temperature": -1}}, "temperature=-1 is not valid: give a number, 0"),
        ({"custom_args": {"top_p": "much"}}, "top_p='much' is not valid"),
    ],
)
def test_an_absurd_configuration_is_refused_in_one_line(
    changes: dict[str, Any], message: str
) -> None:
    """When it is made, and after it was changed when it is used."""
    with pytest.raises(UserError, match=message) as caught:
        BackendConfig(**{"name": "x", **changes})
    assert "\n" not in str(caught.value)

    changed = BackendConfig("x")
    for name, value in changes.items():
        setattr(changed, name, value)
    with pytest.raises(UserError, match=message):
        to_config(changed)


def test_contradicting_knobs_are_refused_when_they_meet() -> None:
    """A quantised value cache is fine, without flash attention it is not."""
    config = BackendConfig("x", custom_args={"type_v": "q8_0"})

    assert to_config(config, default=DEFAULT.replace(flash_attn="on")).type_v == "q8_0"
    with pytest.raises(UserError, match="needs flash attention"):
        to_config(config)


CONFIGS = st.builds(
    lambda n_ctx, batches, threads, layers, cache, rest: Config(
        n_ctx=n_ctx,
        n_batch=min(batches[0], n_ctx),
        n_ubatch=min(*batches, n_ctx),
        n_threads=threads[0],
        n_threads_batch=threads[1],
        n_gpu_layers=layers,
        flash_attn="on",
        type_k=cache,
        type_v=cache,
        **rest,
    ),
    st.sampled_from((512, 2048, 8192)),
    st.tuples(st.sampled_from((64, 512, 2048)), st.sampled_from((64, 512, 2048))),
    st.tuples(st.integers(1, 16), st.integers(1, 16)),
    st.integers(-1, 5),
    st.sampled_from(("f16", "q8_0")),
    st.fixed_dictionaries(
        {
            "use_mmap": st.booleans(),
            "swa_full": st.booleans(),
            "tensor_split": st.sampled_from((None, (1.0, 3.0))),
        }
    ),
)


@given(CONFIGS, st.booleans())
def test_a_configuration_of_ours_survives_the_guides_form(config: Config, is_brief: bool) -> None:
    """There and back, with every knob named or with those that differ from the default."""
    form = BackendConfig.from_config("x", config, default=DEFAULT if is_brief else None)

    assert to_config(form) == config
    assert BackendConfig.from_dict(form.to_dict()) == form


def test_the_guides_form_is_brief_where_little_differs() -> None:
    """What people are shown as recommended says what was changed."""
    config = DEFAULT.replace(n_threads=2, flash_attn="on")

    form = BackendConfig.from_config("x", config, default=DEFAULT)

    assert form.custom_args == {"flash_attn": "on"}
    assert (form.gpu_enabled, form.gpu_layers, form.threads) == (False, 0, 2)


def test_a_generation_becomes_a_request() -> None:
    """With every value of the configuration as it is at that moment."""
    config = GenerationConfig(
        max_tokens=100, temperature=0.2, seed=7, stop_sequences=["\n"], n_draft=8
    )

    request = config.to_request("Hello", chat=True)
    config.max_tokens = 5

    assert request == TextRequest(
        prompt="Hello", max_tokens=100, temperature=0.2, top_p=0.9, top_k=40,
        repeat_penalty=1.1, seed=7, stop=("\n",), chat=True, n_draft=8,
    )  # fmt: skip
    assert config.to_request("Hello").max_tokens == 5
    assert GenerationConfig().to_request("Hello").seed is None


def test_a_generation_may_be_given_as_names() -> None:
    """The original's own dictionary is understood, a single stop text too."""
    config = GenerationConfig(max_tokens=9, stop_sequences=["a", "b"])

    assert GenerationConfig.from_dict(config.to_dict()) == config
    assert GenerationConfig.from_dict({"stop": "END"}).stop_sequences == ["END"]
    with pytest.raises(UserError, match=r"knows no 'temprature': did you mean temperature\?"):
        GenerationConfig.from_dict({"temprature": 1})
    with pytest.raises(UserError, match="it takes max_tokens, temperature"):
        BackendConfig("x").generation_config(beams=4)
    with pytest.raises(UserError, match="knows no 'layers'"):
        BackendConfig.from_dict({"name": "x", "layers": 4})
    with pytest.raises(UserError, match="has no name"):
        BackendConfig.from_dict({})


def test_priorities_are_those_of_usable_configurations() -> None:
    """One that was broken later, or is none, does not decide."""
    broken = BackendConfig("b", priority=1)
    broken.priority = "first"  # type: ignore[assignment]
    configs: dict[str, Any] = {"a": BackendConfig("a", priority=3), "b": broken, "c": {}}

    assert priorities_of(configs) == {"a": 3}


@pytest.mark.parametrize("theirs", ["stop", "stop_sequences"])
@pytest.mark.parametrize("ours", ["stop", "stop_sequences"])
def test_stop_texts_that_are_given_win_by_either_name(ours: str, theirs: str) -> None:
    """Over those of ``custom_args``, which hold where nothing is given."""
    config = BackendConfig("x", custom_args={theirs: ["\n"]})

    assert config.generation_config(**{ours: ["END"]}).stop_sequences == ["END"]
    assert config.generation_config(**{ours: None}).stop_sequences == ["\n"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_tokens": 0}, "max_tokens=0 is not valid: give a whole number, 1 to"),
        ({"max_tokens": "many"}, "max_tokens='many' is not valid"),
        ({"temperature": float("nan")}, "temperature=nan is not valid"),
        ({"temperature": 1000}, "temperature=1000 is not valid: give 0 to 100"),
        ({"top_p": 0}, "top_p=0 is not valid"),
        ({"top_k": -1}, "top_k=-1 is not valid"),
        ({"repeat_penalty": None}, "repeat_penalty=None is not valid"),
        ({"seed": 2**32}, "seed=4294967296 is not valid"),
        ({"stop_sequences": [""]}, "give texts that are not empty"),
        ({"stop_sequences": [1]}, "give a list of texts"),
        ({"n_draft": 65}, "n_draft=65 is not valid: give a whole number, 0 to 64"),
    ],
)
def test_an_absurd_generation_is_refused(changes: dict[str, Any], message: str) -> None:
    """In one line that says what is accepted."""
    with pytest.raises(UserError, match=message):
        GenerationConfig(**changes)


def test_a_prompt_is_text() -> None:
    """Nothing else, and not nothing."""
    for prompt in ("", None, b"bytes"):
        with pytest.raises(UserError, match=r"prompt=.* is not valid: give text"):
            GenerationConfig().to_request(prompt)  # type: ignore[arg-type]
