"""What every job promises on its command line; the jobs run in this process, so that torch is loaded once."""

import importlib
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pytest
import yaml
from pydantic import TypeAdapter

from pipelines.benchmark.config import BenchmarkConfig
from pipelines.compare.config import CompareConfig
from pipelines.evaluate.config import EvaluateConfig
from pipelines.export.config import ExportConfig
from pipelines.predict.config import PredictConfig
from pipelines.prepare.config import PrepareJobConfig
from pipelines.runtime import session
from pipelines.search.config import SearchConfig
from pipelines.serve.config import ServeConfig
from pipelines.settings.build import fits
from pipelines.settings.options import find_setting, options_of
from pipelines.shards.folder import ShardFolder
from pipelines.shards.schemas import REPORT_SCHEMA
from pipelines.shards.writing import write_table
from pipelines.train.config import TrainConfig
from pipelines.transfer.config import TransferConfig

REPO = Path(__file__).parents[2]
for stage in ("search", "compare", "benchmark"):  # a job imports its stage late: not in the first test's time
    importlib.import_module(f"pipelines.{stage}.job")
CONFIGS = {
    "prepare": PrepareJobConfig,
    "transfer": TransferConfig,
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "search": SearchConfig,
    "compare": CompareConfig,
    "export": ExportConfig,
    "predict": PredictConfig,
    "serve": ServeConfig,
    "benchmark": BenchmarkConfig,
}
RECIPES = sorted((REPO / "jobs" / "recipes").rglob("*.yaml"))


class Outcome(NamedTuple):
    """How a job ended and what it said."""

    code: int | str | None
    out: str
    err: str


class Job:
    """Runs jobs as `python jobs/NAME.py ARGUMENTS` does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, name: str, *arguments: str) -> Outcome:
        script = str(REPO / "jobs" / f"{name}.py")
        self._monkeypatch.setattr(sys, "argv", [script, *arguments])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            runpy.run_path(script, run_name="__main__")
        return Outcome(end.value.code, *self._capsys.readouterr())


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Job:
    """Jobs of a user who stands in an empty folder; Ray must not start, for nothing here needs it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(session, "connect", lambda **_: pytest.fail("Ray starts before the job is refused"))
    return Job(monkeypatch, capsys)


def test_every_job_has_a_config_here_and_a_quick_start() -> None:
    assert {path.stem for path in (REPO / "jobs").glob("*.py")} == set(CONFIGS)
    assert {path.parent.name for path in RECIPES if path.name == "quickstart.yaml"} == set(CONFIGS)


@pytest.mark.parametrize("name", CONFIGS)
def test_help_is_one_screen_of_settings_that_exist(job: Job, name: str) -> None:
    outcome = job(name, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert "--recipe NAME" in outcome.out
    assert len(outcome.out.splitlines()) <= 45
    assert 1 <= len(CONFIGS[name].FIRST_SETTINGS) <= 10
    assert all(f"  --{setting} " in outcome.out for setting in CONFIGS[name].FIRST_SETTINGS)


@pytest.mark.parametrize("name", CONFIGS)
def test_help_all_lists_every_setting(job: Job, name: str) -> None:
    outcome = job(name, "--help-all")
    assert (outcome.code, outcome.err) == (0, "")
    settings = {option.name for option in options_of(CONFIGS[name])}
    assert [setting for setting in settings if f"  --{setting} " not in outcome.out] == []
    assert f"print all {len(settings)} settings" in outcome.out


HEAVY = ("torch", "torchvision", "ray", "mlflow", "av", "numpy", "pyarrow")
READ_SETTINGS = f"""
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    print(end.code, sorted({{*{HEAVY}}} & {{*sys.modules}}), file=sys.stderr)
"""


@pytest.mark.heavy
@pytest.mark.parametrize("name", CONFIGS)
def test_settings_are_read_before_anything_heavy_is_imported(tmp_path: Path, name: str) -> None:
    script = str(REPO / "jobs" / f"{name}.py")
    for argument, status in (("--help", 0), ("--print-config", 0), ("--no_such.setting", 2)):
        command = [sys.executable, "-c", READ_SETTINGS, script, argument]
        done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(REPO)}, capture_output=True)
        assert done.stderr.decode().splitlines()[-1] == f"{status} []"


@pytest.mark.parametrize("name", CONFIGS)
def test_print_config_prints_a_recipe_of_the_same_config_and_exits_0(job: Job, name: str) -> None:
    printed = job(name, "--print-config")
    assert (printed.code, printed.err) == (0, "")
    Path("printed.yaml").write_text(printed.out)
    assert job(name, "--recipe", "printed.yaml", "--print-config") == printed


ADDRESSES = {
    "checkpoint",
    "inputs",
    "model",
    "init_from",
    "inflate_from",
    "tracking.uri",
    "dataset.root",
    "data.prepare.dataset.root",
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_tilde_is_the_home_folder_in_every_path_and_address(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A folder called ~ would invite `rm -r ~`."""
    monkeypatch.setenv("HOME", "/home/ada")
    options = [each for each in options_of(CONFIGS[name]) if "path" in each.allowed or each.name in ADDRESSES]
    assert options
    for option in options:
        annotation = find_setting(CONFIGS[name], {}, option.name).annotation
        values = [value for value in ("~/x", ["~/x"]) if fits(value, annotation)]
        assert values, option.name
        for value in values:
            assert "/home/ada/x" in repr(TypeAdapter(annotation).validate_python(value)), option.name


def test_a_tilde_in_a_list_of_a_recipe_and_in_its_name_is_the_home_folder(
    monkeypatch: pytest.MonkeyPatch, job: Job
) -> None:
    monkeypatch.setenv("HOME", str(Path.cwd()))
    Path("mine.yaml").write_text("data: {shards: [~/first, ~/second]}\ninit_from: ~/runs/first\n")
    printed = yaml.safe_load(job("train", "--recipe", "~/mine.yaml", "--storage=~/runs", "--print-config").out)
    assert printed["data"]["shards"] == [f"{Path.cwd()}/first", f"{Path.cwd()}/second"]
    assert (printed["init_from"], printed["storage"]) == (f"{Path.cwd()}/runs/first", f"{Path.cwd()}/runs")


CONTRACT = {
    "prepare": {
        "dataset.kind": "folder",
        "dataset.root": "videos",
        "dataset.annotations": "index.csv",
        "output": "prepared",
        "max_failed_fraction": 0.5,
    },
    "transfer": {
        "data.shards": ["first", "second"],
        "teacher.kind": "densenet121",
        "model.kind": "densenet3d",
        "storage": "stored",
        "name": "mine",
    },
    "train": {
        "data.shards": ["first"],
        "data.fold": 2,
        "init_from": "runs:/1",
        "storage": "stored",
        "name": "mine",
        "register": "t3d",
        "alias": "champion",
    },
    "evaluate": {
        "checkpoint": "models:/t3d@champion",
        "data.shards": ["first"],
        "data.fold": 2,
        "data.split": "val",
        "output": "tested",
    },
    "search": {"base": "base.yaml", "budget.hours": 2.5, "name": "mine", "sampler.kind": "grid"},
    "compare": {"table": 4, "experiment": "mine", "runs": ["first", "second"]},
    "export": {
        "checkpoint": "models:/t3d@champion",
        "format": "onnx",
        "output": "exported.onnx",
        "video": "clip.mp4",
        "fold_batch_norm": False,
    },
    "predict": {"inputs": ["a.mp4", "videos"], "model": "runs/mine", "stride_seconds": 0.5, "explain": True},
    "serve": {
        "model": "models:/t3d@champion",
        "host": "0.0.0.0",
        "port": 8080,
        "num_replicas": 2,
        "limits.mib": 64,
        "allowed_addresses": ["https://example.com/clips/"],
    },
    "benchmark": {"suite": "model", "output": "rows.json"},
}


@pytest.mark.parametrize("name", CONTRACT)
def test_the_flags_of_the_contract_reach_the_config(job: Job, name: str) -> None:
    arguments = []
    for flag, value in CONTRACT[name].items():
        arguments += [f"--{flag}", *(value if isinstance(value, list) else [str(value)])]
    outcome = job(name, *arguments, "--print-config")
    assert (outcome.code, outcome.err) == (0, "")
    config = yaml.safe_load(outcome.out)
    for flag, value in CONTRACT[name].items():
        node = config
        for part in flag.split("."):
            node = node[part]
        assert node == value, flag


def test_benchmark_takes_its_suite_as_a_word(job: Job) -> None:
    assert yaml.safe_load(job("benchmark", "model", "--print-config").out)["suite"] == "model"
    assert job("benchmark", "absent").code == 2


def test_predict_takes_its_videos_as_words_wherever_they_stand(job: Job) -> None:
    words = ("a.mp4", "--model", "champion", "b c.mp4", "--explain", "d.mp4", "--no-timeline", "--annotate", "false")
    config = yaml.safe_load(job("predict", *words, "--print-config").out)
    assert config["inputs"] == ["a.mp4", "b c.mp4", "d.mp4"]
    assert (config["model"], config["explain"], config["annotate"]) == ("champion", True, False)
    config = yaml.safe_load(
        job("predict", "--recipe", "quickstart", "a.mp4", "--no-explain", "b.mp4", "--print-config").out
    )
    assert (config["inputs"], config["explain"]) == (["a.mp4", "b.mp4"], False)
    config = yaml.safe_load(job("predict", "--use_gpu", "none", "a.mp4", "--print-config").out)
    assert (config["inputs"], config["use_gpu"]) == (["a.mp4"], None)
    assert yaml.safe_load(job("predict", "--inputs", "a.mp4", "b.mp4", "--print-config").out)["inputs"] == [
        "a.mp4",
        "b.mp4",
    ]


def test_predict_is_refused_without_a_video_and_without_a_network(job: Job) -> None:
    assert_refused(job("predict"), "no video is given")
    assert_refused(job("predict", "a.mp4"), "give --model, or train first")
    assert not Path("runs").exists()


def test_serve_is_refused_without_a_network_and_with_an_address_that_allows_too_much(job: Job) -> None:
    assert_refused(job("serve"), "give --model, or train first")
    outcome = job("serve", "--allowed_addresses", "https://example.com")
    assert outcome.code == 2
    assert "up to a slash" in outcome.err


ILL_TYPED = {
    "prepare": ["--short_side", "wide", "--max_failed_fraction", "2"],
    "transfer": ["--epochs", "many", "--optimizer.lr", "-1"],
    "train": ["--epochs", "many", "--data.fold", "0"],
    "evaluate": ["--batch_size", "0", "--data.split", "dev"],
    "search": ["--seeds", "-1", "--sampler.kind", "grit"],
    "compare": ["--table", "7", "--stage", "prepare"],
    "export": ["--format", "tflite", "--fold_batch_norm", "perhaps"],
    "predict": ["--num_crops", "2", "--top", "0"],
    "serve": ["--port", "0", "--limits.seconds", "-1", "--num_replicas", "none"],
    "benchmark": ["--repeats", "0", "--num_frames", "few"],
}


@pytest.mark.parametrize("name", ILL_TYPED)
def test_all_wrong_settings_are_listed_at_once_with_exit_2(job: Job, name: str) -> None:
    outcome = job(name, *ILL_TYPED[name], "--no_such_setting", "1")
    assert outcome.code == 2
    lines = outcome.err.splitlines()
    for wrong in [*ILL_TYPED[name][::2], "--no_such_setting"]:
        assert [line for line in lines if line.startswith(f"{wrong.removeprefix('--')}: ")], wrong
    assert lines[-1].startswith("error: wrong settings")
    assert "Traceback" not in outcome.err


def assert_refused(outcome: Outcome, reason: str) -> None:
    assert outcome.code == 1
    lines = outcome.err.splitlines()
    assert lines[-1].startswith("error: ")
    assert reason in lines[-1]
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("name", ["transfer", "train"])
def test_a_missing_shard_folder_is_refused_before_ray_starts(job: Job, name: str) -> None:
    assert_refused(job(name, "--data.shards", "absent"), "absent holds no prepared shards")
    assert not Path("runs").exists()


@pytest.mark.parametrize("name", ["transfer", "train"])
def test_shards_that_are_not_all_there_are_refused(job: Job, name: str) -> None:
    _write_without_shard(ShardFolder(Path("prepared")), num_folds=1)
    assert_refused(job(name, "--data.shards", "prepared"), "000000.parquet is missing: run jobs/prepare.py again")


def test_a_fold_that_the_data_set_does_not_have_is_refused(job: Job) -> None:
    _write_without_shard(ShardFolder(Path("prepared")), num_folds=3)
    outcome = job("train", "--data.shards", "prepared", "--data.fold", "4")
    assert_refused(outcome, "data.fold 4 does not exist")
    assert "folds 1..3" in outcome.err


FEW_VIDEOS = ["--data.prepare.dataset.videos_per_class", "1", "--data.prepare.dataset.num_frames", "12"]


@pytest.mark.parametrize(("name", "data"), [("transfer", FEW_VIDEOS), ("train", FEW_VIDEOS), ("search", [])])
def test_a_run_that_cannot_be_tracked_is_refused_before_videos_are_prepared(
    job: Job, name: str, data: list[str]
) -> None:
    """Its recipe makes the shards that it reads, which may take hours."""
    assert_refused(job(name, *data, "--tracking.uri", "http://me:secret@mlflow"), "contains a password")
    assert not list(Path.cwd().rglob("*.parquet"))
    assert not list(Path.cwd().rglob("*.mp4"))


def _write_without_shard(folder: ShardFolder, *, num_folds: int) -> None:
    """What tells that prepare came to its end, with one video; its shard is absent."""
    row = {"row": 0, "encoding": "copy", "frame_offset": 0, "num_frames": 9, "height": 36, "width": 48}
    video = {"video_id": "one", "label": "walk", "source": "one", "splits": ["train"] * num_folds, "is_prepared": True}
    video |= {"shard": "000000.parquet", "shard_bytes": 9, "rows": [row], "num_segments": 1}
    write_table(pa.Table.from_pylist([video], schema=REPORT_SCHEMA), folder.videos_file)
    description = {"fingerprint": "f", "dataset": "mine", "class_names": ["walk"], "contents": "c"}
    folder.write_description(description | {"num_folds": num_folds, "num_shards": 1})


def test_a_missing_dataset_folder_is_refused_before_ray_starts(job: Job) -> None:
    outcome = job("prepare", "--dataset.kind", "folder", "--dataset.root", "absent", "--output", "prepared")
    assert_refused(outcome, "absent' is not a folder")
    assert not Path("prepared").exists()


def test_a_missing_dataset_folder_of_a_training_run_is_refused_before_ray_starts(job: Job) -> None:
    dataset = ["--data.prepare.dataset.kind", "folder", "--data.prepare.dataset.root", "absent"]
    assert_refused(job("train", *dataset), "absent' is not a folder")


def test_missing_annotations_are_refused_before_ray_starts(job: Job) -> None:
    Path("videos").mkdir()
    arguments = ["--dataset.kind", "folder", "--dataset.root", "videos", "--dataset.annotations", "absent.csv"]
    assert_refused(job("prepare", *arguments, "--output", "prepared"), "absent.csv")


def test_an_output_with_shards_of_other_settings_is_refused_before_ray_starts(job: Job) -> None:
    Path("videos/walk").mkdir(parents=True)
    for place in range(5):
        Path(f"videos/walk/{place}.mp4").touch()
    _write_without_shard(ShardFolder(Path("prepared")), num_folds=1)
    outcome = job("prepare", "--dataset.kind", "folder", "--dataset.root", "videos", "--output", "prepared")
    assert_refused(outcome, "give another output folder, or delete this one")


@pytest.mark.parametrize("name", ["transfer", "train"])
def test_a_network_that_cannot_be_built_is_refused_before_ray_starts(job: Job, name: str) -> None:
    outcome = job(name, "--model.block_config", "1", "1", "1", "1")
    assert_refused(outcome, "widen the net, or lower growth_rate")


@pytest.mark.parametrize("name", ["transfer", "train"])
def test_a_clip_too_small_for_its_network_is_refused_before_ray_starts(job: Job, name: str) -> None:
    assert_refused(job(name, "--clip.num_frames", "8"), "a clip of 8 frames")


def test_teacher_weights_that_do_not_exist_are_refused_before_ray_starts(job: Job) -> None:
    outcome = job("transfer", "--teacher.kind", "densenet121", "--teacher.weights", "absent.pth")
    assert_refused(outcome, "absent.pth")


FROM_WEIGHTS = ["train", "--model", "none", "--clip", "none", "--init_from"]


@pytest.mark.parametrize(
    "arguments",
    [["evaluate", "--checkpoint"], ["export", "--checkpoint"], FROM_WEIGHTS],
    ids=["evaluate", "export", "train"],
)
@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ("absent.safetensors", "absent.safetensors does not exist"),
        ("empty", "empty holds none of"),
        ("garbage.safetensors", "garbage.safetensors cannot be read"),
    ],
)
def test_weights_that_cannot_be_had_are_refused_before_ray_starts(
    job: Job, arguments: list[str], weights: str, reason: str
) -> None:
    Path("empty").mkdir()
    Path("garbage.safetensors").write_bytes(b"no weights at all")
    assert_refused(job(*arguments, weights), reason)


@pytest.mark.heavy
@pytest.mark.parametrize("address", ["runs:/0123", "models:/absent@champion"])
def test_an_address_in_a_tracking_store_that_is_not_there_is_refused(job: Job, address: str) -> None:
    assert_refused(job("evaluate", "--checkpoint", address), "mlflow.db is not there, so it has no runs")


@pytest.mark.parametrize("name", ["evaluate", "export"])
def test_without_any_trained_run_a_checkpoint_is_asked_for(job: Job, name: str) -> None:
    assert_refused(job(name), "give --checkpoint, or train first")


def test_an_exported_file_is_not_named_like_one_of_another_format(job: Job) -> None:
    outcome = job("export", "--output", "model.onnx", "--format", "torch_export")
    assert outcome.code == 2
    assert "output model.onnx must end in .pt2 for format torch_export" in outcome.err


@pytest.mark.heavy
def test_a_job_of_its_own_process_ends_with_the_same_status_and_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(REPO / "jobs" / "train.py"), "--data.shards", "absent"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"error: {tmp_path / 'absent'} holds no prepared shards (dataset.json is missing): " + (
        "run jobs/prepare.py first\n"
    )
    assert done.stdout == ""
