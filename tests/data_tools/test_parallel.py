"""Work over files in processes, and the settings that keep two data sets apart."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from mambair.data_tools.parallel import keep_settings, results_of, work_through
from mambair.images.resize import imresize
from mambair.system.errors import RequestError


def halve(number: int) -> bool:
    if number == 13:
        raise ValueError("unlucky")
    return number % 2 == 0


def die(number: int) -> bool:
    os.kill(os.getpid(), signal.SIGKILL)
    return True


def reduced_sum(side: int) -> float:
    return float(imresize(np.full((side, side), 7.0), 0.5).sum())


def test_workers_calculate_after_the_parent_has() -> None:
    """The parent's products have started threads, which a forked process would wait for without end."""
    sides = [200, 202, 204, 206]
    wanted = {side: reduced_sum(side) for side in sides}
    torch.mm(torch.ones(600, 600), torch.ones(600, 600))
    assert {side: found for side, found, _ in results_of(reduced_sum, sides, workers=2)} == wanted


@pytest.mark.parametrize("workers", [1, 2])
def test_every_piece_once(workers: int) -> None:
    told: list[int] = []
    report = work_through(halve, range(150), workers=workers, progress=lambda: told.append(1))
    assert (report.made, report.there, len(told)) == (75, 74, 150)
    assert report.failed == [("13", "unlucky")]
    assert report.summary() == "75 made, 74 there already, 1 failed"
    found = {piece: result for piece, result, _ in results_of(halve, range(100), workers=workers)}
    assert found == {number: None if number == 13 else number % 2 == 0 for number in range(100)}


def test_a_killed_worker_is_an_error_not_a_hang() -> None:
    with pytest.raises(OSError, match="was killed"):
        list(results_of(die, range(3), workers=2))


def test_settings_are_kept_and_compared(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    keep_settings(folder, {"size": 480})
    (folder / "image.png").touch()
    keep_settings(folder, {"size": 480})
    with pytest.raises(RequestError, match="size 480, now 240"):
        keep_settings(folder, {"size": 240})


def test_a_folder_of_somebody_else_is_not_mixed_with(tmp_path: Path) -> None:
    (tmp_path / "image.png").touch()
    with pytest.raises(RequestError, match="not made by this command"):
        keep_settings(tmp_path, {"size": 480})
