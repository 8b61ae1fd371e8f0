"""Exports, read back by each program's rules."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from autotune.domain.config import KNOBS, Config
from autotune.domain.errors import UserError
from autotune.domain.prediction import Target
from autotune.domain.stored import StoredRecommendation
from autotune.domain.workload import Workload
from autotune.recommend.export.llama_server import server_environment
from autotune.recommend.export.program import Program, export
from tests.factories import make_model
from tests.recommend.export_readers import Export, read, read_modelfile
from tests.store.strategies import configs

MODEL = make_model()
SLIDING = make_model(is_sliding=(True, False, True, False), sliding_window=512)
PATH = Path("/models/tiny.gguf")
ADVICE = StoredRecommendation(
    recommendation_id=4,
    study_id=3,
    backend="llama-cpp-python",
    config=Config(n_threads=2),
    target=Target.BALANCED,
    workload=Workload(n_prompt=256, n_gen=64),
    confidence=0.9,
    reasons=("n_threads=2 instead of 1: 1.17× the speed",),
    speedup=1.204,
    made_at=datetime(2026, 11, 1, 12, 0, tzinfo=UTC),
)

UNUSUAL = Config(
    n_ctx=2048, n_batch=256, n_ubatch=64, n_threads=3, n_threads_batch=4, flash_attn="on",
    type_k="q8_0", type_v="q4_0", use_mmap=False, use_mlock=True, n_gpu_layers=2,
    offload_kqv=False, op_offload=False, split_mode="row", main_gpu=1, tensor_split=(3.0, 1.0),
    swa_full=False, n_parallel=2,
)  # fmt: skip
"""No default, and no two numbers alike."""

programs = pytest.mark.parametrize("program", [*Program])


def exported(program: Program, config: Config, *, path: Path = PATH) -> str:
    """A configuration for a model that slides."""
    return export(program, dataclasses.replace(ADVICE, config=config), path=path, model=SLIDING)


def is_said(knob: str, config: Config, found: Export) -> bool:
    """Whether a knob is among the program's settings with its value, or named in a note."""
    ours = getattr(config, knob)
    spelled = "/".join(map(str, ours)) if isinstance(ours, tuple) else str(ours).lower()
    named = f"{knob}={spelled or 'none'}"
    words = {word.rstrip(",:") for note in found.notes for word in note.split()}
    return named in words or (
        knob in found.knobs and comparable(knob, found.knobs[knob]) == comparable(knob, ours)
    )


def comparable(knob: str, value: Any) -> Any:
    """A value as engines keep it: shares in single precision, no shares as none, all layers."""
    if knob == "tensor_split":
        return [f"{share:.9g}" for share in value or ()]
    if knob == "n_gpu_layers" and value > SLIDING.n_layers:
        return -1
    return value


@programs
@given(config=configs())
@example(config=UNUSUAL)
@example(config=Config(n_gpu_layers=-1, type_k="bf16", type_v="bf16", swa_full=False))
@example(config=Config(n_gpu_layers=3, n_ctx=8192, n_parallel=4, use_mmap=False, use_mlock=True))
@example(config=Config(flash_attn="auto", type_k="q8_0", type_v="q4_0", tensor_split=(3.0, 1.0)))
def test_no_knob_is_lost(program: Program, config: Config) -> None:
    """Every legal configuration is exported, each knob as the program's own or in a note."""
    found = read(program, exported(program, config), n_layers=SLIDING.n_layers)

    assert found.model == str(PATH)
    assert [knob for knob in KNOBS if not is_said(knob, config, found)] == []


@programs
def test_a_lost_knob_is_noticed(program: Program) -> None:
    """A planted fault: an export of other values is not taken for this one's."""
    other = read(program, exported(program, Config()), n_layers=SLIDING.n_layers)

    assert [knob for knob in KNOBS if is_said(knob, UNUSUAL, other)] == []


@pytest.mark.parametrize("program", [Program.LLAMA_SERVER, Program.LLAMAFILE, Program.ENV])
def test_a_model_that_does_not_slide_has_no_cache_to_make_full(program: Program) -> None:
    """llama-server warns of a flag that its model has no use for."""
    text = export(program, ADVICE, path=PATH, model=MODEL)

    assert "--swa-full" not in text
    assert "SWA_FULL" not in text
    assert "swa_full=true: no layer of the model has a sliding window" in text


def test_ollama_shares_the_context_between_its_requests() -> None:
    """num_ctx is of one request, ours of all."""
    text = exported(Program.OLLAMA, Config(n_ctx=8192, n_parallel=4))

    assert ("PARAMETER", "num_ctx 2048") in read_modelfile(text)
    assert "OLLAMA_NUM_PARALLEL=4" in text


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (Config(type_k="q8_0", type_v="q8_0", flash_attn="on"), "OLLAMA_KV_CACHE_TYPE=q8_0"),
        (Config(type_k="q8_0"), "OLLAMA_KV_CACHE_TYPE takes one of f16, q8_0, q4_0 for both"),
        (Config(flash_attn="on"), "OLLAMA_FLASH_ATTENTION=1"),
        (Config(), "OLLAMA_FLASH_ATTENTION=0"),
        (Config(flash_attn="auto"), "leave OLLAMA_FLASH_ATTENTION unset"),
    ],
)
def test_ollama_takes_cache_types_and_flash_attention_from_its_servers_environment(
    config: Config, said: str
) -> None:
    """A comment names the variable."""
    assert said in exported(Program.OLLAMA, config)


def test_the_origin_is_told() -> None:
    """What a study measured, or that nobody did; JSON has all of it."""
    proven = export(Program.ENV, ADVICE, path=PATH, model=MODEL)
    guess = dataclasses.replace(ADVICE, study_id=None, speedup=None)
    document = json.loads(export(Program.JSON, ADVICE, path=PATH, model=MODEL))

    assert proven.startswith(
        "# autotune: measured 1.20 times the speed of the default on pp256+tg64@d0, study 3\n"
    )
    assert "not measured" in export(Program.OLLAMA, guess, path=PATH, model=MODEL)
    assert json.loads(export(Program.JSON, guess, path=PATH, model=MODEL))["speedup"] is None
    assert document["evidence"] == "study"
    assert document["speedup"] == 1.204
    assert document["workload"] == "pp256+tg64@d0"
    assert Config.from_dict(document["config"]) == ADVICE.config


@programs
def test_what_a_file_calls_itself_cannot_become_a_command(program: Program) -> None:
    """A model's name with a line break in it."""
    evil = make_model(name='x\nFROM /etc/passwd\n"; touch here')
    found = read(program, export(program, ADVICE, path=PATH, model=evil), n_layers=evil.n_layers)

    assert found.model == str(PATH)
    assert not any("touch" in note for note in found.notes)


NASTY = ("it's", 'say "hi"', '"""', "$HOME `id` $(id) !!", "two\nlines", "cr\rlf", "# hash",
         "-dash", "back\\slash\\", "*?[x]{a,b}", "tab\there", " spaces ", "ünï-日本-🙂", "&|;<>",
         "FROM x\nPARAMETER num_ctx 1", 'a"\n"""b', "%n{x}")  # fmt: skip


@programs
@given(name=st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",))))
def test_any_path_survives_or_is_refused(program: Program, name: str) -> None:
    """Whatever is in it; only a Modelfile cannot hold every one."""
    assert_survives(program, Path("/models" + name))


@programs
@pytest.mark.parametrize("name", NASTY)
def test_a_nasty_path_survives_or_is_refused(program: Program, name: str) -> None:
    """The characters that shells, Python, JSON and Modelfiles give a meaning to."""
    assert_survives(program, Path(f"/models/{name}"))


def assert_survives(program: Program, path: Path) -> None:
    try:
        text = exported(program, Config(), path=path)
    except UserError:
        plain = str(path).replace("\n", "").replace("\r", "").replace("\t", "")
        assert program is Program.OLLAMA
        assert '"""' in plain or not plain.isprintable()
        return
    found = read(program, text, n_layers=SLIDING.n_layers)
    # A line break of a Modelfile may be either.
    is_modelfile = program is Program.OLLAMA
    wanted = str(path).replace("\r", "\n") if is_modelfile else str(path)
    assert found.model == wanted


@pytest.mark.parametrize("start", ["/models/", '"quoted" '])
def test_a_modelfile_quotes_what_a_bare_path_would_not_say(start: str) -> None:
    """A path that begins with quotes, ends with a space, or has a line break in it."""
    for name in ("x", "x ", 'x"', "x\ny", "x\n\n"):
        path = Path(f"{start}{name}")
        text = exported(Program.OLLAMA, Config(), path=path)
        assert read_modelfile(text)[0] == ("FROM", str(path))


@pytest.mark.skipif(shutil.which("sh") is None, reason="no POSIX shell")
@pytest.mark.parametrize("name", [*NASTY, os.fsdecode(b"not \xff utf-8")])
def test_a_real_shell_reads_every_path(name: str, tmp_path: Path) -> None:
    """The command line and the file of variables, by the shell of this machine."""
    path = Path("/models") / name
    program = tmp_path / "llama-server"
    program.write_text('#!/bin/sh\nprintf "%s\\0" "$@"\n')
    program.chmod(0o700)
    file = tmp_path / "tuned.env"
    file.write_bytes(os.fsencode(server_environment(path, Config(), slides=True)))
    line = os.fsencode(exported(Program.LLAMA_SERVER, Config(), path=path))
    sourced = b'set -a; . "$0"; set +a; printf "%s" "$LLAMA_ARG_MODEL"'

    assert shell(line, tmp_path).split(b"\0")[1] == os.fsencode(path)
    assert shell(sourced, tmp_path, str(file)) == os.fsencode(path)


def shell(script: bytes, folder: Path, *words: str) -> bytes:
    """Standard output of a script that finds its programs in a folder first."""
    environ = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    command = ["sh", "-c", script, *words]
    return subprocess.run(command, env=environ, capture_output=True, check=True).stdout


@programs
def test_advice_for_another_engine_is_not_llama_cpps(program: Program) -> None:
    """Only JSON says it as it is; the others are one line with the cure."""
    advice = dataclasses.replace(ADVICE, backend="transformers")
    if program is Program.JSON:
        assert '"backend": "transformers"' in export(program, advice, path=PATH, model=SLIDING)
        return
    with pytest.raises(UserError, match=r"the advice is for transformers.*take --format json"):
        export(program, advice, path=PATH, model=SLIDING)
