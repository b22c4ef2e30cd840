from pathlib import Path
from typing import Any

import pytest

from pipelines.settings.command_line import load_config
from tests.pipelines.settings.example import Failing, Load, Train


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """load("--name x", quickstart="name: y") -> the config."""

    def load(line: str = "", *words: str, quickstart: str = "{}", recipe: str | None = None) -> Train:
        (tmp_path / "quickstart.yaml").write_text(quickstart)
        argv = [*line.split(), *words]
        if recipe is not None:
            (tmp_path / "recipe.yaml").write_text(recipe)
            argv += ["--recipe", str(tmp_path / "recipe.yaml")]
        return load_config(Train, argv=argv, quickstart=tmp_path / "quickstart.yaml", program="python jobs/train.py")

    return load


@pytest.fixture
def failing(load: Load, capsys: pytest.CaptureFixture[str]) -> Failing:
    """The lines on stderr of a load that must end with status 2."""

    def failing(*args: str, **kwargs: Any) -> list[str]:
        with pytest.raises(SystemExit) as exit_info:
            load(*args, **kwargs)
        assert exit_info.value.code == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "Traceback" not in captured.err
        assert "pydantic" not in captured.err
        return captured.err.splitlines()

    return failing
