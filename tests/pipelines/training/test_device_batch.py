import numpy as np
import torch

from pipelines.training.device_batch import to_device


def test_arrays_go_to_the_device_as_copies_and_reasons_stay():
    batch = {"clip_BTHWC": np.zeros((1, 2, 3, 3, 3), np.uint8), "label_B": np.array([4]), "reason_B": np.array([""])}
    tensors = to_device(batch, torch.device("cpu"))
    assert tensors.keys() == {"clip_BTHWC", "label_B"}
    assert (tensors["clip_BTHWC"].dtype, tensors["clip_BTHWC"].shape) == (torch.uint8, (1, 2, 3, 3, 3))
    batch["label_B"][0] = 5
    assert tensors["label_B"].tolist() == [4]
