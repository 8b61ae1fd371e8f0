"""The tables. One class a table, one fact a row; rows never leave the store.

What is named by its own content has that content's hash as its key (build, config, and machine and
model, whose hashes their readers make; a workload's key is its label): equal values share a row,
and recording one twice changes nothing. ``…_json`` is the record of such a value; the typed columns
beside it say the same to SQL.

Missing is NULL, never 0. Instants are UTC. Changing a table needs a file in
``migrations/versions``; a test compares the two.
"""

from __future__ import annotations

from autotune.store.tables.base import Base
from autotune.store.tables.facts import (
    BuildRow,
    ConfigRow,
    MachineRow,
    ModelLocationRow,
    ModelRow,
    ModelTensorRow,
    ProbePointRow,
    ProbeRow,
    WorkloadRow,
)
from autotune.store.tables.history import (
    SUCCESS,
    DevicePeakRow,
    EngineBufferRow,
    GenerationRow,
    LoadRunRow,
    Observed,
    PredictionRow,
    PredictorRow,
    QualityRow,
    RecommendationRow,
    Recorded,
    StudyRow,
)

__all__ = [
    "SUCCESS",
    "Base",
    "BuildRow",
    "ConfigRow",
    "DevicePeakRow",
    "EngineBufferRow",
    "GenerationRow",
    "LoadRunRow",
    "MachineRow",
    "ModelLocationRow",
    "ModelRow",
    "ModelTensorRow",
    "Observed",
    "PredictionRow",
    "PredictorRow",
    "ProbePointRow",
    "ProbeRow",
    "QualityRow",
    "RecommendationRow",
    "Recorded",
    "StudyRow",
    "WorkloadRow",
]
