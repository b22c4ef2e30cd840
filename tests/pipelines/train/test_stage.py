import numpy as np
import pytest

from pipelines.prepare.make import prepare
from pipelines.shards.index import load_index
from pipelines.train.config import TrainAugmentationConfig, TrainDataConfig
from pipelines.train.stage import build_stage
from pipelines.training.stage import random_crop_of


def test_videos_without_a_validation_split_are_validated_on_held_out_sources(config_of, synthetic_config, tmp_path):
    dataset = synthetic_config.dataset.model_copy(update={"val_fraction": 0.0, "videos_per_class": 2})
    prepare(synthetic_config.model_copy(update={"dataset": dataset}), tmp_path / "shards of mine")
    folders = [tmp_path / "shards of mine"]
    stage = build_stage(config_of(data=TrainDataConfig(shards=tuple(folders), holdout_fraction=0.25)), folders, None)
    [whole] = {len(load_index(folders, fold=1, splits=["train"]))}
    assert len(stage.train_index) + len(stage.val_index) == whole
    assert len(stage.val_index) == round(0.25 * whole)
    assert not set(stage.train_index.video_id_N) & set(stage.val_index.video_id_N)


def test_a_share_of_the_classes_is_trained_on_and_everything_validates(config_of, synthetic_shards):
    data = TrainDataConfig(shards=(synthetic_shards,), class_share=0.5)
    whole, half = (build_stage(config, [synthetic_shards], None) for config in (config_of(), config_of(data=data)))
    assert len(half.val_index) == len(whole.val_index)
    assert len(half.train_index) < 0.7 * len(whole.train_index)
    assert set(half.train_index.label_N) == set(whole.train_index.label_N)


def test_classes_that_change_sides_are_those_of_the_data(config_of, synthetic_shards):
    names = load_index([synthetic_shards], fold=1, splits=["train"]).class_names
    augmentation = TrainAugmentationConfig(flip={names[0]: names[1]})
    stage = build_stage(config_of(augmentation=augmentation), [synthetic_shards], None)
    assert random_crop_of(stage.config.augmentation).flip
    wrong = TrainAugmentationConfig(flip={names[0]: f"{names[1]}s"})
    with pytest.raises(ValueError, match=f"do not have: '{names[1]}s' .the nearest is '{names[1]}'.: give names of"):
        build_stage(config_of(augmentation=wrong), [synthetic_shards], None)


def test_training_batches_have_the_labels_of_mirrored_clips_and_validation_has_those_of_the_rows(
    local_ray, config_of, synthetic_shards
):
    names = load_index([synthetic_shards], fold=1, splits=["train"]).class_names
    labels = {}
    for flip in (True, {names[0]: names[1], names[2]: names[3]}):
        augmentation = TrainAugmentationConfig(flip=flip)
        stage = build_stage(config_of(augmentation=augmentation), [synthetic_shards], None)
        batches = list(stage.train_batches(steps=range(3), places=[range(8)]))
        held_out = list(stage.validation_batches(rank=0, world_size=1))
        assert all((batch["label_B"] == stage.val_index.label_N[batch["row_B"]]).all() for batch in held_out)
        labels[str(flip)] = np.concatenate([batch["label_B"] for batch in batches])
    plain, mapped = labels.values()
    changed = plain != mapped
    assert 2 <= changed.sum() < (plain < 4).sum()
    assert (mapped[changed] == np.array([1, 0, 3, 2])[plain[changed]]).all()
