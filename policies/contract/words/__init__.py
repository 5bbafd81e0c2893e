# SPDX-License-Identifier: Apache-2.0
"""What each clause, finding and remedy says to people, in English and in Japanese."""
