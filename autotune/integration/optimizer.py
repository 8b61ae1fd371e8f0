"""The guide's ``PerformanceOptimizer``: what to use, what to expect of it, what was learned.

As in the guide, times are milliseconds and MB are mebibytes. The first question about a model takes
a second or a few (engines are asked what they are, a new machine is probed); later ones take
milliseconds.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.domain.config import Config
from autotune.domain.errors import UserError
from autotune.domain.prediction import Hardware, Target
from autotune.domain.run import Reason
from autotune.domain.units import MIB
from autotune.domain.workload import Workload
from autotune.integration.advice import OptimizationRecommendation, Wish, advise, compare_backends
from autotune.integration.cache import ModelPerformanceCache, recall, utc_now
from autotune.integration.configs import BackendConfig
from autotune.integration.current import note_advice
from autotune.integration.dropped import end_with
from autotune.integration.engines import require_backend
from autotune.integration.expectations import predicted_performance
from autotune.integration.hardware import HardwareDetector, machine_numbers
from autotune.integration.imagined import imagine
from autotune.integration.insights import find_insights
from autotune.integration.knowledge import Knowledge
from autotune.integration.opportunities import find_opportunities
from autotune.integration.settings import backend_config, chosen_knobs, sensible_config
from autotune.integration.sizing import (
    CONTEXTS,
    batch_size,
    context_size,
    gpu_layers,
    planned_vram_bytes,
)
from autotune.integration.words import amount, whole, word
from autotune.integration.workplace import Workplace
from autotune.recommend.candidates import choose_n_ctx
from autotune.recommend.subject import Subject

if TYPE_CHECKING:
    from autotune.integration.batch import BatchProcessor

_log = logging.getLogger(__name__)
_REQUEST = Workload(n_prompt=512, n_gen=128)
"""The request that predictions are about, unless another is given."""


class PerformanceOptimizer:
    """Answers from the store and the predictor; what an application records teaches both.

    ``cache_file`` is that of :class:`ModelPerformanceCache`. ``environ`` names programs and the
    store, ``now`` tells the time, aware, ``clock`` seconds. Usable from several threads; several
    optimizers may share a store. A store that cannot be written answers all the same; only what
    records or clears raises then.
    """

    def __init__(
        self,
        hardware_detector: HardwareDetector | None = None,
        cache_file: str | Path | None = None,
        *,
        batch_processor: BatchProcessor | None = None,
        environ: Mapping[str, str] = os.environ,
        now: Callable[[], datetime] = utc_now,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.hardware_detector = hardware_detector or HardwareDetector(environ=environ, clock=clock)
        self.performance_cache = ModelPerformanceCache(
            cache_file, environ=environ, now=now, machine=self.hardware_detector.machine
        )
        self.hardware_detector.lend_history(self.performance_cache.machine_usages)
        self._environ = environ
        self._batch_processor = batch_processor
        self._advised: dict[tuple[str, str], Config] = {}
        self._knowledge = Knowledge(
            self.performance_cache.store, self.performance_cache.files, self.hardware_detector
        )
        self.workplace = Workplace(
            self.performance_cache, self._knowledge, environ=environ, now=now
        )
        end_with(self, self.workplace.close)

    @property
    def batch_processor(self) -> BatchProcessor:
        """The queue of text requests; made when first asked for."""
        if self._batch_processor is None:
            from autotune.integration.batch import BatchProcessor

            self._batch_processor = BatchProcessor()
        return self._batch_processor

    def start(self) -> None:
        """Start the batch processor. Everything else works without."""
        self.batch_processor.start()
        _log.info("optimizer started on %s", self.performance_cache.cache_file)

    def stop(self) -> None:
        """Stop the batch processor and close the store. What is asked later opens it again."""
        if self._batch_processor is not None:
            self._batch_processor.stop()
        self.workplace.close()
        _log.info("optimizer stopped")

    def get_optimal_backend(
        self,
        model_path: str | Path,
        available_backends: Sequence[str] | None = None,
        hardware_preference: str = "auto",
        performance_target: str = "balanced",
        *,
        workload: Workload = _REQUEST,
        freed_bytes: int = 0,
        priorities: Mapping[str, int] | None = None,
    ) -> OptimizationRecommendation:
        """The backend and the configuration that serve a request of ``workload`` fastest.

        ``available_backends`` are names; None means every installed one. Of these one that is not
        installed, or could never load the model here, is told in ``unavailable_backends`` and in
        the reasoning, and not chosen. ``hardware_preference`` is ``auto``, ``gpu`` (prefers a GPU
        where there is one) or ``cpu`` (forbids it); ``performance_target`` is ``speed``,
        ``balanced`` or ``quality``, which ask for contexts of 2048, 4096 and 16384 tokens, as far
        as the model was trained for them. ``freed_bytes`` of memory are not free yet, and will be;
        ``priorities`` decide ties: the lower goes first.

        Raises UserError for another word or an unknown backend, and where none of the named
        backends can be used: it says of each what to install. So ``['ctransformers',
        'transformers']`` raises on a machine that has neither. Raises GGUFError for a file that is
        missing or no model, NothingFitsError where the memory is too small.
        """
        wish = Wish(
            hardware=word(hardware_preference, Hardware, "hardware_preference"),
            target=word(performance_target, Target, "performance_target"),
            workload=workload,
        )
        names = self._named(available_backends)
        subject = self._knowledge.subject(model_path)
        comparison = compare_backends(
            self._knowledge,
            subject,
            self.hardware_detector.engines.find_all(names),
            wish,
            available_bytes=self.hardware_detector.available_ram_bytes()
            + whole(freed_bytes, "freed_bytes"),
            priorities=priorities or {},
            environ=self._environ,
        )
        advice = advise(comparison, subject, wish)
        for answer in comparison.usable:
            self._advised[subject.model.model_id, answer.backend] = answer.config
        recall(
            lambda: self.workplace.record_advice(subject, advice.recommendation),
            "the recommendation",
        )
        configs = (advice.recommended_config, *(other.config for other in advice.alternatives))
        note_advice(self.workplace, str(model_path), configs)
        return advice

    def optimize_gpu_layers(
        self,
        model_path: str | Path,
        backend_name: str,
        available_vram_mb: float,
        *,
        context_size: int = 4096,
    ) -> int:
        """Layers to place on the GPU: −1 for all, 0 for none, else how many.

        From the memory plan: weights of the real layers, KV cache, scratch memory. Half a GiB of
        each GPU is left to its driver. ``available_vram_mb`` is free VRAM in MB, of all GPUs; of a
        machine without one, it is the memory of the GPU that is asked about.

        Raises UserError for an unknown backend or a negative amount, GGUFError as above.
        """
        vram_bytes = round(amount(available_vram_mb, "available_vram_mb") * MIB)
        subject, config = self._subject(model_path, backend_name, context_size)
        return gpu_layers(subject, backend_name, config, vram_bytes=vram_bytes)

    def get_dynamic_batch_size(
        self,
        model_path: str | Path,
        backend_name: str,
        available_memory_mb: float,
        concurrent_requests: int = 1,
        *,
        context_size: int = 4096,
    ) -> int:
        """Prompt tokens to compute at once, 32 to 2048: the fastest that fit into the memory.

        ``available_memory_mb`` (MB) holds the model, a context of ``context_size`` tokens for each
        of the concurrent requests, and scratch memory. Raises NothingFitsError where it does not,
        UserError and GGUFError as above.
        """
        memory_bytes = round(amount(available_memory_mb, "available_memory_mb") * MIB)
        n_parallel = whole(concurrent_requests, "concurrent_requests", least=1)
        subject, config = self._subject(model_path, backend_name, context_size)
        config = config.replace(n_ctx=config.n_ctx * n_parallel, n_parallel=n_parallel)
        return batch_size(
            subject,
            backend_name,
            self._knowledge.predictor(subject.api),
            config.replace(n_gpu_layers=0),
            memory_bytes=memory_bytes,
        )

    def get_adaptive_context_size(
        self,
        model_path: str | Path,
        backend_name: str,
        available_memory_mb: float,
        target_performance: str = "balanced",
    ) -> int:
        """Tokens of context: the most of the target's range that the memory holds.

        ``speed`` 2048 to 4096, ``balanced`` 4096 to 8192, ``quality`` 8192 to 16384; less where
        memory (MB) is short, and never more than the model was trained for. Raises NothingFitsError
        where not even 256 tokens fit, UserError and GGUFError as above.
        """
        memory_bytes = round(amount(available_memory_mb, "available_memory_mb") * MIB)
        target = word(target_performance, Target, "target_performance")
        subject, config = self._subject(model_path, backend_name, CONTEXTS[target][1])
        return context_size(
            subject,
            backend_name,
            self._knowledge.predictor(subject.api),
            config.replace(n_gpu_layers=0),
            memory_bytes=memory_bytes,
            target=target,
        )

    def predict_performance(
        self,
        model_path: str | Path,
        backend_name: str,
        hardware_config: Mapping[str, Any] | None = None,
        *,
        config: BackendConfig | None = None,
        workload: Workload = _REQUEST,
    ) -> dict[str, Any]:
        """What to expect of a backend, here or on a machine that is not here.

        ``hardware_config`` has any of ``gpu_count``, ``total_vram`` (MB), ``cpu_cores``,
        ``total_ram`` (MB); what it leaves out, and None, is this machine. ``config`` is the
        backend's default, with a thread for each core and the layers that fit on the GPU.

        Keys: ``predicted_load_time_ms``, ``predicted_memory_usage_mb`` (MB = MiB),
        ``predicted_tokens_per_second`` (generated), ``predicted_prompt_tokens_per_second``,
        ``predicted_first_token_ms``, ``predicted_vram_usage_mb`` (of the memory plan),
        ``predicted_success_rate`` (0 to 1), ``confidence``
        (probability that tokens per second come within 20 %), ``intervals`` (of each figure its
        5 % and 95 % quantile), ``evidence`` (``measured``, ``calibrated``, ``transferred`` or
        ``physics``), ``config`` and ``notes`` (what was assumed of the machine).

        Raises UserError for a key or value that cannot be, GGUFError as above.
        """
        require_backend(backend_name)
        there = imagine(self._knowledge.subject(model_path), hardware_config)
        n_ctx = choose_n_ctx(Target.BALANCED, there.subject.model, workload)
        knobs = chosen_knobs(there.subject, backend_name, config, n_ctx, environ=self._environ)
        case = there.subject.case(backend_name, knobs, workload)
        is_here = there.subject.api == self._knowledge.subject(model_path).api
        predictor = self._knowledge.predictor(there.subject.api, is_here=is_here)
        free_bytes = self.hardware_detector.available_ram_bytes() if there.is_here else None
        forecast = predictor.forecast([case], available_bytes=free_bytes)
        settings = backend_config(backend_name, knobs, there.subject.model)
        return {
            **predicted_performance(forecast.prediction(0)),
            "predicted_vram_usage_mb": planned_vram_bytes(there.subject, knobs) / MIB,
            "config": dataclasses.asdict(settings),
            "notes": list(there.notes),
        }

    def record_performance(
        self,
        backend_name: str,
        model_path: str | Path,
        load_time_ms: float | None = None,
        memory_usage_mb: float | None = None,
        tokens_per_second: float | None = None,
        success: bool = True,  # noqa: FBT001, FBT002 - the guide's order
        hardware_config: Mapping[str, Any] | None = None,
        *,
        config: BackendConfig | None = None,
        reason: str | None = None,
    ) -> int:
        """Keep what an application saw of one use of a model; returns the number of the row.

        Load time and rate teach as a spoilt measurement does: they count until something was
        measured. The memory is shown, and teaches nothing: nobody knows what was counted. 0 and
        None mean not known. ``tokens_per_second`` counts generated tokens only. ``config`` is what
        was loaded; by default what was last recommended for this model and backend, else the
        backend's default. ``reason`` of a failure is one of ``oom``, ``load_error``,
        ``unsupported``, ``crash``, ``timeout`` …

        Raises UserError for an unknown backend or a value that cannot be, GGUFError as above,
        UserError or DataError for a store that cannot be written.
        """
        require_backend(backend_name)
        why = None if reason is None else word(reason, Reason, "reason")
        subject = self._knowledge.subject(model_path)
        knobs = self._advised.get((subject.model.model_id, backend_name))
        if knobs is None or config is not None:
            n_ctx = choose_n_ctx(Target.BALANCED, subject.model, _REQUEST)
            knobs = chosen_knobs(subject, backend_name, config, n_ctx, environ=self._environ)
        return self.performance_cache.store_backend_performance(
            backend_name,
            model_path,
            hardware_config or machine_numbers(self.hardware_detector.get_hardware_info()),
            load_time_ms,
            memory_usage_mb,
            tokens_per_second,
            success_rate=1.0 if success else 0.0,
            config=knobs,
            reason=why,
            api=subject.api,
        )

    def get_performance_stats(
        self, model_path: str | Path | None = None, backend_name: str | None = None
    ) -> dict[str, Any]:
        """Keys ``total_models``, ``total_backend_profiles``, ``total_runs``, ``cache_file`` (the
        store that is really used), and with a model ``model_profile`` and ``model_performances``:
        of each backend, or of the named one, its profile by name (see
        :class:`BackendPerformanceProfile`). All JSON-ready.

        Raises UserError for an unknown backend, GGUFError as above.
        """
        cache = self.performance_cache
        stats = cache.get_stats()
        name = None if backend_name is None else require_backend(backend_name)
        if model_path is None:
            return stats
        profile = cache.get_model_profile(model_path)
        found = cache.get_backend_performance(model_path)
        chosen = {n: p.to_dict() for n, p in found.items() if name in (None, n)}
        return {
            **stats,
            "model_profile": None if profile is None else profile.to_dict(),
            "model_performances": chosen,
        }

    def get_optimization_insights(self, model_path: str | Path | None = None) -> dict[str, Any]:
        """What could be done, of one model or of the latest 500 uses here.

        Keys ``recommendations``, ``performance_trends``, ``bottlenecks`` and
        ``optimization_opportunities``: lists of lines, each with its number and what to do; empty
        where nothing is known. Raises GGUFError as above.
        """
        usages = self.performance_cache.usages(model_path)
        opportunities = find_opportunities(
            usages,
            self._knowledge,
            available_bytes=self.hardware_detector.available_ram_bytes(),
            environ=self._environ,
        )
        ram_bytes = self.hardware_detector.machine().usable_ram_bytes
        return {
            **find_insights(usages, ram_bytes=ram_bytes),
            "optimization_opportunities": opportunities,
        }

    def clear_performance_cache(self, model_path: str | Path | None = None) -> Path | None:
        """Start to learn anew, of one model or of all; returns where the copy of the store is.

        Nothing is deleted: see :meth:`ModelPerformanceCache.clear`.
        """
        copy = self.performance_cache.clear(model_path)
        self._advised.clear()
        self._knowledge.forget()
        return copy

    def _named(self, available_backends: Sequence[str] | None) -> list[str]:
        if isinstance(available_backends, str):
            raise UserError(f"available_backends={available_backends!r} is not valid: give a list")
        if available_backends is None:
            available_backends = list(self.hardware_detector.engines.installed())
        if not available_backends:
            raise UserError("no backend to choose from: pip install llama-cpp-python")
        return [require_backend(name) for name in dict.fromkeys(available_backends)]

    def _subject(
        self, model_path: str | Path, backend_name: str, n_ctx: int
    ) -> tuple[Subject, Config]:
        """A model here, and the backend's configuration for a context of at most that size."""
        require_backend(backend_name)
        subject = self._knowledge.subject(model_path)
        size = min(whole(n_ctx, "context_size", least=1), subject.model.n_ctx_train or n_ctx)
        config = sensible_config(backend_name, subject.machine, n_ctx=size, environ=self._environ)
        return subject, config
