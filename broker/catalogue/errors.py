# SPDX-License-Identifier: Apache-2.0
"""Why a descriptor does not enter the catalogue.

What is wrong inside one is `policies.messages.DescriptorKeyError`.

CatalogueError
  ForeignDescriptorError    catalogue.foreign    it describes another node's data
  CatalogueFullError        catalogue.full       as many data sets as one member may describe
  NoCertificateError        catalogue.no-certificate   it names a certificate of quality that is not here
  NotPublishedError         catalogue.not-published    a withdrawal of what is not in the catalogue
  OtherPublicationError     catalogue.other-publication    a withdrawal of an earlier publication
"""

from __future__ import annotations

from policies.errors import IriaiError

__all__ = [
    "CatalogueError",
    "CatalogueFullError",
    "ForeignDescriptorError",
    "NoCertificateError",
    "NotPublishedError",
    "OtherPublicationError",
]


class CatalogueError(IriaiError):
    """Root of refusals about descriptors."""

    code = "catalogue.error"
    exit_code = 3
    http_status = 422


class ForeignDescriptorError(CatalogueError):
    """The descriptor names another node than the one that sends it."""

    code = "catalogue.foreign"


class CatalogueFullError(CatalogueError):
    """The member describes as many data sets as it may."""

    code = "catalogue.full"
    http_status = 409


class NoCertificateError(CatalogueError):
    """The descriptor names a certificate of quality that the broker does not hold for this data set."""

    code = "catalogue.no-certificate"
    http_status = 409


class NotPublishedError(CatalogueError):
    """The data set that is to leave the catalogue is not in it, and no withdrawal of it is on record."""

    code = "catalogue.not-published"
    http_status = 404


class OtherPublicationError(CatalogueError):
    """The withdrawal ends an earlier publication than the one that stands; nothing was withdrawn."""

    code = "catalogue.other-publication"
    http_status = 409
