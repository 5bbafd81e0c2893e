# SPDX-License-Identifier: Apache-2.0
"""The contract's sentences in English. The same keys and blanks stand in `policies.contract.words.japanese`.

A sentence says what software does, or what is left to people. Nothing here is obeyed by software.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "ALLOWED",
    "COUNTS",
    "JOINER",
    "LABELS",
    "NAMED",
    "NOBODY",
    "POINTS",
    "REFUSED",
    "SENTENCES",
    "TERMS",
    "WITH_MEANING",
]

JOINER: Final = ", "
WITH_MEANING: Final = "{word} ({meaning})"

LABELS: Final = {
    "enforced": "enforced: {points}",
    "enforced in part": "enforced in part: {points}; in part law only: what happens outside the software",
    "law only": "law only",
}

ALLOWED: Final = "ALLOWED {what}: {count} findings, all satisfied."
REFUSED: Final = "REFUSED {what}: {clause} {check}: needs {need}, found {found}. Remedy: {remedy}."
NOBODY: Final = "nobody"

POINTS: Final = {"auditor": "auditor", "broker": "broker", "gate": "release gate", "node": "node"}

SENTENCES: Final = {
    # the document
    "contract": "Contract {contract_id}: {title} ({schema}).",
    "first-version": "It is version {version}, the first one.",
    "later-version": "It is version {version} and supersedes {supersedes}.",
    "sign-by": "Signatures that are not final before {sign_by} are worthless; its language is {language}.",
    "test-only": "TEST ONLY: no real data may be used under it.",
    # who, when, what for
    "prose": (
        "The text for people ({media_type}, SHA-256 {sha256}) is part of this contract and prevails over what"
        " software reads."
    ),
    "party": (
        "{name} ({party}, {country}, organisation {org}, group {group}) takes part as {role} and signs with"
        " {key}."
    ),
    "term": (
        "The contract holds from {effective} until just before {expires}; models that were released in that"
        " time are still delivered afterwards."
    ),
    "purpose": "Purpose {id}: {text}",
    "purpose-unused": "No recipe serves {id}, so nothing runs for it.",
    "forbidden": "Nobody may use models, figures or views of this pool for this: {use}.",
    "check-membership-inference": (
        "Software refuses a release whose membership-inference figure (AUC) is above {bound} ({release})."
    ),
    "check-canary": "Software refuses a release in which a canary fired.",
    "check-property-leak": (
        "Software refuses a release whose property-leak skill is above {bound} ({release}), and a figure"
        " about the pool that carries no noise."
    ),
    "check-query-allow-list": "Software refuses a view about another party.",
    "check-recipe-digest": "Software refuses to train a recipe that the contract does not list.",
    "check-attestation": "Software refuses a delivery to whoever has not signed what it uses the model for.",
    # what runs on whose data
    "recipe": (
        "Recipe {id} ({digest}) may run for {purpose}, at most {rounds} in all runs together and {steps} in a"
        " round."
    ),
    "recipe-reads": "Recipe {id} reads {datasets} of {party}.",
    "seed": "Recipe {recipe} starts from the openly donated seed set {seed_set}, and from no other.",
    "donation": "{party} gives {dataset} to it under {licence}; its consent {consent} must be on record.",
    "fields": "Only these fields may enter training: {allow}.",
    "personal-data": "Personal data that may enter: {which}.",
    "secret": "Trade secrets of {party} ({basis}), never read by any recipe: {fields}.",
    "secret-canary": "A candidate that betrays one of these secrets of {party} is not released.",
    # privacy
    "not-private": (
        "NOT PRIVATE: models are trained without differential privacy; they may reveal single episodes."
    ),
    "privacy": "Every {unit} is protected by differential privacy (adjacency {adjacency}; delta {delta}).",
    "epsilon": "For each contributor epsilon is at most {release} per release and {total} in all.",
    "noise": "The noise: {how}. Training stops before a cap is passed, by {filter}.",
    "honest-min": (
        "At least {honest} must be honest for that to hold: rounds and releases need so many beside the"
        " {colluders} that may collude."
    ),
    "protected": (
        "No model may betray these properties of a site: {names}; rounds and releases need {groups} for it."
    ),
    "reply-slot": "Nodes answer at whole multiples of {ms} ms only.",
    "cap": "For {party} epsilon is at most {release} per release and {total} in all.",
    "cap-own": "Tightened for {party} alone: {which}; for the rest {common} holds.",
    # averages, validation, views
    "groups": (
        "Rounds run, updates are averaged and models are released only with at least {groups}, none of them"
        " with more than {share} of the weight."
    ),
    "no-colluders": "No group is reckoned to collude with the broker.",
    "colluders": (
        "Up to {colluders} may pool what they know with the broker; two others must still be left then."
    ),
    "weights": "Weights: {how}.",
    "weight-table": "Weights: {table}.",
    "norm": "An update that is not finite or has a norm above {norm} is dropped.",
    "secure-required": (
        "Secure aggregation is required: the broker sees the sum of updates, and no single one."
    ),
    "secure-opened": (
        "A sum of recipe {recipe} is opened only over at least {least} of its {all}, from at least {groups}."
    ),
    "secure-last": (
        "If all the others in a sum pool what they know, they learn the update of the one that is left. No"
        " protocol prevents that; only that party's own noise helps."
    ),
    "secure-off": (
        "Secure aggregation is off: the broker sees each party's update, protected by that party's own noise"
        " only."
    ),
    "secure-off-not-private": (
        "Secure aggregation is off: the broker sees each party's update, and nothing protects it"
        " (NOT PRIVATE)."
    ),
    "group-mac": "Checks between members that the broker cannot forge (group MAC): {which}.",
    "delay": "Releases, deliveries and figures about the pool wait {delay} after they were made.",
    "no-delay": "Releases, deliveries and figures about the pool wait for no delay.",
    "differencing-off": (
        "Two outputs may be compared freely: there is no guard against differencing, not even of {groups}."
    ),
    "differencing-non-dp-outputs": (
        "An output without differential privacy goes out only if it is about the same groups as every earlier"
        " one, or differs from it by at least {groups}."
    ),
    "differencing-all": (
        "Any output goes out only if it is about the same groups as every earlier one, or differs from it by"
        " at least {groups}."
    ),
    "quorum": (
        "A model is released only if at least {quorum} of the groups in it accept it on their own held-out"
        " episodes."
    ),
    "rejected": "Averaging stops when {rounds} models in a row were rejected.",
    "judge-episodes": "Each group judges on {episodes}.",
    "gain-clip": "A gain is counted up to {clip}.",
    "max-judgings": "A run has at most {judgings}.",
    "judging-epsilon": "Judging costs the held-out episodes at most epsilon {epsilon}.",
    "views": "Only these views may be asked for: {allow}. Nobody is shown another party's figures.",
    "no-views": "No view may be asked for.",
    "view-groups": "At least {groups} stand behind a figure about the pool.",
    # models
    "tier": (
        "Model {model} of recipe {recipe} goes to {recipients} ({tier}) under {licence}, once {requires} are"
        " satisfied."
    ),
    "tier-private": (
        "Model {model} of recipe {recipe} stays with {recipients} ({tier}) under {licence}; it is never"
        " released or delivered."
    ),
    "embargo": "It is held back for {days} after its last average was made.",
    "min-contribution": "Only who contributed at least {share} of the whole receives it.",
    "approvals": "A release needs votes of at least {groups}, of {of}.",
    "veto": "May veto a release alone: {owners} (owners of {clauses}).",
    "no-veto": "Nobody may veto a release alone.",
    "evidence": "With a release lies this evidence: {evidence}.",
    "no-evidence": "With a release lies no evidence.",
    "max-mia-auc": "The lower bound of the area under the curve in the membership report is at most {bound}.",
    "max-property-skill": "The skill of the property-leak report is at most {bound}.",
    "fine-tune": "Fine-tuning a released model: {how}.",
    "distil": "Distilling a released model: {how}.",
    "sublicense": "Sublicences may go to: {to}.",
    "grant-back": "Owed back to the pool: {what}.",
    "classification": "Export classification: {which}.",
    "embargoed": "No model is delivered to {countries}; what counts is {check}.",
    "not-embargoed": "No country is barred from deliveries; what would count is {check}.",
    # keeping, paying, auditing, answering for it
    "retention": (
        "The broker deletes updates after {updates} and averages after {aggregates}, keeps the log for"
        " {logs}, and gives {evidence} of it."
    ),
    "incentives": "What is shared out is reckoned so: {method}.",
    "formula": "It turns into money by {formula}.",
    "pool": "EUR {eur:,} are shared out in a quarter.",
    "pay-floor": "The least share is {value}.",
    "pay-cap": "The largest share is {value}.",
    "pay-min-participation": "Who took part in less than {value} of the probes receives nothing.",
    "pay-probe-share": "{value} of the rounds are probes.",
    "pay-probe-window": "The teams of a probe stay together for {value} rounds.",
    "fingerprints": "Copies of the same episodes are looked for by keyed fingerprints: {which}.",
    "disclose": "Shares are told so: {what}.",
    "fees": "The broker's service costs EUR {eur:,} a quarter, {basis}.",
    "tied": "Other services that must be bought with it: {which}.",
    "log": "Everything is recorded in the log {origin}.",
    "audit": "May audit, with a notice of {days}: {who}. They receive {access}.",
    "witnesses": "A release needs a log that {witnesses} cosigned.",
    "no-witnesses": "A release needs no witness of the log.",
    "ml-dsa": "Post-quantum signatures (ML-DSA) of witnesses: {how}.",
    "raw-data": "Raw data are given to an auditor: {when}.",
    "liability": "For damage {bears}, up to EUR {eur:,}.",
    "liability-uncapped": "For damage {bears}, without any cap.",
    "uncapped": "No cap holds for: {causes}.",
    "law": "The law of {governing} governs; disputes go to {forum}, in {language}.",
    # how it changes, stops and ends
    "exit": (
        "A contributor may leave by a notice: from then on no round uses its data, and its duties end {days}"
        " later. Released models are {released}. Its influence on them is {influence}."
    ),
    "exit-unreleased": "Models that were not released by then are {how}.",
    "change": "A change must be signed by {who} and the broker.",
    "tighten": "What only tightens, and is proven so, may be signed by {who} and the broker.",
    "rotation": "A party's key is replaced by {who}.",
    "halt": "May halt everything at once: {who}. Then there is {effect}.",
    "resume": "It goes on once {who} have signed.",
    "conflict": "Where clauses disagree, {rule}; what is not known is {unknown}.",
}

TERMS: Final = {
    "role.auditor": "auditor",
    "role.broker": "broker",
    "role.contributor": "contributor",
    "personal-data.none": "none",
    "unit.episode": "episode",
    "unit.work-piece": "work piece (all episodes of it)",
    "unit.order": "order (all episodes of it)",
    "adjacency.zero-out": "zero-out, as if it contributed nothing",
    "adjacency.add-remove": "add-remove, as if it had never been there",
    "noise.local-full": "each node adds the whole of it to its own update (local-full)",
    "noise.shares": "each node adds a share of it, and only the sum is opened (shares)",
    "cap.release": "epsilon per release",
    "cap.total": "epsilon in all",
    "weights.equal": "equal for each contributor, never by the number of samples",
    "weights.fixed": "fixed in this clause, never by the number of samples",
    "group-mac.off": "off",
    "group-mac.on": "on",
    "view.own-budget": "one's own budget",
    "view.own-receipts": "one's own receipts",
    "view.own-share": "one's own share",
    "view.released-model-metrics": "metrics of released models",
    "view.run-status": "status of runs",
    "recipients.public": "everybody",
    "recipients.contributors": "all contributors",
    "recipients.recipe-participants": "the contributors that take part in the recipe",
    "recipients.owner": "its owner",
    "tier.open": "tier open",
    "tier.consortium": "tier consortium",
    "tier.participant": "tier participant",
    "tier.private": "tier private",
    "approvals.contributors": "contributors",
    "evidence.canary-report": "canary report",
    "evidence.federated-evaluation": "federated evaluation",
    "evidence.log-root": "root of the log",
    "evidence.membership-inference-report": "membership-inference report",
    "evidence.model-card": "model card",
    "evidence.privacy-statement": "privacy statement",
    "evidence.property-leak-report": "property-leak report",
    "derive.forbidden": "forbidden",
    "derive.internal": "for own use only",
    "derive.any": "free",
    "sublicense.none": "nobody",
    "sublicense.affiliates": "affiliates",
    "sublicense.any": "anybody",
    "grant-back.none": "nothing",
    "grant-back.bugfixes": "corrections of faults",
    "grant-back.all": "every improvement",
    "classification.none": "none",
    "classification.dual-use": "dual use",
    "export-check.recipient-country": "the recipient's country",
    "retention-evidence.signed-statement": "a signed statement",
    "method.group-probe-shapley": "by the measured gain of teams (group-probe Shapley)",
    "method.flat": "the same for everybody who took part (flat)",
    "method.none": "nothing is shared out",
    "fingerprints.off": "no",
    "fingerprints.on": "yes",
    "disclose.own-share-only": "to each its own, and to nobody another's",
    "fee-basis.equal-per-group": "the same for each group",
    "fee-basis.by-size": "by the size of the group",
    "fee-basis.none": "collected from nobody",
    "tied.none": "none",
    "tied.some": "some",
    "audit-who.auditor": "the auditor",
    "audit-who.contributors": "each contributor",
    "access.log-proofs": "proofs from the log",
    "ml-dsa.off": "not used",
    "ml-dsa.accept": "accepted",
    "ml-dsa.require": "required",
    "raw-data.never": "never",
    "bears.each-party": "each party answers itself",
    "bears.contributors": "the contributors answer",
    "bears.broker": "the broker answers",
    "released.keep": "kept, under their licence",
    "influence.bounded-not-erased": "bounded by differential privacy where that applies; it is not erased",
    "unreleased.retrain": "trained again without the leaver",
    "unreleased.discard": "discarded",
    "unreleased.leaver-chooses": "trained again without the leaver or discarded, as the leaver chooses",
    "change.all-contributors": "all contributors",
    "tighten.any-contributor": "any one contributor",
    "tighten.all-contributors": "all contributors",
    "rotation.by-old-key-or-all": "a statement signed with the old key, or else by all contributors",
    "rotation.all-contributors": "all contributors",
    "halt-who.any-contributor": "any one contributor",
    "halt-who.auditor": "the auditor",
    "halt-who.broker": "the broker",
    "halt-effect.no-new-round-no-release": "no new round, no average, no release and no delivery",
    "resume.all-contributors": "all contributors",
    "conflict.prohibit-wins": "the prohibition wins",
    "unknown.refuse": "refused",
}

# Meanings of names that the parties choose, where a name is well known.
NAMED: Final = {
    "use.reidentify-party-or-plant": "finding out whose data or which plant is behind them",
    "use.benchmark-competitors": "comparing competitors with each other",
    "use.reverse-engineer-process": "working out another party's process",
    "use.infer-capacity-or-mix": "inferring capacity or product mix",
    "use.train-outside-recipes": "training outside the recipes",
    "use.military-end-use": "military end use",
    "filter.rdp-fixed-order": "a stop rule that holds for plans chosen one after the other",
    "formula.cost-share/1": "a rebate on the equal fee, by share",
    "cause.wilful": "intent",
    "cause.trade-secret-misuse": "misuse of trade secrets",
}

COUNTS: Final = {
    "round": ("{n} round", "{n} rounds"),
    "local step": ("{n} local step", "{n} local steps"),
    "contributor": ("{n} contributor", "{n} contributors"),
    "group": ("{n} group", "{n} groups"),
    "independent group": ("{n} independent group", "{n} independent groups"),
    "hour": ("{n} hour", "{n} hours"),
    "day": ("{n} day", "{n} days"),
    "year": ("{n} year", "{n} years"),
    "held-out episode": ("{n} held-out episode", "{n} held-out episodes"),
    "judging": ("{n} judging", "{n} judgings"),
    "witness": ("{n} witness", "{n} witnesses"),
}
