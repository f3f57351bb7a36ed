"""A cache of functions that make tensors, which keeps none of the stand-ins that tracing makes."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


def is_traced() -> bool:
    """Return whether new tensors are stand-ins without content, as torch.export and FakeTensorMode make them."""
    return type(torch.empty(0)) is not torch.Tensor


def tensor_cache(maxsize: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorate a function of hashable arguments: its last ``maxsize`` results are kept.

    Nothing is kept where `is_traced` is true.
    """

    def decorate(make: Callable[P, T]) -> Callable[P, T]:
        kept = lru_cache(maxsize)(make)

        @wraps(make)
        def cached(*args: P.args, **kwargs: P.kwargs) -> T:
            return (make if is_traced() else kept)(*args, **kwargs)  # type: ignore[arg-type]

        return cached

    return decorate
