"""Reading the configuration file of a node program."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from proxy.config import LoginConfig, NodeConfig
from proxy.driver.register import RegisterError, load_devices, load_revoked, revoked_path


class ConfigError(Exception):
    """The configuration file of a node is missing or wrong; the message says where and what."""


def load_config(path: Path) -> NodeConfig:
    """Read and validate one node configuration.

    Raises: ConfigError, naming the file and the place in it.
    """
    try:
        config = msgspec.json.decode(path.read_bytes(), type=NodeConfig)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    wanted: dict[str, Struct | None] = (
        {"proxy": config.proxy} if config.process == "proxy" else {"forwarder": config.forwarder}
    )
    if config.process == "forwarder" and config.role == "ue":
        wanted["client"] = config.client
    if config.process == "forwarder" and config.role == "login":
        wanted["login"] = config.login
    for section, value in wanted.items():
        if value is None:
            raise ConfigError(f"{path}: a {config.role}'s {config.process} process needs a `{section}` section")
    if config.proxy is not None and config.proxy.log_path is None and config.proxy.ack_level == "durable":
        raise ConfigError(f"{path}: proxy.ack_level = durable needs a proxy.log_path to write the digest log to")
    if config.login is not None and config.login.devices_path is not None:
        config = replace(config, login=_with_register(config.login, Path(config.login.devices_path)))
    return config


def _with_register(login: LoginConfig, devices_path: Path) -> LoginConfig:
    try:
        devices = load_devices(devices_path)
        revoked = load_revoked(revoked_path(devices_path))
    except RegisterError as error:
        raise ConfigError(str(error)) from error
    return replace(login, devices=login.devices | devices, revoked=login.revoked | revoked)
