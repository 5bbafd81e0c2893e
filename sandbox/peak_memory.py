# SPDX-License-Identifier: Apache-2.0
"""How much memory of this process something needs at its peak, above what was there before it.

Resident memory as Linux counts it: interpreter, libraries and buffers of C code are in it. Use a process for
each measurement: what one thing freed, the next one takes without growing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["peak_mb"]

_PROC: Final = Path("/proc/self")


def peak_mb(step: Callable[[], object]) -> float | None:
    """Megabytes (2^20 bytes) that a call needs above what is there before it; None where nothing says so."""
    if not (_PROC / "clear_refs").exists():
        return None
    (_PROC / "clear_refs").write_text("5", encoding="ascii")  # the mark starts again at what is there now
    before = _status_mb("VmRSS")
    step()
    return round(_status_mb("VmHWM") - before, 1)


def _status_mb(name: str) -> float:
    for line in (_PROC / "status").read_text(encoding="ascii").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    return 0.0
