"""Keys of other people's option files: those without effect here, those only BasicSR's models read, and ``task``."""

from __future__ import annotations

import logging
from typing import Any

from mambair.options.errors import KeyPath, dotted

logger = logging.getLogger(__name__)

# THE table of keys that published option files pass and the published classes ignore: dropped with one warning.
# A key counts only where the class in question does not know it: `window_size` means something to MambaIRv2.
IGNORED: dict[str, frozenset[str]] = {
    "network_g of MambaIR": frozenset({"window_size", "interval", "num_heads"}),
    "network_g of MambaIRUNet": frozenset({"window_size", "interval", "heads"}),
    "datasets": frozenset(
        {"task", "noise", "use_shuffle", "prefetch_mode", "num_prefetch_queue", "persistent_workers"}
    ),
    "val": frozenset({"selfensemble_testing", "patchwise_testing", "pbar"}),
    "path": frozenset({"ignore_resume_networks"}),
    "": frozenset({"dist_params", "find_unused_parameters"}),
}

# Read by model types of basicsr (SRGANModel ...), and passed on unchecked to them alone.
BASICSR_ONLY: dict[str, frozenset[str]] = {
    "": frozenset({"network_d", "dist_params", "find_unused_parameters"}),
    "path": frozenset({"pretrain_network_d", "strict_load_d", "param_key_d", "ignore_resume_networks"}),
    "train": frozenset({"optim_d", "gan_opt", "perceptual_opt", "ldl_opt"}),
    "val": frozenset({"pbar"}),
}


class Dropped:
    """Takes ignored keys out of mappings and names them all in one warning."""

    def __init__(self) -> None:
        self._keys: list[str] = []
        self._notes: dict[KeyPath, str] = {}

    def note(self, path: KeyPath, text: str) -> None:
        """What is done instead, for a key that is going to be taken out."""
        self._notes[path] = text

    def take_out(self, mapping: dict[str, Any], path: KeyPath, ignored: frozenset[str]) -> None:
        """Remove the ``ignored`` keys from ``mapping``, which stands at ``path``."""
        for key in [key for key in mapping if key in ignored]:
            del mapping[key]
            note = self._notes.get((*path, key))
            self._keys.append(dotted((*path, key)) + (f" ({note})" if note else ""))

    def warn(self, name: str) -> None:
        """One warning for everything that was taken out of the option file ``name``."""
        if self._keys:
            logger.warning("%s: these keys have no effect here and are left out: %s", name, ", ".join(self._keys))


def apply_task(options: dict[str, Any], path: KeyPath, dropped: Dropped) -> None:
    """Change the keys of a PairedImageDataset to what its ``task`` makes of it in the published code.

    One class serves all tasks there; here each task has a class of its own.

    There, ``denoising_color`` and ``denoising_gray`` with one folder given twice add noise of level ``noise`` to its
    images, and ``denoising_gray`` and ``CAR`` read one channel. Other tasks change nothing.
    """
    task, noise = options.get("task"), options.get("noise")
    if options.get("type") != "PairedImageDataset" or task not in ("denoising_color", "denoising_gray", "CAR"):
        return
    if task != "denoising_color":
        options.setdefault("color", "gray")
    is_noise_added = options.get("dataroot_lq") in (None, options.get("dataroot_gt"))
    if task != "CAR" and is_noise_added and isinstance(noise, int | float):
        for key in ("dataroot_lq", "filename_tmpl"):
            options.pop(key, None)
        options |= {"type": "GaussianDenoisingDataset", "sigma": noise}
        dropped.note((*path, "task"), f"run as GaussianDenoisingDataset with sigma {noise}")
