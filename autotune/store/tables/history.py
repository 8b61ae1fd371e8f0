"""Tables of what happened: studies, runs, generations, what was expected and what was advised."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    CheckConstraint,
    Enum,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from autotune.domain.prediction import TARGETS, Evidence, Hardware, Target
from autotune.domain.run import Purpose, Reason
from autotune.domain.stored import RunState
from autotune.domain.study import StudyState
from autotune.store.tables.base import Base, Key, not_negative
from autotune.store.tables.facts import BuildRow, ConfigRow, ModelRow, WorkloadRow

SUCCESS = "success"
"""The target of the prediction row that holds the probability of success."""


class Recorded:
    """A row that is open while a process works on it; see :mod:`autotune.store.recorder`."""

    recorder_pid: Mapped[int]
    recorder_birth: Mapped[str | None]


class Observed:
    """Under which conditions something was measured: see :class:`Conditions`."""

    foreign_cpu_ratio: Mapped[float | None]
    steal_ratio: Mapped[float | None]
    cpu_pressure_ratio: Mapped[float | None]
    io_pressure_ratio: Mapped[float | None]
    memory_pressure_ratio: Mapped[float | None]
    swapped_bytes: Mapped[int | None]
    cpu_mhz: Mapped[float | None]
    cpu_mhz_min: Mapped[float | None]
    cpu_celsius_max: Mapped[float | None]
    gpu_utilisation_ratio: Mapped[float | None]
    gpu_power_w: Mapped[float | None]
    gpu_energy_j: Mapped[float | None]
    gpu_clock_mhz: Mapped[float | None]
    gpu_clock_mhz_min: Mapped[float | None]
    gpu_celsius_max: Mapped[float | None]
    clock_ratio: Mapped[float | None]
    throttle: Mapped[str | None]
    load_1m: Mapped[float | None]
    on_ac: Mapped[bool | None]
    contamination: Mapped[str | None]
    """Words of :class:`Contamination`; empty for what is clean, NULL for what is not known yet."""


class StudyRow(Recorded, Base):
    """One tuning question."""

    __tablename__ = "study"
    __table_args__ = (
        Index(None, "machine_id", "model_id"),
        not_negative("max_trials", "time_limit_s"),
    )

    study_id: Mapped[Key]
    machine_id: Mapped[str] = mapped_column(ForeignKey("machine.machine_id"))
    model_id: Mapped[str] = mapped_column(ForeignKey("model.model_id"))
    backend: Mapped[str]
    target: Mapped[Target]
    hardware: Mapped[Hardware]
    workload_id: Mapped[str] = mapped_column(ForeignKey("workload.workload_id"))
    default_config_id: Mapped[str] = mapped_column(ForeignKey("config.config_id"))
    max_trials: Mapped[int]
    time_limit_s: Mapped[float]
    seed: Mapped[int]
    question_id: Mapped[str]
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    state: Mapped[StudyState]
    note: Mapped[str]
    model: Mapped[ModelRow] = relationship()
    workload: Mapped[WorkloadRow] = relationship()
    default: Mapped[ConfigRow] = relationship()


class LoadRunRow(Recorded, Observed, Base):
    """One model load in a process of its own, or what somebody else tells of one."""

    __tablename__ = "load_run"
    __table_args__ = (
        ForeignKeyConstraint(
            ["model_id", "model_path"], ["model_location.model_id", "model_location.path"]
        ),
        Index(None, "model_id", "started_at"),
        Index(None, "machine_id", "backend"),
        Index(None, "study_id"),
        Index(None, "state"),
        Index(None, "import_key", unique=True),
        CheckConstraint("(state = 'failed') = (reason IS NOT NULL)", name="failed_for_a_reason"),
        not_negative(
            "n_reps",
            "max_reps",
            "sampling_s",
            "timeout_s",
            "memory_limit_bytes",
            "planned_bytes",
            "elapsed_s",
            "model_s",
            "context_s",
            "first_eval_s",
            "cached_ratio",
            "load_peak_bytes",
            "peak_anon_bytes",
            "peak_file_bytes",
            "peak_rss_bytes",
            "peak_pss_bytes",
            "peak_vram_bytes",
            "foreign_cpu_ratio",
            "swapped_bytes",
            "layers_offloaded",
            "layers_total",
            "n_ctx_done",
        ),
    )

    run_id: Mapped[Key]
    study_id: Mapped[int | None] = mapped_column(ForeignKey("study.study_id"))
    machine_id: Mapped[str] = mapped_column(ForeignKey("machine.machine_id"))
    model_id: Mapped[str] = mapped_column(ForeignKey("model.model_id"))
    model_path: Mapped[str | None]
    """NULL for a run of somebody else, whose file is not here."""
    backend: Mapped[str]
    build_id: Mapped[str | None] = mapped_column(ForeignKey("build.build_id"))
    config_id: Mapped[str] = mapped_column(ForeignKey("config.config_id"))
    workload_id: Mapped[str] = mapped_column(ForeignKey("workload.workload_id"))
    purpose: Mapped[Purpose]
    n_reps: Mapped[int]
    max_reps: Mapped[int]
    sampling_s: Mapped[float]
    timeout_s: Mapped[float]
    memory_limit_bytes: Mapped[int | None]
    planned_bytes: Mapped[int | None]
    source: Mapped[str]
    measure_version: Mapped[int]
    import_key: Mapped[str | None]
    """Names the row of somebody else's telemetry that this run was; NULL for a run of our own."""
    import_json: Mapped[str | None]
    recommendation_id: Mapped[int | None] = mapped_column(
        ForeignKey("recommendation.recommendation_id")
    )
    """The advice that somebody had when he loaded the model; followed, if it names the same."""
    started_at: Mapped[datetime]

    state: Mapped[RunState]
    reason: Mapped[Reason | None]
    message: Mapped[str]
    log_excerpt: Mapped[str]
    elapsed_s: Mapped[float | None]
    model_s: Mapped[float | None]
    context_s: Mapped[float | None]
    first_eval_s: Mapped[float | None]
    cached_ratio: Mapped[float | None]
    load_peak_bytes: Mapped[int | None]
    """Highest resident memory until the model was loaded; NULL where only the whole is known."""
    peak_anon_bytes: Mapped[int | None]
    peak_file_bytes: Mapped[int | None]
    peak_rss_bytes: Mapped[int | None]
    peak_pss_bytes: Mapped[int | None]
    peak_vram_bytes: Mapped[int | None]
    load_contamination: Mapped[str | None]
    layers_offloaded: Mapped[int | None]
    layers_total: Mapped[int | None]
    flash_attn_done: Mapped[bool | None]
    n_ctx_done: Mapped[int | None]
    discarded_at: Mapped[datetime | None]

    model: Mapped[ModelRow] = relationship(foreign_keys=[model_id])
    build: Mapped[BuildRow | None] = relationship()
    config: Mapped[ConfigRow] = relationship()
    workload: Mapped[WorkloadRow] = relationship()
    buffers: Mapped[list[EngineBufferRow]] = relationship(order_by="EngineBufferRow.position")
    peak_vram: Mapped[list[DevicePeakRow]] = relationship(order_by="DevicePeakRow.position")
    generations: Mapped[list[GenerationRow]] = relationship(order_by="GenerationRow.generation_id")
    predictions: Mapped[list[PredictionRow]] = relationship()


class EngineBufferRow(Base):
    """One buffer that the engine said it allocated, in the order of its log."""

    __tablename__ = "engine_buffer"
    __table_args__ = (not_negative("n_bytes"),)

    run_id: Mapped[int] = mapped_column(ForeignKey("load_run.run_id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    device: Mapped[str]
    kind: Mapped[str]
    n_bytes: Mapped[int]


class DevicePeakRow(Base):
    """The most that a run held of one GPU's memory."""

    __tablename__ = "device_peak"
    __table_args__ = (not_negative("n_bytes"),)

    run_id: Mapped[int] = mapped_column(ForeignKey("load_run.run_id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    device: Mapped[str]
    n_bytes: Mapped[int]


class GenerationRow(Observed, Base):
    """One generate call: raw times, and the rates that follow from them.

    Of ordinary use the times of single tokens are not kept: it never ends.
    """

    __tablename__ = "generation_run"
    __table_args__ = (
        UniqueConstraint("run_id", "workload_id", "repetition"),
        not_negative(
            "repetition",
            "n_prompt",
            "n_gen",
            "prefill_ns",
            "ttft_ns",
            "decode_ns",
            "prefill_cpu_ns",
            "decode_cpu_ns",
            "foreign_cpu_ratio",
            "swapped_bytes",
        ),
    )

    generation_id: Mapped[Key]
    run_id: Mapped[int] = mapped_column(ForeignKey("load_run.run_id"))
    workload_id: Mapped[str] = mapped_column(ForeignKey("workload.workload_id"))
    repetition: Mapped[int]
    n_prompt: Mapped[int]
    n_gen: Mapped[int]
    prefill_tps: Mapped[float | None]
    decode_tps: Mapped[float | None]
    ttft_s: Mapped[float | None]
    itl_p50_s: Mapped[float | None]
    itl_p95_s: Mapped[float | None]
    prefill_ns: Mapped[int | None]
    ttft_ns: Mapped[int | None]
    token_ns: Mapped[str]
    decode_ns: Mapped[int | None]
    prefill_cpu_ns: Mapped[int | None]
    decode_cpu_ns: Mapped[int | None]
    n_drafted: Mapped[int | None]
    """Tokens that were guessed from what was said before; NULL from before anything was."""
    n_accepted: Mapped[int | None]
    ended_at: Mapped[datetime | None]
    """Of a generation of ordinary use; those of a measured run follow one another at once."""
    workload: Mapped[WorkloadRow] = relationship()


class PredictorRow(Base):
    """One fit of the predictor, promoted or not.

    Its state is a cache: arrays, no pickle, dropped once a later one is promoted. The rows are
    the record.
    """

    __tablename__ = "predictor"
    __table_args__ = (not_negative("n_runs", "elapsed_s"),)

    predictor_id: Mapped[Key]
    api: Mapped[str]
    """What the engine computes with where it predicts: the prior differs."""
    versions: Mapped[str]
    """Of features and libraries; a state of others is not read."""
    fingerprint: Mapped[str]
    """Of the rows that it learned from."""
    n_runs: Mapped[int]
    promoted: Mapped[bool]
    """Whether its general part replaced the one before; if not, that one went on."""
    reason: Mapped[str]
    errors_json: Mapped[str]
    """Median out-of-group error by partition, as ``{partition: error}``."""
    fitted_at: Mapped[datetime]
    elapsed_s: Mapped[float]
    state: Mapped[bytes | None]


class PredictionRow(Base):
    """What was expected of a run, written before it; one row a target."""

    __tablename__ = "prediction"
    __table_args__ = (
        CheckConstraint("p_success BETWEEN 0 AND 1", name="probability"),
        CheckConstraint("(target = 'success') = (p_success IS NOT NULL)", name="success"),
        CheckConstraint(
            "(p_success IS NULL) = (q05 IS NOT NULL AND q50 IS NOT NULL AND q95 IS NOT NULL)",
            name="interval",
        ),
    )

    run_id: Mapped[int] = mapped_column(ForeignKey("load_run.run_id"), primary_key=True)
    target: Mapped[str] = mapped_column(
        Enum(
            *TARGETS, SUCCESS, name="target", native_enum=False, create_constraint=True, length=32
        ),
        primary_key=True,
    )
    q05: Mapped[float | None]
    q50: Mapped[float | None]
    q95: Mapped[float | None]
    p_success: Mapped[float | None]
    evidence: Mapped[Evidence]
    n_runs: Mapped[int]
    predictor_id: Mapped[int | None] = mapped_column(ForeignKey("predictor.predictor_id"))
    made_at: Mapped[datetime]


class QualityRow(Base):
    """What a configuration lost against a reference over a text: see :class:`QualityCost`."""

    __tablename__ = "quality"
    __table_args__ = (
        Index(None, "model_id", "measured_at"),
        CheckConstraint("top1_agreement BETWEEN 0 AND 1", name="agreement"),
        not_negative("kl_mean", "kl_p99", "n_tokens"),
    )

    quality_id: Mapped[Key]
    machine_id: Mapped[str] = mapped_column(ForeignKey("machine.machine_id"))
    model_id: Mapped[str] = mapped_column(ForeignKey("model.model_id"))
    build_id: Mapped[str] = mapped_column(ForeignKey("build.build_id"))
    config_id: Mapped[str] = mapped_column(ForeignKey("config.config_id"))
    reference_config_id: Mapped[str] = mapped_column(ForeignKey("config.config_id"))
    text_id: Mapped[str]
    """Hash of the text: figures over different texts are no series."""
    kl_mean: Mapped[float]
    kl_p99: Mapped[float]
    top1_agreement: Mapped[float]
    n_tokens: Mapped[int]
    measured_at: Mapped[datetime]


class RecommendationRow(Base):
    """What was advised, and why."""

    __tablename__ = "recommendation"
    __table_args__ = (
        Index(None, "machine_id", "model_id"),
        CheckConstraint("confidence BETWEEN 0 AND 1", name="confidence"),
        not_negative("speedup"),
    )

    recommendation_id: Mapped[Key]
    study_id: Mapped[int | None] = mapped_column(ForeignKey("study.study_id"))
    machine_id: Mapped[str] = mapped_column(ForeignKey("machine.machine_id"))
    model_id: Mapped[str] = mapped_column(ForeignKey("model.model_id"))
    backend: Mapped[str]
    config_id: Mapped[str] = mapped_column(ForeignKey("config.config_id"))
    target: Mapped[Target]
    workload_id: Mapped[str] = mapped_column(ForeignKey("workload.workload_id"))
    confidence: Mapped[float]
    reasons: Mapped[str]
    speedup: Mapped[float | None]
    cached: Mapped[bool | None]
    """Whether the stored predictor answered as it was; NULL for what a study found out."""
    made_at: Mapped[datetime]
