"""What a build of llama.cpp's server says of itself, and a configuration in its own words.

Options come and go between builds, so they are read from the build's own ``--help``: flash
attention was a switch before it took ``on``, ``off`` and ``auto`` (2025-08), ``--no-mmap`` and
``--mlock`` became ``--load-mode`` (2026).
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from autotune.backends.llama_params import LOAD_MODE_WORDS
from autotune.backends.program import by_shell
from autotune.backends.protocol import EngineError
from autotune.domain.config import Config
from autotune.domain.machine import gpu_api
from autotune.domain.run import Reason
from autotune.domain.units import MIB
from autotune.facts.gpu import EngineDevice

_ANSWER_S = 60.0
_MAX_SAID = 200
_ALL_LAYERS = 999
"""More than any model has; −1 came to mean what the build thinks best."""
_PLAIN = (
    *(("--no-webui",), ("--offline",)),
    # Nothing is chosen for us, and no memory is used for requests that were answered before.
    *(("--fit", "off"), ("--cache-ram", "0")),
)
"""Options that every run gets from a build that has them."""

_NAMES = re.compile(r"(?<![\w-])--?[a-zA-Z][\w-]*")
_FLASH_ATTN_VALUE = re.compile(r"--flash-attn\b.*\bauto\b")
_TRACE_LEVEL = re.compile(r"^\s*- 4: trace", re.MULTILINE)
"""Builds of 2026 tell what they allocate from this level on, earlier ones always."""
_VERSION = re.compile(r"version: (\S+) \((?:build \d+, commit )?(\w+)\)")
_DEVICE = re.compile(r"^\s+(\w+): (.+) \((\d+) MiB, (\d+) MiB free\)", re.MULTILINE)


class Installed:
    """A server program as installed. It is asked once for each thing, when that is needed."""

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        self.path = path
        self._environ = environ

    def ask(self, option: str) -> str:
        """All that it prints when called with one option. Raises ImportError if it cannot run."""
        return self._run(option).stdout.decode("utf-8", "replace")

    def _run(self, option: str) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(
                by_shell([str(self.path), option]),
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_ANSWER_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ImportError(f"{self.path.name} cannot be run: {error}") from error

    @cached_property
    def version(self) -> str:
        """What it prints for ``--version``. Raises ImportError where it fails even at that."""
        answer = self._run("--version")
        words = answer.stdout.decode("utf-8", "replace")
        if answer.returncode:
            said = " ".join(words.split()) or f"it ended with status {answer.returncode}"
            raise ImportError(f"{self.path.name} cannot be run: {said[:_MAX_SAID]}")
        return words

    @cached_property
    def help(self) -> str:
        """What it prints for ``--help``."""
        return self.ask("--help")

    @cached_property
    def names(self) -> frozenset[str]:
        """Its options."""
        lines = (line for line in self.help.splitlines() if line.lstrip().startswith("-"))
        return frozenset(name for line in lines for name in _NAMES.findall(line))

    @cached_property
    def gpus(self) -> tuple[EngineDevice, ...]:
        """The GPUs that it can use; none where it cannot be asked."""
        if "--list-devices" not in self.names:
            return ()
        return tuple(
            EngineDevice(
                name=name,
                description=description,
                total_bytes=int(total) * MIB,
                free_bytes=int(free) * MIB,
            )
            for name, description, total, free in _DEVICE.findall(self.ask("--list-devices"))
            if gpu_api(name) is not None
        )


def read_version(text: str) -> tuple[str, str | None]:
    """(version, llama.cpp commit) in what ``--version`` prints; a bare number is a build's."""
    found = _VERSION.search(text)
    if found is None:
        return " ".join(text.split())[:60] or "?", None
    version, commit = found.groups()
    return f"b{version}" if version.isdigit() else version, commit


def arguments(config: Config, installed: Installed) -> list[str]:
    """A configuration as options of this build, followed by the options that every run gets.

    Raises EngineError (CONSTRAINT) for a knob that the build cannot be told.
    """
    words = [
        "-c", str(config.n_ctx), "-np", str(config.n_parallel),
        "-t", str(config.n_threads), "-tb", str(config.n_threads_batch),
        "-b", str(config.n_batch), "-ub", str(config.n_ubatch),
        "-ctk", config.type_k, "-ctv", config.type_v,
    ]  # fmt: skip
    for translate in (_flash_attn, _load_mode, _placement):
        words += translate(config, installed)
    if config.swa_full and "--swa-full" in installed.names:  # before it, caches were always full
        words.append("--swa-full")
    for option in _PLAIN:
        words += option if option[0] in installed.names else ()
    if _TRACE_LEVEL.search(installed.help):
        words += ["-lv", "4"]
    return words


def _flash_attn(config: Config, installed: Installed) -> Sequence[str]:
    if _FLASH_ATTN_VALUE.search(installed.help):
        return ("-fa", config.flash_attn)
    if config.flash_attn == "auto":
        _refuse(installed, "flash_attn=auto", "on or off")
    return ("-fa",) if config.flash_attn == "on" else ()


def _load_mode(config: Config, installed: Installed) -> Sequence[str]:
    if "--load-mode" in installed.names:
        return ("--load-mode", LOAD_MODE_WORDS[config.use_mmap, config.use_mlock])
    return ("--no-mmap",) * (not config.use_mmap) + ("--mlock",) * config.use_mlock


def _placement(config: Config, installed: Installed) -> Sequence[str]:
    words = ["-ngl", str(config.n_gpu_layers if config.n_gpu_layers >= 0 else _ALL_LAYERS)]
    if config.n_gpu_layers:
        words += ["-sm", config.split_mode, "-mg", str(config.main_gpu)]
    if config.tensor_split:
        words += ["-ts", ",".join(f"{share:g}" for share in config.tensor_split)]
    if not config.offload_kqv:
        words.append("--no-kv-offload")
    if not config.op_offload:
        if "--no-op-offload" not in installed.names:
            _refuse(installed, "op_offload=false", "true")
        words.append("--no-op-offload")
    return words


def _refuse(installed: Installed, knob: str, instead: str) -> None:
    message = f"this {installed.path.name} knows no {knob}: use {instead}"
    raise EngineError(Reason.CONSTRAINT, message)
