"""Machines, probes, builds, models, configurations and workloads."""

from __future__ import annotations

import dataclasses
from datetime import datetime

from autotune.domain.config import Config
from autotune.domain.machine import Build, DiskProbe, MachineFacts, Probe
from autotune.domain.model import ModelFacts
from autotune.domain.workload import Workload
from autotune.store.codec import content_id, from_json, to_json
from autotune.store.tables import (
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


def disk_probe(row: ModelLocationRow) -> DiskProbe | None:
    """How fast a model's file is read where it lies; None where nobody looked."""
    if row.cached_bytes_per_s is None and row.disk_bytes_per_s is None:
        return None
    return DiskProbe(
        cached_bytes_per_s=row.cached_bytes_per_s, disk_bytes_per_s=row.disk_bytes_per_s
    )


def machine_row(machine_id: str, facts: MachineFacts, *, seen_at: datetime) -> MachineRow:
    """The row of a machine; :func:`machine_facts` reads it."""
    return MachineRow(
        machine_id=machine_id,
        cpu=facts.cpu,
        n_logical=facts.n_logical,
        n_physical=facts.n_physical,
        n_usable=facts.n_usable,
        isa=" ".join(facts.isa),
        ram_bytes=facts.ram_bytes,
        ram_limit_bytes=facts.ram_limit_bytes,
        system=facts.system,
        os_version=facts.os_version,
        n_gpus=len(facts.gpus),
        gpu_names=", ".join(gpu.name for gpu in facts.gpus),
        facts_json=to_json(facts),
        last_seen_at=seen_at,
    )


def machine_facts(row: MachineRow) -> MachineFacts:
    """The machine that a row tells of."""
    return from_json(MachineFacts, row.facts_json)


def probe_row(machine_id: str, probe: Probe, *, measured_at: datetime) -> ProbeRow:
    """A probe with a point for each thread count; :func:`probe_value` reads it."""
    series = (
        probe.n_threads,
        probe.read_bytes_per_s,
        probe.read_spread_ratio,
        probe.flops_per_s,
        probe.flops_spread_ratio,
    )
    return ProbeRow(
        machine_id=machine_id,
        measured_at=measured_at,
        elapsed_s=probe.elapsed_s,
        points=[
            ProbePointRow(
                n_threads=n_threads,
                read_bytes_per_s=read,
                read_spread_ratio=read_spread,
                flops_per_s=flops,
                flops_spread_ratio=flops_spread,
            )
            for n_threads, read, read_spread, flops, flops_spread in zip(*series, strict=True)
        ],
    )


def probe_value(row: ProbeRow) -> Probe:
    """The probe that a row and its points tell of, by rising thread count."""
    return Probe(
        n_threads=tuple(point.n_threads for point in row.points),
        read_bytes_per_s=tuple(point.read_bytes_per_s for point in row.points),
        read_spread_ratio=tuple(point.read_spread_ratio for point in row.points),
        flops_per_s=tuple(point.flops_per_s for point in row.points),
        flops_spread_ratio=tuple(point.flops_spread_ratio for point in row.points),
        elapsed_s=row.elapsed_s,
    )


def build_row(build: Build) -> BuildRow:
    """The row of a build, named by its content; :func:`build_value` reads it."""
    facts_json = to_json(build)
    return BuildRow(
        build_id=content_id(facts_json),
        backend=build.backend,
        version=build.version,
        build_commit=build.commit,
        devices=", ".join(build.devices),
        system_info=build.system_info,
        facts_json=facts_json,
    )


def build_value(row: BuildRow) -> Build:
    """The build that a row tells of."""
    return from_json(Build, row.facts_json)


def model_row(model: ModelFacts) -> ModelRow:
    """The row of a model and its tensor sums; :func:`model_facts` reads it."""
    return ModelRow(
        model_id=model.model_id,
        name=model.name,
        architecture=model.architecture,
        quantization=model.quantization,
        file_bytes=model.file_bytes,
        weight_bytes=model.weight_bytes,
        n_params=model.n_params,
        n_layers=model.n_layers,
        n_embd=model.n_embd,
        n_ctx_train=model.n_ctx_train,
        n_vocab=model.n_vocab,
        n_experts=model.n_experts,
        facts_json=to_json(model),
        tensors=[
            ModelTensorRow(
                model_id=model.model_id,
                tensor_group=tensor.group,
                tensor_type=tensor.type,
                n_tensors=tensor.n_tensors,
                n_elements=tensor.n_elements,
                n_bytes=tensor.n_bytes,
            )
            for tensor in model.tensors
        ],
    )


def model_facts(row: ModelRow) -> ModelFacts:
    """The model that a row tells of."""
    return from_json(ModelFacts, row.facts_json)


def config_row(config: Config) -> ConfigRow:
    """The row of a configuration, named by its content; :func:`config_value` reads it."""
    knobs = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    if config.tensor_split is not None:
        knobs["tensor_split"] = to_json(config.tensor_split)
    return ConfigRow(config_id=config.config_id, canonical_json=config.canonical_json(), **knobs)


def config_value(canonical_json: str) -> Config:
    """The configuration of that text."""
    return from_json(Config, canonical_json)


def workload_row(workload: Workload) -> WorkloadRow:
    """The row of a workload, named by its label; :func:`workload_value` reads it."""
    return WorkloadRow(workload_id=workload.label, **dataclasses.asdict(workload))


def workload_value(row: WorkloadRow) -> Workload:
    """The workload that a row tells of."""
    return Workload(
        n_prompt=row.n_prompt, n_gen=row.n_gen, n_depth=row.n_depth, n_parallel=row.n_parallel
    )
