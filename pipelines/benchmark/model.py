"""The networks beside torchvision's, and one of them under every switch: counted exactly, then timed in one run.

Paper 3.1, Table 4. Times are medians of rounds in which all cases take turns; ratios are medians over the rounds.
"""

import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from pipelines.benchmark.model_cases import (
    DEFAULT,
    FOLDED_CASE,
    PEERS,
    PLAIN_CASE,
    PLAN_CASE,
    RECOMPUTED_CASE,
    Case,
    build,
    runs_of,
    switch_cases,
)
from pipelines.benchmark.model_memory import peak_training_bytes
from pipelines.benchmark.model_plot import plot_costs
from pipelines.benchmark.rows import (
    BenchmarkRow,
    Goal,
    SuiteReport,
    alternating_seconds,
    describe_machine,
    format_goals,
    median_ratio,
    quotient,
)
from pipelines.benchmark.transition_plan import TransitionPlan, measure_plan
from pipelines.recipe import Section
from t3d_core.models import (
    ModelKind,
    VideoNet,
    build_model,
    count_macs,
    count_parameters,
    count_training_macs,
    saved_bytes,
)

BASELINE = "r3d_18"
MATMUL_SIZE = 2048
PAPER_CLIP = (1, 3, 32, 224, 224)


class ModelSuiteConfig(Section):
    """Cost of the networks."""

    models: tuple[ModelKind, ...] = (
        *("t3d_121", "densenet3d_121", "t3d_169", "densenet3d_169"),
        *("resnet3d_18", "resnet3d_34", "resnet3d_50", "inception3d", "c3d"),
    )
    """Model kinds to measure beside torchvision's r3d_18, mc3_18, r2plus1d_18, s3d, mvit_v1_b and swin3d_t."""
    switches_of: ModelKind | None = "t3d_121"
    """Model whose transitions are timed in every form, and which is measured under every switch; none: no model."""
    num_frames: PositiveInt = 32
    """Frames a clip (paper Table 3)."""
    crop_size: PositiveInt = 112
    """Height and width of a clip in pixels (the paper: 224, Table 5)."""
    batch_size: PositiveInt = 2
    """Clips a batch."""
    compile: bool = False
    """Measure torch.compile too: minutes more."""
    memory: bool = True
    """Measure the peak resident memory of every case, in a process of its own."""


class Measured(NamedTuple):
    """What a case costs: counts and bytes a clip, the seconds of every round a batch."""

    case: Case
    num_parameters: int
    macs: float
    training_macs: float
    kept_bytes: int | None
    peak_bytes: int | None
    seconds: dict[str, list[float]]


class Switches(NamedTuple):
    """One network under every switch; the first case is the plain one."""

    kind: ModelKind
    plan: TransitionPlan
    measured: list[Measured]


def run_model_suite(config: ModelSuiteConfig, *, repeats: int) -> SuiteReport:
    """Count and time the networks and the switches, on the GPU if there is one.

    Multiply-adds and bytes are per clip, times per batch. A train step is forward, cross-entropy, backward, SGD.

    Raises:
        ValueError: The clip is too small for one of the models.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shape = (config.batch_size, 3, config.num_frames, config.crop_size, config.crop_size)
    networks = [Case(kind, kind) for kind in (*config.models, *PEERS)]
    for case in networks:
        count_macs(_on_meta(case, shape), shape)  # a clip that is too small is told before anything is timed
    print(describe_machine("before"), f"device {device}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    clip_BCTHW = torch.randn(shape, device=device)
    ceilings = _matmul_ceilings(device, repeats=repeats)
    measured = _measure(networks, clip_BCTHW, repeats=repeats, with_memory=config.memory)
    switches = _measure_switches(config, clip_BCTHW, repeats=repeats) if config.switches_of else None
    print(describe_machine("after"))
    return _report(config, measured, switches, ceilings)


def _measure_switches(config: ModelSuiteConfig, clip_BCTHW: Tensor, *, repeats: int) -> Switches:
    kind = config.switches_of
    assert kind is not None, "asked for"
    net = build_model(kind, num_classes=0).to(clip_BCTHW.device)
    plan = measure_plan(net, clip_BCTHW, execution=DEFAULT, repeats=repeats)
    cases = switch_cases(kind, plan.forms, is_compiled=config.compile)
    return Switches(kind, plan, _measure(cases, clip_BCTHW, repeats=repeats, with_memory=config.memory))


def _report(
    config: ModelSuiteConfig, networks: Sequence[Measured], switches: Switches | None, ceilings: Mapping[str, float]
) -> SuiteReport:
    batch_size = config.batch_size
    rows = [_row(f"matmul {precision}", "ceiling", rate / 1e9, "GMAC/s") for precision, rate in ceilings.items()]
    rows += _rows(networks, baseline=BASELINE, batch_size=batch_size)
    text = [
        f"clip {config.num_frames} x {config.crop_size} x {config.crop_size}, batch {batch_size}; networks as they run "
        f"by default: pooled transitions, channels_last (peers' convolutions too); x: times faster than {BASELINE}",
        _table(networks, ceilings, baseline=BASELINE, batch_size=batch_size),
    ]
    files = {"cost_by_size.png": _picture(config.models)}
    if switches is not None:
        plain = switches.measured[0].case.name
        rows += _plan_rows(switches)
        rows += _rows(switches.measured, baseline=plain, batch_size=batch_size, prefix=switches.kind)
        text += [
            f"{switches.kind} under every switch; x: times faster than plain",
            _table(switches.measured, ceilings, baseline=plain, batch_size=batch_size),
            _plan_text(switches.plan),
        ]
        files["plan.txt"] = switches.plan.as_option().encode()
    text.append(format_goals(_goals(networks, switches)))
    return SuiteReport(rows, "\n\n".join(text), files)


def _on_meta(case: Case, shape: Sequence[int]) -> nn.Module:
    """Build the network of a case where nothing is computed, for counting."""
    with torch.device("meta"):
        net = build(case, shape)
    if isinstance(net, VideoNet):
        net.set_recompute(case.execution.recompute)
    return net


def _picture(kinds: Sequence[ModelKind]) -> bytes:
    with torch.device("meta"):
        return plot_costs({kind: build(Case(kind, kind), PAPER_CLIP) for kind in (*kinds, BASELINE, "s3d")})


def _matmul_ceilings(device: torch.device, *, repeats: int) -> dict[str, float]:
    """Return the multiply-adds a second of the product of two large square matrices, in both precisions."""
    factors = {
        precision: torch.randn(MATMUL_SIZE, MATMUL_SIZE, device=device, dtype=dtype)
        for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
    }

    def multiply(factor: Tensor) -> None:
        torch.mm(factor, factor).sum().item()

    seconds = alternating_seconds(
        {name: partial(multiply, factor) for name, factor in factors.items()}, repeats=repeats
    )
    return {name: MATMUL_SIZE**3 / statistics.median(rounds) for name, rounds in seconds.items()}


def _measure(cases: Sequence[Case], clip_BCTHW: Tensor, *, repeats: int, with_memory: bool) -> list[Measured]:
    shape = tuple(clip_BCTHW.shape)
    print(f"timing {len(cases)} cases in {repeats} rounds: {', '.join(case.name for case in cases)}", flush=True)
    nets = {case: build(case, shape).to(clip_BCTHW.device) for case in cases}
    runs = {(case, what): run for case, net in nets.items() for what, run in runs_of(case, net, clip_BCTHW).items()}
    rounds = alternating_seconds(runs, repeats=repeats)
    print("counting" + (", and training each for one step in a process of its own" if with_memory else ""), flush=True)
    return [
        Measured(
            case,
            num_parameters=count_parameters(net),
            macs=count_macs(_on_meta(case, shape), shape) / shape[0],
            training_macs=count_training_macs(_on_meta(case, shape), shape) / shape[0],
            kept_bytes=_kept_bytes(case, net, clip_BCTHW) // shape[0] if case.is_trained else None,
            peak_bytes=peak_training_bytes(case, shape) if with_memory and case.is_trained else None,
            seconds={what: seconds for (of_case, what), seconds in rounds.items() if of_case == case},
        )
        for case, net in nets.items()
    ]


def _kept_bytes(case: Case, net: nn.Module, clip_BCTHW: Tensor) -> int:
    """Count what a real forward pass keeps: of bf16 and of compiled kernels the meta device knows nothing."""

    def forward() -> Tensor:
        with case.execution.autocast(clip_BCTHW.device):
            return net(clip_BCTHW)

    return saved_bytes(net.train(), forward)


def _rows(measured: Sequence[Measured], *, baseline: str, batch_size: int, prefix: str = "") -> list[BenchmarkRow]:
    """Return every figure of every case, with its ratio to the baseline's."""
    reference = next(each for each in measured if each.case.name == baseline)
    rows = []
    for each in measured:
        name = f"{prefix} {each.case.name}".strip()
        of_case = [
            _row(name, "parameters", each.num_parameters, "count"),
            _row(name, "macs", each.macs / 1e9, "GMAC/clip"),
            _row(name, "training_macs", each.training_macs / 1e9, "GMAC/clip"),
            _row(name, "kept_for_backward", each.kept_bytes, "bytes/clip"),
            _row(name, "peak_resident", each.peak_bytes, "bytes"),
        ]
        for what, rounds in each.seconds.items():
            ratio = None if each is reference else median_ratio(reference.seconds[what], rounds)
            row = _row(name, what, statistics.median(rounds), "s")
            of_case.append(row if ratio is None else row._replace(baseline=baseline, ratio=ratio))
        if "train_step" in each.seconds:
            of_case.append(
                _row(name, "train_throughput", batch_size / statistics.median(each.seconds["train_step"]), "clips/s")
            )
        rows += [row for row in of_case if row.value is not None]
    return rows


def _plan_rows(switches: Switches) -> list[BenchmarkRow]:
    return [
        _row(f"{switches.kind} transition {index} {form}", "transition_step", seconds, "s")
        for index, of_form in enumerate(switches.plan.seconds, start=1)
        for form, seconds in of_form.items()
    ]


def _plan_text(plan: TransitionPlan) -> str:
    lines = [f"{'forward + backward of a transition, ms':<40}" + "".join(f"{form:>16}" for form in plan.seconds[0])]
    for index, of_form in enumerate(plan.seconds, start=1):
        lines.append(f"{f'transition {index}':<40}" + "".join(f"{1e3 * s:>16.1f}" for s in of_form.values()))
    return "\n".join([*lines, f"fastest here: {plan.as_option()}"])


def _table(measured: Sequence[Measured], ceilings: Mapping[str, float], *, baseline: str, batch_size: int) -> str:
    """Return a line a case; `x` columns say how many times faster than the baseline it is."""
    reference = next(each for each in measured if each.case.name == baseline)
    lines = [
        f"{'case':<36}{'Mparam':>8}{'GMAC':>8}{'kept MiB':>10}{'peak MiB':>10}{'forward s':>11}{'x':>6}{'GMAC/s':>8}"
        f"{'of matmul':>11}{'step s':>9}{'x':>6}{'clips/s':>9}"
    ]
    for each in measured:
        forward, step = each.seconds["forward"], each.seconds.get("train_step")
        rate = each.macs * batch_size / statistics.median(forward)
        lines.append(
            f"{each.case.name:<36}{each.num_parameters / 1e6:>8.2f}{each.macs / 1e9:>8.2f}{_mib(each.kept_bytes):>10}"
            f"{_mib(each.peak_bytes):>10}{statistics.median(forward):>11.3f}"
            f"{median_ratio(reference.seconds['forward'], forward):>6.2f}{rate / 1e9:>8.1f}"
            f"{rate / ceilings[each.case.execution.precision]:>11.0%}"
            + (
                f"{statistics.median(step):>9.3f}{median_ratio(reference.seconds['train_step'], step):>6.2f}"
                f"{batch_size / statistics.median(step):>9.2f}"
                if step
                else f"{'-':>9}{'-':>6}{'-':>9}"
            )
        )
    return "\n".join(lines)


def _mib(num_bytes: int | None) -> str:
    return "-" if num_bytes is None else f"{num_bytes / 2**20:,.0f}"


def _goals(networks: Sequence[Measured], switches: Switches | None) -> list[Goal]:
    """Return what the networks were to reach; `not measured` where a case is not among those measured."""
    of_switches = switches.measured if switches is not None and switches.kind == "t3d_121" else []
    by_name = {each.case.name: each for each in (*networks, *of_switches)}
    t3d, densenet = _pooled_gmacs("t3d_121"), _pooled_gmacs("densenet3d_121")

    def slower(what: str, case: str, than: str) -> float | None:
        """How many times slower one case is than another of the same rounds."""
        if case not in by_name or than not in by_name:
            return None
        return median_ratio(by_name[case].seconds[what], by_name[than].seconds[what])

    kept = {name: by_name[name].kept_bytes for name in (PLAIN_CASE, RECOMPUTED_CASE) if name in by_name}
    return [
        Goal("T3D-121 at 32x224x224, every transition pooled: GMAC", t3d, 71.3, is_lower_better=True),
        Goal("... / DenseNet3D-121", t3d / densenet, 1.2, is_lower_better=True),
        Goal(
            "bytes kept for backward: recompute / plain",
            quotient(kept.get(RECOMPUTED_CASE), kept.get(PLAIN_CASE)),
            0.45,
            is_lower_better=True,
        ),
        Goal(
            "... training step with / without recompute",
            slower("train_step", RECOMPUTED_CASE, PLAN_CASE),
            1.45,
            is_lower_better=True,
        ),
        Goal("training step: plain / default + plan", slower("train_step", PLAIN_CASE, PLAN_CASE), 1.25),
        Goal(
            "training step: T3D-121 / DenseNet3D-121, both as by default",
            slower("train_step", "t3d_121", "densenet3d_121"),
            1.3,
            is_lower_better=True,
        ),
        Goal("inference: plain / default + plan, folded", slower("forward", PLAIN_CASE, FOLDED_CASE), 1.4),
    ]


def _pooled_gmacs(kind: ModelKind) -> float:
    with torch.device("meta"):
        net: VideoNet = build_model(kind, num_classes=400)
        net.set_transition_forms("pooled")
        return count_macs(net, PAPER_CLIP) / 1e9


def _row(case: str, metric: str, value: float | None, unit: str) -> BenchmarkRow:
    return BenchmarkRow("model", case, metric, value, unit)
