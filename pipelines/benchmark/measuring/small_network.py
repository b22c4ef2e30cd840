"""The network of runs whose memory is measured."""

from pipelines.networks.config import T3DConfig

# A network whose memory does not hide what grows beside it.
SMALL_T3D = T3DConfig(kind="t3d", growth_rate=8, block_config=(3, 3, 3, 3), num_init_features=24, bn_size=2)
