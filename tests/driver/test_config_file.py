"""Configuration files of nodes: those that the testbed writes load; of any other the message says what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from proxy.core.build import build_core
from proxy.driver.config_file import ConfigError, load_config
from testbed.node_config import build_node_configs
from testbed.plan import NetworkPlan
from topologies.catalogue import build


def raw_configs(tmp_path: Path) -> dict[str, dict[str, Any]]:
    topology = build("tiers", {"cores": 3, "csrs": 1, "ues_per_csr": 1})
    return dict(build_node_configs(NetworkPlan("config", topology, 7, tmp_path)))


def write(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "node.json"
    path.write_bytes(content if isinstance(content, bytes) else msgspec.json.encode(content))
    return path


@pytest.mark.parametrize(
    "process", ["core1.forwarder", "csr1.forwarder", "csr1.proxy", "ue1.forwarder", "login.forwarder"]
)
def test_what_the_testbed_writes(tmp_path: Path, process: str) -> None:
    config = load_config(write(tmp_path, raw_configs(tmp_path)[process]))
    assert f"{config.node}.{config.process}" == process
    build_core(config)


@pytest.mark.parametrize(
    ("process", "change", "problem"),
    [
        ("core1.forwarder", {"forwarder": None}, "a core's forwarder process needs a `forwarder` section"),
        ("csr1.proxy", {"proxy": None}, "a csr's proxy process needs a `proxy` section"),
        ("ue1.forwarder", {"client": None}, "a ue's forwarder process needs a `client` section"),
        ("login.forwarder", {"login": None}, "a login's forwarder process needs a `login` section"),
        ("core1.forwarder", {"boot": 0}, "Expected `int` >= 1 - at `$.boot`"),
        ("core1.forwarder", {"boot": "1"}, "Expected `int`, got `str` - at `$.boot`"),
        ("core1.forwarder", {"colour": "red"}, "Object contains unknown field `colour`"),
        ("core1.forwarder", {"role": "router"}, "Invalid enum value 'router' - at `$.role`"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, process: str, change: dict[str, Any], problem: str) -> None:
    path = write(tmp_path, raw_configs(tmp_path)[process] | change)
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert str(error.value) == f"{path}: {problem}"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_what_is_no_configuration(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path, content)
    with pytest.raises(ConfigError, match=r"node\.json: "):
        load_config(path)


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file or directory"):
        load_config(tmp_path / "missing.json")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(tmp_path)
