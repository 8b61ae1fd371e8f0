"""``autotune quality MODEL``: what a smaller KV cache costs in quality, measured and stored."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import typer

from autotune.backends.protocol import EngineError
from autotune.backends.registry import get_backend
from autotune.cli.options import (
    DEFAULT_BACKEND,
    DbOption,
    JsonOption,
    ModelArgument,
    SetOption,
    open_store,
    parse_config,
)
from autotune.cli.output import console, messages, plain_table, print_json
from autotune.domain.config import Config
from autotune.domain.errors import ConfigError
from autotune.domain.machine import Build, MachineFacts
from autotune.domain.model import ModelFacts
from autotune.domain.quality import QualityCost, reference_of, require_cacheable
from autotune.domain.run import Reason
from autotune.facts.gguf import read_model
from autotune.facts.machine import read_machine, read_state
from autotune.measure.quality import QualityMeter
from autotune.recommend.subject import Subject, register_subject
from autotune.store.store import Store

_CACHES = ("q8_0", "q5_1", "q4_0")
"""Judged where none is named: what users of llama.cpp choose from, the largest first."""
_N_CTX = 4096

Costs = dict[Config, QualityCost]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("quality", help="What a smaller KV cache costs in quality.")(quality)


def quality(
    model: ModelArgument,
    changes: SetOption = None,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hold next-token distributions against those of an f16 cache, over a fixed text.

    Flash attention is on unless set otherwise: a quantised value cache needs it.
    """
    facts, machine = read_model(model), read_machine()
    candidates = _candidates(changes, _base(facts, machine))
    for config in candidates:
        require_cacheable(facts, config)
    with open_store(db) as store:
        subject = register_subject(model, facts, machine, store)
        build, costs = _judge(subject, candidates, store)
    if as_json:
        print_json(_document(model, build, costs))
    else:
        _print(costs)


def _base(model: ModelFacts, machine: MachineFacts) -> Config:
    return (
        get_backend(DEFAULT_BACKEND, os.environ)
        .default_config(n_ctx=min(_N_CTX, model.n_ctx_train), machine=machine)
        .replace(flash_attn="on")
    )


def _candidates(changes: list[str] | None, base: Config) -> tuple[Config, ...]:
    if not changes:
        return tuple(base.replace(type_k=cache, type_v=cache) for cache in _CACHES)
    config = parse_config(changes, base)
    if config == reference_of(config):
        raise ConfigError("type_k=f16 type_v=f16 is the reference itself: add --set type_k=q8_0")
    return (config,)


def _judge(subject: Subject, candidates: tuple[Config, ...], store: Store) -> tuple[Build, Costs]:
    """Measure and store each candidate; one that is refused among others is a remark."""
    costs: Costs = {}
    refusals: dict[Config, EngineError] = {}
    with (
        QualityMeter(DEFAULT_BACKEND, memory_limit_bytes=read_state().ram_available_bytes) as meter,
        messages.status("starting") as status,
    ):
        build = meter.build()
        for config in candidates:
            status.update(f"judging {_cache(config)}")
            try:
                costs[config] = meter.cost(subject.model_path, config)
            except EngineError as error:
                if error.reason is not Reason.CONSTRAINT:
                    raise
                refusals[config] = error
                continue
            store.record_quality(
                costs[config],
                machine_id=subject.machine_id,
                model_id=subject.model.model_id,
                build=build,
                config=config,
                reference=reference_of(config),
                text=meter.text,
            )
    for config, refusal in refusals.items():
        if not costs:
            raise ConfigError(str(refusal)) from refusal
        messages.print(f"{_cache(config)}: {refusal}", style="yellow")
    return build, costs


def _document(model: Path, build: Build, costs: Costs) -> dict[str, object]:
    return {
        "model": str(model),
        "backend": build.backend,
        "build": build.label,
        "costs": [
            {
                "config": config.as_dict(),
                "reference": reference_of(config).as_dict(),
                **dataclasses.asdict(cost),
            }
            for config, cost in costs.items()
        ],
    }


def _print(costs: Costs) -> None:
    table = plain_table("cache", "KL mean", "KL p99", "same likeliest token")
    for config, cost in costs.items():
        table.add_row(
            _cache(config),
            f"{cost.kl_mean:.3g}",
            f"{cost.kl_p99:.3g}",
            f"{cost.top1_agreement:.1%}",
        )
    console.print(table)
    config, cost = next(iter(costs.items()))
    console.print(
        f"nats per token against an f16 cache over {cost.n_tokens} positions, "
        f"flash_attn={config.flash_attn}",
        style="dim",
    )


def _cache(config: Config) -> str:
    return f"type_k={config.type_k} type_v={config.type_v}"
