import numpy as np
import pytest

from pipelines.predict.ledger import PredictedVideo
from pipelines.predict.screen import describe_video, draw_bar
from t3d_core.prediction.video_prediction import VideoPrediction


def predicted(*scores, num_padded=0):
    score_K = np.array(scores, np.float64)
    return VideoPrediction(score_K, score_K[None].astype(np.float32), np.array([0.0]), np.array([2.5]), num_padded)


def test_a_video_is_shown_with_its_highest_classes_and_bars() -> None:
    lines = describe_video(
        PredictedVideo("a.mp4", predicted(0.1, 0.7, 0.2)), ["run", "jump", "walk"], top=2
    ).splitlines()
    assert lines[0] == "a.mp4  (0.0 to 2.5 s, 1 clip)"
    assert [line.split()[0] for line in lines[1:]] == ["jump", "walk"]
    assert lines[1].endswith("0.700")


def test_equal_scores_keep_the_order_of_the_classes() -> None:
    assert predicted(0.25, 0.25, 0.25, 0.25).top(3) == [(0, 0.25), (1, 0.25), (2, 0.25)]


def test_a_name_cannot_move_the_cursor() -> None:
    shown = describe_video(PredictedVideo("a\n\x1b[2Jb.mp4", reason="not\nfound"), [], top=5)
    assert shown == "a\\n\\x1b[2Jb.mp4\n  FAILED: not\\nfound"


def test_frames_that_are_made_up_are_mentioned() -> None:
    assert "3 frames made up" in describe_video(PredictedVideo("a.mp4", predicted(1.0, num_padded=3)), ["run"], top=1)


@pytest.mark.parametrize("is_unicode", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999, 1.0])
def test_a_bar_has_one_width_and_grows_with_the_share(is_unicode, share) -> None:
    bar = draw_bar(share, is_unicode=is_unicode)
    assert len(bar) == 20
    assert abs(sum(char in "\N{FULL BLOCK}#" for char in bar) - 20 * share) <= 1
