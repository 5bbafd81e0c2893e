# SPDX-License-Identifier: Apache-2.0
"""The Dataspace Protocol facade: foreign connectors, their tokens, agreements by pair, callbacks."""
