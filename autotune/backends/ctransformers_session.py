"""A model of ctransformers: random tokens timed, texts answered.

The library's low-level calls are used: the Python around them keeps a list of every token and
samples all of them with one seed. Each call names its place in the cache, so what is in front of
it stays computed.
"""

from __future__ import annotations

import ctypes
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autotune.backends.answering import Answering, n_common, no_room
from autotune.backends.protocol import EngineError, Sample
from autotune.domain.config import Config
from autotune.domain.request import Finish, TextCompletion, TextRequest
from autotune.domain.run import EngineReport, LoadTime, Reason
from autotune.domain.workload import Workload
from autotune.facts.gguf_header import read_header

_PENALTY_TOKENS = 64
"""Latest tokens that the penalty looks at: the library's default."""


class CtransformersSession:
    """A model of ctransformers."""

    def __init__(self, library: str, model_path: Path, config: Config) -> None:
        from ctransformers.llm import LLM
        from ctransformers.llm import Config as Settings

        self._config = config
        self._cached: list[int] = []
        settings = Settings(
            context_length=config.n_ctx, mmap=config.use_mmap, mlock=config.use_mlock
        )
        started = time.perf_counter()
        try:
            self._llm: Any = LLM(str(model_path), "gguf", config=settings, lib=library)
        except RuntimeError as error:
            message = f"ctransformers cannot load {model_path.name}, and does not say why"
            raise EngineError(Reason.LOAD_ERROR, message) from error
        loaded = time.perf_counter()
        self._eval = self._llm.ctransformers_llm_batch_eval
        self._n_vocab, self._end = self._llm.vocab_size, self._llm.eos_token_id
        begins = read_header(model_path).values.get("tokenizer.ggml.add_bos_token")
        self._begins = self._llm.model_type == "llama" if begins is None else bool(begins)
        self._compute([self._first_token()], n_past=0, n_threads=config.n_threads)
        # The library makes model and context in one call.
        self.load = LoadTime(
            model_s=loaded - started, context_s=0.0, first_eval_s=time.perf_counter() - loaded
        )

    def sample(self, workload: Workload, *, seed: int) -> Sample:
        """One request: see :class:`autotune.backends.protocol.Session`."""
        if workload.n_tokens > self._config.n_ctx:
            raise EngineError(
                Reason.CONSTRAINT, f"{workload.label} does not fit into n_ctx={self._config.n_ctx}"
            )
        depth = self._random_tokens(workload.n_depth, random.Random(workload.n_depth))  # noqa: S311
        prompt = self._random_tokens(workload.n_prompt, random.Random(seed))  # noqa: S311
        self._fill(depth)
        cpu = time.process_time_ns()
        start = time.perf_counter_ns()
        self._prefill(prompt)
        filled = time.perf_counter_ns()
        filled_cpu = time.process_time_ns()
        token = self._likeliest() if prompt else self._first_token()
        first = time.perf_counter_ns()
        token_ns = self._decode(token, workload.n_gen)
        return Sample(
            prefill_ns=filled - start if prompt else None,
            ttft_ns=first - start if prompt else None,
            token_ns=token_ns,
            prefill_cpu_ns=filled_cpu - cpu if prompt else None,
            decode_cpu_ns=time.process_time_ns() - filled_cpu,
        )

    def _fill(self, depth: list[int]) -> None:
        """A cache that holds these tokens, computed where it does not yet."""
        kept = n_common(self._cached, depth)
        self._cached = self._cached[:kept]
        self._prefill(depth[kept:])

    def _decode(self, token: int, n_gen: int) -> tuple[int, ...]:
        """Decode and sample ``n_gen`` times; wall time of each step in nanoseconds."""
        times = []
        before = time.perf_counter_ns()
        for _ in range(n_gen):
            self._step(token)
            token = self._likeliest()
            now = time.perf_counter_ns()
            times.append(now - before)
            before = now
        return tuple(times)

    def _prefill(self, tokens: Sequence[int]) -> None:
        """Compute tokens behind those in the cache, in batches."""
        for batch in self._batches(tokens):
            self._extend(batch, n_threads=self._config.n_threads_batch)

    def _batches(self, tokens: Sequence[int]) -> Iterator[Sequence[int]]:
        size = self._config.n_ubatch
        return (tokens[at : at + size] for at in range(0, len(tokens), size))

    def _step(self, token: int) -> None:
        self._extend([token], n_threads=self._config.n_threads)

    def _extend(self, tokens: Sequence[int], *, n_threads: int) -> None:
        self._compute(tokens, n_past=len(self._cached), n_threads=n_threads)
        self._cached.extend(tokens)

    def _compute(self, tokens: Sequence[int], *, n_past: int, n_threads: int) -> None:
        """One batch at a place of the cache; what was there and behind is overwritten."""
        n = len(tokens)
        if not self._eval((ctypes.c_int * n)(*tokens), n, n_past, n, n_threads):
            raise EngineError(Reason.CRASH, f"ctransformers cannot compute {n} tokens at {n_past}")

    def _logits(self) -> npt.NDArray[np.float32]:
        """Of the latest token, in the library's own memory; shape (n_vocab,)."""
        pointer = self._llm.ctransformers_llm_logits_data()
        return np.ctypeslib.as_array(pointer, (self._n_vocab,))

    def _likeliest(self) -> int:
        """The likeliest token that does not end the text."""
        logits = self._logits()
        if 0 <= self._end < len(logits):
            logits[self._end] = -np.inf
        return int(logits.argmax())

    def _first_token(self) -> int:
        """The start of text, or word 0 in a vocabulary without one."""
        return max(int(self._llm.bos_token_id), 0)

    def _random_tokens(self, n: int, rng: random.Random) -> list[int]:
        """Random words, as llama-bench feeds; speed must not depend on the text."""
        return [rng.randrange(self._n_vocab) for _ in range(n)]

    def generate(self, request: TextRequest, *, on_text: Callable[[str], bool]) -> TextCompletion:
        """One answer: see :class:`autotune.backends.protocol.Session`.

        The library reads names of control tokens in a prompt as ordinary text, and knows no chat
        templates: ``chat`` raises with UNSUPPORTED.
        """
        answering = Answering(request, on_text)
        tokens = self._read(request)
        kept = n_common(self._cached, tokens[:-1])
        self._cached = self._cached[:kept]
        for batch in self._batches(tokens[kept:]):
            if answering.asks_on():
                self._extend(batch, n_threads=self._config.n_threads_batch)
        answering.prompt_is_computed(len(self._cached) - kept, kept)
        self._answer(answering, self._sampler(request))
        return answering.completion()

    def _read(self, request: TextRequest) -> list[int]:
        """The prompt in tokens. Raises EngineError where it cannot be read, or does not fit."""
        if request.chat:
            message = "ctransformers knows no chat templates: give the prompt in the model's form"
            raise EngineError(Reason.UNSUPPORTED, message)
        tokens = self._tokens(request.prompt.encode())
        if len(tokens) >= self._config.n_ctx:
            raise no_room(self._config.n_ctx)
        return tokens or [self._first_token()]

    def _tokens(self, text: bytes) -> list[int]:
        """A text in tokens. The library's own wrapper makes room for fewer than there may be."""
        buffer = (ctypes.c_int * (len(text) + 2))()
        n = self._llm.ctransformers_llm_tokenize(text, self._begins, buffer)
        return list(buffer[:n])

    def _answer(self, answering: Answering, sample: Callable[[], int]) -> None:
        """Sample and compute tokens until the answer ends."""
        while answering.goes_on:
            token = sample()
            if self._llm.is_eos_token(token):
                answering.end(Finish.STOP)
                return
            answering.add(self._llm.detokenize([token], decode=False))
            if len(self._cached) + 1 >= self._config.n_ctx:
                answering.end(Finish.LENGTH)
            if answering.goes_on:
                self._step(token)

    def _sampler(self, request: TextRequest) -> Callable[[], int]:
        """What chooses the next token from the latest logits.

        The library seeds its random numbers for each token, so each gets a seed of its own. It
        has no ``min_p``: less likely tokens are taken away before it looks.
        """
        rng = random.Random(request.seed)  # noqa: S311 - of a text, not of a secret
        greedy = request.temperature == 0

        def sample() -> int:
            latest = self._cached[-_PENALTY_TOKENS:]
            if request.min_p and not greedy:
                logits = self._logits()
                logits[logits < logits.max() + np.log(request.min_p)] = -np.inf
            return int(
                self._llm.ctransformers_llm_sample(
                    (ctypes.c_int * len(latest))(*latest),
                    len(latest),
                    1 if greedy else request.top_k or self._n_vocab,
                    1.0 if greedy else request.top_p,
                    1.0 if greedy else request.temperature,
                    request.repeat_penalty,
                    rng.getrandbits(31),
                )
            )

        return sample

    def report(self) -> EngineReport:
        """The context; the library says nothing else, and has no flash attention."""
        return EngineReport(flash_attn=False, n_ctx=self._llm.context_length)

    def close(self) -> None:
        """Free model and context."""
        self._llm = self._eval = None
