"""Which memory computes: the card's, or the processor's for a graphics core inside it."""

from __future__ import annotations

import pytest

from autotune.domain.machine import GPUFacts, MachineFacts
from autotune.features.ceilings import TYPICAL_GPU, TYPICAL_HOST, find_ceilings
from tests.factories import make_probe


def machine(cpu: str, *gpus: str) -> MachineFacts:
    """A machine in somebody's table: nothing but names."""
    return MachineFacts(cpu=cpu, gpus=tuple(GPUFacts(name=name) for name in gpus))


@pytest.mark.parametrize(
    ("cpu", "gpu", "read", "flops"),
    [
        ("AMD Ryzen 7 7840HS w/ Radeon 780M Graphics", "AMD Radeon 780M", 89.6e9, 16.6e12),
        ("13th Gen Intel(R) Core(TM) i9-13900K", "Intel(R) UHD Graphics 770", 89.6e9, 1.6e12),
        ("AMD Ryzen 7 5700G with Radeon Graphics", "AMD Radeon Graphics", 50e9, 4.1e12),
    ],
)
def test_a_graphics_core_reads_at_the_speed_of_its_processors_memory(
    cpu: str, gpu: str, read: float, flops: float
) -> None:
    """As published of the processor, or a typical one's; one without a name has its processor's."""
    found = find_ceilings(machine(cpu, gpu), None, "Vulkan")

    assert (found.gpu_read, found.gpu_flops) == pytest.approx((read, flops))
    assert found.gpu_read == found.host_read
    assert found.is_known == (read != TYPICAL_HOST[0])


def test_where_memory_was_probed_a_graphics_core_reads_as_fast() -> None:
    """At the thread count that reads most."""
    found = find_ceilings(machine("Imaginary 2-Core", "Intel Iris Xe"), make_probe(), "SYCL")

    assert found.gpu_read == 18e9
    assert found.is_known


def test_beside_a_card_nobody_knows_which_one_computes() -> None:
    """A listed card is taken; of one that is not listed, what is typical of cards."""
    cpu = "AMD Ryzen 7 7840HS w/ Radeon 780M Graphics"
    names = "AMD Radeon 780M", "NVIDIA Something New"

    assert find_ceilings(machine(cpu, *names), None, "Vulkan").gpu_read == TYPICAL_GPU[0]
    listed = find_ceilings(machine(cpu, *names, "NVIDIA GeForce RTX 3090"), None, "Vulkan")
    assert listed.gpu_read == 936e9
    nameless = find_ceilings(machine(cpu), None, "CUDA")
    assert (nameless.gpu_read, nameless.gpu_flops) == TYPICAL_GPU, "CUDA computes on no such core"


def test_a_listed_graphics_core_keeps_its_own_ceiling() -> None:
    """By the processor that contains it, too."""
    cpu = "AMD RYZEN AI MAX+ 395 w/ Radeon 8060S"
    found = find_ceilings(machine(cpu, "AMD Radeon Graphics"), None, "ROCm")

    assert (found.gpu_read, found.gpu_flops) == pytest.approx((256e9, 59.4e12))
    assert find_ceilings(machine(cpu), None, "CPU").gpu_read == 0


@pytest.mark.parametrize(
    ("cpu", "read"),
    [
        ("Apple M2 Ultra", 800e9),
        ("AMD RYZEN AI MAX 390 w/ Radeon 8050S", 256e9),
        ("AMD Ryzen 9 5950X 16-Core Processor", 51.2e9),
        ("Imaginary 2-Core", TYPICAL_HOST[0]),
    ],
)
def test_a_processor_reads_the_memory_of_the_graphics_core_beside_it(cpu: str, read: float) -> None:
    """Where it is not listed itself."""
    found = find_ceilings(machine(cpu), None, "CPU")

    assert found.host_read == read
    assert found.is_known == (cpu != "Imaginary 2-Core")
