import pytest

from pipelines.settings.terminal import format_summary, seen_from_here


def test_the_texts_of_a_summary_stand_under_each_other():
    fields = [("pairs", "0.637"), ("", "features 15.3"), ("weights", "student.safetensors")]
    assert format_summary(fields).splitlines() == [
        "pairs:    0.637",
        "          features 15.3",
        "weights:  student.safetensors",
    ]


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("weights:  {here}/runs/a/model.safetensors", "weights:  runs/a/model.safetensors"),
        ("{here}/runs", "runs"),
        ("--data.shards '{here}/a b' {here}/c", "--data.shards 'a b' c"),
        ("--data.shards={here}/a", "--data.shards=a"),
        (
            "mlflow ui --backend-store-uri sqlite:///{here}/mlflow.db",
            "mlflow ui --backend-store-uri sqlite:///mlflow.db",
        ),
        ("file://{here}/mlruns", "file://{here}/mlruns"),
        ("/mnt{here}/runs", "/mnt{here}/runs"),
        ("{here}2/runs", "{here}2/runs"),
        ("line\n{here}/runs", "line\nruns"),
    ],
)
def test_paths_below_the_working_folder_are_relative(tmp_path, monkeypatch, text, seen):
    monkeypatch.chdir(tmp_path)
    assert seen_from_here(text.format(here=tmp_path)) == seen.format(here=tmp_path)


def test_who_stands_at_the_root_sees_whole_paths(monkeypatch):
    monkeypatch.chdir("/")
    assert seen_from_here("weights: /runs/a") == "weights: /runs/a"
