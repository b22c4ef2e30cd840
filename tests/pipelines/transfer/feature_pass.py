import shutil

from pipelines.shards.index import load_index
from pipelines.transfer.config import TeacherCacheConfig
from pipelines.transfer.pair_loader import PairLoader, TeacherView
from pipelines.transfer.teacher_features import FeatureFiles
from pipelines.transfer.teacher_pass import run_teacher_pass
from t3d_core.video.clip_sampling import ClipView

CLIP = ClipView(num_frames=8, frame_stride=2, crop_size=32, short_side=37, short_video="loop")
VIEW = TeacherView(num_frames=2, crop_size=24, short_side=30, num_views=3)
FILES = FeatureFiles("a" * 64, num_views=3, feature_dim=5)


def pass_over(index, teacher, files=FILES, *, num_workers=1):
    config = TeacherCacheConfig(num_views=3, num_workers=num_workers)
    return run_teacher_pass(PairLoader(index, CLIP, teacher=VIEW), teacher, files, config)


def copy_of(shards, target, *left_out):
    shutil.copytree(shards, target, ignore=shutil.ignore_patterns("videos", *left_out))
    return load_index([target], fold=1, splits=["train"])
