"""llamafile: llama.cpp's server in one file that runs on every system, with or without a model.

Its flags and its wire are those of the server that it carries; only the first words differ.
"""

from __future__ import annotations

from pathlib import Path

from autotune.backends.llama_server import LlamaServerBackend, ServerSession
from autotune.backends.server_options import Installed
from autotune.domain.config import Config
from autotune.domain.machine import MachineFacts

_SUFFIX = ".llamafile"


class LlamafileBackend(LlamaServerBackend):
    """The program ``llamafile``: ``AUTOTUNE_LLAMAFILE``, else the one on ``PATH``.

    A model whose name ends in ``.llamafile`` is its own program.
    """

    name = "llamafile"
    variable = "AUTOTUNE_LLAMAFILE"
    words = ("--server", "--nobrowser")

    def default_config(self, *, n_ctx: int, machine: MachineFacts) -> Config:
        """``llamafile --server -m MODEL -c N``: as the server, without flash attention (0.9)."""
        return super().default_config(n_ctx=n_ctx, machine=machine).replace(flash_attn="off")

    def load(self, model_path: Path, config: Config) -> ServerSession:
        """Start a server on a model, or the model as a server."""
        if model_path.suffix == _SUFFIX:
            self._known = Installed(model_path.absolute(), self._environ)
        return super().load(model_path, config)

    def _model_words(self, model_path: Path) -> tuple[str, ...]:
        return () if model_path.suffix == _SUFFIX else super()._model_words(model_path)
