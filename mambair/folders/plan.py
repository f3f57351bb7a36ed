"""Which file of a folder is restored, and what its result is called: nothing lost, and no result taken as input."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from mambair.folders.manifest import NAME
from mambair.folders.names import (
    DEFAULT_FORMAT,
    SAME,
    check_quality,
    ending_of,
    file_name,
    full_stem,
    names_a_file,
    refuse_addresses,
    result_stem,
)
from mambair.images.files import SUFFIXES, list_images
from mambair.images.formats import passed_over_text
from mambair.system.console import printable
from mambair.system.errors import RequestError
from mambair.system.path_gate import is_within

_SHOWN = 3  # names in a note
COMPARISON = "_compare"  # what names of pictures of before and after end in


@dataclass(frozen=True)
class Job:
    """One file to restore and where the result goes.

    Attributes:
        source, target: paths.
        name: of the source in the input folder, with ``/``; what records call it.
    """

    source: Path
    target: Path
    name: str = ""


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        jobs: in the natural order of their names; no two have the same target, and no target is a source.
        folder: the folder that everything is written in.
        notes: what the user should know, a line each.
        unreadable: folders that cannot be listed, and why.
        names_a_file: whether the output is the name of the one result, not a folder.
    """

    jobs: list[Job]
    folder: Path
    notes: list[str] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)
    names_a_file: bool = False


def plan_jobs(
    source: Path,
    output: Path,
    *,
    format: str | None = None,
    quality: int | None = None,
    suffix: str = "",
    same_folder_suffix: str = "_restored",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> Plan:
    """Decide which files are restored, and the name of each result.

    A folder is walked recursively and its tree is kept; files whose name does not say image are left out, so are hidden
    ones, and whatever lies in the output folder. Two sources that would get one name (a.png, a.jpg) keep both, as
    a.png and a_jpg.png. If the output folder is the input folder, results get a suffix and are no inputs next time.
    A name that would be too long for a file system is cut, and ends in a digest of itself.

    Args:
        source: an image, or a folder.
        output: the folder for the results; for a single image it may also be a file name with an image suffix.
        format: suffix of the results without the dot: png (the default), jpg, tif, webp, ...; same: that of each input.
        quality: of the results; checked against their format.
        suffix: what to append to the names, before the dot.
        same_folder_suffix: the suffix taken where input and output folder are the same and ``suffix`` is empty.
        include: patterns of which a file of the folder must match one, if there are any: its name, or for a pattern
            with a slash its path in the folder (``*`` stands for slashes, too). Case counts.
        exclude: patterns of which it may match none.

    Raises:
        RequestError: nothing there, no image in it, an output that cannot be, or a setting that cannot apply.
    """
    ending_of(format, source)  # an unknown format is reported first
    if set(suffix) & {"/", os.sep, "\0"}:
        raise RequestError(f"suffix: becomes part of a file name, so it may have no separator, got {suffix!r}")
    refuse_addresses(source, output)
    notes: list[str] = []
    unreadable: list[tuple[Path, str]] = []
    if source.is_dir():
        folder = source
        sources, unreadable, notes = _listed(source, output, include, exclude)
        sources, left_out = _outside(sources, source, output)
        notes += left_out
    else:
        folder, sources = source.parent, [source]
    if names_a_file(output, source):
        return _plan_of_a_file(source, output, format, quality, suffix)
    if output.exists() and not output.is_dir():
        raise RequestError(f"output: {printable(output)} is a file; name a folder")
    if real(folder) == real(output):
        if not suffix:
            suffix = same_folder_suffix
            notes.append(f"the results lie beside their inputs, so their names end in {suffix!r}")
        if source.is_dir():
            sources = _without_results(sources, suffix)
    if not sources and not unreadable:
        filters = " that --include and --exclude leave" if include or exclude else ""
        raise RequestError(
            f"input: no image in {printable(source)}{filters} (looked for {', '.join(SUFFIXES)})"
            + "".join(f"; {note}" for note in notes)
        )
    endings = {path: ending_of(format, path) for path in sources}
    check_quality(quality, endings.values())
    targets, renamed = _targets(sources, folder, output, suffix, endings)
    names = [path.relative_to(folder).as_posix() for path in sources]
    jobs = [Job(*each) for each in zip(sources, targets, names, strict=True)]
    return Plan(jobs, output, [*notes, *_changed(endings, format), *renamed], unreadable)


def plan_beside(
    source: Path, suffix: str, *, format: str | None = None, quality: int | None = None, may_exist: bool = False
) -> Plan:
    """Decide on the name of the result of one image that lies beside it.

    Args:
        source: an image.
        suffix: what its name gets, before the dot.
        format: see `plan_jobs`; None is the same.
        quality: of the result; checked against its format.
        may_exist: whether a file of that name may be there already.

    Raises:
        RequestError: no such file, a file of that name, or a setting that cannot apply.
    """
    refuse_addresses(source, source)
    ending = ending_of(format or SAME, source)
    output = source.with_name(file_name(source.stem, suffix, ending))
    if not may_exist and os.path.lexists(output):
        raise RequestError(f"output: {printable(output)} is there already: --overwrite replaces it, -o names another")
    check_quality(quality, [ending])
    return Plan(
        [Job(source, output, source.name)], output.parent, _changed({source: ending}, format or SAME), names_a_file=True
    )


def _plan_of_a_file(source: Path, output: Path, format: str | None, quality: int | None, suffix: str) -> Plan:
    for name, given in (("format", format), ("suffix", suffix)):
        if given:
            raise RequestError(
                f"{name}: {given!r} does not apply, as the output names a file, {printable(output.name)}"
            )
    check_quality(quality, [output.suffix])
    if real(output) == real(source):
        raise RequestError(f"output: {printable(output)} is the input itself; choose another name")
    return Plan([Job(source, output, source.name)], output.parent, names_a_file=True)


def _listed(
    folder: Path, output: Path, include: Sequence[str], exclude: Sequence[str]
) -> tuple[list[Path], list[tuple[Path, str]], list[str]]:
    """The images under a folder that the patterns leave; folders that cannot be read, and why; notes."""
    unreadable: list[tuple[Path, str]] = []
    links: list[Path] = []
    others: list[Path] = []
    paths = list_images(
        folder,
        recursive=True,
        unreadable=lambda error: unreadable.append(_folder_fault(error)),
        linked=links.append,
        passed_over=others.append,
    )
    notes = []
    if links:
        links.sort()
        shown = ", ".join(printable(path) for path in links[:_SHOWN]) + (", ..." if len(links) > _SHOWN else "")
        notes.append(f"links to folders are not followed: {len(links)} ({shown}); name such a folder as input")
    rest = [path for path in others if _is_wanted(path.relative_to(folder).as_posix(), include, exclude)]
    rest, _ = _outside(rest, folder, output)
    endings = Counter(path.suffix.lower() for path in rest if path.name != NAME)
    if endings:
        notes.append(passed_over_text(endings))
    kept = [path for path in paths if _is_wanted(path.relative_to(folder).as_posix(), include, exclude)]
    return kept, unreadable, notes


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
    # a result's name ends in the suffix, and is longer than its source's
    for path in sorted(sources, key=lambda path: (path.stem.endswith(suffix), len(path.stem))):
        if not _is_result(path, results):
            kept.append(path)
            results |= {path.with_name(result_stem(stem, suffix)) for stem in (path.stem, full_stem(path))}
    wanted = set(kept)
    return [path for path in sources if path in wanted]


def _changed(endings: dict[Path, str], format: str | None) -> list[str]:
    """A note on the inputs whose own format was asked for and cannot be written."""
    if format is None or format.lower() != SAME:
        return []
    kinds = Counter(path.suffix.lower() for path, ending in endings.items() if path.suffix != ending)
    if not kinds:
        return []
    return [
        f"written as {DEFAULT_FORMAT}, as their formats are only read: "
        + ", ".join(f"{n} {e or 'without an ending'}" for e, n in kinds.items())
    ]


def _is_result(path: Path, results: set[Path]) -> bool:
    """Return whether a file is one of the results, or the comparison of one; those are named without endings."""
    if path.with_suffix("") in results:
        return True
    stem = path.stem.removesuffix(COMPARISON)
    return stem != path.stem and bool({path.with_name(stem), path.with_name(stem.rpartition("_")[0] or stem)} & results)


def _targets(
    sources: list[Path], folder: Path, output: Path, suffix: str, endings: dict[Path, str]
) -> tuple[list[Path], list[str]]:
    """A target for each source, all different and none of them a source; and a note for each that was renamed."""
    plain = [output / path.relative_to(folder).parent / file_name(path.stem, suffix, endings[path]) for path in sources]
    claims: dict[Path, list[Path]] = {}
    for path, target in zip(sources, plain, strict=True):
        claims.setdefault(target, []).append(path)
    taken = {real(path) for path in sources}
    targets: dict[Path, Path] = {}
    for target, claimants in claims.items():
        # the one that has the format of the results already keeps the plain name; if there are two, neither does
        of_format = [path for path in claimants if path.suffix == endings[path]]
        owner = claimants[0] if len(claimants) == 1 else of_format[0] if len(of_format) == 1 else None
        if owner is not None and real(target) not in taken:
            targets[owner] = target
            taken.add(real(target))
    notes = []
    for path, target in zip(sources, plain, strict=True):
        reason = "its own name would be too long"
        if path not in targets:
            targets[path] = _free_name(target, full_stem(path), suffix, endings[path], taken)
            taken.add(real(targets[path]))
            reason = "its own name is taken"
        elif target.name == f"{path.stem}{suffix}{endings[path]}":
            continue
        notes.append(f"{printable(path)}: written as {printable(targets[path].name)}, as {reason}")
    return [targets[path] for path in sources], notes


def _free_name(target: Path, stem: str, suffix: str, ending: str, taken: set[str]) -> Path:
    candidates = (target.with_name(file_name(stem, suffix + number, ending)) for number in _numbers())
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
