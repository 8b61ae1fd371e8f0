"""``autotune doctor``: this machine, the engines, the store; what is missing and how to get it."""

from __future__ import annotations

import dataclasses
from typing import Any

import typer
from rich.markup import escape

from autotune.backends.protocol import EngineError
from autotune.backends.registry import backend_names
from autotune.cli.demo import demo_model
from autotune.cli.options import DEFAULT_BACKEND, DbOption, JsonOption, open_store
from autotune.cli.output import console, print_json
from autotune.domain.errors import AutotuneError, UserError
from autotune.domain.machine import Build, GPUFacts, MachineFacts, Probe
from autotune.domain.units import human_bytes
from autotune.facts.gpu import merge_devices
from autotune.facts.machine import machine_id, read_machine, read_state
from autotune.measure.engine import Engine, ask_engine

_INSTALL = f"pip install {DEFAULT_BACKEND}"
"""One engine is enough; the others are named, with the reason where one cannot be used."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor", help="This machine, the engines and the store; what is missing.")(doctor)


def doctor(db: DbOption = None, as_json: JsonOption = False) -> None:
    """Look at everything that a measurement needs. Changes nothing but the store's schema."""
    machine = read_machine()
    engines = {name: describe_backend(name) for name in backend_names()}
    store = _look_at_store(db, machine_id(machine))
    missing = list(_missing(engines, store))
    seen = [gpu for engine in engines.values() if isinstance(engine, Engine) for gpu in engine.gpus]
    machine = dataclasses.replace(machine, gpus=merge_devices(machine.gpus, seen))
    if as_json:
        print_json(_document(machine, engines, store, missing))
        return
    for name, text in _lines(machine, engines, store):
        console.print(f"[bold]{name:<17}[/] {escape(text)}", soft_wrap=True)
    for line in missing:
        console.print(f"missing: {line}", style="yellow", markup=False)
    if not missing:
        console.print("nothing that is needed is missing", style="green")


def describe_backend(name: str) -> Engine | str:
    """The installed engine of a backend, asked in a process of its own; else why there is none."""
    try:
        return ask_engine(name)
    except EngineError as error:
        return str(error)


@dataclasses.dataclass(frozen=True, slots=True)
class StoreLook:
    """The store as the doctor found it."""

    label: str
    n_runs: int | None
    probe: Probe | None
    problem: str


def _look_at_store(db: str | None, identity: str) -> StoreLook:
    try:
        with open_store(db) as store:
            return StoreLook(
                store.database.label, store.count_runs(), store.load_probe(identity), ""
            )
    except AutotuneError as error:
        return StoreLook(str(db), None, None, str(error))


def _missing(engines: dict[str, Engine | str], store: StoreLook) -> Any:
    engine = engines[DEFAULT_BACKEND]
    if isinstance(engine, str):
        yield f"{DEFAULT_BACKEND} ({engine}); get it with: {_INSTALL}"
    if store.problem:
        yield f"a usable store: {store.problem}"
    try:
        demo_model()
    except UserError as error:
        yield str(error)


def _lines(machine: MachineFacts, engines: dict[str, Engine | str], store: StoreLook) -> Any:
    yield "cpu", f"{machine.cpu}, {machine.n_physical or '?'} cores, {machine.n_logical} threads"
    quota = f", quota {machine.cpu_quota:g}" if machine.cpu_quota else ""
    yield "usable", f"{machine.n_usable} processors{quota}"
    yield "isa", " ".join(machine.isa) or "–"
    available = read_state().ram_available_bytes
    yield "memory", f"{human_bytes(machine.ram_bytes)}, {human_bytes(available)} available"
    yield "system", f"{machine.os_version}, {machine.system} {machine.kernel}"
    for gpu in machine.gpus:
        yield "gpu", _gpu_line(gpu)
    if not machine.gpus:
        yield "gpu", "none"
    for name, engine in engines.items():
        yield name, engine if isinstance(engine, str) else _build_line(engine.build)
    runs = "" if store.n_runs is None else f", {store.n_runs} runs"
    yield "store", store.problem or f"{store.label}{runs}"
    yield "probe", _probe_line(store.probe)


def _gpu_line(gpu: GPUFacts) -> str:
    use = f"used as {gpu.device}" if gpu.device else "no installed engine can use it"
    return f"{gpu.name}, {human_bytes(gpu.total_bytes)}, driver {gpu.driver or '?'}, {use}"


def _build_line(build: Build) -> str:
    revision = f", llama.cpp {build.commit}" if build.commit else ""
    return f"{build.version}{revision}, devices {', '.join(build.devices)}"


def _probe_line(probe: Probe | None) -> str:
    if probe is None:
        return "not yet: the first tune, bench or recommend makes it"
    pairs = zip(probe.n_threads, probe.read_bytes_per_s, probe.flops_per_s, strict=True)
    return "; ".join(
        f"{n}t {read / 1e9:.3g} GB/s {flops / 1e9:.3g} GFLOPS" for n, read, flops in pairs
    )


def _document(
    machine: MachineFacts, engines: dict[str, Engine | str], store: StoreLook, missing: list[str]
) -> dict[str, Any]:
    return {
        "machine": dataclasses.asdict(machine),
        "backends": {
            name: {"problem": engine}
            if isinstance(engine, str)
            else dataclasses.asdict(engine.build)
            for name, engine in engines.items()
        },
        "store": {"db": store.label, "runs": store.n_runs, "problem": store.problem or None},
        "probe": dataclasses.asdict(store.probe) if store.probe else None,
        "missing": missing,
    }
