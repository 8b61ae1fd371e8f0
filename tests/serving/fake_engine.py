"""An engine whose every step a test decides."""

from __future__ import annotations

import threading
from collections.abc import Callable

from autotune.domain.request import Finish, TextCompletion, TextRequest

PATIENCE_S = 10.0
"""How long a test waits for what must come."""


def make_completion(text: str, finish: Finish = Finish.STOP) -> TextCompletion:
    """An answer of as many tokens as it has words."""
    n_tokens = len(text.split())
    return TextCompletion(
        text=text,
        finish=finish,
        n_prompt=3,
        n_cached=0,
        prefill_ns=1_000_000,
        ttft_ns=2_000_000,
        token_ns=(1_000_000,) * max(n_tokens - 1, 0),
        n_tokens=n_tokens,
    )


class FakeEngine:
    """Answers a prompt with itself in capitals; waits before each answer while it is held."""

    def __init__(self, *, is_held: bool = False) -> None:
        self.prompts: list[str] = []
        """In the order in which they were started."""
        self.at_once = self.most_at_once = 0
        self.errors: dict[str, BaseException] = {}
        """What a prompt fails with."""
        self._may_go = threading.Semaphore(0)
        self._is_held = is_held
        self._changed = threading.Condition()

    def hold(self) -> None:
        """Hold whoever comes from now on."""
        self._is_held, self._may_go = True, threading.Semaphore(0)

    def release(self, n: int = 1) -> None:
        """Let so many requests go on."""
        self._may_go.release(n)

    def release_all(self) -> None:
        """Hold nobody from now on."""
        self._is_held = False
        self._may_go.release(1000)

    def await_started(self, n: int) -> None:
        """Wait until so many requests have been started."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.prompts) >= n, PATIENCE_S)

    def serve(self, request: TextRequest, on_text: Callable[[str], bool]) -> TextCompletion:
        """What the queue calls: a piece of text every 5 ms while it is held."""
        with self._changed:
            self.prompts.append(request.prompt)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            self._changed.notify_all()
        try:
            return self._answer(request, on_text)
        finally:
            with self._changed:
                self.at_once -= 1

    def _answer(self, request: TextRequest, on_text: Callable[[str], bool]) -> TextCompletion:
        while self._is_held and not self._may_go.acquire(timeout=0.005):
            if not on_text("."):
                return make_completion("", Finish.CANCELLED)
        if request.prompt in self.errors:
            raise self.errors[request.prompt]
        text = request.prompt.upper()
        return make_completion(text, Finish.STOP if on_text(text) else Finish.CANCELLED)
