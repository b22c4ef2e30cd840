"""A name and settings become a network that is ready to run: ours under every switch, and torchvision's.

Legend: B clips, T frames, H x W pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models import video
from torchvision.models.video.mvit import PositionalEncoding

from t3d_core.model_names import TransitionForm
from t3d_core.models import VideoNet, build_model
from t3d_core.models.execution import Execution
from t3d_core.models.folding import fold_batch_norms
from t3d_core.models.transition_forms import default_forms

NUM_CLASSES = 400
PEERS = ("r3d_18", "mc3_18", "r2plus1d_18", "s3d", "mvit_v1_b", "swin3d_t")

Forms = TransitionForm | tuple[TransitionForm, ...]

PLAIN_CASE = "plain: literal, eager, fp32"
CHANNELS_LAST_CASE = "plain + channels_last"
DEFAULT_CASE = "default"
FOLDED_CASE = "default + folded (testing)"
RECOMPUTED_CASE = "default + recompute"
DENSENET_CASE = "densenet3d_121, default"

DEFAULT = Execution()
PLAIN = Execution(channels_last=False)


@dataclass(frozen=True)
class Case:
    """One network and how it is run.

    Attributes:
        name: As tables show it.
        kind: A kind of `build_model`, or one of `PEERS`.
        execution: How it runs; peers support only channels_last.
        forms: Forms of its transitions; None for the network's default.
        is_folded: Whether batch norms are folded in the forward pass, as in testing.
        is_trained: Whether training steps are measured.
    """

    name: str
    kind: str
    execution: Execution = DEFAULT
    forms: Forms | None = None
    is_folded: bool = False
    is_trained: bool = True


def switch_cases(kind: str, plan: tuple[TransitionForm, ...], *, is_compiled: bool) -> list[Case]:
    """The plain network, every switch by itself, then several together.

    Args:
        kind: Kind of the network.
        plan: The fastest forms on this machine; empty for a network without transitions.
        is_compiled: Whether `torch.compile` is a case too.
    """
    literal: Forms | None = "literal" if plan else None
    forms = [
        Case("plain + pooled", kind, PLAIN, "pooled"),
        Case("plain + averaged", kind, PLAIN, "averaged"),
        Case("plain + space_to_depth", kind, PLAIN, "space_to_depth"),
        Case("plain + default forms", kind, PLAIN),
    ]
    cases = [
        Case(PLAIN_CASE, kind, PLAIN, literal),
        *(forms if plan else []),
        Case(CHANNELS_LAST_CASE, kind, DEFAULT, literal),
        Case("plain + recompute", kind, Execution(channels_last=False, recompute=True), literal),
        Case("plain + bf16", kind, Execution(channels_last=False, precision="bf16"), literal),
        Case("plain + folded (testing)", kind, PLAIN, literal, is_folded=True, is_trained=False),
        Case(DEFAULT_CASE, kind),
        Case(FOLDED_CASE, kind, is_folded=True, is_trained=False),
        Case(RECOMPUTED_CASE, kind, Execution(recompute=True)),
        Case("default + bf16", kind, Execution(precision="bf16")),
        Case("default + recompute + bf16", kind, Execution(recompute=True, precision="bf16")),
    ]
    if plan != default_forms(len(plan)):
        cases.append(Case("default + plan", kind, forms=plan))
    if kind == "t3d_121":
        cases.append(Case(DENSENET_CASE, "densenet3d_121"))  # its reference, measured in the same rounds
    if is_compiled:
        cases.append(Case("default + compile", kind, Execution(compile=True)))
    return cases


def build(case: Case, clip_shape: Sequence[int]) -> nn.Module:
    """Build the network of `case` on the CPU, without preparing it for its execution.

    Args:
        case: What to build.
        clip_shape: Shape (B, 3, T, H, W) of its clips.

    Raises:
        UserError: The kind is unknown.
    """
    if case.kind in PEERS:
        return _peer(case.kind, num_frames=clip_shape[2], size=clip_shape[3])
    net = build_model(case.kind, num_classes=NUM_CLASSES)
    if case.forms is not None:
        net.set_transition_forms(case.forms)
    return net


def runs_of(case: Case, net: nn.Module, clip_BCTHW: Tensor) -> dict[str, Callable[[], None]]:
    """Prepare `net`; return a forward pass as in testing and a training step, to be called repeatedly."""
    _prepare(net, case, clip_BCTHW)
    tested = _folded(net, case, clip_BCTHW) if case.is_folded else net
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    label_B = torch.zeros(len(clip_BCTHW), dtype=torch.long, device=clip_BCTHW.device)

    def forward() -> None:
        tested.eval()
        with torch.inference_mode(), case.execution.autocast(clip_BCTHW.device):
            tested(clip_BCTHW)
        _wait_for(clip_BCTHW.device)

    def train_step() -> None:
        net.train()
        optimizer.zero_grad()
        with case.execution.autocast(clip_BCTHW.device):
            loss = nn.functional.cross_entropy(net(clip_BCTHW), label_B)
        loss.backward()
        optimizer.step()
        _wait_for(clip_BCTHW.device)

    return {"forward": forward, "train_step": train_step} if case.is_trained else {"forward": forward}


def _prepare(net: nn.Module, case: Case, clip_BCTHW: Tensor) -> None:
    if isinstance(net, VideoNet):
        batch_size, _, num_frames, size, _ = clip_BCTHW.shape
        case.execution.prepare(net, num_frames=num_frames, size=size, batch_size=batch_size, is_trained=case.is_trained)
    elif case.execution.channels_last:
        for module in net.modules():
            if isinstance(module, nn.Conv3d):
                module.to(memory_format=torch.channels_last_3d)


def _folded(net: nn.Module, case: Case, clip_BCTHW: Tensor) -> nn.Module:
    assert isinstance(net, VideoNet), "a switch of our nets"
    folded = fold_batch_norms(net)
    _prepare(folded, case, clip_BCTHW)
    return folded


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peer(kind: str, *, num_frames: int, size: int) -> nn.Module:
    """Build torchvision's network for clips of any size; some of its own accept only 16 x 224 x 224."""
    net = getattr(video, kind)(weights=None, num_classes=NUM_CLASSES)
    if kind == "s3d":
        net.avgpool = nn.AdaptiveAvgPool3d(1)  # its 7 x 7 window refuses crops below 224 px
    if kind == "mvit_v1_b":
        stride = net.conv_proj.stride
        net.pos_encoding = PositionalEncoding(
            embed_size=net.conv_proj.out_channels,
            spatial_size=(size // stride[1], size // stride[2]),
            temporal_size=num_frames // stride[0],
            rel_pos_embed=False,
        )
    return net
