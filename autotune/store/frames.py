"""The store as tidy DataFrames: the front door of notebooks and reports.

One row an observation, one column a variable; :data:`RUN_COLUMNS` and :data:`GENERATION_COLUMNS`
say what each column means. What was not measured is missing (``NaN``, ``<NA>``, ``NaT``), never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from sqlalchemy import (
    Boolean,
    ColumnElement,
    Double,
    Enum,
    Integer,
    Select,
    Text,
    column,
    select,
    table,
    type_coerce,
)
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine

from autotune.domain.config import KNOBS
from autotune.store.store import Store
from autotune.store.tables import Base, BuildRow, ConfigRow, GenerationRow, LoadRunRow, ModelRow
from autotune.store.tables.base import Instant

CONDITION_COLUMNS: Mapping[str, str] = {
    "foreign_cpu_ratio": "processor time of others, as a share of the machine",
    "steal_ratio": "processor time that a hypervisor took, as a share of the machine",
    "cpu_pressure_ratio": "share of the time in which some task waited for a processor",
    "io_pressure_ratio": "share of the time in which some task waited for a disk",
    "memory_pressure_ratio": "share of the time in which some task waited for memory",
    "swapped_bytes": "moved between memory and swap, both ways, by anybody",
    "cpu_mhz": "clock of the fastest processor, median",
    "cpu_mhz_min": "its lowest",
    "cpu_celsius_max": "highest temperature of the processor",
    "gpu_utilisation_ratio": "mean over the GPUs in use",
    "gpu_power_w": "mean, summed over the GPUs in use",
    "gpu_energy_j": "of the GPUs in use",
    "gpu_clock_mhz": "clock of the slowest GPU in use, median",
    "gpu_clock_mhz_min": "its lowest",
    "gpu_celsius_max": "highest temperature of a GPU in use",
    "clock_ratio": "clock over the median clock of the run until then",
    "throttle": "reasons seen for holding back, a JSON list",
    "load_1m": "load average over a minute",
    "on_ac": "whether the machine was plugged in",
    "contamination": "what spoils the rates: words of Contamination, empty for clean ones",
}

RUN_COLUMNS: Mapping[str, str] = {
    "run_id": "number of the run",
    "study_id": "study that asked for it",
    "machine_id": "fingerprint of the machine",
    "model_id": "identity of the model",
    "model": "its name",
    "architecture": "such as llama",
    "quantization": "element type of most weights, such as Q4_1",
    "n_params": "weights of the model",
    "weight_bytes": "bytes of the model's tensors",
    "backend": "inference engine",
    "build": "the engine's version",
    "build_commit": "its revision of llama.cpp",
    "workload": "llama-bench's label, such as pp512+tg128@d0",
    "source": "local, or who measured an imported run",
    "purpose": "probe, explore, confirm, bench, rebench, user or import",
    "state": "running, complete or failed",
    "reason": "why it failed",
    "message": "the failure in one line",
    "started_at": "UTC",
    "elapsed_s": "the whole run, in seconds",
    "model_s": "reading the model, in seconds",
    "context_s": "making the context, in seconds",
    "first_eval_s": "the first evaluation, in seconds",
    "recommendation_id": "advice that was at hand when an application loaded the model",
    "cached_ratio": "share of the file in the page cache before",
    "load_peak_bytes": "highest memory until an application's model was loaded",
    "planned_bytes": "memory that was expected",
    "peak_anon_bytes": "highest anonymous memory",
    "peak_file_bytes": "highest file-backed memory",
    "peak_rss_bytes": "highest resident memory",
    "peak_pss_bytes": "highest proportional memory",
    "peak_vram_bytes": "highest memory on GPUs",
    "load_contamination": "what spoils the load time: words, empty for a clean one",
    **CONDITION_COLUMNS,
    "discarded_at": "when it was taken back, because the machine had drifted",
    "measure_version": "number of the measuring procedure; never mix two",
    "config_id": "identity of the configuration",
    **{knob: f"knob: see autotune.domain.config.Config.{knob}" for knob in KNOBS},
    "prefill_tps": "prompt tokens per second, median over the clean generations",
    "decode_tps": "generated tokens per second, median",
    "ttft_s": "time to first token in seconds, median",
    "load_s": "model_s + context_s + first_eval_s",
    "n_generations": "generations of its workload kept; of purpose user, all of them",
}

GENERATION_COLUMNS: Mapping[str, str] = {
    "generation_id": "number of the generation",
    "run_id": "run it belongs to; merge with runs_frame on it",
    "workload": "llama-bench's label, such as pp512+tg128@d0",
    "repetition": "0, 1, 2 … in the order measured",
    "n_prompt": "prompt tokens computed",
    "n_gen": "tokens generated",
    "prefill_tps": "prompt tokens per second",
    "decode_tps": "generated tokens per second",
    "ttft_s": "time to first token, in seconds",
    "itl_p50_s": "median time between two tokens, in seconds",
    "itl_p95_s": "95 % quantile of it",
    "prefill_ns": "wall time of the prompt, in nanoseconds",
    "ttft_ns": "wall time to the first token, in nanoseconds",
    "decode_ns": "wall time of all generated tokens, in nanoseconds",
    "prefill_cpu_ns": "processor time of the prompt, all threads, in nanoseconds",
    "decode_cpu_ns": "processor time of the generated tokens, all threads, in nanoseconds",
    "n_drafted": "tokens guessed from what was said before",
    "n_accepted": "those of them that came true",
    "ended_at": "of a run of purpose user: when it was done, UTC",
    **CONDITION_COLUMNS,
}

PREDICTION_COLUMNS: Mapping[str, str] = {
    "run_id": "run that was predicted before it started",
    "machine_id": "fingerprint of the machine",
    "model_id": "identity of the model",
    "backend": "inference engine",
    "purpose": "what the run was made for",
    "made_at": "when it was predicted, UTC",
    "target": "load_s, peak_memory_bytes, prefill_tps, decode_tps, ttft_s or success",
    "evidence": "measured, calibrated, transferred or physics",
    "n_runs": "runs of the model on the machine behind it",
    "predictor_id": "which fit said so",
    "q05": "lower end of the 90 % interval",
    "q50": "the prediction",
    "q95": "upper end",
    "p_success": "probability of success, of the target success alone",
    "measured": "what came of it, median over the clean generations; of success 0 or 1",
    "ape": "absolute error as a share of what was measured",
    "covered": "whether it lay in the interval",
    "clean": "whether nothing spoilt the measurement",
}

_RATES = ["prefill_tps", "decode_tps", "ttft_s"]
_OUTCOME = table(
    "prediction_outcome",
    *(column(name, Integer()) for name in ("run_id", "n_runs", "predictor_id")),
    *(column(name, Double()) for name in ("q05", "q50", "q95", "p_success", "measured", "ape")),
    *(column(name, Boolean()) for name in ("covered", "clean")),
    *(column(name, Text()) for name in ("machine_id", "model_id", "backend")),
    *(column(name, Text()) for name in ("purpose", "target", "evidence")),
    column("made_at", Instant()),
)
_DTYPES: Mapping[type[TypeEngine[Any]], str] = {
    Boolean: "boolean",
    Integer: "Int64",
    Double: "float64",
    Instant: "datetime64[us, UTC]",
}


def runs_frame(store: Store) -> pd.DataFrame:
    """Every run, its configuration a column a knob, with the medians of its generations.

    Columns: :data:`RUN_COLUMNS`, in that order.
    """
    with store.database.read() as session:
        runs, generations = _frame(session, _runs()), _frame(session, _generations())
    of_run = ["run_id", "workload"]
    # What an application generates is of all sizes: its medians are over all of them.
    used = runs.loc[runs["purpose"] == "user", of_run].set_index("run_id")["workload"].to_dict()
    pairs = zip(generations["run_id"], generations["workload"], strict=True)
    asked = [used.get(run_id, workload) for run_id, workload in pairs]
    generations["workload"] = pd.array(asked, dtype="string")
    clean = generations[generations["contamination"] == ""].groupby(of_run)[_RATES].median()
    by_run = generations.groupby(of_run)
    medians = clean.combine_first(by_run[_RATES].median()).assign(n_generations=by_run.size())
    runs = runs.merge(medians, how="left", left_on=of_run, right_index=True)
    runs["n_generations"] = runs["n_generations"].fillna(0).astype("Int64")
    runs["load_s"] = runs["model_s"] + runs["context_s"] + runs["first_eval_s"]
    return runs[list(RUN_COLUMNS)]


def generations_frame(store: Store) -> pd.DataFrame:
    """Every generation. Columns: :data:`GENERATION_COLUMNS`, in that order."""
    with store.database.read() as session:
        return _frame(session, _generations())[list(GENERATION_COLUMNS)]


def predictions_frame(store: Store) -> pd.DataFrame:
    """Every prediction beside what came of it: the view ``prediction_outcome``.

    Columns: :data:`PREDICTION_COLUMNS`, in that order.
    """
    with store.database.read() as session:
        frame = _frame(session, select(*_OUTCOME.columns).order_by("run_id", "target"))
    return frame[list(PREDICTION_COLUMNS)]


def accuracy_frame(store: Store) -> pd.DataFrame:
    """How good predictions were that were made before the run; of clean measurements alone.

    One row for each target and evidence: ``n``, ``median_ape`` and ``coverage_90`` (shares).
    """
    frame = predictions_frame(store)
    judged = frame[frame["clean"].fillna(False) & frame["ape"].notna()]  # noqa: FBT003
    return (
        judged.groupby(["target", "evidence"])
        .agg(n=("ape", "size"), median_ape=("ape", "median"), coverage_90=("covered", "mean"))
        .reset_index()
    )


def _runs() -> Select[*tuple[Any, ...]]:
    elsewhere = {
        ModelRow: ["architecture", "quantization", "n_params", "weight_bytes"],
        BuildRow: ["build_commit"],
        ConfigRow: list(KNOBS),
    }
    return (
        select(
            *_own(LoadRunRow, RUN_COLUMNS),
            *(getattr(row, name) for row, names in elsewhere.items() for name in names),
            ModelRow.name.label("model"),
            BuildRow.version.label("build"),
            LoadRunRow.workload_id.label("workload"),
        )
        .join(LoadRunRow.model)
        .join(LoadRunRow.config)
        .outerjoin(LoadRunRow.build)
        .order_by(LoadRunRow.run_id)
    )


def _generations() -> Select[*tuple[Any, ...]]:
    return select(
        *_own(GenerationRow, GENERATION_COLUMNS), GenerationRow.workload_id.label("workload")
    ).order_by(GenerationRow.generation_id)


def _own(row: type[Base], wanted: Mapping[str, str]) -> list[ColumnElement[Any]]:
    """The wanted columns that a table has itself; closed sets as plain text."""
    columns = [column for column in row.__table__.columns if column.name in wanted]
    return [
        type_coerce(column, Text).label(column.name) if isinstance(column.type, Enum) else column
        for column in columns
    ]


def _frame(session: Session, query: Select[*tuple[Any, ...]]) -> pd.DataFrame:
    """The query's rows, each column typed by its column in the database, empty or not."""
    columns = query.selected_columns
    rows = [tuple(row) for row in session.execute(query)]
    frame = pd.DataFrame(rows, columns=[column.name for column in columns])
    return frame.astype({column.name: _dtype(column.type) for column in columns})


def _dtype(kind: TypeEngine[Any]) -> str:
    return next((dtype for base, dtype in _DTYPES.items() if isinstance(kind, base)), "string")
