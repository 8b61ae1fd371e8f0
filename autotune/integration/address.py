"""Where the store lies: what ``cache_file`` means, and the file that is used without one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

VARIABLE = "AUTOTUNE_DB"
"""Environment variable that names the store."""
_JSON = ".json"
_STORE = ".db"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A store, and the old JSON cache that is read into it."""

    store: str
    """A path or an SQLAlchemy URL."""
    json_cache: Path | None = None
    """A JSON file of the original application; it may be missing, and is never written."""


def default_db(environ: Mapping[str, str]) -> str:
    """What ``AUTOTUNE_DB`` names, else the SQLite file in the platform's user data folder."""
    folder = Path(platformdirs.user_data_dir("autotune", appauthor=False))
    return environ.get(VARIABLE) or str(folder / "autotune.db")


def find_address(cache_file: str | Path | None, environ: Mapping[str, str]) -> Address:
    """What ``cache_file`` means.

    A SQLite path or a database URL is the store itself. Beside a name that ends in ``.json`` lies
    the store: ``custom_cache.json`` → ``custom_cache.db``. None is the store of the command line.
    """
    if cache_file is None:
        return Address(store=default_db(environ))
    text = str(cache_file)
    path = Path(text).expanduser()
    if "://" in text or path.suffix.lower() != _JSON:
        return Address(store=text)
    return Address(store=str(path.with_suffix(_STORE)), json_cache=path)
