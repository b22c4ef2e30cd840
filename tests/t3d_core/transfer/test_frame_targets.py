"""Each target keeps of the frames what its name says."""

import pytest
import torch

from t3d_core.errors import UserError
from t3d_core.transfer.frame_targets import NUM_PARTS, check_num_frames, summarize_frames

# One feature of a clip whose second half is brighter, and one that flickers.
FRAMES_1T2 = torch.tensor([[[0.0, 1.0], [0.0, -1.0], [0.0, 1.0], [6.0, -1.0], [6.0, 1.0], [6.0, -1.0]]])


def test_the_mean_is_the_papers():
    assert summarize_frames(FRAMES_1T2, "mean").tolist() == [[3, 0]]


def test_the_deviation_tells_a_still_clip_from_one_that_moves_and_not_in_which_direction():
    found = summarize_frames(FRAMES_1T2, "mean_std")
    assert found.tolist() == [[3, 0, 3, 1]]
    assert found.equal(summarize_frames(FRAMES_1T2.flip(1), "mean_std"))


def test_ordered_differences_change_their_sign_when_time_runs_backwards():
    forwards, backwards = (
        summarize_frames(each, "ordered_differences")[0] for each in (FRAMES_1T2, FRAMES_1T2.flip(1))
    )
    assert forwards.tolist() == [3, 0, 3, 0, 3, 0]
    assert backwards.tolist() == [3, 0, -3, 0, -3, 0]


@pytest.mark.parametrize(("kind", "fewest"), [("mean", 1), ("mean_std", 2), ("ordered_differences", 3)])
def test_a_target_needs_enough_frames_for_its_parts(kind, fewest):
    check_num_frames(kind, fewest)
    found = summarize_frames(torch.rand(2, fewest, 5), kind)
    assert found.shape == (2, 5 * NUM_PARTS[kind])
    assert found.isfinite().all()
    with pytest.raises(UserError, match=f"needs at least {fewest} frames of a clip, but teacher.num_frames is"):
        check_num_frames(kind, fewest - 1)
