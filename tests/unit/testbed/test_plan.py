from pathlib import Path

import pytest

from testbed.plan import NetworkPlan
from topologies.model import Link, LinkProperties, Node, Topology

TWO = Topology("two", (Node("a", "core"), Node("b", "core")), (Link.between("a", "b", "core", LinkProperties()),))


@pytest.mark.parametrize("run_id", ["", "a/b", "..", ".hidden", "x" * 41, "a b", "a\n"])
def test_a_run_id_is_a_file_name(run_id: str) -> None:
    with pytest.raises(ValueError, match="run_id"):
        NetworkPlan(run_id, TWO, 1, Path("runs/x"))


def test_the_longest_socket_path_fits_the_kernels_limit() -> None:
    plan = NetworkPlan("x" * 40, TWO, 1, Path("runs/x"))
    longest_node_name = "n" * 32
    assert len(str(plan.runtime_dir / f"{longest_node_name}.sock")) <= 107  # unix(7), sun_path without its zero
