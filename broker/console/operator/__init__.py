# SPDX-License-Identifier: Apache-2.0
"""The operator's screens: is anything wrong, or waiting for me?"""
