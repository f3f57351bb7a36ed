"""The small trained weights that travel with the package, and which task each is for; the cards: docs/model_zoo.md."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent

# (task, scale for "sr", sigma for "denoise") -> file beside this one
PACKAGED: dict[tuple[str, int], str] = {
    ("sr", 4): "mambair_small_x4.safetensors",
    ("denoise", 25): "mambair_small_dn25.safetensors",
}

BEST = "best"  # what a command line says for `better_weights`
# the published networks that suit one machine: the light ones for enlarging
BETTER: dict[tuple[str, int], str] = {
    **{("sr", scale): f"MambaIRv2-light-x{scale}" for scale in (2, 3, 4)},
    ("denoise", 15): "MambaIRv2-color-dn-15",
    ("denoise", 25): "MambaIR-color-dn-25",
    ("denoise", 50): "MambaIR-color-dn-50",
    ("real_denoise", 0): "MambaIRUNet-real-dn",
}


def better_weights(task: str, degree: int) -> str | None:
    """The name of a published network that is better than the packaged one; arguments as of `default_weights`."""
    return BETTER.get((task, degree))


def default_weights(task: str, degree: int) -> Path:
    """The packaged weights for a task.

    Args:
        task: "sr" (super-resolution), "denoise", "jpeg" or "real_denoise".
        degree: the scale for "sr"; for "denoise" the noise level sigma, in grey levels of 255; 0 for the
            others.

    Returns:
        Path of an existing .safetensors file.

    Raises:
        ValueError: none is packaged for that; the message lists what there is.
        FileNotFoundError: the file is in the table but missing on disk.
    """
    name = PACKAGED.get((task, degree))
    if name is None:
        known = ", ".join(f"{task} {degree}" for task, degree in sorted(PACKAGED))
        wanted = f"{task} {degree}" if degree else task
        raise ValueError(f"no weights are packaged for {wanted} (there are: {known}); name a file: --weights FILE")
    path = FOLDER / name
    if not path.is_file():
        raise FileNotFoundError(f"{path}: the packaged weights are missing; install the package again")
    return path
