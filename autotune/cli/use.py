"""A run of ordinary use as a table: what was generated, by size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from rich.table import Table

from autotune.cli.output import plain_table
from autotune.domain.run import Generation, Spread, summarise
from autotune.domain.units import human_rate, human_seconds
from autotune.domain.workload import Workload


def use_table(generations: Iterable[Generation]) -> Table:
    """Medians of the generations that are about as large, the commonest first."""
    alike: dict[Workload, list[Generation]] = defaultdict(list)
    for generation in generations:
        alike[generation.workload.coarse].append(generation)
    table = plain_table("about", "generations", "clean", "prefill", "decode", "first token")
    for workload, found in sorted(alike.items(), key=lambda item: len(item[1]), reverse=True):
        summary = summarise(None, None, tuple(found))
        assert summary is not None  # there are generations
        table.add_row(
            workload.label,
            str(len(found)),
            str(sum(not generation.contamination for generation in found)),
            human_rate(_median(summary.prefill_tps)),
            human_rate(_median(summary.decode_tps)),
            human_seconds(_median(summary.ttft_s)),
        )
    return table


def _median(spread: Spread | None) -> float | None:
    return spread.median if spread else None
