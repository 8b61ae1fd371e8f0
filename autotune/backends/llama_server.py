"""llama.cpp through its own HTTP server, a program of its own beside the measuring process.

Prefill and decode are timed by the server's own clock, so they are what it prints for the same
request; the time to the first token is ours, HTTP included. The prompt is timed until its first
token is sampled, not until it is computed: the server tells no other moment.
"""

from __future__ import annotations

import http.client
import random
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from autotune.backends.llama_log import read_problems, read_report
from autotune.backends.program import Program, find_program
from autotune.backends.protocol import EngineError, Sample
from autotune.backends.server_client import HOST, Completion, ServerClient
from autotune.backends.server_options import Installed, arguments, read_version
from autotune.backends.server_text import ServerText
from autotune.domain.config import Config
from autotune.domain.errors import GGUFError
from autotune.domain.machine import Build, MachineFacts
from autotune.domain.request import TextCompletion, TextRequest
from autotune.domain.run import EngineReport, LoadTime, Reason
from autotune.domain.workload import Workload
from autotune.facts.activity import read_process_s
from autotune.facts.gguf import read_model
from autotune.facts.gguf_header import read_header
from autotune.facts.gpu import EngineDevice

_TIMEOUT_S = 600.0
"""For a load, and for the silence within a request; whoever measures has deadlines of its own."""
_PORTS_TO_TRY = 5
_LOOK_S = 0.005
"""Shortest time between two looks at a server that starts; then 1 % of what it has taken."""
_EXCERPT_LINES = 20
_TAKEN = "couldn't bind"
_CONTEXT_BEGINS = ("constructing llama_context", "llama_new_context_with_model: n_")
_WARM_UP_BEGINS = ("warming up the model",)


def free_port() -> int:
    """A port of this machine that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class LlamaServerBackend:
    """The program ``llama-server``: ``AUTOTUNE_LLAMA_SERVER``, else the one on ``PATH``.

    ``announce`` is told the process number of each server that is started, before it loads.
    """

    name = "llama-server"
    variable = "AUTOTUNE_LLAMA_SERVER"
    words: tuple[str, ...] = ()
    """What is said before all options."""

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        announce: Callable[[int], None] = lambda _pid: None,
        choose_port: Callable[[], int] = free_port,
    ) -> None:
        # What a configuration does not say must not come from somebody's settings.
        self._environ = {k: v for k, v in environ.items() if not k.startswith("LLAMA_")}
        self._announce, self._choose_port = announce, choose_port
        self._known: Installed | None = None
        self._program: Program | None = None

    def installed(self) -> Installed:
        """The program. Raises ImportError where there is none."""
        if self._known is None:
            path = find_program(self.name, variable=self.variable, environ=self._environ)
            self._known = Installed(path, self._environ)
        return self._known

    def build(self) -> Build:
        """Version, commit and devices, as the program tells them."""
        installed = self.installed()
        version, commit = read_version(installed.version)
        devices = ("CPU", *(gpu.name for gpu in installed.gpus))
        return Build(backend=self.name, version=version, commit=commit, devices=devices)

    def gpus(self) -> tuple[EngineDevice, ...]:
        """The GPUs that the program can use."""
        return self.installed().gpus

    def default_config(self, *, n_ctx: int, machine: MachineFacts) -> Config:
        """``llama-server -m MODEL -c N`` with nothing else set.

        Source: ``common/common.h`` of llama.cpp at 0c1e570. Its four slots share the context, as
        one does; one thread for each physical core, all layers on a GPU where there is one.
        """
        n_threads = machine.n_performance or machine.n_physical or machine.n_processors
        n_batch = min(2048, n_ctx)
        return Config(
            n_ctx=n_ctx,
            n_batch=n_batch,
            n_ubatch=min(512, n_batch),
            n_threads=n_threads,
            n_threads_batch=n_threads,
            flash_attn="auto",
            swa_full=False,
            n_gpu_layers=-1 if any(gpu.device for gpu in machine.gpus) else 0,
        )

    def load(self, model_path: Path, config: Config) -> ServerSession:
        """Start a server and wait until it is ready, on another port where one was just taken."""
        # By its alias a server is told from a stranger's on the port that it did not get.
        alias = secrets.token_hex(8)
        command = [*self._command(model_path, config), "--alias", alias]
        for _ in range(_PORTS_TO_TRY):
            port = self._choose_port()
            self._program = program = Program([*command, "--port", str(port)], self._environ)
            try:
                self._announce(program.pid)
                client = ServerClient(port, timeout_s=_TIMEOUT_S)
                return ServerSession(program, client, alias, model_path, config)
            except BaseException as error:
                program.stop()
                if not isinstance(error, EngineError) or _TAKEN not in program.read_log():
                    raise
        message = f"{self.name} found no free port in {_PORTS_TO_TRY} tries"
        raise EngineError(Reason.LOAD_ERROR, message)

    def _command(self, model_path: Path, config: Config) -> list[str]:
        installed = self.installed()
        options = arguments(config, installed)
        return [
            *(str(installed.path), *self.words, *self._model_words(model_path)),
            *("--host", HOST, *options),
        ]

    def _model_words(self, model_path: Path) -> tuple[str, ...]:
        return ("-m", str(model_path))

    def log_excerpt(self) -> str:
        """The program's latest warnings and errors; empty once it has read a text."""
        if self._program is None or self._program.is_private:
            return ""
        return "\n".join(read_problems(self._program.read_log(), "WE")[-_EXCERPT_LINES:])


class ServerSession:
    """A running server with one model."""

    def __init__(
        self, program: Program, client: ServerClient, alias: str, model_path: Path, config: Config
    ) -> None:
        self._program, self._client = program, client
        self._model_path = model_path
        self._n_ctx = config.n_ctx // config.n_parallel
        self._overhang = 0
        self.load = self._wait()
        self._report = read_report(program.read_log().splitlines(keepends=True))
        name, n_vocab = self._client.model()
        if name not in (None, alias):
            raise self._load_failure()
        self._n_vocab = n_vocab or read_model(model_path).n_vocab
        self._text = ServerText(client, n_ctx=self._n_ctx, has_template=_has_template(model_path))

    def _wait(self) -> LoadTime:
        """Wait until the server is ready; when each phase began is in what it said meanwhile."""
        started = self._program.started
        while not self._client.is_healthy():
            waited = time.perf_counter() - started
            if not self._program.lives:
                raise self._load_failure()
            if waited > _TIMEOUT_S:
                raise EngineError(Reason.TIMEOUT, f"{self._program.name} does not become ready")
            time.sleep(max(_LOOK_S, waited / 100))
        ready = time.perf_counter()
        warm_up = self._program.when_said(*_WARM_UP_BEGINS) or ready
        context = self._program.when_said(*_CONTEXT_BEGINS) or warm_up
        return LoadTime(
            model_s=context - started, context_s=warm_up - context, first_eval_s=ready - warm_up
        )

    def _load_failure(self) -> EngineError:
        name, model = self._program.name, self._model_path.name
        if "failed to create context" in self._program.read_log():
            return self._program.failure(Reason.CONSTRAINT, f"{name} cannot create the context")
        return self._program.failure(Reason.LOAD_ERROR, f"{name} cannot load {model}")

    def sample(self, workload: Workload, *, seed: int) -> Sample:
        """One request: see :class:`autotune.backends.protocol.Session`.

        One token more than ``n_gen`` is asked for: the first comes from the prompt, as everywhere.
        A workload without a prompt starts from one token that is not counted.
        """
        n_prompt = max(workload.n_prompt, 1)
        self._require_room(workload.n_depth + n_prompt + workload.n_gen, workload)
        depth = self._random_tokens(workload.n_depth, random.Random(workload.n_depth))  # noqa: S311
        prompt = self._random_tokens(n_prompt, random.Random(seed))  # noqa: S311
        done, cpu_ns = self._timed(depth, prompt, workload.n_gen + 1)
        if depth and done.n_prompt > n_prompt:
            # A cache of sliding windows goes back only to where the server kept a copy of it, some
            # tokens before the end of what it computed: so much more has to be in it.
            self._overhang += done.n_prompt - n_prompt
            done, cpu_ns = self._timed(depth, prompt, workload.n_gen + 1)
        self._require("computed", done.n_prompt, n_prompt)
        self._require("generated", done.n_tokens, workload.n_gen + 1)
        has_prompt = workload.n_prompt > 0
        return Sample(
            prefill_ns=done.prompt_ns if has_prompt else None,
            ttft_ns=done.ttft_ns if has_prompt else None,
            token_ns=done.token_ns,
            prefill_cpu_ns=cpu_ns[0] if has_prompt else None,
            decode_cpu_ns=cpu_ns[1],
        )

    def _timed(
        self, depth: list[int], prompt: list[int], n_predict: int
    ) -> tuple[Completion, tuple[int, int]]:
        """A completion behind a filled cache; processor nanoseconds until its first token, after.

        Other tokens than the prompt's follow the depth in the cache: none of the prompt is reused.
        """
        if depth:
            other = (prompt[0] + 1) % self._n_vocab
            self._complete([*depth, *[other] * self._overhang], n_predict=1, cache_prompt=True)
        cpu_ns = [self._cpu_ns()]
        done = self._complete(
            [*depth, *prompt],
            n_predict=n_predict,
            cache_prompt=bool(depth),
            on_first=lambda: cpu_ns.append(self._cpu_ns()),
        )
        before, first, after = (*cpu_ns, self._cpu_ns())
        return done, (first - before, after - first)

    def _require_room(self, n_tokens: int, workload: Workload) -> None:
        """The server stops one cell before the end of a slot."""
        if n_tokens >= self._n_ctx:
            message = f"{workload.label} does not fit into n_ctx={self._n_ctx}"
            raise EngineError(
                Reason.CONSTRAINT, f"{message}: {self._program.name} keeps one of them free"
            )

    def _require(self, what: str, n_tokens: int, wanted: int) -> None:
        if n_tokens != wanted:
            message = f"{self._program.name} {what} {n_tokens} tokens where {wanted} were asked for"
            raise EngineError(Reason.INCORRECT, message)

    def _complete(
        self, prompt: list[int], *, n_predict: int, cache_prompt: bool,
        on_first: Callable[[], None] = lambda: None,
    ) -> Completion:  # fmt: skip
        with self._named_failures():
            return self._client.complete(
                prompt, n_predict=n_predict, cache_prompt=cache_prompt, on_first=on_first
            )

    def generate(self, request: TextRequest, *, on_text: Callable[[str], bool]) -> TextCompletion:
        """One answer: see :class:`autotune.backends.protocol.Session`."""
        self._program.is_private = True
        with self._named_failures():
            return self._text.generate(request, on_text)

    @contextmanager
    def _named_failures(self) -> Iterator[None]:
        """What breaks off a conversation with the server, as what happened to the server."""
        try:
            yield
        except TimeoutError as error:
            raise EngineError(Reason.TIMEOUT, f"{self._program.name} went silent") from error
        except (OSError, http.client.HTTPException) as error:
            message = f"{self._program.name} went away"
            raise self._program.failure(Reason.CRASH, message) from error

    def _random_tokens(self, n: int, rng: random.Random) -> list[int]:
        """Random words, as llama-bench feeds; speed must not depend on the text."""
        return [rng.randrange(self._n_vocab) for _ in range(n)]

    def _cpu_ns(self) -> int:
        """Processor time of the server until now."""
        return round((read_process_s(self._program.pid) or 0.0) * 1e9)

    def report(self) -> EngineReport:
        """What the log said of buffers, layers and flash attention."""
        return self._report

    def close(self) -> None:
        """End the server."""
        self._program.stop()


def _has_template(model_path: Path) -> bool:
    """Whether a model says how a chat is put to it. A server makes something up for one that does
    not; a llamafile, which is no GGUF file, is believed to have one."""
    try:
        return "tokenizer.chat_template" in read_header(model_path).values
    except GGUFError:
        return True
