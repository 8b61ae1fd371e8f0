"""The programs that an advised configuration can be exported to."""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import assert_never

from autotune.domain.engine import LLAMA_CPP, engine_of
from autotune.domain.errors import UserError
from autotune.domain.model import ModelFacts
from autotune.domain.stored import StoredRecommendation
from autotune.recommend.export.llama_cpp_python import python_snippet
from autotune.recommend.export.llama_server import (
    llamafile_command,
    server_command,
    server_environment,
)
from autotune.recommend.export.lmstudio import preset
from autotune.recommend.export.notes import commented
from autotune.recommend.export.ollama import modelfile


class Program(enum.StrEnum):
    """What reads the export."""

    LLAMA_SERVER = "llama-server"
    """A command line."""
    LLAMA_CPP_PYTHON = "llama-cpp-python"
    """Python code."""
    LLAMAFILE = "llamafile"
    """A command line."""
    OLLAMA = "ollama"
    """A Modelfile."""
    LMSTUDIO = "lmstudio"
    """A preset, JSON."""
    ENV = "env"
    """llama-server's environment variables."""
    JSON = "json"
    """The advice itself, for programs of one's own."""


def export(program: Program, advice: StoredRecommendation, *, path: Path, model: ModelFacts) -> str:
    """The advised configuration of the model at ``path`` as text that the program reads.

    Every knob is in it: as the program's own setting, or named in a comment (in JSON: under
    ``note``) where the program has none. Text formats are as encodable as ``path`` is; JSON is
    ASCII. Raises UserError for a path that the program's format cannot hold, and for advice that is
    another engine's than the program's.
    """
    config, origin = advice.config, _origin(advice)
    if program is not Program.JSON and engine_of(advice.backend) is not LLAMA_CPP:
        raise UserError(
            f"the advice is for {advice.backend}, which {program} does not run: take --format "
            f"{Program.JSON}, or run autotune tune MODEL for llama.cpp first"
        )
    match program:
        case Program.JSON:
            return _document(advice, path, model)
        case Program.LMSTUDIO:
            return preset(path, config, model, notes=[origin])
        case Program.LLAMA_SERVER:
            text = server_command(path, config, slides=model.slides)
        case Program.LLAMAFILE:
            text = llamafile_command(path, config, slides=model.slides)
        case Program.ENV:
            text = server_environment(path, config, slides=model.slides)
        case Program.LLAMA_CPP_PYTHON:
            text = python_snippet(path, config)
        case Program.OLLAMA:
            text = modelfile(path, config, n_layers=model.n_layers)
        case _:
            assert_never(program)
    return commented([origin], text) + "\n"


def _origin(advice: StoredRecommendation) -> str:
    """Where the configuration comes from, in words of our own: this becomes a comment, and what a
    file calls itself could end one.
    """
    on = advice.workload.label
    if not advice.is_measured:
        return f"autotune: predicted for {on}, not measured against the default"
    if advice.speedup is None:
        return (
            f"autotune: measured on {on}, where the default does not run, study {advice.study_id}"
        )
    gain = f"{advice.speedup:.2f} times the speed of the default"
    return f"autotune: measured {gain} on {on}, study {advice.study_id}"


def _document(advice: StoredRecommendation, path: Path, model: ModelFacts) -> str:
    document = {
        "model": str(path),
        "model_id": model.model_id,
        "backend": advice.backend,
        "config": advice.config.as_dict(),
        "target": advice.target.value,
        "workload": advice.workload.label,
        "evidence": "study" if advice.is_measured else "prediction",
        "speedup": advice.speedup,
        "confidence": advice.confidence,
        "reasons": list(advice.reasons),
        "study_id": advice.study_id,
        "made_at": advice.made_at.isoformat(),
    }
    return json.dumps(document, indent=2) + "\n"
