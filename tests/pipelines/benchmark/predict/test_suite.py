"""The predict benchmark: all cases score the same clips, commands are watched as they are, goals follow from both."""

import importlib
import json
import os
import socket
import sys
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipelines.benchmark.measuring.clips import write_moving_video
from pipelines.benchmark.predict import torchvision_loop
from pipelines.benchmark.predict.ceilings import decode_ceiling, model_ceiling
from pipelines.benchmark.predict.commands import (
    DECORD,
    HUGGING_FACE,
    LOOPS,
    ON_RAY,
    OURS,
    SERVED,
    TORCHCODEC,
    command_of,
    write_networks,
)
from pipelines.benchmark.predict.config import PredictSuiteConfig
from pipelines.benchmark.predict.networks import NetworkCost
from pipelines.benchmark.predict.report import Ceilings, Round, make_goals, make_rows, server_goals, server_rows
from pipelines.benchmark.predict.serving import (
    Server,
    ServerFigures,
    ServerMemory,
    measure_clients,
    measure_memory,
    serving,
)
from pipelines.benchmark.predict.suite import run_suite
from pipelines.benchmark.predict.watching import Answer, CommandFailedError, Watched, watch
from t3d_core.errors import UserError
from t3d_core.prediction.clip_scorer import ClipScorer
from t3d_core.prediction.video_prediction import predict_video
from t3d_core.training.checkpoint import load_model, save_weights
from t3d_core.video.clip_reader import ViewSampling
from t3d_core.video.clip_sampling import non_overlapping_clips
from t3d_core.video.decoding import decode_frames, probe
from t3d_core.video.guard import GuardedDecoder

TINY = PredictSuiteConfig(num_frames=8, crop_size=32, batch_size=2, videomae_size=32)
SIZE = {"height": 36, "width": 48}


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("videos") / "moving.mp4"
    write_moving_video(path, num_frames=70, seed=0, **SIZE)
    return path


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    return write_networks(tmp_path_factory.mktemp("networks"), TINY)


class OurReader:
    """A reader of the loop on our decoder, because torchcodec and decord need not be installed."""

    def __init__(self, path):
        self.path, self.num_frames = path, probe(path).num_frames

    def frames_at(self, indices):
        return torch.from_numpy(decode_frames(self.path, indices)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("video_num_frames", [1, 14, 15, 16, 30, 31, 32, 47, 250])
def test_the_loop_takes_our_clips(video_num_frames):
    clips = non_overlapping_clips(video_num_frames, num_frames=8, frame_stride=2, short_video="repeat_last")
    starts = torchvision_loop.clip_starts(video_num_frames, num_frames=8, frame_stride=2)
    assert [int(clip.frame_indices[0]) for clip in clips] == list(starts)


@pytest.mark.heavy
def test_the_loop_gives_our_scores_with_our_weights(video, networks, tmp_path, monkeypatch):
    monkeypatch.setitem(torchvision_loop._DECODERS, "torchcodec", OurReader)
    command = command_of(TORCHCODEC, [video], networks, TINY, output=tmp_path)
    torchvision_loop.main(json.loads(command.words[-1]) | {"short_side": SIZE["height"]})
    answer = json.loads(command.answers.read_text())

    loaded, state = load_model(networks.ours), torch.load(networks.torchvision)
    for name, tensor in loaded.model.state_dict().items():
        tensor.copy_(state[name.removeprefix("features.").replace("classifier.", "fc.")])
    card = replace(loaded.card, short_side=SIZE["height"])
    save_weights(loaded.model, tmp_path / "same.safetensors", card=card)
    scorer = ClipScorer(load_model(tmp_path / "same.safetensors"), device=torch.device("cpu"), batch_size=2)
    with GuardedDecoder() as decoder:
        ours = predict_video(video, scorer, ViewSampling(card.clip_view()), decoder=decoder)
    assert answer["video"] == str(video)
    np.testing.assert_allclose(answer["clips"], ours.score_NK, rtol=1e-3)


def test_hugging_faces_loop_asks_for_one_answer_a_video(networks, tmp_path, monkeypatch):
    """With a stand-in for transformers, which is not installed for tests."""
    asked = []

    def pipeline(task, *, model):
        asked.append((task, model))
        return lambda path: [{"label": f"of {path}", "score": 0.75}, {"label": "other", "score": 0.25}]

    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(pipeline=pipeline))
    monkeypatch.delitem(sys.modules, "pipelines.benchmark.predict.huggingface_loop", raising=False)
    command = command_of(HUGGING_FACE, ["a.mp4", "b.mp4"], networks, TINY, output=tmp_path)
    importlib.import_module("pipelines.benchmark.predict.huggingface_loop").main(json.loads(command.words[-1]))
    assert asked == [("video-classification", str(networks.videomae))]
    answers = [json.loads(line) for line in command.answers.read_text().splitlines()]
    assert [(answer["label"], answer["clips"]) for answer in answers] == [
        ("of a.mp4", [[0.75, 0.25]]),
        ("of b.mp4", [[0.75, 0.25]]),
    ]


def test_our_network_costs_as_much_as_the_loops(networks):
    assert networks.cost_of[OURS] == networks.cost_of[TORCHCODEC] == networks.cost_of[DECORD]
    assert networks.cost_of[OURS].num_parameters == 33_371_472


def test_hugging_faces_network_is_written_or_missed_by_name(networks):
    try:
        import transformers  # noqa: F401
    except ImportError:
        assert "transformers" in networks.missing[HUGGING_FACE]
    else:
        assert (networks.videomae / "model.safetensors").exists()
        assert networks.cost_of[HUGGING_FACE].num_parameters > 20e6


@pytest.mark.heavy
def test_our_command_answers_each_video_with_its_clips(video, networks, tmp_path):
    second = tmp_path / "second.mp4"
    second.write_bytes(video.read_bytes())
    command = command_of(OURS, [video, second], networks, TINY, output=tmp_path)
    watched = watch(command.words, answers=command.answers, num_videos=2, log=tmp_path / "log.txt")
    assert [answer.num_clips for answer in watched.answers] == [4, 4]
    assert watched.peak_bytes > 100e6


def run(code, folder, *, num_videos=2, **limits):
    """Watch a Python program that appends to the file in `sys.argv[1]`."""
    words = [sys.executable, "-c", f"import sys, time\nout = open(sys.argv[1], 'a', buffering=1)\n{code}"]
    answers = folder / "answers.jsonl"
    return watch([*words, str(answers)], answers=answers, num_videos=num_videos, log=folder / "log.txt", **limits)


def test_the_rate_counts_from_the_first_answer_to_the_last(tmp_path):
    lines = r"""
out.write('{"clips": [1, 2, 3]}\n')
time.sleep(0.3)
out.write('{"clips": null}\n{"cli')
time.sleep(0.3)
out.write('ps": [1, 2]}\n')
time.sleep(0.3)
"""
    watched = run(lines, tmp_path, num_videos=3)
    assert [answer.num_clips for answer in watched.answers] == [3, 0, 2]
    assert watched.answers[2].seconds - watched.answers[1].seconds > 0.2
    seconds = watched.answers[2].seconds - watched.first_seconds
    assert watched.clips_per_second == pytest.approx(2 / seconds)
    assert watched.videos_per_second == pytest.approx(2 / seconds)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import absent_peer", "No module named 'absent_peer'"),
        ("out.write('{\"clips\": [1]}\\n'); print('one is enough')", "one is enough"),
        ("out.write('{\"clips\": [1]}\\n' * 2)", "all answers came at once"),
        ("out.write('Killed\\n')", "its answers cannot be read: Expecting value"),
    ],
)
def test_a_command_that_does_not_do_its_work_has_a_reason(code, reason, tmp_path):
    with pytest.raises(CommandFailedError, match=reason):
        run(code, tmp_path)


def test_a_command_that_hangs_is_ended(tmp_path):
    with pytest.raises(CommandFailedError, match=r"not done within 0\.2 s"):
        run("time.sleep(600)", tmp_path, max_seconds=0.2)


def test_ceilings_are_views_a_second(video, networks):
    assert decode_ceiling([video], networks.ours) > 1
    assert model_ceiling(video, networks.ours, batch_size=2, num_batches=1) > 1


def watched(first, *, clips_per_second, peak=1e9):
    return Watched((Answer(first, 7), Answer(first + 7 / clips_per_second, 7)), int(peak))


@pytest.fixture
def rounds():
    """Two rounds; the machine is twice as fast in the second."""
    return [
        Round(
            {
                OURS: watched(6 / speed, clips_per_second=8 * speed),
                ON_RAY: watched(12 / speed, clips_per_second=9.5 * speed),
                DECORD: watched(3 / speed, clips_per_second=4 * speed, peak=2e9),
                HUGGING_FACE: watched(9 / speed, clips_per_second=2 * speed),
            },
            Ceilings(decoding=40 * speed, network=10 * speed),
        )
        for speed in (1, 2)
    ]


COSTS = dict.fromkeys((OURS, ON_RAY, *LOOPS, HUGGING_FACE), NetworkCost(33_000_000, 40 * 10**9))


def test_ratios_are_of_one_round_and_above_1_where_ours_is_better(rounds):
    rows = list(make_rows(rounds, COSTS, {TORCHCODEC: "not installed"}, num_frames=16))
    of = {(row.metric, row.case): row for row in rows}
    assert of["clips_per_second", OURS][3:7] == (12, "clips/s", DECORD, 2)
    assert of["first_answer", OURS][3:7] == (4.5, "s", DECORD, 0.5)
    assert of["peak_memory", OURS].ratio == 2
    assert of["frames_a_video", OURS].value == 112
    assert of["frames_a_video", HUGGING_FACE].note == "the first ones of the video"
    assert of["share_of_ceiling, network", ON_RAY].value == pytest.approx(95)
    assert of["share_of_ceiling, shared cores", OURS].value == pytest.approx(100)
    assert (of["clips_per_second", TORCHCODEC].value, of["clips_per_second", TORCHCODEC].note) == (
        None,
        "not installed",
    )


def test_goals_are_met_and_missed_by_what_was_measured(rounds):
    goals = {goal.text: goal.verdict for goal in make_goals(rounds, {TORCHCODEC: "not installed"})}
    assert goals == {
        f"{OURS}: seconds to the first answer": "met",
        f"{OURS}: clips/s / the slower ceiling": "missed",
        f"{ON_RAY}: clips/s / the slower ceiling": "met",
        f"{OURS}: clips/s / {TORCHCODEC}": "not measured",
        f"{OURS}: clips/s / {DECORD}": "met",
        f"{ON_RAY}: clips/s / {TORCHCODEC}": "not measured",
        f"{ON_RAY}: clips/s / {DECORD}": "met",
    }


@pytest.fixture
def server():
    """A server that scores three clips of a video, and refuses an empty one."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer(200, {})

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(200, {"timeline": {"seconds": [0, 1, 2]}}) if body else self.answer(400, {"reason": "empty"})

        def answer(self, status, content):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as listening:
        Thread(target=listening.serve_forever, daemon=True).start()
        yield Server(listening.server_port, os.getpid())
        listening.shutdown()


def test_clients_count_the_clips_of_their_answers(server, video, tmp_path):
    assert server.is_ready()
    assert server.ask(video) == 3
    assert measure_clients(server, [video], num_requests=9) > 3
    memory = measure_memory(server, video, num_requests=9)
    assert memory.early_bytes > 1e6
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(CommandFailedError, match="a request gets 400: empty"):
        server.ask(tmp_path / "empty.mp4")


def test_a_server_that_is_gone_or_does_not_speak_http_has_a_reason(video):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        answering = Thread(target=lambda: listening.accept()[0].close())
        answering.start()
        with pytest.raises(CommandFailedError, match="a request gets no answer"):
            Server(port, os.getpid()).ask(video)
        answering.join()
    with pytest.raises(CommandFailedError, match="Connection refused"):
        Server(port, os.getpid()).ask(video)


def test_a_server_that_does_not_start_has_a_reason(tmp_path, monkeypatch):
    (tmp_path / "serve.py").write_text("print('wait'); raise SystemExit('error: weights are missing')")
    monkeypatch.setattr("pipelines.benchmark.predict.serving._SERVE", tmp_path / "serve.py")
    with (
        pytest.raises(CommandFailedError, match="error: weights are missing"),
        serving(tmp_path / "absent.safetensors", batch_size=2, log=tmp_path / "log.txt"),
    ):
        pytest.fail("it serves")


def test_goals_of_the_server_follow_from_the_faster_of_our_cases(rounds):
    served = ServerFigures([1.2, 1.25], 13.0, ServerMemory(100, 104))
    goals = {goal.text: (goal.figure, goal.verdict) for goal in server_goals(served, rounds)}
    assert goals == {
        f"{SERVED}: seconds of a request / of the plain call": (pytest.approx(1.225), "met"),
        f"{SERVED}: clips/s of 8 clients / prediction": (pytest.approx(13 / 14.25), "met"),
        f"{SERVED}: memory after all requests / after a tenth": (1.04, "met"),
    }
    assert {goal.verdict for goal in server_goals(None, rounds)} == {"not measured"}
    assert next(server_rows(None, {SERVED: "no port"})).note == "no port"


def test_a_folder_with_one_video_is_refused(video):
    with pytest.raises(UserError, match=r"predict\.videos must hold 2 videos"):
        run_suite(TINY.model_copy(update={"videos": (video.parent,)}), repeats=1)
