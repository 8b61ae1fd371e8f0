"""One row of a benchmark table as an imported test, whatever its columns are called.

The names are those of llama-bench from 2023 to 2026 (``use_direct_io`` and ``f16_kv`` came and
went, ``backends`` was once five flags) and of the common table that public sets are kept in.
Source: ``test`` and its ``get_fields`` in llama.cpp's ``tools/llama-bench/llama-bench.cpp``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from autotune.domain.errors import DataError
from autotune.domain.imported import ImportedTest
from autotune.domain.machine import gpu_api
from autotune.domain.run import Reason
from autotune.domain.units import MIB
from autotune.store.importers.cells import Columns

_MOST_TOKENS = 2**31
_MOST_TPS = 1e8
_MOST_SECONDS = 1e9
"""Thirty years: nobody waited longer for a load, nor for a repetition."""
_MOST_BYTES = 2**62
_YEARS = range(1970, 9999)
_OLD_FLAGS = ("cuda", "vulkan", "metal", "sycl", "opencl", "kompute")
"""Columns of the time before ``backends``; ``cuda`` was also true of AMD's ROCm."""
_NO_GPU = frozenset({"cpu", "blas", "openblas", "mkl", "accelerate", "amx", "zendnn", "rpc"})
"""Backends of a processor; llama-bench also lists RPC where no other machine helped."""
_NEXT_GPU = re.compile(r", |(?<!\bw)/")
"""Between several GPUs; a slash until 2024. ``w/ Radeon 8060S`` is one processor's own."""
_FLASH = {"0": "off", "1": "on", "-1": "auto", "false": "off", "true": "on", "off": "off",
          "on": "on", "auto": "auto", "disabled": "off", "enabled": "on"}  # fmt: skip
_SWITCHED = {"1": True, "0": False, "true": True, "false": False}
_MAPPED = {"mmap": True, "mmap_mlock": True, "none": False, "mlock": False, "direct_io": False,
           "mmap+mlock": True, "dio": False, **_SWITCHED}  # fmt: skip
_SWITCH = re.compile(r"\s*(\w+)\s*=\s*(?:1|on|true)\s*", re.IGNORECASE)
"""A part of ``extra`` that somebody switched on, such as ``hipblaslt=1``."""
_QUANTITY = re.compile(r"n_\w+|\w+_(?:s|ms|us|w|c|mib|gib|mb|gb|mhz|ghz|pct)")
"""A name that is a count, or ends in a unit: it was measured."""
_SUCCEEDED = ("ok", "success", "succeeded", "successful", "true", "complete", "completed", "done",
              "finished", "pass", "passed")  # fmt: skip
_FAILED = ("fail", "failed", "failure", "false", "error", "crashed", "killed", "aborted")
_OUTCOMES: Mapping[str, Reason | None] = {
    **dict.fromkeys(_SUCCEEDED, None),
    **dict.fromkeys(_FAILED, Reason.CRASH),
    **{reason.value: reason for reason in Reason},
    "canceled": Reason.CANCELLED,
    "skipped": Reason.CANCELLED,
}
"""What a row's status says; a test that was skipped says nothing about its configuration."""


def read_test(
    row: Mapping[str, object], *, source: str, machine: str | None = None, place: str = ""
) -> ImportedTest:
    """The test that a row describes.

    ``source`` tells who measured it and ``machine`` names the machine where the row does not;
    ``place`` is where the row stands. Raises DataError with the column's name for a row that says
    nothing, or nothing that can be true.
    """
    cells = Columns(row)
    _require_plain_placement(cells)
    tps = cells.number("ts", "avg_ts", "t/s")
    reason = _reason(cells, is_measured=tps is not None and tps > 0)
    load_s = _load_s(cells)
    if reason is None and not load_s and not (tps and tps > 0):
        raise DataError("no rate above 0")
    if tps is not None and tps > _MOST_TPS:
        raise DataError(f"{tps:g} tokens per second are no rate")
    test = ImportedTest(
        source=cells.text("source") or source,
        place=place,
        machine=cells.text("machine") or machine,
        cpu=cells.text("cpu", "cpu_info"),
        gpu=_first_gpu(cells.text("gpu", "gpu_info")),
        n_gpus=cells.count("n_gpu") or _n_gpus(cells),
        api=_api(cells),
        backend=_engine(cells),
        build=_build(cells),
        model=_file_name(cells.text("model", "model_filename")),
        model_type=cells.text("model_type"),
        model_bytes=cells.count("size_bytes", "model_size"),
        n_params=cells.count("n_params", "model_n_params"),
        quantization=cells.text("quant"),
        n_prompt=cells.count("n_prompt") or 0,
        n_gen=cells.count("n_gen") or 0,
        n_depth=cells.count("n_depth") or 0,
        n_ctx=_extra_count(cells, "n_ctx"),
        n_threads=cells.count("n_threads"),
        n_batch=cells.count("n_batch"),
        n_ubatch=cells.count("n_ubatch"),
        n_gpu_layers=cells.integer("n_gpu_layers"),
        n_cpu_moe=cells.count("n_cpu_moe"),
        flash_attn=cells.word(_FLASH, "flash_attn", "fa"),
        type_k=cells.text("type_k"),
        type_v=cells.text("type_v"),
        use_mmap=cells.word(_MAPPED, "load_mode", "use_mmap", "mmap"),
        offload_kqv=_stayed_on(cells, "no_kv_offload", "nkvo"),
        op_offload=_stayed_on(cells, "no_op_offload"),
        split_mode=cells.text("split_mode"),
        tps=None if reason or not tps or tps < 0 else tps,
        tps_sd=cells.number("ts_std", "stddev_ts"),
        samples_tps=cells.numbers("samples_ts"),
        n_reps=cells.count("reps") or len(cells.numbers("samples_ts")) or None,
        load_s=load_s or None,
        peak_vram_bytes=_bytes(cells, "gpu_mem_mib"),
        peak_rss_bytes=_bytes(cells, "ram_mib"),
        reason=reason,
        measured_at=_instant(cells.text("test_time")),
        is_hearsay=bool(cells.text("is_hearsay")),
    )  # fmt: skip
    return _plausible(_normalised(test, cells.text("kind")))


def _normalised(test: ImportedTest, kind: str | None) -> ImportedTest:
    """A table may repeat the prompt in the depth of the generation that follows it."""
    if kind == "tg":
        return replace(test, n_prompt=0, n_depth=max(test.n_depth, test.n_prompt))
    if kind == "pp":
        return replace(test, n_gen=0)
    return test


def _require_plain_placement(cells: Columns) -> None:
    """No row of a model whose tensors somebody placed one by one: it would look all on the GPU."""
    overrides = cells.text("tensor_buft_overrides", "ot")
    if overrides and overrides.lower() != "none":
        raise DataError(
            f"tensor_buft_overrides={overrides[:40]}: single tensors elsewhere are not a knob yet"
        )


def _plausible(test: ImportedTest) -> ImportedTest:
    if test.n_prompt + test.n_gen == 0:
        raise DataError("no tokens: n_prompt and n_gen are 0")
    if test.model is None and test.model_type is None:
        raise DataError("no model")
    if test.n_prompt + test.n_gen + test.n_depth > _MOST_TOKENS:
        raise DataError(f"{test.n_prompt + test.n_gen + test.n_depth} tokens are no test")
    for tps in (test.tps, *test.samples_tps):
        if tps and (test.n_prompt + test.n_gen) / tps > _MOST_SECONDS:
            raise DataError(f"{tps:g} tokens per second are no rate")
    return test


def _reason(cells: Columns, *, is_measured: bool) -> Reason | None:
    """Why it failed; a word that nobody knows says that it did only where no rate was measured."""
    status = (cells.text("status") or "ok").lower()
    return _OUTCOMES.get(status, None if is_measured else Reason.CRASH)


def _file_name(path: str | None) -> str | None:
    """Without its folders, of any system."""
    return None if path is None else re.split(r"[\\/]", path)[-1] or None


def _first_gpu(text: str | None) -> str | None:
    return None if text is None else _NEXT_GPU.split(text)[0].strip() or None


def _n_gpus(cells: Columns) -> int | None:
    text = cells.text("gpu_info")
    return len(_NEXT_GPU.split(text)) if text else None


def _api(cells: Columns) -> str | None:
    """What computed: the devices that were chosen, else the first GPU that was compiled in."""
    chosen = cells.text("devices") or "auto"
    if chosen.lower() != "auto":
        return _chosen_api(chosen)
    names = cells.text("backends", "backend")
    if names is None:
        if not cells.has(*_OLD_FLAGS):
            return None
        names = next((flag for flag in _OLD_FLAGS if cells.word(_SWITCHED, flag)), "CPU")
    api = _known_api(names)
    is_amd = "amd" in (cells.text("gpu_info") or "").lower()
    return "ROCm" if api == "CUDA" and is_amd else api


def _chosen_api(devices: str) -> str:
    """That of the first GPU among ``CUDA0/CUDA1``; ``none`` leaves the processor."""
    if devices.lower() == "none":
        return "CPU"
    if "rpc" in devices.lower():
        raise DataError(f"devices={devices[:40]}: another machine's devices are not a knob yet")
    apis = [_known_api(device) for device in devices.split("/")]
    return next((api for api in apis if api != "CPU"), "CPU")


def _known_api(names: str) -> str:
    api = gpu_api(names)
    if api is None and not _NO_GPU.issuperset(re.findall(r"\w+", names.lower())):
        # Were it taken for the processor, its rates would be a processor's.
        raise DataError(f"backend {names[:40]!r} is not known")
    return api or "CPU"


def _engine(cells: Columns) -> str:
    extra = cells.text("extra") or ""
    if engine := cells.text("engine"):
        return engine
    return "llama-cpp-python" if "llama-cpp-python" in extra else "llama-bench"


def _build(cells: Columns) -> str | None:
    """Number and flavour of the build, such as ``6077 llama.cpp-hip+hipblaslt``.

    What is switched on in the environment is as good as another build: with hipBLASLt the same one
    reads long prompts 1.2 to 5 times as fast (public telemetry).
    """
    number, commit = cells.whole("build", "build_number"), cells.text("build_commit")
    switched = switches(cells.text("extra") or "")
    flavour = "+".join(filter(None, (_extra(cells, "build") or commit, *switched)))
    return " ".join(filter(None, (number, flavour))) or None


def switches(extra: str) -> list[str]:
    """Names of what the column ``extra`` says was switched on."""
    names = [found[1] for part in extra.split(";") if (found := _SWITCH.fullmatch(part))]
    return sorted(name for name in names if not _QUANTITY.fullmatch(name))


def _extra(cells: Columns, name: str) -> str | None:
    for part in (cells.text("extra") or "").split(";"):
        key, separator, value = part.partition("=")
        if separator and key.strip() == name:
            return value.strip() or None
    return None


def _extra_count(cells: Columns, name: str) -> int | None:
    text = _extra(cells, name)
    if not text or not text.isdecimal():
        return None
    if float(text) > _MOST_TOKENS:
        raise DataError(f"{name} is {text[:40]}, above {_MOST_TOKENS}")
    return int(text)


def _stayed_on(cells: Columns, *names: str) -> bool | None:
    """The opposite of a column that says what was switched off."""
    is_off = cells.word(_SWITCHED, *names)
    return None if is_off is None else not is_off


def _load_s(cells: Columns) -> float | None:
    milliseconds = cells.number("load_ms")
    if milliseconds is not None and not 0 <= milliseconds * 1e-3 <= _MOST_SECONDS:
        raise DataError(f"load_ms is {milliseconds:g}, no time that a load takes")
    return None if milliseconds is None else milliseconds * 1e-3


def _bytes(cells: Columns, name: str) -> int | None:
    mib = cells.number(name)
    if mib is None or mib <= 0:
        return None
    if mib * MIB > _MOST_BYTES:
        raise DataError(f"{name} is {mib:g}, more than any machine has")
    return round(mib * MIB)


def _instant(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        instant = None
    if instant is None or instant.year not in _YEARS:
        raise DataError(f"test_time is {text!r}, not a date")
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
