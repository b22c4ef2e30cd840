"""How clips are taken from videos, and what is changed at random in them; defaults are the paper's."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from pipelines.settings.section import ADDED, Fraction, Section
from t3d_core.errors import UserError
from t3d_core.video.sizes import default_short_side

Color = tuple[float, float, float]
PositiveColor = tuple[PositiveFloat, PositiveFloat, PositiveFloat]
IMAGENET: tuple[Color, Color] = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ClipConfig(Section):
    """How a clip is taken from a video."""

    num_frames: PositiveInt = 32
    """Frames of a clip (paper Table 3)."""
    frame_stride: PositiveInt | None = 2
    """Distance from one frame of a clip to the next, in frames of the video (paper Table 6). With none,
    seconds_per_frame is the distance."""
    seconds_per_frame: Annotated[float | None, Field(ge=0.001), ADDED] = None
    """Distance from one frame of a clip to the next in seconds, for videos of different frame rates (Paper: not in it).
    With `--clip.frame_stride none`; each video takes its frames nearest to these moments, at its average frame rate."""
    crop_size: PositiveInt = 224
    """Side of the square crop in pixels (paper Table 5)."""
    short_side: PositiveInt | None = None
    """Shorter side of the frame before the crop, in pixels. By default crop_size * 256 / 224, the ratio of the
    paper."""
    short_video: Literal["loop", "repeat_last"] = "loop"
    """How a clip is completed when the video is shorter than its span."""
    num_segments: PositiveInt = 1
    """Number of clips of a video that make one example. Their features are averaged before the classifier (TSN, paper
    4.6: 5)."""
    mean: Color = IMAGENET[0]
    """Mean that is subtracted from RGB on the 0..1 scale."""
    std: PositiveColor = IMAGENET[1]
    """Standard deviation that RGB is divided by after that."""

    @model_validator(mode="after")
    def _one_distance(self) -> "ClipConfig":
        if self.frame_stride is not None and self.seconds_per_frame is not None:
            raise UserError(
                f"clip.frame_stride {self.frame_stride} and clip.seconds_per_frame {self.seconds_per_frame:g} both set "
                "the distance of frames: leave one of them out (--clip.frame_stride none)"
            )
        if self.frame_stride is None and self.seconds_per_frame is None:
            raise UserError(
                "clip.frame_stride none needs a distance in seconds: add --clip.seconds_per_frame, such as 0.08"
            )
        return self

    @model_validator(mode="after")
    def _crop_fits(self) -> "ClipConfig":
        if self.short_side_pixels() < self.crop_size:
            raise UserError(f"short_side {self.short_side} is smaller than crop_size {self.crop_size}")
        return self

    def short_side_pixels(self) -> int:
        """The short side, given or derived from the crop."""
        return self.short_side or default_short_side(self.crop_size)


class AugmentationConfig(Section):
    """What is changed at random in the clips that the network trains on."""

    crop: Literal["five_crop", "random_resized"] = "five_crop"
    """How the crop is chosen: one of the four corners and the centre (five_crop, paper 4.4), or any part of the frame,
    scaled to the crop (random_resized)."""
    min_area: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Smallest share of the frame's area that random_resized takes."""
    flip: bool = True
    """Mirror half of the clips, left to right (paper 4.4)."""
    brightness: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Colour jitter of the brightness: the factor is drawn from 1 - x .. 1 + x, once for each clip."""
    contrast: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Colour jitter of the contrast, drawn as for brightness."""
    saturation: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Colour jitter of the saturation, drawn as for brightness."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Colour jitter of the hue: the shift is drawn from -x .. x, where 1 is the whole circle, once for each clip."""
    gray_share: Fraction = 0.0
    """Share of the clips that become grey."""
