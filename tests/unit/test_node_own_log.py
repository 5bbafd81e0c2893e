# SPDX-License-Identifier: Apache-2.0
"""A member's own bundle comes whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from client.errors import BundleFileError, PeerUnreachableError
from client.own_log import take_bundle

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Broker:
    """A broker that sends a few bytes, or fails after the first ones."""

    failure: BaseException | None = None

    def download(self, path: str, into: Any, *, most_bytes: int) -> str:
        assert path == "/audit/bundle?grade=member"
        into.write(b"PK")
        if self.failure is not None:
            raise self.failure
        into.write(b"\3\4")
        return "sha256:" + "0" * 64


@dataclass
class Member:
    client: Broker


def test_the_file_is_there_whole_and_its_owners_alone(tmp_path: Path) -> None:
    out = tmp_path / "mine.zip"
    answer = take_bundle(Member(Broker()), out)  # type: ignore[arg-type]
    assert out.read_bytes() == b"PK\3\4"
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert answer.data["size_bytes"] == 4
    with pytest.raises(BundleFileError):
        take_bundle(Member(Broker()), out)  # type: ignore[arg-type]
    assert out.read_bytes() == b"PK\3\4"


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), BundleFileError),
        (PeerUnreachableError(need="an answer", found="half of one", remedy="again"), PeerUnreachableError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_what_breaks_off_leaves_nothing(tmp_path: Path, failure, told) -> None:
    with pytest.raises(told):
        take_bundle(Member(Broker(failure)), tmp_path / "mine.zip")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleFileError, match="nowhere"):
        take_bundle(Member(Broker()), tmp_path / "nowhere" / "mine.zip")  # type: ignore[arg-type]
