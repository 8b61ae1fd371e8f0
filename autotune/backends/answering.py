"""An answer while it is made: whole characters, stop texts, times. The same for every engine.

An engine samples a token, says which bytes it stands for, and goes on while the answer does::

    answering = Answering(request, on_text)
    while tokens_of_the_prompt_are_left and answering.asks_on():
        ...  # compute some of them
    answering.prompt_is_computed(n_computed, n_cached)
    while answering.goes_on:
        token = ...  # sample
        if it_ends_the_text(token):
            answering.end(Finish.STOP)
        else:
            answering.add(bytes_of(token))
    return answering.completion()
"""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Sequence
from itertools import pairwise

from autotune.backends.protocol import EngineError
from autotune.domain.request import Finish, TextCompletion, TextRequest
from autotune.domain.run import Reason


class Answering:
    """Collects an answer and passes its text on; the clock starts with it."""

    def __init__(
        self,
        request: TextRequest,
        on_text: Callable[[str], bool],
        *,
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._max_tokens = request.max_tokens
        self._on_text, self._clock = on_text, clock
        self._text = GrowingText(request.stop)
        self._said: list[str] = []
        self._finish: Finish | None = None
        self._started = clock()
        self._n_prompt = self._n_cached = 0
        self._prefill_ns = 0
        self._moments: list[int] = []
        self._n_drafted = self._n_accepted = 0

    @property
    def n_left(self) -> int:
        """Tokens that the answer may still have."""
        return self._max_tokens - len(self._moments)

    @property
    def goes_on(self) -> bool:
        """Whether another token is wanted."""
        return self._finish is None

    def asks_on(self) -> bool:
        """Whether whoever asked still wants an answer: call it while the prompt is computed."""
        if self.goes_on and not self._on_text(""):
            self._finish = Finish.CANCELLED
        return self.goes_on

    def prompt_is_computed(self, n_prompt: int, n_cached: int, *, since_ns: int = 0) -> None:
        """The prompt is done: so many tokens of it computed, so many found in the cache.

        ``since_ns`` is when computing began, by the clock; 0 for the beginning of the request.
        """
        self._n_prompt, self._n_cached = n_prompt, n_cached
        self._prefill_ns = self._clock() - (since_ns or self._started)

    def add(self, piece: bytes) -> None:
        """A token has come, which stands for these bytes: perhaps none, or part of a character."""
        self._moments.append(self._clock())
        self._say(self._text.add(piece))
        if self._text.is_stopped:
            self._finish = self._finish or Finish.STOP
        elif len(self._moments) >= self._max_tokens:
            self.end(Finish.LENGTH)

    def guessed(self, n_drafted: int, n_accepted: int) -> None:
        """So many tokens were guessed, of which so many came true."""
        self._n_drafted += n_drafted
        self._n_accepted += n_accepted

    def end(self, finish: Finish) -> None:
        """No token follows, for that reason; what was held back as part of a stop text is said."""
        if self.goes_on:
            self._say(self._text.rest())
            self._finish = finish

    def _say(self, text: str) -> None:
        if text and self.goes_on:
            self._said.append(text)
            if not self._on_text(text):
                self._finish = Finish.CANCELLED

    def completion(self) -> TextCompletion:
        """The answer as it is now."""
        moments = self._moments
        first = moments[0] if moments else self._clock()
        return TextCompletion(
            text="".join(self._said),
            finish=self._finish or Finish.LENGTH,
            n_prompt=self._n_prompt,
            n_cached=self._n_cached,
            prefill_ns=self._prefill_ns,
            ttft_ns=first - self._started,
            token_ns=tuple(b - a for a, b in pairwise(moments)),
            n_tokens=len(moments),
            n_drafted=self._n_drafted,
            n_accepted=self._n_accepted,
        )


class GrowingText:
    """Bytes that become text: characters come out whole, and stop texts never, nor a part of one.

    Bytes that are no UTF-8 come out as U+FFFD; an unfinished character at the end is left out.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = stop
        self._held = ""
        self.is_stopped = False
        """Whether a stop text has come: nothing follows."""

    def add(self, piece: bytes) -> str:
        """What can be said now: all but what may turn out to be the beginning of a stop text."""
        self._held += self._decoder.decode(piece)
        found = [at for stop in self._stop if (at := self._held.find(stop)) >= 0]
        self.is_stopped = bool(found)
        at = min(found) if found else len(self._held) - self._n_doubtful()
        text, self._held = self._held[:at], self._held[at:]
        return text

    def rest(self) -> str:
        """What was held back, where nothing follows that could make it a stop text."""
        text, self._held = self._held, ""
        return text

    def _n_doubtful(self) -> int:
        """Length of the longest end of the text that begins a stop text."""
        longest = max(map(len, self._stop), default=1) - 1
        sizes = range(min(longest, len(self._held)), 0, -1)
        ends = (size for size in sizes if self._begins_stop(self._held[-size:]))
        return next(ends, 0)

    def _begins_stop(self, end: str) -> bool:
        return any(stop.startswith(end) for stop in self._stop)


def no_room(n_ctx: int) -> EngineError:
    """A prompt after which no token fits into the context."""
    message = f"the prompt leaves no room for an answer: shorten it, or raise n_ctx above {n_ctx}"
    return EngineError(Reason.CONSTRAINT, message)


def n_common(ours: Sequence[int], theirs: Sequence[int]) -> int:
    """Length of the longest common prefix of two lists of tokens."""
    pairs = enumerate(zip(ours, theirs, strict=False))
    shorter = min(len(ours), len(theirs))
    return next((at for at, (a, b) in pairs if a != b), shorter)
