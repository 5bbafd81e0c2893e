# SPDX-License-Identifier: Apache-2.0
"""Every bound of iriai, named, with its unit in the name and its reason beside it.

A contract may tighten one, never loosen it.
"""

from __future__ import annotations

from typing import Final

# canonical documents
INTEGER_MAX: Final = 2**53 - 1  # beyond this, JSON readers disagree (RFC 8785)
NESTING_DEPTH: Final = 12  # a contract needs 5; deeper is an attack on parsers
JSON_DEPTH: Final = 64  # of any JSON value: a document in an envelope in a body; far below Python's own limit
STRING_CHARS: Final = 4_000
DECIMAL_INTEGER_DIGITS: Final = 12
DECIMAL_FRACTION_DIGITS: Final = 18  # epsilon and delta need 12

# contracts (contract.md, section 2)
CONTRACT_BYTES: Final = 256 * 1024
CONTRACT_YAML_BYTES: Final = 512 * 1024
PARTIES: Final = 64
CLAUSES: Final = 500
CONTRACT_SIGNATURES: Final = 128  # twice the parties: the auditor and a repeated one fit, a flood does not
NOTICE_BYTES: Final = 8 * 1024  # of one statement about a contract: the text and twelve short fields
NOTICE_TEXT_CHARS: Final = 500
NOTICES_PER_PARTY: Final = 1_000  # in one contract, beside resumes that others make needful; all are replayed
NOTICE_EARLY_S: Final = 120  # before the contract was final: a slow clock, and an entry that shows the minute
FACT_ITEMS: Final = 1_024  # of one list in a request to the evaluator: 512 signals, 64 parties, consents
FACT_LISTS: Final = 10_000  # of one list of cohorts: each is of a model or number that was given out
LINT_FINDINGS: Final = 1_000  # of one contract; two for each clause
PROOF_S: Final = 5  # one question to the prover; no answer by then is no proof
PROOF_TIMEOUTS: Final = 3  # of one amendment; then nothing more is asked
DRY_RUN_RECORDS: Final = 20_000  # past decisions that a proposal is tried on, the newest; seconds of work
VERDICT_BYTES: Final = 4 * 1024 * 1024  # a witness for each of 500 clauses, 8 KiB each

# negotiation (contract.md, section 8)
NEGOTIATION_ROUNDS: Final = 20  # counter-offers; people who need more should meet
LANE_MESSAGE_BYTES: Final = 64 * 1024  # a verify that acknowledges every clause has 40 KiB
LANE_TEXT_CHARS: Final = 500
OFFERED_DAYS: Final = 14
REQUESTED_DAYS: Final = 7
ACCEPTED_DAYS: Final = 7
AGREED_DAYS: Final = 7
NEGOTIATION_POLL_S: Final = 30  # how long a poll is held
DEADLINE_CHECK_S: Final = 60  # a missed deadline is found after this at the latest, also if the clock jumped

# ODRL and the Dataspace Protocol (contract.md, section 11)
ODRL_FILE_BYTES: Final = 64 * 1024 * 1024  # a whole bundle: some thousand messages of 10 KiB
ODRL_MESSAGES: Final = 10_000  # of one bundle; a contract of 500 clauses makes fewer
ODRL_REFUSALS: Final = 50  # that one refusal names; a foreign policy may break every rule
DSP_MESSAGE_BYTES: Final = 256 * 1024  # an agreement under every kind of clause has 8 KiB
DSP_ID_CHARS: Final = 300
DSP_CONTEXTS: Final = 8  # JSON-LD contexts that one message names
DSP_COUNTERPARTIES: Final = 64  # each request is compared with the token of every one
DSP_NEGOTIATIONS: Final = 1_000  # of one counterparty: open ones, and those of the last day
DSP_CALLBACK_S: Final = 5  # a connector that takes longer is told later
DSP_RETRY_S: Final = 30  # between two tries to tell a connector the same

# signed requests (RFC 9421)
SIGNATURE_TTL_S: Final = 60
CLOCK_SKEW_S: Final = 30  # a node's clock may be ahead by this
NONCES_KEPT: Final = 100_000  # per key; a full store refuses
FROZEN_NONCES: Final = 1_000  # of reads while the log is frozen: per key, in memory only
BODY_BYTES_JSON: Final = 1024 * 1024

# membership
INVITE_TTL_H: Final = 72
APPROVALS_NEEDED: Final = 2  # two different people of the broker
APPROVAL_BYTES: Final = 64 * 1024  # of the document that they approve; most have 1 KiB
PROPOSAL_TTL_H: Final = 72  # a long weekend; what nobody approved by then is proposed again

# people and their logins (console-and-cli.md, section 7)
SESSION_IDLE_MIN: Final = 30
SESSION_H: Final = 12  # then one logs in again, whatever one does
SESSION_SEEN_S: Final = 60  # how often a session's last use is written down
SESSIONS_PER_PERSON: Final = 16  # the one that was idle longest makes room
CREDENTIALS_PER_PERSON: Final = 16  # passkeys, and one password
CREDENTIAL_LABEL_CHARS: Final = 60
STEP_UP_MIN: Final = 5  # how long a password that was just given confirms what one signs
LINK_TTL_H: Final = 72
CHALLENGE_S: Final = 300  # how long a passkey may take to answer
ASSERTION_BYTES: Final = 16 * 1024  # of a passkey's answer; most have 1 KiB
PASSWORD_CHARS_MIN: Final = 12
PASSWORD_CHARS_MAX: Final = 256  # longer ones only cost time
PASSWORD_HASHES: Final = 2  # at a time: each takes 64 MiB
PASSWORD_WAITING: Final = 16  # that wait for their turn; others are asked to come again
LOGIN_FREE_TRIES: Final = 5  # wrong passwords before the first pause
LOGIN_PAUSE_MAX_S: Final = 900  # the longest pause; each is twice the one before
LOGIN_FORGET_S: Final = 3_600  # without a wrong password in between, the count begins anew
LOGIN_BUCKETS: Final = 4_096  # counters of names that nobody has, and of addresses: then they are shared
LOGIN_ADDRESSES: Final = 8  # of one person, from which a login worked and that are counted for themselves
LOGIN_DEVICES: Final = 64  # counters of one person's known browsers and sessions: shared when there are more
DEVICE_PEOPLE: Final = 4  # people of whom one browser is known: a desk in a control room
DEVICE_DAYS: Final = 400  # a browser is known so long after its last login; browsers keep no cookie longer
REFUSALS_NOTED: Final = 16  # routes of another role that one login asked for: entries in the log at most
OIDC_STATE_S: Final = 600  # how long the way to the provider and back may take
OIDC_S: Final = 10  # of one question to the provider
OIDC_BYTES: Final = 256 * 1024  # of one answer of the provider

# the engine (engine-flower.md, section 8)
FLEET_BODY_BYTES: Final = 8 * 1024 * 1024
FLEET_HEADER_BYTES: Final = 64 * 1024
FLEET_INLINE_BYTES: Final = 256 * 1024
FLEET_HOLD_S: Final = 20
FLEET_RESEND_S: Final = 25
FLEET_CONFIRM_S: Final = 5  # work that takes longer is confirmed; a reply that comes sooner says it itself
FLEET_STORE_BYTES: Final = 20 * 1024**3
MAX_ACTIVE_RUNS: Final = 8
RUN_HEARTBEAT_S: Final = 15
NODE_RETRY_CAP_S: Final = 3
FLEET_CHUNK_BYTES: Final = 5 * 1024**2  # one object of a tensor; below the body bound with room for the frame
FLEET_FILE_BYTES: Final = 1024 * 1024  # objects from this size on are kept in files
FLEET_BODY_S: Final = 30  # a body that takes longer to arrive is not read to its end
FLEET_WORKING: Final = 4  # requests of one node under work at a time; Flower's client needs 3
FLEET_READING: Final = 8  # bodies of one node that arrive or wait for room; one that restarts has twice 3
FLEET_SMALL_BYTES: Final = 64 * 1024  # a body up to here needs no room; only parts of replies are larger
FLEET_NODE_BODIES_BYTES: Final = 16 * 1024**2  # large bodies of one node at a time: Flower's client sends 2
FLEET_BODIES_BYTES: Final = 256 * 1024**2  # large bodies of all nodes at a time; whoever finds no room waits
FLEET_TREE_OBJECTS: Final = 8  # frames of a message beside its chunks: 5 of ours, 3 spare
TENSOR_BYTES: Final = 4 * 1024**3
SHAPE_AXES: Final = 8
WORKER_BACKOFF_CAP_S: Final = 60
WORKER_HEALTHY_S: Final = 300  # a worker that lived this long starts the backoff anew
KEY_UNKNOWN_RETRY_S: Final = 300
WORKER_STOP_S: Final = 2  # after SIGTERM; then SIGKILL
ROUND_DEADLINE_S: Final = 86_400  # a recipe's own deadline is at most this
ATTEMPTS_PER_ROUND: Final = 2

# secure aggregation (secure-aggregation.md, section 2)
SECAGG_PARTIES: Final = 50  # every pair shares a mask; more needs another graph
SECAGG_ROUNDS: Final = 32  # of one setup; each with `ATTEMPTS_PER_ROUND` slots
SECAGG_ABSENT_ROUNDS: Final = 3  # a member that was away so long is left out of the next setup
SECAGG_REJOIN_ROUNDS: Final = 8  # a member that came back waits so long, at most, for a setup with it
SECAGG_SHOWN: Final = 8  # opened sums, each team's its own, that a request shows a node which missed some
SECAGG_SETUPS_KEPT: Final = 64  # whose sums a node can check: many, as none of them needs to have a sum
SECAGG_SETUP_BYTES: Final = 16 * 1024**2  # of one setup message: 50 members' commitments have 13 MB
TEAMS_MAX: Final = 4  # of a probe: 2^4 - 1 unions are judged; one more doubles that, and the noise grows
SECAGG_MESSAGE_S: Final = 30  # of one message and its answer: 13 MB at 4 Mbit/s; who hangs is left out
SECAGG_RETURN_S: Final = 10  # of the first message of a setup, for who was silent when asked last
SECAGG_CHUNK: Final = 65_536  # values that are quantised and masked in one go; fits the processor's cache

# the log (log-and-audit.md)
LOG_BODY_MAX: Final = 8 * 1024
COMMIT_BATCH: Final = 256
COMMIT_WAIT_MS: Final = 5
WRITE_QUEUE: Final = 4_096
LOG_KEY_OVERLAP_DAYS: Final = 30  # the old key of the log signs beside the new one: time to learn the new one
LOG_KEY_CHANGES: Final = 64  # changes of the log's key that a node reads; one a year is usual
BUNDLE_BYTES: Final = 64 * 1024**3  # some ten million entries with all that belongs to them
BUNDLE_FILES: Final = 500_000  # MANIFEST of so many is as large as a file of a bundle may be
BUNDLE_RATIO: Final = 100
BUNDLE_ORGANISATIONS: Final = 4_096  # each has an alias of its own in every round

# witnesses (log-and-audit.md)
WITNESS_CANDIDATE_S: Final = 2  # a head that found no quorum makes room for a newer one after this
WITNESS_CANDIDATES: Final = 64  # heads that were offered last and may still be cosigned
WITNESS_POLL_S: Final = 20  # how long a question for a newer head is held
WITNESS_WAITERS: Final = 64  # questions that are held at a time; others are answered at once
WITNESS_RECEIPT_S: Final = 2  # how long a question for a witnessed receipt is held
WITNESS_LINES: Final = 16  # cosignatures of one request
WITNESS_REPEAT_S: Final = 60  # an idle log is cosigned again after this: age shows that somebody watches
WITNESS_PATIENCE_S: Final = 10  # so long a node waits for its first quorum before it refuses a round
WITNESS_MAX_AGE_MIN: Final = 10  # an older quorum is an alarm, and no new round begins
WITNESS_CLOCK_S: Final = 300  # a cosignature may be so far off its reader's clock
WITNESS_BACKOFF_S: Final = 30  # the longest pause of a witness whose broker does not answer
WITNESS_ROWS: Final = 64  # checkpoints with a quorum that a node keeps, the newest

# audits (log-and-audit.md)
STATIC_AGE_S: Final = 31_536_000  # how long anybody may keep what never changes: a tile
CHECKPOINT_AGE_S: Final = 2  # how long anybody may keep what changes: the newest checkpoint
DISCLOSURE_ENTRIES: Final = 256  # of one page of confidential values, which one log entry names
ERASURE_ENTRIES: Final = 256  # of one erasure, which one log entry names
GRANT_FIELDS: Final = 64  # that one grant names
GRANT_DAYS: Final = 3_650  # ten years; longer is without an end
EXPORTS_MAX: Final = 8  # bundles of members and auditors at a time, made or sent; operators have theirs
EXPORT_SEND_S: Final = 3_600  # of one bundle: 10 GB at 25 Mbit/s; who reads slower loses its place
ORPHAN_H: Final = 24  # private rows of an event that never came into the log are swept after this
UPKEEP_H: Final = 24  # how often the private database is looked after
TSA_REPLY_BYTES: Final = 64 * 1024  # of a time stamp with its certificates; most have 6 KiB
TSA_S: Final = 20  # how long an authority may take to answer

# data (robot-data-and-models.md, section 2)
SIGNALS: Final = 512
EPISODE_FRAMES: Final = 200_000
SERIES_ROWS: Final = 50_000  # of one part of a continuous log: 512 signals of 8 bytes are 200 MB, 20 are 8 MB
SOURCE_FILE_BYTES: Final = 64 * 1024**3
SOURCE_CHANNELS: Final = 65_536  # that one source may list; a map takes SIGNALS of them
SOURCE_INFO_BYTES: Final = 16 * 1024**2  # info.json of a data set; JSON takes 25 times that in memory
PADDING_BYTES: Final = 128 * 1024**2  # rows without a value that wait for one to follow, in memory
PARQUET_BATCH_BYTES: Final = 64 * 1024**2  # rows that are unpacked together
PARQUET_TEXT_BYTES: Final = 256 * 1024**2  # of a row group's column of words, as the file counts it
TEXT_CELL_BYTES: Final = 4_096  # of a Parquet cell: a label, what cuts episodes, a task
BAG_TEXT_BYTES: Final = 256 * 1024  # of all strings of one message that is mapped
BAG_MESSAGE_BYTES: Final = 16 * 1024**2  # of a mapped topic; images and clouds are not read at all
BAG_CHUNK_BYTES: Final = 64 * 1024**2  # of a chunk of a bag, compressed or not; recorders write 1 MiB
BAG_HELD_BYTES: Final = 256 * 1024**2  # messages that wait for their turn while chunks overlap in time
BAG_MESSAGE_PARTS: Final = 200_000  # fields and strings of one message; a point cloud is one array
BAG_TOPICS: Final = 4_096
BAG_DEFINITION_BYTES: Final = 256 * 1024  # message definitions of one type; the largest of ROS 2 has 20 KiB
BAG_METADATA_BYTES: Final = 1024**2  # metadata.yaml of one bag
BAG_FILES: Final = 10_000  # of one folder; a bag is split every few minutes at most
BAG_WAIT_NS: Final = 1_000_000_000  # how late a message may be logged and still find the row of its stamp
LIVE_ROWS: Final = 20_000_000  # of one live recording: 55 hours at 100 Hz
LIVE_BATCH_ROWS: Final = 2_000  # rows in memory; a batch is flushed at least every LIVE_FLUSH_S
LIVE_FLUSH_S: Final = 5
LIVE_QUEUE: Final = 20_000  # reports that wait to be read; more of them break the connection, never memory
LIVE_RETRY_S: Final = 30  # longest pause between two attempts to connect again
LIVE_REFERENCES: Final = 4_096  # children of one node that a path is looked up in
TEXT_ROW_BYTES: Final = 64 * 1024
SIGNALMAP_BYTES: Final = 256 * 1024
MTCONNECT_TAG_BYTES: Final = 1024**2  # of one tag or comment of an answer
MTCONNECT_OBSERVATIONS: Final = 1_000_000  # mapped, of one saved answer; an agent keeps 131,072 unless told
HDF5_CHUNK_BYTES: Final = 64 * 1024**2  # of one chunk when unpacked
HDF5_ARRAY_BYTES: Final = 256 * 1024**2  # of one key of one episode as float64: 200,000 frames of 160 numbers
DATASET_META_BYTES: Final = 256 * 1024**2  # info.json or episodes.jsonl of one data set
DATASET_EPISODES: Final = 1_000_000
STORE_FILE_BYTES: Final = 100 * 1024**2  # a data file of the store is closed after this
RESUME_BYTES: Final = 16 * 1024**2  # of frames between two checkpoints of an import: seconds of work
DESCRIPTOR_BYTES: Final = 16 * 1024
CERTIFICATE_BYTES: Final = 16 * 1024  # twelve words and at most 64 digests of signal maps
FINGERPRINT_BYTES: Final = 32 * 1024**2  # 2^20 keyed marks of 16 hex digits, and their envelope

# learning and privacy (privacy.md, section 2; robot-data-and-models.md, section 8)
RECIPE_BYTES: Final = 64 * 1024
RECIPE_ROUNDS: Final = 10_000
MODEL_PARAMETERS: Final = 2_000_000  # a flat float32 update of 8 MiB
PLAN_STEPS: Final = 100_000
HONEST_MIN: Final = 3  # noise shares of fewer silos: the rest of two would be half of what is claimed
SHARES_GROUPS: Final = 4  # independent contributors under noise shares: three honest ones and one to doubt
SILO_CLAIM_MIN: Final = 50  # below this, noise that hides a whole silo is many times what the mean can carry
FRAMES_PER_UNIT: Final = 128  # beyond this, frames of one episode add time and nothing else
CANARIES_MIN: Final = 64  # over a cohort; one AUC of fewer has a standard error that hides everything
UNITS_PER_CANARY: Final = 50  # canaries are at most 2 % of what a node trains on
CANARY_FRAMES: Final = 32  # of one canary, all alike: as heavy as an ordinary unit
MIA_AUC_MAX: Final = 0.65  # above it canaries fired, where the contract names no bound of its own
REVEAL_WAIT_S: Final = 86_400  # how long a candidate waits for the reveal of a party whose update is in it
REVEAL_RETRY_S: Final = 60  # first pause before such a party is asked again; the next ones double
REVEAL_RETRY_MAX_S: Final = 3_600  # the longest of these pauses
ACTION_CHUNK: Final = 64
MODEL_INPUTS: Final = 1_024  # values of a frame after the features, as the widest layer has: 8 KiB a frame
FRAME_VALUES: Final = 8_192  # that all operations of a recipe look at for one frame, windows included
ACT_TOKENS: Final = 32  # queries of act-small/1; two seconds at 16 Hz
ACT_PARAMETERS: Final = 600_000  # of act-small/1 at a site; as designed it has 400,000
RECIPE_CLIP: Final = 100  # scales beyond which an input is cut; 5 is usual, and more lets nothing fire
CLASS_WEIGHT: Final = 1_000  # of one class in a loss
LEDGER_ENTRIES: Final = 1_000_000
LEDGER_BLOCKS: Final = 512  # that one run reads: each of its spends names them all

# open seed sets (privacy.md, section 8)
SEED_SET_BYTES: Final = 2 * 1024**2  # 150 attempts of ten seconds; more is no seed
SEED_EPISODES: Final = 256
CONSENT_BYTES: Final = 64 * 1024  # digests of 256 episodes in a signed envelope
SEED_FIT_STEPS: Final = 20_000  # ordinary steps of the model that is fitted to a seed set
SEED_FIT_S: Final = 1_800
OFFER_BODY_BYTES: Final = 16 * 1024**2  # a text with seed sets and start models of 8 MB, in base64
OFFER_ANNEXES: Final = 4 * 64  # of one text: for each of 64 parties' consents, with room for sets and models

# model packages (client/deploy)
PACKAGE_BYTES: Final = 512 * 1024 * 1024
PACKAGE_MEMBERS: Final = 16  # eight kinds exist
PACKAGE_MANIFEST_BYTES: Final = 1024 * 1024  # 512 signals with limits and an example have 100 KiB
PACKAGE_TEXT_BYTES: Final = 8 * 1024 * 1024  # each text beside the graph; a statement has 100 KiB
PACKAGE_OPS: Final = 10_000  # nodes of one graph; two decoder layers have 200
PACKAGE_GRAPH_BYTES: Final = 64 * 1024**2  # graph, and weights beside it; two million values have 8 MiB
PACKAGE_VALUES: Final = 64 * 1024**2  # of all values between operators at batch 8; the largest recipe: 15 M
PACKAGE_PRODUCTS: Final = 2**28  # multiplications of one inference; the largest recipe has 9e7
PACKAGE_TEST_S: Final = 60  # the self-test of a package; a second on a busy machine
PACKAGE_SI_MOST: Final = 1_000_000  # a limit of an input or an output, in SI: no robot has larger numbers
PACKAGE_RATE_HZ: Final = 10_000  # ticks per second that a model may expect
WATCHDOG_MS: Final = 60_000  # age of an observation after which a fallback answers, at most
PACKAGE_S: Final = 600  # export, checks and latency of one model in a process of its own

# the node's requests (client/transport.py)
BROKER_ANSWER_BYTES: Final = 16 * 1024 * 1024
BROKER_ATTEMPTS: Final = 2  # the second only when the broker had closed a kept connection
MODEL_BYTES: Final = 1024**3
LANE_POLL_S: Final = 20  # one question about a negotiation waits so long; below the timeout of a request
LANE_POLLS: Final = 64  # questions of one command, also where a broker answers each at once

# the node's outbox (client/outbox.py)
OUTBOX_PENDING: Final = 12  # envelopes that one reply header has room for beside its own
RECEIPT_POLL_S: Final = 10  # an envelope without a receipt after this is asked for over HTTP

# what a node's owner says about runs (client/stopping_runs.py)
STOPPED_RUNS_BYTES: Final = 1024**2  # 13,000 names of runs

# what a node knows of halts (client/guard.py)
HALT_ASK_S: Final = 60  # before a round, notices older than this are asked for; the worker hears every 10 s
HALT_FRESH_S: Final = 3_600  # a node that heard nothing for so long trains no more; a reconnect takes less

# the broker's edge (broker/api)
IDEMPOTENCY_KEY_CHARS: Final = 128
LEGAL_NAME_CHARS: Final = 200
BODY_READ_S: Final = 30  # a slow sender holds one connection, and not for longer
BODY_LEFT_S: Final = 75  # of a body that no route reads; above twice the line before: a large one waits first
HEAD_BYTES: Final = 32 * 1024  # of a request's line and headers; ours have 2 KiB, a browser's a few more
HEAD_READ_S: Final = 10  # for TLS, and again for a request's line and headers
ANSWER_STALL_S: Final = 60  # in which nothing of an answer is taken
CONNECTIONS: Final = 1_024  # at a time: 50 parties with 8 each (4 of the engine), and as many of others
CONNECTIONS_PER_ADDRESS: Final = 512  # 50 parties behind one address, or a trial on one machine
CONNECTS_PER_S: Final = 50  # new connections of one address: a TLS handshake takes a millisecond of processor
CONNECTS_BURST: Final = 1_024  # of one address at once: 50 parties come back after a start of the broker
CONNECTION_FILES: Final = 512  # descriptors that are kept for the database, the log and files
DESCRIPTORS_PER_NODE: Final = 64  # data sets of one organisation in the catalogue
FLEET_KEY_CHARS: Final = 1_000  # a P-256 public key in PEM has 178
LIST_ROWS: Final = 1_000  # of one answer that is a list
ADDRESS_PER_S: Final = 500  # requests that prove nobody, of one address: 50 witnesses at 5 heads a second
ADDRESS_BURST: Final = 5_000  # of one address at once: a factory behind one address that comes back
CLAIM_PER_S: Final = 100  # requests with a signature, token or cookie, of one address: a check takes 1 ms
CLAIM_BURST: Final = 1_000  # of one address at once; what turns out to be proved is given back
HEALTH_PER_S: Final = 10  # of /healthz and /readyz, of one address, beside its other requests
HEALTH_BURST: Final = 50  # of one address at once: a monitor asks every few seconds
KEY_PER_S: Final = 100  # requests of one key, connector or person; a node at work sends one or two
KEY_BURST: Final = 2_000  # of one key at once: a node that was away for a week has less to tell
LOG_PER_S: Final = 500  # of the static log, of one address or key; about what a broker serves a single reader
LOG_BURST: Final = 10_000  # of the static log at once: a log of a million entries has 8,000 tiles
RATE_NAMES: Final = 10_000  # addresses, and keys, whose allowance is kept: 2 MB each
IDEMPOTENCY_DAYS: Final = 90  # an answer is kept to be given again; afterwards a repetition is refused
APART_AT_ONCE: Final = 2  # texts that are read beside the event loop; more would only share its processor

# looking after a broker
BACKUP_PRIVATE_DAYS: Final = 7  # life of a copy of what may have to be erased
BACKUP_AGE_H: Final = 26  # since the newest backup: one a day, and two hours to make it
RESTORE_TEST_DAYS: Final = 35  # since a backup was last restored on trial: once a month
EXPIRY_WARNING_DAYS: Final = 30  # before a certificate, a key or a contract ends
DISK_FREE_BYTES: Final = 2 * 1024**3  # of a broker's disk: a bundle and a backup of a small pool
FSYNC_MS: Final = 100  # of one small file; a receipt waits for this

# rounds
DECISION_AHEAD_MS: Final = 5 * 60_000  # a node's clock may be this far ahead in a decision of its guard
REPLY_ENVELOPES: Final = 64  # of one reply: its own, and those that wait for a receipt
REPLY_ACKS: Final = 4  # closed rounds that one reply acknowledges; one is usual
OWN_ENVELOPES: Final = 64  # of one page that a node gets back after it lost its outbox
RECEIPT_NEWS_BYTES: Final = 24 * 1024  # of receipts in one request header; more is asked for over HTTP
ROUND_GRACE_S: Final = 2  # after enough replies, how long the others are waited for
LOST_ROUNDS_MAX: Final = 3  # lost rounds in a row after which a run stops
REJOIN_S: Final = 5  # how long a run that goes on waits for all its nodes, where enough are there
HALT_POLL_S: Final = 5  # how often a run that a halt paused, or an open exchange, looks at its contract
REFUSED_WAIT_S: Final = 30  # pause of a run that too many refused; the next ones are twice as long each
REFUSED_WAIT_MAX_S: Final = 3_600  # the longest of these pauses
REFUSED_ATTEMPTS: Final = 2  # refused in a row, for what no owner can mend within the run, end it
REFUSED_PATIENCE_S: Final = 86_400  # how long a run waits for owners to mend something: day and night
REFUSED_LOOK_S: Final = 60  # a pause looks this often, at least, whether it is over
RUN_RETRY_S: Final = 5  # pause before a run goes on after a full disk or a log that does not answer
PERSONALISE_S: Final = 1_800  # fine-tuning a pulled model at home
REPORT_UNITS: Final = 10  # a gain that is measured on fewer units may be chance, and is told with that
AUDIT_S: Final = 600  # an audit of private training: seconds for a small model, minutes for a large one

# serving and recording (robot-data-and-models.md, section 12)
SERVE_BODY_BYTES: Final = 64 * 1024  # of one question: 512 values of 24 characters have 13 KB
SERVE_BODY_S: Final = 5  # how long one may take to arrive
SERVE_CONNECTIONS: Final = 32  # at a time: one cell, its owner, and whoever looks on
SERVE_STRANGERS: Final = 16  # of these, connections that proved nothing yet: the oldest makes room
SERVE_HELLO_S: Final = 5  # in which a connection proves that it knows a token, or is closed
SERVE_HEAD_BYTES: Final = 16 * 1024  # of a request's line and headers together
SERVE_OPCUA_CHUNK_BYTES: Final = 65_535  # of a message's part; a question of 512 values has 4 KB
SERVE_OPCUA_CHUNKS: Final = 4  # of one message
SERVE_RING_BYTES: Final = 64 * 1024**2  # of the open episode: 100 bytes a tick are 600,000 ticks
SERVE_DISK_FREE_BYTES: Final = 1024**3  # with less room, recording stops and serving goes on
SERVE_EPISODE_GAP_S: Final = 5  # a longer gap of stamps ends an episode that nobody ended
