import os

import pytest

from pipelines.predict.videos import find_videos, named_video
from t3d_core.errors import UserError
from t3d_core.video.container import VideoError


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*inputs):
    return [os.path.relpath(video.name) for video in find_videos(inputs)]


def test_a_folder_gives_its_videos_by_name_and_each_only_once(here) -> None:
    for name in ("v/b.mp4", "v/a.avi", "v/in/c.webm", "v/.hidden/d.mp4", "v/e.txt", "v/f.jpg"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).touch()
    assert names("v/", "v/b.mp4", "v") == ["v/a.avi", "v/b.mp4", "v/in/c.webm"]


@pytest.mark.parametrize("name", ["a b.mp4", "it's.mp4", 'say "hi".mp4', "\N{SNOWMAN}.mp4", "new\nline.mp4", "#1?.mp4"])
def test_odd_names_are_files_like_others(here, name) -> None:
    (here / name).write_bytes(b"x")
    [video] = find_videos([name])
    with video.open(max_bytes=9) as file:
        assert file.num_bytes == 1


def test_a_file_that_is_a_link_out_of_its_folder_is_opened(here) -> None:
    (here / "far").mkdir()
    (here / "far" / "a.mp4").write_bytes(b"xy")
    os.symlink(here / "far" / "a.mp4", here / "link.mp4")
    with find_videos(["link.mp4"])[0].open(max_bytes=9) as file:
        assert file.num_bytes == 2


def test_lists_name_videos_from_their_own_folder_or_from_here(here) -> None:
    (here / "lists").mkdir()
    (here / "lists" / "a.mp4").write_bytes(b"x")
    (here / "b.mp4").write_bytes(b"xy")
    (here / "lists" / "all.txt").write_text("a.mp4\n\nb.mp4\nabsent.mp4\n")
    (here / "lists" / "all.csv").write_text("label,path\nrun,a.mp4\nwalk,b.mp4\n")
    videos = find_videos(["lists/all.txt"])
    assert [os.path.relpath(video.name) for video in videos] == ["lists/a.mp4", "b.mp4", "absent.mp4"]
    for video, size in zip(videos, (1, 2), strict=False):
        with video.open(max_bytes=9) as file:
            assert file.num_bytes == size
    assert names("lists/all.csv", "./b.mp4") == ["lists/a.mp4", "b.mp4"]


def test_equal_texts_of_two_lists_are_two_videos(here) -> None:
    for folder in ("one", "two"):
        (here / folder).mkdir()
        (here / folder / "a.mp4").write_bytes(b"x")
        (here / folder / "list.txt").write_text("a.mp4\n")
    assert names("one/list.txt", "two/list.txt") == ["one/a.mp4", "two/a.mp4"]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ((), "no video is given"),
        (("empty",), "holds no videos"),
        (("ftp://host/a.mp4",), "begins with http://, https://, s3://"),
        (("http://a:b@host/a.mp4",), "contains a secret"),
        (("s3://a.mp4",), "names no file"),
        (("blank.txt",), "names no videos"),
        (("absent.csv",), r"absent\.csv"),
        (("wrong.csv",), "path"),
    ],
)
def test_what_names_no_video_is_refused(here, given, reason) -> None:
    (here / "empty").mkdir()
    (here / "blank.txt").write_text("\n")
    (here / "wrong.csv").write_text("file\na.mp4\n")
    with pytest.raises(UserError, match=reason):
        find_videos(given)


def test_web_addresses_are_videos_one_by_one_also_in_lists(here) -> None:
    (here / "list.txt").write_text("https://host/a.mp4?key=1\nHTTP://host/watch\n")
    videos = find_videos(["list.txt", "https://host/a.mp4?key=1"])
    assert [video.name for video in videos] == ["https://host/a.mp4?key=1", "HTTP://host/watch"]


def test_a_path_or_an_address_is_one_video_whatever_its_name(here) -> None:
    (here / "folder.txt").mkdir()
    (here / "folder.txt" / "clip").write_bytes(b"x")
    for given in ("folder.txt/clip", f"file://{here}/folder.txt/clip"):
        with named_video(given).open(max_bytes=9) as file:
            assert file.path == str(here / "folder.txt" / "clip")
    with pytest.raises(VideoError, match="not a regular file"), named_video("folder.txt").open(max_bytes=9):
        pass


def test_an_address_without_a_file_stops_no_other_and_no_store_is_asked_before(here) -> None:
    (here / "list.txt").write_text(
        "s3://no-such-bucket-anywhere/none/a.mp4?region=nowhere&endpoint_override=127.0.0.1:1\n"
    )
    (here / "my clip.mp4").write_bytes(b"x")
    _, video = find_videos(["list.txt", f"file://{here}/my%20clip.mp4"])
    with video.open(max_bytes=9) as file:
        assert file.num_bytes == 1
    with pytest.raises(VideoError, match="not found"), find_videos(["file:///none.mp4"])[0].open(max_bytes=9):
        pass


@pytest.mark.parametrize("name", ["n" * 300, f"{'d' * 300}/a.mp4"])
def test_a_name_that_no_file_can_have_is_a_video_that_is_not_found(here, name) -> None:
    (here / "list.txt").write_text(f"{name}\n")
    for videos in (find_videos([name]), find_videos(["list.txt"])):
        with pytest.raises(VideoError, match="not found"), videos[0].open(max_bytes=9):
            pass
