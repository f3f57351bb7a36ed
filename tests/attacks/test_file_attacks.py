"""Small files that somebody else wrote: lock files, settings, meta-info, metadata of weights."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mambair.data.lmdb_store import LmdbReader
from mambair.data.pairing import names_in
from mambair.data_tools.parallel import keep_settings
from mambair.system.bounded_reader import parse_json, read_bytes
from mambair.system.lock_file import LOCK_NAME, LockError, LockFile
from mambair.system.private_append import open_to_append
from mambair.weights.checkpoint import read_checkpoint
from mambair.weights.loading import load

POSIX = pytest.mark.skipif(os.name != "posix", reason="links, pipes and modes of POSIX")
DEEP = '{"a":' * 100_000
ESCAPE = "\x1b]0;owned\x07"
DIGITS = "9" * 5000
Attack = Callable[[Path, pytest.MonkeyPatch], str]
OutcomeOf = Callable[[Attack], str]


LOCKS = {
    "infinity": ('{"files": {}, "unpacked": {"a": Infinity}}', "Infinity is not a number of JSON"),
    "a key twice": ('{"files": {}, "files": {}, "unpacked": {}}', "the key 'files' is there twice"),
    "another encoding": ("\udcff{}", r"it is not UTF-8 text: byte 0 is 0xff"),
    "a large power": ('{"files": {}, "unpacked": {"a": 1e999}}', "1e999 is too large a number"),
    "a long number": (
        f'{{"files": {{}}, "unpacked": {{"a": {DIGITS}}}}}',
        "an integer has 5000 digits; at most 30",
    ),
    "nested deeply": (DEEP, "it is nested deeper than 32 levels"),
    "a negative count": ('{"files": {}, "unpacked": {"a": -1}}', "must be an integer, got -1"),
    "no digest": ('{"files": {"a": {"sha256": "00", "size": 1}}, "unpacked": {}}', "64 hexadecimal digits"),
    "a list": ("[]", "expected a JSON object, got an array"),
    "a text": ('"x"', "expected a JSON object, got a text"),
    "nothing": ("", "Expecting value"),
}


@pytest.mark.parametrize(("content", "outcome"), LOCKS.values(), ids=LOCKS)
def test_lock_files(content: str, outcome: str, tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(LockError, match=outcome) as caught:
        LockFile(tmp_path / LOCK_NAME)
    assert str(caught.value).isprintable()


def settings_nested_deeply(folder: Path, patch: pytest.MonkeyPatch) -> str:
    (folder / ".prepare_data.json").write_text(DEEP)
    return str(keep_settings(folder, {"scale": 4}))


def settings_of_a_list(folder: Path, patch: pytest.MonkeyPatch) -> str:
    (folder / ".prepare_data.json").write_text("[1]")
    return str(keep_settings(folder, {"scale": 4}))


def database(folder: Path, meta_info: str) -> str:
    (folder / "data.mdb").touch()
    (folder / "meta_info.txt").write_text(meta_info)
    return str(LmdbReader(folder))


def lmdb_long_number(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return database(folder, f"a.png ({DIGITS},1,3) 1\n")


def lmdb_key_upwards(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return database(folder, "../private.txt (1,1,3) 1\n")


def lmdb_absolute_key(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return database(folder, f"{folder}/private.txt (1,1,3) 1\n")


def lmdb_meta_info_of_a_pipe(folder: Path, patch: pytest.MonkeyPatch) -> str:
    (folder / "data.mdb").touch()
    os.mkfifo(folder / "meta_info.txt")
    return str(LmdbReader(folder))


def meta_info_of_a_pipe(folder: Path, patch: pytest.MonkeyPatch) -> str:
    os.mkfifo(folder / "names.txt")
    return str(names_in(str(folder / "names.txt")))


def device_without_end(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return str(read_bytes(Path("/dev/zero"), 10))


def file_above_the_limit(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return str(read_bytes(folder / "private.txt", 3))


def json_with_nan(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return str(parse_json('{"a": NaN}'))


def append_through_a_link(folder: Path, patch: pytest.MonkeyPatch) -> str:
    (folder / "journal").symlink_to(folder / "private.txt")
    with open_to_append(folder / "journal") as file:
        file.write(b"line\n")
    return f"{(folder / 'journal').is_symlink()} {(folder / 'journal').read_text()}"


def weights_with_nested_metadata(folder: Path, patch: pytest.MonkeyPatch) -> str:
    content = {"params": {"a": torch.zeros(1)}, "metadata": {"mambair.arch": "MambaIR", "mambair.kwargs": DEEP}}
    torch.save(content, folder / "net.pth")
    return str(load(folder / "net.pth"))


def weights_with_an_escape_in_a_name(folder: Path, patch: pytest.MonkeyPatch) -> str:
    torch.save({"params": {ESCAPE: torch.zeros(1).to_sparse()}}, folder / "net.pth")
    return str(read_checkpoint(folder / "net.pth"))


def weights_without_tensors_but_with_an_escape(folder: Path, patch: pytest.MonkeyPatch) -> str:
    torch.save({ESCAPE: 1}, folder / "net.pth")
    return str(read_checkpoint(folder / "net.pth"))


ATTACKS: dict[Attack, str] = {
    settings_nested_deeply: "^RequestError: .*made with other settings",
    settings_of_a_list: "^RequestError: .*made with other settings",
    lmdb_long_number: r"^DatasetError: .*meta_info\.txt:1: found",
    lmdb_key_upwards: r"^DatasetError: .*meta_info\.txt:1: the key must be a name",
    lmdb_absolute_key: r"^DatasetError: .*meta_info\.txt:1: the key must be a name",
    lmdb_meta_info_of_a_pipe: "^DatasetError: .*it is not a regular file",
    meta_info_of_a_pipe: "^DatasetError: .*it is not a regular file",
    device_without_end: "^ValueError: .*it is not a regular file",
    file_above_the_limit: "^ValueError: .*it has more than 3 bytes",
    json_with_nan: "^ValueError: .*NaN is not a number of JSON",
    append_through_a_link: "^False line",
    weights_with_nested_metadata: r"^CheckpointError: .*is no JSON object of arguments \(it is nested deeper",
    weights_with_an_escape_in_a_name: r"^CheckpointError: .*\\x1b\]0;owned\\x07 is sparse",
    weights_without_tensors_but_with_an_escape: r"^CheckpointError: .*the file has \\x1b\]0;owned",
}


@POSIX
@pytest.mark.parametrize(("attack", "outcome"), ATTACKS.items(), ids=[each.__name__ for each in ATTACKS])
def test_small_files(attack: Attack, outcome: str, outcome_of: OutcomeOf) -> None:
    assert re.search(outcome, outcome_of(attack))
