"""The engine's own dry run of many configurations, as a program of its own.

``python dry_run.py MODEL < CONFIGS``: one JSON object per line in (the knobs of a Config), one out
(MiB by component, or an error). Nothing is allocated and no weight is read.
"""

from __future__ import annotations

import ctypes
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "bf16": 30}
_FLASH = {"off": 0, "on": 1, "auto": -1}
_PATTERNS = {
    "kv": r": size = *([\d.]+) MiB \( *\d+ cells, *\d+ layers, .*K \(",
    "recurrent": r"RS buffer size = *([\d.]+) MiB",
    "compute": r"compute buffer size = *([\d.]+) MiB",
    "output": r"output buffer size = *([\d.]+) MiB",
}


def dry_run(model: Path, configs: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """MiB by component for each configuration, from a fresh child process."""
    lines = "\n".join(map(json.dumps, configs))
    command = [sys.executable, __file__, str(model)]
    child = subprocess.run(command, input=lines, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    return [json.loads(line) for line in child.stdout.splitlines()]


def main() -> None:
    """Answer the configurations on standard input."""
    import llama_cpp

    log: list[str] = []

    @llama_cpp.llama_log_callback
    def keep(_level: int, text: bytes, _data: object) -> None:
        log.append(text.decode(errors="replace"))

    llama_cpp.llama_log_set(keep, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    model_params = llama_cpp.llama_model_default_params()
    model_params.no_alloc = True
    model_params.load_mode = llama_cpp.LLAMA_LOAD_MODE_NONE
    model_params.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(sys.argv[1].encode(), model_params)
    if not model:
        sys.exit("".join(log)[-2000:])
    for line in sys.stdin:
        log.clear()
        context = llama_cpp.llama_init_from_model(model, _params(json.loads(line)))
        if not context:
            sys.exit("".join(log)[-2000:])
        llama_cpp.llama_free(context)
        text = "".join(log)
        sizes = {name: sum(map(float, re.findall(p, text))) for name, p in _PATTERNS.items()}
        sys.stdout.write(json.dumps(sizes) + "\n")


def _params(config: dict[str, Any]) -> Any:
    import llama_cpp

    params = llama_cpp.llama_context_default_params()
    for name in ("n_ctx", "n_batch", "n_ubatch", "swa_full"):
        setattr(params, name, config[name])
    params.n_seq_max = config["n_parallel"]
    params.flash_attn_type = _FLASH[config["flash_attn"]]
    params.type_k, params.type_v = _TYPES[config["type_k"]], _TYPES[config["type_v"]]
    return params


if __name__ == "__main__":
    main()
