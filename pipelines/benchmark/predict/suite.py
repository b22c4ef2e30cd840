"""Predictions of whole videos: the first answer, the rate and the memory of ours, of what people run, and the limits.

ours            `python jobs/predict.py VIDEOS --model WEIGHTS`, in its own process and on Ray
plain loops     torchvision's r3d_18 over the same clips, decoded by torchcodec and by decord   `torchvision_loop`
Hugging Face    the `video-classification` pipeline, which looks at the first frames only      `huggingface_loop`
ceilings        decoding without a network, the network without decoding                        `ceilings`
served          requests to `python jobs/serve.py --model WEIGHTS`                               `serving`

Each case is a command in a fresh process, and each round runs all of them. The first answer counts from the start of
the command, imports included; the rate counts from the first answer to the last. Our network and r3d_18 are the same
one by default, with random weights.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from pipelines.benchmark.measuring.clips import describe_clip, find_clips, write_moving_video, write_moving_videos
from pipelines.benchmark.measuring.peers import describe_versions
from pipelines.benchmark.measuring.processes import new_processes, num_cores_here
from pipelines.benchmark.measuring.rows import SuiteReport, describe_machine, suite_report
from pipelines.benchmark.predict.ceilings import decode_ceiling, model_ceiling
from pipelines.benchmark.predict.commands import CASES, SERVED, Networks, command_of, write_networks
from pipelines.benchmark.predict.config import PredictSuiteConfig
from pipelines.benchmark.predict.networks import write_small
from pipelines.benchmark.predict.report import (
    Ceilings,
    Round,
    make_goals,
    make_rows,
    server_goals,
    server_rows,
)
from pipelines.benchmark.predict.serving import (
    NUM_CLIENTS,
    ServerFigures,
    measure_clients,
    measure_memory,
    measure_requests,
    serving,
)
from pipelines.benchmark.predict.watching import CommandFailedError, Watched, watch
from pipelines.runtime.paths import input_path
from t3d_core.errors import UserError

_FPS = 25  # of the generated videos
_REQUESTS_A_CLIENT = 2
_CEILING_BATCHES = 10


def run_suite(config: PredictSuiteConfig, *, repeats: int) -> SuiteReport:
    """Measure all cases; one that does not run has rows with its reason.

    Raises:
        UserError: the folders hold too few videos.
    """
    lines = [describe_machine("before")]
    with tempfile.TemporaryDirectory(prefix="t3d-benchmark-") as temporary:
        folder = Path(temporary)
        videos, notes = _find_videos(config, folder)
        networks = write_networks(folder, config)
        runs = _Runs(videos, networks, config, folder)
        rounds = [runs.round() for _ in range(repeats)]
        served = runs.ask_server(repeats=repeats) if config.num_requests else None
    lines += [describe_machine("after"), describe_versions(), *notes]
    rows = [
        *make_rows(rounds, networks.cost_of, runs.failures, num_frames=config.num_frames),
        *server_rows(served, runs.failures),
    ]
    return suite_report(lines, rows, [*make_goals(rounds, runs.failures), *server_goals(served, rounds)])


def _find_videos(config: PredictSuiteConfig, folder: Path) -> tuple[list[Path], list[str]]:
    """Videos, and lines that describe them."""
    if not config.videos:
        size = {"height": config.generated_height, "width": config.generated_width}
        num_frames = round(config.generated_seconds * _FPS)
        paths = write_moving_videos(folder, num_videos=config.num_videos, num_frames=num_frames, **size)
        clips, notes = [describe_clip(path) for path in paths], []
    else:
        found = find_clips([input_path(place) for place in config.videos], clips_per_folder=config.num_videos)
        clips = found.clips
        notes = [f"left out: {name}: {reason}" for name, reason in found.left_out.items()]
    if len(clips) < 2:
        raise UserError(f"predict.videos must hold 2 videos that can be read, got {len(clips)}: give another folder")
    sizes = sorted({clip.size_text for clip in clips})
    frames = [clip.info.num_frames for clip in clips]
    notes.append(f"{len(clips)} videos of {min(frames)} to {max(frames)} frames, {', '.join(sizes)}")
    return [clip.path for clip in clips], notes


class _Runs:
    """The commands of all cases on the same videos.

    Attributes:
        failures: case -> why it is left out.
    """

    def __init__(self, videos: Sequence[Path], networks: Networks, config: PredictSuiteConfig, folder: Path) -> None:
        self._videos, self._networks, self._config, self._folder = videos, networks, config, folder
        self._num_runs = 0
        self.failures = dict(networks.missing)
        for case in self._cases():  # an uncounted run, which also finds the peers that are not installed
            self._try(case, videos[:1])
        print("tried all cases", flush=True)

    def round(self) -> Round:
        """Run every case, and measure the ceilings."""
        tried = {case: self._try(case, self._videos) for case in self._cases()}
        weights = self._networks.ours
        options = {"batch_size": self._config.batch_size, "num_batches": _CEILING_BATCHES}
        with new_processes(1, num_cores=num_cores_here()) as process:
            decoding = process.submit(decode_ceiling, self._videos, weights).result()
        with new_processes(1, num_cores=num_cores_here()) as process:
            network = process.submit(model_ceiling, self._videos[0], weights, **options).result()
        print("measured a round", flush=True)
        return Round({case: watched for case, watched in tried.items() if watched}, Ceilings(decoding, network))

    def ask_server(self, *, repeats: int) -> ServerFigures | None:
        """Ask servers of our network and of a small one; None, and a failure, if they do not work."""
        weights, small, short = self._networks.ours, self._folder / "small.safetensors", self._folder / "short.mp4"
        write_small(small)
        write_moving_video(short, num_frames=_FPS, height=48, width=64, seed=0)
        batch_size, log = self._config.batch_size, self._folder / "server.txt"
        try:
            with serving(weights, batch_size=batch_size, log=log) as server:
                video = self._videos[0]
                over_plain = measure_requests(server, video, weights, batch_size=batch_size, repeats=repeats)
                rate = measure_clients(server, self._videos, num_requests=_REQUESTS_A_CLIENT * NUM_CLIENTS)
            with serving(small, batch_size=batch_size, log=log) as server:
                memory = measure_memory(server, short, num_requests=self._config.num_requests)
        except CommandFailedError as error:
            self.failures[SERVED] = str(error)
            return None
        print("measured a server", flush=True)
        return ServerFigures(over_plain, rate, memory)

    def _cases(self) -> list[str]:
        return [case for case in CASES if case not in self.failures]

    def _try(self, case: str, videos: Sequence[Path]) -> Watched | None:
        self._num_runs += 1
        output = self._folder / f"run-{self._num_runs}"
        output.mkdir()
        command = command_of(case, videos, self._networks, self._config, output=output)
        try:
            return watch(command.words, answers=command.answers, num_videos=len(videos), log=output / "log.txt")
        except CommandFailedError as error:
            self.failures[case] = str(error)
            return None
