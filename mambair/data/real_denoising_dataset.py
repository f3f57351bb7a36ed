"""Real noise: photographs of a scene with a camera's noise, and clean ones, as in SIDD."""

from __future__ import annotations

from pathlib import Path

from mambair.data.dataset_options import RealDenoisingOptions
from mambair.data.paired_image_dataset import PairedImageDataset
from mambair.data.pairing import DatasetError, listed
from mambair.data.sources import ImageSource
from mambair.registry import DATASET_REGISTRY


@DATASET_REGISTRY.register()
class RealDenoisingDataset(PairedImageDataset):
    """Noisy photographs and their clean partners, of one size.

    With ``dataroot_lq`` the noisy ones are in a folder of their own, paired by name. Without, both are in
    ``dataroot_gt`` and the folders below it, one folder for each scene, told apart by a word in their names: a noisy
    image belongs to the clean one whose name differs in that word alone (SIDD: ``0001_NOISY_SRGB_010.PNG``,
    ``0001_GT_SRGB_010.PNG``), or else to the only clean one of its folder, which may have many noisy ones.
    """

    Options = RealDenoisingOptions

    def _find_files(self) -> None:
        if self.options.dataroot_lq is not None:
            super()._find_files()
            return
        self._lq_key = "dataroot_gt"
        backend = self.options.io_backend.type
        source = ImageSource("dataroot_gt", self.options.dataroot_gt, backend=backend, recursive=True)
        self.sources["dataroot_gt"] = source
        if self.options.meta_info_file is not None:
            source.select(self.options.meta_info_file)
        self.gt_paths, self.lq_paths = [], []
        faults: list[str] = []
        for paths in source.groups:
            pairs = scene_pairs(paths, self.options.gt_word, self.options.lq_word, faults)
            self.gt_paths += [clean for clean, _ in pairs]
            self.lq_paths += [noisy for _, noisy in pairs]
        if faults:
            raise DatasetError(faults)


def scene_pairs(paths: list[Path], gt_word: str, lq_word: str, faults: list[str]) -> list[tuple[Path, Path]]:
    """(clean, noisy) pairs of scene folders, in the order of the noisy images.

    Args:
        paths: all images.
        gt_word, lq_word: what names of clean and of noisy images contain.
        faults: gets one line for noisy images without a partner, for clean ones that nobody needs, and if there are
            no noisy ones at all.
    """
    noisy = [path for path in paths if lq_word in path.name]
    clean = [path for path in paths if gt_word in path.name and lq_word not in path.name]
    in_folder: dict[Path, list[Path]] = {}
    for path in clean:
        in_folder.setdefault(path.parent, []).append(path)
    by_stem = {(path.parent, path.stem): path for path in clean}
    pairs, lonely = [], []
    for path in noisy:
        partner = by_stem.get((path.parent, path.stem.replace(lq_word, gt_word)))
        candidates = in_folder.get(path.parent, [])
        if partner is None and len(candidates) == 1:
            partner = candidates[0]
        if partner is None:
            lonely.append(path.name)
        else:
            pairs.append((partner, path))
    if not noisy:
        faults.append(f"dataroot_gt: no image has lq_word ({lq_word}) in its name; is it right?")
    if lonely:
        hint = f"a clean one has gt_word ({gt_word}) in place of lq_word ({lq_word}), or is the only one of its folder"
        faults.append(f"dataroot_gt: no clean image for {listed(lonely)}; {hint}")
    used = {partner for partner, _ in pairs}
    unused = [path.name for path in clean if path not in used]
    if noisy and unused:
        faults.append(f"dataroot_gt: no noisy image for {listed(unused)}")
    return pairs
