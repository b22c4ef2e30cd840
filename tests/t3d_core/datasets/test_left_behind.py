"""What systems and tools leave among data is known by name."""

import pytest

from t3d_core.datasets.left_behind import first_left_behind, is_left_behind, shown_name


@pytest.mark.parametrize(
    "name",
    [
        *(".ipynb_checkpoints", ".Trash-1000", ".git", ".DS_Store", "._a.mp4", ".nfs0001", "__MACOSX", "Icon\r"),
        *("@eaDir", "@EADIR", "#recycle", "#snapshot", "@Recycle", "~snapshot", "lost+found", "__pycache__"),
        *("$RECYCLE.BIN", "$Recycle.Bin", "System Volume Information", "Thumbs.db", "desktop.ini", "~$labels.xlsx"),
        *("a.mp4:Zone.Identifier", "videos_$folder$"),
    ],
)
def test_names_of_systems_and_tools_are_left_behind(name):
    assert is_left_behind(name)


@pytest.mark.parametrize("name", ["run", "#122_goal.avi", "@home", "recycle", "snapshot", "a.b", "-_Q.mp4", "~run"])
def test_other_names_are_data(name):
    assert not is_left_behind(name)


def test_of_a_path_the_outermost_is_given():
    assert first_left_behind("run/@eaDir/.x/a.mp4") == "run/@eaDir"
    assert first_left_behind(".a.mp4") == ".a.mp4"
    assert first_left_behind("run/a.mp4") is None


def test_twins_are_counted_under_one_name():
    assert {shown_name("._a.mp4"), shown_name("._b.mp4")} == {"._*"}
    assert shown_name(".Trash-1000") == ".Trash-*"
    assert shown_name("a.mp4:Zone.Identifier") == "*:zone.identifier"
    assert shown_name("@eaDir") == "@eaDir"
