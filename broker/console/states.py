# SPDX-License-Identifier: Apache-2.0
"""State words as people read them: each with a text, and with a sign that does not depend on colour.

A state that is not here is shown as its word, like a code; `SHOWN` is what a reader's eye should learn.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from broker.console.values import T

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SHOWN", "Sign", "sign_of"]

GOOD, BUSY, WAIT, BAD, OFF = "good", "busy", "wait", "bad", "off"


@dataclass(frozen=True, slots=True)
class Sign:
    """A text and its tone: ``good`` ●, ``busy`` ◐, ``wait`` ◌, ``bad`` ▲, ``off`` ■."""

    text: T
    tone: str

    @property
    def shape(self) -> str:
        """The shape beside the text."""
        return {GOOD: "●", BUSY: "◐", WAIT: "◌", BAD: "▲", OFF: "■"}[self.tone]


SHOWN: Final[Mapping[str, Sign]] = MappingProxyType(
    {
        # nodes and members
        "never-seen": Sign(T("never seen"), WAIT),
        "online": Sign(T("online"), GOOD),
        "stale": Sign(T("stale"), BAD),
        "paused": Sign(T("paused by its owner"), OFF),
        "revoked": Sign(T("revoked"), OFF),
        "waiting-approval": Sign(T("waits for approval"), WAIT),
        "active": Sign(T("active"), GOOD),
        "suspended": Sign(T("suspended"), BAD),
        "disabled": Sign(T("disabled"), OFF),
        # invitations, proposals
        "open": Sign(T("open"), WAIT),
        "used": Sign(T("used"), GOOD),
        "expired": Sign(T("expired"), OFF),
        "proposed": Sign(T("waits for a second person"), WAIT),
        "approved": Sign(T("approved"), GOOD),
        "refused": Sign(T("refused"), BAD),
        "void": Sign(T("void: the world changed"), OFF),
        # contracts and negotiations
        "offered": Sign(T("offered"), WAIT),
        "countered": Sign(T("countered"), BUSY),
        "signed": Sign(T("signed by all, not active yet"), BUSY),
        "finalized": Sign(T("in force"), GOOD),
        "pending": Sign(T("final, begins later"), WAIT),
        "no-effect": Sign(T("never took effect"), OFF),
        "terminated": Sign(T("ended"), OFF),
        "superseded": Sign(T("superseded"), OFF),
        "halted": Sign(T("halted"), BAD),
        # what changes from one text to another
        "tighter": Sign(T("tighter"), GOOD),
        "looser": Sign(T("looser"), BAD),
        "changed": Sign(T("another thing"), BUSY),
        "text": Sign(T("words only"), OFF),
        # runs and rounds
        "running": Sign(T("running"), GOOD),
        "closed": Sign(T("closed"), OFF),
        "completed": Sign(T("completed"), GOOD),
        "stopping": Sign(T("stopping"), BUSY),
        "stopped": Sign(T("stopped"), OFF),
        "failed": Sign(T("failed"), BAD),
        "judging": Sign(T("judged by the silos"), BUSY),
        "held": Sign(T("stands still"), BAD),
        "training": Sign(T("members train"), BUSY),
        "aggregated": Sign(T("a model came of it"), GOOD),
        "abandoned": Sign(T("no model came of it"), BAD),
        "accepted": Sign(T("in the model"), GOOD),
        "unused": Sign(T("held, in no model"), BUSY),
        "declined": Sign(T("said no"), BAD),
        "withdrawn": Sign(T("withdrawn"), OFF),
        "silent": Sign(T("did not answer"), WAIT),
        "unasked": Sign(T("spared"), OFF),
        "offline": Sign(T("offline"), BAD),
        "waiting": Sign(T("waits at the gate"), WAIT),
        "allow": Sign(T("allowed"), GOOD),
        "refuse": Sign(T("refused"), BAD),
        "pass": Sign(T("passed"), GOOD),
        "fail": Sign(T("failed"), BAD),
        "satisfied": Sign(T("holds"), GOOD),
        "violated": Sign(T("does not hold"), BAD),
        "done": Sign(T("done"), GOOD),
        "fresh": Sign(T("fresh"), GOOD),
        "heard": Sign(T("heard"), GOOD),
        "missing": Sign(T("missing"), BAD),
        "error": Sign(T("broken"), BAD),
        # releases and verdicts
        "candidate": Sign(T("waits at the gate"), WAIT),
        "released": Sign(T("released"), GOOD),
        "discarded": Sign(T("discarded"), OFF),
        "approve": Sign(T("approves"), GOOD),
        "veto": Sign(T("vetoes"), BAD),
        "allowed": Sign(T("allowed"), GOOD),
        "denied": Sign(T("denied"), BAD),
        # data and models
        "admitted": Sign(T("admitted"), GOOD),
        "unverified": Sign(T("no certificate in force"), OFF),
        "private": Sign(T("private"), GOOD),
        "not-private": Sign(T("not private"), BAD),
        # checks and findings
        "ok": Sign(T("in order"), GOOD),
        "warning": Sign(T("look at it"), BUSY),
        "wrong": Sign(T("wrong"), BAD),
        "waits": Sign(T("waits for you"), WAIT),
        "unknown": Sign(T("unknown"), WAIT),
        "yes": Sign(T("yes"), GOOD),
        "no": Sign(T("no"), OFF),
        "frozen": Sign(T("frozen"), BAD),
        "growing": Sign(T("growing"), GOOD),
    }
)


def sign_of(word: str) -> Sign | None:
    """The sign of a state word, or None for a word that is shown as it is."""
    return SHOWN.get(word)
