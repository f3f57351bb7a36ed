"""Downloads from a server on this machine that breaks off, forgets, lies and changes its mind."""

from __future__ import annotations

import errno
import http.server
import re
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mambair.system.download import DownloadError, PartialFile, download
from mambair.system.web_connections import UnsafeAddressError, _Redirects

CONTENT = bytes(range(256)) * 4096  # 1 MiB


@dataclass
class Behaviour:
    """What the server does, and what it was asked."""

    content: bytes = CONTENT
    tag: str | None = '"one"'
    ranges: bool = True
    break_after: list[int] = field(default_factory=list)  # bytes sent before hanging up, request by request
    statuses: list[int] = field(default_factory=list)  # answered before anything else
    length: int | None = None  # announced in place of the true one
    kind: str = "application/zip"
    wrong_place: bool = False
    location: str = ""
    asked: list[str | None] = field(default_factory=list)  # the Range of each request


class Handler(http.server.BaseHTTPRequestHandler):
    behaviour: Behaviour

    def do_GET(self) -> None:
        how = self.behaviour
        how.asked.append(self.headers.get("Range"))
        if how.statuses:
            self.send_response(how.statuses.pop(0))
            if how.location:
                self.send_header("Location", how.location)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start, body = 0, how.content
        same = self.headers.get("If-Range") in (None, how.tag)
        told = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if how.ranges and told and same:
            start = int(told[1])
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = body[start:]
            self.send_response(206)
            shown = start + 7 if how.wrong_place else start
            self.send_header("Content-Range", f"bytes {shown}-{len(how.content) - 1}/{len(how.content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Type", how.kind)
        self.send_header("Content-Length", str(len(body) if how.length is None else how.length))
        if how.tag:
            self.send_header("ETag", how.tag)
        self.end_headers()
        self.wfile.write(body[: how.break_after.pop(0)] if how.break_after else body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Behaviour]]:
    """The address of a file on a local server, and the server's behaviour."""
    monkeypatch.setenv("no_proxy", "*")
    behaviour = Behaviour()
    handler = type("Handler", (Handler,), {"behaviour": behaviour})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/images.zip", behaviour
        running.shutdown()
        thread.join()


def get(url: str, folder: Path, **arguments: object) -> bytes:
    target = folder / "images.zip"
    download(url, target, pause=0.0, timeout=5.0, **arguments)  # type: ignore[arg-type]
    assert [path.name for path in folder.iterdir()] == ["images.zip"]
    return target.read_bytes()


def test_whole_file_with_progress(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    assert get(server[0], tmp_path, progress=lambda done, total: told.append((done, total))) == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT)) and told == sorted(told)


def test_interrupted_twice_goes_on_where_it_stopped(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, how = server
    how.break_after = [300_000, 200_000]
    assert get(url, tmp_path) == CONTENT
    assert how.asked == [None, "bytes=300000-", "bytes=500000-"]


def test_goes_on_in_a_later_run(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, how = server
    how.break_after = [300_000, 0, 0]
    with pytest.raises(DownloadError, match=r"gave up after 2 attempts\. 300000 bytes are kept"):
        get(url, tmp_path, attempts=2)
    assert not (tmp_path / "images.zip").exists()
    assert get(url, tmp_path) == CONTENT
    assert how.asked[-1] == "bytes=300000-"


def test_server_without_ranges_starts_over(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, how = server
    how.ranges, how.break_after = False, [300_000, 900_000]
    assert get(url, tmp_path) == CONTENT


def test_server_without_ranges_that_always_breaks_is_given_up(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, how = server
    how.ranges, how.break_after = False, [300_000] * 20
    with pytest.raises(DownloadError, match="gave up after 3 attempts"):
        get(url, tmp_path, attempts=3)
    assert len(how.asked) == 4  # the first one came further than nothing


def test_a_file_that_changed_in_between_is_not_mixed(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, how = server
    how.break_after = [300_000, 0]
    with pytest.raises(DownloadError, match=r"gave up after 1 attempt\. 300000 bytes are kept"):
        get(url, tmp_path, attempts=1)
    how.break_after, how.content, how.tag = [], CONTENT[::-1], '"two"'
    assert get(url, tmp_path) == CONTENT[::-1]


@pytest.mark.parametrize(
    ("verified_later", "asked"), [(False, None), (True, "bytes=300000-")], ids=["alone", "verified"]
)
def test_without_a_version_mark_only_a_checksum_allows_going_on(
    server: tuple[str, Behaviour], tmp_path: Path, verified_later: bool, asked: str | None
) -> None:
    url, how = server
    how.tag, how.break_after = None, [300_000]
    assert get(url, tmp_path, verified_later=verified_later) == CONTENT
    assert how.asked == [None, asked]


def test_a_part_of_another_address_is_not_continued(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, how = server
    partial = PartialFile(tmp_path / "images.zip", "http://elsewhere/images.zip")
    partial.start({"ETag": '"one"'})
    partial.path.write_bytes(b"something else")
    assert get(url, tmp_path, verified_later=True) == CONTENT
    assert how.asked == [None]


def test_killed_between_the_last_byte_and_the_name(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, _ = server
    partial = PartialFile(tmp_path / "images.zip", url)
    partial.start({"ETag": '"one"'})
    partial.path.write_bytes(CONTENT)
    assert get(url, tmp_path) == CONTENT


@pytest.mark.parametrize("excess", [1, 5000])
def test_a_part_longer_than_the_file_is_forgotten(server: tuple[str, Behaviour], tmp_path: Path, excess: int) -> None:
    partial = PartialFile(tmp_path / "images.zip", server[0])
    partial.start({"ETag": '"one"'})
    partial.path.write_bytes(CONTENT + bytes(excess))
    assert get(server[0], tmp_path) == CONTENT


def test_a_part_from_the_wrong_place_is_not_appended(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, how = server
    how.break_after, how.wrong_place = [300_000], True
    assert get(url, tmp_path) == CONTENT
    assert how.asked == [None, "bytes=300000-", None]


def test_passing_trouble_of_the_server_is_waited_for(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    server[1].statuses = [503, 429, 500]
    assert get(server[0], tmp_path) == CONTENT


@pytest.mark.parametrize(
    ("change", "arguments", "text"),
    [
        ({"statuses": [404]}, {}, "answers 404 .*may have moved"),
        ({"statuses": [403]}, {}, "answers 403"),
        ({}, {"size": 12}, "has 1048576 bytes, expected 12"),
        ({"kind": "text/html; charset=utf-8"}, {}, "a web page in place of the file"),
        ({"statuses": [302], "location": "file:///etc/passwd"}, {}, "file:///etc/passwd.*not allowed"),
        ({"length": 2**60}, {}, "disk has .* free; make room"),
        ({"length": len(CONTENT) + 9}, {"attempts": 2}, "ended at byte 1048576 of 1048585"),
    ],
    ids=["404", "403", "wrong size", "web page", "redirect to a file", "larger than the disk", "wrong length"],
)
def test_what_cannot_be_mended_is_explained(
    server: tuple[str, Behaviour], tmp_path: Path, change: dict, arguments: dict, text: str
) -> None:
    url, how = server
    for key, value in change.items():
        setattr(how, key, value)
    how.ranges = "length" not in change
    with pytest.raises(DownloadError, match=text):
        get(url, tmp_path, **arguments)
    assert not (tmp_path / "images.zip").exists()


def test_redirections_on_the_web_are_followed(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, how = server
    how.statuses, how.location = [302], url
    assert get(url, tmp_path) == CONTENT


def test_redirections_do_not_leave_https() -> None:
    request = urllib.request.Request("https://host/a.zip")
    with pytest.raises(UnsafeAddressError, match="not safe to follow"):
        _Redirects().redirect_request(request, None, 302, "Found", {}, "http://host/a.zip")


def test_nobody_there_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(DownloadError, match=r"no connection.*gave up after 2"):
        download("http://127.0.0.1:9/x.zip", tmp_path / "x.zip", attempts=2, pause=0.0)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x.zip"])
def test_only_the_web_is_fetched_from(url: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="only http and https"):
        download(url, tmp_path / "x.zip")


def test_a_full_disk_keeps_what_was_received(
    server: tuple[str, Behaviour], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    partial = PartialFile(tmp_path / "images.zip", server[0])
    partial.start({"ETag": '"one"'})
    partial.path.write_bytes(CONTENT[:300])
    monkeypatch.setattr("mambair.system.download._append", full)
    with pytest.raises(DownloadError, match="the disk is full after 300 bytes; make room"):
        download(server[0], tmp_path / "images.zip")
    monkeypatch.undo()
    monkeypatch.setenv("no_proxy", "*")
    assert get(server[0], tmp_path) == CONTENT
