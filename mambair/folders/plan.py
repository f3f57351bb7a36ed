"""Which file of a folder is restored, and what its result is called: nothing lost, and no result taken as input."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from mambair.folders.manifest import NAME
from mambair.images.encode import FORMAT_OF_SUFFIX
from mambair.images.files import SUFFIXES, list_images
from mambair.images.formats import passed_over_text


class PlanError(ValueError):
    """Input and output do not make a job; the message says what to change."""


@dataclass(frozen=True)
class Job:
    """One file to restore and where the result goes."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        jobs: in the natural order of their names; no two have the same target, and no target is a source.
        folder: the folder that everything is written in.
        notes: what the user should know, a line each.
        unreadable: folders that cannot be listed, and why.
    """

    jobs: list[Job]
    folder: Path
    notes: list[str] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)


def plan_jobs(
    source: Path,
    output: Path,
    *,
    format: str = "png",
    suffix: str = "",
    same_folder_suffix: str = "_restored",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> Plan:
    """Decide which files are restored, and the name of each result.

    A folder is walked recursively and its tree is kept; files whose name does not say image are left out, so are hidden
    ones, and whatever lies in the output folder. Two sources that would get one name (a.png, a.jpg) keep both, as
    a.png and a_jpg.png. If the output folder is the input folder, results get a suffix and are no inputs next time.

    Args:
        source: an image, or a folder.
        output: the folder for the results; for a single image it may also be a file name with an image suffix.
        format: suffix of the results without the dot: png, jpg, tif, webp, ...
        suffix: what to append to the names, before the dot.
        same_folder_suffix: the suffix taken where input and output folder are the same and ``suffix`` is empty.
        include: patterns of which a file of the folder must match one, if there are any: its name, or for a pattern
            with a slash its path in the folder (``*`` stands for slashes, too). Case counts.
        exclude: patterns of which it may match none.

    Raises:
        PlanError: nothing there, no image in it, or an output that cannot be.
    """
    ending = "." + format.lower().removeprefix(".")
    if ending not in FORMAT_OF_SUFFIX:
        raise PlanError(f"format: must be one of {', '.join(known[1:] for known in FORMAT_OF_SUFFIX)}, got {format!r}")
    if set(suffix) & {"/", os.sep, "\0"}:
        raise PlanError(f"suffix: becomes part of a file name, so it may have no separator, got {suffix!r}")
    if not source.exists():
        raise PlanError(f"input: there is no file or folder {printable(source)}")
    notes: list[str] = []
    unreadable: list[tuple[Path, str]] = []
    if source.is_dir():
        folder = source
        sources, unreadable, endings = _listed(source, output, include, exclude)
        sources, notes = _outside(sources, source, output)
        if endings:
            notes.append(passed_over_text(endings))
    elif output.suffix.lower() in FORMAT_OF_SUFFIX and not output.is_dir():
        if real(output) == real(source):
            raise PlanError(f"output: {printable(output)} is the input itself; choose another name")
        return Plan([Job(source, output)], output.parent)
    else:
        folder, sources = source.parent, [source]
    if output.exists() and not output.is_dir():
        raise PlanError(f"output: {printable(output)} is a file; name a folder")
    if real(folder) == real(output):
        if not suffix:
            suffix = same_folder_suffix
            notes.append(f"the results lie beside their inputs, so their names end in {suffix!r}")
        if source.is_dir():
            sources = _without_results(sources, suffix)
    if not sources and not unreadable:
        filters = " that --include and --exclude leave" if include or exclude else ""
        raise PlanError(f"input: no image in {printable(source)}{filters} (looked for {', '.join(SUFFIXES)})")
    targets, renamed = _targets(sources, folder, output, suffix, ending)
    jobs = [Job(*pair) for pair in zip(sources, targets, strict=True)]
    return Plan(jobs, output, [*notes, *renamed], unreadable)


def _listed(
    folder: Path, output: Path, include: Sequence[str], exclude: Sequence[str]
) -> tuple[list[Path], list[tuple[Path, str]], Counter[str]]:
    """The images under a folder that the patterns leave; folders that cannot be read, and why; endings of the rest."""
    unreadable: list[tuple[Path, str]] = []
    others: list[Path] = []
    paths = list_images(
        folder,
        recursive=True,
        unreadable=lambda error: unreadable.append(_folder_fault(error)),
        passed_over=others.append,
    )
    sources, rest = (
        [path for path in found if _is_wanted(path.relative_to(folder).as_posix(), include, exclude)]
        for found in (paths, others)
    )
    rest, _ = _outside(rest, folder, output)
    return sources, unreadable, Counter(path.suffix.lower() for path in rest if path.name != NAME)


def _is_wanted(path: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    name = path.rpartition("/")[2]

    def matches(pattern: str) -> bool:
        return fnmatchcase(path if "/" in pattern else name, pattern)

    return (not include or any(map(matches, include))) and not any(map(matches, exclude))


def _folder_fault(error: OSError) -> tuple[Path, str]:
    return Path(error.filename), f"the folder cannot be listed ({error.strerror})"


def _outside(sources: list[Path], folder: Path, output: Path) -> tuple[list[Path], list[str]]:
    """The images of ``folder`` that do not lie in the output folder, and a note where some do."""
    results = real(output)
    if results == real(folder) or not is_within(results, real(folder)):
        return sources, []
    parents = {parent: is_within(real(parent), results) for parent in {path.parent for path in sources}}
    kept = [path for path in sources if not parents[path.parent]]
    left_out = len(sources) - len(kept)
    return kept, [f"{left_out} images in the output folder are not taken as input"] if left_out else []


def _without_results(sources: list[Path], suffix: str) -> list[Path]:
    """Drop the files that are results of others: same folder, same name but for ``suffix``, any image format."""
    kept: list[Path] = []
    results: set[Path] = set()
    # a result's name is longer than its source's
    for path in sorted(sources, key=lambda path: len(path.stem)):
        if path.with_suffix("") not in results:
            kept.append(path)
            results |= {path.with_name(stem + suffix) for stem in (path.stem, _full_stem(path))}
    wanted = set(kept)
    return [path for path in sources if path in wanted]


def _targets(sources: list[Path], folder: Path, output: Path, suffix: str, ending: str) -> tuple[list[Path], list[str]]:
    """A target for each source, all different and none of them a source; and a note for each that was renamed."""
    plain = [output / path.relative_to(folder).parent / f"{path.stem}{suffix}{ending}" for path in sources]
    claims: dict[Path, list[Path]] = {}
    for path, target in zip(sources, plain, strict=True):
        claims.setdefault(target, []).append(path)
    taken = {real(path) for path in sources}
    targets: dict[Path, Path] = {}
    for target, claimants in claims.items():
        # the one that has the format of the results already keeps the plain name; if there are two, neither does
        of_format = [path for path in claimants if path.suffix == ending]
        owner = claimants[0] if len(claimants) == 1 else of_format[0] if len(of_format) == 1 else None
        if owner is not None and real(target) not in taken:
            targets[owner] = target
            taken.add(real(target))
    notes = []
    for path, target in zip(sources, plain, strict=True):
        if path not in targets:
            targets[path] = _free_name(target, f"{_full_stem(path)}{suffix}", taken)
            taken.add(real(targets[path]))
            notes.append(f"{printable(path)}: written as {printable(targets[path].name)}, as its own name is taken")
    return [targets[path] for path in sources], notes


def _full_stem(path: Path) -> str:
    """``a.jpg`` -> ``a_jpg``."""
    return f"{path.stem}_{path.suffix[1:]}" if path.suffix else path.stem


def _free_name(target: Path, stem: str, taken: set[str]) -> Path:
    candidates = (target.with_name(stem + number + target.suffix) for number in _numbers())
    return next(path for path in candidates if real(path) not in taken)


def _numbers() -> Iterator[str]:
    yield ""
    number = 2
    while True:
        yield f"_{number}"
        number += 1


def real(path: Path) -> str:
    """The path with every link followed, as text; what does not exist yet is kept as it is."""
    return os.path.realpath(path)


def is_within(path: str, folder: str) -> bool:
    """Whether ``path`` is ``folder`` or lies in it; both as ``real`` gives them."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def printable(text: object) -> str:
    """``text`` on one line that any terminal takes: names with line breaks or broken bytes are quoted."""
    plain = str(text)
    return plain if plain.isprintable() else ascii(plain)
