# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from pathlib import Path

import pytest

from client.errors import KeyFileError, NotInitialisedError, SettingsError
from client.identity import create_identity, load_identity
from client.settings import Home, LocalRules, NodeSettings, load_settings, save_settings
from tests.nodesim import SeedEntropy


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "node")


def test_keys_are_made_on_the_node_with_mode_0600(home: Home):
    create_identity(home, SeedEntropy())
    for name in ("node.key", "fleet.key", "unit.key"):
        assert (home.keys / name).stat().st_mode & 0o777 == 0o600
    assert home.keys.stat().st_mode & 0o777 == 0o700


def test_init_twice_changes_nothing(home: Home):
    first = create_identity(home, SeedEntropy(b"one"))
    again = create_identity(home, SeedEntropy(b"two"))
    assert first.key.public == again.key.public
    assert (first.org, first.node, first.unit_key) == (again.org, again.node, again.unit_key)
    assert first.fleet_public_pem == again.fleet_public_pem


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_file_that_others_can_read_is_refused(home: Home, mode: int):
    create_identity(home, SeedEntropy())
    (home.keys / "node.key").chmod(mode)
    with pytest.raises(KeyFileError, match="mode 0600"):
        load_identity(home)


def test_a_key_file_that_is_a_link_is_refused(home: Home):
    create_identity(home, SeedEntropy())
    (home.keys / "node.key").rename(home.root / "elsewhere")
    (home.keys / "node.key").symlink_to(home.root / "elsewhere")
    with pytest.raises(KeyFileError):
        load_identity(home)


@pytest.mark.parametrize("name", ["node.key", "fleet.key", "unit.key"])
def test_a_damaged_key_file_is_refused_and_not_made_anew(home: Home, name: str):
    create_identity(home, SeedEntropy())
    (home.keys / name).write_bytes(b"damaged")
    with pytest.raises(KeyFileError):
        create_identity(home, SeedEntropy())
    assert (home.keys / name).read_bytes() == b"damaged"


def test_keys_never_show_in_text(home: Home):
    identity = create_identity(home, SeedEntropy())
    assert identity.unit_key.hex() not in repr(identity)
    assert "PRIVATE" not in repr(identity)


def test_an_empty_folder_is_no_node(home: Home):
    with pytest.raises(NotInitialisedError):
        load_identity(home)


def test_settings_survive_being_written_and_read(home: Home):
    settings = NodeSettings(
        broker_url="https://127.0.0.1:1",
        legal_name='Kita "Robot" \\ KK\n入会',
        local=LocalRules(
            paused=True, datasets=("a/b", "c"), epsilon_total="2.5", epsilon_lifetime="30", vote="manual"
        ),
    )
    save_settings(home, settings)
    assert load_settings(home, {}) == settings


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("timeout_sec = 3", "timeout_sec"),
        ("threads = '1'", "str"),
        ("[local]\npause = true", "local.pause"),
        ("[local]\nepsilon_total = '-1'", "-1"),
        ("[local]\nepsilon_lifetime = 8", "int"),
        ("[local]\nepsilon_lifetime = 'much'", "much"),
        ("[local]\nepsilon_lifetime = '0'", "0"),
        ("[local]\nvote = 'never'", "never"),
        ("= 3", ""),
    ],
)
def test_a_setting_that_does_not_exist_is_an_error(home: Home, text: str, found: str):
    home.root.mkdir()
    home.settings.write_text(text)
    with pytest.raises(SettingsError) as raised:
        load_settings(home, {})
    assert found in str(raised.value)


def test_the_environment_goes_before_the_file(home: Home):
    save_settings(home, NodeSettings(broker_url="https://a:1", threads=1))
    settings = load_settings(home, {"IRIAI_NODE__THREADS": "2", "OTHER": "x"})
    assert (settings.broker_url, settings.threads) == ("https://a:1", 2)
    with pytest.raises(SettingsError):
        load_settings(home, {"IRIAI_NODE__TREADS": "2"})


def test_a_key_of_another_account_is_refused(home: Home, monkeypatch: pytest.MonkeyPatch):
    create_identity(home, SeedEntropy())
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    os.chown(home.keys / "node.key", 12345, 12345)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(KeyFileError, match="owned by"):
        load_identity(home)
