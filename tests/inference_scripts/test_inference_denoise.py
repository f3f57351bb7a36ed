from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mambair.commands import restore
from mambair.images.files import read_image
from mambair.registry import ARCH_REGISTRY
from mambair.weights.checkpoint import write_checkpoint


def denoise(arguments: list[str]) -> int:
    return restore.main(arguments, task="denoise")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """A very small grey denoiser, and an x2 network that does not belong here."""
    torch.manual_seed(0)
    folder, made = tmp_path_factory.mktemp("weights"), {}
    for upscale, tail in ((1, {"in_chans": 1}), (2, {"upsampler": "pixelshuffledirect"})):
        kwargs = {"embed_dim": 12, "depths": [1], "d_state": 4, "mlp_ratio": 1.2, "upscale": upscale, **tail}
        net = ARCH_REGISTRY.get("MambaIR")(**kwargs)
        made[upscale] = folder / f"tiny_{upscale}.safetensors"
        metadata = {"mambair.arch": "MambaIR", "mambair.kwargs": json.dumps(kwargs)}
        write_checkpoint(made[upscale], net.state_dict(), metadata)
    return made


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 256, (13, 17, 3), dtype=np.uint8)
    (tmp_path / "noisy").mkdir()
    Image.fromarray(values).save(tmp_path / "noisy" / "colour.png")
    Image.fromarray(values[..., 0]).save(tmp_path / "noisy" / "grey.png")
    return tmp_path / "noisy"


def test_the_size_stays(noisy: Path, weights: dict[int, Path], tmp_path: Path) -> None:
    arguments = ["-i", str(noisy), "-o", str(tmp_path / "clean"), "--weights", str(weights[1])]
    assert denoise(arguments) == 0
    for name, channels in (("colour.png", 3), ("grey.png", 1)):
        assert read_image(tmp_path / "clean" / name).pixels.shape == (13, 17, channels)


def test_the_same_folder_gets_marked_names(noisy: Path, weights: dict[int, Path]) -> None:
    for _ in range(2):
        assert denoise(["-i", str(noisy), "-o", str(noisy), "--weights", str(weights[1])]) == 0
    names = sorted(path.name for path in noisy.iterdir())
    assert names == ["colour.png", "colour_denoised.png", "grey.png", "grey_denoised.png", "manifest.jsonl"]


def test_wrong_usage(noisy: Path, weights: dict[int, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = ["-i", str(noisy), "-o", str(tmp_path / "clean")]
    cases = {
        "no weights are packaged for denoise 40": ["--sigma", "40"],
        "give one of them": ["--sigma", "25", "--weights", str(weights[1])],
        "enlarges 2 times": ["--weights", str(weights[2])],
    }
    for message, arguments in cases.items():
        with pytest.raises(SystemExit) as stopped:
            denoise([*start, *arguments])
        assert stopped.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "clean").exists()


@pytest.mark.slow
def test_the_script_runs(repository: Path, noisy: Path, weights: dict[int, Path], tmp_path: Path) -> None:
    script = repository / "inference" / "inference_denoise.py"
    arguments = ["-i", str(noisy), "-o", "clean", "--weights", str(weights[1])]
    run = subprocess.run(
        [sys.executable, "-I", str(script), *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    assert len(list((tmp_path / "clean").glob("*.png"))) == 2
