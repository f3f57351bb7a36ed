"""Batches: the same with any number of workers, from any start, in any share; the global generators stay untouched."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mambair.data import DatasetError, build_dataset
from mambair.data.loader import (
    NumberedSamples,
    SampleSequence,
    TrainingBatches,
    build_test_loader,
    build_train_loader,
)
from mambair.images.files import DecodedImage, ImageFileError, list_images, read_image, write_image
from mambair.images.resize import imresize
from mambair.registry import basicsr_installed

EXAMPLE = Path("datasets") / "example"


@pytest.fixture
def dataset(repository: Path) -> Any:
    opt = {"type": "BicubicDataset", "phase": "train", "scale": 4, "gt_size": 32, "use_hflip": True, "use_rot": True}
    return build_dataset(opt | {"dataroot_gt": str(repository / EXAMPLE / "gt")})


class DrawsFromEverywhere(torch.utils.data.Dataset):
    """A data set as basicsr's are: all randomness from the global generators."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"lq": torch.tensor([index, random.random(), np.random.rand(), torch.rand(()).item()])}


def first(loader: Any, count: int) -> list[dict[str, Any]]:
    return list(itertools.islice(iter(loader), count))


def same(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a["lq"], b["lq"]) and a.get("gt_path") == b.get("gt_path") for a, b in zip(one, other, strict=True)
    )


def test_every_epoch_is_another_permutation() -> None:
    sequence = SampleSequence(7, seed=3)
    epochs = [[sequence.index(7 * epoch + place) for place in range(7)] for epoch in range(5)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) > 1
    assert [sequence.index(n) for n in (30, 2, 9, 30)] == [epochs[4][2], epochs[0][2], epochs[1][2], epochs[4][2]]


def test_in_order_without_shuffling() -> None:
    sequence = SampleSequence(3, seed=0, shuffle=False)
    assert [sequence.index(n) for n in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_numbers_and_seeds_have_their_own_randomness() -> None:
    draws = {SampleSequence(5, seed).rng(number).integers(2**62) for seed in range(10) for number in range(50)}
    assert len(draws) == 500
    assert SampleSequence(5, 1).rng(7).integers(2**62) == SampleSequence(9, 1).rng(7).integers(2**62)


@pytest.mark.parametrize(("length", "seed", "text"), [(0, 0, "empty"), (3, -1, "negative")])
def test_wrong_sequences(length: int, seed: int, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        SampleSequence(length, seed)


def test_batches(dataset: Any) -> None:
    batch = first(build_train_loader(dataset, batch_size=3, seed=0), 1)[0]
    assert batch["lq"].shape == (3, 3, 8, 8)
    assert batch["gt"].shape == (3, 3, 32, 32)
    assert len(batch["lq_path"]) == len(batch["gt_path"]) == 3


@pytest.mark.parametrize("foreign", [False, True], ids=["ours", "foreign"])
def test_workers_change_nothing(dataset: Any, foreign: bool) -> None:
    source = DrawsFromEverywhere() if foreign else dataset
    alone = first(build_train_loader(source, batch_size=3, seed=5), 7)
    shared = first(build_train_loader(source, batch_size=3, seed=5, num_workers=2), 7)
    assert same(alone, shared)


@pytest.mark.parametrize("foreign", [False, True], ids=["ours", "foreign"])
def test_a_later_start_gives_the_same_batches(dataset: Any, foreign: bool) -> None:
    source = DrawsFromEverywhere() if foreign else dataset
    whole = first(build_train_loader(source, batch_size=4, seed=5), 6)
    rest = first(build_train_loader(source, batch_size=4, seed=5, start=12), 3)
    assert same(whole[3:], rest)
    other = first(build_train_loader(source, batch_size=4, seed=6), 6)
    assert not same(whole, other)


def test_two_processes_share_the_numbers(dataset: Any) -> None:
    whole = first(build_train_loader(dataset, batch_size=4, seed=5), 3)
    halves = [first(build_train_loader(dataset, batch_size=2, seed=5, rank=rank, world_size=2), 3) for rank in (0, 1)]
    for number, batch in enumerate(whole):
        assert torch.equal(batch["lq"], torch.cat([half[number]["lq"] for half in halves]))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_generators_are_left_alone(dataset: Any, workers: int) -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    for source in (dataset, DrawsFromEverywhere()):
        first(build_train_loader(source, batch_size=2, seed=1, num_workers=workers), 3)
    list(build_test_loader(torch.utils.data.TensorDataset(torch.zeros(3, 1)), num_workers=workers))
    assert before[0] == random.getstate()
    assert before[1] == np.random.get_state()[1].tolist()
    assert torch.equal(before[2], torch.get_rng_state())


def test_global_generators_are_put_back_when_a_foreign_data_set_fails() -> None:
    class Fails:
        def __getitem__(self, index: int) -> None:
            random.random()
            raise RuntimeError("broken")

    before = random.getstate()
    with pytest.raises(RuntimeError, match="broken"):
        NumberedSamples(Fails(), SampleSequence(2, 0))[0]
    assert before == random.getstate()


def test_the_test_loader_goes_through_every_image_once(repository: Path) -> None:
    opt = {"type": "BicubicDataset", "phase": "val", "scale": 4, "dataroot_gt": str(repository / EXAMPLE / "val_gt")}
    batches = list(build_test_loader(build_dataset(opt)))
    assert [Path(batch["gt_path"][0]).stem for batch in batches] == ["astronaut", "chelsea", "coffee", "rocket"]
    assert all(batch["lq"].shape[0] == 1 for batch in batches)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_named_in_one_line(workers: int, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    opt = {"type": "BicubicDataset", "phase": "train", "scale": 2, "gt_size": 8, "dataroot_gt": str(tmp_path)}
    loader = build_train_loader(build_dataset(opt), batch_size=1, seed=0, num_workers=workers)
    batches = TrainingBatches(loader)
    with pytest.raises(ImageFileError) as caught:
        next(batches)
    batches.close()
    assert str(caught.value).endswith("a.png: is empty (0 bytes)")
    assert "\n" not in str(caught.value), "a worker's traceback is no part of the message"


@pytest.fixture
def damaged(tmp_path: Path, repository: Path) -> dict[str, Any]:
    """Options of a data set of six images, two of which are damaged."""
    for number, path in enumerate(list_images(repository / EXAMPLE / "gt")[:6]):
        data = path.read_bytes()
        (tmp_path / f"{number}.png").write_bytes(data[: len(data) // 2] if number in (1, 4) else data)
    opt = {"type": "BicubicDataset", "phase": "train", "scale": 2, "gt_size": 8, "dataroot_gt": str(tmp_path)}
    return opt | {"skip_unreadable": True, "use_hflip": True}


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_images_are_skipped_and_told_once(
    damaged: dict[str, Any], workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    def batches(start: int, count: int, workers: int) -> list[dict[str, Any]]:
        loader = build_train_loader(build_dataset(damaged), batch_size=3, seed=2, start=start, num_workers=workers)
        stream = TrainingBatches(loader)
        taken = [next(stream) for _ in range(count)]
        stream.close()
        return taken

    whole = batches(0, 8, workers)
    assert all(batch["lq"].shape == (3, 3, 4, 4) for batch in whole)
    used = {Path(path).stem for batch in whole for path in batch["gt_path"]}
    assert used == {"0", "2", "3", "5"}
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == 3
    assert told[0].startswith("image no. 1 that cannot be used is skipped: ")
    assert told[1].startswith("image no. 2 that cannot be used is skipped: ")
    assert all("is truncated" in text for text in told[:2])
    # every epoch of 6 meets both once; substitutes may meet them again
    assert told[2].startswith("2 images could not be used and were skipped:\n  ")
    counts = [int(line.split()[0]) for line in told[2].splitlines()[1:]]
    assert len(counts) == 2
    assert min(counts) >= 4
    assert same(whole[5:], batches(15, 3, 0)), "what is taken instead depends on the seed and the number alone"


def test_without_the_option_the_damaged_image_ends_the_stream(damaged: dict[str, Any]) -> None:
    loader = build_train_loader(build_dataset(damaged | {"skip_unreadable": False}), batch_size=6, seed=2)
    with pytest.raises(ImageFileError, match=r"[14]\.png: is truncated"):
        next(TrainingBatches(loader))


def test_where_nothing_can_be_used_skipping_is_an_error(damaged: dict[str, Any], tmp_path: Path) -> None:
    for path in list_images(tmp_path):
        path.write_bytes(b"nothing")
    loader = build_train_loader(build_dataset(damaged), batch_size=1, seed=2)
    with pytest.raises(DatasetError, match="6 images were tried and none can be used, skip_unreadable or not: "):
        next(TrainingBatches(loader))


def test_the_check_of_options_passes_over_what_is_skipped(damaged: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"")
    kind = type(build_dataset(damaged))
    assert kind.check(damaged) == []
    assert "1.png: is empty" in kind.check(damaged | {"skip_unreadable": False})[0]
    for path in list_images(tmp_path):
        path.write_bytes(b"")
    assert "0.png: is empty" in kind.check(damaged)[0]


def test_patches_grow_with_the_iterations(repository: Path) -> None:
    opt = {
        "type": "GaussianDenoisingDataset",
        "phase": "train",
        "sigma": 5,
        "gt_sizes": [8, 16, 24],
        "iters": [2, 1, 3],
    }
    dataset = build_dataset(opt | {"dataroot_gt": str(repository / EXAMPLE / "gt")})
    assert [dataset.gt_size_at(iteration) for iteration in range(8)] == [8, 8, 16, 24, 24, 24, 24, 24]
    loaders = [build_train_loader(dataset, batch_size=2, seed=0, rank=rank, world_size=2) for rank in (0, 1)]
    for loader in loaders:
        assert [batch["gt"].shape[-1] for batch in first(loader, 5)] == [8, 8, 16, 24, 24]
    assert first(build_train_loader(dataset, batch_size=4, seed=0, start=8), 1)[0]["gt"].shape[-1] == 16


PROGRAM_WITH_A_FAULT = """
import sys
from mambair.data import DatasetError, build_dataset
from mambair.data.loader import TrainingBatches, build_train_loader
opt = {"type": "BicubicDataset", "phase": "train", "scale": 2, "gt_size": 8, "dataroot_gt": sys.argv[1]}
batches = TrainingBatches(build_train_loader(build_dataset(opt), batch_size=1, seed=0, num_workers=2))
try:
    next(batches)
except ValueError as error:
    kept = error  # the traceback keeps every frame of the call alive, and the workers with them
batches.close()
"""


def test_workers_do_not_keep_the_program_from_ending(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    command = [sys.executable, "-c", PROGRAM_WITH_A_FAULT, str(tmp_path)]
    assert subprocess.run(command, cwd=repository, timeout=240, check=False).returncode == 0


@pytest.mark.parametrize(
    "changes", [{"batch_size": 0}, {"start": -1}, {"num_workers": -1}, {"rank": 2, "world_size": 2}], ids=str
)
def test_wrong_counts(dataset: Any, changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="batch_size must be >= 1"):
        build_train_loader(dataset, **({"batch_size": 1, "seed": 0} | changes))


@pytest.mark.skipif(not basicsr_installed(), reason="basicsr is not installed")
def test_a_data_set_of_basicsr_is_a_function_of_seed_and_number(repository: Path, tmp_path: Path) -> None:
    folder = repository / EXAMPLE
    for path in list_images(folder / "val_gt"):
        gt = read_image(path).pixels
        write_image(tmp_path / path.name, DecodedImage(imresize(gt, 0.5)))
    opt = {"type": "basicsr/PairedImageDataset", "phase": "train", "scale": 2, "gt_size": 32, "use_hflip": True}
    opt |= {"use_rot": True, "dataroot_gt": str(folder / "val_gt"), "dataroot_lq": str(tmp_path)}
    opt |= {"io_backend": {"type": "disk"}}
    alone = first(build_train_loader(build_dataset(opt), batch_size=2, seed=1), 4)
    later = first(build_train_loader(build_dataset(opt), batch_size=2, seed=1, start=4), 2)
    assert same(alone[2:], later)
    assert alone[0]["gt"].shape == (2, 3, 32, 32)
