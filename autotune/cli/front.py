"""``recommend --pareto``: what speed, memory and quality cost each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import typer

from autotune.cli.output import changes_text, console, plain_table, print_json
from autotune.domain.quality import QualityCost
from autotune.domain.units import human_bytes, human_seconds
from autotune.predict.predictor import Predictor
from autotune.recommend.choose import survey
from autotune.recommend.pareto import front, quality_costs
from autotune.tune.question import Question

ParetoOption = Annotated[
    bool, typer.Option("--pareto", help="Print what time, memory and quality cost each other.")
]


def print_front(
    question: Question,
    predictor: Predictor,
    quality: Mapping[tuple[str, str], QualityCost],
    *,
    as_json: bool,
) -> None:
    """The candidates that nothing beats in all three, the fastest first."""
    candidates = survey(
        predictor,
        question.cases,
        available_bytes=question.available_bytes,
        limits=question.limits,
    )
    nats = {kinds: cost.kl_mean for kinds, cost in quality.items()}
    costs = quality_costs(candidates, nats)
    rows: list[dict[str, Any]] = [
        {
            "config": candidates.forecast.cases[index].config,
            "request_s": float(candidates.request_s[index]),
            "peak_memory_bytes": float(candidates.forecast.peak_bytes[index]),
            "kl_nats": float(costs[index]) if np.isfinite(costs[index]) else None,
        }
        for index in front(candidates, nats)
    ]
    if as_json:
        print_json([row | {"config": row["config"].as_dict()} for row in rows])
        return
    table = plain_table("configuration", "request", "memory", "quality lost")
    for row in rows:
        lost = "not measured" if row["kl_nats"] is None else f"{row['kl_nats']:.4f} nats"
        table.add_row(
            changes_text(row["config"], question.study.default),
            human_seconds(row["request_s"]),
            human_bytes(row["peak_memory_bytes"]),
            "none" if row["kl_nats"] == 0 else lost,
        )
    console.print(table)
