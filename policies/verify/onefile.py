# SPDX-License-Identifier: Apache-2.0
"""The verifier as one file: ``python -m policies.verify.onefile OUT.pyz``.

``python3 OUT.pyz BUNDLE --policy FILE`` runs it, in any environment that has cryptography and rfc8785. The
file is a zip behind a ``#!`` line, with the package `policies` and nothing else. The same sources give the
same bytes: names are sorted, nothing is compressed, one fixed date, so an auditor can build it again and
compare.
"""

from __future__ import annotations

import io
import sys
import zipfile
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from policies.verify.toolid import tool_digest, tool_version, walk

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["build", "main"]

_SHEBANG = b"#!/usr/bin/env python3\n"
_DATE = (1980, 1, 1, 0, 0, 0)
_MODE = 0o644 << 16
_MAIN = b"""# SPDX-License-Identifier: Apache-2.0
import sys

from policies.verify import main

sys.exit(main())
"""


def build() -> bytes:
    """Bytes of the file."""
    content = {"__main__.py": _MAIN, "policies/VERSION": tool_version().encode("ascii") + b"\n"}
    content |= dict(walk(files("policies"), "policies"))
    out = io.BytesIO()
    out.write(_SHEBANG)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, data in sorted(content.items()):
            head = zipfile.ZipInfo(name, _DATE)
            head.create_system, head.external_attr = 3, _MODE
            archive.writestr(head, data)
    return out.getvalue()


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the file that the only argument names."""
    words = list(sys.argv[1:] if argv is None else argv)
    if len(words) != 1:
        print("usage: python -m policies.verify.onefile OUT.pyz", file=sys.stderr)  # noqa: T201  its output
        return 2
    path = Path(words[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(build())
    path.chmod(0o755)
    print(f"{path} {tool_version()} {tool_digest()}", file=sys.stderr)  # noqa: T201  its output
    return 0


if __name__ == "__main__":
    sys.exit(main())
