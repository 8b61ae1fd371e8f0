"""The first tables.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

from functools import partial
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None
branch_labels = None
depends_on = None

KEY = sa.Integer()
COUNT = sa.BigInteger()
REAL = sa.Double()
TEXT = sa.Text()
FLAG = sa.Boolean()
INSTANT = sa.DateTime(timezone=True)

required: Any = partial(sa.Column, nullable=False)
optional: Any = partial(sa.Column, nullable=True)


def closed(name: str, *values: str, length: int = 16) -> sa.Enum:
    """Text that is one of these values."""
    return sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=length)


def not_negative(*columns: str) -> sa.CheckConstraint:
    """NULL passes."""
    return sa.CheckConstraint(" AND ".join(f"{name} >= 0" for name in columns), name="not_negative")


def conditions() -> list[sa.Column[Any]]:
    """What was seen of a machine while something was measured on it."""
    kinds = {
        "foreign_cpu_ratio": REAL,
        "steal_ratio": REAL,
        "cpu_pressure_ratio": REAL,
        "io_pressure_ratio": REAL,
        "memory_pressure_ratio": REAL,
        "swapped_bytes": COUNT,
        "cpu_mhz": REAL,
        "cpu_mhz_min": REAL,
        "cpu_celsius_max": REAL,
        "gpu_utilisation_ratio": REAL,
        "gpu_power_w": REAL,
        "gpu_energy_j": REAL,
        "gpu_clock_mhz": REAL,
        "gpu_clock_mhz_min": REAL,
        "gpu_celsius_max": REAL,
        "clock_ratio": REAL,
        "throttle": TEXT,
        "load_1m": REAL,
        "on_ac": FLAG,
        "contamination": TEXT,
    }
    return [optional(name, kind) for name, kind in kinds.items()]


PREDICTION_OUTCOME = """
CREATE VIEW prediction_outcome AS
WITH near AS (
    SELECT run_id, prefill_tps, decode_tps, ttft_s,
        CASE WHEN coalesce(generation_run.contamination, '') = '' THEN 0 ELSE 1 END AS is_spoilt
    FROM generation_run JOIN load_run USING (run_id)
    JOIN workload AS done ON done.workload_id = generation_run.workload_id
    JOIN workload AS asked ON asked.workload_id = load_run.workload_id
    WHERE done.workload_id = asked.workload_id OR (purpose = 'user'
        AND 10 * done.n_prompt BETWEEN 7 * asked.n_prompt AND 14 * asked.n_prompt
        AND 10 * done.n_gen BETWEEN 7 * asked.n_gen AND 14 * asked.n_gen
        AND 10 * done.n_depth BETWEEN 7 * asked.n_depth AND 14 * asked.n_depth + 320
        AND done.n_parallel = asked.n_parallel)
), sample AS (
    SELECT run_id, 'prefill_tps' AS target, prefill_tps AS value, is_spoilt FROM near
    UNION ALL SELECT run_id, 'decode_tps', decode_tps, is_spoilt FROM near
    UNION ALL SELECT run_id, 'ttft_s', ttft_s, is_spoilt FROM near
), kept AS (
    SELECT run_id, target, value, is_spoilt,
        dense_rank() OVER (PARTITION BY run_id ORDER BY is_spoilt) AS choice
    FROM sample
), ranked AS (
    SELECT run_id, target, value, is_spoilt,
        row_number() OVER (PARTITION BY run_id, target ORDER BY value) AS place,
        count(*) OVER (PARTITION BY run_id, target) AS n
    FROM kept WHERE choice = 1 AND value IS NOT NULL
), outcome AS (
    SELECT run_id, target, avg(value) AS measured, max(is_spoilt) AS is_spoilt
    FROM ranked WHERE place IN ((n + 1) / 2, (n + 2) / 2)
    GROUP BY run_id, target
    UNION ALL SELECT run_id, 'load_s', model_s + context_s + first_eval_s, 0 FROM load_run
    UNION ALL SELECT run_id, 'peak_memory_bytes',
        CASE WHEN purpose <> 'user' OR state = 'complete' THEN peak_rss_bytes END, 0 FROM load_run
    UNION ALL SELECT run_id, 'success', CASE WHEN reason IS NULL THEN 1.0
        WHEN reason NOT IN ('cancelled', 'interrupted') THEN 0.0
        WHEN purpose = 'user' AND model_s IS NOT NULL THEN 1.0 END, 0
    FROM load_run
)
SELECT run_id, machine_id, model_id, load_run.backend, purpose, made_at, target, evidence,
    prediction.n_runs, predictor_id, q05, q50, q95, p_success, measured,
    abs(q50 / measured - 1) AS ape,
    measured BETWEEN q05 AND q95 AS covered,
    (is_spoilt = 0 AND coalesce(CASE target WHEN 'load_s' THEN load_contamination
        WHEN 'peak_memory_bytes' THEN '' WHEN 'success' THEN ''
        ELSE load_run.contamination END, '') = '' AND discarded_at IS NULL) AS clean
FROM prediction JOIN load_run USING (run_id) JOIN outcome USING (run_id, target)
WHERE measured IS NOT NULL AND elapsed_s IS NOT NULL
"""
"""What was expected of every run, beside what came of it: accuracy over time is one query.

A run of ordinary use is held to what was expected by those of its generations that are about as
large as what was asked: by up to √2. Its memory is known when it is over.
"""


def upgrade() -> None:
    _create_facts()
    _create_history()
    op.execute(PREDICTION_OUTCOME)


def _create_facts() -> None:
    op.create_table(
        "machine",
        required("machine_id", TEXT),
        required("cpu", TEXT),
        optional("n_logical", COUNT),
        optional("n_physical", COUNT),
        optional("n_usable", COUNT),
        required("isa", TEXT),
        optional("ram_bytes", COUNT),
        optional("ram_limit_bytes", COUNT),
        optional("system", TEXT),
        optional("os_version", TEXT),
        required("n_gpus", COUNT),
        required("gpu_names", TEXT),
        required("facts_json", TEXT),
        required("last_seen_at", INSTANT),
        sa.PrimaryKeyConstraint("machine_id"),
        not_negative("n_logical", "n_physical", "n_usable", "ram_bytes", "n_gpus"),
    )
    op.create_table(
        "probe",
        required("probe_id", KEY),
        required("machine_id", TEXT, sa.ForeignKey("machine.machine_id")),
        required("measured_at", INSTANT),
        required("elapsed_s", REAL),
        sa.PrimaryKeyConstraint("probe_id"),
        not_negative("elapsed_s"),
    )
    op.create_index("ix_probe_machine_id_measured_at", "probe", ["machine_id", "measured_at"])
    op.create_table(
        "probe_point",
        required("probe_id", KEY, sa.ForeignKey("probe.probe_id")),
        required("n_threads", COUNT),
        required("read_bytes_per_s", REAL),
        required("read_spread_ratio", REAL),
        required("flops_per_s", REAL),
        required("flops_spread_ratio", REAL),
        sa.PrimaryKeyConstraint("probe_id", "n_threads"),
        not_negative(
            "n_threads",
            "read_bytes_per_s",
            "read_spread_ratio",
            "flops_per_s",
            "flops_spread_ratio",
        ),
    )
    op.create_table(
        "build",
        required("build_id", TEXT),
        required("backend", TEXT),
        required("version", TEXT),
        optional("build_commit", TEXT),
        required("devices", TEXT),
        required("system_info", TEXT),
        required("facts_json", TEXT),
        sa.PrimaryKeyConstraint("build_id"),
    )
    op.create_table(
        "model",
        required("model_id", TEXT),
        required("name", TEXT),
        required("architecture", TEXT),
        required("quantization", TEXT),
        required("file_bytes", COUNT),
        required("weight_bytes", COUNT),
        required("n_params", COUNT),
        required("n_layers", COUNT),
        required("n_embd", COUNT),
        required("n_ctx_train", COUNT),
        required("n_vocab", COUNT),
        required("n_experts", COUNT),
        required("facts_json", TEXT),
        sa.PrimaryKeyConstraint("model_id"),
        not_negative(
            "file_bytes", "weight_bytes", "n_params", "n_layers", "n_embd", "n_ctx_train", "n_vocab"
        ),
    )
    op.create_table(
        "model_tensor",
        required("model_id", TEXT, sa.ForeignKey("model.model_id")),
        required("tensor_group", TEXT),
        required("tensor_type", TEXT),
        required("n_tensors", COUNT),
        required("n_elements", COUNT),
        required("n_bytes", COUNT),
        sa.PrimaryKeyConstraint("model_id", "tensor_group", "tensor_type"),
        not_negative("n_tensors", "n_elements", "n_bytes"),
    )
    op.create_table(
        "model_location",
        required("model_id", TEXT, sa.ForeignKey("model.model_id")),
        required("path", TEXT),
        optional("modified_at", INSTANT),
        required("last_seen_at", INSTANT),
        optional("mount", TEXT),
        optional("disk_kind", TEXT),
        optional("cached_bytes_per_s", REAL),
        optional("disk_bytes_per_s", REAL),
        sa.PrimaryKeyConstraint("model_id", "path"),
    )
    op.create_table(
        "config",
        required("config_id", TEXT),
        required("n_ctx", COUNT),
        required("n_batch", COUNT),
        required("n_ubatch", COUNT),
        required("n_threads", COUNT),
        required("n_threads_batch", COUNT),
        required("flash_attn", TEXT),
        required("type_k", TEXT),
        required("type_v", TEXT),
        required("use_mmap", FLAG),
        required("use_mlock", FLAG),
        required("n_gpu_layers", COUNT),
        required("offload_kqv", FLAG),
        required("op_offload", FLAG),
        required("split_mode", TEXT),
        required("main_gpu", COUNT),
        optional("tensor_split", TEXT),
        required("swa_full", FLAG),
        required("n_parallel", COUNT),
        required("canonical_json", TEXT),
        sa.PrimaryKeyConstraint("config_id"),
    )
    op.create_table(
        "workload",
        required("workload_id", TEXT),
        required("n_prompt", COUNT),
        required("n_gen", COUNT),
        required("n_depth", COUNT),
        required("n_parallel", COUNT),
        sa.PrimaryKeyConstraint("workload_id"),
        sa.UniqueConstraint("n_prompt", "n_gen", "n_depth", "n_parallel"),
        not_negative("n_prompt", "n_gen", "n_depth", "n_parallel"),
    )


def _create_history() -> None:
    op.create_table(
        "study",
        required("study_id", KEY),
        required("machine_id", TEXT, sa.ForeignKey("machine.machine_id")),
        required("model_id", TEXT, sa.ForeignKey("model.model_id")),
        required("backend", TEXT),
        required("target", closed("target", "speed", "balanced", "quality")),
        required("hardware", closed("hardware", "auto", "gpu", "cpu")),
        required("workload_id", TEXT, sa.ForeignKey("workload.workload_id")),
        required("default_config_id", TEXT, sa.ForeignKey("config.config_id")),
        required("max_trials", COUNT),
        required("time_limit_s", REAL),
        required("seed", COUNT),
        required("question_id", TEXT),
        required("started_at", INSTANT),
        optional("finished_at", INSTANT),
        required("state", closed("state", "running", "complete", "stopped", "failed")),
        required("note", TEXT),
        required("recorder_pid", COUNT),
        optional("recorder_birth", TEXT),
        sa.PrimaryKeyConstraint("study_id"),
        not_negative("max_trials", "time_limit_s"),
    )
    op.create_index("ix_study_machine_id_model_id", "study", ["machine_id", "model_id"])
    op.create_table(
        "recommendation",
        required("recommendation_id", KEY),
        optional("study_id", KEY, sa.ForeignKey("study.study_id")),
        required("machine_id", TEXT, sa.ForeignKey("machine.machine_id")),
        required("model_id", TEXT, sa.ForeignKey("model.model_id")),
        required("backend", TEXT),
        required("config_id", TEXT, sa.ForeignKey("config.config_id")),
        required("target", closed("target", "speed", "balanced", "quality")),
        required("workload_id", TEXT, sa.ForeignKey("workload.workload_id")),
        required("confidence", REAL),
        required("reasons", TEXT),
        optional("speedup", REAL),
        optional("cached", FLAG),
        required("made_at", INSTANT),
        sa.PrimaryKeyConstraint("recommendation_id"),
        sa.CheckConstraint("confidence BETWEEN 0 AND 1", name="confidence"),
        not_negative("speedup"),
    )
    op.create_index(
        "ix_recommendation_machine_id_model_id", "recommendation", ["machine_id", "model_id"]
    )
    op.create_table(
        "load_run",
        required("run_id", KEY),
        optional("study_id", KEY, sa.ForeignKey("study.study_id")),
        required("machine_id", TEXT, sa.ForeignKey("machine.machine_id")),
        required("model_id", TEXT, sa.ForeignKey("model.model_id")),
        optional("model_path", TEXT),
        required("backend", TEXT),
        optional("build_id", TEXT, sa.ForeignKey("build.build_id")),
        required("config_id", TEXT, sa.ForeignKey("config.config_id")),
        required("workload_id", TEXT, sa.ForeignKey("workload.workload_id")),
        required(
            "purpose",
            closed("purpose", "probe", "explore", "confirm", "bench", "rebench", "user", "import"),
        ),
        required("n_reps", COUNT),
        required("max_reps", COUNT),
        required("sampling_s", REAL),
        required("timeout_s", REAL),
        optional("memory_limit_bytes", COUNT),
        optional("planned_bytes", COUNT),
        required("source", TEXT),
        required("measure_version", COUNT),
        optional("import_key", TEXT),
        optional("import_json", TEXT),
        optional("recommendation_id", KEY, sa.ForeignKey("recommendation.recommendation_id")),
        required("started_at", INSTANT),
        required("state", closed("state", "running", "complete", "failed")),
        optional(
            "reason",
            closed(
                "reason",
                "timeout",
                "oom",
                "load_error",
                "unsupported",
                "crash",
                "constraint",
                "incorrect",
                "interrupted",
                "cancelled",
            ),
        ),
        required("message", TEXT),
        required("log_excerpt", TEXT),
        optional("elapsed_s", REAL),
        optional("model_s", REAL),
        optional("context_s", REAL),
        optional("first_eval_s", REAL),
        optional("cached_ratio", REAL),
        optional("load_peak_bytes", COUNT),
        optional("peak_anon_bytes", COUNT),
        optional("peak_file_bytes", COUNT),
        optional("peak_rss_bytes", COUNT),
        optional("peak_pss_bytes", COUNT),
        optional("peak_vram_bytes", COUNT),
        *conditions(),
        optional("load_contamination", TEXT),
        optional("layers_offloaded", COUNT),
        optional("layers_total", COUNT),
        optional("flash_attn_done", FLAG),
        optional("n_ctx_done", COUNT),
        optional("discarded_at", INSTANT),
        required("recorder_pid", COUNT),
        optional("recorder_birth", TEXT),
        sa.PrimaryKeyConstraint("run_id"),
        sa.ForeignKeyConstraint(
            ["model_id", "model_path"], ["model_location.model_id", "model_location.path"]
        ),
        sa.CheckConstraint("(state = 'failed') = (reason IS NOT NULL)", name="failed_for_a_reason"),
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
    op.create_index("ix_load_run_machine_id_backend", "load_run", ["machine_id", "backend"])
    op.create_index("ix_load_run_model_id_started_at", "load_run", ["model_id", "started_at"])
    op.create_index("ix_load_run_state", "load_run", ["state"])
    op.create_index("ix_load_run_import_key", "load_run", ["import_key"], unique=True)
    op.create_index("ix_load_run_study_id", "load_run", ["study_id"])
    op.create_table(
        "engine_buffer",
        required("run_id", KEY, sa.ForeignKey("load_run.run_id")),
        required("position", COUNT),
        required("device", TEXT),
        required("kind", TEXT),
        required("n_bytes", COUNT),
        sa.PrimaryKeyConstraint("run_id", "position"),
        not_negative("n_bytes"),
    )
    op.create_table(
        "device_peak",
        required("run_id", KEY, sa.ForeignKey("load_run.run_id")),
        required("position", COUNT),
        required("device", TEXT),
        required("n_bytes", COUNT),
        sa.PrimaryKeyConstraint("run_id", "position"),
        not_negative("n_bytes"),
    )
    op.create_table(
        "generation_run",
        required("generation_id", KEY),
        required("run_id", KEY, sa.ForeignKey("load_run.run_id")),
        required("workload_id", TEXT, sa.ForeignKey("workload.workload_id")),
        required("repetition", COUNT),
        required("n_prompt", COUNT),
        required("n_gen", COUNT),
        optional("prefill_tps", REAL),
        optional("decode_tps", REAL),
        optional("ttft_s", REAL),
        optional("itl_p50_s", REAL),
        optional("itl_p95_s", REAL),
        optional("prefill_ns", COUNT),
        optional("ttft_ns", COUNT),
        required("token_ns", TEXT),
        optional("decode_ns", COUNT),
        optional("prefill_cpu_ns", COUNT),
        optional("decode_cpu_ns", COUNT),
        optional("ended_at", INSTANT),
        *conditions(),
        sa.PrimaryKeyConstraint("generation_id"),
        sa.UniqueConstraint("run_id", "workload_id", "repetition"),
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
    op.create_table(
        "predictor",
        required("predictor_id", KEY),
        required("api", TEXT),
        required("versions", TEXT),
        required("fingerprint", TEXT),
        required("n_runs", COUNT),
        required("promoted", FLAG),
        required("reason", TEXT),
        required("errors_json", TEXT),
        required("fitted_at", INSTANT),
        required("elapsed_s", REAL),
        optional("state", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("predictor_id"),
        not_negative("n_runs", "elapsed_s"),
    )
    op.create_table(
        "prediction",
        required("run_id", KEY, sa.ForeignKey("load_run.run_id")),
        required(
            "target",
            closed(
                "target",
                "load_s",
                "peak_memory_bytes",
                "prefill_tps",
                "decode_tps",
                "ttft_s",
                "success",
                length=32,
            ),
        ),
        optional("q05", REAL),
        optional("q50", REAL),
        optional("q95", REAL),
        optional("p_success", REAL),
        required(
            "evidence", closed("evidence", "measured", "calibrated", "transferred", "physics")
        ),
        required("n_runs", COUNT),
        optional("predictor_id", KEY, sa.ForeignKey("predictor.predictor_id")),
        required("made_at", INSTANT),
        sa.PrimaryKeyConstraint("run_id", "target"),
        sa.CheckConstraint("p_success BETWEEN 0 AND 1", name="probability"),
        sa.CheckConstraint("(target = 'success') = (p_success IS NOT NULL)", name="success"),
        sa.CheckConstraint(
            "(p_success IS NULL) = (q05 IS NOT NULL AND q50 IS NOT NULL AND q95 IS NOT NULL)",
            name="interval",
        ),
    )
    op.create_table(
        "quality",
        required("quality_id", KEY),
        required("machine_id", TEXT, sa.ForeignKey("machine.machine_id")),
        required("model_id", TEXT, sa.ForeignKey("model.model_id")),
        required("build_id", TEXT, sa.ForeignKey("build.build_id")),
        required("config_id", TEXT, sa.ForeignKey("config.config_id")),
        required("reference_config_id", TEXT, sa.ForeignKey("config.config_id")),
        required("text_id", TEXT),
        required("kl_mean", REAL),
        required("kl_p99", REAL),
        required("top1_agreement", REAL),
        required("n_tokens", COUNT),
        required("measured_at", INSTANT),
        sa.PrimaryKeyConstraint("quality_id"),
        sa.CheckConstraint("top1_agreement BETWEEN 0 AND 1", name="agreement"),
        not_negative("kl_mean", "kl_p99", "n_tokens"),
    )
    op.create_index("ix_quality_model_id_measured_at", "quality", ["model_id", "measured_at"])
