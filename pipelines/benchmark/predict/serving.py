"""Our network behind `jobs/serve.py`: what a request costs, how many several clients get answered, and its memory.

A request of a whole video is compared with the plain call, `predict_video` in a process that holds the network. Both
are made in turns. Memory is watched at a server with a small network, so that a thousand requests take a minute.
"""

import functools
import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import torch

from pipelines.benchmark.measuring.processes import new_processes, num_cores_here
from pipelines.benchmark.predict.watching import CommandFailedError, command_environment, last_line, tree_bytes
from t3d_core.errors import describe_error
from t3d_core.prediction.clip_scorer import ClipScorer
from t3d_core.prediction.video_prediction import predict_video
from t3d_core.training.checkpoint import load_model
from t3d_core.video.clip_reader import ViewSampling
from t3d_core.video.guard import GuardedDecoder

NUM_CLIENTS = 8
_SERVE = Path(__file__).parents[3] / "jobs" / "serve.py"
_START_SECONDS, _END_SECONDS, _ANSWER_SECONDS, _LOOK_SECONDS = 120, 30, 300, 0.2


class ServerMemory(NamedTuple):
    """Bytes of the server's processes after a tenth of the requests, and after all of them."""

    early_bytes: int
    late_bytes: int


class ServerFigures(NamedTuple):
    """What was measured.

    Attributes:
        over_plain: seconds of a request / seconds of the plain call, of each round.
        clips_per_second: of eight clients together.
        memory: with a small network.
    """

    over_plain: list[float]
    clips_per_second: float
    memory: ServerMemory


class Server(NamedTuple):
    """A running server."""

    port: int
    process: int

    def ask(self, video: Path) -> int:
        """Send a video; return how many clips were scored.

        Raises:
            CommandFailedError: there is no answer, or it is an error.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_ANSWER_SECONDS)
        try:
            connection.request("POST", "/predict", body=video.read_bytes())
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise CommandFailedError(f"a request gets no answer: {describe_error(error)}") from error
        finally:
            connection.close()
        if response.status != 200:
            raise CommandFailedError(f"a request gets {response.status}: {answer['reason']}")
        return len(answer["timeline"]["seconds"])

    def is_ready(self) -> bool:
        """Whether it answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_LOOK_SECONDS)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


@contextmanager
def serving(weights: Path, *, batch_size: int, log: Path) -> Iterator[Server]:
    """A server on a free port of this machine, until the end of the block.

    Raises:
        CommandFailedError: it does not start.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {"model": weights, "port": port, "batch_size": batch_size}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, str(_SERVE), *words],
            stdout=output,
            stderr=output,
            env=command_environment(),
            cwd=log.parent,
        )
        server = Server(port, process.pid)
        try:
            _wait_for(server, process, log)
            yield server
        finally:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_END_SECONDS)
            process.kill()
            process.wait()


def measure_requests(server: Server, video: Path, weights: Path, *, batch_size: int, repeats: int) -> list[float]:
    """Seconds of a request / seconds of the plain call, of each round, after an uncounted one."""
    ratios = []
    with new_processes(1, num_cores=num_cores_here()) as process:
        for _ in range(1 + repeats):
            plain = process.submit(_plain_call, video, weights, batch_size).result()
            started = time.perf_counter()
            server.ask(video)
            ratios.append((time.perf_counter() - started) / plain)
    return ratios[1:]


def measure_clients(server: Server, videos: Sequence[Path], *, num_requests: int) -> float:
    """Clips a second of eight clients that each send the next request as soon as they have an answer."""
    asked = [videos[place % len(videos)] for place in range(num_requests)]
    with ThreadPoolExecutor(NUM_CLIENTS) as clients:
        started = time.perf_counter()
        num_clips = sum(clients.map(server.ask, asked))
        return num_clips / (time.perf_counter() - started)


def measure_memory(server: Server, video: Path, *, num_requests: int) -> ServerMemory:
    """Memory over requests of eight clients."""
    num_early = max(1, num_requests // 10)
    measure_clients(server, [video], num_requests=num_early)
    early_bytes = tree_bytes(server.process)
    measure_clients(server, [video], num_requests=num_requests - num_early)
    return ServerMemory(early_bytes, tree_bytes(server.process))


def _wait_for(server: Server, process: subprocess.Popen, log: Path) -> None:
    started = time.monotonic()
    while not server.is_ready():
        if process.poll() is not None:
            raise CommandFailedError(last_line(log) or f"exit status {process.returncode}")
        if time.monotonic() - started > _START_SECONDS:
            raise CommandFailedError(f"no answer within {_START_SECONDS} s: {last_line(log)}")
        time.sleep(_LOOK_SECONDS)


def _plain_call(video: Path, weights: Path, batch_size: int) -> float:
    """Seconds of one prediction in this process, which keeps the network and the decoder."""
    scorer, decoder = _scorer_and_decoder(weights, batch_size)
    started = time.perf_counter()
    predict_video(video, scorer, ViewSampling(scorer.card.clip_view()), decoder=decoder)
    return time.perf_counter() - started


@functools.cache
def _scorer_and_decoder(weights: Path, batch_size: int) -> tuple[ClipScorer, GuardedDecoder]:
    return ClipScorer(load_model(weights), device=torch.device("cpu"), batch_size=batch_size), GuardedDecoder()
