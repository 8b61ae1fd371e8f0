"""A session of transformers: requests of random tokens, timed; requests of text."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from autotune.backends.protocol import EngineError, Sample
from autotune.backends.transformers_library import Libraries
from autotune.backends.transformers_model import TorchModel
from autotune.backends.transformers_text import TransformersText
from autotune.backends.transformers_vocab import Vocabulary
from autotune.domain.config import Config
from autotune.domain.request import TextCompletion, TextRequest
from autotune.domain.run import Buffer, EngineReport, LoadTime, Reason
from autotune.domain.workload import Workload


class TransformersSession:
    """A model, its tokeniser and a cache. See :class:`autotune.backends.protocol.Session`.

    The model is called as ``generate`` of transformers calls it: the prompt in one go (here in
    pieces of ``n_ubatch``), then token by token, with a cache that grows.
    """

    def __init__(self, libraries: Libraries, model_path: Path, config: Config) -> None:
        self._libraries, self._torch = libraries, libraries.torch
        self._config = config
        self._depth_state: tuple[int, Any] | None = None
        self.load = self._load(model_path)

    def _load(self, path: Path) -> LoadTime:
        started = time.perf_counter()
        self._model = TorchModel(self._libraries, path, self._config)
        loaded = time.perf_counter()
        vocabulary = Vocabulary(self._libraries, path)
        ends = self._model.ends | vocabulary.ends
        # A tokeniser may have words of its own that the model does not know.
        self._ends = sorted(token for token in ends if token < self._model.n_vocab)
        self._text = TransformersText(
            self._torch, self._model, vocabulary, ends=self._ends, config=self._config
        )
        created = time.perf_counter()
        with self._computing():
            self._try_first_token()
        return LoadTime(
            model_s=loaded - started,
            context_s=created - loaded,
            first_eval_s=time.perf_counter() - created,
        )

    def _try_first_token(self) -> None:
        cache = self._model.new_cache()
        self._model.compute([self._model.first_token], cache)
        self._model.wait()
        if cache.get_seq_length() != 1:
            message = "transformers keeps no cache of tokens for this architecture"
            raise EngineError(Reason.UNSUPPORTED, message)

    def _computing(self) -> Any:
        """Nothing is kept for training."""
        return self._torch.inference_mode()

    def sample(self, workload: Workload, *, seed: int) -> Sample:
        """One request: see :class:`autotune.backends.protocol.Session`."""
        if workload.n_tokens > self._config.n_ctx:
            raise EngineError(
                Reason.CONSTRAINT, f"{workload.label} does not fit into n_ctx={self._config.n_ctx}"
            )
        with self._computing():
            return self._sample(workload, random.Random(seed))  # noqa: S311 - not secrets

    def _sample(self, workload: Workload, rng: random.Random) -> Sample:
        prompt = self._random_tokens(workload.n_prompt, rng)
        cache = self._filled(workload.n_depth, rng)
        self._model.set_threads(self._config.n_threads_batch)
        cpu = time.process_time_ns()
        start = time.perf_counter_ns()
        logits = self._prefill(prompt, cache)
        filled = time.perf_counter_ns()
        filled_cpu = time.process_time_ns()
        token = self._likeliest(logits) if prompt else self._model.first_token
        first = time.perf_counter_ns()
        token_ns = self._decode(token, cache, workload.n_gen)
        return Sample(
            prefill_ns=filled - start if prompt else None,
            ttft_ns=first - start if prompt else None,
            token_ns=token_ns,
            prefill_cpu_ns=filled_cpu - cpu if prompt else None,
            decode_cpu_ns=time.process_time_ns() - filled_cpu,
        )

    def _decode(self, token: int, cache: Any, n_gen: int) -> tuple[int, ...]:
        """Compute and choose ``n_gen`` times; wall time of each step in nanoseconds."""
        times = []
        before = time.perf_counter_ns()
        self._model.set_threads(self._config.n_threads)
        for _ in range(n_gen):
            token = self._likeliest(self._model.compute([token], cache))
            now = time.perf_counter_ns()
            times.append(now - before)
            before = now
        return tuple(times)

    def _filled(self, n_depth: int, rng: random.Random) -> Any:
        """A cache of ``n_depth`` tokens, computed once and then copied."""
        self._text.forget()  # one cache at a time: a request of text in memory is no part of it
        cache = self._model.new_cache()
        if n_depth == 0:
            return cache
        if self._depth_state is None or self._depth_state[0] != n_depth:
            self._model.set_threads(self._config.n_threads_batch)
            self._prefill(self._random_tokens(n_depth, rng), cache)
            self._depth_state = (n_depth, cache)
        return self._model.copy_cache(self._depth_state[1])

    def _prefill(self, tokens: Sequence[int], cache: Any) -> Any:
        """Compute tokens in pieces and wait for the last; its logits, None without tokens."""
        logits = None
        for start in range(0, len(tokens), self._config.n_ubatch):
            piece = tokens[start : start + self._config.n_ubatch]
            logits = self._model.compute(piece, cache)
        self._model.wait()
        return logits

    def _likeliest(self, logits: Any) -> int:
        """The likeliest token that does not end the text."""
        logits[self._ends] = -float("inf")
        return int(logits.argmax())

    def _random_tokens(self, n: int, rng: random.Random) -> list[int]:
        """Random words, as llama-bench feeds; speed must not depend on the text."""
        return [rng.randrange(self._model.n_vocab) for _ in range(n)]

    def generate(self, request: TextRequest, *, on_text: Callable[[str], bool]) -> TextCompletion:
        """One answer: see :class:`autotune.backends.protocol.Session`."""
        with self._computing():
            return self._text.generate(request, on_text)

    def report(self) -> EngineReport:
        """The weights as they are; the cache has no size of its own until there are tokens."""
        is_cpu = self._model.device == "cpu"
        device = "CPU" if is_cpu else f"{self._libraries.gpu_family}{self._config.main_gpu}"
        n_layers = self._model.n_layers + 1
        return EngineReport(
            buffers=(Buffer(device=device, kind="model", n_bytes=self._model.n_bytes),),
            layers_offloaded=0 if is_cpu else n_layers,
            layers_total=n_layers,
            flash_attn=self._model.is_fused,
            n_ctx=self._config.n_ctx,
        )

    def close(self) -> None:
        """Drop caches and weights."""
        self._depth_state = None
        self._text.forget()
        self._model.close()
        gc.collect()  # modules refer to each other
