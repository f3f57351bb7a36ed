"""Random numbers of training steps as a pure function of (seed, iteration, rank), which is what makes resuming exact.

Nothing has to be saved: a resumed run, a run with a skipped step and an undisturbed one draw the same dropout masks,
with any model. The data's randomness is a function of (seed, sample number) in the same way, see `mambair.data.loader`.
"""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_everything(seed: int, iteration: int, rank: int) -> None:
    """Seed torch (all devices), numpy and Python for one iteration of one process; iteration 0 is the set-up."""
    words = np.random.SeedSequence([seed, iteration, rank]).generate_state(3)
    torch.manual_seed(int(words[0]))
    np.random.seed(words[1])
    random.seed(int(words[2]))
