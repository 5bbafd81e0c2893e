# SPDX-License-Identifier: Apache-2.0
"""Models of what the API answers: for the OpenAPI document, and for tests that hold real answers against it.

Nothing is ever built from them: handlers answer canonical bytes (`broker.api.declared`).
"""
