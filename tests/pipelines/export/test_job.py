"""A small T3D becomes a file of each format, which gives the network's own results; and a wrong file is not kept."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import mlflow
import numpy as np
import onnxruntime
import pytest
import torch

from pipelines.export import job as export
from pipelines.export import program as exported_model
from pipelines.export.config import ExportConfig
from pipelines.export.program import FORMATS
from pipelines.tracking.config import TrackingConfig
from pipelines.tracking.runs import start_run
from t3d_core.errors import UserError
from t3d_core.video.cropping import center_crop
from t3d_core.video.decoding import decode_frames
from t3d_core.video.sizes import resized_size
from t3d_core.video.storage import encode_video
from tests.pipelines.export.exported import CARD, eager, noise, run, save_network

REAL_CLIP = Path(__file__).parents[4] / "shared" / "data" / "single_clips" / "gop235_340x256.mp4"


def write_video(path, num_frames=60):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (num_frames, 6, 8, 3), np.uint8)
    encode_video((np.kron(frame, np.ones((8, 8, 1), np.uint8)) for frame in small), path=path, fps=10)
    return path


@pytest.fixture
def config(tracking_uri, tmp_path, monkeypatch):
    """A saved classifier and a video, exported where nothing else lies."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return ExportConfig(
        checkpoint=str(save_network(tmp_path / "run")),
        video=write_video(tmp_path / "video.mp4"),
        tracking=TrackingConfig(uri=tracking_uri),
        storage=tmp_path / "runs",
    )


def with_changes(config, **changes):
    return ExportConfig(**{**{name: getattr(config, name) for name in ExportConfig.model_fields}, **changes})


def runs_of(config):
    client = mlflow.MlflowClient(config.tracking.uri)
    return client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])


def files_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("file_format", FORMATS)
def test_the_job_writes_the_file_beside_the_weights_and_records_what_it_found(config, tmp_path, file_format):
    summary = export.run_export(with_changes(config, format=file_format))
    name = {"torch_export": "model.pt2", "onnx": "model.onnx"}[file_format]
    assert files_in(tmp_path / "run") == sorted([name, "model.safetensors"])
    assert str(config.video) in checked_line(summary)
    assert "NOISE" not in summary
    [logged] = runs_of(config)
    assert (logged.info.status, logged.data.tags["stage"]) == ("FINISHED", "export")
    assert logged.data.params["format"] == file_format
    assert logged.data.metrics["export/bytes"] == (tmp_path / "run" / name).stat().st_size
    assert logged.data.metrics["export/probability_difference"] <= export.MAX_PROBABILITY_DIFFERENCE
    client = mlflow.MlflowClient(config.tracking.uri)
    assert [file.path for file in client.list_artifacts(logged.info.run_id, "export")] == [f"export/{name}"]


def test_an_onnx_file_names_its_tensors_and_carries_the_card(config, tmp_path):
    output = tmp_path / "there" / "mine.onnx"
    export.run_export(with_changes(config, format="onnx", output=output))
    session = onnxruntime.InferenceSession(output)
    [clip], [probabilities] = session.get_inputs(), session.get_outputs()
    assert (clip.name, clip.type, clip.shape) == ("clip_BTHWC", "tensor(uint8)", ["batch", 16, 32, 32, 3])
    assert (probabilities.name, probabilities.type) == ("probabilities_BK", "tensor(float)")
    assert probabilities.shape == ["batch", 3]
    card = json.loads(session.get_modelmeta().custom_metadata_map["t3d"])
    assert card == json.loads(json.dumps(asdict(CARD)))


def test_a_torch_export_file_carries_the_card_and_runs_without_this_project(config, tmp_path):
    export.run_export(with_changes(config, output=tmp_path / "mine.pt2"))
    torch.save(noise(2), tmp_path / "clips.pt")
    code = (
        "import json, sys, torch; extra = {'t3d': ''}; program = torch.export.load('mine.pt2', extra_files=extra); "
        "probabilities_BK = program.module()(torch.load('clips.pt')); torch.save(probabilities_BK, 'found.pt'); "
        "assert not {'t3d_core', 'pipelines'} & {*sys.modules}; print(extra['t3d'])"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == json.loads(json.dumps(asdict(CARD)))
    found = torch.load(tmp_path / "found.pt")
    assert not found.requires_grad
    torch.testing.assert_close(found, eager(Path(config.checkpoint), noise(2)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_student_without_classes_gives_features(config, tmp_path, file_format):
    weights = save_network(tmp_path / "student", replace(CARD, class_names=()))
    summary = export.run_export(with_changes(config, checkpoint=str(weights), format=file_format))
    assert "features differ by" in summary
    found = run(file_format, weights.with_name(f"model{with_changes(config, format=file_format).suffix()}"), noise(3))
    torch.testing.assert_close(found, eager(weights, noise(3)), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("file_format", FORMATS)
def test_real_clips_are_cropped_as_for_testing_and_give_the_same(config, tmp_path, file_format):
    if not REAL_CLIP.is_file():
        pytest.skip(f"the real clip is not at {REAL_CLIP}")
    summary = export.run_export(with_changes(config, video=REAL_CLIP, format=file_format))
    assert f"4 clips in batches of 1 and 3 from {REAL_CLIP}" in summary


def test_the_clips_of_the_check_are_scaled_and_cropped_as_those_that_the_network_is_tested_on(config):
    clips = export._video_clips(config.video, CARD)
    assert clips.clip_BTHWC.shape == (4, 16, 32, 32, 3)
    size = resized_size(48, 64, short_side=CARD.short_side)
    crop = center_crop(*size, crop_size=CARD.crop_size)
    last = decode_frames(config.video, np.arange(29, 60, 2), size=size, crop=crop)
    # Blocks of random colours: a crop from elsewhere, or other frames, would be far off.
    assert np.abs(clips.clip_BTHWC[3].numpy().astype(int) - last).mean() < 8


def test_the_clips_of_the_check_keep_a_distance_in_seconds_at_the_rate_of_the_video(config):
    by_seconds = replace(CARD, frame_stride=None, seconds_per_frame=0.2)  # two frames of ten a second
    clips, expected = (export._video_clips(config.video, card).clip_BTHWC for card in (by_seconds, CARD))
    assert torch.equal(clips, expected)


def test_without_folding_the_file_keeps_its_batch_norms(config, tmp_path):
    for is_folded in (True, False):
        export.run_export(with_changes(config, output=tmp_path / f"{is_folded}.pt2", fold_batch_norm=is_folded))
    names = {
        is_folded: {name for name in torch.export.load(tmp_path / f"{is_folded}.pt2").state_dict if "norm0" in name}
        for is_folded in (True, False)
    }
    assert names[True] == set()
    assert names[False]


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_file_that_computes_something_else_is_not_kept(config, tmp_path, monkeypatch, file_format):
    fold = export.fold_batch_norms

    def fold_wrongly(net):
        folded = fold(net)
        folded.features.conv0.weight.data[0] *= 1.5
        return folded

    monkeypatch.setattr(export, "fold_batch_norms", fold_wrongly)
    with pytest.raises(ValueError, match="computes something else than the network"):
        export.run_export(with_changes(config, format=file_format))
    assert files_in(tmp_path / "run") == ["model.safetensors"]
    assert [logged.info.status for logged in runs_of(config)] == ["FAILED"]


def test_values_that_are_not_numbers_are_no_rounding():
    clips = noise(4)
    broken = export.compare(
        lambda clip: torch.full((len(clip), 3), torch.nan),
        lambda clip: torch.full((len(clip), 3), 1 / 3),
        clips,
        is_probability=True,
    )
    assert not broken.is_rounding()


def test_sure_probabilities_do_not_hide_a_wrong_file():
    sure, surer = (torch.tensor([[logit, 0.0, -3.0]]).softmax(dim=1) for logit in (30.0, 35.0))
    difference = export.compare(
        lambda clip: surer.expand(len(clip), 3), lambda clip: sure.expand(len(clip), 3), noise(4), is_probability=True
    )
    assert difference.probability < export.MAX_PROBABILITY_DIFFERENCE
    assert not difference.is_rounding()


def checked_line(summary):
    """How the written file was checked."""
    [line] = [line for line in summary.splitlines() if line.startswith("checked:")]
    return line


def test_without_a_video_noise_is_used_and_the_summary_says_so(config):
    assert "RANDOM NOISE" in checked_line(export.run_export(with_changes(config, video=None)))


@pytest.mark.parametrize("content", [b"", b"no video at all" * 100])
def test_a_video_that_cannot_be_decoded_is_one_error_before_any_work(config, tmp_path, content):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(content)
    with pytest.raises(UserError, match=r"video .*broken\.mp4 cannot be used"):
        export.run_export(with_changes(config, video=broken))
    assert runs_of(config) == []


def test_a_missing_package_is_named_with_its_cure_before_any_work(config, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        exported_model.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name)
    )
    with pytest.raises(ValueError, match=r"needs onnxscript: pip install 't3d\[export\]'"):
        export.run_export(with_changes(config, format="onnx"))
    assert runs_of(config) == []
    export.run_export(config)  # the other format does not need it


def test_weights_of_the_tracking_store_are_exported_to_the_storage_folder(config, tmp_path):
    stored = start_run(tracking_uri=config.tracking.uri, experiment="t3d", run_name="train", run_id=None, tags={})
    stored.log_artifact(tmp_path / "run" / "model.safetensors", "weights")
    export.run_export(with_changes(config, checkpoint=f"runs:/{stored.run_id}/weights"))
    [output] = (tmp_path / "runs").glob("export-*/model.pt2")
    assert output.is_file()
