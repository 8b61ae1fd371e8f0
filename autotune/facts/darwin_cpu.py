"""The processor as macOS describes it: the output of ``sysctl hw machdep.cpu``."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping

from autotune.facts.isa import normalise_isa
from autotune.facts.processor import Processor


def read_darwin_cpu() -> Processor:
    """The processor of this Mac."""
    command = ["/usr/sbin/sysctl", "hw", "machdep.cpu"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return Processor()
    return parse_sysctl(run.stdout)


def parse_sysctl(text: str) -> Processor:
    """The processor in lines of ``name: value``."""
    values = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    n_levels = _integer(values, "hw.nperflevels") or 1
    return Processor(
        name=values.get("machdep.cpu.brand_string"),
        n_physical=_integer(values, "hw.physicalcpu"),
        n_performance=_integer(values, "hw.perflevel0.physicalcpu") if n_levels > 1 else None,
        isa=normalise_isa(_words(values)),
        cache_l2_bytes=sum(_l2_by_level(values, n_levels)) or _l2_of_intel(values),
        cache_l3_bytes=_integer(values, "hw.l3cachesize"),
    )


def _words(values: Mapping[str, str]) -> Iterator[str]:
    """Feature names: words of two lists on Intel, names of flags that are 1 on Apple's own."""
    for name in ("machdep.cpu.features", "machdep.cpu.leaf7_features"):
        yield from values.get(name, "").split()
    for name, value in values.items():
        if name.startswith("hw.optional.") and value == "1":
            yield name.rpartition(".")[2].removesuffix("_0")


def _l2_by_level(values: Mapping[str, str], n_levels: int) -> Iterator[int]:
    """Bytes of L2 of each kind of core; clusters of ``cpusperl2`` cores share one."""
    for level in range(n_levels):
        prefix = f"hw.perflevel{level}."
        size, cores = (_integer(values, prefix + name) for name in ("l2cachesize", "physicalcpu"))
        shared_by = _integer(values, prefix + "cpusperl2")
        if size and cores and shared_by:
            yield size * -(-cores // shared_by)


def _l2_of_intel(values: Mapping[str, str]) -> int | None:
    size, cores = _integer(values, "hw.l2cachesize"), _integer(values, "hw.physicalcpu")
    return size * cores if size and cores else None


def _integer(values: Mapping[str, str], name: str) -> int | None:
    value = values.get(name, "")
    return int(value) if value.isdigit() and value != "0" else None
