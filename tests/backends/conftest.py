"""What several files of tests share, because it takes long to make."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from autotune.backends.protocol import Session
from autotune.backends.registry import get_backend
from autotune.domain.config import Config


@pytest.fixture(scope="package")
def unpacked_smollm2(smollm2_path: Path) -> Iterator[Session]:
    """SmolLM2 in transformers, which unpacks every weight of it, with a small context."""
    pytest.importorskip("transformers", reason="pip install -e '.[test]'")
    config = Config(n_ctx=512, n_batch=128, n_ubatch=128, type_k="f32", type_v="f32")
    session = get_backend("transformers", {}).load(smollm2_path, config)
    yield session
    session.close()
