import errno
import os
from types import SimpleNamespace

import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs

from pipelines.prepare import sources
from pipelines.prepare.sources import MissingVideoError, open_root
from t3d_core.video.container import VideoError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "root" / "a b").mkdir(parents=True)
    (tmp_path / "root" / "a b" / "x.mp4").write_bytes(b"123")
    (tmp_path / "root" / "y.AVI").write_bytes(b"12")
    (tmp_path / "root" / "notes.txt").write_bytes(b"1")
    return tmp_path / "root"


@pytest.fixture(scope="module")
def bucket():
    """The address of a bucket of a real S3 server on this machine."""
    before = dict(os.environ)
    os.environ |= {"AWS_ACCESS_KEY_ID": "user", "AWS_SECRET_ACCESS_KEY": "secret"}
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = f"scheme=http&endpoint_override={host}:{port}&region=us-east-1"
    filesystem, _ = fs.FileSystem.from_uri(f"s3://videos?{options}&allow_bucket_creation=true")
    filesystem.create_dir("videos")
    for name in ("a b/\u00fc x.mp4", "y.mp4", "notes.txt"):
        with filesystem.open_output_stream(f"videos/train/{name}") as stream:
            stream.write(name.encode())
    yield f"s3://videos/{{}}?{options}"
    server.stop()
    os.environ.clear()
    os.environ |= before


def test_a_folder_lists_its_videos_with_their_sizes(folder):
    assert open_root(folder).list_files().sizes == {"a b/x.mp4": 3, "y.AVI": 2}
    assert open_root((folder / "a b").as_uri()).list_files().sizes == {"x.mp4": 3}
    assert open_root(folder.as_uri()).list_files().sizes == {"a b/x.mp4": 3, "y.AVI": 2}
    assert open_root(folder).name == "root"


def test_a_local_video_is_read_where_it_is(folder):
    with open_root(folder).open_locally("a b/x.mp4", max_bytes=100) as file:
        assert file == (str(folder / "a b" / "x.mp4"), 3)


def test_a_video_that_is_absent_is_told_from_one_that_may_not_be_read(folder, tmp_path):
    root = open_root(folder)
    with pytest.raises(MissingVideoError, match="not found"), root.open_locally("none.mp4", max_bytes=100):
        pass
    (tmp_path / "outside.mp4").write_bytes(b"1")
    (folder / "out.mp4").symlink_to(tmp_path / "outside.mp4")
    with pytest.raises(VideoError, match="leads out of"), root.open_locally("out.mp4", max_bytes=100):
        pass
    with pytest.raises(VideoError, match="leads out of"), root.open_locally("../outside.mp4", max_bytes=100):
        pass
    os.mkfifo(folder / "pipe.mp4")
    with pytest.raises(VideoError, match="not a regular file"), root.open_locally("pipe.mp4", max_bytes=100):
        pass


def test_a_file_larger_than_its_limit_is_not_read(folder, bucket):
    for root, name in ((open_root(folder), "a b/x.mp4"), (open_root(bucket.format("train")), "y.mp4")):
        with root.open_locally(name, max_bytes=5) as file:
            assert file.num_bytes <= 5
        with pytest.raises(VideoError, match=r"more than guard\.source_gib"), root.open_locally(name, max_bytes=2):
            pass


def test_a_linked_folder_is_refused(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"linked' is a link to a folder, which is not followed"):
        open_root(folder).list_files()


def test_what_was_left_behind_is_counted_and_not_entered(folder, tmp_path):
    for name in (".ipynb_checkpoints/a.mp4", "a b/@eaDir/x.mp4/y.mp4", "a b/._x.mp4", "._y.AVI", "clip", "z.swf"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"1234")
    (folder / ".cache").symlink_to(tmp_path)
    found = open_root(folder).list_files()
    assert found.sizes == {"a b/x.mp4": 3, "y.AVI": 2, "clip": 4, "z.swf": 4}
    assert found.num_left_behind == {"._*": 2, "@eaDir": 1, ".ipynb_checkpoints": 1, ".cache": 1}
    assert found.num_by_extension == {".mp4": 1, ".avi": 1, ".txt": 1, "": 1, ".swf": 1}


def test_files_are_looked_for_by_name_whatever_they_are_called(folder, tmp_path):
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "a.mp4").write_bytes(b"1234")
    names = ["notes.txt", ".hidden/a.mp4", "none.mp4", "a b/none.mp4", "no/such/folder.mp4", "n" * 300, "y.AVI/x"]
    assert open_root(folder).sizes_of(names) == {"notes.txt": 1, ".hidden/a.mp4": 4}


def test_links_out_of_the_root_are_found_and_not_measured(folder, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a.mp4").write_bytes(b"12345")
    (folder / ".hidden").symlink_to(tmp_path / "outside")
    (folder / "link.dat").symlink_to(tmp_path / "outside" / "a.mp4")
    (folder / "inner.dat").symlink_to(folder / "y.AVI")
    (folder / "nowhere.dat").symlink_to(folder / "nothing")
    sizes = open_root(folder).sizes_of([".hidden/a.mp4", "link.dat", "inner.dat", "nowhere.dat"])
    assert sizes.pop("nowhere.dat") == len(str(folder / "nothing"))
    assert sizes == {".hidden/a.mp4": 0, "link.dat": 0, "inner.dat": 2}
    assert open_root(folder).list_files().sizes["link.dat"] == len(str(tmp_path / "outside" / "a.mp4"))


def test_a_link_to_itself_is_a_file(folder):
    (folder / "loop.mp4").symlink_to(folder / "loop.mp4")
    assert "loop.mp4" in open_root(folder).list_files().sizes


def test_a_folder_that_may_not_be_read_is_named(folder, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ValueError, match=rf"{folder}.* may not be read by this user"):
        open_root(folder).list_files()


def test_a_bucket_passes_over_the_same_and_is_asked_by_name_for_it_alone(bucket):
    filesystem, base = sources._filesystem(bucket.format("mixed"))
    for name in ("run/a.mp4", "run/b", "run/c.txt", ".Trash-1/a.mp4", ".Trash-1/b.mp4", "run/@eaDir/a.mp4"):
        with filesystem.open_output_stream(f"{base}/{name}") as stream:
            stream.write(b"1234")
    root = open_root(bucket.format("mixed"))
    found = root.list_files()
    assert found.sizes == {"run/a.mp4": 4, "run/b": 4}
    assert found.num_left_behind == {".Trash-*": 1, "@eaDir": 1}
    assert found.num_by_extension == {".mp4": 1, "": 1, ".txt": 1}
    assert root.sizes_of([".Trash-1/a.mp4", "run/c.txt", "run/a.mp4", "run/none.txt"]) == {
        ".Trash-1/a.mp4": 4,
        "run/c.txt": 4,
    }


def test_a_bucket_lists_its_videos_with_their_sizes(bucket):
    root = open_root(bucket.format("train"))
    assert root.list_files().sizes == {"a b/\u00fc x.mp4": 12, "y.mp4": 5}
    assert root.name == "train"


def test_a_remote_video_is_a_local_file_as_long_as_it_is_used(bucket):
    with open_root(bucket.format("train")).open_locally("a b/\u00fc x.mp4", max_bytes=100) as file:
        with open(file.path, "rb") as copy:
            assert copy.read() == "a b/\u00fc x.mp4".encode()
        assert file.num_bytes == 12
    assert not os.path.exists(file.path)


def test_a_remote_video_that_is_absent_is_missing(bucket):
    with pytest.raises(MissingVideoError), open_root(bucket.format("train")).open_locally("none.mp4", max_bytes=100):
        pass


@pytest.mark.parametrize("prefix", ["nothing", "train/y.mp4"])
def test_an_address_that_holds_nothing_is_refused(bucket, prefix):
    with pytest.raises(ValueError, match="is empty"):
        open_root(bucket.format(prefix))


@pytest.mark.parametrize(
    ("root", "reason"),
    [
        ("/no/such/folder", "is not a folder"),
        ("ftp://host/videos", "cannot be opened: Unrecognized filesystem type .*; check the address, the network"),
        ("s3://key:se/cret@bucket/videos", r"'s3://\.\.\.@bucket/videos' contains a secret, .*environment"),
    ],
)
def test_a_root_that_cannot_work_is_refused_with_the_cure(root, reason):
    with pytest.raises(ValueError, match=reason):
        open_root(root)


def test_a_google_address_gives_up_within_its_limit(monkeypatch):
    asked = []

    class FileSystem:
        @staticmethod
        def from_uri(uri):
            asked.append(uri)
            return None, "bucket/videos"

    monkeypatch.setattr(sources, "fs", SimpleNamespace(FileSystem=FileSystem))
    sources._filesystem.cache_clear()
    for address in ("gs://bucket/videos", "gs://bucket/videos?project_id=p", "gs://bucket?retry_limit_seconds=900"):
        sources._filesystem(address)
    sources._filesystem.cache_clear()
    assert asked == [
        "gs://bucket/videos?retry_limit_seconds=30",
        "gs://bucket/videos?project_id=p&retry_limit_seconds=30",
        "gs://bucket?retry_limit_seconds=900",
    ]
