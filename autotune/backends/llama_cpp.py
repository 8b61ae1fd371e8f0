"""llama.cpp through llama-cpp-python's low-level bindings.

The low-level API is used throughout: the high-level ``Llama`` samples in Python, which costs
about 30 % of decode on small models, and cannot say ``flash_attn=auto``. A rate measured here is
the rate llama-bench prints for the same configuration.
"""

from __future__ import annotations

import ctypes
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autotune.backends.engine_log import EngineLog
from autotune.backends.ggml_devices import GGMLDevices
from autotune.backends.llama_dry_run import DryRun
from autotune.backends.llama_log import read_report
from autotune.backends.llama_params import context_params, model_params
from autotune.backends.llama_quality import QualityBench
from autotune.backends.llama_text import Handles, LlamaText
from autotune.backends.llama_vocab import Vocabulary
from autotune.backends.protocol import EngineError, Sample
from autotune.domain.config import Config
from autotune.domain.machine import Build, MachineFacts
from autotune.domain.plan import MemoryPlan
from autotune.domain.quality import QualityCost
from autotune.domain.request import TextCompletion, TextRequest
from autotune.domain.run import EngineReport, LoadTime, Reason
from autotune.domain.workload import Workload
from autotune.facts.gpu import EngineDevice

_EXCERPT_LINES = 20


class LlamaCppBackend:
    """llama-cpp-python. Importing this file does not import the library."""

    name = "llama-cpp-python"

    def __init__(self) -> None:
        self._llama: Any = None
        self._log: EngineLog | None = None
        self._dry_run: DryRun | None = None
        self._quality: QualityBench | None = None

    def _library(self) -> tuple[Any, EngineLog]:
        """The library, imported and initialised once."""
        if self._llama is None or self._log is None:
            import llama_cpp

            self._llama = llama_cpp
            self._log = EngineLog(llama_cpp)
            llama_cpp.llama_backend_init()
        return self._llama, self._log

    def build(self) -> Build:
        """Version, ggml revision, devices and compiled-in features."""
        llama, _ = self._library()
        ggml = GGMLDevices(llama)
        return Build(
            backend=self.name,
            version=llama.__version__,
            commit=ggml.commit(),
            devices=ggml.names(),
            system_info=llama.llama_print_system_info().decode(),
        )

    def gpus(self) -> tuple[EngineDevice, ...]:
        """The GPUs that this build of llama.cpp can use."""
        return GGMLDevices(self._library()[0]).gpus()

    def default_config(self, *, n_ctx: int, machine: MachineFacts) -> Config:
        """``llama_cpp.Llama(model_path, n_ctx=…)`` with nothing else set.

        Source: the defaults in ``llama_cpp/llama.py`` 0.3.36 (held against the library in the
        tests): half of the logical processors for decode, all for prefill, no flash attention.
        """
        n_batch = min(512, n_ctx)
        n_logical = machine.n_logical or machine.n_processors
        return Config(
            n_ctx=n_ctx,
            n_batch=n_batch,
            n_ubatch=n_batch,
            n_threads=max(n_logical // 2, 1),
            n_threads_batch=n_logical,
            flash_attn="off",
        )

    def load(self, model_path: Path, config: Config) -> LlamaCppSession:
        """Load a model and create its context."""
        llama, log = self._library()
        log.clear()
        return LlamaCppSession(llama, log, model_path, config)

    def plan(self, model_path: Path, config: Config) -> MemoryPlan:
        """What llama.cpp says that it would allocate: see :class:`protocol.Plans`.

        The metadata of the latest model stay open, so that the next plan of it takes milliseconds.
        """
        if self._dry_run is None or not self._dry_run.serves(model_path, config):
            self._close_dry_run()
            self._dry_run = DryRun(*self._library(), model_path, config)
        return self._dry_run.plan(config)

    def _close_dry_run(self) -> None:
        if self._dry_run is not None:
            self._dry_run.close()
            self._dry_run = None

    def quality(
        self, model_path: Path, config: Config, *, reference: Config, text: str
    ) -> QualityCost:
        """The cost of a configuration: see :class:`protocol.Judges`.

        The latest model stays loaded, so that another configuration of it can be judged at once.
        """
        if self._quality is None or not self._quality.serves(model_path, config):
            self._close_quality()
            self._quality = QualityBench(*self._library(), model_path, config)
        return self._quality.cost(config, reference, text)

    def _close_quality(self) -> None:
        if self._quality is not None:
            self._quality.close()
            self._quality = None

    def log_excerpt(self) -> str:
        """llama.cpp's latest warnings and errors."""
        return "\n".join(self._log.problems()[-_EXCERPT_LINES:]) if self._log else ""


class LlamaCppSession:
    """A model and a context of llama.cpp."""

    def __init__(self, llama: Any, log: EngineLog, model_path: Path, config: Config) -> None:
        self._llama, self._log = llama, log
        # Handles of the library, None until they exist; freed in close().
        self._model: Any = None
        self._context: Any = None
        self._memory: Any = None
        # Sequences share the context, and a request is one of them.
        self._n_ctx, self._n_batch = config.n_ctx // config.n_parallel, config.n_batch
        self._depth_state: tuple[int, Any] | None = None
        try:
            self.load = self._load(model_path, config)
        except BaseException:
            self.close()
            raise

    def _load(self, model_path: Path, config: Config) -> LoadTime:
        started = time.perf_counter()
        params = model_params(self._llama, config)
        self._model = self._llama.llama_model_load_from_file(os.fsencode(model_path), params)
        if not self._model:
            raise self._log.error(Reason.LOAD_ERROR, f"llama.cpp cannot load {model_path.name}")
        loaded = time.perf_counter()
        params = context_params(self._llama, config)
        self._context = self._llama.llama_init_from_model(self._model, params)
        if not self._context:
            raise self._log.error(Reason.CONSTRAINT, "llama.cpp cannot create the context")
        created = time.perf_counter()
        self._vocabulary = Vocabulary(self._llama, self._model)
        self._memory = self._llama.llama_get_memory(self._context)
        self._ends = self._vocabulary.ends
        self._text = LlamaText(self._handles(config))
        self._decode([self._vocabulary.first])
        return LoadTime(
            model_s=loaded - started,
            context_s=created - loaded,
            first_eval_s=time.perf_counter() - created,
        )

    def _handles(self, config: Config) -> Handles:
        return Handles(
            llama=self._llama,
            model=self._model,
            context=self._context,
            memory=self._memory,
            vocabulary=self._vocabulary,
            decode=self._decode,
            decode_each=self._decode_each,
            n_ctx=self._n_ctx,
            n_batch=config.n_batch,
            is_on_gpu=self._is_on_gpu(config),
        )

    def _is_on_gpu(self, config: Config) -> bool:
        """Whether every layer is, the output layer included."""
        n_layers = int(self._llama.llama_model_n_layer(self._model)) + 1
        is_all = config.n_gpu_layers < 0 or config.n_gpu_layers >= n_layers
        return is_all and bool(self._llama.llama_supports_gpu_offload())

    def generate(self, request: TextRequest, *, on_text: Callable[[str], bool]) -> TextCompletion:
        """One answer: see :class:`autotune.backends.protocol.Session`."""
        return self._text.generate(request, on_text)

    def sample(self, workload: Workload, *, seed: int) -> Sample:
        """One request: see :class:`autotune.backends.protocol.Session`."""
        if workload.n_tokens > self._n_ctx:
            raise EngineError(
                Reason.CONSTRAINT, f"{workload.label} does not fit into n_ctx={self._n_ctx}"
            )
        rng = random.Random(seed)  # noqa: S311 - token numbers, not secrets
        prompt = self._random_tokens(workload.n_prompt, rng)
        self._fill(workload.n_depth, rng)
        cpu = time.process_time_ns()
        start = time.perf_counter_ns()
        self._prefill(prompt)
        filled = time.perf_counter_ns()
        filled_cpu = time.process_time_ns()
        token = self._next_token() if prompt else self._vocabulary.first
        first = time.perf_counter_ns()
        token_ns = self._generate(token, workload.n_gen)
        return Sample(
            prefill_ns=filled - start if prompt else None,
            ttft_ns=first - start if prompt else None,
            token_ns=token_ns,
            prefill_cpu_ns=filled_cpu - cpu if prompt else None,
            decode_cpu_ns=time.process_time_ns() - filled_cpu,
        )

    def _generate(self, token: int, n_gen: int) -> tuple[int, ...]:
        """Decode and sample ``n_gen`` times; wall time of each step in nanoseconds."""
        times = []
        # One buffer for all steps: building a ctypes array per token would be inside the clock.
        buffer = (self._llama.llama_token * 1)(token)
        batch = self._llama.llama_batch_get_one(buffer, 1)
        before = time.perf_counter_ns()
        for _ in range(n_gen):
            self._run(batch)
            buffer[0] = self._next_token()
            now = time.perf_counter_ns()
            times.append(now - before)
            before = now
        return tuple(times)

    def _fill(self, n_depth: int, rng: random.Random) -> None:
        """Start from a cache of ``n_depth`` tokens, computed once and then restored."""
        self._text.forget()
        self._llama.llama_memory_clear(self._memory, True)  # noqa: FBT003
        if n_depth == 0:
            return
        if self._depth_state is not None and self._depth_state[0] == n_depth:
            state = self._depth_state[1]
            self._llama.llama_state_seq_set_data(self._context, state, len(state), 0)
            return
        self._prefill(self._random_tokens(n_depth, rng))
        size = self._llama.llama_state_seq_get_size(self._context, 0)
        state = (ctypes.c_uint8 * size)()
        self._llama.llama_state_seq_get_data(self._context, state, size, 0)
        self._depth_state = (n_depth, state)

    def _prefill(self, tokens: Sequence[int]) -> None:
        """Compute tokens in batches of n_batch and wait for the last."""
        for start in range(0, len(tokens), self._n_batch):
            self._decode(tokens[start : start + self._n_batch])
        self._llama.llama_synchronize(self._context)

    def _decode(self, tokens: Sequence[int]) -> None:
        buffer = (self._llama.llama_token * len(tokens))(*tokens)
        self._run(self._llama.llama_batch_get_one(buffer, len(tokens)))

    def _decode_each(self, tokens: Sequence[int]) -> None:
        """Compute tokens so that every one has logits."""
        n = len(tokens)
        buffer, wanted = (self._llama.llama_token * n)(*tokens), (ctypes.c_int8 * n)(*[1] * n)
        batch = self._llama.llama_batch_get_one(buffer, n)
        batch.logits = wanted
        self._run(batch)

    def _run(self, batch: Any) -> None:
        code = self._llama.llama_decode(self._context, batch)
        if code != 0:
            raise self._log.error(Reason.CRASH, f"llama_decode failed with code {code}")

    def _next_token(self) -> int:
        """The likeliest token that does not end the text; waits for the computation.

        NumPy finds it in a tenth of the time of llama.cpp's own sampler, which first copies the
        vocabulary into candidates (0.34 ms for 262,144 words, 2 % of a small model's step):
        llama-bench, which does not sample, is matched within that.
        """
        pointer = self._llama.llama_get_logits_ith(self._context, -1)
        logits = np.ctypeslib.as_array(pointer, (self._vocabulary.n_words,))
        logits[self._ends] = -np.inf
        return int(logits.argmax())

    def _random_tokens(self, n: int, rng: random.Random) -> list[int]:
        """Random words, as llama-bench feeds; speed must not depend on the text."""
        return [rng.randrange(self._vocabulary.n_words) for _ in range(n)]

    def report(self) -> EngineReport:
        """What the log says of buffers, layers and flash attention."""
        return read_report(self._log.lines)

    def close(self) -> None:
        """Free context and model, in that order."""
        if self._context:
            self._llama.llama_free(self._context)
        if self._model:
            self._llama.llama_model_free(self._model)
        self._model = self._context = None
