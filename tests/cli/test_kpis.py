"""``autotune kpis``, and ordinary use in ``runs`` and ``show``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from autotune.cli.kpis import parse_since
from autotune.domain.errors import UserError
from autotune.domain.run import Purpose
from autotune.domain.workload import Workload
from autotune.facts.gguf import read_model
from autotune.store.kpis import QUERIES
from autotune.store.store import Store
from autotune.store.telemetry import Telemetry
from tests.cli.test_commands import Shell, shell
from tests.factories import make_generation, make_run, make_trial
from tests.store import examples

__all__ = ["shell"]


def use(home: Path, model_path: Path, *sizes: tuple[int, int]) -> None:
    """An application that loads a model and generates with it, (n_prompt, n_gen) by (…)."""
    with Store.open(home / "autotune.db", now=examples.epoch) as store:
        examples.record_facts(store)
        model = read_model(model_path)
        store.record_model(model, model_path)
        trial = make_trial(model_path=model_path, purpose=Purpose.USER)
        run = make_run(trial=trial, generations=())
        with Telemetry(store, now=examples.epoch) as telemetry:
            ticket = telemetry.loaded(
                run,
                machine_id=examples.MACHINE_ID,
                model_id=model.model_id,
                prediction=examples.make_prediction(),
            )
            for n_prompt, n_gen in sizes:
                workload = Workload(n_prompt=n_prompt, n_gen=n_gen)
                ns = (10_000_000,) * n_gen
                telemetry.generated(ticket, make_generation(workload=workload, token_ns=ns))
            telemetry.unloaded(ticket, run)


def test_before_any_use_the_figures_are_unknown(shell: Shell) -> None:
    """A dash, never a zero, and a line that says what is counted."""
    status, out, _ = shell.run("kpis")

    assert status == 0
    assert "0%" not in out
    assert out.splitlines()[-1] == "nothing yet: applications that load a model here are counted"
    assert {kpi["value"] for kpi in shell.json("kpis").values()} == {None}


def test_the_figures_fit_a_terminal(shell: Shell, home: Path, smollm2_path: Path) -> None:
    """One line each, of the model that is named, since the day that is."""
    use(home, smollm2_path, (64, 20), (64, 20))

    status, out, _ = shell.run("kpis", "--model", smollm2_path)
    assert status == 0
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) == 1 + len(QUERIES)
    assert any(line.split()[-3:] == ["100", "tok/s", "2"] for line in lines)
    found = shell.json("kpis", "--model", smollm2_path, "--since", "2026-11-01")
    assert found["decode_tps"]["value"] == pytest.approx(100)
    assert (found["decode_tps"]["unit"], found["decode_tps"]["n"]) == ("tok/s", 2)
    later = shell.json("kpis", "--since", "2026-11-02")
    assert later["decode_tps"] == found["decode_tps"] | {"value": None, "n": 0}


def test_runs_and_show_tell_of_ordinary_use(shell: Shell, home: Path, smollm2_path: Path) -> None:
    """By size, the commonest first; of what was predicted, what does not hang on the size."""
    use(home, smollm2_path, (500, 100), (64, 20), (70, 17))

    (row,) = [line for line in shell.run("runs")[1].splitlines() if " user " in line]
    assert "100 tok/s" in row
    out = shell.run("show", 1)[1]
    assert "pp64+tg16@d0, user, complete" in out
    assert [line.split()[0] for line in out.splitlines() if line.startswith("pp")] == [
        "pp64+tg16@d0",
        "pp512+tg128@d0",
    ]
    assert "peak memory" in out
    assert "first token  " not in out.split("about")[0]
    shown = shell.json("show", 1)
    assert [g["workload"] for g in shown["generations"]] == [
        "pp500+tg100@d0", "pp64+tg20@d0", "pp70+tg17@d0",
    ]  # fmt: skip
    assert shown["n_reps"] == 3


@pytest.mark.parametrize(
    ("text", "hours"), [("12h", 12), ("7d", 168), ("1w", 168), ("2026-10-31", 36)]
)
def test_a_time_is_a_date_or_a_span(text: str, hours: int) -> None:
    """Back from now; dates are UTC."""
    now = datetime(2026, 11, 1, 12, tzinfo=UTC)

    assert parse_since(text, now=now) == now - timedelta(hours=hours)


@pytest.mark.parametrize("text", ["lately", "2026-13-45", "9999999d", "99999999999w"])
def test_another_time_is_refused_in_one_line(text: str) -> None:
    """With what to write instead; also a span that began before the calendar."""
    with pytest.raises(UserError, match=f"--since '{text}' is no time: write 2026-11-01, 12h"):
        parse_since(text, now=examples.epoch())
