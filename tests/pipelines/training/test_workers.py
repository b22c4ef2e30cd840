import pytest
import torch
from safetensors.torch import load_file

from pipelines.train.job import run_train
from pipelines.training.config import ScalingConfig
from pipelines.training.workers import num_workers_that_leave_a_cpu
from tests.pipelines.training.small_runs import logged, train_config


def test_two_real_workers_train_the_head_alone_and_then_all_as_one_does(settings, synthetic_shards, tmp_path):
    """Of micro-batches of 4, two a step: the same steps and counts on one process and on two, but for sums' order.

    In the frozen epoch batch norms use their own statistics; afterwards each sees its micro-batch.
    """
    run_train(train_config(settings, synthetic_shards, name="before"))
    first_validations, weights = {}, {}
    for num_workers in (0, 2):
        scaling = ScalingConfig(num_workers=num_workers, resources_per_worker={"CPU": 0.5})
        name, init_from = f"w{num_workers}", str(tmp_path / "runs" / "before")
        first = {"init_from": init_from, "epochs": 2, "freeze_backbone_epochs": 1, "micro_batch_size": 4}
        run_train(train_config(settings, synthetic_shards, name=name, scaling=scaling, **first))
        client, runs = logged(tmp_path)
        first_validations[num_workers] = client.get_metric_history(runs[-1].info.run_id, "val/clip_top1")[0]
        weights[num_workers] = load_file(tmp_path / "runs" / name / "model.safetensors")
    assert first_validations[0].step == first_validations[2].step == 0
    assert first_validations[0].value == first_validations[2].value
    for tensor_name, of_one in weights[0].items():
        if "running" not in tensor_name and "num_batches" not in tensor_name:
            torch.testing.assert_close(weights[2][tensor_name], of_one, rtol=1e-3, atol=1e-4)


def test_workers_that_leave_no_cpu_for_decoding_are_refused(settings, synthetic_shards):
    scaling = ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1.0})
    with pytest.raises(ValueError, match=r"1 CPU that must be left for decoding make 3 CPU, but the cluster has 2"):
        run_train(train_config(settings, synthetic_shards, scaling=scaling))


def test_an_elastic_run_leaves_a_cpu_for_decoding(local_ray):
    half = {"CPU": 0.5}
    assert num_workers_that_leave_a_cpu(ScalingConfig(num_workers=(1, 8), resources_per_worker=half)) == (1, 2)
    assert num_workers_that_leave_a_cpu(ScalingConfig(num_workers=(1, 8))) == (1, 1)
    assert num_workers_that_leave_a_cpu(ScalingConfig(num_workers=2)) == 2
