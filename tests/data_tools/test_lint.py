"""Every kind of broken data set, and what is said of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mambair.commands.data import main
from mambair.data_tools.lint import Finding, Lint
from mambair.images.files import DecodedImage, list_images, read_rgb, write_image
from mambair.images.resize import imresize


@pytest.fixture
def pairs(tmp_path: Path, repository: Path) -> Path:
    """Ground truth in HR/ and quarter-size JPEG partners in LR/: other suffix, other name."""
    for path in list_images(repository / "datasets" / "example" / "val_gt"):
        pixels = read_rgb(path)[:96, :128]
        write_image(tmp_path / "HR" / path.name, DecodedImage(pixels))
        write_image(tmp_path / "LR" / f"{path.stem}x4.jpg", DecodedImage(imresize(pixels, 0.25)))
    return tmp_path


def lint(root: Path, *tests: Path, **arguments: object) -> list[Finding]:
    return Lint(scale=4, filename_tmpl="{}x4", **arguments).run(root / "HR", root / "LR", tests)  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_wrong(pairs: Path, workers: int) -> None:
    told: list[int] = []
    assert lint(pairs, workers=workers, gt_size=96, progress=lambda: told.append(1)) == []
    assert len(told) == 8


def test_a_rest_below_the_scale_is_allowed(pairs: Path) -> None:
    pixels = read_rgb(pairs / "HR" / "rocket.png")
    write_image(pairs / "HR" / "rocket.png", DecodedImage(np.pad(pixels, ((0, 3), (0, 1), (0, 0)))))
    assert lint(pairs, duplicates=False) == []


def damage(root: Path) -> None:
    (root / "HR" / "rocket.png").write_bytes((root / "HR" / "rocket.png").read_bytes()[:500])


def drop(root: Path) -> None:
    (root / "LR" / "rocketx4.jpg").unlink()


def orphan(root: Path) -> None:
    (root / "LR" / "rocketx4.jpg").rename(root / "LR" / "rokcetx4.jpg")


def ambiguous(root: Path) -> None:
    write_image(root / "LR" / "rocketx4.png", DecodedImage(read_rgb(root / "LR" / "rocketx4.jpg")))


def other_size(root: Path) -> None:
    write_image(root / "LR" / "rocketx4.jpg", DecodedImage(read_rgb(root / "LR" / "rocketx4.jpg")[:-1]))


def grey(root: Path) -> None:
    write_image(root / "LR" / "rocketx4.jpg", DecodedImage(read_rgb(root / "LR" / "rocketx4.jpg")[:, :, :1]))


def sixteen_bits(root: Path) -> None:
    pixels = read_rgb(root / "HR" / "rocket.png").astype(np.uint16) * 257
    write_image(root / "HR" / "rocket.png", DecodedImage(pixels))


def twice(root: Path) -> None:
    for name, low in (("HR/rocket.png", "HR/again.png"), ("LR/rocketx4.jpg", "LR/againx4.jpg")):
        (root / low).write_bytes((root / name).read_bytes())


@pytest.mark.parametrize(
    ("change", "kind", "text", "is_fault"),
    [
        (damage, "unreadable", "rocket.png: is truncated", True),
        (drop, "pair", "no partner of rocket.png", True),
        (orphan, "pair", "no ground truth for rokcetx4.jpg", True),
        (ambiguous, "pair", "several files of one name but for the suffix: rocketx4", True),
        (other_size, "size", "96 x 128 is not 4 x 23 x 32", True),
        (grey, "mixed", "has 3 channel(s) and", False),
        (sixteen_bits, "mixed", "uint16, 3 channel(s): 1, e.g. rocket.png", False),
        (twice, "twice", "are the same pixels", False),
    ],
)
def test_each_fault_is_named(pairs: Path, change, kind: str, text: str, is_fault: bool) -> None:
    change(pairs)
    found = [finding for finding in lint(pairs) if finding.kind == kind]
    assert any(text in finding.text and finding.is_fault == is_fault for finding in found), found


def test_one_lonely_image_does_not_hide_a_wrong_size(pairs: Path) -> None:
    drop(pairs)
    low = pairs / "LR" / "coffeex4.jpg"
    write_image(low, DecodedImage(read_rgb(low)[1:]))
    assert {finding.kind for finding in lint(pairs)} == {"pair", "size"}


def test_images_below_the_patch(pairs: Path) -> None:
    found = lint(pairs, gt_size=100)
    assert len(found) == 4 and all(finding.kind == "small" and "patches of 100" in finding.text for finding in found)


def test_test_images_among_the_training_images(pairs: Path, tmp_path: Path) -> None:
    test = tmp_path / "test"
    stolen = imresize(read_rgb(pairs / "HR" / "coffee.png"), 0.5)[:, ::-1].mean(2, keepdims=True).astype(np.uint8)
    write_image(test / "unsuspicious.png", DecodedImage(stolen))
    write_image(test / "new.png", DecodedImage(np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)))
    (finding,) = lint(pairs, test)
    assert finding.kind == "leak" and finding.is_fault
    assert "coffee.png is the test image" in finding.text and "unsuspicious.png" in finding.text


def test_exit_codes_of_the_command(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["lint", "--gt", str(pairs / "HR"), "--lq", str(pairs / "LR"), "--scale", "4", "--workers", "1"]
    arguments += ["--filename-tmpl", "{}x4"]
    assert main(arguments) == 0
    assert capsys.readouterr().out == "nothing found\n"
    grey(pairs)
    assert main(arguments) == 0
    assert "warning: mixed" in capsys.readouterr().out
    drop(pairs)
    assert main(arguments) == 1
    assert "fault: pair" in capsys.readouterr().out
