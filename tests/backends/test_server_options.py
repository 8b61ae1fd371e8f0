"""A configuration in the words of servers of different years, by their own help."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

import pytest

from autotune.backends.protocol import EngineError
from autotune.backends.server_options import Installed, arguments, read_version
from autotune.domain.config import Config
from autotune.domain.run import Reason

NEW = """\
-c,    --ctx-size N                     size of the prompt context
--swa-full                              use full-size SWA cache (default: false)
-fa,   --flash-attn [on|off|auto]       set Flash Attention use (default: 'auto')
-kvo,  --kv-offload, -nkvo, --no-kv-offload
-lm,   --load-mode MODE                 model loading mode (default: auto)
-fit,  --fit [on|off]                   whether to adjust unset arguments
--op-offload, --no-op-offload           whether to offload host operations
-lv,   --verbosity, --log-verbosity N   Set the verbosity threshold. Values:
                                         - 3: info
                                         - 4: trace (more info)
-cram, --cache-ram N                    set the maximum cache size in MiB
--ui,  --webui, --no-ui, --no-webui     whether to enable the Web UI (default: enabled)
"""
"""Of llama.cpp at 0c1e570, 2026; the descriptions are cut short."""
OLD = """\
  -fa,   --flash-attn             enable Flash Attention (default: disabled)
         --mlock                  force system to keep model in RAM
         --no-mmap                do not memory-map model
  -nkvo, --no-kv-offload          disable KV offload
"""
"""Of llama.cpp in 2024."""


class Recorded(Installed):
    """A program that only its help is left of."""

    def __init__(self, text: str) -> None:
        super().__init__(Path("llama-server"), {})
        self._text = text

    @cached_property
    def help(self) -> str:
        return self._text


def words(text: str, **knobs: object) -> str:
    """The options of a configuration, as one text."""
    return " ".join(arguments(Config(**knobs), Recorded(text)))  # type: ignore[arg-type]


def test_every_build_is_told_the_knobs_that_all_know() -> None:
    """Also those whose default is ours: other builds have other defaults."""
    for text in (NEW, OLD):
        told = words(text, n_ctx=1024, n_threads=3, n_threads_batch=4, n_batch=256, n_ubatch=64)
        assert "-c 1024 -np 1 -t 3 -tb 4 -b 256 -ub 64 -ctk f16 -ctv f16" in told
        assert "-ngl 0" in told
        assert "-ngl 999 -sm layer -mg 0" in words(text, n_gpu_layers=-1)
        assert words(text, tensor_split=(3.0, 1.0)).count("-ts 3,1") == 1
        assert "--no-kv-offload" in words(text, offload_kqv=False)


def test_flash_attention_is_a_word_or_a_switch() -> None:
    """``-fa off`` to an old build would name a file that is not there."""
    assert [f"-fa {value}" in words(NEW, flash_attn=value) for value in ("on", "off", "auto")] == [
        True, True, True,
    ]  # fmt: skip
    assert words(OLD, flash_attn="on").split().count("-fa") == 1
    assert "-fa on" not in words(OLD, flash_attn="on")
    assert "-fa" not in words(OLD, flash_attn="off").split()


def test_loading_has_a_mode_or_switches() -> None:
    """Neither build knows the other's."""
    assert "--load-mode none" in words(NEW, use_mmap=False)
    assert "--load-mode mmap+mlock" in words(NEW, use_mlock=True)
    assert "--no-mmap" in words(OLD, use_mmap=False)
    assert "--mlock" in words(OLD, use_mlock=True)
    assert "--load-mode" not in words(OLD)
    assert "mmap" not in words(OLD)


def test_what_a_build_does_not_know_it_is_not_told() -> None:
    """An unknown option would end it; what is extra goes only where it is known."""
    assert "--fit off" in words(NEW)
    assert "--cache-ram 0" in words(NEW)
    assert words(NEW).endswith("-lv 4")
    assert "--swa-full" in words(NEW, swa_full=True)
    assert "--swa-full" not in words(NEW, swa_full=False)
    for option in ("--fit", "--cache-ram", "-lv", "--swa-full", "--no-webui"):
        assert option not in words(OLD, swa_full=True)


@pytest.mark.parametrize(
    ("knobs", "cure"),
    [({"flash_attn": "auto"}, "use on or off"), ({"op_offload": False}, "use true")],
)
def test_a_knob_that_a_build_cannot_be_told_is_refused(knobs: dict[str, object], cure: str) -> None:
    """Rather than measured as something else."""
    assert words(NEW, **knobs)
    with pytest.raises(EngineError, match=cure) as caught:
        words(OLD, **knobs)
    assert caught.value.reason is Reason.CONSTRAINT


@pytest.mark.parametrize(
    ("text", "version", "commit"),
    [
        ("version: 0.5.0-dev (build 1, commit 0c1e570)\nbuilt with GNU 12", "0.5.0-dev", "0c1e570"),
        ("version: 5170 (658987cf)\nbuilt with cc", "b5170", "658987cf"),
        ("llamafile v0.9.3\n", "llamafile v0.9.3", None),
        ("", "?", None),
    ],
)
def test_versions_of_all_years_are_read(text: str, version: str, commit: str | None) -> None:
    """A build's number is marked as llama.cpp marks it."""
    assert read_version(text) == (version, commit)


def test_the_devices_of_a_program_are_its_gpus(tmp_path: Path) -> None:
    """Name, description and memory; the processor and its libraries are none."""
    script = tmp_path / "server"
    script.write_text(
        "#!/bin/sh\n[ $1 = --help ] && echo '--list-devices  print list' && exit\n"
        "echo 'Available devices:'\necho '  BLAS: OpenBLAS (0 MiB, 0 MiB free)'\n"
        "echo '  CUDA0: NVIDIA H100 80GB HBM3 (81008 MiB, 80400 MiB free)'\n"
    )
    script.chmod(0o755)
    (gpu,) = Installed(script, {}).gpus

    assert (gpu.name, gpu.description) == ("CUDA0", "NVIDIA H100 80GB HBM3")
    assert (gpu.total_bytes, gpu.free_bytes) == (81008 * 1024**2, 80400 * 1024**2)


def test_a_program_that_cannot_run_is_not_installed(tmp_path: Path) -> None:
    """As if it were missing, with the system's words."""
    broken = tmp_path / "llama-server"
    broken.write_bytes(b"\x7fELF not really")
    broken.chmod(0o755)
    with pytest.raises(ImportError, match="llama-server cannot be run"):
        _ = Installed(broken, {}).version


@pytest.mark.skipif(os.name != "posix", reason="the programs here are shell scripts")
@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'cannot open shared object file: libllama.so.0' >&2; exit 127", "libllama.so.0"),
        ("kill -ILL $$", "it ended with status -4"),
    ],
)
def test_a_program_that_cannot_tell_its_version_is_not_installed(
    tmp_path: Path, script: str, words: str
) -> None:
    """A library that it misses, or instructions that the processor has not, are no version."""
    broken = tmp_path / "llama-server"
    broken.write_text(f"#!/bin/sh\n{script}\n")
    broken.chmod(0o755)

    with pytest.raises(ImportError, match=f"llama-server cannot be run: .*{words}"):
        _ = Installed(broken, {}).version
