"""This machine is measured: python jobs/benchmark.py model --output rows.json; suites: see --help."""

import sys
from pathlib import Path

from pipelines.benchmark.job import BenchmarkConfig, run_benchmark
from pipelines.settings.job import run_job

if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments and not arguments[0].startswith("-"):
        arguments = ["--suite", *arguments]
    run_job(
        BenchmarkConfig,
        run_benchmark,
        argv=arguments,
        quickstart=Path(__file__).parent / "recipes" / "benchmark" / "quickstart.yaml",
    )
