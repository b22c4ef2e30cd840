"""Settings of a transfer."""

from typing import get_args

import pytest
from pydantic import ValidationError

from pipelines.settings.section import added_defaults, config_fingerprint
from pipelines.transfer.config import ImageNetTeacherConfig, LossesConfig, TransferConfig
from t3d_core.training.correspondence_task import TransferLosses
from t3d_core.transfer.correspondence import ProjectionKind
from t3d_core.transfer.frame_targets import TargetKind
from t3d_core.transfer.pairing import PairKind
from t3d_core.transfer.teacher import TEACHER_KINDS
from tests.pipelines.transfer.small_runs import transfer_config


def test_a_recipe_may_name_every_teacher_that_there_is():
    assert get_args(ImageNetTeacherConfig.model_fields["kind"].annotation) == TEACHER_KINDS


def test_a_recipe_may_name_every_way_of_making_pairs():
    assert get_args(TransferConfig.model_fields["pairs"].annotation) == get_args(PairKind)


def test_a_recipe_may_name_every_projection():
    assert get_args(TransferConfig.model_fields["projection"].annotation) == get_args(ProjectionKind)


def test_a_run_from_before_there_were_projections_is_the_same_experiment_with_the_default_and_no_other(tmp_path):
    config = transfer_config({"kind": "resnet18"}, tmp_path)
    assert added_defaults(TransferConfig)["projection"] == "auto"
    of_default = config_fingerprint(config)
    assert config_fingerprint(config.model_copy(update={"projection": "always"})) != of_default


def test_a_teacher_of_ones_own_must_say_how_its_images_are_normalised(tmp_path):
    with pytest.raises(ValidationError, match=r"teacher\.exported\.mean"):
        transfer_config({"kind": "exported", "weights": "own.pt2"}, tmp_path)


def test_more_frames_for_the_teacher_than_the_clip_has_are_refused(small_run):
    with pytest.raises(
        ValidationError, match=r"teacher\.num_frames 17 is more than the clip has \(clip\.num_frames 16\)"
    ):
        small_run(teacher={"kind": "efficientnet_lite0", "num_frames": 17})


def test_a_student_inflated_from_weights_that_expect_other_pixels_is_refused(small_run):
    clip = {"num_frames": 16, "crop_size": 32, "mean": (0.5, 0.5, 0.5)}
    with pytest.raises(ValidationError, match="inflate_from takes weights for clips normalised by ImageNet"):
        small_run(inflate_from="densenet121", clip=clip)


def test_a_recipe_may_name_every_target_and_every_loss():
    assert get_args(ImageNetTeacherConfig.model_fields["target"].annotation) == get_args(TargetKind)
    assert tuple(LossesConfig.model_fields) == TransferLosses._fields
    assert LossesConfig().model_dump() == TransferLosses()._asdict()


def test_a_run_from_before_there_were_losses_of_keys_is_the_same_experiment_with_the_defaults(tmp_path):
    config = transfer_config({"kind": "resnet18"}, tmp_path)
    added = {"losses.pairs", "losses.contrast", "keys.dim", "other_time_share", "teacher.target", "teacher.random_crop"}
    added.add("data.num_sources")
    assert added <= added_defaults(TransferConfig).keys()
    with_contrast = config.model_copy(update={"losses": LossesConfig(contrast=1)})
    assert config_fingerprint(with_contrast) != config_fingerprint(config)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"losses": {"pairs": 0}}, "losses are all 0, so nothing would be learned"),
        ({"losses": {"contrast": 1}}, r"losses contrast, regression and soft_labels need .* add --cache\.num_views"),
        (
            {"losses": {"contrast": 1}, "cache": {"num_views": 2}, "pairs": "literal"},
            "pairs literal gives half of the clips frames of other videos, so .* would learn wrong keys",
        ),
        (
            {"losses": {"pairs": 0, "contrast": 1}, "cache": {"num_views": 2}, "norm_features": True},
            "norm_features True is for losses.pairs, which is 0: leave it out",
        ),
        ({"keys": {"dim": 32}}, "keys.dim 32 is for losses contrast, regression and soft_labels, which are 0"),
        (
            {"losses": {"pairs": 0, "regression": 1}, "cache": {"num_views": 2}, "other_time_share": 0.1},
            "other_time_share 0.1 is for losses pairs and contrast, but both are 0: leave it out",
        ),
        (
            {"teacher": {"kind": "resnet18", "shared_crop": True, "random_crop": False}},
            "teacher.shared_crop true is the student's random part, so leave teacher.random_crop true",
        ),
    ],
)
def test_losses_that_cannot_be_learned_are_refused(small_run, changes, expected):
    with pytest.raises(ValidationError, match=expected):
        small_run(**changes)
