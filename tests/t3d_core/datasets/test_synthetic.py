"""The class of a synthetic video is in its motion, and nowhere else."""

import dataclasses
import json

import numpy as np
import pytest

from t3d_core.datasets import synthetic
from t3d_core.datasets.folder import read_folder
from t3d_core.datasets.splits import check_no_leak
from t3d_core.datasets.synthetic import (
    CLASS_NAMES,
    SyntheticSettings,
    object_path,
    synthesize_frames,
    synthesize_sequence,
    write_synthetic,
)

pytestmark = pytest.mark.heavy

SMALL = SyntheticSettings(videos_per_class=4, num_frames=12, height=32, width=48)
NUM_TRAIN, NUM_HELD_OUT = 24, 12
PAIRS = [
    ("move_left", "move_right"),
    ("drift_slow", "drift_fast"),
    ("right_then_down", "down_then_right"),
]


@pytest.fixture(scope="module")
def videos():
    """36 videos a class at a third of the default size, with the full number of frames: (36 * 8, T, H, W, C)."""
    settings = SyntheticSettings(videos_per_class=NUM_TRAIN + NUM_HELD_OUT, height=32, width=48, seed=3)
    return np.stack(
        [
            synthesize_frames(name, index=index, settings=settings)
            for index in range(settings.videos_per_class)
            for name in CLASS_NAMES
        ]
    )


def held_out_accuracy(feature_ND, *, num_samples=1, penalty=10.0):
    """Closed-form ridge regression on one-hot classes; trained on the first 24 videos a class, tested on the others."""
    label_N = np.repeat(np.tile(np.arange(8), NUM_TRAIN + NUM_HELD_OUT), num_samples)
    first = NUM_TRAIN * 8 * num_samples
    scale = feature_ND[:first].std(0) + 1e-6
    x_ND = np.column_stack([(feature_ND - feature_ND[:first].mean(0)) / scale, np.ones(len(feature_ND))])
    train, test = x_ND[:first], x_ND[first:]
    weight = np.linalg.solve(train.T @ train + penalty * np.eye(train.shape[1]), train.T @ np.eye(8)[label_N[:first]])
    return float(((test @ weight).argmax(1) == label_N[first:]).mean())


def motion_features(frames_THWC):
    """How the moving part's place changes: means and spreads of its steps in each half, and the swings' spectrum."""
    frames = frames_THWC.astype(float)
    height, width = frames.shape[1:3]
    difference = np.abs(frames[1:] - frames[:-1]).sum(-1)
    moving = np.abs(frames - np.median(frames, axis=0)).sum(-1)
    features = []
    for axis, size in ((1, width), (2, height)):
        turn = np.exp(2j * np.pi * np.arange(size) / size)
        place = moving.sum(axis) @ turn
        step = np.angle(place[1:] * np.conj(place[:-1]))
        middle = len(step) // 2
        features += [np.median(s) for s in (step[:middle], step[middle:])] + [np.median(np.abs(step)), step.std()]
        spectrum = np.abs(np.fft.fft(difference.sum(axis) @ turn))[1:14]
        features += list(spectrum / spectrum.sum())
    return features


def test_a_single_frame_does_not_tell_the_class(videos):
    # Four frames a video, 384 held-out ones, 8 x 8 pixels each.
    frames = videos[:, 3::12]
    small = frames.reshape(len(videos), 4, 8, 4, 8, 6, 3).mean((3, 5)).reshape(len(videos) * 4, -1)
    accuracy = held_out_accuracy(small, num_samples=4, penalty=300.0)
    assert accuracy < 0.125 + 0.075


def test_mean_colour_and_contrast_do_not_tell_the_class(videos):
    flat = videos[:, ::6].reshape(len(videos), -1, 3).astype(float)
    assert held_out_accuracy(np.column_stack([flat.mean(1), flat.std(1)])) < 0.125 + 0.09


def test_motion_tells_the_class(videos):
    features = np.array([motion_features(frames) for frames in videos])
    assert held_out_accuracy(features) > 0.9


@pytest.mark.parametrize("pair", PAIRS)
def test_both_classes_of_a_pair_show_the_same_bag_of_places(pair):
    def bag(name):
        path_T2 = object_path(name, num_frames=48, rng=np.random.default_rng(5))
        return sorted((np.rint(path_T2 * 48 * 1000).astype(int) % 48000).tolist())

    def order(name):
        return object_path(name, num_frames=48, rng=np.random.default_rng(5)).tolist()

    start = object_path(pair[0], num_frames=48, rng=np.random.default_rng(5))[0]
    np.testing.assert_array_equal(start, object_path(pair[1], num_frames=48, rng=np.random.default_rng(5))[0])
    assert bag(pair[0]) == bag(pair[1])
    assert order(pair[0]) != order(pair[1])


def test_the_swings_differ_in_period_and_not_in_reach():
    slow, fast = (
        object_path(name, num_frames=480, rng=np.random.default_rng(5))[:, 0]
        for name in ("oscillate_slow", "oscillate_fast")
    )
    np.testing.assert_allclose(np.sort(slow), np.sort(fast), atol=0.005)
    assert [int(np.abs(np.fft.rfft(x - x.mean())).argmax()) for x in (slow, fast)] == [2, 5]


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_the_place_in_any_frame_is_uniform(name):
    frame_number, num_videos = 17, 800
    places = [object_path(name, num_frames=48, rng=np.random.default_rng(s))[frame_number] for s in range(num_videos)]
    counts, *_ = np.histogram2d(*(np.array(places) % 1).T, bins=4, range=[[0, 1], [0, 1]])
    expected = num_videos / 16
    # Chi-squared with 15 degrees of freedom: above 37.7 in one of 1000 uniform draws.
    assert ((counts - expected) ** 2 / expected).sum() < 37.7


def test_videos_differ_in_appearance():
    first_frames = [synthesize_frames(name, index=i, settings=SMALL)[0] for name in CLASS_NAMES for i in range(4)]
    distances = [np.abs(a.astype(int) - b).mean() for i, a in enumerate(first_frames) for b in first_frames[:i]]
    assert min(distances) > 10


def test_the_background_stands_still_and_the_object_moves():
    frames = synthesize_frames("move_right", index=0, settings=SMALL).astype(int)
    changed = (np.abs(frames - frames[0]).sum(-1) > 0).any(0)
    assert 0.05 < changed.mean() < 0.6


def test_frames_have_the_asked_size_and_depend_on_the_seed_and_index_only():
    frames = synthesize_frames("drift_fast", index=1, settings=SMALL)
    assert frames.shape == (12, 32, 48, 3)
    assert frames.dtype == np.uint8
    np.testing.assert_array_equal(frames, synthesize_frames("drift_fast", index=1, settings=SMALL))
    assert (frames != synthesize_frames("drift_fast", index=2, settings=SMALL)).any()
    other_seed = dataclasses.replace(SMALL, seed=1)
    assert (frames != synthesize_frames("drift_fast", index=1, settings=other_seed)).any()


def file_bytes(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.mp4"))}


def test_the_same_seed_writes_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_synthetic(tmp_path / name, dataclasses.replace(SMALL, seed=seed))
    first, second, other = (file_bytes(tmp_path / name) for name in "abc")
    assert len(first) == 32
    assert first == second
    assert all(first[name] != other[name] for name in first)


def test_the_data_set_has_even_splits_by_video_and_no_leak(tmp_path):
    dataset = write_synthetic(tmp_path, SMALL)
    check_no_leak(dataset)
    assert dataset.class_names == CLASS_NAMES == tuple(sorted(CLASS_NAMES))
    for name in CLASS_NAMES:
        splits = sorted(r.splits[0] for r in dataset.records if r.label == name)
        assert splits.count("test") == 1
        assert splits.count("train") >= 2
    names = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.mp4")]
    assert {r.path for r in dataset.records} == set(names)
    assert {r.video_id for r in read_folder(names, name="mine").records} == {r.video_id for r in dataset.records}


def test_finished_videos_are_kept_and_missing_ones_are_made_again(tmp_path, monkeypatch):
    dataset = write_synthetic(tmp_path, SMALL)
    before = file_bytes(tmp_path)
    made = []
    encode = synthetic.encode_video

    def counted(frames, *, path, fps):
        made.append(path)
        return encode(frames, path=path, fps=fps)

    monkeypatch.setattr(synthetic, "encode_video", counted)
    assert write_synthetic(tmp_path, SMALL) == dataset
    assert made == []
    (tmp_path / dataset.records[5].video_id).unlink()
    write_synthetic(tmp_path, SMALL)
    assert len(made) == 1
    assert file_bytes(tmp_path) == before


def test_an_interrupted_call_leaves_no_partial_video_and_is_taken_up(tmp_path, monkeypatch):
    encode, calls = synthetic.encode_video, []

    def interrupted(frames, *, path, fps):
        calls.append(path)
        if len(calls) == 3:
            path.write_bytes(b"half a video")
            raise KeyboardInterrupt
        return encode(frames, path=path, fps=fps)

    with monkeypatch.context() as patch:
        patch.setattr(synthetic, "encode_video", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_synthetic(tmp_path / "a", SMALL)
    write_synthetic(tmp_path / "a", SMALL)
    write_synthetic(tmp_path / "b", SMALL)
    whole = {name: data for name, data in file_bytes(tmp_path / "a").items() if "/." not in name}
    assert whole == file_bytes(tmp_path / "b")


def test_other_settings_in_the_same_folder_are_refused_naming_both(tmp_path):
    write_synthetic(tmp_path, SMALL)
    with pytest.raises(ValueError, match=r"found .*'seed': 0.* asked for .*'seed': 7"):
        write_synthetic(tmp_path, dataclasses.replace(SMALL, seed=7))


def test_a_folder_of_other_files_is_refused(tmp_path):
    (tmp_path / "holiday.mp4").touch()
    with pytest.raises(ValueError, match=r"holds files but no synthetic\.json"):
        write_synthetic(tmp_path, SMALL)


def test_the_marker_holds_fingerprint_and_settings(tmp_path):
    write_synthetic(tmp_path, SMALL)
    marker = json.loads((tmp_path / "synthetic.json").read_text())
    assert marker == {"fingerprint": SMALL.fingerprint(), "settings": dataclasses.asdict(SMALL)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"videos_per_class": 0}, "videos_per_class must be at least 1"),
        ({"num_frames": 8}, "num_frames must be at least 12"),
        ({"height": 33}, "height must be even"),
        ({"width": 30}, "width must be at least 32"),
        ({"fps": 0.0}, "fps must be above 0"),
        ({"test_fraction": 0.9, "val_fraction": 0.2}, "together below 1"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        SyntheticSettings(**change)


def test_a_sequence_shows_one_object_that_goes_on_from_where_it_is():
    settings = dataclasses.replace(SMALL, num_frames=48)
    frames = list(synthesize_sequence(["move_left", "move_left", "drift_slow"], index=1, settings=settings))
    once = synthesize_frames("move_left", index=1, settings=settings)
    assert np.array_equal(frames[:48], once)
    assert np.array_equal(frames[48:96], once)
    steps = np.abs(np.diff(np.array(frames, float), axis=0)).mean(axis=(1, 2, 3))
    assert steps[95] == 0  # the new motion begins at the last place
    assert steps.max() < 2 * np.median(steps)
