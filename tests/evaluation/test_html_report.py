"""The HTML report: sound, self-contained, and with the right pixels in its crops."""

from __future__ import annotations

import base64
import io
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mambair.evaluation.candidates import InputCandidate, NetworkCandidate
from mambair.evaluation.crops import as_data_uri, busiest_place, cut, thumbnail
from mambair.evaluation.html_report import html_parts, plot_points, write_html
from mambair.evaluation.plots import LETTER, LINE, Point, logarithmic_ticks, scatter, short, ticks
from mambair.evaluation.results import Run
from mambair.evaluation.suite_run import run_suite
from mambair.evaluation.suites import SUITES

SR, DN = SUITES["light-sr"], SUITES["color-dn"]
VOID = {"meta", "img", "br"}


class Reader(HTMLParser):
    """Collects elements, and fails on tags that do not match."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[str] = []
        self.captions: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "img":
            self.images.append(found["src"] or "")
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "srcset", "data", "action")]
        assert tag not in ("script", "link", "iframe", "object"), tag
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "figcaption":
            self.captions.append(data)


def read(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    assert reader.open == []
    return reader


def pixels_of(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))))


@pytest.fixture
def run(data: Path, tmp_path: Path, enlarging: Path) -> Run:
    candidates = [
        InputCandidate("bicubic", is_enlarged=True),
        NetworkCandidate("<net> & co", enlarging, device="cpu"),
    ]
    empty = Run(SR.title, candidates, tmp_path / "out", suite=SR)
    return run_suite(empty, data, ("Set5", "Set14"), [2], progress=False)


def test_it_needs_nothing_else(run: Run) -> None:
    path = write_html(run, crop=16)
    reader = read(path)
    assert all(link.startswith("data:image/") for link in reader.links) and reader.links
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\(", text)
    assert "&lt;net&gt; &amp; co" in text and "<net>" not in text


def test_every_image_has_its_crops(run: Run, data: Path) -> None:
    reader = read(write_html(run, crop=16))
    per_image = ["whole image", "input, 2 times smaller", "bicubic: ", "<net> & co: ", "ground truth"]
    assert len(reader.images) == 6 * len(per_image)
    for caption, begin in zip(reader.captions, per_image * 6, strict=True):
        assert caption.startswith(begin)
    gt = np.asarray(Image.open(data / "set5/HR/im0.png"))
    place = busiest_place(gt, 16)
    assert np.array_equal(pixels_of(reader.images[4]), cut(gt, place)), "the ground truth, pixel by pixel"
    result = run.sets[0].of("<net> & co")[0]
    restored = np.asarray(Image.open(run.folder / str(result.picture)))
    assert np.array_equal(pixels_of(reader.images[3]), cut(restored, place))
    assert reader.captions[3] == f"<net> & co: {result.scores['psnr']:.2f} dB / {result.scores['ssim']:.4f}"
    assert pixels_of(reader.images[1]).shape == (8, 8, 3)


def test_the_input_needs_no_file_and_an_image_not_kept_is_said(run: Run) -> None:
    kept = read(write_html(run, crop=16)).images[2]
    for result in run.sets:
        for images in result.images.values():
            images.update({index: replace(image, picture=None) for index, image in images.items()})
    reader = read(write_html(run, crop=16))
    assert reader.images[2] == kept, "bicubic, made again"
    assert reader.captions[3].endswith("; set val: save_img to see it")


def test_a_picture_that_is_gone_is_said(run: Run) -> None:
    (run.folder / str(run.images()[0].picture)).unlink()
    assert "no such file" in "".join(html_parts(run, crop=16))


def test_denoising_has_no_smaller_input(data: Path, tmp_path: Path) -> None:
    empty = Run(DN.title, [InputCandidate("noisy input", is_enlarged=False)], tmp_path, suite=DN)
    reader = read(write_html(run_suite(empty, data, ("McMaster",), [25], progress=False), crop=16))
    assert [caption.split(":")[0] for caption in reader.captions[:3]] == ["whole image", "noisy input", "ground truth"]


def test_plots_have_the_printed_networks_of_whole_sets_only(run: Run) -> None:
    whole, part = run.sets
    by_parameters, by_seconds = plot_points(run, whole)
    assert [p.label for p in by_parameters if p.printed] == ["MambaIR-light", "MambaIR-light-2023", "MambaIRv2-light"]
    assert [p.label for p in by_seconds] == ["<net> & co"]
    assert not [p for p in plot_points(run, part)[0] if p.printed]


POINTS = [
    Point("a <b>", 9e5, 32.5),
    Point("twin", 9e5, 32.5),
    Point("c", 2e7, 33.0, printed=True),
    Point("inf", 1, 1e400),
]


# Set5 x4 as printed, and a smaller network: three circles in one corner
LIGHT = [
    Point("small", 144_920, 29.72),
    Point("MambaIR-light", 924_492, 32.42, printed=True),
    Point("MambaIR-light-2023", 1_382_796, 32.51, printed=True),
    Point("MambaIRv2-light", 789_680, 32.51, printed=True),
]


def extent(label: ElementTree.Element) -> tuple[float, float]:
    """Left and right of a label's letters."""
    x, width = float(label.get("x", 0)), LETTER * len(label.text or "")
    return (x - width, x) if label.get("text-anchor") == "end" else (x, x + width)


@pytest.mark.parametrize("points", [POINTS, LIGHT, LIGHT * 3], ids=["awkward", "light", "crowded"])
def test_a_plot_is_sound_and_its_labels_lie_apart(points: list[Point]) -> None:
    root = ElementTree.fromstring(scatter(points, title="t & t", x_label="x", y_label="y"))
    circles = list(root.iter("circle"))
    assert len(circles) == len([p for p in points if p.label != "inf"]), "infinite values are left out"
    labels = [e for e in root.iter("text") if e.get("class") == "label"]
    boxes = [(*extent(label), float(label.get("y", 0))) for label in labels]
    assert all(left > 0 and right < 460 for left, right, _ in boxes)
    for circle in circles:
        x, y = float(circle.get("cx", 0)), float(circle.get("cy", 0))
        assert 0 < x < 460 and 0 < y < 300
        boxes.append((x - 4, x + 4, y + 4))
    for i, (left, right, y) in enumerate(boxes[: len(labels)]):
        for other_left, other_right, other_y in (*boxes[:i], *boxes[len(labels) :]):
            assert abs(y - other_y) >= LINE - 0.1 or right < other_left or other_right < left
    assert scatter([], title="", x_label="", y_label="") == ""


def test_labels_of_a_crowded_corner_stand_beside_their_circles() -> None:
    root = ElementTree.fromstring(scatter(LIGHT, title="", x_label="", y_label=""))
    labels = {e.text: e for e in root.iter("text") if e.get("class") == "label"}
    circles = {(e[0].text or "").split(":")[0]: e for e in root.iter("circle")}
    for name, label in labels.items():
        assert name is not None
        x, y = (float(circles[name].get(key, 0)) for key in ("cx", "cy"))
        assert min(abs(end - x) for end in extent(label)) <= 8 and abs(float(label.get("y", 0)) - 4 - y) <= LINE


def test_one_point_and_equal_points() -> None:
    for points in ([Point("one", 5, 30.0)], [Point("one", 5, 30.0)] * 12):
        assert ElementTree.fromstring(scatter(points, title="", x_label="", y_label="")).tag == "svg"


def test_ticks_are_round() -> None:
    assert ticks(29.7, 32.6) == [30, 31, 32]
    assert [round(t, 6) for t in ticks(0.11, 0.32)] == [0.15, 0.2, 0.25, 0.3]
    assert logarithmic_ticks(1.2e5, 2.1e6) == [2e5, 5e5, 1e6, 2e6]
    assert logarithmic_ticks(3.0, 4.0) == [3.0]
    assert [short(v) for v in (905016, 20.6e6, 0.053, 12)] == ["905K", "20.6M", "0.053", "12"]


def test_the_busiest_place() -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    image[33:39, 50:58] = np.random.default_rng(0).integers(0, 256, (6, 8, 3))
    top, left, height, width = busiest_place(image, 16)
    assert (height, width) == (16, 16)
    assert top <= 33 and top + 16 >= 39 and left <= 50 and left + 16 >= 58
    assert busiest_place(image[:5, :7], 16) == (0, 0, 5, 7)


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_inlined_without_loss(channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (9, 14, channels), dtype=np.uint8)
    assert np.array_equal(pixels_of(as_data_uri(image)), np.squeeze(image))
    assert pixels_of(thumbnail(image, (0, 0, 4, 4))).shape == (9, 14, 3)
    assert cut(image, (8, 8, 1, 4), scale=4).shape == (1, 1, channels)
