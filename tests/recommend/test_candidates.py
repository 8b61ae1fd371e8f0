"""Which configurations are worth considering, with and without GPUs."""

from __future__ import annotations

import dataclasses

import pytest

from autotune.domain.config import Config
from autotune.domain.engine import LLAMA_CPP, TRANSFORMERS, EngineTraits
from autotune.domain.errors import NothingFitsError
from autotune.domain.machine import GPUFacts, MachineFacts
from autotune.domain.prediction import Hardware
from autotune.domain.workload import Workload
from autotune.facts.plan import MemoryPlanner
from autotune.facts.vram import RESERVE_BYTES, fits_gpus, vram_ratio
from autotune.recommend.candidates import demanded, gpu_layers, search_space
from tests.factories import make_machine
from tests.simulation import DEFAULT, SMALL, WORKLOAD, make_cases, scaled_model

GIB = 1024**3
BIG = scaled_model("big", 8000)
LONG = dataclasses.replace(
    BIG, n_layers=32, n_heads=(32,) * 32, n_heads_kv=(32,) * 32, is_sliding=(False,) * 32
)
"""Its cache is large."""


def machine(*free_bytes: int | None, names: tuple[str, ...] = ()) -> MachineFacts:
    """A machine with GPUs that have so much free."""
    names = names or ("NVIDIA GeForce RTX 3090",) * len(free_bytes)
    gpus = tuple(
        GPUFacts(name=name, total_bytes=24 * GIB, free_bytes=free, device=f"CUDA{i}")
        for i, (name, free) in enumerate(zip(names, free_bytes, strict=True))
    )
    return make_machine(gpus=gpus, n_usable=4)


def layers(free_bytes: int, hardware: Hardware = Hardware.AUTO) -> tuple[int, ...]:
    """Layer counts of the big model on one GPU."""
    return gpu_layers(BIG, machine(free_bytes), default=DEFAULT, hardware=hardware)


def test_all_layers_are_a_candidate_where_they_fit() -> None:
    """Beside none and quarters."""
    assert layers(24 * GIB)[-1] == -1
    assert layers(24 * GIB)[0] == 0
    assert 0 not in layers(24 * GIB, Hardware.GPU)


def test_the_most_that_fits_is_a_candidate_and_more_is_not() -> None:
    """One layer more would not fit, by the same plan; the reserve is left alone.

    With the cache on the host and small batches more fit than by default: both are candidates.
    """
    lean = DEFAULT.replace(flash_attn="on", n_ubatch=64, offload_kqv=False)
    default = DEFAULT.replace(n_ctx=16384)
    host, model = machine(3 * GIB), dataclasses.replace(LONG, n_ctx_train=16384)
    counts = gpu_layers(model, host, default=default, hardware=Hardware.AUTO)
    planner = MemoryPlanner(model, gpus=host.gpus)

    def fits(config: Config, n_layers: int) -> bool:
        plan = planner.plan(config.replace(n_ctx=16384, n_gpu_layers=n_layers))
        assert not fits_gpus(plan, host) or plan.vram_bytes <= 3 * GIB - RESERVE_BYTES
        return fits_gpus(plan, host)

    usual = max(n for n in range(model.n_layers + 1) if fits(default, n))
    assert 0 < usual < counts[-1] < model.n_layers + 1
    assert usual in counts
    assert fits(lean, counts[-1])
    assert not fits(lean, counts[-1] + 1)


def test_no_candidate_means_the_same_as_another() -> None:
    """An engine that decides on flash attention takes it; all layers have one word."""
    default = DEFAULT.replace(flash_attn="auto", n_gpu_layers=-1)
    space = search_space(
        BIG, machine(24 * GIB), default=default, workload=WORKLOAD, hardware=Hardware.AUTO
    )
    found = space.configs()

    assert {config.flash_attn for config in found} == {"auto", "off"}
    assert -1 in {config.n_gpu_layers for config in found}
    assert BIG.n_layers + 1 not in {config.n_gpu_layers for config in found}


def test_a_demanded_gpu_is_where_the_default_is() -> None:
    """All of it where it fits, else the most; and nowhere else where the processor is demanded."""

    def layers_on(free_bytes: int, hardware: Hardware, engine: EngineTraits = LLAMA_CPP) -> int:
        host = machine(free_bytes)
        return demanded(DEFAULT, BIG, host, hardware=hardware, engine=engine).n_gpu_layers

    assert layers_on(24 * GIB, Hardware.AUTO) == 0
    assert layers_on(24 * GIB, Hardware.GPU) == -1
    assert 0 < layers_on(3 * GIB, Hardware.GPU) < BIG.n_layers
    assert layers_on(3 * GIB, Hardware.GPU, TRANSFORMERS) == 0
    offloaded = DEFAULT.replace(n_gpu_layers=-1)
    assert demanded(offloaded, BIG, machine(), hardware=Hardware.CPU).n_gpu_layers == 0


def test_a_full_gpu_leaves_the_processor() -> None:
    """Nothing fits: no layer is offered, and nothing crashes."""
    assert layers(RESERVE_BYTES) == (0,)
    assert layers(RESERVE_BYTES, Hardware.GPU) == (0,)


def test_a_busy_gpu_does_not_keep_the_processor_from_an_answer() -> None:
    """Lending it large batches would take memory that somebody else holds: nothing is lent."""
    from autotune.predict.predictor import Predictor
    from autotune.recommend.choose import choose, survey

    host = machine(RESERVE_BYTES)
    for hardware in (Hardware.AUTO, Hardware.CPU):
        default = demanded(DEFAULT, BIG, host, hardware=hardware)
        space = search_space(BIG, host, default=default, workload=WORKLOAD, hardware=hardware)
        cases = [dataclasses.replace(make_cases(BIG)[0], machine=host, config=c)
                 for c in space.configs()]  # fmt: skip
        found = survey(Predictor().fit([]), cases, available_bytes=64 * GIB)

        config = cases[choose(found, default=default)].config
        assert (config.n_gpu_layers, config.op_offload) == (0, False)
    assert demanded(DEFAULT, BIG, make_machine(), hardware=Hardware.CPU) == DEFAULT


def test_a_gpu_that_is_demanded_must_be_there() -> None:
    """One line says where to look."""
    with pytest.raises(NothingFitsError, match="autotune doctor shows why"):
        gpu_layers(BIG, make_machine(), default=DEFAULT, hardware=Hardware.GPU)


def test_a_gpu_of_unknown_size_says_nothing() -> None:
    """Neither for nor against."""
    host = machine(None)
    plan = MemoryPlanner(BIG, gpus=host.gpus).plan(DEFAULT.replace(n_gpu_layers=-1))

    assert vram_ratio(plan, host) == 0


def test_what_does_not_fit_a_gpu_is_not_expected_to_run() -> None:
    """Although the machine itself has memory enough."""
    from autotune.predict.predictor import Predictor

    asked = make_cases(BIG)[0]
    offloaded = dataclasses.replace(asked, config=DEFAULT.replace(n_gpu_layers=-1))
    chances = [
        Predictor().fit([]).forecast([dataclasses.replace(offloaded, machine=machine(free))])
        for free in (24 * GIB, 2 * GIB)
    ]

    assert chances[0].p_success[0] > 0.8
    assert chances[1].p_success[0] < 0.1


def test_what_is_said_of_layers_on_gpus_has_no_effect_without_one() -> None:
    """Points that mean the same are folded; large batches may be lent to a GPU all the same."""
    space = search_space(
        BIG, machine(24 * GIB), default=DEFAULT, workload=WORKLOAD, hardware=Hardware.AUTO
    )
    on_host = [c for c in space.configs() if c.n_gpu_layers == 0]

    assert {(c.offload_kqv, c.op_offload) for c in on_host} == {(True, True), (True, False)}
    assert {c.offload_kqv for c in space.configs()} == {True, False}


def test_several_gpus_split_by_memory_and_by_bandwidth() -> None:
    """Or by rows, or one of them works alone."""
    names = ("NVIDIA GeForce RTX 3090", "NVIDIA GeForce RTX 3060")
    space = search_space(
        SMALL,
        machine(24 * GIB, 12 * GIB, names=names),
        default=DEFAULT,
        workload=WORKLOAD,
        hardware=Hardware.GPU,
    )
    splits = {(c.split_mode, c.tensor_split, c.main_gpu) for c in space.configs()}

    assert ("layer", None, 0) in splits
    assert ("layer", (round(936 / 1296, 3), round(360 / 1296, 3)), 0) in splits
    assert ("row", None, 0) in splits
    assert {("none", None, 0), ("none", None, 1)} <= splits


def test_a_lossy_cache_only_on_request_and_where_heads_divide() -> None:
    """Keys and values alike, always with flash attention."""
    options = {"default": DEFAULT, "workload": WORKLOAD, "hardware": Hardware.CPU}
    plain = search_space(SMALL, make_machine(), **options)  # type: ignore[arg-type]
    lossy = search_space(SMALL, make_machine(), **options, lossy=("q8_0",))  # type: ignore[arg-type]
    odd = dataclasses.replace(SMALL, key_length=40)
    refused = search_space(odd, make_machine(), **options, lossy=("q8_0",))  # type: ignore[arg-type]

    assert not any(c.is_lossy for c in plain.configs())
    assert any(c.is_lossy for c in lossy.configs())
    assert all(
        c.type_k == c.type_v and c.flash_attn != "off" for c in lossy.configs() if c.is_lossy
    )
    assert not any(c.is_lossy for c in refused.configs())


@pytest.mark.parametrize(
    ("n_prompt", "n_ctx", "sizes"),
    [
        (256, 4096, {64, 128, 512}),
        (512, 4096, {64, 128, 256, 512}),
        (1000, 4096, {64, 128, 256, 512, 1024}),
        (3000, 4096, {64, 128, 256, 512, 1024, 2048}),
        (16, 4096, {512}),
        (900, 1000, {64, 128, 256, 512}),
    ],
)
def test_one_physical_batch_stands_for_all_that_hold_the_prompt(
    n_prompt: int, n_ctx: int, sizes: set[int]
) -> None:
    """The default's, where it is one of them: a knob that changes nothing is left alone."""
    space = search_space(
        SMALL,
        make_machine(),
        default=DEFAULT.replace(n_ctx=n_ctx),
        workload=Workload(n_prompt=n_prompt, n_gen=16),
        hardware=Hardware.CPU,
    )

    assert {config.n_ubatch for config in space.configs()} == sizes


def test_only_the_knobs_that_an_engine_has_are_searched() -> None:
    """transformers has threads and batches, all layers on a GPU or none; of a stranger, nothing."""

    def configs(engine: EngineTraits) -> list[Config]:
        space = search_space(
            SMALL, machine(20 * GIB), default=DEFAULT, workload=WORKLOAD,
            hardware=Hardware.AUTO, lossy=("q8_0",), engine=engine,
        )  # fmt: skip
        return list(space.configs())

    found = configs(TRANSFORMERS)
    assert {c.n_gpu_layers for c in found} == {0, -1}
    assert {c.flash_attn for c in found} == {"off", "on"}
    assert {(c.type_k, c.offload_kqv, c.op_offload) for c in found} == {("f16", True, True)}
    assert len({c.n_threads for c in found}) > 1
    narrow = configs(EngineTraits(name="narrow", knobs=frozenset({"n_ubatch"}), most_ubatch=128))
    assert {c.n_ubatch for c in narrow} == {DEFAULT.n_ubatch, 64, 128}
    assert configs(EngineTraits(name="stranger")) == [DEFAULT]
