"""The loop without Ray: a tiny network on clips made up by row, on one worker or on several threads' worth of them."""

import errno
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipelines.clips.config import ClipConfig
from pipelines.clips.order import TrainOrder, micro_batches
from pipelines.networks.config import T3DConfig
from pipelines.train.config import TrainConfig, TrainDataConfig
from pipelines.training.checkpoints import CheckpointFolder
from pipelines.training.config import CheckpointConfig, OptimizerConfig, ScalingConfig, ScheduleConfig
from pipelines.training.forward import Forward
from pipelines.training.loop import run_training_loop
from pipelines.training.run import describe_scaled_rate
from pipelines.training.worker import Worker
from t3d_core.models.execution import Execution
from t3d_core.training.checkpoint import load_training_state
from t3d_core.training.tasks import ClassificationTask
from t3d_core.video.augmentation import ColorAugmentation

NUM_ROWS, NUM_CLASSES, SIDE = 22, 3, 4


class TinyNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(3, 4, 1)
        self.norm = nn.BatchNorm3d(4)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(4, NUM_CLASSES)

    def forward(self, clip_BCTHW):
        return self.head(self.drop(self.norm(self.conv(clip_BCTHW)).relu().mean(dim=(2, 3, 4))))


class NoNorm(TinyNet):
    """Its step is the same for any micro-batches."""

    def __init__(self):
        super().__init__()
        self.norm, self.drop = nn.Identity(), nn.Identity()


@dataclass
class Index:
    video_id_N: list[str] = field(default_factory=lambda: [f"v{row}" for row in range(NUM_ROWS)])

    def __len__(self):
        return NUM_ROWS


@dataclass
class TinyStage:
    """Row r is a clip of noise by seed r; `seen` are the rows of each micro-batch that was handed out.

    The rows `broken` can never be read, others not at the steps `dark`.
    """

    config: TrainConfig
    net: type[nn.Module] = TinyNet
    broken: frozenset = frozenset()
    dark: range = range(0)
    not_finite: frozenset = frozenset()
    seen: list = field(default_factory=list)
    weights_name: str = "weights.pt"
    train_index: Index = field(default_factory=Index)
    val_index: Index = field(default_factory=Index)

    @property
    def order(self):
        return TrainOrder(NUM_ROWS, self.config.global_batch_size, self.config.seed)

    def build_task(self):
        return ClassificationTask(self.net())

    def set_trained(self, net, *, step):
        return False

    def is_frozen(self, net):
        return False

    def train_batches(self, *, steps, places):
        for step in steps:
            rows, _ = self.order.rows(step)
            for place in places:
                self.seen.append((step, rows[place.start : place.stop].tolist()))
                batch = self.batch(rows[place.start : place.stop])
                yield batch | ({"reason_B": np.full(len(place), "no such file")} if step in self.dark else {})

    def validation_batches(self, *, rank, world_size):
        for first in range(rank * 8, NUM_ROWS, world_size * 8):
            yield self.batch(np.arange(first, min(first + 8, NUM_ROWS)))

    def batch(self, rows):
        clips = [np.random.default_rng(row).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8) for row in rows]
        label_B = np.array([row % NUM_CLASSES for row in rows])
        return {
            "clip_BTHWC": np.stack(clips),
            "label_B": np.where(np.isin(rows, list(self.not_finite)), -1, label_B),
            "row_B": rows,
            "num_padded_B": np.zeros(len(rows), np.int64),
            "reason_B": np.array(["damaged" if row in self.broken else "" for row in rows]),
        }

    def examine(self, net, *, task, worker, execution):
        return {"extra/number": 1.0}

    def save_weights(self, net, path):
        torch.save(net.state_dict(), path)


def config_of(**changes):
    return TrainConfig(
        **{
            "data": TrainDataConfig(),
            "model": T3DConfig(),
            "clip": ClipConfig(num_frames=2, crop_size=SIDE),
            "global_batch_size": 8,
            "epochs": 3,
            "scaling": ScalingConfig(num_workers=0),
            "optimizer": OptimizerConfig(lr=0.05),
            "schedule": ScheduleConfig(kind="cosine", warmup_epochs=1),
            "checkpoint": CheckpointConfig(every_steps=1, num_to_keep=100),
            "log_every_steps": 1,
        }
        | changes
    )


class Run:
    """One start of a run on one worker, and what it logged."""

    def __init__(self, stage, folder, **surroundings):
        checkpoints = CheckpointFolder(folder, stage.config.checkpoint.num_to_keep)
        self.logged, self.unreadable = [], []
        worker = Worker(
            checkpoints=checkpoints,
            checkpoint=checkpoints.newest(),
            device=torch.device("cpu"),
            log=lambda metrics, step: self.logged.append((step, metrics)),
            note_unreadable=lambda *what: self.unreadable.append(what),
            **surroundings,
        )
        self.outcome = run_training_loop(stage, worker)
        self.newest = checkpoints.newest()
        self.state = load_training_state(self.newest) if self.newest else None

    def curve(self, name):
        return {step: metrics[name] for step, metrics in self.logged if name in metrics}


class KilledError(Exception):
    """Stands for a kill."""


def kill_at(step_of_death):
    def log(metrics, step):
        if step >= step_of_death:
            raise KilledError

    return log


def is_equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.heavy
@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"micro_batch_size": 2, "ema_decay": 0.9},
        {"schedule": ScheduleConfig(kind="plateau", patience=1)},
        {"schedule": ScheduleConfig(kind="step", every_epochs=1), "precise_bn_steps": 2},
    ],
)
def test_a_run_killed_anywhere_ends_with_the_weights_of_one_that_was_not(changes, every, tmp_path):
    config = config_of(checkpoint=CheckpointConfig(every_steps=every), **changes)
    whole = Run(TinyStage(config), tmp_path / "whole")
    num_steps = whole.state["step"]
    for step_of_death in (1, 4, 7):
        folder = tmp_path / f"killed{step_of_death}"
        with pytest.raises(KilledError):
            run_training_loop(
                TinyStage(config),
                Worker(
                    checkpoints=CheckpointFolder(folder, 2),
                    checkpoint=None,
                    device=torch.device("cpu"),
                    log=kill_at(step_of_death),
                ),
            )
        torch.rand(3)  # the generator stands elsewhere in the new process
        gone_on = Run(TinyStage(config), folder)
        assert gone_on.state["step"] == num_steps
        for part in ("net", "average") if "ema_decay" in changes else ("net",):
            assert is_equal(whole.state[part], gone_on.state[part])
        assert gone_on.outcome == whole.outcome
        losses = whole.curve("train/loss")
        assert gone_on.curve("train/loss").items() <= losses.items()


def test_two_runs_of_one_seed_have_equal_losses_and_another_seed_has_others(tmp_path):
    one, same = (Run(TinyStage(config_of()), tmp_path / name).curve("train/loss") for name in ("one", "same"))
    other = Run(TinyStage(config_of(seed=1)), tmp_path / "other").curve("train/loss")
    assert one == same
    assert one != other


@pytest.mark.parametrize("micro_batch_size", [1, 2, 4])
def test_micro_batches_make_the_same_step_as_the_whole_batch(micro_batch_size, tmp_path):
    whole = Run(TinyStage(config_of(), net=NoNorm), tmp_path / "whole")
    parts = Run(TinyStage(config_of(micro_batch_size=micro_batch_size), net=NoNorm), tmp_path / "parts")
    for name, value in whole.state["net"].items():
        torch.testing.assert_close(parts.state["net"][name], value, rtol=1e-4, atol=1e-6)
    assert parts.curve("train/loss") == pytest.approx(whole.curve("train/loss"), rel=1e-5)


@pytest.mark.parametrize(
    ("size", "world_size"),
    [(size, workers) for size in (None, 1, 2, 4, 8) for workers in (1, 2, 3, 5, 8) if workers <= 8 // (size or 1)],
)
def test_each_place_of_the_global_batch_is_one_workers(size, world_size):
    dealt = [micro_batches(8, size=size, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert [place for worker in dealt for part in worker for place in part] == list(range(8))
    assert all(worker for worker in dealt)
    if size:
        assert {len(part) for worker in dealt for part in worker} == {size}


def test_gradients_are_clipped_and_their_norm_is_logged(tmp_path):
    optimizer = OptimizerConfig(lr=0.05, momentum=0, nesterov=False, weight_decay=0)
    config = config_of(optimizer=optimizer, schedule=ScheduleConfig(kind="constant"), epochs=1)
    limit = 1e-3
    clipped = config.model_copy(update={"optimizer": config.optimizer.model_copy(update={"clip_grad_norm": limit})})
    run = Run(TinyStage(clipped, net=NoNorm), tmp_path)
    first, second = (load_training_state(tmp_path / f"checkpoint_{step:08d}") for step in (1, 2))
    norms = run.curve("train/gradient_norm")
    assert norms[2] > limit
    moved = torch.stack([(second["net"][name] - first["net"][name]).norm() for name in first["net"]]).norm()
    assert moved == pytest.approx(run.curve("lr")[2] * limit, rel=1e-3)


def test_a_linearly_scaled_rate_is_what_is_said_used_and_logged(tmp_path):
    optimizer = OptimizerConfig(lr=0.04, base_batch_size=16)
    config = config_of(optimizer=optimizer, schedule=ScheduleConfig(kind="constant"))
    assert set(Run(TinyStage(config), tmp_path).curve("lr").values()) == {0.02}
    assert describe_scaled_rate(config) == "learning rate: 0.02 for 8 clips a step (optimizer.lr 0.04 is for 16)"
    assert describe_scaled_rate(config_of(optimizer=OptimizerConfig(lr=0.04))) is None


def test_the_average_of_the_weights_is_what_is_validated_and_kept(tmp_path):
    run = Run(TinyStage(config_of(ema_decay=0.5)), tmp_path)
    kept = torch.load(run.newest / "weights.pt", weights_only=True)
    assert not is_equal(kept, run.state["net"])
    first, second = (load_training_state(tmp_path / f"checkpoint_{step:08d}") for step in (1, 2))
    expected = 0.5 * first["net"]["conv.weight"] + 0.5 * second["net"]["conv.weight"]
    torch.testing.assert_close(second["average"]["module.conv.weight"], expected)


def test_a_loss_that_is_not_finite_stops_the_run_with_its_clips_and_keeps_the_checkpoint(tmp_path, monkeypatch):
    stage = TinyStage(config_of(micro_batch_size=4))
    bad_step = 4
    rows, _ = stage.order.rows(bad_step)
    call = ClassificationTask.__call__

    def poisoned(task, net, batch):
        output = call(task, net, batch)
        is_bad = net.training and set(batch["row_B"].tolist()) == set(rows[4:].tolist())
        return output._replace(loss=output.loss * float("nan")) if is_bad else output

    monkeypatch.setattr(ClassificationTask, "__call__", poisoned)
    run = Run(stage, tmp_path)
    assert "the loss is not finite at step 5 (epoch 2" in run.outcome.refusal
    named = run.outcome.refusal.partition("clips of that step: ")[2].partition(". ")[0].split(", ")
    assert sorted(named) == sorted(f"v{row}" for row in rows[4:])
    assert str(run.newest) in run.outcome.refusal
    assert run.state["step"] == bad_step
    assert all(torch.isfinite(value).all() for value in run.state["net"].values())


def test_a_checkpoint_that_cannot_be_written_stops_the_run_and_leaves_the_one_before(tmp_path, monkeypatch):
    write = Path.write_bytes

    def full_from_step_3(path, content):
        if "checkpoint_00000003" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full_from_step_3)
    run = Run(TinyStage(config_of()), tmp_path)
    assert "the checkpoint of step 3 cannot be written" in run.outcome.refusal
    assert "No space left on device" in run.outcome.refusal
    assert run.newest.name == "checkpoint_00000002"


def test_clips_that_cannot_be_read_are_left_out_and_counted(tmp_path):
    stage = TinyStage(config_of(epochs=2, micro_batch_size=4), broken=frozenset({3, 5}))
    run = Run(stage, tmp_path)
    in_training = sum(row in stage.broken for _, rows in stage.seen for row in rows)
    assert sum(run.curve("data/unreadable_clips").values()) == in_training > 0
    assert run.outcome.validations["final"]["unreadable_clips"] == 2
    assert set(run.unreadable) == {("v3", "damaged"), ("v5", "damaged")}
    assert len(run.unreadable) == in_training + 2 * len(run.curve("val/loss"))


def test_a_clip_left_out_adds_nothing_to_the_step(tmp_path):
    """The mean over the others, weighed by their share of the global batch."""
    optimizer = OptimizerConfig(lr=0.1, momentum=0, nesterov=False, weight_decay=0)
    config = config_of(epochs=1, optimizer=optimizer, schedule=ScheduleConfig(kind="constant"))
    stage = TinyStage(config, net=NoNorm, broken=frozenset({TinyStage(config).order.rows(0)[0][0]}))
    Run(stage, tmp_path)
    rows = [row for row in stage.order.rows(0)[0] if row not in stage.broken]
    torch.manual_seed(config.seed)
    net = NoNorm()
    batch = stage.batch(np.array(rows))
    clip = torch.from_numpy(batch["clip_BTHWC"]).float().div(255).permute(0, 4, 1, 2, 3)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1, 1) for values in (config.clip.mean, config.clip.std))
    loss = nn.functional.cross_entropy(net((clip - mean) / std), torch.from_numpy(batch["label_B"]), reduction="sum")
    (loss / config.global_batch_size).backward()
    after = load_training_state(tmp_path / "checkpoint_00000001")["net"]
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(after[name], (parameter - 0.1 * parameter.grad).detach(), rtol=1e-4, atol=1e-6)


def test_a_step_of_which_nothing_can_be_read_moves_no_weight_and_the_run_continues(tmp_path):
    stage = TinyStage(config_of(optimizer=OptimizerConfig(lr=0.1, weight_decay=0, momentum=0, nesterov=False)))
    stage.broken = frozenset(stage.order.rows(1)[0].tolist()) - {0}
    run = Run(stage, tmp_path)
    before, after = (load_training_state(tmp_path / f"checkpoint_{step:08d}")["net"] for step in (1, 2))
    for name in ("conv.weight", "norm.running_mean", "norm.num_batches_tracked"):
        assert torch.equal(before[name], after[name]), name
    assert run.outcome.refusal is None


def test_a_run_whose_clips_all_go_away_stops_before_its_schedule_runs_off(tmp_path):
    config = config_of(epochs=8)
    assert Run(TinyStage(config, dark=range(2, 11)), tmp_path / "short").outcome.refusal is None
    run = Run(TinyStage(config, dark=range(2, 100)), tmp_path / "long")
    assert "no clip of 10 steps in a row, up to step 12, can be read (first reason: no such file" in run.outcome.refusal
    assert run.newest.name == "checkpoint_00000011"
    assert Run(TinyStage(config), tmp_path / "long").outcome.refusal is None


def test_where_no_validation_clip_can_be_read_the_run_stops(tmp_path):
    run = Run(TinyStage(config_of(), broken=frozenset(range(NUM_ROWS))), tmp_path)
    assert "no validation clip can be read" in run.outcome.refusal


def test_notice_of_preemption_makes_one_checkpoint(tmp_path):
    config = config_of(checkpoint=CheckpointConfig(every_steps=100))
    notices = iter([False, False, True, True, True] + [False] * 100)
    Run(TinyStage(config), tmp_path, is_preempted=lambda: next(notices))
    assert [path.name for path in sorted(tmp_path.glob("checkpoint_*"))] == [
        "checkpoint_00000003",
        "checkpoint_00000008",
    ]


def test_a_plateau_that_came_to_its_smallest_rate_ends_the_run_and_stays_ended(tmp_path):
    schedule = ScheduleConfig(kind="plateau", patience=1, min_lr=1e-6)
    config = config_of(schedule=schedule, epochs=40, optimizer=OptimizerConfig(lr=1e-5))
    stage = TinyStage(config)
    run = Run(stage, tmp_path)
    assert run.outcome.refusal is None
    assert run.state["step"] < stage.order.num_steps(40)
    again = TinyStage(config)
    assert Run(again, tmp_path).outcome == run.outcome
    assert again.seen == []


def test_every_clip_is_seen_once_an_epoch_and_another_order_comes_each_epoch(tmp_path):
    stage = TinyStage(config_of(epochs=4))
    Run(stage, tmp_path)
    rows = [row for _, part in stage.seen for row in part]
    epochs = [rows[first : first + NUM_ROWS] for first in range(0, len(rows), NUM_ROWS)]
    assert all(sorted(epoch) == list(range(NUM_ROWS)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_what_a_stage_examines_is_logged_with_every_validation_and_belongs_to_it(tmp_path):
    run = Run(TinyStage(config_of()), tmp_path)
    examined = [step for step, metrics in run.logged if "extra/number" in metrics]
    assert examined == [step for step, metrics in run.logged if "val/loss" in metrics]
    assert run.outcome.validations["initial"]["extra/number"] == 1.0


def seeds_of(*, global_batch_size, steps, places):
    """The seeds of the device's random numbers, by step and place in the batch, as a task finds them."""
    forward = Forward(
        lambda *_: torch.initial_seed(),
        execution=Execution(),
        clip=ClipConfig(),
        colors=ColorAugmentation(),
        seed=3,
        global_batch_size=global_batch_size,
        device=torch.device("cpu"),
    )
    batch = {"clip_BTHWC": np.zeros((1, 1, 1, 1, 3), np.uint8)}
    return {
        (step, place): forward.training(nn.Identity(), batch, step=step, place=range(place, place + 1))
        for step in steps
        for place in places
    }


def test_no_two_steps_and_places_of_a_run_draw_the_same_numbers_in_batches_of_any_size():
    for size in (8, 4_099, 4_100, 20_000):
        places = sorted({0, 1, size // 2, 4_098, 4_099, 8_198, size - 1} & set(range(size)))
        seeds = list(seeds_of(global_batch_size=size, steps=range(40), places=places).values())
        low_32_bits = {seed % 2**32 for seed in seeds}  # all that a generator on a CPU takes of a seed
        assert len(low_32_bits) == len(seeds) == 40 * len(places)


def test_the_numbers_of_batches_of_up_to_4099_clips_are_those_of_earlier_versions():
    assert seeds_of(global_batch_size=64, steps=[5], places=[0, 7]) == {
        (5, 0): (3 * 1_000_003 + 5) * 4_099,
        (5, 7): (3 * 1_000_003 + 5) * 4_099 + 7,
    }
    assert seeds_of(global_batch_size=4_099, steps=[1], places=[4_098]) == {(1, 4_098): (3_000_009 + 2) * 4_099 - 1}
