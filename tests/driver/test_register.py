"""The login server's files: any content either loads or is refused with a message that says where and how to mend it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.config import LoginConfig, NodeConfig
from proxy.driver.config_file import ConfigError, load_config
from proxy.driver.register import RegisterError, load_devices, load_revoked, revoked_path, save_revoked

KEY = "0f" * 32


@pytest.mark.parametrize(
    ("name", "content"),
    [("register.json", f'{{"devices": {{"ue1": "{KEY}"}}}}'), ("register.toml", f'[devices]\nue1 = "{KEY}"\n')],
)
def test_register_in_json_and_toml(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert load_devices(tmp_path / name) == {"ue1": KEY}


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("register.json", '{"devices": {"ue1": "0f"}}', "64 hexadecimal digits"),
        ("register.json", '{"devices": {"ue1": 5}}', "$.devices[...]"),
        ("register.json", '{"device": {}}', "device"),
        ("register.json", '{"devices": ', "truncated"),
        ("register.toml", "devices = [1", "fix: it has to hold a table"),
        ("register.toml", '[devices]\n"" = "x"\n', "fix"),
    ],
)
def test_wrong_register_is_explained(tmp_path: Path, name: str, content: str, named: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(RegisterError) as error:
        load_devices(path)
    assert str(path) in str(error.value)
    assert named in str(error.value)


def test_missing_register_stops_the_login_server_with_a_message(tmp_path: Path) -> None:
    register = tmp_path / "register.json"
    login = LoginConfig("00" * 32, {}, devices_path=str(register))
    config = NodeConfig("run", "login", "login", "forwarder", 1, 1, str(tmp_path / "records"), login=login)
    path = tmp_path / "config.json"
    raw = msgspec.to_builtins(config) | {"forwarder": {"faces": [], "routes": []}}
    path.write_bytes(msgspec.json.encode(raw))
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(path)
    register.write_text(f'{{"devices": {{"ue1": "{KEY}"}}}}')
    save_revoked(revoked_path(register), {"ue1": 17.5})
    loaded = load_config(path).login
    assert loaded is not None
    assert (loaded.devices, loaded.revoked) == ({"ue1": KEY}, {"ue1": 17.5})


def test_nobody_revoked(tmp_path: Path) -> None:
    assert load_revoked(tmp_path / "none.json") == {}


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode), name=st.sampled_from(["r.json", "r.toml"])
)
def test_any_register_loads_or_is_refused(tmp_path: Path, content: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with contextlib.suppress(RegisterError):  # and nothing else
        load_devices(path)
