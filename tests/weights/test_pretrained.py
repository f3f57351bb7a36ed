"""``pretrained=True``: published weights of a name, in `mambair.create` and in timm, from a server on this machine."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

import mambair
from mambair.weights import addresses
from mambair.weights.checkpoint import CheckpointError
from mambair.weights.fetch import FetchError

SMALL_VIM = {"img_size": 32, "depth": 2, "embed_dim": 16}
SMALL_VMAMBA = {"depths": (1, 1, 1, 1), "dims": 8}
SMALL = {"vim_tiny_patch16_224": SMALL_VIM, "vmamba_tiny_s1l8": SMALL_VMAMBA}


@pytest.fixture
def served(published_here: Any, tmp_path: Path) -> Any:
    """(name of a backbone) -> a small network of its class; every published file holds its weights."""

    def serve(name: str) -> torch.nn.Module:
        torch.manual_seed(1)
        net = mambair.create(name, **SMALL[name])
        torch.save({"model": net.state_dict()}, tmp_path / "published.pth")
        published_here.content = (tmp_path / "published.pth").read_bytes()
        return net

    return serve


def equal(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("name", SMALL)
def test_create(name: str, served: Any, server: Any) -> None:
    published = served(name)
    net = mambair.create(name, pretrained=True, **SMALL[name])
    assert equal(net, published) and net.training
    assert not equal(mambair.create(name, **SMALL[name]), published)
    assert equal(mambair.create(name.upper(), pretrained=True, **SMALL[name]), published)
    assert len(server.asked) == 1 and server.asked[0].endswith(".pth")


def test_create_with_arguments_that_do_not_fit(served: Any) -> None:
    served("vmamba_tiny_s1l8")
    with pytest.raises(CheckpointError, match=r"do not fit VSSM:\n.*\n  classifier\.head\.weight: .* \[7, 64\]"):
        mambair.create("vmamba_tiny_s1l8", pretrained=True, num_classes=7, **SMALL_VMAMBA)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vim_tiny_patch16_384", r"no address of weights is known for vim_tiny_patch16_384; known are those of vim_ti"),
        ("MambaIR-light-x2", "no address of weights is known for MambaIR-light-x2; known are those of MambaIR-light"),
    ],
)
def test_no_address(name: str, message: str) -> None:
    with pytest.raises(FetchError, match=message) as caught:
        mambair.create(name, pretrained=True)
    assert str(caught.value).count(",") <= 3 and str(caught.value).endswith("; give a file")


def test_names_of_one_network_have_one_file() -> None:
    for alias, name in addresses._table()["same"].items():
        ours, theirs = mambair.weights.catalogue.find(alias), mambair.weights.catalogue.find(name)  # type: ignore
        rates = {"drop_path_rate": None}
        assert ours.arch == theirs.arch and {**ours.kwargs, **rates} == {**theirs.kwargs, **rates}
        assert addresses.published(alias) == addresses.published(name) is not None


class TestTimm:
    """``timm.create_model(..., pretrained=True)``."""

    @pytest.fixture(autouse=True)
    def timm(self) -> Any:
        module = pytest.importorskip("timm")
        importlib.import_module("mambair.backbones")  # registers them
        return module

    @pytest.mark.parametrize("name", SMALL)
    def test_the_published_weights(self, timm: Any, name: str, served: Any, server: Any, tmp_path: Path) -> None:
        published = served(name)
        net = timm.create_model(name, pretrained=True, **SMALL[name])
        assert equal(net, published)
        assert "state_dict" not in net.pretrained_cfg and net.pretrained_cfg["license"]
        assert (tmp_path / "home" / "weights" / "downloads.lock.json").is_file()
        assert equal(timm.create_model(name, pretrained=True, **SMALL[name]), published) and len(server.asked) == 1

    @pytest.mark.parametrize("name", SMALL)
    def test_other_classes_and_channels(self, timm: Any, name: str, served: Any) -> None:
        published = served(name)
        net = timm.create_model(name, pretrained=True, num_classes=7, in_chans=1, **SMALL[name])
        names = [key for key, tensor in net.state_dict().items() if not torch.equal(tensor, published.state_dict()[key])
                 if tensor.shape == published.state_dict()[key].shape]  # fmt: skip
        assert names == []
        first = net.get_submodule(net.pretrained_cfg["first_conv"]).weight
        theirs = published.get_submodule(net.pretrained_cfg["first_conv"]).weight
        torch.testing.assert_close(first, theirs.sum(1, keepdim=True), atol=1e-6, rtol=0)  # sums in another order

    @pytest.mark.parametrize("name", SMALL)
    def test_features(self, timm: Any, name: str, served: Any) -> None:
        published = served(name)
        net = timm.create_model(name, pretrained=True, features_only=True, out_indices=(0, 1), **SMALL[name])
        ours = net.model.state_dict()
        assert len(ours) > 20 and all(
            torch.equal(tensor, published.state_dict()[key]) for key, tensor in ours.items() if "outnorm" not in key
        )
        assert "state_dict" not in net.pretrained_cfg and "state_dict" not in net.model.pretrained_cfg

    def test_another_size_of_image(self, timm: Any, served: Any) -> None:
        published = served("vim_tiny_patch16_224")
        net = timm.create_model("vim_tiny_patch16_224", pretrained=True, **SMALL_VIM | {"img_size": 64})
        assert net.pos_embed.shape == (1, 17, 16)
        torch.testing.assert_close(net.pos_embed[:, 8], published.pos_embed[:, 2])  # the class token in the middle

    def test_a_source_of_the_caller_comes_first(self, timm: Any, served: Any, server: Any, tmp_path: Path) -> None:
        published = served("vmamba_tiny_s1l8")
        net = timm.create_model(
            "vmamba_tiny_s1l8",
            pretrained=True,
            pretrained_cfg_overlay={"file": str(tmp_path / "published.pth")},
            **SMALL_VMAMBA,
        )
        assert equal(net, published) and server.asked == []

    def test_a_folder_of_the_caller(self, timm: Any, served: Any, tmp_path: Path) -> None:
        served("vmamba_tiny_s1l8")
        timm.create_model("vmamba_tiny_s1l8", pretrained=True, cache_dir=tmp_path / "own", **SMALL_VMAMBA)
        assert (tmp_path / "own" / "vssm1_tiny_0230s_ckpt_epoch_264.pth").is_file()
        assert not (tmp_path / "home").exists()

    def test_without_network_or_address(self, timm: Any, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(FetchError, match="no address of weights is known for vim_tiny_patch16_384"):
            timm.create_model("vim_tiny_patch16_384", pretrained=True)
        monkeypatch.setenv("MAMBAIR_OFFLINE", "1")
        with pytest.raises(FetchError, match=r"vmamba_tiny_s1l8 is not in the cache .* the network may not be used"):
            timm.create_model("vmamba_tiny_s1l8", pretrained=True)
        assert server.asked == []

    def test_timm_lists_them(self, timm: Any) -> None:
        listed = timm.list_models("v*", pretrained=True)
        assert {"vim_tiny_patch16_224", "vmamba_base_s1l20", "vmambav2v_base_224"} <= set(listed)
        assert "vim_tiny_patch16_384" not in listed
