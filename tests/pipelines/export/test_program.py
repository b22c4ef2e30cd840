"""A network becomes a program of each format that computes the same."""

from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import nn

from pipelines.export import job as export
from pipelines.export import program as exported_model
from pipelines.export.program import FORMATS
from t3d_core.model_names import TransitionForm
from t3d_core.training.checkpoint import load_model
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
