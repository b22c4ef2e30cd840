"""Time and memory of making shards: `prepare` compared with a plain loop, its memory, and a long manifest.

    rates      prepare on Ray Data / the same work in plain processes, 1 and 2 cores    `rates`
    memory     peaks of its processes for ever more tiny videos                         `memory`
    planning   a manifest as long as YouTube-8M's list: time and peak

The start of Ray is not timed, but the start of an execution is. With thousands of clips a user sees these rates or
better ones.
"""

import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from pipelines.benchmark.measuring.clips import find_clips, write_moving_videos
from pipelines.benchmark.measuring.rows import (
    BenchmarkRow,
    Goal,
    SuiteReport,
    describe_machine,
    quotient,
    suite_report,
)
from pipelines.benchmark.prepare.config import PrepareSuiteConfig
from pipelines.benchmark.prepare.memory import ROLES, Peaks, Planning, measure_memory, measure_planning
from pipelines.benchmark.prepare.rates import OURS, PLAIN, Rates, measure_rates, started_cases
from pipelines.runtime.paths import input_path

_UNIT = "clips/s"
_row = partial(BenchmarkRow, "prepare")
_NUM_GENERATED = 4
_GENERATED_FRAMES, _GENERATED_HEIGHT, _GENERATED_WIDTH = 180, 240, 320  # as a UCF101 clip
_MIN_OF_PLAIN, _MIN_SCALING, _MAX_GROWTH = 0.85, 1.8, 1.15
_MAX_PLANNING_SECONDS, _MAX_PLANNING_GB = 60, 1


def run_suite(config: PrepareSuiteConfig, *, repeats: int) -> SuiteReport:
    """Measure rates, memory and planning, each in separate processes."""
    before = describe_machine("before")
    planning = measure_planning(config.manifest_num_ids)
    memory = [measure_memory(num_videos) for num_videos in config.memory_num_videos]
    rates, notes = _measure_rates(config, repeats=repeats)
    rows = [*_rates_rows(rates), *_memory_rows(memory), *_planning_rows(planning)]
    goals = [*_rates_goals(rates), *_memory_goals(memory), *_planning_goals(planning)]
    return suite_report([before, describe_machine("after"), *notes], rows, goals)


def _measure_rates(config: PrepareSuiteConfig, *, repeats: int) -> tuple[list[Rates], list[str]]:
    """Rates of both encodings, and lines that describe their videos."""
    found = find_clips([input_path(folder) for folder in config.clips], clips_per_folder=config.num_copied)
    notes = [f"left out: {name}: {reason}" for name, reason in found.left_out.items()]
    with tempfile.TemporaryDirectory(prefix="t3d-benchmark-") as folder, started_cases() as cases:
        sources = [clip.path for clip in found.clips] or _generate(Path(folder))
        options = {"videos_per_shard": config.videos_per_shard, "repeats": repeats}
        rates = [
            measure_rates(cases, sources, encoding="copy", num_videos=config.num_copied, **options),
            measure_rates(cases, sources, encoding="h264", num_videos=config.num_encoded, **options),
        ]
    notes.append(
        f"sources: {len(sources)} {'real clips' if found.clips else 'generated videos'}; Ray's start is not timed"
    )
    notes += [
        f"{r.encoding}: {r.num_videos} clips in {r.num_shards} shards a round, median of {repeats} after a warm-up; "
        f"{r.num_unequal} shards differ from the plain loop's"
        for r in rates
    ]
    return rates, notes


def _generate(folder: Path) -> list[Path]:
    size = {"height": _GENERATED_HEIGHT, "width": _GENERATED_WIDTH}
    return write_moving_videos(folder, num_videos=_NUM_GENERATED, num_frames=_GENERATED_FRAMES, **size)


def _rates_rows(rates: Sequence[Rates]) -> Iterator[BenchmarkRow]:
    for of_encoding in rates:
        rate, encoding = of_encoding.videos_per_second, of_encoding.encoding
        yield _row(OURS, f"{encoding}_unequal", of_encoding.num_unequal, "shards")
        for name, num_cores in rate:
            metric, value = f"{encoding}_{_cores(num_cores)}", rate[name, num_cores]
            if name == PLAIN:
                yield _row(name, metric, value, _UNIT)
            else:
                yield _row(name, metric, value, _UNIT, baseline=PLAIN, ratio=value / rate[PLAIN, num_cores])
        for name in (OURS, PLAIN):
            scaling = quotient(rate.get((name, 2)), rate[name, 1])
            note = None if scaling else "this machine has one core"
            yield _row(name, f"{encoding}_scaling", scaling, "x of 1 core", note=note)


def _rates_goals(rates: Sequence[Rates]) -> Iterator[Goal]:
    for of_encoding in rates:
        rate, encoding = of_encoding.videos_per_second, of_encoding.encoding
        yield Goal(f"{encoding}: shards that differ from the plain loop's", of_encoding.num_unequal, 0, True)
        for num_cores in (1, 2):
            ours, plain = rate.get((OURS, num_cores)), rate.get((PLAIN, num_cores))
            yield Goal(f"{encoding}: prepare / plain loop, {_cores(num_cores)}", quotient(ours, plain), _MIN_OF_PLAIN)
        scaling = quotient(rate.get((OURS, 2)), rate[OURS, 1])
        yield Goal(f"{encoding}: prepare, 2 cores / 1 core", scaling, _MIN_SCALING)


def _memory_rows(memory: Sequence[Peaks]) -> Iterator[BenchmarkRow]:
    baseline = f"{memory[0].num_videos} videos"
    for role in ROLES:
        for peaks in memory:
            case, value = f"{peaks.num_videos} videos", peaks.peak_bytes[role]
            if case == baseline:
                yield _row(case, f"peak_{role}", value / 1e6, "MB")
            else:
                ratio = memory[0].peak_bytes[role] / value
                yield _row(case, f"peak_{role}", value / 1e6, "MB", baseline=baseline, ratio=ratio)
    for peaks in memory:
        yield _row(f"{peaks.num_videos} videos", "job_time", peaks.seconds, "s")


def _memory_goals(memory: Sequence[Peaks]) -> Iterator[Goal]:
    sizes = " / ".join(f"{peaks.num_videos:,}" for peaks in memory)
    for role in ("driver", "worker", "decoder"):
        values = [peaks.peak_bytes[role] for peaks in memory]
        yield Goal(f"peak of {role}: most / least for {sizes} videos", max(values) / min(values), _MAX_GROWTH, True)


def _planning_rows(planning: Planning) -> Iterator[BenchmarkRow]:
    case = f"{planning.num_ids} ids"
    yield _row(case, "planning_shards", planning.num_shards, "shards")
    yield _row(case, "planning_time", planning.seconds, "s")
    yield _row(case, "planning_peak", planning.peak_bytes / 1e6, "MB")
    yield _row(case, "planning_modules", planning.bytes_before / 1e6, "MB", note="of that, before the planning")


def _planning_goals(planning: Planning) -> Iterator[Goal]:
    text = f"{planning.num_ids:,} ids listed, shuffled, cut and written"
    yield Goal(f"{text}: seconds", planning.seconds, _MAX_PLANNING_SECONDS, True)
    yield Goal(f"{text}: peak GB, modules included", planning.peak_bytes / 1e9, _MAX_PLANNING_GB, True)


def _cores(num_cores: int) -> str:
    return "1 core" if num_cores == 1 else f"{num_cores} cores"
