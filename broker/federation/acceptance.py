# SPDX-License-Identifier: Apache-2.0
"""Whether what a node sent is the reply that was asked for. The same for every engine.

`accept`, in this order:
1. the header is signed by the node's own key, as a reply, in canonical bytes;
2. it answers this request: slot, node and the digest of the request;
3. a refusal has no tensor; a good reply has the tensor that the request expects (`Expect.fits`), or none;
4. the parts are as long as the header says, each of whole elements;
5. their SHA-256 is the header's.

Nothing here raises for anything that a node may send.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from broker.federation.engine import Failure, Reply, TensorHandle
from policies.errors import EncodingError, SignatureInvalidError
from policies.exchange import check_answers, digest_of_parts, open_reply

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from broker.federation.engine import Expect, FilePart, Request
    from policies.exchange import RequestHeader, TensorSpec

__all__ = ["accept"]

MALFORMED = "engine.reply-malformed"


def accept(
    request: Request,
    asked: RequestHeader,
    *,
    raw: bytes,
    parts: Sequence[memoryview | FilePart],
    node_key: bytes,
) -> Reply | Failure:
    """The reply if all five checks hold, else the failure ``engine.reply-malformed``.

    Then the parts are released.

    Args:
        request: What was sent.
        asked: Its header, parsed.
        raw: Header bytes of the reply.
        parts: The tensor's bytes in order; empty if none came.
        node_key: Ed25519 key with which the node is enrolled.
    """
    held: list[memoryview | FilePart] = list(parts)
    try:
        header = check_answers(open_reply(raw, node_key), asked)
        good = _form(header.tensor, request.expect if header.ok else None)
    except (EncodingError, SignatureInvalidError):
        good, header = False, None
    if header is None or not good or (header.tensor is None) != (not held):
        return _release(request, held)
    handle = None if header.tensor is None else TensorHandle(spec=header.tensor, parts=held)
    if handle is not None and not _bytes_hold(handle):
        return _release(request, held)
    return Reply(
        node=request.node,
        type=request.type,
        round=request.round,
        attempt=request.attempt,
        header=header,
        raw=raw,
        tensor=handle,
    )


def _form(spec: TensorSpec | None, expect: Expect | None) -> bool:
    if spec is None or expect is None:
        return spec is None and expect is None
    return expect.fits(spec)


def _bytes_hold(handle: TensorHandle) -> bool:
    """Checks 4 and 5; what lies in files is read once."""
    item = np.dtype(handle.dtype).itemsize
    sizes = []

    def counted() -> Iterator[memoryview]:
        for chunk in handle.chunks():
            sizes.append(len(chunk))
            yield chunk

    found = digest_of_parts(counted())
    whole = sum(sizes) == handle.spec.size_bytes and not any(size % item for size in sizes)
    return whole and found == handle.spec.digest


def _release(request: Request, parts: list[memoryview | FilePart]) -> Failure:
    for part in parts:
        if not isinstance(part, memoryview):
            part.path.unlink(missing_ok=True)
    return Failure(node=request.node, code=MALFORMED)
