"""Measuring candidates on the sets of a suite, each image once, however often the run is killed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mambair.evaluation.evaluate import Storage, measure
from mambair.evaluation.results import Run, SetResult
from mambair.evaluation.score_cache import NAME, ScoreCache, key_of
from mambair.evaluation.suites import TEST_SETS, Suite
from mambair.evaluation.test_sets import open_set
from mambair.system.errors import RequestError

PICTURES = "pictures"


def run_suite(run: Run, data: Path, sets: Sequence[str], levels: Sequence[int], *, progress: bool = True) -> Run:
    """Measure what the score cache in ``run.folder`` does not have yet.

    A set that is missing, or an image that cannot be restored or measured, does not keep the others from being done.

    Args:
        run: with a suite, without results.
        data: the folder that holds the test sets.
        sets, levels: of the suite.
        progress: show a progress bar for each set on stderr.

    Returns:
        ``run``, filled in.

    Raises:
        ValueError: the run has no suite.
    """
    suite = run.suite
    if suite is None:
        raise ValueError("run: needs a suite")
    cache = ScoreCache(run.folder / NAME)
    for level in levels:
        candidates = [each for each in run.candidates if each.levels is None or level in each.levels]
        for name in sets:
            try:
                opened = open_set(data, name, suite, level)
            except (ValueError, OSError) as error:
                run.missing[name] = str(error) if isinstance(error, RequestError) else f"{name}: {error}"
                continue
            images = TEST_SETS[name].images if name in TEST_SETS else None
            result = SetResult(name, opened.dataset, suite.metrics(level), level, opened.inputs, images)
            run.sets.append(result)
            storage = Storage(run.folder, partial(picture_path, suite, level, name), cache)
            label = f"{name} {suite.degree(level)}" if progress else None
            name_key = "gt_path" if suite.has_ground_truth else "lq_path"
            measure(result, candidates, storage=storage, progress=label, name_key=name_key)
    return run


def picture_path(suite: Suite, level: int, dataset: str, candidate: str, image: str) -> str:
    """Where a restored image is kept, relative to the run's folder."""
    degree = suite.degree(level).replace(" ", "")
    return f"{PICTURES}/{dataset}/{degree}/{_file_name(image)}/{_file_name(candidate)}.png"


def _file_name(text: str) -> str:
    """A name any file system takes; one that had to be changed gets a mark of its own."""
    safe = re.sub(r"[^A-Za-z0-9_.+-]", "_", text).lstrip(".")[:80] or "_"
    return safe if safe == text else f"{safe}.{key_of([text])[:8]}"
