"""The roofline against arithmetic done by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from autotune.domain.config import Config
from autotune.domain.machine import GPUFacts
from autotune.domain.model import ModelFacts
from autotune.domain.workload import Workload
from autotune.features.arrays import CaseArrays
from autotune.features.case import Case
from autotune.features.physics import Roofline, model_work
from autotune.features.physics import roofline as roofline_of
from tests.factories import make_machine, make_model, make_probe


def roofline(cases: list[Case]) -> Roofline:
    """The roofline of a list of cases."""
    return roofline_of(CaseArrays(cases))


TIED_BYTES = 272_000 + 491_520 + 1_474_560
"""Every weight of the factory's model: its embedding is also its output layer."""
N_PARAMS = 256_000 + 786_432 + 2_359_296
BODY_ON_HOST = 2 * (786_432 + 2_359_296)
"""As a processor counts them: it takes twice as long for Q4_1."""
MANY_CORES = make_probe(n_threads=(1,), read_bytes_per_s=(18e9,), flops_per_s=(1e21,))
"""Its cores wait for the memory."""


def make_case(**changes: object) -> Case:
    """The factory's model on the factory's machine."""
    defaults: dict[str, object] = {
        "machine_id": "m",
        "machine": make_machine(),
        "probe": make_probe(),
        "model": make_model(),
        "backend": "llama-cpp-python",
        "config": Config(n_threads=2, n_threads_batch=2),
        "workload": Workload(n_prompt=512, n_gen=128),
    }
    return Case(**{**defaults, **changes})  # type: ignore[arg-type]


def in_type(kind: str) -> ModelFacts:
    """The factory's model with all weights in another element type, of the same size."""
    model = make_model()
    tensors = tuple(dataclasses.replace(tensor, type=kind) for tensor in model.tensors)
    return dataclasses.replace(model, model_id=kind, tensors=tensors)


def test_a_decoded_token_reads_all_active_weights_and_the_cache() -> None:
    """Weights plus 576 cached tokens of 4 layers × 2 heads × (64 + 64) × 2 bytes, at 18 GB/s."""
    floor = roofline([make_case(probe=MANY_CORES)])
    kv_bytes = 576 * 4 * 2 * 128 * 2

    assert floor.kv_bytes[0] == kv_bytes
    assert floor.decode_s[0] == pytest.approx((TIED_BYTES + kv_bytes) / 18e9)
    assert floor.decode_is_memory[0] == 1


def test_cores_read_and_multiply_in_turn() -> None:
    """All is read at 18 GB/s, then multiplied at 95 GFLOPS, 2 FLOPs a weight, 4 in Q4_1.

    A FLOP of attention takes the time of 5.
    """
    floor = roofline([make_case()])
    attention = 5 * 576 * 4 * 4 * 2 * 128  # cached tokens × layers × heads × 2 × (key + value)

    flops, n_bytes = 2 * (256_000 + BODY_ON_HOST) + attention, TIED_BYTES + floor.kv_bytes[0]
    assert floor.decode_s[0] == pytest.approx(flops / 95e9 + n_bytes / 18e9)
    assert flops / 95e9 > n_bytes / 18e9
    assert floor.decode_is_memory[0] == 0


def test_what_binds_is_asked_of_the_device_that_works_longer() -> None:
    """A host of 0.7 and 0.8 of the GPU's time, in turn, works longer than the GPU."""
    gpu = GPUFacts(name="NVIDIA GeForce RTX 4090", total_bytes=24 * 2**30, device="CUDA0")

    def split(*, read: float = 1e30, flops: float = 1e30) -> Roofline:
        probe = make_probe(n_threads=(1,), read_bytes_per_s=(read,), flops_per_s=(flops,))
        config = Config(n_threads=1, n_gpu_layers=2)
        machine = make_machine(gpus=(gpu,))
        return roofline([make_case(machine=machine, probe=probe, api="CUDA", config=config)])

    gpu_s = split().decode_s[0]
    read_s, flops_s = (split(**rate).decode_s[0] - gpu_s for rate in ({"read": 1}, {"flops": 1}))
    both = split(read=read_s / (0.7 * gpu_s), flops=flops_s / (0.8 * gpu_s))

    assert both.decode_s[0] == pytest.approx(2.5 * gpu_s)
    assert both.decode_is_memory[0] == 0
    assert split().decode_is_memory[0] == 1


def test_a_prompt_is_bound_by_arithmetic() -> None:
    """Each of the body's weights for each token, the output layer once a batch, at 95 GFLOPS.

    A FLOP of attention takes the time of 2.
    """
    floor = roofline([make_case()])
    output = 256_000
    attention = 2 * 2.0 * 16 * 128 * 256  # 2 FLOPs × heads × (key + value) × mean depth

    flops = 512 * (2 * BODY_ON_HOST + attention) + 2 * output
    assert floor.prefill_s[0] == pytest.approx(flops / 95e9)


def test_a_processor_takes_twice_as_long_for_a_slow_type() -> None:
    """A prompt of weights in Q4_1 instead of Q4_0; to a GPU they are alike."""
    gpu = GPUFacts(name="NVIDIA GeForce RTX 4090", device="CUDA0")
    models = in_type("Q4_1"), in_type("Q4_0")
    work, prompt = model_work(models[0]), Workload(n_prompt=512, n_gen=0)

    def seconds(**changes: object) -> list[float]:
        cases = [make_case(model=model, workload=prompt, **changes) for model in models]
        return [float(s) for s in roofline(cases).prefill_s]

    slow, fast = seconds()
    flops = 512 * 2 * work.body_params + 2 * work.output_params
    assert slow - fast == pytest.approx(flops / 95e9)
    config = Config(n_gpu_layers=99)
    slow, fast = seconds(machine=make_machine(gpus=(gpu,)), api="CUDA", config=config)
    assert slow == fast


@pytest.mark.parametrize(
    ("type_k", "type_v", "decode", "prompt"),
    [
        ("f16", "f16", 5, 2),
        ("q8_0", "f16", 5, 5),
        ("f16", "q8_0", 9, 9),
        ("q8_0", "q8_0", 9, 9),
        ("f16", "q4_0", 18, 18),
    ],
)
def test_a_processor_unpacks_a_quantised_cache_token_by_token(
    type_k: str, type_v: str, decode: float, prompt: float
) -> None:
    """What looking back at 4,096 tokens takes is in times of a matrix product's FLOPs."""
    config = Config(n_ctx=8192, flash_attn="on", type_k=type_k, type_v=type_v)
    near, far = (Workload(n_prompt=512, n_gen=1, n_depth=d) for d in (0, 4096))
    floor = roofline([make_case(config=config, workload=w) for w in (near, far)])
    work = model_work(make_model())
    flops_s = 4096 * work.attention_flops / make_probe().flops_per_s[0]
    read_s = np.diff(floor.kv_bytes)[0] / make_probe().read_bytes_per_s[0]

    assert np.diff(floor.decode_s)[0] == pytest.approx(decode * flops_s + read_s)
    assert np.diff(floor.prefill_s)[0] == pytest.approx(prompt * 512 * flops_s)


@pytest.mark.parametrize(
    ("flash_attn", "n_ubatch", "n_prompt", "effort"),
    [("on", 64, 512, 2), ("on", 63, 512, 5), ("on", 512, 63, 5), ("off", 32, 512, 2)],
)
def test_a_fused_prompt_of_few_tokens_at_once_looks_back_one_by_one(
    flash_attn: str, n_ubatch: int, n_prompt: int, effort: float
) -> None:
    """llama.cpp's tiles are 64 tokens high."""
    config = Config(n_ctx=8192, flash_attn=flash_attn, n_ubatch=n_ubatch)
    near, far = (Workload(n_prompt=n_prompt, n_gen=1, n_depth=d) for d in (0, 4096))
    floor = roofline([make_case(config=config, workload=w) for w in (near, far)])
    flops_s = 4096 * model_work(make_model()).attention_flops / make_probe().flops_per_s[0]

    assert np.diff(floor.prefill_s)[0] == pytest.approx(effort * n_prompt * flops_s)


def test_a_prompt_looks_back_tile_by_tile_where_nothing_is_fused() -> None:
    """Then keys may be quantised too."""
    plain, quantised = (Config(flash_attn="off", type_k=kind) for kind in ("f16", "q8_0"))
    floor = roofline([make_case(config=config) for config in (plain, quantised)])

    assert floor.prefill_s[0] == floor.prefill_s[1]


def test_a_gpu_looks_back_at_the_speed_of_its_products() -> None:
    """What its kernels take beyond that is learned."""
    gpu = GPUFacts(name="NVIDIA GeForce RTX 4090", total_bytes=24 * 2**30, device="CUDA0")
    machine = make_machine(gpus=(gpu,))
    config = Config(flash_attn="on", n_gpu_layers=-1)
    configs = [config.replace(type_v=kind) for kind in ("f16", "q8_0")]
    floor = roofline([make_case(machine=machine, api="CUDA", config=c) for c in configs])

    assert floor.prefill_s[0] == floor.prefill_s[1]


def test_an_untied_embedding_is_one_row() -> None:
    """With an output layer of its own, the embedding is looked up, not read."""
    from autotune.domain.model import TensorSum

    tied = make_model()
    output = TensorSum(
        group="output", type="Q8_0", n_tensors=1, n_elements=256_000, n_bytes=272_000
    )
    untied = make_model(tensors=(*tied.tensors, output))

    assert model_work(tied).active_bytes == model_work(untied).active_bytes == TIED_BYTES


def test_experts_are_read_by_their_share() -> None:
    """Two of eight experts: a quarter of their bytes."""
    from autotune.domain.model import TensorSum

    experts = TensorSum(
        group="experts", type="Q4_K", n_tensors=12, n_elements=8_000_000, n_bytes=4_500_000
    )
    dense = make_model()
    sparse = make_model(tensors=(*dense.tensors, experts), n_experts=8, n_experts_used=2)

    assert sparse.active_bytes == dense.active_bytes + 4_500_000 / 4


def test_a_state_goes_through_memory_six_times() -> None:
    """Of two layers with 10,000 floats each: gathered, replaced and copied back."""
    model = make_model(is_recurrent=(True, False, True, False), state_elements=10_000)

    more = roofline([make_case(model=model)]).kv_bytes - roofline([make_case()]).kv_bytes

    assert more[0] == 2 * 10_000 * 4 * 6


def test_a_sliding_window_caps_the_cache_that_is_read() -> None:
    """Half of the layers see 128 tokens only."""
    full = roofline([make_case()]).kv_bytes[0]
    model = make_model(sliding_window=128, is_sliding=(True, False, True, False))
    half = roofline([make_case(model=model)]).kv_bytes[0]

    assert half == pytest.approx(full / 2 * (1 + 128 / 576))


def test_more_depth_never_makes_decode_faster() -> None:
    """Monotone in depth, whatever else."""
    depths = [0, 100, 1000, 4000]
    cases = [make_case(workload=Workload(n_depth=depth)) for depth in depths]

    assert np.all(np.diff(roofline(cases).decode_s) > 0)


def test_a_quantised_cache_is_read_faster() -> None:
    """q8_0 takes 34 bytes where f16 takes 64."""
    plain = roofline([make_case()]).kv_bytes[0]
    config = Config(type_k="q8_0", type_v="q8_0", flash_attn="on")
    quantised = roofline([make_case(config=config)]).kv_bytes[0]

    assert quantised == pytest.approx(plain * 34 / 64)


def test_small_batches_read_the_weights_again() -> None:
    """With enough arithmetic, 512 tokens one by one are 512 passes over weights and cache; the
    output layer is computed for the last."""
    probe = make_probe(flops_per_s=(1e15, 1e15))
    config = Config(n_ubatch=1, n_batch=512, n_threads_batch=2)
    one_by_one = roofline([make_case(probe=probe, config=config)])

    layers, output, cache = TIED_BYTES - 272_000, 272_000, 256 * 4 * 2 * 128 * 2
    assert one_by_one.prefill_s[0] == pytest.approx((512 * (layers + cache) + output) / 18e9)
    assert one_by_one.prefill_balance[0] == 8


def test_a_workload_without_prompt_costs_no_prefill() -> None:
    """Zero, not nonsense."""
    assert roofline([make_case(workload=Workload(n_prompt=0, n_gen=1))]).prefill_s[0] == 0


def test_an_engine_that_unpacks_the_file_reads_every_weight_in_full() -> None:
    """transformers: parameters times 4 bytes in f32, times 2 in f16, whatever the file holds."""
    cells = 576 * 4 * 2 * 128
    full = Config(n_threads=2, n_threads_batch=2, type_k="f32", type_v="f32")
    half = full.replace(type_k="f16", type_v="f16")
    floor = roofline(
        [make_case(backend="transformers", probe=MANY_CORES, config=c) for c in (full, half)]
    )

    assert floor.decode_s[0] == pytest.approx((N_PARAMS + cells) * 4 / 18e9)
    assert floor.decode_s[1] == pytest.approx((N_PARAMS + cells) * 2 / 18e9)
    backends = ("transformers", "llamafile")
    floor = roofline([make_case(backend=b, config=full, model=in_type("Q8_0")) for b in backends])
    assert floor.prefill_s[0] == floor.prefill_s[1], "arithmetic is the same"
    (slow,) = roofline([make_case(backend="transformers", config=full)]).prefill_s
    assert slow == floor.prefill_s[0], "what unpacks the file multiplies floats"
    assert floor.load_s[0] - floor.load_s[1] == pytest.approx(4 * N_PARAMS / 10e9)
