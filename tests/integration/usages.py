"""Uses of models, as the store gives them."""

from __future__ import annotations

from typing import Any

from autotune.domain.config import Config
from autotune.store.usage import Usage
from tests.factories import STARTED_AT


def make_usage(**changes: Any) -> Usage:
    """A clean, successful run of the library."""
    defaults: dict[str, Any] = {
        "run_id": 1,
        "machine_id": "feedfacefeedface",
        "model_id": "0123456789abcdef",
        "model_name": "tiny",
        "backend": "llama-cpp-python",
        "config": Config(),
        "started_at": STARTED_AT,
        "model_path": None,
        "reason": None,
        "load_s": 0.2,
        "memory_bytes": 100 * 1024**2,
        "prefill_tps": 500.0,
        "decode_tps": 50.0,
        "contamination": (),
        "is_reported": False,
        "success_ratio": 1.0,
    }
    values = {**defaults, **changes}
    return Usage(**{"is_spoilt": bool(values["contamination"]), **values})
