"""``python -m tests.benchmarks.make_prior FILE …``: make the prior that the package ships.

From tables of public telemetry in the common schema: repeats become their median; a failure that
succeeded in another pass was no failure. Of wall times that were taken through a web interface the
interface's own share is left out.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median

from autotune.predict.prior import PRIOR_FILE
from autotune.store.importers.columns import switches

_MEASURED = ("ts", "ts_std", "reps", "load_ms", "gpu_mem_mib", "ram_mib", "kv_mib", "compute_mib")
_LEFT_OUT = {"file", "status", "extra", *_MEASURED}
_KEPT_EXTRA = re.compile(r"(build=[^;]+|n_ctx=\d+|llama-cpp-python[^;]*)")
_NAMES_KEY = ("machine", "model", "quant", "kind", "n_prompt", "n_gen", "n_depth", "flash_attn")
_WEB = "via text-generation-webui"
_WEB_REQUEST_S = 0.12
"""What the interface adds to each request: where the line through prompts of 1,000 and 2,000 tokens
meets no tokens, the same for four quantisations. Per token it adds 9 to 10 ms, longer than the GPU
takes: what is left of those is no measurement."""


def main(files: list[Path]) -> None:
    """Fold the tables and write the package's file."""
    told = [row for file in files for row in csv.DictReader(file.open(encoding="utf-8"))]
    rows = [row for row in map(_without_web, told) if row is not None]
    folded: dict[tuple[str, ...], list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        switched = [f"{name}=1" for name in switches(row["extra"])]
        row["extra"] = ";".join([*_KEPT_EXTRA.findall(row["extra"]), *switched])
        names = [name for name in row if name not in _LEFT_OUT]
        folded[(*(row[name] for name in names), row["extra"])].append(row)
    ok = {_loosely(row) for row in rows if row["status"] == "ok"}
    kept = []
    for found in folded.values():
        rates = [float(row["ts"]) for row in found if row["ts"]]
        if rates:
            kept.append(found[0] | {"ts": f"{median(rates):.6g}", "status": "ok"})
        elif _loosely(found[0]) not in ok:
            kept.append(found[0])
    header = [name for name in rows[0] if name not in {"file", *_MEASURED[1:]}]
    text = io.StringIO()
    writer = csv.DictWriter(text, header, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(kept)
    # No time of writing in the file: the same tables make the same bytes.
    PRIOR_FILE.write_bytes(gzip.compress(text.getvalue().encode(), 9, mtime=0))
    print(f"{len(told)} rows, {len(kept)} kept, {PRIOR_FILE.stat().st_size} bytes")


def _without_web(row: dict[str, str]) -> dict[str, str] | None:
    """The row as the engine alone would have it; None where that cannot be told."""
    if _WEB not in row["extra"] or not row["ts"]:
        return row
    left_s = int(row["n_prompt"]) / float(row["ts"]) - _WEB_REQUEST_S
    if row["kind"] != "pp" or left_s <= 0:
        return None
    return row | {"ts": str(int(row["n_prompt"]) / left_s)}


def _loosely(row: dict[str, str]) -> tuple[str, ...]:
    """What a failed row prints of its configuration too."""
    model = re.sub(r"(-\d{5}-of-\d{5})?(\.gguf)?$", "", row["model"])
    flavour = row["extra"].split("build=")[-1]
    return (model, flavour, *(row[name] for name in _NAMES_KEY if name != "model"))


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
