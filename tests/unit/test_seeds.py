# SPDX-License-Identifier: Apache-2.0
"""Seed sets, consents and donations as documents: what they say, and every other spelling that is refused."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from policies.donations import (
    CONSENT_TYPE,
    check_given,
    donation_bytes,
    join,
    open_consent,
    read_donation,
    seal_consent,
)
from policies.encoding import canonical, digest
from policies.errors import IriaiError
from policies.identity import SigningKey
from policies.limits import CONSENT_BYTES, SEED_EPISODES, SEED_SET_BYTES
from policies.recipe import RecipeError, load
from policies.seeds import (
    ConsentInvalidError,
    SeedSet,
    SeedSetInvalidError,
    StartModelUnfitError,
    check_fits,
    read_seed_set,
    start_weights,
    with_start,
)
from policies.signing import Envelope
from tests.learnsim import changed, small_recipe
from tests.seedsim import COMMANDED, Planted, consent_of, donation, seed_episode

KITA, NORD = SigningKey.from_seed(b"k" * 32), SigningKey.from_seed(b"n" * 32)
SEEDS = SeedSet.of([seed_episode(1), seed_episode(2), seed_episode(3, party="nord")])


def tree() -> dict[str, Any]:
    return json.loads(SEEDS.canonical)


def put(path: str, value: object) -> bytes:
    return changed(SEEDS.canonical, path, value)


# --- the seed set ---


def test_a_seed_set_is_read_back_as_it_was_written():
    again = read_seed_set(SEEDS.canonical)
    assert (again.digest, again.digests) == (SEEDS.digest, SEEDS.digests)
    assert [one.party for one in again.episodes] == ["kita", "kita", "nord"]
    for one, other in zip(again.episodes, SEEDS.episodes, strict=True):
        for name, values in one.observation.items():
            np.testing.assert_array_equal(values, other.observation[name])


def test_an_episode_is_named_by_what_is_published_alone():
    one = seed_episode(1)
    assert replace(one, party="nord", licence="CC0", consent=digest(b"x")).digest == one.digest
    moved = {**one.observation, "tcp_pos": one.observation["tcp_pos"] + np.float32(1e-6)}
    assert replace(one, observation=moved).digest != one.digest


def values(data: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(data, dtype="<f4").tobytes()).decode()


def with_values(data: np.ndarray) -> bytes:
    return put("episodes.0.observation.3.values", values(data))


BROKEN: dict[str, bytes] = {
    "no JSON": b"{",
    "not even bytes of text": b"\xff\xfe",
    "a list": b"[]",
    "another schema": put("schema", "iriai-seed-set/2"),
    "a key more": canonical({**tree(), "note": "x"}),
    "another spelling": SEEDS.canonical.replace(b'{"episodes":', b'{ "episodes":'),
    "a key twice": SEEDS.canonical.replace(b'"schema":', b'"episodes":[],"schema":'),
    "no episode": put("episodes", []),
    "episodes that are no list": put("episodes", {"0": {}}),
    "an episode that is no object": put("episodes.0", "kita"),
    "a key more in an episode": put("episodes.0.note", "x"),
    "another order": canonical({**tree(), "episodes": tree()["episodes"][::-1]}),
    "an episode twice": canonical({**tree(), "episodes": [tree()["episodes"][0]] * 2}),
    "another digest": put("episodes.0.digest", digest(b"another")),
    "a party of capitals": put("episodes.0.party", "Kita"),
    "a path as data set": put("episodes.0.dataset", "../pick"),
    "a licence of two lines": put("episodes.0.licence", "CC-BY\n4.0"),
    "no licence": put("episodes.0.licence", ""),
    "a consent that is no digest": put("episodes.0.consent", "given"),
    "frames as text": put("episodes.0.frames", "8"),
    "frames true": put("episodes.0.frames", True),
    "frames below one": put("episodes.0.frames", 0),
    "too many frames": put("episodes.0.frames", 10**9),
    "a size of nothing": put("episodes.0.observation.3.size", 0),
    "a size true": put("episodes.0.observation.3.size", True),
    "a field of nobody": put("episodes.0.observation.3.field", "serial_number"),
    "a field twice": put("episodes.0.observation.3.field", "object_pos"),
    "no field": put("episodes.0.action", []),
    "base64 of another length": put("episodes.0.observation.3.values", "AAAA"),
    "no base64": put("episodes.0.observation.3.values", "??"),
    "values as a list": put("episodes.0.observation.3.values", [0.5]),
    "not a number": with_values(np.full((8, 3), np.nan)),
    "an infinite value": with_values(np.full((8, 3), np.inf)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_anything_else_than_a_sound_seed_set_is_refused(name):
    with pytest.raises(SeedSetInvalidError) as refused:
        read_seed_set(BROKEN[name])
    assert refused.value.need
    assert refused.value.found
    assert refused.value.remedy


def test_a_seed_set_that_is_too_large_is_refused_before_it_is_read():
    with pytest.raises(SeedSetInvalidError, match="at most"):
        read_seed_set(b" " * (SEED_SET_BYTES + 1))


def test_too_many_episodes_are_refused():
    rows = tree()["episodes"] * (SEED_EPISODES // 3 + 1)
    with pytest.raises(SeedSetInvalidError, match="with 1 to"):
        read_seed_set(canonical({**tree(), "episodes": rows}))


def test_deep_nesting_is_refused_and_not_followed():
    with pytest.raises(SeedSetInvalidError):
        read_seed_set(b"[" * 100_000 + b"]" * 100_000)


def test_a_value_of_an_episode_never_enters_a_refusal():
    secret = with_values(np.full((8, 3), np.nan))
    with pytest.raises(SeedSetInvalidError) as refused:
        read_seed_set(secret)
    assert "AMB/" not in str(refused.value)


# --- with a recipe ---


def test_a_seed_set_that_lacks_a_field_of_the_recipe_is_refused():
    recipe = small_recipe()
    check_fits(SEEDS, recipe)
    less = {name: one for name, one in seed_episode(1).observation.items() if name != "goal_pos"}
    with pytest.raises(SeedSetInvalidError, match="goal_pos"):
        check_fits(SeedSet.of([seed_episode(1, observation=less)]), recipe)


def test_a_seed_set_that_shows_a_field_more_is_refused():
    one = seed_episode(1)
    more = {**one.observation, "joint_pos": np.zeros((8, 6), dtype=np.float32)}
    with pytest.raises(SeedSetInvalidError, match="joint_pos"):
        check_fits(SeedSet.of([replace(one, observation=more)]), small_recipe())


def test_a_started_recipe_differs_by_its_start_alone():
    before, planted = small_recipe(), Planted({"kita": KITA})
    after = load(with_start(before.canonical, seed_set=SEEDS.digest, model=digest(b"m")))
    assert (after.start.seed_set, after.start.model) == (SEEDS.digest, digest(b"m"))
    assert json.loads(after.canonical) | {"start": None} == json.loads(before.canonical)
    assert after.digest != before.digest
    assert planted.started.start.seed_set == planted.seeds.digest


def test_only_a_sound_recipe_is_started():
    with pytest.raises(IriaiError):
        with_start(b"{}", seed_set=SEEDS.digest, model=digest(b"m"))
    with pytest.raises(RecipeError):
        with_start(small_recipe().canonical, seed_set="none", model=digest(b"m"))


def test_start_weights_are_the_bytes_that_the_recipe_names():
    planted = Planted({"kita": KITA})
    found = start_weights(planted.started, planted.weights.tobytes())
    np.testing.assert_array_equal(found, planted.weights)


@pytest.mark.parametrize("name", ["another", "shorter", "not finite", "none named"])
def test_other_start_weights_are_refused(name):
    planted = Planted({"kita": KITA})
    weights = {
        "another": planted.weights + np.float32(1),
        "shorter": planted.weights[:-1],
        "not finite": np.where(np.arange(len(planted.weights)) == 3, np.nan, planted.weights),
        "none named": planted.weights,
    }[name]
    data = weights.astype("<f4").tobytes()
    recipe = planted.started if name == "another" else planted.recipe
    if name in {"shorter", "not finite"}:
        recipe = load(with_start(recipe.canonical, seed_set=SEEDS.digest, model=digest(data)))
    with pytest.raises(StartModelUnfitError):
        start_weights(recipe, data)


# --- consents and donations ---


def sealed(key: SigningKey = KITA, **changes: Any) -> bytes:
    return seal_consent(consent_of(key, [seed_episode(1), seed_episode(2)], **changes), key)


def test_a_consent_holds_under_the_donors_key_and_no_other():
    assert open_consent(sealed(), KITA.public).party == "kita"
    with pytest.raises(ConsentInvalidError):
        open_consent(sealed(), NORD.public)


def resigned(change: dict[str, Any], key: SigningKey = KITA) -> bytes:
    payload = json.loads(Envelope.from_bytes(sealed()).payload) | change
    return Envelope.seal(canonical(payload), CONSENT_TYPE, key).to_bytes()


FALSE_CONSENTS: dict[str, bytes] = {
    "other terms": resigned({"terms": "for one contract only"}),
    "another schema": resigned({"schema": "iriai-donation-consent/2"}),
    "a key more": resigned({"note": "x"}),
    "no episode": resigned({"episodes": []}),
    "episodes that are no digests": resigned({"episodes": ["all"]}),
    "an episode twice": resigned({"episodes": [digest(b"a"), digest(b"a")]}),
    "an empty party": resigned({"party": ""}),
    "no time": resigned({"at": "yesterday"}),
    "somebody else's name": resigned({"key": consent_of(NORD, [seed_episode(1)]).key}),
    "another payload type": Envelope.seal(
        Envelope.from_bytes(sealed()).payload, "application/json", KITA
    ).to_bytes(),
    "no envelope": b"{}",
    "too large": b" " * (CONSENT_BYTES + 1),
    "an altered payload": sealed().replace(b'payload":"ey', b'payload":"fy'),
}


@pytest.mark.parametrize("name", FALSE_CONSENTS)
def test_a_consent_that_is_not_the_donors_word_is_refused(name):
    with pytest.raises(ConsentInvalidError):
        open_consent(FALSE_CONSENTS[name], KITA.public)


def test_a_consent_is_for_exactly_its_episodes():
    given = [seed_episode(1), seed_episode(2)]
    consent = consent_of(KITA, given)
    check_given(consent, given)
    for other in (given[:1], [*given, seed_episode(3)], [given[0], seed_episode(3)]):
        with pytest.raises(ConsentInvalidError):
            check_given(consent, other)


@pytest.mark.parametrize("change", [{"licence": "CC0"}, {"dataset": "kita/weld"}, {"party": "nord"}])
def test_a_consent_is_under_its_own_terms(change):
    given = [seed_episode(1), seed_episode(2)]
    with pytest.raises(ConsentInvalidError):
        check_given(consent_of(KITA, given), [replace(one, **change) for one in given])


def test_a_consent_names_the_fields_that_are_shown():
    given = [seed_episode(1)]
    with pytest.raises(ConsentInvalidError, match="fields"):
        check_given(consent_of(KITA, given, observation=("tcp_pos",)), given)


def test_a_donation_is_read_back_with_its_consent():
    found = read_donation(donation(KITA, "kita", (1, 2)))
    assert found.consent.episodes == tuple(sorted(seed_episode(n).digest for n in (1, 2)))
    assert open_consent(found.envelope, KITA.public) == found.consent


def test_a_donation_with_a_swapped_episode_is_refused():
    good = read_donation(donation(KITA, "kita", (1, 2)))
    other = seed_episode(7, consent=digest(good.envelope))
    with pytest.raises(ConsentInvalidError):
        read_donation(donation_bytes(good.envelope, [good.episodes[0], other]))


def test_a_donation_whose_episodes_are_under_another_consent_is_refused():
    good = read_donation(donation(KITA, "kita", (1, 2)))
    with pytest.raises(ConsentInvalidError, match="another consent"):
        read_donation(donation_bytes(good.envelope, [seed_episode(1), seed_episode(2)]))


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", canonical({"schema": "iriai-donation/1"})])
def test_another_file_than_a_donation_is_refused(data):
    with pytest.raises(SeedSetInvalidError):
        read_donation(data)


def test_a_donation_without_a_real_envelope_is_refused():
    row = json.loads(donation(KITA, "kita", (1,)))
    for envelope in ({}, {"payload": "e30=", "payloadType": CONSENT_TYPE, "signatures": []}, "signed"):
        with pytest.raises(ConsentInvalidError):
            read_donation(canonical({**row, "consent": envelope}))


def test_donations_join_in_one_order_whatever_order_they_came_in():
    files = [donation(NORD, "nord", (3,)), donation(KITA, "kita", (1, 2))]
    ahead, back = (join(read_donation(one) for one in some) for some in (files, files[::-1]))
    assert ahead[0].digest == back[0].digest
    assert sorted(ahead[1]) == sorted(digest(read_donation(one).envelope) for one in files)


def test_the_same_data_set_of_a_party_is_joined_once():
    files = [donation(KITA, "kita", (1,)), donation(KITA, "kita", (2,))]
    with pytest.raises(SeedSetInvalidError, match="one donation for each"):
        join(read_donation(one) for one in files)


def test_the_same_episode_by_two_parties_is_refused():
    files = [donation(KITA, "kita", (1,)), donation(NORD, "nord", (1,))]
    with pytest.raises(SeedSetInvalidError, match="each episode once"):
        join(read_donation(one) for one in files)


def test_the_commanded_fields_stand_in_the_consent():
    assert read_donation(donation(KITA, "kita", (1,))).consent.action == COMMANDED
