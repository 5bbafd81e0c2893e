# SPDX-License-Identifier: Apache-2.0
"""``iriai-node recipe``: for people who write recipes; nothing here needs a broker, and nothing leaves.

    new        a complete recipe of a kind, to begin with          `client.recipes.templates`
    format     what follows from the rest is filled in, canonical  `client.recipes.completing`
    check      what it will do, and whether data here fit          `client.recipes.checking`
    base       the same recipe, from a public checkpoint           `client.recipes.basing`

A recipe is data that all parties sign by its digest, so it has one spelling and every number in it stands
there as text. People write another: JSON with numbers, or YAML with comments, without what follows from the
architecture and from the rule of a normaliser. `client.recipes.sources` reads both.
"""
