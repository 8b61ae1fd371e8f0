"""Arguments held to their kind and range."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from autotune.domain.arguments import require_number, require_whole
from autotune.domain.errors import UserError


@pytest.mark.parametrize("value", [4, np.int64(4), np.uint8(4)])
def test_whole_numbers_of_any_library_are_whole(value: Any) -> None:
    """What len() and NumPy give alike."""
    require_whole("n", value, low=0, high=8)


@pytest.mark.parametrize("value", [True, 4.0, "4", None, -1, 9])
def test_what_is_no_whole_number_in_range_is_refused(value: Any) -> None:
    """With the range in the message."""
    with pytest.raises(UserError, match=r"n=.* is not valid: give a whole number, 0 to 8"):
        require_whole("n", value, low=0, high=8)


@pytest.mark.parametrize("value", [0, 0.5, np.float32(0.5), np.int64(1), 1e300])
def test_numbers_of_any_library_are_numbers(value: Any) -> None:
    """Whole ones too."""
    require_number("x", value, low=0)


@pytest.mark.parametrize("value", [True, "1", None, -1, float("nan"), float("inf"), 10**400])
def test_what_is_no_finite_number_is_refused(value: Any) -> None:
    """Also what no float holds."""
    with pytest.raises(UserError, match=r"x=.* is not valid: give a number, 0 or more"):
        require_number("x", value, low=0)
