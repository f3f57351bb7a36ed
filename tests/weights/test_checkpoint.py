from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from mambair.weights.checkpoint import CheckpointError, load_weights, read_checkpoint, write_checkpoint

WEIGHTS = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.tensor([1, 2])}


def save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def shifted(by: float) -> dict[str, torch.Tensor]:
    return {name: tensor + by for name, tensor in WEIGHTS.items()}


class Executed:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    ("content", "shift"),
    [
        ({"params": shifted(0), "params_ema": shifted(1), "iter": 5}, 1),
        ({"params": shifted(0), "model": shifted(1)}, 0),
        ({"model": shifted(2), "optimizer": {"lr": 0.1}}, 2),
        ({"state_dict": shifted(3), "epoch": 1}, 3),
        (shifted(4), 4),
    ],
    ids=["params_ema", "params", "model", "state_dict", "plain"],
)
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".PTH"])
def test_unwrapping(content, shift, suffix, tmp_path):
    checkpoint = read_checkpoint(save(tmp_path / f"net{suffix}", content))
    assert list(checkpoint.state_dict) == list(WEIGHTS)
    for name, tensor in shifted(shift).items():
        assert torch.equal(checkpoint.state_dict[name], tensor)


# names in the file -> the network's own
WRAPPED: dict[str, tuple[list[str], list[str]]] = {
    "DistributedDataParallel": (["module.a.weight", "module.b"], ["a.weight", "b"]),
    "compiled": (["_orig_mod.a.weight", "_orig_mod.b"], ["a.weight", "b"]),
    "both, twice": (["module._orig_mod.module.a.weight", "_orig_mod.module.b"], ["a.weight", "b"]),
    "a compiled part": (["layers.0._orig_mod.a.weight", "b"], ["layers.0.a.weight", "b"]),
    "a Lightning module": (["model.a.weight", "model.b"], ["a.weight", "b"]),
    "BasicSR's attribute": (["net_g.a.weight", "net_g.b"], ["a.weight", "b"]),
    "compiled in Lightning": (["model._orig_mod.a.weight", "model._orig_mod.module.b"], ["a.weight", "b"]),
    "Lightning in Lightning": (["model.net_g.a.weight", "model.net_g.b"], ["a.weight", "b"]),
    "a part called model": (["model.a.weight", "b"], ["model.a.weight", "b"]),
    "a Sequential called model": (["model.0.weight", "model.1.sub.b"], ["model.0.weight", "model.1.sub.b"]),
    "a Sequential in a model": (
        ["model.model.0.weight", "model.model.1.b"],
        ["model.model.0.weight", "model.model.1.b"],
    ),
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("case", WRAPPED)
def test_wrappers_are_taken_off(case, suffix, tmp_path):
    stored, own = WRAPPED[case]
    write_checkpoint(tmp_path / f"net{suffix}", dict(zip(stored, WEIGHTS.values(), strict=True)))
    found = read_checkpoint(tmp_path / f"net{suffix}").state_dict
    assert sorted(found) == sorted(own)
    assert all(torch.equal(found[name], tensor) for name, tensor in zip(own, WEIGHTS.values(), strict=True))


@pytest.mark.parametrize("prefix", ["model.", "net_g."])
def test_a_checkpoint_of_lightning_gives_the_network_without_its_losses(prefix, tmp_path):
    names = {f"{prefix}{name}": tensor for name, tensor in WEIGHTS.items()} | {"loss.vgg.weight": torch.zeros(1)}
    content = {"state_dict": names, "pytorch-lightning_version": "2.4.0", "epoch": 3, "hyper_parameters": {"lr": 1e-4}}
    assert list(read_checkpoint(save(tmp_path / "last.ckpt", content)).state_dict) == list(WEIGHTS)


def test_param_key_is_obeyed(tmp_path):
    path = save(tmp_path / "net.pth", {"params": shifted(0), "params_ema": shifted(1), "mine": shifted(2)})
    assert read_checkpoint(path, "params").state_dict["b"][0] == 1
    assert read_checkpoint(path, "mine").state_dict["b"][0] == 3
    with pytest.raises(CheckpointError, match="no weights under 'other'; the file has params, params_ema, mine"):
        read_checkpoint(path, "other")


@pytest.mark.parametrize("protocol", ["zip", "legacy", "bare pickle"])
def test_a_hostile_pickle_is_refused_and_not_executed(protocol, tmp_path):
    path, trace = tmp_path / "net.pth", tmp_path / "executed"
    content = {"params": shifted(0), "extra": Executed(trace)}
    if protocol == "bare pickle":
        path.write_bytes(pickle.dumps(content["extra"]))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=protocol == "zip")
    with pytest.raises(
        CheckpointError, match=r"net\.pth: (refused, nothing of it was executed|not a whole checkpoint)"
    ):
        read_checkpoint(path)
    assert not trace.exists()


def test_the_message_names_what_the_pickle_wanted(tmp_path):
    path = save(tmp_path / "net.pth", {"params": shifted(0), "extra": Executed(tmp_path / "executed")})
    with pytest.raises(CheckpointError, match=r"asks for posix\.mkdir|asks for nt\.mkdir"):
        read_checkpoint(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("keep", [0, 10, 150])
def test_truncated_files(suffix, keep, tmp_path):
    path = tmp_path / f"net{suffix}"
    write_checkpoint(path, WEIGHTS)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"not a whole|refused|the file is empty"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (torch.zeros(3), "holds a Tensor"),
        ({"epoch": 3}, "no weights under 'params_ema' or 'params' or 'model' or 'state_dict'"),
        ({"params": {"a": 3}}, "'a' is a int"),
        ({"params": {}}, "no tensors"),
        ({"params": {"a": torch.zeros(1).expand(1 << 40)}}, "claims the shape"),
        ({"params": {"a": torch.zeros(2).to_sparse()}}, "sparse"),
        ({"params": {"a": torch.zeros(2), "module.a": torch.zeros(2)}}, "both with and without"),
    ],
    ids=["tensor", "no weights", "number", "empty", "expanded", "sparse", "twice"],
)
def test_unfit_content(content, words, tmp_path):
    with pytest.raises(CheckpointError, match=words):
        read_checkpoint(save(tmp_path / "net.pth", content))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin", ""])
@pytest.mark.parametrize("written", [".pth", ".safetensors", "legacy"])
def test_the_name_does_not_tell_the_format(written, suffix, tmp_path):
    path = tmp_path / f"net{suffix}"
    if written == "legacy":
        torch.save({"params": WEIGHTS}, path, _use_new_zipfile_serialization=False)
    else:
        write_checkpoint(tmp_path / f"net{written}", WEIGHTS)
        (tmp_path / f"net{written}").rename(path)
    found = read_checkpoint(path).state_dict
    assert sorted(found) == sorted(WEIGHTS)
    assert all(torch.equal(found[name], tensor) for name, tensor in WEIGHTS.items())


def zipped(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, b"\x80\x02}.")
    return buffer.getvalue()


# content of a file called net.pth -> what the error says of it
IN_PLACE_OF_WEIGHTS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "the file is empty, not weights; download it again"),
    "zeros": (b"\0" * 5000, "the file is filled with zeros, not weights; download it again"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "is a Git LFS pointer, not weights"),
    "page": (b"\n<HTML><body>sign in</body></HTML>", "is a web page, not weights; download it again"),
    "page with a mark": (b"\xef\xbb\xbf<!DOCTYPE html><title>x</title>", "is a web page, not weights"),
    "Drive": (b"<html><title>Google Drive - Virus scan</title>", "is a confirmation page of Google Drive, not"),
    "storage error": (b'<?xml version="1.0"?><Error>AccessDenied</Error>', "is an XML page, often the error of a"),
    "hub error": (b'{"error":"Repository not found"}', "is a text in JSON, often the error of a server, not"),
    "GGUF": (b"GGUF\x03\0\0\0", "is a GGUF file"),
    "Keras": (b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
    "gzip": (b"\x1f\x8b\x08\0", "is a gzip archive, not weights; unpack it$"),
    "zip of weights": (zipped("net.pth"), "is a zip archive that torch.save did not write, not weights; unpack it$"),
    "picture": (b"\x89PNG\r\n\x1a\n", "is a picture"),
    "text": (b"import os", "expected safetensors or a file of torch.save, the file begins with b'import o'$"),
    "old protocol": (pickle.dumps({"params": {}}, 0), "expected safetensors or a file of torch.save"),
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("case", IN_PLACE_OF_WEIGHTS)
def test_a_file_in_place_of_weights_is_named(case, suffix, tmp_path):
    content, words = IN_PLACE_OF_WEIGHTS[case]
    (tmp_path / f"net{suffix}").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"net\{suffix}: .*{words}"):
        read_checkpoint(tmp_path / f"net{suffix}")


NONFINITE: dict[str, torch.Tensor] = {
    "NaN": torch.tensor([1.0, torch.nan]),
    "infinite": torch.tensor([[-torch.inf]]),
    "half": torch.tensor([torch.nan], dtype=torch.float16),
    "bfloat16": torch.tensor([torch.inf], dtype=torch.bfloat16),
    "float8": torch.tensor([torch.nan]).to(torch.float8_e4m3fn),
    "complex": torch.tensor([complex(0, torch.inf)]),
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("case", NONFINITE)
def test_nonfinite_weights_are_refused_by_name(case, suffix, tmp_path):
    path = tmp_path / f"net{suffix}"
    write_checkpoint(path, {**WEIGHTS, "layers.0.bad": NONFINITE[case]})
    with pytest.raises(CheckpointError, match=r"net\.\w+: NaN or infinite values in layers\.0\.bad; .*allow_nonfinite"):
        read_checkpoint(path)
    found = read_checkpoint(path, allow_nonfinite=True).state_dict["layers.0.bad"]
    assert found.dtype == NONFINITE[case].dtype


def test_unfit_paths(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_checkpoint(tmp_path / "absent.pth")
    with pytest.raises(CheckpointError, match=r"not to '\.bin'"):
        write_checkpoint(tmp_path / "net.bin", WEIGHTS)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_round_trip(suffix, tmp_path):
    path = tmp_path / "folder" / f"net{suffix}"
    shared = torch.arange(8.0).view(4, 2)
    weights = {**WEIGHTS, "half": torch.ones(2, dtype=torch.bfloat16), "one": shared, "other": shared.t()}
    write_checkpoint(path, weights, {"mambair.arch": "MambaIR"})
    checkpoint = read_checkpoint(path)
    assert checkpoint.metadata == {"mambair.arch": "MambaIR"}
    assert checkpoint.source == str(path)
    assert checkpoint.state_dict.keys() == weights.keys()
    for name, tensor in weights.items():
        assert checkpoint.state_dict[name].dtype == tensor.dtype
        assert torch.equal(checkpoint.state_dict[name], tensor)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def small_net() -> nn.Module:
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    nn.init.zeros_(net[0].weight)
    return net


def test_all_faults_stand_in_one_message():
    net = small_net()
    state = {name: tensor + 1 for name, tensor in net.state_dict().items()}
    state["0.weigth"] = state.pop("0.weight")
    state["1.bias"] = torch.zeros(5)
    state["1.num_batches_tracked"] = torch.tensor(1.0)
    with pytest.raises(CheckpointError) as caught:
        load_weights(net, state)
    text = str(caught.value)
    assert "do not fit Sequential" in text
    assert "2 of another shape:\n  1.bias: the network has [2], the file [5]" in text
    assert "1.num_batches_tracked: the network has [] int64, the file []" in text
    assert "1 missing from the file:\n  0.weight (the file has 0.weigth)" in text
    assert "1 unknown to the network:\n  0.weigth" in text
    assert not net[1].running_mean.any(), "a refused file must leave the network alone"


def test_not_strict_copies_what_fits():
    net = small_net()
    state = {name: tensor + 1 for name, tensor in net.state_dict().items()}
    state["1.bias"] = torch.zeros(5)
    del state["1.weight"]
    state["new"] = torch.zeros(1)
    report = load_weights(net, state, strict=False)
    assert report.missing == ["1.weight"]
    assert report.unexpected == ["new"]
    assert report.mismatched == [("1.bias", "[2]", "[5]")]
    assert (net[0].weight == 1).all()
    assert (net[1].weight == 1).all()


def test_many_faults_are_counted_and_the_first_ones_shown():
    net = nn.Sequential(*(nn.Linear(1, 1) for _ in range(20)))
    with pytest.raises(CheckpointError, match=r"40 missing from the file:(\n.*){12}\n  and 28 more"):
        load_weights(net, {})


def test_weights_take_the_dtype_of_the_network():
    net = small_net()
    load_weights(net, {name: tensor.to(torch.float64) for name, tensor in net.state_dict().items()}, strict=False)
    assert net[0].weight.dtype == torch.float32
