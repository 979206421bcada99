"""From a node's configuration to its core; used by both drivers."""

from __future__ import annotations

from proxy.config import NodeConfig
from proxy.core.baselines.participant import Participant
from proxy.core.events import LOCAL_FACE, SERVICE_FACE
from proxy.core.forwarder import Forwarder
from proxy.core.host import Host
from proxy.core.login_server import LoginServer
from proxy.core.service_client import ServiceClient
from proxy.core.service_proxy import ServiceProxy

NodeCore = Forwarder | Host | ServiceProxy
Client = ServiceClient | Participant


def build_core(config: NodeConfig) -> NodeCore:
    """Return the core of one process.

    Raises: ValueError where a section is missing or a prefix is no NDN URI (``load_config`` checks the former).
    """
    if config.process == "proxy":
        if config.proxy is None:
            raise ValueError(f"{config.node}: no `proxy` section")
        return ServiceProxy(config.proxy, device=config.node, boot=config.boot, seed=config.seed)
    if config.forwarder is None:
        raise ValueError(f"{config.node}: no `forwarder` section")
    shared = service_face(config) != LOCAL_FACE
    seed = config.seed + (config.boot << 64)  # link sequences of two boots must not look alike
    forwarder = Forwarder(config.forwarder, node=config.node, seed=seed % 0xFFFF_FFFF_FFFF_FFC5, local_attached=shared)
    application: Client | LoginServer
    sync = config.svs or config.psync
    if config.client is not None and sync is not None:
        application = Participant(config.client, sync, device=config.node, boot=config.boot, seed=config.seed + 1)
    elif config.client is not None:
        application = ServiceClient(config.client, device=config.node, boot=config.boot, seed=config.seed + 1)
    elif config.login is not None:
        application = LoginServer(config.login, device=config.node, boot=config.boot, seed=config.seed + 1)
    else:
        return forwarder
    return Host(forwarder, application)


def service_face(config: NodeConfig) -> int | None:
    """Return the face at which the service proxy attaches to a forwarder; None: it has none."""
    if config.forwarder is None or config.forwarder.service_socket is None:
        return None
    return LOCAL_FACE if config.client is None else SERVICE_FACE


def forwarder_of(core: NodeCore) -> Forwarder | None:
    """Return the forwarder in a core, None in a proxy process."""
    if isinstance(core, Host):
        return core.forwarder
    return core if isinstance(core, Forwarder) else None


def client_of(core: NodeCore) -> Client | None:
    """Return the service client, or what is in its place, in the core of a UE; None elsewhere."""
    if isinstance(core, Host) and isinstance(core.application, ServiceClient | Participant):
        return core.application
    return None


def login_server_of(core: NodeCore) -> LoginServer | None:
    """Return the login server in a core, None elsewhere."""
    if isinstance(core, Host) and isinstance(core.application, LoginServer):
        return core.application
    return None
