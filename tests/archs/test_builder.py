"""`mambair.archs.build`: a name and arguments become a network, or an error that names the argument."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mambair.archs import BuildError, MambaIR, build
from mambair.registry import ARCH_REGISTRY


@ARCH_REGISTRY.register(name="AnyArgumentsForTests")
class AnyArguments(nn.Module):
    """As some of basicsr's: a sink of arguments, and an annotation that cannot be resolved."""

    def __init__(self, width: Width = 4, **others: Any) -> None:  # type: ignore[name-defined]  # noqa: F821
        super().__init__()
        self.width, self.others = width + 1, others


def test_a_network() -> None:
    net = build("MambaIR", {"embed_dim": 8, "depths": (1,), "upscale": 2, "upsampler": "pixelshuffle"})
    assert isinstance(net, MambaIR) and net.training and net.upscale == 2
    assert net.conv_first.weight.shape[0] == 8


def test_on_the_meta_device() -> None:
    net = build("MambaIR", {"embed_dim": 8, "depths": (1,)}, device="meta")
    assert all(parameter.is_meta for parameter in net.parameters())
    assert torch.zeros(1).device.type == "cpu"


def test_a_sink_of_arguments_takes_any() -> None:
    net = build("AnyArgumentsForTests", {"depth": 3})
    assert (net.width, net.others) == (5, {"depth": 3})


@pytest.mark.parametrize(
    ("name", "kwargs", "reason"),
    [
        ("MambaIRR", {}, "no architecture named 'MambaIRR'; did you mean 'MambaIR"),
        ("MambaIR", {"depth": 2}, "it has no argument 'depth'; did you mean 'depths'?"),
        ("MambaIR", {"zzz": 2}, "it has no argument 'zzz'; it takes img_size, patch_size, in_chans,"),
        ("MambaIR", {"embed_dim": "60"}, "embed_dim must be int, got '60'"),
        ("MambaIR", {"depths": 3}, "depths must be Sequence[int], got 3"),
        ("MambaIR", {"mlp_ratio": None}, "mlp_ratio must be float, got None"),
        ("MambaIR", {"embed_dim": -4}, "Trying to create tensor with negative dimension -4"),
        ("MambaIR", {"embed_dim": 10**12}, "Storage size calculation overflowed"),
        ("MambaIR", {"upsampler": "x"}, "MambaIR has no upsampler 'x'"),
        ("MambaIRUNet", {"dim": 7}, "dim must be even, got 7"),
        ("MambaIRv2", {"depths": [1]}, "num_heads and depths must have one entry a group"),
        ("VisionMamba", {"depth": 0}, "depth must be at least 1, got 0"),
        ("AnyArgumentsForTests", {"width": "a"}, 'can only concatenate str (not "int") to str'),
    ],
)
def test_refusals(name: str, kwargs: dict[str, Any], reason: str) -> None:
    with pytest.raises(BuildError) as caught:
        build(name, kwargs, device="meta")
    assert caught.value.reason.startswith(reason)
    assert str(caught.value).endswith(caught.value.reason)
    for key, value in kwargs.items():
        assert f"{name}({key}={value!r}) cannot be built: " in str(caught.value)


def test_a_message_has_a_limit() -> None:
    with pytest.raises(BuildError, match=r"\.\.\.\) cannot be built: it has no argument 'zzz'") as caught:
        build("MambaIR", {"depths": [6] * 500, "zzz": 1})
    assert len(str(caught.value)) < 700


def test_backbones_are_known(repository: Path) -> None:
    """In a fresh interpreter, where nothing else has imported them."""
    code = (
        f"import sys; sys.path.insert(0, {str(repository)!r})\n"
        "from mambair.archs import build\n"
        "assert 'mambair.backbones' not in sys.modules or 'timm' not in sys.modules\n"
        "print(type(build('VSSM', {'depths': (1,), 'dims': 8}, device='meta')).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.strip() == "VSSM", done.stderr[-2000:]
