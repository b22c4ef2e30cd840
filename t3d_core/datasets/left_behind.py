"""Names of files and folders that operating systems, storage boxes and tools leave among data: they are no data.

Notebooks leave `.ipynb_checkpoints`, file managers `.Trash-1000`, zip files of a Mac `__MACOSX` and `._clip.mp4`,
Synology `@eaDir`, all with copies of videos or files that are called like them.
"""

_NAMES = frozenset(
    name.lower()
    for name in (
        # Synology, QNAP, NetApp
        *("@eaDir", "#recycle", "#snapshot", "@tmp", "@SynoResource", "@Recycle", "@Recently-Snapshot", "~snapshot"),
        # Windows
        *("$RECYCLE.BIN", "System Volume Information", "Thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini"),
        *("FOUND.000", "LOST.DIR", "WPSettings.dat"),
        # macOS and its file servers
        *("__MACOSX", "Network Trash Folder", "Temporary Items", "TheVolumeSettingsFolder", "Icon\r"),
        # Linux, Python, Spark
        *("lost+found", "aquota.user", "aquota.group", "__pycache__", "_SUCCESS", "_temporary"),
    )
)
_ENDINGS = (":zone.identifier", "_$folder$")  # Windows' marks of downloads, Hadoop's marks of folders


def is_left_behind(name: str) -> bool:
    """Whether a file or folder, by its name without folders, was left by a system or tool."""
    if name.startswith((".", "~$")):
        return True
    lower = name.lower()
    return lower in _NAMES or lower.endswith(_ENDINGS)


def first_left_behind(path: str) -> str | None:
    """Give the path down to its first part that was left behind, `run/@eaDir` of `run/@eaDir/a.mp4`; None without."""
    parts = path.split("/")
    for number, part in enumerate(parts, start=1):
        if is_left_behind(part):
            return "/".join(parts[:number])
    return None


def shown_name(name: str) -> str:
    """Give the name under which things left behind are counted: `._*` for the twin that a Mac writes of every file."""
    for start in ("._", "~$", ".nfs", ".Trash-"):
        if name.startswith(start):
            return f"{start}*"
    return next((f"*{ending}" for ending in _ENDINGS if name.lower().endswith(ending)), name)
