"""The weights of a server: where every replica finds them, for as long as the server runs, and whatever happens there.

What MLflow holds is copied to STORAGE/served/SHA256.safetensors: an alias may move and a store may be away while a
replica starts anew, and all replicas must hold the same network.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pipelines.networks.weights import check_classifier, locate_local_weights, locate_weights, newest_run
from pipelines.runtime.files import copy_whole
from pipelines.runtime.paths import base_folder, output_path
from pipelines.serve.config import ServeConfig
from t3d_core.errors import UserError
from t3d_core.training.checkpoint import LoadedModel, load_model
from t3d_core.training.weights_card import WeightsCard, read_card


@dataclass(frozen=True)
class ServedWeights:
    """A weights file and what is expected of it.

    Attributes:
        path: absolute.
        sha256: of its bytes.
        card: as it was when the server started.
    """

    path: Path
    sha256: str
    card: WeightsCard

    def load(self) -> LoadedModel:
        """Load the network.

        Raises:
            UserError: the file is not there, is another one by now, or cannot be read.
        """
        if not self.path.is_file():
            raise UserError(
                f"weights {self.path} are not on this machine: put them where all nodes see them (T3D_HOME)"
            )
        if _digest(self.path) != self.sha256:
            raise UserError(f"weights {self.path} have changed since the server was started: start it again")
        return load_model(self.path)


def find_weights_to_serve(config: ServeConfig) -> ServedWeights:
    """Find the weights that `config` means, and check that they can be loaded and serve.

    Raises:
        UserError: there are none, they are damaged, or belong to a network that cannot classify videos so.
    """
    where = config.model or str(newest_run(base_folder() / config.storage, setting="model"))
    path = locate_local_weights(where)
    if path is None:
        # Imported only here: MLflow takes seconds, and a file needs none of it.
        from pipelines.runtime.job_run import tracking_uri_of

        fetched = locate_weights(where, tracking_uri=tracking_uri_of(config.tracking))
        digest = _digest(fetched)
        path = output_path(config.storage) / "served" / f"{digest}.safetensors"
        if not path.is_file() or _digest(path) != digest:
            copy_whole(fetched, path)
    card = read_card(path)
    check_classifier(card, path, num_clips=config.num_clips, num_crops=config.num_crops)
    load_model(path)
    return ServedWeights(path.absolute(), _digest(path), card)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
