"""The devices that the installed ggml can compute on, asked through its own registry."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autotune.facts.gpu import EngineDevice

_GPU_TYPES = frozenset({1, 2})
"""ggml_backend_dev_type: 0 processor, 1 GPU, 2 GPU that shares the host's memory, 3 accelerator."""


class GGMLDevices:
    """ggml's device registry, inside the libraries that llama-cpp-python has loaded."""

    def __init__(self, llama: Any) -> None:
        # Two libraries: the registry is in one, the devices' getters are in the other.
        self._registry = _library(llama, "ggml")
        self._base = _library(llama, "ggml-base")
        self._registry.ggml_backend_dev_count.restype = ctypes.c_size_t
        self._registry.ggml_backend_dev_get.restype = ctypes.c_void_p
        self._registry.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
        for name in ("ggml_backend_dev_name", "ggml_backend_dev_description"):
            getattr(self._base, name).restype = ctypes.c_char_p
            getattr(self._base, name).argtypes = [ctypes.c_void_p]
        self._base.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
        self._base.ggml_backend_dev_memory.restype = None
        self._base.ggml_backend_dev_memory.argtypes = [
            ctypes.c_void_p,
            ctypes.POINTER(ctypes.c_size_t),
            ctypes.POINTER(ctypes.c_size_t),
        ]
        self._base.ggml_commit.restype = ctypes.c_char_p

    def names(self) -> tuple[str, ...]:
        """Every device, such as ``CPU`` and ``CUDA0``."""
        return tuple(self._base.ggml_backend_dev_name(device).decode() for device in self._all())

    def gpus(self) -> tuple[EngineDevice, ...]:
        """The GPUs among them, with their memory."""
        return tuple(
            self._device(device)
            for device in self._all()
            if self._base.ggml_backend_dev_type(device) in _GPU_TYPES
        )

    def commit(self) -> str | None:
        """ggml's revision."""
        commit = self._base.ggml_commit()
        return commit.decode() if commit else None

    def _all(self) -> Iterator[int]:
        for index in range(self._registry.ggml_backend_dev_count()):
            yield self._registry.ggml_backend_dev_get(index)

    def _device(self, device: int) -> EngineDevice:
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._base.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
        return EngineDevice(
            name=self._base.ggml_backend_dev_name(device).decode(),
            description=self._base.ggml_backend_dev_description(device).decode(),
            total_bytes=total.value,
            free_bytes=free.value,
        )


def _library(llama: Any, name: str) -> ctypes.CDLL:
    """One of the ggml libraries beside llama-cpp-python."""
    from llama_cpp._ctypes_extensions import load_shared_library

    library: ctypes.CDLL = load_shared_library(name, Path(llama.__file__).parent / "lib")
    return library
