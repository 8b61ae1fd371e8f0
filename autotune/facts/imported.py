"""Imported tests as observations: what a table leaves out is looked up, or taken as llama-bench's.

A table names a model and a machine; layers, heads and bandwidths come from
:mod:`autotune.facts.catalogue` and :mod:`autotune.facts.devices`. A knob that it does not name had
llama-bench's default.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from autotune.domain.config import KV_BYTES_PER_ELEMENT, LOSSLESS_KV_TYPES, Config
from autotune.domain.errors import DataError, UserError
from autotune.domain.imported import ImportedTest
from autotune.domain.machine import GPUFacts, MachineFacts
from autotune.domain.model import ModelFacts
from autotune.domain.run import LoadTime, Purpose
from autotune.domain.study import Observation
from autotune.domain.workload import Workload
from autotune.facts.catalogue import described_model
from autotune.facts.devices import lookup
from autotune.facts.hosts import lookup_host

_N_CTX = 4096
"""Context where nobody says, if it holds the test: llama-bench makes one for each test, so its
size is no choice of anybody's."""
_DEFAULT_BATCH = {"llama-bench": 2048, "llama-cpp-python": 512}
_DEFAULT_UBATCH = 512
_PART = re.compile(r"(-\d{5}-of-\d{5})?(\.gguf)?$", re.IGNORECASE)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def machine_name(test: ImportedTest) -> str:
    """What the machine of a test is called; its parts, where it has no name."""
    parts = (test.cpu, f"{test.n_gpus or 1} × {test.gpu}" if test.gpu else None)
    return test.machine or " + ".join(filter(None, parts)) or "unknown machine"


def imported_machine_id(name: str) -> str:
    """16 hexadecimal digits that keep a stranger's machine apart from ours."""
    return hashlib.sha256(f"import|{name}".encode()).hexdigest()[:16]


def described_machine(tests: Sequence[ImportedTest]) -> MachineFacts:
    """Facts of the machine that all these tests were run on.

    Drivers call the same GPU by different names: the machine keeps all of them, so that one of
    them is found.
    """
    cpus = Counter(test.cpu for test in tests if test.cpu)
    cpu = next((c for c, _ in cpus.most_common() if lookup_host(c)), None)
    cpu = cpu or next((c for c, _ in cpus.most_common()), "")
    host = lookup_host(cpu)
    names = Counter(test.gpu for test in tests if test.gpu)
    return MachineFacts(
        cpu=cpu,
        n_physical=host.n_cores if host else None,
        gpus=tuple(GPUFacts(name=name) for name, _ in names.most_common()),
    )


def joined_machine(known: MachineFacts, found: MachineFacts) -> MachineFacts:
    """A machine of an earlier table with what another table tells of it."""
    better = found if lookup_host(found.cpu) or not known.cpu else known
    names = dict.fromkeys(gpu.name for gpu in (*known.gpus, *found.gpus))
    return replace(
        known,
        cpu=better.cpu,
        n_physical=known.n_physical or found.n_physical,
        gpus=tuple(GPUFacts(name=name) for name in names),
    )


def described_config(test: ImportedTest, model: ModelFacts, machine: MachineFacts) -> Config:
    """The configuration of a test. Raises ConfigError for one that cannot be."""
    n_tokens = test.n_prompt + test.n_gen + test.n_depth
    n_ctx = test.n_ctx or max(_N_CTX, -(-n_tokens // 256) * 256)
    n_batch = min(test.n_batch or _DEFAULT_BATCH.get(test.backend, 2048), n_ctx)
    n_threads = test.n_threads or machine.n_physical or 4
    everything = model.n_layers + 1
    asked = everything if test.n_gpu_layers is None else test.n_gpu_layers
    layers = everything if asked < 0 else min(asked, everything)
    type_v = _cache_type(test.type_v)
    # Newer builds decide for themselves; a quantised cache ran, so they decided for it.
    flash_attn = test.flash_attn or ("off" if type_v in LOSSLESS_KV_TYPES else "auto")
    return Config(
        n_ctx=n_ctx,
        n_batch=n_batch,
        n_ubatch=min(test.n_ubatch or _DEFAULT_UBATCH, n_batch),
        n_threads=n_threads,
        n_threads_batch=n_threads,
        flash_attn=flash_attn,
        type_k=_cache_type(test.type_k),
        type_v=type_v,
        use_mmap=test.use_mmap is not False,
        n_gpu_layers=0 if test.api in (None, "CPU") else layers,
        offload_kqv=test.offload_kqv is not False,
        op_offload=test.op_offload is not False,
        split_mode=test.split_mode or "layer",
        swa_full=False,
    )


def _cache_type(text: str | None) -> str:
    return "f16" if text is None or text.lower() not in KV_BYTES_PER_ELEMENT else text.lower()


def observe_tests(
    tests: Iterable[ImportedTest],
) -> tuple[tuple[Observation, ...], tuple[str, ...]]:
    """(what the tests teach, one line for each that cannot be told), in their order."""
    ordered = complete_tests(tests)
    machines: dict[str, list[ImportedTest]] = defaultdict(list)
    for test in ordered:
        machines[machine_name(test)].append(test)
    facts = {name: described_machine(found) for name, found in machines.items()}
    observations, problems = [], []
    for number, test in enumerate(ordered, start=1):
        try:
            machine = facts[machine_name(test)]
            observations.append(observe_test(test, number=number, machine=machine))
        except (DataError, UserError) as error:
            problems.append(f"{test.place or f'test {number}'}: {error}")
    return tuple(observations), tuple(problems)


def complete_tests(tests: Iterable[ImportedTest]) -> list[ImportedTest]:
    """The tests, each with what others of the same table say of its model and of its build.

    A run that failed printed nothing about itself; the runs beside it did.
    """
    ordered = [replace(test, model=_stem(test.model)) for test in _told_apart([*tests])]
    models = _Known(ordered, key=lambda t: t.model, names=("model_type", "n_params", "model_bytes"))
    builds = _Known(ordered, key=_flavour, names=("api", "n_threads", "n_ubatch", "n_gpu_layers"))
    return [builds.fill(models.fill(test)) for test in ordered]


def _told_apart(tests: Sequence[ImportedTest]) -> list[ImportedTest]:
    """The tests, each on a machine of its own hardware.

    People change cards and keep the name: what one card did says nothing of the next.
    """
    kinds: dict[str | None, set[Hashable]] = defaultdict(set)
    for test in tests:
        kinds[test.machine] |= _cards(test)
    return [
        replace(test, machine=f"{test.machine} ({test.n_gpus or 1} × {test.gpu})")
        if test.machine and _cards(test) and len(kinds[test.machine]) > 1
        else test
        for test in tests
    ]


def _cards(test: ImportedTest) -> set[Hashable]:
    """The listed cards of a test, and how many: drivers call others by several names."""
    known = lookup(test.gpu) if test.gpu else None
    return {(known.name, test.n_gpus or 1)} if known else set()


class _Known:
    """For each key the most common value of each named field."""

    def __init__(
        self,
        tests: Sequence[ImportedTest],
        *,
        key: Callable[[ImportedTest], Hashable],
        names: Sequence[str],
    ) -> None:
        self._key, self._names = key, names
        self._counts: dict[tuple[Hashable, str], Counter[Any]] = defaultdict(Counter)
        for test in tests:
            for name in names:
                if (value := getattr(test, name)) is not None:
                    self._counts[key(test), name][value] += 1

    def fill(self, test: ImportedTest) -> ImportedTest:
        """The test with its empty fields filled where another test of the same key knows them."""
        missing = {
            name: counts.most_common(1)[0][0]
            for name in self._names
            if getattr(test, name) is None and (counts := self._counts.get((self._key(test), name)))
        }
        return replace(test, **missing) if missing else test


def _flavour(test: ImportedTest) -> Hashable:
    """Machine and name of the build without its number, which a failed run did not print."""
    return machine_name(test) if test.machine else "", (test.build or "").split(" ")[-1]


def _stem(model: str | None) -> str | None:
    """The name of a model without what tells its files apart."""
    return None if model is None else _PART.sub("", model)


def observe_test(test: ImportedTest, *, number: int, machine: MachineFacts) -> Observation:
    """What one test teaches about its machine. Raises DataError for knobs that no run can have."""
    if test.n_cpu_moe:
        raise DataError(f"n_cpu_moe={test.n_cpu_moe}: experts on the CPU are not a knob yet")
    model = imported_model(test)
    failed = test.reason is not None
    return Observation(
        run_id=number,
        machine_id=imported_machine_id(machine_name(test)),
        machine=machine,
        probe=None,
        model=model,
        backend=test.backend,
        build=test.build or "",
        api=test.api or "CPU",
        config=described_config(test, model, machine),
        workload=Workload(n_prompt=test.n_prompt, n_gen=test.n_gen, n_depth=test.n_depth),
        purpose=Purpose.IMPORT,
        started_at=test.measured_at or _EPOCH,
        reason=test.reason,
        load=None
        if test.load_s is None
        else LoadTime(model_s=test.load_s, context_s=0, first_eval_s=0),
        peak_vram_bytes=test.peak_vram_bytes,
        prefill_tps=test.tps if test.kind == "pp" and not failed else None,
        decode_tps=test.tps if test.kind == "tg" and not failed else None,
        contaminated=test.is_hearsay,
        load_contaminated=test.is_hearsay,
    )


def imported_model(test: ImportedTest) -> ModelFacts:
    """Facts of the model of a test."""
    return described_model(
        name=test.model or test.model_type or "",
        model_type=test.model_type,
        n_params=test.n_params,
        model_bytes=test.model_bytes,
        quantization=test.quantization,
    )
