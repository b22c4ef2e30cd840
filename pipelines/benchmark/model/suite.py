"""Our networks and torchvision's, and one of ours under every switch: counted exactly, then timed in one run.

Paper 3.1, Table 4. Times are medians of rounds in which all cases take turns. Each case is called once untimed before
it is timed. Ratios are medians over the rounds.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pipelines.benchmark.measuring.rows import SuiteReport, alternating_seconds, describe_machine
from pipelines.benchmark.model.cases import DEFAULT, PEERS, Case, build, runs_of, switch_cases
from pipelines.benchmark.model.config import ModelSuiteConfig
from pipelines.benchmark.model.matmul_ceiling import matmul_ceilings
from pipelines.benchmark.model.memory import peak_training_bytes
from pipelines.benchmark.model.report import Measured, Switches, report_models
from pipelines.benchmark.model.transition_plan import measure_plan
from t3d_core.errors import UserError
from t3d_core.models import (
    VideoNet,
    build_model,
    count_macs,
    count_parameters,
    count_training_macs,
    saved_bytes,
)

MAX_BF16_SLOWER = 10.0
"""If matrix products in bf16 are slower than in fp32 by more than this, no network is timed in bf16."""


def run_suite(config: ModelSuiteConfig, *, repeats: int) -> SuiteReport:
    """Count and time the networks and the switches, on the GPU if there is one.

    Multiply-adds and bytes are per clip, times per batch. A train step is forward, cross-entropy, backward and SGD.

    Raises:
        UserError: The clip or the batch is too small for one of the models.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shape = (config.batch_size, 3, config.num_frames, config.crop_size, config.crop_size)
    networks = [Case(kind, kind) for kind in (*config.models, *PEERS)]
    for case in networks:
        # Fails if a clip or a batch is too small, before anything is timed.
        _on_meta(case, shape).train()(torch.empty(shape, device="meta"))
    print(describe_machine("before"), f"device {device}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    clip_BCTHW = torch.randn(shape, device=device)
    ceilings = matmul_ceilings(device, repeats=repeats)
    measured = _measure(networks, clip_BCTHW, repeats=repeats, with_memory=config.memory)
    slower = ceilings["fp32"] / ceilings["bf16"]
    switches = (
        _measure_switches(config, clip_BCTHW, bf16_slower=slower, repeats=repeats) if config.switches_of else None
    )
    print(describe_machine("after"))
    return report_models(measured, switches, ceilings, clip_shape=shape)


def _measure_switches(config: ModelSuiteConfig, clip_BCTHW: Tensor, *, bf16_slower: float, repeats: int) -> Switches:
    kind = config.switches_of
    assert kind is not None, "checked by the caller"
    net = build_model(kind, num_classes=0).to(clip_BCTHW.device)
    plan = measure_plan(net, clip_BCTHW, execution=DEFAULT, repeats=repeats)
    cases = switch_cases(kind, plan.forms, is_compiled=config.compile)
    if bf16_slower > MAX_BF16_SLOWER:
        skipped = [case for case in cases if case.execution.precision == "bf16"]
        cases = [case for case in cases if case not in skipped]
        names = ", ".join(f"{case.name!r}" for case in skipped)
        print(f"skipped: {names}: matrix products in bf16 are {bf16_slower:.0f}x slower than in fp32 here")
    return Switches(kind, plan, _measure(cases, clip_BCTHW, repeats=repeats, with_memory=config.memory))


def _on_meta(case: Case, shape: Sequence[int]) -> nn.Module:
    """Build the network of a case on the meta device, for counting."""
    with torch.device("meta"):
        net = build(case, shape)
    if isinstance(net, VideoNet):
        net.set_recompute(case.execution.recompute)
    return net


def _measure(cases: Sequence[Case], clip_BCTHW: Tensor, *, repeats: int, with_memory: bool) -> list[Measured]:
    shape = tuple(clip_BCTHW.shape)
    print(f"timing {len(cases)} cases in {repeats} rounds: {', '.join(case.name for case in cases)}", flush=True)
    nets, runs = _prepared(cases, clip_BCTHW)
    rounds = alternating_seconds(runs, repeats=repeats, is_warmed=True)
    print("counting" + (", and training each for one step in a separate process" if with_memory else ""), flush=True)
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


def _prepared(
    cases: Sequence[Case], clip_BCTHW: Tensor
) -> tuple[dict[Case, nn.Module], dict[tuple[Case, str], Callable[[], None]]]:
    """Make the networks, and what is timed of each; a case whose numbers are wrong on this machine is left out."""
    nets: dict[Case, nn.Module] = {}
    runs: dict[tuple[Case, str], Callable[[], None]] = {}
    for case in cases:
        net = build(case, tuple(clip_BCTHW.shape)).to(clip_BCTHW.device)
        try:
            of_case = runs_of(case, net, clip_BCTHW)
        except UserError as refusal:
            print(f"skipped: {case.name!r}: {refusal}")
            continue
        nets[case] = net
        runs |= {(case, what): run for what, run in of_case.items()}
    return nets, runs


def _kept_bytes(case: Case, net: nn.Module, clip_BCTHW: Tensor) -> int:
    """Count what a real forward pass keeps, because the meta device does not support bf16 and compiled kernels."""

    def forward() -> Tensor:
        with case.execution.autocast(clip_BCTHW.device):
            return net(clip_BCTHW)

    return saved_bytes(net.train(), forward)
