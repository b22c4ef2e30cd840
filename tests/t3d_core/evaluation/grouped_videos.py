"""Videos that come in groups, as those of UCF101 do, and what chance makes of them."""

import numpy as np


def ucf101_sources():
    """The source of each of 3,783 videos of 707 sources, as many as fold 1 of UCF101 tests."""
    num_videos, num_sources = 3783, 707
    size_S = np.full(num_sources, num_videos // num_sources)
    size_S[: num_videos % num_sources] += 1
    return np.repeat(np.arange(num_sources), size_S)


def grouped(rng, group_N, share_of_value, correlation, *, num_rows):
    """Values (num_rows, N), any two of one group with this correlation.

    A video takes the value of its group, or else one of its own. Two videos both take it with probability
    `correlation`.
    """
    values, shares = list(share_of_value), list(share_of_value.values())
    own_RN = rng.choice(values, (num_rows, len(group_N)), p=shares)
    group_RG = rng.choice(values, (num_rows, group_N.max() + 1), p=shares)
    takes_RN = rng.random(own_RN.shape) < correlation**0.5
    return np.where(takes_RN, group_RG[:, group_N], own_RN)
