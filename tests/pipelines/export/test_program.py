"""A network becomes a program of each format that computes the same."""

import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import nn

from pipelines.export import job as export
from pipelines.export import program as exported_model
from pipelines.export.program import FORMATS
from t3d_core.model_names import TransitionForm
from t3d_core.training.checkpoint import load_model
from t3d_core.video.clip_sampling import non_overlapping_clips, stride_of_seconds
from tests.pipelines.export.exported import CARD, eager, noise, run, save_network


@pytest.mark.heavy
@pytest.mark.parametrize("form", get_args(TransitionForm))
@pytest.mark.parametrize("file_format", FORMATS)
def test_every_transition_form_gives_the_networks_probabilities_for_any_batch(tmp_path, file_format, form):
    card = replace(CARD, model_arguments=CARD.model_arguments | {"transition_forms": form})
    weights, output = save_network(tmp_path / "run", card), tmp_path / "exported"
    clips = export.CheckClips(noise(4), "noise")
    export.export_checked(load_model(weights), clips, output, FORMATS[file_format], fold_batch_norm=True)
    for batch in (1, 2, 5):
        found = run(file_format, output, noise(batch))
        assert found.shape == (batch, 3)
        torch.testing.assert_close(found, eager(weights, noise(batch)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 4, 4), (2, 3, 5), (3, 7, 9)])
def test_the_adaptive_pool_of_an_onnx_file_is_that_of_pytorch(size):
    maps_BCTHW = torch.randn(2, 3, *size)
    found = exported_model._adaptive_average(maps_BCTHW, (1, 4, 4))
    torch.testing.assert_close(found, nn.functional.adaptive_avg_pool3d(maps_BCTHW, (1, 4, 4)))


def test_the_page_takes_the_frames_of_training_where_they_are_a_time_apart():
    page = (Path(__file__).parents[3] / "jobs" / "export.md").read_text()
    [code] = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "frame_numbers" in block]
    for seconds in (1 / 15, 0.1, 0.05, 0.07, 0.3):
        scope = {"card": {"seconds_per_frame": seconds}, "num_frames": 32}
        exec(code, scope)
        for fps in (15.0, 23.976, 24.0, 25.0, 30000 / 1001, 29.97, 30.0, 50.0, 60.0):
            stride = stride_of_seconds(seconds, fps=fps)
            [clip, *_] = non_overlapping_clips(10_000, num_frames=32, frame_stride=stride, short_video="loop")
            assert scope["frame_numbers"](fps) == clip.frame_indices.tolist()
