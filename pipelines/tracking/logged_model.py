"""Clips of uint8 frames go in, class probabilities come out: the model that MLflow stores, loads and serves.

MLflow copies this file into the logged model and runs it, next to `t3d_core` and without the rest of this project.

Legend: B clips, T frames, H height, W width, C channels.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from t3d_core.models.execution import Execution
from t3d_core.models.folding import fold_batch_norms
from t3d_core.training.checkpoint import load_model
from t3d_core.video.transforms import normalize_clip


class ClipClassifier(PythonModel):
    """The network of one self-describing weights file (artifact `weights`)."""

    def load_context(self, context: PythonModelContext) -> None:
        """Build the network on the GPU when there is one, in the form that is fastest for inference."""
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        net, self._card = load_model(Path(context.artifacts["weights"]))
        self._net = fold_batch_norms(net).to(self._device)
        Execution().prepare(
            self._net,
            num_frames=self._card.num_frames,
            size=self._card.crop_size,
            batch_size=1,
            is_trained=False,
        )

    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> np.ndarray:
        """Classify clips that are already scaled and cropped as the card of the weights describes.

        Args:
            context: MLflow's; not used after `load_context`.
            model_input: clips_BTHWC, uint8 RGB; MLflow has checked it against the signature.
            params: MLflow's; this model has none.

        Returns:
            probabilities_BK, a float32 array over the K classes.
        """
        clips_BTHWC = torch.from_numpy(np.ascontiguousarray(model_input)).to(self._device)
        with torch.inference_mode():
            clips_BCTHW = normalize_clip(clips_BTHWC, mean=self._card.mean, std=self._card.std)
            return self._net(clips_BCTHW).softmax(dim=1).cpu().numpy()


set_model(ClipClassifier())
