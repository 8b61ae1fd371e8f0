"""What a prediction may have seen: the ways to hold rows out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from autotune.domain.study import Observation
from autotune.features.case import Case
from autotune.predict.engine_predictor import taught_by
from autotune.predict.ensemble import deal_folds
from autotune.predict.places import device_name
from autotune.predict.rows import Rows, family_name
from autotune.predict.subjects import Subjects

Rows_ = npt.NDArray[np.intp]
Split = tuple[Rows_, Rows_]
"""(training rows, rows to predict)"""
Pair = tuple[Observation, Case]

N_FOLDS = 6
"""Most fits of a split."""
N_GROUP_FOLDS = 16
"""The same where families or machines are held out: up to so many, each alone."""
AFTER_RUNS = (1, 5)
LEAKY = "random_k_fold_leaky_reference"


def split_names() -> tuple[str, ...]:
    """Every split, the hardest first."""
    after = [f"leave_one_model_out_after_{n}_runs" for n in AFTER_RUNS]
    return ("leave_one_machine_out", "leave_one_model_out", *after,
            "leave_one_configuration_out", "forward_in_time", LEAKY)  # fmt: skip


def is_of_models(name: str) -> bool:
    """Whether a split holds out whole models."""
    return name.startswith("leave_one_model_out")


def splits(name: str, rows: Rows) -> Iterator[Split]:
    """The folds of a split; none where there is nothing to hold out."""
    subjects = rows.subjects
    if name == "leave_one_machine_out":
        machines = np.array([case.machine_id for case in rows.cases], dtype=str)
        yield from _grouped(machines, N_GROUP_FOLDS)
    elif name == "leave_one_model_out":
        yield from _grouped(subjects.families, N_GROUP_FOLDS)
    elif name == "leave_one_configuration_out":
        yield from _grouped(np.char.add(subjects.groups, subjects.configs))
    elif name == "forward_in_time":
        yield from _forward(rows)
    elif name == LEAKY:
        yield from _grouped(np.arange(len(rows)).astype(str))
    else:
        n_runs = int(name.rsplit("_", 2)[1])
        for train, test in _grouped(subjects.families):
            known = _first_runs(subjects, test, n_runs)
            met = np.isin(subjects.groups[test], subjects.groups[known])
            rest = np.setdiff1d(test[met], known)
            if len(rest):
                yield np.concatenate([train, known]), rest


def _grouped(groups: npt.NDArray[np.str_], n_folds: int = N_FOLDS) -> Iterator[Split]:
    """At most so many folds; a group is never on both sides."""
    dealt = deal_folds(groups, n_folds)
    fold = np.array([dealt[str(group)] for group in groups], dtype=int)
    for number in range(max(dealt.values(), default=0) + 1):
        if (fold != number).any():
            yield np.flatnonzero(fold != number), np.flatnonzero(fold == number)


def _forward(rows: Rows) -> Iterator[Split]:
    """The newest fifth from the rest; only where runs are dated."""
    order = np.argsort(rows.started_at, kind="stable")
    cut = int(0.8 * len(rows))
    if cut and rows.started_at[order[cut]] > rows.started_at[order[0]]:
        yield order[:cut], order[cut:]


def _first_runs(subjects: Subjects, test: Rows_, n_runs: int) -> Rows_:
    """All rows of a few configurations of each held-out model on each machine."""
    random = np.random.default_rng(n_runs)
    known = [np.empty(0, dtype=np.intp)]
    for group in np.unique(subjects.groups[test]):
        rows = test[subjects.groups[test] == group]
        configs = np.unique(subjects.configs[rows])
        if len(configs) > n_runs:
            chosen = random.choice(configs, n_runs, replace=False)
            known.append(rows[np.isin(subjects.configs[rows], chosen)])
    return np.concatenate(known)


def elsewhere(prior: Iterable[Observation], judged: Sequence[Pair]) -> tuple[Observation, ...]:
    """What of the prior was run on machines that are not judged.

    Nor the same tests on the same GPU: they may be the judged rows under another machine's name.
    """
    machines = {case.machine_id for _, case in judged}
    tests = {_test(case) for _, case in judged}
    return tuple(
        observation
        for observation, case in taught_by(prior)
        if observation.machine_id not in machines and _test(case) not in tests
    )


def _test(case: Case) -> tuple[object, ...]:
    config = case.config.replace(n_ctx=2**20)
    return device_name(case), case.api, case.model.name, case.build, config, case.workload


def without(prior: Iterable[Observation], families: set[str]) -> list[Observation]:
    """What of the prior was run of other families."""
    return [o for o in prior if family_name(o.model) not in families]
