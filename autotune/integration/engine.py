"""A backend as applications hold it: configured, loaded with one model, asked for text."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotune.backends.protocol import EngineError
from autotune.domain.config import Config
from autotune.domain.errors import AutotuneError, UserError
from autotune.domain.request import Finish, TextCompletion, TextRequest
from autotune.domain.run import Reason, Run
from autotune.domain.units import MIB
from autotune.domain.workload import Workload
from autotune.integration.configs import BackendConfig, GenerationConfig
from autotune.integration.loading import LoadingResult
from autotune.integration.settings import chosen_knobs
from autotune.integration.workplace import Workplace
from autotune.recommend.subject import Subject
from autotune.serving.endings import RequestError, asked_within
from autotune.serving.loaded_model import GRACE_S, Answer, LoadedModel, LoadFailedError
from autotune.store.telemetry import Ticket

LOAD_TIMEOUT_S = 600.0


def take_all(_text: str) -> bool:
    """Wants the whole answer."""
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """A loaded model, as it was named, and the report of its load."""

    path: str
    loaded: LoadedModel
    ticket: Ticket
    release: weakref.finalize[..., ModelBackend]
    """Gives the memory back where nobody else did."""


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
        self._workplace = workplace
        self._held: _Held | None = None
        self._loading = threading.RLock()
        """One load at a time."""
        self._giving_back = threading.Lock()
        """One thread gets to unload the model."""
        self._turn = threading.RLock()
        """One request at a time, until it is reported."""

    def __enter__(self) -> ModelBackend:
        return self

    def __exit__(self, *_: object) -> None:
        self.unload_model()

    @property
    def is_loaded(self) -> bool:
        """Whether it holds a model."""
        return self._held is not None

    @property
    def model_path(self) -> str | None:
        """The file of the model, as it was named; None without one."""
        held = self._held
        return held.path if held else None

    @property
    def run(self) -> Run | None:
        """The load as it was measured, with the peaks until now; None without one."""
        held = self._held
        return held.loaded.run if held else None

    @property
    def memory_mb(self) -> int:
        """Most resident memory that the engine has had, in MiB; 0 without a model."""
        run = self.run
        return round((run.peak_rss_bytes or 0) / MIB) if run else 0

    @property
    def held_bytes(self) -> int:
        """Memory that unloading gives back; mapped weights count as free while they are held."""
        run = self.run
        return (run.peak_anon_bytes or 0) if run else 0

    def describe(self) -> dict[str, Any] | None:
        """``path``, ``backend``, ``config``, ``memory_usage`` (MiB); None without a model."""
        path, config = self.model_path, self.config
        if path is None:
            return None
        return {
            "path": path,
            "backend": config.name,
            "config": config.to_dict(),
            "memory_usage": self.memory_mb,
        }

    def load_model(self, model_path: str | Path) -> LoadingResult:
        """Load a model, in place of the one before, which is unloaded first: memory is short.

        A failure is a result, not an exception.
        """
        with self._loading:
            self.unload_model()
            try:
                return self._load(model_path)
            except (AutotuneError, OSError) as error:
                return LoadingResult.failure(self.config.name, error)

    def _load(self, model_path: str | Path) -> LoadingResult:
        name = self.config.name
        subject = self._workplace.subject(model_path)
        config = self._knobs(subject)
        prediction = self._workplace.predict(subject.case(name, config, Workload()))
        try:
            loaded = LoadedModel.load(
                name,
                subject.model_path,
                config,
                timeout_s=LOAD_TIMEOUT_S,
                environ=self._workplace.environ,
            )
        except LoadFailedError as error:
            self._workplace.record_load(subject, error.run, prediction)
            raise
        try:
            ticket = self._workplace.record_load(subject, loaded.run, prediction)
        except BaseException:
            loaded.close()  # nobody else knows of it
            raise
        # Whoever drops the backend without a word gives the memory back all the same.
        release = weakref.finalize(self, loaded.close)
        self._held = _Held(path=str(model_path), loaded=loaded, ticket=ticket, release=release)
        self._on_load(self)
        return _success(name, config, loaded.run)

    def _knobs(self, subject: Subject) -> Config:
        self.config.check()  # an application may have changed it
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

        Without a ``config``, what the ``custom_args`` of the backend's say. Raises UserError
        without a loaded model, for an absurd setting, or in ``on_text``: its answer has to end
        first; EngineError where the prompt does not fit into the context or the engine dies;
        RequestError where the model is unloaded meanwhile.
        """
        config = config or self.config.generation_config()
        return self.serve(config.to_request(prompt), on_text).text

    def serve(self, request: TextRequest, on_text: Callable[[str], bool]) -> TextCompletion:
        """Answer one request: what a queue calls. Raises as :meth:`generate_text`."""
        return self.answer(request, on_text).completion

    def answer(self, request: TextRequest, on_text: Callable[[str], bool] = take_all) -> Answer:
        """One request answered and measured. Raises as :meth:`generate_text`."""
        with self._turn:
            held = self._held
            if held is None:
                raise UserError("no model is loaded: call load_model first")
            try:
                answer = held.loaded.generate(request, on_text=on_text)
            except EngineError as error:
                self._bury(held, error)
                raise
            if answer.generation is not None:
                telemetry = self._workplace.telemetry
                telemetry.generated(held.ticket, answer.generation, run=held.loaded.run)
            if answer.completion.finish is Finish.CANCELLED and self._held is not held:
                raise RequestError(
                    Reason.CANCELLED,
                    "the model was unloaded before the answer was whole: load it again",
                )
            return answer

    def require_no_listener(self) -> None:
        """Raises UserError in the listener of an answer, which has to end before the next."""
        held = self._held
        if held is not None and held.loaded.is_listening:
            raise asked_within()

    def unload_model(self) -> bool:
        """Give the memory back; whether there was a model. A request under way is cancelled.

        Also from the listener of that request, while another thread does the same.
        """
        with self._giving_back:
            held, self._held = self._held, None
        if held is None:
            return False
        held.release.detach()
        held.loaded.close()
        # What was generated is reported before the end, unless its listener waits for this thread.
        has_turn = self._turn.acquire(timeout=GRACE_S)
        try:
            self._workplace.telemetry.unloaded(held.ticket, held.loaded.run)
        finally:
            if has_turn:
                self._turn.release()
        return True

    def _bury(self, held: _Held, error: EngineError) -> None:
        """Report the death of an engine and forget it; one that only refused goes on."""
        if held.loaded.is_usable or self._held is not held:
            return
        self._held = None
        held.release.detach()
        self._workplace.telemetry.failed(held.ticket, error.reason, str(error))
        self._workplace.telemetry.unloaded(held.ticket, held.loaded.run)


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
