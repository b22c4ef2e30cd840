"""The commit of the code."""

import subprocess

from pipelines.tracking.commit import git_commit


def git(folder, *arguments):
    identity = ["-c", "user.name=me", "-c", "user.email=me@here"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_the_commit_is_that_of_the_folder_and_says_when_files_were_changed(tmp_path, monkeypatch):
    monkeypatch.delenv("T3D_GIT_COMMIT", raising=False)
    assert git_commit(tmp_path) is None
    git(tmp_path, "init")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-m", "first")
    clean = git_commit(tmp_path)
    assert clean is not None
    assert len(clean) == 40
    (tmp_path / "a").write_text("2")
    assert git_commit(tmp_path) == f"{clean}-dirty"


def test_code_without_git_is_told_its_commit(tmp_path, monkeypatch):
    monkeypatch.delenv("T3D_GIT_COMMIT", raising=False)
    (tmp_path / ".commit").write_text("\n")  # the image was built without one
    assert git_commit(tmp_path) is None
    (tmp_path / ".commit").write_text("of the image\n")
    assert git_commit(tmp_path) == "of the image"
    monkeypatch.setenv("T3D_GIT_COMMIT", "abc")
    assert git_commit(tmp_path) == "abc"
