"""Names that a user gives, and names of results: each is what it looks like, or an error that says what to do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from mambair.folders.names import result_stem
from mambair.folders.plan import plan_jobs
from mambair.system.errors import RequestError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with images ``in/a.png``, ``in/b.jpg`` and a folder ``there.final``."""
    for name in ("in/a.png", "in/b.jpg", "there.final/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "broken.png").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path)
    return tmp_path


ERRORS: list[tuple[str, str, dict[str, Any], str]] = [
    ("in/a.png", "out.xyz", {}, "output: out.xyz looks like a file of an unknown format; known are .png, .jpg"),
    ("in/a.png", "out.jpgg", {}, "did you mean '.jpg'? (if it is to be a folder, make it first)"),
    ("in/a.png", "out.tar", {}, "looks like a file of an unknown format"),
    ("in/a.png", "out.gif", {}, "looks like a file of an unknown format"),
    ("in", "out.png", {}, "output: out.png names a file, but the input is a folder; name a folder"),
    ("in/a.png", "o.png", {"format": "jpg"}, "format: 'jpg' does not apply, as the output names a file, o.png"),
    ("in/a.png", "o.png", {"format": "png"}, "format: 'png' does not apply"),
    ("in/a.png", "o.png", {"suffix": "_x"}, "suffix: '_x' does not apply, as the output names a file, o.png"),
    ("in/a.png", "o.png", {"quality": 90}, "quality: png has none, only jpg, jpeg, webp, avif have; leave it out"),
    ("in", "out", {"quality": 90}, "quality: png has none"),
    ("in", "out", {"quality": 90, "format": "tif"}, "quality: tif has none"),
    ("in", "out", {"quality": 101, "format": "jpg"}, "quality: must be from 1 to 100, got 101"),
    ("in", "out", {"quality": 0, "format": "webp"}, "quality: must be from 1 to 100, got 0"),
    ("in", "out", {"format": "pgn"}, "got 'pgn'; did you mean 'png'?"),
    ("in", "out", {"format": "jpge"}, "got 'jpge'; did you mean 'jpeg'?"),
    ("in/*.png", "out", {}, "input: there is no file in/*.png; it looks like a pattern that the shell did not replace"),
    ("in/[ab].png", "out", {}, "Name the folder, and give the pattern as --include '[ab].png'"),
    (
        "https://host/a.png",
        "out",
        {},
        "input: https://host/a.png is an address of the web; download the file",
    ),
    ("s3://bucket/a.png", "out", {}, "input: s3://bucket/a.png is an address (s3:), which is not read; copy the files"),
    ("gs://bucket", "out", {}, "is an address (gs:), which is not read"),
    ("in", "s3://bucket", {}, "output: s3://bucket is an address; name a folder of this machine and copy it then"),
    ("in/a.png", "https://host/o.png", {}, "output: https://host/o.png is an address"),
    ("broken.png", "out", {}, "input: broken.png is a broken link"),
    ("nothing\n", "out", {}, r"input: there is no file or folder nothing\n"),
]


@pytest.mark.parametrize(("source", "output", "settings", "message"), ERRORS)
def test_what_cannot_be(here: Path, source: str, output: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        plan_jobs(Path(source), Path(output), **settings)
    assert message in str(caught.value)
    assert sorted(path.name for path in here.iterdir()) == ["broken.png", "in", "there.final"]


RIGHT: list[tuple[str, str, dict[str, Any], list[str]]] = [
    ("in/a.png", "out", {}, ["out/a.png"]),
    ("in/a.png", "there.final", {}, ["there.final/a.png"]),
    ("in/a.png", "v1.5", {}, ["v1.5/a.png"]),
    ("in/a.png", "results.2024-11-27", {}, ["results.2024-11-27/a.png"]),
    ("in/a.png", "o.JPG", {"quality": 90}, ["o.JPG"]),
    ("in/a.png", "out", {"format": "JPG", "quality": 90}, ["out/a.jpg"]),
    ("in/a.png", "out", {"format": ".webp", "quality": 1}, ["out/a.webp"]),
    ("in", "out.v2a", {}, ["out.v2a/a.png", "out.v2a/b.png"]),
    ("in/b.jpg", ".", {"suffix": "_x"}, ["b_x.png"]),
]


@pytest.mark.parametrize(("source", "output", "settings", "targets"), RIGHT)
def test_what_can_be(here: Path, source: str, output: str, settings: dict[str, Any], targets: list[str]) -> None:
    plan = plan_jobs(Path(source), Path(output), **settings)
    assert [job.target.as_posix() for job in plan.jobs] == targets
    assert plan.names_a_file == (output == "o.JPG")


STEMS = {
    "short": ("a", "_x4", "a_x4"),
    "fits": ("n" * 247, "_x4", "n" * 247 + "_x4"),
    # 255 bytes less .jpeg (5) less _x4 (3) less ~ and 12 digits
    "one too many": ("n" * 248, "_x4", "n" * 234 + "~305f156ecd1b_x4"),
    "no suffix": ("n" * 251, "", "n" * 237 + "~..."),
    "two bytes a character": ("ж" * 124, "_x4", "ж" * 117 + "~..."),
    "three bytes a character": ("图" * 83, "_x4", "图" * 78 + "~..."),
    "broken bytes": (os.fsdecode(b"\xff" * 249), "_x4", os.fsdecode(b"\xff" * 234) + "~..."),
}


@pytest.mark.skipif(os.name != "posix", reason="names of any bytes")
@pytest.mark.parametrize(("stem", "suffix", "expected"), STEMS.values(), ids=STEMS)
def test_long_names_are_cut(stem: str, suffix: str, expected: str) -> None:
    name = result_stem(stem, suffix)
    assert len(os.fsencode(name + ".jpeg")) <= 255
    assert name.startswith(expected.removesuffix("...")) if expected.endswith("...") else name == expected
    assert result_stem(stem, suffix) == name and name.endswith(suffix)


@pytest.mark.skipif(os.name != "posix", reason="bytes of names")
def test_long_names_of_a_folder_stay_different_and_are_no_input(tmp_path: Path) -> None:
    names = ["n" * 240 + f"{number:07}.png" for number in range(3)] + ["n" * 249 + ".jpg", "n" * 249 + ".bmp"]
    (tmp_path / "in").mkdir()
    for name in names:
        (tmp_path / "in" / name).touch()
    plans = [plan_jobs(tmp_path / "in", tmp_path / "in", suffix="_longer") for _ in range(2)]
    targets = [job.target.name for job in plans[0].jobs]
    assert targets == [job.target.name for job in plans[1].jobs] and len({*targets}) == 5
    assert all(len(name.encode()) <= 255 for name in targets)
    assert sum("as its own name would be too long" in note for note in plans[0].notes) == 3
    assert sum("as its own name is taken" in note for note in plans[0].notes) == 2
    for name in targets:
        (tmp_path / "in" / name).touch()
    again = plan_jobs(tmp_path / "in", tmp_path / "in", suffix="_longer")
    assert sorted(job.source.name for job in again.jobs) == sorted(names), "results are no input"


def test_links_to_folders_are_mentioned(tmp_path: Path) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "sub" / "a.png").touch()
    links = [tmp_path / "in" / f"link{number}" for number in range(5)]
    for link in links[:2]:
        link.symlink_to("sub")
    plan = plan_jobs(tmp_path / "in", tmp_path / "out")
    assert plan.notes == [f"links to folders are not followed: 2 ({links[0]}, {links[1]}); name such a folder as input"]
    for link in links[2:]:
        link.symlink_to("sub")
    (note,) = plan_jobs(tmp_path / "in", tmp_path / "out").notes
    assert f"not followed: 5 ({', '.join(map(str, links[:3]))}, ...); name" in note
