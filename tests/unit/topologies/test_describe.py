from __future__ import annotations

from topologies.catalogue import build
from topologies.describe import LINK_HEADER, link_rows, node_rows, render_text
from topologies.model import LinkProperties

TOPOLOGY = build("tiers", {"csrs": 2, "ues_per_csr": 30})


def test_nodes_are_grouped_by_role_and_long_lists_cut() -> None:
    rows = {role: (count, names) for role, count, names in node_rows(TOPOLOGY)}
    assert rows["csr"] == ("2", "csr1 csr2")
    assert rows["ue"][0] == "60"
    assert rows["ue"][1].startswith("ue1 ue2 ")
    assert " … " in rows["ue"][1]
    assert rows["ue"][1].endswith(" ue60")


def test_proxy_ues_have_a_row_of_their_own() -> None:
    rows = node_rows(build("tiers", {"csrs": 1, "edge_networks": 2}))
    assert [row for row in rows if row[0] == "proxy-ue"] == [("proxy-ue", "2", "ue4 ue7")]
    assert "proxy-ue" not in {role for role, _, _ in node_rows(TOPOLOGY)}


def test_alike_access_links_share_a_row() -> None:
    rows = link_rows(TOPOLOGY)
    assert all(len(row) == len(LINK_HEADER) for row in rows)
    assert [row[0] for row in rows if row[1] == "access"] == ["csr1-ue1 … ue30", "csr2-ue31 … ue60"]
    assert next(row[2] for row in rows if row[0] == "core1-core2") == "10.000"


def test_the_text_has_everything() -> None:
    text = render_text(TOPOLOGY)
    assert text.startswith("tiers: 67 nodes, 69 links\n")
    assert "core1-login" in text
    assert not any(line.endswith(" ") for line in text.splitlines())


def test_links_to_ues_of_other_csrs_have_rows_of_their_own() -> None:
    topology = build("tiers", {"csrs": 3, "ues_per_csr": 2, "ue_links": 2})
    assert [row[0] for row in link_rows(topology) if row[1] == "access"] == [
        *("csr1-ue1 … ue2", "csr2-ue3 … ue4", "csr3-ue5 … ue6"),
        *("csr2-ue1 … ue2", "csr3-ue3 … ue4", "csr1-ue5 … ue6"),
    ]


def test_directions_that_differ_have_a_row_each_and_what_is_unusual_is_named() -> None:
    link = TOPOLOGY.link("core1-core2")
    back = LinkProperties(delay_ms=7.0, rate_mbps=2.0, corrupt_ratio=0.25, mtu_bytes=1_280)
    rows = link_rows(TOPOLOGY.with_properties({}, {link.name: back}))
    assert [row for row in rows if row[0].startswith("core1-core2")] == [
        ("core1-core2 from core1", "core", "10.000", "0", "0", "", "1000", ""),
        ("core1-core2 from core2", "core", "7.000", "0", "0", "2", "1000", "corrupt_ratio = 0.25, mtu_bytes = 1280"),
    ]
    same = TOPOLOGY.with_properties({}, {link.name: link.properties})
    assert same == TOPOLOGY
