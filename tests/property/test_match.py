"""Any matches and any frame: what two matches make together, and which filter the kernel lets have the frame."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from testbed.faults.composition import ActiveFaults
from testbed.faults.model import Fault
from testbed.links.netem.filters import add_filter
from testbed.links.netem.match import STRICTEST, Match
from topologies.model import Link, LinkProperties, Node, Topology

TOPOLOGY = Topology(
    "pair", (Node("a", "core"), Node("b", "core")), (Link.between("a", "b", "core", LinkProperties(delay_ms=3.0)),)
)


@dataclass(frozen=True)
class Frame:
    protocol: str
    src: IPv4Address
    dst: IPv4Address
    src_port: int
    dst_port: int

    def fits(self, match: Match) -> bool:
        """Say it anew: all that is given must hold."""
        return (
            match.protocol in (None, self.protocol)
            and (match.src is None or self.src in match.src)
            and (match.dst is None or self.dst in match.dst)
            and match.src_port in (None, self.src_port)
            and match.dst_port in (None, self.dst_port)
        )


addresses = st.integers(0, 7).map(lambda last: IPv4Address(0x0A00_0000 + last))
ports = st.integers(1, 2)
frames = st.builds(Frame, st.sampled_from(["udp", "tcp"]), addresses, addresses, ports, ports)
networks = st.builds(
    lambda address, length: IPv4Network((address, length), strict=False), addresses, st.sampled_from([29, 30, 31, 32])
)


@st.composite
def matches(draw: st.DrawFn) -> Match:
    protocol = draw(st.sampled_from([None, "udp", "tcp"]))
    port = st.none() if protocol is None else st.none() | ports
    network = st.none() | networks
    return Match(protocol, draw(network), draw(network), draw(port), draw(port))


def spelt(match: Match) -> str:
    said = {"src": match.src, "dst": match.dst, "src-port": match.src_port, "dst-port": match.dst_port}
    words = [match.protocol or "", *(f"{key} {value}" for key, value in said.items() if value is not None)]
    return " ".join(words).strip() or "src 0.0.0.0/0"


@given(matches(), matches(), frames)
def test_both_picks_what_each_picks(one: Match, other: Match, frame: Frame) -> None:
    both = one.both(other)
    assert (both is not None and frame.fits(both)) == (frame.fits(one) and frame.fits(other))
    assert both == other.both(one)
    if one.is_within(other):
        assert frame.fits(other) or not frame.fits(one)
        assert one == other or one.strictness > other.strictness


@given(matches())
def test_a_match_is_read_back_from_text_and_from_the_kernels_form(match: Match) -> None:
    assert Match.parse(spelt(match), where="x") == match
    assert Match.decode(match.encode()) == match
    assert 0 <= match.strictness <= STRICTEST


@given(st.lists(st.tuples(st.none() | matches(), st.sampled_from(["delay_ms", "loss_ratio"])), max_size=4), frames)
def test_a_frame_gets_every_impairment_that_it_fits(given_: list[tuple[Match | None, str]], frame: Frame) -> None:
    faults, wanted = ActiveFaults(TOPOLOGY), {"delay_ms": 3.0, "loss_ratio": 0.0}
    for number, (match, name) in enumerate(given_):
        value = (number + 1) / 10
        parameters = {name: value} | ({} if match is None else {"match": spelt(match)})
        faults.apply(Fault(str(number), "impair", "a-b", parameters=parameters))
        if match is None or frame.fits(match):
            wanted[name] = value
    state = faults.state("a-b")
    targets = state.targets["a_to_b"]
    priority = {match: add_filter(4, match, flow=1)[2] for match in targets}
    picked = min(
        (match for match in targets if frame.fits(match)), key=lambda match: _priority(priority[match]), default=None
    )
    got = state.properties["a_to_b"] if picked is None else targets[picked]
    assert (got.delay_ms, got.loss_ratio) == (wanted["delay_ms"], wanted["loss_ratio"])


def _priority(message: bytes) -> int:
    return int.from_bytes(message[16:20], "little") >> 16  # tcm_info
