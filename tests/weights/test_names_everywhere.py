"""A name or an address of weights wherever a file of weights may stand: option files, commands, scripts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from mambair import test as test_command
from mambair import train as train_command
from mambair.commands import benchmark, profile, restore
from mambair.options import OptionsError, load_options
from mambair.weights import addresses
from mambair.weights.checkpoint import read_checkpoint
from mambair.weights.fetch import FetchError, locate, resolve, size_in_words

HUB_FILE = "hub:owner/repository/tiny.safetensors"
NAME = "MambaIRv2-light-x2"
NETWORK = {"type": "MambaIR", "upscale": 2, "embed_dim": 12, "depths": [1], "d_state": 2}
NETWORK["upsampler"] = "pixelshuffledirect"  # as that of the server
ADDRESSES = pytest.mark.parametrize("weights", ["hub:owner/repository/tiny.pth", NAME, NAME.upper()])


@pytest.fixture
def options(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """(weights, is_train) -> an option file that starts from them, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gt").mkdir()
    source = sorted((repository / "datasets" / "example" / "lr_x4").iterdir())[0]
    (tmp_path / "gt" / "a.png").write_bytes(source.read_bytes())

    def write(weights: str, *, is_train: bool, **path: Any) -> Path:
        content: dict[str, Any] = {"name": "tiny", "model_type": "RestorationModel", "scale": 2, "num_gpu": 0}
        content |= {"manual_seed": 0, "network_g": NETWORK, "path": {"pretrain_network_g": weights, **path}}
        one = {"type": "BicubicDataset", "dataroot_gt": "gt"}
        if is_train:
            content["datasets"] = {"train": {**one, "gt_size": 16, "total_batch_size": 1}}
            content["train"] = {"total_iter": 2, "optim_g": {"type": "Adam", "lr": 1e-4}}
            content["train"]["pixel_opt"] = {"type": "L1Loss"}
            content["logger"] = {"save_checkpoint_freq": 1, "print_freq": 1}
        else:
            content["datasets"] = {"test_1": {**one, "name": "A"}}
            content["val"] = {"metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 2}}}
        file = tmp_path / "tiny.yml"
        file.write_text(yaml.safe_dump(content), encoding="utf-8")
        return file

    return write


@ADDRESSES
def test_a_test_file(options: Any, published_here: Any, weights: str, tmp_path: Path) -> None:
    assert test_command.main(["-opt", str(options(weights, is_train=False))]) == 0
    content = json.loads((tmp_path / "results/tiny/metrics.json").read_text(encoding="utf-8"))
    assert content["conditions"]["weights"].endswith(".pth")
    assert test_command.main(["-opt", str(options(weights, is_train=False, strict_load_g=False))]) == 0
    assert len(published_here.asked) == 1


def test_a_training_file(options: Any, server: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = options(HUB_FILE, is_train=True)
    assert load_options(file, is_train=True)["path"]["pretrain_network_g"] == HUB_FILE
    assert server.asked == [], "options are checked without the network"
    assert train_command.main(["-opt", str(file)]) == 0
    assert len(server.asked) == 1
    assert f"weights of {tmp_path}/home/weights/tiny-" in caplog.text
    server.status = 404
    for path in (tmp_path / "home/weights").glob("tiny-*"):
        path.unlink()
    assert train_command.main(["-opt", str(file), "--auto_resume"]) == 0, "a state brings its own weights"
    assert len(server.asked) == 1


def test_a_training_whose_weights_cannot_be_fetched_changes_nothing(
    options: Any, server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = options(HUB_FILE, is_train=True)
    assert train_command.main(["-opt", str(file)]) == 0
    before = sorted((tmp_path / "experiments").iterdir())
    for path in (tmp_path / "home/weights").glob("tiny-*"):
        path.unlink()
    server.status = 404
    assert train_command.main(["-opt", str(file)]) == 2
    error = capsys.readouterr().err
    assert f"path.pretrain_network_g: {HUB_FILE} could not be fetched" in error and "answers 404" in error
    assert sorted((tmp_path / "experiments").iterdir()) == before, "nothing is archived"


def test_a_check_takes_weights_from_the_cache_only(
    options: Any, server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(options(HUB_FILE, is_train=True))
    assert train_command.main(["-opt", file, "--check"]) == 2
    assert f"{HUB_FILE} is not in the cache" in capsys.readouterr().err and server.asked == []
    assert train_command.main(["-opt", file]) == 0
    assert train_command.main(["-opt", file, "--check"]) == 0


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            "MambaIRv2-lite-x2",
            "pretrain_network_g: MambaIRv2-lite-x2: there is no such file, and .* nearest: MambaIRv2",
        ),
        ("MambaIR-light-x2", "no address of weights is known for MambaIR-light-x2; known are those of MambaIR-light-2"),
        ("hub:owner/file.pth", "expected hub:OWNER/REPOSITORY/FILE"),
        ("http://host/a.pth", "expected an address that begins with https://"),
        ("nothing.pth", "there is no file nothing.pth"),
        ("folder/net", "there is no file folder/net"),
    ],
)
@pytest.mark.parametrize("is_train", [True, False])
def test_options_name_what_is_wrong(options: Any, weights: str, message: str, is_train: bool) -> None:
    with pytest.raises(OptionsError, match=message):
        load_options(options(weights, is_train=is_train), is_train=is_train)


def test_a_file_comes_before_a_name(options: Any, server: Any, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(server.content)
    opt = load_options(options(NAME, is_train=False), is_train=False)
    assert opt["path"]["pretrain_network_g"] == str(tmp_path / NAME)


def test_a_folder_of_results_is_in_nobodys_way(options: Any, server: Any, tmp_path: Path) -> None:
    for name in (NAME, "mine"):
        (tmp_path / name).mkdir()
    opt = load_options(options(NAME, is_train=False), is_train=False)
    assert opt["path"]["pretrain_network_g"] == NAME
    with pytest.raises(FetchError, match=f"{NAME} is not in the cache"):
        locate(NAME, offline=True)
    with pytest.raises(FileNotFoundError, match=r"^mine: the folder holds no model\.safetensors; name a file$"):
        locate("mine")
    with pytest.raises(OptionsError, match="mine is a folder; the path of a file is right"):
        load_options(options("mine", is_train=False), is_train=False)


@pytest.mark.parametrize("command", [train_command, test_command], ids=["train", "test"])
def test_offline(options: Any, server: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any, command: Any) -> None:
    file = str(options(HUB_FILE, is_train=command is train_command))
    for variable, flag in (("1", []), ("0", ["--offline"])):
        monkeypatch.setenv("MAMBAIR_OFFLINE", variable)
        assert command.main(["-opt", file, *flag]) == 2
        told = capsys.readouterr().err
        assert "path.pretrain_network_g: " in told and "the network may not be used" in told
    assert server.asked == []


@ADDRESSES
def test_conversion(
    published_here: Any, load_script: Callable[[str], ModuleType], weights: str, tmp_path: Path, capsys: Any
) -> None:
    script = load_script("convert_checkpoint")
    assert script.main([weights, str(tmp_path / "a.safetensors")]) == 0
    assert read_checkpoint(tmp_path / "a.safetensors").metadata["mambair.arch"] == "MambaIR"
    assert script.main(["MambaIRv2-lite-x2", str(tmp_path / "b.safetensors")]) == 1
    assert "nearest: MambaIRv2-light" in capsys.readouterr().err and not (tmp_path / "b.safetensors").exists()


def test_profile(published_here: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert profile.main(["hub:owner/repository/tiny.pth", "--no-latency", "--size", "64x64"]) == 0
    assert "MambaIR" in capsys.readouterr().out
    assert profile.main([NAME, "--no-latency", "--size", "64x64"]) == 0
    assert len(published_here.asked) == 1, "a published network is built without its weights"
    with pytest.raises(SystemExit, match="2"):
        profile.main(["hub:owner/repository/other.pth", "--offline"])
    assert "hub:owner/repository/other.pth is not in the cache" in capsys.readouterr().err


@ADDRESSES
def test_restoring_and_benchmark(options: Any, published_here: Any, weights: str, tmp_path: Path) -> None:
    options(weights, is_train=False)
    assert restore.main(["-i", "gt", "-o", "out", "--weights", weights, "--quiet"]) == 0
    (result,) = (tmp_path / "out").glob("*.png")
    (tmp_path / "data/Set5").mkdir(parents=True)
    for index in range(5):
        (tmp_path / f"data/Set5/{index}.png").write_bytes(result.read_bytes())
    arguments = ["--suite", "light-sr", "--data", "data", "--sets", "Set5", "--output", "b", "--quiet", "--crop", "16"]
    assert benchmark.main([*arguments, "--weights", f"mine={weights}"]) == 0
    content = json.loads((tmp_path / "b/results.json").read_text(encoding="utf-8"))
    assert "mine" in json.dumps(content) and len(published_here.asked) == 1


def test_every_published_name_may_stand_in_an_option_file(options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from mambair.options import paths
    from mambair.options.errors import FaultList

    monkeypatch.setattr("mambair.weights.fetch.fetch", lambda *a, **k: pytest.fail("nothing is fetched by a check"))
    faults, names = FaultList({}, "file"), addresses.names()
    assert [paths.resolve_weights(name, ("path",), faults, check=True) for name in names] == names
    faults.raise_if_any()


def test_without_weights_the_packaged_network_is_used_and_a_better_one_named(
    options: Any, published_here: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options("", is_train=False)

    def restored(output: str, *more: str) -> tuple[bytes, str]:
        assert restore.main(["-i", "gt", "-o", output, *more]) == 0
        return (tmp_path / output / "a.png").read_bytes(), capsys.readouterr().err

    line = "network: mambair_small_x4.safetensors, which comes with mambair; a better one: --weights MambaIRv2-light-x4"
    first, told = restored("one")
    assert f"{line} (fetched once, about 3 MB)\n" in told and published_here.asked == []
    locate("MambaIRv2-light-x4")
    second, told = restored("two")
    assert f"{line} (in the cache)\n" in told and first == second
    assert line not in restored("three", "--quiet")[1]
    assert len(published_here.asked) == 1
    _, told = restored("four", "-s", "4", "--weights", "best")  # the tiny network of the test enlarges by 2
    assert "the network makes x2; x4 is resampled from that" in told, "best is the better network"
    with pytest.raises(SystemExit, match="2"):
        restore.main(["-i", "gt", "-o", "four", "--task", "jpeg", "--weights", "best"])
    assert "--weights best: no published network is known for this task and degree" in capsys.readouterr().err


def test_sizes_in_words() -> None:
    names = ("MambaIRv2-light-x3", "MambaIRv2-large-x2", "vmamba_tiny_s1l8", "hub:owner/repository/a.pth")
    assert [size_in_words(resolve(name)) for name in names] == [
        "4.1 MB", "about 136 MB", "size not stated", "size not stated",
    ]  # fmt: skip
