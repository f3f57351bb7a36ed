"""Means of checkpoints: values, dtypes, the command, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mambair.archs import build
from mambair.commands import weights as command
from mambair.weights.checkpoint import Checkpoint, CheckpointError, network_metadata, read_checkpoint, write_checkpoint
from mambair.weights.loading import load
from mambair.weights.mixing import mix

TINY = {"upscale": 2, "embed_dim": 8, "depths": [1], "d_state": 2, "mlp_ratio": 1.2, "upsampler": "pixelshuffledirect"}


def checkpoint(name: str = "a", **tensors: torch.Tensor) -> Checkpoint:
    return Checkpoint(dict(tensors), {}, name)


def test_values_and_dtypes() -> None:
    first = checkpoint(w=torch.tensor([1.0, 2.0], dtype=torch.float16), n=torch.tensor(3))
    second = checkpoint(w=torch.tensor([3.0, 6.0]), n=torch.tensor(3))
    mixed = mix([first, second], (0.75, 0.25))
    assert mixed["w"].dtype == torch.float16 and mixed["w"].tolist() == [1.5, 3.0] and mixed["n"].item() == 3
    assert mix([second, first], (2.0, -1.0))["w"].tolist() == [5.0, 10.0]
    three = mix([first, second, second], (0.5, 0.25, 0.25))
    assert three["w"].tolist() == [2.0, 4.0]


@pytest.mark.parametrize(
    ("tensors", "shares", "error", "text"),
    [
        ({"w": torch.zeros(2)}, (0.5,), ValueError, "shares must be 2 numbers that sum to 1"),
        ({"w": torch.zeros(2)}, (0.5, 0.6), ValueError, "sum to 1"),
        ({"w": torch.zeros(3)}, (0.5, 0.5), CheckpointError, "a and b are not of one network: w differ"),
        ({"v": torch.zeros(2)}, (0.5, 0.5), CheckpointError, "not of one network: v, w differ"),
    ],
    ids=["count", "sum", "shape", "names"],
)
def test_refusals(tensors: dict, shares: tuple, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        mix([checkpoint("a", w=torch.zeros(2)), checkpoint("b", **tensors)], shares)


def test_whole_numbers_that_differ_are_refused() -> None:
    with pytest.raises(CheckpointError, match="n holds whole numbers that differ"):
        mix([checkpoint(n=torch.tensor(1)), checkpoint(n=torch.tensor(2))], (0.5, 0.5))


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    found = []
    for seed, name in enumerate(("first.pth", "second.safetensors")):
        torch.manual_seed(seed)
        net = build("MambaIR", TINY)
        write_checkpoint(tmp_path / name, net.state_dict(), network_metadata("MambaIR", TINY, "sr"))
        found.append(str(tmp_path / name))
    return found


def test_the_command(files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "mixed.safetensors"
    assert command.main(["mix", *files, "--alpha", "0.25", "-o", str(output)]) == 0
    assert capsys.readouterr().out == f"{output}\n"
    mixed, first, second = (read_checkpoint(path).state_dict for path in (output, *files))
    for name, value in mixed.items():
        expected = (0.75 * first[name].double() + 0.25 * second[name].double()).to(value.dtype)
        assert torch.equal(value, expected), name
    assert type(load(output)).__name__ == "MambaIR"


def test_refusals_of_the_command(files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "mixed.safetensors"
    output.write_bytes(b"mine")
    assert command.main(["mix", *files, "-o", str(output)]) == 2
    assert "exists; --overwrite replaces it" in capsys.readouterr().err and output.read_bytes() == b"mine"
    with pytest.raises(SystemExit) as stopped:
        command.main(["mix", *files, "--alpha", "1.5", "-o", str(output)])
    assert stopped.value.code == 2 and "expected a number from 0 to 1, got '1.5'" in capsys.readouterr().err
    missing = str(tmp_path / "no.pth")
    assert command.main(["mix", files[0], missing, "-o", str(tmp_path / "x.pth")]) == 2
    assert "no.pth" in capsys.readouterr().err and not (tmp_path / "x.pth").exists()
    other = tmp_path / "other.pth"
    write_checkpoint(other, build("MambaIR", {**TINY, "embed_dim": 12}).state_dict(), {})
    assert command.main(["mix", files[0], str(other), "-o", str(tmp_path / "x.pth")]) == 2
    assert "are not of one network" in capsys.readouterr().err
