# SPDX-License-Identifier: Apache-2.0
"""A member's own view of the log, as one file that `iriai-verify --grade member` reads without a broker.

Its entries are everybody's; envelopes, decisions, confidential values and receipts are this node's own. The
file is written beside its name first: it is there whole or not at all.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from client.answers import Answer
from client.clock import SystemClock
from client.errors import BundleFileError
from policies.limits import BUNDLE_BYTES
from policies.log.bundle_head import look

if TYPE_CHECKING:
    from pathlib import Path

    from client.membership import Member

__all__ = ["take_bundle"]


def take_bundle(member: Member, out: Path) -> Answer:
    """Fetches the bundle.

    Raises:
        BundleFileError: There is a file of that name, or the disk or the folder does not take it.
        RemoteRefusalError, PeerUnreachableError, PeerAnswerError: No whole bundle came.
    """
    if out.exists():
        raise BundleFileError(need=f"no file at {out}", found="one", remedy="name a new file")
    part = out.with_name(f".{out.name}.part")
    try:
        with part.open("xb") as file:
            part.chmod(0o600)
            name = member.client.download("/audit/bundle?grade=member", file, most_bytes=BUNDLE_BYTES)
            file.flush()
            os.fsync(file.fileno())
        part.rename(out)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise BundleFileError(
            need=f"a file that can be written at {out}",
            found=error.strerror or type(error).__name__,
            remedy="make room, or name another folder",
        ) from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    head, now_ms = look(out), SystemClock().now_ms()
    data = {"file": str(out), "digest": name, "size_bytes": out.stat().st_size}
    return Answer(
        data=data | ({} if head is None else {"head": head.to_json(now_ms)}),
        text=(
            f"bundle       {out}  {name}",
            *(() if head is None else head.words(now_ms, "iriai-node witness status names who is missing")),
            f"next: iriai-verify {out} --policy POLICY --grade member",
        ),
    )
