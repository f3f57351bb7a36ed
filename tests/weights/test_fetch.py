"""Weights by name: resolved, fetched from a server on this machine, checked, cached."""

from __future__ import annotations

import logging
import multiprocessing
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import mambair
from mambair.commands import weights as command
from mambair.weights import addresses, fetch
from mambair.weights.addresses import RemoteWeights, of_address
from mambair.weights.catalogue import list_networks
from mambair.weights.fetch import FetchError, cached, locate, resolve

HUB_FILE = "hub:owner/repository/tiny.safetensors"


def test_a_file_of_the_hub_is_fetched_once_and_loaded(server: Any, tmp_path: Path) -> None:
    net = mambair.load(HUB_FILE)
    assert net.upscale == 2
    assert server.asked == ["/owner/repository/resolve/main/tiny.safetensors"]
    path = locate(HUB_FILE)
    assert path.parent == tmp_path / "home" / "weights" and path.read_bytes() == server.content
    assert mambair.Restorer.from_checkpoint(HUB_FILE).scale == 2
    assert len(server.asked) == 1
    assert not [name for name in path.parent.iterdir() if "incoming" in name.name]


def test_a_connection_that_breaks_is_continued(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mambair.system.download.time.sleep", lambda seconds: None)
    server.break_after = [1000, 5000]
    assert locate(HUB_FILE).read_bytes() == server.content
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": 404}, r"the server answers 404 .*may have moved.* See https://huggingface\.co/owner/repository"),
        ({"kind": "text/html"}, "sends a web page in place of the file"),
        (
            {"content": b"<!DOCTYPE html><title>Google Drive - Virus scan</title>"},
            "a confirmation page of Google Drive, not",
        ),
        ({"content": b"version https://git-lfs.github.com/spec/v1\noid sha256:1"}, "a Git LFS pointer, not weights"),
        ({"content": b"\x00" * 100}, "what was fetched is not used"),
    ],
    ids=["404", "web page", "Drive", "LFS", "other bytes"],
)
def test_what_is_no_weights_is_named_and_not_kept(server: Any, change: dict, message: str, tmp_path: Path) -> None:
    for key, value in change.items():
        setattr(server, key, value)
    with pytest.raises(FetchError, match=message):
        locate(HUB_FILE)
    left = [path.name for path in (tmp_path / "home" / "weights").iterdir() if path.suffix == ".safetensors"]
    assert left == []


def test_weights_of_no_network_are_refused(server: Any, tmp_path: Path) -> None:
    mambair.weights.write(tmp_path / "x.safetensors", {"a": torch.zeros(3)})  # type: ignore[attr-defined]
    server.content = (tmp_path / "x.safetensors").read_bytes()
    with pytest.raises(FetchError, match="these weights belong to none of"):
        locate(HUB_FILE)


def test_the_first_download_is_recorded_and_later_ones_must_be_equal(server: Any) -> None:
    path = locate(HUB_FILE)
    path.unlink()
    server.content = server.content[:-1] + bytes([server.content[-1] ^ 1])
    with pytest.raises(FetchError, match="is not the file that was first fetched"):
        locate(HUB_FILE)


def test_a_file_that_changed_in_the_cache_is_not_used(server: Any) -> None:
    path = locate(HUB_FILE)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(FetchError, match="has changed since it was fetched"):
        locate(HUB_FILE)


def test_stated_checksums_are_compared(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = of_address(HUB_FILE)
    wrong = RemoteWeights("A", "a.safetensors", remote.urls, "https://page", "MIT", "B", None, "0" * 64)
    with pytest.raises(FetchError, match=f"sha256 [0-9a-f]{{64}}, expected {'0' * 64}.* See https://page"):
        fetch.fetch(wrong)


def test_the_query_of_an_address_tells_files_apart_and_is_not_shown() -> None:
    one, two = (of_address(f"https://host.invalid/a.pth?token={token}") for token in ("SECRET", "OTHER"))
    assert one.name == two.name == "https://host.invalid/a.pth?..."
    assert fetch._cache_name(one) != fetch._cache_name(two)
    with pytest.raises(FetchError, match="with a user name or a password are not fetched") as refusal:
        of_address("https://me:SECRET@host.invalid/a.pth")
    assert "SECRET" not in str(refusal.value)


def test_the_second_address_is_tried(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    (good,) = of_address(HUB_FILE).urls
    remote = RemoteWeights("A", "a.safetensors", ("http://127.0.0.1:9/a", good), "https://page", "MIT", "cite me")
    with caplog.at_level(logging.INFO), pytest.MonkeyPatch.context() as patch:
        patch.setattr("mambair.system.download.time.sleep", lambda seconds: None)
        assert fetch.fetch(remote).name == "a.safetensors"
    assert "A: licence MIT; please cite: cite me" in caplog.text
    assert "sha256" in caplog.text


def test_offline(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FetchError, match=r"not in the cache .* 'mambair weights fetch hub:owner"):
        locate(HUB_FILE, offline=True)
    monkeypatch.setenv("MAMBAIR_OFFLINE", "1")
    with pytest.raises(FetchError, match="the network may not be used"):
        locate(HUB_FILE)
    locate(HUB_FILE, offline=False)
    assert locate(HUB_FILE).is_file(), "what is in the cache needs no network"


def fetched(_: int) -> bytes:
    return locate(HUB_FILE).read_bytes()


def test_two_processes_fetch_it_once(server: Any) -> None:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        contents = pool.map(fetched, range(2))
    assert contents == [server.content] * 2
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("nothing.pth", FileNotFoundError, r"nothing\.pth: there is no such file"),
        ("folder/MambaIR", FileNotFoundError, "there is no such file"),
        (
            "MambaIRv2-lite-x4",
            FetchError,
            "no published network .* nearest: MambaIRv2-light",
        ),
        (
            "MambaIR-light-x4",
            FetchError,
            "known are those of MambaIR-light-2023-x2",
        ),
        ("http://host/a.pth", FetchError, "expected an address that begins with https://"),
        ("https://host/folder/", FetchError, "expected an address that ends in the name of a file"),
        ("https://host/a%20b.pth", FetchError, "ends in the name of a file"),
        ("hub:owner/file.pth", FetchError, "expected hub:OWNER/REPOSITORY/FILE"),
        ("hub:owner/../x/file.pth", FetchError, "expected hub:OWNER/REPOSITORY/FILE"),
    ],
)
def test_what_cannot_be_resolved(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        resolve(text)


def test_every_address_belongs_to_a_published_network() -> None:
    names = addresses.names()
    assert set(names) <= set(list_networks()) and len(names) >= 40
    files = set()
    for name in names:
        remote = addresses.published(name)
        assert remote is not None and remote.licence and remote.citation
        assert all(url.startswith("https://") and "{" not in url for url in (*remote.urls, remote.page))
        assert remote.sha256 is None or len(remote.sha256) == 64
        files.add(remote.file)
    assert len(files) == len(names), "each has a name of its own in the cache"


def test_the_published_file_has_the_recorded_checksum(development_data: Path) -> None:
    path = development_data / "data" / "published" / "mambairv2_lightSR_x3.pth"
    remote = addresses.published("MambaIRv2-light-x3")
    assert remote is not None
    assert (path.name, path.stat().st_size, fetch.digests(path)[0]) == (remote.file, remote.size, remote.sha256)


def test_the_command(server: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mambair.system.download.time.sleep", lambda seconds: None)
    assert command.main(["list", "MambaIRv2-light-*"]) == 0
    listed = capsys.readouterr().out
    assert [line.split()[0] for line in listed.splitlines()] == [f"MambaIRv2-light-x{scale}" for scale in (2, 3, 4)]
    assert "4.1 MB  Apache-2.0" in listed
    assert command.main(["list", "nothing*"]) == 1
    assert command.main(["where", HUB_FILE]) == 1
    assert command.main(["fetch", HUB_FILE, "--quiet"]) == 0
    path = capsys.readouterr().out.splitlines()[-1]
    assert command.main(["where", HUB_FILE]) == 0
    assert capsys.readouterr().out == f"{path}\n" and Path(path) == cached(of_address(HUB_FILE))
    assert command.main(["show", "MambaIRv2-light-x3"]) == 0
    assert "01f418f30a72" in capsys.readouterr().out
    server.status = 404
    assert command.main(["fetch", "hub:owner/repository/other.pth", "vim_tiny_patch16_224", "--quiet"]) == 1
    assert capsys.readouterr().err.count("the server answers 404") == 2
    assert command.main(["show", "unknown"]) == 2


def test_the_cache_of_huggingface_hub_is_read(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    theirs = tmp_path / "hub"
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(theirs))
    snapshot = theirs / "models--owner--repository" / "snapshots" / "a1"
    snapshot.mkdir(parents=True)
    (theirs / "models--owner--repository" / "refs").mkdir()
    (theirs / "models--owner--repository" / "refs" / "main").write_text("a1")
    (snapshot / "tiny.safetensors").write_bytes(server.content)
    assert locate(HUB_FILE) == snapshot / "tiny.safetensors" and server.asked == []
    assert not (tmp_path / "home").exists()
    assert mambair.load(HUB_FILE).upscale == 2
    (snapshot / "tiny.safetensors").unlink()
    own = locate(HUB_FILE)
    own.unlink()
    (snapshot / "tiny.safetensors").write_bytes(b"another file")
    assert locate(HUB_FILE) == own, "what differs from the recorded checksum is not taken from there"


def test_a_token_is_for_the_hub_alone(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_TOKEN", "secret")
    locate(HUB_FILE)
    assert server.tokens == ["Bearer secret"]
    locate(HUB_FILE).unlink()
    other = [f"http://localhost:{server.port}/elsewhere"]
    server.redirect = [*other]
    locate(HUB_FILE)
    assert server.tokens[1:] == ["Bearer secret", None], "no token for the host of a redirection"
    remote = RemoteWeights("A", "a.safetensors", tuple(other), "https://page", "MIT", "cite me")
    fetch.fetch(remote)
    assert server.tokens[3:] == [None]


def test_nothing_of_huggingface_is_needed(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert locate(HUB_FILE).read_bytes() == server.content
    assert server.tokens == [None]


def test_a_shared_cache_is_used_without_writing(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = locate(HUB_FILE)

    def listing() -> list[tuple[str, int, int]]:
        files = sorted((tmp_path / "home").rglob("*"))
        return [(str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files]

    before = listing()

    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    for function in ("mkdir", "write_text", "write_bytes", "touch", "unlink", "replace"):
        monkeypatch.setattr(Path, function, refuse)
    monkeypatch.setattr("mambair.weights.fetch.exclusive", refuse)
    assert locate(HUB_FILE) == path and mambair.load(HUB_FILE).upscale == 2
    with pytest.raises(FetchError, match=r"weights: cannot be written \(Permission denied\); set MAMBAIR_HOME"):
        locate("hub:owner/repository/other.safetensors")
    assert listing() == before


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"MAMBAIR_HOME": "{tmp}/a", "XDG_CACHE_HOME": "{tmp}/b"}, "{tmp}/a/weights"),
        ({"XDG_CACHE_HOME": "{tmp}/b"}, "{tmp}/b/mambair/weights"),
        ({"HOME": "{tmp}/c"}, "{tmp}/c/.cache/mambair/weights"),
    ],
)
def test_the_folder_of_the_cache(
    variables: dict[str, str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("MAMBAIR_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(tmp=tmp_path))
    assert fetch.cache_folder() == Path(expected.format(tmp=tmp_path))


def test_the_folder_of_the_cache_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    for name in ("MAMBAIR_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "Local"))
    assert fetch.cache_folder() == tmp_path / "Local" / "mambair" / "weights"
    monkeypatch.setenv("MAMBAIR_HOME", "relative")
    with pytest.raises(FetchError, match=r"^MAMBAIR_HOME=relative: expected an absolute path$"):
        fetch.cache_folder()


def test_licence_and_citation_are_shown_once(published_here: Any, caplog: pytest.LogCaptureFixture) -> None:
    mambair.load("MambaIRv2-light-x2")
    mambair.load("MambaIRv2-light-x2")
    shown = [record for record in caplog.records if "please cite" in record.getMessage()]
    assert len(shown) == 1 and shown[0].levelno == logging.WARNING, "seen where a program has set up no log"
    assert shown[0].getMessage().startswith("MambaIRv2-light-x2: licence Apache-2.0; please cite: Hang Guo et al.: ")


def test_a_mirror_that_is_named_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def hosts() -> list[str]:
        remote = addresses.published("MambaIRv2-light-x4")
        assert remote is not None
        return [url.split("/")[2] for url in remote.urls]

    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    assert hosts() == ["github.com", "huggingface.co"]
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    assert hosts() == ["mirror.example", "github.com"]


def test_no_time_is_lost_at_an_address_while_there_is_another(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("mambair.system.download.time.sleep", pauses.append)
    (good,) = of_address(HUB_FILE).urls
    remote = RemoteWeights("A", "a.safetensors", ("http://127.0.0.1:9/a", good), "https://page", "MIT", "cite me")
    assert fetch.fetch(remote).is_file() and pauses == []
