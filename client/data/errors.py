# SPDX-License-Identifier: Apache-2.0
"""What the data room refuses. Nothing is stored when one is raised; what was stored stays as it was.

    DataError
      FormatUnknownError     data.format-unknown      no reader claims the path
      FormatAmbiguousError   data.format-ambiguous    two readers claim it
      PointerFileError       data.pointer-file        a Git LFS pointer instead of data
      FileInvalidError       data.file-invalid        a file that contradicts its own format
      TooLargeError          data.too-large           a bound of policies.limits
      MapInvalidError        data.map-invalid         unit, field, clock, columns or rule of the signal map
      RaggedError            data.ragged              a text row of another width
      DecimalMismatchError   data.decimal-mismatch    numbers that parse only with the other decimal sign
      CellInvalidError       data.cell-invalid        text where a number is mapped
      NotFiniteError         data.not-finite          NaN or infinity in a mapped column
      MissingColumnError     data.missing-column      a mapped or needed column that is not there
      JointNameError         data.joint-name          messages name other joints than the map
      NoMeasuredStateError   data.no-measured-state   a planned path and nothing that was measured
      TruncatedError         data.truncated           a container that was cut
      IndexMismatchError     data.index-mismatch      rows that are not where the index says
      NoEpisodesError        data.no-episodes         nothing is left after cutting
      ShapeChangedError      data.shape-changed       other fields, sizes or rate than the data set has
      LineageMixedError      data.lineage-mixed       episodes of two lineages in one data set
      FieldNotAllowedError   data.field-not-allowed   a column outside contract, recipe and local allow-list
      PersonalDataError      data.personal            names, addresses, badges; video without a consent
      CertificateVoidError   data.certificate-void    data, map or checks changed since it was signed
      DescribedLatelyError   data.described-lately    another descriptor so soon after the last one
      FingerprintsError      data.fingerprints        a file of fingerprints for others, or of another form
      QualityRefusedError    data.quality-refused     the recipe requires a better certificate
      NoRightsError          data.no-rights           not imported under this contract
      DatasetUnknownError    data.dataset-unknown     no such data set in the store
      EpisodeUnknownError    data.episode-unknown     no such episode in the data set
      StoreDamagedError      data.store-damaged       the store contradicts its own catalogue
      StorageFullError       data.storage-full        the disk is full
      ChangedWhileReadError  data.changed-while-read  a source file that was written to during its import
      SealedError            data.sealed              a change of episodes whose budget was opened
      DatasetInUseError      data.in-use              a run trains on the data set
      LiveSourceError        data.live-source         a live source that cannot be reached or read
      LiveInsecureError      data.live-insecure       a live source without encryption, or without a known key

A value of an episode never enters an error; names of columns, rows and files may.
"""

from __future__ import annotations

from policies.errors import IriaiError

__all__ = [
    "CellInvalidError",
    "CertificateVoidError",
    "ChangedWhileReadError",
    "DataError",
    "DatasetInUseError",
    "DatasetUnknownError",
    "DecimalMismatchError",
    "DescribedLatelyError",
    "EpisodeUnknownError",
    "FieldNotAllowedError",
    "FileInvalidError",
    "FingerprintsError",
    "FormatAmbiguousError",
    "FormatUnknownError",
    "IndexMismatchError",
    "JointNameError",
    "LineageMixedError",
    "LiveInsecureError",
    "LiveSourceError",
    "MapInvalidError",
    "MissingColumnError",
    "NoEpisodesError",
    "NoMeasuredStateError",
    "NoRightsError",
    "NotFiniteError",
    "PersonalDataError",
    "PointerFileError",
    "QualityRefusedError",
    "RaggedError",
    "SealedError",
    "ShapeChangedError",
    "StorageFullError",
    "StoreDamagedError",
    "TooLargeError",
    "TruncatedError",
]


class DataError(IriaiError):
    """Root of what the data room refuses."""

    code = "data.refused"
    exit_code = 3
    http_status = 422


class FormatUnknownError(DataError):
    """No reader claims the path."""

    code = "data.format-unknown"


class FormatAmbiguousError(DataError):
    """Two readers claim the path; the owner must say which."""

    code = "data.format-ambiguous"


class PointerFileError(DataError):
    """A Git LFS pointer stands where the data should be."""

    code = "data.pointer-file"


class FileInvalidError(DataError):
    """A file is damaged or contradicts its own format."""

    code = "data.file-invalid"


class TooLargeError(DataError):
    """A file, row, episode or number of signals beyond its bound."""

    code = "data.too-large"


class MapInvalidError(DataError):
    """The signal map is wrong; the message names the line."""

    code = "data.map-invalid"


class RaggedError(DataError):
    """A text row has another number of cells than the header."""

    code = "data.ragged"


class DecimalMismatchError(DataError):
    """Numbers parse only with another decimal sign than the map's."""

    code = "data.decimal-mismatch"


class CellInvalidError(DataError):
    """A mapped cell is neither empty nor a number, a time, or a known word."""

    code = "data.cell-invalid"


class NotFiniteError(DataError):
    """NaN or infinity in a mapped column: a recording error that nobody may average away."""

    code = "data.not-finite"


class MissingColumnError(DataError):
    """A column that the map, the format or the recipe needs is not there."""

    code = "data.missing-column"


class JointNameError(DataError):
    """Messages name other joints than the map: values are taken by name, never by position."""

    code = "data.joint-name"


class NoMeasuredStateError(DataError):
    """Only a planned path: nothing that a robot did."""

    code = "data.no-measured-state"


class TruncatedError(DataError):
    """A container that was cut; its complete messages are imported only if somebody accepts that."""

    code = "data.truncated"


class IndexMismatchError(DataError):
    """The index of a data set points at rows of another episode."""

    code = "data.index-mismatch"


class NoEpisodesError(DataError):
    """No episode is left: all pieces are shorter than the map's minimum, or there are no rows."""

    code = "data.no-episodes"


class ShapeChangedError(DataError):
    """The data set already holds other fields, sizes or another rate."""

    code = "data.shape-changed"


class LineageMixedError(DataError):
    """Episodes of two lineages: their privacy budgets could no longer be told apart."""

    code = "data.lineage-mixed"
    exit_code = 4
    http_status = 409


class FieldNotAllowedError(DataError):
    """A column outside contract, recipe and local allow-list; the clause is named."""

    code = "data.field-not-allowed"
    exit_code = 4
    http_status = 403


class PersonalDataError(DataError):
    """Check 12: what names a person, or shows one without a consent; nothing of it was stored."""

    code = "data.personal"
    exit_code = 4


class CertificateVoidError(DataError):
    """There is no valid certificate: data, map, answers or checks are others than when it was signed."""

    code = "data.certificate-void"
    http_status = 409


class DescribedLatelyError(DataError):
    """A descriptor that says other things than the last one, too soon after it."""

    code = "data.described-lately"


class FingerprintsError(DataError):
    """A file of fingerprints of another form, or for another pair or contract."""

    code = "data.fingerprints"


class QualityRefusedError(DataError):
    """The recipe requires checks that the data set's certificate does not grant; the clause is named."""

    code = "data.quality-refused"
    exit_code = 4
    http_status = 403


class NoRightsError(DataError):
    """The data set was not imported under this contract, so nothing may be trained on it."""

    code = "data.no-rights"
    exit_code = 4
    http_status = 403


class DatasetUnknownError(DataError):
    """The store has no data set of this name."""

    code = "data.dataset-unknown"
    http_status = 404


class EpisodeUnknownError(DataError):
    """The data set has no episode of this id."""

    code = "data.episode-unknown"
    http_status = 404


class StoreDamagedError(DataError):
    """The store's files contradict its catalogue."""

    code = "data.store-damaged"
    http_status = 500


class StorageFullError(DataError):
    """No space left; nothing of the import was kept."""

    code = "data.storage-full"
    exit_code = 75
    http_status = 507


class ChangedWhileReadError(DataError):
    """A source file changed between the start and the end of its import."""

    code = "data.changed-while-read"
    exit_code = 75
    http_status = 409


class SealedError(DataError):
    """Episodes of a lineage whose budget was opened stay what they were; new ones come in a new block."""

    code = "data.sealed"
    exit_code = 4
    http_status = 409


class DatasetInUseError(DataError):
    """A run trains on the data set now."""

    code = "data.in-use"
    exit_code = 75
    http_status = 409


class LiveSourceError(DataError):
    """A live source cannot be reached, refuses this node, or the library for it is missing."""

    code = "data.live-source"
    exit_code = 5
    http_status = 502


class LiveInsecureError(DataError):
    """A live source would be read without encryption, or from a server whose certificate nobody named."""

    code = "data.live-insecure"
    exit_code = 4
    http_status = 403
