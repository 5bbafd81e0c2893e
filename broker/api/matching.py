# SPDX-License-Identifier: Apache-2.0
"""Changes of what somebody else may have changed meanwhile: ``ETag`` on reads, ``If-Match`` on changes.

    return json_response(shown, etag=etag_of(shown))       # the read
    check_match(call, etag_of(now), required=True)         # in the effect of the change

The check belongs into the effect: there it sees the state that the change would overwrite, and a repetition
under the same Idempotency-Key gets its first answer, although the state has changed by it.

Who needs what:

- Nothing, because the body signs what it is about: approving an organisation (``subject_digest``), messages
  of a negotiation, amendments, notices, votes, envelopes, descriptors and certificates (their owner's key is
  the only writer), approving a proposal. A second precondition could only disagree with the first.
- Nothing, because it stops or ends something, whatever its state: stopping a run, disabling a person, ending
  an auditor's access or a grant. Halting a contract, ending a negotiation, suspending an organisation and
  refusing a proposal take ``If-Match`` (412), since their reads have a tag; without one they act at once:
  nobody may be kept from stopping.
- ``If-Match``, always (428 without it): whatever overwrites what somebody else set. Nothing in ``v1`` does
  now: what decides is added, signed, or proposed for a second person. `required` is for the first that will.

An ``If-Match`` is not signed. Who could strip it is told 428 where it is needed; who could change it is told
412, or does what the sender's own signature allows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.errors import IfMatchError, IfMatchMissingError
from policies.encoding import digest_of

if TYPE_CHECKING:
    from broker.api.signed import Call
    from policies.encoding import Json

__all__ = ["check_match", "etag_of"]

_HEX: Final = 32


def etag_of(state: Json) -> str:
    """The strong tag of a state, from whatever must not have changed."""
    return f'"{digest_of(state).removeprefix("sha256:")[:_HEX]}"'


def check_match(call: Call, now: str, *, required: bool = False) -> None:
    """Returns if the caller saw the state that there is now, or did not say which and need not.

    Args:
        call: With its ``If-Match``.
        now: Tag of the state that the change is about.
        required: Whether a change without ``If-Match`` is refused.

    Raises:
        IfMatchMissingError: None, and one is required.
        IfMatchError: It names another state.
    """
    given = call.if_match
    if given is None:
        if required:
            raise IfMatchMissingError(
                need="If-Match with the ETag of what you saw",
                found="none",
                remedy="read it again and send its ETag along",
            )
        return
    named = {one.strip() for one in given.split(",")}
    if "*" not in named and now not in named:
        raise IfMatchError(
            need="the state that you saw",
            found="another one: somebody changed it meanwhile",
            remedy="read it again, then decide again",
        )
