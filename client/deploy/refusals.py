# SPDX-License-Identifier: Apache-2.0
"""What serving and recording refuse.

    ServeError
      FallbackUnfitError     serve.fallback-unfit   a fallback that the outputs cannot express
      FallbackError          serve.fallback         a guard fired; the owner looks, then resumes
      BindError              serve.bind             an address that is not this machine's own loopback
      BusyError              serve.busy             another service of this name runs
      TokenFileError         serve.token-file       a token file that others can read, or that is none
      NotAdmittedError       serve.not-admitted     no token, another token, or not the owner's
      HostError              serve.host             a request for another host, or from a web page
      RequestError           serve.request          no question that the model could answer
      RequestSizeError       serve.request-size     a body beyond its bound
      RouteError             serve.route            no such path, or no such method there
      NotServingError        serve.not-serving      still loading, stopped, or nothing listens
      RecordingError         serve.recording        recordings that cannot be kept where they should be
      OpcUaError             serve.opcua            an OPC UA address, user or certificate that is refused

A value of an observation never enters an error.
"""

from __future__ import annotations

from policies.errors import IriaiError

__all__ = [
    "BindError",
    "BusyError",
    "FallbackError",
    "FallbackUnfitError",
    "HostError",
    "NotAdmittedError",
    "NotServingError",
    "OpcUaError",
    "RecordingError",
    "RequestError",
    "RequestSizeError",
    "RouteError",
    "ServeError",
    "TokenFileError",
]


class ServeError(IriaiError):
    """Root of what serving refuses."""

    code = "serve.refused"
    exit_code = 3
    http_status = 422


class FallbackUnfitError(ServeError):
    """The manifest's fallback has no value for one of the outputs."""

    code = "serve.fallback-unfit"


class FallbackError(ServeError):
    """A guard fired, and the fallback is answered until the owner resumes."""

    code = "serve.fallback"
    exit_code = 7
    http_status = 409


class BindError(ServeError):
    """An address that other machines could reach."""

    code = "serve.bind"
    exit_code = 4


class BusyError(ServeError):
    """Another process serves under this name, or listens at this port."""

    code = "serve.busy"
    exit_code = 75
    http_status = 409


class TokenFileError(ServeError):
    """A token file that other accounts can read, or that holds something else."""

    code = "serve.token-file"
    exit_code = 6


class NotAdmittedError(ServeError):
    """The request bears no token of this service, or the cell's where the owner's is needed."""

    code = "serve.not-admitted"
    exit_code = 6
    http_status = 401


class HostError(ServeError):
    """The request names another host, or a web page sent it: a name that was bent to this machine."""

    code = "serve.host"
    exit_code = 4
    http_status = 421


class RequestError(ServeError):
    """The body is no question that the model could answer; its state did not change."""

    code = "serve.request"


class RequestSizeError(ServeError):
    """The body is larger than any question of the service."""

    code = "serve.request-size"
    http_status = 413


class RouteError(ServeError):
    """No such path, or another method."""

    code = "serve.route"
    http_status = 404


class NotServingError(ServeError):
    """The service is still loading, was stopped, or does not listen."""

    code = "serve.not-serving"
    exit_code = 5
    http_status = 503


class RecordingError(ServeError):
    """Recordings cannot be kept in the folder that was named."""

    code = "serve.recording"


class OpcUaError(ServeError):
    """An OPC UA address, user or certificate that is refused."""

    code = "serve.opcua"
