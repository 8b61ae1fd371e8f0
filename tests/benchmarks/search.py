"""Search by replay: how far from the best is what each strategy ends with, by runs and seconds?

Tasks are tables in which every candidate was measured: the public telemetry of the prior, and our
own factorial. Half of the repeats (where there are several) answer the trials, the other half
judges. The predictor has seen nothing of the family that is searched.
"""

from __future__ import annotations

import dataclasses
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from autotune.domain.config import Config
from autotune.domain.study import Observation
from autotune.domain.workload import Workload
from autotune.features.case import Array, Case
from autotune.predict.noise import noise_by_machine
from autotune.predict.predictor import Predictor
from autotune.predict.prior import load_prior
from autotune.predict.rows import SECONDS, family_name, repeats
from autotune.recommend.choose import Candidates, confidence
from autotune.tune.model_guided import ModelGuided
from autotune.tune.strategy import GridSearch, RandomSearch, Strategy
from autotune.tune.verdict import USUAL_NOISE_SD
from tests.benchmarks.factorial import factorial
from tests.benchmarks.table import print_table

SEEDS = 20
RUNS = (0, 1, 2, 3, 5, 8)
MIN_CANDIDATES = 4
NEAR_RATIO = 0.02
_OVERHEAD_S = 2.0
"""Of a trial: process, load and warm-up."""
MakeStrategy = Callable[[np.random.Generator], Strategy]


@dataclass(frozen=True, slots=True)
class Task:
    """One table: seconds of every candidate, the runs to choose by apart from those that judge."""

    family: str
    cases: tuple[Case, ...]
    answers: tuple[tuple[Observation, ...], ...]
    """What a trial of each candidate may be answered with."""
    truth: Array
    """Seconds of a request by the other half; shape (n_candidates,)."""
    default: int | None
    """What a newcomer runs, where it was measured."""

    @property
    def default_config(self) -> Config:
        """The first candidate stands for a default that was not measured."""
        return self.cases[self.default or 0].config


def tasks(
    observations: Sequence[Observation], *, default: Callable[[list[Case]], int | None]
) -> list[Task]:
    """The tables with enough candidates."""
    tables: dict[object, dict[object, list[tuple[Observation, Case]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for observation in observations:
        case = Case.of(observation)
        if case is None or observation.reason is not None or observation.contaminated:
            continue
        key = (case.machine_id, case.model.model_id, case.workload)
        case = dataclasses.replace(case, config=_as_searched(case))
        tables[key][case.backend, case.api, case.build, case.config].append((observation, case))
    found = []
    for table in tables.values():
        if len(table) < MIN_CANDIDATES:
            continue
        cases = [runs[0][1] for runs in table.values()]
        runs = [[observation for observation, _ in told] for told in table.values()]
        halves = [(told[::2], told[1::2] or told) for told in runs]
        found.append(
            Task(
                family=family_name(cases[0].model),
                cases=tuple(cases),
                answers=tuple(tuple(first) for first, _ in halves),
                truth=np.array([float(np.median([request_s(o) for o in h])) for _, h in halves]),
                default=default(cases),
            )
        )
    return found


def _as_searched(case: Case) -> Config:
    """Physical batches that hold the whole prompt compute the same: our search space has one."""
    config, n_prompt = case.config, case.workload.n_prompt
    if config.n_ubatch < n_prompt:
        return config
    return config.replace(n_ubatch=min(config.n_batch, max(Config().n_ubatch, n_prompt)))


def request_s(observation: Observation) -> float:
    """Measured seconds of a whole request."""
    workload = observation.workload
    assert workload is not None
    prefill, decode = SECONDS["prefill"](observation), SECONDS["decode"](observation)
    return (prefill or 0.0) * (workload.n_prompt > 0) + (decode or 0.0) * workload.n_gen


@dataclass(frozen=True, slots=True)
class Trace:
    """One search: regret after each number of runs, and what it had cost until then."""

    regret: Array
    seconds: Array


def search(
    task: Task, predictor: Predictor | None, make: MakeStrategy, seed: int, *, noise_sd: float
) -> Trace:
    """Replay one search of at most the longest of RUNS trials.

    ``noise_sd`` is how far runs of one configuration are known to lie apart on this machine,
    natural log.
    """
    rng = np.random.default_rng(seed)
    strategy = make(rng)
    best_s = task.truth.min()
    measured: dict[int, float] = {}
    runs: list[Observation] = []
    regret, spent, seconds = [], 0.0, []
    physics = Candidates(_PHYSICS.forecast(task.cases), np.ones(len(task.cases)))
    for n_runs in range(max(RUNS) + 1):
        candidates = physics
        if predictor is not None:
            forecast = predictor.adapt(runs).forecast(task.cases)
            candidates = Candidates(forecast, np.ones(len(task.cases)))
        chosen = _choice(task, candidates, measured, predictor, rng, noise_sd)
        regret.append(1 - best_s / task.truth[chosen])
        seconds.append(spent)
        log_best = min(measured.values(), default=float(candidates.forecast.request().mean.min()))
        index = strategy.ask(candidates, log_best) if n_runs < max(RUNS) else None
        if index is not None:
            answer = task.answers[index][rng.integers(len(task.answers[index]))]
            measured[index] = float(np.log(request_s(answer)))
            spent += 4 * request_s(answer) + _OVERHEAD_S
            runs.append(answer)
            strategy.tell(index, measured[index])
    return Trace(np.array(regret), np.array(seconds))


_NONE = Workload()
_PHYSICS = Predictor().fit([])


def _choice(
    task: Task,
    candidates: Candidates,
    measured: dict[int, float],
    predictor: Predictor | None,
    rng: np.random.Generator,
    noise_sd: float,
) -> int:
    """The fastest that was measured; before any run, the predicted one, or any.

    Where a predictor knows them all, it decides between those that are as fast, as at the end of a
    study (:meth:`autotune.tune.ledger.Ledger.winner`, which then prefers the plainest).
    """
    if not measured:
        blind = predictor is None
        return int(rng.integers(len(task.cases)) if blind else candidates.request_s.argmin())
    if predictor is None:
        return min(measured, key=lambda index: measured[index])
    limit = min(measured.values()) + np.sqrt(2) * noise_sd
    tied = [index for index, log_s in measured.items() if log_s <= limit]
    expected = predictor.forecast([task.cases[i] for i in tied], verbatim=False).request()
    return tied[int(np.argmin(expected.mean))]


class Tpe:
    """Optuna's sampler, asked in the knobs that differ between the candidates."""

    def __init__(self, rng: np.random.Generator, cases: Sequence[Case]) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        sampler = optuna.samplers.TPESampler(seed=int(rng.integers(2**31)))
        self._study = optuna.create_study(sampler=sampler)
        self._points = [_point(case) for case in cases]
        self._space = {
            knob: optuna.distributions.CategoricalDistribution(
                sorted({point[knob] for point in self._points}, key=str)
            )
            for knob in self._points[0]
        }
        self._asked: dict[int, object] = {}

    def ask(self, candidates: Candidates, best: float) -> int | None:
        """The candidate that differs least from what the sampler wants; again where it repeats."""
        trial = self._study.ask(self._space)
        wanted = [sum(point[k] != v for k, v in trial.params.items()) for point in self._points]
        index = int(np.argmin(wanted))
        self._asked[index] = trial
        return index

    def tell(self, index: int, log_s: float | None) -> None:
        """Told to the study."""
        self._study.tell(self._asked[index], log_s)


def _point(case: Case) -> dict[str, object]:
    knobs = {k: str(v) for k, v in case.config.as_dict().items() if k != "n_ctx"}
    return knobs | {"build": f"{case.api} {case.build}"}


WORKLOADS = ("pp64@d0", "pp512@d0", "pp2048@d0", "tg32@d0", "tg128@d0")
"""Of the public tables: 75 tasks or so; their other lengths are more of the same."""


def main() -> None:
    """A table of regret by runs for each set and strategy."""
    _print("public telemetry", load_prior("CUDA"), _most_common_best, workloads=WORKLOADS)
    _print("our factorial", factorial(), _newcomers)


def _newcomers(cases: list[Case]) -> int | None:
    """The factorial's first candidate: half the processors decode, no flash attention."""
    default = [
        i for i, case in enumerate(cases)
        if case.config.differences(_like_default(case.config)) == {}
    ]  # fmt: skip
    return default[0] if default else None


def _like_default(config: Config) -> Config:
    """What llama-cpp-python makes of the context alone, on two processors."""
    return config.replace(
        n_threads=1, n_threads_batch=2, n_ubatch=512, n_batch=512, flash_attn="off",
        type_k="f16", type_v="f16",
    )  # fmt: skip


def _most_common_best(cases: list[Case]) -> int | None:
    """Of strangers' tables nobody knows the default: flash attention on, on Vulkan."""
    like = [i for i, c in enumerate(cases) if c.api == "Vulkan" and c.config.flash_attn == "on"]
    return like[0] if like else None


def _print(
    title: str,
    observations: Sequence[Observation],
    default: Callable[[list[Case]], int | None],
    *,
    workloads: Sequence[str] = (),
) -> None:
    asked = [o for o in observations if not workloads or (o.workload or _NONE).label in workloads]
    found = tasks(asked, default=default)
    rows = []
    for name, traces in _searches(found, observations):
        regret = np.array([trace.regret for trace in traces])
        near = np.argmax(regret <= NEAR_RATIO, axis=1).astype(float)
        near[~(regret <= NEAR_RATIO).any(axis=1)] = np.inf
        cells = [f"{regret[:, n].mean():.1%}" for n in RUNS]
        seconds = np.mean([trace.seconds[-1] for trace in traces])
        rows.append(
            (name, *cells, f"{np.quantile(regret[:, 0], 0.9):.0%}", f"{np.median(near):.0f}",
             f"{np.quantile(near, 0.9, method='higher'):.0f}", f"{seconds:.0f} s")
        )  # fmt: skip
    oracle = np.array([_oracle(task) for task in found])
    rows.append(
        ("oracle: all runs", *[f"{oracle.mean():.1%}"] * len(RUNS),
         f"{np.quantile(oracle, 0.9):.0%}", "", "", "")
    )  # fmt: skip
    static = [1 - t.truth.min() / t.truth[t.default] for t in found if t.default is not None]
    if static:
        n = f"{np.mean(static):.1%}"
        rows.append((f"static default ({len(static)})", *[n] * len(RUNS),
                     f"{np.quantile(static, 0.9):.0%}", "", "", "0 s"))  # fmt: skip
    headers = ("strategy", *(f"{n} runs" for n in RUNS), "p90 at 0", "runs to 2 %", "p90", "time")
    print_table(f"{title}: {len(found)} tasks, {SEEDS} seeds, mean regret", headers, rows)


def _oracle(task: Task) -> float:
    """Regret of whoever knows every answer: what is left is the noise between the halves."""
    typical = [float(np.median([request_s(o) for o in told])) for told in task.answers]
    return float(1 - task.truth.min() / task.truth[int(np.argmin(typical))])


def _print_confidence(found: list[Task], told: list[tuple[float, bool]]) -> None:
    """Does what is called 80 % sure come true four times in five?"""
    sure, hit = np.array([c for c, _ in told]), np.array([h for _, h in told], dtype=float)
    rows = []
    for low, high in ((0.0, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 1.01)):
        at = (sure >= low) & (sure < high)
        if at.any():
            rows.append((f"{low:.0%} – {min(high, 1):.0%}", str(int(at.sum())),
                         f"{sure[at].mean():.2f}", f"{hit[at].mean():.2f}"))  # fmt: skip
    rows.append(("all", str(len(found)), f"{sure.mean():.2f}", f"{hit.mean():.2f}"))
    print_table("confidence before any run", ("bin", "n", "claimed", "within 5 %"), rows)


def _searches(
    found: list[Task], observations: Sequence[Observation]
) -> Iterator[tuple[str, list[Trace]]]:
    sure: list[tuple[float, bool]] = []
    traces: dict[str, list[Trace]] = defaultdict(list)
    for family in sorted({task.family for task in found}):
        others = [o for o in observations if family_name(o.model) != family]
        predictor, noise = Predictor().fit([], prior=others), _noise(others)
        for task in (task for task in found if task.family == family):
            noise_sd = noise.get(task.cases[0].machine_id, USUAL_NOISE_SD)
            sure.append(_confidence(task, predictor))
            makers: dict[str, tuple[Predictor | None, MakeStrategy]] = {
                "model-guided": (predictor, partial(ModelGuided, default=task.default_config)),
                "random": (None, RandomSearch),
                "grid": (None, lambda _: GridSearch()),
                "Optuna TPE": (None, partial(Tpe, cases=task.cases)),  # type: ignore[dict-item]
            }
            for name, (told, make) in makers.items():
                for seed in range(SEEDS if name != "grid" else 1):
                    traces[name].append(search(task, told, make, seed, noise_sd=noise_sd))
        print(family, file=sys.stderr)
    _print_confidence(found, sure)
    yield from traces.items()


def _noise(observations: Sequence[Observation]) -> dict[str, float]:
    """Spread of whole requests between runs of one case on each machine that repeated any."""
    pairs = [
        (o, case) for o in observations
        if o.reason is None and not o.contaminated and (case := Case.of(o)) is not None
    ]  # fmt: skip
    return noise_by_machine(
        (found[0][0].machine_id, [request_s(o) for o, _ in found]) for found in repeats(pairs)
    )


def _confidence(task: Task, predictor: Predictor) -> tuple[float, bool]:
    """(claimed probability that the choice is within 5 % of the best, whether it is)."""
    forecast = predictor.adapt([]).forecast(task.cases)
    candidates = Candidates(forecast, np.ones(len(task.cases)))
    chosen = int(np.argmin(candidates.request_s))
    return confidence(candidates, chosen), bool(task.truth[chosen] <= 1.05 * task.truth.min())


if __name__ == "__main__":
    main()
