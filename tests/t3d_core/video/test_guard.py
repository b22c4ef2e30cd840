import itertools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest

from t3d_core.video.clip_reader import ViewSampling, read_views
from t3d_core.video.clip_sampling import ClipView
from t3d_core.video.container import EmptyIntervalError, VideoError, stated_seconds
from t3d_core.video.decoding import decode_frames, probe
from t3d_core.video.frame_reader import read_frames
from t3d_core.video.guard import DecoderKilledError, GuardedDecoder, GuardLimits
from t3d_core.video.storage import encode_segments, encode_video

pytestmark = pytest.mark.heavy


def write_video(path, *, num_frames=20, height=36, width=48):
    rng = np.random.default_rng(0)
    frames = (rng.integers(0, 256, (height, width, 3), np.uint8) for _ in range(num_frames))
    encode_video(frames, path=path, fps=10)
    return path


@pytest.fixture
def video(tmp_path):
    return write_video(tmp_path / "video.mp4")


@pytest.fixture(scope="module")
def long_video(tmp_path_factory):
    """A video whose encoding by us takes many seconds; MPEG-4 takes few."""
    path = tmp_path_factory.mktemp("long") / "long.avi"
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt, stream.bit_rate = 720, 1280, "yuv420p", 50_000_000
        for _ in range(60):
            frame_HWC = rng.integers(0, 256, (720, 1280, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def decoder():
    with GuardedDecoder() as decoder:
        yield decoder


def process_exists(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def wait_until(is_true, *, seconds=10):
    end = time.monotonic() + seconds
    while not is_true() and time.monotonic() < end:
        time.sleep(0.05)
    return is_true()


def test_the_guarded_decoder_gives_what_the_plain_functions_give(decoder, video):
    assert decoder.probe(video) == probe(video)
    assert decoder.stated_seconds(video) == stated_seconds(video) == 2.0
    assert np.array_equal(decoder.decode_frames(video, [3, 1]), decode_frames(video, [3, 1]))
    assert decoder.decode_frames(video, np.array([0]), size=(12, 16)).shape == (1, 12, 16, 3)
    options = {"encoding": "h264", "short_side": 36, "max_segment_seconds": 0.7}
    assert list(decoder.encode_segments(video, **options)) == list(encode_segments(video, **options))


def test_errors_keep_their_type_and_reason(decoder, video, tmp_path, encode):
    video_that_grows = tmp_path / "grows.mpg"
    parts = (encode("mpeg", "mpeg2video", num_frames=9, size=size) for size in ((46, 64), (96, 112)))
    video_that_grows.write_bytes(b"".join(parts))
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(VideoError, match="not a video"):
        decoder.probe(tmp_path / "text.mp4")
    with pytest.raises(VideoError, match=r"^copy: "):
        list(decoder.encode_segments(video_that_grows, encoding="copy", short_side=36))
    with pytest.raises(EmptyIntervalError):
        list(decoder.encode_segments(video, short_side=36, start_seconds=100.0, end_seconds=101.0))
    with pytest.raises(ValueError, match=r"frame_indices must be in \[0, 20\)") as raised:
        decoder.decode_frames(video, [20])
    assert not isinstance(raised.value, VideoError)


def test_a_child_that_crashes_is_one_error_and_the_next_file_is_decoded(decoder, video, long_video):
    decoder.probe(video)
    pid = decoder._child.pid
    timer = threading.Timer(0.5, os.kill, (pid, signal.SIGSEGV))
    timer.start()
    with pytest.raises(VideoError, match=r"decoder crashed \(SIGSEGV\)"):
        list(decoder.encode_segments(long_video, encoding="h264", short_side=720))
    timer.join()
    assert decoder.probe(video).num_frames == 20


def test_a_child_that_somebody_kills_is_no_fault_of_the_file(decoder, video, long_video):
    decoder.probe(video)
    timer = threading.Timer(0.5, os.kill, (decoder._child.pid, signal.SIGKILL))
    timer.start()
    with pytest.raises(DecoderKilledError, match="killed from outside"):
        list(decoder.encode_segments(long_video, encoding="h264", short_side=720))
    timer.join()
    assert decoder.probe(video).num_frames == 20


def test_a_request_that_no_child_lives_to_read_leaves_the_decoder_usable(decoder, video):
    decoder.probe(video)
    child = decoder._child
    child.kill()
    child.wait()
    child.stdin.write(b"never read\n")
    decoder.close()
    assert decoder.probe(video).num_frames == 20


def test_a_child_that_died_between_two_files_is_replaced(decoder, video):
    decoder.probe(video)
    os.kill(decoder._child.pid, signal.SIGKILL)
    decoder._child.wait()
    assert decoder.probe(video).num_frames == 20


def test_a_file_that_takes_too_long_is_given_up_at_the_deadline(video, long_video):
    with GuardedDecoder(GuardLimits(seconds=1)) as decoder:
        decoder.probe(video)
        pid, start = decoder._child.pid, time.monotonic()
        with pytest.raises(VideoError, match="decoding takes more than 1 s"):
            list(decoder.encode_segments(long_video, encoding="h264", short_side=720))
        assert time.monotonic() - start < 5
        assert wait_until(lambda: not process_exists(pid))
        assert decoder.probe(video).num_frames == 20


def test_a_file_that_needs_too_much_memory_is_an_error_that_says_so(tmp_path):
    path = write_video(tmp_path / "large.mp4", num_frames=3, height=1080, width=1920)
    with GuardedDecoder(GuardLimits(memory_bytes=1 << 30)) as decoder:
        with pytest.raises(VideoError, match="needs more than 1 GiB of memory"):
            decoder.decode_frames(path, [0] * 300)
        assert decoder.probe(path).num_frames == 3


def test_a_file_that_is_refused_does_not_cost_the_child(decoder, video, tmp_path):
    (tmp_path / "garbage.mp4").write_bytes(b"garbage" * 999)
    decoder.probe(video)
    pid = decoder._child.pid
    for _ in range(3):
        with pytest.raises(VideoError, match="not a video"):
            list(decoder.encode_segments(tmp_path / "garbage.mp4", short_side=64))
        with pytest.raises(EmptyIntervalError):
            list(decoder.encode_segments(video, short_side=64, start_seconds=1e6))
    assert decoder.probe(video).num_frames > 0
    assert decoder._child.pid == pid


def test_output_beyond_its_limit_is_an_error(video):
    with GuardedDecoder(GuardLimits(output_bytes=10_000)) as decoder:
        with pytest.raises(VideoError, match=r"gives more than 9\.31e-06 GiB"):
            decoder.decode_frames(video, range(20))
        assert decoder.decode_frames(video, [0]).shape == (1, 36, 48, 3)


def test_a_child_can_write_no_file_and_leaves_no_core(decoder, video):
    decoder.probe(video)
    limits = Path(f"/proc/{decoder._child.pid}/limits").read_text()
    assert all(f"Max {name} size".ljust(26) + "0 " in limits for name in ("file", "core file"))


def test_a_child_is_told_no_secret_of_its_parents(video, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    monkeypatch.setenv("LC_TIME", "C")
    with GuardedDecoder() as decoder:
        decoder.probe(video)
        content = Path(f"/proc/{decoder._child.pid}/environ").read_text()
    told = dict(each.split("=", 1) for each in content.split("\0") if each)
    assert (told["PATH"], told["LC_TIME"]) == (os.environ["PATH"], "C")
    assert "secret" not in told.values()


def test_a_child_ends_with_its_parent_even_in_the_middle_of_a_file(long_video):
    script = textwrap.dedent("""
        import sys, threading
        from t3d_core.video.guard import GuardedDecoder, GuardLimits
        decoder = GuardedDecoder(GuardLimits(seconds=2))
        threading.Timer(0.5, lambda: print(decoder._child.pid, flush=True)).start()
        list(decoder.encode_segments(sys.argv[1], encoding="h264", short_side=720))
    """)
    with subprocess.Popen([sys.executable, "-c", script, str(long_video)], stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        assert process_exists(pid)
        parent.kill()
    assert wait_until(lambda: not process_exists(pid), seconds=15)


def test_a_segment_comes_before_the_next_one_is_made_and_the_rest_can_be_left(decoder, video):
    segments = decoder.encode_segments(video, encoding="h264", short_side=36, max_segment_seconds=0.5)
    assert next(segments).num_frames == 5
    segments.close()
    assert decoder.probe(video).num_frames == 20


def test_odd_names_reach_the_child_as_they_are(decoder, video, tmp_path):
    for name in (b"new\nline.mp4", b"-dash.mp4", b"http:colon.mp4", b"\xff.mp4"):
        path = os.path.join(os.fsencode(tmp_path), name)
        os.link(video, path)
        assert decoder.probe(os.fsdecode(path)).num_frames == 20


def test_the_child_does_not_import_torch():
    code = "import sys, t3d_core.video.guard_child; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_a_child_is_replaced_after_many_files(decoder, video, monkeypatch):
    monkeypatch.setattr("t3d_core.video.guard._MAX_REQUESTS", 2)
    pids = []
    for _ in range(5):
        decoder.probe(video)
        pids.append(decoder._child.pid)
    assert [a == b for a, b in itertools.pairwise(pids)] == [True, False, True, False]


CLIP = ClipView(num_frames=4, frame_stride=2, crop_size=32, short_side=36, short_video="loop")
SAMPLING = ViewSampling(CLIP)


def test_views_come_through_the_guard_as_they_are_read(decoder, video):
    views, plain = list(decoder.read_views(video, SAMPLING)), list(read_views(video, SAMPLING))
    assert len(views) == 2
    for view, same in zip(views, plain, strict=True):
        np.testing.assert_array_equal(view.clip_STHWC, same.clip_STHWC)
        assert view[1:] == same[1:]


def test_the_limits_hold_for_each_view_and_not_for_a_whole_video(video):
    clip_bytes = 4 * 32 * 32 * 3
    with GuardedDecoder(GuardLimits(output_bytes=clip_bytes)) as decoder:
        assert len(list(decoder.read_views(video, SAMPLING))) == 2
    with GuardedDecoder(GuardLimits(output_bytes=clip_bytes - 1)) as decoder, pytest.raises(VideoError, match="more"):
        list(decoder.read_views(video, SAMPLING))


def test_views_that_nobody_reads_any_more_leave_the_decoder_usable(decoder, long_video, video):
    views = decoder.read_views(long_video, SAMPLING)
    next(views)
    views.close()
    assert len(list(decoder.read_views(video, SAMPLING))) == 2


def test_frames_come_through_the_guard_as_they_are_read(decoder, video):
    frames, plain = list(decoder.read_frames(video)), list(read_frames(video))
    assert len(frames) == 20
    for frame, same in zip(frames, plain, strict=True):
        np.testing.assert_array_equal(frame.frame_HWC, same.frame_HWC)
        assert frame[1:] == same[1:]
