# SPDX-License-Identifier: Apache-2.0
"""What each command of ``iriai-verify`` does: one module per command, its options in, its exit code out.

- Text for people goes to standard error, through `policies.verify.report.plain` or
  `policies.verify.shown.visible`.
- ``--json`` puts exactly one envelope on standard output.
- A file that a command writes is never one that is there already.
"""
