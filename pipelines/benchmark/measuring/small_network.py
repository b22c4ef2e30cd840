"""The network of runs whose memory is measured."""

from pipelines.networks.config import T3DConfig

# A network so small that its memory does not hide a growth elsewhere.
SMALL_T3D = T3DConfig(kind="t3d", growth_rate=8, block_config=(3, 3, 3, 3), num_init_features=24, bn_size=2)
