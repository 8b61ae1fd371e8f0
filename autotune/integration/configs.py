"""What applications set: a backend's configuration, and that of a generation.

Names, defaults and the order of arguments are those of the guide's ``model_backends``. Both are
mutable, since applications change them; they are checked when they are made and when they are used.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

from autotune.domain.arguments import require_number, require_whole
from autotune.domain.config import KNOBS, MOST_THREADS, Config, parse_changes
from autotune.domain.errors import UserError
from autotune.domain.machine import MachineFacts
from autotune.domain.model import ModelFacts
from autotune.domain.request import MOST_DRAFT, TextRequest
from autotune.facts.vram import usable_gpus

SAMPLING_NAMES = (
    *("max_tokens", "temperature", "top_p", "top_k", "repeat_penalty", "seed"),
    *("stop", "stop_sequences", "n_draft"),
)
"""Names of ``custom_args`` that go into generations, beside the knobs of the load."""

_MAX_TOKENS = 2**24
"""No model has a context of 16 million tokens yet."""
_MAX_BATCH = 2**16
_MAX_LAYERS = 10_000
_MAX_SEQUENCES = 256
"""llama.cpp serves no more at once (``LLAMA_MAX_SEQ``)."""
_MAX_SEED = 2**32 - 2
"""The largest number of 32 bits is llama.cpp's word for any seed."""
_KNOB_LIMITS = {
    "n_ctx": _MAX_TOKENS, "n_batch": _MAX_BATCH, "n_ubatch": _MAX_BATCH,
    "n_threads": MOST_THREADS, "n_threads_batch": MOST_THREADS, "n_parallel": _MAX_SEQUENCES,
    "n_gpu_layers": _MAX_LAYERS,
}  # fmt: skip
_TOLERANT = Config(n_ctx=_MAX_TOKENS, n_batch=_MAX_BATCH, flash_attn="on")
"""Contradicts no single knob that is valid by itself."""
_FIELDS_OF_KNOBS = ("n_ctx", "n_batch", "n_threads", "n_gpu_layers")
"""Knobs that have a field of their own."""


@dataclass
class GenerationConfig:
    """How to generate. Raises UserError for an absurd value."""

    max_tokens: int = 512
    """Most tokens of an answer."""
    temperature: float = 0.7
    """0 takes the likeliest token, always."""
    top_p: float = 0.9
    """Among the likeliest that have this probability together; 1 for all."""
    top_k: int = 40
    """Among so many of the likeliest; 0 for all."""
    repeat_penalty: float = 1.1
    """Divides the logits of tokens among the latest 64; 1 for none."""
    seed: int = -1
    """The same seed gives the same text; below 0 for another each time."""
    stop_sequences: list[str] = field(default_factory=list)
    """Texts that end the answer; they are not part of it."""
    stream: bool = False
    """Taken for compatibility: text is given out as it comes to whoever passes a callback."""
    n_draft: int = 0
    """Most tokens to guess at once from what was said before, by engines that can; 0 for none."""

    def __post_init__(self) -> None:
        self.to_request("?")

    def to_dict(self) -> dict[str, Any]:
        """By name, with the original's ``stop`` and with None for what is not set.

        What the original does not know is left out where it is not set.
        """
        values = dataclasses.asdict(self)
        stop = values.pop("stop_sequences")
        if not self.n_draft:
            del values["n_draft"]
        return {**values, "seed": self.seed if self.seed >= 0 else None, "stop": stop or None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`; what is missing or None has its default.

        Raises UserError for an unknown name, with those that are known.
        """
        given = _sampling(values)
        _require_known("GenerationConfig", given, _names(cls))
        return cls(**given)

    def to_request(self, prompt: str, *, chat: bool = False) -> TextRequest:
        """A request as of now: later changes of the configuration do not change it.

        ``chat`` puts the prompt into the model's chat template. Raises UserError for an absurd
        value, or a prompt without text.
        """
        if not isinstance(prompt, str):
            raise UserError(f"prompt={prompt!r} is not valid: give text")
        require_whole("max_tokens", self.max_tokens, low=1, high=_MAX_TOKENS)
        require_whole("top_k", self.top_k, low=0, high=2**31 - 1)
        require_whole("seed", self.seed, low=-_MAX_SEED, high=_MAX_SEED)
        require_whole("n_draft", self.n_draft, low=0, high=MOST_DRAFT)
        for name in ("temperature", "top_p", "repeat_penalty"):
            require_number(name, getattr(self, name), low=0)
        return TextRequest(
            prompt=prompt,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            repeat_penalty=self.repeat_penalty,
            seed=self.seed if self.seed >= 0 else None,
            stop=_texts("stop_sequences", self.stop_sequences),
            chat=chat,
            n_draft=self.n_draft,
        )


@dataclass
class BackendConfig:
    """How to load a model with one backend. Raises UserError for an absurd value."""

    name: str
    """The backend, such as ``llama-cpp-python``."""
    enabled: bool = True
    """Whether it may be chosen."""
    priority: int = 0
    """Where neither time nor memory decides between backends, the lower goes first."""
    gpu_enabled: bool = True
    """False loads nothing onto a GPU."""
    gpu_layers: int = -1
    """Layers on GPUs, the output layer included; −1 for all, 0 for none."""
    context_size: int = 4096
    """Context window in tokens."""
    batch_size: int = 512
    """Tokens handed to the engine at once while it reads a prompt."""
    threads: int = -1
    """Threads of prompt and generation; −1 for what the backend's default or advice says."""
    custom_args: dict[str, Any] = field(default_factory=dict)
    """More by name: knobs as llama-bench calls them (``use_mmap``, ``flash_attn`` …) over the
    fields above, and sampling (``temperature``, ``top_p`` …) for generations that set nothing."""

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Raise UserError for an absurd value, in one line that says what is accepted."""
        if not isinstance(self.name, str) or not self.name:
            raise UserError(f"name={self.name!r} is not valid: give the name of a backend")
        require_whole("priority", self.priority, low=-(2**31), high=2**31 - 1)
        require_whole("gpu_layers", self.gpu_layers, low=-1, high=_MAX_LAYERS)
        require_whole("context_size", self.context_size, low=1, high=_MAX_TOKENS)
        require_whole("batch_size", self.batch_size, low=1, high=_MAX_BATCH)
        require_whole("threads", self.threads, low=-1, high=MOST_THREADS)
        if self.threads == 0:
            raise UserError("threads=0 is not valid: give −1 (automatic) or a count from 1")
        if not isinstance(self.custom_args, dict):
            raise UserError(f"custom_args={self.custom_args!r} is not valid: give a dict")
        _require_known("custom_args", self.custom_args, (*KNOBS, *SAMPLING_NAMES))
        for name in self._knobs:
            self._with_knobs(_TOLERANT, (name,))
        self.generation_config()

    def to_config(self, model: ModelFacts, machine: MachineFacts, default: Config) -> Config:
        """The configuration of all knobs; those that nothing is said of are the default's.

        What cannot be had is brought to what can: the context to what the model was trained for,
        threads to the processors that this process may use (more are never faster, and often
        slower by far), layers to those of the model, or 0 where there is no GPU that the engine
        can use. A knob in ``custom_args`` is taken as it is. Raises UserError for an absurd value.
        """
        self.check()
        n_ctx = min(self.context_size, model.n_ctx_train or self.context_size)
        n_batch = min(self.batch_size, n_ctx)
        n_threads = min(self.threads, machine.n_processors)
        own = default.replace(
            n_ctx=n_ctx,
            n_batch=n_batch,
            n_ubatch=min(default.n_ubatch, n_batch),
            n_threads=default.n_threads if self.threads < 0 else n_threads,
            n_threads_batch=default.n_threads_batch if self.threads < 0 else n_threads,
            n_gpu_layers=self._n_gpu_layers(model, machine),
        )
        return self._with_knobs(own, self._knobs)

    @classmethod
    def from_config(cls, name: str, config: Config, *, default: Config | None = None) -> Self:
        """The configuration of a backend that :meth:`to_config` turns into ``config`` again.

        ``custom_args`` has every other knob, or those that differ from ``default``.
        """
        knobs = config.as_dict()
        usual = {} if default is None else default.as_dict()
        usual = {**usual, "n_threads_batch": config.n_threads}  # as to_config sets it
        usual["n_ubatch"] = min(usual.get("n_ubatch", 0), config.n_batch)
        return cls(
            name=name,
            gpu_enabled=config.n_gpu_layers != 0,
            gpu_layers=config.n_gpu_layers,
            context_size=config.n_ctx,
            batch_size=config.n_batch,
            threads=config.n_threads,
            custom_args={
                knob: value
                for knob, value in knobs.items()
                if knob not in _FIELDS_OF_KNOBS and (knob not in usual or usual[knob] != value)
            },
        )

    def generation_config(self, **given: Any) -> GenerationConfig:
        """How to generate: what is given, else what ``custom_args`` say, else the defaults.

        Raises UserError for an unknown name or an absurd value.
        """
        own = {name: self.custom_args[name] for name in SAMPLING_NAMES if name in self.custom_args}
        return GenerationConfig.from_dict({**_sampling(own), **_sampling(given)})

    def to_dict(self) -> dict[str, Any]:
        """Every field by name."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`; what is missing has its default.

        Raises UserError for an unknown name, and where the backend's name is missing.
        """
        _require_known("BackendConfig", data, _names(cls))
        if "name" not in data:
            raise UserError("BackendConfig has no name: give the name of a backend")
        return cls(**data)

    def _n_gpu_layers(self, model: ModelFacts, machine: MachineFacts) -> int:
        if not self.gpu_enabled or not usable_gpus(machine):
            return 0
        return min(self.gpu_layers, model.n_layers + 1)

    @property
    def _knobs(self) -> tuple[str, ...]:
        return tuple(name for name in self.custom_args if name in KNOBS)

    def _with_knobs(self, config: Config, names: Iterable[str]) -> Config:
        """A configuration with some of the knobs of ``custom_args``."""
        changes = [f"{name}={_written(self.custom_args[name])}" for name in names]
        changed = parse_changes(changes, config)
        for name, limit in _KNOB_LIMITS.items():
            if getattr(changed, name) > limit:
                require_whole(name, getattr(changed, name), low=0, high=limit)
        return changed


def priorities_of(configs: Mapping[str, BackendConfig]) -> dict[str, int]:
    """The priority of each backend; a configuration that cannot be used has none."""
    found = {}
    for name, config in configs.items():
        with suppress(AttributeError, UserError):
            config.check()
            found[name] = config.priority
    return found


def _sampling(values: Mapping[str, Any]) -> dict[str, Any]:
    """What is set, by our own names: the original's ``stop`` is ``stop_sequences`` here."""
    given = {name: value for name, value in values.items() if value is not None}
    if "stop" in given:
        stop = given.pop("stop")
        given.setdefault("stop_sequences", [stop] if isinstance(stop, str) else stop)
    return given


def _written(value: Any) -> str:
    """A knob's value as it is written on the command line."""
    if isinstance(value, list | tuple):
        return "/".join(map(str, value))
    return str(value)


def _texts(name: str, value: Any) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{name}={value!r} is not valid: give a list of texts")
    return tuple(texts)


def _names(of: type[GenerationConfig | BackendConfig]) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(of))


def _require_known(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    known = list(known)
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"it takes {', '.join(known)}"
            raise UserError(f"{what} knows no {name!r}: {hint}")
