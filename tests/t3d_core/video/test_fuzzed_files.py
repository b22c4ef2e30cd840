"""Random damage, found by hypothesis with a fixed budget: whatever the bytes are, a frame or one reason comes out."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from t3d_core.video.clip_sampling import random_clip
from t3d_core.video.container import VideoError
from t3d_core.video.guard import GuardedDecoder, GuardLimits

SMALL_GROUPS = {"x264-params": "keyint=8:min-keyint=8:scenecut=0:bframes=2"}
FORMS = {
    "mp4": {"num_frames": 20, "options": SMALL_GROUPS, "container_options": {"movflags": "faststart"}},
    "fragments": {"num_frames": 20, "options": SMALL_GROUPS, "container_options": {"movflags": "frag_keyframe"}},
    "matroska": {"num_frames": 20, "container": "matroska", "options": SMALL_GROUPS},
    "transport": {"num_frames": 20, "container": "mpegts", "options": SMALL_GROUPS},
    "avi": {"num_frames": 20, "container": "avi", "codec": "mpeg4", "options": {"bf": "2", "g": "8"}},
}
# An edit: where (as a share of the file), what is done there, and with which bytes.
EDITS = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.sampled_from(["overwrite", "insert", "delete", "cut", "double"]),
        st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=6,
)


def edited(data: bytes, edits: list[tuple[float, str, bytes]]) -> bytes:
    for share, operation, content in edits:
        at = int(share * len(data))
        if operation == "overwrite":
            data = data[:at] + content + data[at + len(content) :]
        elif operation == "insert":
            data = data[:at] + content + data[at:]
        elif operation == "delete":
            data = data[:at] + data[at + len(content) :]
        elif operation == "cut":
            data = data[: max(1, at)]
        else:
            data = data + data[at:]
    return data


@pytest.fixture(scope="module")
def forms(encode):
    return {name: encode(**form) for name, form in FORMS.items()}


@pytest.fixture(scope="module")
def decoder():
    with GuardedDecoder(GuardLimits(seconds=10, memory_bytes=1 << 30)) as decoder:
        yield decoder


@pytest.mark.heavy
@settings(max_examples=75, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from(sorted(FORMS)), edits=EDITS, seed=st.integers(0, 99))
def test_damaged_bytes_give_frames_or_one_reason(name, edits, seed, forms, decoder, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    path.write_bytes(edited(forms[name], edits))
    reason = None
    try:
        info = decoder.probe(path)
        assert info.num_frames >= 1
        assert 0 < info.height * info.width <= 8192 * 8192
        assert 0 < info.fps < math.inf
        rng = np.random.default_rng(seed)
        clip = random_clip(info.num_frames, num_frames=4, frame_stride=2, short_video="loop", rng=rng)
        frames_THWC = decoder.decode_frames(path, clip.frame_indices, size=(16, 24))
        assert frames_THWC.shape == (4, 16, 24, 3)
    except VideoError as error:
        reason = str(error)
    assert reason is None or 0 < len(reason) < 300


@pytest.mark.heavy
@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from(sorted(FORMS)), edits=EDITS)
def test_damaged_bytes_give_whole_segments_or_one_reason(name, edits, forms, decoder, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    path.write_bytes(edited(forms[name], edits))
    segment_path = path.with_name("segment")
    try:
        segments = list(decoder.encode_segments(path, short_side=64, max_segment_seconds=0.5))
    except VideoError:
        return
    starts = [segment.start_frame for segment in segments]
    assert starts[0] == 0
    assert starts[1:] == np.cumsum([segment.num_frames for segment in segments])[:-1].tolist()
    for segment in segments:
        segment_path.write_bytes(segment.data)
        indices = segment.frame_offset + np.arange(segment.num_frames)
        assert len(decoder.decode_frames(segment_path, indices)) == segment.num_frames
