from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from t3d_core.transfer.pairing import (
    NO_PARTNER,
    all_pairs,
    drawn_pairs,
    negative_partners,
    rolled_pairs,
    with_other_times,
)

SOURCES = st.lists(st.integers(0, 5), min_size=1, max_size=24)


def partners_of(sources):
    partner_B = negative_partners(torch.tensor(sources))
    assert partner_B.dtype == torch.int64
    return partner_B.tolist()


@given(sources=SOURCES)
@settings(deadline=None)
def test_a_partner_is_never_of_the_same_source_and_serves_one_clip_only(sources):
    found = [(clip, partner) for clip, partner in enumerate(partners_of(sources)) if partner != NO_PARTNER]
    assert all(sources[clip] != sources[partner] for clip, partner in found)
    assert len({partner for _, partner in found}) == len(found)


@given(sources=SOURCES)
@settings(deadline=None)
def test_no_more_clips_go_without_a_partner_than_have_to(sources):
    # The clips of the largest source can only take the frames of all others, each once.
    largest = max(Counter(sources).values())
    assert partners_of(sources).count(NO_PARTNER) == max(0, 2 * largest - len(sources))


def test_clips_of_different_sources_are_rolled_by_one():
    assert partners_of([7, 3, 9, 1]) == [1, 2, 3, 0]


def test_a_batch_of_a_single_source_has_no_partners():
    assert partners_of([4, 4, 4]) == [NO_PARTNER] * 3


def as_lists(pairs):
    return [tensor.tolist() for tensor in pairs]


def test_rolled_pairs_are_each_clip_with_its_own_frames_and_then_with_its_partners():
    clip_P, frames_P, is_match_P, weight_P = as_lists(rolled_pairs(torch.tensor([7, 3, 9])))
    assert clip_P == [0, 1, 2, 0, 1, 2]
    assert frames_P == [0, 1, 2, 1, 2, 0]
    assert is_match_P == [1, 1, 1, 0, 0, 0]
    assert weight_P == pytest.approx([1 / 6] * 6)


def test_a_clip_without_partner_makes_a_match_only_and_each_kind_is_half_of_the_loss():
    clip_P, frames_P, is_match_P, weight_P = as_lists(rolled_pairs(torch.tensor([5, 5, 5, 6])))
    assert (clip_P, frames_P) == ([0, 1, 2, 3, 0, 3], [0, 1, 2, 3, 3, 2])
    assert is_match_P == [1, 1, 1, 1, 0, 0]
    assert weight_P == pytest.approx([1 / 8] * 4 + [1 / 4] * 2)


def test_a_batch_of_one_source_has_matches_only():
    clip_P, frames_P, is_match_P, weight_P = as_lists(rolled_pairs(torch.tensor([4, 4])))
    assert (clip_P, frames_P, is_match_P) == ([0, 1], [0, 1], [1, 1])
    assert sum(weight_P) == pytest.approx(0.5)


@given(sources=SOURCES)
@settings(deadline=None)
def test_all_pairs_are_every_clip_with_the_frames_of_every_other_source(sources):
    clip_P, frames_P, is_match_P, weight_P = as_lists(all_pairs(torch.tensor(sources)))
    pairs = list(zip(clip_P, frames_P, is_match_P, strict=True))
    clips = range(len(sources))
    assert pairs[: len(sources)] == [(clip, clip, 1) for clip in clips]
    different = [(i, j, 0) for i in clips for j in clips if sources[i] != sources[j]]
    assert pairs[len(sources) :] == different
    assert sum(weight_P[: len(sources)]) == pytest.approx(0.5)
    assert sum(weight_P[len(sources) :]) == pytest.approx(0.5 if different else 0)


def test_drawn_pairs_are_each_clip_with_the_frames_that_came_with_it():
    pairs = drawn_pairs(torch.tensor([True, False, True, False]))
    assert as_lists(pairs) == [[0, 1, 2, 3], [0, 1, 2, 3], [1, 0, 1, 0], [0.25] * 4]


@pytest.mark.parametrize("make", [rolled_pairs, all_pairs])
def test_pairs_of_a_batch_and_pairs_drawn_one_by_one_cost_the_same_on_average(make):
    """On fixed features, where the loss of clip i with frames j is a number of a table."""
    loss_BB = torch.rand(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    of_match, others = loss_BB.diagonal().mean(), loss_BB[~torch.eye(6, dtype=bool)].mean()
    drawn = (of_match + others) / 2  # a coin says whether it is a match; the other clip is any other
    # Over all orders of a batch a partner is any other clip as often.
    generator, losses = torch.Generator().manual_seed(1), []
    for _ in range(4000):
        order = torch.randperm(6, generator=generator)
        pairs = make(order)
        losses.append((loss_BB[order[pairs.clip_P], order[pairs.frames_P]] * pairs.weight_P).sum())
    losses = torch.stack(losses)
    assert abs(losses.mean() - drawn) < max(4 * losses.std() / 4000**0.5, 1e-6)


def test_other_times_take_their_share_of_the_negatives_and_the_halves_stay_halves():
    pairs = with_other_times(rolled_pairs(torch.arange(3)), torch.tensor([True, False, True]), share=0.5)
    assert pairs.clip_P.tolist() == [0, 1, 2, 0, 1, 2, 0, 2]
    assert pairs.frames_P.tolist() == [0, 1, 2, 1, 2, 0, 3, 5]  # behind the three clips' own
    assert pairs.is_match_P.tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
    assert pairs.weight_P.tolist() == pytest.approx([1 / 6] * 3 + [1 / 12] * 3 + [1 / 8] * 2)


@pytest.mark.parametrize(("has_other_time", "share"), [(True, 0.0), (False, 0.5)])
def test_without_a_share_or_without_other_times_the_pairs_stay_as_they_are(has_other_time, share):
    pairs = rolled_pairs(torch.arange(3))
    assert as_lists(with_other_times(pairs, torch.full((3,), has_other_time), share=share)) == as_lists(pairs)
