"""Time and memory of the supervision transfer: what a pair costs, and what reaches the train worker.

    literal          B clips, B teacher passes   ->   B pairs        (paper 3.2)
    rolled           B clips, B teacher passes   -> 2 B pairs
    rolled, cached   B clips, features given     -> 2 B pairs, after the teacher's passes, one per view
    keys, cached     B clips, features given     -> B clips, each compared with 262,144 keys
    all, cached      B clips, features given     -> B x B pairs      (ours)

steps    forward, backward and SGD on clips in memory   `steps`
input    batches without a network                      `input`
memory   resident processes of a run, epoch by epoch    `train.memory`
"""

import statistics
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn

from pipelines.benchmark.measuring.clips import find_sources
from pipelines.benchmark.measuring.prepared_data import BenchmarkData, make_data
from pipelines.benchmark.measuring.rows import (
    BenchmarkRow,
    Goal,
    SuiteReport,
    describe_machine,
    median_ratio,
    suite_report,
)
from pipelines.benchmark.train.memory import Residents, measure_residents, resident_goals, resident_rows
from pipelines.benchmark.transfer.config import TransferSuiteConfig
from pipelines.benchmark.transfer.input import (
    LITERAL_PAIRS,
    TRAINING,
    WITH_FEATURES,
    WITH_FRAMES,
    InputSizes,
    Reading,
    measure_transfer_input,
)
from pipelines.benchmark.transfer.steps import (
    CACHED,
    LITERAL,
    ROLLED,
    StepCosts,
    StepSizes,
    TransferStepCosts,
    measure_transfer_steps,
)
from pipelines.transfer.config import TransferConfig
from pipelines.transfer.pair_loader import TeacherView
from t3d_core.video.clip_sampling import ClipView
from t3d_core.video.sizes import default_short_side

_MAX_ROLLED, _MAX_CACHED, _MIN_INPUT = 0.52, 0.40, 0.95
_FEATURE_DIM = 1024  # of DenseNet-121
_MIN_VIDEOS = 96  # with fewer, an epoch of the run whose memory is measured could end between two samples
_row = partial(BenchmarkRow, "transfer")


def run_suite(config: TransferSuiteConfig, *, repeats: int) -> SuiteReport:
    """Measure memory, input and steps."""
    lines = [describe_machine("before")]
    with tempfile.TemporaryDirectory(prefix="t3d-benchmark-") as temporary:
        sources, notes = find_sources(config.clips, Path(temporary), clips_per_folder=config.clips_per_folder)
        name, clips = list(sources.items())[-1]
        data = make_data(name, clips, Path(temporary) / "data", num_videos=max(len(clips), _MIN_VIDEOS))
        residents = _measure_memory(config, data, Path(temporary) / "memory")
        print("measured memory", flush=True)
        readings = _measure_input(config, data, repeats=repeats)
    print("measured input", flush=True)
    costs = _measure_steps(config, repeats=repeats)
    lines += [describe_machine("after"), *notes]
    rows = [*_step_rows(config, costs), *_input_rows(name, readings), *resident_rows("transfer", residents)]
    goals = [*_step_goals(costs), *_input_goals(name, readings), *resident_goals(residents)]
    return suite_report(lines, rows, goals)


def _measure_steps(config: TransferSuiteConfig, *, repeats: int) -> TransferStepCosts:
    sizes = StepSizes(config.batch_size, config.num_frames, config.crop_size, config.teacher_crop_size)
    kind, arguments = config.model.kind, config.model.arguments()
    return measure_transfer_steps(kind, arguments, config.teacher, sizes, repeats=repeats)


def _measure_input(config: TransferSuiteConfig, data: BenchmarkData, *, repeats: int) -> dict[str, list[Reading]]:
    student = ClipView(config.num_frames, 2, config.crop_size, default_short_side(config.crop_size), "loop")
    side = default_short_side(config.teacher_crop_size)
    teacher = TeacherView(config.num_frames, config.teacher_crop_size, side)
    sizes = InputSizes(student, teacher, _FEATURE_DIM, config.input_batch_size, config.input_num_batches)
    return measure_transfer_input(data.shards, sizes, repeats=repeats)


def _measure_memory(config: TransferSuiteConfig, data: BenchmarkData, folder: Path) -> Residents:
    folder.mkdir()
    images = torch.zeros(2, 3, 32, 32)
    network = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    any_number = ({0: torch.export.Dim("N")},)
    torch.export.save(torch.export.export(network, (images,), dynamic_shapes=any_number), folder / "teacher.pt2")
    run = TransferConfig(
        data={"shards": (data.shards,)},
        model=config.memory_model,
        clip={"num_frames": 16, "crop_size": 64},
        teacher={
            "kind": "exported",
            "weights": folder / "teacher.pt2",
            "crop_size": 32,
            "mean": (0,) * 3,
            "std": (1,) * 3,
        },
        cache={"num_views": 2},
        global_batch_size=8,
        log_every_steps=1,
        epochs=config.memory_epochs,
        optimizer={"kind": "sgd", "lr": 0.01},
        schedule={"kind": "constant"},
        tracking={"uri": f"sqlite:///{folder}/mlflow.db"},
        storage=folder / "runs",
        name="memory",
    )
    return measure_residents(run, job="transfer", folder=folder)


def _step_rows(config: TransferSuiteConfig, costs: TransferStepCosts) -> Iterator[BenchmarkRow]:
    literal = costs.of_way[LITERAL]
    for way, cost in costs.of_way.items():
        ratio, baseline = (None, None) if way == LITERAL else (_times_cheaper(literal, cost), LITERAL)
        yield _row(way, "ms_a_pair", 1000 * statistics.median(cost.seconds) / cost.num_pairs, "ms", baseline, ratio)
    for way, cost in costs.of_way.items():
        ratio = None if way == LITERAL else literal.macs / literal.num_pairs / (cost.macs / cost.num_pairs)
        baseline = None if way == LITERAL else LITERAL
        yield _row(way, "gmac_a_pair", cost.macs / cost.num_pairs / 1e9, "GMAC", baseline, ratio)
    for way, cost in costs.of_way.items():
        yield _row(way, "pairs_a_step", cost.num_pairs, "pairs")
    teacher = costs.teacher
    milliseconds, macs = 1000 * statistics.median(teacher.seconds) / teacher.num_pairs, teacher.macs / teacher.num_pairs
    yield _row("teacher", "ms_a_view", milliseconds, "ms")
    yield _row("teacher", "gmac_a_view", macs / 1e9, "GMAC")
    # With rolled pairs, a row makes two pairs per epoch: a match and another.
    share = config.cached_views / (2 * config.epochs)
    spread = f"{config.cached_views} views, {config.epochs} epochs"
    yield _row("the cache's own", "ms_a_pair_spread", share * milliseconds, "ms", note=spread)
    yield _row("the cache's own", "gmac_a_pair_spread", share * macs / 1e9, "GMAC", note=spread)


def _times_cheaper(literal: StepCosts, cost: StepCosts) -> float:
    """How many times faster a pair is than a literal one, the median over the rounds."""
    return median_ratio(literal.seconds, cost.seconds) * cost.num_pairs / literal.num_pairs


def _input_rows(name: str, readings: dict[str, list[Reading]]) -> Iterator[BenchmarkRow]:
    for case, rounds in readings.items():
        rate = statistics.median(reading.num_clips / reading.seconds for reading in rounds)
        ratio = None if case == TRAINING else _share_of_training(readings, case)
        baseline = None if case == TRAINING else TRAINING
        yield _row(case, f"{name}/input", rate, "clips/s", baseline, ratio)
        yield _row(case, f"{name}/spilled", max(reading.store.spilled_bytes for reading in rounds) / 1e6, "MB")


def _share_of_training(readings: dict[str, list[Reading]], case: str) -> float:
    rounds: Sequence[tuple[Reading, Reading]] = list(zip(readings[TRAINING], readings[case], strict=True))
    return statistics.median(training.seconds / reading.seconds for training, reading in rounds)


def _step_goals(costs: TransferStepCosts) -> Iterator[Goal]:
    for way, limit in ((ROLLED, _MAX_ROLLED), (CACHED, _MAX_CACHED)):
        literal, cost = costs.of_way[LITERAL], costs.of_way[way]
        share = 1 / _times_cheaper(literal, cost)
        yield Goal(f"a pair, {way} / literal: time", share, limit, True)
        macs = cost.macs / cost.num_pairs / (literal.macs / literal.num_pairs)
        yield Goal(f"a pair, {way} / literal: multiply-adds", macs, limit, True)


def _input_goals(name: str, readings: dict[str, list[Reading]]) -> Iterator[Goal]:
    for case in (WITH_FEATURES, WITH_FRAMES):
        share = _share_of_training(readings, case)
        yield Goal(f"{name}: {case} / {TRAINING}", share, _MIN_INPUT)
    for case in (WITH_FEATURES, WITH_FRAMES, LITERAL_PAIRS):
        spilled = max(reading.store.spilled_bytes for reading in readings[case]) / 1e6
        yield Goal(f"{name}: {case}: spilled MB", spilled, 0, True)
