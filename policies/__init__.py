# SPDX-License-Identifier: Apache-2.0
"""What all parties agree on byte for byte: the ground floor, without I/O."""
