"""A backend as applications hold it: configured, loaded with one model, asked for text."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from pathlib import Path

from autotune.backends.protocol import EngineError
from autotune.domain.config import Config
from autotune.domain.errors import AutotuneError, UserError
from autotune.domain.request import TextCompletion, TextRequest
from autotune.domain.run import Run
from autotune.domain.units import MIB
from autotune.domain.workload import Workload
from autotune.integration.configs import BackendConfig, GenerationConfig
from autotune.integration.loading import LoadingResult
from autotune.integration.settings import chosen_knobs
from autotune.integration.workplace import Workplace
from autotune.recommend.subject import Subject
from autotune.serving.loaded_model import Answer, LoadedModel, LoadFailedError
from autotune.store.telemetry import Ticket

LOAD_TIMEOUT_S = 600.0


def take_all(_text: str) -> bool:
    """Wants the whole answer."""
    return True


class ModelBackend:
    """One engine, one configuration, at most one loaded model, in a process of its own.

    Every load and every generation becomes a row with purpose ``user``. Safe to use from several
    threads: requests are served one after another. Use it as a context manager, or call
    :meth:`unload_model`.
    """

    def __init__(
        self,
        config: BackendConfig,
        *,
        workplace: Workplace,
        on_load: Callable[[ModelBackend], None] = lambda _backend: None,
    ) -> None:
        self.config, self._on_load = config, on_load
        self.model_path: str | None = None
        self._workplace = workplace
        self._loaded: LoadedModel | None = None
        self._ticket: Ticket | None = None
        self._release: weakref.finalize[..., ModelBackend] | None = None
        self._lock = threading.RLock()

    def __enter__(self) -> ModelBackend:
        return self

    def __exit__(self, *_: object) -> None:
        self.unload_model()

    @property
    def is_loaded(self) -> bool:
        """Whether it holds a model."""
        return self._loaded is not None

    @property
    def run(self) -> Run | None:
        """The load as it was measured, with the peaks until now; None without one."""
        return self._loaded.run if self._loaded else None

    @property
    def memory_mb(self) -> int:
        """Most resident memory that the engine has had, in MiB; 0 without a model."""
        run = self.run
        return round((run.peak_rss_bytes or 0) / MIB) if run else 0

    def load_model(self, model_path: str | Path) -> LoadingResult:
        """Load a model, in place of the one before. A failure is a result, not an exception."""
        with self._lock:
            self.unload_model()
            try:
                return self._load(Path(model_path))
            except (AutotuneError, OSError) as error:
                name = self.config.name
                return LoadingResult(success=False, backend_used=name, error_message=str(error))

    def _load(self, path: Path) -> LoadingResult:
        name = self.config.name
        subject = self._workplace.subject(path)
        config = self._knobs(subject)
        prediction = self._workplace.predict(subject.case(name, config, Workload()))
        try:
            loaded = LoadedModel.load(
                name, path, config, timeout_s=LOAD_TIMEOUT_S, environ=self._workplace.environ
            )
        except LoadFailedError as error:
            self._workplace.record_load(subject, error.run, prediction)
            raise
        self._ticket = self._workplace.record_load(subject, loaded.run, prediction)
        self._loaded, self.model_path = loaded, str(path)
        # Whoever drops the backend without a word gets the memory back all the same.
        self._release = weakref.finalize(self, loaded.close)
        self._on_load(self)
        return _success(name, config, loaded.run)

    def _knobs(self, subject: Subject) -> Config:
        name, size = self.config.name, self.config.context_size
        environ = self._workplace.environ
        return chosen_knobs(subject, name, self.config, size, environ=environ)

    def generate_text(
        self,
        prompt: str,
        config: GenerationConfig | None = None,
        *,
        on_text: Callable[[str], bool] = take_all,
    ) -> str:
        """The answer to a prompt; ``on_text`` gets its pieces as they come, False ends it.

        Raises UserError without a loaded model or for an absurd setting, EngineError where the
        prompt does not fit into the context or the engine dies.
        """
        return self.serve((config or GenerationConfig()).to_request(prompt), on_text).text

    def serve(self, request: TextRequest, on_text: Callable[[str], bool]) -> TextCompletion:
        """Answer one request: what a queue calls. Raises as :meth:`generate_text`."""
        return self.answer(request, on_text).completion

    def answer(self, request: TextRequest, on_text: Callable[[str], bool] = take_all) -> Answer:
        """One request answered and measured. Raises as :meth:`generate_text`."""
        loaded, ticket = self._loaded, self._ticket
        if loaded is None or ticket is None:
            raise UserError("no model is loaded: call load_model first")
        try:
            answer = loaded.generate(request, on_text=on_text)
        except EngineError as error:
            if not loaded.is_usable:
                self._workplace.telemetry.failed(ticket, error.reason, str(error))
                self._forget()
            raise
        if answer.generation is not None:
            self._workplace.telemetry.generated(ticket, answer.generation, run=loaded.run)
        return answer

    def unload_model(self) -> bool:
        """Give the memory back; whether there was a model."""
        with self._lock:
            loaded, ticket = self._loaded, self._ticket
            if loaded is None or ticket is None:
                return False
            loaded.close()
            self._workplace.telemetry.unloaded(ticket, loaded.run)
            self._forget()
            return True

    def _forget(self) -> None:
        if self._release is not None:
            self._release.detach()
        self._loaded, self._ticket, self.model_path = None, None, None


def _success(backend: str, config: Config, run: Run) -> LoadingResult:
    return LoadingResult(
        success=True,
        backend_used=backend,
        hardware_used=_hardware(config, run),
        load_time=run.load.total_s * 1e3 if run.load else 0.0,
        memory_usage=round((run.peak_rss_bytes or 0) / MIB),
    )


def _hardware(config: Config, run: Run) -> str:
    """Where the layers are, by the engine's own words where it said them."""
    layers = run.report.layers_offloaded
    n_gpu = config.n_gpu_layers if layers is None else layers
    if n_gpu == 0:
        return "cpu"
    total = run.report.layers_total
    return "gpu" if n_gpu == -1 or (total is not None and n_gpu >= total) else "cpu+gpu"
