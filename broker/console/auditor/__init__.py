# SPDX-License-Identifier: Apache-2.0
"""The auditor's screens: is the log complete, was every rule kept?"""
