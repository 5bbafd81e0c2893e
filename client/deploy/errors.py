# SPDX-License-Identifier: Apache-2.0
"""What is refused about a model package, when it is made and when it is loaded.

PackageError             package.refused
  PackageFileError         package.file              the file cannot be read or written
  PackageFormError         package.form              no archive of the one form: repacked, cut or altered
  PackageSizeError         package.size              larger than its bounds, or with more members
  PackageUnsignedError     package.unsigned          no signature, or one that does not hold over the manifest
  PackageSignerError       package.signer            signed by a key that nobody pinned
  PackageMemberError       package.member-unlisted   a member that the manifest does not list, or a listed one
                                                     that is not there
  PackageDigestError       package.digest            a member's bytes are not the signed ones
  PackageManifestError     package.manifest          no complete manifest of this version
  PackageLimitsError       package.limits-missing    an input, an output or a guard without its limits
  PackageStatementError    package.statement         no privacy statement about this model
  PackageMismatchError     package.mismatch          what the package says twice is not the same: recipe,
                                                     limits, card, list of parts, latency, shell
  PackageOpError           package.op-refused        an operator outside the list, or a graph that checks fail
  PackageWeightsError      package.external-data     weights that lie outside the package
  PackageSelfTestError     package.self-test         the graph answers its example otherwise
  NotExportableError       package.not-exportable    a model that is no graph of one observation
  AasMissingError          package.aas-missing       a wrapper was asked for, and its library is not installed
  PackagingError           package.failed            the process that exports ended without a package
"""

from __future__ import annotations

from policies.errors import IriaiError

__all__ = [
    "AasMissingError",
    "NotExportableError",
    "PackageDigestError",
    "PackageError",
    "PackageFileError",
    "PackageFormError",
    "PackageLimitsError",
    "PackageManifestError",
    "PackageMemberError",
    "PackageMismatchError",
    "PackageOpError",
    "PackageSelfTestError",
    "PackageSignerError",
    "PackageSizeError",
    "PackageStatementError",
    "PackageUnsignedError",
    "PackageWeightsError",
    "PackagingError",
]


class PackageError(IriaiError):
    """Root of what is refused about a package."""

    code = "package.refused"
    exit_code = 3
    http_status = 422


class PackageFileError(PackageError):
    """A package cannot be read from, or written to, the file that was named."""

    code = "package.file"
    exit_code = 2


class PackageFormError(PackageError):
    """Not the one byte form of a package: repacked, cut or altered."""

    code = "package.form"


class PackageSizeError(PackageError):
    """Larger than a package may be, or with more members."""

    code = "package.size"


class PackageUnsignedError(PackageError):
    """No signature, or one that is not over this manifest."""

    code = "package.unsigned"
    exit_code = 6


class PackageSignerError(PackageError):
    """A signature, but by none of the keys that are pinned here."""

    code = "package.signer"
    exit_code = 6


class PackageMemberError(PackageError):
    """The members are not exactly the listed ones."""

    code = "package.member-unlisted"


class PackageDigestError(PackageError):
    """A member's bytes are not the ones that were signed."""

    code = "package.digest"


class PackageManifestError(PackageError):
    """The manifest is not one of this version, or contradicts itself."""

    code = "package.manifest"


class PackageLimitsError(PackageError):
    """An input, an output or a guard has no limits: such a model never runs."""

    code = "package.limits-missing"


class PackageStatementError(PackageError):
    """The privacy statement is missing, or about another model."""

    code = "package.statement"


class PackageMismatchError(PackageError):
    """Two parts of the package say different things, or a part says what no such package says."""

    code = "package.mismatch"


class PackageOpError(PackageError):
    """The graph holds an operator that is not on the list, or is not a valid graph."""

    code = "package.op-refused"


class PackageWeightsError(PackageError):
    """The graph takes weights from a place other than the package's one weight file."""

    code = "package.external-data"


class PackageSelfTestError(PackageError):
    """The graph does not answer the manifest's example as it should."""

    code = "package.self-test"


class NotExportableError(PackageError):
    """A model that looks at several observations, or only the trunk that several embodiments share."""

    code = "package.not-exportable"


class AasMissingError(PackageError):
    """An Asset Administration Shell was asked for, and its library is not installed."""

    code = "package.aas-missing"


class PackagingError(PackageError):
    """The process that exports a model ended without a package."""

    code = "package.failed"
