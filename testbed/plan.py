"""What network to build and which conference to hold in it: everything the emulation needs to know, and no I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from topologies.model import Topology

Settings = Mapping[str, Any]

#: By service proxies (the first three), by one of them, which is the focus of all, or by the UEs alone.
Mode = Literal["hybrid", "push", "pull", "central", "svs", "psync"]
#: Modes without service proxies: UEs tell each other what there is.
PROXYLESS_MODES: Final = frozenset({"svs", "psync"})

#: Where every run keeps its sockets and the record of what it owns. A tmpfs: a reboot empties it.
RUNTIME_ROOT: Final = Path("/run/hconf")

#: A run ID is a file name and part of socket paths, which the kernel limits to 107 bytes (unix(7)).
RUN_ID_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}")


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """One network, and who confers with whom in it.

    The ``*_settings`` override single fields of the section of that name in the configuration of every node that has
    it (proxy/config.py); the node program validates them.

    Raises: ValueError if run_id cannot be a file name.
    """

    run_id: str  #: unique on this machine while the run lives
    topology: Topology
    seed: int
    run_dir: Path  #: the run folder; raw records, configurations and logs go to its ``raw``
    conference: str = "main"
    #: UE -> its conference, for those that are not in the one above
    conferences: Mapping[str, str] = field(default_factory=dict)
    mode: Mode = "hybrid"
    forwarder_settings: Settings = field(default_factory=dict)
    proxy_settings: Settings = field(default_factory=dict)
    client_settings: Settings = field(default_factory=dict)
    login_settings: Settings = field(default_factory=dict)
    #: of the section of a UE that is called as the mode, in a mode without service proxies
    sync_settings: Settings = field(default_factory=dict)
    #: message faults may have code that runs over packets; the links then load scapy, which takes 0.7 s, when they are made
    packet_code: bool = False
    #: nodes measure how long their processes take, for a simulated twin; they take a little longer then
    measures_processing: bool = False

    def __post_init__(self) -> None:
        if not RUN_ID_PATTERN.fullmatch(self.run_id):
            raise ValueError(f"run_id = {self.run_id!r} is not 1 to 40 letters, digits, dots, dashes or underscores")
        if self.mode in PROXYLESS_MODES and self.topology.proxies:
            raise ValueError(f"mode {self.mode} is without service proxies; give it topology.served_by(())")
        if self.mode == "central" and len(self.topology.proxies) != 1:
            raise ValueError("mode central is with one service proxy; give it topology.served_by([its node])")

    @property
    def runtime_dir(self) -> Path:
        """Where the sockets of the nodes are while the run lives; removed at its end."""
        return RUNTIME_ROOT / self.run_id

    @property
    def raw_dir(self) -> Path:
        return self.run_dir / "raw"

    @property
    def state_dir(self) -> Path:
        """The disks of the service proxies: what outlives their crashes."""
        return self.run_dir / "state"

    @property
    def config_dir(self) -> Path:
        return self.raw_dir / "config"

    @property
    def log_dir(self) -> Path:
        return self.raw_dir / "log"
