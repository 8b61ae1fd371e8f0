"""Requests of text in a context of llama.cpp: read, computed where not yet cached, sampled.

Tokens are chosen by llama.cpp's own samplers, in the order of its server: penalties, top k, top p,
min p, temperature.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from autotune.backends.answering import Answering, n_common, no_room
from autotune.backends.llama_chat import chat_prompt
from autotune.backends.llama_interrupt import Interrupt
from autotune.backends.llama_vocab import Vocabulary
from autotune.backends.prompt_lookup import DraftLength, PromptLookup, guess_cost
from autotune.backends.protocol import EngineError
from autotune.domain.request import Finish, TextCompletion, TextRequest
from autotune.domain.run import Reason

_PENALTY_TOKENS = 64
"""Latest tokens that a penalty looks at: llama.cpp's default."""
_LONG = 128
"""Tokens from which on it pays to be able to end a batch: being asked costs a millisecond."""
_LATEST = -1
"""Row of the logits of the last token computed."""
_RANDOM_SEED = 0xFFFFFFFF
"""llama.cpp's word for another seed each time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handles:
    """A model and a context of the library, and how tokens are computed in it."""

    llama: Any
    model: Any
    context: Any
    memory: Any
    vocabulary: Vocabulary
    decode: Callable[[Sequence[int]], None]
    """Computes tokens; the last has logits."""
    decode_each: Callable[[Sequence[int]], None]
    """The same, and every one has logits."""
    n_ctx: int
    """Tokens that one sequence may have."""
    n_batch: int
    is_on_gpu: bool = False
    """Whether all layers are: what stays on the host takes nearly all of the time."""


class LlamaText:
    """Answers requests of text, and knows which tokens the cache holds."""

    def __init__(self, handles: Handles) -> None:
        self._handles, self._llama = handles, handles.llama
        self._cached: list[int] = []
        self._n_window = int(self._llama.llama_model_n_swa(handles.model))
        kinds = (self._llama.llama_model_is_recurrent, self._llama.llama_model_is_hybrid)
        self._can_go_back = not any(kind(handles.model) for kind in kinds)

    def forget(self) -> None:
        """The cache is somebody else's from now on: nothing in it is known."""
        self._cached = []

    def generate(self, request: TextRequest, on_text: Callable[[str], bool]) -> TextCompletion:
        """One answer: see :class:`autotune.backends.protocol.Session`."""
        answering = Answering(request, on_text)
        tokens = self._read(request)
        n_cached = self._keep_prefix(tokens)
        try:
            self._prefill(tokens, n_cached, answering)
            with self._sampler(request, tokens) as sample:
                if request.n_draft and self._can_go_back:
                    cost = guess_cost(is_on_gpu=self._handles.is_on_gpu)
                    length = DraftLength(request.n_draft, cost=cost)
                    self._decode_ahead(sample, answering, PromptLookup(tokens), length)
                else:
                    self._decode(sample, answering)
        except BaseException:
            self.forget()
            raise
        return answering.completion()

    def _read(self, request: TextRequest) -> list[int]:
        """The prompt in tokens. Raises EngineError where it cannot be read, or does not fit."""
        handles = self._handles
        if not handles.vocabulary.can_read:
            raise EngineError(Reason.UNSUPPORTED, "the model has no vocabulary to read a text with")
        text = request.prompt
        if request.chat:
            text = chat_prompt(handles.llama, handles.model, handles.vocabulary, text)
        tokens = handles.vocabulary.tokens(text, parse_special=True) or [handles.vocabulary.first]
        if len(tokens) >= handles.n_ctx:
            raise no_room(handles.n_ctx)
        return tokens

    def _keep_prefix(self, tokens: Sequence[int]) -> int:
        """Remove from the cache what is not the prompt's; how many of its tokens are left there.

        The prompt's last token is always computed: the next one is sampled from its logits.
        """
        n_kept = n_common(self._cached, tokens[:-1])
        if n_kept == 0 or not self._cut(n_kept):
            self._llama.llama_memory_clear(self._handles.memory, False)  # noqa: FBT003
            n_kept = 0
        self._cached = list(tokens[:n_kept])
        return n_kept

    def _cut(self, n_kept: int) -> bool:
        """Shorten the cache, if that much of it is still there and it can be shortened.

        A sliding window may have dropped what lies before it; a recurrent state cannot go back.
        """
        oldest = self._llama.llama_memory_seq_pos_min(self._handles.memory, 0)
        if not 0 <= oldest <= max(n_kept - self._n_window, 0):
            return False
        return bool(self._llama.llama_memory_seq_rm(self._handles.memory, 0, n_kept, -1))

    def _prefill(self, tokens: Sequence[int], n_cached: int, answering: Answering) -> None:
        """Compute the prompt in batches, as long as an answer is wanted."""
        since_ns, at = time.perf_counter_ns(), n_cached
        while at < len(tokens) and answering.asks_on():
            batch = tokens[at : at + self._handles.n_batch]
            if not self._compute_wanted(batch, answering):
                break
            at += len(batch)
        self._llama.llama_synchronize(self._handles.context)
        answering.prompt_is_computed(at - n_cached, n_cached, since_ns=since_ns)

    def _compute_wanted(self, tokens: Sequence[int], answering: Answering) -> bool:
        """Compute tokens; whether that was not given up in the middle."""
        if len(tokens) < _LONG:
            self._compute(tokens)
            return True
        with Interrupt(self._llama, self._handles.context, answering.asks_on) as interrupt:
            try:
                self._compute(tokens)
            except EngineError:
                if not interrupt.came:
                    raise
                self.forget()
                return False
        return True

    def _decode(self, sample: Callable[[int], int], answering: Answering) -> None:
        """Sample and compute tokens until the answer ends."""
        while answering.goes_on:
            token = self._say_next(sample, _LATEST, answering, n_room=self._n_room)
            if answering.goes_on:
                self._compute([token])

    def _decode_ahead(
        self,
        sample: Callable[[int], int],
        answering: Answering,
        lookup: PromptLookup,
        length: DraftLength,
    ) -> None:
        """The same with guesses, computed together with the token that they follow.

        Each is held against what is sampled in its place; the first wrong one takes those after it
        out of the cache.
        """
        guess: list[int] = []
        row, n_right = _LATEST, 0
        while answering.goes_on:
            n_ahead = len(guess) - n_right
            token = self._say_next(sample, row, answering, n_room=self._n_room + n_ahead)
            lookup.add(token)
            if n_ahead and token == guess[n_right]:
                n_right, row = n_right + 1, row + 1
                continue
            length.judge(len(guess), n_right)
            answering.guessed(len(guess), n_right)
            self._take_back(n_ahead)
            guess, n_right = [], 0
            if answering.goes_on:
                n_most = min(self._n_room - 2, answering.n_left - 1, self._handles.n_batch - 1)
                guess = lookup.guess(min(length.best, n_most))
                self._compute_each([token, *guess])
                row = 0
        answering.guessed(len(guess), n_right)
        self._take_back(len(guess) - n_right)

    def _take_back(self, n_tokens: int) -> None:
        """Shorten the cache by the tokens that were computed last."""
        n_kept = len(self._cached) - n_tokens
        if n_tokens and not self._llama.llama_memory_seq_rm(self._handles.memory, 0, n_kept, -1):
            raise EngineError(Reason.CRASH, "llama.cpp cannot take back what was guessed")
        del self._cached[n_kept:]

    @property
    def _n_room(self) -> int:
        """Tokens for which the context still has room."""
        return self._handles.n_ctx - len(self._cached)

    def _say_next(
        self, sample: Callable[[int], int], row: int, answering: Answering, *, n_room: int
    ) -> int:
        """Sample a token from a row of the latest logits, and put it into the answer."""
        vocabulary = self._handles.vocabulary
        token = sample(row)
        if vocabulary.is_end(token):
            answering.end(Finish.STOP)
            return token
        answering.add(vocabulary.piece(token))
        if n_room <= 1:
            answering.end(Finish.LENGTH)
        return token

    def _compute(self, tokens: Sequence[int]) -> None:
        self._handles.decode(tokens)
        self._cached.extend(tokens)

    def _compute_each(self, tokens: Sequence[int]) -> None:
        self._handles.decode_each(tokens)
        self._cached.extend(tokens)

    @contextmanager
    def _sampler(
        self, request: TextRequest, tokens: Sequence[int]
    ) -> Iterator[Callable[[int], int]]:
        """What chooses the next token from a row of the latest logits."""
        llama, context = self._llama, self._handles.context
        chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
        try:
            for sampler in self._samplers(request):
                llama.llama_sampler_chain_add(chain, sampler)
            for token in tokens[-_PENALTY_TOKENS:]:
                llama.llama_sampler_accept(chain, token)
            yield lambda row: int(llama.llama_sampler_sample(chain, context, row))
        finally:
            llama.llama_sampler_free(chain)

    def _samplers(self, request: TextRequest) -> Iterator[Any]:
        llama = self._llama
        if request.repeat_penalty != 1:
            n_words = self._handles.vocabulary.n_words
            yield llama.llama_sampler_init_penalties(
                n_words, _PENALTY_TOKENS, request.repeat_penalty, 0.0, 0.0
            )
        if request.temperature == 0:
            yield llama.llama_sampler_init_greedy()
            return
        if request.top_k:
            yield llama.llama_sampler_init_top_k(request.top_k)
        yield llama.llama_sampler_init_top_p(request.top_p, 1)
        yield llama.llama_sampler_init_min_p(request.min_p, 1)
        yield llama.llama_sampler_init_temp(request.temperature)
        yield llama.llama_sampler_init_dist(native_seed(request.seed))


def native_seed(seed: int | None) -> int:
    """A seed as llama.cpp takes them: 32 bits, one value of which asks for another each time."""
    return _RANDOM_SEED if seed is None else seed % _RANDOM_SEED
