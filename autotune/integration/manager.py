"""The guide's ``PerformanceIntegratedBackendManager``: loads models well, answers, remembers."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from autotune.domain.errors import AutotuneError, UserError, WorkFailedError
from autotune.domain.prediction import Hardware, Target
from autotune.domain.request import TextCompletion, TextRequest
from autotune.domain.run import Reason
from autotune.domain.units import human_seconds
from autotune.integration.advice import OptimizationRecommendation
from autotune.integration.benchmark import Benchmark, benchmark, describe, weaknesses
from autotune.integration.cache import utc_now
from autotune.integration.configs import BackendConfig, priorities_of
from autotune.integration.current import note_load
from autotune.integration.dropped import weakly
from autotune.integration.engine import ModelBackend, take_all
from autotune.integration.hardware import HardwareDetector
from autotune.integration.loading import LoadingResult
from autotune.integration.optimizer import PerformanceOptimizer
from autotune.integration.report import write_report
from autotune.integration.session import SessionStats
from autotune.integration.words import word
from autotune.serving.endings import RequestError
from autotune.serving.loaded_model import Answer

_log = logging.getLogger(__name__)
_MAX_TOKENS = 256
"""Length of an answer that nobody said anything about."""


class PerformanceIntegratedBackendManager:
    """Holds one model at a time, in the backend and configuration that the predictor recommends.

    Every load and every generation becomes a row of the store (``cache_file``, see
    :class:`ModelPerformanceCache`) and teaches the next recommendation. Close it, or use ``with``;
    what is loaded after that opens it again, and one that nobody holds gives all back. Usable from
    several threads: one loads at a time, and one request is answered at a time.
    """

    def __init__(
        self,
        hardware_detector: HardwareDetector | None = None,
        *,
        performance_optimizer: PerformanceOptimizer | None = None,
        cache_file: str | Path | None = None,
        environ: Mapping[str, str] = os.environ,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self.performance_optimizer = performance_optimizer or PerformanceOptimizer(
            hardware_detector, cache_file, environ=environ, now=now
        )
        self.hardware_detector = self.performance_optimizer.hardware_detector
        self.configs: dict[str, BackendConfig] = {}
        """Configurations to use instead of the recommended ones, by the backend's name; one that
        is not ``enabled`` keeps its backend from being chosen, unless that is forced. Between
        backends that tie their ``priority`` decides."""
        self.current_backend: ModelBackend | None = None
        self._session = SessionStats()
        self._advised: set[tuple[str, str, str]] = set()
        self._lock = threading.RLock()
        """One load at a time; whoever generates or unloads does not need it."""
        self.performance_optimizer.start()
        self.performance_optimizer.batch_processor.attach(weakly(self._serve))

    @property
    def current_model_path(self) -> str | None:
        """The file of the loaded model; None without one."""
        backend = self.current_backend
        return backend.model_path if backend else None

    def get_available_backends(self) -> list[str]:
        """Names of the installed backends."""
        return list(self.hardware_detector.engines.installed())

    def load_model_optimized(
        self,
        model_path: str | Path,
        hardware_preference: str = "auto",
        performance_target: str = "balanced",
        force_backend: str | None = None,
    ) -> LoadingResult:
        """Load a model with the best backend that can; where one fails, with the next.

        ``hardware_preference`` is ``auto``, ``gpu`` or ``cpu``, ``performance_target`` ``speed``,
        ``balanced`` or ``quality``; ``force_backend`` leaves only that one. A configuration in
        :attr:`configs` is used as it is. The model before is unloaded first, so its memory counts
        as free; where none can be recommended for the new one it stays. What fails is told in the
        result (``success``, ``error_message``, ``tried``), not raised, an unknown backend too;
        UserError is raised for another preference or target.
        """
        word(hardware_preference, Hardware, "hardware_preference")
        word(performance_target, Target, "performance_target")
        wanted = (hardware_preference, performance_target)
        with self._lock:
            freed_bytes = held.held_bytes if (held := self.current_backend) else 0
            try:
                advice = self.performance_optimizer.get_optimal_backend(
                    model_path,
                    self._names(force_backend),
                    *wanted,
                    freed_bytes=freed_bytes,
                    priorities=priorities_of(self.configs),
                )
            except (AutotuneError, OSError) as error:
                self._session.loaded(ok=False, switched=False)
                return LoadingResult.failure(force_backend or "none", error)
            self._advised.add((str(model_path), *wanted))
            return self._load_first(model_path, advice)

    def _names(self, force_backend: str | None) -> list[str] | None:
        """Backends to choose from; None for every installed one."""
        if force_backend is not None:
            return [force_backend]
        disabled = {name for name in self.configs if not self._chosen(name).enabled}
        if not disabled:
            return None
        names = [name for name in self.get_available_backends() if name not in disabled]
        if not names:
            raise UserError("every installed backend is disabled in configs: enable one of them")
        return names

    def _chosen(self, name: str) -> BackendConfig:
        """What an application has set for a backend. Raises UserError where it is no such thing."""
        config = self.configs[name]
        if not isinstance(config, BackendConfig) or config.name != name:
            raise UserError(
                f"configs[{name!r}] is not valid: give a BackendConfig with name={name!r}"
            )
        return config

    def _load_first(
        self, model_path: str | Path, advice: OptimizationRecommendation
    ) -> LoadingResult:
        """The first of the recommended backends that loads the model."""
        before = self.current_backend.config.name if self.current_backend else None
        tried: dict[str, str] = {}
        with self._queue_waiting():
            self.unload_model()
            for config in (advice.recommended_config, *(a.config for a in advice.alternatives)):
                result = self._load(model_path, config)
                switched = before is not None and before != config.name
                self._session.loaded(ok=result.success, switched=result.success and switched)
                if result.success:
                    break
                tried[config.name] = result.error_message or ""
                _log.warning("%s could not load the model: %s", config.name, result.error_message)
        return result.replace(reasoning=tuple(advice.reasoning), tried=tried)

    def _load(self, model_path: str | Path, recommended: BackendConfig) -> LoadingResult:
        """Load with one backend, in the application's configuration if it has one."""
        name = recommended.name
        try:
            config = self._chosen(name) if name in self.configs else recommended
        except UserError as error:
            return LoadingResult.failure(name, error)
        workplace = self.performance_optimizer.workplace
        backend = ModelBackend(config, workplace=workplace, on_load=note_load)
        result = backend.load_model(model_path)
        if result.success:
            self.current_backend = backend
        return result

    @contextmanager
    def _queue_waiting(self) -> Iterator[None]:
        """What waits in the queue goes on waiting for the next model, also after a death."""
        processor = self.performance_optimizer.batch_processor
        processor.queue.detach()
        try:
            yield
        finally:
            processor.start()
            processor.attach(weakly(self._serve))

    def unload_model(self) -> bool:
        """Give the model's memory back; whether there was one.

        A request that it is answering fails, and so does what waits in the queue.
        """
        backend, self.current_backend = self.current_backend, None
        return backend is not None and backend.unload_model()

    def generate_text_with_optimization(
        self,
        prompt: str,
        max_tokens: int | None = None,
        temperature: float | None = None,
        use_batch_processing: bool = False,  # noqa: FBT001, FBT002 - the guide's order
        *,
        timeout: float | None = None,
        on_text: Callable[[str], bool] | None = None,
        **sampling: Any,
    ) -> str:
        """The answer to a prompt.

        ``use_batch_processing`` puts it into the queue behind what is more urgent; only there it
        has a time limit, ``timeout`` seconds. ``on_text`` gets its pieces as they come, from the
        thread that answers, and ends it by returning False. ``sampling`` as in
        :class:`GenerationConfig`. What is not set is what the ``custom_args`` of the loaded
        backend say, else 256 tokens and the defaults of :class:`GenerationConfig`.

        Raises UserError without a loaded model, for a setting that cannot be, or in ``on_text``:
        its answer has to end before the next is asked for; WorkFailedError where the engine dies,
        the model is unloaded meanwhile, the prompt does not fit, or the time is over.
        """
        (request,) = self._requests([prompt], max_tokens, temperature, sampling)
        listen = on_text or take_all
        if use_batch_processing:
            return self._queued(request, timeout, listen)
        return self._answer(request, listen).completion.text

    async def generate_multiple_optimized(
        self,
        prompts: Sequence[str],
        max_tokens: int | None = None,
        temperature: float | None = None,
        *,
        priority: int = 0,
        timeout: float | None = None,
        **sampling: Any,
    ) -> list[str]:
        """The answers to several prompts, in their order, through the queue.

        Each is to be started within ``timeout`` seconds. Raises as above, as soon as one fails;
        the others are then taken back.
        """
        if isinstance(prompts, str):
            raise UserError(f"prompts={prompts!r} is not valid: give a list of texts")
        queue = self.performance_optimizer.batch_processor.queue
        with ExitStack() as taken_back:  # harmless for those that are done
            futures = []
            for request in self._requests(prompts, max_tokens, temperature, sampling):
                future = queue.submit(request, priority=priority, timeout_s=timeout)
                futures.append(asyncio.wrap_future(future))
                taken_back.callback(futures[-1].cancel)
            completions = await asyncio.gather(*futures)
        return [completion.text for completion in completions]

    def get_comprehensive_performance_stats(self) -> dict[str, Any]:
        """What this manager did, what it holds, what the store knows; JSON-ready.

        ``session_stats`` (see :class:`SessionStats`), ``current_model`` (None without one),
        ``cache_statistics``, ``batch_statistics``, ``key_performance_indicators`` (each as
        :mod:`autotune.store.kpis` defines it, None where nothing is known), ``hardware``.
        """
        optimizer = self.performance_optimizer
        kpis = optimizer.performance_cache.store.kpis()
        return {
            "session_stats": self._session.to_dict(),
            "current_model": self._current_model(),
            "cache_statistics": self._cache_statistics(),
            "batch_statistics": optimizer.batch_processor.get_queue_stats(),
            "key_performance_indicators": dataclasses.asdict(kpis),
            "hardware": self.hardware_detector.get_hardware_info().to_dict(),
        }

    def get_performance_insights(self) -> dict[str, Any]:
        """``cache_statistics``, ``session_stats``, and the optimizer's insights into the model."""
        return {
            "cache_statistics": self._cache_statistics(),
            "session_stats": self._session.to_dict(),
            "current_model": self._current_model(),
            **self._insights(),
        }

    def get_optimization_recommendations(self) -> dict[str, Any]:
        """``actionable_recommendations``: lines to act on, for the loaded model or all of them;
        with ``bottlenecks``, ``optimization_opportunities`` and ``performance_trends``."""
        insights = self._insights()
        lines = [*insights["optimization_opportunities"], *insights["recommendations"]]
        return {"actionable_recommendations": list(dict.fromkeys(lines)), **insights}

    def run_comprehensive_benchmark(self, num_iterations: int = 5) -> dict[str, Any]:
        """Answer prompts of several lengths, so many times each; nothing of it is estimated.

        ``average_metrics``: ``overall_tokens_per_sec`` (generated, median),
        ``overall_response_time`` and ``first_token_latency`` (seconds, medians),
        ``success_rate`` (0 to 1). ``prompts``: the same for each. ``analysis``: ``bottlenecks``
        and ``optimization_suggestions``. Raises UserError without a model or below 1 iteration,
        WorkFailedError where the engine dies.
        """
        self._require_model()
        result = benchmark(self._answer, num_iterations=num_iterations)
        return {**describe(result), "analysis": self._analysis(result)}

    def export_performance_report(self, output_path: str | Path) -> Path:
        """Write everything above as one JSON file, whole or not at all; returns its path."""
        report = {
            **self.get_comprehensive_performance_stats(),
            "optimization": self.get_optimization_recommendations(),
        }
        return write_report(Path(output_path), report)

    def close(self) -> None:
        """Stop the queue, unload the model, write what is left. Harmless when repeated.

        What waits in the queue fails, and what is being answered.
        """
        optimizer = self.performance_optimizer
        with self._lock, ExitStack() as last_first:
            last_first.callback(optimizer.stop)
            last_first.callback(self.unload_model)
            last_first.callback(optimizer.batch_processor.detach)
            last_first.callback(optimizer.batch_processor.stop)

    cleanup = close

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _requests(
        self,
        prompts: Sequence[str],
        max_tokens: int | None,
        temperature: float | None,
        sampling: Mapping[str, Any],
    ) -> list[TextRequest]:
        """Prompts with the settings of their generation.

        Raises UserError without a model, and in a listener of it.
        """
        backend = self._require_model()
        backend.require_no_listener()
        given = {"max_tokens": max_tokens, "temperature": temperature, **sampling}
        if max_tokens is None and "max_tokens" not in backend.config.custom_args:
            given["max_tokens"] = _MAX_TOKENS
        config = backend.config.generation_config(
            **{name: value for name, value in given.items() if value is not None}
        )
        return [config.to_request(prompt) for prompt in prompts]

    def _queued(
        self, request: TextRequest, timeout_s: float | None, on_text: Callable[[str], bool]
    ) -> str:
        """The answer by way of the queue; taken back if nobody waits for it any more."""
        queue = self.performance_optimizer.batch_processor.queue
        future = queue.submit(request, timeout_s=timeout_s, on_text=on_text)
        try:
            return future.result(timeout_s).text
        except TimeoutError:
            message = f"no answer within {human_seconds(timeout_s or 0.0)}: give it more time"
            raise RequestError(Reason.TIMEOUT, f"{message}, or ask for less") from None
        finally:
            future.cancel()

    def _serve(self, request: TextRequest, on_text: Callable[[str], bool]) -> TextCompletion:
        """What the queue calls."""
        return self._answer(request, on_text).completion

    def _answer(self, request: TextRequest, on_text: Callable[[str], bool] = take_all) -> Answer:
        try:
            answer = self._require_model().answer(request, on_text)
        except WorkFailedError:
            self._session.failed()
            raise
        self._session.generated(answer.generation, answer.completion.n_tokens)
        return answer

    def _require_model(self) -> ModelBackend:
        backend = self.current_backend
        if backend is None or not backend.is_loaded:
            raise UserError("no model is loaded: call load_model_optimized first")
        return backend

    def _current_model(self) -> dict[str, Any] | None:
        return self.current_backend.describe() if self.current_backend else None

    def _cache_statistics(self) -> dict[str, Any]:
        """``optimization_cache_size``: questions answered so far; the rest is the store's."""
        stats = self.performance_optimizer.get_performance_stats()
        return {
            "optimization_cache_size": len(self._advised),
            "total_models_cached": stats["total_models"],
            "total_backend_profiles": stats["total_backend_profiles"],
            "cache_file": stats["cache_file"],
            "telemetry_dropped": self.performance_optimizer.workplace.telemetry_dropped,
        }

    def _insights(self) -> dict[str, list[str]]:
        return self.performance_optimizer.get_optimization_insights(self.current_model_path)

    def _analysis(self, result: Benchmark) -> dict[str, list[str]]:
        insights = self._insights()
        return {
            "bottlenecks": [*weaknesses(result), *insights["bottlenecks"]],
            "optimization_suggestions": list(insights["optimization_opportunities"]),
        }
