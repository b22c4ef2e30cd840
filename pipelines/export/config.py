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
    """Weights to export: a file, a checkpoint or run folder, runs:/... or models:/... . By default the newest run in
    `storage`."""
    format: Literal["torch_export", "onnx"] = "torch_export"
    """Format of the file: torch_export (.pt2, runs with PyTorch) or onnx (.onnx, needs
    pip install 't3d[export]'). Both compute in float32."""
    output: Annotated[UserPath | None, Role.PLACE] = None
    """File to write. By default model.pt2 or model.onnx next to the weights; in STORAGE/export-TIME for weights from
    runs:/ or models:/."""
    video: UserPath | None = None
    """Video whose clips check the written file. By default random noise, and the summary states that."""
    fold_batch_norm: bool = True
    """Fold batch norms into the convolutions before them. The file is checked against the unfolded network."""
    tracking: Annotated[TrackingConfig, Role.PLACE] = TrackingConfig()
    storage: Annotated[UserPath, Role.PLACE] = Path("runs")
    """Folder with training runs."""

    @model_validator(mode="after")
    def _output_fits_format(self) -> "ExportConfig":
        if self.output and self.output.suffix != self.suffix():
            raise UserError(f"output {self.output} must end in {self.suffix()} for format {self.format}: rename it")
        return self

    def suffix(self) -> str:
        """Suffix of the written file."""
        return {"torch_export": ".pt2", "onnx": ".onnx"}[self.format]
