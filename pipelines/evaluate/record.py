"""Scores of a split's videos become the numbers and the files of a test, on disk and in MLflow."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from pipelines.evaluate.report import report_videos, write_failures, write_results
from pipelines.evaluate.summary import describe_failures
from pipelines.shards.folder import open_shard_folder
from pipelines.shards.index import ShardIndex, num_listed
from pipelines.shards.reading import read_videos
from pipelines.tracking.runs import Run
from t3d_core.errors import UserError
from t3d_core.evaluation.class_report import ClassReport
from t3d_core.evaluation.evaluation import Evaluation, evaluate_scores
from t3d_core.evaluation.video_scores import VideoScores


@dataclass(frozen=True)
class Tested:
    """What was tested, and how it sees a video.

    Attributes:
        name: of the network, for the picture's title.
        class_names: of the classes that it scores.
        folders: prepared shards.
        fold: official split list.
        split: that of the tested videos.
        num_frames: frames of a clip.
        num_segments: clips of a view.
        num_crops: views of each clip.
    """

    name: str
    class_names: Sequence[str]
    folders: Sequence[Path]
    fold: int
    split: str
    num_frames: int
    num_segments: int = 1
    num_crops: int = 1


@dataclass(frozen=True)
class RecordedTest:
    """The numbers of a test, and its files; `failures_file` is None where all videos were scored."""

    evaluation: Evaluation
    report: ClassReport
    written: list[Path]
    failures_file: Path | None


def record_test(
    tested: Tested, scores: VideoScores, failures: Mapping[int, str], index: ShardIndex, *, output: Path, run: Run
) -> RecordedTest:
    """Write and log the files that `evaluate.report` lists; metrics come last into MLflow, whose store may be down.

    Args:
        tested: what was tested.
        scores: of the videos of `index`.
        failures: row -> why it has no score.
        index: the videos.
        output: folder of the files.
        run: the MLflow run of the test.

    Raises:
        UserError: no video has a score.
    """
    failures_file = write_failures(output, failures, index)
    if not scores.is_scored_V.any():
        raise UserError(f"no video can be tested: {describe_failures(failures, index)}")
    evaluation = evaluate_scores(
        scores,
        index.source_N,
        num_listed=num_listed(tested.folders, fold=tested.fold, split=tested.split),
        num_failed=len(failures),
        num_lost=sum(shard.num_rows for shard in index.skipped),
        num_crops=tested.num_crops,
        num_segments=tested.num_segments,
        num_frames=tested.num_frames,
    )
    report = report_videos(scores, tested.class_names)
    written = write_results(
        output,
        evaluation,
        report,
        scores,
        index,
        tested.class_names,
        tested=tested.name,
        num_listed_of=_listed_of_classes(tested),
    )
    run.log_metrics({name: float(value) for name, value in dataclasses.asdict(evaluation).items()}, step=0)
    for path in [*written, *filter(None, [failures_file])]:
        run.log_artifact(path)
    return RecordedTest(evaluation, report, written, failures_file)


def _listed_of_classes(tested: Tested) -> Counter[str]:
    """Videos that the annotations list for the tested split, by class."""
    listed: Counter[str] = Counter()
    for path in tested.folders:
        videos = read_videos(open_shard_folder(path), ["label", "splits"])
        is_tested = pc.equal(pc.list_element(videos.column("splits"), tested.fold - 1), tested.split)
        listed.update(videos.filter(is_tested).column("label").drop_null().to_pylist())
    return listed
