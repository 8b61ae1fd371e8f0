"""The evaluation judges honestly: skill where there is some, none where there is none."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from autotune.domain.machine import MachineFacts
from autotune.features.case import Case
from autotune.predict.evaluate import SHUFFLED, Evaluation, evaluate
from autotune.predict.rows import build_rows, family_name
from autotune.predict.scores import score, score_success
from autotune.predict.splits import LEAKY, split_names, splits, without
from autotune.predict.success import labels
from tests.predict.strangers import strangers


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    """Four GPUs, six models, flash attention; the largest one's long prompts fail."""
    return evaluate([o for o in strangers(fails=True) if o.config.flash_attn == "on"])


def make_rows() -> tuple[list[Case], object]:
    """The rows of the strangers' runs."""
    pairs = [(o, case) for o in strangers() if (case := Case.of(o)) is not None]
    return [case for _, case in pairs], build_rows(pairs)


@pytest.mark.parametrize("name", split_names())
def test_no_split_has_a_row_on_both_sides(name: str) -> None:
    """Whatever is held out is held out."""
    _, rows = make_rows()
    for train, test in splits(name, rows):  # type: ignore[arg-type]
        assert not set(train) & set(test)


def test_a_held_out_model_is_nowhere_in_training() -> None:
    """Nor is a held-out machine."""
    _, rows = make_rows()
    families = rows.subjects.families  # type: ignore[attr-defined]
    for train, test in splits("leave_one_model_out", rows):  # type: ignore[arg-type]
        assert not set(families[train]) & set(families[test])
    machines = np.array([case.machine_id for case in rows.cases])  # type: ignore[attr-defined]
    for train, test in splits("leave_one_machine_out", rows):  # type: ignore[arg-type]
        assert not set(machines[train]) & set(machines[test])


def test_unseen_models_and_machines_are_predicted(evaluation: Evaluation) -> None:
    """Better than one constant and than raw columns, and far from perfect."""
    report = evaluation.targets["decode_tps"]
    unseen = report.splits["leave_one_model_out"]

    assert unseen.median_ape < 0.2
    assert unseen.median_ape < report.baselines["raw_boosting"].median_ape
    assert unseen.median_ape < report.baselines["guide_constants"].median_ape
    assert report.splits["leave_one_machine_out"].median_ape < 0.3
    assert report.splits[LEAKY].median_ape < unseen.median_ape


def test_what_the_prior_says_of_other_machines_is_heard() -> None:
    """Every fold is the product as it ships."""
    everything = strangers()
    machine = everything[0].machine_id
    here = [o for o in everything if o.machine_id == machine][:30]
    other = [o for o in everything if o.machine_id != machine and o.decode_tps]

    assert evaluate(here, prior=other[::4]).targets != evaluate(here).targets


def test_what_the_prior_says_of_gpus_is_not_heard_by_processors() -> None:
    """As in use."""
    everything = strangers()
    machine = everything[0].machine_id
    here = [o for o in everything if o.machine_id == machine][:20]
    processor = MachineFacts(cpu="AMD Ryzen 9 5950X 16-Core Processor")
    on_host = [
        dataclasses.replace(o, api="CPU", machine=processor, machine_id="host",
                            config=o.config.replace(n_gpu_layers=0))
        for o in here
    ]  # fmt: skip
    other = [o for o in everything if o.machine_id != machine and o.decode_tps][::4]

    assert evaluate(on_host, prior=other).targets == evaluate(on_host).targets


def test_what_the_prior_says_of_judged_machines_is_not_heard() -> None:
    """It may be the very rows that are held out: here they are lies, and change nothing."""
    here = strangers()[:30]
    lies = [dataclasses.replace(o, decode_tps=(o.decode_tps or 1) * 50) for o in here]

    under_another_name = [dataclasses.replace(o, machine_id="another") for o in lies]

    assert evaluate(here, prior=lies) == evaluate(here)
    assert evaluate(here, prior=under_another_name) == evaluate(here)


def test_the_prior_keeps_quiet_of_held_out_families() -> None:
    """A model that is called unseen is seen nowhere."""
    prior = strangers()
    families = {family_name(prior[0].model)}

    kept = without(prior, families)

    assert {family_name(o.model) for o in prior} - families == {family_name(o.model) for o in kept}


def test_shuffled_rates_teach_nothing(evaluation: Evaluation) -> None:
    """The negative control."""
    report = evaluation.targets["decode_tps"]
    honest = report.splits["leave_one_model_out"].median_ape

    assert report.baselines[SHUFFLED].median_ape > 2 * honest


def test_success_is_judged_on_unseen_models(evaluation: Evaluation) -> None:
    """Eight failures of 120 are counted, whatever the skill."""
    told = evaluation.success["leave_one_model_out"]

    assert (told.n, told.n_failed) == (120, 8)
    assert 0 <= told.ece < 0.2


def test_what_ever_succeeded_is_no_failure() -> None:
    """A run that somebody stopped is not a label."""
    failed, fine = strangers(fails=True), strangers()
    pairs = [(o, case) for o in (*failed, *fine) if (case := Case.of(o)) is not None]

    assert all(label.ok for label in labels(pairs))


def test_errors_are_those_of_the_rate() -> None:
    """A rate predicted at twice the measured one is wrong by 100 %, at half by 50 %."""
    groups = np.array(["a", "b"])
    told = score(np.zeros(2), np.log([2.0, 0.5]), groups, {0.9: np.array([1.0, 0.1])})

    assert told.mape == pytest.approx(0.75)
    assert (told.worst_group, told.worst_median_ape) == ("a", pytest.approx(1.0))
    assert told.coverage[0.9] == 0.5


def test_a_sure_and_right_forecaster_has_full_skill() -> None:
    """The base rate has none."""
    ok = np.array([True] * 8 + [False] * 2)

    assert score_success(ok, ok.astype(float)).skill == 1
    assert score_success(ok, np.full(10, 0.8)).skill == pytest.approx(0)
    assert score_success(ok, np.full(10, 0.8)).ece == pytest.approx(0)


def test_nothing_to_judge_is_no_error() -> None:
    """An empty store has an empty evaluation."""
    assert evaluate([]) == Evaluation({}, {}, 0)
