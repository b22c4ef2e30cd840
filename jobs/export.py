"""A trained network becomes one file that runs anywhere: python jobs/export.py --checkpoint WEIGHTS --format onnx."""

from pathlib import Path

from pipelines.export.config import ExportConfig
from pipelines.export.job import run_export
from pipelines.settings.job import run_job

if __name__ == "__main__":
    run_job(ExportConfig, run_export, quickstart=Path(__file__).parent / "recipes" / "export" / "quickstart.yaml")
