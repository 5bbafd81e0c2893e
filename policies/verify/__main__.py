# SPDX-License-Identifier: Apache-2.0
"""``python -m policies.verify``: the same as ``iriai-verify``."""

from __future__ import annotations

import sys

from policies.verify.cli import main

if __name__ == "__main__":
    sys.exit(main())
