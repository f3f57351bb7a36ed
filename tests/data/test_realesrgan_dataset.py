"""Real-ESRGAN's data sets: shapes, exactness in any worker and after a resumption, targets, pairs, faults."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mambair.data import DatasetError, build_dataset
from mambair.data.degradations.sharpening import sharpened
from mambair.data.loader import TrainingBatches, build_test_loader, build_train_loader
from mambair.images.files import DecodedImage, read_image, write_image

CPU = torch.device("cpu")


def synthetic(repository: Path, **changes: Any) -> dict[str, Any]:
    opt = {
        "type": "RealESRGANDataset",
        "phase": "train",
        "scale": 4,
        "dataroot_gt": str(repository / "datasets" / "example" / "gt"),
        "gt_size": 32,
        "degraded_size": 48,
        "use_hflip": True,
    }
    return {key: value for key, value in (opt | changes).items() if value is not Ellipsis}


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """Images of odd sizes, one smaller than a patch, in a folder and one below it."""
    rng = np.random.default_rng(0)
    for name, size in {"a.png": (61, 47), "b.png": (13, 90), "sub/c.png": (33, 35)}.items():
        write_image(tmp_path / "gt" / name, DecodedImage(rng.integers(0, 256, (*size, 3), dtype=np.uint8)))
    return tmp_path


def batches(opt: dict[str, Any], count: int, **loader: Any) -> list[dict[str, Any]]:
    dataset = build_dataset(opt)
    finish = partial(dataset.finish_batch, device=CPU)
    stream = TrainingBatches(build_train_loader(dataset, **{"batch_size": 3, "seed": 5} | loader), finish)
    taken = list(itertools.islice(stream, count))
    stream.close()
    return taken


def assert_same(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        assert torch.equal(a["lq"], b["lq"])
        assert torch.equal(a["gt"], b["gt"])
        assert a["degradation"] == b["degradation"]


@pytest.mark.parametrize("preset", ["realesrgan", "photo"])
@pytest.mark.parametrize("color", ["rgb", "gray"])
@pytest.mark.parametrize("scale", [1, 3, 4])
def test_samples_have_the_promised_shapes(odd: Path, preset: str, color: str, scale: int) -> None:
    opt = {"type": "RealESRGANDataset", "phase": "train", "scale": scale, "preset": preset, "color": color}
    opt |= {"dataroot_gt": str(odd / "gt"), "gt_size": 24, "use_hflip": True, "use_rot": True}
    dataset = build_dataset(opt)
    assert type(dataset).check(opt) == []
    channels = 3 if color == "rgb" else 1
    for index in range(len(dataset)):
        sample = dataset.sample(index, np.random.default_rng(index))
        assert sample["gt"].shape == (channels, 24, 24)
        assert sample["lq"].shape == (channels, 24 // scale, 24 // scale)
        for image in (sample["lq"], sample["gt"]):
            assert image.dtype == torch.float32
            assert 0 <= image.min() <= image.max() <= 1
        assert torch.equal((sample["lq"] * 255).round() / 255, sample["lq"])


def test_whole_images_for_validation(odd: Path, repository: Path) -> None:
    opt = synthetic(repository, dataroot_gt=str(odd / "gt"), phase="val", gt_size=..., degraded_size=...)
    first, second = (list(build_test_loader(build_dataset(opt))) for _ in range(2))
    assert_same(first, second)
    original = torch.from_numpy(read_image(odd / "gt" / "a.png").pixels).permute(2, 0, 1) / 255
    assert torch.equal(first[0]["gt"][0], original[:, :60, :44])  # not sharpened
    assert first[0]["lq"].shape == (1, 3, 15, 11)


def test_workers_change_nothing(repository: Path) -> None:
    assert_same(batches(synthetic(repository), 4), batches(synthetic(repository), 4, num_workers=2))


def test_a_resumed_run_takes_the_same_samples(repository: Path) -> None:
    whole = batches(synthetic(repository), 6)
    assert_same(whole[3:], batches(synthetic(repository), 3, start=9))
    halves = [batches(synthetic(repository), 3, batch_size=1, rank=rank, world_size=3) for rank in range(3)]
    for number in range(3):
        assert torch.equal(whole[number]["lq"], torch.cat([half[number]["lq"] for half in halves]))
    texts = [text for batch in whole for text in batch["degradation"]]
    assert len(set(texts)) == len(texts), "every sample has its own degradation"


def test_the_threads_of_a_process_change_nothing(repository: Path) -> None:
    before = torch.get_num_threads()
    dataset = build_dataset(synthetic(repository, degraded_size=200))
    try:
        samples = []
        for threads in (1, 4):
            torch.set_num_threads(threads)
            samples.append(dataset.sample(0, np.random.default_rng(1)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(samples[0]["lq"], samples[1]["lq"])


def test_the_global_generators_are_left_alone(repository: Path) -> None:
    import random

    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    batches(synthetic(repository, degrade_on="device"), 1)
    batches(synthetic(repository), 1)
    assert before[0] == random.getstate()
    assert before[1] == np.random.get_state()[1].tolist()
    assert torch.equal(before[2], torch.get_rng_state())


def test_the_device_computes_the_same_but_for_jpeg(repository: Path) -> None:
    plain = {"compress_prob": 0.0, "compress_prob2": 0.0}
    workers = batches(synthetic(repository, **plain), 3)
    assert_same(workers, batches(synthetic(repository, degrade_on="device", **plain), 3))
    # Poisson noise draws by the values it is added to, so that it is another one after another compression
    gaussian = {"gaussian_noise_prob": 1.0, "gaussian_noise_prob2": 1.0}
    files, arithmetic = (
        batches(synthetic(repository, degrade_on=where, **gaussian), 3) for where in ("workers", "device")
    )
    for one, other in zip(files, arithmetic, strict=True):
        assert one["degradation"] == other["degradation"]
        assert torch.equal(one["gt"], other["gt"])
        # decisions of the first compression that fall otherwise are changed further by the second stage
        assert ((one["lq"] - other["lq"]) * 255).abs().mean() < 3


def test_a_device_batch_resumes_with_growing_patches(repository: Path) -> None:
    growing = synthetic(repository, degrade_on="device", gt_size=..., gt_sizes=[16, 32], iters=[2, 1])
    whole = batches(growing, 4)
    assert [batch["gt"].shape[-1] for batch in whole] == [16, 16, 32, 32]
    assert_same(whole[2:], batches(growing, 2, start=6, num_workers=1))


def test_a_batch_of_another_computation_is_left_alone(repository: Path) -> None:
    dataset = build_dataset(synthetic(repository))
    batch = {"lq": torch.rand(1), "gt": torch.rand(1)}
    assert dataset.finish_batch(batch, CPU) == batch


@pytest.mark.parametrize(
    ("keys", "target", "source", "gan"),
    [
        ({}, "sharp", "sharp", None),
        ({"gt_usm": False}, "plain", "plain", None),
        ({"preset": "photo"}, "plain", "plain", None),
        ({"preset": "photo", "gt_usm": True}, "sharp", "sharp", None),
        ({"l1_gt_usm": True, "percep_gt_usm": True, "gan_gt_usm": False}, "sharp", "sharp", "plain"),
        ({"l1_gt_usm": False, "gan_gt_usm": True}, "plain", "sharp", "sharp"),
        ({"l1_gt_usm": False, "gan_gt_usm": False}, "plain", "sharp", None),
    ],
)
def test_targets(repository: Path, keys: dict[str, Any], target: str, source: str, gan: str | None) -> None:
    # nothing is done to the inputs, so that they show what they are made of
    nothing = {"blur_prob": 0.0, "noise_prob": 0.0, "compress_prob": 0.0, "final_sinc_prob": 0.0, "order": 1}
    nothing |= {"resize_prob": [0.0, 0.0, 1.0], "scale": 1, "gt_size": 48}
    opt = synthetic(repository, **nothing, **keys)
    plain = build_dataset(opt | {"gt_usm": False, "l1_gt_usm": None, "percep_gt_usm": None, "gan_gt_usm": None})
    images = {"plain": plain.sample(0, np.random.default_rng(2))["gt"]}
    images["sharp"] = sharpened(images["plain"][None])[0]
    sample = build_dataset(opt).sample(0, np.random.default_rng(2))
    assert not torch.equal(images["plain"], images["sharp"])
    assert torch.equal(sample["gt"], images[target])
    assert torch.equal(sample["lq"], (images[source] * 255).round() / 255)
    assert ("gt_gan" in sample) is (gan is not None)
    if gan is not None:
        assert torch.equal(sample["gt_gan"], images[gan])
    device = build_dataset(opt | {"degrade_on": "device"})
    item = device.sample(0, np.random.default_rng(2))
    batch = device.finish_batch(torch.utils.data.default_collate([item]), CPU)
    assert all(torch.equal(batch[key][0], sample[key]) for key in sample if torch.is_tensor(sample[key]))


@pytest.mark.parametrize("key", ["meta_info", "meta_info_file"])
def test_a_list_of_names_reaches_into_folders(odd: Path, repository: Path, key: str) -> None:
    (odd / "names.txt").write_text("sub/c.png\na.png\n")
    opt = synthetic(repository, dataroot_gt=str(odd / "gt"))
    assert [path.name for path in build_dataset(opt).gt_paths] == ["a.png", "b.png"]
    listed = build_dataset(opt | {key: str(odd / "names.txt")})
    assert [path.name for path in listed.gt_paths] == ["c.png", "a.png"]


# -- pairs


def paired(folder: Path, **changes: Any) -> dict[str, Any]:
    opt = {"type": "RealESRGANPairedDataset", "phase": "train", "scale": 2, "gt_size": 12, "use_hflip": True}
    return opt | {"dataroot_gt": str(folder), "dataroot_lq": str(folder)} | changes


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, side in {"hr/one.png": 20, "hr/two.png": 24, "lr/x.png": 10, "lr/y.png": 12}.items():
        write_image(tmp_path / name, DecodedImage(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)))
    (tmp_path / "pairs.txt").write_text("hr/two.png, lr/y.png\n\nhr/one.png,lr/x.png\n")
    return tmp_path


def test_pairs_of_a_list(pairs: Path) -> None:
    opt = paired(pairs, meta_info=str(pairs / "pairs.txt"))
    dataset = build_dataset(opt)
    assert type(dataset).check(opt) == []
    names = [(gt.name, lq.name) for gt, lq in zip(dataset.gt_paths, dataset.lq_paths, strict=True)]
    assert names == [("two.png", "y.png"), ("one.png", "x.png")]
    sharp, plain = dataset, build_dataset(opt | {"gt_usm": False})
    one, other = (each.sample(0, np.random.default_rng(3)) for each in (sharp, plain))
    assert torch.equal(one["lq"], other["lq"])
    assert torch.equal(one["gt"], sharpened(other["gt"][None])[0])
    stage_two = build_dataset(opt | {"l1_gt_usm": True, "percep_gt_usm": True, "gan_gt_usm": False})
    assert torch.equal(stage_two.sample(0, np.random.default_rng(3))["gt_gan"], other["gt"])


def test_pairs_by_name_as_in_paired_image_dataset(pairs: Path) -> None:
    for name in ("one.png", "two.png"):
        (pairs / "lr" / {"one.png": "x.png", "two.png": "y.png"}[name]).rename(pairs / "lr" / name)
    opt = paired(pairs, dataroot_gt=str(pairs / "hr"), dataroot_lq=str(pairs / "lr"), phase="val", gt_usm=True)
    sample = build_dataset(opt)[0]
    assert torch.equal(
        sample["gt"], torch.from_numpy(read_image(pairs / "hr" / "one.png").pixels).permute(2, 0, 1) / 255
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("hr/one.png lr/x.png\n", "line 1: expected '<ground truth>, <low quality>'"),
        ("hr/one.png, lr/x.png\nhr/two.png,\n", "line 2: expected '<ground truth>, <low quality>'"),
        ("hr/one.png, lr/z.png\n", "lacks: lr/z.png"),
        ("hr/three.png, lr/x.png\n", "lacks: hr/three.png"),
        ("\n", "names no image"),
        ("hr/one.png, lr/y.png\n", "expected 24 x 24"),
    ],
)
def test_faults_of_a_list_of_pairs(pairs: Path, text: str, fault: str) -> None:
    (pairs / "pairs.txt").write_text(text)
    opt = paired(pairs, meta_info=str(pairs / "pairs.txt"))
    faults = type(build_dataset(paired(pairs / "hr", dataroot_lq=str(pairs / "hr"), scale=1))).check(opt)
    assert len(faults) == 1
    assert fault in faults[0]


# -- faults


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"degraded_size": 16}, "degraded_size: must not be below gt_size (32)"),
        ({"high_order_degradation": False}, "high_order_degradation: false means pairs of files"),
        ({"percep_gt_usm": False}, "percep_gt_usm: must equal l1_gt_usm (true)"),
        ({"meta_info": "a", "meta_info_file": "b"}, "meta_info: is another name of meta_info_file"),
        ({"noise_range": [3.0]}, "noise_range: must be [low, high] with 0 <= low <= high, got [3.0]"),
        ({"sigma": 3}, "sigma: Extra inputs are not permitted"),
        ({"queue_size": 0}, "queue_size: Input should be greater than or equal to 1"),
    ],
)
def test_faults_of_the_options(repository: Path, changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(DatasetError) as caught:
        build_dataset(synthetic(repository, **changes))
    assert fault in str(caught.value)


def test_pairs_are_not_synthesised(pairs: Path) -> None:
    with pytest.raises(DatasetError, match="high_order_degradation: must be false for pairs"):
        build_dataset(paired(pairs, meta_info=str(pairs / "pairs.txt"), high_order_degradation=True))


def test_images_that_cannot_be_used(odd: Path, repository: Path) -> None:
    opt = synthetic(repository, dataroot_gt=str(odd / "gt"), phase="val", gt_size=..., degraded_size=..., scale=16)
    with pytest.raises(DatasetError, match="13 x 90 pixels are too few for scale 16"):
        build_dataset(opt)[1]
    (odd / "gt" / "a.png").write_bytes(b"nothing")
    assert "dataroot_gt: " in type(build_dataset(opt)).check(opt)[0]
