"""Our topologies for Mininet's own command: ``mn --custom testbed/emulation/mn_custom.py --topo hconf,topozoo/Abilene``.

Hosts and links only, with the delay, jitter, loss and rate of each link (with ``--link tc``); no addresses, no routes, no
conference; what else links can do here (bursts, duplicates, …) TCLink does not have. Mininet reads the file and looks for `topos`.
"""

from __future__ import annotations

from typing import Final

from mininet.topo import Topo

from topologies.catalogue import build
from topologies.model import LinkProperties, mean_loss_ratio


class HconfTopo(Topo):  # type: ignore[misc]  # mininet ships no annotations
    """A topology of `topologies.catalogue` as Mininet hosts; ``mn`` hands on what stands after its name.

    Raises: InputError if there is no such topology or parameter.
    """

    def build(self, name: str = "tiers", **parameters: object) -> None:
        topology = build(name, parameters)
        for node in topology.nodes:
            self.addHost(node.name)
        for link in topology.links:
            if link.back is None:
                self.addLink(link.a, link.b, **tc_options(link.properties))
            else:  # of each end's own interface
                self.addLink(link.a, link.b, params1=tc_options(link.properties), params2=tc_options(link.back))


def tc_options(properties: LinkProperties) -> dict[str, object]:
    """Return *properties* in the words of Mininet's TCIntf: loss in per cent, bw in Mbit/s.

    >>> tc_options(LinkProperties(delay_ms=2.5, loss_ratio=0.01))
    {'delay': '2.5ms', 'jitter': '0ms', 'loss': 1.0, 'max_queue_size': 1000}
    """
    options: dict[str, object] = {
        "delay": f"{properties.delay_ms:g}ms",
        "jitter": f"{properties.jitter_ms:g}ms",
        "loss": mean_loss_ratio(properties) * 100,
        "max_queue_size": properties.queue_packets,
    }
    return options if properties.rate_mbps is None else options | {"bw": properties.rate_mbps}


topos: Final = {"hconf": HconfTopo}
