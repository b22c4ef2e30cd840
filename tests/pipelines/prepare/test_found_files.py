"""What a listing passes over is counted and described."""

from pipelines.prepare.found_files import FoundFiles


def found(*names, left_behind=()):
    files = FoundFiles()
    for name in names:
        files.add(name, lambda: 7)
    for name in left_behind:
        files.add_left_behind(name)
    return files


def test_the_size_is_asked_for_only_of_files_that_may_be_videos():
    assert found("run/a.mp4", "run/b", "c.clip", "d.txt", "e.jpg").sizes == {"run/a.mp4": 7, "run/b": 7, "c.clip": 7}


def test_videos_alone_need_no_note():
    files = found("run/a.mp4", "run/b.GIF")
    assert files.notes_by_extension() == files.note_of_left_behind() == ()


def test_what_is_not_looked_at_is_counted_kind_by_kind_with_what_helps():
    files = found("a.mp4", "b.swf", "c.jpg", "d.JPG", "e.png", "f.zip", "g.txt", "h")
    assert files.notes_by_extension() == (
        "possible videos not looked at: 1 (1 .swf): convert them, for example to .mp4, or name them in a CSV",
        "pictures not looked at: 3 (2 .jpg, 1 .png): folders of frames are not read, so make each of them a video",
        "archives and arrays not looked at: 1 (1 .zip): unpack them, or write their frames as videos",
        "other files not looked at: 2 (1 .txt, 1 without extension)",
    )


def test_the_most_frequent_names_are_shown():
    names = [f"{number}.x{extension}" for extension in range(7) for number in range(extension + 1)]
    [note] = found(*names).notes_by_extension()
    assert note == "other files not looked at: 28 (7 .x6, 6 .x5, 5 .x4, 4 .x3, 3 .x2, ...)"


def test_what_was_left_behind_is_one_note():
    assert found(left_behind=["._a.mp4", "._b.mp4", "@eaDir"]).note_of_left_behind() == (
        "hidden files and folders, and those of systems and tools, passed over: 3 (2 ._*, 1 @eaDir)",
    )


def test_an_error_describes_what_is_there():
    assert found("a.jpg", "b.jpg", "c").describe() == "2 .jpg, 1 without extension"
    assert found().describe() == "no files at all"
