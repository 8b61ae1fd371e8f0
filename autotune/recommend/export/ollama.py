"""A configuration for Ollama: a Modelfile, and what belongs to the server's environment.

Parameters, variables and the file's grammar are those of Ollama's ``api/types.go``, ``envconfig``
and ``parser/parser.go``.
"""

from __future__ import annotations

from pathlib import Path

from autotune.domain.config import Config
from autotune.domain.errors import UserError
from autotune.recommend.export.notes import commented, named

_KV_TYPES = ("f16", "q8_0", "q4_0")
_NO_WORD = ("use_mlock", "offload_kqv", "op_offload", "split_mode", "tensor_split", "swa_full")


def modelfile(model: Path, config: Config, *, n_layers: int) -> str:
    """A Modelfile for ``ollama create NAME -f FILE``; ``n_layers``: of the model.

    Raises UserError for a path that a Modelfile cannot hold.
    """
    parameters: dict[str, object] = {
        "num_ctx": max(config.n_ctx // config.n_parallel, 1),
        "num_batch": config.n_ubatch,
        "num_thread": config.n_threads,
        # -1 would let Ollama guess by free memory; the output layer is one of ours.
        "num_gpu": n_layers + 1 if config.n_gpu_layers == -1 else config.n_gpu_layers,
        "main_gpu": config.main_gpu,
        "use_mmap": str(config.use_mmap).lower(),
    }
    lines = [f"FROM {_quoted(str(model))}"]
    lines += [f"PARAMETER {name} {value}" for name, value in parameters.items()]
    return commented(_notes(config), "\n".join(lines))


def _notes(config: Config) -> list[str]:
    return [
        f"n_ctx={config.n_ctx}: num_ctx is what each of n_parallel={config.n_parallel} requests "
        f"gets: start ollama serve with OLLAMA_NUM_PARALLEL={config.n_parallel}",
        _flash_attention(config.flash_attn),
        _cache_type(config),
        f"{named(config, 'n_batch')}: num_batch is the physical batch, n_ubatch",
        f"{named(config, 'n_threads_batch')}: num_thread serves prompts too",
        f"no parameter: {named(config, *_NO_WORD)}",
    ]


def _flash_attention(flash_attn: str) -> str:
    if flash_attn == "auto":
        return "flash_attn=auto: leave OLLAMA_FLASH_ATTENTION unset"
    value = int(flash_attn == "on")
    return f"flash_attn={flash_attn}: start ollama serve with OLLAMA_FLASH_ATTENTION={value}"


def _cache_type(config: Config) -> str:
    said = named(config, "type_k", "type_v")
    if config.type_k == config.type_v and config.type_k in _KV_TYPES:
        return f"{said}: start ollama serve with OLLAMA_KV_CACHE_TYPE={config.type_k}"
    return f"{said}: OLLAMA_KV_CACHE_TYPE takes one of {', '.join(_KV_TYPES)} for both"


def _quoted(path: str) -> str:
    '''A path as an argument: bare, or in ``"""`` where a bare one would be read otherwise.

    Ollama drops characters that do not print, trims, unquotes, and ends a quoted argument at the
    first line that ends with the closing quotes.
    '''
    lines = path.replace("\r", "\n").split("\n")
    prints = all(line.replace("\t", "").isprintable() for line in lines)
    if not prints or any(line.rstrip().endswith('"""') for line in lines[:-1]):
        raise UserError(f"a Modelfile cannot name {path!r}: rename or link the file")
    is_bare = len(lines) == 1 and path == path.strip() and not path.startswith('"')
    return path if is_bare else f'"""{path}"""'
