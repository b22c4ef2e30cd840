"""Names of the files below a data set's root become the one that an annotation means.

Official lists name a video as its authors shipped it (`Class/v_Class_g01_c01.avi`, a YouTube id); users keep it in
other folders and re-encoded. So a file is known by its stem: its name without folders and extension.
"""

from collections.abc import Collection

from t3d_core.errors import UserError

VIDEO_EXTENSIONS = tuple(
    ".3gp .asf .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogg .ogv .ts .webm .wmv".split()
)


def is_video_name(name: str) -> bool:
    """Whether a file, named with or without its folders, is taken for a video.

    Names with a leading dot are not: macOS leaves "._clip.mp4" next to "clip.mp4" on other disks.
    """
    return name.lower().endswith(VIDEO_EXTENSIONS) and not name.rpartition("/")[2].startswith(".")


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
        file_names: POSIX paths below the root of all video files there are.
        is_case_sensitive: False finds `v_HandStandPushups_g01_c01` also as `v_HandstandPushups_g01_c01`.
    """

    def __init__(self, file_names: Collection[str], *, is_case_sensitive: bool = True) -> None:
        self._is_case_sensitive = is_case_sensitive
        # Two dictionaries, as a list for each of half a million files would double the memory.
        self._first: dict[str, str] = {}
        self._others: dict[str, list[str]] = {}
        for name in file_names:
            stem = self._key(stem_of(name))
            if stem in self._first:
                self._others.setdefault(stem, []).append(name)
            else:
                self._first[stem] = name

    def find(self, stem: str, *, expected: str) -> str | None:
        """Give the path of the file with this stem, or None where there is none.

        Args:
            stem: Name of the video without folders and extension.
            expected: Where the video lies in the official layout; of several files with the stem this one is taken.

        Raises:
            UserError: Several files have the stem and none is the expected one: which is meant is unknown.
        """
        first = self._first.get(self._key(stem))
        others = self._others.get(self._key(stem), ())
        if not others or first == expected:
            return first
        if expected in others:
            return expected
        raise UserError(
            f"{1 + len(others)} files are named {stem!r}, among them {first!r} and {others[0]!r}, and none is "
            f"{expected!r}: keep one of them, or give the folder of one set of files as root"
        )

    def _key(self, stem: str) -> str:
        return stem if self._is_case_sensitive else stem.lower()
