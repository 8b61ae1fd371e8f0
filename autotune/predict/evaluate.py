"""The predictor judged on what it has never seen, beside what it has to beat.

Every fold is the whole product: a predictor fitted to the training rows and the prior, asked about
the others. Of the prior, what was run on the machines that are judged is left out, the same tests
on the same GPU too, and where models are held out, what was run of their families.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from autotune.domain.study import Observation
from autotune.features.case import Array, Case
from autotune.features.columns import PHASES
from autotune.predict.baselines import BASELINES
from autotune.predict.engine_predictor import taught_by, teaches
from autotune.predict.forecast import Forecast
from autotune.predict.predictor import Predictor
from autotune.predict.rows import Rows, build_rows, repeats
from autotune.predict.scores import COVERAGES, Score, SuccessScore, score, score_success
from autotune.predict.splits import (
    Pair,
    Rows_,
    elsewhere,
    is_of_models,
    split_names,
    splits,
    without,
)
from autotune.predict.success import Label, labels

Prior = tuple[Observation, ...]
_Z = {0.5: 0.674, 0.8: 1.282, 0.9: 1.645}
_WARM, _COLD = 0.9, 0.1
"""Page-cache shares from which a load is called warm, and up to which cold."""
MIN_ROWS = 5
"""Fewer predicted rows are no evidence."""
SHUFFLED = "shuffled_targets"


@dataclass(frozen=True, slots=True)
class TargetReport:
    """Scores of one target: by split, and of the baselines on unseen models."""

    splits: dict[str, Score] = field(default_factory=dict)
    baselines: dict[str, Score] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything that was judged."""

    targets: dict[str, TargetReport]
    success: dict[str, SuccessScore]
    n_runs: int


@dataclass(frozen=True, slots=True)
class _Target:
    """A quantity: its measured natural logs by row (NaN where there is none), and its phase."""

    name: str
    measured: Array
    phase: str | None
    """None for peak memory."""


def evaluate(
    observations: Iterable[Observation],
    *,
    prior: Sequence[Observation] = (),
    notify: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Judge the predictor on these runs.

    ``prior`` is what it knows beforehand of other machines' GPUs, and is asked of runs on GPUs
    alone, as in use; ``notify`` is told which split is being made.
    """
    pairs = [(o, c) for o in observations if teaches(o) and (c := Case.of(o)) is not None]
    good = [(o, c) for o, c in pairs if o.reason is None]
    rows, members = build_rows(good), repeats(good)
    teacher = _Teacher(members, rows.subjects.families, elsewhere(prior, pairs))
    targets = _targets(rows, members)
    reports = {target.name: TargetReport() for target in targets}
    for name in split_names():
        notify(name.replace("_", " "))
        found = _Found(targets, rows)
        hides = is_of_models(name)
        for train, test in splits(name, rows):
            for asked, known in teacher.priors(rows, test):
                found.add(asked, teacher.fit(train, test, prior=known, hides_families=hides))
        for scored, result in found.scores():
            reports[scored].splits[name] = result
    notify("baselines")
    for target in targets:
        reports[target.name].baselines.update(_baselines(target, rows))
    notify("negative control")
    reports["decode_tps"].baselines.update(_shuffled(rows, teacher, targets))
    notify("success")
    kept = {name: report for name, report in reports.items() if report.splits}
    return Evaluation(kept, _success(pairs, teacher.prior), len(pairs))


def _targets(rows: Rows, members: Sequence[Sequence[Pair]]) -> list[_Target]:
    with np.errstate(divide="ignore", invalid="ignore"):
        seconds = {phase: np.log(rows.seconds[phase]) for phase in PHASES}
    cached = np.array([1.0 if c.cached_ratio is None else c.cached_ratio for c in rows.cases])
    load = seconds["load"]
    peaks = [[o.peak_rss_bytes for o, _ in found if o.peak_rss_bytes] for found in members]
    memory = np.array([np.log(np.median(found)) if found else np.nan for found in peaks])
    return [
        _Target("decode_tps", seconds["decode"], "decode"),
        _Target("prefill_tps", seconds["prefill"], "prefill"),
        _Target("load_s", load, "load"),
        _Target("load_s_warm", np.where(cached >= _WARM, load, np.nan), "load"),
        _Target("load_s_cold", np.where(cached <= _COLD, load, np.nan), "load"),
        _Target("ttft_s", _ttft(members), "ttft"),
        _Target("peak_memory_bytes", memory, None),
    ]


def _ttft(members: Sequence[Sequence[Pair]]) -> Array:
    found = [[o.ttft_s for o, _ in pairs if o.ttft_s and not o.contaminated] for pairs in members]
    return np.array([np.log(np.median(values)) if values else np.nan for values in found])


class _Teacher:
    """Fits predictors to some of the rows and to what of the prior they may have seen."""

    def __init__(
        self,
        members: Sequence[Sequence[Pair]],
        families: npt.NDArray[np.str_],
        prior: Prior,
    ) -> None:
        self._members, self._families, self.prior = members, families, prior

    def taught(self, train: Rows_) -> list[Observation]:
        """The runs of the training rows."""
        return [o for row in train for o, _ in self._members[int(row)]]

    def priors(self, rows: Rows, test: Rows_) -> Iterator[tuple[Rows_, Prior]]:
        """(rows to ask of, what the predictor for them knows beforehand)."""
        if not self.prior:
            yield test, ()
            return
        on_gpu = np.array([rows.cases[int(row)].api != "CPU" for row in test], dtype=bool)
        for asked, prior in ((test[on_gpu], self.prior), (test[~on_gpu], ())):
            if len(asked):
                yield asked, prior

    def fit(self, train: Rows_, test: Rows_, *, prior: Prior, hides_families: bool) -> Predictor:
        """A predictor that knows the training rows."""
        hidden = set(map(str, self._families[test])) if hides_families else set()
        return Predictor().fit(self.taught(train), prior=without(prior, hidden))


class _Found:
    """Predictions of held-out rows, gathered over the folds of one split."""

    def __init__(self, targets: Sequence[_Target], rows: Rows) -> None:
        self._targets, self._rows = targets, rows
        self._tested: list[Rows_] = []
        self._logs: dict[str, list[Array]] = {target.name: [] for target in targets}
        self._halves: dict[tuple[str, float], list[Array]] = {
            (target.name, c): [] for target in targets for c in COVERAGES
        }

    def add(self, test: Rows_, predictor: Predictor) -> None:
        """Predict the held-out rows of a fold."""
        cases = [self._rows.cases[int(row)] for row in test]
        self._tested.append(test)
        for coverage in COVERAGES:
            forecast = predictor.forecast(cases, coverage=coverage, verbatim=False)
            for target in self._targets:
                log, sd = _told(forecast, target.phase)
                self._halves[target.name, coverage].append(_Z[coverage] * sd)
                if coverage == COVERAGES[-1]:
                    self._logs[target.name].append(log)

    def scores(self) -> Iterable[tuple[str, Score]]:
        """(target, score) of each target with enough rows."""
        if not self._tested:
            return
        tested = np.concatenate(self._tested)
        groups = self._rows.subjects.families[tested]
        for target in self._targets:
            measured = target.measured[tested]
            known = np.isfinite(measured)
            if known.sum() >= MIN_ROWS:
                halves = {c: np.concatenate(self._halves[target.name, c])[known] for c in COVERAGES}
                predicted = np.concatenate(self._logs[target.name])[known]
                yield target.name, _score(target, measured[known], predicted, groups[known], halves)


def _told(forecast: Forecast, phase: str | None) -> tuple[Array, Array]:
    """(natural log, standard deviation of it) of one quantity."""
    if phase is None:
        return np.log(forecast.peak_bytes), forecast.peak_sd_ratio
    belief = forecast.ttft if phase == "ttft" else getattr(forecast, phase)
    return belief.mean, belief.sd


def _score(
    target: _Target,
    measured: Array,
    predicted: Array,
    groups: npt.NDArray[np.str_],
    halves: dict[float, Array],
) -> Score:
    """Errors of a rate are those of the rate, not of its time."""
    sign = -1.0 if target.name.endswith("_tps") else 1.0
    return score(sign * measured, sign * predicted, groups, halves)


def _baselines(target: _Target, rows: Rows) -> dict[str, Score]:
    """Each baseline on unseen models, where the target is a measured phase."""
    if target.phase not in PHASES:
        return {}
    known = np.flatnonzero(np.isfinite(target.measured))
    found: dict[str, list[Array]] = {name: [] for name in BASELINES}
    tested = []
    for train, test in splits("leave_one_model_out", rows):
        seen, asked = np.intersect1d(train, known), np.intersect1d(test, known)
        if len(seen) < MIN_ROWS or not len(asked):
            continue
        tested.append(asked)
        for name, baseline in BASELINES.items():
            found[name].append(baseline(rows, target.phase, seen, asked))
    if not tested:
        return {}
    order = np.concatenate(tested)
    groups = rows.subjects.families[order]
    return {
        name: _score(target, target.measured[order], np.concatenate(told), groups, {})
        for name, told in found.items()
    }


def _shuffled(rows: Rows, teacher: _Teacher, targets: Sequence[_Target]) -> dict[str, Score]:
    """The negative control: decode rates dealt out anew among the training rows, and no prior."""
    random = np.random.default_rng(0)
    decode = [target for target in targets if target.name == "decode_tps"]
    found = _Found(decode, rows)
    for train, test in splits("leave_one_model_out", rows):
        taught = teacher.taught(train)
        rates = random.permutation([o.decode_tps or np.nan for o in taught])
        fooled = [
            dataclasses.replace(o, decode_tps=None if np.isnan(rate) else float(rate))
            for o, rate in zip(taught, rates, strict=True)
        ]
        found.add(test, Predictor().fit(fooled))
        break  # one fold shows it
    scores = [result for _, result in found.scores()]
    return {SHUFFLED: scores[0]} if scores else {}


def _success(pairs: Sequence[Pair], prior: Sequence[Observation]) -> dict[str, SuccessScore]:
    """Probabilities of success on unseen models, by labels that were cleaned first."""
    found = labels(pairs)
    failed = [label for label in found if not label.ok]
    if not failed or len(failed) == len(found):
        return {}
    from autotune.predict.ensemble import deal_folds

    dealt = deal_folds(np.array([label.family for label in found], dtype=str), 8)
    probability = np.empty(len(found))
    for fold in set(dealt.values()):
        train = [label for label in found if dealt[label.family] != fold]
        test = [i for i, label in enumerate(found) if dealt[label.family] == fold]
        hidden = {found[i].family for i in test}
        others = taught_by(without(prior, hidden))
        probability[test] = _probabilities(train, [found[i] for i in test], others)
    ok = np.array([label.ok for label in found], dtype=bool)
    return {"leave_one_model_out": score_success(ok, probability)}


def _probabilities(train: Sequence[Label], test: Sequence[Label], prior: Sequence[Pair]) -> Array:
    predictor = Predictor().fit([])
    predictor.fit_success([*prior, *(pair for label in train for pair in label.pairs)])
    return predictor.forecast([label.case for label in test]).p_success
