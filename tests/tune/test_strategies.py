"""What every strategy promises, and what only the guided one keeps."""

from __future__ import annotations

import numpy as np
import pytest

from autotune.predict.predictor import Predictor
from autotune.recommend.choose import Candidates, choose, survey
from autotune.tune.model_guided import make_strategy
from autotune.tune.strategy import Strategy, StrategyName
from tests.simulation import DEFAULT, make_cases, simulate

CASES = make_cases()[::16]
BEST = -1.0


@pytest.fixture
def candidates() -> Candidates:
    """Every third one infeasible."""
    found = survey(Predictor().fit(simulate(CASES[:3])), CASES, available_bytes=8 * 1024**3)
    mask = np.array([float(i % 3 != 2) for i in range(len(CASES))])
    return Candidates(found.forecast, mask)


@pytest.fixture(params=list(StrategyName))
def strategy(request: pytest.FixtureRequest) -> Strategy:
    """Each of them."""
    return make_strategy(request.param, np.random.default_rng(0), default=DEFAULT)


def asked(strategy: Strategy, candidates: Candidates, n: int) -> list[int | None]:
    """What a strategy asks for when everything takes equally long."""
    found = []
    for _ in range(n):
        index = strategy.ask(candidates, BEST)
        found.append(index)
        if index is not None:
            strategy.tell(index, BEST)
    return found


def test_every_feasible_candidate_is_asked_for_once(
    strategy: Strategy, candidates: Candidates
) -> None:
    """And nothing else; then there is no more."""
    feasible = np.flatnonzero(candidates.feasible)
    found = asked(strategy, candidates, len(feasible) + 1)

    assert sorted(index for index in found if index is not None) == feasible.tolist()
    assert found[-1] is None
    assert strategy.promise(candidates, BEST) == 0


def test_what_was_forgotten_may_be_asked_for_again(
    strategy: Strategy, candidates: Candidates
) -> None:
    """Its measurement was worth nothing."""
    asked(strategy, candidates, len(CASES))
    strategy.forget(3)

    assert strategy.promise(candidates, BEST) > 0
    assert strategy.ask(candidates, BEST) == 3


@pytest.mark.parametrize("name", list(StrategyName))
def test_the_same_seed_asks_the_same(name: StrategyName, candidates: Candidates) -> None:
    """Studies can be repeated."""
    first, second = (
        asked(make_strategy(name, np.random.default_rng(7), default=DEFAULT), candidates, 5)
        for _ in range(2)
    )
    assert first == second


def test_the_guided_one_begins_with_what_would_be_recommended(candidates: Candidates) -> None:
    """The first question is whether the prediction holds."""
    best = choose(candidates, default=DEFAULT)

    guided = make_strategy(StrategyName.MODEL_GUIDED, np.random.default_rng(0), default=DEFAULT)
    assert guided.ask(candidates, BEST) == best


def test_the_guided_one_leaves_alone_what_changes_nothing() -> None:
    """Of candidates that are predicted alike the plainest is tried, also after the first."""
    wanted = [
        DEFAULT.replace(n_ubatch=n_ubatch, flash_attn=flash_attn)
        for n_ubatch in (64, 128, 256, 512)
        for flash_attn in ("on", "off")
    ]
    batches = [case for case in make_cases() if case.config in wanted]
    found = survey(Predictor().fit([]), batches, available_bytes=8 * 1024**3)
    guided = make_strategy(StrategyName.MODEL_GUIDED, np.random.default_rng(0), default=DEFAULT)
    indices = [index for index in asked(guided, found, len(batches)) if index is not None]

    changes = [len(batches[index].config.differences(DEFAULT)) for index in indices]
    assert changes[:3] == [0, 1, 1]
    assert changes[-1] == 2
