"""The engines that are programs: where a test finds llama.cpp's server, and a llamafile around it.

A llamafile of 0.9 is the server of 2024 behind words of its own. The one written here keeps to its
calling convention, refuses what it would refuse, and hands the work to the real server.
"""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

_NATIVE = Path(__file__).parent.parent.parent / ".native" / "bin"
_LLAMAFILE = '''\
#!{python} -IS
import os, sys

HELP = """\\
usage: llamafile [options]
  -m FNAME, --model FNAME    model path
  -c N, --ctx-size N         size of the prompt context
  -np N, --parallel N        number of slots
  -t N, --threads N          number of threads
  -tb N, --threads-batch N   number of threads in prefill
  -b N, --batch-size N       logical batch
  -ub N, --ubatch-size N     physical batch
  -fa, --flash-attn          enable Flash Attention (default: disabled)
  -ctk TYPE, --cache-type-k TYPE
  -ctv TYPE, --cache-type-v TYPE
  -ngl N, --n-gpu-layers N   layers on the GPU
  -nkvo, --no-kv-offload     keep the cache in memory
  -a ALIAS, --alias ALIAS    name of the model
  --mlock                    keep the model in memory
  --no-mmap                  copy the model
  --host HOST, --port PORT   where to listen
"""
VALUES = set("-m -c -np -t -tb -b -ub -ctk -ctv -ngl --alias --host --port".split())
SWITCHES = set("-fa --no-kv-offload --mlock --no-mmap".split())
NEW = {{"--no-mmap": ["-lm", "none"], "--mlock": ["-lm", "mmap+mlock"], "-fa": ["-fa", "on"]}}

words = sys.argv[1:]
if words == ["--version"]:
    sys.exit(print("llamafile v0.9.3"))
if words == ["--help"]:
    sys.exit(print(HELP))
if words[:2] != ["--server", "--nobrowser"]:
    sys.exit("error: this test only knows the server")
command = [{server!r}, "--no-webui", "-cram", "0", "--fit", "off", "-lv", "4"]
command += {embedded!r} + (["-fa", "off"] if "-fa" not in words else [])
words = words[2:]
while words:
    option = words.pop(0)
    if option in VALUES:
        command += [option, words.pop(0)]
    elif option in SWITCHES:
        command += NEW.get(option, [option])
    else:
        sys.exit(f"error: unknown argument: {{option}}")
os.execv(command[0], command)
'''


def find_server() -> Path:
    """The real llama-server; the test is skipped where there is none."""
    found = shutil.which("llama-server") or shutil.which("llama-server", path=str(_NATIVE))
    if found is None:
        pytest.skip("llama-server is not here: make native builds it")
    return Path(found)


def write_llamafile(path: Path, *, model: Path | None = None) -> Path:
    """A llamafile, with a model inside it or without."""
    if os.name != "posix":
        pytest.skip("the stand-in for llamafile is a script")
    text = _LLAMAFILE.format(
        python=sys.executable,
        server=str(find_server()),
        embedded=["-m", str(model)] if model else [],
    )
    if model is None:
        path.write_text(text)
    else:  # as a real one does, it holds the model as it is in the archive behind the program
        first, program = text.split("\n", 1)
        path.write_text(first + "\n")
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("__main__.py", program)
            archive.write(model, model.name)
    path.chmod(0o755)
    return path


def environ_with(**settings: object) -> Mapping[str, str]:
    """The environment with some settings, and without an engine on ``PATH``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AUTOTUNE_")}
    return {**kept, **{name: str(value) for name, value in settings.items()}}
