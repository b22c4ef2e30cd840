"""The networks beside torchvision's: counted exactly, then timed in one run (paper 3.1, Table 4)."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torchvision.models.video import r3d_18, s3d

from pipelines.benchmark.rows import (
    BenchmarkRow,
    SuiteReport,
    alternating_seconds,
    describe_machine,
    format_table,
    times_better,
)
from pipelines.recipe import Section
from t3d_core.models import ModelKind, build_model, count_macs, count_parameters, count_saved_bytes

BASELINE = "r3d_18"
NUM_CLASSES = 400


class ModelSuiteConfig(Section):
    """Cost of the networks."""

    models: tuple[ModelKind, ...] = ("t3d_121", "densenet3d_121")
    """Model kinds to measure beside torchvision's `r3d_18` and `s3d`."""
    num_frames: PositiveInt = 16
    """Frames a clip (the paper: 32, Table 3)."""
    crop_size: PositiveInt = 112
    """Height and width of a clip in pixels (the paper: 224, Table 5)."""
    batch_size: PositiveInt = 2
    """Clips a batch."""


def run_model_suite(config: ModelSuiteConfig, *, repeats: int) -> SuiteReport:
    """Count and time the named models and their torchvision peers, on the GPU if there is one.

    Multiply-adds and bytes are per clip, times per batch. A train step is forward, cross-entropy, backward, SGD.

    Raises:
        ValueError: The clip is too small for one of the models.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    nets = {name: build() for name, build in _builders(config.models).items()}
    batch_shape = (config.batch_size, 3, config.num_frames, config.crop_size, config.crop_size)
    rows = [row for name, net in nets.items() for row in _counted(name, net, batch_shape)]
    print(describe_machine("before"), f"device {device}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    clip_BCTHW = torch.randn(batch_shape, device=device)
    runs = {
        (name, what): run for name, net in nets.items() for what, run in _timed_runs(net.to(device), clip_BCTHW).items()
    }
    seconds = alternating_seconds(runs, repeats=repeats)
    print(describe_machine("after"))
    for name in nets:
        rows.extend(_timed(name, seconds, batch_size=config.batch_size))
    rows = _with_ratios(rows)
    return SuiteReport(rows, format_table(rows))


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


def _timed_runs(net: nn.Module, clip_BCTHW: Tensor) -> dict[str, Callable[[], None]]:
    """Return a forward pass as in testing and a training step, each ready to be called again and again."""
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    label_B = torch.zeros(len(clip_BCTHW), dtype=torch.long, device=clip_BCTHW.device)

    def forward() -> None:
        net.eval()
        with torch.inference_mode():
            net(clip_BCTHW)
        _wait_for(clip_BCTHW.device)

    def train_step() -> None:
        net.train()
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(clip_BCTHW), label_B).backward()
        optimizer.step()
        _wait_for(clip_BCTHW.device)

    return {"forward": forward, "train_step": train_step}


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _timed(name: str, seconds: Mapping[tuple[str, str], Sequence[float]], *, batch_size: int) -> list[BenchmarkRow]:
    """Return the median rows of a net and print its spread: a wide one says that the machine was busy."""
    steps = seconds[name, "train_step"]
    print(f"{name}: train step {min(steps):.3g} to {max(steps):.3g} s in {len(steps)} rounds")
    step = statistics.median(steps)
    return [
        _row(name, "forward", statistics.median(seconds[name, "forward"]), "s"),
        _row(name, "train_step", step, "s"),
        _row(name, "train_throughput", batch_size / step, "clips/s"),
    ]


def _row(case: str, metric: str, value: float, unit: str) -> BenchmarkRow:
    return BenchmarkRow("model", case, metric, value, unit)


def _with_ratios(rows: Sequence[BenchmarkRow]) -> list[BenchmarkRow]:
    """Return the rows with their ratio to the baseline; the baseline's own rows stay without one."""
    reference = {row.metric: row.value for row in rows if row.case == BASELINE}
    return [row if row.case == BASELINE else _with_ratio(row, reference[row.metric]) for row in rows]


def _with_ratio(row: BenchmarkRow, reference: float | None) -> BenchmarkRow:
    assert row.value is not None, "every net is measured in full"
    assert reference is not None, "so is the baseline"
    return row._replace(baseline=BASELINE, ratio=times_better(row.value, reference, unit=row.unit))
