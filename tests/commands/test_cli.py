from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import mambair
from mambair import cli


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_of_the_table_has_a_main_and_a_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(importlib.import_module(cli.COMMANDS[name].module).main)
    with pytest.raises(SystemExit) as stopped:
        cli.main([name, "--help"])
    assert stopped.value.code == 0
    assert f"usage: mambair {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ([], 2, "usage: mambair COMMAND"),
        (["--help"], 0, "enlarge or clean images"),
        (["--version"], 0, f"mambair {mambair.__version__}"),
        (["restor"], 2, "no command 'restor'; did you mean 'restore'?"),
        (["qqq"], 2, "no command 'qqq'\n"),
    ],
    ids=["nothing", "help", "version", "mistyped", "unknown"],
)
def test_usage(arguments: list[str], code: int, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == code
    shown = capsys.readouterr()
    assert text in (shown.err if code else shown.out)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("restore -i a -o b --tsak sr", "unrecognized arguments: --tsak; did you mean '--task'?"),
        ("restore -i a -o b --dtype bf61", "got 'bf61'; did you mean 'bf16'?"),
        ("restore -i a -o b --task denois", "did you mean 'denoise'?"),
        ("train -opt a.yml --autoresume", "unrecognized arguments: --autoresume; did you mean '--auto_resume'?"),
        ("train -opt a.yml --launcher slrum", "did you mean 'slurm'?"),
        ("test -opt a.yml --force-yml x", "did you mean '--force_yml'?"),
        ("profile MambaIR --size-of ouput", "did you mean 'output'?"),
        ("weights lst", "did you mean 'list'?"),
        ("data downlod", "did you mean 'download'?"),
        ("data prepare sub-image a b", "did you mean 'sub-images'?"),
        ("data lint --gt a --scael 2", "did you mean '--scale'?"),
    ],
)
def test_the_nearest_of_what_there_is(arguments: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments.split())
    assert stopped.value.code == 2
    shown = capsys.readouterr().err
    assert shown.endswith(f"{text}\n") and shown.count("did you mean") == 1


EVERY_HELP = """
import runpy, sys
from mambair.cli import COMMANDS
for name in COMMANDS:
    sys.argv = ["mambair", name, "--help"]
    try:
        runpy.run_module("mambair", run_name="__main__")
    except SystemExit as stop:
        assert stop.code == 0
    heavy = sorted({"torch", "numpy", "cv2", "PIL", "tqdm"} & set(sys.modules))
    assert not heavy, (name, heavy)
"""


def test_the_package_runs_as_a_module_and_shows_every_help_without_torch(repository: Path) -> None:
    run = subprocess.run([sys.executable, "-c", EVERY_HELP], cwd=repository, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("usage: mambair ") == run.stdout.count("exit codes: 0 done") == len(cli.COMMANDS)
    assert run.stdout.count("\nexamples:\n  ") == len(cli.COMMANDS)


def test_the_installed_command_is_this_one(repository: Path) -> None:
    project = (repository / "pyproject.toml").read_text(encoding="utf-8")
    assert '[project.scripts]\nmambair = "mambair.cli:run"\n' in project
