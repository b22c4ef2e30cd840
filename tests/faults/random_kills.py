"""A training run of one worker is killed about thirty times in various places, and ends as an undisturbed run does.

    python -m tests.faults.random_kills FOLDER --kills 30 --epochs 400 --seed 0

FOLDER/kills.jsonl gets a line for every kill and every new start as they happen, and one at the end. The script itself
may be ended at any moment: called again, it resumes where it was. The seed draws the victims:

    worker      the process that trains                     started again by Ray Train
    decoder     a process that decodes clips                its work is done again by Ray Data
    driver      the job; its Ray ends with it               started again by the script, as a user would
    controller  Ray Train's actor that watches the worker   by Ray, or the job ends and the script starts it again
    raylet      Ray's own process on the machine            the job ends with it, and the script starts it again
"""

import argparse
import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import ray

from tests.faults.training_faults import Job, assert_ended_as, end, prepare_shards, wait_for

VICTIMS = {
    "worker": "ray::RayTrainWorker",
    "decoder": "ray::ReadRange",
    "driver": "",
    "controller": "ray::TrainController",
    "raylet": str(Path(ray.__file__).parent / "core" / "src" / "ray" / "raylet" / "raylet"),
}
# Victims whose death the job itself must survive.
_SURVIVED = {"worker", "decoder"}
# Share of the kills that come after some seconds, wherever the run is, such as in its start-up.
_BLIND_SHARE = 0.25
# Longest time without a step or an end, including a new start; more is a hang.
_PATIENCE_SECONDS = 300.0


class Killer:
    """Kills a job at random moments, starts it again where it has ended, and writes both to a file.

    Args:
        job: the run.
        record: the file, one JSON object a line; lines of an earlier process count.
        seed: of victims and moments.
    """

    def __init__(self, job: Job, record: Path, *, seed: int) -> None:
        self.job, self.record, self.seed = job, record, seed
        self._began = time.monotonic()
        self._killed_since_start: set[str] = set()

    def kills(self) -> list[dict[str, Any]]:
        """The kills so far."""
        lines = self.record.read_text().splitlines() if self.record.exists() else []
        return [line for line in map(json.loads, lines) if "kill" in line]

    def run(self, *, num_kills: int, num_steps: int) -> list[dict[str, Any]]:
        """Kill `num_kills` times, spread over the steps of the run, then let it end; return the kills."""
        while (number := len(self.kills())) < num_kills:
            self._start_where_ended()
            steps_a_kill = (num_steps - self.job.step()) / (num_kills - number + 1)
            self._kill(random.Random(f"{self.seed} {number}"), most_steps=max(1, round(1.6 * steps_a_kill)))
            assert self.job.step() < num_steps, "the run came to its end before the last kill: give it more steps"
        while self._start_where_ended().wait(timeout=3 * _PATIENCE_SECONDS):
            pass
        self._note(end=0, step=self.job.step(), checkpoints=self.job.checkpoints())
        return self.kills()

    def _start_where_ended(self) -> Any:
        if not self.job.is_running():
            assert not self._killed_since_start or self._killed_since_start - _SURVIVED, (
                f"the job did not survive the death of {self._killed_since_start}: {self.job.last_line()}"
            )
            self._killed_since_start = set()
            self._note(start=self.job.start().pid)
        return self.job.driver

    def _kill(self, rng: random.Random, *, most_steps: int) -> None:
        victims, moment = rng.sample(list(VICTIMS), len(VICTIMS)), self._wait_for_moment(rng, most_steps=most_steps)
        # The first victim that exists: all clips may be decoded already, or no worker may have started yet.
        victim, pids = next((each, pids) for each in victims if (pids := self._pids(each)))
        if not self.job.is_running():
            return  # the moment was missed, as when an earlier victim took the job with it: try again
        state = {"step": self.job.step(), "checkpoints": self.job.checkpoints()}
        end(pid := rng.choice(pids))
        self._killed_since_start.add(victim)
        self._note(kill=len(self.kills()) + 1, victim=victim, pid=pid, moment=moment, **state)
        if victim == "driver":
            self.job.driver.wait()

    def _wait_for_moment(self, rng: random.Random, *, most_steps: int) -> str:
        is_blind, seconds, steps = rng.random() < _BLIND_SHARE, rng.uniform(0, 20), rng.randint(1, most_steps)
        if is_blind:
            time.sleep(seconds)
            return f"after {seconds:.1f} s"
        goal = self.job.step() + steps
        wait_for(lambda: self.job.step() >= goal or not self.job.is_running(), seconds=_PATIENCE_SECONDS)
        time.sleep(rng.uniform(0, 0.1))
        return f"at step {goal}"

    def _pids(self, victim: str) -> list[int]:
        if victim == "driver":
            return [self.job.driver.pid]
        deadline = time.monotonic() + 1  # a decoder has its name only while it works
        while not (pids := self.job.processes(VICTIMS[victim])) and time.monotonic() < deadline:
            time.sleep(0.01)
        return pids

    def _note(self, **what: Any) -> None:
        with self.record.open("a") as file:
            file.write(json.dumps(what | {"seconds": round(time.monotonic() - self._began, 1)}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=400, help="of 29 clips, 8 a step")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder, epochs = given.folder.resolve(), ("--epochs", str(given.epochs))
    folder.mkdir(parents=True, exist_ok=True)
    shards = folder / "shards"
    if not (shards / "dataset.json").exists():
        prepare_shards(shards)
    with Job(folder / "undisturbed", shards, *epochs) as undisturbed:
        assert undisturbed.has_summary() or undisturbed.run() == 0, undisturbed.last_line()
    num_steps = undisturbed.step()
    with Job(
        folder / "killed", shards, *epochs, "--checkpoint.every_steps", "20", "--failure.max_failures", "-1"
    ) as job:
        killer = Killer(job, folder / "kills.jsonl", seed=given.seed)
        kills = killer.run(num_kills=given.kills, num_steps=num_steps)
        assert_ended_as(job, undisturbed)
    print(f"{len(kills)} kills ({dict(Counter(kill['victim'] for kill in kills))}): {num_steps} steps, each once, and")
    print("losses and weights equal to those of the undisturbed run, bit for bit")


if __name__ == "__main__":
    main()
