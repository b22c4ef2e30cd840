"""The losses of a bank on toy keys, where the right answer is known."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from t3d_core.transfer.key_bank import KeyBank, Moments


def moments(*rows):
    return Moments(*torch.tensor(rows).T)


# Source, row, start: two clips of one video that do not overlap, and two other videos.
BANK_MOMENTS = moments((0, 0, 0), (0, 0, 32), (1, 1, 0), (2, 2, 0))
KEYS = torch.eye(4)


def bank(temperature=1.0, span=32):
    return KeyBank(KEYS, BANK_MOMENTS, torch.full((4,), span), temperature=temperature)


def compare(embedding, number=0, *, share=0.0, **changes):
    one = Moments(*(each[number : number + 1] for each in BANK_MOMENTS))
    return bank(**changes).compare(embedding[None], KEYS[number : number + 1], one, other_time_share=share)


def test_the_own_key_is_told_apart_from_those_of_other_videos():
    assert compare(KEYS[0]).contrast_B.item() == pytest.approx(math.log(math.e + 2) - 1)
    assert compare(KEYS[2]).contrast_B.item() == pytest.approx(math.log(1 + math.e + 1))
    sharp = compare(KEYS[0], temperature=0.01).contrast_B.item()
    assert sharp == pytest.approx(0, abs=1e-6)


def test_other_times_of_the_video_are_negatives_to_the_share_asked_for():
    embedding = KEYS[1]  # that of the other time
    assert compare(embedding).contrast_B.item() == pytest.approx(math.log(3))
    half = compare(embedding, share=0.5).contrast_B.item()  # the one other time weighs as much as the two other videos
    assert half == pytest.approx(math.log(3 + 2 * math.e))


def test_clips_that_share_a_time_are_no_negatives():
    assert compare(KEYS[1], share=0.5, span=33).contrast_B.item() == pytest.approx(math.log(3))


@pytest.mark.parametrize(
    ("embedding", "rank", "rank_in_video"),
    [((0.9, 0.1, 0.2, 0.3), 1, 1), ((0.5, 0.8, 0.2, 0.3), 1, 0), ((0.5, 0.1, 0.6, 0.3), 0.5, 1)],
)
def test_ranks_are_of_other_videos_and_of_other_times(embedding, rank, rank_in_video):
    found = compare(torch.tensor(embedding))
    assert (found.rank_B.item(), found.rank_in_video_B.item()) == (rank, rank_in_video)
    assert found.has_other_time_B.item()
    assert not compare(torch.tensor(embedding), number=2).has_other_time_B.item()


def test_regression_is_relative_to_the_spread_of_the_keys():
    assert bank().regression(KEYS.mean(0).expand(4, 4), KEYS).mean().item() == pytest.approx(1)
    assert bank().regression(KEYS, KEYS).tolist() == [0] * 4


def test_soft_labels_are_lowest_for_the_own_key():
    own, other = (bank(temperature=0.1).soft_labels(KEYS[number : number + 1], KEYS[:1]).item() for number in (0, 1))
    assert own < other


@pytest.mark.parametrize("loss", ["contrast", "contrast with other times", "regression", "soft_labels"])
def test_each_loss_teaches_a_linear_student_the_toy_keys(loss):
    """Clips show their key in other coordinates, beside noise: the student must find it."""
    torch.manual_seed(0)
    key_Nd = functional.normalize(torch.randn(64, 4), dim=1)
    all_moments = Moments(torch.arange(64) // 2, torch.arange(64) // 2, torch.arange(64) % 2 * 32)
    toy = KeyBank(key_Nd, all_moments, torch.full((64,), 32), temperature=0.1)
    clips = torch.cat([key_Nd @ torch.linalg.qr(torch.randn(4, 4))[0], torch.randn(64, 4)], dim=1)
    student = nn.Linear(8, 4)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.05)

    def ranks():
        found = toy.compare(functional.normalize(student(clips), dim=1), key_Nd, all_moments, other_time_share=0.1)
        return found, found.rank_B.mean().item()

    assert ranks()[1] < 0.7
    for _ in range(200):
        guess_Bd = student(clips)
        embedding_Bd = functional.normalize(guess_Bd, dim=1)
        losses = {
            "contrast": toy.compare(embedding_Bd, key_Nd, all_moments, other_time_share=0).contrast_B,
            "contrast with other times": toy.compare(
                embedding_Bd, key_Nd, all_moments, other_time_share=0.3
            ).contrast_B,
            "regression": toy.regression(guess_Bd, key_Nd),
            "soft_labels": toy.soft_labels(embedding_Bd, key_Nd),
        }
        optimizer.zero_grad()
        losses[loss].mean().backward()
        optimizer.step()
    found, rank = ranks()
    assert rank > 0.97
    assert found.rank_in_video_B.mean().item() > 0.9
