import re
import shlex

import pytest
from mlflow import MlflowClient
from PIL import Image

from pipelines.prepare.config import (
    FolderDatasetConfig,
    GuardConfig,
)
from pipelines.prepare.job import run_prepare
from pipelines.shards.folder import describe_shards
from t3d_core.errors import UserError
from tests.pipelines.prepare.made_videos import failures_of, job_config, write_video, write_videos

pytestmark = pytest.mark.usefixtures("tracking_uri")


@pytest.mark.parametrize(("is_labelled", "job"), [(True, "train"), (False, "transfer")])
def test_the_summary_names_the_job_that_can_use_the_shards(local_ray, tmp_path, is_labelled, job):
    write_videos(tmp_path / "videos")
    dataset = FolderDatasetConfig(root=str(tmp_path / "videos"), is_labelled=is_labelled)
    output = tmp_path / "my shards"
    settings = job_config(tmp_path, dataset=dataset, output=output)
    lines = run_prepare(settings).splitlines()
    [line] = [s for s in lines if "next:" in s]
    assert shlex.split(line) == ["next:", "python", f"jobs/{job}.py", "--data.shards", str(output)]
    assert f"settings:  {describe_shards(output)['fingerprint'][:12]}, for --data.fingerprint" in lines


def test_a_job_tells_mlflow_what_became_of_the_videos_and_shows_some(local_ray, mixed_folder, tmp_path, capsys):
    output = tmp_path / "out"
    there = [path.relative_to(mixed_folder) for path in mixed_folder.rglob("*.mp4")]
    lines = ["path,label", *(f"{path},{path.parent}" for path in there), "left/absent.mp4,left"]
    (mixed_folder / "index.csv").write_text("\n".join(lines))
    dataset = FolderDatasetConfig(root=str(mixed_folder), test_fraction=0)
    run_prepare(job_config(tmp_path, dataset=dataset, output=output, max_failed_fraction=0.5))
    printed = capsys.readouterr().out
    assert "10 of 11 listed videos found" in printed
    assert re.search(r"fold 1 train +11 +10 +6 +6", printed)
    assert re.search(r"1 x not found +left/absent.mp4", printed)
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    [run] = client.search_runs([client.get_experiment_by_name("t3d").experiment_id])
    assert run.info.status == "FINISHED"
    counts = {name: run.data.metrics[f"videos/{name}"] for name in ("listed", "found", "decoded", "prepared")}
    assert counts == {"listed": 11, "found": 10, "decoded": 6, "prepared": 6}
    logged = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert logged >= {"contact_sheet.png", "coverage.csv", "failures.parquet", "recipe.yaml"}
    assert Image.open(output / "contact_sheet.png").width > 800


def test_a_contact_sheet_that_cannot_be_drawn_is_left_out_and_the_job_ends_well(
    local_ray, tmp_path, monkeypatch, caplog
):
    write_videos(tmp_path / "videos")
    settings = job_config(tmp_path, dataset=FolderDatasetConfig(root=str(tmp_path / "videos")), output=tmp_path / "out")
    assert "contact_sheet.png" in run_prepare(settings)
    monkeypatch.setattr("pipelines.prepare.make.write_contact_sheet", lambda *_, **__: 1 / 0)
    summary = run_prepare(settings)
    assert "contact_sheet.png" not in summary
    assert not (tmp_path / "out" / "contact_sheet.png").exists(), "of an earlier job"
    assert "contact_sheet.png is not drawn" in caplog.text
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    [run, _] = client.search_runs([client.get_experiment_by_name("t3d").experiment_id])
    assert run.info.status == "FINISHED"
    assert "contact_sheet.png" not in {file.path for file in client.list_artifacts(run.info.run_id)}


def test_a_job_that_fails_ends_its_mlflow_run_as_failed(local_ray, mixed_folder, tmp_path):
    settings = job_config(tmp_path, dataset=FolderDatasetConfig(root=str(mixed_folder)), output=tmp_path / "out")
    with pytest.raises(UserError, match=r"4 of 10 videos failed"):
        run_prepare(settings)
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    [run] = client.search_runs([client.get_experiment_by_name("t3d").experiment_id])
    assert run.info.status == "FAILED"
    assert not (tmp_path / "out" / "mlflow_run.json").exists()


def test_a_dry_run_reports_what_the_whole_would_take_and_writes_nothing(mixed_folder, tmp_path):
    for bad in ("empty.mp4", "garbage.mp4"):
        (mixed_folder / "left" / bad).unlink()
    settings = job_config(
        tmp_path, dataset=FolderDatasetConfig(root=str(mixed_folder)), output=tmp_path / "out", dry_run=True
    )
    told = run_prepare(settings)
    assert "8 of 8 found videos prepared in memory, 2 of them failed; no shard was written" in told
    assert re.search(r"rows +6\.000", told)
    assert not (tmp_path / "out").exists()


def test_notes_are_printed_and_counted_in_the_summary(local_ray, tmp_path, capsys):
    write_videos(tmp_path / "videos")
    (tmp_path / "videos" / "left" / "a.swf").touch()
    dataset = FolderDatasetConfig(root=str(tmp_path / "videos"))
    note = "note: possible videos not looked at: 1 (1 .swf)"
    for is_dry in (True, False):
        summary = run_prepare(job_config(tmp_path, dataset=dataset, output=tmp_path / "out", dry_run=is_dry))
        assert capsys.readouterr().out.splitlines()[1].startswith(note)
    assert "notes:     1 on what was listed" in summary


def test_a_failed_video_is_tried_again_on_request(local_ray, tmp_path):
    root, output = tmp_path / "videos", tmp_path / "out"
    write_video(root / "left" / "a.mp4", num_frames=30)
    write_video(root / "right" / "b.mp4", num_frames=30)
    settings = {"dataset": FolderDatasetConfig(root=str(root)), "output": output, "max_failed_fraction": 1}
    run_prepare(job_config(tmp_path, **settings, guard=GuardConfig(output_gib=1e-6)))
    assert all(reason.startswith("gives more than ") for reason in failures_of(output).values())
    assert len(failures_of(output)) == 2
    run_prepare(job_config(tmp_path, **settings))
    assert len(failures_of(output)) == 2
    run_prepare(job_config(tmp_path, **settings, retry_failed=True))
    assert not failures_of(output)
