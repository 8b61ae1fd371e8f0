"""The benchmark of ordinary requests: medians of what was answered, and what was not."""

from __future__ import annotations

import json

import pytest

from autotune.backends.protocol import EngineError
from autotune.domain.errors import UserError
from autotune.domain.request import Finish, TextCompletion, TextRequest
from autotune.domain.run import Generation, Reason
from autotune.domain.workload import Workload
from autotune.integration.benchmark import (
    MAX_TOKENS,
    PROMPTS,
    benchmark,
    describe,
    response_s,
    weaknesses,
)
from autotune.integration.session import SessionStats
from autotune.serving.loaded_model import Answer
from tests.factories import make_generation


def generation(*, tps: float = 50.0, ttft_s: float = 0.1) -> Generation:
    """Eleven tokens."""
    return make_generation(
        workload=Workload(n_prompt=5, n_gen=10),
        ttft_ns=round(ttft_s * 1e9),
        token_ns=(round(1e9 / tps),) * 10,
    )


class Engine:
    """Answers with given rates, one after another, and refuses where it says an error."""

    def __init__(self, *answers: Generation | Exception | None) -> None:
        self._answers, self.requests = list(answers), list[TextRequest]()

    def __call__(self, request: TextRequest) -> Answer:
        self.requests.append(request)
        answer = self._answers.pop(0) if self._answers else generation()
        if isinstance(answer, Exception):
            raise answer
        completion = TextCompletion(
            text="",
            finish=Finish.LENGTH,
            n_prompt=5,
            n_cached=0,
            prefill_ns=1,
            ttft_ns=1,
            token_ns=(1,),
            n_tokens=2,
        )
        return Answer(completion=completion, generation=answer)


def test_the_prompts_take_turns_after_one_that_is_not_counted() -> None:
    """All alike: no sampling, the same length."""
    engine = Engine(generation(tps=1))
    found = benchmark(engine, num_iterations=2)

    assert [request.prompt for request in engine.requests] == [PROMPTS[0], *PROMPTS, *PROMPTS]
    assert {(r.max_tokens, r.temperature) for r in engine.requests} == {(MAX_TOKENS, 0.0)}
    assert found.median("decode_tps") == pytest.approx(50)
    assert [len(prompt.generations) for prompt in found.prompts] == [2, 2, 2]
    assert not weaknesses(found)


def test_figures_are_medians_of_medians() -> None:
    """Of each prompt over its rounds, of all over the prompts."""
    rates = [10, 20, 30, 12, 40, 50]
    engine = Engine(generation(), *(generation(tps=tps, ttft_s=0.5) for tps in rates))
    told = describe(benchmark(engine, num_iterations=2))

    assert [prompt["overall_tokens_per_sec"] for prompt in told["prompts"]] == pytest.approx(
        [11, 30, 40]
    )
    average = told["average_metrics"]
    assert average["overall_tokens_per_sec"] == pytest.approx(30)
    assert average["first_token_latency"] == pytest.approx(0.5)
    assert average["success_rate"] == 1
    slow = (1 / 20 + 1 / 40) / 2 * 10 + 0.5
    assert told["prompts"][1]["overall_response_time"] == pytest.approx(slow)
    assert json.loads(json.dumps(told)) == told


def test_what_is_refused_counts_as_failed() -> None:
    """And so does what was cancelled before anything was computed."""
    refusal = EngineError(Reason.CONSTRAINT, "the prompt does not fit")
    engine = Engine(generation(), generation(tps=5, ttft_s=3), refusal, None)
    told = benchmark(engine, num_iterations=1)

    assert told.success_rate == pytest.approx(1 / 3)
    assert [prompt.n_failed for prompt in told.prompts] == [0, 1, 1]
    assert told.prompts[1].decode_tps is None
    lines = " ".join(weaknesses(told))
    for said in ("5.0 tokens/s", "the first token takes 3", "67% of the requests failed"):
        assert said in lines


def test_a_death_ends_the_benchmark() -> None:
    """Its error is told, not the one of the next request."""
    engine = Engine(generation(), generation(), EngineError(Reason.CRASH, "the engine died"))
    with pytest.raises(EngineError, match="the engine died"):
        benchmark(engine, num_iterations=3)
    assert len(engine.requests) == 3


@pytest.mark.parametrize("iterations", [0, -1, 1.0, "2", True, None, 10**9])
def test_absurd_iterations_are_refused(iterations: int) -> None:
    """Before anything is asked."""
    engine = Engine()
    with pytest.raises(UserError, match="give a whole number, 1 to"):
        benchmark(engine, num_iterations=iterations)
    assert not engine.requests


def test_a_session_counts_what_was_computed() -> None:
    """Averages are over the same answers as the counts."""
    session = SessionStats()
    assert session.to_dict()["avg_generation_time"] == 0.0
    session.generated(generation(tps=10), 11)
    session.generated(generation(tps=20), 11)
    session.generated(None, 0)
    session.failed()
    told = session.to_dict()

    assert (told["total_generations"], told["total_tokens"], told["generations_failed"]) == (
        2,
        22,
        1,
    )
    assert told["avg_generation_time"] == pytest.approx((1.1 + 0.6) / 2)
    assert told["median_tokens_per_second"] == pytest.approx(15)


def test_a_response_lasts_from_the_request_to_the_last_token() -> None:
    """Where a part is not known, the rest."""
    assert response_s(generation(tps=10, ttft_s=0.5)) == pytest.approx(1.5)
    assert response_s(make_generation(ttft_ns=None, token_ns=())) == 0
