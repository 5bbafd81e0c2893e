# SPDX-License-Identifier: Apache-2.0
"""A node in a negotiation: what a person's word leads to, what goes out again after a crash, what waits for whom."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from client.contract.consent import Consent, consent_of, give_consent
from client.contract.countering import counter
from client.contract.lane_book import LaneBook
from client.contract.negotiating import refuse
from client.contract.tending import tend
from client.errors import (
    NoSuchThingError,
    NotConfirmedError,
    NotSignedError,
    PeerUnreachableError,
    ProseMismatchError,
    RemoteRefusalError,
)
from policies.contract.errors import (
    BadTransitionError,
    ContractInvalidError,
    LaneMessageError,
    OvertakenError,
    UnacknowledgedError,
    YamlRefusedError,
)
from policies.contract.lint import lint
from policies.contract.negotiation.lanes import read_message
from policies.encoding import digest
from policies.signing import Envelope
from tests.contractsim import authored
from tests.learnsim import small_recipe
from tests.nodelanes import RefusedInLaneError
from tests.nodeworld import PROSE, YES, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def said(world: World) -> list[str]:
    """Types of what the node posted, in order."""
    bodies = [json.loads(one) for one in world.broker.lanes.posted]
    return [read_message(Envelope.from_json(one["message"]).payload).type for one in bodies]


def worker(world: World) -> list[tuple[str, dict[str, str]]]:
    """One look of the worker at all contracts."""
    with desk(world) as outbox:
        return tend(world.member, world.shelf(), outbox)


def desk(world: World):
    """The outbox, for one command."""
    return contextlib.closing(world.outbox())


def page(world: World):
    return LaneBook(world.home).page(world.negotiation)


# --- a person's word ---


def test_a_word_on_a_text_is_accepted_agreed_and_verified(world: World):
    done = world.sign()
    assert said(world) == ["accept", "verify"]
    assert (done.data["lane"], done.data["executed"]) == ("VERIFIED", False)
    world.finalize()
    assert world.sign().data["executed"] is True
    assert said(world) == ["accept", "verify"]


def test_what_leaves_in_a_negotiation_is_noted_in_the_outbox(world: World):
    world.sign()
    with desk(world) as outbox:
        sent = [one for one in reversed(outbox.left.sent()) if one.contract == world.contract.digest]
    assert [(one.kind, one.receipts) for one in sent] == [
        ("negotiation.accept", "-"),
        ("contract.signed", "1 of 1"),
    ]
    assert sent[0].size_bytes == len(world.broker.lanes.posted[0])


def test_every_warning_is_acknowledged_by_its_id_or_nothing_is_said(world: World):
    ids = {one.id for one in lint(world.contract)}
    assert ids
    with pytest.raises(UnacknowledgedError) as raised:
        world.sign(acknowledge=lambda one: one.id != min(ids))
    assert min(ids) in raised.value.need
    with pytest.raises(UnacknowledgedError):
        world.sign(acknowledge=lambda _one: False, acknowledged=sorted(ids)[1:])
    with pytest.raises(NoSuchThingError, match=r"lint\.made-up"):
        world.sign(acknowledged=["lint.made-up:k-1"])
    assert said(world) == []
    assert consent_of(world.shelf(), world.contract) is None
    world.sign(acknowledge=lambda _one: False, acknowledged=ids)
    body = json.loads(world.broker.lanes.posted[-1])
    message = read_message(Envelope.from_json(body["message"]).payload)
    assert message.acknowledged == tuple(sorted(ids))
    (sealed,) = world.outbox().envelopes(kind="contract.signed")
    assert json.loads(sealed.envelope.payload)["body"]["acknowledged"] == sorted(ids)


def test_a_person_who_says_no_is_asked_again_and_nothing_was_said(world: World):
    with pytest.raises(NotConfirmedError):
        world.sign(confirm=lambda _shown: False)
    assert (said(world), world.broker.signatures) == ([], {})
    asked: list[str] = []
    world.sign(confirm=lambda shown: bool(asked.append(shown)) or True)
    assert asked == [world.contract.digest.removeprefix("sha256:")[:12]]


def test_what_is_about_to_be_said_stands_above_the_question(world: World):
    told: list[str] = []
    world.sign(tell=told.extend)
    text = "\n".join(told)
    for words in (world.contract.digest, "the same text as in your file", "ACCEPTED", "contract.signed"):
        assert words in text, words


def test_what_was_read_before_is_told_in_short_with_where_to_read_it(world: World):
    told: list[str] = []
    world.sign(tell=told.extend, brief=True)
    assert len(told) == 3
    text = "\n".join(told)
    for words in (
        world.contract.title,
        " acknowledged;",
        "iriai-node contract show " + world.contract.digest[7:19],
    ):
        assert words in text, words


def test_a_contract_with_a_lint_error_is_not_signed(world: World):
    world.offer(test_only=False)  # epsilon_total is 20
    with pytest.raises(NotSignedError, match="lint"):
        world.sign()
    assert said(world) == []


# --- waiting for others ---


def test_a_word_is_kept_until_the_others_have_accepted_and_the_worker_completes_it(world: World):
    world.broker.lanes.others_accept = False
    waiting = world.sign()
    assert (waiting.data["lane"], said(world)) == ("ACCEPTED", ["accept"])
    assert worker(world) == []
    world.broker.lanes.agree(world.talk)
    assert worker(world) == [("contract-said", {"contract": world.contract.digest, "said": "verify"})]
    assert said(world) == ["accept", "verify"]
    world.finalize()
    assert worker(world) == [("contract-final", {"contract": world.contract.digest})]
    assert worker(world) == []
    assert world.shelf().get(world.contract.digest).is_executed


def test_repeating_the_command_completes_it_without_asking_again(world: World):
    world.broker.lanes.others_accept = False
    world.sign()
    world.broker.lanes.agree(world.talk)
    done = world.sign(confirm=lambda _shown: False, acknowledge=lambda _one: False, prose=None)
    assert done.data["lane"] == "VERIFIED"


def test_the_command_waits_for_the_others_as_long_as_it_was_told(world: World):
    world.broker.lanes.others_accept = False
    polls: list[int] = []

    def agree_at_the_third(view):
        polls.append(len(view["messages"]))
        if len(polls) == 6:
            world.broker.lanes.agree(world.talk)
        return view

    world.broker.lanes.lies.append(agree_at_the_third)
    assert world.sign(wait_s=20).data["lane"] == "VERIFIED"


def test_without_a_word_the_worker_says_nothing(world: World):
    assert worker(world) == []
    assert said(world) == []


def test_a_word_on_another_text_is_none_on_this_one(world: World):
    world.broker.lanes.others_accept = False
    world.sign()
    old = world.contract
    newer = world.hold(world.draft(title="A counter-offer of somebody else"))
    world.broker.lanes.counter(world.talk, newer.digest)
    assert worker(world) == []
    with pytest.raises(OvertakenError) as raised:
        world.sign()
    assert newer.digest in raised.value.found
    assert f"contract diff {old.digest[7:19]} {newer.digest[7:19]}" in raised.value.remedy
    world.contract = newer
    world.broker.lanes.others_accept = True
    assert world.sign().data["round"] == 2
    assert list(world.broker.signatures) == [newer.digest]


def test_a_consent_that_was_changed_is_no_consent(world: World):
    shelf = world.shelf()
    world.broker.lanes.others_accept = False
    world.sign()
    given = consent_of(shelf, world.contract)
    assert given is not None
    path = shelf.folder(world.contract.digest) / "consent.json"
    for data in (b"{}", b"x", path.read_bytes().replace(b"iriai-consent/1", b"iriai-consent/2")):
        path.write_bytes(data)
        with pytest.raises(NotConfirmedError):
            consent_of(shelf, world.contract)
    world.broker.lanes.agree(world.talk)
    facts = {"contract": world.contract.digest, "code": "node.not-confirmed"}
    assert worker(world) == [("contract-waits", facts)]
    give_consent(shelf, given)
    assert worker(world)[0][0] == "contract-said"


def test_before_verified_everything_is_checked_once_more(world: World):
    world.broker.lanes.others_accept = False
    world.sign()
    world.broker.lanes.agree(world.talk)
    shelf, given = world.shelf(), consent_of(world.shelf(), world.contract)
    assert given is not None
    give_consent(shelf, Consent(**{**_facts(given), "acknowledged": given.acknowledged[1:]}))
    assert worker(world)[0][1]["code"] == "negotiation.unacknowledged"
    give_consent(shelf, given)
    world.clock.ms += 200 * 86_400_000  # sign_by is over
    assert worker(world)[0][1]["code"] == "contract.not-signed"
    assert said(world) == ["accept"]
    assert world.broker.signatures == {}


def _facts(given: Consent) -> dict:
    names = ("contract", "party", "at", "acknowledged", "prose", "negotiation", "round")
    return {name: getattr(given, name) for name in names}


def test_who_acknowledges_other_warnings_later_says_so_in_an_entry_of_its_own(world: World):
    """A linter that learned a rule between two tries: the entry of the first is never sent for the second."""
    world.broker.lanes.others_accept = False
    world.sign()
    world.broker.lanes.agree(world.talk)
    shelf, given = world.shelf(), consent_of(world.shelf(), world.contract)
    assert given is not None
    more = tuple(sorted((*given.acknowledged, "lint.of-another-version:k-1")))
    path = f"/negotiations/{world.negotiation}/messages"

    def refuse(_request, _body):
        raise RefusedInLaneError(need="other warnings", found="these", remedy="sign again")

    world.broker.routes[path] = refuse
    give_consent(shelf, Consent(**{**_facts(given), "acknowledged": more}))
    worker(world)
    del world.broker.routes[path]
    give_consent(shelf, given)
    worker(world)
    sealed = [json.loads(one.envelope.payload) for one in world.outbox().envelopes(kind="contract.signed")]
    assert [one["body"]["acknowledged"] for one in sealed] == [list(more), list(given.acknowledged)]


def test_agreed_without_the_brokers_own_signature_is_not_verified(world: World):
    world.broker.lanes.others_accept = False
    world.sign()
    world.broker.lanes.say(world.talk, "agree")
    world.broker.partial[world.contract.digest] = Envelope(
        payload_type="application/vnd.iriai.contract.v1+json", payload=world.contract.canonical, signatures=()
    )
    with pytest.raises(NotSignedError, match="promises"):
        world.sign()
    assert world.broker.signatures == {}


# --- crashes ---


def test_a_crash_between_consent_and_accept_is_made_good_by_the_worker(world: World):
    world.broker.lanes.others_accept = False
    shelf = world.shelf()
    world.broker.down = True
    with pytest.raises(PeerUnreachableError):
        world.sign()
    world.broker.down = False
    assert said(world) == []
    world.broker.lanes.lies.append(_break_once())
    with pytest.raises(BadTransitionError):
        world.sign()  # the person's word was taken; what follows failed
    assert consent_of(shelf, world.contract) is not None
    assert worker(world)[0][1]["said"] == "accept"


def _break_once():
    """The second look at the lane shows nonsense."""
    count = [0]

    def lie(view):
        count[0] += 1
        return view | ({"id": "neg_aaaaaaaaaaaaaaaa"} if count[0] == 2 else {})

    return lie


@pytest.mark.parametrize("lost", [1, 2])
def test_a_lost_answer_is_found_in_the_lane_and_nothing_is_said_twice(world: World, lost: int):
    world.broker.lost = 1
    with pytest.raises(PeerUnreachableError):
        world.sign()
    if lost == 2:
        world.broker.lost = 1
        with pytest.raises(PeerUnreachableError):
            world.sign()
    world.sign()
    assert said(world) == ["accept", "verify"]
    assert len(world.outbox().envelopes(kind="contract.signed")) == 1
    assert page(world).outgoing is None


def test_a_message_that_never_arrived_goes_out_again_byte_for_byte(world: World):
    world.broker.lanes.others_accept = False
    sent: list[bytes] = []

    def drop(_request, _body):
        sent.append(_request.content)
        import httpx

        raise httpx.ConnectError("down")

    path = f"/negotiations/{world.negotiation}/messages"
    world.broker.routes[path] = drop
    for _ in range(2):
        with pytest.raises(PeerUnreachableError):
            world.sign()
    assert len(set(sent)) == 1
    world.clock.ms += 60_000  # a new message would have another time
    del world.broker.routes[path]
    assert worker(world)[0][1]["said"] == "resent"
    assert world.broker.lanes.posted == [sent[0]]
    assert page(world).outgoing is None


def test_a_verified_that_never_arrived_keeps_signature_and_log_envelope(world: World):
    world.broker.lanes.others_accept = False
    world.sign()
    world.broker.lanes.agree(world.talk)
    sent: list[bytes] = []
    path = f"/negotiations/{world.negotiation}/messages"

    def drop(request, _body):
        import httpx

        sent.append(request.content)
        raise httpx.ReadTimeout("nothing")

    world.broker.routes[path] = drop
    facts = {"contract": world.contract.digest, "code": "peer.unreachable"}
    assert worker(world) == [("contract-waits", facts)]
    world.clock.ms += 60_000
    assert worker(world) == [("contract-waits", facts)]
    assert len(set(sent)) == 1
    del world.broker.routes[path]
    assert worker(world)[0][0] == "contract-said"
    assert json.loads(world.broker.lanes.posted[-1])["signature"]
    assert len(world.outbox().envelopes(kind="contract.signed")) == 1
    assert len(world.broker.signatures[world.contract.digest]) == 1


def test_a_message_that_the_lane_went_on_without_is_not_sent_again(world: World):
    path = f"/negotiations/{world.negotiation}/messages"

    def drop(_request, _body):
        import httpx

        raise httpx.ConnectError("down")

    world.broker.routes[path] = drop
    with pytest.raises(PeerUnreachableError):
        world.sign()
    del world.broker.routes[path]
    newer = world.hold(world.draft(title="A counter-offer of somebody else"))
    world.broker.lanes.counter(world.talk, newer.digest)
    assert worker(world) == []
    assert (page(world).outgoing, said(world)) == (None, [])


def test_a_message_that_the_broker_refused_is_not_sent_again(world: World):
    path = f"/negotiations/{world.negotiation}/messages"

    def refused(_request, _body):
        from tests.nodelanes import RefusedInLaneError

        raise RefusedInLaneError(need="x", found="y", remedy="z")

    world.broker.routes[path] = refused
    with pytest.raises(RemoteRefusalError) as raised:
        world.sign()
    assert raised.value.code == "negotiation.bad-transition"
    assert page(world).outgoing is None


def test_two_processes_do_not_answer_one_lane_at_once(world: World):
    with LaneBook(world.home).alone(wait=True):
        assert worker(world) == []
    assert said(world) == []


# --- refusing ---


def no(world: World, **changes):
    facts = {
        "code": "terms.too-loose",
        "clause": "dp-1",
        "text": "epsilon is too large for us",
        "confirm": YES,
    }
    facts |= changes
    with desk(world) as outbox:
        return refuse(world.member, world.shelf(), outbox, world.contract.digest, **facts)


def test_a_refusal_names_reason_clause_and_text_and_ends_the_round(world: World):
    done = no(world)
    assert (done.data["lane"], done.data["said"]) == ("TERMINATED", True)
    assert world.talk.closed == {
        "code": "terms.too-loose",
        "clause": "dp-1",
        "text": "epsilon is too large for us",
        "party": "kita",
    }
    with pytest.raises(NotSignedError, match=r"terms\.too-loose"):
        world.sign()


def test_a_refusal_ends_the_round_for_all_and_so_a_person_is_asked_first(world: World):
    world.broker.lanes.others_accept = False
    world.sign()
    asked: list[str] = []
    with pytest.raises(NotConfirmedError):
        no(world, confirm=lambda shown: bool(asked.append(shown)))
    assert asked == [world.contract.digest.removeprefix("sha256:")[:12]]
    assert said(world) == ["accept"]
    assert consent_of(world.shelf(), world.contract) is not None  # what was accepted stands
    assert page(world).refusal is None


def test_a_refusal_after_accepting_waits_for_agreed_and_nothing_is_signed(world: World):
    world.broker.lanes.others_accept = False
    world.sign()
    done = no(world)
    assert (done.data["lane"], done.data["said"]) == ("ACCEPTED", False)
    assert consent_of(world.shelf(), world.contract) is None
    assert worker(world) == []
    world.broker.lanes.agree(world.talk)
    assert worker(world)[0][1]["said"] == "terminate"
    assert (said(world), world.broker.signatures) == (["accept", "terminate"], {})


def test_who_refused_and_then_signs_has_changed_their_mind(world: World):
    world.broker.lanes.others_accept = False
    world.sign()
    no(world)
    assert page(world).refusal is not None
    world.sign()
    assert page(world).refusal is None
    world.broker.lanes.agree(world.talk)
    assert worker(world)[0][1]["said"] == "verify"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"clause": "no-such"}, NoSuchThingError),
        ({"code": "Not a code"}, LaneMessageError),
        ({"text": "two\nlines"}, LaneMessageError),
        ({"text": "x" * 501}, LaneMessageError),
    ],
)
def test_a_refusal_of_another_form_is_not_sent(world: World, changes, error):
    with pytest.raises(error):
        no(world, **changes)
    world.broker.lanes.others_accept = False
    assert said(world) == []


def test_what_is_signed_is_not_refused_any_more(world: World):
    world.sign()
    with pytest.raises(NotSignedError, match="VERIFIED"):
        no(world)


def test_a_lane_in_agreed_whose_round_has_closed_is_ended_by_the_node(world: World):
    world.broker.lanes.others_accept = False
    world.sign()
    world.broker.lanes.agree(world.talk)
    world.talk.state = "terminated"
    world.talk.closed = {"code": "terms.too-loose", "clause": None, "text": None, "party": "nord"}
    assert worker(world)[0][1]["said"] == "round-closed"
    assert world.talk.last.code == "round-closed"
    assert world.broker.signatures == {}


# --- countering ---


def put(world: World, contract, **changes):
    options = {"confirm": YES} | changes
    with desk(world) as outbox:
        return counter(world.member, world.shelf(), outbox, contract.canonical.decode(), **options)


def test_a_counter_offer_starts_a_round_and_is_no_signature(world: World):
    mine = world.draft(title="Ours")
    told: list[str] = []
    done = put(world, mine, tell=told.extend)
    assert (done.data["round"], done.data["lane"], done.data["restarted"]) == (2, "OFFERED", ["iber", "nord"])
    assert any("round     2; these lanes start anew: iber, nord" in line for line in told)
    assert any("Ours" in line for line in told)
    assert said(world) == ["request"]
    assert consent_of(world.shelf(), mine) is None
    assert json.loads(world.broker.lanes.posted[0])["recipes"] == []  # the negotiation holds them
    world.contract = mine
    world.broker.prose[mine.digest] = PROSE
    assert world.sign().data["lane"] == "VERIFIED"


def test_a_counter_offer_brings_the_recipes_that_the_open_text_lacks(world: World):
    other = small_recipe(frames_per_unit=16)
    recipes = world.contract.document["recipes"]
    recipes[0]["recipe_digest"] = other.digest
    mine = world.draft(recipes=recipes)
    with pytest.raises(NoSuchThingError, match="recipe"):
        put(world, mine)
    with pytest.raises(NoSuchThingError, match="names"):
        put(world, mine, recipes=[other.canonical, world.recipe.canonical])
    put(world, mine, recipes=[other.canonical])
    assert digest(other.canonical) in world.broker.annexes
    assert world.shelf().recipe(mine.digest, other.digest).digest == other.digest


def test_a_counter_offer_that_nobody_could_sign_is_not_sent(world: World):
    parties = world.contract.document["parties"]
    for one in parties:
        if one["party"] == "kita":
            one["org"] = "org_aaaaaaaaaaaaaaaa"
    for changes, error in (
        ({"parties": parties}, NotSignedError),
        ({"version": 2, "supersedes": "sha256:" + "1" * 64}, NotSignedError),
        ({"contract_id": "ctr_aaaaaaaaaaaaaaaa"}, NotSignedError),
        ({"test_only": False}, NotSignedError),
    ):
        with pytest.raises(error):
            put(world, world.draft(**changes))
    with pytest.raises(BadTransitionError):
        put(world, world.contract)  # it is the open text
    with pytest.raises(NotConfirmedError):
        put(world, world.draft(title="Ours"), confirm=lambda _shown: False)
    with pytest.raises(ProseMismatchError):
        put(world, world.draft(title="Ours"), prose=b"another text")
    for text, error in (("a: [1", YamlRefusedError), ("{}", ContractInvalidError)):
        with pytest.raises(error):
            counter(world.member, world.shelf(), world.outbox(), text, confirm=YES)
    assert said(world) == []


def test_a_counter_offer_is_bound_to_the_text_that_the_person_saw(world: World):
    """Another node's counter-offer arrives while the person reads: theirs is not overwritten unseen."""
    theirs = world.hold(world.draft(**{"privacy.epsilon_total": "18"}))
    told: list[str] = []

    def meanwhile(_shown: str) -> bool:
        world.broker.lanes.counter(world.talk, theirs.digest)
        return True

    with pytest.raises(OvertakenError) as raised:
        put(world, world.draft(title="Ours"), confirm=meanwhile, tell=told.extend)
    assert raised.value.code == "negotiation.superseded"
    assert world.contract.digest in raised.value.need
    assert f"{theirs.digest} in round 2" in raised.value.found
    assert "dp-1 tighter" in raised.value.found
    assert "20" in raised.value.found
    assert "18" in raised.value.found
    assert f"--instead-of {theirs.digest[7:19]}" in raised.value.remedy
    assert any("dp-1" in line and "TIGHTER" in line for line in told)
    assert said(world) == []
    assert page(world).outgoing is None


def test_what_a_counter_offer_replaces_is_the_text_of_the_lane_and_not_of_an_older_list(world: World):
    """The lane moves on between the list of contracts and the look at the lane: the newer text is shown."""
    theirs = world.hold(world.draft(**{"privacy.epsilon_total": "18"}))
    listed = world.member.client.get("/contracts")

    def stale(_request, _body):
        del world.broker.routes["/contracts"]
        world.broker.lanes.counter(world.talk, theirs.digest)
        return listed

    world.broker.routes["/contracts"] = stale
    told: list[str] = []
    done = put(world, world.draft(title="Ours"), tell=told.extend)
    assert (done.data["base"], done.data["round"]) == (theirs.digest, 3)
    assert f"open text {theirs.digest}" in told
    assert any("dp-1 LOOSER" in line for line in told)  # from 18 back to 20


def test_a_counter_offer_that_names_its_text_is_refused_once_another_is_open(world: World):
    world.shelf().put(world.contract, {world.recipe.digest: world.recipe.canonical})
    theirs = world.hold(world.draft(**{"privacy.epsilon_total": "18"}))
    world.broker.lanes.counter(world.talk, theirs.digest)
    mine = world.draft(title="Ours")
    for name in (world.contract.digest, world.contract.digest[7:19]):
        with pytest.raises(OvertakenError, match="dp-1 tighter"):
            put(world, mine, instead_of=name)
    assert said(world) == []
    done = put(world, mine, instead_of=theirs.digest)
    assert (done.data["base"], done.data["round"]) == (theirs.digest, 3)
    body = json.loads(world.broker.lanes.posted[-1])
    assert read_message(Envelope.from_json(body["message"]).payload).round == 2  # of the lane that it answers


def test_what_this_node_accepted_meanwhile_is_not_countered(world: World):
    world.broker.lanes.others_accept = False

    def meanwhile(_shown: str) -> bool:
        world.sign()
        return True

    with pytest.raises(BadTransitionError, match="ACCEPTED"):
        put(world, world.draft(title="Ours"), confirm=meanwhile)
    assert said(world) == ["accept"]


@pytest.mark.parametrize("origin", ["other.example/log", "pool.example/log"])
def test_a_text_that_names_another_log_is_neither_signed_nor_countered(world: World, origin: str):
    audit = {**authored()["audit"], "witness_quorum": 0}
    world.offer(audit=audit | {"log_origin": origin})
    with pytest.raises(NotSignedError) as raised:
        world.sign()
    assert (raised.value.clause, raised.value.found) == ("audit-1", origin)
    assert world.member.broker.origin in raised.value.need
    with pytest.raises(NotSignedError, match="log_origin"):
        put(world, world.draft(title="Ours", audit=audit | {"log_origin": origin}))
    assert said(world) == []
    world.offer(audit=audit | {"log_origin": world.member.broker.origin})
    assert world.sign().data["lane"] == "VERIFIED"


def test_what_was_accepted_is_not_countered_any_more(world: World):
    world.broker.lanes.others_accept = False
    world.sign()
    with pytest.raises(BadTransitionError, match="ACCEPTED"):
        put(world, world.draft(title="Ours"))
