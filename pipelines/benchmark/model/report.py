"""The measurements of the model suite become rows, tables, a plan of transitions, a picture, and verdicts."""

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from pipelines.benchmark.measuring.rows import BenchmarkRow, Goal, SuiteReport, format_goals, median_ratio, quotient
from pipelines.benchmark.model.cases import (
    CHANNELS_LAST_CASE,
    DEFAULT_CASE,
    DENSENET_CASE,
    FOLDED_CASE,
    PEERS,
    PLAIN_CASE,
    RECOMPUTED_CASE,
    Case,
    build,
)
from pipelines.benchmark.model.plot import plot_costs
from pipelines.benchmark.model.transition_plan import TransitionPlan
from pipelines.runtime.pictures import optional_picture
from pipelines.runtime.text_table import format_table
from t3d_core.model_names import TransitionForm
from t3d_core.models import ModelKind, build_model, count_macs
from t3d_core.models.execution import Precision
from t3d_core.models.transition_forms import default_forms

BASELINE = "r3d_18"
PAPER_CLIP = (1, 3, 32, 224, 224)


class Measured(NamedTuple):
    """The cost of a case: counts and bytes per clip, and seconds per batch of every round."""

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


def report_models(
    networks: Sequence[Measured],
    switches: Switches | None,
    ceilings: Mapping[Precision, float],
    *,
    clip_shape: tuple[int, ...],
) -> SuiteReport:
    """Assemble the report.

    Args:
        networks: Every network as it runs by default, including `BASELINE`.
        switches: One network under every switch, or None.
        ceilings: Multiply-adds per second of a matrix product, by precision.
        clip_shape: Shape (B, 3, T, H, W) of the batches.
    """
    batch_size, _, num_frames, crop_size, _ = clip_shape
    rows = [_row(f"matmul {precision}", "ceiling", rate / 1e9, "GMAC/s") for precision, rate in ceilings.items()]
    rows += _rows(networks, baseline=BASELINE, batch_size=batch_size)
    text = [
        f"clip {num_frames} x {crop_size} x {crop_size}, batch {batch_size}; networks as they run "
        f"by default: channels_last (peers' convolutions too); x: times faster than {BASELINE}",
        _table(networks, ceilings, baseline=BASELINE, batch_size=batch_size),
    ]
    files = {}
    with optional_picture("cost_by_size.png"):
        files["cost_by_size.png"] = _picture([each.case for each in networks])
    if switches is not None:
        plain = switches.measured[0].case.name
        rows += _rows(switches.measured, baseline=plain, batch_size=batch_size, prefix=switches.kind)
        text += [
            f"{switches.kind} under every switch; x: times faster than plain",
            _table(switches.measured, ceilings, baseline=plain, batch_size=batch_size),
        ]
        if switches.plan.forms:
            rows += _plan_rows(switches)
            text.append(_plan_text(switches))
            files["plan.txt"] = switches.plan.as_option().encode()
    text.append(format_goals(_goals(networks, switches)))
    return SuiteReport(rows, "\n\n".join(text), files)


def _picture(networks: Sequence[Case]) -> bytes:
    """Plot our networks and two of torchvision's that accept clips of any size."""
    shown = [case for case in networks if case.kind not in PEERS or case.kind in (BASELINE, "s3d")]
    with torch.device("meta"):
        return plot_costs({case.name: build(case, PAPER_CLIP) for case in shown})


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
            _row(name, "peak_training", each.peak_bytes, "bytes"),
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


def _plan_text(switches: Switches) -> str:
    plan = switches.plan
    header = ["forward + backward of a transition, ms", *plan.seconds[0]]
    rows = [
        [f"transition {index}", *(f"{1e3 * seconds:.1f}" for seconds in of_form.values())]
        for index, of_form in enumerate(plan.seconds, start=1)
    ]
    gmacs, usual = (
        _gmacs_of_paper_clip(switches.kind, forms) for forms in (plan.forms, default_forms(len(plan.forms)))
    )
    chosen = f"for this machine: {plan.as_option()}  ({gmacs:.2f} GMAC at 32x224x224; by default {usual:.2f})"
    return "\n".join([*format_table(header, rows), chosen])


def _table(measured: Sequence[Measured], ceilings: Mapping[Precision, float], *, baseline: str, batch_size: int) -> str:
    """Return a line per case; the `x` columns give its speed relative to the baseline."""
    reference = next(each for each in measured if each.case.name == baseline)
    rows = []
    for each in measured:
        forward, step = each.seconds["forward"], each.seconds.get("train_step")
        rate = each.macs * batch_size / statistics.median(forward)
        of_step = ["-", "-", "-"]
        if step:
            seconds, faster = statistics.median(step), median_ratio(reference.seconds["train_step"], step)
            of_step = [f"{seconds:.3f}", f"{faster:.2f}", f"{batch_size / seconds:.2f}"]
        rows.append(
            [
                each.case.name,
                f"{each.num_parameters / 1e6:.2f}",
                f"{each.macs / 1e9:.2f}",
                _mib(each.kept_bytes),
                _mib(each.peak_bytes),
                f"{statistics.median(forward):.3f}",
                f"{median_ratio(reference.seconds['forward'], forward):.2f}",
                f"{rate / 1e9:.1f}",
                f"{rate / ceilings[each.case.execution.precision]:.0%}",
                *of_step,
            ]
        )
    header = ["case", "Mparam", "GMAC", "kept MiB", "peak MiB", "forward s", "x", "GMAC/s", "of matmul"]
    return "\n".join(format_table([*header, "step s", "x", "clips/s"], rows))


def _mib(num_bytes: int | None) -> str:
    return "-" if num_bytes is None else f"{num_bytes / 2**20:,.0f}"


def _goals(networks: Sequence[Measured], switches: Switches | None) -> list[Goal]:
    """Return the goals of the networks; `not measured` if a case was not measured."""
    of_switches = switches.measured if switches is not None and switches.kind == "t3d_121" else []
    by_name = {each.case.name: each for each in (*networks, *of_switches)}
    t3d, densenet = (_gmacs_of_paper_clip(kind, "pooled") for kind in ("t3d_121", "densenet3d_121"))

    def slower(what: str, case: str, than: str) -> float | None:
        """How many times slower one case is than another in the same rounds."""
        if case not in by_name or than not in by_name:
            return None
        return median_ratio(by_name[case].seconds[what], by_name[than].seconds[what])

    kept = {name: by_name[name].kept_bytes for name in (PLAIN_CASE, RECOMPUTED_CASE) if name in by_name}
    step, forward = "train_step", "forward"
    return [
        Goal("T3D-121 at 32x224x224, every transition pooled: GMAC", t3d, 71.3, is_lower_better=True),
        Goal("... / DenseNet3D-121", t3d / densenet, 1.2, is_lower_better=True),
        Goal(
            "bytes kept for backward: recompute / plain",
            quotient(kept.get(RECOMPUTED_CASE), kept.get(PLAIN_CASE)),
            0.45,
            is_lower_better=True,
        ),
        Goal("... step: with / without", slower(step, RECOMPUTED_CASE, DEFAULT_CASE), 1.45, is_lower_better=True),
        Goal("step: plain / default", slower(step, PLAIN_CASE, DEFAULT_CASE), 1.25),
        Goal("step: default / DenseNet3D-121's", slower(step, DEFAULT_CASE, DENSENET_CASE), 1.3, is_lower_better=True),
        Goal("inference: plain / default, folded", slower(forward, PLAIN_CASE, FOLDED_CASE), 1.4),
        Goal("step: plain / plain + channels_last", slower(step, PLAIN_CASE, CHANNELS_LAST_CASE), 1.0),
        Goal("inference: plain / plain + channels_last", slower(forward, PLAIN_CASE, CHANNELS_LAST_CASE), 1.0),
        Goal("inference: default / default, folded", slower(forward, DEFAULT_CASE, FOLDED_CASE), 1.0),
    ]


def _gmacs_of_paper_clip(kind: ModelKind, forms: TransitionForm | tuple[TransitionForm, ...]) -> float:
    with torch.device("meta"):
        net = build_model(kind, num_classes=400)
        net.set_transition_forms(forms)
        return count_macs(net, PAPER_CLIP) / 1e9


def _row(case: str, metric: str, value: float | None, unit: str) -> BenchmarkRow:
    return BenchmarkRow("model", case, metric, value, unit)
