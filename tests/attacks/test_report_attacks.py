"""Texts of others in what is written for people: tables, pages, reports of trainings, model cards."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import mambair
from mambair.commands.benchmark import main as benchmark
from mambair.images.files import DecodedImage, write_image
from mambair.training.experiment import CheckpointError, read_resume_point
from mambair.training.report import MOST_PANELS, best_values, draw_curves, panels_of
from mambair.weights import save_pretrained
from mambair.weights.model_card import REPORT_BYTES

POSIX = pytest.mark.skipif(os.name != "posix", reason="links and names of POSIX")
ESCAPE = "\x1b]0;owned\x07"
MARKUP = "<img src=x onerror=alert(1)>"
HOSTILE = f"a | {MARKUP} [b](javascript:c) `d {ESCAPE}\n# e"
QUOTED = r"a \| &lt;img src=x onerror=alert(1)&gt; \[b\](javascript:c) \`d \\x1b\]0;owned\\x07\\n# e"

# -- benchmark --------------------------------------------------------------------------------------------------------

NAMES = {
    "markup": f"{MARKUP}.png",
    "escape": f"{ESCAPE}.png",
    "line end": "a\n# b.png",
    "broken bytes": "a\udcff.png",
    "formula": "=cmd|' C calc'!A0.png",
    "link of Markdown": "![a](b).png",
}


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of test sets with one good image in Set5, beside which a test puts others."""
    monkeypatch.chdir(tmp_path)
    pixels = np.arange(24 * 24 * 3, dtype=np.uint8).reshape(24, 24, 3)
    write_image(tmp_path / "data" / "Set5" / "HR" / "good.png", DecodedImage(pixels))
    return tmp_path / "data" / "Set5" / "HR"


def measured(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, str]]:
    """Exit code and what was printed and written, by file; no file holds control characters of a name."""
    code = benchmark(
        ["--suite", "light-sr", "--data", "data", "--sets", "Set5", "--levels", "2", "--output", "out", "--quiet"]
    )
    written = {path.name: path.read_text(encoding="utf-8") for path in Path("out").glob("re*.*")}
    written["printed"] = "".join(capsys.readouterr())
    assert len(written) == 7
    assert all(line.isprintable() for text in written.values() for line in text.split("\n"))
    return code, written


@POSIX
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_names_in_a_benchmark(name: str, sets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (sets / os.fsdecode(os.fsencode(name))).write_bytes((sets / "good.png").read_bytes())
    code, written = measured(capsys)
    assert (
        code == 0
        and len(json.loads(written["results.json"])["levels"][0]["sets"][0]["methods"]["bicubic"]["images"]) == 2
    )
    assert MARKUP not in written["report.html"] + written["results.md"]
    assert re.search(r"(?<!\\)!\[", written["results.md"]) is None
    assert not re.search(r"^=|,=", written["results_per_image.csv"], re.M)


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "bad.png")


def bomb(folder: Path) -> None:
    (folder / "bad.pgm").write_bytes(b"P5 99999 99999 255\n")


def secret(folder: Path) -> None:
    (folder / "bad.png").symlink_to(folder.parents[2] / "private.txt")


def markup_in_a_name(folder: Path) -> None:
    (folder / f"bad{MARKUP}{ESCAPE}.png").write_bytes(b"no picture")


FILES: dict[Callable[[Path], None], str] = {
    pipe: r"bad\.png: is not a regular file",
    bomb: r"bad\.pgm: .*pixels",
    secret: r"bad\.png: .*image",
    markup_in_a_name: r"bad<img src=x onerror=alert\(1\)>\\x1b\]0;owned\\x07\.png: ",
}


@POSIX
@pytest.mark.parametrize(("plant", "outcome"), FILES.items(), ids=[each.__name__ for each in FILES])
def test_files_in_a_benchmark(
    plant: Callable[[Path], None], outcome: str, sets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(sets)
    code, written = measured(capsys)
    assert code == 1 and re.search(f"^not measured: .*{outcome}", written["printed"], re.M)
    assert MARKUP not in written["report.html"] + written["results.md"] and "mine" not in written["report.html"]


# -- reports of trainings ----------------------------------------------------------------------------------------------


def test_records_of_others_in_the_report_of_a_training() -> None:
    baseline = {"name": HOSTILE, "psnr": 1.0}
    record = {"iter": 1, "validation": HOSTILE, "psnr": 2.0, "baseline": baseline}
    options: Any = {"val": {"metrics": {"psnr": {"type": "calculate_psnr"}}}}
    *_, row = best_values(options, [record])
    assert row == f"| {QUOTED} | psnr | {QUOTED} 1.0000 | 2.0000 | 1 | 2.0000 |"


RECORDS = {
    "formula": [{"iter": 1, "$\\frac": 1.0, "validation": "$\\x"}],
    "many metrics": [{"iter": number, f"m{number}": 1.0, "validation": "a"} for number in range(500)],
    "many data sets": [{"iter": number, "m": 1.0, "validation": f"s{number}"} for number in range(500)],
    "escape": [{"iter": 1, ESCAPE: 1.0}],
}


@pytest.mark.parametrize("records", RECORDS.values(), ids=RECORDS)
def test_curves_of_records_of_others(
    records: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = pytest.importorskip("matplotlib.figure")
    drawn = []
    save = figures.Figure.savefig
    monkeypatch.setattr(figures.Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, dpi=20)))
    assert panels_of(records) and draw_curves(records, tmp_path / "curves.png")
    assert len(drawn[0].axes) <= MOST_PANELS and (tmp_path / "curves.png").is_file()


@pytest.mark.parametrize("iteration", ["5", [5], "*", "../../5", -1, None, True, float("nan"), 5.0])
def test_a_state_without_a_number_of_iterations(iteration: object, tmp_path: Path) -> None:
    for name in ("models", "training_states"):
        (tmp_path / name).mkdir()
    torch.save({"params": {"a": torch.zeros(1)}}, tmp_path / "models" / "net_g_5.pth")
    state = tmp_path / "training_states" / "5.state"
    torch.save({"iter": iteration}, state)
    with pytest.raises(CheckpointError, match="holds no number of iterations under 'iter'"):
        read_resume_point(state, tmp_path / "models")


# -- model cards -------------------------------------------------------------------------------------------------------


def a_link(report: Path) -> None:
    report.symlink_to(report.with_name("private.txt"))


def a_hard_link(report: Path) -> None:
    report.hardlink_to(report.with_name("private.txt"))


def a_report_without_end(report: Path) -> None:
    report.write_bytes(b"#" * (REPORT_BYTES + 1))


def another_encoding(report: Path) -> None:
    report.write_bytes(b"\xff")


REPORTS: dict[Callable[[Path], None], str] = {
    a_link: "is a link, where a regular file is expected; remove it",
    a_hard_link: "is a hard link to another file; remove it",
    os.mkfifo: "is a named pipe, where a regular file is expected; remove it",
    a_report_without_end: "has more than 1048576 bytes; shorten it",
    another_encoding: ": expected UTF-8 text, got byte 0xff",
}


@POSIX
@pytest.mark.parametrize(("plant", "outcome"), REPORTS.items(), ids=[each.__name__ for each in REPORTS])
def test_a_report_that_is_not_published(plant: Callable[[Path], None], outcome: str, tmp_path: Path) -> None:
    (tmp_path / "private.txt").write_text("mine")
    plant(tmp_path / "report.md")
    net = mambair.create("MambaIR-light-x2", embed_dim=12, depths=[1], d_state=2)
    with pytest.raises(OSError, match=outcome):
        save_pretrained(net, tmp_path / "a", report=tmp_path / "report.md")
    assert not (tmp_path / "a").exists()


@POSIX
def test_metadata_of_others_in_a_model_card(tmp_path: Path) -> None:
    net = mambair.create("MambaIR-light-x2", embed_dim=12, depths=[1], d_state=2)
    training = {"option_file": HOSTILE, "cycles": MARKUP}
    metadata = {"license": f"mit\ntags: [{MARKUP}]", "mambair.task": HOSTILE, "mambair.training": json.dumps(training)}
    report = tmp_path / "report" / "report.md"
    report.parent.mkdir()
    report.write_text("# mine\n![a](key.png)\n![b](hard.png)\n![c](own.png)\n")
    (tmp_path / "report" / "key.png").symlink_to(tmp_path / "private.txt")
    (tmp_path / "report" / "hard.png").hardlink_to(tmp_path / "private.txt")
    (tmp_path / "report" / "own.png").write_bytes(b"picture")
    save_pretrained(net, tmp_path / "a", metadata=metadata, report=report)
    _, head, card = (tmp_path / "a" / "README.md").read_text(encoding="utf-8").split("---\n")
    assert yaml.safe_load(head).keys() == {"library_name", "pipeline_tag", "tags"}
    assert MARKUP not in card and QUOTED in card and all(line.isprintable() for line in card.split("\n"))
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["README.md", "config.json", "model.safetensors", "own.png"]
