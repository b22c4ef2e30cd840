from collections import Counter

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from t3d_core.transfer.pairing import NO_PARTNER, negative_partners

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
