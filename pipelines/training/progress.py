"""Steps of a run become a progress bar an epoch on the driver's terminal, wherever the first worker runs."""

import contextlib
import threading
import time
from collections.abc import Callable
from typing import TypedDict

import ray
from ray.exceptions import RayError
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from tqdm import tqdm

from pipelines.clips.order import TrainOrder
from pipelines.training.worker import Metrics


class Listeners(TypedDict):
    """Who is called with a step and its metrics: what people see, and what a validation found (see `Worker`)."""

    show: Callable[[int, Metrics], None]
    validated: Callable[[int, Metrics], None]


class Bars(contextlib.AbstractContextManager):
    """Bars with loss, accuracy, clips a second, share of waiting for data, time left in the epoch and in the run."""

    def __init__(self, order: TrainOrder, *, epochs: int) -> None:
        """Begin; the first bar comes with the first step that is shown."""
        self._order, self._epochs, self._num_steps = order, epochs, order.num_steps(epochs)
        self._bar: tqdm | None = None
        self._epoch = -1
        self._first: tuple[int, float] | None = None

    def show(self, step: int, metrics: Metrics) -> None:
        """Move the bar of the step's epoch."""
        epoch = self._order.epoch(step - 1)
        first, last = self._order.steps_before(epoch), min(self._order.steps_before(epoch + 1), self._num_steps)
        if epoch != self._epoch:
            self._close()
            self._epoch = epoch
            self._bar = tqdm(total=last - first, desc=f"epoch {epoch + 1}/{self._epochs}", unit="step")
        assert self._bar is not None, "made above"
        self._bar.set_postfix_str(f"{describe(metrics)}{self._time_left(step)}", refresh=False)
        self._bar.update(step - first - self._bar.n)
        if step == last:
            self._close()

    def _time_left(self, step: int) -> str:
        if self._first is None:
            self._first = step, time.monotonic()
        first, began = self._first
        if step == first:
            return ""
        seconds = (time.monotonic() - began) / (step - first) * (self._num_steps - step)
        return f", run {tqdm.format_interval(seconds)} left"

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()  # a second time it does nothing

    def __exit__(self, *_: object) -> None:
        self._close()


class Mailbox(contextlib.AbstractContextManager):
    """What the first worker tells, wherever it runs, reaches the driver.

    Attributes:
        queue: takes the name of a listener and what it is to be called with; it lives as long as the driver's node.
    """

    def __init__(self, listeners: Listeners) -> None:
        """Begin; the listeners are called in a thread."""
        self._listeners = listeners
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(RayError):  # a bar that nobody feeds any more is no reason to stop
            while (message := self.queue.get()) is not None:
                name, step, metrics = message
                self._listeners[name](step, metrics)  # type: ignore[literal-required]

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(RayError):
            self.queue.put(None)
        self._reader.join()
        self.queue.shutdown()


def describe(metrics: Metrics) -> str:
    """Loss, accuracies, clips a second and the share of waiting, in one line."""
    speeds = {name: metrics[name] for name in metrics if name.startswith("throughput/")}
    shown = " ".join(f"{name} {value:.3f}" for name, value in metrics.items() if name not in speeds)
    return (
        f"{shown}, {speeds['throughput/clips_per_second']:.1f} clips/s, "
        f"waiting {speeds['throughput/data_wait_share']:.0%}"
    )
