"""A configuration becomes rows of costs: this machine and its peers, measured in one run (paper 3.1, Table 4).

What can be counted is counted exactly (parameters, multiply-adds, bytes kept for backward). Times are medians of
rounds in which the nets take turns (A B A B), so that a busy moment of the machine strikes all of them alike; they
mean something only as the ratio to the baseline of the same run.
"""

import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torchvision.models.video import r3d_18, s3d

from pipelines.recipe import Section
from pipelines.session import base_folder
from t3d_core.models import ModelKind, build_model, count_macs, count_parameters, count_saved_bytes

BASELINE = "r3d_18"
NUM_CLASSES = 400


class BenchmarkRow(NamedTuple):
    """One figure; `ratio` is how many times better than the `baseline` case it is (2.0: half the cost)."""

    suite: str
    case: str
    metric: str
    value: float
    unit: str
    baseline: str | None
    ratio: float | None


class BenchmarkConfig(Section):
    """What to measure, and where to write it."""

    suite: Literal["model"] = "model"
    """What is measured: `model` is the cost of the networks."""
    output: Path | None = None
    """JSON file for the list of rows; none by default."""
    models: tuple[ModelKind, ...] = ("t3d_121", "densenet3d_121")
    """Model kinds to measure beside torchvision's `r3d_18` and `s3d`."""
    num_frames: PositiveInt = 16
    """Frames a clip (the paper: 32, Table 3)."""
    crop_size: PositiveInt = 112
    """Height and width of a clip in pixels (the paper: 224, Table 5)."""
    batch_size: PositiveInt = 2
    """Clips a batch."""
    repeats: PositiveInt = 5
    """Rounds whose median is reported, after one round of warm-up."""


def run_benchmark(config: BenchmarkConfig) -> str:
    """Measure what `config` names, write it as JSON when `config.output` is set, and give the table.

    Raises:
        ValueError: A clip of `num_frames` and `crop_size` is too small for one of the models.
    """
    rows = run_model_suite(
        models=config.models,
        num_frames=config.num_frames,
        crop_size=config.crop_size,
        batch_size=config.batch_size,
        repeats=config.repeats,
    )
    if config.output is not None:
        output = base_folder() / config.output
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps([row._asdict() for row in rows], indent=1) + "\n")
    return format_table(rows)


def run_model_suite(
    *, models: Sequence[ModelKind], num_frames: int, crop_size: int, batch_size: int, repeats: int
) -> list[BenchmarkRow]:
    """Count and time the named models and their torchvision peers, on the GPU if there is one.

    Multiply-adds and bytes are per clip, times per batch. A train step is forward, cross-entropy, backward, SGD.

    Raises:
        ValueError: The clip is too small for one of the models.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    nets = {name: build() for name, build in _builders(models).items()}
    batch_shape = (batch_size, 3, num_frames, crop_size, crop_size)
    rows = [row for name, net in nets.items() for row in _counted(name, net, batch_shape)]
    _print_machine("before", device)
    clip_BCTHW = torch.randn(batch_shape, device=device)
    runs = {name: _timed_runs(net.to(device), clip_BCTHW) for name, net in nets.items()}
    for name, times in _alternate(runs, repeats=repeats, device=device).items():
        rows.extend(_timed(name, *times, batch_size=batch_size))
    _print_machine("after", device)
    return _with_ratios(rows)


def format_table(rows: Sequence[BenchmarkRow]) -> str:
    """Return the rows as lines of text, grouped by metric, best ratio first."""
    metrics = list(dict.fromkeys(row.metric for row in rows))
    ordered = sorted(rows, key=lambda row: (metrics.index(row.metric), -(row.ratio or 1.0)))
    lines = [f"{'metric':<19}{'case':<16}{'value':>12}  {'unit':<12}better than {BASELINE} by"]
    for row in ordered:
        ratio = "baseline" if row.ratio is None else f"{row.ratio:.2f}x"
        lines.append(f"{row.metric:<19}{row.case:<16}{row.value:>12.5g}  {row.unit:<12}{ratio}")
    return "\n".join(lines)


def _builders(models: Sequence[ModelKind]) -> dict[str, Callable[[], nn.Module]]:
    ours: dict[str, Callable[[], nn.Module]] = {
        kind: partial(build_model, kind, num_classes=NUM_CLASSES) for kind in models
    }
    return ours | {BASELINE: partial(r3d_18, num_classes=NUM_CLASSES), "s3d": _s3d_of_any_size}


def _s3d_of_any_size() -> nn.Module:
    """Return S3D with a global average pool: torchvision's fixed 7 x 7 window refuses crops below 224 px."""
    net = s3d(num_classes=NUM_CLASSES)
    net.avgpool = nn.AdaptiveAvgPool3d(1)
    return net


def _counted(name: str, net: nn.Module, batch_shape: tuple[int, ...]) -> list[BenchmarkRow]:
    batch_size = batch_shape[0]
    return [
        _row(name, "parameters", count_parameters(net), "count"),
        _row(name, "macs", count_macs(net, batch_shape) / batch_size / 1e9, "GMAC/clip"),
        _row(name, "kept_for_backward", count_saved_bytes(net, batch_shape) / batch_size, "bytes/clip"),
    ]


def _timed_runs(net: nn.Module, clip_BCTHW: Tensor) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return a forward pass as in testing and a training step, each ready to be called again and again."""
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    label_B = torch.zeros(len(clip_BCTHW), dtype=torch.long, device=clip_BCTHW.device)

    def forward() -> None:
        net.eval()
        with torch.inference_mode():
            net(clip_BCTHW)

    def train_step() -> None:
        net.train()
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(clip_BCTHW), label_B).backward()
        optimizer.step()

    return forward, train_step


def _alternate(
    runs: Mapping[str, tuple[Callable[[], None], ...]], *, repeats: int, device: torch.device
) -> dict[str, tuple[tuple[float, ...], ...]]:
    """Return the seconds of every run in `repeats` rounds, all taking turns, after one round that is not counted."""
    rounds = [
        {name: [_seconds(run, device) for run in of_net] for name, of_net in runs.items()} for _ in range(1 + repeats)
    ]
    return {name: tuple(zip(*(each[name] for each in rounds[1:]), strict=True)) for name in runs}


def _timed(
    name: str, forward_seconds: Sequence[float], step_seconds: Sequence[float], *, batch_size: int
) -> list[BenchmarkRow]:
    """Return the median rows of a net and print its spread: a wide one says that the machine was busy."""
    print(f"{name}: train step {min(step_seconds):.3g} to {max(step_seconds):.3g} s in {len(step_seconds)} rounds")
    step = statistics.median(step_seconds)
    return [
        _row(name, "forward", statistics.median(forward_seconds), "s"),
        _row(name, "train_step", step, "s"),
        _row(name, "train_throughput", batch_size / step, "clips/s"),
    ]


def _seconds(run: Callable[[], None], device: torch.device) -> float:
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _row(case: str, metric: str, value: float, unit: str) -> BenchmarkRow:
    return BenchmarkRow("model", case, metric, value, unit, baseline=None, ratio=None)


def _with_ratios(rows: Sequence[BenchmarkRow]) -> list[BenchmarkRow]:
    """Return the rows with their ratio to the baseline; the baseline's own rows stay without one."""
    reference = {row.metric: row.value for row in rows if row.case == BASELINE}
    return [
        row
        if row.case == BASELINE
        else row._replace(baseline=BASELINE, ratio=_times_better(row.value, reference[row.metric], unit=row.unit))
        for row in rows
    ]


def _times_better(value: float, reference: float, *, unit: str) -> float:
    """Return how many times better than the reference a value is: rates should be high, costs low."""
    return value / reference if unit.endswith("/s") else reference / value


def _print_machine(when: str, device: torch.device) -> None:
    one, five, fifteen = os.getloadavg()
    print(
        f"load average {when}: {one:.2f} {five:.2f} {fifteen:.2f} ({os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads, device {device}, torch {torch.__version__})"
    )
