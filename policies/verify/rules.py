# SPDX-License-Identifier: Apache-2.0
"""The catalogue of findings: what each rule checks, how grave it is, and how to redo it by hand.

Ids are stable and never reused. What a run could not look at (no receipts, nothing to compare with) the
report names as not checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LATER", "RULES", "Rule"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. ``severity`` is ``error``, ``review`` (a person decides) or ``note``."""

    severity: str
    checks: str
    by_hand: str


_JSON = "print the entry with `iriai-verify show BUNDLE INDEX`"

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "AUD-001": Rule(
            "error",
            "the file is exactly a bundle: names, count, sizes, one form",
            "unzip it, sort the names, zip them stored with the date 1980-01-01 and compare the bytes",
        ),
        "AUD-002": Rule(
            "error",
            "every file that the size asks for is there, and no other",
            "list tile/entries: 256 entries each, the last with its width as .p/<W>",
        ),
        "AUD-003": Rule(
            "error", "every file has the digest that MANIFEST lists", "sha256sum each file and compare"
        ),
        "AUD-004": Rule(
            "error",
            "format, versions and grade are those that are asked for, and BUNDLE agrees with the checkpoint",
            "read BUNDLE: grade auditor; compare origin and size with the three lines of checkpoint",
        ),
        "AUD-010": Rule(
            "error",
            "checkpoints parse strictly, without extension lines",
            "read the note: three lines, an empty line, signature lines",
        ),
        "AUD-011": Rule(
            "error",
            "a log key of the policy signed; no signature of a known key fails",
            "verify the Ed25519 signature over the three lines under the key in your policy",
        ),
        "AUD-012": Rule(
            "error",
            "the bundle's checkpoint has the quorum of your policy, one vote per organisation",
            "verify each cosignature under the witness keys of your policy; count organisations, not keys",
        ),
        "AUD-013": Rule(
            "error",
            "nobody vouches alone for two histories: 2k - n - 1 >= 1; k as in the contract; keys once, held",
            "compare k with the contract's witness_quorum; verify both signatures of each witnesses/ file",
        ),
        "AUD-014": Rule(
            "error",
            "every published checkpoint is a prefix of the tree, and its cosignatures hold",
            "hash the first entries up to its size, compare the root; verify cosignatures of known witnesses",
        ),
        "AUD-015": Rule(
            "error",
            "the note of --since is a prefix of this history",
            "hash the first entries up to its size and compare the root",
        ),
        "AUD-016": Rule(
            "error",
            "each receipt: the entry is included and its checkpoint is a prefix of the tree",
            "recompute the inclusion proof; one beyond the bundle's size shows that entries were cut off",
        ),
        "AUD-017": Rule(
            "review",
            "the newest quorum is not too old at --as-of",
            "latest time of the cosignatures that complete the quorum; ten minutes later is too old",
        ),
        "AUD-018": Rule(
            "review",
            "no voter was absent for more than a day",
            "list the times of each witness in checkpoints.log",
        ),
        "AUD-019": Rule(
            "error",
            "ML-DSA-44 signatures hold, and are there where the contract requires them",
            "verify the 0x06 lines under the ML-DSA keys of your policy; see ml_dsa of the audit clause",
        ),
        "AUD-020": Rule(
            "error",
            "the root recomputed from the entries' bytes is the checkpoint's root",
            "leaf = SHA256(0x00 || bytes), node = SHA256(0x01 || left || right), RFC 9162 section 2.1.1",
        ),
        "AUD-021": Rule(
            "error",
            "every hash tile holds the hashes that the entries give",
            "256 leaf hashes are a tile of level 0, the roots of 256 such tiles one of level 1",
        ),
        "AUD-022": Rule(
            "error",
            "entries are framed exactly, none above the bound, nothing left over",
            "read the tile: two length bytes, then the body, again and again",
        ),
        "AUD-030": Rule(
            "error",
            "bodies are canonical: key order, numbers, NFC, no duplicates",
            "re-encode the entry by RFC 8785 and compare the bytes",
        ),
        "AUD-031": Rule("error", "the type is known and its fields are exactly those of the schema", _JSON),
        "AUD-032": Rule("error", "`log` of every entry equals the origin", _JSON),
        "AUD-033": Rule(
            "error",
            "genesis first and only once; the policy it names is the one in the bundle",
            "sha256sum policy and compare with pub.policy of entry 0",
        ),
        "AUD-034": Rule("error", "`refs` point back, to permitted types", _JSON),
        "AUD-035": Rule(
            "error",
            "event ids are unique",
            "first 16 bytes of env, or of SHA256 over type and identifying fields",
        ),
        "AUD-036": Rule("error", "nothing follows `log.frozen`", _JSON),
        "AUD-040": Rule(
            "error",
            "every entry of a member has its envelope, whose payload has the digest `env`",
            "sha256sum the payload of the envelope",
        ),
        "AUD-041": Rule(
            "error",
            "the envelope is signed by the organisation's key in force at that index",
            "verify the DSSE signature under the key that the contract pins for that party",
        ),
        "AUD-042": Rule(
            "error",
            "envelope and entry agree in every shared field",
            "compare the payload's header and body with the entry",
        ),
        "AUD-043": Rule(
            "error",
            "every chain counts without gap and links back: nothing was left out",
            "list the chain's envelopes: seq 0, 1, 2, ..., prev = digest of the payload before",
        ),
        "AUD-044": Rule(
            "error",
            "no two payloads for one number of a chain",
            "list the chain's envelopes and look for a repeated seq",
        ),
        "AUD-045": Rule(
            "error",
            "what a node had seen is a prefix of this tree, and not from its future",
            "hash the first `seen.size` entries and compare the root",
        ),
        "AUD-046": Rule("error", "what a node had seen never shrinks", "list `seen.size` along the chain"),
        "AUD-047": Rule(
            "review",
            "a node began a new chain: its old numbers are closed, what it lost is asked of its owner",
            _JSON,
        ),
        "AUD-048": Rule(
            "error",
            "no update and no envelope is counted twice, or in another round",
            "sort submissions by update digest; compare run, round and attempt with the aggregate",
        ),
        "AUD-049": Rule(
            "error",
            "aliases recompute, and no two organisations share one",
            "HMAC-SHA256(alias key, scope, run, round), first 16 hex digits",
        ),
        "AUD-050": Rule(
            "error",
            "the contract is finalized, signed by all and by the pinned broker key, and in force",
            "verify each signature of contracts/<hex>.dsse under the keys in the contract",
        ),
        "AUD-051": Rule(
            "error",
            "a round keeps the contract and the recipe of its run, and the contract lists the recipe",
            "compare run.opened, round.opened and the recipes clause",
        ),
        "AUD-052": Rule(
            "error", "every submission has exactly one verdict before its round is closed", _JSON
        ),
        "AUD-053": Rule("error", "a refusal has a listed reason and an existing clause", _JSON),
        "AUD-054": Rule(
            "error", "the counts of `round.closed` are the counts of its entries, per party", _JSON
        ),
        "AUD-055": Rule(
            "error",
            "acknowledgements agree with `round.closed`, and none between two others is missing",
            "compare closed, leaf and count of round.ack with the entry that it names",
        ),
        "AUD-056": Rule(
            "error",
            "every aggregate has the independent groups that the contract asks for, a sum its members too",
            "count groups, and members, behind its submissions; floor(2n/3) + 1 of the recipe's n open a sum",
        ),
        "AUD-057": Rule(
            "error",
            "nothing is opened, averaged, released or delivered under a halt or an end, or from who has left",
            "list contract.halted, resumed, exited and terminated; look at what stands between them",
        ),
        "AUD-058": Rule(
            "error",
            "a successor names its contract, has the next version, and is signed or proven as its kind asks",
            "compare contract.amended with both contracts, their signatures, and the proof that it names",
        ),
        "AUD-059": Rule(
            "error",
            "each step has its decision; taken again it is the same; its facts are the log's; it was obeyed",
            "evaluate the contract on request and state; hash the record; compare with pub.decision",
        ),
        "AUD-060": Rule(
            "error", "one spend per lineage and mechanism run", "sort epsilon.spent by mechanism"
        ),
        "AUD-061": Rule(
            "error",
            "every aggregate refers to a spend of each contributor for its attempt; no spend is used twice",
            "match spends by mechanism; an update sent again names in `trained` the attempt that was paid",
        ),
        "AUD-062": Rule(
            "error",
            "the logged cost is at least the cost recomputed from the plan",
            "steps times the Renyi divergence of one step at the declared order",
        ),
        "AUD-063": Rule(
            "error",
            "no cap is passed at any index: the lineage's, the contract's, and the one per release",
            "add the costs per organisation and lineage in log order",
        ),
        "AUD-064": Rule(
            "error",
            "a second accountant gives the statement's figures: epsilon_pld to 0.01, epsilon_rdp to 1e-6",
            "compose the plan's steps with dp-accounting's PLDAccountant and RdpAccountant",
        ),
        "AUD-065": Rule(
            "error",
            "plans are those of the contract's recipes",
            "digest of the recipe's plan, compared with rounds, submissions and spends",
        ),
        "AUD-066": Rule("error", "a budget was opened for lineage and plan before the first spend", _JSON),
        "AUD-067": Rule(
            "error",
            "a halt, resume, exit or end rests on a notice by its party, in order, under the key in force",
            "verify notices/<hex>.json under the party's key; compare its clause and code with the entry",
        ),
        "AUD-068": Rule(
            "error",
            "each consent that a seed clause names is its donor's, about this party, data set and recipe",
            "verify the DSSE signature of consents/<hex>.json under the key that the contract pins",
        ),
        "AUD-069": Rule(
            "error",
            "an opened sum has its transcript, and single updates none",
            "compare pub.transcript of aggregate.released with secure_aggregation in the contract",
        ),
        "AUD-070": Rule(
            "error",
            "a release has a candidate, a passed gate, enough approvals and no veto; deliveries follow it",
            "count vote.cast of contributors for the model in its run, before the release",
        ),
        "AUD-071": Rule(
            "error",
            "the evidence that the contract lists is complete; its documents are in the bundle and true",
            "compare checks of candidate.evaluated with the release clause, the report with the log",
        ),
        "AUD-072": Rule(
            "error",
            "model to aggregates to contributions to contract, without a break",
            "follow base_model of each round, and the candidate, back to the aggregate that gave it",
        ),
        "AUD-073": Rule(
            "error",
            "a withdrawn contribution is in no later aggregate, and its party withdrew it",
            "list refs of aggregate.released after contribution.withdrawn",
        ),
        "AUD-074": Rule(
            "error",
            "the tier serves the recipient, and its embargo was over at the delivery",
            "look up the recipient's alias; add embargo_days to the last aggregate before the release",
        ),
        "AUD-075": Rule(
            "error",
            "a settlement's shares come to one, by the contract's method, for parties that took part",
            "add the disclosed shares; compare with incentives, and with refs of aggregate.released",
        ),
        "AUD-076": Rule(
            "review",
            "everybody whose update is in a released model, or who may veto it, voted, and was heard",
            "list vote.cast and evaluation.received of the run; ask who is missing for its receipts",
        ),
        "AUD-077": Rule(
            "error",
            "canaries are committed to before the first update, and revealed as committed before a release",
            "SHA256 over tag, run, seed and salt; the coins follow from the seed by HKDF-SHA256",
        ),
        "AUD-078": Rule(
            "error",
            "the leak report holds everybody's reveals; figures, verdicts and checks follow from its scores",
            "compute scores from the model and the seeds, and the figures from the scores",
        ),
        "AUD-079": Rule(
            "error",
            "the step receipt of every used update: known code, the plan's steps, a ledger that went on",
            "count epsilon.spent of the organisation in the run up to the update; compare with its receipt",
        ),
        "AUD-080": Rule(
            "error",
            "two different people did what needs two, and approved exactly this before it happened",
            "find console.action of two operators before the entry; read approvals/<subject>.json of it",
        ),
        "AUD-081": Rule(
            "error",
            "each access and each disclosure has a grant in force, and stays inside it",
            "find access.granted and access.revoked of its grant; compare fields, indexes and until",
        ),
        "AUD-082": Rule(
            "error",
            "a disclosed value opens its commitment; the auditor's bundle opens all but the erased",
            "HMAC-SHA256(salt, field || 0x00 || canonical value)",
        ),
        "AUD-083": Rule(
            "review",
            "a field that a grant in force opens is here, or was erased",
            "list the fields of access.granted; look for erasure.performed of the entry",
        ),
        "AUD-084": Rule(
            "review",
            "the log's policy and witnesses are those of your policy",
            "follow witness.added and witness.removed; compare what is left and the file policy with yours",
        ),
        "AUD-085": Rule(
            "error",
            "a rotation of a key is signed by the new key, and by the old one or by all the others",
            "verify the notice whose subject is the new key of the entry",
        ),
        "AUD-086": Rule(
            "review",
            "no incident is open",
            "list incident.declared without an incident.closed of the same kind and evidence",
        ),
        "AUD-087": Rule(
            "error",
            "an erased field is not disclosed",
            "list erasure.performed; look for its fields in disclosures/",
        ),
        "AUD-088": Rule(
            "error",
            "every grant, erasure and bundle for auditors has the operator's action that ordered it",
            "compare request of console.action with the entry's; subject with the bundle's digest",
        ),
        "AUD-090": Rule("error", "`ts` never decreases", _JSON),
        "AUD-091": Rule(
            "review",
            "times of entries lie between the cosignatures before and after them",
            "list cosignature times by size; five minutes of difference between clocks are allowed",
        ),
        "AUD-092": Rule(
            "error",
            "a witness's times never decrease",
            "list the times of each witness in checkpoints.log, by size",
        ),
        "AUD-093": Rule(
            "note",
            "a time stamp of another authority is there; OpenSSL checks it",
            "run the command, with the authority's certificate from your own hand",
        ),
        "AUD-094": Rule(
            "error",
            "votes on rounds and teams are counted, and a rejected model is taken back, as the contract says",
            "count round.voted or round.scored of the round by group; compare the next base_model",
        ),
        "AUD-095": Rule(
            "error",
            "the transcript of an opened sum proves it: signatures, sets, thresholds, secrets, this round",
            "verify each document in transcripts/<hex> under the keys that the contract pins",
        ),
        "AUD-096": Rule(
            "error",
            "masked vectors at hand add up to the opened sum, once the masks of the transcript are off",
            "sum of vectors minus AES-256-CTR of each key, modulo 2^32, little-endian; its SHA-256",
        ),
        "AUD-097": Rule(
            "error",
            "models follow from opened sums at hand, the first from the recipe, the candidate from the last",
            "server step of the recipe on model and sum times kappa, in float64, rounded to float32; SHA-256",
        ),
        "AUD-098": Rule(
            "error",
            "the sum in the log is the one that members checked, as their next updates name it",
            "compare `checked` of submission.received with pub.aggregate of that round and attempt",
        ),
        "AUD-100": Rule(
            "error",
            "no two notes that the log signed contradict each other",
            "two sizes: no consistency proof fits both; one size: the roots differ. Keep both notes",
        ),
        "AUD-101": Rule(
            "review",
            "notes that the log signed can be compared with each other",
            "ask for a bundle, or tiles, of the larger size",
        ),
        "AUD-110": Rule(
            "error",
            "every business row has its entry",
            "look for the entry that the row's key names",
        ),
        "AUD-111": Rule(
            "error",
            "every entry has its business row",
            "look for the row that the entry's fields name",
        ),
        "AUD-112": Rule(
            "error",
            "row and entry say the same",
            "compare the columns with the entry's fields",
        ),
        "AUD-113": Rule(
            "error",
            "the stored log is the bundle's, byte for byte",
            "compare body of log_entry with tile/entries",
        ),
        "AUD-114": Rule(
            "error",
            "an erased field is gone from the private store",
            "select from log_private where event_id and field are those of erasure.performed",
        ),
        "AUD-120": Rule(
            "review",
            "the audit before this one is concluded in the log, about the note of --since",
            "compare pub.checkpoint of the newest audit.concluded with the SHA-256 of your note",
        ),
    }
)

LATER: tuple[tuple[str, str], ...] = ()
"""What this version does not check, in words, for the report."""
