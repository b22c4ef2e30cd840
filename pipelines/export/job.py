"""Weights become a file that runs without this project, kept only if it computes the same as the network.

    weights -> network -> batch norms folded -> traced -> written -> read anew
                  |                                                    |
                  +-- clips of a video, batches of 1 and 3 -- same? ---+-> the file gets its name

Not part of the paper. Legend: B clips, T frames, H x W pixels, C = 3 colours.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipelines.export.config import ExportConfig
from pipelines.export.program import FORMATS, INPUT_NAME, ClipModel, ExportFormat, RunClips, output_name, trace
from pipelines.networks.weights import locate_weights, newest_run
from pipelines.runtime.files import whole_file
from pipelines.runtime.job_run import open_job_run, tracking_uri_of
from pipelines.runtime.paths import base_folder, input_path, new_name, output_path
from pipelines.settings.terminal import format_summary
from pipelines.tracking.runs import Run
from t3d_core.errors import UserError
from t3d_core.models.folding import fold_batch_norms
from t3d_core.training.checkpoint import LoadedModel, load_model
from t3d_core.training.weights_card import WeightsCard
from t3d_core.video.clip_sampling import uniform_clips
from t3d_core.video.container import VideoError
from t3d_core.video.cropping import center_crop, crop_frames
from t3d_core.video.guard import GuardedDecoder
from t3d_core.video.sizes import resized_size

# float32 sums in another order: T3D-121 differs by 1e-8 in probabilities and 1e-6 of the logits.
MAX_PROBABILITY_DIFFERENCE = 1e-4
MAX_RELATIVE_DIFFERENCE = 1e-3
CHECKED_BATCHES = (1, 3)  # two sizes, to check that the file accepts batches of any size
_SMALLEST_PROBABILITY = 1e-30  # float32 ends near 1e-38


class CheckClips(NamedTuple):
    """Clips on which the written file is compared: uint8 clip_BTHWC, and a description of their origin."""

    clip_BTHWC: Tensor
    origin: str


class Difference(NamedTuple):
    """How far the results of the file are from those of the network.

    Attributes:
        probability: largest difference of probabilities; None for features.
        relative: largest difference of log probabilities (logits up to a constant) or features / largest of them.
    """

    probability: float | None
    relative: float

    def is_rounding(self) -> bool:
        """Whether rounding explains both differences; it does not explain NaN."""
        probability = 0.0 if self.probability is None else self.probability
        return probability <= MAX_PROBABILITY_DIFFERENCE and self.relative <= MAX_RELATIVE_DIFFERENCE

    def describe(self) -> str:
        """Both figures and their limits."""
        if self.probability is None:
            return f"features differ by {self.relative:.1e} of the largest (allowed {MAX_RELATIVE_DIFFERENCE:.0e})"
        return (
            f"probabilities differ by {self.probability:.1e} (allowed {MAX_PROBABILITY_DIFFERENCE:.0e}), their "
            f"logarithms by {self.relative:.1e} of the largest (allowed {MAX_RELATIVE_DIFFERENCE:.0e})"
        )


def run_export(config: ExportConfig) -> str:
    """Export a network as `config` describes; return the closing summary.

    Raises:
        UserError: packages, weights or the video cannot be used; raised before any work.
        UserError: the file computes something else than the network; it is then not kept.
    """
    file_format = FORMATS[config.format]
    file_format.check_packages()
    storage = base_folder() / config.storage
    tracking_uri = tracking_uri_of(config.tracking)
    weights = locate_weights(config.checkpoint or str(newest_run(storage)), tracking_uri=tracking_uri)
    loaded = load_model(weights)
    clips = _video_clips(input_path(config.video), loaded.card) if config.video else _noise_clips(loaded.card)
    name = new_name("export")
    output = config.output or _default_output(config, weights, storage / name)
    output = output_path(output.parent) / output.name
    with open_job_run(config, config.tracking, stage="export", run_name=name, tags={"weights": str(weights)}) as run:
        difference = export_checked(loaded, clips, output, file_format, fold_batch_norm=config.fold_batch_norm)
        figures = {
            f"export/{key}_difference": value for key, value in difference._asdict().items() if value is not None
        }
        run.log_metrics(figures | {"export/bytes": output.stat().st_size}, step=0)
        run.log_artifact(output, artifact_path="export")
    return _summary(config, loaded.card, clips, difference, output, run)


def export_checked(
    loaded: LoadedModel, clips: CheckClips, output: Path, file_format: ExportFormat, *, fold_batch_norm: bool
) -> Difference:
    """Write a network to `output` and compare what the file computes with the network as it was loaded.

    Raises:
        UserError: they differ by more than rounding; `output` then stays as it was.
    """
    card = loaded.card
    eager = ClipModel(loaded.model, card)
    net = fold_batch_norms(loaded.model) if fold_batch_norm else loaded.model
    with whole_file(output) as partial:
        file_format.write(trace(ClipModel(net, card), card), card, partial)
        difference = compare(file_format.open(partial), eager, clips.clip_BTHWC, is_probability=bool(card.class_names))
        if not difference.is_rounding():
            raise UserError(
                f"the exported file computes something else than the network ({difference.describe()}; "
                f"{file_format.describe_runtime()}), so it was not kept: try the other format, or another version of "
                "PyTorch or of the runtime"
            )
    return difference


@torch.no_grad()
def compare(exported: RunClips, eager: RunClips, clip_BTHWC: Tensor, *, is_probability: bool) -> Difference:
    """Run both on the same clips, in batches of the sizes of `CHECKED_BATCHES`."""
    batches = clip_BTHWC.split(CHECKED_BATCHES)
    found, expected = (torch.cat([run(batch) for batch in batches]).double() for run in (exported, eager))
    if not is_probability:
        return Difference(None, _relative_difference(found, expected))
    logarithms = [output.clamp_min(_SMALLEST_PROBABILITY).log() for output in (found, expected)]
    return Difference((found - expected).abs().max().item(), _relative_difference(*logarithms))


def _relative_difference(found: Tensor, expected: Tensor) -> float:
    largest = expected.abs().max().clamp_min(_SMALLEST_PROBABILITY)  # all of them may be 0
    return ((found - expected).abs().max() / largest).item()


def _video_clips(path: Path, card: WeightsCard) -> CheckClips:
    """Clips spread evenly over a video, scaled and cropped as for testing (paper 4.4)."""
    try:
        with GuardedDecoder() as decoder:
            info = decoder.probe(path)
            clips = uniform_clips(
                info.num_frames,
                num_clips=sum(CHECKED_BATCHES),
                num_frames=card.num_frames,
                frame_stride=card.clip_view().stride_at(info.fps),
                short_video=card.short_video,
            )
            size = resized_size(info.height, info.width, short_side=card.short_side)
            indices = np.concatenate([clip.frame_indices for clip in clips])
            frames_THWC = decoder.decode_frames(path, indices, size=size)
    except VideoError as error:
        raise UserError(f"video {path} cannot be used: {error}") from error
    cropped = crop_frames(frames_THWC, center_crop(*size, crop_size=card.crop_size))
    return CheckClips(torch.from_numpy(cropped).view(len(clips), card.num_frames, *cropped.shape[1:]), str(path))


def _noise_clips(card: WeightsCard) -> CheckClips:
    shape_BTHWC = (sum(CHECKED_BATCHES), card.num_frames, card.crop_size, card.crop_size, 3)
    noise = torch.randint(0, 256, shape_BTHWC, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return CheckClips(noise, "RANDOM NOISE, no real video (give one with --video)")


def _default_output(config: ExportConfig, weights: Path, own_folder: Path) -> Path:
    """A file next to the weights, or in the export's own folder for weights from a tracking store."""
    is_stored = (config.checkpoint or "").startswith(("runs:/", "models:/"))
    return (own_folder if is_stored else weights.parent) / f"model{config.suffix()}"


def _summary(
    config: ExportConfig, card: WeightsCard, clips: CheckClips, difference: Difference, output: Path, run: Run
) -> str:
    file_format = FORMATS[config.format]
    batches = " and ".join(map(str, CHECKED_BATCHES))
    size = card.crop_size
    return format_summary(
        [
            ("file", f"{output} ({config.format}, {output.stat().st_size / 1e6:.1f} MB)"),
            ("network", card.model_kind),
            (
                "takes",
                f"{INPUT_NAME}, uint8 RGB (any, {card.num_frames}, {size}, {size}, 3): {card.describe_distance()}, "
                f"short side scaled to {card.short_side} px, centre crop",
            ),
            ("gives", f"{output_name(card)}, float32{f' (any, {len(card.class_names)})' if card.class_names else ''}"),
            (
                "checked",
                f"in {file_format.describe_runtime()} against PyTorch with batch norms, {len(clips.clip_BTHWC)} clips "
                f"in batches of {batches} from {clips.origin}: {difference.describe()}",
            ),
            ("run it", file_format.example.replace("FILE", str(output))),
            ("mlflow", run.describe()),
        ]
    )
