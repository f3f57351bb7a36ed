"""Sub-images, reductions, LMDB and meta-info: what comes out, resumed, verified, and without images that fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mambair.data.pairing import DatasetError, names_in
from mambair.data_tools.prepare import (
    UnfinishedError,
    make_lmdb,
    make_reductions,
    make_sub_images,
    write_meta_info,
)
from mambair.data_tools.sub_images import Grid
from mambair.images.files import DecodedImage, list_images, read_image, write_image
from mambair.images.resize import imresize
from mambair.system.errors import RequestError


def picture(height: int, width: int, seed: int = 0, dtype: str = "uint8", channels: int = 3) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.integers(0, np.iinfo(dtype).max + 1, (height, width, channels)).astype(dtype)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three images of odd sizes: colour, 16 bit, grey."""
    folder = tmp_path / "HR"
    write_image(folder / "a.png", DecodedImage(picture(41, 53)))
    write_image(folder / "b.png", DecodedImage(picture(37, 36, 1, "uint16")))
    write_image(folder / "c.bmp", DecodedImage(picture(32, 40, 2, channels=1)))
    return folder


@pytest.mark.parametrize(
    ("grid", "size", "expected"),
    [
        (Grid(4, 2), (4, 4), [(0, 0)]),
        (Grid(4, 2), (6, 4), [(0, 0), (2, 0)]),
        (Grid(4, 4), (4, 9), [(0, 0), (0, 4), (0, 5)]),
        (Grid(4, 4, threshold=1), (4, 9), [(0, 0), (0, 4)]),
        (Grid(4, 4, scale=2), (5, 9), [(0, 0), (0, 4)]),
        (Grid(4, 4, scale=2), (7, 4), [(0, 0), (2, 0)]),
    ],
    ids=["whole", "step", "edge", "threshold", "a rest below the scale", "edge at a multiple of the scale"],
)
def test_corners(grid: Grid, size: tuple[int, int], expected: list[tuple[int, int]]) -> None:
    assert grid.corners(*size) == expected


@pytest.mark.parametrize("arguments", [(0, 1), (4, 0), (4, 2, -1), (5, 4, 0, 2), (4, 3, 0, 2)])
def test_impossible_grids(arguments: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Grid(*arguments)


@pytest.mark.parametrize("workers", [1, 2])
def test_sub_images_are_the_pixels_of_their_place(source: Path, tmp_path: Path, workers: int) -> None:
    grid = Grid(16, 12)
    report = make_sub_images(source, tmp_path / "sub", grid, workers=workers)
    assert (report.made, report.failed) == (3, [])
    for path in list_images(source):
        pixels = read_image(path).pixels
        for number, (top, left) in enumerate(grid.corners(*pixels.shape[:2]), 1):
            found = read_image(tmp_path / "sub" / f"{path.stem}_s{number:03d}.png").pixels
            assert found.dtype == pixels.dtype
            assert np.array_equal(found, pixels[top : top + 16, left : left + 16])


def test_sub_images_resume_and_repair(source: Path, tmp_path: Path) -> None:
    sub = tmp_path / "sub"
    make_sub_images(source, sub, Grid(16, 12))
    one, other, spoilt = (sub / f"a_s{number:03d}.png" for number in (1, 2, 3))
    one.unlink()
    other.write_bytes(other.read_bytes()[:40])
    kept = (sub / "b_s001.png").stat().st_mtime_ns
    write_image(spoilt, DecodedImage(picture(16, 16, 9)))
    report = make_sub_images(source, sub, Grid(16, 12))
    assert (report.made, report.there) == (1, 2)
    pixels = read_image(source / "a.png").pixels
    assert np.array_equal(read_image(one).pixels, pixels[:16, :16])
    assert np.array_equal(read_image(other).pixels, pixels[:16, 12:28])
    assert (sub / "b_s001.png").stat().st_mtime_ns == kept
    assert make_sub_images(source, sub, Grid(16, 12), verify=True).made == 1  # the one of the right size, too
    assert np.array_equal(read_image(spoilt).pixels, pixels[:16, 24:40])
    with pytest.raises(RequestError, match="other settings"):
        make_sub_images(source, sub, Grid(16, 8))


def test_pairs_are_cut_at_the_same_places(source: Path, tmp_path: Path) -> None:
    make_reductions(source, {4: tmp_path / "LR"})
    grid = Grid(16, 12, scale=4)
    folders = {"partners": tmp_path / "LR", "partners_target": tmp_path / "LR_sub", "filename_tmpl": "{}x4"}
    report = make_sub_images(source, tmp_path / "sub", grid, **folders)
    assert not report.failed
    pixels, low = read_image(source / "a.png").pixels, read_image(tmp_path / "LR" / "ax4.png").pixels
    for number, (top, left) in enumerate(grid.corners(*pixels.shape[:2]), 1):
        high_sub = read_image(tmp_path / "sub" / f"a_s{number:03d}.png").pixels
        low_sub = read_image(tmp_path / "LR_sub" / f"a_s{number:03d}x4.png").pixels
        assert np.array_equal(high_sub, pixels[top : top + 16, left : left + 16])
        assert np.array_equal(low_sub, low[top // 4 : top // 4 + 4, left // 4 : left // 4 + 4])


def test_images_that_cannot_be_cut_are_named_and_the_others_done(source: Path, tmp_path: Path) -> None:
    write_image(source / "small.png", DecodedImage(picture(8, 60)))
    (source / "torn.png").write_bytes((source / "a.png").read_bytes()[:300])
    report = make_sub_images(source, tmp_path / "sub", Grid(16, 12))
    reasons = {Path(name).name: reason for name, reason in report.failed}
    assert report.made == 3 and reasons.keys() == {"small.png", "torn.png"}
    assert "8 x 60 pixels are too few" in reasons["small.png"] and "is truncated" in reasons["torn.png"]


def test_a_pair_of_other_sizes_is_refused(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "LR"
    for path in list_images(source):
        write_image(folder / f"{path.stem}.png", DecodedImage(picture(9, 9)))
    report = make_sub_images(
        source, tmp_path / "sub", Grid(16, 12, scale=2), partners=folder, partners_target=tmp_path / "LR_sub"
    )
    assert len(report.failed) == 3 and "do not fit" in report.failed[0][1]
    (folder / "a.png").unlink()
    with pytest.raises(DatasetError, match="no partner"):
        make_sub_images(source, tmp_path / "other", Grid(16, 12, scale=2), partners=folder, partners_target=folder)


def test_reductions_are_matlab_s_of_the_cut_image(source: Path, tmp_path: Path) -> None:
    folders = {2: tmp_path / "X2", 3: tmp_path / "X3"}
    assert make_reductions(source, folders).made == 3
    for scale, folder in folders.items():
        for path in list_images(source):
            pixels = read_image(path).pixels
            height, width = (length // scale * scale for length in pixels.shape[:2])
            found = read_image(folder / f"{path.stem}x{scale}.png").pixels
            assert np.array_equal(found, imresize(pixels[:height, :width], 1 / scale))
    assert make_reductions(source, folders).there == 3
    (folders[3] / "bx3.png").unlink()
    write_image(folders[2] / "ax2.png", DecodedImage(picture(20, 26, 5)))
    assert make_reductions(source, folders, verify=True).made == 2


def test_reductions_equal_set5_s(development_data: Path, tmp_path: Path) -> None:
    set5 = development_data / "data" / "test" / "Set5"
    make_reductions(set5 / "HR", {scale: tmp_path / f"X{scale}" for scale in (2, 3, 4)}, filename_tmpl="{}")
    for scale in (2, 3, 4):
        for path in list_images(tmp_path / f"X{scale}"):
            assert np.array_equal(read_image(path).pixels, read_image(set5 / f"LRbicx{scale}" / path.name).pixels)


def test_an_image_below_the_scale(tmp_path: Path) -> None:
    write_image(tmp_path / "HR" / "tiny.png", DecodedImage(picture(3, 9)))
    (failure,) = make_reductions(tmp_path / "HR", {4: tmp_path / "X4"}).failed
    assert "3 x 9 pixels are too few for scale 4" in failure[1]


@pytest.mark.parametrize("workers", [1, 2])
def test_lmdb_holds_the_files_byte_for_byte(source: Path, tmp_path: Path, workers: int) -> None:
    lmdb_store = pytest.importorskip("mambair.data.lmdb_store")
    pytest.importorskip("lmdb")
    write_image(source / "below" / "a.png", DecodedImage(picture(5, 6)))
    report = make_lmdb(source, tmp_path / "set.lmdb", workers=workers)
    assert report.made == 4
    reader = lmdb_store.LmdbReader(tmp_path / "set.lmdb")
    assert sorted(reader.keys()) == ["a", "b", "below/a", "c"]
    assert reader.get("below/a") == (source / "below" / "a.png").read_bytes()
    assert reader.entry("c") == ("c.bmp", 32, 40, 1)


def test_lmdb_of_a_damaged_image_is_not_finished_and_goes_on(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("lmdb")
    whole = (source / "b.png").read_bytes()
    (source / "b.png").write_bytes(whole[:200])
    with pytest.raises(UnfinishedError, match="not finished: 1 images") as caught:
        make_lmdb(source, tmp_path / "set.lmdb")
    assert Path(caught.value.report.failed[0][0]).name == "b.png"
    assert not (tmp_path / "set.lmdb").exists()
    (source / "b.png").write_bytes(whole)
    report = make_lmdb(source, tmp_path / "set.lmdb")
    assert (report.made, report.there) == (1, 2)


def test_meta_info_is_what_data_sets_read(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "meta.txt"
    assert write_meta_info(source, target).made == 3
    assert target.read_text() == "a.png (41,53,3)\nb.png (37,36,3)\nc.bmp (32,40,1)\n"
    assert [source / name for name in names_in(str(target))] == list_images(source)
    write_image(source / "d e.png", DecodedImage(picture(5, 6)))
    assert write_meta_info(source, target).made == 4
    assert target.read_text().splitlines()[-1] == "d e.png (5,6,3)"
    assert [source / name for name in names_in(str(target))] == list_images(source)
