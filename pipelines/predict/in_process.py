"""Several videos become results in this process: a child decodes ahead, over the borders of videos.

    child       video 1 . . . . | video 2 . . . . | ...
    network             [ batch ][ batch ][ batch ]        views of two videos fill one batch

So the network neither waits for the first views of each video nor scores blank ones. The results are those of one video
alone, to the last bit (see `ClipScorer`).
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from pipelines.predict.joining import Joining, scored_batch
from pipelines.predict.ledger import PredictedVideo
from pipelines.predict.parts import PartReader, VideoPart
from pipelines.predict.videos import NamedVideo
from t3d_core.prediction.clip_scorer import ClipScorer
from t3d_core.video.clip_reader import VideoShare

_WHOLE = VideoShare(0, 1)


def predict_in_process(
    videos: Sequence[NamedVideo], scorer: ClipScorer, reader: PartReader, *, with_features: bool
) -> Iterator[PredictedVideo]:
    """Score videos; yield each when it is complete, in their order.

    Args:
        videos: what is read.
        scorer: holds the network.
        reader: its batches have `scorer.num_views` views.
        with_features: whether the results have features.

    Raises:
        UserError: the network gives scores or features that are not finite.
    """
    parts = [VideoPart(place, _WHOLE) for place in range(len(videos))]
    joining = Joining([video.name for video in videos], parts, num_crops=reader.sampling.num_crops)
    batches = reader.batches([(place, video, _WHOLE) for place, video in enumerate(videos)])
    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = ahead.submit(next, batches, None)
            yield from joining.add(scored_batch(batch, scorer, with_features=with_features))
