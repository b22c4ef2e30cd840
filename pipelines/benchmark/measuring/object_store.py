"""The peak use of Ray's object store, and what it spilled, while a block runs."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import ray
from ray._private import internal_api  # what `ray memory --stats-only` reads; there is no public access

_LOOK_SECONDS = 0.5  # at 0.05 the sampling took 5 % of two cores


@dataclass
class StoreUse:
    """Bytes over all nodes: the peak, sampled twice a second, and what was written to disk."""

    peak_bytes: int = 0
    spilled_bytes: int = 0


@contextlib.contextmanager
def watched_object_store() -> Iterator[StoreUse]:
    """Give a record that is complete when the block ends."""
    state = internal_api.get_state_from_address(ray.get_runtime_context().gcs_address)
    use, has_ended = StoreUse(), threading.Event()

    def look() -> int:
        stats = internal_api.get_memory_info_reply(state).store_stats
        use.peak_bytes = max(use.peak_bytes, stats.object_store_bytes_used)
        return stats.spilled_bytes_total

    def watch() -> None:
        while not has_ended.wait(_LOOK_SECONDS):
            look()

    spilled_before = look()
    watcher = threading.Thread(target=watch, name="object-store", daemon=True)
    watcher.start()
    try:
        yield use
    finally:
        has_ended.set()
        watcher.join()
        use.spilled_bytes = look() - spilled_before
