# SPDX-License-Identifier: Apache-2.0
"""The node's local page: what left, what is allowed, what is spent, and the owner's word about it.

``iriai-node page`` serves it on 127.0.0.1 until it is stopped. It holds no authority of its own: what it
shows comes from this node's files and from what the commands show, what it does goes through the functions
that the commands call. It never passes a request on to the broker's console.

A request goes in this order; the first that fails answers it (`client.page.gate`):

1. ``Host`` names 127.0.0.1 or localhost with this port, else 421: another name that points here is an attack
   (DNS rebinding);
2. GET, HEAD or POST of a size that a form has;
3. ``/open/<token>`` with an unused link opens a session, once; a page of another site never does so unseen;
4. every other page needs the session's cookie;
5. a POST needs more: it comes from a page of ours (``Sec-Fetch-Site``, or ``Origin``), carries the session's
   form token, and a fresh code of ``iriai-node page --again``, which is used up whatever follows.

Invariants

- **Reading writes nothing.** Pages are read with a read-only outbox (`client.page.reading`); no lock is taken
  that a worker waits for; torch is never imported.
- **A panel whose source fails shows its code**, and the rest of the page stays. No error shows a traceback.
- **Every fact that can grow old says how old it is.** What the broker said is kept with its time and shown
  with it while the broker is away.
- **Three forms, one content.** A screen is data (`client.page.values`); HTML, ``?format=json`` and
  ``?format=csv`` are made of the same values, and each names the command that prints the same.
- **What others wrote is data**: isolated from the text around it, its control characters shown as escapes.

    app = page_app(home, port=8123, clock=SystemClock(), entropy=SystemEntropy())     # client.page.app
"""
