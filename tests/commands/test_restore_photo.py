"""One photograph without options, sizes, formats, comparisons and ``--open`` of ``mambair restore``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mambair.commands import restore
from mambair.images.files import DecodedImage, read_size, write_image
from mambair.registry import ARCH_REGISTRY
from mambair.system import show_file as show_file_module
from mambair.weights import packaged
from mambair.weights.checkpoint import write_checkpoint


def tiny(path: Path, upscale: int) -> None:
    torch.manual_seed(0)
    kwargs = {"embed_dim": 12, "depths": [1], "d_state": 4, "mlp_ratio": 1.2, "upscale": upscale}
    kwargs["upsampler"] = "pixelshuffledirect" if upscale > 1 else ""
    net = ARCH_REGISTRY.get("MambaIR")(**kwargs)
    write_checkpoint(path, net.state_dict(), {"mambair.arch": "MambaIR", "mambair.kwargs": json.dumps(kwargs)})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with smooth, noisy and strongly compressed photographs; tiny networks are the packaged ones."""
    (tmp_path / "weights").mkdir()
    for name, scale in (("x4", 4), ("dn25", 1)):
        tiny(tmp_path / "weights" / f"{name}.safetensors", scale)
    monkeypatch.setattr(packaged, "FOLDER", tmp_path / "weights")
    table = {("sr", 4): "x4.safetensors", ("denoise", 25): "dn25.safetensors"}
    monkeypatch.setattr(packaged, "PACKAGED", table)
    ramp = np.linspace(60, 190, 48)
    smooth = np.stack([ramp[:, None] + 0 * ramp, 0 * ramp[:, None] + ramp, (ramp[:, None] + ramp) / 2], axis=2)
    noise = np.random.default_rng(0).normal(0, 25, smooth.shape)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    Image.fromarray(smooth.astype(np.uint8)).save("clean.jpg", quality=98, dpi=(240, 240))
    Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8)).save("noisy.png")
    Image.fromarray(np.clip(smooth + noise / 3, 0, 255).astype(np.uint8)).save("web.jpg", quality=20)
    return work


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


PHOTOS: dict[str, tuple[list[str], str, tuple[int, int]]] = {
    "nothing else": (["clean.jpg"], "clean_x2.jpg", (96, 96)),
    "factor": (["clean.jpg", "--scale", "3"], "clean_x3.jpg", (144, 144)),
    "longest side": (["clean.jpg", "--longest-side", "100"], "clean_100px.jpg", (100, 100)),
    "format": (["clean.jpg", "--format", "webp"], "clean_x2.webp", (96, 96)),
    "suffix": (["clean.jpg", "--suffix", "_large"], "clean_large.jpg", (96, 96)),
    "task": (["noisy.png", "--task", "denoise"], "noisy_denoised.png", (48, 48)),
    "noisy": (["noisy.png"], "noisy_x2.png", (96, 96)),
    "quality": (["web.jpg", "--quality", "70"], "web_x2.jpg", (96, 96)),
}


@pytest.mark.parametrize(("arguments", "result", "size"), PHOTOS.values(), ids=PHOTOS)
def test_one_photograph(
    arguments: list[str], result: str, size: tuple[int, int], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = names(here)
    assert restore.main([*arguments, "--dry-run"]) == 0
    assert names(here) == before
    assert restore.main(arguments) == 0
    assert names(here) - before == {result}
    assert capsys.readouterr().out.endswith(f"megapixels/s): {result}\n")
    assert read_size(here / result) == size


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("clean.jpg", "clean.jpg: 48 x 48 pixels, JPEG of quality 98, noise about 0 of 255: task sr by x4.safetensors"),
        ("noisy.png", "noisy.png: 48 x 48 pixels, noise about 2"),
        ("web.jpg", "web.jpg: 48 x 48 pixels, JPEG of quality 20, "),
    ],
)
def test_the_choice_is_one_line(name: str, line: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert restore.main([name]) == 0
    shown = capsys.readouterr().err
    (said,) = [each for each in shown.splitlines() if "task" in each]
    assert said.startswith(line) and "result x2" in said
    task = "denoise by dn25.safetensors" if name == "noisy.png" else "sr by x4.safetensors"
    assert f"task {task}" in said


def test_a_network_for_photographs_is_a_file_and_a_row(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        restore.main(["web.jpg", "--task", "photo"])
    expected = "no weights are packaged for photo 2 (there are: denoise 25, sr 4); name a file: --weights FILE"
    assert expected in capsys.readouterr().err
    tiny(packaged.FOLDER / "photo_x2.safetensors", 2)
    monkeypatch.setitem(packaged.PACKAGED, ("photo", 2), "photo_x2.safetensors")
    for name in ("web.jpg", "noisy.png"):
        assert restore.main([name]) == 0
        assert "task photo by photo_x2.safetensors, result x2" in capsys.readouterr().err
    assert restore.main(["clean.jpg"]) == 0
    assert "task sr by x4.safetensors" in capsys.readouterr().err
    assert restore.main(["clean.jpg", "--task", "photo", "--overwrite"]) == 0


def test_a_folder_by_look(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "broken.png").write_bytes(b"no image")
    assert restore.main(["-i", ".", "-o", "out", "--task", "auto", "--format", "same"]) == 1
    results = {"clean.jpg", "noisy.png", "web.jpg"}
    assert names(here / "out") == {*results, "manifest.jsonl"}
    assert {read_size(here / "out" / name) for name in results} == {(96, 96)}
    records = [json.loads(line) for line in (here / "out" / "manifest.jsonl").read_text().splitlines()]
    used = {each["output"]: Path(each["weights_file"]).stem for each in records if each["status"] == "done"}
    assert used == {"clean.jpg": "x4", "noisy.png": "dn25", "web.jpg": "x4"}
    (here / "broken.png").unlink()
    before = (here / "out" / "manifest.jsonl").read_text()
    assert restore.main(["-i", ".", "-o", "out", "--task", "auto", "--format", "same"]) == 0
    assert (here / "out" / "manifest.jsonl").read_text() == before
    shown = capsys.readouterr()
    assert "2 were there already" in shown.out and "1 were there already" in shown.out
    assert "other processes" not in shown.out
    assert restore.main(["-i", ".", "-o", "out", "--task", "auto", "--format", "same", "--overwrite"]) == 0
    records = [json.loads(line) for line in (here / "out" / "manifest.jsonl").read_text().splitlines()]
    assert sorted(each["output"] for each in records[-3:]) == sorted(results)


def test_what_cannot_be_looked_at_fails_when_it_is_restored(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert restore.main(["clean.jpg", "--max-pixels", "100"]) == 1
    shown = capsys.readouterr().err
    assert "clean.jpg: cannot be looked at" in shown and "more than the limit of 100" in shown
    assert not (here / "clean_x2.jpg").exists()


@pytest.mark.parametrize("has_manifest", [False, True])
def test_metadata_without_room_and_further_pictures_are_told(
    has_manifest: bool, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = [Image.new("RGB", (8, 8), (value, 0, 0)) for value in (50, 90)]
    pictures[0].save("a.tif", save_all=True, append_images=pictures[1:], tiffinfo={700: b"<x/>".ljust(70_000)})
    notes = [
        "it holds several pictures, of which the first was read",
        "XMP of 70000 bytes was dropped: JPEG has less room",
    ]
    assert restore.main(["a.tif", "-o", *(["out", "--format", "jpg"] if has_manifest else ["out.jpg"])]) == 0
    shown = capsys.readouterr().err
    if has_manifest:
        assert json.loads((here / "out" / "manifest.jsonl").read_text())["notes"] == notes
        assert not any(note in shown for note in notes)
    else:
        assert all(f"a.tif: {note}\n" in shown for note in notes)


def test_a_result_that_is_there_is_not_replaced(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "clean_x2.jpg").write_bytes(b"mine")
    with pytest.raises(SystemExit) as stopped:
        restore.main(["clean.jpg"])
    assert stopped.value.code == 2
    expected = "output: clean_x2.jpg is there already: --overwrite replaces it, -o names another"
    assert expected in capsys.readouterr().err
    assert restore.main(["clean.jpg", "--skip-existing"]) == 0
    assert (here / "clean_x2.jpg").read_bytes() == b"mine"
    assert restore.main(["clean.jpg", "--overwrite"]) == 0
    assert read_size(here / "clean_x2.jpg") == (96, 96)


WRONG: dict[str, tuple[list[str], str]] = {
    "nothing": ([], "the following arguments are required: -i/--input, -o/--output"),
    "no output": (
        ["-i", "clean.jpg"],
        "the following arguments are required: -o/--output (for a result beside the image: mambair restore clean.jpg)",
    ),
    "no output for a folder": (["-i", "."], "the following arguments are required: -o/--output\n"),
    "two photographs": (["clean.jpg", "web.jpg"], "one PHOTO is taken at a time, got 2; for many: -i FOLDER -o FOLDER"),
    "photo and input": (["clean.jpg", "-i", "web.jpg"], "give PHOTO or -i, not both: got clean.jpg and -i web.jpg"),
    "a folder": (["."], ". is a folder; name one for the results as well: -i . -o FOLDER"),
    "none there": (["nowhere.jpg"], "input: there is no file or folder nowhere.jpg"),
    "auto and weights": (
        ["clean.jpg", "--task", "auto", "--weights", "x"],
        "--task auto chooses the network and --weights names one: give one of them",
    ),
    "two sizes": (["clean.jpg", "--scale", "2", "--width", "9"], "sizes contradict each other: give one of scale, "),
    "side and width": (["clean.jpg", "--longest-side", "2", "--height", "9"], "got longest-side and width and height"),
    "no number": (["clean.jpg", "--scale", "two"], "must be a number above 0 such as 2 or 1.5, got 'two'"),
    "infinite": (["clean.jpg", "--scale", "inf"], "must be a number above 0 such as 2 or 1.5, got 'inf'"),
    "too large": (["clean.jpg", "--scale", "40"], "scale: must be a number from 0.01 to 32, got 40"),
    "no pixels": (["clean.jpg", "--width", "0"], "argument --width: must be an integer from 1, got '0'"),
    "strength": (["clean.jpg", "--strength", "1.1"], "--strength: must be a number from 0 to 1, got '1.1'"),
    "no strength": (["clean.jpg", "--strength", "nan"], "--strength: must be a number from 0 to 1, got 'nan'"),
    "shown and not made": (["clean.jpg", "--open", "--dry-run"], "--open shows a result and --dry-run makes none"),
    "quality": (["noisy.png", "--quality", "50"], "quality: png has none"),
    "format": (["clean.jpg", "--format", "sam"], "got 'sam'; did you mean 'same'?"),
    "manifest": (["-i", ".", "-o", "x", "--format", "same", "--quality", "0"], "quality: must be from 1 to 100, got 0"),
}


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG)
def test_what_contradicts_is_wrong_usage(
    arguments: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = names(here)
    with pytest.raises(SystemExit) as stopped:
        restore.main(arguments)
    assert stopped.value.code == 2 and message in capsys.readouterr().err
    assert names(here) == before


def test_the_same_format(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (6, 7, 4)).astype(np.uint16)
    write_image(here / "in" / "deep.tif", DecodedImage(values[..., :3], values[..., 3]))
    write_image(here / "in" / "photo.JPG", DecodedImage((values[..., :3] >> 8).astype(np.uint8)))
    Image.new("L", (7, 6)).save(here / "in" / "grey.gif")
    command = ["-i", "in", "-o", "out", "--format", "same", "--longest-side", "20", "--quality", "80"]
    assert restore.main(command) == 0
    assert names(here / "out") == {"deep.tif", "photo.JPG", "grey.png", "manifest.jsonl"}
    assert "written as png, as their formats are only read: 1 .gif" in capsys.readouterr().err
    assert restore.main([*command, "--dry-run"]) == 0
    assert "write" not in capsys.readouterr().out


def test_lines_of_the_manifest_decide_by_the_new_options_too(here: Path) -> None:
    command = ["-i", "clean.jpg", "-o", "out"]
    for more in ([], ["-s", "2"], ["--strength", "0.5"], ["--compare"]):
        for _ in range(2):
            assert restore.main([*command, *more]) == 0
    lines = (here / "out" / "manifest.jsonl").read_text().splitlines()
    assert len(lines) == 4


@pytest.mark.skipif(sys.platform != "linux", reason="xdg-open")
@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["clean.jpg"], "clean_x2.jpg"),
        (["clean.jpg", "--compare"], "clean_x2_compare.html"),
        (["-i", ".", "-o", "out", "-s", "2"], "out"),
    ],
)
def test_the_result_is_shown(
    arguments: list[str], shown: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(show_file_module.subprocess, "Popen", lambda command, **options: started.append(command))
    monkeypatch.setattr(show_file_module.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setenv("DISPLAY", ":0")
    assert restore.main([*arguments, "--open"]) == 0
    assert started == [["/usr/bin/xdg-open", str(here.resolve() / shown)]]
    for variable in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(variable, raising=False)
    assert restore.main([*arguments, "--open", "--overwrite"]) == 0
    assert f"--open: {shown} is not shown: there is no display" in capsys.readouterr().err.replace(f"{os.curdir}/", "")
    assert len(started) == 1
