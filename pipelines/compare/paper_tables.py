"""The paper's tables of results and the settings behind them, to compare runs with.

Accuracies are as printed (per cent, single runs, no error bars), and only of networks that the paper trains itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.settings.section import NOT_THE_EXPERIMENT, flatten, names_of_roles
from pipelines.train.config import TrainConfig

UCF101_FOLD_1 = "UCF101, split 1"
# The kinds of network behind the paper's figures, by the paper's names (4.1, 4.3; T3D's features have 1024).
KINDS = {"T3D": "t3d_121", "DenseNet3D": "densenet3d_121", "ResNet3D": "resnet3d_50", "Inception3D": "inception3d"}
# What the paper leaves open, in addition to where and how a run is made.
_OPEN = (
    *names_of_roles(TrainConfig, NOT_THE_EXPERIMENT),
    *("compute", "micro_batch_size", "validate_every_epochs", "data.holdout_fraction"),
    *("schedule.min_lr", "schedule.patience", "init_from", "inflate_from", "replace_head"),
)
_FINE_TUNING = ("optimizer.lr", "schedule", "epochs")
_FINE_TUNING_NOTE = "The paper does not state how it fine-tunes: rate, schedule and epochs are not compared."


@dataclass(frozen=True)
class PaperRow:
    """One line of a table.

    Attributes:
        label: the paper's name for it.
        top1: accuracy in per cent.
        match: what a run must have for this line: its `family` (or `model`), `init`, `segments`, `dataset`, or a
            parameter by its dotted name.
    """

    label: str
    top1: float
    match: Mapping[str, str]


@dataclass(frozen=True)
class PaperTable:
    """One table.

    Attributes:
        title: what it compares.
        data: what its networks were tested on.
        dataset: name of that data set; None if each line has its own.
        axes: what distinguishes its lines.
        rows: its lines.
        baselines: labels of the lines that the others are compared with: of those that have runs, the first. DenseNet3D
            is the network that the paper starts from (4.1), with the settings of its other tables.
        folds: each figure is the mean over these; empty if the data have no folds.
        left_open: settings, or sections of settings, that the paper does not give.
        note: what to know about its figures; may be empty.
    """

    title: str
    data: str
    dataset: str | None
    axes: tuple[str, ...]
    rows: tuple[PaperRow, ...]
    baselines: tuple[str, ...]
    folds: tuple[str, ...] = ("1",)
    left_open: tuple[str, ...] = ()
    note: str = ""

    def settings(self, row: PaperRow) -> dict[str, str]:
        """The settings of the paper's run for a line (4.4: the defaults of `TrainConfig`), as MLflow records them."""
        kind = row.match.get("model") or KINDS[row.match["family"]]
        given = {"data": {"shards": ["shards"]}, "model": {"kind": kind}}
        settings = {name: str(value) for name, value in flatten(TrainConfig.model_validate(given)).items()}
        left_out = (*_OPEN, *self.left_open)
        kept = {
            name: value
            for name, value in settings.items()
            if not any(f"{name}.".startswith(f"{each}.") for each in left_out)
        }
        segments = {"clip.num_segments": row.match["segments"]} if "segments" in row.match else {}
        return kept | segments | {name: value for name, value in row.match.items() if name in kept}


def _of_families(family_top1: Mapping[str, float], suffix: str = "", **match: str) -> tuple[PaperRow, ...]:
    return tuple(
        PaperRow(", ".join(filter(None, (family, suffix))), top1, {"family": family, **match})
        for family, top1 in family_top1.items()
    )


def _of_setting(name: str, top1: Mapping[str, float]) -> tuple[PaperRow, ...]:
    rows = top1.items()
    return tuple(PaperRow(f"{value}", each, {"family": "DenseNet3D", name: value}) for value, each in rows)


TABLES: dict[int, PaperTable] = {
    2: PaperTable(
        "Depth of DenseNet3D",
        UCF101_FOLD_1,
        "ucf101",
        ("model",),
        (
            PaperRow("DenseNet3D-121", 69.1, {"model": "densenet3d_121"}),
            PaperRow("DenseNet3D-169", 71.3, {"model": "densenet3d_169"}),
        ),
        ("DenseNet3D-121",),
    ),
    3: PaperTable(
        "Frames a clip",
        UCF101_FOLD_1,
        "ucf101",
        ("clip.num_frames",),
        _of_setting("clip.num_frames", {"16": 66.8, "32": 69.1}),
        ("32",),
    ),
    4: PaperTable(
        "Architectures",
        UCF101_FOLD_1,
        "ucf101",
        ("family",),
        _of_families({"ResNet3D": 59.2, "Inception3D": 69.5, "DenseNet3D": 69.1, "T3D": 71.4}, init="scratch"),
        ("DenseNet3D",),
    ),
    5: PaperTable(
        "Pixels a frame",
        UCF101_FOLD_1,
        "ucf101",
        ("clip.crop_size",),
        _of_setting("clip.crop_size", {"112": 61.2, "224": 69.1}),
        ("224",),
    ),
    6: PaperTable(
        "Source frames from one frame of a clip to the next",
        UCF101_FOLD_1,
        "ucf101",
        ("clip.frame_stride",),
        _of_setting("clip.frame_stride", {"1": 65.2, "2": 69.1, "4": 68.3, "16": 60.5}),
        ("2",),
    ),
    8: PaperTable(
        "Supervision transfer",
        UCF101_FOLD_1,
        "ucf101",
        ("family", "init"),
        (
            *_of_families({"ResNet3D": 78.2, "DenseNet3D": 79.7, "T3D": 81.3}, "Transfer", init="transfer"),
            *_of_families(
                {"ResNet3D": 82.1, "DenseNet3D": 82.5, "T3D": 84.7}, "FT-Transfer", init="transfer, then fine-tuned"
            ),
        ),
        ("DenseNet3D, Transfer", "DenseNet3D, FT-Transfer"),
        left_open=_FINE_TUNING,
        note=_FINE_TUNING_NOTE,
    ),
    9: PaperTable(
        "Kinetics-400, validation",
        "Kinetics-400, validation list",
        "kinetics400",
        ("family",),
        _of_families({"DenseNet3D": 59.5, "T3D": 62.2, "Inception3D": 58.9}, init="scratch"),
        ("DenseNet3D",),
        folds=(),
    ),
    10: PaperTable(
        "UCF101 and HMDB51, mean of three splits, from Kinetics",
        "UCF101 or HMDB51, three splits",
        None,
        ("dataset", "family", "init", "segments"),
        tuple(
            PaperRow(f"{label}, {name}", top1, {"family": family, "init": init, "segments": segments, "dataset": name})
            for label, family, init, segments, of_dataset in (
                ("ResNet3D", "ResNet3D", "fine-tuned", "1", {"ucf101": 86.1, "hmdb51": 55.6}),
                ("Inception3D", "Inception3D", "fine-tuned", "1", {"ucf101": 87.2, "hmdb51": 56.9}),
                ("DenseNet3D", "DenseNet3D", "fine-tuned", "1", {"ucf101": 88.9, "hmdb51": 57.8}),
                ("T3D", "T3D", "fine-tuned", "1", {"ucf101": 90.3, "hmdb51": 59.2}),
                ("T3D-Transfer", "T3D", "transfer, then fine-tuned", "1", {"ucf101": 91.7, "hmdb51": 61.1}),
                ("T3D+TSN", "T3D", "fine-tuned", "5", {"ucf101": 93.2, "hmdb51": 63.5}),
            )
            for name, top1 in of_dataset.items()
        ),
        ("DenseNet3D, ucf101", "DenseNet3D, hmdb51"),
        folds=("1", "2", "3"),
        left_open=_FINE_TUNING,
        note=_FINE_TUNING_NOTE,
    ),
}


def family_of(kind: str) -> str:
    """The paper's name for networks of a `model.kind`."""
    names = {"t3d": "T3D", "densenet3d": "DenseNet3D", "resnet3d": "ResNet3D", "res3d": "Res3D", "c3d": "C3D"}
    return names.get(kind.partition("_")[0], {"inception3d": "Inception3D"}.get(kind, kind))
