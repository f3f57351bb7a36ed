"""Between the network and the file: resampling, blending and the comparison, against the same on whole images."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mambair.folders import before_after
from mambair.folders.finish import Finish
from mambair.folders.pipeline import Report, restore_files
from mambair.folders.plan import plan_jobs
from mambair.folders.resume import Ledger
from mambair.folders.target_size import TargetSize
from mambair.images.files import DecodedImage, read_image, write_image
from mambair.images.resize import imresize
from mambair.inference.restorer import Restorer
from mambair.system.errors import RequestError

HEIGHT, WIDTH = 90, 70  # several tiles of 32 each way


def picture(mode: str, dtype: str) -> DecodedImage:
    white = {"uint8": 255, "uint16": 65535, "float32": 1}[dtype]
    values = np.random.default_rng(0).random((HEIGHT, WIDTH, 4)) * white
    channels = values[..., :1] if mode.startswith("L") else values[..., :3]
    channels = channels.astype(dtype)
    alpha = np.maximum(values[..., 3], white / 10).astype(dtype) if mode.endswith("A") else None  # all visible
    return DecodedImage(channels, alpha)


def enlarged(image: DecodedImage) -> np.ndarray:
    """What the restorer of the fixture gives: colours repeated, alpha bicubic."""
    colour = image.pixels.repeat(2, axis=0).repeat(2, axis=1)
    if image.alpha is None:
        return colour
    alpha = imresize(image.alpha, 2)
    alpha = np.clip(alpha, 0, 1) if alpha.dtype.kind == "f" else alpha
    return np.concatenate([colour, alpha[:, :, None]], axis=2)


def clipped(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 1) if values.dtype.kind == "f" else values


def run(folder: Path, image: DecodedImage, restorer: Restorer, finish: Finish, ending: str = "png") -> Report:
    write_image(folder / "in" / f"a.{ending}", image)
    plan = plan_jobs(folder / "in", folder / "out", format=ending)
    ledger = Ledger(folder / "out", finish.settings())
    report = restore_files(restorer, plan, finish=finish, ledger=ledger, quiet=True)
    assert report.complete, report.failed
    return report


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA"])
@pytest.mark.parametrize("asked", [{"factor": 1.5}, {"longest_side": 300}, {"width": 133}], ids=["x1.5", "300", "133"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_sizes_are_those_of_the_whole_resampled(
    dtype: str, asked: dict[str, Any], mode: str, tmp_path: Path, restorer: Restorer
) -> None:
    image, size = picture(mode, dtype), TargetSize(**asked)
    if mode == "LA" and dtype == "float32":
        pytest.skip("no format holds it")
    ending = "tif" if dtype == "float32" else "png"
    run(tmp_path, image, restorer, Finish(size), ending)
    found = read_image(tmp_path / "out" / f"a.{ending}").interleaved()
    expected = clipped(imresize(enlarged(image), size=size.of(HEIGHT, WIDTH)))
    if dtype == "float32":  # sums in another order
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    else:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("strength", [0.25, 0.5, 1.0])
def test_strength_blends_with_the_enlarged_input(
    strength: float, dtype: str, tmp_path: Path, restorer: Restorer
) -> None:
    image = picture("RGBA", dtype)
    run(tmp_path, image, restorer, Finish(strength=strength))
    before = imresize(image.interleaved(), 2)
    expected = before + np.float32(strength) * (enlarged(image).astype(np.float32) - before)
    found = read_image(tmp_path / "out" / "a.png").interleaved()
    np.testing.assert_array_equal(found, np.rint(expected).astype(dtype))


LEFT_OUT: dict[str, Finish] = {
    "no strength": Finish(strength=0.0),
    "no strength, a size": Finish(TargetSize(1.7), strength=0.0),
    "smaller than the input": Finish(TargetSize(longest_side=50)),
    "smaller, blended": Finish(TargetSize(0.5), strength=0.5),
}


@pytest.mark.parametrize("finish", LEFT_OUT.values(), ids=LEFT_OUT)
def test_the_network_is_left_out(finish: Finish, tmp_path: Path, restorer: Restorer) -> None:
    image = picture("RGB", "uint8")
    report = run(tmp_path, image, restorer, finish)
    assert restorer.net.calls == 0
    assert report.resampled == 1 and "1 of them resampled without the network" in report.summary()
    expected = imresize(image.pixels, size=finish.size_of(HEIGHT, WIDTH, 2))
    np.testing.assert_array_equal(read_image(tmp_path / "out" / "a.png").pixels, expected)
    record = json.loads((tmp_path / "out" / "manifest.jsonl").read_text())
    assert record["network"] is False and record["size"] == [WIDTH, HEIGHT]
    assert record["output_size"] == [expected.shape[1], expected.shape[0]]


def test_a_size_of_the_input_is_made_by_the_network(tmp_path: Path, restorer: Restorer) -> None:
    report = run(tmp_path, picture("RGB", "uint8"), restorer, Finish(TargetSize(1.0)))
    assert restorer.net.calls > 0 and report.resampled == 0


def test_settings_decide_on_done_only_where_they_differ_from_the_default() -> None:
    assert Finish().settings() == {}
    finish = Finish(TargetSize(longest_side=9), 0.5, compare=True)
    assert finish.settings() == {"result_size": {"longest_side": 9}, "strength": 0.5, "compare": True}


def test_other_settings_are_done_again(tmp_path: Path, restorer: Restorer) -> None:
    image = picture("RGB", "uint8")
    finishes = [Finish(), Finish(TargetSize(3.0)), Finish(TargetSize(3.0), 0.5)]
    for finish in finishes:
        assert len(run(tmp_path, image, restorer, finish).written) == 1
        assert len(run(tmp_path, image, restorer, finish).skipped) == 1


def test_exif_says_the_size_of_the_result(tmp_path: Path, restorer: Restorer) -> None:
    exif = Image.Exif()
    exif[271], exif[282] = "a camera", 300.0
    exif.get_ifd(34665).update({40962: WIDTH, 40963: HEIGHT, 33434: 0.01})
    (tmp_path / "in").mkdir()
    Image.fromarray(picture("RGB", "uint8").pixels).save(tmp_path / "in" / "a.jpg", exif=exif)
    plan = plan_jobs(tmp_path / "in", tmp_path / "out", format="same")
    assert restore_files(restorer, plan, finish=Finish(TargetSize(1.5)), quiet=True).complete
    with Image.open(tmp_path / "out" / "a.jpg") as result:
        tags = result.getexif()
        details = tags.get_ifd(34665)
        assert result.size == (details[40962], details[40963]) == (105, 135)
        assert (tags[271], tags[282], details[33434]) == ("a camera", 300, 0.01)


@pytest.mark.parametrize(
    ("ending", "mode", "nearest"),
    [("jpg", "RGB", 0.0), ("jpg", "CMYK", 0.0), ("png", "RGB", 0.01), ("tif", "RGB", 0.0), ("tif", "I;16", 0.0)],
)
def test_pixels_per_inch_are_kept(ending: str, mode: str, nearest: float, tmp_path: Path, restorer: Restorer) -> None:
    (tmp_path / "in").mkdir()
    Image.new(mode, (9, 7)).save(tmp_path / "in" / f"a.{ending}", dpi=(300, 200))
    plan = plan_jobs(tmp_path / "in", tmp_path / "out", format="same")
    assert restore_files(restorer, plan, finish=Finish(TargetSize(3.0)), quiet=True).complete
    with Image.open(tmp_path / "out" / f"a.{ending}") as result:
        assert result.size == (27, 21)
        # PNG counts whole pixels per metre
        assert [float(each) for each in result.info["dpi"]] == pytest.approx([300, 200], abs=nearest)


def parts_of(page: str) -> list[np.ndarray]:
    """The pictures within a page."""
    addresses = re.findall(r'src="data:image/(?:jpeg|png);base64,([^"]+)"', page)
    return [np.array(Image.open(io.BytesIO(base64.b64decode(each)))) for each in addresses]


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("size", [None, TargetSize(1.5)], ids=["x2", "x1.5"])
def test_the_comparison_shows_the_enlarged_input_and_the_result(
    size: TargetSize | None, dtype: str, mode: str, tmp_path: Path, restorer: Restorer
) -> None:
    image = picture(mode, dtype)
    run(tmp_path, image, restorer, Finish(size, compare=True))
    result = read_image(tmp_path / "out" / "a.png").interleaved()
    before = imresize(image.interleaved(), size=result.shape[:2])
    pair = read_image(tmp_path / "out" / "a_compare.png").interleaved()
    gap = np.full((len(result), 8, result.shape[2]), 255)
    white = 255 / np.iinfo(dtype).max
    expected = np.concatenate([np.rint(before * white), gap, np.rint(result * white)], axis=1)
    np.testing.assert_array_equal(pair, expected)
    page = (tmp_path / "out" / "a_compare.html").read_text()
    assert [each.shape[:2] for each in parts_of(page)] == [result.shape[:2]] * 2
    assert "://" not in page and set(re.findall(r"(?:src|href)=\"(\w+):", page)) == {"data"}


def test_of_large_results_the_middle_is_shown(
    tmp_path: Path, restorer: Restorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(before_after, "LARGEST", 100)
    image = picture("RGB", "uint8")
    run(tmp_path, image, restorer, Finish(compare=True))
    result = read_image(tmp_path / "out" / "a.png").pixels
    assert result.shape == (180, 140, 3)
    pair = read_image(tmp_path / "out" / "a_compare.png").pixels
    np.testing.assert_array_equal(pair[:, :100], imresize(image.pixels, 2)[40:140, 20:120])
    np.testing.assert_array_equal(pair[:, 108:], result[40:140, 20:120])
    page = (tmp_path / "out" / "a_compare.html").read_text()
    assert "Shown is the middle, 100 x 100 pixels." in page


def test_names_in_a_page_are_escaped(tmp_path: Path, restorer: Restorer) -> None:
    write_image(tmp_path / "in" / "<b>&'\".png", picture("RGB", "uint8"))
    plan = plan_jobs(tmp_path / "in", tmp_path / "out")
    assert restore_files(restorer, plan, finish=Finish(compare=True), quiet=True).complete
    (path,) = (tmp_path / "out").glob("*.html")
    assert "<h1>&lt;b&gt;&amp;&#x27;&quot;.png</h1>" in path.read_text()


def test_a_comparison_that_cannot_be_written_fails_its_image(tmp_path: Path, restorer: Restorer) -> None:
    write_image(tmp_path / "in" / "a.png", picture("RGB", "uint8"))
    (tmp_path / "out" / "a_compare.html").mkdir(parents=True)
    plan = plan_jobs(tmp_path / "in", tmp_path / "out")
    report = restore_files(restorer, plan, finish=Finish(compare=True), quiet=True)
    assert [path.name for path, _ in report.failed] == ["a.png"]
    assert not (tmp_path / "out" / "a.png").exists()


def test_comparisons_are_no_inputs_of_the_next_run_and_replace_none(tmp_path: Path, restorer: Restorer) -> None:
    folder = tmp_path / "in"
    write_image(folder / "a.png", picture("RGB", "uint8"))
    plan = plan_jobs(folder, folder, same_folder_suffix="_x2")
    assert restore_files(restorer, plan, finish=Finish(compare=True), quiet=True).complete
    assert sorted(path.name for path in folder.iterdir()) == [
        "a.png", "a_x2.png", "a_x2_compare.html", "a_x2_compare.png",
    ]  # fmt: skip
    assert [job.source.name for job in plan_jobs(folder, folder, same_folder_suffix="_x2").jobs] == ["a.png"]
    write_image(tmp_path / "other" / "b.png", picture("RGB", "uint8"))
    write_image(tmp_path / "other" / "b_compare.png", picture("RGB", "uint8"))
    plan = plan_jobs(tmp_path / "other", tmp_path / "out")
    with pytest.raises(RequestError, match=r"compare: the comparison of .*b\.png would be written to .*b_compare\.png"):
        before_after.comparisons_of(plan)


def test_results_of_one_stem_have_comparisons_of_their_own(tmp_path: Path, restorer: Restorer) -> None:
    for name in ("a.png", "a.tif"):
        write_image(tmp_path / "in" / name, picture("RGB", "uint8"))
    plan = plan_jobs(tmp_path / "in", tmp_path / "out", format="same")
    assert [path.name for path in before_after.comparisons_of(plan).values()] == ["a_png_compare", "a_tif_compare"]
