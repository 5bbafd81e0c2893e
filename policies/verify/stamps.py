# SPDX-License-Identifier: Apache-2.0
"""Step 4, time stamps of others. AUD-093: that one is there, and the command that checks it.

A token (RFC 3161) is over the text of a checkpoint's note, its three lines. This program holds no key of a
time stamping authority and claims nothing about tokens: OpenSSL checks them, with the authority's certificate
from your own hand.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from policies.verify.report import Report

__all__ = ["check_stamps", "stamp_command"]

_NAME = re.compile(r"timestamps/(0|[1-9][0-9]{0,15})\.tsr\Z", re.ASCII)


def stamp_command(size: str) -> str:
    """How to check the token of a size by hand: the three lines come from ``checkpoints.log``."""
    return (
        f"unzip -p BUNDLE timestamps/{size}.tsr > {size}.tsr; unzip -p BUNDLE checkpoints.log | jq -r .note"
        f" | grep -x -B1 -A1 {size} | head -n 3 > {size}.txt;"
        f" openssl ts -verify -data {size}.txt -in {size}.tsr -CAfile TSA.pem"
    )


def check_stamps(names: Iterable[str], report: Report) -> None:
    """AUD-093 for each token among the names of a bundle's files."""
    for name in names:
        found = _NAME.match(name)
        if found is not None:
            report.add("AUD-093", stamp_command(found[1]))
