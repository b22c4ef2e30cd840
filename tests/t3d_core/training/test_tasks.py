from math import exp, log

import pytest
import torch
from torch import nn

from t3d_core.evaluation.metrics import is_correct_top_k
from t3d_core.models import build_model
from t3d_core.training.mixing import MixedBatch, Mixing
from t3d_core.training.tasks import ClassificationTask, FrameRegressionTask
from t3d_core.transfer.teacher import FrozenTeacher
from t3d_core.transfer.twin import FrameRegressionNet, Twin


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
