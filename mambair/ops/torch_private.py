"""The private names of torch that this package uses, because torch has no public ones for what they do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.modules import module

SEEN_IN = "2.14"
"""The newest version of torch whose private names were checked against this module."""


def has_kernel(operator: str, key: str) -> bool:
    """Whether an operator ("mambair::ss2d_scan") has an implementation of its own for a dispatch key ("CPU")."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(operator, key)


def is_transformed() -> bool:
    """Whether torch.func or forward-mode differentiation is active."""
    functorch = torch._C._functorch  # type: ignore[attr-defined]
    return forward_ad._current_level >= 0 or functorch.peek_interpreter_stack() is not None


def is_traced() -> bool:
    """Whether torch.jit.trace is at work."""
    return torch._C._get_tracing_state() is not None


def is_watched() -> bool:
    """Whether a mode of torch's dispatcher sees every operation, as those of profilers and exporters do."""
    return torch._C._len_torch_dispatch_stack() > 0


def has_global_hooks() -> bool:
    """Whether someone listens to the forward pass of every module."""
    return bool(module._global_forward_hooks or module._global_forward_pre_hooks)


def assert_on_device(condition: Tensor, message: str) -> None:
    """Check a tensor of one boolean without waiting for the device; on a GPU, a later call raises the error."""
    torch.ops.aten._assert_async.msg(condition, message)


def as_constant_when_compiled(function: Callable[..., Any]) -> None:
    """Mark a function whose result torch.compile takes as a constant, without a look inside.

    This is the mark of `torch.compiler.assume_constant_result`; calling that imports the whole compiler.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
