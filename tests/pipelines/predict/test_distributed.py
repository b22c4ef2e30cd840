"""Workers of Ray give the results that one process gives, to the last bit."""

import json
import shutil

from pipelines.predict.job import run_predict
from tests.pipelines.predict.test_job import predict_config


def lines_of(folder):
    lines = (folder / "predictions.jsonl").read_text().splitlines()
    return sorted(map(json.loads, lines), key=lambda row: row["video"])


def test_workers_of_ray_give_what_one_process_gives_and_resume(local_ray, weights, videos, tmp_path, capsys):
    inputs = (videos, tmp_path / "absent.mp4")
    run_predict(predict_config(weights, tmp_path, *inputs, stride_seconds=0.2))
    config = predict_config(
        weights, tmp_path, *inputs, num_workers=1, batch_size=8, stride_seconds=0.2, output=tmp_path / "ray"
    )
    summary = run_predict(config)
    assert len(lines_of(tmp_path / "ray")) == 5
    assert lines_of(tmp_path / "ray") == lines_of(tmp_path / "predicted")
    assert "3 of 5 videos" in summary
    assert "on Ray: 1 model worker" in capsys.readouterr().out

    ledger = tmp_path / "ray" / "predictions.jsonl"
    kept = [line for line in ledger.read_text().splitlines() if "/1.mp4" not in line]
    ledger.write_text("\n".join(kept) + '\n{"video": "killed while it wro')
    shutil.copy(videos / "0.mp4", videos / "broken.mp4")
    summary = run_predict(config.model_copy(update={"timeline": True}))
    rows = {row["video"].rpartition("/")[2]: row for row in lines_of(tmp_path / "ray")}
    assert [rows[name]["status"] for name in sorted(rows)] == ["ok"] * 3 + ["failed", "ok"]
    assert rows["broken.mp4"]["scores"] == rows["0.mp4"]["scores"]
    assert ledger.read_text().count("/0.mp4") == 1  # its timeline is made of the scores that there are
    assert len(list((tmp_path / "ray" / "videos").glob("*/timeline.csv"))) == 4
    assert "4 of 5 videos" in summary


def test_a_video_in_several_parts_gets_the_scores_of_the_whole(local_ray, weights, videos, tmp_path, monkeypatch):
    run_predict(predict_config(weights, tmp_path, videos / "0.mp4", stride_seconds=0.1))
    monkeypatch.setattr("pipelines.predict.parts._MIN_PART_BYTES", 1000)
    parts = []
    cut = __import__("pipelines.predict.distributed", fromlist=["cut_into_parts"]).cut_into_parts
    monkeypatch.setattr(
        "pipelines.predict.distributed.cut_into_parts",
        lambda *a, **k: parts.append(cut(*a, **k)) or parts[-1],
    )
    config = predict_config(
        weights, tmp_path, videos / "0.mp4", stride_seconds=0.1, num_workers=1, output=tmp_path / "ray"
    )
    run_predict(config)
    assert len(parts[0]) > 2
    assert lines_of(tmp_path / "ray") == lines_of(tmp_path / "predicted")
