"""Connections of downloads: redirections stay on the web, on https once there, and out of private networks.

An answer that drips, header or content, is an error of the connection; so is one of headers or trailers without end.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import ipaddress
import os
import time
import urllib.parse
import urllib.request
from functools import partial
from typing import Any

PRIVATE_VARIABLE = "MAMBAIR_PRIVATE_ADDRESSES"
LEAST_BYTES, WITHIN = 6000, 60.0
"""An answer of fewer bytes in so many seconds, once it has begun, is given up."""
MOST_AROUND = 2**20
"""An answer is given up once its bytes besides the content are more than this plus twice the content."""


class UnsafeAddressError(RuntimeError):
    """An address, of the user or of a redirection, that a download does not follow; the message is one line."""


def shown_address(url: str) -> str:
    """Return scheme, host and path of an address for messages; ``?...`` stands for a query, which may be a secret."""
    place, query = _place_and_query(url)
    return f"{place}?..." if query else place


def recorded_address(url: str) -> str:
    """Return an address for files that are kept: as `shown_address`, with the SHA-256 of the query."""
    place, query = _place_and_query(url)
    return f"{place}?sha256={hashlib.sha256(query.encode()).hexdigest()}" if query else place


def _place_and_query(url: str) -> tuple[str, str]:
    before, _, query = url.partition("#")[0].partition("?")
    scheme, separator, rest = before.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}", query


def refuse_credentials(url: str) -> None:
    """Raise `UnsafeAddressError` for ``https://user:password@host/...``."""
    if "@" in urllib.parse.urlsplit(url).netloc:
        raise UnsafeAddressError("addresses with a user name or a password are not fetched; leave out all up to the @")


def opener() -> urllib.request.OpenerDirector:
    """Return an opener for one download: its attempts and their redirections.

    The first connection may lead anywhere, as the user chose its host. Later ones may lead into a private network (this
    machine, 10/8, 169.254/16, fe80::/10, ...) only if all before did, if they lead back to the first host and that was
    in such a network, or if ``MAMBAIR_PRIVATE_ADDRESSES=1``. Addresses are checked on the open connection, whatever
    names lead to it. A proxy resolves names itself; behind one, only hosts that are numbers are checked.
    """
    places = _Places()
    return urllib.request.build_opener(_Redirects, _Http(places), _Https(places))


class _Places:
    """Where the connections of one download went."""

    def __init__(self) -> None:
        self.private_host: str | None = None  # that the user chose; empty if it is of the internet
        self.was_public = False

    def visit(self, host: str, address: str | None) -> None:
        """Take note of a connection.

        Raises:
            UnsafeAddressError: it leads from a public host into a private network.
        """
        is_public = address is None or not is_private(address)
        if self.private_host is None:
            self.private_host = "" if is_public else host
        if is_public:
            self.was_public = True
        elif self.was_public and host != self.private_host and os.environ.get(PRIVATE_VARIABLE, "") in ("", "0"):
            raise UnsafeAddressError(
                f"the server leads to {host}, an address of a private network ({address}), which is not followed; "
                f"if you trust that, set {PRIVATE_VARIABLE}=1"
            )


_WITH_IPV4 = {
    ipaddress.IPv6Network("::/96"): 0,  # IPv4-compatible
    ipaddress.IPv6Network("::ffff:0:0/96"): 0,  # IPv4-mapped
    ipaddress.IPv6Network("::ffff:0:0:0/96"): 0,  # IPv4-translated
    ipaddress.IPv6Network("64:ff9b::/96"): 0,  # NAT64
    ipaddress.IPv6Network("2002::/16"): 80,  # 6to4
}
"""Networks whose addresses hold one of IPv4, and how many bits come after it."""
_PUBLIC_IPV6 = ipaddress.IPv6Network("2000::/3")


def is_private(address: str) -> bool:
    """Return whether an IP address belongs to this machine or to a network that is not the internet."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    for network, bits_after in _WITH_IPV4.items():
        if ip in network:
            ip = ipaddress.IPv4Address(int(ip) >> bits_after & 0xFFFFFFFF)
    return not ip.is_global or ip.is_multicast or (ip.version == 6 and ip not in _PUBLIC_IPV6)


class _Flowing(io.RawIOBase):
    """The bytes of an answer. The socket's own limit is on the time without any.

    Raises:
        TimeoutError: they drip.
        http.client.HTTPException: too many of them are headers, interim answers, marks of chunks or trailers.
    """

    def __init__(self, raw: io.RawIOBase) -> None:
        super().__init__()
        self._raw = raw
        self._begin: float | None = None
        self._bytes = 0
        self._all_bytes = 0
        self.content = 0  # bytes handed on so far

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        count = self._raw.readinto(buffer)
        now = time.monotonic()
        self._begin = now if self._begin is None else self._begin
        self._bytes += count or 0
        self._all_bytes += count or 0
        if self._all_bytes > MOST_AROUND + 3 * self.content:
            raise http.client.HTTPException(
                f"the server sent {self._all_bytes} bytes for {self.content} bytes of content, which is too many"
            )
        if count and now - self._begin > WITHIN:
            if self._bytes < LEAST_BYTES:
                raise TimeoutError(
                    f"the server sent {self._bytes} bytes in {now - self._begin:.0f} s, which is too slow"
                )
            self._begin, self._bytes = now, 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._flowing = _Flowing(self.fp.detach())  # type: ignore[attr-defined]
        self.fp = io.BufferedReader(self._flowing)

    def read(self, amt: int | None = None) -> bytes:
        content = super().read(amt)
        self._flowing.content += len(content)
        return content


class _Watched:
    """A connection that tells where it went, before a request is sent; without ``places`` it leads to a proxy."""

    response_class = _Answer

    def __init__(self, *args: Any, places: _Places | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._places = places

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        if self._places is not None:
            self._places.visit(self.host, self.sock.getpeername()[0])  # type: ignore[attr-defined]


class _HttpConnection(_Watched, http.client.HTTPConnection): ...


class _HttpsConnection(_Watched, http.client.HTTPSConnection): ...


class _Http(urllib.request.HTTPHandler):
    def __init__(self, places: _Places) -> None:
        super().__init__()
        self.places = places

    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_connection(_HttpConnection, self.places, req), req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, places: _Places) -> None:
        super().__init__()
        self.places = places

    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_connection(_HttpsConnection, self.places, req), req)


def _connection(watched: Any, places: _Places, req: urllib.request.Request) -> Any:
    """The class of the connection for a request."""
    host = urllib.parse.urlsplit(req.full_url).hostname or ""
    if not (req.has_proxy() or getattr(req, "_tunnel_host", None)):
        return partial(watched, places=places)
    try:
        places.visit(host, str(ipaddress.ip_address(host)))
    except ValueError:
        places.visit(host, None)
    return partial(watched, places=None)


class _Redirects(urllib.request.HTTPRedirectHandler):
    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        fp.close()  # unread: the content of a redirection may have no end, and urllib would hold it in memory
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        before, after = urllib.parse.urlsplit(req.full_url).scheme, urllib.parse.urlsplit(newurl).scheme
        if after not in ("http", "https") or (before == "https" and after == "http"):
            raise UnsafeAddressError(f"the server redirects to {shown_address(newurl)}, which is not safe to follow")
        refuse_credentials(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
