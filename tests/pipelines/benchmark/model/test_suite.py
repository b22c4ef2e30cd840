"""Parts of the model suite: the plan of transitions, the switches, peers of any size, a process's memory, goals."""

import pytest
import torch

from pipelines.benchmark.model.cases import (
    DEFAULT,
    DEFAULT_CASE,
    DENSENET_CASE,
    PEERS,
    PLAIN_CASE,
    Case,
    build,
    runs_of,
    switch_cases,
)
from pipelines.benchmark.model.config import ModelSuiteConfig
from pipelines.benchmark.model.matmul_ceiling import MAX_SECONDS, largest_in_time
from pipelines.benchmark.model.memory import peak_training_bytes
from pipelines.benchmark.model.report import Measured, Switches, _goals, _table, report_models
from pipelines.benchmark.model.suite import run_suite
from pipelines.benchmark.model.transition_plan import FORMS, TransitionPlan, measure_plan
from t3d_core.models import T3D, VideoNet
from t3d_core.models.execution import Execution
from t3d_core.models.transition_forms import default_forms

SHAPE = (2, 3, 16, 32, 32)
PLAN = ("pooled", "averaged", "literal")


def small_net():
    return T3D(
        num_classes=0, growth_rate=4, block_config=(1, 1, 1), num_init_features=16, temporal_depths=((1, 3),) * 2
    )


def test_the_plan_is_the_fastest_form_of_every_transition_and_a_setting_of_the_job(monkeypatch):
    """Seconds are made up: the k-th form of transition i takes |k - i| more than the fastest."""
    monkeypatch.setattr(
        "pipelines.benchmark.model.transition_plan.alternating_seconds",
        lambda runs, *, repeats, is_warmed: {key: [1.0 + abs(FORMS.index(key[1]) - key[0])] * repeats for key in runs},
    )
    plan = measure_plan(small_net(), torch.randn(SHAPE), execution=DEFAULT, repeats=3)
    assert plan.forms == FORMS[:2]
    assert plan.as_option() == f"--model.transition_forms {FORMS[0]} {FORMS[1]}"
    assert plan.seconds[1] == {form: 1.0 + abs(index - 1) for index, form in enumerate(FORMS)}


def test_the_plan_keeps_the_default_where_another_form_is_hardly_faster(monkeypatch):
    monkeypatch.setattr(
        "pipelines.benchmark.model.transition_plan.alternating_seconds",
        lambda runs, *, repeats, is_warmed: {
            key: [1.0 if key[1] == ("pooled", "averaged")[key[0]] else 0.96] for key in runs
        },
    )
    plan = measure_plan(small_net(), torch.randn(SHAPE), execution=DEFAULT, repeats=1)
    assert plan.forms == ("pooled", "averaged")


def test_every_transition_is_timed_in_every_form_on_its_own_maps():
    plan = measure_plan(small_net(), torch.randn(SHAPE), execution=Execution(channels_last=False), repeats=1)
    assert len(plan.seconds) == 2
    for of_form in plan.seconds:
        assert set(of_form) == set(FORMS)
        assert min(of_form.values()) > 0


def test_the_switches_cover_every_form_and_every_field_of_the_execution():
    cases = switch_cases("t3d_121", PLAN, is_compiled=True)
    assert {case.forms for case in cases} == {None, *FORMS, PLAN}
    assert "default + plan" not in {case.name for case in switch_cases("t3d_121", default_forms(3), is_compiled=True)}
    for name, default in vars(DEFAULT).items():
        if name != "debug":
            assert {getattr(case.execution, name) for case in cases} > {default}, name
    assert len({case.name for case in cases}) == len(cases)
    assert not any(case.execution.compile for case in switch_cases("t3d_121", PLAN, is_compiled=False))


@pytest.mark.parametrize(("seconds_of_256", "expected"), [(1e-3, 2048), (2.5e-3, 1024), (0.2, 256), (60.0, 256)])
def test_the_largest_matrices_that_are_multiplied_in_time_are_taken(seconds_of_256, expected):
    now = [0.0]

    def make_product(size):
        def product():
            now[0] += seconds_of_256 * (size / 256) ** 3

        return product

    assert largest_in_time(make_product, clock=lambda: now[0]) == expected
    assert now[0] <= 2 * max(seconds_of_256, MAX_SECONDS)


@pytest.mark.heavy
@pytest.mark.parametrize(("bf16_rate", "is_timed"), [(1e8, False), (9e9, True)])
def test_where_bf16_is_slow_its_cases_are_skipped_by_name(bf16_rate, is_timed, monkeypatch, capsys):
    plan = TransitionPlan(PLAN, [dict.fromkeys(FORMS, 1.0)] * 3)
    rates = {"fp32": 9e9, "bf16": bf16_rate}
    monkeypatch.setattr("pipelines.benchmark.model.suite.matmul_ceilings", lambda device, *, repeats: rates)
    monkeypatch.setattr(
        "pipelines.benchmark.model.suite._measure", lambda cases, *_, **__: [measured(c.name) for c in cases]
    )
    monkeypatch.setattr("pipelines.benchmark.model.suite.measure_plan", lambda *_, **__: plan)
    monkeypatch.setattr("pipelines.benchmark.model.suite.PEERS", ("r3d_18",))
    report = run_suite(ModelSuiteConfig(models=("t3d_121",), num_frames=16, crop_size=32), repeats=1)
    assert bool({row.case for row in report.rows if "bf16" in row.case and "matmul" not in row.case}) is is_timed
    message = "skipped: 'plain + bf16', 'default + bf16', 'default + recompute + bf16': matrix products in bf16 are 90x"
    assert (message in capsys.readouterr().out) is not is_timed


@pytest.mark.heavy
def test_a_net_without_transitions_has_no_cases_of_forms_and_no_plan():
    cases = switch_cases("resnet3d_18", (), is_compiled=False)
    assert {case.forms for case in cases} == {None}
    networks = [measured("r3d_18"), measured("resnet3d_18")]
    switches = Switches("resnet3d_18", TransitionPlan((), []), [measured(case.name) for case in cases])
    report = report_models(networks, switches, {"fp32": 8e9, "bf16": 8e9}, clip_shape=SHAPE)
    assert "transition" not in report.text.replace("every transition pooled", "")
    assert set(report.files) == {"cost_by_size.png"}


def test_a_picture_that_cannot_be_drawn_is_left_out(monkeypatch, caplog):
    monkeypatch.setattr("pipelines.benchmark.model.report.plot_costs", lambda *_: 1 / 0)
    assert not report_models([measured("r3d_18")], None, {"fp32": 8e9}, clip_shape=SHAPE).files
    assert "cost_by_size.png is not drawn" in caplog.text


@pytest.mark.heavy
def test_a_plan_stands_in_the_report_with_its_multiply_adds():
    seconds = [dict.fromkeys(FORMS, 1.0)] * 3
    switches = Switches("t3d_121", TransitionPlan(("pooled", "literal", "literal"), seconds), [measured(PLAIN_CASE)])
    report = report_models([measured("r3d_18")], switches, {"fp32": 8e9, "bf16": 8e9}, clip_shape=SHAPE)
    assert (
        "--model.transition_forms pooled literal literal  (77.88 GMAC at 32x224x224; by default 69.95)" in report.text
    )
    assert report.files["plan.txt"] == b"--model.transition_forms pooled literal literal"
    assert {row.case for row in report.rows if row.metric == "transition_step"} == {
        f"t3d_121 transition {index} {form}" for index in (1, 2, 3) for form in FORMS
    }


def test_a_case_builds_its_net_in_its_forms_and_trains_it():
    case = Case("x", "t3d_121", Execution(recompute=True), PLAN, is_folded=True)
    with torch.device("meta"):
        net = build(case, SHAPE)
    assert isinstance(net, VideoNet)
    assert tuple(transition.form for transition in net.transitions()) == PLAN


@pytest.mark.heavy
def test_a_training_step_moves_the_weights_and_a_forward_pass_does_not():
    net = build(Case("x", "r3d_18"), SHAPE)
    runs = runs_of(Case("x", "r3d_18"), net, torch.randn(SHAPE))
    weight = net.fc.weight.detach().clone()
    runs["forward"]()
    assert torch.equal(net.fc.weight, weight)
    runs["train_step"]()
    assert not torch.equal(net.fc.weight, weight)


@pytest.mark.heavy
@pytest.mark.parametrize("shape", [(1, 3, 16, 64, 64), (1, 3, 32, 112, 112)])
@pytest.mark.parametrize("kind", PEERS)
def test_every_peer_takes_clips_of_any_size(kind, shape):
    with torch.device("meta"):
        assert build(Case(kind, kind), shape).eval()(torch.empty(shape)).shape == (1, 400)


@pytest.mark.slow
def test_the_peak_of_a_process_holds_the_net_its_gradients_and_what_it_keeps():
    small, large = (peak_training_bytes(Case("x", "r3d_18"), (2, 3, 16, size, size)) for size in (32, 96))
    assert 2**28 < small < large < 2**33


def measured(name, *, forward=1.0, step=1.0, kept=100):
    return Measured(Case(name, "r3d_18"), 1, 1e9, 3e9, kept, None, {"forward": [forward] * 3, "train_step": [step] * 3})


@pytest.mark.heavy
def test_goals_come_from_the_rounds_and_are_not_measured_where_a_case_is_missing():
    by_text = {goal.text: goal for goal in _goals([measured("t3d_121")], None)}
    assert by_text["step: plain / default"].verdict == "not measured"
    assert by_text["T3D-121 at 32x224x224, every transition pooled: GMAC"].figure == pytest.approx(71.25, abs=0.005)
    switches = Switches(
        "t3d_121",
        TransitionPlan(PLAN, []),
        [measured(PLAIN_CASE, step=3.0, kept=200), measured(DEFAULT_CASE, step=2.0)],
    )
    switches.measured.append(measured(DENSENET_CASE, step=1.6))
    by_text = {goal.text: goal for goal in _goals([], switches)}
    assert by_text["step: default / DenseNet3D-121's"].figure == pytest.approx(1.25)
    assert by_text["step: plain / default"].figure == pytest.approx(1.5)
    assert by_text["bytes kept for backward: recompute / plain"].verdict == "not measured"


def test_the_table_shows_rates_beside_the_ceiling():
    lines = _table([measured("a"), measured("b", forward=0.5)], {"fp32": 8e9, "bf16": 8e9}, baseline="a", batch_size=2)
    header, first, second = (line.split() for line in lines.splitlines())
    assert header[0] == "case"
    assert "25%" in first  # 2 clips of 1 GMAC in 1 s, of 8 GMAC/s
    assert "50%" in second
    assert "2.00" in second
