"""The supervision transfer on the clock and on the scales: what a pair costs, and what reaches the train worker.

    literal          B clips, B teacher passes   ->   B pairs        (paper 3.2)
    rolled           B clips, B teacher passes   -> 2 B pairs
    rolled, cached   B clips, features given     -> 2 B pairs, and before them the teacher's passes, once a view
    all, cached      B clips, features given     -> B x B pairs      (ours)

steps    forward, backward and SGD on clips in memory   `transfer_steps`
input    batches without a network                      `transfer_input`
"""

import statistics
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from pydantic import PositiveInt

from pipelines.benchmark.clips import find_sources
from pipelines.benchmark.rows import (
    BenchmarkRow,
    Goal,
    SuiteReport,
    describe_machine,
    format_goals,
    format_table,
    median_ratio,
)
from pipelines.benchmark.train_data import make_data
from pipelines.benchmark.transfer_input import (
    LITERAL_PAIRS,
    TRAINING,
    WITH_FEATURES,
    WITH_FRAMES,
    InputSizes,
    Reading,
    measure_transfer_input,
)
from pipelines.benchmark.transfer_steps import (
    CACHED,
    LITERAL,
    ROLLED,
    StepCosts,
    StepSizes,
    TransferStepCosts,
    measure_transfer_steps,
)
from pipelines.clip_loader import ClipView
from pipelines.model_configs import ModelConfig, T3DConfig
from pipelines.pair_loader import TeacherView
from pipelines.recipe import Section
from t3d_core.video.cropping import default_short_side

_MAX_ROLLED, _MAX_CACHED, _MIN_INPUT = 0.52, 0.40, 0.95
_FEATURE_DIM = 1024  # of DenseNet-121
_row = partial(BenchmarkRow, "transfer")


class TransferSuiteConfig(Section):
    """What a pair costs by the literal recipe, rolled, and with cached features; and the transfer's input."""

    clips: tuple[Path, ...] = (Path("../shared/data/ucf101_mixed"),)
    """Folders of videos for the input; where all are missing, videos that the benchmark makes."""
    clips_per_folder: PositiveInt = 100
    """Videos taken from each."""
    model: ModelConfig = T3DConfig(kind="t3d_121")
    """The student."""
    teacher: str = "densenet121"
    """A torchvision network, with random weights."""
    num_frames: PositiveInt = 32
    """Frames a clip, all of which the teacher sees."""
    crop_size: PositiveInt = 112
    """Pixels of the student's crop."""
    teacher_crop_size: PositiveInt = 112
    """Pixels of the teacher's crop; in the recipe of the paper 224, which makes the teacher four times as dear."""
    batch_size: PositiveInt = 4
    """Clips a step."""
    cached_views: PositiveInt = 8
    """Views of a row whose features are computed, for their cost a pair."""
    epochs: PositiveInt = 150
    """Epochs over which that cost is spread (paper 4.4)."""
    input_batch_size: PositiveInt = 16
    """Clips a batch of the input."""
    input_num_batches: PositiveInt = 48
    """Batches a round of the input."""


def run_transfer_suite(config: TransferSuiteConfig, *, repeats: int) -> SuiteReport:
    """Measure steps and input."""
    lines = [describe_machine("before")]
    with tempfile.TemporaryDirectory(prefix="t3d-benchmark-") as temporary:
        name, readings, notes = _measure_input(config, Path(temporary), repeats=repeats)
    print("input is measured", flush=True)
    costs = _measure_steps(config, repeats=repeats)
    lines += [describe_machine("after"), *notes]
    rows = [*_step_rows(config, costs), *_input_rows(name, readings)]
    goals = [*_step_goals(costs), *_input_goals(name, readings)]
    return SuiteReport(rows, "\n".join([*lines, "", format_table(rows), "", format_goals(goals)]))


def _measure_steps(config: TransferSuiteConfig, *, repeats: int) -> TransferStepCosts:
    sizes = StepSizes(config.batch_size, config.num_frames, config.crop_size, config.teacher_crop_size)
    kind, arguments = config.model.kind, config.model.arguments()
    return measure_transfer_steps(kind, arguments, config.teacher, sizes, repeats=repeats)


def _measure_input(
    config: TransferSuiteConfig, folder: Path, *, repeats: int
) -> tuple[str, dict[str, list[Reading]], list[str]]:
    sources, notes = find_sources(config.clips, folder, clips_per_folder=config.clips_per_folder)
    name, clips = list(sources.items())[-1]
    data = make_data(name, clips, folder / "data", num_videos=max(len(clips), config.input_batch_size))
    student = ClipView(config.num_frames, 2, config.crop_size, default_short_side(config.crop_size), "loop")
    side = default_short_side(config.teacher_crop_size)
    teacher = TeacherView(config.num_frames, config.teacher_crop_size, side)
    sizes = InputSizes(student, teacher, _FEATURE_DIM, config.input_batch_size, config.input_num_batches)
    return name, measure_transfer_input(data.shards, sizes, repeats=repeats), notes


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
    # A row makes a match and another every epoch, by rolled pairs.
    share = config.cached_views / (2 * config.epochs)
    spread = f"{config.cached_views} views, {config.epochs} epochs"
    yield _row("the cache's own", "ms_a_pair_spread", share * milliseconds, "ms", note=spread)
    yield _row("the cache's own", "gmac_a_pair_spread", share * macs / 1e9, "GMAC", note=spread)


def _times_cheaper(literal: StepCosts, cost: StepCosts) -> float:
    """How many times less time a pair takes, the median over the rounds."""
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
