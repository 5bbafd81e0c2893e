# SPDX-License-Identifier: Apache-2.0
"""What a witness remembers, on disk before any cosignature leaves it.

A folder with the state (``state.json``), the key (``witness.pem``, mode 0600, made on first use) and
evidence (``<digest>.proof``). Invariants:

1. Check and persist are one step under one lock; a second process on the folder is refused.
2. A state is written beside the old one, synced, moved into its place, and the folder is synced, before
   the cosignature is returned.
3. A key without its state cosigns nothing: with a lost state it could vouch for another history. So the
   state, still empty, is on disk before the key is made. Who lost it needs a new key, under a new
   statement.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

from policies.encoding import b64, canonical, digest, unb64
from policies.errors import EncodingError
from policies.log.checkpoint import Checkpoint, KeyKind, parse_checkpoint, parse_note
from policies.log.cosignature import cosigner_vkey, merge
from policies.log.errors import LogError
from policies.log.witness import Cosign, Refuse, WitnessState, checkpoint_path, consider
from policies.log.witness_keys import seal_statement
from policies.signing import parse_envelope_json
from policies.verify.commands.inputs import read_key, sync_folder, write_new
from policies.verify.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path
    from typing import IO

    from policies.identity import SigningKey
    from policies.log.equivocation import Evidence
    from policies.log.vkeys import VerifierKey
    from policies.ports import Clock, Entropy
    from policies.signing import Envelope

__all__ = ["WitnessStore"]

Json = Any
EVIDENCE_FILES = 1_000  # a log that lies more often has been found out
_FIELDS = {"size", "root", "time", "note", "line"}
_STATE, _KEY = "state.json", "witness.pem"


@dataclass(frozen=True, slots=True)
class _Kept:
    state: WitnessState
    line: str


class WitnessStore:
    """One folder; see the module docstring.

    Args:
        folder: Made where there is none.
        name: Of the witness key.
        log_keys: Keys of the logs that are witnessed; a log's origin is its key's name.
        clock: Of the witness.
        entropy: For the key.

    Raises:
        InputError: Another process has the folder, or its states are lost or altered.
    """

    def __init__(
        self, folder: Path, *, name: str, log_keys: Iterable[VerifierKey], clock: Clock, entropy: Entropy
    ) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder, self._name, self._clock = folder, name, clock
        self._keys = [one for one in log_keys if one.kind is KeyKind.LOG]
        self._lock = Lock()
        self._held = self._hold()
        try:
            self._kept = self._read()
            self._key = read_key(folder / _KEY, entropy=entropy)
        except BaseException:
            self.close()
            raise
        self.vkey = cosigner_vkey(self._key, name)

    @property
    def origins(self) -> tuple[str, ...]:
        """Logs that are witnessed."""
        return tuple(dict.fromkeys(one.name for one in self._keys))

    def size(self, origin: str) -> int:
        """Size that was cosigned last; 0 for none."""
        kept = self._kept.get(origin)
        return 0 if kept is None else kept.state.size

    def time_s(self, origin: str) -> int:
        """When something was cosigned last, in seconds; 0 for never."""
        kept = self._kept.get(origin)
        return 0 if kept is None else kept.state.time_s

    def note(self, path: str) -> str | None:
        """The last note that was cosigned, with the cosignature, by its `checkpoint_path`; None for none."""
        for origin, kept in self._kept.items():
            if checkpoint_path(origin) == path:
                return merge(kept.state.note, [kept.line])
        return None

    def last_note(self, origin: str) -> str | None:
        """The log's own note of what was cosigned last."""
        kept = self._kept.get(origin)
        return None if kept is None else kept.state.note

    def step(self, note: str, *, old_size: int, proof: Sequence[bytes]) -> Cosign | Refuse:
        """Decides about a head; what it cosigns is on disk when this returns."""
        with self._lock:
            origin = _origin_of(note)
            kept = self._kept.get(origin)
            verdict = consider(
                None if kept is None else kept.state,
                note,
                old_size=old_size,
                proof=proof,
                log_keys=[one for one in self._keys if one.name == origin],
                origin=origin if origin in self.origins else self.origins[0],
                key=self._key,
                name=self._name,
                now_s=self._clock.now_ms() // 1000,
            )
            if isinstance(verdict, Cosign):
                changed = {**self._kept, origin: _Kept(verdict.state, verdict.line)}
                self._write(changed)
                self._kept = changed
            return verdict

    def keep(self, evidence: Evidence) -> Path | None:
        """Writes evidence that proves something; None for what proves nothing, or is there already."""
        try:
            evidence.check(self._keys)
        except LogError:
            return None
        data = evidence.to_text().encode("utf-8")
        path = self._folder / f"{digest(data).removeprefix('sha256:')}.proof"
        if path.exists() or sum(1 for _ in self._folder.glob("*.proof")) >= EVIDENCE_FILES:
            return None
        write_new(path, data)
        return path

    def statement(self, owner: SigningKey, *, org: str, origin: str) -> Envelope:
        """Whose this witness is, signed by its owner's enrolled key and by the witness key itself."""
        return seal_statement(
            owner,
            witness=self._key,
            log=origin,
            org=org,
            vkey=self.vkey.text(),
            time_ms=self._clock.now_ms(),
        )

    # --- the disk ---

    def _hold(self) -> IO[bytes]:
        held = (self._folder / "lock").open("ab")
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            held.close()
            raise InputError(
                need="a folder of this witness alone",
                found=f"another process has {self._folder}",
                remedy="stop it, or name another folder: two witnesses on one key can sign two histories",
            ) from error
        return held

    def close(self) -> None:
        """Lets go of the folder."""
        self._held.close()

    def _lost(self, found: str) -> InputError:
        return InputError(
            need="the state that belongs to the witness key",
            found=f"{self._folder}: lost or altered, {found}",
            remedy="restore nothing from a backup: take a new folder and a new key, and state that key anew",
        )

    def _read(self) -> dict[str, _Kept]:
        path = self._folder / _STATE
        if not path.exists():
            if (self._folder / _KEY).exists():
                raise self._lost("no state")
            self._write({})
        try:
            return _logs(
                parse_envelope_json(path.read_bytes())
            )  # a note is longer than other documents' texts
        except (LogError, EncodingError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._lost(type(error).__name__) from error

    def _write(self, kept: Mapping[str, _Kept]) -> None:
        logs = {
            origin: {
                "size": one.state.size,
                "root": b64(one.state.root),
                "time": one.state.time_s,
                "note": one.state.note,
                "line": one.line,
            }
            for origin, one in kept.items()
        }
        path = self._folder / _STATE
        beside = path.with_suffix(".new")
        with beside.open("wb") as file:
            file.write(canonical({"v": 1, "logs": logs}))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(self._folder)


def _logs(told: Json) -> dict[str, _Kept]:
    """Every log of a state file."""
    if set(told) != {"v", "logs"} or told["v"] != 1:
        raise KeyError("v", "logs")
    return {origin: _kept(origin, one) for origin, one in told["logs"].items()}


def _kept(origin: str, told: Mapping[str, Json]) -> _Kept:
    """What was cosigned last, as the state file says; its note must say the same.

    Raises:
        KeyError, TypeError, ValueError: It has other fields or values.
        NoteError: The note is none.
    """
    if set(told) != _FIELDS:
        raise KeyError(*sorted(set(told) ^ _FIELDS))
    state = WitnessState(
        size=int(told["size"]), root=unb64(told["root"]), time_s=int(told["time"]), note=str(told["note"])
    )
    if parse_checkpoint(parse_note(state.note).text) != Checkpoint(origin, state.size, state.root):
        raise ValueError("another note")
    return _Kept(state, str(told["line"]))


def _origin_of(note: str) -> str:
    """First line of a note; nothing is verified."""
    return note.partition("\n")[0]
