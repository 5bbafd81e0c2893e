# SPDX-License-Identifier: Apache-2.0
"""What secure aggregation costs, beside Flower's SecAgg+ with the same vector in the same run.

Ours and Flower's take turns, each turn in a process of its own; figures are medians over the turns.

A turn of ours is a whole round with the machines that broker and nodes run: keys and shares for one round of
two slots, ``drop`` parties that vanish before they send, one opened sum.

- ``client_cpu_s``: CPU seconds of one node for everything in the round but training: keys and shares, the
  check of the update, quantising, tag, masks, hash, the signatures and shares of the end. ``mask_cpu_s``: of
  them, those between training and sending.
- ``server_cpu_s``: of the broker, from the first vector on: checking answers, adding vectors, joining
  shares, masks off, digest.
- ``bytes_ratio``: all bytes of the protocol that a node sends, to 4 bytes per parameter. The engine's signed
  header around each message is not in it.
- ``exact``: the opened sum is the plain sum of the quantised updates, value by value.
- ``peak_mb``: resident memory of the process beyond what was there, while one node masks.

A turn of Flower's takes its client through all its stages (`sandbox.flower_secagg`): ``flower_client_cpu_s``,
``flower_bytes_ratio``, ``flower_peak_mb`` (while it masks). ``ratio`` compares the CPU seconds of both
clients. CPU seconds are of one process with the threads that its libraries start.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from broker.entropy import SystemEntropy
from policies.contract.thresholds import CONTRIBUTORS_MIN, drop_outs
from policies.encoding import digest
from policies.identity import SigningKey
from policies.limits import SECAGG_PARTIES
from policies.secagg import masks
from policies.secagg.collector import Attempt, Setup
from policies.secagg.node import NodeMachine
from policies.secagg.ring import check_update, pieces, quantise
from policies.secagg.sums import RingSum
from policies.secagg.terms import Member, Terms
from sandbox.errors import CommandError, UsageError
from sandbox.peak_memory import peak_mb

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from policies.secagg.node import Masked

__all__ = ["check_asked", "run"]

Json = Any  # a JSON value

_TURNS: Final = 3
_BASE: Final = digest(b"base model")
_WEIGHT: Final = 1_000_000
_BROKER: Final = "broker"
_NORM: Final = "1.3"  # no power of two: the general case


def run(*, parties: int = 10, dim: int = 1_000_000, drop: int = 1, flower: bool = True) -> dict[str, Json]:
    """Figures of one round and of one client; keys in the module docstring.

    Raises:
        UsageError: More drop-outs than a sum survives.
        CommandError: A process of one turn failed.
    """
    check_asked(parties, drop)
    ways = ("ours", "flower") if flower else ("ours",)
    turns = [{way: _child(way, parties, dim, drop) for way in ways} for _ in range(_TURNS)]
    ours, theirs = ([one.get(way, {}) for one in turns] for way in ("ours", "flower"))
    cpu_s, flower_cpu_s = _median(ours, "cpu_s"), _median(theirs, "cpu_s")
    sent, flower_sent = _median(ours, "sent"), _median(theirs, "sent")
    return {
        "parties": parties,
        "dim": dim,
        "drop": drop,
        "client_cpu_s": cpu_s,
        "mask_cpu_s": _median(ours, "mask_cpu_s"),
        "server_cpu_s": _median(ours, "server_cpu_s"),
        "bytes_ratio": _ratio(sent, 4 * dim),
        "exact": all(one["exact"] for one in ours),
        "peak_mb": _median(ours, "peak_mb"),
        "vector_mb": float(f"{4 * dim / 2**20:.3g}"),
        "flower_client_cpu_s": flower_cpu_s,
        "flower_bytes_ratio": _ratio(flower_sent, 4 * dim),
        "flower_peak_mb": _median(theirs, "peak_mb"),
        "ratio": _ratio(flower_cpu_s, cpu_s),
        "turns": _TURNS,
        "cpus": os.cpu_count(),
    }


def check_asked(parties: int, drop: int) -> None:
    """Returns if a sum of so many parties survives so many drop-outs.

    Raises:
        UsageError: It does not.
    """
    most = drop_outs(parties)
    if not CONTRIBUTORS_MIN <= parties <= SECAGG_PARTIES or not 0 <= drop <= most:
        raise UsageError(
            need=f"--parties from {CONTRIBUTORS_MIN} to {SECAGG_PARTIES}; of {parties} at most {most} --drop",
            found=f"{parties} and {drop}",
            remedy=f"--drop {most}, or more --parties",
        )


def _median(turns: list[dict[str, Json]], name: str) -> float | None:
    known = [one[name] for one in turns if one.get(name) is not None]
    return round(statistics.median(known), 4) if known else None


def _ratio(left: float | None, right: float | None) -> float | None:
    return None if left is None or not right else round(left / right, 4)


def _child(way: str, parties: int, dim: int, drop: int) -> dict[str, Json]:
    command = [sys.executable, "-m", "sandbox.bench_secagg", way, str(parties), str(dim), str(drop)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  our own module
    if done.returncode:
        raise CommandError(
            need=f"one turn of {way}",
            found=done.stderr.strip()[-300:],
            remedy="run `python -m sandbox.bench_secagg` with the same words by hand",
        )
    found: dict[str, Json] = json.loads(done.stdout)
    return found


# --- a whole round ---


class _Cpu(dict[str, float]):
    """CPU seconds of this process by who spent them."""

    def of(self, whose: str, call: Callable[[], Any]) -> Any:  # noqa: ANN401  whatever it gives
        began_s = time.process_time()
        try:
            return call()
        finally:
            self[whose] = self.get(whose, 0.0) + time.process_time() - began_s


class _Round:
    """All parties of a round and the broker, in this process.

    Args:
        terms: Of all of them.
    """

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.machines = {
            one.party: NodeMachine(terms, one.party, key=_key(at), entropy=SystemEntropy())
            for at, one in enumerate(terms.roster)
        }
        self.cpu = _Cpu()
        self.sent = dict.fromkeys(self.machines, 0)

    def play(self, drop: int) -> dict[str, Json]:
        """A setup for one round, and the round; figures of the first party."""
        first, dimension = self.terms.parties[0], self.terms.dimension
        setup = self._set_up()
        self.cpu[_BROKER] = 0.0
        online = self.terms.parties[: self.terms.n - drop]
        attempt = Attempt(setup, round=1, attempt=1, base_model=_BASE)
        total, plain, before_s = RingSum(dimension), np.zeros(dimension, np.uint32), self.cpu[first]
        peaks = [self._contribute(party, attempt, total, plain) for party in online]
        mask_cpu_s = self.cpu[first] - before_s
        self._ask(online, "confirm", attempt.confirm_ask(), attempt.confirmed)
        self._ask(online, "unmask", attempt.unmask_ask(), attempt.unmasked)
        self.cpu.of(_BROKER, lambda: masks.unmask(total.values, attempt.remove()))
        self.cpu.of(_BROKER, lambda: attempt.finish(total.digest()))
        return {
            "cpu_s": self.cpu[first],
            "mask_cpu_s": mask_cpu_s,
            "server_cpu_s": self.cpu[_BROKER],
            "sent": self.sent[first],
            "exact": bool(np.array_equal(total.values, plain)),
            "peak_mb": peaks[0],
        }

    def _set_up(self) -> Setup:
        setup, parties = Setup(self.terms, number=1, first_round=1, rounds=1), self.terms.parties
        self._ask(parties, "advertise", setup.advertise_ask(), setup.advert)
        self._ask(parties, "share", setup.share_ask(), setup.shared)
        for party in parties:
            self._ask([party], "open", setup.open_ask(party), setup.opened)
        return setup

    def _ask(self, parties: Sequence[str], step: str, ask: bytes, take: Callable[[str, bytes], None]) -> None:
        slot = {"round": 1, "attempt": 1} if step in {"confirm", "unmask"} else {}
        for party in parties:
            answer = self.cpu.of(party, partial(getattr(self.machines[party], step), ask, **slot))
            self.sent[party] += len(answer)
            self.cpu.of(_BROKER, partial(take, party, answer))

    def _contribute(
        self, party: str, attempt: Attempt, total: RingSum, plain: NDArray[np.uint32]
    ) -> float | None:
        """Masks a party's update and adds it to both sums; megabytes at the peak of masking."""
        update, ask = _update(self.terms.dimension, self.terms.position(party)), attempt.contribute_ask()
        found: list[Masked] = []

        def step() -> None:
            machine, fit = self.machines[party], check_update(update, self.terms)
            slot = machine.admit(ask, round=1, attempt=1, base_model=_BASE)
            found.append(machine.mask(slot, fit))

        peak = peak_mb(lambda: self.cpu.of(party, step))
        (masked,) = found
        self.sent[party] += masked.vector.nbytes + len(masked.answer)
        self.cpu.of(_BROKER, lambda: attempt.vector(party, masked.answer, masked.digest))
        self.cpu.of(_BROKER, lambda: total.add([masked.vector.data]))
        fit, weight = check_update(update, self.terms), self.terms.weight(party)
        for piece in pieces(plain.size):
            plain[piece] += quantise(fit[piece], weight=weight, terms=self.terms)
        return peak


def _key(at: int) -> SigningKey:
    return SigningKey.from_seed(hashlib.sha256(f"party {at}".encode()).digest())


def _terms(parties: int, dim: int) -> Terms:
    roster = tuple(
        Member(party=f"party{at:02}", group=f"group{at:02}", key=_key(at).public) for at in range(parties)
    )
    return Terms(
        contract=digest(b"bench contract"),
        recipe=digest(b"bench recipe"),
        manifest=digest(b"bench manifest"),
        run="run_benchaaaaaaaaaaa",
        roster=roster,
        dimension=dim,
        norm_max=_NORM,
        weights=(_WEIGHT,) * parties,
        max_share="1",
        min_parties=3,
        max_colluders=0,
        honest_min=None,
        group_mac=True,
        clause="aggregation",
    )


def _update(dim: int, seed: int) -> NDArray[np.float32]:
    """Made-up values of a norm near the bound, without memory beside them."""
    values = np.random.default_rng(seed).standard_normal(dim, dtype=np.float32)
    values *= np.float32(1 / np.sqrt(dim))
    return values


def _ours(parties: int, dim: int, drop: int) -> dict[str, Json]:
    return _Round(_terms(parties, dim)).play(drop)


def _flower(parties: int, dim: int, drop: int) -> dict[str, Json]:
    from sandbox.flower_secagg import FlowerClients

    clients = FlowerClients(parties=parties, threshold=_terms(parties, dim).t)
    clients.exchange_keys()
    content = clients.trained(_update(dim, 1))
    peak = peak_mb(lambda: clients.mask(content))
    clients.unmask(missing=drop)
    return {"cpu_s": clients.cpu_s, "sent": clients.sent, "peak_mb": peak}


def _main(way: str, *numbers: str) -> None:
    measure = {"ours": _ours, "flower": _flower}[way]
    sys.stdout.write(json.dumps(measure(*map(int, numbers))))


if __name__ == "__main__":
    _main(*sys.argv[1:])
