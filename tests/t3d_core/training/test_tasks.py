from math import exp, isnan, log

import pytest
import torch
from torch import nn

from t3d_core.evaluation.metrics import is_correct_top_k
from t3d_core.models import build_model
from t3d_core.training.mixing import MixedBatch, Mixing
from t3d_core.training.tasks import ClassificationTask, CorrespondenceTask, FrameRegressionTask
from t3d_core.transfer.correspondence import CorrespondenceNet
from t3d_core.transfer.teacher import FrozenTeacher
from t3d_core.transfer.twin import FrameRegressionNet, Twin


class ClipAsFeature(nn.Module):
    def forward_features(self, clip_BCTHW):
        return clip_BCTHW.flatten(1)


class ImageMean(nn.Module):
    def forward(self, image_NCHW):
        return image_NCHW.mean(dim=(1, 2, 3))[:, None]


class ClipMean(nn.Module):
    def forward(self, clip_BCTHW):
        return clip_BCTHW.mean(dim=(2, 3, 4))


def tiny_t3d():
    torch.manual_seed(0)
    return build_model(
        "t3d",
        num_classes=3,
        ttl_preset="thirds",
        growth_rate=4,
        block_config=(2, 2, 2, 2),
        num_init_features=24,
        bn_size=2,
    )


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


def test_classification_counts_and_metrics_are_those_computed_by_hand():
    task = ClassificationTask(nn.Flatten())
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    output = task(task.net, {"clip_BCTHW": logits, "label_B": torch.tensor([0, 1, 1])})
    right, wrong = log(1 + exp(-2)), log(1 + exp(2))
    expected = {"loss_sum": 2 * right + wrong, "num_correct": 2, "num_correct_top5": 3, "num_examples": 3}
    assert floats(output.counts) == pytest.approx(expected)
    assert output.loss.item() == pytest.approx((2 * right + wrong) / 3)
    metrics = task.metrics({"loss_sum": 6.0, "num_correct": 2.0, "num_correct_top5": 3.0, "num_examples": 4.0})
    assert metrics == {"loss": 1.5, "clip_top1": 0.5, "clip_top5": 0.75}


@pytest.mark.parametrize("num_classes", [2, 5, 6, 20])
def test_classification_counts_top_1_and_top_5_as_testing_does(num_classes):
    torch.manual_seed(0)
    logits, label_B = torch.randn(50, num_classes), torch.randint(num_classes, (50,))
    logits[:10] = 1.0  # ties, which earn nothing
    task = ClassificationTask(nn.Identity())
    counts = floats(task(task.net, {"clip_BCTHW": logits, "label_B": label_B}).counts)
    for name, k in (("num_correct", 1), ("num_correct_top5", min(5, num_classes))):
        assert counts[name] == is_correct_top_k(logits.numpy(), label_B.numpy(), k=k).sum()


def test_label_smoothing_is_for_training_only():
    task = ClassificationTask(nn.Identity(), label_smoothing=0.3)
    batch = {"clip_BCTHW": torch.tensor([[2.0, 0.0, 1.0]]), "label_B": torch.tensor([0])}
    log_share = torch.log_softmax(batch["clip_BCTHW"][0], dim=0).tolist()
    smoothed = -(0.8 * log_share[0] + 0.1 * log_share[1] + 0.1 * log_share[2])
    output = task(task.net.train(), batch)
    assert (output.loss.item(), float(output.counts["loss_sum"])) == pytest.approx((smoothed, smoothed))
    output = task(task.net.eval(), batch)
    assert (output.loss.item(), float(output.counts["loss_sum"])) == pytest.approx((-log_share[0], -log_share[0]))


def test_mixing_is_for_training_only_and_its_loss_is_shared_by_the_labels():
    task = ClassificationTask(ClipMean(), mixing=Mixing(0.8, 0.0, num_classes=3))
    torch.manual_seed(0)
    batch = {"clip_BCTHW": torch.randn(4, 3, 2, 4, 4), "label_B": torch.tensor([0, 1, 2, 0])}
    torch.manual_seed(1)
    output = task(task.net.train(), batch)
    torch.manual_seed(1)
    mixed, share_BK = Mixing(0.8, 0.0, num_classes=3)(*batch.values())
    logits = task.net(mixed)
    losses = -(share_BK * torch.log_softmax(logits, dim=1)).sum(dim=1)
    assert output.loss.item() == pytest.approx(losses.mean().item())
    assert float(output.counts["loss_sum"]) == pytest.approx(losses.sum().item())
    plain = ClassificationTask(task.net.eval())
    assert floats(task(task.net, batch).counts) == floats(plain(plain.net, batch).counts)


def test_of_mixed_clips_the_class_with_the_larger_share_counts_as_right():
    class Mixed:
        def __call__(self, clip_BCTHW, _):
            return MixedBatch(clip_BCTHW, torch.tensor([[0.4, 0.6], [0.7, 0.3]]))

    task = ClassificationTask(nn.Identity(), mixing=Mixed())
    batch = {"clip_BCTHW": torch.tensor([[0.0, 1.0], [0.0, 1.0]]), "label_B": torch.tensor([0, 0])}
    assert float(task(task.net, batch).counts["num_correct"]) == 1
    batch["clip_BCTHW"] = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert float(task(task.net, batch).counts["num_correct"]) == 2


def test_the_clips_of_a_video_are_one_example_also_when_they_are_mixed():
    net = tiny_t3d()
    net.num_segments = 2
    task = ClassificationTask(net, label_smoothing=0.1, mixing=Mixing(0.8, 1.0, num_classes=3))
    output = task(net.train(), {"clip_BCTHW": torch.randn(6, 3, 16, 32, 32), "label_B": torch.tensor([0, 1, 2])})
    assert float(output.counts["num_examples"]) == 3
    assert output.loss.item() == pytest.approx(float(output.counts["loss_sum"]) / 3)
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_the_counts_of_two_parts_of_a_batch_add_up_to_those_of_the_whole():
    net = tiny_t3d()
    task = ClassificationTask(net.eval())
    clip_BCTHW, label_B = torch.randn(5, 3, 16, 32, 32), torch.tensor([0, 1, 2, 0, 1])
    with torch.no_grad():
        whole, first, second = (
            floats(task(net, {"clip_BCTHW": clip_BCTHW[part], "label_B": label_B[part]}).counts)
            for part in (slice(None), slice(2), slice(2, None))
        )
    assert {name: first[name] + second[name] for name in first} == pytest.approx(whole, rel=1e-5)


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


def test_the_frame_regression_guesses_the_standardised_features_of_the_frames_that_the_teacher_sees():
    class Colour(nn.Module):
        def forward(self, image_NCHW):
            return image_NCHW.mean(dim=(2, 3))

    teacher = FrozenTeacher(Colour(), feature_dim=3, mean=(0, 0, 0), std=(1 / 255,) * 3)
    net = FrameRegressionNet(Twin(Colour(), 3), teacher_dim=3, positions=[0, 2])
    net.regression = nn.Identity()
    task = FrameRegressionTask(net, teacher)
    # Frames of colour (1, 2, 3): standardised -1.22, 0, 1.22.
    frames_BTHWC = torch.tensor([1, 2, 3], dtype=torch.uint8).expand(2, 2, 4, 4, 3)
    clip_BCTHW = torch.zeros(2, 3, 3, 4, 4)
    clip_BCTHW[:, :, 1] = 99  # a frame that the teacher does not see
    clip_BCTHW[1, 2, 2] = 1.5**0.5
    clip_BCTHW[1, 0, 2] = -(1.5**0.5)
    output = task(task.net, {"clip_BCTHW": clip_BCTHW, "teacher_frames_BTHWC": frames_BTHWC})
    # A guess of nothing costs 1, the right one of the second clip's second frame nothing.
    assert output.loss.item() == pytest.approx((1 + 1 + 1 + 0) / 4, abs=1e-4)
    counts = floats(output.counts)
    assert tuple(counts) == task.count_names
    assert task.metrics(counts) == {"loss": pytest.approx(0.75, abs=1e-4)}
