"""Option files whose texts lead out of their folders, and names that tables could run."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from mambair.options import OptionsError, load_options
from mambair.options import paths as option_paths
from mambair.system.tables import aligned, comma_separated, markdown

ESCAPE = "\x1b]0;owned\x07"

OPTIONS = """\
name: small
model_type: RestorationModel
scale: 4
datasets:
  test_1:
    type: BicubicDataset
    name: gt
    dataroot_gt: gt
network_g: {type: MambaIR, upscale: 4, embed_dim: 8, depths: [1], upsampler: pixelshuffledirect}
path: {results_root: ~}
val:
  suffix: ~
  metrics: {psnr: {type: calculate_psnr, crop_border: 4}}
"""

REPLACED = {
    "suffix upwards": ("suffix: ~", "suffix: /../../../private", r"val\.suffix: found .* a plain part of a file name"),
    "suffix with a zero byte": ("suffix: ~", r'suffix: "a\0b"', r"val\.suffix: found 'a\\x00b'"),
    "suffix that hides": ("suffix: ~", "suffix: ..", r"val\.suffix: found '\.\.'"),
    "name upwards": ("name: small", "name: ../private", r"name: found '\.\./private'; a plain folder name is right"),
    "absolute name": ("name: small", "name: /private", "name: found '/private'"),
    "name that turns text around": ("name: small", r'name: "a\u202eb"', r"name: found 'a\\u202eb'"),
    "data set upwards": ("name: gt", "name: ../gt", r"datasets\.test_1\.name: found '\.\./gt'"),
    "data set of Windows": ("name: gt", "name: a:b", r"datasets\.test_1\.name: found 'a:b'"),
    "metric upwards": ("{psnr: {", "{../psnr: {", r"val\.metrics\.\.\./psnr: found '\.\./psnr'; a plain name is right"),
    "results elsewhere": (
        "results_root: ~",
        "results_root: /private",
        "a folder inside the current directory is right",
    ),
    "results upwards": ("results_root: ~", "results_root: a/../../b", "a folder inside the current directory is right"),
    "a module by memcached": (
        "BicubicDataset\n",
        "basicsr/PairedImageDataset\n    io_backend: {type: memcached}\n",
        r"datasets\.test_1\.io_backend\.type: found 'memcached'; 'disk' or 'lmdb' is right",
    ),
    "a module by another key": (
        "BicubicDataset\n",
        "basicsr/PairedImageDataset\n    io_backend: {type: disk, server_list_cfg: a}\n",
        r"datasets\.test_1\.io_backend\.server_list_cfg: unknown key",
    ),
    "no mapping of a backend": (
        "BicubicDataset\n",
        "basicsr/PairedImageDataset\n    io_backend: memcached\n",
        r"datasets\.test_1\.io_backend: found 'memcached'; a mapping such as \{type: disk\} is right",
    ),
    "a folder of modules": (
        "BicubicDataset\n",
        "basicsr/PairedImageDataset\n    a: [{sys_path: evil}]\n",
        r"datasets\.test_1\.a\[0\]\.sys_path: an option file names no folder to import from; delete this key",
    ),
    "escape in a key": ("scale: 4\n", 'scale: 4\n"\\e]0;owned\\a": 1\n', r"\\x1b\]0;owned\\x07: unknown key"),
}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "work" / "gt").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def refusal(*overrides: str) -> str:
    """Why ``file.yml`` is refused."""
    with pytest.raises(OptionsError) as caught:
        load_options("file.yml", is_train=False, overrides=overrides, check_paths=False)
    return str(caught.value)


@pytest.mark.parametrize(("old", "new", "outcome"), REPLACED.values(), ids=REPLACED)
def test_option_files(old: str, new: str, outcome: str, workspace: Path) -> None:
    assert OPTIONS.count(old) == 1
    (workspace / "file.yml").write_text(OPTIONS.replace(old, new))
    text = refusal()
    assert text.isprintable() and re.search(outcome, text)


@pytest.mark.skipif(os.name != "posix", reason="pipes")
def test_a_pipe_is_read_where_somebody_writes_and_not_waited_for(workspace: Path) -> None:
    os.mkfifo(workspace / "file.yml")
    assert refusal()
    reading, writing = os.pipe()
    os.write(writing, OPTIONS.replace("scale: 4", "scale: four").encode())
    os.close(writing)
    with pytest.raises(OptionsError, match="scale: found 'four'"):
        load_options(f"/dev/fd/{reading}", is_train=False, check_paths=False)
    os.close(reading)


WHOLE = {
    "zeros": ("scale: " + "0" * 5000, "scale: a number of 5000 digits"),
    "an escape above Unicode": (r'name: "\U00110000"', "an escape or a version that does not exist"),
    "an escape above 32 bits": (r'name: "\Uffffffff"', "an escape or a version that does not exist"),
    "a version without end": (f"%YAML 1.{'9' * 5000}\n---\na: 1", "an escape or a version that does not exist"),
    "many values": ("[" + "1," * 400_000 + "]", "more than 20,000 values"),
    "many keys": ("{" + "a: b," * 150_000 + "}", "more than 20,000 values"),
    "many aliases": ("a: &a 1\nb: [" + "*a," * 300_000 + "]", "more than 20,000 values"),
    "billion laughs": (
        "a0: &a0 1\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1},' * 9}]\n" for n in range(1, 9)),
        "expands to more than 20,000 values",
    ),
    "a merge of itself": ("a: &a\n  <<: *a", r"<< more than 30 times in one another; does it name itself\?"),
    "a deep list": ("[" * 500_000, "nested too deeply"),
    "a tag of Python": ("a: !!python/object/apply:os.system [id]", "the tag .* is refused"),
    "an escape in a mapping": ('name: {"\\e]0;owned\\a": 1}', r"name: .*\\x1b\]0;owned\\x07"),
    "a large file": ("#" * 1_000_001, "larger than 1,000,000 bytes"),
}


@pytest.mark.parametrize(("text", "outcome"), WHOLE.values(), ids=WHOLE)
def test_texts_of_option_files(text: str, outcome: str, workspace: Path) -> None:
    (workspace / "file.yml").write_text(text)
    found = refusal()
    assert all(line.isprintable() for line in found.split("\n")) and re.search(outcome, found)


def test_an_override_with_an_escape(workspace: Path) -> None:
    (workspace / "file.yml").write_text(OPTIONS)
    assert "\\x1b]0;owned" in refusal(f"val:{ESCAPE}=1")


def test_an_installed_package_opens_no_folder_beside_it(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = workspace.parent / "site-packages"
    (packages / "numpy").mkdir(parents=True)
    monkeypatch.setattr(option_paths, "CHECKOUT", None)
    (workspace / "file.yml").write_text(OPTIONS.replace("results_root: ~", f"results_root: {packages}/numpy/x"))
    assert "a folder inside the current directory is right" in refusal()
    assert option_paths.find("numpy") is None


CELLS = {
    "=": ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
    "+": ("+1+cmd", "'+1+cmd"),
    "-": ("-2+3", "'-2+3"),
    "@": ("@SUM(A1)", "'@SUM(A1)"),
    "tab": ("\t=1", "\\t=1"),
    "return": ("\r=1", "\\r=1"),
    "blank": (" =1", "' =1"),
    "nothing known": ("-", "-"),
    "a number": ("-0.25", "-0.25"),
    "a name": ("a=b.png", "a=b.png"),
}


@pytest.mark.parametrize(("cell", "written"), CELLS.values(), ids=CELLS)
def test_csv_cells_are_no_formulas(cell: str, written: str) -> None:
    assert comma_separated([[cell, -0.25]]) == f"{written},-0.25\n"


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("[a](javascript:alert(1))", r"\[a\](javascript:alert(1))"),
        ("![a](http://host/a.png)", r"!\[a\](http&#58;//host/a.png)"),
        ("<javascript:alert(1)>", "&lt;javascript:alert(1)&gt;"),
        ("&lt;b&gt;", "&amp;lt;b&amp;gt;"),
        ("a|b", r"a\|b"),
        ("`a", r"\`a"),
        ("a\n# b", r"a\\n# b"),
        ("**31.25 / 0.9000**", "**31.25 / 0.9000**"),
    ],
)
def test_markdown_cells_are_text(cell: str, written: str) -> None:
    assert markdown([["name"], [cell]]).splitlines()[-1] == f"| {written} |"


def test_lines_for_a_terminal_hold_no_escapes() -> None:
    assert aligned([["name"], [ESCAPE]]).splitlines()[-1] == r"\x1b]0;owned\x07"
