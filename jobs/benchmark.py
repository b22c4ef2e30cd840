"""Measures this machine: python jobs/benchmark.py model --output rows.json; --help lists the suites."""

import sys
from pathlib import Path

from pipelines.benchmark.config import BenchmarkConfig
from pipelines.settings.job import run_job


def benchmark(config: BenchmarkConfig) -> str:
    # Imported only after the settings are checked, because it loads PyTorch and Ray.
    from pipelines.benchmark.job import run_benchmark

    return run_benchmark(config)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments and not arguments[0].startswith("-"):
        arguments = ["--suite", *arguments]
    quickstart = Path(__file__).parent / "recipes" / "benchmark" / "quickstart.yaml"
    run_job(BenchmarkConfig, benchmark, argv=arguments, quickstart=quickstart)
