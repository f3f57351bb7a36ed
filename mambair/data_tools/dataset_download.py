"""A data set by name, from the web to the folders the option files expect: fetched, verified, unpacked, counted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mambair.data.pairing import DatasetError
from mambair.data_tools.archives import refuse_escape, top_folders, unpack
from mambair.data_tools.catalogue import Part, RemoteDataset, RemoteFile
from mambair.images.files import SUFFIXES
from mambair.system.download import MOST_BYTES, DownloadError, Progress, download, no_progress
from mambair.system.lock_file import LOCK_NAME, LockError, LockFile, digests

logger = logging.getLogger(__name__)

DOWNLOADS = ".downloads"  # the folder of archives, below the root
MOST_IMAGE_BYTES = 2**28  # of a single image whose size no page states
FAULTS = (DatasetError, DownloadError, LockError)


@dataclass
class Outcome:
    """What became of one data set; ``by_hand`` tells what of it is left to the user."""

    dataset: RemoteDataset
    by_hand: str = ""
    done: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


class DatasetDownloads:
    """Fetches data sets below one root.

    Args:
        root: the folder of all data sets; the lock file lies in it.
        scales: the reductions that are wanted.
        attempts, pause: see `mambair.system.download.download`.
        progress: gives the callback for a file of that name.

    Raises:
        LockError: the lock file cannot be understood.
    """

    def __init__(
        self,
        root: Path,
        *,
        scales: Iterable[int] = (2, 3, 4),
        attempts: int = 5,
        pause: float = 1.0,
        progress: Callable[[str], Progress] = lambda name: no_progress,
    ) -> None:
        self.root = root
        self.scales = frozenset((1, *scales))
        self._unpacked_archives: set[Path] = set()
        self.attempts, self.pause = attempts, pause
        self.progress = progress
        self.lock = LockFile(root / LOCK_NAME)

    def wanted(self, dataset: RemoteDataset) -> dict[RemoteFile, list[Part]]:
        """The parts of a data set by the file they are in."""
        by_file: dict[RemoteFile, list[Part]] = {}
        for part in dataset.parts:
            if part.scale in self.scales:
                by_file.setdefault(part.file, []).append(part)
        return by_file

    def obtain(self, dataset: RemoteDataset) -> Outcome:
        """Fetch and unpack what of a data set is not there; one file that fails does not keep the others away."""
        outcome = Outcome(dataset, by_hand=dataset.by_hand)
        if not dataset.parts:
            outcome.failed.append(f"cannot be fetched by a program: {dataset.by_hand} ({dataset.page})")
        for file, parts in self.wanted(dataset).items():
            try:
                outcome.done += self._obtain_file(file, parts)
            except FAULTS as error:
                outcome.failed.append(str(error))
            except OSError as error:
                outcome.failed.append(f"{file.name}: {error}")
        return outcome

    def remove_archives(self) -> None:
        """Delete the archives that were unpacked; several data sets may have needed one."""
        for archive in self._unpacked_archives:
            archive.unlink(missing_ok=True)

    def _obtain_file(self, file: RemoteFile, parts: list[Part]) -> list[str]:
        if parts[0].prefix is None:
            return [self._obtain_image(file, parts[0])]
        missing = [part for part in parts if not self._is_unpacked(part)]
        if missing:
            for part in missing:  # known before anything is fetched
                refuse_escape(self.root / part.folder / file.name, self.root)
            archive = self.root / DOWNLOADS / file.name
            self._fetch(file, archive)
            self._unpack(archive, missing)
            self._unpacked_archives.add(archive)
        return [
            f"{part.folder}: {part.images} images" + ("" if part in missing else ", there already") for part in parts
        ]

    def _obtain_image(self, file: RemoteFile, part: Part) -> str:
        target = self.root / part.folder / Path(file.name).name
        there = target.is_file()
        self._fetch(file, target, most=MOST_IMAGE_BYTES)
        return f"{part.folder}/{target.name}" + (": there already" if there else "")

    def _fetch(self, file: RemoteFile, target: Path, *, most: int = MOST_BYTES) -> None:
        """Make ``target`` the verified file, of at most ``most`` bytes if no page states its size.

        One that lies there already is compared with what is known of it, and left as it is.

        Raises:
            DownloadError, LockError: it cannot be had, or is not what it should be.
            DatasetError: a link leads out of the folder of the data sets.
        """
        known = file.has_checksum or self.lock.sha256(file.name) is not None
        if target.is_file():
            self._verify(file, target)
            if not known:
                text = "%s was there already and no page states its checksum: not verified; sha256 recorded in %s"
                logger.warning(text, target, self.lock.path)
            return
        refuse_escape(target, self.root)
        arguments = {"attempts": self.attempts, "pause": self.pause, "progress": self.progress(file.name)}
        download(file.url, target, size=file.size, most=most, verified_later=known, **arguments)
        try:
            self._verify(file, target)
        except (DownloadError, LockError):
            rejected = target.with_name(f"{target.name}.rejected")
            target.replace(rejected)
            logger.warning("what was fetched is kept as %s; the next try starts over", rejected)
            raise

    def _verify(self, file: RemoteFile, target: Path) -> None:
        size = target.stat().st_size
        sha256, md5 = digests(target)
        stated = {"size": (file.size, size), "sha256": (file.sha256, sha256), "md5": (file.md5, md5)}
        wrong = [
            f"{key} {found}, expected {wanted}"
            for key, (wanted, found) in stated.items()
            if wanted not in (None, found)
        ]
        if wrong:
            raise DownloadError(f"{target}: {'; '.join(wrong)} (stated at {file.stated_at})")
        if self.lock.admit(file.name, file.url, size, sha256) and not file.has_checksum:
            address = "" if file.is_pinned else ", and its address is that of a branch, whose files may change"
            text = "%s: no page states a checksum%s; sha256 %s recorded in %s"
            logger.info(text, file.name, address, sha256, self.lock.path)

    def _is_unpacked(self, part: Part) -> bool:
        folder = self.root / part.folder
        if not self.lock.unpacked(_label(part)) or not folder.is_dir():
            return False
        return sum(path.suffix.lower() in SUFFIXES for path in folder.iterdir()) >= part.images

    def _unpack(self, archive: Path, parts: list[Part]) -> None:
        placements = {str(part.prefix): self.root / part.folder for part in parts}
        counts = unpack(archive, placements, within=self.root)
        for part in parts:
            found = counts[str(part.prefix)]
            if found != part.images:
                raise DatasetError(
                    f"{archive}: {found} images in {part.prefix}, expected {part.images}; it holds "
                    f"{', '.join(top_folders(archive))}"
                )
            self.lock.record_unpacked(_label(part), found)


def _label(part: Part) -> str:
    return f"{part.folder} of {part.file.name}: {part.prefix}"
