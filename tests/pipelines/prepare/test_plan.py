"""What the whole would take, from a sample."""

import re

import pytest

from pipelines.prepare.listing import list_videos
from pipelines.prepare.make import build_shard_task
from pipelines.prepare.plan import format_plan, plan_prepare
from pipelines.shards.folder import ShardFolder
from tests.pipelines.prepare.made_videos import config, write_video


def test_a_forecast_scales_its_sample_to_all_that_is_found(tmp_path):
    root = tmp_path / "videos"
    for place in range(40):
        write_video(root / "walk" / f"{place}.mp4", num_frames=30 if place % 2 else 10)
    settings = config(root)
    listing = list_videos(settings, output=tmp_path)
    task = build_shard_task(settings, ShardFolder(tmp_path / "out"), listing)
    whole, sample = (plan_prepare(task, listing, num_videos=n, seed=0) for n in (40, 10))
    assert whole.seconds.value == pytest.approx(40 * 2.0)
    assert (whole.num_segments.value, whole.num_shards, whole.num_failed) == (40, 10, 0)
    assert whole.source_bytes.value == sum(path.stat().st_size for path in root.rglob("*.mp4"))
    assert sample.num_sampled == 10
    assert sample.num_segments.value == 40
    assert abs(sample.seconds.value - 80) <= 4 * sample.seconds.error
    lines = format_plan(whole, free_bytes=10**9).splitlines()
    assert any(re.match(r"video +0\.022 +\+- 0\.0\d+ hours", line) for line in lines)
    hours = {int(m[1]): float(m[2]) for line in lines if (m := re.match(r" +(\d+) +cores: ([\d.]+) hours", line))}
    assert hours.keys() == {8, 64, 512}
