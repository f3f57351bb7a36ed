"""Weights of other families: what spandrel builds is restored through our tiles, formats and folders."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mambair
from mambair.commands import restore
from mambair.images.files import read_rgb
from mambair.weights.checkpoint import CheckpointError
from mambair.weights.other_families import OtherNetwork

spandrel = pytest.importorskip("spandrel")

# spandrel's module and class, arguments, (family, scale, multiple)
NETWORKS: dict[str, tuple[str, str, dict[str, Any], tuple[str, int, int]]] = {
    "ESRGAN": ("ESRGAN", "RRDBNet", {"num_filters": 8, "num_blocks": 1, "scale": 4}, ("ESRGAN", 4, 1)),
    "Compact": (
        "Compact",
        "SRVGGNetCompact",
        {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_conv": 1, "upscale": 2},
        ("RealESRGAN Compact", 2, 1),
    ),
    "SwinIR": (
        "SwinIR",
        "SwinIR",
        {"img_size": 16, "window_size": 8, "depths": [2], "embed_dim": 12, "num_heads": [2], "mlp_ratio": 2}
        | {"upscale": 2, "upsampler": "pixelshuffledirect"},
        ("SwinIR", 2, 1),
    ),
    "SPAN": ("SPAN", "SPAN", {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 8, "upscale": 2}, ("SPAN", 2, 1)),
}


def save(name: str, folder: Path) -> Path:
    module, class_name, kwargs, _ = NETWORKS[name]
    torch.manual_seed(0)
    found = importlib.import_module(f"spandrel.architectures.{module}")
    build = getattr(found, class_name, None) or getattr(found, name)
    path = folder / f"{name}.pth"
    torch.save({"params": build(**kwargs).state_dict()}, path)
    return path


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_loads_with_its_scale_and_sizes(name: str, tmp_path: Path) -> None:
    net = mambair.load(save(name, tmp_path))
    assert isinstance(net, OtherNetwork) and not net.training
    family, scale, multiple = NETWORKS[name][3]
    assert (net.family, net.upscale, net.tile_multiple, net.in_chans) == (family, scale, multiple, 3)


@pytest.mark.parametrize("name", NETWORKS)
def test_tiles_give_what_spandrel_gives(name: str, tmp_path: Path) -> None:
    path = save(name, tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (37, 45, 3), dtype=np.uint8)
    restored = mambair.Restorer.from_checkpoint(path, device="cpu", tile=0)(image)
    scale = NETWORKS[name][3][1]
    assert restored.shape == (37 * scale, 45 * scale, 3)
    descriptor = spandrel.ModelLoader("cpu").load_from_file(path)
    lq = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    expected = (descriptor(lq)[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()

    assert np.abs(restored.astype(int) - expected).max() <= 1, "rounding of the last bits"


def test_a_folder_is_restored(tmp_path: Path, repository: Path) -> None:
    path, source = save("Compact", tmp_path), repository / "datasets" / "example" / "lr_x4"
    assert restore.main(["-i", str(source), "-o", str(tmp_path / "out"), "--weights", str(path), "--quiet"]) == 0
    names = sorted(each.name for each in source.iterdir())
    assert sorted(each.name for each in (tmp_path / "out").glob("*.png")) == names
    before, after = (read_rgb(folder / names[0]).shape for folder in (source, tmp_path / "out"))
    assert after == (2 * before[0], 2 * before[1], 3)


@pytest.mark.parametrize("prefix", ["module._orig_mod.", "model.", "net_g."])
def test_wrapped_weights(prefix: str, tmp_path: Path) -> None:
    weights = torch.load(save("Compact", tmp_path), weights_only=True)["params"]
    torch.save({f"{prefix}{name}": tensor for name, tensor in weights.items()}, tmp_path / "net.pth")
    assert mambair.load(tmp_path / "net.pth").family == "RealESRGAN Compact"


def test_weights_of_nobody_are_an_error(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(2, 3)}, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="these weights belong to none of"):
        mambair.load(tmp_path / "net.pth")


def test_without_spandrel_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save("Compact", tmp_path)
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(CheckpointError, match=r"(?s)none of .*pip install \"mambair\[spandrel\]\""):
        mambair.load(path)
