"""Measures this machine: python jobs/benchmark.py model --output rows.json; --help lists the suites."""

from pathlib import Path

from pipelines.benchmark.config import BenchmarkConfig
from pipelines.settings.job import run_job


def benchmark(config: BenchmarkConfig) -> str:
    # Imported only after the settings are checked, because it loads PyTorch and Ray.
    from pipelines.benchmark.job import run_benchmark

    return run_benchmark(config)


if __name__ == "__main__":
    quickstart = Path(__file__).parent / "recipes" / "benchmark" / "quickstart.yaml"
    run_job(BenchmarkConfig, benchmark, quickstart=quickstart)
