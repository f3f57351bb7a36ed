"""Arguments that commands share mean the same in each: spellings, defaults, refusals."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest

from mambair import cli
from mambair.commands import benchmark, profile
from mambair.commands.restore_arguments import restore_parser

WITHOUT_OPTIONS: dict[str, tuple[Callable[[], argparse.ArgumentParser], list[str]]] = {
    "restore": (lambda: restore_parser(None), ["-i", "in", "-o", "out"]),
    "restore as a script": (lambda: restore_parser("jpeg"), ["-i", "in", "-o", "out"]),
    "benchmark": (benchmark._parser, ["--suite", "light-sr", "--data", "sets"]),
    "profile": (profile._parser, ["MambaIR"]),
}


@pytest.mark.parametrize("command", WITHOUT_OPTIONS)
@pytest.mark.parametrize(
    ("more", "dtype"),
    [
        ([], "float32"),
        (["--dtype", "fp32"], "float32"),
        (["--dtype", "bf16"], "bfloat16"),
        (["--dtype", "fp16"], "float16"),
        (["--dtype", "float32"], "float32"),
        (["--dtype", "bfloat16"], "bfloat16"),
        (["--dtype", "float16"], "float16"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_precisions(command: str, more: list[str], dtype: str) -> None:
    parser, arguments = WITHOUT_OPTIONS[command]
    options = parser().parse_args([*arguments, *more])
    assert (options.dtype, options.device, options.modules) == (dtype, "auto", [])


@pytest.mark.parametrize("command", WITHOUT_OPTIONS)
def test_an_unknown_precision(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser, arguments = WITHOUT_OPTIONS[command]
    with pytest.raises(SystemExit) as stopped:
        parser().parse_args([*arguments, "--dtype", "int8"])
    assert stopped.value.code == 2
    assert "argument --dtype: must be one of fp32, bf16, fp16, got 'int8'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["restore", "benchmark", "profile"])
@pytest.mark.parametrize("device", ["toaster", "cuda:77"])
def test_an_absent_device_is_2_in_every_command(
    command: str, device: str, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, weights = repository / "datasets" / "example", repository / "mambair" / "weights"
    x4 = str(weights / "mambair_small_x4.safetensors")
    arguments = {
        "restore": ["-i", str(images / "lr_x4"), "-o", str(tmp_path / "out"), "--weights", x4],
        "benchmark": ["--suite", "light-sr", "--data", str(images), "--weights", x4, "--output", str(tmp_path / "out")],
        "profile": ["MambaIR"],
    }
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, *arguments[command], "--device", device])
    assert stopped.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert f"mambair {command}: error: device: " in line and device in line and "this machine has cpu" in line
    assert not (tmp_path / "out").exists()
