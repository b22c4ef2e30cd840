"""Lines of videos survive a kill, and the last line of a video counts."""

from pipelines.predict.video_lines import VideoLines


def lines_of(path):
    return VideoLines(path, is_done=lambda row: row["good"])


def test_the_last_line_of_a_video_counts_and_keeps_its_first_place(tmp_path):
    lines = lines_of(tmp_path / "lines.jsonl")
    assert list(lines.last_rows()) == []
    for video, good in (("a", False), ("b", True), ("a", True), ("c", False)):
        lines.append({"video": video, "good": good})
    for read in (lines, lines_of(tmp_path / "lines.jsonl")):
        assert [row["video"] for row in read.last_rows() if row["good"]] == ["a", "b"]
        assert read.done == {"a", "b"}


def test_a_line_in_part_is_cut_off_and_names_keep_their_bytes(tmp_path):
    path = tmp_path / "lines.jsonl"
    lines_of(path).append({"video": "a\udcff\n", "good": True})
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"video": "b", "go')
    lines = lines_of(path)
    assert path.read_bytes() == whole
    assert [row["video"] for row in lines.last_rows()] == ["a\udcff\n"]


def test_a_video_whose_last_line_is_not_the_wanted_one_is_not_done(tmp_path):
    lines = lines_of(tmp_path / "lines.jsonl")
    for video, good in (("a", True), ("b", True), ("a", False)):
        lines.append({"video": video, "good": good})
    assert lines.done == lines_of(tmp_path / "lines.jsonl").done == {"b"}
