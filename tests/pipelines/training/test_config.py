import pytest

from pipelines.clips.config import ClipConfig
from pipelines.training.config import OptimizerConfig, ScalingConfig, TrainComputeConfig
from tests.pipelines.training.small_runs import train_config, transfer_config


def test_settings_of_weights_that_cannot_work_together_are_refused(settings, synthetic_shards):
    with pytest.raises(ValueError, match="replace_head true needs the weights"):
        train_config(settings, synthetic_shards, replace_head=True)
    with pytest.raises(ValueError, match="give one of them"):
        train_config(settings, synthetic_shards, init_from="runs/a", inflate_from="densenet121")
    clip = ClipConfig(num_frames=16, crop_size=32, mean=(0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match="ImageNet's mean and std"):
        train_config(settings, synthetic_shards, inflate_from="densenet121", clip=clip)


def test_a_batch_that_workers_cannot_share_is_refused_with_the_settings(settings, synthetic_shards):
    with pytest.raises(ValueError, match=r"global_batch_size 8 in parts of 4 gives too few parts"):
        train_config(settings, synthetic_shards, micro_batch_size=4, scaling=ScalingConfig(num_workers=3))
    with pytest.raises(ValueError, match=r"global_batch_size 8 is no multiple of micro_batch_size 3"):
        train_config(settings, synthetic_shards, micro_batch_size=3)
    with pytest.raises(ValueError, match=r"gives a worker fewer than 2 clips at once"):
        transfer_config(settings, synthetic_shards, scaling=ScalingConfig(num_workers=8))


def test_exactly_one_distance_of_frames_is_given():
    assert ClipConfig(frame_stride=None, seconds_per_frame=0.08).seconds_per_frame == 0.08
    with pytest.raises(
        ValueError, match=r"frame_stride 2 and clip.seconds_per_frame 0.08 both .*--clip.frame_stride none"
    ):
        ClipConfig(seconds_per_frame=0.08)
    with pytest.raises(ValueError, match=r"clip.frame_stride none needs .*: add --clip.seconds_per_frame"):
        ClipConfig(frame_stride=None)


@pytest.mark.parametrize("scale", [{"head_lr_scale": 10.0}, {"layer_decay": 0.75}])
def test_rates_by_depth_are_refused_in_a_transfer(settings, synthetic_shards, scale):
    with pytest.raises(
        ValueError, match=r"optimizer.head_lr_scale \S+ and optimizer.layer_decay \S+ are for classifiers"
    ):
        transfer_config(settings, synthetic_shards, optimizer=OptimizerConfig(**scale))


def test_a_transfer_has_no_labels_that_could_change_sides(settings, synthetic_shards):
    with pytest.raises(ValueError, match=r"augmentation.flip\s+Input should be a valid boolean"):
        transfer_config(settings, synthetic_shards, augmentation={"flip": {"move_left": "move_right"}})


def test_the_least_number_of_workers_is_not_above_the_most():
    with pytest.raises(ValueError, match=r"num_workers \[3, 2\] must be \[least, most\]"):
        ScalingConfig(num_workers=(3, 2))


def test_compiling_with_synchronised_batch_norms_is_refused_with_both_settings_and_the_cure():
    message = r"compute\.compile true and compute\.sync_batch_norm true cannot be combined, .*: leave one of them off"
    with pytest.raises(ValueError, match=message):
        TrainComputeConfig(compile=True, sync_batch_norm=True)
    assert TrainComputeConfig(compile=True).compile
    assert TrainComputeConfig(sync_batch_norm=True).sync_batch_norm
