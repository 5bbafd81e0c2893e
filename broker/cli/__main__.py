# SPDX-License-Identifier: Apache-2.0
"""``python -m broker.cli``: the same as the installed command."""

from __future__ import annotations

from broker.cli import main

if __name__ == "__main__":
    main()
