# SPDX-License-Identifier: Apache-2.0
"""Attacks on a small federation that really runs, for people who have to judge whether its defences hold.

    attack          what an attack is, what it finds, and how it is told
    ground          the federation that is attacked, and what attackers have to hand
    wire            requests as an attacker sees and changes them
    requests        1-3  captured, altered and foreign requests
    people          4    one person where two are needed
    history         5-6  a log that is rewritten, or shown in two versions
    members         7    a member that lies about its update
    brokers         8-9  a broker that lies to its nodes
    bundles         10   a hostile file for the auditor
    hostile_node    the program of 7;  lying_broker: of 8 and 9
    playing         plays them, in one federation

Each attack first does what is allowed, so that a refusal is one of the attack and not of everything; then it
attacks. What refused it is read from the answer, never claimed.
"""
