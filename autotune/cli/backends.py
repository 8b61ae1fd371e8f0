"""``--backend auto``: which backends there are, how they stand, and why one was chosen."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from autotune.backends.registry import BUILT_IN, backend_names, get_backend
from autotune.cli.output import (
    console,
    expected_rates,
    measurement_json,
    median_text,
    plain_table,
    recommendation_json,
)
from autotune.domain.run import Measurement, Spread
from autotune.domain.units import human_bytes, human_rate, human_seconds
from autotune.measure.engine import Engine, ask_engines
from autotune.recommend.selection import BackendVerdict
from autotune.tune.contest import Contact, ContestAnswer
from autotune.tune.question import Question

AUTO = "auto"
BackendChoiceOption = Annotated[
    str | None,
    typer.Option(
        "--backend",
        metavar="NAME",
        help=f"What runs it: {', '.join(BUILT_IN)}, another that doctor lists; or auto, to choose.",
    ),
]


def ask_backends(choice: str, model: Path | None = None) -> Mapping[str, Engine | str]:
    """The named backend, or all of them, each with its engine or with why it cannot be used.

    A ``model`` that is a llamafile is its own engine.

    Raises UserError for an unknown name.
    """
    names = backend_names() if choice == AUTO else (get_backend(choice, os.environ).name,)
    return ask_engines(names, model)


def verdict_json(verdict: BackendVerdict) -> dict[str, Any]:
    """How a backend stands, as documented for ``--backend auto --json``."""
    best = verdict.recommendation
    return {
        "backend": verdict.name,
        "is_usable": verdict.is_usable,
        "reasons": list(verdict.reasons),
        "confidence": verdict.confidence,
        "reliability": verdict.reliability,
        "score_s": verdict.score_s if math.isfinite(verdict.score_s) else None,
        "runs": verdict.n_runs,
        "failed_runs": verdict.n_failed,
        "config": best.config.as_dict() if best else None,
    }


def print_ranking(ranking: Sequence[BackendVerdict]) -> None:
    """What is expected of each backend, the chosen one first; then why."""
    table = plain_table("backend", "load", "peak memory", "prefill", "decode", "request")
    for verdict in ranking:
        table.add_row(verdict.name, *_expected(verdict))
    console.print(table)
    for verdict in ranking[1:]:
        for reason in verdict.reasons if verdict.is_usable else _named(verdict):
            console.print(f"• {reason}", style="dim", soft_wrap=True, markup=False)
    best = ranking[0]
    console.print(
        f"{best.name}: probability to be within 5% of the fastest backend {best.confidence:.0%}",
        style="dim",
        soft_wrap=True,
    )


def _named(verdict: BackendVerdict) -> tuple[str, ...]:
    return tuple(f"{verdict.name}: {reason}" for reason in verdict.reasons)


def _expected(verdict: BackendVerdict) -> tuple[str, ...]:
    if verdict.recommendation is None:
        return ("–",) * 5
    prediction = verdict.recommendation.prediction
    prefill, decode = expected_rates(prediction)
    return (
        human_seconds(prediction.load_s.q50),
        human_bytes(prediction.peak_memory_bytes.q50),
        median_text(prefill, human_rate),
        median_text(decode, human_rate),
        human_seconds(prediction.request_s),
    )


def print_contacts(answer: ContestAnswer) -> None:
    """What every backend did: with its default, and at its best where that was put to the proof."""
    table = plain_table("backend", "load", "peak memory", "prefill", "decode", "request")
    for contact in answer.contacts:
        if contact.default is None:
            table.add_row(contact.name, *("–",) * 5)
        else:
            shown = contact.default if _is_other(contact) else contact.best or contact.default
            table.add_row(contact.name, *_measured(shown.measurement))
        if contact.best is not None and _is_other(contact):
            table.add_row("  at its best", *_measured(contact.best.measurement))
    console.print(table)
    for contact in answer.contacts:
        if contact.problem:
            line = f"{contact.name}: {contact.problem}"
            console.print(line, style="dim", soft_wrap=True, markup=False)


def _is_other(contact: Contact) -> bool:
    """Whether the best configuration is another one than the default."""
    best, default = contact.best, contact.default
    return best is not None and (default is None or best.config != default.config)


def _measured(measured: Measurement) -> tuple[str, ...]:
    return (
        human_seconds(measured.load_s),
        human_bytes(measured.peak_memory_bytes),
        human_rate(_median(measured.prefill_tps)),
        human_rate(_median(measured.decode_tps)),
        human_seconds(measured.request_s.median),
    )


def _median(spread: Spread | None) -> float | None:
    return spread.median if spread else None


def contest_json(answer: ContestAnswer, question: Question) -> dict[str, Any]:
    """The answer as documented for ``tune --backend auto --json``."""
    return recommendation_json(answer.recommendation, question.subject.model_path) | {
        "winner": {
            "config": answer.winner.config.as_dict(),
            "measured": measurement_json(answer.winner.measurement),
            "runs": answer.winner.n_runs,
        },
        "backends": [_contact_json(contact) for contact in answer.contacts],
        "ranking": [verdict_json(verdict) for verdict in answer.ranking],
        "study_id": answer.study.study_id,
        "trials": answer.study.n_trials,
        "elapsed_s": answer.elapsed_s,
    }


def _contact_json(contact: Contact) -> dict[str, Any]:
    measured = {"default": contact.default, "best": contact.best}
    return {"backend": contact.name, "problem": contact.problem} | {
        name: {"config": m.config.as_dict(), "measured": measurement_json(m.measurement)}
        if m
        else None
        for name, m in measured.items()
    }
