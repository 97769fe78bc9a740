"""`unitctl cluster init`: whose the files are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unitctl.founding import found


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone gives files away")
def test_what_root_makes_belongs_to_the_user_of_the_state_directory(tmp_path: Path) -> None:
    state = tmp_path / "master"
    state.mkdir(mode=0o700)
    os.chown(state, 4321, 4321)
    made = found(state / "tls", "test", ("127.0.0.1",), 4001, {"HOME": str(tmp_path / "home")})
    ours = [made.directory, *made.directory.iterdir()]
    assert len(ours) == 5
    assert {(path.stat().st_uid, path.stat().st_mode & 0o077) for path in ours} == {(4321, 0)}
    assert {path.stat().st_uid for path in (made.admin_directory, *made.admin_directory.iterdir())} == {0}
