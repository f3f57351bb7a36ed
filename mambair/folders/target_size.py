"""The size of results that a user asks for, whatever the scale of the network."""

from __future__ import annotations

from dataclasses import asdict, dataclass

LARGEST_FACTOR = 32.0
SMALLEST_FACTOR = 0.01
LARGEST_SIDE = 200_000


@dataclass(frozen=True)
class TargetSize:
    """A size of results, by a factor, the longest side, or width and height; proportions are kept.

    Attributes:
        factor: of enlargement, 0.01 to 32.
        longest_side: pixels of the longer side.
        width, height: pixels; if both are given, the result is the largest that has no more of either.

    Raises:
        ValueError: a number out of its range, none of them, or a combination that says two things.
    """

    factor: float | None = None
    longest_side: int | None = None
    width: int | None = None
    height: int | None = None

    def __post_init__(self) -> None:
        ways = {
            "scale": self.factor is not None,
            "longest-side": self.longest_side is not None,
            "width and height": self.width is not None or self.height is not None,
        }
        given = [name for name, is_given in ways.items() if is_given]
        if len(given) != 1:
            raise ValueError(
                f"sizes contradict each other: give one of {', '.join(ways)}, got {' and '.join(given) or 'none'}"
            )
        if self.factor is not None and not SMALLEST_FACTOR <= self.factor <= LARGEST_FACTOR:
            rule = f"from {SMALLEST_FACTOR:g} to {LARGEST_FACTOR:g}"
            raise ValueError(f"scale: must be a number {rule}, got {self.factor:g}")
        for name, side in (("longest-side", self.longest_side), ("width", self.width), ("height", self.height)):
            if side is not None and not 1 <= side <= LARGEST_SIDE:
                raise ValueError(f"{name}: must be from 1 to {LARGEST_SIDE} pixels, got {side}")

    def of(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the result of an image of that size, each rounded and at least 1."""
        factor = self.factor_of(height, width)
        return _rounded(height * factor), _rounded(width * factor)

    def factor_of(self, height: int, width: int) -> float:
        """The factor of enlargement of an image of that size."""
        if self.factor is not None:
            return self.factor
        if self.longest_side is not None:
            return self.longest_side / max(height, width)
        limits = ((self.width, width), (self.height, height))
        return min(wanted / side for wanted, side in limits if wanted is not None)

    @property
    def marker(self) -> str:
        """What names of results end in: ``_x2``, ``_4000px``, ``_1920x1080``, ``_w1920``, ``_h1080``."""
        if self.factor is not None:
            return f"_x{self.factor:g}"
        if self.longest_side is not None:
            return f"_{self.longest_side}px"
        if self.width is not None and self.height is not None:
            return f"_{self.width}x{self.height}"
        return f"_w{self.width}" if self.width is not None else f"_h{self.height}"

    def __str__(self) -> str:
        """As people say it: ``x2``, ``4000 pixels on the longer side``, ``within 1920 x 1080 pixels``."""
        if self.factor is not None:
            return f"x{self.factor:g}"
        if self.longest_side is not None:
            return f"{self.longest_side} pixels on the longer side"
        if self.width is not None and self.height is not None:
            return f"within {self.width} x {self.height} pixels"
        return f"{self.width} pixels wide" if self.width is not None else f"{self.height} pixels high"

    def settings(self) -> dict[str, float]:
        """What is given, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def _rounded(side: float) -> int:
    return max(1, int(side + 0.5))
