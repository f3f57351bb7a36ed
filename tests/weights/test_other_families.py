"""Weights of other families: what spandrel builds is restored through our tiles, formats and folders."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mambair
from mambair.commands import restore
from mambair.images.files import read_rgb
from mambair.inference.tiling import tiled_forward
from mambair.weights.checkpoint import CheckpointError
from mambair.weights.other_families import OtherNetwork

spandrel = pytest.importorskip("spandrel")

SWIN = {"depths": [2], "embed_dim": 12, "num_heads": [2], "mlp_ratio": 2}
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
        {**SWIN, "img_size": 16, "window_size": 8, "upscale": 2, "upsampler": "pixelshuffledirect"},
        ("SwinIR", 2, 1),
    ),
    "SPAN": ("SPAN", "SPAN", {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 8, "upscale": 2}, ("SPAN", 2, 1)),
    "HAT": (
        "HAT",
        "HAT",
        {**SWIN, "img_size": 32, "window_size": 16, "compress_ratio": 3, "squeeze_factor": 4, "upscale": 2}
        | {"upsampler": "pixelshuffle"},
        ("HAT", 2, 1),
    ),
    "DAT": (
        "DAT",
        "DAT",
        {"img_size": 32, "embed_dim": 32, "split_size": [8, 8], "depth": [2], "num_heads": [2], "expansion_factor": 2}
        | {"upscale": 2, "upsampler": "pixelshuffledirect"},
        ("DAT", 2, 1),
    ),
    "OmniSR": (
        "OmniSR",
        "OmniSR",
        {"num_feat": 8, "block_num": 1, "res_num": 1, "up_scale": 2, "window_size": 8, "bias": True},
        ("OmniSR", 2, 1),
    ),
    "RealCUGAN": ("RealCUGAN", "UpCunet2x", {}, ("RealCUGAN", 2, 1)),
    "Swin2SR": (
        "Swin2SR",
        "Swin2SR",
        {**SWIN, "img_size": 16, "window_size": 8, "upscale": 2, "upsampler": "pixelshuffledirect"},
        ("Swin2SR", 2, 1),
    ),
    "ATD": (
        "ATD",
        "ATD",
        {**SWIN, "img_size": 16, "window_size": 8, "num_tokens": 4, "reducted_dim": 4, "upscale": 2}
        | {"upsampler": "pixelshuffledirect"},
        ("ATD", 2, 1),
    ),
    "SAFMN": ("SAFMN", "SAFMN", {"dim": 8, "n_blocks": 1, "upscaling_factor": 2}, ("SAFMN", 2, 8)),
    "DRCT": (
        "DRCT",
        "DRCT",
        {"img_size": 32, "window_size": 16, "embed_dim": 12, "gc": 4, "depths": (2,), "num_heads": (2,)}
        | {"mlp_ratio": 2, "upscale": 2, "upsampler": "pixelshuffle"},
        ("DRCT", 2, 16),
    ),
    "RCAN": ("RCAN", "RCAN", {"n_resgroups": 1, "n_resblocks": 1, "n_feats": 16, "scale": 2}, ("RCAN", 2, 1)),
    "SeemoRe": ("SeemoRe", "SeemoRe", {}, ("SeemoRe", 4, 1)),
    "NAFNet": (
        "NAFNet",
        "NAFNet",
        {"width": 8, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1], "middle_blk_num": 1},
        ("NAFNet", 1, 1),
    ),
    "SwinIR-grey": (
        "SwinIR",
        "SwinIR",
        {**SWIN, "img_size": 16, "window_size": 8, "in_chans": 1, "upscale": 1, "upsampler": ""},
        ("SwinIR", 1, 1),
    ),
}


def save(name: str, folder: Path) -> Path:
    module, class_name, kwargs, _ = NETWORKS[name]
    torch.manual_seed(0)
    found = importlib.import_module(f"spandrel.architectures.{module}")
    build = getattr(found, class_name, None) or getattr(found, name)
    path = folder / f"{name}.pth"
    torch.save({"params": build(**kwargs).state_dict()}, path)
    return path


@pytest.fixture(scope="module", params=NETWORKS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A network's name in the table above, and a file of its weights."""
    return request.param, save(request.param, tmp_path_factory.mktemp("weights"))


def by_spandrel(path: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    """Spandrel's own call, which takes one image."""
    descriptor = spandrel.ModelLoader("cpu").load_from_file(path)
    return lambda images: torch.cat([descriptor(image[None].clone()) for image in images])


def picture(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def as_tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


def rounded(image: torch.Tensor) -> np.ndarray:
    return (image[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()


def test_a_network_loads_with_its_scale_and_sizes(case: tuple[str, Path]) -> None:
    name, path = case
    net = mambair.load(path)
    assert isinstance(net, OtherNetwork) and not net.training
    family, scale, multiple = NETWORKS[name][3]
    assert (net.family, net.upscale, net.tile_multiple) == (family, scale, multiple)
    assert net.in_chans == (1 if name.endswith("grey") else 3)


@pytest.mark.parametrize("size", [(37, 45), (3, 5)])
def test_a_whole_image_is_what_spandrel_gives(case: tuple[str, Path], size: tuple[int, int]) -> None:
    name, path = case
    channels = 1 if name.endswith("grey") else 3
    image, scale = picture(*size, channels), NETWORKS[name][3][1]
    restored = mambair.Restorer.from_checkpoint(path, device="cpu", tile=0)(image)
    assert restored.shape == (size[0] * scale, size[1] * scale, channels)
    np.testing.assert_array_equal(restored, rounded(by_spandrel(path)(as_tensor(image))))


def test_tiles_are_what_spandrel_gives_of_tiles(case: tuple[str, Path]) -> None:
    name, path = case
    channels = 1 if name.endswith("grey") else 3
    image, (_, scale, multiple) = picture(70, 90, channels), NETWORKS[name][3]
    restored = mambair.Restorer.from_checkpoint(path, device="cpu", tile=48, overlap=8, batch=4)(image)
    grid = {"scale": scale, "tile": 48, "overlap": 8, "multiple": multiple}
    expected = rounded(tiled_forward(by_spandrel(path), as_tensor(image), **grid))
    np.testing.assert_array_equal(restored, expected)


def test_grey_and_alpha(case: tuple[str, Path]) -> None:
    name, path = case
    restorer, scale = mambair.Restorer.from_checkpoint(path, device="cpu", tile=0), NETWORKS[name][3][1]
    forward = by_spandrel(path)
    grey = picture(24, 20, 1)
    three = np.repeat(grey, 1 if name.endswith("grey") else 3, axis=2)
    expected = forward(as_tensor(three)).mean(dim=1, keepdim=True)
    assert np.abs(restorer(grey).astype(int) - rounded(expected)).max() <= 1, "the mean is rounded in another order"
    image = picture(24, 20, 4)
    image[..., 3] = 255
    with_alpha = restorer(image)
    assert with_alpha.shape == (24 * scale, 20 * scale, 4) and (with_alpha[..., 3] == 255).all()
    np.testing.assert_array_equal(with_alpha[..., :3], restorer(np.ascontiguousarray(image[..., :3])))


def test_a_network_that_changes_its_input_does_not_change_ours(tmp_path: Path) -> None:
    net = mambair.load(save("RCAN", tmp_path))
    x = torch.rand(1, 3, 8, 8)
    before = x.clone()
    net(x)
    assert torch.equal(x, before)


def test_a_network_that_cuts_images_itself_gets_whole_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save("Compact", tmp_path)
    assert mambair.Restorer.from_checkpoint(path, device="cpu").tile == 256
    real = spandrel.ModelLoader.load_from_state_dict

    def cutting_itself(*arguments: Any) -> Any:
        descriptor = real(*arguments)
        descriptor.tiling = spandrel.ModelTiling.INTERNAL
        return descriptor

    monkeypatch.setattr(spandrel.ModelLoader, "load_from_state_dict", cutting_itself)
    assert mambair.Restorer.from_checkpoint(path, device="cpu").tile == 0


def test_weights_on_which_spandrel_fails(tmp_path: Path) -> None:
    weights = torch.load(save("HAT", tmp_path), weights_only=True)["params"]
    name = "layers.0.residual_group.blocks.0.conv_block.cab.3.attention.1.weight"
    torch.save({"params": {**weights, name: weights[name][:0]}}, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=r"net\.pth: spandrel cannot load these weights: "):
        mambair.load(tmp_path / "net.pth")


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
