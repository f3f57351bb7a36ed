"""Lines of JSON: what was appended comes back, whatever else the file holds, and whoever else appends."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from mambair.system.bounded_reader import MAX_DEPTH
from mambair.system.jsonl import MAX_LINE, AppendError, JsonLines, parse_object
from mambair.system.path_gate import UnsafePathError

pytestmark = pytest.mark.usefixtures("any_system")

LINES: dict[str, tuple[bytes, dict[str, Any] | None]] = {
    "object": (b'{"a": [1, {"b": 2.5}]}', {"a": [1, {"b": 2.5}]}),
    "spaces": (b'  {"a": null}\r', {"a": None}),
    "brackets in a text": (b'{"a": "' + b"[" * 500 + b'\\""}', {"a": "[" * 500 + '"'}),
    "as deep as may be": (b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH, ...),  # type: ignore[dict-item]
    "many, not deep": (b'{"a": [' + b"[]," * 100 + b"[]]}", {"a": [[]] * 101}),
    "one deeper": (b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), None),
    "far too deep": (b"[" * 500_000, None),
    "deep objects": (b'{"a":' * 150_000, None),
    "too long": (b'{"a": "' + b"x" * MAX_LINE + b'"}', None),
    "quotes without end": (b'[[[[{"' + b'\\"' * 500_000, None),
    "a key twice": (b'{"a": 1, "a": 2}', None),
    "another encoding": ('{"a": 1}'.encode("utf-16"), None),
    "list": (b"[1]", None),
    "torn": (b'{"a": 1', None),
    "empty": (b"", None),
    "not text": (b'{"a": "\xff"}', None),
    "infinity": (b'{"a": Infinity}', None),
    "nan": (b'{"a": NaN}', None),
    "beyond floats": (b'{"a": -1e999}', None),
    "integer of many digits": (b'{"a": ' + b"9" * 5000 + b"}", None),
}


@pytest.mark.parametrize(("line", "value"), LINES.values(), ids=LINES)
def test_a_line(line: bytes, value: dict[str, Any] | None) -> None:
    parsed = parse_object(line)
    assert (parsed == value) if value is not ... else (json.dumps(parsed).count("{") == MAX_DEPTH)


def test_lines_come_in_as_they_are_appended(tmp_path: Path) -> None:
    ours, others = JsonLines(tmp_path / "a" / "lines"), JsonLines(tmp_path / "a" / "lines")
    assert ours.new() == [] and not (tmp_path / "a").exists(), "reading makes nothing"
    name = os.fsdecode(b"bad\xff\nname")
    ours.append({"name": name})
    others.append({"b": 2})
    assert others.new() == ours.new() == [{"name": name}, {"b": 2}]
    others.append({"c": 3})
    assert ours.new() == [{"c": 3}] and ours.new() == []


@pytest.mark.parametrize("torn", [b'{"b": ', b"x" * (3 * MAX_LINE)], ids=["short", "long"])
def test_a_torn_line_is_passed_over_once_it_has_an_end(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b'{"a": 1}\n' + torn)
    lines = JsonLines(path)
    assert lines.new() == [{"a": 1}] and lines.new() == []
    lines.append({"c": 3})
    assert lines.new() == [None, {"c": 3}]
    assert path.read_bytes() == b'{"a": 1}\n' + torn + b'\n{"c": 3}\n'


@pytest.mark.skipif(os.name != "posix", reason="removes an open file")
def test_a_file_that_was_removed_is_made_anew(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "lines")
    lines.append({"a": 1})
    (tmp_path / "lines").unlink()
    assert lines.new() == []
    lines.append({"b": 2})
    assert lines.new() == [{"b": 2}] and (tmp_path / "lines").read_text() == '{"b": 2}\n'


def test_what_was_read_before_closing_is_not_given_again(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "lines")
    lines.append({"a": 1})
    assert lines.new() == [{"a": 1}]
    lines.close()
    assert lines.new() == []
    JsonLines(tmp_path / "lines").append({"b": 2})
    assert lines.new() == [{"b": 2}]
    lines.close()
    (tmp_path / "lines").write_bytes(b'{"c": 3}\n')  # shorter than before
    assert lines.new() == [{"c": 3}]


def test_threads_and_objects_append_side_by_side(tmp_path: Path) -> None:
    shared = JsonLines(tmp_path / "lines")

    def work(number: int) -> None:
        lines = shared if number % 2 else JsonLines(tmp_path / "lines")
        for index in range(20):
            lines.append({"number": number, "index": index, "text": "x" * 3000})
            lines.new()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    found = JsonLines(tmp_path / "lines").new()
    assert sorted((each["number"], each["index"]) for each in found if each) == [
        (number, index) for number in range(6) for index in range(20)
    ]


@pytest.mark.skipif(os.name != "posix", reason="links, pipes")
@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "folder", "device"])
def test_anything_but_a_file_is_an_error(tmp_path: Path, kind: str) -> None:
    path, private = tmp_path / "lines", tmp_path / "private"
    private.write_text("mine\n")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "hard link":
        path.hardlink_to(private)
    else:
        path.symlink_to(private if kind == "link" else "/dev/full")
    with pytest.raises(UnsafePathError, match="remove it"):
        JsonLines(path).new()
    with pytest.raises(AppendError, match=r"lines cannot be written: .* remove it"):
        JsonLines(path).append({"a": 1})
    assert private.read_text() == "mine\n"


def test_a_link_planted_after_the_first_line_changes_nothing(tmp_path: Path) -> None:
    path, private = tmp_path / "lines", tmp_path / "private"
    private.write_text("mine\n")
    lines = JsonLines(path)
    lines.append({"a": 1})
    path.rename(tmp_path / "moved")
    path.symlink_to(private)
    lines.append({"b": 2})
    assert private.read_text() == "mine\n" and (tmp_path / "moved").read_text() == '{"a": 1}\n{"b": 2}\n'


def test_the_system_s_reason_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(AppendError) as caught:
        JsonLines(tmp_path / "lines").append({"a": 1})
    assert (caught.value.errno, str(caught.value)) == (
        28,
        f"{tmp_path / 'lines'} cannot be written: No space left on device",
    )
