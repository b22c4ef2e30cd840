import re

import ray

from pipelines.clips.order import TrainOrder
from pipelines.training.progress import Bars, Listeners, Mailbox
from pipelines.training.worker import ignore

SPEED = {"throughput/clips_per_second": 12.34, "throughput/data_wait_share": 0.256}


def test_each_epoch_has_a_bar_with_loss_accuracy_speed_and_time_left(local_ray, capsys):
    order = TrainOrder(num_rows=10, global_batch_size=4, seed=0)
    with Bars(order, epochs=2) as bars, Mailbox(Listeners(show=bars.show, validated=ignore)) as mailbox:
        for step in range(1, order.num_steps(2) + 1):
            mailbox.queue.put(("show", step, {"loss": 1 / step, "clip_top1": 0.5, **SPEED}))
    shown = capsys.readouterr().err
    assert re.findall(r"(epoch \d/2): 100%[^\r]*?(\d/\d)", shown) == [("epoch 1/2", "3/3"), ("epoch 2/2", "2/2")]
    assert "loss 0.200 clip_top1 0.500, 12.3 clips/s, waiting 26%, run 00:00 left" in shown


def test_a_run_ends_without_its_bar_when_the_queue_is_lost(local_ray, capsys):
    with Mailbox(Listeners(show=ignore, validated=ignore)) as mailbox:
        mailbox.queue.put(("show", 1, {"loss": 0.5, **SPEED}))
        ray.kill(mailbox.queue.actor)
    assert not mailbox._reader.is_alive()
