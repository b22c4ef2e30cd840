"""A trained network becomes one file that runs anywhere: python jobs/export.py --checkpoint WEIGHTS --format onnx."""

from pathlib import Path

from pipelines.export.config import ExportConfig
from pipelines.settings.job import run_job


def export(config: ExportConfig) -> str:
    # Imported only after the settings are checked, because it loads PyTorch, Ray and MLflow.
    from pipelines.export.job import run_export

    return run_export(config)


if __name__ == "__main__":
    run_job(ExportConfig, export, quickstart=Path(__file__).parent / "recipes" / "export" / "quickstart.yaml")
