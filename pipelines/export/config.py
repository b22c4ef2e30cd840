"""What can be set when a network is exported."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import model_validator

from pipelines.settings.section import Address, Role, Section, UserPath
from pipelines.tracking.config import TrackingConfig
from t3d_core.errors import UserError


class ExportConfig(Section):
    """Write a trained network to one file that runs without this project, and check it against PyTorch."""

    FIRST_SETTINGS = (
        "checkpoint",
        "format",
        "video",
        "output",
        "fold_batch_norm",
    )

    checkpoint: Address | None = None
    """Weights: a file, a checkpoint or run folder, runs:/... or models:/...; none: the newest run in `storage`."""
    format: Literal["torch_export", "onnx"] = "torch_export"
    """torch_export (.pt2, runs where PyTorch is) or onnx (.onnx, needs pip install 't3d[export]'); float32 both."""
    output: Annotated[UserPath | None, Role.PLACE] = None
    """File to write; none: model.pt2 or model.onnx beside the weights (of runs:/, models:/: in STORAGE/export-TIME)."""
    video: UserPath | None = None
    """Video from whose clips the written file is checked; none: random noise, and the summary says so."""
    fold_batch_norm: bool = True
    """Fold batch norms into the convolutions before them; the file is checked against the network without."""
    tracking: Annotated[TrackingConfig, Role.PLACE] = TrackingConfig()
    storage: Annotated[UserPath, Role.PLACE] = Path("runs")
    """Folder with training runs."""

    @model_validator(mode="after")
    def _output_fits_format(self) -> "ExportConfig":
        if self.output and self.output.suffix != self.suffix():
            raise UserError(f"output {self.output} must end in {self.suffix()}, as format {self.format} does")
        return self

    def suffix(self) -> str:
        """How the name of the written file ends."""
        return {"torch_export": ".pt2", "onnx": ".onnx"}[self.format]
