"""The files below a root: those that may be videos, and counts of what was passed over, as notes for people."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from t3d_core.datasets.left_behind import shown_name
from t3d_core.datasets.video_files import (
    ARCHIVE_EXTENSIONS,
    PICTURE_EXTENSIONS,
    UNREAD_VIDEO_EXTENSIONS,
    VIDEO_EXTENSIONS,
    extension_of,
    is_no_video,
)

_MAX_NAMES = 5
# What is counted together, how it is called, and what a person can do about it.
_KINDS = (
    (UNREAD_VIDEO_EXTENSIONS, "possible videos", "convert them, for example to .mp4, or name them in a CSV"),
    (PICTURE_EXTENSIONS, "pictures", "folders of frames are not read, so make each of them a video"),
    (ARCHIVE_EXTENSIONS, "archives and arrays", "unpack them, or write their frames as videos"),
)


@dataclass
class FoundFiles:
    """What one listing of a root finds.

    Attributes:
        sizes: name below the root -> size in bytes, of all files that may be videos.
        num_by_extension: number of files by extension, in lower case with its point; empty for names without.
        num_left_behind: number of files and folders by name that systems and tools left behind.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    num_by_extension: Counter[str] = field(default_factory=Counter)
    num_left_behind: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, size: Callable[[], int]) -> None:
        """Count a file; its size is asked for only if it may be a video."""
        extension = extension_of(name)
        self.num_by_extension[extension] += 1
        if not is_no_video(extension):
            self.sizes[name] = size()

    def add_left_behind(self, name: str) -> None:
        """Count what was left behind, by its name without folders."""
        self.num_left_behind[shown_name(name)] += 1

    def note_of_left_behind(self) -> tuple[str, ...]:
        """The note, if there is any, on what was passed over with all that it holds."""
        if not self.num_left_behind:
            return ()
        names = f"{self.num_left_behind.total():,} ({_most_frequent(self.num_left_behind)})"
        return (f"hidden files and folders, and those of systems and tools, passed over: {names}",)

    def notes_by_extension(self) -> tuple[str, ...]:
        """The notes on files that a search by extension does not look at, kind by kind."""
        others = Counter(self.num_by_extension)
        for extension in VIDEO_EXTENSIONS:
            others.pop(extension, None)
        notes = []
        for extensions, kind, cure in _KINDS:
            counts = Counter({name: others.pop(name) for name in extensions if name in others})
            notes += _note(counts, kind, f": {cure}")
        return (*notes, *_note(others, "other files", ""))

    def describe(self) -> str:
        """All extensions with their numbers of files, for an error that no video was found."""
        return _most_frequent(self.num_by_extension) if self.num_by_extension else "no files at all"


def _note(counts: Counter[str], kind: str, cure: str) -> list[str]:
    return [f"{kind} not looked at: {counts.total():,} ({_most_frequent(counts)}){cure}"] if counts else []


def _most_frequent(counts: Counter[str]) -> str:
    shown = [f"{count:,} {name or 'without extension'}" for name, count in counts.most_common(_MAX_NAMES)]
    return ", ".join([*shown, "..."] if len(counts) > _MAX_NAMES else shown)
