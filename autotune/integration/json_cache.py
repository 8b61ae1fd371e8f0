"""``model_performance_cache.json`` of the original application, read into the store."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from autotune.domain.errors import AutotuneError, DataError
from autotune.store.importers import app_cache
from autotune.store.importers.files import read_file
from autotune.store.store import Store

_log = logging.getLogger(__name__)


def import_json_cache(store: Store, path: Path | None) -> None:
    """Import what a JSON cache tells and the store does not know yet; a missing one tells nothing.

    The file stays as it is. What it tells of a machine is a stranger's: nobody says on which it was
    measured. Raises DataError for a file that is no such cache. A store that cannot be written goes
    without, with a warning.
    """
    if path is None or not path.exists():
        return
    if not _has_records(path):
        return
    told = read_file(path)
    for problem in told.problems:
        _log.warning("%s: %s", path, problem)
    try:
        imported = store.import_tests(told.tests)
    except AutotuneError as error:
        _log.warning("%s is not imported: %s", path, error)
        return
    _log.info("%s: %s records imported, %s known", path, imported.n_added, imported.n_known)


def _has_records(path: Path) -> bool:
    """Whether there is anything in it. Raises DataError for a file that is not JSON."""
    try:
        text = path.read_text(encoding="utf-8")
        empty = not any(json.loads(text).values()) if text.strip() else True
    except (OSError, ValueError, RecursionError, AttributeError) as error:
        raise DataError(
            f"{path} is no performance cache ({type(error).__name__}): "
            "move it away or give another cache_file"
        ) from error
    return not empty and app_cache.recognises(text)
