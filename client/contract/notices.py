# SPDX-License-Identifier: Apache-2.0
"""Notices about this node's contracts as files of its own: what the guard knows of halts, exits and ends.

::

    contracts/<64 hex>/notices/taken.json       digests of the notices that the broker took, in its order
    contracts/<64 hex>/notices/<64 hex>.json    a notice (DSSE), by the digest of what was signed
    contracts/<64 hex>/notices/.heard           when the broker's notices were last taken over, in ms
    contracts/<64 hex>/notices/rejected/        what a person's restore put aside: it counts no more

- **The node stops itself first.** An own notice is a file here before anybody else hears of it, and counts
  from that moment, with no network. Until the broker has taken it, it comes after everything in ``taken``.
- **Nothing is believed unverified.** Every notice is opened under the key in force of its party, each time
  the folder has changed, by the code that the broker and the auditor run.
- **The past stays.** ``taken`` only grows: a broker that takes a notice back, or shows them in another order
  than before, is refused (`NoticesRewrittenError`).
- **A tightening goes on.** Its life begins with that of its predecessor, by everything that is known here
  about it: a halt stays one, whoever tightened what. What came too late for the broker to count binds here
  too.
- **Nothing is kept that cannot count.** An own notice is opened as its readers open it before it is a file.
- **Missing is unknown.** The folder is made when the contract becomes executed. Where it is missing, cannot
  be read or does not verify, nothing is known: the guard refuses until a person restores it
  (``iriai-node contract status --restore`` fetches it anew, and puts aside what does not verify).

    notices = Notices(shelf)
    notices.state(held, "2027-03-01T08:00:00Z")     # for the evaluator; None for what is not known
    notices.life(held)                              # or raises
"""

from __future__ import annotations

import contextlib
import fcntl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from client.errors import NoticesRewrittenError, NoticesUnknownError
from client.settings import write_durably
from policies.contract.entering import inherited
from policies.contract.errors import NoticeOrderError
from policies.contract.lifecycle import absorb, begin, contract_state, superseded, take
from policies.contract.notices import read_notice, seal_notice
from policies.contract.requests import ContractState
from policies.encoding import canonical, is_digest, parse
from policies.errors import EncodingError, IriaiError
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from client.contract.shelf import ContractShelf, Held
    from policies.contract.lifecycle import Life
    from policies.contract.notices import Notice
    from policies.identity import SigningKey

__all__ = ["Notices", "Rejected", "make_folder"]

FOLDER: Final = "notices"
_TAKEN: Final = "taken.json"
_HEARD: Final = ".heard"
_REJECTED: Final = "rejected"
_SCHEMA: Final = "iriai-notices-taken/1"
_RESTORE = "iriai-node contract status DIGEST --restore, once it is known why"

Stamp = tuple[tuple[str, ...], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A file that a person's restore put aside: its name, the kind of notice if it is one, and why."""

    file: str
    kind: str | None
    need: str
    found: str


def make_folder(contract_folder: Path) -> None:
    """Begins the notices of a contract that becomes executed; one that is there stays."""
    path = contract_folder / FOLDER / _TAKEN
    if not path.parent.exists():
        write_durably(path, _taken_bytes(()))


class Notices:
    """Notices of one node. What is read is kept until a file is added or ``taken`` changes."""

    def __init__(self, shelf: ContractShelf) -> None:
        self._shelf = shelf
        self._kept: dict[str, tuple[Stamp, Life, Life, tuple[Notice, ...]]] = {}

    # --- what the guard asks ---

    def state(self, held: Held, now: str) -> ContractState:
        """What the evaluator is told; facts that are not known are None, and refuse."""
        try:
            life = self.life(held, now)
        except IriaiError:
            return ContractState(
                now=now,
                executed=held.is_executed,
                halted=None,
                exited_parties=None,
                standing=None,
                rotated_keys=None,
            )
        return contract_state(held.contract, life, now)

    def life(self, held: Held, now: str | None = None) -> Life:
        """The life of a contract by everything that is known here, own notices that nobody took yet included.

        Args:
            held: The contract.
            now: A successor that is here and in force by then supersedes it; None: none does.

        Raises:
            NoticesUnknownError: The folder is missing, or does not verify.
        """
        life, _ = self._read(held)
        successor = None if now is None else self._successor(held, now)
        if successor is not None and not life.ended:
            return superseded(life, successor.contract.digest, successor.contract.term.effective)
        return life

    def unsent(self, held: Held) -> tuple[Notice, ...]:
        """Own notices that the broker has not taken, in the order of their numbers.

        Raises:
            NoticesUnknownError: See `life`.
        """
        return self._read(held)[1]

    def envelope(self, held: Held, digest: str) -> Envelope:
        """A notice as it was signed.

        Raises:
            NoticesUnknownError: It is not here, or is another one.
        """
        return self._file(self._folder(held), digest)

    def heard(self, held: Held) -> int | None:
        """When everything that the broker showed was taken over last, in ms; None: nobody knows."""
        try:
            return int((self._folder(held) / _HEARD).read_bytes())
        except (OSError, ValueError):
            return None

    # --- writing ---

    def hear(self, held: Held, at_ms: int) -> None:
        """Notes when the broker's notices were taken over. A power cut may undo it: then it is asked anew.

        Raises:
            NoticesUnknownError: See `life`.
        """
        with _alone(self._folder(held)):
            fresh = self._folder(held) / f"{_HEARD}.new"
            fresh.write_bytes(str(at_ms).encode("ascii"))
            fresh.replace(fresh.with_name(_HEARD))

    def say(self, held: Held, notice: Notice, *keys: SigningKey) -> Notice:
        """Signs an own notice and makes it count from now on; nothing is written if it would be void.

        Args:
            held: The contract.
            notice: What is said.
            keys: The key in force of this party; for a rotation the new one too.

        Raises:
            LifecycleError, RefusedError: It would change nothing, or the contract does not allow it.
            SignatureInvalidError: A key that signs it is not the one in force: this node's key has changed.
            NoticesUnknownError: See `life`.
        """
        with _alone(self._folder(held)):
            sealed = seal_notice(notice, *keys)
            take(held.contract, self.life(held, notice.at), sealed)
            write_durably(self._folder(held) / _name(notice.digest), sealed.to_bytes())
        return notice

    def missing(self, held: Held, order: Iterable[str]) -> tuple[str, ...]:
        """Digests of an order whose notice is not here yet, or damaged."""
        return tuple(one for one in order if not self._holds(held, one))

    def _holds(self, held: Held, digest: str) -> bool:
        try:
            self.envelope(held, digest)
        except NoticesUnknownError:
            return False
        return True

    def learn(self, held: Held, order: Sequence[str], fetched: Iterable[Envelope]) -> Life:
        """Takes over the broker's order once every notice of it verifies and nothing of the past is gone.

        Args:
            held: The contract.
            order: Digests of all notices that the broker took.
            fetched: Those of them that were missing here.

        Raises:
            NoticesRewrittenError: The order does not begin with what was taken before.
            IriaiError: A notice is nobody's, or the numbers have a gap; nothing is taken over.
        """
        with _alone(self._folder(held)):
            self._learn(held, tuple(order), fetched, self._taken(self._folder(held)))
        return self.life(held)

    def restore(self, held: Held, order: Sequence[str], fetched: Iterable[Envelope]) -> tuple[Rejected, ...]:
        """Makes a folder that is lost or damaged anew; for a person only, who asks for it.

        What was taken before is forgotten. A file that does not verify, and an own notice that can count no
        more after what the broker took, go to ``rejected/``; other own notices that nobody took stay.

        Returns:
            What was put aside.

        Raises:
            IriaiError: A notice of the order is nobody's, or has a gap before it; nothing is changed.
        """
        folder = self._folder(held)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(folder):
            life = self._learn(held, tuple(order), fetched, None)
            found = tuple(self._invalid(held, life, tuple(order)))
            for one in found:
                _put_aside(folder, one.file)
        return found

    def _learn(
        self,
        held: Held,
        order: tuple[str, ...],
        fetched: Iterable[Envelope],
        before: tuple[str, ...] | None,
    ) -> Life:
        """Gives the life after the order; None forgets what was taken before."""
        folder, known = self._folder(held), before or ()
        if order[: len(known)] != known:
            raise NoticesRewrittenError(
                need=f"the {len(known)} notices that were taken before, in their order",
                found=f"{len(order)} others",
                remedy="keep this folder as evidence and compare notices with the other parties",
            )
        new = {read_notice(one.payload).digest: one for one in fetched}
        life = self._begin(held)
        for digest in order:
            life, _, _ = absorb(held.contract, life, new.get(digest) or self._file(folder, digest))
        for digest, one in new.items():
            if digest in order:
                write_durably(folder / _name(digest), one.to_bytes())
        if order != before:
            write_durably(folder / _TAKEN, _taken_bytes(order))
        return life

    def _invalid(self, held: Held, life: Life, order: tuple[str, ...]) -> Iterator[Rejected]:
        """Files of the folder that nobody took and that can count no more, after a life."""
        folder, own = self._folder(held), []
        for path in sorted(folder.glob("*.json")):
            digest = f"sha256:{path.stem}"
            if path.name == _TAKEN or digest in order:
                continue
            try:
                said = read_notice(self._file(folder, digest).payload)
            except IriaiError as error:
                yield Rejected(file=path.name, kind=None, need=error.need, found=error.found)
                continue
            own += [said] if said.party == held.party.party else []
        for said in sorted(own, key=lambda one: one.seq):
            try:
                life, _, _ = absorb(held.contract, life, self._file(folder, said.digest))
            except IriaiError as error:
                name = _name(said.digest)
                yield Rejected(file=name, kind=said.kind, need=error.need, found=error.found)

    # --- files ---

    def _folder(self, held: Held) -> Path:
        return self._shelf.folder(held.contract.digest) / FOLDER

    def _read(self, held: Held) -> tuple[Life, tuple[Notice, ...]]:
        if not held.is_executed:
            return begin(held.contract), ()
        folder, name = self._folder(held), held.contract.digest
        stamp, start = _stamp(folder), self._begin(held)
        known = self._kept.get(name)
        if known is None or known[:2] != (stamp, start):
            known = self._kept[name] = (stamp, start, *self._verified(held, folder, stamp, start))
        return known[2], known[3]

    def _begin(self, held: Held) -> Life:
        """The life before any notice of its own.

        Executed contracts were final at the latest when the time to sign was over; a tightening goes on with
        the life of its predecessor.
        """
        if not held.is_executed:
            return begin(held.contract)
        if not held.tightens:
            return begin(held.contract, finalized_at=held.contract.sign_by)
        before, _ = self._read(self._shelf.get(str(held.contract.supersedes)))
        return inherited(before, held.contract, finalized_at=held.contract.sign_by)

    def _verified(
        self, held: Held, folder: Path, stamp: Stamp, life: Life
    ) -> tuple[Life, tuple[Notice, ...]]:
        """The life of the folder: what was taken in order, then own notices by their numbers."""
        taken = self._taken(folder)
        for digest in taken:
            life = self._absorbed(held, life, folder, digest)
        own = []
        for name in stamp[0]:
            digest = f"sha256:{name.removesuffix('.json')}"
            if name != _TAKEN and is_digest(digest) and digest not in taken:
                said = read_notice(self._file(folder, digest).payload)
                own += [said] if said.party == held.party.party else []
        own.sort(key=lambda one: one.seq)
        for one in own:
            life = self._absorbed(held, life, folder, one.digest)
        return life, tuple(own)

    def _absorbed(self, held: Held, life: Life, folder: Path, digest: str) -> Life:
        try:
            after, _, _ = absorb(held.contract, life, self._file(folder, digest))
        except NoticesUnknownError:
            raise
        except (NoticeOrderError, IriaiError) as error:
            raise _unknown(error.need, error.found) from error
        return after

    def _taken(self, folder: Path) -> tuple[str, ...]:
        try:
            tree: Any = parse((folder / _TAKEN).read_bytes())
        except (OSError, EncodingError) as error:
            raise _unknown(f"{folder / _TAKEN}", type(error).__name__) from error
        good = isinstance(tree, dict) and set(tree) == {"schema", "taken"} and tree["schema"] == _SCHEMA
        if not good or not isinstance(tree["taken"], list) or not all(map(is_digest, tree["taken"])):
            raise _unknown(f"schema {_SCHEMA}", "another document")
        return tuple(tree["taken"])

    def _file(self, folder: Path, digest: str) -> Envelope:
        try:
            envelope = Envelope.from_bytes((folder / _name(digest)).read_bytes())
            found = read_notice(envelope.payload).digest
        except (OSError, IriaiError) as error:
            raise _unknown(f"the notice {digest}", type(error).__name__) from error
        if found != digest:
            raise _unknown(f"the notice {digest}", found)
        return envelope

    def _successor(self, held: Held, now: str) -> Held | None:
        """An executed version that supersedes this one and is in force."""
        for one in self._shelf.versions(held.contract.contract_id):
            follows = one.is_executed and one.contract.supersedes == held.contract.digest
            if follows and one.contract.term.effective <= now:
                return one
        return None


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One writer at a time, also among processes: two notices must not get one number.

    Raises:
        NoticesUnknownError: There is no such folder.
    """
    try:
        lock = (folder / ".lock").open("wb")
    except OSError as error:
        raise _unknown(f"{folder}", type(error).__name__) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _stamp(folder: Path) -> Stamp:
    """Changes whenever a notice is added or taken; notices themselves never change."""
    try:
        names = sorted(one.name for one in folder.iterdir() if not one.name.startswith("."))
        return tuple(names), (folder / _TAKEN).read_bytes()
    except OSError as error:
        raise _unknown(f"{folder}", type(error).__name__) from error


def _put_aside(folder: Path, name: str) -> None:
    """Moves a file to where it counts no more; none that lies there is replaced."""
    aside = folder / _REJECTED
    aside.mkdir(mode=0o700, exist_ok=True)
    number, target = 0, aside / name
    while target.exists():
        number += 1
        target = aside / f"{name}.{number}"
    (folder / name).rename(target)


def _name(digest: str) -> str:
    if not is_digest(digest):
        raise _unknown("sha256: and 64 hex digits", ascii(digest)[:80])
    return f"{digest.removeprefix('sha256:')}.json"


def _taken_bytes(order: Sequence[str]) -> bytes:
    return canonical({"schema": _SCHEMA, "taken": list(order)})


def _unknown(need: str, found: str) -> NoticesUnknownError:
    return NoticesUnknownError(need=need, found=found, remedy=_RESTORE)
