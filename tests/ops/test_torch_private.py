"""torch's private names: in one module, which is checked against the version of torch at hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch.autograd import forward_ad
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils.flop_counter import FlopCounterMode

from mambair.ops import backends, torch_private

HOME = "ops/torch_private.py"
STILL_ELSEWHERE = {"inference/memory.py"}  # counts live tensors in a dispatch mode
PRIVATE = re.compile(r"\b(torch|forward_ad)(\.\w+)*\._(?!_)\w+|from torch[\w.]* import _|_dynamo_marked")


def test_private_names_are_in_one_module(repository: Path) -> None:
    package = repository / "mambair"
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if any(PRIVATE.search(line) for line in path.read_text(encoding="utf-8").splitlines())
    }
    assert found - STILL_ELSEWHERE == {HOME}


def test_this_version_of_torch_was_seen() -> None:
    newest = tuple(map(int, torch_private.SEEN_IN.split(".")))
    here = tuple(map(int, torch.__version__.split(".")[:2]))
    if here > newest:
        pytest.skip(f"torch {torch.__version__} is newer: check torch_private.py with it, then raise SEEN_IN")
    assert here >= (2, 10), "the oldest that the package supports"


def test_an_operator_with_and_without_a_kernel() -> None:
    assert torch_private.has_kernel("aten::mm", "CPU")
    assert not torch_private.has_kernel("aten::mm", "AutogradNestedTensor")


def test_an_assertion_on_the_device() -> None:
    torch_private.assert_on_device(torch.tensor(True), "nothing")
    with pytest.raises(RuntimeError, match="a reason"):
        torch_private.assert_on_device(torch.tensor(False), "a reason")


def test_transformations_are_noticed() -> None:
    x = torch.ones(2)
    seen: list[bool] = []

    def function(x: torch.Tensor) -> torch.Tensor:
        seen.append(torch_private.is_transformed())
        return (x * x).sum()

    function(x)
    torch.func.grad(function)(x)
    torch.func.vmap(function)(x[None])
    with forward_ad.dual_level():
        function(x)
    function(x)
    assert seen == [False, True, True, True, False]


def test_the_choice_of_a_backend_is_a_constant_to_the_compiler() -> None:
    class Settings:
        value = 1.0

    def setting() -> float:
        return Settings.value

    torch_private.as_constant_when_compiled(setting)
    compiled = torch.compile(lambda x: x * setting(), backend="eager", fullgraph=True)
    assert compiled(torch.ones(1)).item() == 1.0
    Settings.value = 2.0
    assert compiled(torch.ones(1)).item() == 1.0, "traced again, not a constant"
    assert backends._choose._dynamo_marked_constant


def test_a_trace_is_noticed() -> None:
    seen: list[bool] = []

    def function(x: torch.Tensor) -> torch.Tensor:
        seen.append(torch_private.is_traced())
        return x + 1

    function(torch.ones(2))
    torch.jit.trace(function, torch.ones(2), check_trace=False)
    assert seen == [False, True]


def test_watchers_of_operations_are_noticed() -> None:
    assert not torch_private.is_watched()
    with FlopCounterMode(display=False):
        assert torch_private.is_watched()
    assert not torch_private.is_watched()


@pytest.mark.parametrize("register", [register_module_forward_hook, register_module_forward_pre_hook])
def test_global_hooks_are_noticed(register) -> None:
    assert not torch_private.has_global_hooks()
    handle = register(lambda *_: None)
    assert torch_private.has_global_hooks()
    handle.remove()
    assert not torch_private.has_global_hooks()
