# SPDX-License-Identifier: Apache-2.0
"""``python -m client.cli``: the same as the installed command."""

from __future__ import annotations

from client.cli import main

if __name__ == "__main__":
    main()
