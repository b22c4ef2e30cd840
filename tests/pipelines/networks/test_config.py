"""The model sections against the networks: the same kinds and names, the same defaults, every section builds."""

import subprocess
import sys
from typing import get_args

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from pipelines.networks.config import ComputeConfig, ModelConfig
from pipelines.training.config import TrainComputeConfig
from t3d_core.models import ModelKind, build_model, count_parameters
from t3d_core.models.execution import Execution
from t3d_core.models.transition_forms import default_forms


def section_of(kind, **arguments):
    return TypeAdapter(ModelConfig).validate_python({"kind": kind, **arguments})


@pytest.mark.heavy
@pytest.mark.parametrize("kind", get_args(ModelKind))
def test_the_section_of_every_kind_builds_the_net_of_that_kind(kind):
    with torch.device("meta"):
        found = build_model(kind, num_classes=400, **section_of(kind).arguments())
        assert count_parameters(found) == count_parameters(build_model(kind, num_classes=400))
    assert tuple(transition.form for transition in found.transitions()) == default_forms(len(found.transitions()))


@pytest.mark.parametrize("kind", ["resnet3d_18", "inception3d"])
def test_temporal_transition_layers_are_settings_of_other_families(kind):
    section = section_of(
        kind, ttl=True, ttl_stages=(3,), temporal_depths=((1, 3, 5),), transition_forms="averaged", pool_time=(False,)
    )
    with torch.device("meta"):
        (transition,) = build_model(kind, num_classes=3, **section.arguments()).transitions()
    assert [branch.conv.kernel_size[0] for branch in transition.branches] == [1, 3, 5]
    assert transition.form == "averaged"
    assert transition.branches[0].pool == (1, 2, 2)


@pytest.mark.parametrize(
    "option",
    [
        {"ttl_stages": (1,)},
        {"ttl_preset": "thirds"},
        {"growth_rate": 8},
        {"pool_time": (False,)},
        {"transition_forms": "averaged"},
    ],
)
@pytest.mark.parametrize("kind", ["resnet3d_18", "inception3d"])
def test_options_of_temporal_transition_layers_are_refused_without_them(kind, option):
    with pytest.raises(ValueError, match=r"is given, but this net has no TTL: set ttl to true"):
        build_model(kind, num_classes=3, **section_of(kind, **option).arguments())


@pytest.mark.parametrize("kind", ["resnet3d_18", "inception3d"])
def test_a_growth_rate_is_refused_for_widths_that_do_not_have_one(kind):
    with pytest.raises(ValueError, match="growth_rate 8 is given, but ttl_preset thirds"):
        build_model(kind, num_classes=3, **section_of(kind, ttl=True, ttl_preset="thirds", growth_rate=8).arguments())


def test_forms_of_transitions_that_a_net_has_not_are_refused():
    with pytest.raises(ValueError, match="this net has no transitions"):
        build_model("c3d", num_classes=3).set_transition_forms("pooled")


def test_a_plan_names_one_form_for_all_transitions_or_one_for_each():
    for forms in ("averaged", ("pooled", "averaged", "literal")):
        with torch.device("meta"):
            net = build_model("t3d_121", num_classes=3, **section_of("t3d_121", transition_forms=forms).arguments())
        expected = [forms] * 3 if isinstance(forms, str) else list(forms)
        assert [transition.form for transition in net.transitions()] == expected
    with pytest.raises(ValidationError, match="transition_forms"):
        section_of("t3d_121", transition_forms="fast")
    with pytest.raises(ValueError, match=r"transition_forms .* 2 entries, but this net has 3 transitions"):
        build_model("t3d_121", num_classes=3, transition_forms=("pooled", "pooled"))


def test_the_switches_and_their_defaults_are_those_of_the_networks():
    of_workers = {"sync_batch_norm"}
    assert Execution(**TrainComputeConfig().model_dump(exclude=of_workers)) == Execution()
    assert set(TrainComputeConfig.model_fields) - of_workers == set(ComputeConfig.model_fields) | {"recompute"}
    assert set(ComputeConfig.model_fields) | {"recompute"} == set(Execution.__dataclass_fields__)


def test_settings_are_read_without_pytorch():
    """A job that prepares videos needs none of its half gigabyte."""
    stages = ("prepare", "transfer", "train", "evaluate", "export", "search", "compare")
    code = f"import sys, {', '.join(f'pipelines.{stage}.config' for stage in stages)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
