"""A network's transitions, each timed in every form on this machine, become the plan for a recipe."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, get_args

import torch
from torch import Tensor, nn

from pipelines.benchmark.measuring.rows import alternating_seconds, median_ratio
from t3d_core.model_names import TransitionForm
from t3d_core.models import VideoNet
from t3d_core.models.execution import Execution
from t3d_core.models.temporal_transition import TemporalTransitionLayer
from t3d_core.models.transition_forms import default_forms

FORMS: tuple[TransitionForm, ...] = get_args(TransitionForm)
CLEAR_GAIN = 1.05


class TransitionPlan(NamedTuple):
    """A form for each transition, and the median seconds of a forward and backward pass in each form."""

    forms: tuple[TransitionForm, ...]
    seconds: list[dict[TransitionForm, float]]

    def as_option(self) -> str:
        """The plan as an option of a job."""
        return f"--model.transition_forms {' '.join(self.forms)}"


def measure_plan(net: VideoNet, clip_BCTHW: Tensor, *, execution: Execution, repeats: int) -> TransitionPlan:
    """Time every transition of `net` by itself, forward and backward, on its input for the clip.

    Args:
        net: A network on the device of the clip; it is prepared for `execution`, and its statistics change.
        clip_BCTHW: A batch as in training.
        execution: How training will run.
        repeats: Rounds in which all forms of all transitions take turns.
    """
    batch_size, _, num_frames, size, _ = clip_BCTHW.shape
    execution.prepare(net, num_frames=num_frames, size=size, batch_size=batch_size, is_trained=True)
    inputs = _inputs_of_transitions(net.train(), clip_BCTHW)
    runs = {
        (index, form): _step(transition, maps_BCTHW, form, execution)
        for index, (transition, maps_BCTHW) in enumerate(zip(net.transitions(), inputs, strict=True))
        for form in FORMS
    }
    rounds = alternating_seconds(runs, repeats=repeats, is_warmed=True)
    seconds = [{form: statistics.median(rounds[index, form]) for form in FORMS} for index in range(len(inputs))]
    plan = tuple(
        _fastest({form: rounds[index, form] for form in FORMS}, default=default)
        for index, default in enumerate(default_forms(len(inputs)))
    )
    return TransitionPlan(plan, seconds)


def _fastest(rounds: Mapping[TransitionForm, Sequence[float]], *, default: TransitionForm) -> TransitionForm:
    """Keep the default unless another form is clearly faster, because noise must not decide the plan."""
    gains = {form: median_ratio(rounds[default], rounds[form]) for form in FORMS}
    best = max(FORMS, key=gains.__getitem__)
    return best if gains[best] > CLEAR_GAIN else default


@torch.no_grad()
def _inputs_of_transitions(net: VideoNet, clip_BCTHW: Tensor) -> Sequence[Tensor]:
    inputs: list[Tensor] = []

    def keep(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        inputs.append(arguments[0].clone())

    hooks = [transition.register_forward_pre_hook(keep) for transition in net.transitions()]
    net.forward_features(clip_BCTHW)
    for hook in hooks:
        hook.remove()
    return inputs


def _step(
    transition: TemporalTransitionLayer, maps_BCTHW: Tensor, form: TransitionForm, execution: Execution
) -> Callable[[], None]:
    maps_BCTHW = maps_BCTHW.detach().requires_grad_()

    def run() -> None:
        transition.form = form
        transition.zero_grad()
        maps_BCTHW.grad = None
        with execution.autocast(maps_BCTHW.device):
            pooled_BCTHW = transition(maps_BCTHW)
        pooled_BCTHW.backward(torch.ones_like(pooled_BCTHW))
        if maps_BCTHW.device.type == "cuda":
            torch.cuda.synchronize(maps_BCTHW.device)

    return run
