"""Where relative paths lead."""

import os
from pathlib import Path

import pytest

from pipelines.runtime.paths import base_folder, input_path, output_path
from t3d_core.errors import UserError


def test_relative_paths_start_where_the_user_stands_or_at_t3d_home(tmp_path, monkeypatch):
    monkeypatch.delenv("T3D_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    assert base_folder() == tmp_path
    home = tmp_path / "storage"
    home.mkdir()
    monkeypatch.setenv("T3D_HOME", str(home))
    assert base_folder() == home
    (home / "clips").mkdir()
    assert input_path(Path("clips")) == home / "clips"
    (tmp_path / "clips").mkdir()  # what was submitted with the job comes first
    assert input_path(Path("clips")) == tmp_path / "clips"


def test_a_tilde_in_t3d_home_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("T3D_HOME", "~/storage")
    (tmp_path / "storage").mkdir()
    assert base_folder() == tmp_path / "storage"


def test_a_home_that_is_not_there_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("T3D_HOME", str(tmp_path / "not mounted"))
    with pytest.raises(ValueError, match=r"T3D_HOME .*not mounted is not a folder: mount the shared storage"):
        base_folder()


def test_what_is_in_the_way_of_an_output_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/runs cannot be a folder, because .*/file is a file: give another"):
        output_path(Path("file/runs"))
    assert output_path(Path("new/runs")) == tmp_path / "new" / "runs"
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match=r"runs cannot be written: this user may not write to .*; give another folder"):
        output_path(Path("runs"))
