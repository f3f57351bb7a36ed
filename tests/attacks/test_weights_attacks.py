"""Hostile files of weights: bombs, headers that lie, names; nothing is executed, and each ends with one reason."""

from __future__ import annotations

import json
import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mambair.weights import checkpoint
from mambair.weights.checkpoint import CheckpointError, read_checkpoint

ENTRY = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}


def safetensors(header: dict[str, object] | bytes, *, body: bytes = bytes(16), length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def zipped(path: Path, content: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, body in content.items():
            archive.writestr(name, body)


class Runs:
    def __reduce__(self):
        return Path.write_text, (Path("executed"), "x")


# of a file of torch.save before 1.6, and an archive with nothing in it
OLD_BEGINNING = b"".join(pickle.dumps(each, 2) for each in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
EMPTY_ARCHIVE = b"PK\5\6" + bytes(18)


def legacy(path: Path, content: object) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


SAFE = {
    "header of 2^63 bytes": (safetensors(b"{}", length=2**63), "expected safetensors or a file of torch.save"),
    "overlapping": (
        safetensors({"a": ENTRY, "b": ENTRY | {"data_offsets": [8, 24]}}, body=bytes(24)),
        "invalid offset",
    ),
    "shape of 2^64": (safetensors({"a": ENTRY | {"shape": [2**62, 4]}}), "overflow"),
    "shape that is not there": (safetensors({"a": ENTRY | {"shape": [5]}}), "not a whole .safetensors file"),
    "nested deeply": (safetensors(b'{"__metadata__":' + b'{"a":' * 50_000), "not a whole .safetensors file"),
    "no JSON": (safetensors(b"\xff\xfe"), "expected safetensors or a file of torch.save"),
    "many tensors": (
        safetensors({f"layers.{i}": ENTRY | {"shape": [0], "data_offsets": [0, 0]} for i in range(20_001)}, body=b""),
        "the file holds 20001 tensors, expected at most 20000",
    ),
}
PICKLES: dict[str, tuple[Callable[[Path], object], str]] = {
    "code": (lambda path: path.write_bytes(pickle.dumps(Runs(), 2)), "nothing of it was executed"),
    "code in an archive": (lambda path: torch.save({"a": Runs()}, path), "nothing of it was executed"),
    "code in an old file": (lambda path: legacy(path, {"a": Runs()}), "nothing of it was executed"),
    "bomb": (
        lambda path: zipped(path, {"a/data.pkl": bytes(2**28), "a/version": b"3"}),
        "a bomb: it would unpack to",
    ),
    "long pickle": (lambda path: zipped(path, {"a/data.pkl": b"]" * (2**16 + 1)}, 0), "more than the 65536 bytes"),
    "long bare pickle": (lambda path: path.write_bytes(b"\x80\x02" + b"]" * 2**17), "has more operations than"),
    "long bare pickle with an archive behind it": (
        lambda path: path.write_bytes(OLD_BEGINNING + b"\x80\x02](" + b")" * 2**17 + b"e." + EMPTY_ARCHIVE),
        "has more operations than",
    ),
    "path upwards": (lambda path: zipped(path, {"../../a/data.pkl": pickle.dumps({}, 2)}), "not a whole checkpoint"),
    "many tensors": (
        lambda path: legacy(path, {str(i): torch.zeros(0) for i in range(20_001)}),
        "the file holds 20001 tensors, expected at most 20000|has more operations than",
    ),
    "end of an archive only": (
        lambda path: path.write_bytes(b"PK\5\6" + b"\xff" * 18),
        "not a whole checkpoint|damaged",
    ),
}


@pytest.fixture(autouse=True)
def nothing_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / "executed").exists()


def reason(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize(("content", "outcome"), SAFE.values(), ids=SAFE)
def test_safetensors(content: bytes, outcome: str, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    assert re.search(outcome, reason(tmp_path / "a.safetensors"))


@pytest.mark.parametrize(("make", "outcome"), PICKLES.values(), ids=PICKLES)
def test_pickles(make: Callable[[Path], object], outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "MOST_OPERATIONS", 2**16)  # 2^22 of them take ten seconds
    make(tmp_path / "a.pth")
    assert re.search(outcome, reason(tmp_path / "a.pth"))


def test_files_of_before_are_read_as_ever(tmp_path: Path) -> None:
    legacy(tmp_path / "a.pth", {"params": {"a": torch.arange(6.0), "b": torch.ones(2, dtype=torch.float16)}})
    found = read_checkpoint(tmp_path / "a.pth").state_dict
    assert torch.equal(found["a"], torch.arange(6.0)) and found["b"].tolist() == [1.0, 1.0]
