"""Time and memory of training: the whole path compared with a plain loop, and its input with DataLoaders.

steps    clips per second of whole training runs / of the same steps fed from memory       `steps`
input    batches without a network: from shards / the decode ceiling / from the sources  `input`
memory   resident bytes of the processes of a long run, epoch by epoch                   `memory`
"""

import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.benchmark.measuring.clips import BenchmarkClip, find_sources
from pipelines.benchmark.measuring.object_store import StoreUse
from pipelines.benchmark.measuring.peers import describe_versions
from pipelines.benchmark.measuring.prepared_data import BenchmarkData, make_data
from pipelines.benchmark.measuring.rows import (
    BenchmarkRow,
    Goal,
    SuiteReport,
    describe_machine,
    suite_report,
)
from pipelines.benchmark.train.config import TrainSuiteConfig
from pipelines.benchmark.train.input import CEILING, WHOLE, InputRates, measure_input
from pipelines.benchmark.train.memory import Residents, measure_residents, resident_goals, resident_rows
from pipelines.benchmark.train.steps import StepRates, clips_per_second, measure_steps
from pipelines.train.config import ResolvedTrainConfig, TrainConfig
from t3d_core.errors import UserError
from t3d_core.video.clip_sampling import ClipView

OURS = "whole path"

_UNIT = "clips/s"
_PLAIN = "plain loop"
_MIN_OF_PLAIN, _MIN_OF_CEILING, _MIN_OF_PEERS = 0.95, 0.85, 3.0
_row = partial(BenchmarkRow, "train")


def run_suite(config: TrainSuiteConfig, *, repeats: int) -> SuiteReport:
    """Measure steps, input and memory, each in separate processes.

    Raises:
        UserError: the number of steps has no whole quarter to leave untimed.
    """
    if config.num_steps < 4 or config.num_steps % 4:
        raise UserError(f"train.num_steps must be a multiple of 4 (a quarter is not timed), got {config.num_steps}")
    lines = [describe_machine("before")]
    with tempfile.TemporaryDirectory(prefix="t3d-benchmark-") as temporary:
        folder = Path(temporary)
        sources, notes = find_sources(config.clips, folder, clips_per_folder=config.memory_num_videos)
        name, of_steps = list(sources.items())[-1]
        residents = _measure_memory(config, name, of_steps, folder / "memory")
        print("measured memory", flush=True)
        steps = _measure_steps(config, name, of_steps, folder / "steps", repeats=repeats)
        print("measured steps", flush=True)
        rates = [
            _measure_input(config, name, clips, folder / f"input {name}", repeats=repeats)
            for name, clips in sources.items()
        ]
    lines += [describe_machine("after"), describe_versions(), *notes]
    rows = [*_step_rows(steps), *_input_rows(rates), *resident_rows("train", residents)]
    goals = [*_step_goals(steps), *_input_goals(rates), *resident_goals(residents)]
    return suite_report(lines, rows, goals)


def _measure_steps(
    config: TrainSuiteConfig, name: str, sources: Sequence[BenchmarkClip], folder: Path, *, repeats: int
) -> StepRates:
    """One epoch per round, with a point of its curve every quarter."""
    data = make_data(name, sources, folder, num_videos=config.num_steps * config.batch_size)
    run = ResolvedTrainConfig(
        model=config.model,
        clip={"num_frames": config.num_frames, "crop_size": config.crop_size},
        global_batch_size=config.batch_size,
        log_every_steps=config.num_steps // 4,
        epochs=1,
        **_surroundings(data, folder),
    )
    return measure_steps(run, folder=folder / "runs", repeats=repeats)


def _measure_memory(config: TrainSuiteConfig, name: str, sources: Sequence[BenchmarkClip], folder: Path) -> Residents:
    data = make_data(name, sources, folder, num_videos=config.memory_num_videos)
    run = TrainConfig(
        model=config.memory_model,
        clip={"num_frames": 16, "crop_size": 64},
        global_batch_size=8,
        log_every_steps=1,
        epochs=config.memory_epochs,
        name="memory",
        **_surroundings(data, folder),
    )
    return measure_residents(run, job="train", folder=folder)


def _surroundings(data: BenchmarkData, folder: Path) -> dict[str, Any]:
    """Where a run reads and writes, and a rate at which the loss stays finite."""
    return {
        "data": {"shards": (data.shards,)},
        "optimizer": {"kind": "sgd", "lr": 0.01},
        "schedule": {"kind": "constant"},
        "tracking": {"uri": f"sqlite:///{folder}/mlflow.db"},
        "storage": folder / "runs",
    }


def _measure_input(
    config: TrainSuiteConfig, name: str, sources: Sequence[BenchmarkClip], folder: Path, *, repeats: int
) -> InputRates:
    data = make_data(name, sources, folder, num_videos=max(len(sources), config.input_batch_size))
    view = ClipView(
        num_frames=config.input_num_frames,
        frame_stride=2,
        crop_size=config.input_crop_size,
        short_side=config.input_short_side,
        short_video="loop",
    )
    return measure_input(
        data,
        view,
        batch_size=config.input_batch_size,
        num_steps=config.input_num_batches,
        num_steps_of_peers=config.peer_num_batches,
        repeats=repeats,
    )


def _step_rows(steps: StepRates) -> Iterator[BenchmarkRow]:
    plain = clips_per_second(steps.plain)
    yield _row(_PLAIN, "steps", plain, _UNIT)
    yield _row(OURS, "steps", clips_per_second(steps.whole), _UNIT, baseline=_PLAIN, ratio=steps.whole_over_plain)
    yield _row(OURS, "unequal_losses", steps.num_unequal_losses, "points")
    yield _row(OURS, "first_batch", steps.first_batch_seconds, "s")
    yield from _store_rows(OURS, steps.store)


def _input_rows(rates: Sequence[InputRates]) -> Iterator[BenchmarkRow]:
    for of_data in rates:
        name = of_data.data_name
        for case in of_data.readings:
            rate = of_data.clips_per_second(case)
            if case == WHOLE:
                yield _row(case, f"{name}/input", rate, _UNIT)
            else:
                yield _row(case, f"{name}/input", rate, _UNIT, baseline=WHOLE, ratio=1 / of_data.over(case))
            if case != CEILING:
                yield _row(case, f"{name}/first_batch", of_data.first_batch_seconds(case), "s")
        for case, reason in of_data.not_measured.items():
            yield _row(case, f"{name}/input", None, _UNIT, note=reason)
        yield from _store_rows(f"{name}/{WHOLE}", of_data.store)


def _store_rows(case: str, store: StoreUse) -> Iterator[BenchmarkRow]:
    yield _row(case, "object_store_peak", store.peak_bytes / 1e6, "MB")
    yield _row(case, "spilled", store.spilled_bytes / 1e6, "MB")


def _step_goals(steps: StepRates) -> Iterator[Goal]:
    yield Goal("steps: whole path / plain loop from memory", steps.whole_over_plain, _MIN_OF_PLAIN)
    yield Goal("steps: points of the curves whose losses differ", steps.num_unequal_losses, 0, True)
    yield Goal("steps: spilled MB", steps.store.spilled_bytes / 1e6, 0, True)


def _input_goals(rates: Sequence[InputRates]) -> Iterator[Goal]:
    for of_data in rates:
        name, peer = of_data.data_name, of_data.best_peer
        yield Goal(f"{name}: input path / decode ceiling", of_data.over(CEILING), _MIN_OF_CEILING)
        over_peer = None if peer is None else of_data.over(peer)
        yield Goal(f"{name}: input path / best DataLoader on the sources", over_peer, _MIN_OF_PEERS)
        yield Goal(f"{name}: spilled MB", of_data.store.spilled_bytes / 1e6, 0, True)
