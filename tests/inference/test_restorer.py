from __future__ import annotations

import copy
import json
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import mambair
from mambair.inference.restorer import NonFiniteOutputError, Restorer
from mambair.registry import ARCH_REGISTRY
from mambair.weights.checkpoint import CheckpointError, write_checkpoint

KEPT = ("L", "LA", "RGB", "RGBA", "I;16", "F")


class Replicate(nn.Module):
    """A network that repeats pixels, and remembers what it was given."""

    def __init__(self, upscale: int = 2, in_chans: int = 3) -> None:
        super().__init__()
        self.upscale, self.in_chans = upscale, in_chans
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == self.in_chans and not self.training and torch.is_inference_mode_enabled()
        self.seen.append(x)
        return x.repeat_interleave(self.upscale, -2).repeat_interleave(self.upscale, -1)


class Computed(nn.Module):
    """A network made of a function of the image; scale 1."""

    upscale = 1

    def __init__(self, function: Callable[[Tensor], Tensor], in_chans: int = 3) -> None:
        super().__init__()
        self.function, self.in_chans = function, in_chans

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def repeated(array: np.ndarray, scale: int = 2) -> np.ndarray:
    return array.repeat(scale, axis=0).repeat(scale, axis=1)


def random_array(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    values = np.random.default_rng(0).random(shape)
    return (values * (1 if dtype.startswith("float") else np.iinfo(dtype).max)).astype(dtype)


@pytest.mark.parametrize("tile", [0, 16], ids=["whole", "tiles"])
@pytest.mark.parametrize("in_chans", [1, 3])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", ">u2", "float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(21, 37), (21, 37, 1), (21, 37, 3), (1, 1), (1, 1, 3)], ids=str)
def test_numpy_keeps_dtype_and_axes(shape: tuple[int, ...], dtype: str, in_chans: int, tile: int) -> None:
    image = random_array(shape, dtype)
    before = image.copy()
    output = Restorer(Replicate(2, in_chans), tile=tile, device="cpu")(image)
    assert isinstance(output, np.ndarray) and output.dtype == image.dtype
    assert output.flags.c_contiguous or output.ndim == 2
    # floats through a float32 network: grey replicated and averaged back may move the last bit
    tolerance = 2e-7 if output.dtype.kind == "f" else 0
    np.testing.assert_allclose(output, repeated(image), rtol=0, atol=tolerance)
    assert np.array_equal(image, before)


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32"])
def test_alpha_is_enlarged_and_opaque_stays_opaque(dtype: str, colours: int) -> None:
    image = random_array((20, 30, colours + 1), dtype)
    image[..., -1] = 1 if dtype.startswith("float") else np.iinfo(dtype).max
    output = Restorer(Replicate(2), tile=16, device="cpu")(image)
    assert output.shape == (40, 60, colours + 1) and output.dtype == image.dtype
    assert (output[..., -1] == image[0, 0, -1]).all()
    np.testing.assert_allclose(output[..., :-1], repeated(image[..., :-1]), rtol=0, atol=2e-7)


def test_hidden_colour_does_not_reach_the_network() -> None:
    image = np.zeros((32, 32, 4), dtype=np.uint8)
    image[8:24, 8:24] = (250, 100, 50, 255)
    net = Replicate()
    Restorer(net, device="cpu")(image)
    # the only visible colour is all the network sees: no black frame around it
    seen = (net.seen[0][0] * 255).round().flatten(1).unique(dim=1)
    assert seen.flatten().tolist() == [250, 100, 50]


def test_alpha_of_a_denoiser_is_copied() -> None:
    image = random_array((9, 11, 4), "uint8")
    output = Restorer(Replicate(1), device="cpu")(image)
    assert np.array_equal(output[..., 3], image[..., 3])


@pytest.mark.parametrize("name", ["reversed", "read-only", "transposed", "sliced"])
def test_numpy_memory_layouts(name: str) -> None:
    array = random_array((12, 14, 3), "uint8")
    image = {
        "reversed": array[::-1, :, ::-1],
        "read-only": array,
        "transposed": array.transpose(1, 0, 2),
        "sliced": array[::2, 1::3],
    }[name]
    image.flags.writeable = name != "read-only"
    assert np.array_equal(Restorer(Replicate(), device="cpu")(image), repeated(image))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8])
@pytest.mark.parametrize("shape", [(3, 10, 12), (1, 10, 12), (4, 10, 12), (2, 3, 10, 12), (2, 2, 10, 12)], ids=str)
def test_torch_keeps_shape_dtype_and_can_be_written_to(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    # from 0.1: colour under a transparent pixel would be replaced
    image = ((0.1 + 0.9 * torch.rand(shape)) * (1 if dtype.is_floating_point else 255)).to(dtype)
    output = Restorer(Replicate(), device="cpu", tile=8)(image)
    assert output.dtype == dtype and output.shape == (*shape[:-2], 20, 24) and output.is_contiguous()
    colour = slice(None) if shape[-3] in (1, 3) else slice(-1)
    expected = image.repeat_interleave(2, -2).repeat_interleave(2, -1)[..., colour, :, :]
    torch.testing.assert_close(output[..., colour, :, :], expected, rtol=0, atol=2e-7 if dtype.itemsize > 2 else 4e-3)
    output.zero_()  # no inference tensor


def test_a_tensor_that_needs_gradients_is_taken_as_it_is() -> None:
    output = Restorer(Replicate(), device="cpu")(torch.rand(3, 4, 4, requires_grad=True))
    assert not output.requires_grad


@pytest.mark.parametrize(
    "mode, kept",
    [*zip(KEPT, KEPT, strict=True), ("1", "L"), ("P", "RGB"), ("CMYK", "RGB"), ("YCbCr", "RGB"), ("PA", "RGBA")],
)
@pytest.mark.parametrize("in_chans", [1, 3])
def test_pil_modes(mode: str, kept: str, in_chans: int) -> None:
    if mode == "I;16":
        image = Image.fromarray(random_array((6, 9), "uint16"))
    elif mode == "F":
        image = Image.fromarray(random_array((6, 9), "float32"))
    else:
        image = Image.fromarray(random_array((6, 9, 3), "uint8")).convert("P" if mode == "PA" else mode)
        image = image.convert(mode)
    assert image.mode == mode
    output = Restorer(Replicate(2, in_chans), device="cpu")(image)
    assert isinstance(output, Image.Image) and output.mode == kept and output.size == (18, 12)
    expected = np.array(image if mode == kept else image.convert(kept))
    np.testing.assert_allclose(np.array(output), repeated(expected), rtol=0, atol=2e-7)


def test_pil_transparent_palette_and_profile() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 1), 1)
    image.info.update(transparency=0, icc_profile=b"profile")
    output = Restorer(Replicate(), device="cpu")(image)
    assert output.mode == "RGBA" and output.info["icc_profile"] == b"profile"
    assert output.getpixel((0, 0))[3] == 0


def test_grey_through_a_colour_network_stays_grey_and_is_the_mean() -> None:
    shift = torch.tensor([0.0, 0.1, 0.2]).view(1, 3, 1, 1)
    output = Restorer(Computed(lambda x: x + shift), device="cpu")(np.full((5, 5), 0.5, dtype=np.float32))
    assert output.shape == (5, 5)
    np.testing.assert_allclose(output, 0.6, atol=1e-6)


def test_colour_through_a_grey_network_is_done_channel_by_channel() -> None:
    image = random_array((5, 6, 3), "uint8")
    assert np.array_equal(Restorer(Replicate(2, 1), device="cpu")(image), repeated(image))


def test_results_are_clipped_and_rounded() -> None:
    wide = Restorer(Computed(lambda x: 3 * x - 1), device="cpu")
    assert wide(np.array([[0, 128, 255]], dtype=np.uint8)).tolist() == [[0, 129, 255]]
    assert wide(np.array([[0, 0.5, 1]], dtype=np.float32)).tolist() == [[0, 0.5, 1]]


def test_noise_beyond_the_range_is_fed_as_it_is() -> None:
    net = Replicate()
    Restorer(net, device="cpu")(np.array([[-0.3, 1.4]], dtype=np.float32))
    assert net.seen[0].min() == np.float32(-0.3) and net.seen[0].max() == np.float32(1.4)


def test_sixteen_bits_are_not_reduced_on_the_way() -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    assert np.array_equal(Restorer(Replicate(1), tile=64, device="cpu")(ramp), ramp)


def test_strips_are_the_same_pixels() -> None:
    image = random_array((70, 30, 4), "uint16")
    restorer = Restorer(Replicate(2), tile=16, device="cpu")
    strips = list(restorer.strips(image))
    assert len(strips) > 3
    assert np.array_equal(np.concatenate(strips), restorer(image))


@pytest.mark.parametrize("batch", [1, 3])
def test_progress_counts_tiles(batch: int) -> None:
    calls: list[tuple[int, int]] = []
    restorer = Restorer(Replicate(), tile=16, batch=batch, device="cpu")
    restorer(np.zeros((20, 50), np.uint8), progress=lambda done, total: calls.append((done, total)))
    total = restorer.tiles_of(20, 50)
    assert total > 4
    assert calls[-1] == (total, total) and [done for done, _ in calls] == sorted({done for done, _ in calls})


def test_a_network_may_name_its_own_tile() -> None:
    net = Replicate()
    assert Restorer(net, device="cpu").tile == 256
    net.default_tile = 96  # type: ignore[assignment]
    assert (Restorer(net, device="cpu").tile, Restorer(net, device="cpu").overlap) == (96, 24)
    assert Restorer(net, device="cpu", tile=64).tile == 64


@pytest.mark.parametrize(
    ("name", "kwargs", "multiple"),
    [
        ("MambaIR", {"embed_dim": 8, "depths": [1]}, 1),
        ("MambaIRv2", {"embed_dim": 8, "depths": [1], "num_heads": [2], "window_size": 12}, 12),
        ("VimSR", {"embed_dim": 8, "depth": 2}, 1),
        ("MambaIRUNet", {"dim": 4, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1}, 8),
        ("VSSMUNet", {"dims": [4, 8], "depths": [1, 1], "shallow_dim": 4}, 8),
    ],
)
def test_every_network_names_its_tiles(name: str, kwargs: dict[str, Any], multiple: int) -> None:
    restorer = Restorer(ARCH_REGISTRY.get(name)(**kwargs), device="cpu")
    assert (restorer.tile, restorer.multiple) == (256, multiple)


def test_tiles_are_divisible_by_what_the_network_says() -> None:
    net = Replicate()
    net.tile_multiple = 16  # type: ignore[assignment]
    Restorer(net, tile=40, overlap=8, device="cpu")(np.zeros((100, 90), np.uint8))
    assert {(x.shape[-2], x.shape[-1]) for x in net.seen} == {(32, 32)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_output_in_every_precision_is_an_error(value: float, dtype: torch.dtype) -> None:
    def function(x: Tensor) -> Tensor:
        x = x.clone()
        x[0, 0, 0, 0] = value
        return x

    restorer = Restorer(Computed(function), device="cpu", dtype=dtype)
    expected = "NaN or infinity in 1 of 60 values of a tile of 5x4 pixels, in float32; the weights are damaged"
    with pytest.raises(NonFiniteOutputError, match=expected):
        restorer(np.zeros((4, 5), np.uint8))


@pytest.mark.parametrize(
    "image, message",
    [
        ("a string", "must be a numpy array, a PIL image or a torch tensor, got str"),
        (np.zeros((4, 4), np.int32), "uint8, uint16 or float in .0, 1., got int32"),
        (np.zeros((4, 4), bool), "got bool"),
        (np.zeros((4,), np.uint8), r"got shape \(4,\)"),
        (np.zeros((0, 4), np.uint8), "non-empty"),
        (np.zeros((4, 4, 5), np.uint8), "has 5 channels, which do not fit a network of 3"),
        (np.full((4, 4), 200.0), r"floats must be finite and in \[0, 1\], got 200 to 200"),
        (np.full((4, 4), np.nan), "got nan to nan"),
        (torch.zeros(4, 4), "non-empty .C, H, W. or .B, C, H, W."),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "got torch.int64"),
        (Image.new("I", (4, 4)), "PIL mode 'I' has no fixed range"),
    ],
    ids=["kind", "int32", "bool", "one-axis", "empty", "channels", "0..255", "nan", "two-axes", "int64", "PIL-I"],
)
def test_wrong_images_say_the_rule_and_what_was_found(image: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Restorer(Replicate(), device="cpu")(image)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"tile": -4}, "tile: must be"),
        ({"tile": 16, "overlap": 9}, "at most half of the tile of 16 pixels, got 9"),
        ({"batch": 0}, "batch: must be at least 1 tile, got 0"),
        ({"dtype": torch.float64}, "dtype: must be float32, bfloat16 or float16, got torch.float64"),
        ({"device": "gpu"}, "device: must be auto, cpu, .* or mps, got 'gpu'; this machine has cpu"),
        ({"device": "cuda:99"}, "device: cuda:99 is not available; this machine has cpu"),
    ],
    ids=["tile", "overlap", "batch", "dtype", "device-name", "device-missing"],
)
def test_wrong_settings_fail_at_once(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Restorer(Replicate(), **settings)


@pytest.fixture(scope="module")
def tiny_x2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a very small MambaIR, x2, with random weights."""
    torch.manual_seed(0)
    kwargs = {"embed_dim": 12, "depths": [1], "d_state": 4, "mlp_ratio": 1.2, "upscale": 2}
    kwargs["upsampler"] = "pixelshuffledirect"
    net = ARCH_REGISTRY.get("MambaIR")(**kwargs)
    path = tmp_path_factory.mktemp("weights") / "tiny_x2.safetensors"
    write_checkpoint(path, net.state_dict(), {"mambair.arch": "MambaIR", "mambair.kwargs": json.dumps(kwargs)})
    return path


def test_from_checkpoint_is_the_network_itself(tiny_x2: Path) -> None:
    restorer = mambair.Restorer.from_checkpoint(tiny_x2, device="cpu")
    assert (restorer.scale, restorer.in_chans) == (2, 3)
    image = torch.rand(3, 18, 25)
    with torch.no_grad():
        expected = mambair.load(tiny_x2)(image[None])[0].clamp(0, 1)
    torch.testing.assert_close(restorer(image), expected, rtol=0, atol=1e-6)


def test_threads_share_one_restorer(tiny_x2: Path) -> None:
    restorer = Restorer.from_checkpoint(tiny_x2, device="cpu", tile=32)
    images = [np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8) for seed in range(3)]
    expected = [restorer(image) for image in images]
    results: dict[int, np.ndarray] = {}

    def work(index: int) -> None:
        results[index] = restorer(images[index])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(results[index], expected[index]) for index in range(3))


def test_a_stream_is_lazy_in_order_and_of_mixed_kinds() -> None:
    fetched: list[int] = []

    def images() -> Iterator[Any]:
        for index, image in enumerate([np.zeros((3, 4), np.uint8), Image.new("RGB", (5, 3)), torch.ones(3, 2, 2)] * 2):
            fetched.append(index)
            yield image

    stream = Restorer(Replicate(), device="cpu").stream(images())
    first = next(stream)
    assert isinstance(first, np.ndarray) and len(fetched) <= 2, "one ahead, not all"
    kinds = [type(first), *(type(result) for result in stream)]
    assert kinds == [np.ndarray, Image.Image, Tensor] * 2


def test_an_error_ends_a_stream() -> None:
    stream = Restorer(Replicate(), device="cpu").stream([np.zeros((3, 4), np.uint8), "no image"])
    next(stream)
    with pytest.raises(ValueError, match="got str"):
        next(stream)


def test_broken_weights_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match=r"broken\.safetensors"):
        Restorer.from_checkpoint(path)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda restorer: pickle.loads(pickle.dumps(restorer))])  # noqa: S301
def test_copies_restore_the_same(copied: Callable[[Restorer], Restorer]) -> None:
    restorer = Restorer(Replicate(), device="cpu", tile=16, overlap=4, batch=3)
    image = random_array((20, 30, 3), "uint8")
    expected = restorer(image)
    twin = copied(restorer)
    assert twin.net is not restorer.net and (twin.tile, twin.overlap, twin.batch) == (16, 4, 3)
    assert np.array_equal(twin(image), expected)


class ShowsOrigin(Replicate):
    """Gives each pixel a number of its own by row and column in the image, and the seed."""

    placed = True

    def forward(self, x: Tensor, *, seed: int, origin: Tensor) -> Tensor:
        rows = origin[:, 0, None, None, None] + torch.arange(x.shape[2])[:, None]
        columns = origin[:, 1, None, None, None] + torch.arange(x.shape[3])
        return ((rows * 100 + columns + seed) / 10_000).float().expand_as(x)


@pytest.mark.parametrize(("channels", "in_chans"), [(3, 3), (1, 3), (3, 1)])
def test_tiles_are_told_their_origin_and_the_seed(channels: int, in_chans: int) -> None:
    settings: dict[str, Any] = {"device": "cpu", "tile": 16, "overlap": 4, "batch": 3, "seed": 7}
    restored = Restorer(ShowsOrigin(1, in_chans), **settings)(torch.rand(2, channels, 40, 50))
    expected = (torch.arange(40)[:, None] * 100 + torch.arange(50) + 7) / 10_000
    torch.testing.assert_close(restored, expected.expand_as(restored), atol=1e-6, rtol=0)
