"""Where the images of a data set are: files of folders, or the contents of LMDBs, under one interface."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mambair.data.lmdb_store import LmdbReader, is_lmdb
from mambair.data.pairing import DatasetError, by_name, images_of, listed, names_in, pair_by_name
from mambair.images.decoded_image import ImageFileError
from mambair.images.files import EncodedImage, natural_key, read_encoded


class ImageSource:
    """The images that one key of a data set names.

    Attributes:
        key: the key (``dataroot_gt``), which begins every fault.
        roots: the folders or databases, in the order of the options.
        groups: the images of each, in natural order. The path of an image in a database is ``<database>/<name>``.

    Args:
        key: see above.
        roots: one folder or database, or several.
        backend: ``disk`` or ``lmdb``.
        recursive: also take the folders below the roots; databases are always taken whole.

    Raises:
        DatasetError: a root is missing, empty, or of the other kind.
    """

    def __init__(self, key: str, roots: str | Sequence[str], *, backend: str = "disk", recursive: bool = False) -> None:
        self.key = key
        self.roots = [Path(root) for root in ([roots] if isinstance(roots, str) else roots)]
        if not self.roots:
            raise DatasetError(f"{key}: names no folder")
        self._stores: dict[Path, tuple[LmdbReader, str]] = {}
        is_database = backend == "lmdb"
        self.groups = [
            self._of_database(root) if is_database else self._of_folder(root, recursive) for root in self.roots
        ]
        self._roots = {path: root for root, group in zip(self.roots, self.groups, strict=True) for path in group}

    @property
    def paths(self) -> list[Path]:
        """All images, root after root."""
        return [path for group in self.groups for path in group]

    def name(self, path: Path) -> str:
        """What pairs are found by: the path below its root without suffix, folders parted by ``/``."""
        if path in self._stores:
            return self._stores[path][1]
        return path.relative_to(self._roots[path]).with_suffix("").as_posix()

    def read(self, path: Path) -> EncodedImage:
        """The content of an image.

        Raises:
            ImageFileError: it cannot be read.
        """
        if path not in self._stores:
            return read_encoded(path)
        reader, key = self._stores[path]
        try:
            return EncodedImage(path, reader.get(key))
        except DatasetError as error:
            raise ImageFileError(str(error)) from error

    def close(self) -> None:
        """Close the databases in this process; reading opens them again."""
        for reader, _ in self._stores.values():
            reader.close()

    def select(self, meta_info_file: str) -> None:
        """Keep only the images that BasicSR's meta-info file names, in its order.

        Raises:
            DatasetError: the file is missing or empty, or names images that are not there.
        """
        self.choose(names_in(meta_info_file), meta_info_file)

    def choose(self, names: Sequence[str], file: str, key: str = "meta_info_file") -> None:
        """Keep only the images of these names, which ``file`` under ``key`` lists, in that order.

        Raises:
            DatasetError: images that are not there.
        """
        known = {self.name(path): path for path in reversed(self.paths) if path in self._stores}
        known |= {path.relative_to(self._roots[path]).as_posix(): path for path in reversed(self.paths)}
        missing = [name for name in names if name not in known]
        if missing:
            where = ", ".join(map(str, self.roots))
            raise DatasetError(f"{key}: {file} names files that {where} lacks: {listed(missing)}")
        chosen = [known[name] for name in names]
        self.groups = [[path for path in chosen if self._roots[path] == root] for root in self.roots]

    def _of_folder(self, root: Path, recursive: bool) -> list[Path]:
        if is_lmdb(root):
            raise DatasetError(f"{self.key}: {root} is an LMDB; write io_backend: {{type: lmdb}}")
        return images_of(self.key, root, recursive=recursive)

    def _of_database(self, root: Path) -> list[Path]:
        try:
            reader = LmdbReader(root)
        except DatasetError as error:
            raise DatasetError(f"{self.key}: {error}") from None
        keys = sorted(reader.keys(), key=lambda key: [natural_key(part) for part in reader.entry(key).name.split("/")])
        paths = [root / reader.entry(key).name for key in keys]
        self._stores |= {path: (reader, key) for path, key in zip(paths, keys, strict=True)}
        return paths


def pair_sources(gt: ImageSource, lq: ImageSource, filename_tmpl: str, *, is_subset: bool) -> list[tuple[Path, Path]]:
    """(ground truth, low quality) paths, root by root, paired by name, whatever the suffixes.

    Databases are paired by equal keys, as BasicSR does, where all keys have an equal one; else by ``filename_tmpl``.

    Args:
        gt, lq: the two sides, with equally many roots.
        filename_tmpl: last part of the partner's name, ``{}`` being that of the ground truth (``{}x4``).
        is_subset: the ground truth is a selection, so that other images of ``lq`` are no fault.

    Raises:
        DatasetError: another number of roots, an ambiguous name, or images without partner on either side.
    """
    if len(gt.roots) != len(lq.roots):
        text = f"found {len(lq.roots)} for {len(gt.roots)} of {gt.key}; one for each, in the same order, is right"
        raise DatasetError(f"{lq.key}: {text}")
    faults: list[str] = []
    pairs: list[tuple[Path, Path]] = []
    for root, gt_paths, lq_paths in zip(lq.roots, gt.groups, lq.groups, strict=True):
        ours = by_name(gt.key, [(gt.name(path), path) for path in gt_paths], faults)
        theirs = by_name(lq.key, [(lq.name(path), path) for path in lq_paths], faults)
        template = "{}" if is_lmdb(root) and ours.keys() <= theirs.keys() else filename_tmpl
        partners = pair_by_name(ours, theirs, template, faults, where=root, is_subset=is_subset)
        pairs += [(path, partners[path]) for path in gt_paths if path in partners]
    if faults:
        raise DatasetError(faults)
    return pairs
