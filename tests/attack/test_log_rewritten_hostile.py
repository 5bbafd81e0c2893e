# SPDX-License-Identifier: Apache-2.0
"""A bundle that is made to harm who reads it: its texts are inert wherever they are shown, its claims cost no memory.

The attacker writes and signs every byte. Each string that a bundle holds becomes an escape sequence, markup, a
formula or a path, one kind of document after the other, everything around is made to fit, and the auditor's
program runs with all its outputs: terminal, JSON, page, tables.
"""

from __future__ import annotations

import csv
import json
import re
import tracemalloc
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from policies.encoding import canonical
from policies.log.bundle import files_of, pack
from policies.log.checkpoint import Checkpoint, sign_checkpoint
from policies.log.policy import policy_text
from policies.verify import verify
from policies.verify.cli import main
from tests.auditsim import ORIGIN, repacked
from tests.rewritingbroker import Rewriter
from tests.watchedsim import WatchedSim

HOSTILE = "\x1b[2J\x1b]0;x\x07\u202e<script>alert(1)</script><img src=x onerror=y>\"'&../../etc"
FORMULA = "=HYPERLINK(1)"
SIM = WatchedSim().build()
FILES = files_of(SIM.contents(version=2))


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.handlers: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)
        self.handlers |= {name for name, _ in attrs if name.startswith("on") or name in ("src", "style")}


def spoiled(value: Any, text: str) -> Any:
    """Every string of a document replaced; names of fields stay."""
    if isinstance(value, str):
        return text
    if isinstance(value, list):
        return [spoiled(one, text) for one in value]
    if isinstance(value, dict):
        return {name: spoiled(one, text) for name, one in value.items()}
    return value


def renamed(value: Any, text: str) -> Any:
    """Every name of a field replaced."""
    if isinstance(value, dict):
        return {f"{text}{at}": renamed(one, text) for at, one in enumerate(value.values())}
    return [renamed(one, text) for one in value] if isinstance(value, list) else value


def _lines(data: bytes, change: Callable[[Any], Any]) -> bytes:
    return b"".join(canonical(change(json.loads(line))) + b"\n" for line in data.splitlines())


def in_files(folder: str, change: Callable[[Any], Any]) -> bytes:
    """The bundle with each document of a folder changed."""
    made = dict(FILES)
    for name, data in FILES.items():
        if not name.startswith(folder):
            continue
        if name.endswith((".jsonl", ".log")):
            made[name] = _lines(data, change)
        elif data.startswith(b"{"):
            made[name] = canonical(change(json.loads(data)))
        else:
            made[name] = change(data.decode()).encode()
    assert made != FILES
    return pack(made) if folder == "MANIFEST" else repacked(made)


def in_entries(change: Callable[[Any], Any]) -> bytes:
    """The bundle with what each entry says in clear changed, and all of it signed and cosigned."""
    lie = Rewriter(SIM)
    for one in lie.records:
        one.body["pub"] = change(one.body["pub"])
    return lie.told(collude=True).bundle


def disclosed(text: str) -> bytes:
    """Every confidential text is another one, which opens its commitment."""
    lie = Rewriter(SIM)
    for one in lie.records:
        for name, told in one.opened.items():
            if isinstance(told.value, str) and name != "at":
                one.hide(name, text)
    return lie.told(collude=True).bundle


FOLDERS = (
    "BUNDLE",
    "MANIFEST",
    "checkpoint",
    "checkpoints.log",
    "policy",
    "keys/",
    "contracts/",
    "annexes/",
    "envelopes/",
    "decisions/",
    "disclosures/",
    "receipts/",
    "statements/",
    "witnesses/",
)
CASES: dict[str, Callable[[], bytes]] = {
    **{f"{one} strings": lambda one=one: in_files(one, lambda it: spoiled(it, HOSTILE)) for one in FOLDERS},
    **{
        f"{one} names": lambda one=one: in_files(one, lambda it: renamed(it, HOSTILE))
        for one in FOLDERS
        if one not in ("checkpoint", "policy", "receipts/")
    },
    "entries": lambda: in_entries(lambda pub: spoiled(pub, HOSTILE)),
    "entries, formulas": lambda: in_entries(lambda pub: spoiled(pub, FORMULA)),
    "entries, names": lambda: in_entries(lambda pub: renamed(pub, HOSTILE)),
    "confidential values": lambda: disclosed(HOSTILE),
    "confidential formulas": lambda: disclosed(FORMULA),
}


def check_inert(folder: Path, bundle: bytes, capsys: pytest.CaptureFixture[str], lang: str) -> None:
    (folder / "b.zip").write_bytes(bundle)
    (folder / "p.txt").write_text(policy_text(SIM.policy), encoding="utf-8")
    outputs = ["--report", str(folder / "r.html"), "--csv", str(folder / "t"), "--json", "--lang", lang]
    code = main(["verify", str(folder / "b.zip"), "--policy", str(folder / "p.txt"), *outputs])
    assert code in (3, 6)
    shown = capsys.readouterr()
    assert all(line.isprintable() for line in shown.err.split("\n"))
    answer = json.loads(shown.out)
    assert answer["status"] == "error"
    assert shown.out.isascii()
    assert all(line.isprintable() for line in shown.out.split("\n"))
    page = (folder / "r.html").read_text("utf-8")
    tags = Tags(page)
    assert not {"script", "img", "iframe", "object", "link", "form"} & tags.found
    assert not tags.handlers
    assert all(one == "\n" or one.isprintable() for one in page)
    for path in (folder / "t").iterdir():
        with path.open(encoding="utf-8", newline="") as file:
            cells = [cell for line in csv.reader(file) for cell in line]
        assert not [one for one in cells if re.match(r"\s*[=+@\-\t\r]", one)], path.name
        assert all(one.isprintable() for one in cells)
    assert sorted(one.name for one in folder.iterdir()) == ["b.zip", "p.txt", "r.html", "t"]


@pytest.mark.parametrize("name", CASES)
def test_escapes_and_markup_in_every_string_are_inert_everywhere(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_inert(tmp_path, CASES[name](), capsys, "ja" if len(name) % 2 else "en")


def peak(bundle: bytes) -> int:
    verify(bundle, SIM.policy)
    tracemalloc.start()
    try:
        report = verify(bundle, SIM.policy)
        assert report.exit_code in (0, 3, 6)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def claiming(size: int) -> bytes:
    """Few entries under a checkpoint of many, signed by the log and all witnesses."""
    note = SIM.cosigned(sign_checkpoint(SIM.log_key, Checkpoint(ORIGIN, size, bytes(32))))
    head = json.loads(FILES["BUNDLE"]) | {"size": size}
    return repacked(FILES | {"checkpoint": note.encode(), "BUNDLE": canonical(head)})


def many_notes(count: int) -> bytes:
    """The same published checkpoint over and over."""
    return repacked(FILES | {"checkpoints.log": FILES["checkpoints.log"] * count})


def deep() -> bytes:
    """Lists in lists where a statement should be."""
    (name,) = [one for one in FILES if one.startswith("annexes/")]
    return repacked(FILES | {name: b"[" * 200_000 + b"]" * 200_000})


@pytest.mark.parametrize(
    "bundle",
    [
        lambda: claiming(200_000),
        lambda: claiming(2**53 - 1),
        lambda: many_notes(40),
        deep,
        lambda: in_entries(lambda pub: spoiled(pub, "x" * 200)),
        lambda: in_files("disclosures/", lambda it: spoiled(it, "x" * 3_000)),
    ],
    ids=["size", "largest size", "notes", "deep", "long entries", "long values"],
)
def test_memory_stays_flat_whatever_a_bundle_claims(bundle: Callable[[], bytes]) -> None:
    made = bundle()
    assert peak(made) < peak(repacked(FILES)) + 3 * len(made) + 1_000_000
