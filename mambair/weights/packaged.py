"""The small trained weights that travel with the package, and which task each is for; the cards: docs/model_zoo.md."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parent

# (task, scale for "sr" and "photo", sigma for "denoise") -> file beside this one; a further network is a row and a file
PACKAGED: dict[tuple[str, int], str] = {
    ("sr", 4): "mambair_small_x4.safetensors",
    ("photo", 2): "mambair_small_photo_x2.safetensors",
    ("denoise", 25): "mambair_small_dn25.safetensors",
}

SCALED = ("sr", "photo")  # tasks whose degree is a scale: a result of any factor is made with the nearest
BEST = "best"  # what a command line says for `better_weights`
# the published networks that suit one machine: the light ones for enlarging
BETTER: dict[tuple[str, int], str] = {
    **{("sr", scale): f"MambaIRv2-light-x{scale}" for scale in (2, 3, 4)},
    ("denoise", 15): "MambaIRv2-color-dn-15",
    ("denoise", 25): "MambaIR-color-dn-25",
    ("denoise", 50): "MambaIR-color-dn-50",
    ("real_denoise", 0): "MambaIRUNet-real-dn",
}


def better_weights(task: str, degree: float) -> str | None:
    """The name of a published network that is better than the packaged one; arguments as in `default_weights`."""
    return BETTER.get((task, _nearest(task, degree, BETTER)))


def packaged_degrees(task: str) -> list[int]:
    """The degrees of a task for which weights are packaged, in ascending order; empty if there are none."""
    return sorted(degree for each, degree in PACKAGED if each == task)


def _nearest(task: str, degree: float, table: Iterable[tuple[str, int]]) -> int:
    """The scale of a table to make a factor with: the smallest that is not below it, else the largest."""
    scales = sorted(each for name, each in table if name == task) if task in SCALED else []
    return next((scale for scale in scales if scale >= degree), scales[-1] if scales else int(degree))


def default_weights(task: str, degree: float) -> Path:
    """The packaged weights for a task.

    Args:
        task: "sr" (super-resolution), "photo", "denoise", "jpeg" or "real_denoise".
        degree: the factor for "sr" and "photo", for which the weights of the nearest scale are given; for "denoise" the
            noise level sigma, in grey levels of 255; 0 for the others.

    Returns:
        Path of an existing .safetensors file.

    Raises:
        ValueError: none is packaged for that; the message lists what there is.
        FileNotFoundError: the file is in the table but missing on disk.
    """
    name = PACKAGED.get((task, _nearest(task, degree, PACKAGED)))
    if name is None:
        known = ", ".join(f"{task} {degree}" if degree else task for task, degree in sorted(PACKAGED))
        wanted = f"{task} {degree:g}" if degree else task
        raise ValueError(f"no weights are packaged for {wanted} (there are: {known}); name a file: --weights FILE")
    path = FOLDER / name
    if not path.is_file():
        raise FileNotFoundError(f"{path}: the packaged weights are missing; install the package again")
    return path
