# SPDX-License-Identifier: Apache-2.0
"""What a broker that starts again finds of a run's secure aggregation: public data, in whole files.

    runs/<run>/secagg/setup             the newest setup (`policies.secagg.collector.Setup`)
    runs/<run>/secagg/number            of the newest setup that was begun: no number is used twice
    runs/<run>/secagg/liars             party to code, of members that are left out for good
    runs/<run>/secagg/doubts            members of each sum that failed, since one could be left out
    runs/<run>/secagg/nonces            that members revealed for the newest round
    runs/<run>/secagg/unmasking         the attempt whose members were asked to unmask, with what set
    runs/<run>/secagg/sum-<slot>        the newest opened sums, for members that check them
    runs/<run>/secagg/vectors/<hex>     masked vectors (`broker.federation.secure.vectors`)
    transcripts/<hex>                   what every opened sum can be redone from; kept for good

No secret is ever here: secrets are in the memory of nodes. What does not parse counts as absent: a setup
can always be made anew, and an attempt that may have been opened is not asked again.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker.keyfiles import PRIVATE, replace_file
from policies.encoding import canonical, digest
from policies.limits import SECAGG_SHOWN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["Files", "Transcripts", "Unmasking"]

_FOLDER_MODE = 0o700
_SUM = re.compile(r"^sum-(\d{6})-(\d{3})$")
_SUMS_KEPT = SECAGG_SHOWN + 1  # an attempt that is asked again after a restart names the sums before its own
Slot = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmasking:
    """An attempt whose members were asked to unmask.

    Attributes:
        slot: Round and attempt.
        setup: Number of the setup.
        online: Party → digest of its vector in the sum.
        confirmed: Members whose signatures went along.
    """

    slot: Slot
    setup: int
    online: dict[str, str]
    confirmed: tuple[str, ...]

    def to_bytes(self) -> bytes:
        """As the file has it."""
        return canonical(
            {
                "slot": list(self.slot),
                "setup": self.setup,
                "online": self.online,
                "confirmed": list(self.confirmed),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Unmasking:
        """Of a file.

        Raises:
            ValueError, KeyError, TypeError: Not one of ours.
        """
        tree = json.loads(data)
        number, attempt = tree["slot"]
        return cls(
            slot=(int(number), int(attempt)),
            setup=int(tree["setup"]),
            online=dict(tree["online"]),
            confirmed=tuple(tree["confirmed"]),
        )


class Files:
    """The files of one run."""

    def __init__(self, broker: Path, run: str) -> None:
        self.folder = broker / "runs" / run / "secagg"

    # --- setups ---

    def setup(self) -> bytes | None:
        """The newest setup."""
        return self._read("setup")

    def save_setup(self, data: bytes) -> None:
        """Replaces it."""
        self._write("setup", data)

    def next_number(self) -> int:
        """A number for a new setup; it is taken, durably, before anybody hears it."""
        kept = self._read("number")
        number = 1 + (int(kept) if kept is not None and kept.isdigit() else 0)
        self._write("number", str(number).encode())
        return number

    def end_setup(self) -> None:
        """Forgets the newest setup: a restart makes another one."""
        (self.folder / "setup").unlink(missing_ok=True)

    # --- members ---

    def liars(self) -> dict[str, str]:
        """Party → code, of members that were to blame for a wrong answer."""
        found = self._tree("liars")
        return {str(party): str(code) for party, code in found.items()} if isinstance(found, dict) else {}

    def save_liars(self, liars: Mapping[str, str]) -> None:
        """Replaces them."""
        self._write("liars", canonical(dict(liars)))

    def doubts(self) -> list[frozenset[str]]:
        """Members of each sum that failed, oldest first."""
        found = self._tree("doubts")
        return [frozenset(map(str, one)) for one in found] if isinstance(found, list) else []

    def save_doubts(self, doubts: Sequence[frozenset[str]]) -> None:
        """Replaces them."""
        self._write("doubts", canonical([sorted(one) for one in doubts]))

    def _tree(self, name: str) -> object:
        try:
            return json.loads(self._read(name) or b"null")
        except ValueError:
            return None

    # --- nonces ---

    def save_nonces(self, setup: int, number: int, nonces: Mapping[str, bytes]) -> None:
        """Replaces what members of a setup revealed for a round."""
        told = {party: nonce.hex() for party, nonce in nonces.items()}
        self._write("nonces", canonical({"setup": setup, "round": number, "nonces": told}))

    def nonces(self, setup: int) -> dict[int, dict[str, bytes]]:
        """What was revealed last: round to party to nonce; nothing if it was of another setup."""
        data = self._read("nonces")
        try:
            tree = json.loads(data or b"{}")
            if tree.get("setup") != setup:
                return {}
            return {int(tree["round"]): {party: bytes.fromhex(one) for party, one in tree["nonces"].items()}}
        except (ValueError, KeyError, TypeError, AttributeError):
            return {}

    # --- attempts ---

    def unmasking(self, slot: Slot) -> Unmasking | None:
        """What members of an attempt were asked to unmask, if they were."""
        data = self._read("unmasking")
        if data is None:
            return None
        try:
            found = Unmasking.from_bytes(data)
        except (ValueError, KeyError, TypeError):
            return None
        return found if found.slot == slot else None

    def begin_unmasking(self, one: Unmasking) -> None:
        """Keeps it, durably, before the first of them is asked."""
        self._write("unmasking", one.to_bytes())

    # --- opened sums ---

    def save_sum(self, slot: Slot, data: bytes) -> None:
        """Keeps an opened sum, and forgets older ones."""
        self._write(_sum_name(slot), data)
        for old in self.sums()[:-_SUMS_KEPT]:
            self.drop_sum(old)

    def drop_sum(self, slot: Slot) -> None:
        """Forgets one."""
        (self.folder / _sum_name(slot)).unlink(missing_ok=True)

    def sums(self) -> list[Slot]:
        """Slots of the sums that are kept, oldest first."""
        names = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []
        found = [match.groups() for match in map(_SUM.match, names) if match is not None]
        return sorted((int(number), int(attempt)) for number, attempt in found)

    def sum_of(self, slot: Slot) -> bytes | None:
        """The sum of a slot."""
        return self._read(_sum_name(slot))

    def _read(self, name: str) -> bytes | None:
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def _write(self, name: str, data: bytes) -> None:
        self.folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        replace_file(self.folder / name, data, mode=PRIVATE)


def _sum_name(slot: Slot) -> str:
    return f"sum-{slot[0]:06d}-{slot[1]:03d}"


class Transcripts:
    """Transcripts by digest; the file name is the promise and is checked at every read."""

    def __init__(self, broker: Path) -> None:
        self._folder = broker / "transcripts"

    def save(self, data: bytes) -> str:
        """Writes a transcript and gives its digest."""
        self._folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        name = digest(data)
        replace_file(self._path(name), data, mode=PRIVATE)
        return name

    def read(self, name: str) -> bytes | None:
        """The bytes of a transcript; None if they are missing or others."""
        try:
            data = self._path(name).read_bytes()
        except OSError:
            return None
        return data if digest(data) == name else None

    def _path(self, name: str) -> Path:
        return self._folder / name.removeprefix("sha256:")
