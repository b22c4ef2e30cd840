"""What a baseline knows of a video."""

import json
import shutil

import numpy as np

from pipelines.baseline import features
from pipelines.baseline.config import BaselineConfig
from pipelines.baseline.features import TeacherFeatures, shape_and_length
from pipelines.shards.index import load_index
from pipelines.transfer.stage import teacher_of
from tests.pipelines.baseline.conftest import BLUE, RED
from tests.pipelines.damage import changed_videos


def copy_of(shards, folder):
    return shutil.copytree(shards, folder / "copy", ignore=shutil.ignore_patterns("features"))


def test_shape_and_length_are_logarithms_of_what_the_tables_say(lengths):
    index = load_index([lengths], fold=1, splits=["test"])
    found = shape_and_length(index, [lengths])
    assert found.reasons == {}
    stored = [len(index.frames(row)) for row in range(len(index))]
    for row, feature_D in enumerate(np.exp(found.feature_ND)):
        num_frames = {"long": 24, "short": 12}[index.class_names[index.label_N[row]]]
        np.testing.assert_allclose(feature_D, [num_frames, 10.0, 36, 48, 48 / 36, stored[row] / num_frames])


def test_statistics_are_those_of_the_teachers_features_of_the_frames(colours, config_of, tmp_path):
    shards = copy_of(colours, tmp_path)
    of_teacher = TeacherFeatures(config_of(shards), [shards])
    index = load_index([shards], fold=1, splits=["test"])
    mean, both = (of_teacher.of_rows(index, target) for target in ("mean", "mean_std"))
    assert (mean.feature_ND.shape, both.feature_ND.shape) == ((len(index), 3), (len(index), 6))
    np.testing.assert_array_equal(both.feature_ND[:, :3], mean.feature_ND)
    expected = {"red": RED, "blue": BLUE}
    for label, feature_D in zip(index.label_N, both.feature_ND, strict=True):
        colour = np.array(expected[index.class_names[label]]) / 255 * 2 - 1  # as the teacher normalises
        np.testing.assert_allclose(feature_D[:3], colour, atol=0.05)  # of lossy video
        np.testing.assert_allclose(feature_D[3:], 0, atol=0.01)  # all frames are the same


def test_the_teacher_runs_once_for_all_folds_of_the_same_videos(colours, config_of, tmp_path, monkeypatch):
    shards = copy_of(colours, tmp_path)
    with changed_videos(shards) as videos:
        for video in videos:
            video["splits"] = [video["splits"][0], {"train": "test", "test": "train"}[video["splits"][0]]]
    description = json.loads((shards / "dataset.json").read_text())
    (shards / "dataset.json").write_text(json.dumps(description | {"num_folds": 2}))
    outcomes = []
    run = features.run_teacher_pass
    monkeypatch.setattr(features, "run_teacher_pass", lambda *arguments: outcomes.append(run(*arguments)))
    for fold in (1, 2):
        TeacherFeatures(config_of(shards, data={"shards": (shards,), "fold": fold}), [shards])
    assert [outcome.num_views for outcome in outcomes] == [16 * 4, 0]


def test_another_number_of_frames_has_features_of_its_own(mean_colour, colours, config_of, tmp_path):
    shards = copy_of(colours, tmp_path)
    for num_frames in (4, 2):
        teacher = mean_colour.model_copy(update={"num_frames": num_frames})
        TeacherFeatures(config_of(shards, teacher=teacher), [shards])
    assert len(list((shards / "features").iterdir())) == 2


def test_the_default_teacher_comes_with_a_package():
    config = BaselineConfig(data={})
    assert (config.teacher.kind, teacher_of(config.teacher).feature_dim) == ("efficientnet_lite0", 1280)
