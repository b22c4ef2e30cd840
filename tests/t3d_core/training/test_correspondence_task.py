"""Pairs and keys of toy networks, whose losses and counts are known."""

from math import exp, isnan, log

import pytest
import torch
from torch import nn

from t3d_core.training.correspondence_task import CorrespondenceTask, Keys, TransferLosses
from t3d_core.transfer.correspondence import CorrespondenceNet
from t3d_core.transfer.key_bank import KeyBank, Moments
from t3d_core.transfer.teacher import FrozenTeacher
from t3d_core.transfer.whitening import Whitening


class ClipAsFeature(nn.Module):
    def forward_features(self, clip_BCTHW):
        return clip_BCTHW.flatten(1)


class ImageMean(nn.Module):
    def forward(self, image_NCHW):
        return image_NCHW.mean(dim=(1, 2, 3))[:, None]


@pytest.fixture
def equality_task():
    """Says match (logits 0, 2) when the clip's value is that of the frames, and no match (2, 0) when not."""

    class Equality(nn.Module):
        def forward(self, student_BD, teacher_BD, clip_P, frames_P):
            is_equal_P1 = (student_BD[clip_P] - teacher_BD[frames_P]).abs() < 1e-3
            return torch.cat([2.0 * ~is_equal_P1, 2.0 * is_equal_P1], dim=1)

    net = CorrespondenceNet(ClipAsFeature(), student_dim=1, teacher_dim=1, projection_dim=1)
    net.head = Equality()
    return CorrespondenceTask(net, FrozenTeacher(ImageMean(), feature_dim=1, mean=(0, 0, 0), std=(1 / 255,) * 3))


def pairs_batch(clip, frames, source):
    frames_BTHWC = torch.tensor(frames, dtype=torch.uint8).reshape(-1, 1, 1, 1, 1).expand(-1, 1, 1, 1, 3)
    return {
        "clip_BCTHW": torch.tensor(clip, dtype=torch.float32).reshape(-1, 1, 1, 1, 1),
        "teacher_frames_BTHWC": frames_BTHWC,
        "source_B": torch.tensor(source),
    }


def floats(counts):
    return {name: float(count) for name, count in counts.items()}


def test_correspondence_counts_one_positive_and_one_negative_a_clip(equality_task):
    # Clip 1 shows other frames than its own; every negative differs.
    output = equality_task(equality_task.net, pairs_batch([10, 20, 30], [10, 21, 30], source=[0, 1, 2]))
    right, wrong = log(1 + exp(-2)), log(1 + exp(2))
    expected = {"num_examples": 6, "num_positives": 3, "num_negatives": 3}
    expected |= {"loss_sum_positives": 2 * right + wrong, "loss_sum_negatives": 3 * right}
    expected |= {"num_correct_positives": 2, "num_correct_negatives": 3}
    assert floats(output.counts) == pytest.approx(expected, rel=1e-6)
    assert output.loss.item() == pytest.approx((5 * right + wrong) / 6)


def test_a_negative_pair_is_never_of_one_source(equality_task):
    # Clips of one source are alike here: taken as a negative they would be judged a match.
    output = equality_task(equality_task.net, pairs_batch([10, 10, 20, 20], [10, 10, 20, 20], source=[7, 7, 8, 8]))
    counts = floats(output.counts)
    assert counts["num_correct_positives"] == counts["num_correct_negatives"] == 4


def test_clips_without_a_partner_are_counted_and_their_share_is_told(equality_task):
    output = equality_task(equality_task.net, pairs_batch([1, 2, 3, 4], [1, 2, 3, 4], source=[5, 5, 5, 6]))
    counts = floats(output.counts)
    assert (counts["num_examples"], counts["num_positives"], counts["num_negatives"]) == (6, 4, 2)
    counted = {"loss_sum_positives": 2.0, "loss_sum_negatives": 3.0}
    counted |= {"num_correct_positives": 2, "num_correct_negatives": 2}
    metrics = equality_task.metrics(counts | counted)
    assert metrics == {"loss": (0.5 + 1.5) / 2, "pair_accuracy": 0.75, "negatives_per_positive": 0.5}


def test_a_head_that_always_says_match_has_the_accuracy_of_chance(equality_task):
    says_match = {"loss_sum_positives": 1.0, "num_positives": 4, "num_correct_positives": 4}
    says_match |= {"loss_sum_negatives": 1.0, "num_negatives": 2, "num_correct_negatives": 0}
    assert equality_task.metrics(says_match)["pair_accuracy"] == 0.5
    assert isnan(equality_task.metrics(says_match | {"num_negatives": 0})["pair_accuracy"])


def test_all_pairs_are_for_training_and_rolled_ones_are_validated(equality_task):
    task = CorrespondenceTask(equality_task.net, equality_task.teacher, pairs="all")
    batch = pairs_batch([1, 2, 3, 3], [1, 2, 3, 3], source=[0, 1, 2, 2])
    assert floats(task(task.net.train(), batch).counts)["num_negatives"] == 10
    assert floats(task(task.net.eval(), batch).counts)["num_negatives"] == 4


def test_literal_pairs_are_those_that_were_drawn(equality_task):
    task = CorrespondenceTask(equality_task.net, equality_task.teacher, pairs="literal")
    batch = pairs_batch([1, 2, 3], [1, 9, 8], source=[0, 1, 2]) | {"is_match_B": torch.tensor([True, False, True])}
    output = task(task.net.train(), batch)
    counts = floats(output.counts)
    assert (counts["num_positives"], counts["num_negatives"]) == (2, 1)
    assert (counts["num_correct_positives"], counts["num_correct_negatives"]) == (1, 1)
    assert output.loss.item() == pytest.approx((2 * log(1 + exp(-2)) + log(1 + exp(2))) / 3)


def test_features_that_come_with_the_batch_take_the_place_of_the_teacher(equality_task):
    batch = pairs_batch([1, 2, 3], [1, 2, 9], source=[0, 1, 2])
    expected = equality_task(equality_task.net, batch)
    batch["teacher_BD"] = equality_task.teacher(batch.pop("teacher_frames_BTHWC"))
    given = CorrespondenceTask(equality_task.net)(equality_task.net, batch)
    assert floats(given.counts) == floats(expected.counts)
    assert given.loss == expected.loss


def test_counts_carry_no_gradient_and_have_the_names_announced(equality_task):
    batch = pairs_batch([1, 2], [1, 2], source=[0, 1])
    output = equality_task(equality_task.net, batch | {"clip_BCTHW": batch["clip_BCTHW"].requires_grad_()})
    assert tuple(output.counts) == equality_task.count_names
    assert all(count.dtype == torch.float64 and not count.requires_grad for count in output.counts.values())


@pytest.fixture
def keys():
    """The keys of four clips, two of them of one video, are the corners of a square; targets are keys already."""
    key_Nd = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    moments = Moments(torch.tensor([0, 0, 1, 2]), torch.tensor([0, 0, 1, 2]), torch.tensor([0, 40, 0, 0]))
    whitening = Whitening(torch.zeros(2), torch.ones(2), torch.eye(2)[None])
    return Keys(whitening, KeyBank(key_Nd, moments, torch.full((4,), 32), temperature=1.0))


def keys_task(keys, *, other_time_share=0.0, **losses):
    """Its guesses are the clips themselves."""
    net = CorrespondenceNet(
        ClipAsFeature(), student_dim=2, teacher_dim=2, has_pairs=bool(losses.get("pairs")), key_dim=2
    )
    net.projector = nn.Identity()
    weights = TransferLosses(**{"pairs": 0.0} | losses)
    return CorrespondenceTask(net, losses=weights, keys=keys, other_time_share=other_time_share)


def keys_batch(guess, number=0):
    """A clip of the first video, or another of the four, that is guessed to have this key."""
    own = [(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)][number]
    return {
        "clip_BCTHW": torch.tensor(guess).reshape(1, 2, 1, 1, 1),
        "teacher_BD": torch.tensor([own]),
        "source_B": torch.tensor([(0, 0, 1, 2)[number]]),
        "row_id_B": torch.tensor([(0, 0, 1, 2)[number]]),
        "start_B": torch.tensor([(0, 40, 0, 0)[number]]),
    }


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        # Of the keys of other videos one is opposite, one at a right angle.
        ({"contrast": 1}, log(exp(1) + exp(-1) + 1) - 1),
        ({"regression": 1}, 0.0),
        ({"soft_labels": 1}, None),
        ({"contrast": 2, "regression": 3}, 2 * (log(exp(1) + exp(-1) + 1) - 1)),
    ],
)
def test_losses_of_keys_are_weighted_and_added_up(keys, losses, expected):
    task = keys_task(keys, **losses)
    right, wrong = (task(task.net, keys_batch(guess)) for guess in ((1.0, 0.0), (-1.0, 0.0)))
    if expected is not None:
        assert right.loss.item() == pytest.approx(expected, abs=1e-6)
    assert right.loss < wrong.loss
    for output, rank in ((right, 1), (wrong, 0)):
        assert tuple(sorted(output.counts)) == tuple(sorted(task.count_names))
        metrics = task.metrics(floats(output.counts))
        assert metrics["loss"] == pytest.approx(output.loss.item())
        assert metrics["key_rank"] == rank
    # A square's corners lie at 1 from their mean, and the wrong guess at 2 from the key.
    assert metrics.get("key_r2") == (-3 if "regression" in losses else None)


def test_other_times_of_the_video_become_negatives_as_training_goes_on(keys):
    task = keys_task(keys, contrast=1, other_time_share=0.5)
    batch = keys_batch((0.0, 1.0))  # the key of the other time

    def loss(progress, *, is_training=True):
        task.net.progress = progress
        return task(task.net.train(is_training), batch).loss.item()

    assert loss(0.0) < loss(0.5) < loss(0.9)
    assert loss(0.9, is_training=False) == loss(0.0)
    metrics = task.metrics(floats(task(task.net, batch).counts))
    assert metrics["key_rank_in_video"] == 0


def test_pairs_with_another_time_of_the_video_are_negatives_as_training_goes_on(equality_task):
    task = CorrespondenceTask(equality_task.net, equality_task.teacher, other_time_share=0.5)
    batch = pairs_batch([10, 20], [10, 20], source=[0, 1])
    # The first clip's video shows the same at another time, so that pair is judged a match; the second has none.
    batch["other_teacher_frames_BTHWC"] = batch["teacher_frames_BTHWC"]
    batch["is_other_time_B"] = torch.tensor([True, False])
    right, wrong = log(1 + exp(-2)), log(1 + exp(2))
    for progress in (0.0, 1.0):
        task.net.progress = progress
        share = 0.5 * progress
        expected = 0.5 * right + 0.5 * ((1 - share) * right + share * wrong)
        output = task(task.net.train(), batch)
        assert output.loss.item() == pytest.approx(expected, rel=1e-5)
        # What is counted are other videos, as in validation.
        assert (float(output.counts["num_negatives"]), float(output.counts["num_correct_negatives"])) == (2, 2)


def test_pairs_and_keys_are_learned_together(keys):
    task = keys_task(keys, pairs=1, contrast=1)
    batches = [keys_batch((1.0, 0.0)), keys_batch((-1.0, 0.0), number=2)]
    batch = {name: torch.cat([each[name] for each in batches]) for name in batches[0]}
    output = task(task.net, batch)
    metrics = task.metrics(floats(output.counts))
    assert metrics["loss"] == pytest.approx(output.loss.item(), rel=1e-5)
    assert {"pair_accuracy", "key_rank"} <= metrics.keys()
    assert float(output.counts["num_examples"]) == 4  # pairs, two of each kind


def test_keys_are_compared_in_full_precision_whatever_the_network_runs_in(keys):
    task = keys_task(keys, contrast=1, soft_labels=1, regression=1)
    batch = keys_batch((0.9003, 0.1001))
    expected = task(task.net, batch).loss
    with torch.autocast("cpu", torch.bfloat16):
        assert task(task.net, batch).loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_network_without_pairs_has_no_weights_that_get_no_gradient(keys):
    net = CorrespondenceNet(nn.Module(), student_dim=3, teacher_dim=2, has_pairs=False, key_dim=2)
    net.student.forward_features = nn.Sequential(nn.Flatten(), nn.Linear(2, 3))
    task = CorrespondenceTask(net, losses=TransferLosses(pairs=0, contrast=1), keys=keys)
    batches = [keys_batch((1.0, 0.0)), keys_batch((-1.0, 0.0), number=2), keys_batch((0.5, 0.5), number=1)]
    task(net, {name: torch.cat([each[name] for each in batches]) for name in batches[0]}).loss.backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
