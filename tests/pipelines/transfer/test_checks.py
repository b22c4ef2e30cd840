"""What the checks say of nets that are known to learn, or to cheat."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from pipelines.clips.config import ClipConfig
from pipelines.clips.loader import BatchLoader
from pipelines.clips.stream import stream
from pipelines.shards.index import load_index
from pipelines.training.checkpoints import CheckpointFolder
from pipelines.training.worker import Worker
from pipelines.transfer.checks import PROBE_CLIPS, Examiner
from pipelines.transfer.pair_loader import PairLoader, TeacherView
from t3d_core.models.execution import Execution
from t3d_core.training.correspondence_task import CorrespondenceTask, Keys, TransferLosses
from t3d_core.transfer.correspondence import CorrespondenceNet
from t3d_core.transfer.key_bank import KeyBank, Moments
from t3d_core.transfer.teacher import FrozenTeacher
from t3d_core.transfer.whitening import Whitening
from t3d_core.video.clip_sampling import ClipView

CLIP = ClipView(num_frames=8, frame_stride=1, crop_size=48, short_side=48, short_video="loop")
VIEW = TeacherView(num_frames=8, crop_size=48, short_side=48, is_shared_crop=True, has_other_time=True)
PLAIN = ClipConfig(num_frames=8, crop_size=48, mean=(0, 0, 0), std=(1, 1, 1))


class MeanColour(nn.Module):
    """Sees the colour alone: no time, no place."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm3d(3, affine=False)

    def forward_features(self, clip_BCTHW):
        return clip_BCTHW.mean(dim=(2, 3, 4)) + 0 * self.norm(clip_BCTHW).mean()

    def forward(self, image_NCHW):
        return image_NCHW.mean(dim=(2, 3))


class Centred(nn.Module):
    def forward(self, feature_BD):
        return 255 * feature_BD - 127


class FirstFrame(MeanColour):
    """Sees where things are in the first frame."""

    def forward_features(self, clip_BCTHW):
        return clip_BCTHW[:, :, 0, ::8, ::8].flatten(1)


class IsClose(nn.Module):
    def __init__(self, distance):
        super().__init__()
        self.distance = distance

    def forward(self, student_BD, teacher_BD, clip_P, frames_P):
        is_close_P = (student_BD[clip_P] - teacher_BD[frames_P]).abs().amax(dim=1) < self.distance
        return torch.stack([~is_close_P, is_close_P], dim=1).float()


@pytest.fixture(scope="module")
def index(synthetic_shards):
    return load_index([synthetic_shards], fold=1, splits=["train"])


def worker_of(tmp_path, **surroundings):
    return Worker(CheckpointFolder(tmp_path, 1), None, torch.device("cpu"), **surroundings)


def examiner_of(worker, student=None, *, distance=0.02):
    student = student or MeanColour()
    teacher = FrozenTeacher(MeanColour(), feature_dim=3, mean=(0, 0, 0), std=(1, 1, 1))
    net = CorrespondenceNet(student, student_dim=3, teacher_dim=3, projection_dim=3)
    net.head = IsClose(distance)
    return Examiner(net, CorrespondenceTask(net, teacher), worker, Execution(), PLAIN)


def held_out(index, worker, view=VIEW):
    loader = PairLoader(index, CLIP, teacher=view)
    batches = range(worker.rank, len(index) // 4, worker.world_size)
    return stream(
        lambda n: loader.random_batch(np.arange(4 * n, 4 * n + 4), [[0, 4 * n + k] for k in range(4)]),
        batches,
        items_a_task=1,
    )


def test_a_net_that_matches_colours_is_found_out(index, tmp_path):
    worker = worker_of(tmp_path)
    found = examiner_of(worker).check_held_out(held_out(index, worker))
    assert found["check/pair_accuracy"] > 0.85
    assert found["check/pair_accuracy_low"] <= found["check/pair_accuracy"] <= found["check/pair_accuracy_high"]
    assert found["check/pair_accuracy_jittered"] < 0.6
    assert found["check/pair_accuracy_shuffled"] == found["check/pair_accuracy"]
    assert found["check/match_share_own_time"] == 1
    assert found["check/match_share_other_time"] > 0.5  # a few move out of the crop
    assert 0.5 < found["check/other_time_share"] <= 1
    assert 0 < found["check/feature_std"] < 1
    assert 1 < found["check/effective_rank"] <= 3


def test_the_interval_lies_around_the_accuracy_of_a_net_that_is_sometimes_wrong(index, tmp_path):
    worker = worker_of(tmp_path)
    found = examiner_of(worker, distance=0.2).check_held_out(held_out(index, worker))
    low, accuracy, high = (found[f"check/pair_accuracy{end}"] for end in ("_low", "", "_high"))
    assert 0.5 < low < accuracy < high < 1


def test_a_net_that_says_the_same_of_all_pairs_is_at_chance(index, tmp_path):
    worker = worker_of(tmp_path)
    found = examiner_of(worker, distance=10).check_held_out(held_out(index, worker))
    for name in ("pair_accuracy", "pair_accuracy_low", "pair_accuracy_high", "pair_accuracy_jittered"):
        assert found[f"check/{name}"] == 0.5


def test_a_net_that_guesses_keys_by_colours_is_found_out(index, tmp_path):
    worker = worker_of(tmp_path)
    loader = PairLoader(index, CLIP, teacher=VIEW)
    bank_batch = loader.random_batch(np.arange(len(index)), [[7, row] for row in range(len(index))])
    key_Nd = normalize(torch.from_numpy(bank_batch["teacher_frames_BTHWC"]).float().mean(dim=(1, 2, 3)) - 127)
    # None of the bank is of the clips' own videos, as with held-out clips.
    number_N = torch.arange(len(index)) + 1000
    bank = KeyBank(key_Nd, Moments(number_N, number_N, number_N * 0), torch.full_like(number_N, 8), temperature=0.1)
    keys = Keys(Whitening(torch.full((3,), 127.0), torch.ones(3), torch.eye(3)[None]), bank)
    net = CorrespondenceNet(MeanColour(), student_dim=3, teacher_dim=3, has_pairs=False, key_dim=3)
    net.projector = Centred()
    teacher = FrozenTeacher(MeanColour(), feature_dim=3, mean=(0, 0, 0), std=(1 / 255,) * 3)
    task = CorrespondenceTask(net, teacher, losses=TransferLosses(pairs=0, contrast=1), keys=keys)
    found = Examiner(net, task, worker, Execution(), PLAIN).check_held_out(held_out(index, worker))
    assert found["check/key_rank"] > 0.97
    assert found["check/key_rank_low"] <= found["check/key_rank"] <= found["check/key_rank_high"]
    assert found["check/key_rank_jittered"] < found["check/key_rank"] - 0.03
    assert found["check/key_rank_shuffled"] == pytest.approx(found["check/key_rank"], abs=1e-3)
    assert found["check/key_own_time_share"] > 0.5
    assert "check/pair_accuracy" not in found


def test_the_checks_of_two_workers_are_those_of_one(index, tmp_path):
    worker = worker_of(tmp_path)
    of_one = examiner_of(worker).check_held_out(held_out(index, worker))
    left: list = []

    def gather(values):
        left.extend(values)
        return list(left)

    for rank in (1, 0):  # the first one computes the metrics, when all have found something
        worker = worker_of(tmp_path, rank=rank, world_size=2, gather=gather)
        of_two = examiner_of(worker).check_held_out(held_out(index, worker))
    for name in of_one.keys() - {"check/pair_accuracy_jittered"}:  # which colours, depends on the number of the batch
        assert of_two[name] == pytest.approx(of_one[name], abs=0.01), name


def test_the_probe_tries_frozen_features_and_leaves_the_student_as_it_was(weizmann_shards, tmp_path):
    index = load_index([weizmann_shards], fold=1, splits=["train"])
    loader = BatchLoader(index, replace(CLIP, num_segments=PROBE_CLIPS))
    student = FirstFrame()
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    found = examiner_of(worker_of(tmp_path), student).probe(loader)
    assert set(found) == {
        f"probe/{kind}_top1{suffix}{end}"
        for kind in ("linear", "knn")
        for suffix in ("", "_own_statistics")
        for end in ("", "_low", "_high")
    }
    low, top1, high = (found[f"probe/linear_top1{end}"] for end in ("_low", "", "_high"))
    assert low < top1 < high
    assert high - low > 0.15, "over five people, not over their clips"
    assert all(0 <= value <= 1 for value in found.values())
    assert found["probe/linear_top1"] > 0.15  # chance 0.1: where a person stands tells something
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())


def test_without_a_clip_that_can_be_read_nothing_is_said(tmp_path):
    empty = {"reason_B": np.array(["lost"]), "clip_BTHWC": np.zeros((1, 8, 48, 48, 3), np.uint8)}
    assert examiner_of(worker_of(tmp_path)).check_held_out(iter([empty])) == {}
