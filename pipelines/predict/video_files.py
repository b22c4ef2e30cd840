"""What is made for people of one predicted video: a timeline, an annotated copy, an explanation.

OUTPUT/videos/NAME-HASH/timeline.csv, timeline.png     scores over time (`--timeline`)
OUTPUT/videos/NAME-HASH/annotated.mp4                  a copy with label, score and timeline drawn in (`--annotate`)
OUTPUT/videos/NAME-HASH/explanation.png, .mp4          why: of the clip that scores highest (`--explain`)
"""

import hashlib
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
import torch

from pipelines.predict.annotate import annotate_frames
from pipelines.predict.config import PredictConfig
from pipelines.predict.timeline_files import plot_timeline, write_timeline_csv
from pipelines.runtime.files import whole_file
from pipelines.runtime.pictures import optional_picture
from t3d_core.models.video_net import VideoNet
from t3d_core.prediction.timeline import Timeline, make_timeline
from t3d_core.prediction.video_prediction import VideoPrediction
from t3d_core.training.weights_card import WeightsCard
from t3d_core.video.clip_reader import ViewSampling
from t3d_core.video.container import VideoError
from t3d_core.video.frame_reader import at_constant_rate
from t3d_core.video.guard import GuardedDecoder
from t3d_core.video.playable import write_playable
from t3d_core.video.transforms import normalize_clip

_MIN_EXPLAINED_PIXELS = 224
_MAX_STEM = 60
_CHANGED = "it gives fewer frames than before: it was changed while the job read it"


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
        timeline = self._timeline_of(prediction)
        if self.config.timeline:
            lines += self._write_timeline(folder, timeline, title)
        if self.config.annotate:
            self._annotate(folder / "annotated.mp4", path, timeline)
        if self.config.explain:
            lines += self._explain(folder, path, prediction, title)
        return lines

    def _timeline_of(self, prediction: VideoPrediction) -> Timeline:
        starts, ends = prediction.start_N, prediction.end_N
        return make_timeline(
            starts,
            ends,
            prediction.score_NK,
            window_seconds=self.config.smooth_seconds,
            max_gap_seconds=float(max(0.0, np.max(starts[1:] - ends[:-1], initial=0.0))),
        )

    def _write_timeline(self, folder: Path, timeline: Timeline, title: str) -> list[str]:
        names, min_seconds = self.card.class_names, self.config.min_segment_seconds
        with optional_picture("timeline.png"):
            picture = plot_timeline(timeline, names, title, min_segment_seconds=min_seconds)
            with whole_file(folder / "timeline.png") as partial:
                partial.write_bytes(picture)
        write_timeline_csv(folder / "timeline.csv", timeline, names)
        return [segment.in_words(names) for segment in timeline.segments(min_seconds=min_seconds)]

    def _annotate(self, target: Path, path: str, timeline: Timeline) -> None:
        frames = self.decoder.read_frames(path)
        if (first := next(frames, None)) is None:
            raise VideoError(_CHANGED)
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
        # Imported only here: captum and pyplot take half a second.
        from pipelines.predict.explanation_pictures import draw_explanation_sheet, overlay_frames
        from t3d_core.prediction.explanation import explain_clip

        [(label, score)] = prediction.top(1)
        place = int(prediction.score_NK[:, label].argmax())
        clip_THWC = self._clip_at(path, place)
        clip_BTHWC = torch.from_numpy(clip_THWC[None]).to(self.device)
        clip_BCTHW = normalize_clip(clip_BTHWC, mean=self.card.mean, std=self.card.std)
        explanation = explain_clip(self.net.to(self.device), clip_BCTHW, torch.tensor([label], device=self.device))
        map_THW = explanation.map_BTHW[0].cpu().numpy()
        # Only transitions with several depths are informative.
        shares = [each.of_clip(0) for each in explanation.branch_shares if len(each.temporal_depths) > 1]
        start, end = float(prediction.start_N[place]), float(prediction.end_N[place])
        heading = f"{title}: {self.card.class_names[label]} {score:.2f}, clip {start:.1f} to {end:.1f} s"
        with optional_picture("explanation.png"):
            draw_explanation_sheet(clip_THWC, map_THW, shares, title=heading, path=folder / "explanation.png")
        fps = min(60.0, len(clip_THWC) / max(end - start, 0.1) / self.card.num_segments)
        with whole_file(folder / "explanation.mp4") as partial:
            write_playable(map(_enlarged, overlay_frames(clip_THWC, map_THW)), path=partial, fps=fps)
        return list(_describe_shares(shares))

    def _clip_at(self, path: str, place: int) -> npt.NDArray[np.uint8]:
        """The pixels of the clip with this number, of several segments the middle one, in the centre crop."""
        views = self.decoder.read_views(path, replace(self.sampling, num_crops=1))
        if (view := next(itertools.islice(views, place, None), None)) is None:
            raise VideoError(_CHANGED)
        return np.array(view.clip_STHWC[len(view.clip_STHWC) // 2])


def _enlarged(frame_HWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Every pixel of a small frame several times, so that a player shows more than a stamp."""
    factor = -(-_MIN_EXPLAINED_PIXELS // min(frame_HWC.shape[:2]))
    return frame_HWC.repeat(factor, axis=0).repeat(factor, axis=1)


def _describe_shares(shares: Sequence[Sequence[tuple[int, float]]]) -> Iterator[str]:
    for number, of_layer in enumerate(shares, start=1):
        parts = ", ".join(f"{depth} {'frame' if depth == 1 else 'frames'} {share:.0%}" for depth, share in of_layer)
        yield f"temporal layer {number}: {parts}"
