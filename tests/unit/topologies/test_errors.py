from __future__ import annotations

import pickle

import pytest

from topologies.errors import CapabilityError, HconfError, InputError, ParameterError


@pytest.mark.parametrize(
    "error",
    [
        InputError(where="a.toml:3", problem="is wrong", remedy="write it right"),
        CapabilityError(where="here", problem="cannot", remedy="mend it"),
        ParameterError("tiers", "csrs", problem="is wrong", remedy="write it right"),
    ],
)
def test_an_error_comes_back_from_another_process_whole(error: HconfError) -> None:
    back = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes
    assert (type(back), str(back), vars(back)) == (type(error), str(error), vars(error))
