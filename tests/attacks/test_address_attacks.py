"""Addresses of private networks in disguise, and secrets in addresses."""

from __future__ import annotations

from pathlib import Path

import pytest

from mambair.system import web_connections
from mambair.system.download import DownloadError, download

ADDRESSES = {
    **dict.fromkeys(["127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254"], True),
    **dict.fromkeys(["0.0.0.0", "100.64.0.1", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%eth0"], True),
    **dict.fromkeys(["fc00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "ff02::1"], True),
    **dict.fromkeys(["::127.0.0.1", "::ffff:0:10.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808"], True),
    **dict.fromkeys(["2002:7f00:1::", "2002:c0a8:101::1", "fec0::1", "4000::1"], True),
    **dict.fromkeys(["64:ff9b::101:101", "2002:101:101::1", "::1.1.1.1"], False),
    **dict.fromkeys(["1.1.1.1", "172.32.0.1", "2606:4700:4700::1111", "::ffff:1.1.1.1"], False),
}


@pytest.mark.parametrize(("address", "is_private"), ADDRESSES.items())
def test_addresses_of_private_networks(address: str, is_private: bool) -> None:
    assert web_connections.is_private(address) == is_private


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("https://me:SECRET@host.invalid/a.zip?t=SECRET", "with a user name or a password are not fetched"),
        ("https://SECRET@host.invalid/a.zip", "with a user name or a password are not fetched"),
        ("http://127.0.0.1:9/a b.zip?t=SECRET", r"is wrong \(a space, or a port that is not a number\)"),
        ("ftp://me:SECRET@host.invalid/a.zip", "only http and https can be fetched"),
    ],
)
def test_addresses_that_are_refused_are_shown_without_secrets(
    url: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(DownloadError, match=text) as refusal:
        download(url, tmp_path / "a.zip", pause=0.0)
    assert "SECRET" not in str(refusal.value)
