"""A model that is loaded in a process of its own, and answers one request after another."""

from __future__ import annotations

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from autotune.backends.protocol import EngineError
from autotune.backends.registry import get_backend
from autotune.domain.conditions import Conditions
from autotune.domain.config import Config
from autotune.domain.errors import UserError
from autotune.domain.request import Finish, TextCompletion, TextRequest
from autotune.domain.run import Generation, Purpose, Reason, Run, Trial
from autotune.domain.units import human_seconds
from autotune.domain.workload import Workload
from autotune.facts.pagecache import residency as read_residency
from autotune.measure.child import ChildRun
from autotune.measure.messages import pack, unpack_completion
from autotune.serving.endings import asked_within

GRACE_S = 10.0
"""Time in which a request that was stopped has to end: a batch of its prompt, a token."""
_KEPT_S = 30.0
"""What was seen of the machine longer before a request is of no use to it."""
_REFUSALS = frozenset({Reason.CONSTRAINT, Reason.UNSUPPORTED})
"""Answers of an engine that is well."""
_EARLIER = 32
"""Requests against whose clocks that of the processor is held."""


class LoadFailedError(EngineError):
    """A model could not be loaded; ``run`` is the record of the attempt."""

    def __init__(self, run: Run) -> None:
        super().__init__(run.reason or Reason.LOAD_ERROR, run.message)
        self.run = run


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of a request, and how it was measured."""

    completion: TextCompletion
    generation: Generation | None
    """None where nothing was computed: it was cancelled before that."""


class LoadedModel:
    """A model in a child process, loaded until it is closed or its engine dies.

    It may be used from any thread; requests wait for each other. Use it as a context manager.
    """

    def __init__(self, child: ChildRun, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._child, self._clock = child, clock
        self._lock = threading.Lock()
        self._answering: int | None = None  # the thread that has its turn
        self._is_closing = False
        self._lost: EngineError | None = None
        self._n_answers = 0
        self._earlier: deque[Conditions] = deque(maxlen=_EARLIER)

    @classmethod
    def load(
        cls,
        backend: str,
        model_path: Path,
        config: Config,
        *,
        timeout_s: float = 600.0,
        memory_limit_bytes: int | None = None,
        environ: Mapping[str, str] = os.environ,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
        residency: Callable[[Path], float | None] = read_residency,
    ) -> Self:
        """Load a model within ``timeout_s`` seconds.

        ``memory_limit_bytes`` of resident memory end it, now or later. Engines that are programs
        are looked for in ``environ``. Raises LoadFailedError, which carries the failed run;
        UserError for a backend that nobody knows.
        """
        get_backend(backend, environ)
        trial = Trial(
            model_path=model_path,
            config=config,
            workload=Workload(),
            n_reps=1,
            timeout_s=timeout_s,
            memory_limit_bytes=memory_limit_bytes,
            purpose=Purpose.USER,
        )
        child = ChildRun(trial, backend, now=now, clock=clock, residency=residency, environ=environ)
        try:
            _require_file(model_path)
            child.load()
        except EngineError as error:
            child.fail(error)
            child.close()
            raise LoadFailedError(child.run()) from error
        except BaseException:
            child.close()
            raise
        child.note_conditions()
        return cls(child, clock=clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    @property
    def run(self) -> Run:
        """The load as a record, with the peaks of memory until now. Its conditions are the load's.

        Its workload is the default one and says nothing; the generations are in the answers. It
        has failed once the engine has died.
        """
        return self._child.run()

    @property
    def is_usable(self) -> bool:
        """Whether it still takes requests."""
        return not self._is_closing and self._lost is None

    @property
    def is_listening(self) -> bool:
        """Whether the current thread is in the listener of an answer."""
        return self._answering == threading.get_ident()

    def generate(
        self,
        request: TextRequest,
        *,
        on_text: Callable[[str], bool] = lambda _text: True,
        timeout_s: float | None = None,
    ) -> Answer:
        """Answer a request, after those that came before it.

        ``on_text`` is given each piece of the answer as it comes, and empty text now and then; by
        returning False it ends the answer. What it raises passes through, and the model goes on.

        Raises EngineError: TIMEOUT where no whole answer was there in ``timeout_s`` seconds,
        waiting included; CONSTRAINT for a prompt that does not fit; UNSUPPORTED for a request that
        the engine refuses otherwise, after all of which the model goes on; CRASH, OOM and others
        where the engine died, then and for every later request.
        Raises UserError after :meth:`close`, and in a listener: its answer has to end first.
        """
        deadline = math.inf if timeout_s is None else self._clock() + timeout_s
        with self._turn(timeout_s):
            is_late = False

            def listen(text: str) -> bool:
                nonlocal is_late
                is_late = self._clock() >= deadline
                return not (is_late or self._is_closing) and on_text(text)

            answer = self._ask(request, listen, deadline)
        if is_late and answer.completion.finish is Finish.CANCELLED:
            raise _too_late(timeout_s)
        return answer

    @contextmanager
    def _turn(self, timeout_s: float | None) -> Iterator[None]:
        """Wait for the requests before."""
        if self.is_listening:
            raise asked_within()
        if not self._lock.acquire(timeout=-1 if timeout_s is None else max(timeout_s, 0)):
            raise _too_late(timeout_s)
        self._answering = threading.get_ident()
        try:
            self._require_model()
            yield
        finally:
            self._answering = None
            if self._is_closing:
                self._child.close()
            self._lock.release()

    def _require_model(self) -> None:
        if self._is_closing:
            raise UserError(f"{self._name} was closed: load it again")
        if self._lost is not None:
            message = f"{self._name} is gone ({self._lost}): load it again"
            raise EngineError(self._lost.reason, message)

    @property
    def _name(self) -> str:
        return self._child.trial.model_path.name

    def _ask(self, request: TextRequest, on_text: Callable[[str], bool], deadline: float) -> Answer:
        """One request of the worker; whatever happens, the next one finds it ready or gone."""
        child = self._child
        child.watch.forget(self._clock() - _KEPT_S)
        since = child.watch.start()
        child.worker.restart_deadline(deadline - self._clock() + GRACE_S)
        try:
            told = child.worker.ask("generate", child.watch, on_text=on_text, request=pack(request))
        except EngineError as error:
            if error.reason not in _REFUSALS:
                self._lose(error)
            raise
        except BaseException:
            child.worker.settle(GRACE_S)
            if not child.worker.lives:
                self._lose(EngineError(Reason.TIMEOUT, "it did not stop when it was asked to"))
            raise
        conditions = child.watch.conditions(since).held_against(self._earlier)
        self._earlier.append(conditions)
        return self._measured(unpack_completion(told["completion"]), conditions)

    def _measured(self, completion: TextCompletion, conditions: Conditions) -> Answer:
        """The completion with its generation, numbered in the order of the answers."""
        generation = generation_of(completion, conditions, number=self._n_answers)
        self._n_answers += generation is not None
        return Answer(completion=completion, generation=generation)

    def _lose(self, error: EngineError) -> None:
        self._lost = error
        self._child.fail(error)
        self._child.close()

    def close(self) -> None:
        """Give the memory back. A request under way is cancelled; later ones are refused.

        A listener that asks for this gets its answer ended, and the memory back right after it.
        """
        self._is_closing = True
        if self.is_listening:
            return
        has_turn = self._lock.acquire(timeout=GRACE_S)
        try:
            self._child.close()
        finally:
            if has_turn:
                self._lock.release()


def generation_of(
    completion: TextCompletion, conditions: Conditions, *, number: int
) -> Generation | None:
    """A completion as one measured generation; None where nothing was computed.

    What was cached of the prompt is its depth. The first token is part of the prompt's time to
    first token, so those decoded are the others.
    """
    n_gen = len(completion.token_ns)
    if completion.n_prompt + n_gen == 0:
        return None
    has_prompt = completion.n_prompt > 0
    return Generation(
        workload=Workload(n_prompt=completion.n_prompt, n_gen=n_gen, n_depth=completion.n_cached),
        repetition=number,
        prefill_ns=completion.prefill_ns if has_prompt else None,
        ttft_ns=completion.ttft_ns if has_prompt and completion.n_tokens else None,
        token_ns=completion.token_ns,
        conditions=conditions,
        n_drafted=completion.n_drafted,
        n_accepted=completion.n_accepted,
    )


def _require_file(path: Path) -> None:
    if not path.exists():
        message = f"there is no model file {path}: name another, or download it again"
        raise EngineError(Reason.LOAD_ERROR, message)


def _too_late(timeout_s: float | None) -> EngineError:
    waited = "in time" if timeout_s is None else f"within {human_seconds(timeout_s)}"
    return EngineError(Reason.TIMEOUT, f"no answer {waited}: give it more time, or ask for less")
