"""Ours against the original of the guide: what each expects of a model, and what each remembers.

The original (``aikitx`` 1.0.0) is fetched for this figure alone, and only asked: its optimizer runs
in processes of its own, in a temporary working folder, for there it keeps what it learned. Both
answer before any use of a model; then the model is really used five times through
``autotune.integration``. Ours writes these uses down by itself; the original is told the very same
numbers. Both answer again, and the medians of five more uses are the truth that they are held
against. Then each is asked by fresh processes: in the same working folder, in another one, and
after the model file was moved; and after one use that failed. Nothing else may run.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import autotune
from autotune.domain.stats import median
from autotune.integration import BackendConfig, GenerationConfig, PerformanceOptimizer
from autotune.integration.current import create_backend
from tests.benchmarks.models import models
from tests.benchmarks.table import print_table

ORIGINAL = "aikitx==1.0.0"
BACKEND = "llama-cpp-python"
USES = 5
PROMPTS = ("The sea was calm and", "My favourite meal is", "In the year 2050 people")
MAX_TOKENS = 64
FIGURES = {
    "predicted_load_time_ms": "load, ms",
    "predicted_memory_usage_mb": "memory, MB",
    "predicted_tokens_per_second": "tokens/s",
}
RECORDED = 0.8
"""The original's confidence in what it was told of; in its constants it is 0.5."""
ON_USES = ("measured", "calibrated")
"""Evidence of ours that has uses of the model itself."""
Answer = Mapping[str, Any]
Row = tuple[str, ...]

_ASK_ORIGINAL = f"""
import json, logging, sys
logging.disable(logging.CRITICAL)
from llmtoolkit.app.core.hardware_detector import HardwareDetector
from llmtoolkit.app.core.performance_optimizer import PerformanceOptimizer
path, told, _ = json.load(sys.stdin)
detector = HardwareDetector()
optimizer = PerformanceOptimizer(detector)
for use in told:
    optimizer.record_performance("{BACKEND}", path, *use)
info = detector.get_hardware_info()
names = ("gpu_count", "total_vram", "cpu_cores", "total_ram")
hardware = {{name: getattr(info, name) for name in names}}
print(json.dumps(optimizer.predict_performance(path, "{BACKEND}", hardware)))
"""
_ASK_OURS = f"""
import json, sys
from autotune.domain.workload import Workload
from autotune.integration import BackendConfig, PerformanceOptimizer
path, told, config = json.load(sys.stdin)
config = BackendConfig(**config)
optimizer = PerformanceOptimizer()
for use in told:
    optimizer.record_performance("{BACKEND}", path, *use, config=config)
workload = Workload(n_prompt=8, n_gen={MAX_TOKENS})
said = optimizer.predict_performance(path, "{BACKEND}", config=config, workload=workload)
optimizer.stop()
print(json.dumps(said))
"""


class Use(NamedTuple):
    """One load and its answers, in the order of ``record_performance``."""

    load_ms: float
    memory_mb: int
    decode_tps: float
    success: bool = True


FAILURE = Use(load_ms=0, memory_mb=0, decode_tps=0, success=False)
"""Nothing is known of a use that failed but that it did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One of the two, as fresh processes are asked."""

    who: str
    program: str
    environ: Mapping[str, str]
    config: Mapping[str, Any]
    """What the model is loaded with; the original has no such argument."""

    def ask(self, cwd: Path, path: Path, told: Sequence[Use] = ()) -> Answer:
        """What it expects of a model, after it was told of some uses."""
        done = subprocess.run(
            [sys.executable, "-c", self.program],
            input=json.dumps([str(path), told, self.config]),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            cwd=cwd,
            env=os.environ | self.environ,
        )
        return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print how far off both are, and what they remember."""
    errors, memories = [], []
    with tempfile.TemporaryDirectory() as folder:
        package = _fetch(Path(folder))
        for name, path in models():
            place = Path(folder, name)
            place.mkdir()
            judged, remembered = _compare(path.resolve(), place, package)
            errors += [(name, *row) for row in judged]
            memories += [(name, *row) for row in remembered]
    headers = ("model", "figure", "truth (range)", "who", "before any use", "error",
               "90 % interval", f"after {USES} uses", "error", "90 % interval")  # fmt: skip
    title = f"predictions for {BACKEND}; truth: medians of {USES} more uses, file in the page cache"
    print_table(title, headers, errors)
    headers = ("model", "who", "asked by a fresh process", *FIGURES.values(), "success", "knows")
    print_table("what is left after a restart", headers, memories)


def _fetch(folder: Path) -> Path:
    """The folder of the original's package. Exits with one line where it cannot be had."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", str(folder)]
    done = subprocess.run([*command, ORIGINAL], check=False, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        sys.exit(f"{ORIGINAL} cannot be downloaded, so there is nothing to compare with: {reason}")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as package:
        package.extractall(folder / "original")
    return folder / "original"


def _compare(path: Path, place: Path, package: Path) -> tuple[list[Row], list[Row]]:
    """The rows of one model in both tables."""
    path.read_bytes()  # so that the first load is like the others
    store, home, elsewhere, session = (place / f"{number}" for number in range(4))
    for folder in (home, elsewhere, session):
        folder.mkdir()
    config = _advised(path, store)
    original, ours = _both(package, store, config)
    before = [asked.ask(home, path) for asked in (original, ours)]
    uses = _use(path, store, config)
    after = [original.ask(home, path, uses), ours.ask(home, path)]
    truth = _use(path, shutil.copy(store, place / "copy"), config)  # neither is told of these
    errors = _error_rows(truth, (original.who, ours.who), before, after)
    moved = Path(shutil.copy2(path, place / "moved.gguf"))
    questions = (
        ("in the same folder", home, path),
        ("in another folder", elsewhere, path),
        ("model file moved", home, moved),
        ("a failure told", home, path, [FAILURE]),
    )
    said = [(a.who, what, a.ask(*rest)) for a in (original, ours) for what, *rest in questions]
    lenient = original.ask(session, path, [*uses, FAILURE])
    said.insert(len(questions), (original.who, "a failure told, no restart before", lenient))
    return errors, [_memory_row(*row) for row in said]


def _both(package: Path, store: Path, config: BackendConfig) -> tuple[Asked, Asked]:
    """The original and ours. Neither may find anything by its working folder but its own cache."""
    own = {"PYTHONPATH": str(Path(autotune.__file__).parents[1]), "AUTOTUNE_DB": str(store)}
    there = {"PYTHONPATH": str(package)}
    return (
        Asked(who="original", program=_ASK_ORIGINAL, environ=there, config={}),
        Asked(who="ours", program=_ASK_OURS, environ=own, config=config.to_dict()),
    )


def _advised(path: Path, store: Path) -> BackendConfig:
    """What ours recommends before any use: all uses are with this configuration."""
    optimizer = PerformanceOptimizer(cache_file=store)
    try:
        return optimizer.get_optimal_backend(path, [BACKEND]).recommended_config
    finally:
        optimizer.stop()


def _use(path: Path, store: Path, config: BackendConfig) -> list[Use]:
    """Real uses, as an application of the guide makes them; each is written into the store."""
    optimizer = PerformanceOptimizer(cache_file=store)
    try:
        optimizer.get_optimal_backend(path, [BACKEND])  # the backend writes where this one does
        return [_use_once(path, config) for _ in range(USES)]
    finally:
        optimizer.stop()


def _use_once(path: Path, config: BackendConfig) -> Use:
    with create_backend(BACKEND, config) as backend:
        result = backend.load_model(path)
        assert result.success, result.error_message
        settings = GenerationConfig(max_tokens=MAX_TOKENS, temperature=0)
        answers = [backend.answer(settings.to_request(prompt)) for prompt in PROMPTS]
        rates = [answer.generation.decode_tps for answer in answers if answer.generation]
        return Use(
            load_ms=result.load_time,
            memory_mb=backend.memory_mb,
            decode_tps=median([rate for rate in rates if rate]),
        )


def _error_rows(
    truth: Sequence[Use], names: Sequence[str], before: Sequence[Answer], after: Sequence[Answer]
) -> list[Row]:
    """Of each figure the truth, and what each said of it."""
    rows: list[Row] = []
    for (key, label), values in zip(FIGURES.items(), zip(*truth, strict=True), strict=False):
        really = median(values)
        shown = f"{really:.1f} ({min(values):.1f} – {max(values):.1f})"
        for who, early, late in zip(names, before, after, strict=True):
            judged = (*_judged(early, key, really), *_judged(late, key, really))
            rows.append((label, shown, who, *judged))
    return rows


def _judged(answer: Answer, key: str, truth: float) -> tuple[str, str, str]:
    """A prediction, its error, and whether its interval holds the truth."""
    interval = "none given"
    if "intervals" in answer:
        low, high = answer["intervals"][key]
        interval = f"{low:.1f} – {high:.1f} {'holds' if low <= truth <= high else 'MISSES'}"
    return f"{answer[key]:.1f}", f"{abs(answer[key] / truth - 1):.1%}", interval


def _memory_row(who: str, what: str, answer: Answer) -> Row:
    """``knows``: whether the answer stands on uses of this model, by its own word."""
    evidence = answer.get("evidence")
    knows = answer["confidence"] == RECORDED if evidence is None else evidence in ON_USES
    figures = [f"{answer[key]:.1f}" for key in FIGURES]
    success = f"{answer['predicted_success_rate']:.2f}"
    said = "" if evidence is None else f" ({evidence})"
    return who, what, *figures, success, ("yes" if knows else "no") + said
