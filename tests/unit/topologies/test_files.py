"""Networks from files: GraphML, Mini-NDN, and Python files as `mn --custom` takes them; and what is wrong with them, by line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments.spec import parse_experiment
from topologies.catalogue import build
from topologies.errors import InputError, ParameterError
from topologies.model import Topology

Build = Callable[..., Topology]


@pytest.fixture
def built(tmp_path: Path) -> Build:
    def build_file(name: str, text: str | bytes, **parameters: object) -> Topology:
        (tmp_path / name).write_bytes(text.encode() if isinstance(text, str) else text)
        return build(name, parameters, folder=tmp_path)

    return build_file


def delays_ms(topology: Topology, tier: str = "core") -> dict[str, float]:
    return {link.name: round(link.properties.delay_ms, 4) for link in topology.links if link.tier == tier}


# ---------------------------------------------------------------------- GraphML

ZOO = """<?xml version="1.0" encoding="utf-8"?>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
  <key attr.name="Longitude" attr.type="double" for="node" id="d32" />
  <key attr.name="Latitude" attr.type="double" for="node" id="d29" />
  <key attr.name="label" attr.type="string" for="node" id="d33" />
  <key attr.name="LinkLabel" attr.type="string" for="edge" id="d35" />
  <graph edgedefault="undirected">
    <node id="0"><data key="d29">40.71427</data><data key="d32">-74.00597</data><data key="d33">New York</data></node>
    <node id="1"><data key="d29">41.85003</data><data key="d32">-87.65005</data><data key="d33">Chicago</data></node>
    <node id="2"><data key="d29">38.89511</data><data key="d32">-77.03637</data><data key="d33">Washington DC</data></node>
    <node id="3"><data key="d29">33.749</data><data key="d32">-84.38798</data><data key="d33">ue1</data></node>
    <edge source="0" target="1"><data key="d35">OC-192c</data></edge>
    <edge source="0" target="2" />
    <edge source="2" target="3" />
    <edge source="3" target="2" />
    <edge source="3" target="3" />
  </graph>
</graphml>
"""


def graphml(nodes: str, edges: str = "", keys: str = "") -> str:
    """Return a GraphML file whose first node is in line 2."""
    head = '<graphml><key id="r" attr.name="role" for="node"/><key id="d" attr.name="delay_ms" for="edge"/>'
    return f"{head}{keys}<graph>\n{nodes}\n{edges}\n</graph></graphml>"


def test_a_network_of_the_topology_zoo_has_fibre_delays_by_its_coordinates(built: Build) -> None:
    topology = built("abilene.graphml", ZOO, csrs=2, ues_per_csr=1)
    assert topology.csrs == ("NewYork", "WashingtonDC")
    assert topology.cores == ("Chicago", "nUe1")
    # 1,145 km and 327 km of great circle at 5 us a km; the parallel link and the loop are gone.
    assert delays_ms(topology)["Chicago-NewYork"] == pytest.approx(5.72, abs=0.02)
    assert delays_ms(topology)["NewYork-WashingtonDC"] == pytest.approx(1.64, abs=0.02)
    assert len(delays_ms(topology)) == 3
    assert topology.node("Chicago").position == (-87.65005, 41.85003)
    assert topology.name == "abilene.graphml"


def test_delays_come_from_a_key_or_attributes_or_a_default(built: Build) -> None:
    nodes = '<node id="a"/><node id="b"/><node id="c"/><node id="d"/>'
    keys = "".join(
        f'<key id="{name}" attr.name="{name}" for="edge"/>' for name in ("latency", "delay", "length_km", "rate_mbps")
    )
    edges = """<edge source="a" target="b"><data key="latency">7</data><data key="rate_mbps">10</data></edge>
    <edge source="b" target="c"><data key="delay">2.5ms</data></edge>
    <edge source="c" target="d"><data key="length_km">1000</data></edge>"""
    by_attribute = built("net.graphml", graphml(nodes, edges, keys), default_delay_ms=3.0)
    assert delays_ms(by_attribute) == {"a-b": 3.0, "b-c": 2.5, "c-d": 5.0}
    assert by_attribute.link("a-b").properties.rate_mbps == 10.0
    by_key = built("net.graphml", graphml(nodes, edges, keys), delay_key="latency", default_delay_ms=1.0)
    assert delays_ms(by_key) == {"a-b": 7.0, "b-c": 1.0, "c-d": 1.0}


ROLES = """<node id="r1"><data key="r">core</data></node><node id="east"><data key="r">CSR</data></node>
<node id="west"><data key="r">csr</data></node>
<node id="anna"><data key="r">ue</data></node><node id="ue1"><data key="r">ue</data></node>
<node id="login"><data key="r">login</data></node>"""
ROLE_EDGES = "".join(
    f'<edge source="{a}" target="{b}"><data key="d">{delay}</data></edge>'
    for a, b, delay in (
        ("r1", "east", 5), ("west", "r1", 6), ("anna", "east", 1), ("anna", "west", 2), ("west", "ue1", 3), ("r1", "login", 4),
    )
)  # fmt: skip


def test_a_file_may_say_who_is_what(built: Build) -> None:
    topology = built("roles.graphml", graphml(ROLES, ROLE_EDGES))
    assert (topology.cores, topology.csrs) == (("r1",), ("east", "west"))
    assert (topology.ues, topology.login_servers) == (("anna", "ue1"), ("login",))
    assert topology.csr_of("anna") == "east", "its first link in the file leads to its own CSR"
    assert delays_ms(topology, "access") == {"east-anna": 1.0, "west-anna": 2.0, "west-ue1": 3.0}
    assert delays_ms(topology, "login") == {"r1-login": 4.0}


def test_csrs_of_the_file_get_ues_where_it_has_none(built: Build) -> None:
    nodes = '<node id="a"><data key="r">csr</data></node><node id="b"/><node id="c"><data key="r">csr</data></node>'
    edges = '<edge source="a" target="b"/><edge source="b" target="c"/>'
    topology = built("n.graphml", graphml(nodes, edges), default_delay_ms=1.0, ues_per_csr=2, ues_at={"c": 1})
    assert (topology.csrs, topology.ues) == (("a", "c"), ("ue1", "ue2", "ue3"))
    assert topology.login_servers == ("login",)
    with pytest.raises(ParameterError, match="csrs: the file says which nodes are CSRs"):
        built("n.graphml", graphml(nodes, edges), default_delay_ms=1.0, csrs=1)


def test_another_attribute_may_say_the_roles(built: Build) -> None:
    keys = '<key id="t" attr.name="type" for="node"><default>router</default></key>'
    nodes = '<node id="a"/><node id="b"><data key="t">csr</data></node>'
    topology = built(
        "n.graphml", graphml(nodes, '<edge source="a" target="b"/>', keys), role_key="type", default_delay_ms=1
    )
    assert (topology.cores, topology.csrs) == (("a",), ("b",))


def test_without_csrs_the_routers_of_ues_are_csrs_but_where_a_proxy_ue_serves(built: Build) -> None:
    nodes = "".join(
        f'<node id="{name}"><data key="r">{role}</data></node>'
        for name, role in (("a", "core"), ("b", "core"), ("u", "ue"), ("v", "proxy-ue"), ("w", "ue"))
    )
    edges = "".join(
        f'<edge source="{a}" target="{b}"><data key="d">1</data></edge>' for a, b in ("ab", "au", "bv", "bw")
    )
    topology = built("n.graphml", graphml(nodes, edges))
    assert (topology.csrs, topology.cores, topology.proxy_ues) == (("a",), ("b",), ("v",))


GRAPHML_MISTAKES = [
    ("<graphml><graph>", 1, "it is not valid XML: no element found", "GraphML"),
    ("{}", 1, "it is not valid XML", "name a GraphML file"),
    ("<html></html>", 1, "it begins with <html>, not <graphml>", "name a GraphML file"),
    ("<graphml></graphml>", None, "it has no <graph>", "name a GraphML file"),
    ('<!DOCTYPE a [<!ENTITY b "c">]>\n<graphml/>', 1, "it has a document type", "take the <!DOCTYPE"),
    (graphml("<node/>"), 2, "a <node> has no `id`", 'write <node id="...">'),
    (graphml('<node id="a"/>\n<node id="a"/>'), 3, "the node 'a' is there twice, first in line 2", "an ID of its own"),
    (graphml('<node id="a"/>', '<edge source="a" target="x"/>'), 3, "the edge ends at 'x', which is no node", "`a`"),
    (graphml('<node id="a"/>', "<hyperedge/>"), 3, "it has a <hyperedge>", "router of its own"),
    (graphml('<node id="a"><graph/></node>'), 2, "it has more than one graph", "leave one"),
    (graphml('<node id="a"><data key="zz">1</data></node>'), 2, "the key 'zz' is not declared", "use one of"),
    (graphml('<node id="a"><data key="r">boss</data></node>'), 2, "role = 'boss' is no role", "`csr`"),
    (graphml('<node id="a"/><node id="b"/>', '<edge source="a" target="b"/>'), 3, "nothing says how long the link a to b is", "default_delay_ms"),
    (graphml('<node id="a"/><node id="b"/>', '<edge source="a" target="b"><data key="d">5 ms</data></edge>'), 3, "delay_ms = '5 ms' is no number", "without a unit"),
    (graphml('<node id="a"/><node id="b"/>', '<edge source="a" target="b"><data key="d">-5</data></edge>'), 3, "delay_ms = -5", ""),
    (graphml('<node id="a"/><node id="b"/>', '<edge source="a" target="b"><data key="d">1e9</data></edge>'), 3, "a delay of 1e+09 ms is above 60000", "milliseconds"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line", "problem", "remedy"), GRAPHML_MISTAKES, ids=[m[2][:30] for m in GRAPHML_MISTAKES]
)
def test_a_wrong_graphml_file_is_refused_with_its_line(
    built: Build, text: str, line: int | None, problem: str, remedy: str
) -> None:
    with pytest.raises(InputError) as caught:
        built("bad.graphml", text)
    assert caught.value.where.endswith("bad.graphml" if line is None else f"bad.graphml:{line}")
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy


def test_places_of_a_drawing_tell_no_lengths(built: Build) -> None:
    """Great circles between them were half of the earth long."""
    keys = '<key id="x" attr.name="Longitude" for="node"/><key id="y" attr.name="Latitude" for="node"/>'
    nodes = '<node id="a"><data key="x">500</data><data key="y">40</data></node><node id="b"/>'
    with pytest.raises(InputError, match="longitude = 500 is no place on the earth"):
        built("drawn.graphml", graphml(nodes, '<edge source="a" target="b"/>', keys), default_delay_ms=1)


# ---------------------------------------------------------------------- Mini-NDN

#: The form of the files that come with Mini-NDN.
MINI_NDN = """\
# a comment
[nodes]
a: _ radius=0.5 angle=2.64159265359
b: _ radius=0.6 angle=3.64159265359
MUMBAI_AWS: _ router=/%C1.Router/cs/x network=/ndn
d: _

[links]
a:b delay=10ms bw=100 loss=0.5
a:MUMBAI_AWS delay=72ms jitter=1ms max_queue_size=50 use_htb=True
b:d delay=1500

[faces]
a:b cost=10
b:a cost=10
"""


def test_a_mini_ndn_file_is_a_network_of_routers(built: Build) -> None:
    topology = built("mini.conf", MINI_NDN, csr_nodes=["a", "d"], ues_per_csr=1)
    assert (topology.csrs, topology.cores, topology.ues) == (("a", "d"), ("b", "MUMBAI_AWS"), ("ue1", "ue2"))
    assert delays_ms(topology) == {"MUMBAI_AWS-a": 72.0, "a-b": 10.0, "b-d": 1.5}
    properties = topology.link("a-b").properties
    assert (properties.rate_mbps, properties.loss_ratio) == (100.0, 0.005)
    slow = topology.link("a-MUMBAI_AWS").properties
    assert (slow.jitter_ms, slow.queue_packets) == (1.0, 50)


def test_a_mini_ndn_file_may_say_roles(built: Build) -> None:
    text = "[nodes]\na: _ role=csr\nb: _ role=core\nue7: _ role=ue\n[links]\na:b delay=1ms\na:ue7 delay=2ms\n"
    topology = built("mini.conf", text)
    assert (topology.csrs, topology.ues) == (("a",), ("ue7",))
    with pytest.raises(ParameterError, match="ues_per_csr: the file says which nodes are UEs"):
        built("mini.conf", text, ues_per_csr=3)


MINI_NDN_MISTAKES = [
    ("a: _\n", 1, "'a: _' stands in no section", "begin with [nodes]"),
    ("[nodes]\n", None, "it has no section [nodes], or nothing in it", "Mini-NDN"),
    ("[nodes]\na: _\n[switches]\ns1: _\n", 4, "it has [switches]: switches have no forwarder", "make each switch a node"),
    ("[nodes]\na: _\n[stations]\nsta1: _\n", 4, "wireless stations are not emulated", "nodes with links"),
    ("[nodes]\na: _\n[controllers]\n", 3, "[controllers] is no section", "[nodes], [links] and [faces]"),
    ("[nodes]\na: _\na: _\n", 3, "the node `a` is there twice", "the first is at"),
    ("[nodes]\na: _ what\n", 2, "'what' is no key=value", "delay=10ms"),
    ("[nodes]\na: _ role=boss\n", 2, "role = 'boss' is no role", "`csr`"),
    ("[nodes]\na: _\nb: _\n[links]\na:c delay=1ms\n", 5, "a:c ends at `c`, which is no node", "`a`, `b`"),
    ("[nodes]\na: _\nb: _\n[links]\nab delay=1ms\n", 5, "'ab' names no two nodes", "write a:b"),
    ("[nodes]\na: _\nb: _\n[links]\na:b delay=soon\n", 5, "delay = 'soon' is no time", "delay=10ms"),
    ("[nodes]\na: _\nb: _\n[links]\na:b bw=-1\n", 5, "bw = '-1' is no number of 0 or more", "bw=10"),
    ("[nodes]\na: _\nb: _\n[links]\na:b bw=0\n", 5, "a rate of 0 Mbit/s", "Mbit/s"),
    ("[nodes]\na: _\nb: _\n[links]\na:b loss=101\n", 5, "loss = 101 is above 100", "per cent"),
    ("[nodes]\na: _\nb: _\n[links]\na:b latency=1ms\n", 5, "a link has no `latency`", "`delay`"),
    ("[nodes]\na: _\nb: _\n[links]\na:b delay=1ms\nb:a delay=2ms\n", 6, "the link b:a is there twice", "the first is at"),
    (b"[nodes]\na: _\n\xff: _\n", 3, "it is not UTF-8 text: byte 0xff", "Mini-NDN"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line", "problem", "remedy"), MINI_NDN_MISTAKES, ids=[m[2][:30] for m in MINI_NDN_MISTAKES]
)
def test_a_wrong_mini_ndn_file_is_refused_with_its_line(
    built: Build, text: str | bytes, line: int | None, problem: str, remedy: str
) -> None:
    with pytest.raises(InputError) as caught:
        built("bad.conf", text)
    assert caught.value.where.endswith("bad.conf" if line is None else f"bad.conf:{line}")
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy


def test_a_disconnected_file_is_refused(built: Build) -> None:
    with pytest.raises(InputError, match="it is disconnected"):
        built("two.conf", "[nodes]\na: _\nb: _\n[links]\n")


# ---------------------------------------------------------------------- Python

SWITCHES = '''
from mininet.topo import Topo


class Wing(Topo):
    """As custom/topo-2sw-2host.py of Mininet."""

    def build(self, hosts=1, delay="5ms"):
        s1, s2, s3 = (self.addSwitch(f"s{number}") for number in (1, 2, 3))
        self.addLink(s1, s2, delay=delay, bw=100)
        self.addLink(s2, s3, delay=delay, loss=1, jitter="1ms", max_queue_size=9)
        for number in range(hosts):
            self.addLink(self.addHost(f"h{number}"), (s1, s3)[number % 2], delay="500us")


class Mini(Topo):
    def build(self):
        for name in "abc":
            self.addHost(name)
        self.addLink("a", "b", delay="1ms")
        self.addLink("b", "c", delay="2ms")


topos = {"wing": Wing, "mini": (lambda: Mini())}
'''


def test_switches_become_routers_and_hosts_ues(built: Build) -> None:
    topology = built("custom.py", SWITCHES, topo="wing", arguments={"hosts": 3})
    assert (topology.cores, topology.csrs, topology.ues) == (("s2",), ("s1", "s3"), ("h0", "h1", "h2"))
    assert delays_ms(topology) == {"s1-s2": 5.0, "s2-s3": 5.0}
    assert delays_ms(topology, "access") == {"s1-h0": 0.5, "s3-h1": 0.5, "s1-h2": 0.5}
    lossy = topology.link("s2-s3").properties
    assert (lossy.loss_ratio, lossy.jitter_ms, lossy.queue_packets, lossy.rate_mbps) == (0.01, 1.0, 9, None)
    assert topology.login_servers == ("login",)


def test_hosts_alone_are_routers(built: Build) -> None:
    topology = built("custom.py", SWITCHES, topo="mini", csr_nodes=["b"], ues_per_csr=2)
    assert (topology.cores, topology.csrs, topology.ues) == (("a", "c"), ("b",), ("ue1", "ue2"))


def test_the_only_class_needs_no_topos(built: Build) -> None:
    only = SWITCHES.partition("class Mini")[0]
    assert built("custom.py", only).ues == ("h0",)


def test_running_a_file_leaves_no_path_behind(built: Build) -> None:
    before = list(sys.path)
    built("custom.py", SWITCHES, topo="wing")
    assert sys.path == before


PYTHON_MISTAKES = [
    ("topos = 1\n", "bad.py", "it has no `topos`, and no class derived from Topo", "end it with topos"),
    (SWITCHES, "bad.py", "it has 2 topologies", 'topo = "wing"'),
    ("def f(:\n", "bad.py:1", "SyntaxError", "correct it"),
    ("\n1 / 0\n", "bad.py:2", "ZeroDivisionError: division by zero", "correct it"),
    ("\nraise SystemExit(3)\n", "bad.py:2", "SystemExit: 3", "correct it"),
    ("def boom():\n    raise ValueError('no\\nway')\ntopos = {'x': boom}\n", "bad.py:2", "ValueError: no", "correct it"),
    ("topos = {'x': object}\n", "bad.py: x", "it makes no Mininet Topo", "derive it from"),
    ("import mininet_nowhere\n", "bad.py:1", "ModuleNotFoundError", "correct it"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "where", "problem", "remedy"), PYTHON_MISTAKES, ids=[m[2][:30] for m in PYTHON_MISTAKES]
)
def test_a_wrong_python_file_is_refused_with_its_line(
    built: Build, text: str, where: str, problem: str, remedy: str
) -> None:
    with pytest.raises(InputError) as caught:
        built("bad.py", text)
    assert caught.value.where.endswith(where)
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy
    assert "\n" not in str(caught.value)


def test_wrong_arguments_and_names_are_refused(built: Build) -> None:
    with pytest.raises(InputError, match="TypeError"):
        built("custom.py", SWITCHES, topo="wing", arguments={"guests": 3})
    with pytest.raises(InputError, match=r"it has no topology `wings` \(fix: did you mean `wing`\?\)"):
        built("custom.py", SWITCHES, topo="wings")
    bad_link = "from mininet.topo import Topo\nclass T(Topo):\n    def build(self):\n        self.addHost('a')\n        self.addHost('b')\n        self.addLink('a', 'b', bw='fast')\n"
    with pytest.raises(InputError, match=r"T: a-b: bw = 'fast' is no number"):
        built("custom.py", bad_link)


# ---------------------------------------------------------------------- all of them

EXPERIMENT = '[experiment]\nname = "x"\nduration_s = 5\n[topology]\nname = "{name}"\n'


def test_a_file_is_seen_from_the_experiment_files_folder(tmp_path: Path) -> None:
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "mini.conf").write_text(MINI_NDN)
    text = EXPERIMENT.format(name="nets/mini.conf") + "csrs = 2\n"
    experiment = parse_experiment(text, tmp_path / "a.toml")
    assert experiment.topology.csrs == ("a", "b")
    again = parse_experiment(text, tmp_path / "a.toml", ["topology.ues_per_csr=1"])
    assert again.topology.ues == ("ue1", "ue2")
    assert experiment.resolved["topology"]["name"] == "nets/mini.conf"


@pytest.mark.parametrize("name", ["nothing.conf", "nothing.graphml", "nothing.py"])
def test_a_file_that_is_not_there_is_said_so(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"{name}: there is no such file"):
        parse_experiment(EXPERIMENT.format(name=name), tmp_path / "a.toml")
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="it cannot be read: Is a directory"):
        parse_experiment(EXPERIMENT.format(name=name), tmp_path / "a.toml")
    (tmp_path / name).rmdir()
    (tmp_path / name).write_text(" \n")
    with pytest.raises(InputError, match="it is empty"):
        parse_experiment(EXPERIMENT.format(name=name), tmp_path / "a.toml")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["any.conf", "any.graphml"]), st.data())
def test_any_file_is_accepted_or_refused(tmp_path: Path, name: str, data: st.DataObject) -> None:
    """A good file with something cut out or put in is a network or an InputError."""
    text = (MINI_NDN if name.endswith("conf") else ZOO).encode()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 60)))
    text = (
        text[:start]
        + data.draw(st.binary(max_size=20) | st.sampled_from([b"<graph>", b"a:b", b"[links]"]))
        + text[end:]
    )
    (tmp_path / name).write_bytes(text)
    try:
        topology = build(name, folder=tmp_path)
    except InputError:
        return
    assert topology.ues
