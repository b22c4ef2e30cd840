"""Runs that are written to a store: nothing is trained."""

import mlflow
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.compare.config import CompareConfig
from pipelines.compare.runs import compare_runs

PAPER = {
    "model.kind": "t3d_121",
    "clip.num_frames": 32,
    "clip.frame_stride": 2,
    "clip.crop_size": 224,
    "clip.num_segments": 1,
    "global_batch_size": 64,
    "epochs": 200,
    "optimizer.lr": 0.1,
    "schedule.kind": "plateau",
    "data.class_share": 1.0,
    "data.fold": 1,
    "init_from": None,
    "inflate_from": None,
    "scaling.use_gpu": False,
    "scaling.resources_per_worker.CPU": 2.0,
}


class Store:
    """A store with runs as the jobs write them."""

    def __init__(self, folder, uri):
        self.folder, self.uri = folder, uri
        self.client = mlflow.MlflowClient(self.uri)
        self.experiment = self.client.create_experiment("t3d", artifact_location=(folder / "files").as_uri())

    def train(self, *, seed, value=0.5, dataset="ucf101", status="FINISHED", tags=None, metrics=None, **params):
        """A training run of the paper's settings but for `params`; gives its id."""
        run_id = self._run({"stage": "train", **(tags or {})}, {**PAPER, "seed": seed, **params})
        found = {"val/clip_top1": value, "model/gmacs": 10.0, "cost/worker_hours": 1.5, **(metrics or {})}
        for name, each in found.items():
            self.client.log_metric(run_id, name, each, step=10)
        data = mlflow.entities.Dataset(dataset, "0123", "local", "{}")
        self.client.log_inputs(run_id, [mlflow.entities.DatasetInput(data, [])])
        self.client.set_terminated(run_id, status)
        return run_id

    def transfer(self, *, metrics, **params):
        """A transfer run."""
        run_id = self._run({"stage": "transfer"}, {"seed": 0, **params})
        for name, each in metrics.items():
            self.client.log_metric(run_id, name, each, step=10)
        self.client.set_terminated(run_id, "FINISHED")

    def baseline(self, *, value, point="frozen", seed=0, dataset="ucf101", correct=None, **params):
        """A baseline, which is its own test."""
        params = {"kind": "teacher", "data.fold": 1, "data.split": "test", "seed": seed, **params}
        run_id = self._run({"stage": "baseline", "point": point}, params)
        data = mlflow.entities.Dataset(dataset, "0123", "local", "{}")
        self.client.log_inputs(run_id, [mlflow.entities.DatasetInput(data, [])])
        self._tested(run_id, value=value, correct=correct)
        return run_id

    def test(self, trained, *, value, correct=None, sources=None, coverage=1.0, dataset=None, **params):
        """A test of a training run, with a table of its videos when `correct` says which are right.

        By default each video is its own source; with () there are no sources, as in tables of earlier versions.
        """
        way = {"data.split": "test", "num_crops": 1, "num_clips": None}
        run_id = self._run({"stage": "evaluate", "trained_by": trained}, {**way, **params})
        if dataset is not None:
            data = mlflow.entities.Dataset(dataset, "0123", "local", "{}")
            self.client.log_inputs(run_id, [mlflow.entities.DatasetInput(data, [])])
        self._tested(run_id, value=value, correct=correct, sources=sources, coverage=coverage)

    def _tested(self, run_id, *, value, correct, sources=None, coverage=1.0):
        for name, each in {"video_top1": value, "coverage": coverage, "num_videos": 100}.items():
            self.client.log_metric(run_id, name, each)
        if correct is not None:
            path = self.folder / "scores.parquet"
            predicted = ["jump" if right else "walk" for right in correct]
            ids = [f"v{number}" for number in range(len(correct))]
            columns = {"video_id": ids, "label": ["jump"] * len(ids), "predicted": predicted}
            if sources is None or len(sources):
                columns["source"] = [f"ucf101/{source}" for source in (ids if sources is None else sources)]
            pq.write_table(pa.table(columns), path)
            self.client.log_artifact(run_id, str(path))
        self.client.set_terminated(run_id, "FINISHED")

    def trained_and_tested(self, *, value, correct=None, sources=None, coverage=1.0, tested_on=None, **settings):
        trained = self.train(**settings)
        self.test(trained, value=value, correct=correct, sources=sources, coverage=coverage, dataset=tested_on)

    def compare(self, **config):
        return compare_runs(CompareConfig(tracking={"uri": self.uri}, **config), tracking_uri=self.uri)

    def _run(self, tags, params):
        run_id = self.client.create_run(self.experiment, tags=tags).info.run_id
        for name, value in params.items():
            self.client.log_param(run_id, name, str(value))
        return run_id
