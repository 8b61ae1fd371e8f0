"""``autotune tune MODEL --backend auto``: every backend met, the best tuned, near rivals raced."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from autotune.cli.backends import AUTO, ask_backends, contest_json, print_contacts
from autotune.cli.options import open_store, utc_now
from autotune.cli.output import changes_text, console, messages, print_json
from autotune.cli.progress import StudyDisplay, verdict_line
from autotune.cli.recommend import print_lines
from autotune.domain.units import human_seconds
from autotune.facts.pagecache import residency
from autotune.measure.runner import LocalRunner
from autotune.store.store import Store
from autotune.tune.backends import Contender, frame_contenders
from autotune.tune.contest import ContestAnswer, contest
from autotune.tune.framing import Wishes
from autotune.tune.strategy import StrategyName


def tune_auto(
    model: Path,
    wishes: Wishes,
    db: str | None,
    *,
    strategy: StrategyName,
    fresh: bool,
    as_json: bool,
) -> None:
    """Choose among all installed backends by measuring, tune the best, print how all did."""
    engines = ask_backends(AUTO, model)
    with open_store(db) as store:
        contenders = frame_contenders(
            model, store, engines=engines, wishes=wishes, environ=os.environ
        )
        answer = _carry_out(contenders, store, wishes, strategy, fresh=fresh)
    if as_json:
        print_json(contest_json(answer, answer.question))
    else:
        _print(answer)


def _carry_out(
    contenders: tuple[Contender, ...],
    store: Store,
    wishes: Wishes,
    strategy: StrategyName,
    *,
    fresh: bool,
) -> ContestAnswer:
    """The contest, with a live line."""
    with messages.status("starting") as status:
        display = StudyDisplay(status)
        try:
            return contest(
                contenders,
                runner_of=lambda name: LocalRunner(name, residency=residency),
                store=store,
                now=utc_now,
                target=wishes.target,
                time_limit_s=wishes.time_limit_s,
                fresh=fresh,
                strategy=strategy,
                say=display.say,
                notify=lambda question, progress: display.show(progress, question.study.default),
            )
        except KeyboardInterrupt:
            messages.print(
                "stopped; what was measured is kept: the same command goes on from there"
            )
            raise typer.Exit(130) from None


def _print(answer: ContestAnswer) -> None:
    study, recommendation = answer.question.study, answer.recommendation
    print_contacts(answer)
    was_tuned = recommendation.backend == answer.study.recommendation.backend
    if was_tuned and (line := verdict_line(answer.study, answer.question.limits)):
        console.print(line, style="bold", soft_wrap=True)
    changes = changes_text(answer.winner.config, study.default)
    console.print(f"winner: [bold]{recommendation.backend}, {changes}[/]", soft_wrap=True)
    console.print(
        f"{study.workload.label}, {answer.study.n_trials} trials in "
        f"{human_seconds(answer.elapsed_s)}; study {answer.study.study_id}",
        style="dim",
        soft_wrap=True,
    )
    for reason in recommendation.reasons:
        console.print(f"• {reason}", soft_wrap=True)
    for verdict in answer.ranking[1:]:
        for reason in verdict.reasons if verdict.is_usable else ():
            console.print(f"• {reason}", style="dim", soft_wrap=True)
    print_lines(answer.question.subject, recommendation)
