"""A classifier and shards become video-level accuracies: every clip of every video, on Ray Data with model actors.

Paper 4.4, Testing: non-overlapping clips over the whole video, centre crop, scores averaged to one prediction a video.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray
import torch
from tqdm import tqdm

from pipelines import session, tracking
from pipelines.clip_loader import BatchLoader, NumpyBatch
from pipelines.configs import EvaluateComputeConfig, EvaluateConfig
from pipelines.prepare import prepared_shards
from pipelines.recipe import flatten, to_yaml
from pipelines.shard_index import ShardIndex, load_index, num_listed
from pipelines.shards import describe_shards, write_table
from pipelines.training_run import new_name
from pipelines.weights import locate_weights, newest_run, view_of
from t3d_core.evaluation.metrics import num_correct_top_k, top_k_accuracy
from t3d_core.evaluation.video_scores import VideoScores
from t3d_core.models.execution import Execution
from t3d_core.models.folding import fold_batch_norms
from t3d_core.training.checkpoint import LoadedModel, load_model
from t3d_core.training.weights_card import WeightsCard, read_card
from t3d_core.video.transforms import normalize_clip


@dataclass(frozen=True)
class Evaluation:
    """What is written to metrics.json; accuracies and shares in [0, 1].

    Attributes:
        clip_top1: over all clips.
        video_top1: over scored videos.
        video_top5: over scored videos.
        coverage: scored videos / videos that the annotations list.
        num_videos: scored videos.
        num_listed: listed videos.
        num_clips: scored clips.
        padded_share: frames made up because a video is shorter than a clip's span / all frames.
    """

    clip_top1: float
    video_top1: float
    video_top5: float
    coverage: float
    num_videos: int
    num_listed: int
    num_clips: int
    padded_share: float


def run_evaluate(config: EvaluateConfig) -> str:
    """Test a classifier as `config` says; give the closing summary.

    Raises:
        ValueError: settings, weights or shards that cannot work, before any work.
    """
    base = session.base_folder()
    storage = base / config.storage
    tracking_uri = tracking.resolve_tracking_uri(config.tracking.uri, base=base)
    weights = locate_weights(config.checkpoint or str(newest_run(storage)), tracking_uri=tracking_uri)
    card = read_card(weights)
    if not card.class_names:
        raise ValueError(f"checkpoint {weights} has no classes (a transfer's student): train it first, jobs/train.py")
    folders = prepared_shards(config.data, storage=storage)
    index = load_index(folders, fold=config.data.fold, splits=[config.data.split])
    label_V = _labels_of_model(index, card, split=config.data.split, fold=config.data.fold)
    listed = num_listed(folders, fold=config.data.fold, split=config.data.split)
    output = base / config.output if config.output else storage / new_name("evaluate")
    loaded = load_model(weights)
    if config.compute.transition_forms is not None:
        loaded.model.set_transition_forms(config.compute.transition_forms)
    session.connect()
    session.check_workers_fit(config.num_workers, {"CPU": 1.0} | ({"GPU": 1.0} if config.use_gpu else {}))
    with _start_run(config, tracking_uri, folders, run_name=output.name) as run:
        scores, clip_counts = score_videos(index, loaded, label_V, config)
        evaluation = _evaluate(scores, label_V, clip_counts, listed=listed)
        _write(output, evaluation, index, scores, card)
        run.log_metrics({name: float(value) for name, value in asdict(evaluation).items()}, step=0)
        run.log_artifact(output / "metrics.json")
        run.log_artifact(output / "scores.parquet")
    return _summary(evaluation, card, output, run)


def _labels_of_model(index: ShardIndex, card: WeightsCard, *, split: str, fold: int) -> np.ndarray:
    """The videos' labels as the network numbers its classes (V,)."""
    if not len(index) or (index.label_N < 0).any():
        raise ValueError(
            f"the shards give no labelled rows of split {split} in fold {fold}: choose another --data.split"
        )
    unknown = sorted(set(index.class_names) - set(card.class_names))
    if unknown:
        raise ValueError(
            f"the network does not know the classes {', '.join(unknown[:5])}: evaluate it on its own data set"
        )
    of_model = np.array([card.class_names.index(name) for name in index.class_names])
    return of_model[index.label_N]


class _Scorer:
    """An actor that holds the network and scores clips.

    What it refuses comes back in `refusal_B`: Ray would wrap an exception, and lose one of the constructor.
    """

    def __init__(self, loaded: LoadedModel, *, compute: EvaluateComputeConfig, use_gpu: bool) -> None:
        self._device = torch.device("cuda" if use_gpu else "cpu")
        self._card = loaded.card
        self._execution = Execution(**compute.model_dump(exclude={"fold_batch_norm", "transition_forms"}))
        self._net = (fold_batch_norms(loaded.model) if compute.fold_batch_norm else loaded.model).to(self._device)
        self._refusal: str | None = None
        try:
            self._execution.prepare(self._net, num_frames=self._card.num_frames, size=self._card.crop_size)
        except ValueError as error:
            self._refusal = str(error)

    def __call__(self, batch: NumpyBatch) -> NumpyBatch:
        num_clips, num_classes = len(batch["row_B"]), len(self._card.class_names)
        score_BK = np.full((num_clips, num_classes), np.nan, np.float32)
        if self._refusal is None:
            try:
                score_BK = self._score(batch)
            except ValueError as error:
                self._refusal = str(error)
        return {
            "row_B": batch["row_B"],
            "num_padded_B": batch["num_padded_B"],
            "score_BK": score_BK,
            "refusal_B": np.array([self._refusal or ""] * num_clips),
        }

    @torch.inference_mode()
    def _score(self, batch: NumpyBatch) -> np.ndarray:
        clip_BTHWC = torch.from_numpy(batch["clip_BTHWC"].copy()).to(self._device)
        clip_BCTHW = normalize_clip(clip_BTHWC, mean=self._card.mean, std=self._card.std)
        with self._execution.autocast(self._device):
            logits_BK = self._net(clip_BCTHW)
        return logits_BK.softmax(dim=1).cpu().numpy()


def score_videos(
    index: ShardIndex, loaded: LoadedModel, label_V: np.ndarray, config: EvaluateConfig
) -> tuple[VideoScores, dict[str, int]]:
    """Score every non-overlapping clip of every row of `index`.

    Returns:
        The summed scores by row, and the counts `num_clips`, `num_correct`, `num_padded`, `num_frames` over clips.

    Raises:
        ValueError: a switch of `compute` cannot work here, or clips are not finite while debugging.
    """
    card = loaded.card
    loader = BatchLoader(index, view_of(card))

    def load(block: NumpyBatch) -> Iterator[NumpyBatch]:
        yield from loader.test_clips(int(block["id"][0]))

    clips = ray.data.range(len(index), override_num_blocks=len(index)).map_batches(load, batch_size=1)
    scored = clips.map_batches(
        _Scorer,
        fn_constructor_args=(loaded,),
        fn_constructor_kwargs={"compute": config.compute, "use_gpu": config.use_gpu},
        batch_size=config.batch_size,
        compute=ray.data.ActorPoolStrategy(size=config.num_workers),
        num_cpus=1,
        num_gpus=1 if config.use_gpu else 0,
    )
    scored.context.enable_progress_bars = False  # ours counts clips
    scores = VideoScores(len(index), len(card.class_names))
    counts = {"num_clips": 0, "num_correct": 0, "num_padded": 0, "num_frames": 0}
    for batch in tqdm(scored.iter_batches(batch_size=None), desc="evaluate", unit="batch"):
        if refusals := [refusal for refusal in batch["refusal_B"] if refusal]:
            raise ValueError(str(refusals[0]))
        scores.add(batch["row_B"], batch["score_BK"])
        counts["num_clips"] += len(batch["row_B"])
        counts["num_correct"] += num_correct_top_k(batch["score_BK"], label_V[batch["row_B"]], k=1)
        counts["num_padded"] += int(batch["num_padded_B"].sum())
        counts["num_frames"] += len(batch["row_B"]) * card.num_frames
    return scores, counts


def _evaluate(scores: VideoScores, label_V: np.ndarray, counts: dict[str, int], *, listed: int) -> Evaluation:
    is_scored = scores.is_scored_V
    score_VK, label = scores.mean_VK()[is_scored], label_V[is_scored]
    return Evaluation(
        clip_top1=counts["num_correct"] / counts["num_clips"],
        video_top1=top_k_accuracy(score_VK, label, k=1),
        video_top5=top_k_accuracy(score_VK, label, k=5),
        coverage=len(label) / listed,
        num_videos=len(label),
        num_listed=listed,
        num_clips=counts["num_clips"],
        padded_share=counts["num_padded"] / counts["num_frames"],
    )


def _write(output: Path, evaluation: Evaluation, index: ShardIndex, scores: VideoScores, card: WeightsCard) -> None:
    output.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {
            "video_id": index.video_id_N,
            "label": np.array(index.class_names)[index.label_N],
            "predicted": np.array(card.class_names)[scores.mean_VK().argmax(axis=1)],
            "num_clips": scores.num_clips_V,
            "scores": list(scores.mean_VK().astype(np.float32)),
        }
    )
    write_table(table.replace_schema_metadata({"class_names": json.dumps(card.class_names)}), output / "scores.parquet")
    partial = output / "metrics.json.partial"
    partial.write_text(json.dumps(asdict(evaluation), indent=1))
    os.replace(partial, output / "metrics.json")


def _start_run(config: EvaluateConfig, tracking_uri: str, folders: list[Path], *, run_name: str) -> tracking.Run:
    run = tracking.start_run(
        tracking_uri=tracking_uri,
        experiment=config.tracking.experiment,
        run_name=run_name,
        run_id=None,
        tags={"stage": "evaluate"} | tracking.commit_tag(),
    )
    run.log_params(flatten(config))
    run.log_text(to_yaml(config), "recipe.yaml")
    for path in folders:
        run.log_dataset(path.name, describe_shards(path)["fingerprint"], str(path), context=config.data.split)
    return run


def _summary(evaluation: Evaluation, card: WeightsCard, output: Path, run: tracking.Run) -> str:
    return "\n".join(
        [
            f"{card.model_kind}, {card.num_frames} frames of {card.crop_size} px at stride {card.frame_stride}: "
            f"{evaluation.num_clips} clips of {evaluation.num_videos} videos, coverage {evaluation.coverage:.1%} of "
            f"{evaluation.num_listed} listed, padded frames {evaluation.padded_share:.1%}",
            f"scores:  {output / 'scores.parquet'}",
            f"mlflow:  {run.describe()}",
            f"clip_top1 {evaluation.clip_top1:.3f}  video_top1 {evaluation.video_top1:.3f}  "
            f"video_top5 {evaluation.video_top5:.3f}  (chance {1 / len(card.class_names):.3f})",
        ]
    )
