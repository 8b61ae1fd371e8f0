"""A configuration for llama-server and llamafile: a command line, or environment variables.

Flags and variables are those of llama.cpp's ``common/arg.cpp`` at the revision inside
llama-cpp-python 0.3.36. What equals llama-server's own default is written too: defaults change
from version to version, and some are not ours (four slots, a small sliding-window cache).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from autotune.backends.llama_params import LOAD_MODE_WORDS
from autotune.domain.config import Config
from autotune.recommend.export.notes import commented, named

_VALUES = (
    ("n_ctx", "-c", "LLAMA_ARG_CTX_SIZE"),
    ("n_batch", "-b", "LLAMA_ARG_BATCH"),
    ("n_ubatch", "-ub", "LLAMA_ARG_UBATCH"),
    ("n_threads", "-t", "LLAMA_ARG_THREADS"),
    ("n_threads_batch", "-tb", None),
    ("flash_attn", "-fa", "LLAMA_ARG_FLASH_ATTN"),
    ("type_k", "-ctk", "LLAMA_ARG_CACHE_TYPE_K"),
    ("type_v", "-ctv", "LLAMA_ARG_CACHE_TYPE_V"),
    ("load_mode", "-lm", "LLAMA_ARG_LOAD_MODE"),
    ("n_gpu_layers", "-ngl", "LLAMA_ARG_N_GPU_LAYERS"),
    ("split_mode", "-sm", "LLAMA_ARG_SPLIT_MODE"),
    ("main_gpu", "-mg", "LLAMA_ARG_MAIN_GPU"),
    ("tensor_split", "-ts", "LLAMA_ARG_TENSOR_SPLIT"),
    ("n_parallel", "-np", "LLAMA_ARG_N_PARALLEL"),
)
"""(knob, flag, variable); ``load_mode`` is use_mmap and use_mlock."""
_SWITCHES = (
    ("offload_kqv", "-kvo", "-nkvo", "LLAMA_ARG_KV_OFFLOAD"),
    ("op_offload", "--op-offload", "--no-op-offload", None),
    ("swa_full", "--swa-full", None, "LLAMA_ARG_SWA_FULL"),
)
"""(knob, flag when true, flag when false, variable)."""


def server_line(model: Path, config: Config, *, slides: bool) -> str:
    """The ``llama-server`` command line of a configuration, quoted for a POSIX shell.

    ``slides``: whether the model has sliding-window layers, whose cache has a flag of its own.
    """
    return _line(["llama-server"], model, config, slides=slides)


def server_command(model: Path, config: Config, *, slides: bool) -> str:
    """:func:`server_line` with what it does not say as comments."""
    return commented(_unsaid(config, slides=slides), server_line(model, config, slides=slides))


def llamafile_command(model: Path, config: Config, *, slides: bool) -> str:
    """The same for ``llamafile --server``."""
    notes = ["for a llamafile whose --server --help has --load-mode (not --no-mmap and --mlock)"]
    notes += _unsaid(config, slides=slides)
    return commented(notes, _line(["llamafile", "--server"], model, config, slides=slides))


def server_environment(model: Path, config: Config, *, slides: bool) -> str:
    """``LLAMA_ARG_…=value`` lines, quoted for a POSIX shell; what has no variable as comments."""
    notes = ["for llama-server: set -a; . ./THIS_FILE; set +a; llama-server"]
    lines = [f"LLAMA_ARG_MODEL={shlex.quote(str(model))}"]
    for knob, flag, variable in _VALUES:
        value = _value(config, knob)
        if variable is None:
            notes.append(f"{named(config, knob)} has no variable: add {flag} {value}")
        elif value is not None:
            lines.append(f"{variable}={value}")
    for knob, on, off, variable in _switches(slides=slides):
        is_on = getattr(config, knob)
        if variable is None:
            notes.append(f"{named(config, knob)} has no variable: add {on if is_on else off}")
        else:
            lines.append(f"{variable}={int(is_on)}")
    if not slides:
        notes += _unsaid(config, slides=slides)
    return commented(notes, "\n".join(lines))


def _line(program: list[str], model: Path, config: Config, *, slides: bool) -> str:
    return shlex.join([*program, "-m", str(model), *_flags(config, slides=slides)])


def _flags(config: Config, *, slides: bool) -> Iterator[str]:
    for knob, flag, _ in _VALUES:
        value = _value(config, knob)
        if value is not None:
            yield from (flag, value)
    for knob, on, off, _ in _switches(slides=slides):
        switch = on if getattr(config, knob) else off
        if switch is not None:
            yield switch


def _switches(*, slides: bool) -> Iterator[tuple[str, str, str | None, str | None]]:
    return (switch for switch in _SWITCHES if slides or switch[0] != "swa_full")


def _unsaid(config: Config, *, slides: bool) -> list[str]:
    """What a line means that does not say ``--swa-full``."""
    if not slides:
        return [f"{named(config, 'swa_full')}: no layer of the model has a sliding window"]
    if not config.swa_full:
        return [f"{named(config, 'swa_full')} has no flag: it is the program's default"]
    return []


def _value(config: Config, knob: str) -> str | None:
    """A value as the program reads it; None where nothing is to be said."""
    if knob == "load_mode":
        return LOAD_MODE_WORDS[config.use_mmap, config.use_mlock]
    if knob == "n_gpu_layers" and config.n_gpu_layers == -1:
        return "all"
    if knob == "tensor_split":
        # Nine digits are exact: the program keeps single precision.
        return ",".join(f"{share:.9g}" for share in config.tensor_split or ()) or None
    return str(getattr(config, knob))
