"""A weights file becomes a model of videos as MLflow stores it: weights, code, requirements, signature, an example."""

import base64
import shutil
import tempfile
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pandas as pd
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Map

import t3d_core
from t3d_core.errors import UserError
from t3d_core.training.weights_card import WeightsCard
from t3d_core.video.playable import write_playable

# The module that loads the model. MLflow imports it by this name; `tracking` does not, because it knows no stage.
_LOADER = "pipelines.predict.video_model"
_ROOMS = ("predict", "prepare", "runtime", "settings")  # in which the loader and all that it imports lie
# What the loader needs; a test compares the list with pyproject.toml.
MODEL_REQUIREMENTS = (
    "torch>=2.14",
    "torchvision>=0.29",
    "numpy>=2.4",
    "safetensors>=0.8",
    "mlflow>=3.17",
    "pandas>=3.1",
    "av>=18.0",
    "pyarrow>=25.0",
    "filelock>=3.30",
    "pydantic>=2.14",
    "requests>=2.34",
    "urllib3>=2.8",
)
_INPUTS = Schema([ColSpec(DataType.string, "video")])
_OUTPUTS = Schema(
    [
        ColSpec(DataType.string, "label", required=False),
        ColSpec(DataType.double, "score", required=False),
        ColSpec(Map(DataType.double), "scores", required=False),
        ColSpec(DataType.string, "reason"),
    ]
)


def signature_of(card: WeightsCard, weights_path: Path) -> ModelSignature:
    """Videos in, labels and scores out, and the parameters of a prediction.

    Raises:
        UserError: the network has no head.
    """
    if not card.class_names:
        raise UserError(f"weights file {weights_path} has no classes, so it is no classifier: log it as an artifact")
    params = [ParamSpec("top", DataType.long, 5)]
    if card.num_segments == 1:  # otherwise the network fixes how many clips it takes
        params.append(ParamSpec("num_clips", DataType.long, None))
    return ModelSignature(inputs=_INPUTS, outputs=_OUTPUTS, params=ParamSchema(params))


def save_model(weights_path: Path, folder: Path, *, description: Model, signature: ModelSignature) -> None:
    """Write the model of a weights file into a new folder."""
    with tempfile.TemporaryDirectory() as code:
        mlflow.pyfunc.save_model(
            str(folder),
            loader_module=_LOADER,
            data_path=str(weights_path),
            code_paths=_collect_code(Path(code)),
            signature=signature,
            input_example=pd.DataFrame({"video": [_example_video()]}),
            pip_requirements=list(MODEL_REQUIREMENTS),
            mlflow_model=description,
        )


def _collect_code(folder: Path) -> list[str]:
    pipelines = Path(__file__).parents[1]
    no_caches = shutil.ignore_patterns("__pycache__")
    (folder / "pipelines").mkdir()
    shutil.copy(pipelines / "__init__.py", folder / "pipelines")
    for room in _ROOMS:
        shutil.copytree(pipelines / room, folder / "pipelines" / room, ignore=no_caches)
    shutil.copytree(Path(t3d_core.__file__).parent, folder / "t3d_core", ignore=no_caches)
    return [str(folder / "pipelines"), str(folder / "t3d_core")]


def _example_video() -> str:
    """A square that moves to the right, as the bytes of a file: no example may name a file that is not there."""
    frames_THWC = np.zeros((16, 64, 64, 3), np.uint8)
    for place, frame_HWC in enumerate(frames_THWC):
        frame_HWC[24:40, 3 * place : 3 * place + 16] = 255
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "example.mp4"
        write_playable(frames_THWC, path=path, fps=16)
        return f"data:video/mp4;base64,{base64.b64encode(path.read_bytes()).decode()}"
