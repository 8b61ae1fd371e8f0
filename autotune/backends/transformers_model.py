"""A model that transformers has de-quantised, and how tokens are computed in it."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autotune.backends.protocol import EngineError
from autotune.backends.transformers_library import Libraries
from autotune.domain.config import Config
from autotune.domain.run import Reason
from autotune.facts.dequantised import refuse, runs_on_gpu

_DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
_ATTENTION = {"off": "eager", "on": "sdpa", "auto": None}
"""None lets transformers choose: fused where the architecture can, else eager."""


class TorchModel:
    """Weights on one device, all of them in one floating type."""

    def __init__(self, libraries: Libraries, path: Path, config: Config) -> None:
        self._libraries, self._torch = libraries, libraries.torch
        self._config = config
        self.device = _device(libraries, config)
        self._model = self._read(path)
        forward = inspect.signature(self._model.forward).parameters
        self._extra = {"logits_to_keep": 1} if "logits_to_keep" in forward else {}
        # Its name since transformers 5.24; other models and versions keep the older one.
        self._cache_word = "cache" if "cache" in forward else "past_key_values"

    def _read(self, path: Path) -> Any:
        what = f"transformers cannot load {path.name}"
        try:
            model, found = self._libraries.transformers.AutoModelForCausalLM.from_pretrained(
                str(path.parent),
                gguf_file=path.name,
                local_files_only=True,
                dtype=getattr(self._torch, _DTYPES[self._config.type_k]),
                attn_implementation=_ATTENTION[self._config.flash_attn],
                device_map=None if self.device == "cpu" else {"": self.device},
                output_loading_info=True,
                **self._unpacked(),
            )
        except Exception as error:  # a library of many authors raises whatever it likes
            raise self._libraries.failure(Reason.LOAD_ERROR, what, error) from error
        if missing := sorted(found["missing_keys"]):
            # It would go on with random weights in their place.
            message = f"{what}: it finds no {missing[0]} in the file ({len(missing)} are missing)"
            raise EngineError(Reason.UNSUPPORTED, message)
        return model.eval()

    def _unpacked(self) -> dict[str, Any]:
        """Newer versions keep the weights packed where a hub has kernels for it: they need not."""
        kind = getattr(self._libraries.transformers, "GgufConfig", None)
        return {"quantization_config": kind(dequantize=True)} if kind else {}

    @property
    def n_vocab(self) -> int:
        """Words that have an embedding."""
        return int(self._model.get_input_embeddings().weight.shape[0])

    @property
    def n_layers(self) -> int:
        """Layers, the output layer not counted."""
        return int(self._model.config.get_text_config().num_hidden_layers)

    @property
    def n_bytes(self) -> int:
        """Bytes of all weights; one that two layers share counts once."""
        return sum(weight.numel() * weight.element_size() for weight in self._model.parameters())

    @property
    def is_fused(self) -> bool:
        """Whether attention is computed by PyTorch's fused kernels."""
        return bool(self._model.config._attn_implementation == "sdpa")

    @property
    def first_token(self) -> int:
        """The start of text, or word 0 in a vocabulary without one."""
        return int(getattr(self._model.config, "bos_token_id", None) or 0)

    @property
    def ends(self) -> set[int]:
        """The tokens that end a text, as far as the model's own settings name them."""
        named = (self._model.config, self._model.generation_config)
        found = [getattr(settings, "eos_token_id", None) for settings in named]
        lists = [ids if isinstance(ids, list) else [ids] for ids in found]
        return {int(token) for ids in lists for token in ids if token is not None}

    def new_cache(self) -> Any:
        """An empty cache, which grows with its tokens.

        ``swa_full`` keeps every token of the layers with a sliding window; otherwise they keep
        their window, as transformers does when nothing is set.
        """
        kind = self._libraries.transformers.DynamicCache
        cache = kind(config=self._model.config)
        if self._config.swa_full and self._is_plain(cache):
            return kind()
        return cache

    def _is_plain(self, cache: Any) -> bool:
        """Whether every layer keeps keys and values, and nothing else."""
        plain = self._libraries.transformers.cache_utils.DynamicLayer
        return all(isinstance(layer, plain) for layer in cache.layers)

    def copy_cache(self, cache: Any) -> Any:
        """A cache of the same content, which grows on its own."""
        return copy.deepcopy(cache)

    def cut_cache(self, cache: Any, n_kept: int) -> bool:
        """Shorten a cache to its first tokens. False leaves it useless: it cannot be shortened.

        A window may have dropped what lies before it; a recurrent state cannot go back.
        """
        surplus = cache.get_seq_length() - n_kept
        if surplus == 0:
            return True
        if not self._is_plain(cache):
            return False
        try:
            cache.crop(-surplus)
        except (RuntimeError, ValueError):
            return False
        return bool(cache.get_seq_length() == n_kept)

    def compute(self, tokens: Sequence[int], cache: Any) -> Any:
        """Logits after the last token, float32 on the device, shape (n_vocab,).

        The cache grows by the tokens; nothing is waited for. Raises EngineError.
        """
        ids = self._torch.tensor([list(tokens)], device=self.device)
        try:
            told = {self._cache_word: cache, **self._extra}
            out = self._model(input_ids=ids, use_cache=True, **told)
        except Exception as error:
            what = "transformers failed to compute"
            raise self._libraries.failure(Reason.CRASH, what, error) from error
        return out.logits[0, -1].float()

    def wait(self) -> None:
        """Until everything is computed."""
        if self.device != "cpu":
            self._torch.cuda.synchronize(self.device)

    def set_threads(self, n_threads: int) -> None:
        """How many threads the processor computes with from now on, in this whole process."""
        self._torch.set_num_threads(n_threads)

    def close(self) -> None:
        """Give the weights back."""
        self._model = None
        if self.device != "cpu":
            self._torch.cuda.empty_cache()


def _device(libraries: Libraries, config: Config) -> str:
    """PyTorch's name of the device. Raises EngineError for knobs that cannot be obeyed."""
    for problem in refuse(config):
        raise EngineError(Reason.CONSTRAINT, f"transformers {problem}")
    n_gpus = libraries.torch.cuda.device_count()
    if not runs_on_gpu(config) or not n_gpus:
        return "cpu"  # as llama.cpp, which puts all layers on the GPUs that there are
    if config.main_gpu >= n_gpus:
        message = f"main_gpu={config.main_gpu} is not there: PyTorch sees {n_gpus} GPUs, from 0"
        raise EngineError(Reason.CONSTRAINT, message)
    return f"cuda:{config.main_gpu}"
