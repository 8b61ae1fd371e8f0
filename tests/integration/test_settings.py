"""What an application sets, as each engine can have it."""

from __future__ import annotations

import dataclasses

import pytest

from autotune.domain.machine import GPUFacts
from autotune.integration.configs import BackendConfig
from autotune.integration.settings import chosen_knobs
from tests.factories import make_machine
from tests.simulation import make_subject

GIB = 1024**3
CARD = GPUFacts(name="Card", total_bytes=24 * GIB, free_bytes=24 * GIB, device="CUDA0")
SUBJECT = dataclasses.replace(make_subject(), machine=make_machine(gpus=(CARD,)))
ALL = SUBJECT.model.n_layers + 1


@pytest.mark.parametrize(
    ("backend", "gpu_layers", "n_gpu_layers"),
    [
        ("llama-cpp-python", -1, -1),
        ("llama-cpp-python", ALL, -1),
        ("llama-cpp-python", 2, 2),
        ("transformers", 2, -1),
        ("transformers", 0, 0),
        ("ctransformers", -1, 0),
        ("ctransformers", 2, 0),
    ],
)
def test_layers_are_where_the_engine_can_have_them(
    backend: str, gpu_layers: int, n_gpu_layers: int
) -> None:
    """Although another engine has a GPU; and all of them have one word."""
    settings = BackendConfig(backend, gpu_layers=gpu_layers)

    found = chosen_knobs(SUBJECT, backend, settings, 512, environ={})
    assert found.n_gpu_layers == n_gpu_layers


def test_without_settings_as_many_layers_as_fit_are_on_the_gpu() -> None:
    """In the words of the candidates, so that both are known as the same run."""
    assert chosen_knobs(SUBJECT, "llama-cpp-python", None, 512, environ={}).n_gpu_layers == -1
