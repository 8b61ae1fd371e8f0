"""Imported tests as observations: what is looked up, and what is taken as llama-bench's default."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from autotune.domain.errors import ConfigError, DataError
from autotune.domain.imported import ImportedTest
from autotune.domain.machine import GPUFacts, MachineFacts
from autotune.domain.run import LoadTime, Purpose, Reason
from autotune.facts.imported import (
    complete_tests,
    described_config,
    described_machine,
    imported_machine_id,
    imported_model,
    joined_machine,
    machine_name,
    observe_test,
    observe_tests,
)

HOST = "AMD RYZEN AI MAX+ 395 w/ Radeon 8060S"


def make_test(**changes: Any) -> ImportedTest:
    """Qwen3 30B on Strix Halo through Vulkan: 700 tokens of prompt per second."""
    defaults: dict[str, Any] = {
        "source": "someone", "machine": "box", "cpu": HOST, "gpu": "Radeon 8060S Graphics",
        "api": "Vulkan", "build": "6111 vulkan", "model": "Qwen3-30B-A3B-Q4_K_M.gguf",
        "model_type": "qwen3moe 30B.A3B Q4_K - Medium", "n_params": 30532122624,
        "model_bytes": 18556686336, "n_prompt": 512, "n_threads": 16, "n_gpu_layers": 99,
        "tps": 700.0,
    }  # fmt: skip
    return ImportedTest(**{**defaults, **changes})


def config_of(test: ImportedTest, machine: MachineFacts | None = None) -> Any:
    return described_config(test, imported_model(test), machine or described_machine([test]))


@pytest.mark.parametrize(
    ("tokens", "kind"),
    [({"n_prompt": 512}, "pp"), ({"n_prompt": 0, "n_gen": 128}, "tg"),
     ({"n_prompt": 512, "n_gen": 128}, "pg")],
)  # fmt: skip
def test_a_rate_belongs_to_the_phase_that_it_measured(tokens: dict[str, int], kind: str) -> None:
    """And to none, where prompt and generation are one number."""
    test = make_test(**tokens)
    seen = observe_test(test, number=1, machine=described_machine([test]))

    assert test.kind == kind
    assert (seen.prefill_tps, seen.decode_tps) == (
        700.0 if kind == "pp" else None, 700.0 if kind == "tg" else None,
    )  # fmt: skip
    assert (seen.purpose, seen.probe, seen.api) == (Purpose.IMPORT, None, "Vulkan")


def test_a_failure_has_a_reason_and_no_rate() -> None:
    """Also where the table has a number beside it."""
    test = make_test(reason=Reason.OOM, load_s=1.5, measured_at=datetime(2026, 5, 3, tzinfo=UTC))
    seen = observe_test(test, number=7, machine=described_machine([test]))

    assert (seen.run_id, seen.reason, seen.prefill_tps) == (7, Reason.OOM, None)
    assert seen.load == LoadTime(model_s=1.5, context_s=0, first_eval_s=0)
    assert seen.started_at == datetime(2026, 5, 3, tzinfo=UTC)


def test_knobs_that_nobody_names_have_llama_benchs_defaults() -> None:
    """A context that holds the test; every layer on the GPU; the processor's cores."""
    config = config_of(make_test(n_threads=None, n_gpu_layers=None))

    assert (config.n_ctx, config.n_batch, config.n_ubatch) == (4096, 2048, 512)
    assert (config.n_threads, config.n_gpu_layers) == (16, 49)
    assert (config.flash_attn, config.type_k, config.use_mmap) == ("off", "f16", True)
    assert not config.swa_full
    deep = config_of(make_test(n_depth=32768))
    assert deep.n_ctx == 33280
    assert config_of(make_test(backend="llama-cpp-python")).n_batch == 512


def test_a_quantised_cache_that_ran_had_flash_attention() -> None:
    """Newer builds decide for themselves, and print what they were told alone."""
    assert config_of(make_test(type_k="q8_0", type_v="q8_0")).flash_attn == "auto"
    assert config_of(make_test(type_k="q8_0")).flash_attn == "off"


@pytest.mark.parametrize(("asked", "done"), [(-1, 49), (0, 0), (20, 20), (48, 48), (999, 49)])
def test_more_layers_than_there_are_means_all(asked: int, done: int) -> None:
    """The output layer is one more."""
    assert config_of(make_test(n_gpu_layers=asked)).n_gpu_layers == done


def test_a_processor_holds_every_layer_whatever_was_asked() -> None:
    """llama-bench prints −1 for machines without a GPU as well."""
    assert config_of(make_test(api="CPU", gpu=None, n_gpu_layers=-1)).n_gpu_layers == 0
    assert config_of(make_test(api=None, gpu=None)).n_gpu_layers == 0


def test_what_no_run_can_have_is_refused() -> None:
    """Contradicting knobs, and knobs that we have no name for."""
    machine = described_machine([make_test()])
    with pytest.raises(ConfigError, match="needs flash attention"):
        config_of(make_test(type_v="q8_0", flash_attn="off"))
    with pytest.raises(DataError, match="n_cpu_moe=4"):
        observe_test(make_test(n_cpu_moe=4), number=1, machine=machine)


def test_a_failed_run_is_told_by_the_runs_beside_it() -> None:
    """It printed nothing: its model and its build are those of the same name that worked."""
    worked = make_test(model="Qwen3-30B-A3B-Q4_K_M-00001-of-00002.gguf")
    failed = make_test(
        model="Qwen3-30B-A3B-Q4_K_M", model_type=None, n_params=None, model_bytes=None, api=None,
        n_threads=None, n_gpu_layers=None, build="vulkan", reason=Reason.CRASH, tps=None,
    )  # fmt: skip

    _, told = complete_tests([worked, failed])

    assert (told.model_type, told.n_params) == (worked.model_type, worked.n_params)
    assert (told.api, told.n_threads, told.n_gpu_layers) == ("Vulkan", 16, 99)
    assert told.tps is None


def test_tests_of_one_model_and_machine_share_their_facts() -> None:
    """So that a predictor sees one model, however many rows tell of it."""
    seen, problems = observe_tests([make_test(), make_test(tps=710.0), make_test(n_cpu_moe=1)])

    assert seen[0].model is seen[1].model
    assert seen[0].machine is seen[1].machine
    assert (len(seen), len(problems)) == (2, 1)


def test_a_machine_has_a_name_or_is_its_parts() -> None:
    """And an identity that no machine of ours has."""
    assert machine_name(make_test()) == "box"
    assert machine_name(make_test(machine=None, n_gpus=2)) == f"{HOST} + 2 × Radeon 8060S Graphics"
    assert machine_name(ImportedTest(source="x")) == "unknown machine"
    assert len(imported_machine_id("box")) == 16
    assert imported_machine_id("box") != imported_machine_id("box2")


def test_another_card_is_another_machine_whatever_it_is_called() -> None:
    """Nor are two of them one; a run without a card, and an alias of it, stay with the name."""
    cards = ("NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 3060")
    seen, _ = observe_tests(
        [
            make_test(gpu=cards[0]), make_test(gpu=cards[1]), make_test(gpu=cards[1], n_gpus=2),
            make_test(gpu=None, api="CPU"), make_test(gpu=cards[0], tps=1.0),
        ]
    )  # fmt: skip
    aliases, _ = observe_tests([make_test(), make_test(gpu="AMD Radeon Graphics")])

    first, second, both, host, again = (o.machine_id for o in seen)
    assert len({first, second, both, host}) == 4
    assert first == again
    assert [gpu.name for gpu in seen[1].machine.gpus] == [cards[1]]
    assert len({o.machine_id for o in aliases}) == 1


def test_hearsay_is_no_clean_run() -> None:
    """Nobody knows what ran beside it."""
    told = make_test(is_hearsay=True)
    seen = observe_test(told, number=1, machine=described_machine([told]))

    assert (seen.contaminated, seen.load_contaminated) == (True, True)


def test_a_machine_keeps_every_name_of_its_gpu_and_the_best_of_its_processor() -> None:
    """An engineering sample tells nothing; the marketing name tells its cores."""
    sample = "AMD Eng Sample: 100-000001243-50_Y"
    machine = described_machine(
        [make_test(cpu=sample, gpu="AMD Radeon Graphics")] * 2 + [make_test()]
    )

    assert (machine.cpu, machine.n_physical) == (HOST, 16)
    assert [gpu.name for gpu in machine.gpus] == ["AMD Radeon Graphics", "Radeon 8060S Graphics"]
    assert machine.n_processors == 16
    assert machine.usable_ram_bytes is None


def test_a_second_table_adds_to_a_machine_and_takes_nothing_away() -> None:
    """Whatever order they come in."""
    known = MachineFacts(cpu=HOST, n_physical=16, gpus=(GPUFacts(name="A"),))
    found = MachineFacts(cpu="AMD Eng Sample", gpus=(GPUFacts(name="B"), GPUFacts(name="A")))

    for joined in (joined_machine(known, found), joined_machine(found, known)):
        assert (joined.cpu, joined.n_physical) == (HOST, 16)
        assert {gpu.name for gpu in joined.gpus} == {"A", "B"}
    assert joined_machine(known, known) == known
