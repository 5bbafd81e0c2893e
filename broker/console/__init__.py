# SPDX-License-Identifier: Apache-2.0
"""What people see of the broker: the operator's console, the auditor's pages, the public catalogue.

A screen gives data (`broker.console.screens`), never HTML; the frame makes the page, the JSON and the CSV
of it. Acts go through the same services as the API and are logged. See `broker.console.frame`.
"""
