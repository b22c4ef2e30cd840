"""Steps of the transfer on clips in memory, in several ways: their cost in seconds and in multiply-adds.

Each way is the task's own step: the teacher if it runs, forward, backward, SGD. The clips are noise, because the cost
does not depend on the content.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from pipelines.benchmark.measuring.rows import alternating_seconds
from t3d_core.models import build_model
from t3d_core.training.optimization import build_sgd
from t3d_core.training.tasks import Batch, CorrespondenceTask
from t3d_core.transfer.correspondence import CorrespondenceNet
from t3d_core.transfer.pairing import PairKind
from t3d_core.transfer.teacher import FrozenTeacher, build_untrained_teacher
from t3d_core.video.transforms import normalize_clip

LITERAL, ROLLED, CACHED, ALL = "literal", "rolled", "rolled, cached", "all, cached"
_KINDS: dict[str, PairKind] = {LITERAL: "literal", ROLLED: "rolled", CACHED: "rolled", ALL: "all"}
_WITHOUT_TEACHER = (CACHED, ALL)


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
        num_pairs: pairs that a step classifies.
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
    net = CorrespondenceNet(student, student_dim=student.feature_dim, teacher_dim=teacher.feature_dim).train()
    steps = {way: _step_of(way, net, teacher, batch) for way in _KINDS}
    runs: dict[str, Callable[[], object]] = {way: step for way, step in steps.items()}
    runs["teacher"] = lambda: teacher(batch["teacher_frames_BTHWC"])
    seconds = alternating_seconds(runs, repeats=repeats)
    macs = {name: _count(run) for name, run in runs.items()}
    of_way = {way: StepCosts(seconds[way], macs[way], steps[way]()) for way in _KINDS}
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
    }


def _step_of(way: str, net: CorrespondenceNet, teacher: FrozenTeacher, batch: Batch) -> Callable[[], int]:
    task = CorrespondenceTask(net, teacher, pairs=_KINDS[way])
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
