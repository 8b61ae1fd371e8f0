"""Tables of what is true before anything runs, and of what can be asked for."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from autotune.store.tables.base import Base, Key, Name, not_negative


class MachineRow(Base):
    """A machine; the facts are the latest seen under its fingerprint."""

    __tablename__ = "machine"
    __table_args__ = (not_negative("n_logical", "n_physical", "n_usable", "ram_bytes", "n_gpus"),)

    machine_id: Mapped[Name]
    cpu: Mapped[str]
    n_logical: Mapped[int | None]
    n_physical: Mapped[int | None]
    n_usable: Mapped[int | None]
    isa: Mapped[str]
    ram_bytes: Mapped[int | None]
    ram_limit_bytes: Mapped[int | None]
    system: Mapped[str | None]
    os_version: Mapped[str | None]
    n_gpus: Mapped[int]
    gpu_names: Mapped[str]
    facts_json: Mapped[str]
    last_seen_at: Mapped[datetime]


class ProbeRow(Base):
    """One measurement of a machine's ceilings."""

    __tablename__ = "probe"
    __table_args__ = (Index(None, "machine_id", "measured_at"), not_negative("elapsed_s"))

    probe_id: Mapped[Key]
    machine_id: Mapped[str] = mapped_column(ForeignKey("machine.machine_id"))
    measured_at: Mapped[datetime]
    elapsed_s: Mapped[float]
    points: Mapped[list[ProbePointRow]] = relationship(order_by="ProbePointRow.n_threads")


class ProbePointRow(Base):
    """The ceilings with one thread count; spreads are (max − min) / median of the repeats."""

    __tablename__ = "probe_point"
    __table_args__ = (
        not_negative(
            "n_threads",
            "read_bytes_per_s",
            "read_spread_ratio",
            "flops_per_s",
            "flops_spread_ratio",
        ),
    )

    probe_id: Mapped[int] = mapped_column(ForeignKey("probe.probe_id"), primary_key=True)
    n_threads: Mapped[int] = mapped_column(primary_key=True)
    read_bytes_per_s: Mapped[float]
    read_spread_ratio: Mapped[float]
    flops_per_s: Mapped[float]
    flops_spread_ratio: Mapped[float]


class BuildRow(Base):
    """One build of one engine."""

    __tablename__ = "build"

    build_id: Mapped[Name]
    backend: Mapped[str]
    version: Mapped[str]
    build_commit: Mapped[str | None]
    devices: Mapped[str]
    system_info: Mapped[str]
    facts_json: Mapped[str]


class ModelRow(Base):
    """A GGUF model, wherever its file lies."""

    __tablename__ = "model"
    __table_args__ = (
        not_negative(
            "file_bytes", "weight_bytes", "n_params", "n_layers", "n_embd", "n_ctx_train", "n_vocab"
        ),
    )

    model_id: Mapped[Name]
    name: Mapped[str]
    architecture: Mapped[str]
    quantization: Mapped[str]
    file_bytes: Mapped[int]
    weight_bytes: Mapped[int]
    n_params: Mapped[int]
    n_layers: Mapped[int]
    n_embd: Mapped[int]
    n_ctx_train: Mapped[int]
    n_vocab: Mapped[int]
    n_experts: Mapped[int]
    facts_json: Mapped[str]
    tensors: Mapped[list[ModelTensorRow]] = relationship(cascade="all, delete-orphan")


class ModelTensorRow(Base):
    """A model's tensors of one group and one element type, summed."""

    __tablename__ = "model_tensor"
    __table_args__ = (not_negative("n_tensors", "n_elements", "n_bytes"),)

    model_id: Mapped[str] = mapped_column(ForeignKey("model.model_id"), primary_key=True)
    tensor_group: Mapped[Name]
    tensor_type: Mapped[Name]
    n_tensors: Mapped[int]
    n_elements: Mapped[int]
    n_bytes: Mapped[int]


class ModelLocationRow(Base):
    """A file that held a model when it was last seen."""

    __tablename__ = "model_location"

    model_id: Mapped[str] = mapped_column(ForeignKey("model.model_id"), primary_key=True)
    path: Mapped[Name]
    modified_at: Mapped[datetime | None]
    last_seen_at: Mapped[datetime]
    mount: Mapped[str | None]
    disk_kind: Mapped[str | None]
    cached_bytes_per_s: Mapped[float | None]
    disk_bytes_per_s: Mapped[float | None]


class ConfigRow(Base):
    """One setting of all knobs, each a column of its own name."""

    __tablename__ = "config"

    config_id: Mapped[Name]
    n_ctx: Mapped[int]
    n_batch: Mapped[int]
    n_ubatch: Mapped[int]
    n_threads: Mapped[int]
    n_threads_batch: Mapped[int]
    flash_attn: Mapped[str]
    type_k: Mapped[str]
    type_v: Mapped[str]
    use_mmap: Mapped[bool]
    use_mlock: Mapped[bool]
    n_gpu_layers: Mapped[int]
    offload_kqv: Mapped[bool]
    op_offload: Mapped[bool]
    split_mode: Mapped[str]
    main_gpu: Mapped[int]
    tensor_split: Mapped[str | None]
    swa_full: Mapped[bool]
    n_parallel: Mapped[int]
    canonical_json: Mapped[str]


class WorkloadRow(Base):
    """Token counts of one request; the key is llama-bench's label, ``pp512+tg128@d0``."""

    __tablename__ = "workload"
    __table_args__ = (
        UniqueConstraint("n_prompt", "n_gen", "n_depth", "n_parallel"),
        not_negative("n_prompt", "n_gen", "n_depth", "n_parallel"),
    )

    workload_id: Mapped[Name]
    n_prompt: Mapped[int]
    n_gen: Mapped[int]
    n_depth: Mapped[int]
    n_parallel: Mapped[int]
