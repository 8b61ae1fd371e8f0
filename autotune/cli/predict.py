"""``autotune predict MODEL --set …``: what to expect of one configuration; runs nothing."""

from __future__ import annotations

import typer

from autotune.cli.bench import default_config
from autotune.cli.options import (
    DEFAULT_BACKEND,
    DEFAULT_WORKLOAD,
    DbOption,
    JsonOption,
    ModelArgument,
    SetOption,
    WorkloadOption,
    open_store,
    parse_config,
    parse_workload,
)
from autotune.cli.output import (
    changes_text,
    console,
    expected_json,
    prediction_table,
    print_json,
    settling_line,
)
from autotune.facts.gguf import read_model
from autotune.facts.machine import read_machine, read_state
from autotune.predict.life import current_predictor
from autotune.recommend.subject import register_subject


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("predict", help="What to expect of one configuration; runs nothing.")(predict)


def predict(
    model: ModelArgument,
    changes: SetOption = None,
    workload: WorkloadOption = DEFAULT_WORKLOAD,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict one configuration; knobs that are not set keep the newcomer's default."""
    work = parse_workload(workload)
    facts, machine = read_model(model), read_machine()
    default = default_config(facts, machine, work)
    config = parse_config(changes, default)
    work.require_context(config.n_ctx)
    with open_store(db) as store:
        subject = register_subject(model, facts, machine, store)
        predictor = current_predictor(store, subject.api)
    case = subject.case(DEFAULT_BACKEND, config, work)
    state = read_state()
    prediction = predictor.forecast([case], available_bytes=state.ram_available_bytes).prediction(0)
    if as_json:
        print_json(
            {
                "model": str(model),
                "backend": DEFAULT_BACKEND,
                "config": config.as_dict(),
                "workload": work.label,
                "expected": expected_json(prediction),
                "p_success": prediction.p_success,
                "evidence": prediction.evidence.value,
                "settled_by": settling_line(model, prediction, default),
            }
        )
        return
    console.print(f"[bold]{changes_text(config, default)}[/], {work.label}")
    console.print(prediction_table(prediction))
    console.print(
        f"probability to succeed {prediction.p_success:.0%}; evidence: {prediction.evidence.value}"
        + (f", {prediction.n_runs} runs" if prediction.n_runs else ""),
        style="dim",
    )
    if line := settling_line(model, prediction, default):
        console.print(f"nothing like it was measured here; this settles it: {line}", soft_wrap=True)
