"""The format of a file of weights, and what a file is in place of weights, by its first bytes and never by its name."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

START_BYTES = 4096
HEADER_BYTES = 100 * 2**20  # the longest header that safetensors accepts
ZIP, PICKLE = b"PK", b"\x80"  # torch.save since 1.6, and before
# files that are often saved in place of weights: how they begin, in lower case
IMPOSTORS = (
    (b"version https://git-lfs", "a Git LFS pointer"),
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
    (b"<?xml", "an XML page, often the error of a server"),
    (b"{", "a text in JSON, often the error of a server"),
    (b"gguf", "a GGUF file"),
    (b"\x89hdf", "an HDF5 file"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"rar!", "a RAR archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"\x89png", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
)


def weights_format(path: Path) -> Literal["safetensors", "pickle"] | None:
    """The format of a file of weights; None where it is neither. A file that ends too early has the format it began."""
    start = _first_bytes(path)
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= HEADER_BYTES:
        return "safetensors"
    if start.startswith(PICKLE) or (start.startswith(ZIP) and not _is_other_archive(path)):
        return "pickle"
    return None


def content_kind(path: Path) -> str | None:
    """Name what a file is that is often saved in place of weights: a web page, a pointer; None for anything else."""
    start = _first_bytes(path)
    if not start.strip(b"\0"):
        return "filled with zeros" if start else "empty"
    if start.startswith(ZIP) and _is_other_archive(path):
        return "a zip archive that torch.save did not write"
    start = start.lstrip(b"\xef\xbb\xbf\r\n\t ").lower()
    kind = next((kind for begin, kind in IMPOSTORS if start.startswith(begin)), None)
    return "a confirmation page of Google Drive" if kind == "a web page" and b"google drive" in start else kind


def not_weights(path: Path) -> str:
    """Say what a file is that has no ``weights_format``, and what to do."""
    kind = content_kind(path)
    if kind is None:
        return f"expected safetensors or a file of torch.save, the file begins with {_first_bytes(path)[:8]!r}"
    return f"the file is {kind}, not weights; {'unpack it' if 'archive' in kind else 'download it again'}"


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(START_BYTES)


def _is_other_archive(path: Path) -> bool:
    """Whether a zip file is whole and has no pickle of torch.save in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            return not any(name.endswith("/data.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False
