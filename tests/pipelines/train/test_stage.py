from dataclasses import replace

import numpy as np
import pytest

from pipelines.prepare.config import FolderDatasetConfig, PrepareConfig
from pipelines.prepare.make import prepare
from pipelines.shards.index import load_index
from pipelines.train.config import TrainAugmentationConfig, TrainDataConfig
from pipelines.train.stage import build_stage
from pipelines.training.stage import random_crop_of
from t3d_core.training.checkpoint import save_weights


@pytest.fixture
def without_val(synthetic_config, tmp_path):
    dataset = synthetic_config.dataset.model_copy(update={"val_fraction": 0.0, "videos_per_class": 2})
    prepare(synthetic_config.model_copy(update={"dataset": dataset}), tmp_path / "shards of mine")
    return tmp_path / "shards of mine"


def test_videos_without_a_validation_split_are_validated_on_held_out_sources(config_of, without_val):
    data = TrainDataConfig(shards=(without_val,), holdout_fraction=0.25)
    stage = build_stage(config_of(data=data), [without_val], None)
    [whole] = {len(load_index([without_val], fold=1, splits=["train"]))}
    assert len(stage.train_index) + len(stage.val_index) == whole
    assert len(stage.val_index) == round(0.25 * whole)
    assert not set(stage.train_index.video_id_N) & set(stage.val_index.video_id_N)


def test_all_seeds_validate_on_the_same_sources_and_another_holdout_seed_on_others(config_of, without_val):
    def held_out(*, seed, **data):
        settings = TrainDataConfig(shards=(without_val,), holdout_fraction=0.25, **data)
        return build_stage(config_of(data=settings, seed=seed), [without_val], None).val_index.video_id_N.tolist()

    assert held_out(seed=0) == held_out(seed=1) == held_out(seed=2)
    assert held_out(seed=0, holdout_seed=1) != held_out(seed=0)


def test_weights_that_were_trained_on_held_out_videos_are_refused_or_reported(config_of, without_val, tmp_path):
    def stage(*, init_from=None, holdout_seed=0):
        data = TrainDataConfig(shards=(without_val,), holdout_fraction=0.25, holdout_seed=holdout_seed)
        return build_stage(config_of(data=data), [without_val], init_from)

    first, weights = stage(), tmp_path / "model.safetensors"
    net = first.build_task().net
    save_weights(net, weights, card=first.card)
    assert stage(init_from=weights).warnings == ()
    with pytest.raises(ValueError, match=r"another held-out part \(data.holdout_seed 0, here 1\).* validate on videos"):
        stage(init_from=weights, holdout_seed=1)
    older = replace(first.card.lineage[0], sketch=(), held_out=None, holdout_seed=None)
    save_weights(net, weights, card=replace(first.card, lineage=(older,)))
    [warning] = stage(init_from=weights, holdout_seed=1).warnings
    assert "does not record which videos it held out" in warning


def test_another_held_out_part_is_refused_with_the_difference_and_a_cure_that_works(config_of, without_val, tmp_path):
    def stage(*, init_from=None, **data):
        settings = TrainDataConfig(shards=(without_val,), **{"holdout_fraction": 0.25} | data)
        return build_stage(config_of(data=settings), [without_val], init_from)

    def refusal(*, init_from, **data):
        with pytest.raises(ValueError, match=r"another held-out part") as error:
            stage(init_from=init_from, **data)
        return str(error.value)

    first, weights = stage(), tmp_path / "model.safetensors"
    net, [step] = first.build_task().net, first.card.lineage
    save_weights(net, weights, card=first.card)
    for data in ({"holdout_fraction": 0.5}, {"class_share": 0.5}):
        message = refusal(init_from=weights, **data)
        assert "another data.holdout_fraction or data.class_share, or other videos in the shards" in message
        assert "start from other weights, or train on the same data, data.holdout_fraction and data" in message
    for changes, difference in (
        ({"datasets": (*step.datasets, "ucf101"), "fingerprints": ()}, f"{step.datasets[0]} + ucf101, here"),
        ({"fingerprints": ("0123",)}, "prepared in another way: fingerprint 0123, here"),
    ):
        other = replace(step, held_out="0", **changes)
        save_weights(net, weights, card=replace(first.card, lineage=(other,)))
        message = refusal(init_from=weights)
        assert difference in message
        assert "--data.holdout_seed" not in message
        assert "start from other weights, or train on the same data. Chain" in message


def test_a_share_of_the_classes_is_trained_on_and_everything_validates(config_of, synthetic_shards):
    data = TrainDataConfig(shards=(synthetic_shards,), class_share=0.5)
    whole, half = (build_stage(config, [synthetic_shards], None) for config in (config_of(), config_of(data=data)))
    assert len(half.val_index) == len(whole.val_index)
    assert len(half.train_index) < 0.7 * len(whole.train_index)
    assert set(half.train_index.label_N) == set(whole.train_index.label_N)


@pytest.fixture
def in_folds(synthetic_shards, tmp_path):
    """48 videos of 6 people; p0 validates, the others are tested in turn."""
    videos = synthetic_shards / "videos"
    rows = [
        f"{path.relative_to(videos)},{path.parent.name},p{number % 6}"
        for number, path in enumerate(sorted(videos.glob("*/*.mp4")))
    ]
    (tmp_path / "index.csv").write_text("\n".join(["path,label,group", *rows]))
    dataset = FolderDatasetConfig(root=str(videos), annotations=tmp_path / "index.csv", num_folds=5, val_groups=("p0",))
    prepare(PrepareConfig(dataset=dataset), tmp_path / "folds")
    return tmp_path / "folds"


def test_few_people_train_and_each_of_them_in_one_fold(config_of, in_folds):
    def stage(*, seed=0, **data):
        return build_stage(config_of(data=TrainDataConfig(shards=(in_folds,), **data), seed=seed), [in_folds], None)

    def people(index):
        return {str(name) for name in index.source_names[np.unique(index.source_N)]}

    of_folds = [stage(fold=fold, num_sources=1) for fold in range(1, 6)]
    assert {person for each in of_folds for person in people(each.train_index)} == {f"videos/p{i}" for i in range(1, 6)}
    assert all(people(each.val_index) == {"videos/p0"} for each in of_folds)
    one, other_seed, two = of_folds[1], stage(fold=2, num_sources=1, seed=7), stage(fold=2, num_sources=2)
    assert one.train_index.fingerprint() == other_seed.train_index.fingerprint() != two.train_index.fingerprint()
    assert people(one.train_index) < people(two.train_index)
    steps = [each.card.lineage[-1] for each in (one, two, stage(fold=2))]
    assert len({step.sketch for step in steps}) == 3, "a chain knows what was trained on, and nothing else"
    with pytest.raises(ValueError, match=r"data.num_sources 5 is more than the 4 source videos that fold 2"):
        stage(fold=2, num_sources=5)


def test_what_is_held_out_is_the_same_for_few_sources_and_for_all(config_of, without_val):
    def stage(num_sources):
        data = TrainDataConfig(shards=(without_val,), holdout_fraction=0.25, num_sources=num_sources)
        return build_stage(config_of(data=data), [without_val], None)

    few, all_of_them = stage(2), stage(None)
    assert few.val_index.fingerprint() == all_of_them.val_index.fingerprint()
    assert few.card.lineage[-1].held_out == all_of_them.card.lineage[-1].held_out
    assert len(np.unique(few.train_index.source_N)) == 2


def test_classes_that_change_sides_are_those_of_the_data(config_of, synthetic_shards):
    names = load_index([synthetic_shards], fold=1, splits=["train"]).class_names
    augmentation = TrainAugmentationConfig(flip={names[0]: names[1]})
    stage = build_stage(config_of(augmentation=augmentation), [synthetic_shards], None)
    assert random_crop_of(stage.config.augmentation).flip
    assert stage.card.mirrored_classes == ((names[0], names[1]),)
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
