"""Sizes of results: what each way of asking gives, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from mambair.folders.target_size import TargetSize

SIZES: dict[str, tuple[dict[str, Any], tuple[int, int], tuple[int, int], str]] = {
    "x2": ({"factor": 2.0}, (300, 200), (600, 400), "_x2"),
    "x1.5 rounds half up": ({"factor": 1.5}, (3, 5), (5, 8), "_x1.5"),
    "never nothing": ({"factor": 0.01}, (20, 9), (1, 1), "_x0.01"),
    "longest side, upright": ({"longest_side": 4000}, (3000, 2000), (4000, 2667), "_4000px"),
    "longest side, lying": ({"longest_side": 4000}, (2000, 3000), (2667, 4000), "_4000px"),
    "longest side, smaller": ({"longest_side": 10}, (2000, 3000), (7, 10), "_10px"),
    "width": ({"width": 1000}, (300, 200), (1500, 1000), "_w1000"),
    "height": ({"height": 1000}, (300, 200), (1000, 667), "_h1000"),
    "both, height decides": ({"width": 1000, "height": 600}, (300, 200), (600, 400), "_1000x600"),
    "both, width decides": ({"width": 400, "height": 900}, (300, 200), (600, 400), "_400x900"),
}


@pytest.mark.parametrize(("asked", "size", "expected", "marker"), SIZES.values(), ids=SIZES)
def test_sizes(asked: dict[str, Any], size: tuple[int, int], expected: tuple[int, int], marker: str) -> None:
    target = TargetSize(**asked)
    assert target.of(*size) == expected
    assert target.marker == marker
    assert target.settings() == asked


CONTRADICTION = "sizes contradict each other: give one of scale, longest-side, width and height, got "
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, CONTRADICTION + "none"),
    "two": ({"factor": 2.0, "width": 9}, CONTRADICTION + "scale and width and height"),
    "sides": ({"longest_side": 8, "height": 9}, CONTRADICTION + "longest-side and width and height"),
    "factor too large": ({"factor": 33.0}, "scale: must be a number from 0.01 to 32, got 33"),
    "factor too small": ({"factor": 0.001}, "scale: must be a number from 0.01 to 32, got 0.001"),
    "no number": ({"factor": float("nan")}, "scale: must be a number from 0.01 to 32, got nan"),
    "side": ({"longest_side": 200_001}, "longest-side: must be from 1 to 200000 pixels, got 200001"),
    "width": ({"width": 0}, "width: must be from 1 to 200000 pixels, got 0"),
}


@pytest.mark.parametrize(("asked", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        TargetSize(**asked)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"factor": 1.5}, "x1.5"),
        ({"longest_side": 40}, "40 pixels on the longer side"),
        ({"width": 4}, "4 pixels wide"),
        ({"height": 5}, "5 pixels high"),
        ({"width": 4, "height": 5}, "within 4 x 5 pixels"),
    ],
)
def test_in_words(asked: dict[str, Any], text: str) -> None:
    assert str(TargetSize(**asked)) == text
