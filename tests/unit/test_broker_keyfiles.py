# SPDX-License-Identifier: Apache-2.0
"""Key files: written whole with mode 0600, read only if nobody else may read them."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from broker.clock import SystemClock
from broker.entropy import SystemEntropy
from broker.keyfiles import (
    KeyFileError,
    KeyFileExistsError,
    KeyFileModeError,
    load_key,
    make_key,
    read_private,
    replace_file,
    write_private,
)
from policies.errors import WeakKeyError
from tests.logsim import SimEntropy

if TYPE_CHECKING:
    from pathlib import Path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_made_key_comes_back_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "log.key"
    made = make_key(path, SimEntropy())
    assert load_key(path).public == made.public
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)
    assert sorted(one.name for one in path.parent.iterdir()) == ["log.key"]


def test_the_mode_holds_under_any_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_private(tmp_path / "a.key", b"secret")
    finally:
        os.umask(before)
    assert mode(tmp_path / "a.key") == 0o600


@pytest.mark.parametrize("wrong", [0o640, 0o604, 0o660, 0o606, 0o601, 0o610])
def test_a_key_that_others_may_open_is_refused(tmp_path: Path, wrong: int) -> None:
    path = tmp_path / "a.key"
    make_key(path, SimEntropy())
    path.chmod(wrong)
    with pytest.raises(KeyFileModeError) as refused:
        load_key(path)
    assert refused.value.code == "identity.key-file-mode"
    assert refused.value.exit_code == 6
    assert f"{wrong:04o}" in str(refused.value)


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    made = make_key(path, SimEntropy(b"one"))
    with pytest.raises(KeyFileExistsError):
        make_key(path, SimEntropy(b"two"))
    assert load_key(path).public == made.public


def test_links_folders_and_missing_files_are_refused(tmp_path: Path) -> None:
    make_key(tmp_path / "a.key", SimEntropy())
    (tmp_path / "link.key").symlink_to(tmp_path / "a.key")
    (tmp_path / "folder.key").mkdir(mode=0o700)
    for name in ("link.key", "folder.key", "none.key"):
        with pytest.raises(KeyFileError):
            read_private(tmp_path / name)
    with pytest.raises(KeyFileExistsError):
        write_private(tmp_path / "link.key", b"x")


def test_another_kind_of_content_is_no_key(tmp_path: Path) -> None:
    write_private(tmp_path / "a.key", b"not a key")
    with pytest.raises(WeakKeyError):
        load_key(tmp_path / "a.key")


def test_a_failed_replacement_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    replace_file(path, b"old")
    path.unlink()
    path.mkdir()
    (path / "child").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        replace_file(path, b"new")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file"]


def test_clock_and_entropy_of_the_system_give_what_they_promise() -> None:
    clock, entropy = SystemClock(), SystemEntropy()
    assert clock.now_ms() > 1_700_000_000_000
    assert len(entropy.token_bytes(32)) == 32
    assert entropy.token_bytes(32) != entropy.token_bytes(32)
