from __future__ import annotations

from pathlib import Path

import pytest

from mambair.folders.plan import Plan, plan_jobs
from mambair.system.errors import RequestError


def picture(path: Path) -> Path:
    """A file with the name of an image; planning does not look inside."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def pairs(plan: Plan) -> dict[str, str]:
    """Name of source -> path of target in the output folder."""
    return {job.source.name: str(job.target.relative_to(plan.folder)) for job in plan.jobs}


COLLISIONS = [
    (["a.png", "a.jpg"], {"a.png": "a.png", "a.jpg": "a_jpg.png"}),
    (["a.bmp", "a.jpg"], {"a.bmp": "a_bmp.png", "a.jpg": "a_jpg.png"}),
    (["a.png", "a.jpg", "a_jpg.png"], {"a.png": "a.png", "a.jpg": "a_jpg_2.png", "a_jpg.png": "a_jpg.png"}),
    (["a.png", "b.jpg"], {"a.png": "a.png", "b.jpg": "b.png"}),
    (["a.b.png", "a.jpg"], {"a.b.png": "a.b.png", "a.jpg": "a.png"}),
    (["a.png", "a.PNG"], {"a.png": "a.png", "a.PNG": "a_PNG.png"}),
]


@pytest.mark.parametrize("names, expected", COLLISIONS, ids=lambda value: "+".join(value))
def test_two_sources_of_one_name_keep_both(tmp_path: Path, names: list[str], expected: dict[str, str]) -> None:
    (tmp_path / "in").mkdir()
    for name in names:
        (tmp_path / "in" / name).touch()
    if len(list((tmp_path / "in").iterdir())) < len(names):
        pytest.skip("this file system does not tell upper from lower case")
    plan = plan_jobs(tmp_path / "in", tmp_path / "out")
    assert pairs(plan) == expected
    assert len(plan.notes) == sum(Path(source).stem != Path(target).stem for source, target in expected.items())


def test_an_output_folder_reached_through_a_link_is_never_input(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a.png")
    picture(tmp_path / "in" / "out" / "a.png")
    (tmp_path / "link").symlink_to(tmp_path / "in" / "out")
    assert pairs(plan_jobs(tmp_path / "in", tmp_path / "link")) == {"a.png": "a.png"}


FILTERS = {
    "name": (["*.jpg"], [], ["b.jpg", "sub/c.jpg"]),
    "two": (["a.*", "c.*"], [], ["a.png", "sub/c.jpg"]),
    "path": (["sub/*"], [], ["sub/c.jpg", "sub/deep/d.png"]),
    "excluded": ([], ["*.png"], ["b.jpg", "sub/c.jpg"]),
    "both": (["*.jpg"], ["sub/*"], ["b.jpg"]),
    "sets": (["[ab].*"], [], ["a.png", "b.jpg"]),
    "case": (["A.*", "b.*"], [], ["b.jpg"]),
}


@pytest.mark.parametrize(("include", "exclude", "expected"), FILTERS.values(), ids=FILTERS)
def test_filters(tmp_path: Path, include: list[str], exclude: list[str], expected: list[str]) -> None:
    for name in ("a.png", "b.jpg", "sub/c.jpg", "sub/deep/d.png", "notes.txt"):
        picture(tmp_path / "in" / name)
    plan = plan_jobs(tmp_path / "in", tmp_path / "out", include=include, exclude=exclude)
    assert [job.source.relative_to(tmp_path / "in").as_posix() for job in plan.jobs] == expected


def test_files_that_are_passed_over_are_counted_by_ending(tmp_path: Path) -> None:
    for name in ("a.png", "b.EXR", "sub/c.exr", "sub/d.txt", "e", ".hidden.txt", "manifest.jsonl", "out/f.txt"):
        picture(tmp_path / "in" / name)
    plan = plan_jobs(tmp_path / "in", tmp_path / "in" / "out")
    assert plan.notes == [
        "4 files passed over, by ending: 2 .exr (OpenEXR, not supported), 1 without an ending, 1 .txt"
    ]
    assert plan_jobs(tmp_path / "in", tmp_path / "out", include=["*.png", "*.txt"]).notes == [
        "2 files passed over, by ending: 2 .txt"
    ]
    (tmp_path / "in" / "a.png").unlink()
    with pytest.raises(RequestError, match=r"no image in .*; 4 files passed over, by ending: 2 \.exr \(OpenEXR, not"):
        plan_jobs(tmp_path / "in", tmp_path / "in" / "out")


def test_filters_that_leave_nothing(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a.png")
    with pytest.raises(RequestError, match=r"no image in .* that --include and --exclude leave"):
        plan_jobs(tmp_path / "in", tmp_path / "out", exclude=["*"])


def test_results_never_replace_inputs(tmp_path: Path) -> None:
    """The tree of in/ laid over its parent would put in/in/a.png on in/a.png."""
    picture(tmp_path / "in" / "a.png")
    picture(tmp_path / "in" / "in" / "a.png")
    plan = plan_jobs(tmp_path / "in", tmp_path)
    targets = {job.target.resolve() for job in plan.jobs}
    assert len(targets) == 2 and not targets & {job.source.resolve() for job in plan.jobs}


def test_one_file_into_a_folder_or_a_name(tmp_path: Path) -> None:
    source = picture(tmp_path / "a.jpg")
    (tmp_path / "folder.png").mkdir()
    expected = {"out": "out/a.png", "out/b.tif": "out/b.tif", "folder.png": "folder.png/a.png", ".": "a_x4.png"}
    for output, target in expected.items():
        (job,) = plan_jobs(source, tmp_path / output, same_folder_suffix="_x4").jobs
        assert job.target == tmp_path / target


@pytest.mark.parametrize(
    "source, output, settings, message",
    [
        ("missing", "out", {}, "input: there is no file or folder .*missing"),
        ("empty", "out", {}, r"input: no image in .*empty \(looked for \.png, "),
        ("in", "file.txt", {}, r"output: .*file\.txt is a file; name a folder"),
        ("in/a.png", "in/a.png", {}, "output: .*is the input itself"),
        ("in", "out", {"format": "gif"}, "format: must be one of png, jpg, .*, got 'gif'"),
        ("in", "out", {"suffix": "/../x"}, "suffix: .*no separator, got '/../x'"),
    ],
    ids=["missing", "empty", "file", "itself", "format", "suffix"],
)
def test_jobs_that_cannot_be(tmp_path: Path, source: str, output: str, settings: dict[str, str], message: str) -> None:
    picture(tmp_path / "in" / "a.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(RequestError, match=message):
        plan_jobs(tmp_path / source, tmp_path / output, **settings)
