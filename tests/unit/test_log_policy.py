# SPDX-License-Identifier: Apache-2.0
"""Policy files, quorums, and what it takes to open a witnessed checkpoint."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from policies.identity import SigningKey, key_text
from policies.log.checkpoint import (
    Checkpoint,
    KeyKind,
    SignatureLine,
    VerifierKey,
    parse_note,
    sign_checkpoint,
)
from policies.log.cosignature import cosign, cosigner_vkey, merge
from policies.log.errors import NoteError, PolicyError, QuorumError, QuorumUnsafeError
from policies.log.mldsa import MlDsaKey
from policies.log.policy import (
    Policy,
    check_safe,
    default_quorum,
    open_witnessed,
    parse_policy,
    policy_text,
    pool_policy,
)

ORIGIN = "pool.example/log/2026a"
LOG, BROKER = SigningKey.from_seed(b"L" * 32), SigningKey.from_seed(b"B" * 32)
LOG_VKEY = VerifierKey(ORIGIN, LOG.public)
NOTE = sign_checkpoint(LOG, Checkpoint(ORIGIN, 17, b"\x05" * 32))
NAMES = ("kita", "nord", "hanbit", "auditor", "sued", "west", "ost")
KEYS = {name: SigningKey.from_seed(name.encode().ljust(32, b".")) for name in NAMES}
VKEYS = {name: VerifierKey(f"{name}.example/w", key.public, KeyKind.COSIGNER) for name, key in KEYS.items()}
HEAD = f"# mine\nlog {LOG_VKEY.text()}\nbroker {key_text(BROKER.public)}\n"
BASE = HEAD + "quorum none\n"


def lines(*names: str) -> str:
    return "".join(f"witness {name} {VKEYS[name].text()}\n" for name in names)


POOL = (
    HEAD
    + lines("kita", "nord", "hanbit", "auditor")
    + "group pool 3 kita nord hanbit auditor\nquorum pool  # three of four\n"
)


def cosigned(*names: str, note: str = NOTE) -> str:
    text = parse_note(note).text
    return merge(
        note, [cosign(KEYS[name], name=VKEYS[name].name, text=text, time_s=1_790_000_000) for name in names]
    )


def test_a_policy_without_witnesses_round_trips() -> None:
    policy = parse_policy(BASE)
    assert policy == Policy(logs=(LOG_VKEY,), broker=BROKER.public)
    pinned = parse_policy(BASE + f"contract sha256:{'a' * 64}\n")
    assert pinned.contracts == ("sha256:" + "a" * 64,)
    assert parse_policy(policy_text(pinned)) == pinned
    assert (policy.voters, policy.k, policy.n) == ((), 0, 0)
    assert policy.satisfied([])


def test_witnesses_groups_and_quorum_round_trip() -> None:
    policy = parse_policy(POOL)
    assert dict(policy.witnesses) == {name: VKEYS[name] for name in NAMES[:4]}
    assert (policy.voters, policy.k, policy.n, policy.tolerates) == (NAMES[:4], 3, 4, 1)
    assert parse_policy(policy_text(policy)) == policy
    assert policy_text(policy).splitlines()[-1] == "quorum pool"
    check_safe(policy)


def test_order_blanks_tabs_addresses_and_comments_do_not_matter() -> None:
    text = (
        f"\r\n\t# a comment\nwitness\tkita   {VKEYS['kita'].text()} https://kita.example/w/ # by telephone\n"
        f"\nquorum kita\nbroker {key_text(BROKER.public)}\nlog {LOG_VKEY.text()} https://pool.example/#log\n"
    )
    policy = parse_policy(text)
    assert (policy.quorum, policy.voters, policy.k) == ("kita", ("kita",), 1)
    assert parse_policy(policy_text(policy)) == policy


def test_a_witness_is_counted_by_its_key_and_not_by_its_name() -> None:
    policy = parse_policy(POOL)
    impostors = [VerifierKey(key.name, KEYS["ost"].public, key.kind) for key in policy.witnesses.values()]
    as_log = [VerifierKey(key.name, key.public_key) for key in policy.witnesses.values()]
    assert not policy.satisfied(impostors)
    assert not policy.satisfied(as_log)
    assert policy.satisfied([*impostors, *policy.witnesses.values()])


def test_three_of_four_means_every_three_and_no_two() -> None:
    policy = parse_policy(POOL)
    for count in range(5):
        for chosen in itertools.combinations(NAMES[:4], count):
            verified = [VKEYS[name] for name in chosen]
            assert policy.satisfied(verified) == (count >= 3)
            assert policy.voters_of(verified) == chosen
    assert not policy.satisfied([VKEYS["kita"]] * 4)


def test_several_keys_of_one_organisation_are_one_vote() -> None:
    second = VerifierKey("kita.example/w2", SigningKey.from_seed(b"2" * 32).public, KeyKind.COSIGNER)
    quantum = cosigner_vkey(MlDsaKey.from_seed(b"Q" * 32), "kita.example/w")
    text = (
        HEAD
        + lines("kita", "nord", "hanbit")
        + f"witness kita-2 {second.text()}\nwitness kita-q {quantum.text()}\n"
        + "group org-kita any kita kita-2 kita-q\ngroup pool all org-kita nord hanbit\nquorum pool\n"
    )
    policy = parse_policy(text)
    assert (policy.voters, policy.k) == (("org-kita", "nord", "hanbit"), 3)
    assert not policy.satisfied([VKEYS["kita"], second, quantum, VKEYS["nord"]])
    for one in (VKEYS["kita"], second, quantum):
        assert policy.satisfied([one, VKEYS["nord"], VKEYS["hanbit"]])
    assert set(policy.keys_of("org-kita")) == {VKEYS["kita"], second, quantum}
    assert parse_policy(policy_text(policy)) == policy
    apart = text.replace("group org-kita any kita kita-2 kita-q\n", "").replace("org-kita", "kita kita-2")
    with pytest.raises(PolicyError, match="one vote per organisation"):
        parse_policy(apart)


def test_nested_groups_count_level_by_level() -> None:
    text = (
        HEAD
        + lines(*NAMES[:6])
        + "group x 2 kita nord hanbit\ngroup y any auditor sued west\ngroup both all x y\nquorum both\n"
    )
    policy = parse_policy(text)
    assert (policy.voters, policy.k, policy.n) == (("x", "y"), 2, 2)
    for chosen in (one for count in range(7) for one in itertools.combinations(NAMES[:6], count)):
        expected = len({"kita", "nord", "hanbit"} & {*chosen}) >= 2 and len({*chosen} & {*NAMES[3:6]}) >= 1
        assert policy.satisfied([VKEYS[name] for name in chosen]) == expected


def test_a_group_around_a_group_is_that_group() -> None:
    wrapped = parse_policy(POOL.replace("quorum pool", "group outer all pool\nquorum outer"))
    assert (wrapped.voters, wrapped.k, wrapped.n, wrapped.tolerates) == (NAMES[:4], 3, 4, 1)


def test_any_and_all_are_one_and_every() -> None:
    for word, k in (("any", 1), ("all", 4), ("1", 1), ("4", 4)):
        policy = parse_policy(POOL.replace("pool 3", f"pool {word}"))
        assert (policy.k, policy.n, policy.tolerates) == (k, 4, 2 * k - 5)


def test_no_two_conflicting_quorums_while_fewer_than_2k_minus_n_sign_both() -> None:
    for n in range(1, 8):
        for k in range(1, n + 1):
            policy = parse_policy(
                HEAD + lines(*NAMES[:n]) + f"group pool {k} {' '.join(NAMES[:n])}\nquorum pool\n"
            )
            for f in range(n + 1):
                assert conflict_possible(policy, f) == (f >= 2 * k - n), (n, k, f)
                assert conflict_possible(policy, f) == (f > policy.tolerates)


def conflict_possible(policy: Policy, f: int) -> bool:
    """Whether f voters who sign everything and any split of the others give two quorums."""
    names = policy.voters
    both, honest = names[:f], names[f:]
    for at in range(2 ** len(honest)):
        left = [name for bit, name in enumerate(honest) if at >> bit & 1]
        right = [name for name in honest if name not in left]
        if all(policy.satisfied([VKEYS[name] for name in (*both, *side)]) for side in (left, right)):
            return True
    return False


def test_the_default_quorum_tolerates_one_and_from_five_voters_on_two() -> None:
    assert [default_quorum(n) for n in range(9)] == [0, 1, 2, 3, 3, 4, 5, 5, 6]
    for n in range(2, 65):
        least = 1 if n < 5 else 2
        assert 2 * default_quorum(n) - n - 1 >= (least if n != 2 else 1)
        assert default_quorum(n) <= n


def test_a_quorum_that_tolerates_nobody_is_refused_with_the_k_that_would_do() -> None:
    check_safe(parse_policy(BASE))
    for n in range(1, 8):
        for k in range(1, n + 1):
            policy = parse_policy(
                HEAD + lines(*NAMES[:n]) + f"group pool {k} {' '.join(NAMES[:n])}\nquorum pool\n"
            )
            if 2 * k - n - 1 >= 1:
                check_safe(policy)
                continue
            with pytest.raises(QuorumUnsafeError) as refused:
                check_safe(policy)
            assert (refused.value.http_status, refused.value.exit_code) == (422, 6)
            safe = [one for one in range(1, n + 1) if 2 * one - n - 1 >= 1]
            assert refused.value.remedy == (
                f"raise k to {safe[0]}" if safe else "add voters: two are the least"
            )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "quorum none",
        f"log {LOG_VKEY.text()}\nquorum none\n",
        f"broker {key_text(BROKER.public)}\nquorum none\n",
        HEAD,
        BASE + f"broker {key_text(KEYS['kita'].public)}\n",
        BASE + f"log {LOG_VKEY.text()}\n",
        BASE + f"log {replace(LOG_VKEY, name='other.example/log').text()}\n",
        BASE + "quorum none\n",
        POOL + "quorum none\n",
        POOL + "quorum pool\n",
        BASE + "trust everyone\n",
        BASE + "_log x\n",
        BASE + "finish x\n",
        BASE + "contract abc\n",
        BASE.replace(key_text(BROKER.public), "ed25519:" + "01" + "00" * 31),
        BASE.replace(key_text(BROKER.public), key_text(LOG.public)),
        BASE.replace(LOG_VKEY.text(), "x"),
        BASE.replace("quorum none", "quorum pool"),
        BASE.replace("quorum none", "quorum kita\n" + lines("kita")),
        BASE.replace("quorum none", "quorum"),
        BASE.replace("quorum none", "quorum none none"),
        BASE + "group pool 1 kita\n" + lines("kita"),
        BASE + lines("kita") + "group pool 1 kita none\n",
        BASE + lines("kita") + "group pool 1 pool\n",
        BASE + lines("kita", "kita"),
        BASE + lines("kita").replace("witness kita", "witness none"),
        BASE + lines("kita") + lines("kita").replace("witness kita", "witness kita-2"),
        BASE + lines("kita") + f"witness w {replace(VKEYS['kita'], name='sybil.example/w').text()}\n",
        BASE + f"witness w {replace(LOG_VKEY, kind=KeyKind.COSIGNER).text()}\n",
        BASE + f"witness w {replace(VKEYS['kita'], kind=KeyKind.LOG).text()}\n",
        BASE + f"log {replace(VKEYS['kita'], kind=KeyKind.COSIGNER).text()}\n",
        BASE + lines("kita") + "group kita 1 kita\n",
        BASE + lines("kita") + "group pool 2 kita\n",
        BASE + lines("kita") + "group pool 0 kita\n",
        BASE + lines("kita") + "group pool 01 kita\n",
        BASE + lines("kita") + "group pool -1 kita\n",
        BASE + lines("kita") + "group pool \u0661 kita\n",
        BASE + lines("kita") + "group pool most kita\n",
        BASE + lines("kita") + "group pool any kita kita\n",
        BASE + lines("kita", "nord") + "group a any kita nord\ngroup b any kita\n",
        BASE + lines("kita") + "group a any kita\ngroup b any a\ngroup c any a\n",
        BASE + lines("kita") + "group pool any\n",
        BASE + "witness kita x\n",
        BASE + f"witness ki+ta {VKEYS['kita'].text()}\n",
        BASE + f"witness <b>kita</b> {VKEYS['kita'].text()}\n",
        BASE + "log\n",
        BASE + "# \x1b[2J\n",
        BASE + "# \ud800\n",
        "#\n" * 600,
        "#" * 300_000,
    ],
)
def test_a_policy_that_cannot_be_trusted_as_written_is_refused(text: str) -> None:
    with pytest.raises(PolicyError) as refused:
        parse_policy(text)
    assert refused.value.need
    assert refused.value.remedy
    assert refused.value.found.isascii()


def test_two_keys_with_one_name_and_key_hash_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # a collision of 32 bits takes minutes to find: here every key has the same hash
    monkeypatch.setattr(VerifierKey, "hash4", b"same")
    text = f"log {LOG_VKEY.text()}\nlog {VerifierKey(ORIGIN, KEYS['kita'].public).text()}\n"
    with pytest.raises(PolicyError, match="each name and key hash once"):
        parse_policy(text)


def test_a_rotated_log_lists_two_keys_of_one_name() -> None:
    new = VerifierKey(ORIGIN, KEYS["ost"].public)
    policy = parse_policy(BASE + f"log {new.text()}\n")
    assert policy.logs == (LOG_VKEY, new)
    assert open_witnessed(sign_checkpoint(KEYS["ost"], Checkpoint(ORIGIN, 1, b"r" * 32)), policy)[0].size == 1


def test_a_post_quantum_log_key_alone_is_not_enough() -> None:
    quantum = cosigner_vkey(MlDsaKey.from_seed(b"Q" * 32), ORIGIN)
    assert parse_policy(BASE + f"log {quantum.text()}\n").logs == (LOG_VKEY, quantum)
    with pytest.raises(PolicyError):
        parse_policy(BASE.replace(LOG_VKEY.text(), quantum.text()))


def test_as_many_witnesses_as_a_pool_has_parties_fit() -> None:
    keys = {}
    for at in range(64):
        seed = bytes([at]) * 32
        name = f"org_{at}/witness"
        keys[f"org_{at}"] = [
            VerifierKey(name, SigningKey.from_seed(seed).public, KeyKind.COSIGNER),
            cosigner_vkey(MlDsaKey.from_seed(seed), name),
        ]
    policy = pool_policy(logs=[LOG_VKEY], broker=BROKER.public, witnesses=keys)
    assert (policy.n, policy.k, len(policy.witnesses)) == (64, 34, 128)
    assert parse_policy(policy_text(policy)) == policy


def test_a_pool_gives_each_organisation_one_vote() -> None:
    second = VerifierKey("kita.example/w", KEYS["ost"].public, KeyKind.COSIGNER)
    witnesses = {
        "kita": [VKEYS["kita"], second],
        "nord": [VKEYS["nord"]],
        "sued": [],
        "pool": [VKEYS["west"]],
    }
    policy = pool_policy(logs=[LOG_VKEY], broker=BROKER.public, witnesses=witnesses)
    assert (policy.voters, policy.k, policy.quorum) == (("kita", "nord", "org:pool"), 3, "pool")
    assert policy.voters_of([second, VKEYS["west"]]) == ("kita", "org:pool")
    nobody = pool_policy(logs=[LOG_VKEY], broker=BROKER.public, witnesses={})
    assert nobody == Policy(logs=(LOG_VKEY,), broker=BROKER.public)
    assert pool_policy(logs=[LOG_VKEY], broker=BROKER.public, witnesses=witnesses, k=2).k == 2
    assert pool_policy(logs=[LOG_VKEY], broker=BROKER.public, witnesses=witnesses, k=0).quorum == "none"


def test_a_pool_refuses_a_key_of_two_organisations_and_too_few_of_them() -> None:
    twice = {"kita": [VKEYS["kita"]], "sybil": [replace(VKEYS["kita"], name="sybil/witness")]}
    with pytest.raises(PolicyError):
        pool_policy(logs=[LOG_VKEY], broker=BROKER.public, witnesses=twice)
    with pytest.raises(QuorumUnsafeError, match="2 organisations"):
        pool_policy(logs=[LOG_VKEY], broker=BROKER.public, witnesses={"kita": [VKEYS["kita"]]}, k=2)


def test_a_note_with_the_quorum_opens_and_tells_who_and_when() -> None:
    checkpoint, note = open_witnessed(cosigned("kita", "nord", "auditor"), parse_policy(POOL))
    assert checkpoint.size == 17
    assert dict(note.times) == dict.fromkeys(
        ("kita.example/w", "nord.example/w", "auditor.example/w"), 1_790_000_000
    )


def test_a_note_without_the_quorum_or_without_the_log_is_refused() -> None:
    policy = parse_policy(POOL)
    with pytest.raises(QuorumError, match=r"3 of 4 voters.*found 2 of them: kita nord"):
        open_witnessed(cosigned("kita", "nord", "ost"), policy)
    with pytest.raises(QuorumError, match="0 of them: nobody"):
        open_witnessed(NOTE, policy)
    forged = sign_checkpoint(KEYS["ost"], Checkpoint(ORIGIN, 17, b"\x06" * 32))
    with pytest.raises(QuorumError, match="a log key of the policy"):
        open_witnessed(cosigned(*NAMES[:4], note=forged), policy)
    other_log = sign_checkpoint(LOG, Checkpoint("other.example/log", 17, b"\x06" * 32))
    with pytest.raises(QuorumError, match="a log key of the policy"):
        open_witnessed(cosigned(*NAMES[:4], note=other_log), policy)


def test_one_failing_signature_of_a_known_witness_rejects_the_note() -> None:
    good = cosigned("kita", "nord", "hanbit")
    bad = SignatureLine(VKEYS["auditor"].name, VKEYS["auditor"].hash4, bytes(7) + b"\1" + bytes(64)).text()
    with pytest.raises(NoteError):
        open_witnessed(merge(good, [bad]), parse_policy(POOL))
    stranger = SignatureLine(VKEYS["ost"].name, VKEYS["ost"].hash4, bytes(72)).text()
    assert open_witnessed(merge(good, [stranger]), parse_policy(POOL))[0].size == 17
