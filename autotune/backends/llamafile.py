"""llamafile: llama.cpp's server in one file that runs on every system, with or without a model.

Its flags and its wire are those of the server that it carries; only the first words differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from autotune.backends.llama_server import LlamaServerBackend
from autotune.domain.config import Config
from autotune.domain.machine import MachineFacts
from autotune.facts.gguf_header import LLAMAFILE


class LlamafileBackend(LlamaServerBackend):
    """The program ``llamafile``: ``AUTOTUNE_LLAMAFILE``, else the one on ``PATH``.

    A model whose name ends in ``.llamafile`` is its own program: see :func:`with_own_program`.
    """

    name = "llamafile"
    variable = "AUTOTUNE_LLAMAFILE"
    words = ("--server", "--nobrowser")

    def default_config(self, *, n_ctx: int, machine: MachineFacts) -> Config:
        """``llamafile --server -m MODEL -c N``: as the server, without flash attention (0.9)."""
        return super().default_config(n_ctx=n_ctx, machine=machine).replace(flash_attn="off")

    def _model_words(self, model_path: Path) -> tuple[str, ...]:
        return () if model_path.suffix == LLAMAFILE else super()._model_words(model_path)


def with_own_program(environ: Mapping[str, str], model_path: Path | None) -> Mapping[str, str]:
    """The environment of whoever runs a model: one that is a llamafile is that program there."""
    if model_path is None or model_path.suffix != LLAMAFILE:
        return environ
    return {**environ, LlamafileBackend.variable: str(model_path.absolute())}
