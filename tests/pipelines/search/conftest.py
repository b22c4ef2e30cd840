import pytest
import yaml

from pipelines.search.config import SearchConfig

MODEL = {"kind": "t3d", "growth_rate": 4, "block_config": [2, 2, 2, 2], "num_init_features": 24, "bn_size": 2}


@pytest.fixture
def search_of(tmp_path, monkeypatch):
    """Settings of a search whose base recipe lies in a file."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    recipe = {
        "data": {"shards": [str(tmp_path / "no_shards")]},
        "model": MODEL,
        "clip": {"num_frames": 16, "crop_size": 32},
        "global_batch_size": 8,
        "epochs": 2,
        "schedule": {"kind": "one_cycle"},
    }
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(recipe))

    def make(**changes):
        common = {
            "base": tmp_path / "base.yaml",
            "seeds": (0,),
            "storage": tmp_path / "runs",
            "name": "trial",
            "tracking": {"uri": f"sqlite:///{tmp_path}/mlflow.db"},
        }
        return SearchConfig(**common | changes)

    return make
