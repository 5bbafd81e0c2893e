# SPDX-License-Identifier: Apache-2.0
"""Checks of a broker's folder: keys, certificate, the clock against what the folder knows of time."""

from __future__ import annotations

import datetime as dt
import stat
from typing import TYPE_CHECKING, Final

from cryptography import x509
from sqlalchemy import func, select

from broker.backup import record
from broker.doctor.databases import reading
from broker.doctor.findings import FailedError
from broker.keyfiles import load_key, read_private
from broker.store.tables import last_signed, log_entry
from broker.tls import check_own
from policies.limits import CLOCK_SKEW_S, EXPIRY_WARNING_DAYS
from policies.ports import from_ms, iso_s

if TYPE_CHECKING:
    from pathlib import Path

    from broker.settings import Settings
    from policies.ports import Clock

__all__ = ["clock_fits", "expiry", "folders", "key_files", "tls"]

_DAY_MS: Final = 86_400_000
_OTHERS: Final = 0o077


def key_files(settings: Settings) -> str:
    """Every key is there, is one, and is readable to its owner alone."""
    paths = [settings.keys / "broker.key", *settings.log_keys]
    for path in paths:
        load_key(path)
    for path in sorted(settings.keys.iterdir()):
        if path.is_file():
            read_private(path)
    if (mode := stat.S_IMODE(settings.keys.stat().st_mode)) & _OTHERS:
        raise FailedError(f"{settings.keys} has mode {mode:04o}", f"chmod 700 {settings.keys}")
    return f"{len(paths) + 1} key files, mode 0600"


def tls(settings: Settings, clock: Clock) -> str:
    """Certificate, its key and the public URL fit each other and the time."""
    chain = settings.tls_chain.read_bytes()
    check_own(settings.public_url, chain, read_private(settings.keys / "tls.key"), clock=clock)
    return f"a chain of {len(x509.load_pem_x509_certificates(chain))} for {settings.public_url}"


def expiry(settings: Settings, clock: Clock) -> str:
    """No certificate ends within `EXPIRY_WARNING_DAYS`; keys of ours have no end of their own."""
    ends = dict(_ends(settings))
    first = min(ends, key=lambda name: ends[name])
    left_days = (ends[first] - clock.now_ms()) // _DAY_MS
    if left_days < EXPIRY_WARNING_DAYS:
        raise FailedError(
            f"{first} ends at {iso_s(ends[first])}, in {left_days} days",
            "make a new one in time, as the manual says; members pin the certificate and have to be told",
        )
    return f"{first} ends first, in {left_days} days"


def _ends(settings: Settings) -> list[tuple[str, int]]:
    chain = x509.load_pem_x509_certificates(settings.tls_chain.read_bytes())
    return [
        (f"certificate {number} of tls.pem", _ms(one.not_valid_after_utc))
        for number, one in enumerate(chain, 1)
    ]


def clock_fits(settings: Settings, clock: Clock) -> str:
    """The clock is not behind what was written already; nobody outside is asked."""
    now_ms = clock.now_ms()
    for name, at_ms in _known(settings):
        if at_ms - now_ms > CLOCK_SKEW_S * 1_000:
            raise FailedError(
                f"the clock says {iso_s(now_ms)}, and {name} is of {iso_s(at_ms)}",
                "set the clock (timedatectl, chronyc tracking); if it is right, something is from the future",
            )
    return f"{iso_s(now_ms)}, not behind the log, its signer, the certificate or the last backup"


def _known(settings: Settings) -> list[tuple[str, int]]:
    leaf = x509.load_pem_x509_certificates(settings.tls_chain.read_bytes())[0]
    found = [("the certificate", _ms(leaf.not_valid_before_utc))]
    with reading(settings.main_database) as session:
        newest = select(log_entry.c.ts_ms).order_by(log_entry.c.idx.desc()).limit(1)
        found.append(("the newest entry", session.scalar(newest) or 0))
    with reading(settings.signer_path) as session:
        found.append(("the newest signature", session.scalar(select(func.max(last_signed.c.signed_ms))) or 0))
    last = record(settings).last
    return found if last is None else [*found, ("the last backup", last.at_ms)]


def _ms(moment: dt.datetime) -> int:
    return (moment - from_ms(0)) // dt.timedelta(milliseconds=1)


def folders(settings: Settings) -> list[Path]:
    """Where the broker writes: its folder, and that of each database elsewhere."""
    databases = (settings.main_database, settings.private_database, settings.signer_path)
    found = [settings.dir, *(one.parent for one in databases if not isinstance(one, str))]
    return list(dict.fromkeys(found))
