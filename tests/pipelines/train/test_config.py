import pytest

from pipelines.settings.section import Role, names_of_roles
from pipelines.train.config import ResolvedTrainConfig, TrainConfig
from pipelines.training.config import ScheduleConfig


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"freeze_backbone": True}, "freeze_backbone true keeps the weights of another run"),
        ({"freeze_backbone_epochs": 1}, "freeze_backbone_epochs 1 keeps the weights of another run: add --init_from"),
        ({"freeze_backbone_epochs": 1, "init_from": "x"}, "freeze_backbone_epochs 1 must be less than epochs 1"),
        (
            {"freeze_backbone_epochs": 1, "freeze_backbone": True, "init_from": "x"},
            "freeze_backbone_epochs 1 is a part of the run, and freeze_backbone true all of it: leave one",
        ),
        ({"augmentation": {"flip": {"a": "b", "c": "b"}}}, "flip gives class 'b' the partner 'c' and the partner 'a'"),
        ({"augmentation": {"flip": {}}}, "at least 1 item"),
        ({"folds": (1, 2)}, r"folds \[1, 2\] makes one run a fold, NAME-fold1 and so on: add --name NAME"),
        ({"schedule": ScheduleConfig(kind="cosine", warmup_epochs=1)}, "warmup_epochs 1 must be less than epochs 1"),
        ({"schedule": {"kind": "plateau", "min_lr": 0.1}}, r"min_lr 0\.1 is above the learning rate 0\.05"),
        ({"optimizer": {"kind": "sgd", "momentum": 0}}, "momentum, which is 0: add --optimizer.nesterov false"),
        ({"seed": -1}, "greater than or equal to 0"),
        ({"compute": {"sync_batch_norm": True}}, "sync_batch_norm true works on GPUs only"),
        (
            {
                "compute": {"sync_batch_norm": True},
                "scaling": {"num_workers": 3, "use_gpu": True},
                "micro_batch_size": 2,
            },
            "4 cannot be dealt evenly to 3 workers",
        ),
    ],
)
def test_settings_that_cannot_work_together_are_refused(changes, message, config_of):
    with pytest.raises(ValueError, match=message):
        config_of(**changes)


def test_a_resolved_training_has_the_fields_of_the_given_one():
    """Its fingerprint, by which a run of before is resumed, follows from their roles."""
    given, resolved = TrainConfig.model_fields, ResolvedTrainConfig.model_fields
    assert list(given) == list(resolved)
    assert names_of_roles(ResolvedTrainConfig, set(Role)) == names_of_roles(TrainConfig, set(Role))
    same = given.keys() - {"model", "clip"}
    assert {name: given[name].default for name in same} == {name: resolved[name].default for name in same}
