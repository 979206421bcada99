from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex

from experiments.report import network_layout
from experiments.report.network_layout import layout
from experiments.report.network_picture import UES_DRAWN_MAX, network_figure
from experiments.report.palette import VERMILLION
from experiments.topology_drawing import check_format, drawing, write_drawing
from topologies.catalogue import build
from topologies.errors import InputError
from topologies.model import Link, LinkProperties, Node, Topology

ABILENE = build("topozoo/Abilene", {"csr_nodes": ["NewYork", "Chicago"], "ues_per_csr": 2})


def texts(topology: Topology, struck: Collection[str] = ()) -> list[str]:
    """Return everything that is written in the picture."""
    (axes,) = network_figure(topology, struck=struck).axes
    legend = axes.get_legend()
    assert legend is not None
    return [text.get_text() for text in (*axes.texts, *legend.get_texts())]


def test_every_node_has_its_name_and_every_router_link_its_delay() -> None:
    shown = texts(ABILENE)
    for node in ABILENE.nodes:
        assert shown.count(node.name) == 1
    for link in ABILENE.links:
        if link.tier == "core":
            assert f"{link.properties.delay_ms:.3g}" in shown
    assert "2 CSRs" in shown
    assert "1 login server" in shown
    assert "access link: 2 ms" in shown


@pytest.mark.parametrize("name", ["topozoo/Abilene", "tiers"])
def test_no_delay_is_hidden_by_another_or_by_a_name(name: str) -> None:
    """The delay between NewYork and WashingtonDC was written under the latter's name."""
    topology = build(name, {"csrs": 4})
    figure = network_figure(topology)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    named = [text for text in axes.texts if text.get_text() in (*topology.cores, *topology.csrs)]
    delays = [text for text in axes.texts if text.get_text().replace(".", "").isdigit()]
    assert len(delays) == sum(link.tier in ("core", "uplink") for link in topology.links)
    boxes = [text.get_window_extent() for text in (*named, *delays)]
    for delay in delays:
        assert sum(delay.get_window_extent().overlaps(box) for box in boxes) == 1, delay.get_text()  # itself


def test_what_need_not_cross_does_not() -> None:
    """A ring of four, whose links are not named in its order, was drawn as an hourglass."""
    links = [Link.between(a, b, "core", LinkProperties(delay_ms=1)) for a, b in ("ab", "ac", "bd", "cd")]
    places = layout(Topology("ring", tuple(Node(name, "core") for name in "abcd"), tuple(links)))
    assert network_layout._crossings([(places[link.a], places[link.b]) for link in links]) == 0


def test_access_links_that_differ_are_labelled_and_loss_is_shown() -> None:
    links = {link.name: LinkProperties(delay_ms=7.0, loss_ratio=0.02) for link in ABILENE.links_of("ue1")}
    shown = texts(ABILENE.with_properties(links))
    assert "7, 2 %" in shown
    assert "access link: 2 to 7 ms" in shown
    assert "loses packets" in shown
    assert "loses packets" not in texts(ABILENE)


def test_what_a_fault_struck_is_marked() -> None:
    (axes,) = network_figure(ABILENE, struck={"Chicago-NewYork", "Denver"}).axes
    assert "struck by a fault" in texts(ABILENE, {"Denver"})
    assert "struck by a fault" not in texts(ABILENE)
    red = [text.get_text() for text in axes.texts if text.get_color() == VERMILLION.light]
    assert red == ["Denver"]
    lines = [each for each in axes.collections if isinstance(each, LineCollection)]
    struck = [
        each
        for each in lines
        if to_hex(cast("Any", each.get_edgecolor())[0]) == VERMILLION.light and len(each.get_segments())
    ]
    assert [len(each.get_segments()) for each in struck] == [1]


def test_routers_stand_as_on_the_map() -> None:
    places = layout(ABILENE)
    assert places["Sunnyvale"][0] < places["Denver"][0] < places["NewYork"][0]
    assert places["Houston"][1] < places["Chicago"][1]
    assert len(set(places.values())) == len(ABILENE.nodes)


@pytest.mark.parametrize("cores", [3, 20])
def test_networks_without_positions_have_places_of_their_own(cores: int) -> None:
    topology = build("tiers", {"cores": cores, "csrs": 6})
    places = layout(topology)
    assert len({(round(x, 3), round(y, 3)) for x, y in places.values()}) == len(topology.nodes)
    assert layout(topology) == places


def test_the_same_topology_gives_the_same_bytes() -> None:
    for form in ("svg", "png"):
        assert drawing(ABILENE, form) == drawing(ABILENE, form)


def test_crowds_are_counted_not_drawn() -> None:
    topology = build("tiers", {"csrs": 2, "ues_per_csr": UES_DRAWN_MAX})
    shown = texts(topology)
    assert shown.count(f"{UES_DRAWN_MAX} UEs") == 2
    assert "ue1" not in shown


def test_two_routers_are_a_network_too() -> None:
    nodes = (Node("a", "csr"), Node("b", "core"), Node("u", "ue"), Node("login", "login"))
    links = (
        Link.between("a", "b", "core", LinkProperties()),
        Link.between("a", "u", "access", LinkProperties()),
        Link.between("b", "login", "login", LinkProperties()),
    )
    figure = network_figure(Topology("small", nodes, links))
    assert figure.axes


def test_the_name_of_the_file_says_the_format(tmp_path: Path) -> None:
    starts = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    for form, start in starts.items():
        path = tmp_path / f"x.{form.upper()}"
        write_drawing(ABILENE, path)
        assert path.read_bytes().startswith(start)
    for name in ("x.gif", "x"):
        with pytest.raises(InputError, match=r"end it with \.png, \.svg, \.pdf"):
            check_format(Path(name))
    with pytest.raises(InputError, match="it cannot be written: No such file or directory"):
        write_drawing(ABILENE, tmp_path / "nowhere" / "x.png")
