"""The keys of one GGUF header, read under the model's architecture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autotune.domain.errors import GGUFError
from autotune.facts.gguf_header import Header, Value

_MAX_LAYERS = 512
"""LLAMA_MAX_LAYERS of llama.cpp; a damaged count must not fill the memory."""


@dataclass(frozen=True, slots=True)
class Keys:
    """``{architecture}.NAME`` by NAME. What the engine could not read either is a GGUFError."""

    path: Path
    header: Header

    @property
    def architecture(self) -> str:
        """``general.architecture``."""
        architecture = self.header.values.get("general.architecture")
        if not isinstance(architecture, str):
            raise self.lacking("general.architecture")
        return architecture

    @property
    def n_layers(self) -> int:
        """Layers in the file, next-token-prediction layers included."""
        n_layers = self.required("block_count")
        if n_layers > _MAX_LAYERS:
            raise self.wrong("block_count", n_layers, f"llama.cpp allows {_MAX_LAYERS}")
        return n_layers

    @property
    def n_trunk(self) -> int:
        """Layers that every token passes; next-token-prediction layers come after them."""
        return max(self.n_layers - self.integer("nextn_predict_layers"), 0)

    def get(self, name: str, default: Value) -> Value:
        """The value as it is."""
        return self.header.values.get(f"{self.architecture}.{name}", default)

    def integer(self, name: str, default: int = 0) -> int:
        """A number; of a list that has one per layer, the largest."""
        value = self.get(name, default)
        numbers = value if isinstance(value, tuple) else (value,)
        whole = [number for number in numbers if isinstance(number, int) and number >= 0]
        if len(whole) != len(numbers) or not whole:
            raise self.wrong(name, value, "not a count")
        return max(whole)

    def required(self, name: str) -> int:
        """A number above 0 that every language model has."""
        if self.get(name, 0) == 0:
            raise self.lacking(f"{self.architecture}.{name}")
        return self.integer(name)

    def per_layer(self, name: str, default: int = 0) -> tuple[int, ...]:
        """One number for each layer; shape (n_layers,)."""
        numbers = self.listed(name)
        return (self.integer(name, default),) * self.n_layers if numbers is None else numbers

    def listed(self, name: str) -> tuple[int, ...] | None:
        """The numbers of a list with one for each layer; None if the key is no list."""
        value = self.get(name, 0)
        if not isinstance(value, tuple):
            return None
        if len(value) != self.n_layers:
            raise self.wrong(name, f"{len(value)} values", f"there are {self.n_layers} layers")
        self.integer(name)  # refuses what is not a count
        return tuple(int(item) for item in value)

    def wrong(self, name: str, value: object, problem: str) -> GGUFError:
        """The error for a value that no engine could use."""
        return GGUFError(
            f"{self.path}: {self.architecture}.{name} is {value!r}, {problem}: "
            "convert or download the model again"
        )

    def lacking(self, key: str) -> GGUFError:
        """The error for a file that is GGUF but no language model."""
        return GGUFError(
            f"{self.path}: no key {key!r}, so it is not a language model (a projector, adapter or "
            "vocabulary file?): give the model's own file"
        )
