# SPDX-License-Identifier: Apache-2.0
"""What the prover finds about two texts, looked for beside the event loop and kept while the process lives.

    proofs.find(old, new)       the verdict, or what kept it from being found; None while it is looked for

- A search takes seconds and is asked for by a page, so the first to ask starts it and is told to come back.
- Texts never change, so what was found stays right. The newest `_KEPT` are kept.
- A search that fails is kept as its error: asking again would fail again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from broker.apart import apart
from policies.contract.amendment import prove
from policies.errors import IriaiError

if TYPE_CHECKING:
    from policies.contract import Contract
    from policies.contract.amendment import Verdict

__all__ = ["Proofs"]

_KEPT: Final = 64
_AT_ONCE: Final = 8
_Pair = tuple[str, str]


class Proofs:
    """See the module. Belongs to the event loop's thread."""

    def __init__(self) -> None:
        self._found: OrderedDict[_Pair, Verdict | IriaiError] = OrderedDict()
        self._sought: dict[_Pair, asyncio.Task[None]] = {}

    def find(self, old: Contract, new: Contract) -> Verdict | IriaiError | None:
        """What is known about these two; starts the search if nothing is."""
        pair = (old.digest, new.digest)
        if pair in self._found:
            return self._found[pair]
        if pair not in self._sought and len(self._sought) < _AT_ONCE:
            self._sought[pair] = asyncio.get_running_loop().create_task(self._search(old, new))
        return None

    async def settled(self) -> None:
        """Returns once nothing is looked for any more."""
        await asyncio.gather(*self._sought.values())

    async def _search(self, old: Contract, new: Contract) -> None:
        pair = (old.digest, new.digest)
        try:
            self._found[pair] = await apart(lambda: prove(old, new))
        except IriaiError as error:
            self._found[pair] = error
        finally:
            self._sought.pop(pair, None)
        while len(self._found) > _KEPT:
            self._found.popitem(last=False)
