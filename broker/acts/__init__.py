# SPDX-License-Identifier: Apache-2.0
"""What takes two people: how it is proposed, approved and then done, for the API and the console alike."""
