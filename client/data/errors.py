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
      IndexMismatchError     data.index-mismatch      rows that are not where the index says
      NoEpisodesError        data.no-episodes         nothing is left after cutting
      ShapeChangedError      data.shape-changed       other fields, sizes or rate than the data set has
      LineageMixedError      data.lineage-mixed       episodes of two lineages in one data set
      FieldNotAllowedError   data.field-not-allowed   a column outside contract, recipe and local allow-list
      NoRightsError          data.no-rights           not imported under this contract
      DatasetUnknownError    data.dataset-unknown     no such data set in the store
      StoreDamagedError      data.store-damaged       the store contradicts its own catalogue
      StorageFullError       data.storage-full        the disk is full

A value of an episode never enters an error; names of columns, rows and files may.
"""

from __future__ import annotations

from policies.errors import IriaiError

__all__ = [
    "CellInvalidError",
    "DataError",
    "DatasetUnknownError",
    "DecimalMismatchError",
    "FieldNotAllowedError",
    "FileInvalidError",
    "FormatAmbiguousError",
    "FormatUnknownError",
    "IndexMismatchError",
    "LineageMixedError",
    "MapInvalidError",
    "MissingColumnError",
    "NoEpisodesError",
    "NoRightsError",
    "NotFiniteError",
    "PointerFileError",
    "RaggedError",
    "ShapeChangedError",
    "StorageFullError",
    "StoreDamagedError",
    "TooLargeError",
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


class NoRightsError(DataError):
    """The data set was not imported under this contract, so nothing may be trained on it."""

    code = "data.no-rights"
    exit_code = 4
    http_status = 403


class DatasetUnknownError(DataError):
    """The store has no data set of this name."""

    code = "data.dataset-unknown"
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
