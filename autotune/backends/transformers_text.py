"""Requests of text in transformers: read, computed where not yet cached, sampled.

Tokens are chosen as llama.cpp's server chooses them: penalties, top k, top p, min p, temperature.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from autotune.backends.answering import Answering, n_common, no_room
from autotune.backends.transformers_model import TorchModel
from autotune.backends.transformers_vocab import Vocabulary
from autotune.domain.config import Config
from autotune.domain.request import Finish, TextCompletion, TextRequest

_PENALTY_TOKENS = 64
"""Latest tokens that a penalty looks at."""
_SEEDS = 1 << 63
"""PyTorch takes seeds below it."""


class TransformersText:
    """Answers requests of text, and knows which tokens its cache holds."""

    def __init__(
        self, torch: Any, model: TorchModel, vocabulary: Vocabulary, *, ends: Sequence[int],
        config: Config,
    ) -> None:  # fmt: skip
        self._torch, self._model, self._vocabulary = torch, model, vocabulary
        self._ends = frozenset(ends)
        self._config = config
        self._cache: Any = None
        self._cached: list[int] = []

    def forget(self) -> None:
        """Drop the cache."""
        self._cache, self._cached = None, []

    def generate(self, request: TextRequest, on_text: Callable[[str], bool]) -> TextCompletion:
        """One answer: see :class:`autotune.backends.protocol.Session`."""
        answering = Answering(request, on_text)
        tokens = self._read(request)
        n_cached = self._keep_prefix(tokens)
        try:
            logits = self._prefill(tokens, n_cached, answering)
            self._decode(logits, Chooser(self._torch, request, self._model.device), answering)
        except BaseException:
            self.forget()
            raise
        return answering.completion()

    def _read(self, request: TextRequest) -> list[int]:
        """The prompt in tokens. Raises EngineError where it does not fit."""
        read = self._vocabulary.tokens(request.prompt, chat=request.chat)
        tokens = [token for token in read if token < self._model.n_vocab]
        if len(tokens) >= self._config.n_ctx:
            raise no_room(self._config.n_ctx)
        return tokens or [self._model.first_token]

    def _keep_prefix(self, tokens: Sequence[int]) -> int:
        """Remove from the cache what is not the prompt's; how many of its tokens are left there.

        The prompt's last token is always computed: the next one is sampled from its logits.
        """
        n_kept = n_common(self._cached, tokens[:-1])
        if n_kept == 0 or not self._model.cut_cache(self._cache, n_kept):
            self._cache, n_kept = self._model.new_cache(), 0
        self._cached = list(tokens[:n_kept])
        return n_kept

    def _prefill(self, tokens: Sequence[int], n_cached: int, answering: Answering) -> Any:
        """Compute the prompt in pieces, as long as an answer is wanted; its last logits."""
        since_ns, at, logits = time.perf_counter_ns(), n_cached, None
        self._model.set_threads(self._config.n_threads_batch)
        while at < len(tokens) and answering.asks_on():
            piece = tokens[at : at + self._config.n_ubatch]
            logits = self._compute(piece)
            at += len(piece)
        self._model.wait()
        answering.prompt_is_computed(at - n_cached, n_cached, since_ns=since_ns)
        return logits

    def _decode(self, logits: Any, chooser: Chooser, answering: Answering) -> None:
        """Choose and compute tokens until the answer ends."""
        speaker = self._vocabulary.speaker(self._cached)
        self._model.set_threads(self._config.n_threads)
        while answering.goes_on:
            token = chooser.choose(logits, self._cached[-_PENALTY_TOKENS:])
            if token in self._ends:
                answering.end(Finish.STOP)
                return
            answering.add(speaker.add(token))
            if len(self._cached) + 1 >= self._config.n_ctx:
                answering.end(Finish.LENGTH)
            if answering.goes_on:
                logits = self._compute([token])

    def _compute(self, tokens: Sequence[int]) -> Any:
        logits = self._model.compute(tokens, self._cache)
        self._cached.extend(tokens)
        return logits


class Chooser:
    """Chooses the next token from logits, as a request wants it."""

    def __init__(self, torch: Any, request: TextRequest, device: str) -> None:
        self._torch, self._request = torch, request
        self._random = torch.Generator(device)
        if request.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(request.seed % _SEEDS)

    def choose(self, logits: Any, latest: Sequence[int]) -> int:
        """A token, from logits of shape (n_vocab,), which are changed; ``latest`` are penalised."""
        request = self._request
        if request.repeat_penalty != 1:
            self._penalise(logits, sorted(set(latest)))
        if request.temperature == 0:
            return int(logits.argmax())
        values, words = logits.topk(min(request.top_k, len(logits)) or len(logits))
        kept = values[self._likely(self._torch.softmax(values, 0))]
        odds = self._torch.softmax(kept / request.temperature, 0)
        return int(words[self._torch.multinomial(odds, 1, generator=self._random)])

    def _penalise(self, logits: Any, latest: list[int]) -> None:
        """Make tokens less likely, whichever sign their logits have."""
        penalty, values = self._request.repeat_penalty, logits[latest]
        logits[latest] = self._torch.where(values > 0, values / penalty, values * penalty)

    def _likely(self, odds: Any) -> Any:
        """Which of the odds, largest first, top p and min p leave; the first always."""
        likely = odds >= self._request.min_p * odds[0]
        if self._request.top_p < 1:
            likely &= odds.cumsum(0) - odds < self._request.top_p
        return likely
