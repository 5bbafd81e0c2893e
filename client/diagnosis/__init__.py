# SPDX-License-Identifier: Apache-2.0
"""What `client.doctor` looks at: the machine, the node's own files, the way to the broker."""
