"""Exports read back, each by the rules of the program that they are for, into knobs of ours.

Written from the programs' own documents, without the code that writes exports.
"""

from __future__ import annotations

import ast
import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import llama_cpp

from autotune.recommend.export.program import Program


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What a program would learn from an export."""

    model: str
    knobs: Mapping[str, Any]
    notes: tuple[str, ...]


def read(program: Program, text: str, *, n_layers: int) -> Export:
    """An export as its program reads it; layers count the output layer, all of them is −1."""
    return _READERS[program](text, n_layers)


_FLAGS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "-c": ("n_ctx", int),
    "-b": ("n_batch", int),
    "-ub": ("n_ubatch", int),
    "-t": ("n_threads", int),
    "-tb": ("n_threads_batch", int),
    "-fa": ("flash_attn", str),
    "-ctk": ("type_k", str),
    "-ctv": ("type_v", str),
    "-lm": ("load_mode", str),
    "-ngl": ("n_gpu_layers", lambda word: -1 if word == "all" else int(word)),
    "-sm": ("split_mode", str),
    "-mg": ("main_gpu", int),
    "-ts": ("tensor_split", lambda word: tuple(map(float, word.split(",")))),
    "-np": ("n_parallel", int),
    "-m": ("model", str),
}
_SWITCHES = {
    "-kvo": ("offload_kqv", True),
    "-nkvo": ("offload_kqv", False),
    "--op-offload": ("op_offload", True),
    "--no-op-offload": ("op_offload", False),
    "--swa-full": ("swa_full", True),
}
_VARIABLES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "LLAMA_ARG_MODEL": ("model", str),
    "LLAMA_ARG_CTX_SIZE": _FLAGS["-c"],
    "LLAMA_ARG_BATCH": _FLAGS["-b"],
    "LLAMA_ARG_UBATCH": _FLAGS["-ub"],
    "LLAMA_ARG_THREADS": _FLAGS["-t"],
    "LLAMA_ARG_FLASH_ATTN": _FLAGS["-fa"],
    "LLAMA_ARG_CACHE_TYPE_K": _FLAGS["-ctk"],
    "LLAMA_ARG_CACHE_TYPE_V": _FLAGS["-ctv"],
    "LLAMA_ARG_LOAD_MODE": _FLAGS["-lm"],
    "LLAMA_ARG_N_GPU_LAYERS": _FLAGS["-ngl"],
    "LLAMA_ARG_SPLIT_MODE": _FLAGS["-sm"],
    "LLAMA_ARG_MAIN_GPU": _FLAGS["-mg"],
    "LLAMA_ARG_TENSOR_SPLIT": _FLAGS["-ts"],
    "LLAMA_ARG_N_PARALLEL": _FLAGS["-np"],
    "LLAMA_ARG_KV_OFFLOAD": ("offload_kqv", lambda word: bool(int(word))),
    "LLAMA_ARG_SWA_FULL": ("swa_full", lambda word: bool(int(word))),
}


def _command(text: str, _n_layers: int) -> Export:
    words = iter(shlex.split(text, comments=True))
    found: dict[str, Any] = {"tensor_split": None}
    program = next(words)
    if program == "llamafile":
        assert next(words) == "--server"
    for word in words:
        if word in _SWITCHES:
            knob, found[knob] = _SWITCHES[word][0], _SWITCHES[word][1]
        else:
            knob, parse = _FLAGS[word]
            found[knob] = parse(next(words))
    return _export(found, _comments(text))


def _environment(text: str, _n_layers: int) -> Export:
    found: dict[str, Any] = {"tensor_split": None}
    for word in shlex.split(text, comments=True):
        name, _, value = word.partition("=")
        knob, parse = _VARIABLES[name]
        found[knob] = parse(value)
    return _export(found, _comments(text))


def _python(text: str, _n_layers: int) -> Export:
    (call,) = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
    found = {str(word.arg): _evaluated(word.value) for word in call.keywords}
    types = {getattr(llama_cpp, name): name for name in dir(llama_cpp) if "GGML_TYPE_" in name}
    for knob in ("type_k", "type_v"):
        found[knob] = types.get(found[knob], "GGML_TYPE_BF16").removeprefix("GGML_TYPE_").lower()
    found["split_mode"] = ("none", "layer", "row", "tensor")[found["split_mode"]]
    found["flash_attn"] = "on" if found["flash_attn"] else "off"
    found["tensor_split"] = tuple(found["tensor_split"] or ())
    return _export({**found, "model": found["model_path"]}, _comments(text))


def _evaluated(node: ast.expr) -> Any:
    if isinstance(node, ast.Attribute):
        return getattr(llama_cpp, node.attr)
    return ast.literal_eval(node)


def _ollama(text: str, n_layers: int) -> Export:
    ((_, model), *parameters) = read_modelfile(text)
    said = dict(words.split(" ", 1) for _, words in parameters)
    n_gpu_layers = int(said["num_gpu"])
    return Export(
        model=model,
        knobs={
            "n_ctx": int(said["num_ctx"]),
            "n_ubatch": int(said["num_batch"]),
            "n_threads": int(said["num_thread"]),
            "n_gpu_layers": -1 if n_gpu_layers > n_layers else n_gpu_layers,
            "main_gpu": int(said["main_gpu"]),
            "use_mmap": said["use_mmap"] == "true",
        },
        notes=_comments(text),
    )


def read_modelfile(text: str) -> list[tuple[str, str]]:
    """(instruction, argument) pairs by the rules of Ollama's parser.

    What does not print is dropped; an argument ends with its line, unless it began with quotes
    that are still open. Raises ValueError for quotes that are never closed.
    """
    return list(_instructions(text.replace("\r", "\n")))


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    while text := text.lstrip(" \t\n"):
        if text.startswith("#"):
            text = text.partition("\n")[2]
            continue
        name, _, rest = text.partition(" ")
        length, argument = _argument(rest)
        yield name, argument
        text = rest[length:]


def _argument(text: str) -> tuple[int, str]:
    """(characters read, argument) of what follows an instruction."""
    ends = [at for at, character in enumerate(text) if character == "\n"]
    for end in (*ends, len(text)):
        heard = "".join(c for c in text[:end] if c.isprintable() or c in "\t\n").strip()
        for quotes in ('"""', '"'):
            if heard.startswith(quotes):
                is_closed = len(heard) >= 2 * len(quotes) and heard.endswith(quotes)
                break
        else:
            return end, heard
        if is_closed:
            return end, heard[len(quotes) : -len(quotes)]
    raise ValueError(f"open quotes: {text!r}")


def _lmstudio(text: str, n_layers: int) -> Export:
    document = json.loads(text)
    said = {field["key"]: field["value"] for field in document["load"]["fields"]}
    ratio = said["llm.load.llama.acceleration.offloadRatio"]
    found: dict[str, Any] = {
        "n_ctx": said["llm.load.contextLength"],
        "n_parallel": said["llm.load.numParallelSessions"],
        "offload_kqv": said["llm.load.offloadKVCacheToGpu"],
        "n_threads": said["llm.load.llama.cpuThreadPoolSize"],
        "n_batch": said["llm.load.llama.evalBatchSize"],
        "n_ubatch": said["llm.load.llama.physicalBatchSize"],
        "flash_attn": "on" if said["llm.load.llama.flashAttention"] else "off",
        "use_mmap": said["llm.load.llama.tryMmap"],
        "use_mlock": said["llm.load.llama.keepModelInMemory"],
        "n_gpu_layers": -1 if ratio == 1 else round(ratio * (n_layers + 1)),
    }
    for letter in "kv":
        cache = said.get(f"llm.load.llama.{letter}CacheQuantizationType")
        if cache is not None:
            assert cache["checked"] is True
            found[f"type_{letter}"] = cache["value"]
    if "load.gpuSplitConfig" in said:
        assert said["load.gpuSplitConfig"]["strategy"] == "custom"
        found["tensor_split"] = tuple(said["load.gpuSplitConfig"]["customRatio"])
    return Export(model=document["model"], knobs=found, notes=tuple(document["note"]))


def _json(text: str, _n_layers: int) -> Export:
    document = json.loads(text)
    knobs = dict(document["config"])
    knobs["tensor_split"] = tuple(knobs["tensor_split"] or ())
    return Export(model=document["model"], knobs=knobs, notes=())


def _comments(text: str) -> tuple[str, ...]:
    """The comments above the first line that is none."""
    lines = text.splitlines()
    above = next(at for at, line in enumerate(lines) if not line.startswith("#"))
    return tuple(line.removeprefix("# ") for line in lines[:above])


def _export(found: dict[str, Any], notes: tuple[str, ...]) -> Export:
    model = found.pop("model")
    if mode := found.pop("load_mode", None):
        found |= {"use_mmap": "mmap" in mode, "use_mlock": "mlock" in mode}
    return Export(model=model, knobs=found, notes=notes)


_READERS: dict[Program, Callable[[str, int], Export]] = {
    Program.LLAMA_SERVER: _command,
    Program.LLAMAFILE: _command,
    Program.ENV: _environment,
    Program.LLAMA_CPP_PYTHON: _python,
    Program.OLLAMA: _ollama,
    Program.LMSTUDIO: _lmstudio,
    Program.JSON: _json,
}
