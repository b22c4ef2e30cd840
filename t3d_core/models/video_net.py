"""A batch of clips becomes logits: what all networks of the family have in common.

clip_BCTHW is a float tensor (batch, 3, frames, height, width), normalised.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from t3d_core.errors import UserError
from t3d_core.model_names import TransitionForm
from t3d_core.models.executable_net import ExecutableNet, check_finite
from t3d_core.models.precision import full_precision
from t3d_core.models.recompute import RecomputableLayer
from t3d_core.models.temporal_transition import TemporalTransitionLayer
from t3d_core.models.transition_forms import checked_form, default_forms

NUM_CHANNELS = 3


class VideoNet(ExecutableNet):
    """A 3D ConvNet: `features` make maps of a clip, their global average is the feature, a linear layer classifies it.

    Args:
        features: Maps clips (B, 3, T, H, W) to (B, feature_dim, t, h, w).
        num_classes: Classes of the linear head; 0 leaves the head out, so that `forward` gives features.
        feature_dim: Width D of `forward_features`.
        min_num_frames: Fewest frames of a clip.
        min_size: Smallest height and width of a clip, in pixels.
        drop_rate: Dropout before the head, in [0, 1).
        transition_forms: As for `set_transition_forms`; by default `default_forms`.

    Attributes:
        feature_dim: As given.
        min_num_frames: As given.
        min_size: As given.
        num_segments: Clips of one video that make one example in `forward`; 1 by default.
        is_frozen: Whether the head alone is trained; false by default.

    Raises:
        UserError: `num_classes` is negative, `drop_rate` is out of range, or forms do not fit the transitions.
    """

    channels_last = torch.channels_last_3d

    def __init__(
        self,
        features: nn.Module,
        *,
        num_classes: int,
        feature_dim: int,
        min_num_frames: int,
        min_size: int,
        drop_rate: float = 0.0,
        transition_forms: TransitionForm | Sequence[TransitionForm] | None = None,
    ) -> None:
        super().__init__()
        self.features = features
        self.feature_dim, self.min_num_frames, self.min_size = feature_dim, min_num_frames, min_size
        self.num_segments = 1
        self.is_frozen = False
        self.head_drop = nn.Dropout(checked_drop_rate(drop_rate))
        self.classifier: nn.Module = nn.Identity()
        self.reset_classifier(num_classes)
        if transition_forms is None:
            transition_forms = default_forms(len(self.transitions()))
        self.set_transition_forms(transition_forms)
        self._init_weights()

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the head by a fresh linear layer of `num_classes` outputs, or by none for 0.

        Raises:
            UserError: `num_classes` is negative.
        """
        if num_classes < 0:
            raise UserError(f"num_classes {num_classes} must be 0 (no head) or more")
        if num_classes == 0:
            self.classifier = nn.Identity()
            return
        reference = next(self.parameters())
        linear = nn.Linear(self.feature_dim, num_classes, device=reference.device, dtype=reference.dtype)
        nn.init.zeros_(linear.bias)
        self.classifier = linear

    def transitions(self) -> list[TemporalTransitionLayer]:
        """Return the transition layers, from the first to the last."""
        return [module for module in self.modules() if isinstance(module, TemporalTransitionLayer)]

    def set_transition_forms(self, forms: TransitionForm | Sequence[TransitionForm]) -> None:
        """Choose how the transitions compute their sum (see `transition_forms`): the same weights, the same result.

        Args:
            forms: One form for all transitions, or one for each.

        Raises:
            UserError: There is not one form for each transition, there are no transitions, or a form is unknown.
        """
        transitions = self.transitions()
        if forms and not transitions:
            raise UserError(f"transition_forms {forms} is given, but this net has no transitions: leave it out")
        forms = (forms,) * len(transitions) if isinstance(forms, str) else tuple(forms)
        if len(forms) != len(transitions):
            raise UserError(
                f"transition_forms {forms} has {len(forms)} entries, but this net has {len(transitions)} transitions: "
                "give one entry for each"
            )
        for transition, form in zip(transitions, forms, strict=True):
            transition.form = checked_form(form)

    def compiled_part(self) -> nn.Module:
        """Return `features`, which `forward_features` and `forward` both run."""
        return self.features

    def set_recompute(self, is_recomputed: bool) -> None:
        """Keep the activations of every layer for backward, or compute them once more there."""
        for module in self.modules():
            if isinstance(module, RecomputableLayer):
                module.is_recomputed = is_recomputed

    def freeze_backbone(self) -> None:
        """Train the linear head alone from now on: no other weight gets a gradient, and all statistics stand still."""
        self.requires_grad_(False)
        self.classifier.requires_grad_(True)
        self.is_frozen = True
        self.train(self.training)

    def train(self, mode: bool = True) -> "VideoNet":
        """Switch between training and evaluation; a frozen backbone stays in evaluation."""
        super().train(mode)
        if self.is_frozen:
            for part in self.children():
                if part not in (self.head_drop, self.classifier):
                    part.eval()
        return self

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        """Return the logits (B, num_classes) of a batch of clips, or its features (B, D) when there is no head.

        With `num_segments` S above 1 the batch holds S clips of each of B videos, one video after the other, and the
        mean of their features stands for the video (segment consensus: TSN, paper 4.6).

        Raises:
            UserError: The tensor has not five dimensions or three channels, or fewer frames or pixels than the net
                needs, or clips that do not make whole videos, or (while debugging) values that are not finite.
        """
        return self.classify(self.forward_views(clip_BCTHW))

    def forward_views(self, clip_BCTHW: Tensor) -> Tensor:
        """Return the features (B, feature_dim) that are classified: those of clips, or the means of `num_segments`."""
        return self._consensus(self.forward_features(clip_BCTHW))

    def classify(self, feature_BD: Tensor) -> Tensor:
        """Return the logits (B, num_classes) of features; the features themselves when there is no head."""
        with full_precision(feature_BD):
            return self.classifier(self.head_drop(feature_BD))

    def forward_features(self, clip_BCTHW: Tensor) -> Tensor:
        """Return the features (B, feature_dim); errors are those of `forward`.

        What follows `features` runs in the type of the weights also where convolutions run in bfloat16, whose 8 bits
        would make ties of scores.
        """
        self._check_clip(clip_BCTHW)
        maps_BCTHW = self.features(clip_BCTHW)
        with full_precision(maps_BCTHW):
            feature_BD = self._pool_features(maps_BCTHW.to(next(self.parameters()).dtype))
        if self.is_debugging:
            check_finite(feature_BD, "features")
        return feature_BD

    def _consensus(self, feature_ND: Tensor) -> Tensor:
        if self.num_segments == 1:
            return feature_ND
        if feature_ND.shape[0] % self.num_segments:
            raise UserError(f"{feature_ND.shape[0]} clips do not make whole videos of num_segments {self.num_segments}")
        return feature_ND.unflatten(0, (-1, self.num_segments)).mean(dim=1)

    def _pool_features(self, maps_BCTHW: Tensor) -> Tensor:
        return maps_BCTHW.mean(dim=(2, 3, 4))

    def _check_clip(self, clip_BCTHW: Tensor) -> None:
        shape = tuple(clip_BCTHW.shape)
        if len(shape) != 5 or shape[1] != NUM_CHANNELS:
            raise UserError(f"a clip of shape {shape} must be (batch, {NUM_CHANNELS} channels, frames, H, W)")
        num_frames, height, width = shape[2:]
        if num_frames < self.min_num_frames or min(height, width) < self.min_size:
            raise UserError(
                f"a clip of {num_frames} frames of {height} x {width} px is too small: this net needs at least "
                f"{self.min_num_frames} frames of {self.min_size} x {self.min_size} px"
            )
        if self.is_debugging:
            check_finite(clip_BCTHW, "clips")

    def _init_weights(self) -> None:
        """He initialisation (paper 4.1, reference [14]); batch norm starts at 1 and 0, as PyTorch does."""
        for module in self.features.modules():
            if isinstance(module, nn.Conv3d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


def checked_drop_rate(drop_rate: float) -> float:
    """Return `drop_rate`.

    Raises:
        UserError: It is not in [0, 1).
    """
    if not 0 <= drop_rate < 1:
        raise UserError(f"drop_rate {drop_rate} must be in [0, 1)")
    return drop_rate
