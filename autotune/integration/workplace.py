"""What the loaded models of one application share: the store's knowledge, and the telemetry."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from autotune.domain.prediction import Prediction, Recommendation
from autotune.domain.run import Run
from autotune.features.case import Case
from autotune.integration.cache import ModelPerformanceCache, utc_now
from autotune.integration.hardware import HardwareDetector
from autotune.integration.knowledge import Knowledge
from autotune.recommend.subject import Subject
from autotune.store.telemetry import Telemetry, Ticket


class Workplace:
    """The store of one application, what is known from it, and what is written into it."""

    def __init__(
        self,
        cache: ModelPerformanceCache,
        knowledge: Knowledge,
        *,
        environ: Mapping[str, str],
        now: Callable[[], datetime],
    ) -> None:
        self.cache, self.environ = cache, environ
        self._knowledge, self._now = knowledge, now
        self._telemetry: Telemetry | None = None
        self._n_dropped = 0
        self._advice_ids: dict[str, int] = {}
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls,
        cache_file: str | Path | None = None,
        *,
        environ: Mapping[str, str] = os.environ,
        now: Callable[[], datetime] = utc_now,
    ) -> Workplace:
        """A workplace of its own; ``cache_file`` as in :class:`ModelPerformanceCache`."""
        detector = HardwareDetector(environ=environ)
        cache = ModelPerformanceCache(
            cache_file, environ=environ, now=now, machine=detector.machine
        )
        knowledge = Knowledge(cache.store, cache.files, detector)
        return cls(cache, knowledge, environ=environ, now=now)

    @property
    def telemetry(self) -> Telemetry:
        """The writer of ordinary use; its thread starts when it is first needed."""
        with self._lock:
            if self._telemetry is None:
                self._telemetry = Telemetry(self.cache.store, now=self._now)
            return self._telemetry

    @property
    def telemetry_dropped(self) -> int:
        """Loads, ends and generations that were never written, since this workplace was made."""
        with self._lock:
            return self._n_dropped + (self._telemetry.dropped if self._telemetry else 0)

    def subject(self, model_path: str | Path) -> Subject:
        """A model here. Raises GGUFError for a file that is missing or no model."""
        return self._knowledge.subject(model_path)

    def predict(self, case: Case) -> Prediction:
        """What is expected of a load before it is made."""
        return self._knowledge.predictor(case.api).forecast([case]).prediction(0)

    def record_advice(self, subject: Subject, advice: Recommendation) -> None:
        """Write down what was advised; loads of that model had it at hand from now on.

        Raises UserError or DataError for a store that cannot be written.
        """
        model_id = subject.model.model_id
        self._advice_ids.pop(model_id, None)
        self._advice_ids[model_id] = self.cache.store.record_recommendation(
            advice, machine_id=subject.machine_id, model_id=model_id
        )

    def record_load(self, subject: Subject, run: Run, prediction: Prediction) -> Ticket:
        """Have a load written down, successful or not."""
        return self.telemetry.loaded(
            run,
            machine_id=subject.machine_id,
            model_id=subject.model.model_id,
            prediction=prediction,
            recommendation_id=self._advice_ids.get(subject.model.model_id),
        )

    def close(self) -> None:
        """Write what is left. What is asked later starts anew."""
        with self._lock:
            telemetry, self._telemetry = self._telemetry, None
        if telemetry is not None:
            telemetry.close()
            with self._lock:
                self._n_dropped += telemetry.dropped
        self.cache.close()
