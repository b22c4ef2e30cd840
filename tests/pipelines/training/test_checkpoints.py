import errno
import os
import random

import pytest

from pipelines.training.checkpoints import CheckpointFolder, find_damage


def write(content):
    def into(folder):
        (folder / "training_state.pt").write_bytes(content)
        (folder / "model.safetensors").write_bytes(content[::-1])

    return into


@pytest.fixture
def checkpoints(tmp_path):
    return CheckpointFolder(tmp_path / "run", num_to_keep=2)


def names(checkpoints):
    return sorted(path.name for path in checkpoints.root.iterdir())


def test_the_newest_is_gone_on_from_and_older_ones_are_deleted(checkpoints):
    assert checkpoints.newest() is None
    for step in (5, 10, 100):
        checkpoints.save(step, write(b"%d" % step))
    assert names(checkpoints) == ["checkpoint_00000010", "checkpoint_00000100"]
    assert (checkpoints.newest() / "training_state.pt").read_bytes() == b"100"


@pytest.mark.parametrize("damage", ["shorter", "longer", "one byte", "gone", "manifest", "no manifest", "empty"])
def test_a_damaged_newest_one_is_passed_over_with_a_warning(damage, checkpoints, caplog):
    checkpoints.save(5, write(b"five"))
    newest = checkpoints.save(10, write(bytes(1000)))
    state, manifest = newest / "training_state.pt", newest / "manifest.json"
    content = state.read_bytes()
    if damage == "shorter":
        state.write_bytes(content[:-1])
    elif damage == "longer":
        state.write_bytes(content + b"0")
    elif damage == "one byte":
        place = random.Random(0).randrange(len(content))
        state.write_bytes(content[:place] + b"\1" + content[place + 1 :])
    elif damage == "gone":
        state.unlink()
    elif damage == "manifest":
        manifest.write_bytes(manifest.read_bytes()[:-10])
    elif damage == "no manifest":
        manifest.unlink()
    else:
        for file in newest.iterdir():
            file.unlink()
    assert find_damage(newest)
    assert checkpoints.newest().name == "checkpoint_00000005"
    assert "checkpoint_00000010 is damaged" in caplog.text
    checkpoints.sweep()
    assert names(checkpoints) == ["checkpoint_00000005"]


def test_where_all_are_damaged_there_is_none(checkpoints):
    (checkpoints.save(5, write(b"five")) / "training_state.pt").unlink()
    assert checkpoints.newest() is None


def test_a_checkpoint_that_cannot_be_written_leaves_those_before(checkpoints):
    checkpoints.save(5, write(b"five"))

    def full(folder):
        (folder / "training_state.pt").write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(10, full)
    assert names(checkpoints) == ["checkpoint_00000005"]
    assert find_damage(checkpoints.newest()) is None


def test_what_a_kill_left_is_never_read_and_swept(checkpoints):
    checkpoints.save(5, write(b"five"))
    left = checkpoints.root / "checkpoint_00000010.partial"
    left.mkdir()
    (left / "training_state.pt").write_bytes(b"half")
    assert checkpoints.newest().name == "checkpoint_00000005"
    checkpoints.sweep()
    assert names(checkpoints) == ["checkpoint_00000005"]


def test_a_step_that_was_saved_before_is_saved_anew(checkpoints):
    checkpoints.save(5, write(b"first"))
    assert (checkpoints.save(5, write(b"second")) / "training_state.pt").read_bytes() == b"second"


def test_another_runs_checkpoint_takes_the_place_of_the_own_one_at_its_step(checkpoints, tmp_path):
    other = CheckpointFolder(tmp_path / "other", num_to_keep=2).save(10, write(b"theirs"))
    checkpoints.save(5, write(b"ours"))
    checkpoints.save(10, write(b"ours"))
    copied = checkpoints.copy(other)
    assert copied == checkpoints.newest()
    assert find_damage(copied) is None
    assert (copied / "training_state.pt").read_bytes() == b"theirs"
    assert names(checkpoints) == ["checkpoint_00000005", "checkpoint_00000010"]
    assert (other / "training_state.pt").read_bytes() == b"theirs"
