from pipelines.prepare.make import prepare
from pipelines.shards.index import load_index
from pipelines.train.config import TrainDataConfig
from pipelines.train.stage import build_stage


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
