"""What was learned of models and backends: the guide's ``ModelPerformanceCache``, in the store.

As in the guide, times are milliseconds and MB are mebibytes. Zero as a time, memory or rate means
that it is not known, and is kept as such.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, overload

from autotune.domain.config import Config
from autotune.domain.errors import AutotuneError, DataError, UserError
from autotune.domain.imported import ImportedTest
from autotune.domain.machine import MachineFacts
from autotune.domain.run import Reason
from autotune.domain.units import MIB
from autotune.facts.machine import machine_id, read_machine
from autotune.integration.address import Address, find_address
from autotune.integration.engines import require_backend
from autotune.integration.files import ModelFile, ModelFiles
from autotune.integration.json_cache import import_json_cache
from autotune.integration.profiles import BackendPerformanceProfile, ModelProfile, profiles_of
from autotune.integration.words import count, plain_mapping, share
from autotune.store import schema
from autotune.store.store import Store
from autotune.store.usage import (
    Usage,
    count_usages,
    discard_usages,
    read_usages,
    record_report,
)

_log = logging.getLogger(__name__)
_N_GEN = 128
"""Tokens of a generation of which only the rate is told: llama-bench's own number."""
_RECENT = 500


def utc_now() -> datetime:
    """The time, aware."""
    return datetime.now(UTC)


class ModelPerformanceCache:
    """Profiles of models and of what backends did with them. Survives the process.

    ``cache_file`` is a SQLite file or a database URL; without one the store of the command line
    (``AUTOTUNE_DB``, else the user's data folder). A name that ends in ``.json`` is the cache of
    the original application: the store lies beside it (``custom_cache.json`` →
    ``custom_cache.db``), and what the JSON file says, if it is there, is imported once; the file
    itself is never written. ``now`` tells the time, aware; ``machine`` reads this machine's facts.

    Raises UserError or DataError, with what to do, for a file that cannot be used.
    """

    def __init__(
        self,
        cache_file: str | Path | None = None,
        *,
        environ: Mapping[str, str] = os.environ,
        now: Callable[[], datetime] = utc_now,
        machine: Callable[[], MachineFacts] = read_machine,
    ) -> None:
        self.address = find_address(cache_file, environ)
        self._now, self._read_machine = now, machine
        self._machine_id = ""
        self.files = ModelFiles()
        self.store = _open(self.address, now)
        try:
            import_json_cache(self.store, self.address.json_cache)
        except BaseException:
            self.store.close()
            raise

    @property
    def cache_file(self) -> str:
        """The store that is really used: a file's path, or a URL without its password."""
        return self.store.database.label

    @property
    def machine_id(self) -> str:
        """Number of this machine in the store."""
        if not self._machine_id:
            self._machine_id = machine_id(self._read_machine())
        return self._machine_id

    def store_model_profile(
        self,
        model_path: str | Path,
        size_mb: int | None = None,
        parameter_count: int | None = None,
        quantization: str | None = None,
        architecture: str | None = None,
        context_length: int | None = None,
    ) -> ModelProfile:
        """Keep a model's profile, as the file's own header tells it.

        What is passed besides is compared with the header; a difference is logged and the header
        believed. Raises GGUFError for a file that is missing or no model, UserError or DataError
        for a store that cannot be written.
        """
        file = self.files.find(model_path)
        profile = ModelProfile.of(file.facts, str(file.path))
        claims = {
            "size_mb": size_mb,
            "parameter_count": parameter_count,
            "quantization": quantization,
            "architecture": architecture,
            "context_length": context_length,
        }
        for name, claimed in claims.items():
            if claimed is not None and claimed != profile[name]:
                _log.info("%s: %s is %s, not %s", file.path, name, profile[name], claimed)
        self.store.record_model(file.facts, file.path)
        return profile

    def get_model_profile(self, model_path: str | Path) -> ModelProfile | None:
        """A model's profile; None for one that was never stored. Raises GGUFError as above."""
        file = self.files.find(model_path)
        try:
            self.store.load_model(file.facts.model_id)
        except UserError:
            return None
        return ModelProfile.of(file.facts, str(file.path))

    def store_backend_performance(
        self,
        backend_name: str,
        model_path: str | Path,
        hardware_config: Mapping[str, Any] | None = None,
        load_time_ms: float | None = None,
        memory_usage_mb: float | None = None,
        tokens_per_second: float | None = None,
        success_rate: float = 1.0,
        *,
        config: Config | None = None,
        reason: Reason | None = None,
        api: str = "CPU",
    ) -> int:
        """Keep what an application saw of one use of a model; returns the number of the row.

        ``tokens_per_second`` counts generated tokens only, without the time of the prompt.
        ``success_rate`` of one use is 0 or 1; below ½ the use teaches as a failure, with ``reason``
        if it is known. ``config`` is what was loaded, ``api`` what it computed with.

        Raises UserError for an unknown backend or a value that cannot be, GGUFError as above.
        """
        require_backend(backend_name)
        file = self.files.find(model_path)
        figures = {
            "load_time_ms": count(load_time_ms, "load_time_ms"),
            "memory_usage_mb": count(memory_usage_mb, "memory_usage_mb"),
            "tokens_per_second": count(tokens_per_second, "tokens_per_second"),
        }
        ratio = share(success_rate, "success_rate")
        test = _test(backend_name, file, figures, ratio=ratio, reason=reason, api=api)
        self._register(file)
        return record_report(
            self.store.database,
            test,
            machine_id=self.machine_id,
            model_id=file.facts.model_id,
            model_path=file.path,
            config=config or Config(),
            told={
                "success_ratio": ratio,
                "hardware": plain_mapping(hardware_config, "hardware_config"),
            },
            reported_at=self._now(),
        )

    @overload
    def get_backend_performance(
        self, model_path: str | Path, backend_name: str
    ) -> BackendPerformanceProfile | None: ...

    @overload
    def get_backend_performance(
        self, model_path: str | Path, backend_name: None = None
    ) -> dict[str, BackendPerformanceProfile]: ...

    def get_backend_performance(
        self, model_path: str | Path, backend_name: str | None = None
    ) -> BackendPerformanceProfile | dict[str, BackendPerformanceProfile] | None:
        """What a backend did with a model on this machine; None where it was never used.

        Without a backend's name: the profile of each backend, by name. What an old JSON cache told
        of a model is found by the name of its file. Raises GGUFError as above.
        """
        profiles = profiles_of(self.usages(model_path))
        return profiles if backend_name is None else profiles.get(require_backend(backend_name))

    def usages(self, model_path: str | Path | None = None) -> tuple[Usage, ...]:
        """The uses of a model here, newest first; without a model the latest 500 of all."""
        if model_path is None:
            return self.machine_usages(self.machine_id)
        file = self.files.find(model_path)
        return read_usages(
            self.store.database,
            machine_id=self.machine_id,
            model_id=file.facts.model_id,
            model_name=file.path.stem,
        )

    def machine_usages(self, machine: str) -> tuple[Usage, ...]:
        """The latest 500 uses on a machine, newest first."""
        return read_usages(self.store.database, machine_id=machine, limit=_RECENT)

    def get_stats(self) -> dict[str, Any]:
        """``total_models`` that were used, ``total_backend_profiles`` (machine, model, backend),
        ``total_runs``, ``total_model_profiles`` (used or only described) and ``cache_file``."""
        totals = count_usages(self.store.database)
        return {
            "total_models": totals.n_models,
            "total_backend_profiles": totals.n_profiles,
            "total_runs": totals.n_runs,
            "total_model_profiles": totals.n_described,
            "cache_file": self.cache_file,
        }

    def clear(self, model_path: str | Path | None = None) -> Path | None:
        """Start to learn anew, of one model or of all; returns where the copy of the store is.

        Nothing is deleted: the store is copied first, then its runs are marked as taken back, and
        teach no more. A model in use teaches again with what it generates from then on. None for a
        database server, which has no file to copy. Raises GGUFError, UserError or DataError; then
        nothing is marked.
        """
        runs = None if model_path is None else [u.run_id for u in self.usages(model_path)]
        file = self.store.database.file
        copy = None if file is None else schema.backup(file, _free_name(file, self._now()))
        n_runs = discard_usages(self.store.database, runs, now=self._now())
        _log.info("%s runs taken back; a copy is at %s", n_runs, copy)
        return copy

    def close(self) -> None:
        """Give the connections back. What is asked later opens them again."""
        self.store.close()

    def _register(self, file: ModelFile) -> None:
        if self.store.find_machine(self.machine_id) is None:
            self.store.record_machine(self.machine_id, self._read_machine())
        self.store.record_model(file.facts, file.path)


def _open(address: Address, now: Callable[[], datetime]) -> Store:
    try:
        return Store.open(address.store, now=now)
    except (UserError, DataError) as error:
        raise type(error)(str(error).replace("another --db", "another cache_file")) from error


def _test(
    backend: str,
    file: ModelFile,
    figures: Mapping[str, float | None],
    *,
    ratio: float,
    reason: Reason | None,
    api: str,
) -> ImportedTest:
    """A report in the words of any other telemetry."""
    load_ms, memory_mb = figures["load_time_ms"], figures["memory_usage_mb"]
    tps = figures["tokens_per_second"]
    failed = ratio < 0.5
    guess = Reason.CRASH if load_ms and tps else Reason.LOAD_ERROR
    return ImportedTest(
        source="application",
        api=api,
        backend=backend,
        model=file.path.name,
        n_gen=_N_GEN,
        tps=None if failed else tps,
        load_s=load_ms / 1000 if load_ms else None,
        peak_rss_bytes=round(memory_mb * MIB) if memory_mb else None,
        reason=(reason or guess) if failed else None,
    )


def _free_name(file: Path, now: datetime) -> Path:
    """A name beside the store that nothing has yet, with the time in it."""
    stamp = f"{now:%Y%m%dT%H%M%SZ}"
    name = file.with_name(f"{file.stem}.cleared-{stamp}{file.suffix}")
    number = 2
    while name.exists():
        name = file.with_name(f"{file.stem}.cleared-{stamp}-{number}{file.suffix}")
        number += 1
    return name


def recall(action: Callable[[], Any], what: str) -> None:
    """Do what only keeps a note; a store that cannot be written costs the note, not the answer."""
    try:
        action()
    except AutotuneError as error:
        _log.warning("%s is not kept: %s", what, error)


def latest(usages: Sequence[Usage], backend: str) -> Usage | None:
    """The newest use of a backend."""
    return next((usage for usage in usages if usage.backend == backend), None)
