# SPDX-License-Identifier: Apache-2.0
"""Settings: option before environment before file before default, for every name; unknown names are refused in each."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.settings import DEFAULTS, ENVIRONMENT, KNOWN, Settings, SettingsError, default_place
from policies.layered_settings import Kind, Layer, flat, of_environment, settle, variable

MANY = {"a": Kind.TEXT, "b": Kind.WHOLE, "c": Kind.FLAG, "d": Kind.WORDS, "t.a": Kind.TEXT, "t.b": Kind.WHOLE}
WORD = st.text(st.characters(categories=("Ll", "Nd", "Lo")), min_size=1, max_size=8)
VALUES = {
    Kind.TEXT: WORD,
    Kind.WHOLE: st.integers(-(10**9), 10**9),
    Kind.FLAG: st.booleans(),
    Kind.WORDS: st.lists(WORD, max_size=3),
}
SAID = st.fixed_dictionaries({}, optional={name: VALUES[kind] for name, kind in MANY.items()})


class RefusedError(Exception):
    """What a program makes of a refusal."""


def refuse(name: str, need: str, found: str) -> RefusedError:
    return RefusedError(f"{name}: {need}; {found}")


def as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(value) if isinstance(value, list) else str(value)


def as_tables(said: dict[str, Any]) -> dict[str, Any]:
    """As a file would have it: tables in it."""
    found: dict[str, Any] = {}
    for name, value in said.items():
        table, _, inner = name.rpartition(".")
        (found.setdefault(table, {}) if table else found)[inner] = value
    return found


@given(SAID, SAID, SAID)
def test_the_first_layer_that_says_something_counts_and_is_named(option, environment, file):
    variables = {variable("X__", name): as_text(value) for name, value in environment.items()}
    layers = (
        Layer("option", option),
        Layer("environment", of_environment("X__", variables, MANY, refuse)),
        Layer("file", flat(as_tables(file))),
    )
    found = settle(MANY, layers, refuse)
    for name in MANY:
        said = next(
            (
                (one[name], source)
                for one, source in zip(
                    (option, environment, file), ("option", "environment", "file"), strict=True
                )
                if name in one
            ),
            None,
        )
        assert (None if said is None else tuple(said)) == (tuple(found[name]) if name in found else None)


@given(
    SAID,
    WORD.filter(lambda name: name not in {*MANY, "t"}),
    st.sampled_from(["file", "table", "environment"]),
)
def test_a_name_that_nobody_knows_is_refused_in_every_layer(said, name, where):
    strange = {f"t.{name}" if where == "table" else name: "1"}

    def read():
        if where == "environment":
            return of_environment("X__", {"X__" + name.upper(): "1"}, MANY, refuse)
        return settle(MANY, (Layer("file", flat(as_tables(said | strange))),), refuse)

    with pytest.raises(RefusedError, match="unknown name"):
        read()


@given(
    st.sampled_from(sorted(MANY)),
    st.one_of(
        st.none(),
        st.integers(),
        st.booleans(),
        st.floats(),
        st.text(max_size=4),
        st.lists(st.integers(), min_size=1),
    ),
)
def test_a_value_of_another_kind_is_refused_and_one_that_passes_is_of_its_kind(name, value):
    try:
        found = settle(MANY, (Layer("file", {name: value}),), refuse)
    except RefusedError:
        return
    if name not in found:
        assert value is None
    else:
        assert (
            type(found[name].value)
            is {Kind.TEXT: str, Kind.WHOLE: int, Kind.FLAG: bool, Kind.WORDS: list}[MANY[name]]
        )


@pytest.mark.parametrize("text", ["yes", "1", "", "True", "0x10", "1.5", " 7", "\uff17"])
def test_a_text_of_the_environment_that_has_two_readings_has_none(text):
    for name in ("b", "c"):
        if name == "b" and text == "1":
            continue
        with pytest.raises(RefusedError) as refused:
            of_environment("X__", {variable("X__", name): text}, MANY, refuse)
        assert text == "" or text not in str(refused.value).partition(";")[2]


GOOD = {"public_url": "https://pool.example:8443", "origin": "pool.example/log/a"}
OTHER = {
    "listen_host": ("192.0.2.1", "192.0.2.2", "192.0.2.3"),
    "listen_port": (1111, 2222, 3333),
    "signer_db": ("/a/signer.db", "/b/signer.db", "/c/signer.db"),
    "dsp.enabled": (True, False, True),
}


@given(st.sampled_from(sorted(OTHER)), st.booleans(), st.booleans(), st.booleans())
def test_a_brokers_own_settings_follow_the_order(name, option, environment, file):
    said = dict(zip(("option", "environment", "file"), OTHER[name], strict=True))
    lines = [f"{one} = {json.dumps(value)}" for one, value in GOOD.items()]
    lines += [f"{name} = {json.dumps(said['file'])}"] * file
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "broker.toml").write_text("\n".join(lines) + "\n")
        layers = Settings.layers(
            Path(folder),
            environ={variable(ENVIRONMENT, name): as_text(said["environment"])} if environment else {},
            options={name: said["option"]} if option else {},
        )
    first = "option" if option else "environment" if environment else "file" if file else None
    assert (None if first is None else said[first]) == (layers[name].value if name in layers else None)
    if first in {"option", "environment"}:
        assert layers[name].source == first
    assert set(DEFAULTS) <= set(KNOWN)


def test_a_misspelt_variable_is_an_error_of_the_start(tmp_path):
    (tmp_path / "broker.toml").write_text(
        "\n".join(f"{one} = {json.dumps(value)}" for one, value in GOOD.items())
    )
    for name in ("IRIAI_BROKER__LISTN_PORT", "IRIAI_BROKER__DSP__ENABLD", "IRIAI_BROKER__DSP"):
        with pytest.raises(SettingsError, match=name):
            Settings.load(tmp_path, environ={name: "1"})
    assert Settings.load(tmp_path, environ={"IRIAI_NODE__X": "1", "IRIAI_BROKER": "1"}).listen_port == 8443


def test_a_settings_file_elsewhere_says_where_the_folder_is(tmp_path):
    file = tmp_path / "etc/iriai.toml"
    file.parent.mkdir()
    file.write_text("\n".join(f"{one} = {json.dumps(value)}" for one, value in GOOD.items()))
    assert Settings.load(file, environ={}).dir == file.parent
    there = Settings.load(file, environ={"IRIAI_BROKER__DIR": "/var/lib/iriai"})
    assert (there.dir, there.file, there.keys) == (Path("/var/lib/iriai"), file, Path("/var/lib/iriai/keys"))
    (file.parent / "broker.toml").write_text(file.read_text())
    named = Settings.load(file.parent, environ={"IRIAI_BROKER__DIR": "/var/lib/iriai"})
    assert named.dir == file.parent  # who names the folder means it


def test_the_default_place_is_the_systems_then_the_persons(tmp_path):
    assert default_place({"XDG_CONFIG_HOME": str(tmp_path)}) is None
    (tmp_path / "iriai").mkdir()
    (tmp_path / "iriai/broker.toml").touch()
    assert default_place({"XDG_CONFIG_HOME": str(tmp_path)}) == tmp_path / "iriai/broker.toml"
    (tmp_path / ".config/iriai").mkdir(parents=True)
    (tmp_path / ".config/iriai/broker.toml").touch()
    assert default_place({"HOME": str(tmp_path)}) == tmp_path / ".config/iriai/broker.toml"
