"""Backends of installed packages: found, loaded and measured; a bad one disturbs nobody."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autotune.backends.protocol import EngineError
from autotune.backends.registry import BUILT_IN, backend_names, get_backend
from autotune.domain.errors import UserError
from autotune.domain.run import Reason, Trial
from autotune.domain.workload import Workload
from autotune.measure.engine import ask_engine
from autotune.measure.runner import LocalRunner
from tests.backends.strangers import install, readme_backend
from tests.cli.test_commands import Shell, shell
from tests.factories import make_machine

__all__ = ["shell"]  # the fixture

BROKEN = {
    "missing": ("import nonesuch_engine", "broken:Engine", "No module named 'nonesuch_engine'"),
    "exits": ("raise SystemExit('not here')", "broken:Engine", "SystemExit: not here"),
    "absent": ("x = 1", "broken:Engine", "has no attribute 'Engine'"),
    "takes_nothing": ("class Engine: pass", "broken:Engine", "takes no arguments"),
    "no_backend": ("def Engine(environ, announce): return 7", "broken:Engine", "makes a int"),
}


@pytest.fixture(autouse=True)
def forget_modules() -> Iterator[None]:
    """What a test has imported of its packages is not there for the next."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before & {"reading", "broken"}:
        sys.modules.pop(name, None)


@pytest.fixture
def reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The README's backend, installed."""
    code = readme_backend()
    install(tmp_path / "site", monkeypatch, code=code, points="reading = reading:Reading")
    return "reading"


def test_the_readme_shows_a_backend_in_thirty_lines() -> None:
    """Somebody can take it in at a glance, and the page names the same entry point."""
    assert len(readme_backend().splitlines()) <= 30


def test_an_installed_backend_is_one_of_the_names(reading: str) -> None:
    """After the built-in ones; nothing of it is imported for the list."""
    assert backend_names() == (*BUILT_IN, "reading")
    assert "reading" not in sys.modules
    assert get_backend("reading", {}).default_config(n_ctx=64, machine=make_machine()).n_ctx == 64


def test_an_installed_backend_is_measured_in_a_child(reading: str, smollm2_path: Path) -> None:
    """The worker finds it as this process does; its times are those of one read of the file."""
    config = get_backend(reading, {}).default_config(n_ctx=512, machine=make_machine())
    workload = Workload(n_prompt=8, n_gen=4)
    run = LocalRunner(reading).run(
        Trial(model_path=smollm2_path, config=config, workload=workload, timeout_s=60.0)
    )

    assert run.ok, run.message
    assert run.build is not None
    assert (run.build.backend, run.build.version) == ("reading", "1.0")
    assert run.measurement is not None
    assert run.measurement.decode_tps is not None
    assert 1 < run.measurement.decode_tps.median < 10_000
    assert (run.peak_file_bytes or 0) > 90e6 or sys.platform != "linux"


def test_the_command_line_measures_on_it(shell: Shell, reading: str, smollm2_path: Path) -> None:
    """Listed by the doctor, measured by bench, found again in the store."""
    assert shell.json("doctor")["backends"]["reading"]["version"] == "1.0"
    bench = ("bench", smollm2_path, "--backend", "reading", "--workload", "pp8+tg4")
    document = shell.json(*bench)
    assert document["backend"] == "reading"
    assert document["config"]["n_batch"] == 1

    (stored,) = shell.json("runs", smollm2_path)
    assert shell.json("show", stored["run_id"])["backend"] == "reading"
    assert shell.json(*bench)["evidence"] == "measured"


@pytest.mark.parametrize("fault", BROKEN)
def test_a_backend_that_cannot_be_made_says_why(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line with the package and what is wrong, from whatever is asked of it."""
    code, target, problem = BROKEN[fault]
    install(tmp_path, monkeypatch, name="broken", code=code, points=f"broken = {target}")
    backend = get_backend("broken", {})
    for ask in (
        backend.build,
        backend.gpus,
        lambda: backend.default_config(n_ctx=64, machine=make_machine()),
        lambda: ask_engine("broken"),
    ):
        with pytest.raises(EngineError, match=r"of the package broken 1\.2") as caught:
            ask()
        assert problem in str(caught.value)
        assert caught.value.reason is Reason.UNSUPPORTED


def test_a_backend_answers_to_the_name_it_is_installed_under(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise its runs would be stored under another."""
    code = readme_backend()
    install(tmp_path, monkeypatch, code=code, points="writing = reading:Reading")

    with pytest.raises(EngineError, match="it calls itself 'reading'"):
        get_backend("writing", {}).build()


def test_a_package_cannot_take_a_built_in_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name goes on meaning what it meant in every stored run."""
    install(tmp_path, monkeypatch, code="import nonesuch", points="llama-cpp-python = reading:X")

    assert backend_names() == BUILT_IN
    assert type(get_backend("llama-cpp-python", {})).__name__ == "LlamaCppBackend"


def test_a_broken_package_disturbs_no_other_command(
    shell: Shell, smollm2_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The doctor explains it and misses nothing; an unknown name still gets the list."""
    install(tmp_path, monkeypatch, name="broken", code="raise RuntimeError('ill')",
            points="broken = broken:Engine")  # fmt: skip
    document = shell.json("doctor")
    assert "RuntimeError: ill" in document["backends"]["broken"]["problem"]
    assert document["missing"] == []
    assert shell.run("recommend", smollm2_path)[0] == 0

    status, out, err = shell.run("bench", smollm2_path, "--backend", "broken")
    assert (status, out) == (1, "")
    assert re.fullmatch(r"autotune: .* 'broken' .*\(RuntimeError: ill\).*uninstall it\n", err)
    with pytest.raises(UserError, match="llamafile, broken"):
        get_backend("nonesuch", {})
