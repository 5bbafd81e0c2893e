# SPDX-License-Identifier: Apache-2.0
"""What the node's page refuses, and why.

PageError
  HostError          page.host          a request that names another host than this machine
  RequestError       page.request       a request of another form than a browser's forms have
  SessionError       page.session       no session, or one that ended
  LinkError          page.link          a link that was used, is too old, or never was
  CrossSiteError     page.cross-site    a change that a page of another site asks for
  FormError          page.form          a form of another session
  CodeError          page.code          no fresh code beside a change, or a wrong one
  NoPageError        page.unknown       no such page
  PageBusyError      page.busy          another page of this node runs
  NotServedError     page.not-running   no page of this node runs
  PortError          page.port          the port cannot be listened at
  SourceError        page.source        what a panel shows cannot be read
"""

from __future__ import annotations

from client.errors import NodeError

__all__ = [
    "CodeError",
    "CrossSiteError",
    "FormError",
    "HostError",
    "LinkError",
    "NoPageError",
    "NotServedError",
    "PageBusyError",
    "PageError",
    "PortError",
    "RequestError",
    "SessionError",
    "SourceError",
]


class PageError(NodeError):
    """Base of what the node's page refuses."""

    code = "page.error"
    exit_code = 4
    http_status = 400


class HostError(PageError):
    """A request that names another host: a name that points at this machine, or another port."""

    code = "page.host"
    http_status = 421


class RequestError(PageError):
    """A request of another form or size than a browser's forms have."""

    code = "page.request"


class SessionError(PageError):
    """No session, one that ended, or another process's."""

    code = "page.session"
    exit_code = 6
    http_status = 401


class LinkError(PageError):
    """A link that was used, is too old, or never was one."""

    code = "page.link"
    exit_code = 6
    http_status = 403


class CrossSiteError(PageError):
    """A change that a page of another site asks for, or that nobody says who asks for."""

    code = "page.cross-site"
    http_status = 403


class FormError(PageError):
    """A form without this session's token, or with a choice that it does not offer."""

    code = "page.form"
    http_status = 403


class CodeError(PageError):
    """No code beside a change, a wrong one, a used one, or one that is too old."""

    code = "page.code"
    exit_code = 7
    http_status = 403


class NoPageError(PageError):
    """No page of this name."""

    code = "page.unknown"
    exit_code = 3
    http_status = 404


class PageBusyError(PageError):
    """Another page of this node runs already."""

    code = "page.busy"
    exit_code = 75
    http_status = 409


class NotServedError(PageError):
    """No page of this node runs, so that nothing would take a code."""

    code = "page.not-running"
    exit_code = 3
    http_status = 409


class PortError(PageError):
    """Somebody listens at the port, or it needs rights that we lack."""

    code = "page.port"
    exit_code = 75
    http_status = 409


class SourceError(PageError):
    """What a panel shows cannot be read; the rest of the page is shown."""

    code = "page.source"
    exit_code = 1
    http_status = 500
