"""The same picture in another shape is found again, and other pictures are not."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mambair.data_tools.perceptual_hash import Fingerprint, fingerprint, matches, turned
from mambair.images.files import list_images, read_rgb
from mambair.images.resize import imresize


@pytest.fixture(scope="module")
def pictures(repository: Path) -> list[np.ndarray]:
    """The twelve example images: all different, some cut from one photograph."""
    example = repository / "datasets" / "example"
    return [read_rgb(path) for name in ("gt", "val_gt") for path in list_images(example / name)]


@pytest.fixture(scope="module")
def prints(pictures: list[np.ndarray]) -> list[Fingerprint]:
    return [fingerprint(picture) for picture in pictures]


def jpeg(picture: np.ndarray) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=10)
    return np.asarray(Image.open(stream))


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": lambda picture: picture,
    "grey": lambda picture: np.rint(picture.mean(2, keepdims=True)).astype(np.uint8),
    "16 bit": lambda picture: picture.astype(np.uint16) * 257,
    "quarter": lambda picture: imresize(picture, 0.25),
    "cut to a multiple of 4, less 2": lambda picture: picture[: -4 - len(picture) % 4 or None, 2:],
    "jpeg 10": jpeg,
    "noise of sigma 50": lambda picture: np.clip(
        picture + np.random.default_rng(0).normal(0, 50, picture.shape), 0, 255
    ).astype(np.uint8),
    "mirrored": lambda picture: picture[:, ::-1],
    "turned": lambda picture: np.rot90(picture),
    "turned and mirrored": lambda picture: np.rot90(picture, 3)[:, ::-1],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_changed_pictures_are_found_and_only_they(
    pictures: list[np.ndarray], prints: list[Fingerprint], change: Callable[[np.ndarray], np.ndarray]
) -> None:
    changed = [fingerprint(np.ascontiguousarray(change(picture))) for picture in pictures]
    found = matches(prints, changed)
    assert [(match.first, match.second) for match in found] == [(number, number) for number in range(len(pictures))]


def test_different_pictures_match_nothing(prints: list[Fingerprint]) -> None:
    assert matches(prints) == []


@pytest.mark.parametrize("at_once", [1, 30, 2**22], ids=["row by row", "two rows", "all"])
def test_pairs_within_one_list_come_once(
    prints: list[Fingerprint], monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr("mambair.data_tools.perceptual_hash._PAIRS", at_once)
    assert [(match.first, match.second) for match in matches([*prints, prints[3]])] == [(3, len(prints))]


def test_uniform_pictures_have_nothing_to_compare() -> None:
    flat = [fingerprint(np.full((9, 7, 3), value, dtype=np.uint8)) for value in (0, 0, 200)]
    assert matches(flat) == [] == matches([], flat)


def test_the_eight_turns_are_all_different() -> None:
    square = np.arange(9.0).reshape(3, 3)
    assert len({turned(square, turn).tobytes() for turn in range(8)}) == 8


def test_known_duplicates_of_published_sets(development_data: Path) -> None:
    folders = {name: list_images(development_data / "data" / "test" / name) for name in ("Set12", "classic5")}
    first, second = ([fingerprint(read_rgb(path)) for path in paths] for paths in folders.values())
    found = {
        (folders["Set12"][match.first].name, folders["classic5"][match.second].stem) for match in matches(first, second)
    }
    assert found == {("03.png", "peppers"), ("08.png", "lena"), ("10.png", "boats")}  # barbara is another cutting
