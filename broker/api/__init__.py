# SPDX-License-Identifier: Apache-2.0
"""The HTTP edge: one router per subject, one place for signatures, one for refusals."""
