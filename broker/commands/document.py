# SPDX-License-Identifier: Apache-2.0
"""``iriai-broker openapi``: the API's document, from the code that is installed; no broker is asked."""

from __future__ import annotations

from broker.answers import Result
from broker.api.document import document, text_of
from broker.app import bare

__all__ = ["openapi"]


def openapi() -> Result:
    """The OpenAPI document, byte for byte as docs/reference/openapi.json holds it."""
    made = document(bare())
    return Result(data=made, plain_output=text_of(made).removesuffix("\n"))
