"""The quality cost of a configuration in llama.cpp: two contexts of one model read the same text.

Batch by batch both compute the logits of every position, which are compared and forgotten: kept,
those of 800 positions over 262k words would take 840 MB a context. What was read before a position
lies in the cache, so a quantised cache costs here what it costs in a generation.
"""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autotune.backends.divergence import Logits, divergence
from autotune.backends.engine_log import EngineLog
from autotune.backends.llama_params import context_params, model_params
from autotune.backends.llama_vocab import Vocabulary
from autotune.backends.protocol import EngineError
from autotune.domain.config import Config
from autotune.domain.quality import QualityCost
from autotune.domain.run import Reason

N_SKIPPED = 32
"""First positions left out: with hardly anything in the cache there is hardly anything to lose."""
_BATCH = 64
"""Positions computed at once; the logits of one batch take 67 MB a context with 262k words."""


class QualityBench:
    """A model, open so that configurations of it can be judged."""

    def __init__(self, llama: Any, log: EngineLog, model_path: Path, config: Config) -> None:
        self._llama, self._log = llama, log
        self._serves = _identity(model_path, config)
        log.clear()
        params = model_params(llama, config)
        self._model = llama.llama_model_load_from_file(os.fsencode(model_path), params)
        if not self._model:
            raise log.error(Reason.LOAD_ERROR, f"llama.cpp cannot load {model_path.name}")

    def serves(self, model_path: Path, config: Config) -> bool:
        """Whether the model that is open here is that file, loaded as the configuration asks."""
        return self._serves == _identity(model_path, config)

    def cost(self, candidate: Config, reference: Config, text: str) -> QualityCost:
        """How far the candidate's distributions lie from the reference's: see
        :class:`autotune.backends.protocol.Judges`."""
        self._log.clear()
        tokens = self._tokens(text)
        positions = list(self._compare(tokens, reference, candidate))[N_SKIPPED:]
        kl, agrees = zip(*positions, strict=True)
        if not all(map(math.isfinite, kl)):
            raise EngineError(Reason.INCORRECT, "the engine computed no finite distribution")
        return QualityCost.of(kl, agrees)

    def _compare(
        self, tokens: Sequence[int], reference: Config, candidate: Config
    ) -> Iterator[tuple[float, bool]]:
        """(divergence in nats, whether the likeliest token is the same) of each position."""
        with (
            _Reader(self._llama, self._log, self._model, reference, len(tokens)) as ours,
            _Reader(self._llama, self._log, self._model, candidate, len(tokens)) as theirs,
        ):
            for start in range(0, len(tokens), _BATCH):
                batch = tokens[start : start + _BATCH]
                for p, q in zip(ours.read(batch), theirs.read(batch), strict=True):
                    yield divergence(p, q), bool(p.argmax() == q.argmax())

    def _tokens(self, text: str) -> list[int]:
        """The text in the model's own tokens, cut to the context that it was trained for."""
        vocabulary = Vocabulary(self._llama, self._model)
        if not vocabulary.can_read:
            raise EngineError(Reason.UNSUPPORTED, "the model has no vocabulary to read a text with")
        tokens = vocabulary.tokens(text, parse_special=False)
        n = min(len(tokens), self._llama.llama_model_n_ctx_train(self._model))
        if n <= N_SKIPPED:
            message = f"quality is judged from token {N_SKIPPED} on, and there are {n}"
            raise EngineError(Reason.UNSUPPORTED, message)
        return tokens[:n]

    def close(self) -> None:
        """Give the model back."""
        self._llama.llama_model_free(self._model)


class _Reader:
    """A context of one configuration, just large enough for a text. Use as a context manager."""

    def __init__(
        self, llama: Any, log: EngineLog, model: Any, config: Config, n_tokens: int
    ) -> None:
        self._llama, self._log = llama, log
        batch = min(_BATCH, n_tokens)
        fitted = config.replace(n_ctx=n_tokens, n_batch=batch, n_ubatch=batch, n_parallel=1)
        self._context = llama.llama_init_from_model(model, context_params(llama, fitted))
        if not self._context:
            raise log.error(Reason.CONSTRAINT, "llama.cpp refuses the combination")
        self._n_vocab = Vocabulary(llama, model).n_words

    def read(self, tokens: Sequence[int]) -> Logits:
        """Logits after each of the next tokens, shape (n, n_vocab); valid until the next call."""
        n = len(tokens)
        buffer, wanted = (self._llama.llama_token * n)(*tokens), (ctypes.c_int8 * n)(*[1] * n)
        batch = self._llama.llama_batch_get_one(buffer, n)
        batch.logits = wanted
        code = self._llama.llama_decode(self._context, batch)
        if code != 0:
            raise self._log.error(Reason.CRASH, f"llama_decode failed with code {code}")
        pointer = self._llama.llama_get_logits(self._context)
        return np.ctypeslib.as_array(pointer, (n, self._n_vocab))

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._llama.llama_free(self._context)


def _identity(model_path: Path, config: Config) -> tuple[object, ...]:
    """What a loaded model depends on."""
    return model_path, config.layer_split, config.use_mmap, config.use_mlock
