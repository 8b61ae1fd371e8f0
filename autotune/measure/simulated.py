"""A runner that runs nothing: a roofline with seeded noise, cliffs and failures.

It serves tests, the search benchmark and documentation. Its machine has known ceilings, so what a
search finds can be held against the truth.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from autotune.domain.conditions import Conditions
from autotune.domain.config import KV_BYTES_PER_ELEMENT, Config
from autotune.domain.machine import Build
from autotune.domain.model import ModelFacts
from autotune.domain.run import Generation, LoadTime, Reason, Run, Trial
from autotune.domain.workload import Workload

_BUILD = Build(backend="simulated", version="1", devices=("CPU",))
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
_WARM_UPS = 2
_QUIET = Conditions(foreign_cpu_ratio=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedMachine:
    """The truth behind a simulated runner."""

    n_cores: int = 4
    read_bytes_per_s: float = 20e9
    """Memory read rate that two threads saturate."""
    flops_per_s: float = 50e9
    """Arithmetic of one core."""
    ram_bytes: int = 8 * 1024**3
    flash_attn_factor: float = 1.05
    """Speed of flash attention over plain attention."""
    best_ubatch: int = 256
    oversubscribed_factor: float = 0.2
    """What is left of the speed when threads outnumber cores: a cliff, not a slope."""
    noise_sd: float = 0.02
    """Spread between processes, on the log."""
    crash_probability: float = 0.0


class SimulatedRunner:
    """Answers trials from a simulated machine, the same way for the same seed."""

    def __init__(
        self,
        model: ModelFacts,
        machine: SimulatedMachine,
        *,
        seed: int = 0,
        backend: str = "simulated",
    ) -> None:
        self.backend = backend
        self._model, self._machine = model, machine
        self._rng = random.Random(seed)  # noqa: S311 - noise, not secrets
        self.elapsed_s = 0.0
        """Seconds that all its runs would have taken."""

    def run(self, trial: Trial, *, notify: Callable[[str], None] = lambda _what: None) -> Run:
        """One simulated trial."""
        notify("simulating")
        started_at = _EPOCH + timedelta(seconds=self.elapsed_s)
        peak_bytes = self.peak_bytes(trial.config)
        if peak_bytes > min(self._machine.ram_bytes, trial.memory_limit_bytes or math.inf):
            return self._failed(trial, started_at, Reason.OOM, "simulated: out of memory")
        if self._rng.random() < self._machine.crash_probability:
            return self._failed(trial, started_at, Reason.CRASH, "simulated: crash")
        process = math.exp(self._rng.gauss(0, self._machine.noise_sd))
        generations = tuple(self._generation(trial, i, process) for i in range(trial.n_reps))
        load_s = process * self._model.file_bytes / self._machine.read_bytes_per_s + 0.1
        elapsed = load_s + (1 + _WARM_UPS / trial.n_reps) * sum(g.request_s for g in generations)
        self.elapsed_s += elapsed
        return Run(
            trial=trial,
            backend=self.backend,
            build=_BUILD,
            started_at=started_at,
            elapsed_s=elapsed,
            load=LoadTime(model_s=load_s, context_s=0.01, first_eval_s=0.01),
            cached_ratio=1.0,
            peak_rss_bytes=peak_bytes,
            conditions=_QUIET,
            generations=generations,
        )

    def _failed(self, trial: Trial, started_at: datetime, reason: Reason, message: str) -> Run:
        self.elapsed_s += 1.0
        return Run(
            trial=trial,
            backend=self.backend,
            build=_BUILD,
            started_at=started_at,
            elapsed_s=1.0,
            reason=reason,
            message=message,
        )

    def _generation(self, trial: Trial, repetition: int, process: float) -> Generation:
        """One repetition: the process's luck, and a fifth of it again within the process."""
        luck = process * math.exp(self._rng.gauss(0, self._machine.noise_sd / 5))
        token_ns = round(self.decode_s(trial.config, trial.workload) * luck * 1e9)
        prefill_ns = round(self.prefill_s(trial.config, trial.workload) * luck * 1e9) or None
        return Generation(
            workload=trial.workload,
            repetition=repetition,
            prefill_ns=prefill_ns,
            ttft_ns=prefill_ns,
            token_ns=(token_ns,) * trial.workload.n_gen,
            conditions=_QUIET,
        )

    def request_s(self, config: Config, workload: Workload) -> float:
        """The true request time, without noise."""
        return self.prefill_s(config, workload) + workload.n_gen * self.decode_s(config, workload)

    def decode_s(self, config: Config, workload: Workload) -> float:
        """The true time of one token: its bytes, which two threads read best, then its FLOPs."""
        rate = self._machine.read_bytes_per_s * min(1.0, 0.55 * config.n_threads)
        n_bytes = self._model.active_bytes
        n_bytes += self._kv_bytes_per_token(config) * workload.decode_depth
        cores = min(config.n_threads, self._machine.n_cores)
        arithmetic = 2 * self._model.active_params / (self._machine.flops_per_s * cores)
        factor = self._factor(config, config.n_threads)
        return (n_bytes / rate + arithmetic) / 0.7 / factor

    def prefill_s(self, config: Config, workload: Workload) -> float:
        """The true time of the prompt: arithmetic over cores, best at one batch size."""
        flops = 2 * self._model.active_params * workload.n_prompt
        cores = min(config.n_threads_batch, self._machine.n_cores)
        octaves = abs(math.log2(config.n_ubatch / self._machine.best_ubatch))
        factor = self._factor(config, config.n_threads_batch) * math.pow(0.93, octaves)
        return flops / (self._machine.flops_per_s * cores * 0.5) / factor

    def _factor(self, config: Config, n_threads: int) -> float:
        cliff = self._machine.oversubscribed_factor if n_threads > self._machine.n_cores else 1.0
        return cliff * (self._machine.flash_attn_factor if config.flash_attn != "off" else 1.0)

    def _kv_bytes_per_token(self, config: Config) -> float:
        heads = sum(self._model.n_heads_kv)
        return heads * (
            self._model.key_length * KV_BYTES_PER_ELEMENT[config.type_k]
            + self._model.value_length * KV_BYTES_PER_ELEMENT[config.type_v]
        )

    def peak_bytes(self, config: Config) -> int:
        """The true peak: weights, KV cache, logits of a batch, the process."""
        cache = config.n_ctx * self._kv_bytes_per_token(config)
        logits = 4 * self._model.n_vocab * config.n_ubatch
        return round(self._model.file_bytes + cache + logits + 60e6)
