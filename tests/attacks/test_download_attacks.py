"""Servers that lie, and what others planted where a download writes: each attack has its outcome."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mambair.data_tools.catalogue import Part, RemoteDataset, RemoteFile
from mambair.data_tools.dataset_download import DatasetDownloads
from mambair.system import web_connections
from mambair.system.download import DownloadError, PartialFile, download
from mambair.system.lock_file import LOCK_NAME, LockFile

POSIX = pytest.mark.skipif(os.name != "posix", reason="links, pipes and modes of POSIX")
DEEP = '{"a":' * 100_000
ESCAPE = "\x1b]0;owned\x07"
DIGITS = "9" * 5000
Attack = Callable[[Path, pytest.MonkeyPatch], str]
OutcomeOf = Callable[[Attack], str]


class Server:
    """Answers every request with given bytes, then hangs up."""

    def __init__(
        self, answer: bytes, host: str = "127.0.0.1", *, dripping: int | None = None, for_ever: bytes = b""
    ) -> None:
        self.answer = answer
        self._dripping = dripping  # from this byte on, one at a time
        self._for_ever = for_ever * (2**16 // len(for_ever) if for_ever else 0)  # sent again and again after the answer
        self.most_sent = 0  # of that, in answer to one request; at 64 MiB the client did not have enough
        self.asked: list[bytes] = []
        self._socket = socket.create_server((host, 0))
        self.url = f"http://{host}:{self._socket.getsockname()[1]}/set.zip"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            with connection:
                self.asked.append(connection.recv(2**16))
                with contextlib.suppress(OSError):  # the client had enough
                    connection.sendall(self.answer[: self._dripping])
                    for byte in () if self._dripping is None else self.answer[self._dripping :]:
                        connection.sendall(bytes([byte]))
                        time.sleep(0.01)
                    sent = 0
                    while self._for_ever and sent < 2**26:
                        connection.sendall(self._for_ever)
                        sent += len(self._for_ever)
                        self.most_sent = max(self.most_sent, sent)


def fetched(
    folder: Path, answer: bytes, *, dripping: int | None = None, for_ever: bytes = b"", **arguments: object
) -> str:
    target = folder / "downloads" / "set.zip"
    given = {"attempts": 2, "pause": 0.0, "timeout": 5.0, **arguments}
    server = Server(answer, dripping=dripping, for_ever=for_ever)
    try:
        download(server.url, target, **given)  # type: ignore[arg-type]
    finally:
        assert server.most_sent < 2**26
        assert not target.exists()
        assert not list(target.parent.glob("*.part")) or target.with_name("set.zip.part").stat().st_size <= 2**20
    return "fetched"


def answer_with(body: bytes, *lines: str, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\n{''.join(f'{line}{chr(13)}{chr(10)}' for line in lines)}\r\n".encode("latin-1") + body


def body_without_end(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return fetched(folder, answer_with(bytes(2**22)), most=2**20)


def announced_length_above_the_limit(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return fetched(folder, answer_with(b"", f"Content-Length: {2**21}"), most=2**20)


def body_longer_than_the_known_size(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return fetched(folder, answer_with(bytes(2**22)), size=1000)


def length_of_5000_digits(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return fetched(folder, answer_with(bytes(100), f"Content-Length: {DIGITS}"), size=1000)


def range_of_5000_digits(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return fetched(folder, answer_with(b"", f"Content-Range: bytes 0-{DIGITS}/{DIGITS}", status="206 Partial Content"))


def unsatisfied_range_of_5000_digits(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return fetched(folder, answer_with(b"", f"Content-Range: bytes */{DIGITS}", status="416 Too much"))


def _within_a_moment(patch: pytest.MonkeyPatch) -> None:
    """Seconds become milliseconds."""
    patch.setattr(web_connections, "WITHIN", 0.06)


def header_that_drips(folder: Path, patch: pytest.MonkeyPatch) -> str:
    _within_a_moment(patch)
    return fetched(folder, answer_with(b"", *[f"X-{number}: x" for number in range(90)]), dripping=0)


def body_that_drips(folder: Path, patch: pytest.MonkeyPatch) -> str:
    _within_a_moment(patch)
    answer = answer_with(bytes(1000), "Content-Length: 1000")
    return fetched(folder, answer, dripping=len(answer) - 1000)


def body_that_drips_after_a_while(folder: Path, patch: pytest.MonkeyPatch) -> str:
    _within_a_moment(patch)
    return fetched(folder, answer_with(bytes(9000), "Content-Length: 9000"), dripping=8000)


def chunks_that_drip(folder: Path, patch: pytest.MonkeyPatch) -> str:
    _within_a_moment(patch)
    answer = answer_with(b"1\r\nx\r\n" * 200, "Transfer-Encoding: chunked")
    return fetched(folder, answer, dripping=len(answer) - 1000)


def redirection_that_drips(folder: Path, patch: pytest.MonkeyPatch) -> str:
    _within_a_moment(patch)
    return fetched(folder, answer_with(b"", "Location: /other", "X: " + "x" * 900, status="302 Found"), dripping=0)


def redirection_with_a_body_without_end(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return fetched(folder, answer_with(b"", "Location: /other", status="302 Found"), for_ever=b"x")


def interim_answers_without_end(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return fetched(folder, b"", for_ever=answer_with(b"", status="100 Continue"))


def trailers_without_end(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return fetched(folder, answer_with(b"5\r\nhello\r\n0\r\n", "Transfer-Encoding: chunked"), for_ever=b"X: y\r\n")


def chunks_of_extensions_without_end(folder: Path, patch: pytest.MonkeyPatch) -> str:
    chunk = b"1;" + b"e" * 1000 + b"\r\nx\r\n"
    return fetched(folder, answer_with(b"", "Transfer-Encoding: chunked"), for_ever=chunk)


def a_drop_at_each_attempt(folder: Path, patch: pytest.MonkeyPatch) -> str:
    """Each attempt comes one byte further than the one before."""
    server = Server(b"")
    place = itertools.count()

    def answer(server: Server) -> bytes:
        at = next(place)
        lines = [f"Content-Range: bytes {at}-999/1000", f"Content-Length: {1000 - at}", 'ETag: "one"']
        return answer_with(b"x", *lines, status="206 Partial" if at else "200 OK")

    patch.setattr(Server, "answer", property(answer, lambda server, value: None), raising=False)
    download(server.url, folder / "downloads" / "set.zip", attempts=3, pause=0.0, timeout=5.0)
    return "fetched"


def _downloaded_beside(folder: Path, plant: Callable[[Path, str], None]) -> str:
    """A download with something planted in its place; returns whether it was fetched whole."""
    server = Server(answer_with(b"content", "Content-Length: 7", 'ETag: "one"'))
    target = folder / "downloads" / "set.zip"
    target.parent.mkdir()
    plant(target, server.url)
    download(server.url, target, attempts=2, pause=0.0, timeout=5.0)
    assert not target.is_symlink() and target.read_bytes() == b"content"
    return f"{sorted(path.name for path in target.parent.iterdir())} {server.asked[-1]!r}"


def _continued(folder: Path, plant: Callable[[Path], None]) -> str:
    """A download that would go on after the 4 bytes of what is planted as its part, with notes that fit."""
    server = Server(answer_with(b"evil", "Content-Range: bytes 4-7/8", "Content-Length: 4", status="206 Partial"))
    target = folder / "downloads" / "set.zip"
    target.parent.mkdir()
    plant(Path(f"{target}.part"))
    Path(f"{target}.part.json").write_text(json.dumps({"url": server.url, "validator": '"one"'}))
    download(server.url, target, attempts=2, pause=0.0, timeout=5.0)
    return "fetched"


def link_in_place_of_the_part(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return _continued(folder, lambda part: part.symlink_to(folder / "private.txt"))


def hard_link_in_place_of_the_part(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return _continued(folder, lambda part: part.hardlink_to(folder / "private.txt"))


def link_in_place_of_the_notes(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return _downloaded_beside(folder, lambda path, _: Path(f"{path}.part.json").symlink_to(folder / "private.txt"))


def pipe_in_place_of_the_part(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return _downloaded_beside(folder, lambda path, _: os.mkfifo(f"{path}.part"))


def pipe_in_place_of_the_notes(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return _downloaded_beside(folder, lambda path, _: os.mkfifo(f"{path}.part.json"))


def _with_notes(notes: Callable[[str], str]) -> Callable[[Path, str], None]:
    def plant(path: Path, url: str) -> None:
        Path(f"{path}.part").write_bytes(b"con")
        Path(f"{path}.part.json").write_text(notes(url))

    return plant


def notes_nested_deeply(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return _downloaded_beside(folder, _with_notes(lambda url: DEEP))


def header_in_the_notes(folder: Path, patch: pytest.MonkeyPatch) -> str:
    notes = {"validator": '"one"\r\nX-Evil: 1'}
    return _downloaded_beside(folder, _with_notes(lambda url: json.dumps({"url": url, **notes})))


def list_in_the_notes(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return _downloaded_beside(folder, _with_notes(lambda url: json.dumps({"url": url, "validator": [1]})))


def redirected(folder: Path, patch: pytest.MonkeyPatch, location: str, *, is_public: bool = True) -> str:
    """A download whose server counts as one of the internet, and redirects to ``location``; PORT: of a server there."""
    private = Server(answer_with(b"secret", "Content-Length: 6"))
    location = location.replace("PORT", private.url.rpartition(":")[2].partition("/")[0])
    server = Server(answer_with(b"", f"Location: {location}", "Content-Length: 0", status="302 Found"), "127.0.0.2")
    if is_public:
        patch.setattr(web_connections, "is_private", lambda address: address != "127.0.0.2")
    target = folder / "downloads" / "set.zip"
    try:
        download(server.url, target, attempts=2, pause=0.0, timeout=5.0)
    finally:
        assert any(private.asked) == target.exists(), "nothing is sent to a place that is refused"
    return f"fetched {target.read_bytes()!r}"


def redirection_to_this_machine(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return redirected(folder, patch, "http://127.0.0.1:PORT/latest/meta-data")


def redirection_to_this_machine_by_name(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return redirected(folder, patch, "http://localhost:PORT/")


def redirection_to_this_machine_by_a_number(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return redirected(folder, patch, "http://2130706433:PORT/")


def redirection_to_a_file(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return redirected(folder, patch, f"file://{folder}/private.txt")


def redirection_to_another_protocol(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return redirected(folder, patch, "ftp://127.0.0.1:PORT/a")


def redirection_with_an_escape(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return redirected(folder, patch, f"gopher://a{ESCAPE[0]}b/")


def redirection_with_a_password(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return redirected(folder, patch, "http://me:SECRET@127.0.0.1:PORT/")


def redirection_to_no_address(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return redirected(folder, patch, "http://[::1/")


def redirection_to_a_long_name(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return redirected(folder, patch, f"http://{'a' * 70}.invalid/")


def redirection_without_end(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return redirected(folder, patch, "/again")


def redirection_within_a_private_network(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return redirected(folder, patch, "http://127.0.0.1:PORT/", is_public=False)


def redirection_that_the_user_allows(folder: Path, patch: pytest.MonkeyPatch) -> str:
    patch.setenv("MAMBAIR_PRIVATE_ADDRESSES", "1")
    return redirected(folder, patch, "http://127.0.0.1:PORT/")


def redirection_behind_a_proxy(folder: Path, patch: pytest.MonkeyPatch) -> str:
    """The proxy is on this machine, as proxies often are, and resolves the names; numbers are still checked."""
    proxy = Server(answer_with(b"", "Location: http://169.254.169.254/a", "Content-Length: 0", status="302 Found"))
    patch.setenv("http_proxy", proxy.url.rpartition("/")[0])
    patch.setenv("no_proxy", "")
    download("http://example.invalid/set.zip", folder / "downloads" / "set.zip", attempts=1, timeout=5.0)
    return "fetched"


def _rebound(folder: Path, patch: pytest.MonkeyPatch, first: bytes) -> str:
    """A download from a name of the internet that answers ``first``, and belongs to this machine from then on."""
    public, private = Server(first, "127.0.0.2"), Server(answer_with(b"secret", "Content-Length: 6"))
    addresses = [public.url.split("/")[2].split(":"), private.url.split("/")[2].split(":")]

    def resolve(host: str, port: int, *arguments: object, **more: object) -> list:
        assert host == "rebound.test"
        address, port_there = addresses[min(1, len(public.asked))]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port_there)))]

    patch.setattr(web_connections, "is_private", lambda address: address != "127.0.0.2")
    patch.setattr(socket, "getaddrinfo", resolve)
    try:
        download("http://rebound.test/set.zip", folder / "downloads" / "set.zip", pause=0.0, timeout=5.0)
    finally:
        assert public.asked and not any(private.asked)
    return "fetched"


def name_that_moves_to_this_machine(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return _rebound(folder, patch, answer_with(b"", "Location: /metadata", status="302 Found"))


def name_that_moves_to_this_machine_between_attempts(folder: Path, patch: pytest.MonkeyPatch) -> str:
    return _rebound(folder, patch, answer_with(b"", status="503 Soon"))


FETCHED = r"^\['set\.zip'\] b'GET (?!.*(Evil|Range))"


ATTACKS: dict[Attack, str] = {
    body_without_end: "the server sends more than the 1048576 bytes the file may have",
    announced_length_above_the_limit: "has 2097152 bytes, more than the 1048576 it may have",
    body_longer_than_the_known_size: "sends more than the 1000 bytes of the file; .*gave up after 2 attempts",
    header_that_drips: r"the server sent \d+ bytes in 0 s, which is too slow.*gave up after 2 attempts",
    body_that_drips: r"broke at byte 0 \(the server sent \d+ bytes in 0 s, which is too slow.*after 2 attempts",
    body_that_drips_after_a_while: r"the server sent \d+ bytes in 0 s, which is too slow.*after 2 attempts",
    chunks_that_drip: r"the server sent \d+ bytes in 0 s, which is too slow.*after 2 attempts",
    redirection_that_drips: r"the server sent \d+ bytes in 0 s, which is too slow.*after 2 attempts",
    redirection_with_a_body_without_end: r"the server answers 302 .*infinite loop",
    interim_answers_without_end: r"the server sent \d+ bytes for 0 bytes of content, which is too many",
    trailers_without_end: r"the server sent \d+ bytes for 0 bytes of content, which is too many",
    chunks_of_extensions_without_end: r"the server sent \d+ bytes for 0 bytes of content, which is too many",
    a_drop_at_each_attempt: r"gave up after 3 attempts\. 3 bytes are kept",
    length_of_5000_digits: "ended at byte 100 of 1000",
    range_of_5000_digits: "sends another part than was asked for",
    unsatisfied_range_of_5000_digits: "the server has less than we have",
    link_in_place_of_the_part: "sends another part than was asked for",
    hard_link_in_place_of_the_part: "sends another part than was asked for",
    link_in_place_of_the_notes: FETCHED,
    pipe_in_place_of_the_part: FETCHED,
    pipe_in_place_of_the_notes: FETCHED,
    notes_nested_deeply: FETCHED,
    header_in_the_notes: FETCHED,
    list_in_the_notes: FETCHED,
    redirection_to_this_machine: r"leads to 127\.0\.0\.1, an address of a private network .*; if you trust",
    redirection_to_this_machine_by_name: r"leads to localhost, an address of a private network \(127\.0\.0\.1\)",
    redirection_to_this_machine_by_a_number: r"leads to 2130706433, an address of a private network",
    redirection_to_a_file: r"302 Found - Redirection to url 'file:///.*' is not allowed",
    redirection_to_another_protocol: r"redirects to ftp://127\.0\.0\.1:\d+/a, which is not safe to follow",
    redirection_with_an_escape: r"302 Found - Redirection to url 'gopher://a\\x1bb/' is not allowed",
    redirection_with_a_password: r"set\.zip: addresses with a user name or a password are not fetched",
    redirection_to_no_address: r"or an address the server redirects to, is wrong \(Invalid IPv6 URL\)",
    redirection_to_a_long_name: r"or an address the server redirects to, is wrong \(.*label.*too long|no connection",
    redirection_without_end: r"the server answers 302 .*infinite loop",
    redirection_within_a_private_network: r"^fetched b'secret'$",
    redirection_that_the_user_allows: r"^fetched b'secret'$",
    name_that_moves_to_this_machine: r"leads to rebound\.test, an address of a private network \(127\.0\.0\.1\)",
    name_that_moves_to_this_machine_between_attempts: r"leads to rebound\.test, an address of a private network",
    redirection_behind_a_proxy: r"leads to 169\.254\.169\.254, an address of a private network",
}


@POSIX
@pytest.mark.parametrize(("attack", "outcome"), ATTACKS.items(), ids=[each.__name__ for each in ATTACKS])
def test_downloads(attack: Attack, outcome: str, outcome_of: OutcomeOf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    text = outcome_of(attack)
    assert re.search(outcome, text)
    assert text.startswith("DownloadError: ") == (outcome != FETCHED and "secret" not in outcome)


def test_no_secret_of_an_address_is_shown_or_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The query may be a signature; it also tells files apart, so a digest of it is kept."""
    monkeypatch.setenv("no_proxy", "*")
    caplog.set_level(logging.INFO)
    server = Server(answer_with(b"part", "Content-Length: 9", 'ETag: "one"'))
    with pytest.raises(DownloadError, match=re.escape(f"{server.url}?...: the connection ended at byte 4 of 9")) as one:
        download(f"{server.url}?token=SIGNED", tmp_path / "set.zip", attempts=2, pause=0.0)
    LockFile(tmp_path / LOCK_NAME).admit("set.zip", f"{server.url}?token=SIGNED", 4, "0" * 64)
    kept = [json.loads(path.read_text()) for path in (tmp_path / "set.zip.part.json", tmp_path / LOCK_NAME)]
    recorded = f"{server.url}?sha256={hashlib.sha256(b'token=SIGNED').hexdigest()}"
    assert [kept[0]["url"], kept[1]["files"]["set.zip"]["url"]] == [recorded, recorded]
    assert b"GET /set.zip?token=SIGNED " in server.asked[0] and "trying again" in caplog.text
    assert "SIGNED" not in f"{caplog.text}{one.value}{kept}"
    assert PartialFile(tmp_path / "set.zip", f"{server.url}?token=SIGNED").belongs()
    assert not PartialFile(tmp_path / "set.zip", f"{server.url}?token=OTHER").belongs()


def test_a_reason_of_the_server_is_escaped_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    caplog.set_level(logging.INFO)
    server = Server(answer_with(b"", status=f"503 {ESCAPE}"))
    with pytest.raises(DownloadError):
        download(server.url, tmp_path / "x.zip", attempts=2, pause=0.0)
    assert "owned" in caplog.text and "\x1b" not in caplog.text


def test_a_file_that_was_there_is_recorded_and_said_to_be_unverified(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    part = Part(RemoteFile("https://nowhere.invalid/a.png", "Few/a.png"), None, "Few/HQ", 1)
    target = tmp_path / "Few" / "HQ" / "a.png"
    target.parent.mkdir(parents=True)
    target.write_bytes(b"planted")
    for _ in range(2):
        assert not DatasetDownloads(tmp_path).obtain(RemoteDataset("Few", "", "", (part,))).failed
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1 and "not verified" in warnings[0]
    target.write_bytes(b"another")
    (failure,) = DatasetDownloads(tmp_path).obtain(RemoteDataset("Few", "", "", (part,))).failed
    assert "not the file that was first fetched" in failure
