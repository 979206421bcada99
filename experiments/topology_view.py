"""One topology as text: what `hconf topo show` prints."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from topologies.describe import other_properties
from topologies.model import Link, LinkProperties, Topology


def print_topology(console: Console, topology: Topology) -> None:
    """Print the nodes by role and every link with its properties."""
    console.print(
        f"{topology.name}: {len(topology.nodes)} nodes, {len(topology.links)} links",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    for role, names in (
        ("core routers", topology.cores),
        ("CSRs", topology.csrs),
        ("login server", topology.login_servers),
    ):
        console.print(f"  {role}: {', '.join(names) or 'none'}", highlight=False, markup=False, soft_wrap=True)
    for proxy in topology.proxies:
        served = [ue for ue in topology.ues if topology.proxy_of(ue) == proxy]
        whose = proxy if proxy in topology.csrs else f"{topology.csr_of(proxy)}, served by {proxy}"
        others = dict.fromkeys(link.other_end(ue) for ue in served for link in topology.links_of(ue)[1:])
        also = f" (attached to {', '.join(others)} as well)" if others else ""
        console.print(
            f"  UEs of {whose}: {', '.join(served) or 'none'}{also}", highlight=False, markup=False, soft_wrap=True
        )
    table = Table()
    one_way = any(link.back is not None for link in topology.links)
    has_more = any(other_properties(properties) for link in topology.links for _, properties in _ways(link))
    for column in (
        "link",
        *(["from"] if one_way else []),
        "tier",
        "delay",
        "jitter",
        "loss",
        "rate",
        *(["also"] if has_more else []),
    ):
        table.add_column(column, justify="left" if column in ("link", "from", "tier", "also") else "right")
    for link in topology.links:
        for sender, properties in _ways(link):
            more = [other_properties(properties)] if has_more else []
            table.add_row(link.name, *([sender] if one_way else []), link.tier, *_spell(properties), *more)
    console.print(table)


def _ways(link: Link) -> list[tuple[str, LinkProperties]]:
    """Return (sender, properties) of each direction; one, of both senders, where the directions are alike."""
    if link.back is None:
        return [("both", link.properties)]
    return [(link.a, link.properties), (link.b, link.back)]


def _spell(properties: LinkProperties) -> tuple[str, str, str, str]:
    rate = "-" if properties.rate_mbps is None else f"{properties.rate_mbps:g} Mbit/s"
    loss = "-" if properties.loss_ratio == 0 else f"{properties.loss_ratio:g}"
    jitter = "-" if properties.jitter_ms == 0 else f"{properties.jitter_ms:g} ms"
    return f"{properties.delay_ms:.3f} ms", jitter, loss, rate
