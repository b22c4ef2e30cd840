"""A folder of damaged, hostile and disguised videos, the same ones for the same seed.

    python tests/faults/mutated_corpus.py FOLDER --seed 0 --address 127.0.0.1:9999

FOLDER/videos/KIND/NAME holds the files, all made from clips that are generated here. FOLDER/secret.mp4 lies outside of
that root; playlists try to read it, or to call ADDRESS. FOLDER/expected.json has the expected result of every file, by
its name below the root: "prepared", a pattern of the reason for a failure, or null if either is right.
"""

import argparse
import json
import os
import struct
import tempfile
import wave
import zipfile
from pathlib import Path

import av
import numpy as np
from PIL import Image

NUM_FRAMES, HEIGHT, WIDTH = 40, 96, 128
SMALL_GROUPS = {"x264-params": "keyint=12:min-keyint=12:scenecut=0:threads=1"}
NOT_A_VIDEO = "not a video|corrupt or unreadable|no video stream|zero frames"

# name: (extension, container, codec, codec options, container options, pixel format)
SOURCES: dict[str, tuple[str, str, str, dict[str, str], dict[str, str], str]] = {
    "h264": ("mp4", "mp4", "libx264", SMALL_GROUPS, {}, "yuv420p"),
    "h264_header_first": ("mp4", "mp4", "libx264", SMALL_GROUPS, {"movflags": "faststart"}, "yuv420p"),
    "h264_fragments": ("mp4", "mp4", "libx264", SMALL_GROUPS, {"movflags": "frag_keyframe+empty_moov"}, "yuv420p"),
    "h264_matroska": ("mkv", "matroska", "libx264", SMALL_GROUPS, {}, "yuv420p"),
    "h264_transport": ("ts", "mpegts", "libx264", SMALL_GROUPS, {}, "yuv420p"),
    "hevc": ("mp4", "mp4", "libx265", {"x265-params": "log-level=none:keyint=12:pools=none"}, {}, "yuv420p"),
    "mpeg4": ("avi", "avi", "mpeg4", {"g": "12", "bf": "2"}, {}, "yuv420p"),
    "mpeg2": ("mpg", "mpeg", "mpeg2video", {"g": "12"}, {}, "yuv420p"),
    "vp9": ("webm", "webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}, {}, "yuv420p"),
    "jpeg": ("avi", "avi", "mjpeg", {}, {}, "yuvj420p"),
}


class Corpus:
    """The folder, and the expected result of each file in it."""

    def __init__(self, folder: Path, *, seed: int) -> None:
        self.root = folder / "videos"
        self.rng = np.random.default_rng(seed)
        self.expected: dict[str, str | None] = {}

    def add(self, kind: str, name: str | bytes, data: bytes, expected: str | None) -> Path:
        """Write one file."""
        path = self.expect(kind, name, expected)
        path.write_bytes(data)
        return path

    def expect(self, kind: str, name: str | bytes, expected: str | None) -> Path:
        """Return the path of a file, and note its expected result."""
        folder = self.root / kind
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / os.fsdecode(name)
        self.expected[os.fsencode(path.relative_to(self.root)).decode("utf-8", "backslashreplace")] = expected
        return path


def main() -> None:
    """Write the corpus, and print how many files of each kind it has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--address", default="127.0.0.1:9", help="host:port that playlists call")
    arguments = parser.parse_args()
    corpus = Corpus(arguments.folder, seed=arguments.seed)
    arguments.folder.mkdir(parents=True)
    sources = {name: encode(*form[1:], rng=corpus.rng) for name, form in SOURCES.items()}
    (arguments.folder / "secret.mp4").write_bytes(sources["h264"])
    add_whole_files(corpus, sources)
    add_damaged_files(corpus, sources)
    add_other_files(corpus, sources)
    add_playlists(corpus, secret=arguments.folder / "secret.mp4", address=arguments.address)
    add_bombs(corpus, sources)
    add_links(corpus, outside=arguments.folder / "secret.mp4")
    (arguments.folder / "expected.json").write_text(json.dumps(corpus.expected, indent=1))
    kinds = [name.partition("/")[0] for name in corpus.expected]
    print(", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)), f"= {len(kinds)} files")


def encode(
    container: str,
    codec: str,
    options: dict[str, str],
    container_options: dict[str, str],
    pix_fmt: str,
    *,
    rng: np.random.Generator,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    num_frames: int = NUM_FRAMES,
) -> bytes:
    """A texture that moves, as a file."""
    height, width = size
    texture_HWC = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    with tempfile.NamedTemporaryFile() as file:
        with av.open(file.name, "w", format=container, options=container_options) as output:
            stream = output.add_stream(codec, rate=25, options=options)
            stream.height, stream.width, stream.pix_fmt = height, width, pix_fmt
            for shift in range(num_frames):
                frame_HWC = np.ascontiguousarray(np.roll(texture_HWC, 3 * shift, axis=1)[:height, :width])
                output.mux(
                    stream.encode(av.VideoFrame.from_ndarray(frame_HWC, format="rgb24").reformat(format=pix_fmt))
                )
            output.mux(stream.encode(None))
        return Path(file.name).read_bytes()


def add_whole_files(corpus: Corpus, sources: dict[str, bytes]) -> None:
    """Files that must be prepared: every source, under odd names and wrong extensions too."""
    for source, data in sources.items():
        corpus.add("whole", f"{source}.{SOURCES[source][0]}", data, "prepared")
        for extension in {"mp4", "avi", "mkv"} - {SOURCES[source][0]}:
            corpus.add("wrong_extension", f"{source}.{extension}", data, "prepared")
    odd_names = [
        b"new\nline.mp4",
        b"\xff\xfe.mp4",
        b"-y.mp4",
        b"' \" $(true) ;.mp4",
        b"http:x.mp4",
        b"a" * 240 + b".mp4",
    ]
    for name in odd_names:
        corpus.add("odd_name", name, sources["h264"], "prepared")


def add_damaged_files(corpus: Corpus, sources: dict[str, bytes]) -> None:
    """Truncations, flipped bits, overwritten stretches: the decoder decides whether they can be decoded."""
    rng = corpus.rng
    for source, data in sources.items():
        extension = SOURCES[source][0]
        for place, fraction in enumerate((0.02, 0.1, 0.35, 0.6, 0.85, 0.99)):
            corpus.add("truncated", f"{source}_{place}.{extension}", data[: int(fraction * len(data))], None)
        header = header_of(data)
        for place in range(8):
            corpus.add(
                "header_bits", f"{source}_{place}.{extension}", flipped(data, header, 2**place // 2 + 1, rng), None
            )
            payload = range(len(data) // 4, len(data))
            corpus.add("payload_bits", f"{source}_{place}.{extension}", flipped(data, payload, 2**place, rng), None)
        for place, value in enumerate((0, 255)):
            first = int(rng.integers(64, len(data) - 600))
            damaged = data[:first] + bytes([value]) * 500 + data[first + 500 :]
            corpus.add("overwritten", f"{source}_{place}.{extension}", damaged, None)


def header_of(data: bytes) -> range:
    """Where the description of the streams lies: in mp4 the moov box, elsewhere the first bytes."""
    first = data.find(b"moov")
    return range(first, min(len(data), first + 900)) if first >= 0 else range(min(len(data), 700))


def flipped(data: bytes, places: range, num_bits: int, rng: np.random.Generator) -> bytes:
    """The same bytes with some bits among `places` flipped."""
    damaged = np.frombuffer(data, np.uint8).copy()
    for place in rng.integers(places.start, places.stop, num_bits):
        damaged[place] ^= 1 << rng.integers(8)
    return damaged.tobytes()


def add_other_files(corpus: Corpus, sources: dict[str, bytes]) -> None:
    """Files that are no videos, under names of videos."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        Image.effect_noise((64, 48), 50).save(folder / "picture.png")
        Image.effect_noise((64, 48), 50).save(folder / "picture.jpg")
        Image.effect_noise((64, 48), 50).save(folder / "picture.gif")
        with wave.open(str(folder / "sound.wav"), "wb") as sound:
            sound.setparams((1, 2, 8000, 0, "NONE", ""))
            sound.writeframes(corpus.rng.bytes(8000))
        for container in ("mp4", "mkv"):
            write_sound(folder / f"sound.{container}")
        with zipfile.ZipFile(folder / "archive.zip", "w") as archive:
            archive.writestr("clip.mp4", sources["h264"])
        for path in sorted(folder.iterdir()):
            is_video = path.suffix == ".gif"  # of one frame, which is noted
            corpus.add("not_video", f"{path.name}.mp4", path.read_bytes(), "prepared" if is_video else NOT_A_VIDEO)
    texts = {
        "text": "no video\n" * 500,
        "page": "<!DOCTYPE html><html><body><video src='x.mp4'></body></html>",
        "subtitles": "1\n00:00:01,000 --> 00:00:02,000\nhello\n",
        "json": json.dumps({"error": "Video unavailable"}),
    }
    for name, text in texts.items():
        corpus.add("not_video", f"{name}.mp4", text.encode(), NOT_A_VIDEO)
    for place in range(6):
        corpus.add("not_video", f"noise_{place}.mp4", corpus.rng.bytes(10 ** (place + 1)), NOT_A_VIDEO)
    for extension in ("mp4", "avi", "mkv", "webm"):
        corpus.add("not_video", f"empty.{extension}", b"", "empty file: 0 bytes")


def write_sound(path: Path) -> None:
    """A second of silence and no picture."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=8000)
        for place in range(8):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 8000, 1024 * place
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def add_playlists(corpus: Corpus, *, secret: Path, address: str) -> None:
    """Scripts that name another file or an address; FFmpeg would follow them, under any name."""
    for where, target in (("file", str(secret)), ("parent", "../../secret.mp4"), ("net", f"http://{address}/x.mp4")):
        scripts = {
            "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n",
            "hls_key": f'#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{target}"\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n',
            "concat": f"ffconcat version 1.0\nfile '{target}'\n",
            "dash": f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
            f"<AdaptationSet><Representation><BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>",
            "sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\na=control:{target}\n",
            "reference": f"[Reference]\nRef1={target}\n",
            "xspf": f"<playlist><trackList><track><location>{target}</location></track></trackList></playlist>",
        }
        for name, script in scripts.items():
            corpus.add("playlist", f"{name}_{where}.mp4", script.encode(), "not a video")


def add_bombs(corpus: Corpus, sources: dict[str, bytes]) -> None:
    """Small files that claim, or hold, far more than can be decoded."""
    header_first = sources["h264_header_first"]
    for count in (10**6, 10**8, 10**9, 2**32 - 1):
        claims = claiming_samples(header_first, count)
        corpus.add("bomb", f"claims_{count}_frames.mp4", claims, "truncated|corrupt|needs more|takes more|zero frames")
    raw = encode("avi", "rawvideo", {}, {}, "bgr24", rng=corpus.rng, size=(16, 16), num_frames=3)
    for side in (9000, 100_000, 2**31 - 1):
        at = raw.index(b"strf") + 12
        claims = raw[:at] + struct.pack("<ii", side, side) + raw[at + 8 :]
        corpus.add("bomb", f"raw_{side}_pixels.avi", claims, "picture size|not a video|no frame rate|corrupt")
    grown = with_jpeg_size(sources["jpeg"], skip=3, size=(65500, 65500))
    corpus.add("bomb", "jpeg_that_grows.avi", grown, "corrupt|picture size")
    mpeg4 = sources["mpeg4"]
    at = mpeg4.index(b"avih") + 8 + 16
    corpus.add("bomb", "avi_claims_a_billion.avi", mpeg4[:at] + struct.pack("<I", 10**9) + mpeg4[at + 4 :], None)
    corpus.add(
        "bomb", "minutes_of_huge_frames.mp4", repeated_frame(corpus, size=(8192, 8192), count=300), "takes more than"
    )
    corpus.add("bomb", "huge_frame.mp4", repeated_frame(corpus, size=(8192, 8208), count=1), "picture size 8208x8192")


def claiming_samples(data: bytes, count: int) -> bytes:
    """An mp4 whose tables claim `count` samples of one byte."""
    claims = bytearray(data)
    struct.pack_into(">II", claims, claims.index(b"stsz") + 8, 1, count)
    struct.pack_into(">I", claims, claims.index(b"stts") + 12, count)
    struct.pack_into(">I", claims, claims.index(b"stsc") + 16, count)
    return bytes(claims)


def with_jpeg_size(data: bytes, *, skip: int, size: tuple[int, int]) -> bytes:
    """All pictures of a motion JPEG except the first `skip` claim another size."""
    claims, place = bytearray(data), -1
    for number in range(NUM_FRAMES):
        place = claims.index(b"\xff\xc0", place + 1)
        if number >= skip:
            struct.pack_into(">HH", claims, place + 5, *size)
    return bytes(claims)


def repeated_frame(corpus: Corpus, *, size: tuple[int, int], count: int) -> bytes:
    """One black key frame over and over: a few bytes a picture."""
    height, width = size
    with tempfile.NamedTemporaryFile() as file:
        with av.open(file.name, "w", format="mp4") as output:
            stream = output.add_stream("libx264", rate=25, options={"preset": "ultrafast", "x264-params": "threads=1"})
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            black = av.VideoFrame(width, height, "yuv420p")
            for plane, value in zip(black.planes, (16, 128, 128), strict=True):
                plane.update(bytes([value]) * plane.buffer_size)
            [packet] = [*stream.encode(black), *stream.encode(None)]
            data, time_base, ticks = bytes(packet), packet.time_base, round(1 / (25 * packet.time_base))
            for number in range(count):
                copy = av.Packet(data)
                copy.stream, copy.time_base, copy.is_keyframe = stream, time_base, True
                copy.pts = copy.dts = number * ticks
                copy.duration = ticks
                output.mux(copy)
        return Path(file.name).read_bytes()


def add_links(corpus: Corpus, *, outside: Path) -> None:
    """Names that are no files of this folder."""
    corpus.expect("link", "out.mp4", "leads out of").symlink_to(outside)
    corpus.expect("link", "up.mp4", "leads out of").symlink_to("../../secret.mp4")
    corpus.expect("link", "passwd.mp4", "leads out of").symlink_to("/etc/passwd")
    corpus.expect("link", "endless.mp4", "leads out of").symlink_to("/dev/zero")
    corpus.expect("link", "nowhere.mp4", "not found|unreadable").symlink_to("absent.mp4")
    corpus.expect("link", "itself.mp4", "not found|unreadable|leads out").symlink_to("itself.mp4")
    corpus.expect("link", "inside.mp4", "prepared").symlink_to("../whole/h264.mp4")
    os.mkfifo(corpus.expect("link", "pipe.mp4", "not a regular file"))


if __name__ == "__main__":
    main()
