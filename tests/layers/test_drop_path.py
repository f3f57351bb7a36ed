from __future__ import annotations

import pytest
import torch

from mambair.layers import DropPath
from mambair.layers.drop_path import linear_drop_rates


def test_drops_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    y = DropPath(0.25)(torch.ones(4000, 2, 3))
    per_sample = y.flatten(1)
    assert ((per_sample == 0).all(1) | (per_sample == 1 / 0.75).all(1)).all()
    assert abs(y.mean().item() - 1.0) < 0.03  # four standard deviations of the mean of 4000 draws


@pytest.mark.parametrize(("rate", "training", "value"), [(0.0, True, 1.0), (0.9, False, 1.0), (1.0, True, 0.0)])
def test_certain_cases(rate, training, value):
    assert (DropPath(rate).train(training)(torch.ones(5, 2)) == value).all()


def test_rate_out_of_range():
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        DropPath(1.5)


def test_rates_rise_over_all_blocks():
    rates = linear_drop_rates(0.1, (2, 1, 3))
    assert [len(group) for group in rates] == [2, 1, 3]
    flat = [rate for group in rates for rate in group]
    assert flat == pytest.approx([0.0, 0.02, 0.04, 0.06, 0.08, 0.1])
