# SPDX-License-Identifier: Apache-2.0
"""Making a broker's folder, completing one that a crash left, and refusing to make it another one."""

from __future__ import annotations

import ssl
import stat
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from broker.boot import Initialised, initialise, open_services, parse_operators, policy_file, tls_chain
from broker.errors import AlreadyInitialisedError, NotInitialisedError, TlsInvalidError, UsageError
from broker.fleet import NoFleet
from broker.keyfiles import KeyFileError, KeyFileModeError, write_private
from broker.settings import Settings
from broker.tls import check_own, make_certificate, pin_of, split_url
from policies.encoding import digest
from policies.errors import WeakKeyError
from policies.identity import key_text
from policies.log.entries import EntryType, check_entry
from tests.brokersim import HandClock, SeedEntropy, operator_key

if TYPE_CHECKING:
    from pathlib import Path

URL = "https://broker.example:8443"
OPERATORS = {name: operator_key(name).public for name in ("alice", "bob")}


def make(folder: Path, **changes) -> Initialised:
    fields = {
        "url": URL,
        "operators": OPERATORS,
        "clock": HandClock(),
        "entropy": SeedEntropy(),
    }
    return initialise(folder, **(fields | changes))


def entries(folder: Path) -> list:
    services = open_services(
        folder, clock=HandClock(), entropy=SeedEntropy(), engine=NoFleet(), threaded=False
    )
    try:
        receipts = services.writer.receipts
        return [check_entry(receipts.body(index)) for index in range(receipts.head().size)]
    finally:
        services.close()


def test_a_fresh_folder_gets_everything_with_safe_modes(tmp_path):
    made = make(tmp_path / "b")
    assert made.fresh
    assert made.operators == ("alice", "bob")
    for name in ("broker.key", "log.key", "tls.key"):
        assert stat.S_IMODE((tmp_path / "b/keys" / name).stat().st_mode) == 0o600
    for name in ("broker.db", "private.db", "signer.db"):
        assert stat.S_IMODE((tmp_path / "b" / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "b/keys").stat().st_mode) == 0o700
    assert made.settings == Settings.load(tmp_path / "b")
    assert (made.settings.origin, made.settings.listen_host) == ("broker.example:8443/log/2026a", "0.0.0.0")  # noqa: S104


def test_the_first_entries_name_the_policy_and_every_key(tmp_path):
    made = make(tmp_path / "b")
    log = entries(tmp_path / "b")
    assert [one.type for one in log] == [EntryType.LOG_GENESIS, *[EntryType.KEY_ADDED] * 4]
    assert log[0].pub["policy"] == digest(policy_file(tmp_path / "b").read_bytes())
    assert [one.pub["role"] for one in log[1:]] == ["log", "broker", "operator", "operator"]
    assert log[1].pub["vkey"] == made.log_vkey


def test_doing_it_again_changes_nothing(tmp_path):
    first = make(tmp_path / "b")
    before = {one.name: one.read_bytes() for one in (tmp_path / "b/keys").iterdir()}
    again = make(tmp_path / "b", entropy=SeedEntropy(b"other"))
    assert {one.name: one.read_bytes() for one in (tmp_path / "b/keys").iterdir()} == before
    assert not again.fresh
    assert (again.broker_key, again.tls_sha256, again.log_vkey) == (
        first.broker_key,
        first.tls_sha256,
        first.log_vkey,
    )
    assert len(entries(tmp_path / "b")) == 5


def test_an_operator_can_be_added_later(tmp_path):
    make(tmp_path / "b")
    again = make(tmp_path / "b", operators={"carol": operator_key("carol").public})
    assert again.operators == ("alice", "bob", "carol")
    assert entries(tmp_path / "b")[-1].pub["role"] == "operator"


@pytest.mark.parametrize("missing", ["tls.pem", "keys/tls.key", "policy.txt", "models"])
def test_what_a_crash_left_out_is_made_again(tmp_path, missing):
    make(tmp_path / "b")
    path = tmp_path / "b" / missing
    path.rmdir() if path.is_dir() else path.unlink()
    made = make(tmp_path / "b")
    assert path.exists()
    chain = tls_chain(tmp_path / "b").read_bytes()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls_chain(tmp_path / "b"), made.settings.keys / "tls.key")
    assert pin_of(chain) == made.tls_sha256


def test_the_settings_are_made_last_so_that_a_crash_before_is_completed(tmp_path):
    make(tmp_path / "b")
    (tmp_path / "b/broker.toml").unlink()
    assert make(tmp_path / "b").settings == Settings.load(tmp_path / "b")
    assert len(entries(tmp_path / "b")) == 5


@pytest.mark.parametrize("name", ["broker.key", "log.key"])
def test_a_lost_key_of_a_log_with_entries_is_never_made_anew(tmp_path, name):
    make(tmp_path / "b")
    (tmp_path / "b/keys" / name).unlink()
    with pytest.raises(KeyFileError):
        make(tmp_path / "b")
    assert not (tmp_path / "b/keys" / name).exists()


def test_a_key_that_others_can_read_is_refused(tmp_path):
    make(tmp_path / "b")
    (tmp_path / "b/keys/log.key").chmod(0o644)
    with pytest.raises(KeyFileModeError):
        open_services(tmp_path / "b", clock=HandClock(), entropy=SeedEntropy(), engine=NoFleet())


@pytest.mark.parametrize("change", [{"url": "https://other.example:8443"}, {"origin": "other.example/log"}])
def test_a_folder_does_not_become_another_broker(tmp_path, change):
    make(tmp_path / "b")
    with pytest.raises(AlreadyInitialisedError):
        make(tmp_path / "b", **change)


@pytest.mark.parametrize(
    "operators",
    [{"alice": operator_key("other").public}, {"carol": operator_key("alice").public}],
)
def test_an_operator_has_one_name_and_one_key(tmp_path, operators):
    make(tmp_path / "b")
    with pytest.raises(AlreadyInitialisedError):
        make(tmp_path / "b", operators=operators)
    assert len(entries(tmp_path / "b")) == 5


@pytest.mark.parametrize("text", ["alice", "Alice=", "=", "-x="])
def test_operator_texts_of_another_form_are_refused(text):
    key = key_text(operator_key("alice").public)
    with pytest.raises((UsageError, WeakKeyError)):
        parse_operators([text + key if text.endswith("=") else text])


def test_a_weak_operator_key_is_refused():
    with pytest.raises(WeakKeyError):
        parse_operators(["alice=ed25519:01" + "00" * 31])


def test_an_empty_folder_is_no_broker(tmp_path):
    with pytest.raises(NotInitialisedError):
        open_services(tmp_path, clock=HandClock(), entropy=SeedEntropy(), engine=NoFleet())


# --- TLS ---


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://broker.example:8443", ["broker.example"]),
        ("https://192.0.2.1:8443", ["192.0.2.1"]),
        ("https://127.0.0.1:8443", ["127.0.0.1", "localhost"]),
        ("https://[::1]:8443", ["::1", "localhost", "127.0.0.1"]),
        ("https://localhost:1", ["localhost", "127.0.0.1"]),
    ],
)
def test_the_certificate_is_for_the_host_of_the_url_and_of_this_machine_for_both_its_names(url, expected):
    made = make_certificate(url, clock=HandClock(), entropy=SeedEntropy())
    leaf = x509.load_pem_x509_certificate(made.chain_pem)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(one.value) for one in names] == expected
    assert check_own(url, made.chain_pem, made.key_pem, clock=HandClock()).pin == made.pin


@pytest.mark.parametrize(
    "url",
    ["http://h:1", "https://", "https://h/path", "h:1", "https://u@h:1", "https://h:x", "https://h:1?q"],
)
def test_a_url_of_another_form_is_refused(url):
    with pytest.raises(TlsInvalidError):
        split_url(url)


def test_an_operators_own_certificate_is_used(tmp_path):
    own = make_certificate(URL, clock=HandClock(), entropy=SeedEntropy(b"own"))
    (tmp_path / "c.pem").write_bytes(own.chain_pem)
    write_private(tmp_path / "k.pem", own.key_pem)
    made = make(tmp_path / "b", tls=(tmp_path / "c.pem", tmp_path / "k.pem"))
    assert made.tls_sha256 == own.pin


def test_certificates_that_do_not_fit_are_refused():
    clock = HandClock()
    own = make_certificate(URL, clock=clock, entropy=SeedEntropy(b"own"))
    other = make_certificate(URL, clock=clock, entropy=SeedEntropy(b"other"))
    with pytest.raises(TlsInvalidError, match="own key"):
        check_own(URL, own.chain_pem, other.key_pem, clock=clock)
    with pytest.raises(TlsInvalidError, match="other names"):
        check_own("https://elsewhere.example:1", own.chain_pem, own.key_pem, clock=clock)
    with pytest.raises(TlsInvalidError, match="PEM certificates"):
        check_own(URL, b"no", own.key_pem, clock=clock)
    with pytest.raises(TlsInvalidError, match="PEM key"):
        check_own(URL, own.chain_pem, b"no", clock=clock)
    clock.ms += 826 * 86_400_000
    with pytest.raises(TlsInvalidError, match="valid today"):
        check_own(URL, own.chain_pem, own.key_pem, clock=clock)


def test_a_chain_without_its_root_is_refused():
    clock = HandClock()
    own = make_certificate(URL, clock=clock, entropy=SeedEntropy(b"own"))
    key = serialization.load_pem_private_key(own.key_pem, password=None)
    leaf = x509.load_pem_x509_certificate(own.chain_pem)
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "some authority")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(leaf.subject)
        .issuer_name(name)
        .public_key(leaf.public_key())
        .serial_number(7)
        .not_valid_before(leaf.not_valid_before_utc)
        .not_valid_after(leaf.not_valid_after_utc)
    )
    for extension in leaf.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    from cryptography.hazmat.primitives import hashes

    issued = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(TlsInvalidError, match="root"):
        check_own(URL, issued, own.key_pem, clock=clock)
