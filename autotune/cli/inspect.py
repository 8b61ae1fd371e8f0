"""``autotune inspect MODEL``: what the file says, and what a configuration would allocate."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import typer

from autotune.backends.protocol import EngineError
from autotune.backends.registry import get_backend
from autotune.cli.options import (
    DEFAULT_BACKEND,
    JsonOption,
    ModelArgument,
    SetOption,
    parse_config,
)
from autotune.cli.output import console, messages, plain_table, print_json
from autotune.domain.config import Config
from autotune.domain.errors import ConfigError
from autotune.domain.machine import GPUFacts, MachineFacts
from autotune.domain.model import ModelFacts
from autotune.domain.plan import MemoryPlan
from autotune.domain.run import Reason
from autotune.domain.units import human_bytes
from autotune.facts.gguf import read_model
from autotune.facts.gpu import merge_devices
from autotune.facts.machine import read_machine
from autotune.facts.plan import plan_memory
from autotune.facts.weights import repacked_types
from autotune.measure.engine import ask_engine
from autotune.measure.planner import ExactPlanner

_N_CTX = 4096


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("inspect", help="GGUF facts and the memory plan of a configuration.")(inspect)


def inspect(model: ModelArgument, changes: SetOption = None, as_json: JsonOption = False) -> None:
    """Print the facts of a model and the memory plan of a configuration.

    Raises ConfigError with the engine's words for a combination of knobs that it refuses.
    """
    facts = read_model(model)
    machine = read_machine()
    n_ctx = min(_N_CTX, facts.n_ctx_train)
    default = get_backend(DEFAULT_BACKEND, os.environ).default_config(n_ctx=n_ctx, machine=machine)
    config = parse_config(changes, default)
    plan = _exact_plan(model, config)
    gpus = machine.gpus if plan is None else _usable_gpus(machine)
    analytic = plan_memory(facts, config, repacks=repacked_types(machine.isa), gpus=gpus)
    if as_json:
        print_json(_document(facts, config, plan or analytic, analytic))
    else:
        _print_facts(facts)
        _print_plan(config, plan or analytic, analytic)


def _exact_plan(model: Path, config: Config) -> MemoryPlan | None:
    """The engine's own plan; None, with a remark, where it gives none."""
    try:
        with ExactPlanner(DEFAULT_BACKEND) as planner:
            return planner.plan(model, config)
    except EngineError as error:
        if error.reason is Reason.CONSTRAINT:
            raise ConfigError(str(error)) from error
        messages.print(f"the engine gives no plan, ours follows: {error}", style="yellow")
        return None


def _usable_gpus(machine: MachineFacts) -> tuple[GPUFacts, ...]:
    return merge_devices(machine.gpus, ask_engine(DEFAULT_BACKEND).gpus)


def _document(
    facts: ModelFacts, config: Config, plan: MemoryPlan, analytic: MemoryPlan
) -> dict[str, object]:
    return {
        "model": dataclasses.asdict(facts)
        | {"n_params": facts.n_params, "weight_bytes": facts.weight_bytes},
        "config": config.as_dict(),
        "plan": _plan_json(plan),
        "analytic": _plan_json(analytic),
    }


def _plan_json(plan: MemoryPlan) -> dict[str, object]:
    return dataclasses.asdict(plan) | {"total_bytes": plan.total_bytes()}


def _print_facts(facts: ModelFacts) -> None:
    rows = {
        "model": f"{facts.name} ({facts.architecture}, {facts.model_id})",
        "size": f"{facts.n_params / 1e6:.0f} M parameters, {human_bytes(facts.file_bytes)}",
        "layers": f"{facts.n_layers} of width {facts.n_embd}, feed-forward {facts.n_ff}",
        "attention": f"{_span(facts.n_heads)} heads, {_span(facts.n_heads_kv)} for keys and values",
        "context": f"{facts.n_ctx_train} tokens trained"
        + (f", window {facts.sliding_window}" if facts.sliding_window else ""),
        "vocabulary": f"{facts.n_vocab} words",
    }
    if facts.n_experts:
        rows["experts"] = f"{facts.n_experts}, {facts.n_experts_used} used for each token"
    for name, text in rows.items():
        console.print(f"[bold]{name:<11}[/] {text}")
    table = plain_table("tensors", "type", "count", "parameters", "bytes")
    for tensor in facts.tensors:
        table.add_row(
            tensor.group,
            tensor.type,
            str(tensor.n_tensors),
            f"{tensor.n_elements:,}",
            human_bytes(tensor.n_bytes),
        )
    console.print()
    console.print(table)


def _span(values: tuple[int, ...]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low}–{high}"


def _print_plan(config: Config, plan: MemoryPlan, analytic: MemoryPlan) -> None:
    table = plain_table("memory plan", "device", "bytes")
    for entry in plan.entries:
        if entry.n_bytes:
            table.add_row(entry.component, entry.device, human_bytes(entry.n_bytes))
    table.add_row("total", "", human_bytes(plan.total_bytes()), style="bold")
    if plan is not analytic:
        table.add_row("analytic", "", human_bytes(analytic.total_bytes()), style="dim")
    console.print()
    console.print(table)
    console.print(
        f"\nn_ctx={config.n_ctx} n_ubatch={config.n_ubatch} flash_attn={config.flash_attn} "
        f"type_k={config.type_k} type_v={config.type_v}: source {plan.source}",
        style="dim",
    )
