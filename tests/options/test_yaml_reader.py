"""The YAML reader: numbers of YAML 1.2, places of keys, and nothing but plain values."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from mambair.options.errors import OptionsError
from mambair.options.yaml_reader import MAX_BYTES, read_value, read_yaml_file


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("2.", 2.0),
        (".5", 0.5),
        ("-.5e+3", -500.0),
        ("5e3", 5000.0),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("+7", 7),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("yes", "yes"),
        ("off", "off"),
        ("True", True),
        ("false", False),
        ("~", None),
        ("null", None),
        ("", None),
        (".inf", math.inf),
        ("-.Inf", -math.inf),
        ("2021-01-01", "2021-01-01"),
        ("'1e-4'", "1e-4"),
        ('"true"', "true"),
        ("!!float 2e-4", 2e-4),
        ("!!float 5", 5.0),
        ("!!int 5", 5),
        ("!!str 5", "5"),
        ("[1, 2.5, x]", [1, 2.5, "x"]),
        ("{a: 1, b: [c]}", {"a": 1, "b": ["c"]}),
        ("=", "="),
        ("<<", "<<"),
    ],
    ids=str,
)
def test_plain_values_follow_the_core_schema_of_yaml_1_2(text: str, value: object) -> None:
    found = read_value(text, "here", ("key",))
    assert found == value
    assert type(found) is type(value)


def test_nan_is_read() -> None:
    assert math.isnan(read_value(".nan", "here", ("key",)))


def test_places_are_the_lines_of_the_keys(tmp_path: Path) -> None:
    path = tmp_path / "file.yml"
    path.write_text("# comment\nname: a\n\ntrain:\n  optim_g: {lr: 1,\n    betas: [1,\n  2]}\n", encoding="utf-8")
    file = read_yaml_file(path)
    assert file.data == {"name": "a", "train": {"optim_g": {"lr": 1, "betas": [1, 2]}}}
    lines = {path: place.rpartition(":")[2] for path, place in file.places.items()}
    assert lines["name",] == "2"
    assert lines["train",] == "4"
    assert lines["train", "optim_g", "lr"] == "5"
    assert lines["train", "optim_g", "betas"] == "6"
    assert lines["train", "optim_g", "betas", 1] == "7"


def test_aliases_stand_for_their_value(tmp_path: Path) -> None:
    path = tmp_path / "file.yml"
    path.write_text("a: &shared {x: 1}\nb: *shared\n", encoding="utf-8")
    data = read_yaml_file(path).data
    assert data == {"a": {"x": 1}, "b": {"x": 1}}
    assert data["a"] is not data["b"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: &a {type: X, n: 1}\nb:\n  <<: *a\n  n: 2\n", {"type": "X", "n": 2}),
        ("a: &a {type: X, n: 1}\nb:\n  n: 2\n  <<: *a\n", {"type": "X", "n": 2}),
        ("a: &a {n: 1, m: 1}\nc: &c {n: 2, k: 3}\nb: {<<: [*a, *c]}\n", {"n": 1, "m": 1, "k": 3}),
        ("a: &a {n: 1}\nc: &c {<<: *a, k: 3}\nb: {<<: *c, k: 4}\n", {"n": 1, "k": 4}),
        ("b: {<<: {n: 1}}\n", {"n": 1}),
        ('b: {"<<": 1}\n', {"<<": 1}),
    ],
)
def test_merge_keys_bring_in_the_keys_of_another_mapping(text: str, expected: dict, tmp_path: Path) -> None:
    path = tmp_path / "file.yml"
    path.write_text(text, encoding="utf-8")
    assert read_yaml_file(path).data["b"] == expected


def test_a_merged_key_has_its_place_where_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "file.yml"
    path.write_text("a: &a {type: X,\n  n: 1}\nb:\n  <<: *a\n  type: Y\n", encoding="utf-8")
    file = read_yaml_file(path)
    assert [file.places["b", key].rpartition(":")[2] for key in ("n", "type")] == ["2", "5"]


@pytest.mark.parametrize("start", ["\ufeff", ""], ids=["byte order mark", "none"])
def test_line_ends_of_windows_and_a_byte_order_mark_do_not_matter(tmp_path: Path, start: str) -> None:
    path = tmp_path / "file.yml"
    path.write_bytes(f"{start}name: ä\r\nscale: 4\r\n".encode())
    file = read_yaml_file(path)
    assert file.data == {"name": "ä", "scale": 4}
    assert file.places["scale",].endswith(":2")


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)

BROKEN = {
    "empty": ("", 1, "found nothing (null); an option file is a mapping"),
    "only a comment": ("# nothing\n", 1, "an option file is a mapping"),
    "a list": ("- a\n- b\n", 1, "found ['a', 'b']; an option file is a mapping"),
    "tab as indentation": ("train:\n\tlr: 1\n", 2, "a tab stands here; YAML indents with spaces only"),
    "tab after spaces": ("train:\n  a: 1\n  \tb: 2\n", 3, "a tab stands here"),
    "duplicate key": ("name: a\nscale: 2\nname: b\n", 3, "name: written twice (first in line 1); keep one of the two"),
    "duplicate key below": ("train:\n  lr: 1\n  x: 1\n  lr: 2\n", 4, "train.lr: written twice (first in line 2)"),
    "python object": (
        "name: !!python/object/apply:os.system ['echo']\n",
        1,
        "name: the tag !!python/object/apply:os.system is refused; option files hold plain values only",
    ),
    "python name": ("a: 1\nname: !!python/name:os.system\n", 2, "name: the tag !!python/name:os.system is refused"),
    "python tuple": ("a: !!python/tuple [1, 2]\n", 1, "the tag !!python/tuple is refused"),
    "local tag": ("a: !mine x\n", 1, "a: the tag !mine is refused"),
    "set": ("a: !!set {x, y}\n", 1, "a: the tag !!set is refused"),
    "wrong tag": ("a: !!int x\n", 1, "a: found !!int x; leave the tag out"),
    "alias bomb": (BOMB, 1, "expands to more than 20,000 values; remove the aliases"),
    "alias of itself": ("a: &a [*a]\n", 1, "does an alias (*name) contain itself?"),
    "merge of a value": ("a: &a 1\nb: {<<: *a}\n", 2, "b: <<: expected a mapping (*name), or a list of mappings"),
    "merge of itself": ("a: &a {<<: *a}\n", 1, "<< more than 30 times in one another; does it name itself?"),
    "unknown alias": ("a: *b\n", 1, "found undefined alias 'b'; write the value itself"),
    "brackets without end": ("a: [1, 2\nb: 3\n", 2, "check brackets, quotes and the indentation"),
    "quote without end": ("a: 'x\n", 2, "check brackets, quotes and the indentation"),
    "two keys in one line": ("a: b: c\n", 1, "mapping values are not allowed here; write 'key: value'"),
    "a key without colon": ("name: x\nscale\ntrain: 1\n", 3, "write 'key: value', one key a line"),
    "wrong indentation": ("train:\n   a: 1\n  b: 2\n", 3, "check brackets, quotes and the indentation"),
    "two documents": ("a: 1\n---\nb: 2\n", 2, "a second document ('---') starts here"),
    "a list as key": ("? [a]\n: 1\n", 1, "a key that is not a plain word"),
    "nested without end": ("a: " + "[" * 1500, 1, "nested too deeply"),
    "nested deeply": ("a: " + "[" * 40 + "]" * 40, 1, "nested more than 30 levels deep"),
    "control character": ("a: 1\nb: \x01\n", 2, "the character U+0001 is not allowed in YAML; delete it"),
    "huge number": ("a: " + "9" * 5000, 1, "a: a number of 5000 digits"),
}


@pytest.mark.parametrize(("text", "line", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_what_is_not_yaml_is_one_fault_with_its_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    path = tmp_path / "broken.yml"
    path.write_text(text, encoding="utf-8", newline="")
    with pytest.raises(OptionsError) as caught:
        read_yaml_file(path)
    assert len(caught.value.faults) == 1
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert message in str(caught.value)


def test_numbers_as_keys_are_text(tmp_path: Path) -> None:
    path = tmp_path / "file.yml"
    path.write_text("1: a\ntrue: b\n", encoding="utf-8")
    assert read_yaml_file(path).data == {"1": "a", "true": "b"}


def test_all_duplicates_and_tags_are_listed_at_once(tmp_path: Path) -> None:
    path = tmp_path / "file.yml"
    path.write_text("a: 1\na: 2\nb: !x 1\nc:\n  d: 1\n  d: 2\n", encoding="utf-8")
    with pytest.raises(OptionsError) as caught:
        read_yaml_file(path)
    assert [fault.split(": ")[0].rpartition(":")[2] for fault in caught.value.faults] == ["2", "3", "6"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name: \xff\n", ":1: not UTF-8 text; save the file as UTF-8"),
        (b"#" * (MAX_BYTES + 1), "larger than 1,000,000 bytes; this is no option file"),
        (None, "cannot be read: No such file or directory; give the path of an option file"),
    ],
    ids=["latin-1", "too large", "missing"],
)
def test_files_that_cannot_be_option_files(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "file.yml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(OptionsError) as caught:
        read_yaml_file(path)
    assert message in str(caught.value)


def test_a_folder_is_no_option_file(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="cannot be read: Is a directory"):
        read_yaml_file(tmp_path)
