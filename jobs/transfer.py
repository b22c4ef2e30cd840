"""An ImageNet 2D network teaches a 3D network: python jobs/transfer.py --data.shards SHARDS."""

from pathlib import Path

from pipelines.settings.job import run_job
from pipelines.transfer.config import TransferConfig


def transfer(config: TransferConfig) -> str:
    # Imported only after the settings are checked, because it loads PyTorch, Ray and MLflow.
    from pipelines.transfer.job import run_transfer

    return run_transfer(config)


if __name__ == "__main__":
    run_job(TransferConfig, transfer, quickstart=Path(__file__).parent / "recipes" / "transfer" / "quickstart.yaml")
