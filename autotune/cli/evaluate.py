"""``autotune evaluate``: the predictor judged on what it has never seen."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autotune.cli.options import DbOption, JsonOption, open_store
from autotune.cli.output import console, plain_table, print_json
from autotune.domain.errors import UserError
from autotune.domain.imported import ImportedTest
from autotune.domain.study import Observation

if TYPE_CHECKING:
    from autotune.predict.evaluate import Evaluation
    from autotune.predict.scores import Score

ReplayOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--replay", metavar="FILE", help="Judge on a file of somebody's runs; may be repeated."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("evaluate", help="Judge the predictor on runs that it has not seen.")(evaluate)


def evaluate(db: DbOption = None, replay: ReplayOption = None, as_json: JsonOption = False) -> None:
    """Refit without a model, a machine or a configuration, and predict it.

    Judges on the store; with --replay on the files, and on a store only if --db names one.
    """
    from autotune.predict.evaluate import evaluate as judge
    from autotune.predict.prior import load_prior

    observations, record = _observations(db, replay or [])
    if not observations:
        raise UserError("no runs to judge on: autotune tune MODEL makes some, --replay FILE reads")
    api = max((o.api for o in observations), key=lambda name: name != "CPU")
    with console.status("evaluating") as status:
        found = judge(
            observations,
            prior=load_prior(api),
            notify=lambda text: status.update(f"evaluating: {text}"),
        )
    if not found.targets and not found.success:
        raise UserError(
            f"{found.n_runs} runs are too few to hold any out: autotune tune MODEL makes more"
        )
    if as_json:
        print_json(evaluation_json(found) | {"before_the_run": record})
    else:
        _print(found)
        _print_record(record)


def _observations(
    db: str | None, files: list[Path]
) -> tuple[list[Observation], list[dict[Any, Any]]]:
    """(runs to judge on, how good the store's own predictions were).

    A test counts once, however many files say it, and whether or not it was imported.
    """
    from autotune.facts.imported import complete_tests, observe_tests
    from autotune.store.frames import accuracy_frame
    from autotune.store.importers.files import read_file
    from autotune.store.imports import import_key

    observations: list[Observation] = []
    record: list[dict[Any, Any]] = []
    known: set[str] = set()
    if db is not None or not files:
        with open_store(db) as store:
            observations.extend(store.observations())
            known = store.import_keys()
            record = [dict(row) for row in accuracy_frame(store).to_dict("records")]
    for path in files:
        told = read_file(path)
        # What names no machine was not run on that of another file.
        named = [replace(t, machine=t.machine or _nameless(t, path)) for t in told.tests]
        said = zip(map(import_key, told.tests), complete_tests(named), strict=True)
        new = {key: test for key, test in said if key not in known}
        known |= new.keys()
        found, problems = observe_tests(new.values())
        observations.extend(found)
        if told.problems or problems:
            first = [*told.problems, *problems][0]
            print(  # noqa: T201 - beside the document on standard output
                f"{path}: {len(told.problems) + len(problems)} rows left out, the first: {first}",
                file=sys.stderr,
            )
    return observations, record


def _nameless(test: ImportedTest, path: Path) -> str | None:
    return None if test.cpu or test.gpu else path.name


def evaluation_json(found: Evaluation) -> dict[str, Any]:
    """The document of ``--json``."""
    return {
        "n_runs": found.n_runs,
        "targets": {
            name: {
                "splits": {split: _score_json(score) for split, score in report.splits.items()},
                "baselines": {b: _score_json(score) for b, score in report.baselines.items()},
            }
            for name, report in found.targets.items()
        },
        "success": {
            split: {
                "n": score.n, "n_failed": score.n_failed, "brier": score.brier,
                "skill": score.skill, "ece": score.ece,
            }
            for split, score in found.success.items()
        },
    }  # fmt: skip


def _score_json(score: Score) -> dict[str, Any]:
    document: dict[str, Any] = {
        "n": score.n,
        "median_ape": score.median_ape,
        "mape": score.mape,
        "p90_ape": score.p90_ape,
        "worst_group": {"name": score.worst_group, "median_ape": score.worst_median_ape},
    }
    for coverage, share in score.coverage.items():
        document[f"coverage_{round(coverage * 100)}"] = share
        document[f"width_{round(coverage * 100)}"] = score.width[coverage]
    if score.worst_coverage is not None:
        document["worst_group_coverage_90"] = score.worst_coverage
    return document


def _print(found: Evaluation) -> None:
    console.print(f"{found.n_runs} runs; errors are |predicted / measured − 1|")
    for name, report in found.targets.items():
        table = plain_table(f"[bold]{name}[/]", "n", "median", "mean", "p90", "worst", "in 90 %")
        for split, score in report.splits.items():
            table.add_row(split.replace("_", " "), *_cells(score), f"{score.coverage[0.9]:.0%}")
        for baseline, score in report.baselines.items():
            table.add_row(f"[dim]{baseline.replace('_', ' ')}[/]", *_cells(score), "")
        console.print(table)
    for split, told in found.success.items():
        console.print(
            f"[bold]success[/], {split.replace('_', ' ')}: Brier {told.brier:.4f}, "
            f"skill {told.skill:+.2f}, ECE {told.ece:.3f} ({told.n_failed} of {told.n} failed)"
        )


def _print_record(record: list[dict[Any, Any]]) -> None:
    """Every run is predicted before it starts: what became of those predictions."""
    if not record:
        return
    table = plain_table("[bold]before the run[/]", "evidence", "n", "median", "in 90 %")
    for row in record:
        shares = (f"{row['median_ape']:.1%}", f"{row['coverage_90']:.0%}")
        table.add_row(row["target"], row["evidence"], str(row["n"]), *shares)
    console.print(table)


def _cells(score: Score) -> tuple[str, ...]:
    errors = (score.median_ape, score.mape, score.p90_ape, score.worst_median_ape)
    return (str(score.n), *(f"{error:.1%}" for error in errors))
