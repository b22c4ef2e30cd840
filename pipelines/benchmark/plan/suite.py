"""An estimate of what a transfer takes on a cluster, from counts, measurements on one core, and assumptions.

    prepare    videos -> shards, on the nodes' CPUs
    teacher    features of some views of every clip, once, on the GPUs
    transfer   all epochs, on the GPUs, which the nodes' CPUs feed

Storing and decoding are measured in this run, on one core of this machine and the given video. Multiply-adds and bytes
are counted. The speed of a GPU is assumed. The other suites measure what the pipeline itself adds.
"""

import functools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from pipelines.benchmark.measuring.rows import BenchmarkRow, SuiteReport, alternating_seconds, describe_machine
from pipelines.benchmark.plan.config import PlanSuiteConfig
from pipelines.clips.config import ClipConfig
from pipelines.runtime.paths import input_path
from pipelines.runtime.text_table import format_table
from pipelines.settings.build import with_values
from pipelines.settings.recipe import read_recipe
from pipelines.transfer.config import ExportedTeacherConfig, TransferConfig
from t3d_core.errors import UserError
from t3d_core.models import build_model, count_parameters, count_training_macs
from t3d_core.transfer.teacher import build_untrained_teacher
from t3d_core.video.clip_sampling import random_clip, stride_of_clip
from t3d_core.video.container import VideoError
from t3d_core.video.cropping import center_crop
from t3d_core.video.decoding import decode_frames, probe
from t3d_core.video.sizes import resized_size
from t3d_core.video.storage import EncodedSegment, encode_segments

_HOUR, _DAY = 3600.0, 86400.0
_NUM_WINDOWS = 8
_BYTES_A_WEIGHT = 4
_row = functools.partial(BenchmarkRow, "plan")


class Measured(NamedTuple):
    """Measurements on one core of this machine and one video.

    Attributes:
        store_seconds: time to store `clip_seconds` of it.
        decode_seconds: time to decode a clip of the recipe's size from what is stored.
        source_bytes: size of `clip_seconds` of the video.
        stored_bytes: their size in a shard.
        encoding: how they are stored.
    """

    store_seconds: float
    decode_seconds: float
    source_bytes: float
    stored_bytes: float
    encoding: str


class Counted(NamedTuple):
    """Counts of the networks.

    Attributes:
        student_macs: multiply-adds of a training step, per clip.
        teacher_macs: multiply-adds of a forward pass, per view.
        parameters: those of the student.
    """

    student_macs: float
    teacher_macs: float
    parameters: int


class Stage(NamedTuple):
    """The cost of one stage.

    Attributes:
        core_hours: time of the decode nodes' CPUs.
        gpu_hours: time of the GPUs.
        hours: time on the cluster, set by the slower of the two.
        limit: the slower of the two.
        read_bytes: bytes from storage.
        written_bytes: bytes to storage.
    """

    name: str
    core_hours: float
    gpu_hours: float
    hours: float
    limit: str
    read_bytes: float
    written_bytes: float


def run_suite(config: PlanSuiteConfig, *, repeats: int) -> SuiteReport:
    """Measure, count, and multiply.

    Raises:
        UserError: the video or the recipe cannot be read, or its teacher cannot be counted.
        UserError: settings of the recipe are wrong, one line each.
    """
    transfer = with_values(TransferConfig, read_recipe(input_path(config.recipe)), {})
    if isinstance(transfer.teacher, ExportedTeacherConfig):
        raise UserError(
            f"plan.recipe {config.recipe} has an exported teacher, whose multiply-adds cannot be counted: give a "
            "recipe with a teacher of a similar size"
        )
    lines = [describe_machine("before")]
    measured = measure_core(config, transfer, repeats=repeats)
    counted = count_networks(transfer)
    stages = plan_stages(config, transfer, measured, counted)
    lines += [
        describe_machine("after"),
        "",
        *_table(stages, config),
        "",
        *_assumptions(config, transfer, measured, counted),
    ]
    return SuiteReport(list(_rows(stages)), "\n".join(lines))


def measure_core(config: PlanSuiteConfig, transfer: TransferConfig, *, repeats: int) -> Measured:
    """Store the video and decode clips from the result, in turns, in processor time of this process.

    Raises:
        UserError: the video cannot be read.
    """
    path = input_path(config.video)
    if not path.is_file():
        raise UserError(f"plan.video {path} is no file: give a video like yours with --plan.video FILE")
    clip = transfer.clip
    try:
        info, segment = probe(str(path)), next(iter(encode_segments(str(path), short_side=256)))
    except VideoError as error:
        raise UserError(
            f"plan.video {path} cannot be decoded ({error}): give another with --plan.video FILE"
        ) from error
    runs: dict[str, Callable[[], object]] = {
        "store": lambda: list(encode_segments(str(path), short_side=256)),
        "decode": lambda: [each() for each in _windows(segment, clip)],
    }
    seconds = alternating_seconds(runs, repeats=repeats, clock=time.process_time)
    duration = info.num_frames / segment.fps
    return Measured(
        store_seconds=statistics.median(seconds["store"]) * config.clip_seconds / duration,
        decode_seconds=statistics.median(seconds["decode"]) / _NUM_WINDOWS,
        source_bytes=path.stat().st_size * config.clip_seconds / duration,
        stored_bytes=len(segment.data) * config.clip_seconds / duration,
        encoding=segment.encoding,
    )


def _windows(segment: EncodedSegment, clip: ClipConfig) -> Iterator[Callable[[], object]]:
    rng = np.random.default_rng(0)
    size = resized_size(segment.height, segment.width, short_side=clip.short_side_pixels())
    for _ in range(_NUM_WINDOWS):
        drawn = random_clip(
            segment.num_frames,
            num_frames=clip.num_frames,
            frame_stride=stride_of_clip(clip.frame_stride, clip.seconds_per_frame, fps=segment.fps),
            short_video=clip.short_video,
            rng=rng,
        )
        yield functools.partial(
            decode_frames,
            segment.data,
            drawn.frame_indices + segment.frame_offset,
            size=size,
            crop=center_crop(*size, crop_size=clip.crop_size),
            key_distance=segment.key_distance,
        )


def count_networks(transfer: TransferConfig) -> Counted:
    """Count the student's training step and the teacher's pass, without data."""
    clip, teacher_view = transfer.clip, transfer.teacher
    student = build_model(transfer.model.kind, num_classes=0, **transfer.model.arguments())
    shape = (1, 3, clip.num_frames, clip.crop_size, clip.crop_size)
    teacher = build_untrained_teacher(teacher_view.kind).to("meta")
    size = teacher_view.crop_size or clip.crop_size
    frames = torch.empty((1, teacher_view.num_frames or clip.num_frames, size, size, 3), device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        teacher(frames)
    return Counted(
        student_macs=count_training_macs(student, shape),
        teacher_macs=counter.get_total_flops() / 2,
        parameters=count_parameters(student),
    )


def plan_stages(config: PlanSuiteConfig, transfer: TransferConfig, measured: Measured, counted: Counted) -> list[Stage]:
    """The cost of each stage, by multiplication."""
    views = 0 if transfer.cache is None else transfer.cache.num_views
    seen = transfer.epochs * transfer.epoch_share * config.clips
    stored = config.clips * measured.stored_bytes
    weights = counted.parameters * _BYTES_A_WEIGHT
    of_step = counted.student_macs + (0 if views else counted.teacher_macs)
    stages = [
        _stage(
            "prepare",
            config,
            core_seconds=config.clips * measured.store_seconds,
            read_bytes=config.clips * measured.source_bytes,
            written_bytes=stored,
        ),
        _stage(
            "teacher",
            config,
            core_seconds=views * config.clips * measured.decode_seconds,
            macs=views * config.clips * counted.teacher_macs,
            read_bytes=stored if views else 0.0,
        ),
        _stage(
            "transfer",
            config,
            core_seconds=seen * measured.decode_seconds,
            macs=seen * of_step,
            read_bytes=seen * measured.stored_bytes,
            written_bytes=2 * weights * transfer.checkpoint.num_to_keep,  # weights and momentum
        ),
    ]
    return [stage for stage in stages if stage.hours]


def _stage(
    name: str,
    config: PlanSuiteConfig,
    *,
    core_seconds: float,
    macs: float = 0.0,
    read_bytes: float,
    written_bytes: float = 0.0,
) -> Stage:
    core_hours = core_seconds / _HOUR
    gpu_hours = 2 * macs / (config.gpu_tflops * 1e12) / _HOUR
    on_cpus, on_gpus = core_hours / (config.nodes * config.cpus), gpu_hours / config.gpus
    limit = "CPUs" if on_cpus > on_gpus else "GPUs"
    return Stage(name, core_hours, gpu_hours, max(on_cpus, on_gpus), limit, read_bytes, written_bytes)


def _rows(stages: list[Stage]) -> Iterator[BenchmarkRow]:
    for stage in stages:
        yield _row(stage.name, "core_hours", stage.core_hours, "h")
        yield _row(stage.name, "gpu_days", stage.gpu_hours * _HOUR / _DAY, "d")
        yield _row(stage.name, "hours", stage.hours, "h")
        yield _row(stage.name, "read", stage.read_bytes / 1e12, "TB")
        yield _row(stage.name, "written", stage.written_bytes / 1e12, "TB")


def _table(stages: list[Stage], config: PlanSuiteConfig) -> Iterator[str]:
    yield f"{config.clips:,} clips on {config.nodes} nodes of {config.cpus} CPUs and {config.gpus} GPUs:"
    header = ["stage", "core-hours", "GPU-days", "hours here", "bound by", "TB read", "TB written", "MB/s read"]
    rows = [_cells(stage) for stage in stages]
    if config.cpu_hour_price is not None:
        header = [*header, "price"]
        rows = [[*cells, f"{_price(stage, config):,.0f}"] for cells, stage in zip(rows, stages, strict=True)]
    yield from format_table(header, rows, align="<>>><" + ">" * (len(header) - 5))
    (transfer,) = (stage for stage in stages if stage.name == "transfer")
    needed = transfer.core_hours / (transfer.gpu_hours / config.gpus)
    yield (
        f"bottleneck of the transfer: {transfer.limit}; {config.gpus} GPUs need {needed:,.0f} CPUs "
        f"({needed / config.gpus:.1f} per GPU) for decoding, and there are {config.nodes * config.cpus}"
    )


def _cells(stage: Stage) -> list[str]:
    return [
        stage.name,
        f"{stage.core_hours:,.0f}",
        f"{stage.gpu_hours * _HOUR / _DAY:,.1f}",
        f"{stage.hours:,.1f}",
        stage.limit,
        f"{stage.read_bytes / 1e12:,.2f}",
        f"{stage.written_bytes / 1e12:,.2f}",
        f"{stage.read_bytes / 1e6 / (stage.hours * _HOUR):,.0f}",
    ]


def _price(stage: Stage, config: PlanSuiteConfig) -> float:
    """Price of the whole cluster while the stage runs; GPUs count only if it uses them."""
    gpus = config.gpus * (config.gpu_hour_price or 0.0) if stage.gpu_hours else 0.0
    return stage.hours * (config.nodes * config.cpus * (config.cpu_hour_price or 0.0) + gpus)


def _assumptions(
    config: PlanSuiteConfig, transfer: TransferConfig, measured: Measured, counted: Counted
) -> Iterator[str]:
    clip = transfer.clip
    yield "from:"
    yield f"  assumed   a GPU computes {config.gpu_tflops:g} x 10^12 operations per second (plan.gpu_tflops)"
    yield "  assumed   a CPU of the cluster is as fast as a core here, also under load; nothing waits for storage"
    yield f"  assumed   all videos are like {config.video.name}"
    yield (
        f"  measured  storing {config.clip_seconds:g} s of it as {measured.encoding}: {measured.store_seconds:.2f} s "
        f"of a core, {measured.source_bytes / 1e6:.2f} MB become {measured.stored_bytes / 1e6:.2f}"
    )
    yield (
        f"  measured  decoding {clip.num_frames} x {clip.crop_size} x {clip.crop_size} from that: "
        f"{1 / measured.decode_seconds:.1f} clips per second and core"
    )
    yield (
        f"  counted   {config.recipe.stem}: {counted.student_macs / 1e9:.1f} GMAC per clip and step, "
        f"{counted.teacher_macs / 1e9:.1f} per pass of the teacher, {counted.parameters:,} parameters; "
        f"{transfer.epochs} epochs of {transfer.epoch_share:g} of the clips"
    )
    yield (
        "  left out  the cost of Ray, guard and report (see `benchmark.py prepare` and `train`), exchange of "
        "gradients, validation" + ("" if transfer.cache else "; the teacher's own frames, decoded with the student's")
    )
