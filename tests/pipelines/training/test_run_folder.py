from pipelines.training.run_folder import read_unreadable


def test_lines_of_unreadable_clips_that_were_cut_short_are_passed_over(tmp_path):
    file = tmp_path / "unreadable.jsonl"
    file.write_text('{"video_id": "a", "reason": "gone"}\n{"video_i\n{"video_id": "b", "reason": "gone"}\n')
    assert read_unreadable(file) == ["a", "b"]
