"""A loaded model without an engine."""

from __future__ import annotations

import threading
from collections.abc import Callable

from autotune.backends.protocol import EngineError
from autotune.domain.request import Finish, TextCompletion, TextRequest
from autotune.domain.run import Run
from autotune.serving.loaded_model import Answer
from tests.factories import make_generation, make_run


class FakeModel:
    """A loaded model whose answers wait until they may go on."""

    def __init__(self) -> None:
        self.is_usable, self.is_closed, self.is_listening = True, False, False
        self.requests: list[TextRequest] = []
        self.begun, self.go_on, self.closed = (threading.Event() for _ in range(3))
        self.go_on.set()
        self.death: EngineError | None = None
        self.refusal: EngineError | None = None

    @property
    def run(self) -> Run:
        return make_run(peak_rss_bytes=123)

    def generate(self, request: TextRequest, *, on_text: Callable[[str], bool]) -> Answer:
        self.requests.append(request)
        self.begun.set()
        assert self.go_on.wait(10)
        if self.death:
            self.is_usable = False
            raise self.death
        if self.refusal:
            raise self.refusal
        on_text("yes")
        finish = Finish.CANCELLED if self.is_closed else Finish.LENGTH
        return Answer(
            completion=TextCompletion(
                text="yes",
                finish=finish,
                n_prompt=1,
                n_cached=0,
                prefill_ns=1,
                ttft_ns=1,
                token_ns=(1,),
                n_tokens=2,
            ),
            generation=make_generation(),
        )

    def close(self) -> None:
        self.is_usable, self.is_closed = False, True
        self.go_on.set()
        self.closed.set()
