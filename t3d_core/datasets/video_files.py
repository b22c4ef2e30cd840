"""Names of the files below a data set's root become the ones that an annotation means.

Lists name a video by its path, or as its authors shipped it (`Class/v_Class_g01_c01.avi`, a YouTube id), while users
keep it in other folders and encoded anew. So a file is known by its path or by its stem: its name without folders and
extension. Where folders are searched without a list, the extension decides what is a video.
"""

from collections.abc import Callable, Collection, Iterable

from t3d_core.datasets.left_behind import first_left_behind
from t3d_core.datasets.problems import Problems
from t3d_core.datasets.unicode_form import nfc, nfd
from t3d_core.errors import UserError

VIDEO_EXTENSIONS = tuple(
    ".264 .265 .3g2 .3gp .asf .avi .divx .dv .dvr-ms .f4v .flv .gif .h264 .h265 .hevc .ivf .m1v .m2t .m2ts .m2v "
    ".m4v .mj2 .mk3d .mkv .mod .mov .mp2v .mp4 .mpe .mpeg .mpg .mpv .mts .mxf .nut .ogg .ogm .ogv .qt .rm .rmvb "
    ".tod .trp .ts .video .vob .webm .wmv .wtv .y4m".split()
)
PICTURE_EXTENSIONS = tuple(
    ".apng .avif .bmp .dng .exr .heic .ico .jfif .jpe .jpeg .jpg .pgm .png .ppm .psd .svg .tga .tif .tiff .webp".split()
)
ARCHIVE_EXTENSIONS = tuple(
    ".7z .bz2 .gz .h5 .hdf5 .lmdb .mat .npy .npz .parquet .pickle .pkl .pt .pth .rar .tar .tfrecord .tgz .xz .zip "
    ".zst".split()
)
UNREAD_VIDEO_EXTENSIONS = tuple(".amv .bik .braw .dat .fli .lrv .mng .r3d .roq .smk .swf".split())
_OTHER_EXTENSIONS = tuple(
    ".aac .aria2 .ass .bak .c .cfg .cpp .crdownload .css .csv .db .description .dll .doc .docx .exe .flac .h .htm "
    ".html .ini .ipynb .js .json .jsonl .lnk .lock .log .lrc .m .m3u .m3u8 .m4a .md .md5 .mid .mp3 .nfo .oga .ods "
    ".opus .part .pdf .ppt .pptx .py .rst .rtf .sbv .sh .sha1 .sha256 .sqlite .srt .sub .temp .tmp .toml .torrent "
    ".tsv .txt .url .vtt .wav .wma .xls .xlsx .xml .yaml .yml .ytdl".split()
)
_VIDEOS = frozenset(VIDEO_EXTENSIONS)
_NO_VIDEOS = frozenset(PICTURE_EXTENSIONS + ARCHIVE_EXTENSIONS + _OTHER_EXTENSIONS)

LookUp = Callable[[Collection[str]], Collection[str]]
"""Gives those of some paths below a root at which there is a file."""


def extension_of(name: str) -> str:
    """Give the extension with its point, in lower case; empty where there is none."""
    base = name.rpartition("/")[2]
    place = base.rfind(".")
    return base[place:].lower() if place > 0 else ""


def without_extension(path: str) -> str:
    """Give the path without the extension that `extension_of` gives; its letter case stays."""
    return path[: len(path) - len(extension_of(path))]


def is_video_name(name: str) -> bool:
    """Whether a file, named with or without its folders, is taken for a video where folders are searched.

    What systems and tools left behind is not, nor anything in such folders: macOS leaves "._clip.mp4" next to
    "clip.mp4" on other disks.
    """
    return extension_of(name) in _VIDEOS and first_left_behind(name) is None


def may_be_video(name: str) -> bool:
    """Whether a file could be a video that a list means by its stem: it has no extension of something else."""
    return not is_no_video(extension_of(name)) and first_left_behind(name) is None


def is_no_video(extension: str) -> bool:
    """Whether files of this extension, given as by `extension_of`, are surely something else."""
    return extension in _NO_VIDEOS


def stem_of(name: str) -> str:
    """Give the name without folders and without the last extension."""
    base = name.rpartition("/")[2]
    return base.rpartition(".")[0] or base


def interval_name(video: str, *, start_seconds: float, end_seconds: float) -> str:
    """Name an interval of a video as Kinetics clips are: `id_000017_000027`; parts of a second follow as `.500`."""
    return f"{video}_{_padded(start_seconds)}_{_padded(end_seconds)}"


def _padded(seconds: float) -> str:
    return f"{int(seconds):06d}" if seconds == int(seconds) else f"{seconds:010.3f}"


class VideoFiles:
    """The video files below a root, found by stem.

    Args:
        file_names: POSIX paths below the root of all files there are.
        is_case_sensitive: False finds `v_HandStandPushups_g01_c01` also as `v_HandstandPushups_g01_c01`.
    """

    def __init__(self, file_names: Collection[str], *, is_case_sensitive: bool = True) -> None:
        self._is_case_sensitive = is_case_sensitive
        self._videos, self._others = _NamesByKey(), _NamesByKey()
        for name in file_names:
            # A GIF is often the preview of the video beside it.
            if is_video_name(name) and extension_of(name) != ".gif":
                self._videos.add(self._key(stem_of(name)), name)
            elif may_be_video(name):
                # Both, as a point may belong to the name of a file without extension.
                for key in {self._key(stem_of(name)), self._key(name.rpartition("/")[2])}:
                    self._others.add(key, name)

    def find(self, stem: str, *, expected: str) -> str | None:
        """Give the path of the file with this stem, or None where there is none.

        A file with another extension than those of videos, or with none, is taken only where it is the only one.

        Args:
            stem: Name of the video without folders and extension.
            expected: Where the video lies in the official layout; of several files with the stem this one is taken.

        Raises:
            UserError: Several files have the stem and none is the expected one: which is meant is unknown.
        """
        names = self._videos.get(self._key(stem))
        if not names:
            others = self._others.get(self._key(stem))
            return others[0] if len(others) == 1 else None
        meant = names if len(names) == 1 else [name for name in names if nfc(name) == nfc(expected)]
        if len(meant) == 1:
            return meant[0]
        raise UserError(
            f"{len(names)} files are named {stem!r}, among them {names[0]!r} and {names[1]!r}, and none is "
            f"{expected!r}: keep one of them, or give the folder of one set of files as root"
        )

    def _key(self, stem: str) -> str:
        return nfc(stem if self._is_case_sensitive else stem.lower())


class _NamesByKey:
    """Names of files by key. Two dictionaries, as a list for each of half a million files would double the memory."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}
        self._more: dict[str, list[str]] = {}

    def add(self, key: str, name: str) -> None:
        if self._first.setdefault(key, name) is not name:
            self._more.setdefault(key, []).append(name)

    def get(self, key: str) -> list[str]:
        return [self._first[key], *self._more.get(key, ())] if key in self._first else []


class FilesByPath:
    """The files below a root, found by their paths, whatever they are called.

    Args:
        file_names: POSIX paths below the root of the files that are known.
        look_up: Looks for files that may be there although `file_names` lacks them.
    """

    def __init__(self, file_names: Iterable[str], *, look_up: LookUp | None = None) -> None:
        self._names = frozenset(file_names)
        self._look_up = look_up
        self._by_nfc = _NamesByKey()
        for name in self._names:
            if not name.isascii():
                self._by_nfc.add(nfc(name), name)

    @property
    def names(self) -> Collection[str]:
        """The known files, in no order."""
        return self._names

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def find(self, paths: Collection[str]) -> dict[str, str]:
        """Give path -> name on disk for the paths that have a file.

        Args:
            paths: Paths below the root, in NFC.

        Raises:
            UserError: The names of several files differ from a path in their Unicode form only.
        """
        problems = Problems()
        found = {path: path for path in paths if path.isascii() and path in self._names}
        for path in paths:
            if not path.isascii() and (names := self._by_nfc.get(path)):
                found[path] = names[0]
                if len(names) > 1:
                    problems.add(describe_forms(path, names))
        problems.check()
        if self._look_up and len(found) < len(paths):
            missing = [path for path in paths if path not in found]
            there = {
                nfc(name): name for name in self._look_up([form for path in missing for form in {path, nfd(path)}])
            }
            found |= {path: there[path] for path in missing if path in there}
        return found


def describe_forms(path: str, names: Collection[str]) -> str:
    """The error of several files whose names look the same."""
    return (
        f"{len(names)} files are named {path!r} in different Unicode forms (NFC, NFD): they are probably copies of one "
        f"video; keep one of them, or rename them"
    )


def find_twins(names: Iterable[str]) -> list[tuple[str, str]]:
    """Find the files whose names differ from an earlier one in the extension only, each after that one."""
    first: dict[str, str] = {}
    pairs = [(first.setdefault(without_extension(name), name), name) for name in names]
    return [(one, other) for one, other in pairs if one != other]
