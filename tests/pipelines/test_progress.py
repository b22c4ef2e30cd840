import re

import ray

from pipelines.batches import TrainOrder
from pipelines.progress import Progress

SPEED = {"throughput/clips_per_second": 12.34, "throughput/data_wait_share": 0.256}


def test_each_epoch_has_a_bar_with_loss_accuracy_speed_and_time_left(local_ray, capsys):
    order = TrainOrder(num_rows=10, global_batch_size=4, seed=0)
    with Progress(order, epochs=2) as progress:
        for step in range(1, order.num_steps(2) + 1):
            progress.queue.put((step, {"loss": 1 / step, "clip_top1": 0.5, **SPEED}))
    shown = capsys.readouterr().err
    assert re.findall(r"(epoch \d/2): 100%[^\r]*?(\d/\d)", shown) == [("epoch 1/2", "3/3"), ("epoch 2/2", "2/2")]
    assert "loss 0.200 clip_top1 0.500, 12.3 clips/s, waiting 26%, run 00:00 left" in shown


def test_a_run_ends_without_its_bar_when_the_queue_is_lost(local_ray, capsys):
    with Progress(TrainOrder(num_rows=10, global_batch_size=4, seed=0), epochs=1) as progress:
        progress.queue.put((1, {"loss": 0.5, **SPEED}))
        ray.kill(progress.queue.actor)
    assert not progress._reader.is_alive()
