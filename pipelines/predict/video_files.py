"""What is made for people of one predicted video: a timeline, an annotated copy, an explanation.

OUTPUT/videos/NAME-HASH/timeline.csv, timeline.png     scores over time (`--timeline`)
OUTPUT/videos/NAME-HASH/annotated.mp4                  a copy with label, score and timeline drawn in (`--annotate`)
OUTPUT/videos/NAME-HASH/explanation.png, .mp4          why: of the clip that scores highest (`--explain`)
"""

import hashlib
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch

from pipelines.predict.config import PredictConfig
from pipelines.predict.explained_clip import CHANGED, choose_clip, explain_pixels, write_explanation_video
from pipelines.runtime.files import whole_file
from pipelines.runtime.pictures import optional_picture
from t3d_core.models.video_net import VideoNet
from t3d_core.prediction.timeline import Timeline
from t3d_core.prediction.video_prediction import VideoPrediction
from t3d_core.training.weights_card import WeightsCard
from t3d_core.video.clip_reader import ViewSampling
from t3d_core.video.container import VideoError
from t3d_core.video.frame_reader import at_constant_rate
from t3d_core.video.guard import GuardedDecoder

_MAX_STEM = 60


def folder_of(output: Path, video: str) -> Path:
    """The folder of a video's files: its name, and some digits of a hash because names may repeat."""
    stem = re.sub(r"[^\w.-]", "_", PurePosixPath(video).stem)[:_MAX_STEM]
    return output / "videos" / f"{stem}-{hashlib.sha256(video.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"


def wanted_files(config: PredictConfig) -> list[str]:
    """The file of each kind that is written last: where it exists, the kind need not be made again."""
    wanted = {"timeline.csv": config.timeline, "annotated.mp4": config.annotate, "explanation.mp4": config.explain}
    return [name for name, is_wanted in wanted.items() if is_wanted]


@dataclass(frozen=True)
class VideoFiles:
    """Makes the files that the settings ask for.

    Attributes:
        config: settings.
        net: the network as it was loaded, for explanations.
        device: where it runs.
        card: its card.
        sampling: which views are scored.
        decoder: reads the video again.
    """

    config: PredictConfig
    net: VideoNet
    device: torch.device
    card: WeightsCard
    sampling: ViewSampling
    decoder: GuardedDecoder

    def write(self, folder: Path, path: str, prediction: VideoPrediction, *, title: str) -> list[str]:
        """Write the files of a video into `folder`; return lines about it for the screen.

        Args:
            folder: made when it is missing.
            path: the video on this machine.
            prediction: its scores.
            title: its name; of a path or an address, the last part is shown.

        Raises:
            ValueError: the video cannot be read again (VideoError), or a file cannot be made of it.
            DecoderKilledError: another process ended the decoder.
            OSError: a file cannot be written.
        """
        lines: list[str] = []
        if not wanted_files(self.config):
            return lines
        folder.mkdir(parents=True, exist_ok=True)
        title = PurePosixPath(title).name
        timeline = prediction.timeline(window_seconds=self.config.smooth_seconds)
        if self.config.timeline:
            lines += self._write_timeline(folder, timeline, title)
        if self.config.annotate:
            self._annotate(folder / "annotated.mp4", path, timeline)
        if self.config.explain:
            lines += self._explain(folder, path, prediction, title)
        return lines

    def _write_timeline(self, folder: Path, timeline: Timeline, title: str) -> list[str]:
        # Imported only here, as below: matplotlib takes half a second, and scores need none of it.
        from pipelines.predict.timeline_files import plot_timeline, write_timeline_csv

        names, min_seconds = self.card.class_names, self.config.min_segment_seconds
        with optional_picture("timeline.png"):
            picture = plot_timeline(timeline, names, title, min_segment_seconds=min_seconds)
            with whole_file(folder / "timeline.png") as partial:
                partial.write_bytes(picture)
        write_timeline_csv(folder / "timeline.csv", timeline, names)
        return [segment.in_words(names) for segment in timeline.segments(min_seconds=min_seconds)]

    def _annotate(self, target: Path, path: str, timeline: Timeline) -> None:
        from pipelines.predict.annotate import annotate_frames

        frames = self.decoder.read_frames(path)
        if (first := next(frames, None)) is None:
            raise VideoError(CHANGED)
        annotate_frames(
            at_constant_rate(itertools.chain([first], frames)),
            path=target,
            fps=first.fps,
            timeline=timeline,
            class_names=self.card.class_names,
            start_seconds=first.seconds,
            min_segment_seconds=self.config.min_segment_seconds,
        )

    def _explain(self, folder: Path, path: str, prediction: VideoPrediction, title: str) -> list[str]:
        # Imported only here: pyplot takes half a second.
        from pipelines.predict.explanation_pictures import draw_explanation_sheet

        clip = choose_clip(path, prediction, self.sampling, decoder=self.decoder)
        explained = explain_pixels(clip.clip_THWC, clip.label, net=self.net, device=self.device, card=self.card)
        name = self.card.class_names[clip.label]
        heading = f"{title}: {name} {clip.score:.2f}, clip {clip.start_seconds:.1f} to {clip.end_seconds:.1f} s"
        with optional_picture("explanation.png"):
            draw_explanation_sheet(
                clip.clip_THWC, explained.map_THW, explained.shares, title=heading, path=folder / "explanation.png"
            )
        with whole_file(folder / "explanation.mp4") as partial:
            write_explanation_video(partial, clip, explained.map_THW)
        return list(_describe_shares(explained.shares))


def _describe_shares(shares: Sequence[Sequence[tuple[int, float]]]) -> Iterator[str]:
    for number, of_layer in enumerate(shares, start=1):
        parts = ", ".join(f"{depth} {'frame' if depth == 1 else 'frames'} {share:.0%}" for depth, share in of_layer)
        yield f"temporal layer {number}: {parts}"
