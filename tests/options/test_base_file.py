"""``base: other.yml``: how two option files become one, and where their errors are."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mambair.options import OptionsError, load_options
from mambair.options.base_file import merged_text, read_option_file
from mambair.options.yaml_reader import as_yaml, read_value
from mambair.training.experiment import prepare_folders

Write = Callable[..., Path]
Refused = Callable[..., list[str]]

BASE = "a: 1\nb: {x: 1, y: {z: 2}}\nlist: [1, 2]\nblock: {type: One, size: 3}\nnull_value: ~\n"

MERGED: dict[str, tuple[str, dict[str, Any]]] = {
    "nothing changed": ("", {}),
    "a value": ("a: 2", {"a": 2}),
    "a new key": ("c: 5", {"c": 5}),
    "a key deep below": ("b: {y: {z: 3}}", {"b": {"x": 1, "y": {"z": 3}}}),
    "a list replaces": ("list: [3]", {"list": [3]}),
    "another type replaces the block": ("block: {type: Two}", {"block": {"type": "Two"}}),
    "the same type merges": ("block: {type: One, n: 4}", {"block": {"type": "One", "size": 3, "n": 4}}),
    "no type merges": ("block: {n: 4}", {"block": {"type": "One", "size": 3, "n": 4}}),
    "a mapping over a value": ("a: {k: 1}", {"a": {"k": 1}}),
    "a value over a mapping": ("b: 1", {"b": 1}),
    "null where the base has no key": ("c: ~", {"c": None}),
}


@pytest.mark.parametrize("name", MERGED)
def test_merging(name: str, tmp_path: Path) -> None:
    changes, expected = MERGED[name]
    (tmp_path / "base.yml").write_text(BASE)
    (tmp_path / "file.yml").write_text(f"base: base.yml\n{changes}\n")
    whole = {"a": 1, "b": {"x": 1, "y": {"z": 2}}, "list": [1, 2], "block": {"type": "One", "size": 3}}
    assert read_option_file(tmp_path / "file.yml").data == {**whole, "null_value": None, **expected}


def test_null_removes_the_key_of_the_base(tmp_path: Path) -> None:
    (tmp_path / "base.yml").write_text(BASE)
    (tmp_path / "file.yml").write_text("base: base.yml\nb: {x: ~}\nblock: ~\nlist:\n")
    assert read_option_file(tmp_path / "file.yml").data == {"a": 1, "b": {"y": {"z": 2}}, "null_value": None}


def test_a_null_base_is_none(tmp_path: Path) -> None:
    (tmp_path / "file.yml").write_text("base: ~\na: 1\n")
    assert read_option_file(tmp_path / "file.yml").data == {"a": 1}


def test_every_key_keeps_its_place(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "root.yml").write_text("\na: 1\nblock: {type: One, size: [1, 2]}\nb:\n  x: 1\n  y: 2\n")
    (tmp_path / "deep" / "middle.yml").write_text("base: ../root.yml\nb:\n  y: 3\n")
    (tmp_path / "file.yml").write_text("base: deep/middle.yml\nblock:\n  type: Two\n")
    file = read_option_file(tmp_path / "file.yml")
    assert file.name == str(tmp_path / "file.yml")
    root, middle = tmp_path / "deep" / "../root.yml", tmp_path / "deep" / "middle.yml"
    assert {".".join(map(str, key)): Path(place) for key, place in file.places.items()} == {
        "a": Path(f"{root}:2"),
        "b": Path(f"{middle}:2"),
        "b.x": Path(f"{root}:5"),
        "b.y": Path(f"{middle}:3"),
        "block": Path(f"{tmp_path / 'file.yml'}:2"),
        "block.type": Path(f"{tmp_path / 'file.yml'}:3"),
    }


REFUSED: dict[str, tuple[dict[str, str], str]] = {
    "missing": ({"file": "a: 1\nbase: x.yml"}, "file.yml:2: base: there is no file x.yml in .; the path is relative"),
    "a folder": ({"file": "base: ."}, "file.yml:1: base: there is no file . in ."),
    "not text": ({"file": "base: [b.yml]"}, "file.yml:1: base: expected the path of an option file, got ['b.yml']"),
    "empty": ({"file": "base: ''"}, "file.yml:1: base: expected the path of an option file, got ''"),
    "NUL": ({"file": 'base: "a\\0"'}, "file.yml:1: base: expected the path of an option file, got 'a\\x00'"),
    "itself": ({"file": "base: file.yml"}, "file.yml:1: base: file.yml is based on this file"),
    "a circle": (
        {"file": "base: one.yml", "one": "# comment\nbase: two.yml", "two": "base: ./one.yml"},
        "two.yml:1: base: ./one.yml is based on this file; a file cannot be its own base",
    ),
    "a long chain": (
        {"file": "base: 1.yml", **{str(n): f"base: {n + 1}.yml" for n in range(1, 5)}, "5": "a: 1"},
        "4.yml:1: base: a chain of more than 5 files; merge some of them",
    ),
    "a broken base": ({"file": "base: one.yml", "one": "a: 1\na: 2"}, "one.yml:2: a: written twice (first in line 1)"),
    "no mapping": ({"file": "base: one.yml", "one": "[1]"}, "one.yml:1: found [1]; an option file is a mapping"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_base(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files, message = REFUSED[name]
    for file, text in files.items():
        Path(f"{file}.yml").write_text(f"{text}\n")
    with pytest.raises(OptionsError) as error:
        read_option_file("file.yml")
    assert str(error.value).startswith(message)


def test_a_chain_of_five_files_is_read(tmp_path: Path) -> None:
    for n in range(1, 5):
        (tmp_path / f"{n}.yml").write_text(f"base: {n + 1}.yml\n'{n}': {n}\n")
    (tmp_path / "5.yml").write_text("'1': 5\n'5': 5\n")
    assert read_option_file(tmp_path / "1.yml").data == {"1": 1, "2": 2, "3": 3, "4": 4, "5": 5}


def test_errors_name_the_file_where_the_key_stands(write: Write, refused: Refused, workspace: Path) -> None:
    base = write(("lr: 1e-4", "lr: fast"), ("print_freq: 1", "print_freq: 0"))
    path = workspace / "variant.yml"
    path.write_text("base: file.yml\nname: variant\nscal: 2\nlogger:\n  keep_checkpoints: 0\n", encoding="utf-8")
    lines = base.read_text(encoding="utf-8").splitlines()
    places = [f"{base}:{lines.index(text) + 1}" for text in ("    lr: fast", "  print_freq: 0")]
    assert [line.partition(": ")[0] for line in refused(path)] == [*places, f"{path}:3", f"{path}:5"]


def test_force_yml_and_the_kept_copy_see_the_merged_file(write: Write, workspace: Path) -> None:
    whole = write()
    (workspace / "options").mkdir()
    path = workspace / "options" / "variant.yml"
    path.write_text("base: ../file.yml\nname: variant\ntrain: {optim_g: {lr: 2e-4}}\n", encoding="utf-8")
    opt = load_options(path, is_train=True, overrides=["train:optim_g:betas=[0.5,0.9]"])
    assert opt["name"] == "variant"
    assert opt["train"]["optim_g"] == {"type": "Adam", "lr": 2e-4, "betas": [0.5, 0.9]}
    assert opt["train"]["total_iter"] == 10
    prepare_folders(opt, path, keep_existing=False)
    kept = workspace / "experiments" / "variant" / "variant.yml"
    assert kept.read_text(encoding="utf-8").startswith(
        "# variant.yml merged with its base ../file.yml\nname: variant\n"
    )
    whole.unlink()
    again = load_options(kept, is_train=True, overrides=["train:optim_g:betas=[0.5,0.9]"])
    assert again == opt


def test_a_file_without_a_base_is_copied_byte_by_byte(write: Write, workspace: Path) -> None:
    (workspace / "copy.yml").write_bytes(merged_text(write()))
    assert (workspace / "copy.yml").read_bytes() == (workspace / "file.yml").read_bytes()


TEXTS = ["1e-4", "0x1F", "010", "yes", "~", "", "null", "12:30", ".inf", "{}x2", "a: b", "# c", "'", "é\n", "9" * 5000]
OTHERS = [None, True, False, 1, -2.5, 1e-5, 1e22, math.inf, -math.inf, [], [[1], []], {"a": [{"b": None}]}]


@pytest.mark.parametrize("value", [*TEXTS, *OTHERS], ids=lambda value: repr(value)[:20])
def test_written_values_read_back_as_they_are(value: object) -> None:
    text = as_yaml({"key": value, "again": value})
    found = read_value(text, "here", ())
    assert found == {"key": value, "again": value}
    assert type(found["key"]) is type(value)
