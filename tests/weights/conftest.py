"""A server on this machine in place of the Hugging Face hub, and an empty cache."""

from __future__ import annotations

import copy
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

import mambair
from mambair.weights import addresses


@dataclass
class Behaviour:
    """What the server does, and how often it was asked."""

    content: bytes = b""
    status: int = 200
    kind: str = "application/octet-stream"
    break_after: list[int] = field(default_factory=list)
    redirect: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    port: int = 0


class Handler(http.server.BaseHTTPRequestHandler):
    behaviour: Behaviour

    def do_GET(self) -> None:
        how = self.behaviour
        how.asked.append(self.path)
        how.tokens.append(self.headers.get("Authorization"))
        if how.redirect:
            self.send_response(302)
            self.send_header("Location", how.redirect.pop(0))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        told = self.headers.get("Range", "bytes=0-")
        start = int(told.removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start and how.status == 200 else how.status)
        body = how.content[start:]
        self.send_header("Content-Type", how.kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"one"')
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(how.content) - 1}/{len(how.content)}")
        self.end_headers()
        self.wfile.write(body[: how.break_after.pop(0)] if how.break_after else body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Behaviour]:
    """A mirror of the hub that serves the weights of a tiny network under every address; an empty cache."""
    torch.manual_seed(0)
    kwargs = {"upscale": 2, "embed_dim": 12, "depths": [1], "d_state": 2, "upsampler": "pixelshuffledirect"}
    net = mambair.archs.MambaIR(**kwargs)  # type: ignore[attr-defined]
    metadata = {"mambair.arch": "MambaIR", "mambair.kwargs": json.dumps(kwargs)}
    mambair.weights.write(tmp_path / "tiny.safetensors", net.state_dict(), metadata)  # type: ignore[attr-defined]
    behaviour = Behaviour((tmp_path / "tiny.safetensors").read_bytes())
    handler = type("Handler", (Handler,), {"behaviour": behaviour})
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("MAMBAIR_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MAMBAIR_OFFLINE", raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "token"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{running.server_port}")
        behaviour.port = running.server_port
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield behaviour
        running.shutdown()
        thread.join()


@pytest.fixture
def published_here(server: Behaviour, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Behaviour:
    """The server, with the weights of the tiny network, as a .pth file, under every published name."""
    (tmp_path / "served.safetensors").write_bytes(server.content)
    tiny = mambair.weights.read(tmp_path / "served.safetensors")  # type: ignore[attr-defined]
    mambair.weights.write(tmp_path / "served.pth", tiny.state_dict, tiny.metadata)  # type: ignore[attr-defined]
    server.content = (tmp_path / "served.pth").read_bytes()
    table = copy.deepcopy(addresses._table())
    for source in table["sources"].values():
        source["address"] = "https://huggingface.co/owner/repository/resolve/main/{file}"  # HF_ENDPOINT is our server
    for entry in table["weights"].values():
        entry.pop("size", None)
        entry.pop("sha256", None)
    monkeypatch.setattr(addresses, "_table", lambda: table)
    return server
