# SPDX-License-Identifier: Apache-2.0
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from policies.encoding import canonical

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | TEXT
    | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(
    LEAVES, lambda v: st.lists(v, max_size=4) | st.dictionaries(TEXT, v, max_size=4), max_leaves=20
)


@given(VALUES)
def test_the_fast_path_writes_what_rfc_8785_writes(value):
    assert canonical(value) == rfc8785.dumps(value)
