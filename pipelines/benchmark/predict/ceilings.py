"""What this machine could give at most: decoding without a network, and a network without decoding, in clips a second.

Each runs in a fresh process, on all cores.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch

from pipelines.benchmark.measuring.processes import num_cores_here
from t3d_core.prediction.clip_scorer import ClipScorer
from t3d_core.training.checkpoint import load_model
from t3d_core.training.weights_card import read_card
from t3d_core.video.clip_reader import ViewSampling
from t3d_core.video.guard import GuardedDecoder


def decode_ceiling(videos: Sequence[Path], weights: Path) -> float:
    """Views a second that guarded children hand over, one child for each core; each reads all videos."""
    sampling = ViewSampling(read_card(weights).clip_view())
    decoders = [GuardedDecoder() for _ in range(num_cores_here())]

    def read(paths: Sequence[Path], decoder: GuardedDecoder) -> int:
        return sum(1 for path in paths for _ in decoder.read_views(path, sampling))

    try:
        with ThreadPoolExecutor(len(decoders)) as pool:
            list(pool.map(partial(read, videos[:1]), decoders))  # they start
            started = time.perf_counter()
            # All videos for each child: with shares, some would wait for the one with the longest.
            num_views = sum(pool.map(partial(read, videos), decoders))
            return num_views / (time.perf_counter() - started)
    finally:
        for decoder in decoders:
            decoder.close()


def model_ceiling(video: Path, weights: Path, *, batch_size: int, num_batches: int) -> float:
    """Views a second that the network scores from memory, in full batches."""
    scorer = ClipScorer(load_model(weights), device=torch.device("cpu"), batch_size=batch_size)
    sampling = ViewSampling(scorer.card.clip_view())
    with GuardedDecoder() as decoder:
        views = [view.clip_STHWC for view in decoder.read_views(video, sampling)]
    batch_BSTHWC = np.stack([views[place % len(views)] for place in range(scorer.num_views)])
    scorer.score(batch_BSTHWC)
    started = time.perf_counter()
    for _ in range(num_batches):
        scorer.score(batch_BSTHWC)
    return num_batches * scorer.num_views / (time.perf_counter() - started)
