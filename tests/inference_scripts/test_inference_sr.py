from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import mambair
from mambair.commands import restore
from mambair.images.files import DecodedImage, read_image, write_image
from mambair.registry import ARCH_REGISTRY
from mambair.weights.checkpoint import write_checkpoint
from mambair.weights.packaged import PACKAGED, SCALED, default_weights


def super_resolve(arguments: list[str]) -> int:
    return restore.main(arguments, task="sr")


def tiny(path: Path, upscale: int) -> Path:
    """Write a very small MambaIR with random weights."""
    torch.manual_seed(0)
    kwargs = {"embed_dim": 12, "depths": [1], "d_state": 4, "mlp_ratio": 1.2, "upscale": upscale}
    kwargs["upsampler"] = "pixelshuffledirect" if upscale > 1 else ""
    net = ARCH_REGISTRY.get("MambaIR")(**kwargs)
    write_checkpoint(path, net.state_dict(), {"mambair.arch": "MambaIR", "mambair.kwargs": json.dumps(kwargs)})
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny(tmp_path_factory.mktemp("weights") / "tiny_x4.safetensors", 4)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of real life: a truncated PNG, a text named .png, an empty .jpg, 1 x 1, 16 bit, RGBA, one good."""
    folder = tmp_path / "photos"
    (folder / "trip").mkdir(parents=True)
    values = np.random.default_rng(0).integers(0, 65536, (24, 20, 4)).astype(np.uint16)
    write_image(folder / "good.png", DecodedImage((values[..., :3] >> 8).astype(np.uint8)))
    write_image(folder / "trip" / "sixteen.png", DecodedImage(values[..., :3]))
    transparent = (values >> 8).astype(np.uint8)
    write_image(folder / "trip" / "rgba.png", DecodedImage(transparent[..., :3], alpha=transparent[..., 3]))
    Image.new("L", (1, 1), 200).save(folder / "one.png")
    (folder / "truncated.png").write_bytes((folder / "good.png").read_bytes()[:600])
    (folder / "text.png").write_text("no image at all")
    (folder / "empty.jpg").touch()
    return folder


def test_a_folder_of_real_life(photos: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "enlarged"
    code = super_resolve(["-i", str(photos), "-o", str(output), "--weights", str(weights), "--tile", "16"])
    shown = capsys.readouterr()
    assert code == 1
    expected = {
        "good.png": ("RGB", "uint8", (96, 80)),
        "one.png": ("L", "uint8", (4, 4)),
        "trip/rgba.png": ("RGBA", "uint8", (96, 80)),
        "trip/sixteen.png": ("RGB", "uint16", (96, 80)),
    }
    results = {str(path.relative_to(output)): read_image(path) for path in output.rglob("*.*g") if path.is_file()}
    assert {n: (i.mode, i.pixels.dtype.name, i.pixels.shape[:2]) for n, i in results.items()} == expected
    # more than 8 bits went through the network
    assert len(np.unique(results["trip/sixteen.png"].pixels)) > 256
    for name, reason in (("truncated.png", "truncated"), ("text.png", "not an image"), ("empty.jpg", "0 bytes")):
        (line,) = [line for line in shown.err.splitlines() if f"failed: {photos / name}: " in line]
        assert reason in line
    assert "4 of 7 images restored" in shown.out and "3 failed" in shown.out


def test_success_is_zero_and_the_scale_may_be_named(photos: Path, weights: Path, tmp_path: Path) -> None:
    arguments = ["-i", str(photos / "one.png"), "-o", str(tmp_path / "out"), "--weights", str(weights), "-s", "4"]
    assert super_resolve(arguments) == 0
    assert read_image(tmp_path / "out" / "one.png").pixels.shape == (4, 4, 1)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["-s", "0"], "-s/--scale: must be a number above 0 such as 2 or 1.5, got '0'"),
        (["--tile", "8", "--overlap", "5"], "overlap: must be at most half of the tile of 8 pixels, got 5"),
        (
            ["--device", "toaster"],
            "device: must be auto, cpu, .* or mps, got 'toaster'; this machine has cpu",
        ),
        (["--format", "xyz"], "format: must be one of png, .*got 'xyz'"),
        (["-i", "nowhere"], "there is no file or folder nowhere"),
        (["--weights", "nowhere.safetensors"], r"nowhere\.safetensors"),
        (["--tile", "many"], "invalid int value: 'many'"),
    ],
    ids=["scale", "overlap", "device", "format", "input", "weights", "number"],
)
def test_wrong_usage_is_exit_code_2(
    photos: Path,
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    with pytest.raises(SystemExit) as stopped:
        super_resolve(["-i", str(photos), "-o", str(tmp_path / "out"), "--weights", str(weights), *arguments])
    assert stopped.value.code == 2
    shown = capsys.readouterr().err
    assert re.search(message, shown), shown
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("scale", "size"), [("3", 3), ("2.5", 3), ("8", 8)])
def test_any_scale_is_made_of_that_of_the_network(
    scale: str, size: int, photos: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["-i", str(photos / "one.png"), "-o", str(tmp_path / "out"), "--weights", str(weights), "-s", scale]
    assert super_resolve(arguments) == 0
    assert read_image(tmp_path / "out" / "one.png").pixels.shape == (size, size, 1)
    said = f"the network makes x4; x{scale} is resampled from that (bicubic, antialiased)"
    assert said in capsys.readouterr().err


def test_dry_run_writes_nothing(
    photos: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    arguments = ["-i", str(photos), "-o", str(output), "--weights", str(weights), "--dry-run", "--suffix", "_big"]
    assert super_resolve(arguments) == 0
    assert f"{photos / 'good.png'}: write {output / 'good_big.png'}" in capsys.readouterr().out
    assert not output.exists()


def test_ctrl_c_says_how_to_go_on(
    photos: Path,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import mambair.folders.pipeline

    def interrupted(path: Path, *, max_pixels: int, allow_truncated: bool) -> DecodedImage:
        raise KeyboardInterrupt

    monkeypatch.setattr(mambair.folders.pipeline, "read_encoded", interrupted)
    arguments = ["-i", str(photos), "-o", str(tmp_path / "out"), "--weights", str(weights)]
    assert super_resolve(arguments) == 130
    assert "the same command goes on with the rest" in capsys.readouterr().err


def test_the_script_runs_from_a_checkout_that_is_not_installed(
    repository: Path, weights: Path, photos: Path, tmp_path: Path
) -> None:
    # -P: nothing but the script itself may put the checkout on the path; -I leaves PYTHONPATH and user packages out
    script = repository / "inference" / "inference_sr.py"
    arguments = ["-i", str(photos / "one.png"), "-o", "out", "--weights", str(weights)]
    run = subprocess.run(
        [sys.executable, "-I", str(script), *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    assert read_image(tmp_path / "out" / "one.png").pixels.shape == (4, 4, 1)
    assert "1.0/1 images" in run.stderr


@pytest.mark.parametrize("script", ["inference_sr.py", "inference_denoise.py"])
@pytest.mark.parametrize("arguments, code", [(["--help"], 0), (["-i", "only"], 2)], ids=["help", "usage"])
def test_help_and_usage_do_not_import_torch(repository: Path, script: str, arguments: list[str], code: int) -> None:
    program = (
        "import runpy, sys\n"
        f"sys.argv = ['{script}', *{arguments}]\n"
        "try:\n"
        f"    runpy.run_path({str(repository / 'inference' / script)!r}, run_name='__main__')\n"
        "except SystemExit as stop:\n"
        "    heavy = sorted({'torch', 'numpy', 'cv2', 'PIL', 'tqdm'} & set(sys.modules))\n"
        "    assert not heavy, heavy\n"
        "    sys.exit(stop.code)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert run.returncode == code, run.stderr
    assert "usage: inference_" in run.stdout + run.stderr


@pytest.mark.parametrize("task, degree", sorted(PACKAGED))
def test_packaged_weights_do_their_task(task: str, degree: int) -> None:
    try:
        path = default_weights(task, degree)
    except FileNotFoundError:
        pytest.skip("the packaged weights are not there yet")
    restorer = mambair.Restorer.from_checkpoint(path, device="cpu")
    assert restorer.scale == (degree if task in SCALED else 1)
    output = restorer(np.full((8, 9, 3), 0.5, dtype=np.float32))
    # a flat grey stays nearly what it is
    assert output.shape == (8 * restorer.scale, 9 * restorer.scale, 3) and np.abs(output - 0.5).mean() < 0.05


def test_real_images_in_tiles_and_whole(development_data: Path, weights: Path, tmp_path: Path) -> None:
    source = development_data / "data" / "test" / "Set5" / "LRbicx4"
    shutil.copytree(source, tmp_path / "in")
    for tile, output in (("48", "tiles"), ("0", "whole")):
        arguments = ["-i", str(tmp_path / "in"), "-o", str(tmp_path / output), "--weights", str(weights)]
        assert super_resolve([*arguments, "--tile", tile]) == 0
    for path in sorted((tmp_path / "whole").glob("*.png")):
        whole, tiles = (read_image(tmp_path / name / path.name).pixels.astype(float) for name in ("whole", "tiles"))
        low = read_image(tmp_path / "in" / path.name).pixels
        assert whole.shape == tiles.shape == (low.shape[0] * 4, low.shape[1] * 4, 3)
        assert np.abs(whole - tiles).mean() < 8, "random weights, so only gross faults of the tiles would show"
