# SPDX-License-Identifier: Apache-2.0
"""Time stamps of others: asked for, checked, kept once; whatever does not hold is refused before it is stored."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import pytest

from broker.auditing.authority import stamped
from broker.auditing.errors import AuthorityError, TimestampInvalidError, TimestampsMissingError
from broker.auditing.timestamps import ask, check_imprint, check_reply, text_of, trusted
from policies.encoding import b64, digest
from policies.log.entries import EntryType
from tests.brokersim import START_MS, House, open_house
from tests.tsasim import TsaSim, seq

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytest.importorskip("rfc3161_client", reason="the extra rfc3161 is not installed")
TEXT = b"pool.example/log/test\n5\nq83v\n"
URL = "http://tsa.example/tsr"


@pytest.fixture
def tsa() -> TsaSim:
    return TsaSim(now_ms=START_MS)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "broker") as one:
        yield one


def code(answer) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


def test_a_stamp_is_asked_for_and_checked(tsa: TsaSim) -> None:
    reply, made_ms = stamped(TEXT, URL, trusted(tsa.pem), transport=tsa.transport)
    assert made_ms == START_MS // 1000 * 1000
    assert TEXT not in tsa.asked[0]  # a hash is all that leaves
    assert check_imprint(reply, TEXT) == made_ms


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_agrees(tsa: TsaSim, tmp_path: Path) -> None:
    reply, _ = stamped(TEXT, URL, trusted(tsa.pem), transport=tsa.transport)
    files = {"text": TEXT, "tsr": reply, "tsa.pem": tsa.pem}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    command = [
        "openssl",
        "ts",
        "-verify",
        "-data",
        "text",
        "-in",
        "tsr",
        "-CAfile",
        "tsa.pem",
        "-untrusted",
        "tsa.pem",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "text").write_bytes(TEXT + b"x")
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize(
    "lie",
    [
        {"status": 2},
        {"imprint": b"\0" * 32},
        {"nonce": 7},
        {"garbage": b""},
        {"garbage": b"\x30\x80"},
        {"garbage": b"\xff" * 100},
        {"garbage": seq(seq(b"\x02\x01\x00"))},
        {"garbage": b"\0" * 70_000},
        {"http_status": 503},
    ],
)
def test_what_does_not_hold_is_refused(tsa: TsaSim, lie: dict) -> None:
    for name, value in lie.items():
        setattr(tsa, name, value)
    with pytest.raises((TimestampInvalidError, AuthorityError)):
        stamped(TEXT, URL, trusted(tsa.pem), transport=tsa.transport)


def test_another_authority_is_not_the_one_that_was_named(tsa: TsaSim) -> None:
    other = TsaSim(now_ms=START_MS, name="other")
    with pytest.raises(TimestampInvalidError):
        stamped(TEXT, URL, trusted(other.pem), transport=tsa.transport)
    with pytest.raises(TimestampInvalidError):  # a root alone does not say who signed
        stamped(TEXT, URL, (tsa.root,), transport=tsa.transport)


def test_a_flipped_bit_in_what_is_signed_or_in_the_signature_is_found(tsa: TsaSim) -> None:
    asked = ask(TEXT)
    reply = tsa.reply(asked.as_bytes())
    imprint = reply.index(hashlib.sha256(TEXT).digest())
    for at in (*range(imprint, imprint + 70), *range(len(reply) - 60, len(reply))):
        flipped = bytearray(reply)
        flipped[at] ^= 1
        with pytest.raises(TimestampInvalidError):
            check_reply(bytes(flipped), TEXT, asked=asked, anchors=trusted(tsa.pem))


def test_nobody_there_and_no_certificates(tsa: TsaSim) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no", request=request)

    with pytest.raises(AuthorityError):
        stamped(TEXT, URL, trusted(tsa.pem), transport=httpx.MockTransport(refuse))
    with pytest.raises(AuthorityError):
        stamped(TEXT, "tsa", trusted(tsa.pem))
    for pem in (b"", b"-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----\n"):
        with pytest.raises(AuthorityError):
            trusted(pem)


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rfc3161_client", None)
    with pytest.raises(TimestampsMissingError, match="rfc3161"):
        ask(TEXT)


# --- at the broker ---


def reply_to(house: House, tsa: TsaSim, note: str | None = None) -> tuple[int, bytes]:
    head = house.services.writer.head()
    text = text_of(note or head.note)
    return head.size, stamped(text, URL, trusted(tsa.pem), transport=tsa.transport)[0]


async def test_a_stamp_is_kept_once_for_each_size_and_the_log_says_who_brought_it(house, tsa):
    size, reply = reply_to(house, tsa)
    body = {"size": size, "reply": b64(reply)}
    first = await house.alice.post("/operator/audit/timestamps", body)
    assert (first.status_code, first.json()["kept"]) == (201, True)
    again = await house.bob.post("/operator/audit/timestamps", body)
    assert (again.status_code, again.json()["kept"]) == (200, False)
    (action,) = [
        one for one in house.entries(EntryType.CONSOLE_ACTION) if one.pub["action"] == "audit.timestamp"
    ]
    assert (action.pub["operator"], action.pub["subject"]) == ("alice", digest(reply))


async def test_a_stamp_about_something_else_is_not_kept(house, tsa):
    size, reply = reply_to(house, tsa)
    await house.member("kita")
    for body, wanted in (
        ({"size": house.services.writer.head().size, "reply": b64(reply)}, (422, "audit.timestamp-invalid")),
        ({"size": 10_000, "reply": b64(reply)}, (404, "request.not-found")),
        ({"size": size, "reply": b64(b"no stamp")}, (422, "audit.timestamp-invalid")),
    ):
        assert code(await house.alice.post("/operator/audit/timestamps", body)) == wanted
    assert (await house.alice.post("/operator/audit/timestamps", {"size": size, "reply": b64(reply)})).json()[
        "kept"
    ]
