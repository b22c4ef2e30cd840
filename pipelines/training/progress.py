"""Steps of a run become one progress bar on the driver's terminal, wherever the first worker runs."""

import contextlib
import threading
from collections.abc import Callable
from typing import TypedDict

import ray
from ray.exceptions import RayError
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from tqdm import tqdm

from pipelines.clips.order import TrainOrder
from pipelines.training.worker import Metrics

# The metrics that the bar shows while a task trains, and their names there; MLflow has all metrics.
_WATCHED = {"loss": "loss", "clip_top1": "top-1", "pair_accuracy": "pairs"}
_BAR = "{desc} {percentage:3.0f}%|{bar:20}| {elapsed}<{remaining}{postfix}"


class Listeners(TypedDict):
    """Callbacks that take a step and its metrics: for the terminal, and after a validation (see `Worker`)."""

    show: Callable[[int, Metrics], None]
    validated: Callable[[int, Metrics], None]


class ProgressBar(contextlib.AbstractContextManager):
    """The steps of a run: epoch, time gone and left, loss, accuracy, clips a second, the share of waiting for data."""

    def __init__(self, order: TrainOrder, *, epochs: int) -> None:
        """Begin; the bar comes with the first step that is shown."""
        self._order, self._epochs, self._num_steps = order, epochs, order.num_steps(epochs)
        self._bar: tqdm | None = None

    def show(self, step: int, metrics: Metrics) -> None:
        """Move the bar to `step`, counted from 1."""
        epoch = f"epoch {self._order.epoch(step - 1) + 1}/{self._epochs}"
        if self._bar is None:
            # The time left counts from here: steps before a resume took no time, and the first includes the start-up.
            self._bar = tqdm(total=self._num_steps, initial=step, desc=epoch, bar_format=_BAR, dynamic_ncols=True)
        self._bar.set_description_str(epoch, refresh=False)
        self._bar.set_postfix_str(describe(metrics), refresh=False)
        self._bar.update(step - self._bar.n)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


class Mailbox(contextlib.AbstractContextManager):
    """Carries the reports of the first worker, wherever it runs, to the driver.

    Attributes:
        queue: takes the name of a listener and its arguments; it lives as long as the driver's node.
    """

    def __init__(self, listeners: Listeners) -> None:
        """Begin; the listeners are called in a thread."""
        self._listeners = listeners
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(RayError):  # a bar without updates is no reason to stop
            while (message := self.queue.get()) is not None:
                name, step, metrics = message
                self._listeners[name](step, metrics)  # type: ignore[literal-required]

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(RayError):
            self.queue.put(None)
        self._reader.join()
        self.queue.shutdown()


def describe(metrics: Metrics) -> str:
    """Loss, accuracy, clips a second and the share of waiting, in one line."""
    shown = [f"{short} {metrics[name]:.3f}" for name, short in _WATCHED.items() if name in metrics]
    speed, waiting = metrics["throughput/clips_per_second"], metrics["throughput/data_wait_share"]
    return ", ".join([*shown, f"{speed:.1f} clips/s", f"waiting {waiting:.0%}"])
