import re

import ray

from pipelines.clips.order import TrainOrder
from pipelines.training.progress import Listeners, Mailbox, ProgressBar
from pipelines.training.worker import ignore

SPEED = {"throughput/clips_per_second": 12.34, "throughput/data_wait_share": 0.256}


def test_a_run_is_one_bar_with_what_is_worth_watching(local_ray, capsys):
    order = TrainOrder(num_rows=10, global_batch_size=4, seed=0)
    with (
        ProgressBar(order, epochs=2) as bar,
        Mailbox(Listeners(show=bar.show, validated=ignore)) as mailbox,
    ):
        for step in range(1, order.num_steps(2) + 1):
            metrics = {"loss": 1 / step, "clip_top1": 0.5, "clip_top5": 1.0, "negatives_per_positive": 15.0}
            mailbox.queue.put(("show", step, {**metrics, **SPEED}))
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert re.findall(r"epoch 2/2 100%", shown)
    assert "loss 0.200, top-1 0.500, 12.3 clips/s, waiting 26%" in shown
    assert "negatives" not in shown


def test_a_resumed_run_counts_its_time_from_where_it_resumes(capsys):
    order = TrainOrder(num_rows=1000, global_batch_size=10, seed=0)
    with ProgressBar(order, epochs=1) as bar:
        bar.show(90, {"loss": 1.0, **SPEED})
        assert bar._bar.initial == 90
    assert "epoch 1/1  90%" in capsys.readouterr().err


def test_a_run_ends_without_its_bar_when_the_queue_is_lost(local_ray, capsys):
    with Mailbox(Listeners(show=ignore, validated=ignore)) as mailbox:
        mailbox.queue.put(("show", 1, {"loss": 0.5, **SPEED}))
        ray.kill(mailbox.queue.actor)
    assert not mailbox._reader.is_alive()
