"""What can be set when a network is served over HTTP."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from pipelines.networks.config import ScoringComputeConfig
from pipelines.prepare.config import GuardConfig
from pipelines.settings.section import Address, Role, Section, UserPath
from pipelines.tracking.config import TrackingConfig
from t3d_core.errors import UserError


class LimitsConfig(Section):
    """What one request may cost, and how many there may be; what is beyond gets an error with its reason."""

    mib: PositiveFloat = 256.0
    """Size of a video in MiB; a larger one gets 413."""
    seconds: PositiveFloat = 600.0
    """Length of a video in seconds; a longer one gets 422."""
    open_requests: PositiveInt = 32
    """Requests that one decode replica has at once, uploading, waiting or at work; the next one gets 503."""
    open_requests_per_client: PositiveInt | None = 16
    """Requests that one client address has at once; the next one gets 429. none if all come through one proxy."""
    upload_seconds: PositiveFloat = 120.0
    """Time for sending a video; a slower one gets 408."""
    answer_seconds: PositiveFloat = 300.0
    """Time from the end of the upload to the answer, waiting included; then 504."""


class ServeConfig(Section):
    """Serve a trained network over HTTP on Ray Serve, sampled as in testing (paper 4.4)."""

    FIRST_SETTINGS = (
        "model",
        "host",
        "port",
        "num_replicas",
        "decoders",
        "use_gpu",
        "limits.mib",
        "limits.seconds",
        "public_addresses",
        "without_token",
    )

    model: Address | None = None
    """Network: a weights file, a run or checkpoint folder, runs:/... or models:/... . By default the newest run in
    `storage`."""
    host: Annotated[str, Role.PLACE] = "127.0.0.1"
    """Address to listen on. 0.0.0.0 is all of this machine, and needs a token."""
    port: Annotated[int, Field(ge=1, le=65535), Role.PLACE] = 8000
    """Port to listen on."""
    without_token: bool = False
    """Let everyone in who reaches a `host` other than this machine's own. By default the variable T3D_SERVE_TOKEN
    must hold a token then, which clients send as `Authorization: Bearer TOKEN`."""
    public_addresses: bool = False
    """Read http:// and https:// addresses of the public internet. Private ones, and redirects to them, are refused."""
    allowed_addresses: tuple[str, ...] = ()
    """Beginnings of addresses that are read as well, such as https://videos.example.com/clips/ or s3://bucket/videos/.
    They may be private: whoever may send requests can read all videos there."""
    num_clips: PositiveInt | None = None
    """Clips of every video, evenly spaced. By default all clips that do not overlap (paper 4.4)."""
    num_crops: Literal[1, 3, 10] = 1
    """Squares of every clip that are scored, as in `predict`."""
    smooth_seconds: Annotated[float, Field(ge=0)] = 2.0
    """Window in seconds over which a timeline is smoothed; 0 leaves the scores of the clips as they are."""
    min_segment_seconds: Annotated[float, Field(ge=0)] = 0.0
    """Segments of a timeline that are shorter join a neighbour."""
    batch_size: PositiveInt = 8
    """Clips that the network gets at once, of one video or of several. With the value of `predict` (and its number of
    threads, see `cpus_per_replica`), scores are the same to the last bit."""
    compute: ScoringComputeConfig = ScoringComputeConfig()
    use_gpu: Annotated[bool, Role.RUNNING] = False
    """Give every replica of the network a GPU."""
    num_replicas: Annotated[PositiveInt, Role.RUNNING] = 1
    """Processes that hold the network."""
    cpus_per_replica: Annotated[PositiveInt | None, Role.RUNNING] = None
    """CPUs that each of them reserves and computes on. By default each reserves one, and they share all of the machine
    that starts the server. With as many as `predict` used, scores are the same to the last bit."""
    decode_replicas: Annotated[PositiveInt, Role.RUNNING] = 1
    """Processes that take requests and decode."""
    decoders: Annotated[PositiveInt, Role.RUNNING] = 3
    """Videos that each of them works on at once, and CPUs that it reserves."""
    limits: Annotated[LimitsConfig, Role.RUNNING] = LimitsConfig()
    guard: GuardConfig = GuardConfig(seconds=60.0)
    tracking: Annotated[TrackingConfig, Role.PLACE] = TrackingConfig()
    storage: Annotated[UserPath, Role.PLACE] = Path("runs")
    """Folder with training runs; weights that MLflow holds are copied to its folder `served`."""

    @model_validator(mode="after")
    def _addresses_are_complete(self) -> "ServeConfig":
        for prefix in self.allowed_addresses:
            scheme, _, rest = prefix.partition("://")
            if not scheme or "/" not in rest or rest.startswith("/") or not prefix.endswith("/"):
                raise UserError(
                    f"allowed_addresses {prefix!r} must be an address up to a slash, such as https://example.com/clips/"
                )
        return self
