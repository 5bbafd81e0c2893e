# SPDX-License-Identifier: Apache-2.0
"""The auditor's offline verifier: one bundle, the auditor's own policy file, no broker code, no network.

Imports the standard library, cryptography and rfc8785. `verify` repeats this list; each step reports findings
under stable ids (`policies.verify.rules`) and goes on, as far as what is left still means something:

1. container: exactly the bytes of a bundle, digests as listed, versions known                AUD-001 003 004
2. checkpoint: signed by a log key of the policy; without that nothing follows (exit 6)       AUD-010 011
3. entries: framed, canonical, of the closed schema; their root is the checkpoint's           AUD-002 020-022
030-036 090
4. history: the checkpoint has the quorum, all notes in reach are prefixes of this tree and do not contradict
each other; who cosigned when, and what that says of entries' times                           AUD-012-019
091-093 100 101
5. contracts: signed by everybody, by the pinned broker key, in force; halts, exits, ends,
rotations and successors as their notices say; consents to seed sets by their donors; what
needs two people; whose witness keys these are                                                AUD-050 051
057 058 067 068 080 084 085
6. members: envelopes, signatures, chains without gaps, aliases; who may see confidential
values, and who did; the audit before this one                                                AUD-040-049
081-083 087 088 120
7. rounds: verdicts, refusals, counts, independent groups, withdrawals, acknowledgements      AUD-052-056
069 073; opened sums: what their transcripts prove, the sums themselves, the models that they
give, what members say of them; votes on rounds                                               AUD-094-098
8. decisions: taken again, byte for byte; every step has one and obeys it                     AUD-059
9. budgets: every spend once, at its full cost, under every cap; step receipts                AUD-060-063
065 066 079
10. releases: candidate, evidence, approvals, lineage, whose vote is missing; a second
accountant; canaries and leak reports; deliveries, settlements, open incidents                AUD-064
070-072 074-078 086

`reconcile` lays the broker's tables beside a bundle that was audited (AUD-110 to 114).

The grade that was asked for decides how much must be there, never what the bundle says of itself: nobody
signs that. A member's view (`grade="member"`) has no verdict of an audit.

The verdict never says "OK": it says up to which size the history is complete, and what was not checked.
"""

from __future__ import annotations

from policies.verify.cli import main
from policies.verify.report import Finding, Report
from policies.verify.run import verify

__all__ = ["Finding", "Report", "main", "verify"]
