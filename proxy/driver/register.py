"""The login server's files: the register of devices, which an operator writes, and beside it whom the server has revoked."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct

F = TypeVar("F", bound=Struct)
KeyHex = Annotated[str, Meta(pattern=r"\A[0-9a-fA-F]{64}\Z")]
DeviceId = Annotated[str, Meta(min_length=1, max_length=64)]


class RegisterError(Exception):
    """A file of the login server is missing or wrong; the message says which, where, and what belongs there."""


class _Register(Struct, forbid_unknown_fields=True):
    devices: dict[DeviceId, KeyHex]


class _Revoked(Struct, forbid_unknown_fields=True):
    revoked: dict[DeviceId, float]


def load_devices(path: Path) -> dict[str, str]:
    """Return device ID -> registered Ed25519 public key in hex, from a table ``devices`` in TOML or JSON.

    Raises: RegisterError.
    """
    wanted = 'a table `devices`: device ID = "64 hexadecimal digits", the Ed25519 public key'
    return _load(path, _Register, wanted).devices


def revoked_path(devices_path: Path) -> Path:
    """Return where the server that loads *devices_path* keeps whom it has revoked."""
    return devices_path.with_name(devices_path.name + ".revoked.json")


def load_revoked(path: Path) -> dict[str, float]:
    """Return device ID -> when it was revoked (CLOCK_MONOTONIC); empty where nobody was. Raises: RegisterError."""
    return _load(path, _Revoked, "what the server itself has written").revoked if path.exists() else {}


def save_revoked(path: Path, revoked: Mapping[str, float]) -> None:
    """Write whom the server has revoked: all of it, or, where that fails, nothing. Raises: OSError."""
    draft = path.with_name(path.name + ".new")
    with draft.open("wb") as file:
        file.write(msgspec.json.encode(_Revoked(dict(revoked))))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _load(path: Path, kind: type[F], wanted: str) -> F:
    try:
        content = path.read_bytes()
        raw = tomllib.loads(content.decode()) if path.suffix == ".toml" else msgspec.json.decode(content)
        return msgspec.convert(raw, kind)
    except OSError as error:
        raise RegisterError(f"{path}: cannot be read: {error.strerror} (fix: give the path of a file)") from error
    except (msgspec.DecodeError, tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RegisterError(f"{path}: {error} (fix: it has to hold {wanted})") from error
