"""Videos go in, labels and scores come out: the model that MLflow stores, loads and serves.

MLflow stores the weights file, this module and what it imports, and calls `_load_pyfunc`. No MLflow is imported here,
and nothing is pickled.

    row          {"video": a path, an address, or the bytes of a file; in JSON "data:;base64,AAAAIGZ0eXBpc29t..."}
    prediction   {"label": "jumping", "score": 0.83, "scores": {"jumping": 0.83, "walking": 0.1}, "reason": ""}
"""

import base64
import binascii
import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from queue import Empty, LifoQueue
from typing import Any

import pandas as pd
import torch

from pipelines.predict.videos import named_video
from pipelines.prepare.local_copies import LocalFile, new_copy
from pipelines.prepare.web_download import is_web_address
from pipelines.prepare.web_videos import WebRoot
from t3d_core.errors import UserError, describe_error
from t3d_core.prediction.clip_scorer import ClipScorer
from t3d_core.prediction.video_prediction import VideoPrediction, predict_video
from t3d_core.training.checkpoint import LoadedModel, load_model
from t3d_core.video.clip_reader import VideoView, ViewSampling
from t3d_core.video.container import VideoError
from t3d_core.video.guard import DecoderKilledError, GuardedDecoder, GuardLimits

READS_VARIABLE = "T3D_MODEL_READS"
_ANYTHING = "anything"
# MLflow's server, and `mlflow models predict`, set this variable; the server's application is this module.
_SERVED_VARIABLE, _SERVER_MODULE = "_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "mlflow.pyfunc.scoring_server.app"
# The server waits so long for a prediction.
_TIMEOUT_VARIABLE, _DEFAULT_SECONDS = "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT", "60"
_COLUMNS = ["label", "score", "scores", "reason"]
_BATCH_SIZE = 8  # as `jobs/predict.py`, because the last bits of scores depend on it
_NUM_DECODERS = 4
_MAX_BYTES, _MAX_SERVED_BYTES = 8 << 30, 1 << 30
_MAX_NAME = 4096  # Linux's longest path
_HOW_BYTES = "give the bytes of a file as data:;base64,..."


class VideoModel:
    """A classifier of videos, for any number of threads.

    Args:
        loaded: The network.

    Raises:
        UserError: T3D_MODEL_READS has an unknown value.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._reads_anything = _reads_anything()
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._scorer = ClipScorer(loaded, device=device, batch_size=_BATCH_SIZE)
        # The last one that was used comes first: its child process is there already.
        self._decoders: LifoQueue[GuardedDecoder] = LifoQueue()
        limits = GuardLimits(seconds=_served_seconds()) if _is_server() else GuardLimits()
        for _ in range(_NUM_DECODERS):
            self._decoders.put(GuardedDecoder(limits))

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Classify the video of each row; one that cannot be read is a row with a reason and stops no other.

        Args:
            model_input: Rows with a column `video`; further columns are ignored.
            params: `top`, the number of classes in `scores`, by default 5; `num_clips` of each video, by default all
                that do not overlap.

        Returns:
            A row for each, with its index: `label`, `score`, `scores` (class name -> score, the highest first), and
            `reason`, which is empty, or says why the other columns are None.

        Raises:
            UserError: A parameter is below 1, or the network gives scores that are not finite.
        """
        chosen = {"top": 5, "num_clips": None} | (params or {})
        for name, value in chosen.items():
            if value is not None and value < 1:
                raise UserError(f"params: {name} must be at least 1, got {value}")
        sampling = ViewSampling(self._scorer.card.clip_view(), chosen["num_clips"])
        rows = [self._predict(given, sampling, top=chosen["top"]) for given in model_input["video"].tolist()]
        # As objects, where None stays None: as numbers it would become NaN, which JSON does not know.
        return pd.DataFrame(rows, index=model_input.index, columns=_COLUMNS, dtype=object)

    def _predict(self, given: object, sampling: ViewSampling, *, top: int) -> dict[str, Any]:
        deadline = _Deadline(_served_seconds() if _is_server() else None)
        with ExitStack() as stack:
            try:
                file = stack.enter_context(self._open(given))
            except (ValueError, OSError) as error:
                return _failed(error)
            try:
                decoder = stack.enter_context(self._free_decoder(deadline))
                prediction = predict_video(file.path, self._scorer, sampling, decoder=_TimedReader(decoder, deadline))
            except (VideoError, DecoderKilledError, OSError) as error:
                return _failed(error)
        return self._row_of(prediction, top=top)

    def _row_of(self, prediction: VideoPrediction, *, top: int) -> dict[str, Any]:
        names = self._scorer.card.class_names
        scores = {names[label]: score for label, score in prediction.top(top)}
        label = next(iter(scores))
        return {"label": label, "score": scores[label], "scores": scores, "reason": ""}

    @contextmanager
    def _free_decoder(self, deadline: "_Deadline") -> Iterator[GuardedDecoder]:
        try:
            decoder = self._decoders.get(timeout=deadline.remaining_seconds())
        except Empty:
            raise deadline.too_late() from None
        try:
            yield decoder
        finally:
            self._decoders.put(decoder)

    def _open(self, given: object) -> AbstractContextManager[LocalFile]:
        """Open what a row names.

        Raises:
            ValueError: it is nothing that is read, or may be read (UserError, VideoError).
        """
        if isinstance(given, bytes | bytearray):
            return _copied(given)
        if not isinstance(given, str | Path):
            raise VideoError(f"not a video: {given!r} is no path, no address and no bytes")
        name = str(given)
        if name.startswith("data:"):
            return _copied(_bytes_of(name))
        if len(name) > _MAX_NAME:
            raise VideoError(f"not a video: {len(name):,} characters are no path and no address; {_HOW_BYTES}")
        if self._reads_anything or not (os.environ.get(_SERVED_VARIABLE) == "true" or _is_server()):
            return named_video(name).open(max_bytes=_MAX_BYTES)
        # Whoever may send requests must not read what this machine and its credentials may.
        if not is_web_address(name):
            raise VideoError(
                "refused: this server reads bytes (data:;base64,...) and public web addresses, unless it is started "
                f"with {READS_VARIABLE}={_ANYTHING}"
            )
        return WebRoot(only_public=True, seconds=_served_seconds()).open_locally(name, max_bytes=_MAX_SERVED_BYTES)


class _Deadline:
    """Until when a row may take, because the caller of a server waits no longer, and others wait for the decoder."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    def remaining_seconds(self) -> float | None:
        """Time that is left, at least 0; None where there is no deadline."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def too_late(self) -> VideoError:
        """The reason of a row whose time is over."""
        return VideoError(f"no answer within {self._seconds:g} s: give a shorter video, or try again later")


class _TimedReader:
    """Reads views until a deadline; a `ViewReader`."""

    def __init__(self, decoder: GuardedDecoder, deadline: _Deadline) -> None:
        self._decoder, self._deadline = decoder, deadline

    def read_views(self, path: str | os.PathLike[str], sampling: ViewSampling) -> Iterator[VideoView]:
        """As `GuardedDecoder.read_views`; VideoError where the time is over."""
        with closing(self._decoder.read_views(path, sampling)) as views:  # type: ignore[type-var] # it is a generator
            for view in views:
                if self._deadline.remaining_seconds() == 0:
                    raise self._deadline.too_late()
                yield view


def _load_pyfunc(path: str) -> VideoModel:
    """Load the model of a weights file; MLflow calls this."""
    return VideoModel(load_model(Path(path)))


def _reads_anything() -> bool:
    value = os.environ.get(READS_VARIABLE)
    if value not in (None, _ANYTHING):
        raise UserError(f"{READS_VARIABLE} is {value!r}: set it to {_ANYTHING!r}, or unset it")
    return value == _ANYTHING


def _is_server() -> bool:
    return _SERVER_MODULE in sys.modules


def _served_seconds() -> float:
    return float(os.environ.get(_TIMEOUT_VARIABLE) or _DEFAULT_SECONDS)


def _bytes_of(data_url: str) -> bytes:
    kind, _, text = data_url.partition(",")
    if not kind.endswith(";base64"):
        raise VideoError(f"not a video: {_HOW_BYTES}")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise VideoError(f"not a video: what follows ;base64, is not base64 ({error})") from error


@contextmanager
def _copied(data: bytes | bytearray) -> Iterator[LocalFile]:
    """The bytes as a file, because the guard's process reads files."""
    with new_copy(suffix="") as copy:
        copy.write(bytes(data))
        yield copy.local_file()


def _failed(error: Exception) -> dict[str, Any]:
    return {"label": None, "score": None, "scores": None, "reason": describe_error(error)}
