"""Networks become a picture of cost against the size of the clip, by frames and by pixels."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import nn

from t3d_core.models import count_macs, count_saved_bytes

FRAMES = (16, 24, 32, 48, 64)
PIXELS = (64, 96, 112, 160, 224)
USUAL_FRAMES, USUAL_PIXELS = 32, 112
BATCH_SIZE = 2  # C3D's fully connected batch norms need two clips


def cost_by_size(net: nn.Module, *, sizes: Sequence[tuple[int, int]]) -> list[tuple[float, float]]:
    """Return GMAC and GiB kept for backward, both per clip, for every (frames, pixels)."""
    shapes = [(BATCH_SIZE, 3, frames, pixels, pixels) for frames, pixels in sizes]
    return [
        (count_macs(net, shape) / BATCH_SIZE / 1e9, count_saved_bytes(net, shape) / BATCH_SIZE / 2**30)
        for shape in shapes
    ]


def plot_costs(nets: Mapping[str, nn.Module]) -> bytes:
    """Return a PNG with four panels: GMAC and GiB kept for backward per clip, by frames and by pixels.

    Args:
        nets: Networks for clips of any size, by name; they may lie on the meta device.
    """
    figure = Figure(figsize=(12, 7.5), layout="constrained")
    panels = figure.subplots(2, 2, sharex="col", sharey="row")
    for index, (name, net) in enumerate(nets.items()):
        by_frames = cost_by_size(net, sizes=[(frames, USUAL_PIXELS) for frames in FRAMES])
        by_pixels = cost_by_size(net, sizes=[(USUAL_FRAMES, pixels) for pixels in PIXELS])
        line: dict[str, Any] = {"marker": "o", "markersize": 3, "label": name, "color": colormaps["tab20"](index)}
        for row in (0, 1):
            panels[row, 0].plot(FRAMES, [cost[row] for cost in by_frames], **line)
            panels[row, 1].plot(PIXELS, [cost[row] for cost in by_pixels], **line)
    for panel in panels.flat:
        panel.set_yscale("log")
        panel.grid(visible=True, which="both", alpha=0.3)
    panels[0, 0].set_ylabel("GMAC per clip, forward")
    panels[1, 0].set_ylabel("GiB per clip kept for backward, fp32")
    panels[1, 0].set_xlabel(f"frames, at {USUAL_PIXELS} pixels")
    panels[1, 1].set_xlabel(f"pixels, at {USUAL_FRAMES} frames")
    lines, names = panels[0, 0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside right upper")
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return picture.getvalue()
