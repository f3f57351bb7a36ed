"""``--import``: the example of docs/own_code.md works as printed, and a module that cannot be imported is one line."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mambair import cli

COMMANDS = ("train", "test", "restore", "benchmark", "profile")
# spawned workers, as on macOS and Windows, know nothing that the parent has imported
SPAWNED = "import multiprocessing, sys; multiprocessing.set_start_method('spawn'); import mambair.cli as cli; "


def blocks(repository: Path, language: str) -> list[str]:
    page = (repository / "docs" / "own_code.md").read_text(encoding="utf-8")
    return [part.split("```")[0] for part in page.split(f"```{language}\n")[1:]]


def mambair(arguments: list[str], folder: Path, repository: Path, start: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, which keeps the tests' registries clean."""
    program = f"{start or 'import sys; import mambair.cli as cli; '}sys.exit(cli.main(sys.argv[1:]))"
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    command = [sys.executable, "-W", "ignore", "-c", program, *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture
def example(repository: Path, tmp_path: Path) -> Path:
    """A folder with the files of the page, and the example images."""
    (tmp_path / "deblur.py").write_text(blocks(repository, "python")[0], encoding="utf-8")
    for name, text in zip(("deblur.yml", "deblur_test.yml"), blocks(repository, "yaml"), strict=True):
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "datasets").symlink_to(repository / "datasets")
    return tmp_path


def test_the_example_of_the_page(example: Path, repository: Path) -> None:
    (lines,) = blocks(repository, "bash")
    commands = [shlex.split(line) for line in lines.splitlines()]
    assert [command[1] for command in commands] == ["train", "test", "restore", "profile"]
    # the data set's class is in a file: its spawned worker must find it
    done = mambair(commands[0][1:], example, repository, SPAWNED)
    assert done.returncode == 0, done.stderr
    registered = "architecture DeblurNet, data set BlurDataset, loss EdgeLoss, metric calculate_mae"
    assert done.stderr.splitlines()[0] == f"imported deblur.py ({example / 'deblur.py'}): {registered}"
    records = [json.loads(line) for line in (example / "experiments/deblur/metrics.jsonl").read_text().splitlines()]
    assert [record["iter"] for record in records if "l_pix" in record] == [1, 2]
    assert any("mae" in record for record in records)
    for command in commands[1:]:
        done = mambair(command[1:], example, repository)
        assert done.returncode == 0, done.stderr
    assert "mae" in (example / "results/deblur_test/metrics.md").read_text(encoding="utf-8")
    assert len(list((example / "results/sharp").glob("*.png"))) == 4
    assert "DeblurNet" in done.stdout and "latency" in done.stdout


ARGUMENTS = {
    "train": ["-opt", "x.yml"],
    "test": ["-opt", "x.yml"],
    "restore": ["-i", ".", "-o", "out"],
    "benchmark": ["--suite", "light-sr", "--data", ".", "--levels", "4"],
    "profile": ["MambaIR"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("content", "module", "message"),
    [
        (None, "absent_module", "--import absent_module: no module 'absent_module' on sys.path"),
        (None, "absent.py", "absent.py: no such file"),
        (None, "folder", "--import folder: a folder without __init__.py; name a module in it, such as folder.my_code"),
        ("x = 1 / 0", "divides.py", "--import divides.py: ZeroDivisionError while it is imported (line 1 of "),
    ],
    ids=["no module", "no file", "folder", "raises"],
)
def test_a_module_that_cannot_be_imported_is_a_usage_error(
    command: str,
    content: str | None,
    module: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "folder").mkdir()
    if content is not None:
        (tmp_path / module).write_text(content, encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, *ARGUMENTS[command], "--import", module])
    assert stopped.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert message in line
    assert not (tmp_path / "out").exists()


TAKEN = """
from mambair.registry import ARCH_REGISTRY
@ARCH_REGISTRY.register()
class MambaIR: pass
"""
FAILURES = {
    "name that exists": ("taken.py", TAKEN, "ValueError while it is imported (line "),
    "syntax": ("broken.py", "def f(:", "SyntaxError while it is imported"),
    "needs another module": ("needs.py", "import absent_dependency", "No module named 'absent_dependency'"),
    "ends the program": ("ends.py", "raise SystemExit('enough')", "SystemExit while it is imported (line 1 of "),
    "name of a module of Python": ("json.py", "", "rename the file: a module 'json' exists already"),
    "built-in module": ("sys.py", "", "rename the file: a module 'sys' exists already (built in)"),
    "no valid name": ("my-net.py", "", "rename the file: 'my-net' is not a valid name of a Python module"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_reasons(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, content, message = FAILURES[case]
    (tmp_path / file).write_text(content, encoding="utf-8")
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as stopped:
        cli.main(["profile", "MambaIR", "--no-latency", "--import", str(tmp_path / file)])
    assert stopped.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert message in line
    if case == "name that exists":
        assert "architecture 'MambaIR' is registered already (by mambair.archs.mambair_arch)" in line


@pytest.mark.parametrize(("module", "shown"), [("plain.py", "plain.py"), ("package.inner", "package.inner")])
def test_a_module_may_be_a_file_or_a_name(module: str, shown: str, tmp_path: Path, repository: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "inner.py").touch()
    (tmp_path / "plain.py").write_text("import neighbour\n", encoding="utf-8")
    (tmp_path / "neighbour.py").touch()
    start = f"import sys; sys.path.append({str(tmp_path)!r}); import mambair.cli as cli; "
    arguments = ["profile", "MambaIR", "--no-latency", "--size", "8x8", "--import", module, "--import", module]
    done = mambair(arguments, tmp_path, repository, start)
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("imported ")]
    file = tmp_path / f"{module.removesuffix('.py').replace('.', '/')}.py"
    assert told == [f"imported {shown} ({file}): nothing new registered"] * 2
