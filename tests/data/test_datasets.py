"""Data sets: what a sample holds, that it is a pure function of (index, rng), and every fault by its key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mambair.data import BicubicDataset, DatasetError, GaussianDenoisingDataset, PairedImageDataset, build_dataset
from mambair.data.bicubic_dataset import reduced_patch
from mambair.data.restoration_dataset import to_tensor
from mambair.data.sources import ImageSource
from mambair.images.files import DecodedImage, ImageFileError, read_image, write_image
from mambair.images.lazy_image import LazyImage, in_color, to_float
from mambair.images.resize import imresize

SIZES = {"one.png": (40, 52), "two.png": (36, 36), "ten.png": (63, 41)}


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Ground truth of three sizes in ``gt`` and its x3 reductions in ``lq``, as ``<name>x3.bmp``."""
    rng = np.random.default_rng(0)
    for name, size in SIZES.items():
        gt = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        write_image(tmp_path / "gt" / name, DecodedImage(gt))
        cut = gt[: size[0] // 3 * 3, : size[1] // 3 * 3]
        write_image(tmp_path / "lq" / name.replace(".png", "x3.bmp"), DecodedImage(imresize(cut, 1 / 3)))
    return tmp_path


def paired(folders: Path, **changes: Any) -> dict[str, Any]:
    opt = {
        "type": "PairedImageDataset",
        "phase": "train",
        "scale": 3,
        "dataroot_gt": str(folders / "gt"),
        "dataroot_lq": str(folders / "lq"),
        "filename_tmpl": "{}x3",
        "io_backend": {"type": "disk"},
        "gt_size": 24,
        "use_hflip": True,
        "use_rot": True,
    }
    return {key: value for key, value in (opt | changes).items() if value is not Ellipsis}


def bicubic(folders: Path, **changes: Any) -> dict[str, Any]:
    return paired(folders, **({"type": "BicubicDataset", "dataroot_lq": ..., "filename_tmpl": ...} | changes))


def denoising(folders: Path, **changes: Any) -> dict[str, Any]:
    return bicubic(folders, **({"type": "GaussianDenoisingDataset", "scale": 1, "sigma": 25} | changes))


MAKERS = {"paired": paired, "bicubic": bicubic, "denoising": denoising}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("color", ["rgb", "gray", "y"])
def test_samples_have_the_promised_shapes(folders: Path, kind: str, color: str) -> None:
    channels = 3 if color == "rgb" else 1
    train = build_dataset(MAKERS[kind](folders, color=color))
    scale = train.options.scale
    assert len(train) == 3
    for index in range(3):
        sample = train.sample(index, np.random.default_rng(index))
        assert sample["gt"].shape == (channels, 24, 24)
        assert sample["lq"].shape == (channels, 24 // scale, 24 // scale)
        assert sample["lq"].dtype == sample["gt"].dtype == torch.float32
        assert sample["lq"].is_contiguous()
        assert sample["gt"].is_contiguous()
        assert Path(sample["gt_path"]).is_file()
        assert Path(sample["lq_path"]).is_file()
    test = build_dataset(MAKERS[kind](folders, color=color, phase="test", gt_size=...))
    for index in range(3):
        sample = test[index]
        height, width = SIZES[Path(sample["gt_path"]).name]
        assert sample["gt"].shape == (channels, height // scale * scale, width // scale * scale)
        assert sample["lq"].shape == (channels, height // scale, width // scale)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_sample_is_a_pure_function(folders: Path, kind: str) -> None:
    first, second = build_dataset(MAKERS[kind](folders)), build_dataset(MAKERS[kind](folders, cache=False))
    order = [(index, seed) for index in range(3) for seed in range(6)]
    samples = {key: first.sample(key[0], np.random.default_rng(key[1])) for key in order}
    for index, seed in reversed(order):
        again = second.sample(index, np.random.default_rng(seed))
        assert torch.equal(again["lq"], samples[index, seed]["lq"])
        assert torch.equal(again["gt"], samples[index, seed]["gt"])
    assert len({tuple(sample["gt"].flatten().tolist()) for sample in samples.values()}) > len(order) // 2


@pytest.mark.parametrize("kind", MAKERS)
def test_the_global_generators_are_left_alone(folders: Path, kind: str) -> None:
    import random

    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    for phase in ("train", "test"):
        build_dataset(MAKERS[kind](folders, phase=phase))[0]
    assert before[0] == random.getstate()
    assert before[1] == np.random.get_state()[1].tolist()
    assert torch.equal(before[2], torch.get_rng_state())


def test_bicubic_gives_what_the_pairs_hold(folders: Path) -> None:
    made, stored = BicubicDataset(bicubic(folders)), PairedImageDataset(paired(folders))
    whole, pairs = BicubicDataset(bicubic(folders, phase="val")), PairedImageDataset(paired(folders, phase="val"))
    for index in range(3):
        assert torch.equal(whole[index]["lq"], pairs[index]["lq"])
        assert torch.equal(whole[index]["gt"], pairs[index]["gt"])
        for seed in range(20):
            ours = made.sample(index, np.random.default_rng(seed))
            theirs = stored.sample(index, np.random.default_rng(seed))
            assert torch.equal(ours["lq"], theirs["lq"])
            assert torch.equal(ours["gt"], theirs["gt"])


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("scale", [2, 3, 4, 5, 8])
def test_a_patch_is_reduced_as_the_whole_image_is(scale: int, dtype: str) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, np.iinfo(dtype).max, (14 * scale, 11 * scale, 3), dtype=dtype)
    image[: 5 * scale] = rng.choice([0, 1, 255], (5 * scale, 11 * scale, 3))  # many near ties
    whole = imresize(image, 1 / scale)
    for top in range(14 - 4):
        for left in range(11 - 4):
            patch, covered = reduced_patch(LazyImage(image), scale, top, left, 4)
            assert np.array_equal(patch, whole[top : top + 4, left : left + 4]), (top, left)
            assert np.array_equal(covered, image[top * scale : (top + 4) * scale, left * scale : (left + 4) * scale])


def test_published_pairs_are_made_on_the_fly(development_data: Path) -> None:
    folder = development_data / "data" / "test" / "Set5"
    for scale in (2, 3, 4):
        common = {"phase": "test", "scale": scale, "dataroot_gt": str(folder / "HR")}
        made = BicubicDataset({"type": "BicubicDataset", **common})
        stored = PairedImageDataset(
            {"type": "PairedImageDataset", "dataroot_lq": str(folder / f"LRbicx{scale}"), **common}
        )
        for index in range(5):
            assert torch.equal(made[index]["lq"], stored[index]["lq"])
            assert torch.equal(made[index]["gt"], stored[index]["gt"])


@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True), (True, True)], ids=str)
def test_flips_are_those_that_were_asked_for(folders: Path, flips: tuple[bool, bool]) -> None:
    gt = read_image(folders / "gt" / "two.png").pixels
    opt = bicubic(folders, scale=1, gt_size=36, use_hflip=flips[0], use_rot=flips[1], type="BicubicDataset")
    dataset = BicubicDataset(opt)
    index = [path.name for path in dataset.gt_paths].index("two.png")
    seen = {
        dataset.sample(index, np.random.default_rng(seed))["gt"].mul(255).round().byte().numpy().tobytes()
        for seed in range(60)
    }
    mirrored = [gt, gt[:, ::-1]] if flips[0] else [gt]
    upset = [*mirrored, *(image[::-1] for image in mirrored)] if flips[1] else mirrored
    turned = [*upset, *(image.swapaxes(0, 1) for image in upset)] if flips[1] else upset
    assert seen == {np.ascontiguousarray(image.transpose(2, 0, 1)).tobytes() for image in turned}


def test_every_place_is_cut_from(folders: Path) -> None:
    dataset = BicubicDataset(bicubic(folders, scale=1, gt_size=35, use_hflip=False, use_rot=False))
    index = [path.name for path in dataset.gt_paths].index("two.png")
    seen = {tuple(dataset.sample(index, np.random.default_rng(seed))["gt"][0, 0].tolist()) for seed in range(40)}
    assert len(seen) == 4  # 36 - 35 + 1 rows and columns


@pytest.mark.parametrize("color", ["rgb", "gray"])
def test_test_noise_is_the_published_one(folders: Path, color: str) -> None:
    dataset = GaussianDenoisingDataset(denoising(folders, phase="test", color=color))
    for index, path in enumerate(dataset.gt_paths):
        # the protocol, written as it was run: BGR floats, the legacy global generator seeded before every image
        bgr = to_float(in_color(read_image(path).pixels, color))[:, :, ::-1]
        state = np.random.get_state()
        np.random.seed(0)
        noisy = bgr + np.random.normal(0, 25 / 255.0, bgr.shape)
        np.random.set_state(state)
        expected = np.ascontiguousarray(noisy[:, :, ::-1].transpose(2, 0, 1)).astype(np.float32)
        assert np.array_equal(dataset[index]["lq"].numpy(), expected)
        assert torch.equal(dataset[index]["lq"], dataset[index]["lq"])
        assert dataset[index]["lq"].min() < 0 < 1 < dataset[index]["lq"].max()


@pytest.mark.parametrize(("sigma", "low", "high"), [(25, 25, 25), (12.5, 12.5, 12.5), ([5, 50], 5, 50), ([15], 15, 15)])
def test_train_noise_has_the_strength_that_was_asked_for(folders: Path, sigma: Any, low: float, high: float) -> None:
    dataset = GaussianDenoisingDataset(denoising(folders, sigma=sigma))
    strengths = []
    for seed in range(60):
        sample = dataset.sample(seed % 3, np.random.default_rng(seed))
        strengths.append(float((sample["lq"] - sample["gt"]).std() * 255))
    # 1728 values estimate a standard deviation to 1.7 %, 4 of which no draw exceeds
    assert low * 0.93 <= min(strengths)
    assert max(strengths) <= high * 1.07
    if low < high:
        assert max(strengths) - min(strengths) > 0.7 * (high - low)


@pytest.mark.parametrize(("probability", "phase"), [(0.0, "train"), (0.5, "train"), (1.0, "train"), (1.0, "val")])
def test_noisy_images_are_clipped_as_often_as_asked_for(folders: Path, probability: float, phase: str) -> None:
    keys = {"sigma": 80, "phase": phase}
    plain, clipped = (
        GaussianDenoisingDataset(denoising(folders, **keys, **more)) for more in ({}, {"clip_probability": probability})
    )
    count = 0
    for number in range(100):
        one, other = (each.sample(number % 3, np.random.default_rng(number)) for each in (plain, clipped))
        expected = one["lq"].clamp(0, 1).mul(255).add(0.5).floor() / 255
        if torch.equal(other["lq"], one["lq"]):
            assert other["degradation"] == "gaussian noise sigma 80.00"
        else:
            count += 1
            assert torch.allclose(other["lq"], expected, rtol=0, atol=1e-7)
            assert other["degradation"] == "gaussian noise sigma 80.00 in 8 bits"
    # 100 fair draws stay within 25 and 75 but for 3e-7
    assert {0.0: count == 0, 0.5: 25 <= count <= 75, 1.0: count == 100}[probability]


def test_a_degradation_is_told(folders: Path) -> None:
    sample = GaussianDenoisingDataset(denoising(folders, sigma=[0, 50])).sample(0, np.random.default_rng(1))
    sigma = float(sample["degradation"].split()[-1])
    assert float((sample["lq"] - sample["gt"]).std()) * 255 == pytest.approx(sigma, rel=0.1)


def test_16_bits_and_grey_are_used_as_they_are(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (12, 12, 3), dtype=np.uint16)
    write_image(tmp_path / "a.png", DecodedImage(values))
    write_image(tmp_path / "b.png", DecodedImage(values[:, :, :1].copy()))
    dataset = BicubicDataset({"type": "BicubicDataset", "phase": "test", "dataroot_gt": str(tmp_path)})
    assert np.array_equal(dataset[0]["gt"].numpy(), (values.astype(np.float32) / 65535).transpose(2, 0, 1))
    assert torch.equal(dataset[1]["gt"][0], dataset[1]["gt"][2])


@pytest.mark.parametrize(
    ("color", "expected"), [("gray", [76, 150, 29, 255]), ("y", [81, 145, 41, 235])], ids=["gray", "y"]
)
def test_luma(color: str, expected: list[int]) -> None:
    primaries = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    assert in_color(primaries, color)[0, :, 0].tolist() == expected
    assert np.allclose(in_color(to_float(primaries), color)[0, :, 0] * 255, expected, atol=0.51)


def test_tensors_are_rgb_from_0_to_1() -> None:
    tensor = to_tensor(np.array([[[0, 128, 255]]], np.uint8))
    assert tensor.flatten().tolist() == pytest.approx([0, 128 / 255, 1])


@pytest.mark.parametrize(("cache", "expected"), [(True, 3), (None, 3), (False, 0)])
def test_cache(folders: Path, cache: bool | None, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = BicubicDataset(bicubic(folders, cache=cache))
    before = [dataset.sample(index, np.random.default_rng(0)) for index in range(3)]
    reads = []
    original = ImageSource.read
    monkeypatch.setattr(ImageSource, "read", lambda source, path: reads.append(path) or original(source, path))
    for index in range(3):
        assert torch.equal(dataset.sample(index, np.random.default_rng(0))["lq"], before[index]["lq"])
    assert len(reads) == 3 - expected


def test_automatic_cache_has_a_bound(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mambair.data.restoration_dataset.AUTOMATIC_CACHE_BYTES", 40 * 52 * 3 + 100)
    dataset = BicubicDataset(bicubic(folders))
    for index in range(3):
        dataset[index]
    assert len(dataset._cache) == 1


def test_meta_info_selects_and_orders(folders: Path) -> None:
    (folders / "meta.txt").write_text("two.png (36,36,3)\none.png\n\n")
    dataset = PairedImageDataset(paired(folders, meta_info_file=str(folders / "meta.txt")))
    assert [path.name for path in dataset.gt_paths] == ["two.png", "one.png"]
    assert [path.name for path in dataset.lq_paths] == ["twox3.bmp", "onex3.bmp"]


def test_basicsr_loader_keys_are_passed_over(folders: Path) -> None:
    keys = {
        "name": "DF2K",
        "use_shuffle": True,
        "num_worker_per_gpu": 6,
        "batch_size_per_gpu": 4,
        "dataset_enlarge_ratio": 100,
        "prefetch_mode": None,
        "pin_memory": True,
        "persistent_workers": True,
        "meta_info_file": None,
        "task": "sr",
    }
    opt = paired(folders, **keys)
    assert PairedImageDataset.check(opt) == []
    assert build_dataset(opt).opt == opt


FAULTS = {
    "unknown key": (paired, {"gt_sise": 24}, ["gt_sise"]),
    "wrong type": (paired, {"gt_size": "24"}, ["gt_size: "]),
    "two faults": (paired, {"use_hflip": 3, "scale": 0}, ["use_hflip: ", "scale: "]),
    "no patch size": (bicubic, {"gt_size": ...}, ["gt_size: phase train needs"]),
    "patch and scale": (bicubic, {"gt_size": 25}, ["gt_size: must be a multiple of scale (3)"]),
    "patches that grow, without steps": (bicubic, {"gt_sizes": [24, 36]}, ["iters: must be one positive number"]),
    "patches that grow, too few steps": (
        bicubic,
        {"gt_sizes": [24, 36], "iters": [5]},
        ["iters: must be one positive number of steps for each of gt_sizes"],
    ),
    "patches that grow, and scale": (
        bicubic,
        {"gt_sizes": [24, 35], "iters": [5, 5]},
        ["gt_sizes: must be positive multiples of scale (3)"],
    ),
    "steps without patches": (bicubic, {"iters": [5]}, ["iters: has no meaning without gt_sizes"]),
    "no folder key": (paired, {"dataroot_lq": ...}, ["dataroot_lq: "]),
    "missing folder": (bicubic, {"dataroot_gt": "nowhere"}, ["dataroot_gt: nowhere: no such folder"]),
    "missing lq folder": (paired, {"dataroot_lq": "nowhere"}, ["dataroot_lq: nowhere: no such folder"]),
    "template": (paired, {"filename_tmpl": "x3"}, ["filename_tmpl: must hold {} once"]),
    "wrong template": (paired, {"filename_tmpl": "{}"}, ["has no partner of one.png, ten.png, two.png", "one.*"]),
    "backend": (paired, {"io_backend": {"type": "tape"}}, ["io_backend: type: "]),
    "meta file": (paired, {"meta_info_file": "nowhere.txt"}, ["meta_info_file: nowhere.txt cannot be read"]),
    "no sigma": (denoising, {"sigma": ...}, ["sigma: "]),
    "negative sigma": (denoising, {"sigma": -1}, ["sigma: must be a number >= 0"]),
    "reversed range": (denoising, {"sigma": [50, 5]}, ["sigma: must be"]),
    "three numbers": (denoising, {"sigma": [5, 10, 50]}, ["sigma: must be"]),
    "clipping by chance at test": (
        denoising,
        {"clip_probability": 0.5, "phase": "test"},
        ["clip_probability: must be 0 or 1 in phase test; only training draws"],
    ),
    "range at test": (denoising, {"sigma": [5, 50], "phase": "test"}, ["sigma: must be one number in phase test"]),
    "scale of denoising": (denoising, {"scale": 2}, ["scale: must be 1"]),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_listed_by_key(folders: Path, name: str) -> None:
    maker, changes, expected = FAULTS[name]
    opt = maker(folders, **changes)
    kind = {"PairedImageDataset": PairedImageDataset, "BicubicDataset": BicubicDataset}.get(
        opt["type"], GaussianDenoisingDataset
    )
    faults = kind.check(opt)
    assert len(faults) >= 1
    for text in expected:
        assert any(text in fault for fault in faults), faults
    with pytest.raises(DatasetError) as raised:
        kind(opt)
    assert str(raised.value) == "\n".join(faults)


def test_unpaired_images_are_listed_on_both_sides(folders: Path) -> None:
    (folders / "gt" / "one.png").unlink()
    (folders / "lq" / "twox3.bmp").unlink()
    faults = PairedImageDataset.check(paired(folders))
    assert len(faults) == 2
    assert "no partner of two.png" in faults[0]
    assert "no ground truth for onex3.bmp" in faults[1]


def test_ambiguous_and_empty_folders(folders: Path) -> None:
    write_image(folders / "lq" / "onex3.png", read_image(folders / "lq" / "onex3.bmp"))
    assert "several files of one name but for the suffix: onex3" in PairedImageDataset.check(paired(folders))[0]
    (folders / "empty").mkdir()
    (folders / "empty" / "notes.txt").write_text("")
    faults = BicubicDataset.check(bicubic(folders, dataroot_gt=str(folders / "empty")))
    assert "holds no image file" in faults[0]
    (folders / "meta.txt").write_text("one.png\nthree.png\n")
    faults = BicubicDataset.check(bicubic(folders, meta_info_file=str(folders / "meta.txt")))
    assert "names files that" in faults[0]
    assert "three.png" in faults[0]


def test_an_image_smaller_than_the_patch_is_named(folders: Path) -> None:
    for dataset in (BicubicDataset(bicubic(folders, gt_size=48)), PairedImageDataset(paired(folders, gt_size=48))):
        index = [path.name for path in dataset.gt_paths].index("two.png")
        with pytest.raises(DatasetError, match=r"two.*36 x 36 pixels are too few .* gt_size 48; .* up to 36"):
            dataset.sample(index, np.random.default_rng(0))


@pytest.mark.parametrize("phase", ["train", "test"])
def test_sizes_of_a_pair_must_fit(folders: Path, phase: str) -> None:
    dataset = PairedImageDataset(paired(folders, scale=2, phase=phase))
    with pytest.raises(DatasetError, match=r"one\.png: 40 x 52 pixels do not fit .*onex3\.bmp with 13 x 17 at scale 2"):
        dataset.sample(0, np.random.default_rng(0))


def test_sizes_are_checked_by_the_headers(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mambair.images.files.decode", lambda *_: pytest.fail("a pixel was decoded"))
    fault = PairedImageDataset.check(paired(folders, scale=2))
    assert len(fault) == 1
    assert fault[0].startswith("dataroot_lq: ")
    assert "do not fit" in fault[0]
    assert "gt_size: " in BicubicDataset.check(bicubic(folders, gt_size=39))[0]
    (folders / "lq" / "tenx3.bmp").write_bytes(b"")
    assert "tenx3.bmp: is empty" in PairedImageDataset.check(paired(folders))[0]
    (folders / "gt" / "ten.png").write_text("")
    assert "dataroot_gt: " in BicubicDataset.check(bicubic(folders))[0]


def test_unreadable_images_are_named(folders: Path) -> None:
    (folders / "gt" / "one.png").write_bytes(b"")
    with pytest.raises(ImageFileError, match=r"one\.png: is empty"):
        BicubicDataset(bicubic(folders)).sample(0, np.random.default_rng(0))


def test_unknown_type() -> None:
    with pytest.raises(KeyError, match="did you mean 'BicubicDataset'"):
        build_dataset({"type": "BicubicDatasett"})
