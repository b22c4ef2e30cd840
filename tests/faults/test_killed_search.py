"""A search's driver is killed three times, and ends with the trials of an undisturbed one: `pytest -m faults`."""

import json
import random
import time

import pytest
import torch
import yaml
from mlflow import MlflowClient
from safetensors.torch import load_file

from pipelines.search.ledger import Ledger
from tests.faults.training_faults import MODEL, Job, below, title_of, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]
EPOCHS, EVERY = 30, 10


class SearchJob(Job):
    """Two points with two seeds each, about a hundred steps a trial; in a population the worse one copies weights."""

    def __init__(self, root, shards, scheduler, changes=None):
        super().__init__(root, shards)
        recipe = {
            "data": {"shards": [str(shards)]},
            "model": json.loads(MODEL),
            "clip": {"num_frames": 16, "crop_size": 32},
            "global_batch_size": 8,
            "schedule": {"kind": "constant" if scheduler == "pbt" else "cosine"},
            "epochs": EPOCHS,
            "validate_every_epochs": 10,
            "log_every_steps": 1,
            "checkpoint": {"every_steps": EVERY},
        }
        search = {
            "base": str(root / "base.yaml"),
            "space": {"optimizer.lr": {"grid": [0.02, 0.05]}},
            "scheduler": {"kind": scheduler, "interval_epochs": 10},
            "seeds": [0, 1],
            "name": "trial",
            "storage": str(root / "runs"),
            "tracking": {"uri": self.tracking_uri},
        }
        changes = dict(changes or {})
        recipe |= changes.pop("recipe", {})
        (root / "base.yaml").write_text(yaml.safe_dump(recipe))
        (root / "search.yaml").write_text(yaml.safe_dump(search | changes))
        script = str(self.command[1]).replace("train.py", "search.py")
        self.command = [self.command[0], script, "--recipe", str(root / "search.yaml")]

    def points(self):
        """(trial, step, training loss) of all trials' curves."""
        found = []
        for file in sorted(self.folder.glob("trials/*/metrics.jsonl")):
            lines = [json.loads(line) for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
            found += [
                (file.parent.name, line["step"], line["metrics"]["train/loss"])
                for line in lines
                if "train/loss" in line["metrics"]
            ]
        return found

    def donors(self):
        """Trial -> the trials whose weights it took over; trials that took none over are left out."""
        records = Ledger(self.folder / "trials.jsonl").records
        return {name: record.donors for name, record in records.items() if record.donors}

    def runs(self):
        """The runs in MLflow: (name, stage, status, parent's name, number of points)."""
        client = MlflowClient(self.tracking_uri)
        runs = client.search_runs([client.get_experiment_by_name("t3d").experiment_id])
        names = {run.info.run_id: run.info.run_name for run in runs}
        return sorted(
            (
                run.info.run_name,
                run.data.tags["stage"],
                run.info.status,
                names.get(run.data.tags.get("mlflow.parentRunId", ""), ""),
                len(client.get_metric_history(run.info.run_id, "train/loss")),
            )
            for run in runs
        )


@pytest.mark.parametrize("scheduler", ["none", "pbt"])
def test_a_search_killed_three_times_has_every_trial_once_as_if_it_had_not_been(scheduler, tiny_shards, tmp_path):
    jobs = (SearchJob(tmp_path / name, tiny_shards, scheduler) for name in ("whole", "killed"))
    with next(jobs) as whole, next(jobs) as killed:
        assert whole.run() == 0, whole.last_line()
        rng = random.Random(0)
        seen = []
        for _ in range(3):
            killed.start()
            before = len(killed.points())
            wait_for(lambda: len(killed.points()) >= before + rng.randint(20, 90), seconds=300)  # noqa: B023
            time.sleep(rng.uniform(0, 0.1))
            # Ray's own agents need a minute to notice that the driver is gone.
            processes = [pid for pid in killed.processes("ray::") if not title_of(pid).endswith("Agent")]
            assert processes
            killed.kill_driver()
            seen.append(len(killed.points()))
        assert killed.run() == 0, killed.last_line()
        print(f"driver killed after {seen} of {len(whole.points())} steps of four trials")
        assert not below(processes), "no trial outlived its driver"
        assert killed.points() == whole.points()
        assert killed.runs() == whole.runs()
        assert {status for _, _, status, _, _ in killed.runs()} == {"FINISHED"}
        assert killed.donors() == whole.donors()
        assert bool(whole.donors()) == (scheduler == "pbt")
        for weights in (whole.folder / "trials").glob("*/model.safetensors"):
            expected, found = (
                load_file(job.folder / "trials" / weights.parent.name / weights.name) for job in (whole, killed)
            )
            assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_trials_of_several_workers_leave_what_they_reserved_when_they_are_stopped(tiny_shards, tmp_path):
    """Two workers of half a CPU: the third trial could not start on two CPUs if the second one's were still held."""
    recipe = {
        "scaling": {"num_workers": 2, "resources_per_worker": {"CPU": 0.5}},
        "epochs": 4,
        "validate_every_epochs": 1,
    }
    changes = {
        "recipe": recipe,
        "space": {"optimizer.lr": {"grid": [1e-9, 1.0, 2e-9]}},
        "seeds": [0],
        "metric": "val/loss",
        "scheduler": {"kind": "asha", "reduction_factor": 2},
    }
    with SearchJob(tmp_path, tiny_shards, "asha", changes) as job:
        assert job.run() == 0, job.last_line()
        records = Ledger(job.folder / "trials.jsonl").records
        assert [record.state for record in records.values()] == ["ended", "stopped", "ended"]
        statuses = [status for _, stage, status, _, _ in job.runs() if stage == "train"]
        assert sorted(statuses) == ["FINISHED", "FINISHED", "KILLED"]
