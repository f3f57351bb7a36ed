"""What can be compared: networks that fit the suite, folders of results, the input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import mambair
from mambair.evaluation.candidates import (
    FolderCandidate,
    FunctionCandidate,
    InputCandidate,
    NetworkCandidate,
    Sample,
    check_names,
    input_of,
)
from mambair.evaluation.suites import SUITES
from mambair.images.resize import imresize
from mambair.system.errors import RequestError

SR, DN, CAR = SUITES["classic-sr"], SUITES["color-dn"], SUITES["gray-car"]


def sample(channels: int = 3, height: int = 9, width: int = 7) -> Sample:
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(0, 256, (channels, height, width), generator=generator)
    return Sample(levels / 255, "Set5", "bird", 2)


def test_a_network_gives_what_it_gives_on_the_whole_image(enlarging: Path) -> None:
    method = NetworkCandidate("tiny", enlarging, device="cpu")
    method.check_fits(SR)
    assert (method.levels, method.published_network) == ((2,), None)
    net = mambair.load(enlarging)
    assert method.parameters == sum(p.numel() for p in net.parameters())
    given = sample()
    with torch.no_grad():
        expected = net(given.lq[None])[0].clamp(0, 1)
    assert torch.equal(method(given), expected)


def test_tiles_and_ensembles_are_other_results(enlarging: Path) -> None:
    settings = [{}, {"tile": 8, "overlap": 2}, {"self_ensemble": True}, {"dtype": torch.bfloat16}]
    methods = [NetworkCandidate("tiny", enlarging, device="cpu", **each) for each in settings]
    assert len({method.identity for method in methods}) == len(methods)
    results = [method(sample(3, 20, 18)) for method in methods]
    assert len({result.numpy().tobytes() for result in results}) == len(results)


def test_other_weights_have_another_identity(weights: Callable[..., Path]) -> None:
    one, two = weights("a"), weights("b", seed=1)
    first, second = (NetworkCandidate(name, path, device="cpu") for name, path in (("a", one), ("b", two)))
    assert first.identity != second.identity
    first.check_fits(DN)
    assert first.levels is None


def test_too_little_memory_for_the_whole_image_is_no_other_result(
    enlarging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = NetworkCandidate("tiny", enlarging, device="cpu")
    tiles = iter([0, 64])
    monkeypatch.setattr(type(method._restorer), "tile", property(lambda self: next(tiles, 64)))
    with pytest.raises(
        RequestError, match=r"tiny: 7x9 pixels do not fit into memory as a whole; ask for a smaller tile"
    ):
        method(sample())


@pytest.mark.parametrize(
    ("suite", "kwargs", "message"),
    [
        (DN, {"upscale": 2, "upsampler": "pixelshuffledirect"}, "color-dn is for networks that keep the size"),
        (SR, {}, "classic-sr is for networks that enlarge, and this one has a factor of 1"),
        (CAR, {}, "gray-car has images of 1 channels, the network 3"),
        (DN, {"in_chans": 1}, "color-dn has images of 3 channels, the network 1"),
    ],
    ids=["enlarges", "keeps", "colour", "grey"],
)
def test_networks_that_do_not_fit(weights: Callable[..., Path], suite, kwargs: dict, message: str) -> None:
    candidate = NetworkCandidate("x", weights(**kwargs), device="cpu")
    with pytest.raises(RequestError, match=message):
        candidate.check_fits(suite)


def test_the_input_is_enlarged_as_matlab_does() -> None:
    given = sample()
    pixels = (given.lq.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    expected = np.asarray(imresize(pixels, 2)).transpose(2, 0, 1) / np.float32(255)
    bicubic = InputCandidate("bicubic", is_enlarged=True)
    assert np.array_equal(bicubic(given).numpy(), expected)
    assert torch.equal(bicubic(replace(given, size=(9, 7))), given.lq), "it has the size of the ground truth already"
    noisy = Sample(given.lq * 3 - 1, "McMaster", "a", 25)
    assert torch.equal(InputCandidate("noisy input", is_enlarged=False)(noisy), noisy.lq.clamp(0, 1))


@pytest.mark.parametrize(
    ("dataset_type", "scale", "name"),
    [
        ("BicubicDataset", 2, "bicubic"),
        ("GaussianDenoisingDataset", 1, "noisy input"),
        ("JPEGArtifactsDataset", 1, "JPEG input"),
        ("PairedImageDataset", 1, "input"),
    ],
)
def test_the_baseline_of_a_data_set(dataset_type: str, scale: int, name: str) -> None:
    assert input_of(dataset_type, scale).name == name


def test_a_function_of_batches() -> None:
    net = torch.nn.Conv2d(3, 3, 1)
    candidate = FunctionCandidate("net", net, net=net)
    given = sample()
    with torch.no_grad():
        assert torch.equal(candidate(given), net(given.lq[None])[0])
    assert (candidate.parameters, candidate.identity, candidate.published_network) == (12, None, None)


def test_results_of_other_programs(tmp_path: Path) -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    for name in ("Set5/bird_SwinIR.png", "Set5/birdx2y.png", "Set14/bird.png", "Set14/bird_x.png", "B100/x4/bird.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    method = FolderCandidate("other", tmp_path, SR)
    lq = torch.zeros(3, 2, 2)
    with pytest.raises(RequestError, match=r"other: .*Set5 has several results for bird"):
        method(Sample(lq, "Set5", "bird", 2))
    with pytest.raises(RequestError, match=r"other: .*Set5 has no result for bir$"):
        method(Sample(lq, "Set5", "bir", 2))
    with pytest.raises(RequestError, match=r"other: there is no folder .*Urban100"):
        method(Sample(lq, "Urban100", "bird", 2))
    for dataset, level in (("Set14", 2), ("B100", 4)):
        found = method(Sample(lq, dataset, "bird", level))
        assert np.array_equal((found.permute(1, 2, 0).numpy() * 255).round(), pixels)
    before = method.identity
    Image.fromarray(pixels).save(tmp_path / "Set14/new.png")
    assert FolderCandidate("other", tmp_path, SR).identity != before
    with pytest.raises(RequestError, match="there is no such folder of results"):
        FolderCandidate("other", tmp_path / "no", SR)


def test_two_methods_of_one_name(enlarging: Path) -> None:
    methods = [InputCandidate("bicubic", is_enlarged=True), NetworkCandidate("bicubic", enlarging, device="cpu")]
    with pytest.raises(RequestError, match="several methods are called bicubic; name them: --weights NAME=FILE"):
        check_names(methods)
