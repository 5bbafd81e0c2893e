# SPDX-License-Identifier: Apache-2.0
"""What ``iriai-node data`` does with the site's own data sets. Imports no torch."""
