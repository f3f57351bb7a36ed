"""Arguments checked against real signatures: names, missing ones, and types as far as they are annotated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest
import torch

from mambair.options.errors import FaultList
from mambair.options.signatures import check_arguments, in_words, matches


@pytest.mark.parametrize(
    ("value", "annotation", "fits"),
    [
        (1, int, True),
        (True, int, False),
        (1.0, int, False),
        (1, float, True),
        (True, float, False),
        ("1", float, False),
        (True, bool, True),
        (1, bool, False),
        ("a", str, True),
        (None, str, False),
        (None, str | None, True),
        ([1, 2], Sequence[int], True),
        ([1, "2"], Sequence[int], False),
        (1, Sequence[int], False),
        ("ab", Sequence[str], False),
        ([1, 2], tuple[int, ...], True),
        ([1, 2], tuple[int, int], True),
        ([1, 2, 3], tuple[int, int], False),
        ([0.9, 1], tuple[float | torch.Tensor, float | torch.Tensor], True),
        (["a", 1], tuple[float | torch.Tensor, float | torch.Tensor], False),
        ({"a": 1}, dict[str, int], True),
        ([], dict[str, int], False),
        ("a", Literal["a", "b"], True),
        ("c", Literal["a", "b"], False),
        (1, Literal[True], False),
        ("LayerNorm", Callable[[int], torch.nn.Module], False),
        ("LayerNorm", type[torch.nn.Module], False),
        ("x", torch.nn.Module, False),
        ({"a": 1}, Any, True),
    ],
    ids=str,
)
def test_matches(value: object, annotation: Any, fits: bool) -> None:
    assert matches(value, annotation) is fits


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int, "a whole number"),
        (str | None, "text or null"),
        (Sequence[int], "a list, each item a whole number"),
        (tuple[float, float], "a list of 2 values"),
        (float | torch.Tensor, "a number"),
        (Literal["a", "b"], "one of 'a', 'b'"),
        (dict[str, int], "a mapping"),
    ],
    ids=str,
)
def test_types_are_named_in_words(annotation: Any, words: str) -> None:
    assert in_words(annotation) == words


class Network:
    """Takes what it is given, like many a published class."""

    def __init__(
        self, depths: Sequence[int], embed_dim: int = 8, ratio: float = 2.0, bias=False, scale=2, **kwargs: Any
    ) -> None:
        self.arguments = (depths, embed_dim, ratio, bias, scale, kwargs)


@pytest.mark.parametrize(
    ("found", "faults"),
    [
        ({"type": "Network", "depths": [1]}, []),
        ({"depths": [1], "embed_dim": 16.0}, []),
        ({}, ["net: the required key net.depths is missing"]),
        (
            {"depths": [1], "embed_dims": 3},
            ["net.embed_dims: Network has no argument 'embed_dims'; did you mean embed_dim?"],
        ),
        ({"depths": 1}, ["net.depths: found 1; a list, each item a whole number is right"]),
        ({"depths": [1], "embed_dim": 2.5}, ["net.embed_dim: found 2.5; a whole number is right"]),
        ({"depths": [1], "bias": "yes"}, ["net.bias: found 'yes'; true or false is right"]),
        ({"depths": [1], "scale": "four"}, ["net.scale: found 'four'; a number or a list is right"]),
        (
            {"depths": [1], "self": 1},
            ["net.self: Network has no argument 'self'; known here: bias, depths, embed_dim, ratio, scale"],
        ),
    ],
    ids=["fits", "whole float", "missing", "misspelt", "no list", "fraction", "flag", "unannotated", "self"],
)
def test_check_arguments(found: dict[str, Any], faults: list[str]) -> None:
    collected = FaultList({}, "file.yml:1")
    check_arguments(Network, found, ("net",), collected)
    assert collected.lines() == [f"file.yml:1: {fault}" for fault in faults]


def test_a_whole_float_becomes_an_int() -> None:
    found = {"depths": [1], "embed_dim": 16.0, "ratio": 2.0}
    check_arguments(Network, found, ("net",), FaultList({}, "file.yml:1"))
    assert type(found["embed_dim"]) is int
    assert type(found["ratio"]) is float


def test_arguments_the_program_passes_are_neither_needed_nor_allowed() -> None:
    faults = FaultList({}, "file.yml:1")
    check_arguments(torch.optim.Adam, {"lr": 1e-4, "betas": [0.9, 0.99]}, ("o",), faults, given=frozenset({"params"}))
    assert faults.lines() == []
    check_arguments(torch.optim.Adam, {"params": []}, ("o",), faults, given=frozenset({"params"}))
    assert "Adam has no argument 'params'" in faults.lines()[0]
