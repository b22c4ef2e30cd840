import pytest

from pipelines.clips.config import ClipConfig
from pipelines.training.config import ScalingConfig
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


def test_the_least_number_of_workers_is_not_above_the_most():
    with pytest.raises(ValueError, match=r"num_workers \[3, 2\] must be \[least, most\]"):
        ScalingConfig(num_workers=(3, 2))
