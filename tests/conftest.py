"""One Ray for all tests, and small prepared data sets; `pipelines` is imported by those who ask for one.

`pytest tests/t3d_core` runs where neither Ray nor anything else of `pipelines` is installed.
"""

import gc
import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; `pytest -n 2` has a process for every core

MAX_FAST_CPU_SECONDS = 10
SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def local_ray():
    import ray

    from pipelines.runtime.ray_logging import quiet
    from pipelines.runtime.session import start_local

    quiet()
    start_local(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def synthetic_config():
    from pipelines.prepare.config import PrepareConfig, SyntheticDatasetConfig

    dataset = SyntheticDatasetConfig(
        videos_per_class=6, num_frames=40, height=48, width=64, val_fraction=0.2, test_fraction=0.2
    )
    return PrepareConfig(dataset=dataset, videos_per_shard=10)


@pytest.fixture(scope="session")
def synthetic_shards(local_ray, tmp_path_factory, synthetic_config):
    """48 synthetic videos of 40 frames in 5 shards."""
    from pipelines.prepare.make import prepare

    output = tmp_path_factory.mktemp("synthetic")
    prepare(synthetic_config, output)
    return output


@pytest.fixture(scope="session")
def shards_in_folds(synthetic_shards, tmp_path_factory):
    """The 48 synthetic videos, of 6 people: p0 validates, the others are tested in turn, in 5 folds."""
    from pipelines.prepare.config import FolderDatasetConfig, PrepareConfig
    from pipelines.prepare.make import prepare

    folder, videos = tmp_path_factory.mktemp("folds"), synthetic_shards / "videos"
    rows = [
        f"{path.relative_to(videos)},{path.parent.name},p{number % 6}"
        for number, path in enumerate(sorted(videos.glob("*/*.mp4")))
    ]
    (folder / "index.csv").write_text("\n".join(["path,label,group", *rows]))
    dataset = FolderDatasetConfig(root=str(videos), annotations=folder / "index.csv", num_folds=5, val_groups=("p0",))
    prepare(PrepareConfig(dataset=dataset), folder / "shards")
    return folder / "shards"


@pytest.fixture(scope="session")
def weizmann_shards(local_ray, tmp_path_factory):
    """60 real videos of 10 actions by 6 people; lena is `val`."""
    from pipelines.prepare.config import FolderDatasetConfig, PrepareConfig
    from pipelines.prepare.make import prepare

    if not SHARED_DATA.is_dir():
        pytest.skip(f"the real clips are not at {SHARED_DATA}")
    output = tmp_path_factory.mktemp("weizmann")
    dataset = FolderDatasetConfig(root=str(SHARED_DATA / "weizmann6"), annotations=SHARED_DATA / "index.csv")
    prepare(PrepareConfig(dataset=dataset, videos_per_shard=30), output)
    return output


def pytest_configure():
    """Forget the storage and the store that whoever runs the tests works with."""
    for name in [name for name in os.environ if name.startswith(("T3D_", "MLFLOW_"))]:
        del os.environ[name]


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items):
    """Mark as `fast` what needs neither Ray nor a store of MLflow and is not marked as anything that takes long."""
    for item in items:
        marks = {mark.name for mark in item.iter_markers()}
        if not marks & {"slow", "faults", "heavy"} and not {"local_ray", "empty_store"} & {*item.fixturenames}:
            item.add_marker(pytest.mark.fast)


def pytest_collection_finish():
    """Spare the garbage collector what was imported: it takes a seventh of the time of fast tests to look at it."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Fail a `fast` test that is not: its author marks it, and `pytest -m fast` stays short."""
    before = cpu_seconds()
    result = yield
    used = cpu_seconds() - before
    if item.get_closest_marker("fast") and used > MAX_FAST_CPU_SECONDS:
        pytest.fail(f"it used {used:.0f} CPU seconds: make it shorter, or mark it with pytest.mark.heavy")
    return result


def cpu_seconds():
    """Of this process and of those that it waited for; what else the machine does makes no difference."""
    return sum(os.times()[:4])


def pytest_addoption(parser):
    parser.addoption("--refresh-golden", action="store_true", help="write the golden losses anew")
