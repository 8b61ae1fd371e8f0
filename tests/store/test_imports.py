"""Somebody else's tests in the store: rows that teach, once each."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from autotune.domain.errors import UserError
from autotune.domain.imported import ImportedTest
from autotune.domain.run import Purpose, Reason
from autotune.domain.stored import RunState
from autotune.facts.imported import observe_tests
from autotune.store.frames import generations_frame, runs_frame
from autotune.store.importers.files import read_file
from autotune.store.imports import import_key
from autotune.store.store import Store
from autotune.store.tables import LoadRunRow
from tests.factories import make_build, make_run
from tests.store import examples
from tests.store.importers.excerpts import make_row, write_json


def make_test(**changes: Any) -> ImportedTest:
    """Llama 3 8B on somebody's RTX 4090: 5,000 tokens of prompt per second."""
    defaults: dict[str, Any] = {
        "source": "someone/measurements", "place": "line 2", "machine": "box",
        "cpu": "Intel i7-10700K", "gpu": "NVIDIA GeForce RTX 4090", "n_gpus": 1, "api": "CUDA",
        "build": "6111", "model": "Meta-Llama-3-8B-Instruct-Q8_0.gguf",
        "model_type": "llama 8B Q8_0", "n_params": 8030261248, "model_bytes": 8532934656,
        "n_prompt": 512, "n_threads": 8, "n_gpu_layers": 99, "flash_attn": "on", "tps": 5000.0,
        "tps_sd": 12.5, "n_reps": 5,
    }  # fmt: skip
    return ImportedTest(**{**defaults, **changes})


def make_decode(**changes: Any) -> ImportedTest:
    """100 generated tokens per second after 4,096."""
    return make_test(**{"n_prompt": 0, "n_gen": 128, "n_depth": 4096, "tps": 100.0, **changes})


def test_what_is_read_back_is_what_the_table_taught(store: Store) -> None:
    """The store adds nothing to a test and loses nothing of it."""
    tests = [
        make_test(), make_decode(), make_test(api="ROCm", gpu="AMD Radeon RX 6800", machine="two"),
        make_test(n_prompt=1024, reason=Reason.OOM, tps=None),
        make_decode(tps=128.0, api=None, gpu=None, machine=None, build=None, load_s=2.5),
        make_test(peak_vram_bytes=10_000_000_000, tps=2500.0),
    ]  # fmt: skip

    assert store.import_tests(tests) == (6, 0, ())

    stored = store.observations()
    expected, _ = observe_tests(tests)
    assert [replace(seen, run_id=0) for seen in stored] == [
        replace(seen, run_id=0) for seen in expected
    ]
    assert {seen.api for seen in stored} == {"CUDA", "ROCm", "CPU"}
    assert all(seen.purpose is Purpose.IMPORT and seen.probe is None for seen in stored)


def test_the_same_tests_again_add_nothing(store: Store) -> None:
    """Also from a file of another name, in another place, and beside new ones."""
    store.import_tests([make_test(), make_decode()])

    moved = make_test(source="copy.csv", place="row 7", samples_tps=(4990.0, 5010.0), n_reps=2)
    result = store.import_tests([moved, make_decode(), make_decode(tps=101.0)])

    assert (result.n_added, result.n_known) == (1, 2)
    assert store.count_runs() == 3


def test_a_test_is_the_same_test_for_later_versions() -> None:
    """A column that they read beside the old ones changes no key where it says the usual."""
    test = make_test()

    assert import_key(test) == "7b622f26f5b3a1ed92034021af453faf", (
        "what was imported would be imported again"
    )
    assert import_key(replace(test, op_offload=True)) == import_key(test)
    assert import_key(replace(test, op_offload=False)) != import_key(test)


def test_a_test_that_a_file_says_twice_is_one_run(store: Store) -> None:
    """A copied line is no second measurement."""
    assert store.import_tests([make_test(), make_test()]) == (1, 1, ())


def test_what_no_run_can_be_is_named(store: Store) -> None:
    """Contradicting knobs, an unknown model, knobs that we do not have; the rest is kept."""
    tests = [
        make_test(place="line 2", type_v="q8_0", flash_attn="off"),
        make_test(place="line 3", model="mine.gguf", model_type=None, n_params=None,
                  model_bytes=None),
        make_test(place="line 4", n_cpu_moe=12),
        make_test(place="line 5"),
    ]  # fmt: skip

    result = store.import_tests(tests)

    assert (result.n_added, result.n_known) == (1, 0)
    assert [problem.split(":")[0] for problem in result.problems] == ["line 2", "line 3", "line 4"]
    assert "needs flash attention" in result.problems[0]
    assert "'mine' is not known" in result.problems[1]
    assert store.count_runs() == 1


def test_a_rate_of_both_phases_is_kept_and_teaches_none(store: Store) -> None:
    """One number for prompt and generation belongs to neither."""
    store.import_tests([make_test(n_gen=128, tps=412.0)])

    (seen,) = store.observations()
    assert (seen.prefill_tps, seen.decode_tps, seen.reason) == (None, None, None)
    (run,) = store.list_runs()
    assert run.workload.label == "pp512+tg128@d0"
    with store.database.read() as session:
        record = session.scalars(select(LoadRunRow.import_json)).one()
    assert json.loads(record or "")["tps"] == 412.0


def test_every_repetition_is_a_generation(store: Store) -> None:
    """Where the table tells them; else there is one, of the mean."""
    store.import_tests([make_test(samples_tps=(4000.0, 6000.0, 5500.0)), make_decode()])

    several, one = (store.load_run(run_id).run for run_id in (1, 2))
    assert several is not None
    assert [g.prefill_tps for g in several.generations] == pytest.approx([4000, 6000, 5500])
    assert one is not None
    assert [g.decode_tps for g in one.generations] == pytest.approx([100])
    assert one.generations[0].prefill_ns is None


def test_what_nobody_said_is_missing(store: Store) -> None:
    """Not 0, and not what we would have measured."""
    store.import_tests([make_test()])

    with store.database.read() as session:
        row = session.scalars(select(LoadRunRow)).one()
        assert (row.elapsed_s, row.model_path, row.contamination, row.cached_ratio) == (None,) * 4
        assert (row.peak_rss_bytes, row.model_s, row.state) == (None, None, RunState.COMPLETE)
        assert (row.measure_version, row.source) == (0, "someone/measurements")
    machine = store.load_machine(store.list_runs()[0].machine_id)
    assert (machine.ram_bytes, machine.n_logical, machine.system) == (None, None, None)
    assert machine.n_physical == 8  # an i7-10700K has eight


def test_a_machine_learns_the_names_that_drivers_give_its_gpu(store: Store) -> None:
    """One table by ROCm, the next by Vulkan: one machine."""
    store.import_tests([make_test(cpu="AMD Eng Sample", gpu="AMD Radeon Graphics", api="ROCm")])
    host = "AMD RYZEN AI MAX+ 395 w/ Radeon 8060S"
    store.import_tests([make_test(cpu=host, gpu="Radeon 8060S Graphics", api="Vulkan")])

    first, second = store.observations()
    assert first.machine is second.machine
    assert first.machine.cpu == host
    assert [gpu.name for gpu in first.machine.gpus] == [
        "AMD Radeon Graphics", "Radeon 8060S Graphics",
    ]  # fmt: skip


def test_an_imported_run_is_closed(store: Store) -> None:
    """Nobody reports on it, and no process stands behind it."""
    store.import_tests([make_test()])

    with pytest.raises(UserError, match="no open run"):
        store.finish_run(1, make_run())
    with pytest.raises(UserError, match="no open run"):
        store.cancel_run(1)
    assert store.close_dead_runs() == 0


def test_a_discarded_import_teaches_no_more(store: Store) -> None:
    """As one of our own."""
    store.import_tests([make_test()])

    store.discard_runs([1])

    assert store.observations() == ()


def test_imports_stand_beside_our_own_in_lists_and_frames(store: Store) -> None:
    """With who measured them."""
    examples.record(store)
    store.import_tests([make_test(), make_decode(place="line 3")])

    assert [run.purpose for run in store.list_runs()] == ["import", "import", "bench"]
    record = store.load_run(2)
    assert record.is_imported
    assert record.trial.model_path.name == "Meta-Llama-3-8B-Instruct-Q8_0"
    frame = runs_frame(store).set_index("run_id")
    assert list(frame["source"]) == ["local", "someone/measurements", "someone/measurements"]
    assert frame.loc[2, "prefill_tps"] == pytest.approx(5000)
    assert frame.loc[3, "decode_tps"] == pytest.approx(100)
    assert len(generations_frame(store)) == 5


def test_a_build_tells_what_it_computes_with(store: Store) -> None:
    """Our own runs too: by the first GPU among the devices."""
    for devices in (("CPU",), ("CPU", "CUDA0"), ("MTL0", "BLAS", "CPU"), ("Vulkan0", "CPU")):
        examples.record(store, make_run(build=make_build(devices=devices)))

    assert [seen.api for seen in store.observations()] == ["CPU", "CUDA", "Metal", "Vulkan"]


def test_text_that_no_database_encodes_is_kept_readable(store: Store, tmp_path: Path) -> None:
    """JSON can spell half a character."""
    row = make_row(model_filename="odd\ud800-8B.gguf", gpu_info="RTX\udcff 4090\0")
    told = read_file(write_json(tmp_path / "t.json", row))

    assert store.import_tests(told.tests) == (1, 0, ())
    assert store.list_runs()[0].model_name == "odd?-8B"
