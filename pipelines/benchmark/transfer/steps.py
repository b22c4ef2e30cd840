"""Steps of the transfer on clips in memory, in several ways: their cost in seconds and in multiply-adds.

Each way is the task's own step: the teacher if it runs, forward, backward, SGD. The clips are noise, because the cost
does not depend on the content.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from pipelines.benchmark.measuring.rows import alternating_seconds
from t3d_core.models import VideoNet, build_model
from t3d_core.training.correspondence_task import CorrespondenceTask, Keys, TransferLosses
from t3d_core.training.optimization import build_sgd
from t3d_core.training.tasks import Batch
from t3d_core.transfer.correspondence import CorrespondenceNet
from t3d_core.transfer.key_bank import KeyBank, Moments
from t3d_core.transfer.pairing import PairKind
from t3d_core.transfer.teacher import FrozenTeacher, build_untrained_teacher
from t3d_core.transfer.whitening import Whitening
from t3d_core.video.transforms import normalize_clip

LITERAL, ROLLED, CACHED, ALL = "literal", "rolled", "rolled, cached", "all, cached"
KEYS = "keys, cached"
_KINDS: dict[str, PairKind] = {LITERAL: "literal", ROLLED: "rolled", CACHED: "rolled", ALL: "all"}
_WAYS = (*_KINDS, KEYS)
_WITHOUT_TEACHER = (CACHED, ALL, KEYS)
_CONTRAST = TransferLosses(pairs=0, contrast=1)
_NUM_KEYS, _KEY_DIM = 262_144, 128  # the bank of `keys.bank_size`, of 64 numbers for each of two parts


class StepSizes(NamedTuple):
    """The input of both networks: clips per step, frames per clip, pixels of the student's and the teacher's crop."""

    batch_size: int
    num_frames: int
    crop_size: int
    teacher_crop_size: int


class StepCosts(NamedTuple):
    """The cost of one way.

    Attributes:
        seconds: time of a step in each round.
        macs: multiply-adds of a step.
        num_pairs: pairs that a step classifies, or clips that it compares with all keys.
    """

    seconds: list[float]
    macs: int
    num_pairs: int


class TransferStepCosts(NamedTuple):
    """The costs of all ways, and of the teacher alone on the clips of one step."""

    of_way: dict[str, StepCosts]
    teacher: StepCosts


def measure_transfer_steps(
    student_kind: str, student_arguments: dict, teacher_kind: str, sizes: StepSizes, *, repeats: int
) -> TransferStepCosts:
    """Make the steps of all ways in turns, after an uncounted round.

    Args:
        student_kind: kind for `build_model`.
        student_arguments: arguments for `build_model`.
        teacher_kind: a torchvision network, with random weights.
        sizes: sizes of a step.
        repeats: number of rounds.
    """
    torch.manual_seed(0)
    teacher = build_untrained_teacher(teacher_kind)
    batch = _noise(sizes)
    student = build_model(student_kind, num_classes=0, **student_arguments)
    steps = {way: _step_of(way, student, teacher, batch) for way in _WAYS}
    runs: dict[str, Callable[[], object]] = {way: step for way, step in steps.items()}
    runs["teacher"] = lambda: teacher(batch["teacher_frames_BTHWC"])
    seconds = alternating_seconds(runs, repeats=repeats)
    macs = {name: _count(run) for name, run in runs.items()}
    of_way = {way: StepCosts(seconds[way], macs[way], steps[way]()) for way in _WAYS}
    return TransferStepCosts(of_way, StepCosts(seconds["teacher"], macs["teacher"], sizes.batch_size))


def _noise(sizes: StepSizes) -> Batch:
    def frames(size: int) -> torch.Tensor:
        shape = (sizes.batch_size, sizes.num_frames, size, size, 3)
        return torch.randint(0, 256, shape, dtype=torch.uint8)

    return {
        "clip_BTHWC": frames(sizes.crop_size),
        "teacher_frames_BTHWC": frames(sizes.teacher_crop_size),
        "source_B": torch.arange(sizes.batch_size),
        "is_match_B": torch.arange(sizes.batch_size) % 2 == 0,
        "row_id_B": torch.arange(sizes.batch_size),
        "start_B": torch.zeros(sizes.batch_size, dtype=torch.int64),
    }


def _noise_keys(feature_dim: int) -> Keys:
    whitening = Whitening(torch.zeros(feature_dim), torch.ones(feature_dim), torch.randn(1, feature_dim, _KEY_DIM))
    key_Nd = functional.normalize(torch.randn(_NUM_KEYS, _KEY_DIM), dim=1)
    number_N = torch.arange(_NUM_KEYS)
    moments = Moments(number_N, number_N, torch.zeros_like(number_N))
    return Keys(whitening, KeyBank(key_Nd, moments, torch.ones_like(number_N), temperature=0.1))


def _task_of(way: str, student: VideoNet, teacher: FrozenTeacher) -> CorrespondenceTask:
    new_net = partial(CorrespondenceNet, student, student_dim=student.feature_dim, teacher_dim=teacher.feature_dim)
    if way == KEYS:
        net = new_net(has_pairs=False, key_dim=_KEY_DIM)
        return CorrespondenceTask(net, losses=_CONTRAST, keys=_noise_keys(teacher.feature_dim))
    return CorrespondenceTask(new_net(), teacher, pairs=_KINDS[way])


def _step_of(way: str, student: VideoNet, teacher: FrozenTeacher, batch: Batch) -> Callable[[], int]:
    task = _task_of(way, student, teacher)
    net = task.net.train()
    optimizer = build_sgd(list(net.parameters()), lr=1e-3, momentum=0.9, is_nesterov=True, weight_decay=1e-4)
    given = {"teacher_BD": torch.randn(len(batch["source_B"]), teacher.feature_dim)} if way in _WITHOUT_TEACHER else {}

    def step() -> int:
        """Make a step; return its number of pairs."""
        clip_BCTHW = normalize_clip(batch["clip_BTHWC"], mean=(0.5,) * 3, std=(0.25,) * 3)
        optimizer.zero_grad(set_to_none=True)
        output = task(net, batch | given | {"clip_BCTHW": clip_BCTHW})
        output.loss.backward()
        optimizer.step()
        return int(output.counts["num_examples"])

    return step


def _count(run: Callable[[], object]) -> int:
    counter = FlopCounterMode(display=False)
    with counter:
        run()
    return counter.get_total_flops() // 2  # PyTorch counts a multiply-add as two operations
