"""The machines as machine code: proxy.core, proxy.wire and two loops, compiled from the very same sources by mypyc.

A packet passes some ten processes on its way, each with cold caches: compiled, a forwarder core takes half the time for it.
`experiments.compiler` compiles; here the processes of a run find what it has made. It lies in the virtual environment, in a
folder named after the contents of the sources, so that sources that were edited since are simply interpreted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import cache
from hashlib import blake2b
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from sysconfig import get_config_var
from types import ModuleType
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
#: Set, and not empty: everything is interpreted, as the sources stand; for debuggers, and for comparing the two.
INTERPRETED_VARIABLE: Final = "HCONF_INTERPRETED"
#: Messages tell msgspec what to decode by annotations, which mypyc does not keep; what only joins two machines gains
#: nothing, and tests can put themselves between them.
_INTERPRETED: Final = frozenset({"proxy/wire/messages.py", "proxy/core/build.py", "proxy/core/host.py"})
_PACKAGES: Final = ("proxy/core", "proxy/wire")
#: What else every packet of a run passes: the nodes' loop, and the links', real and simulated.
_LOOPS: Final = (
    *("proxy/driver/packet_loop.py", "proxy/driver/program.py", "proxy/lag.py", "proxy/processing.py"),
    *("testbed/links/channel.py", "testbed/links/frame_loop.py", "testbed/links/frame_names.py"),
    *("testbed/simulation/line.py", "testbed/simulation/process.py", "testbed/simulation/virtual_time.py"),
)


@cache
def sources() -> dict[str, Path]:
    """Return module name -> source of everything that is compiled."""
    found = sorted(path for package in _PACKAGES for path in (ROOT / package).rglob("*.py"))
    found += [ROOT / name for name in _LOOPS]
    relative = {path.relative_to(ROOT): path for path in found if path.name != "__init__.py"}
    return {
        ".".join(name.with_suffix("").parts): path
        for name, path in relative.items()
        if name.as_posix() not in _INTERPRETED
    }


@cache
def folder() -> Path:
    """Return where these sources are, or would be, compiled for this Python."""
    digest = blake2b(f"{sys.implementation.cache_tag} {sys.version}".encode(), digest_size=8)
    for name, path in sources().items():
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return Path(sys.prefix) / "hconf-compiled" / digest.hexdigest()


def library_of(module: str) -> Path:
    """Return the file of a compiled module."""
    return folder().joinpath(*module.split(".")).with_suffix(get_config_var("EXT_SUFFIX"))


def is_in_use() -> bool:
    """Tell whether this process runs the compiled machines."""
    return any(isinstance(finder, _CompiledFinder) for finder in sys.meta_path)


def prefer_compiled() -> None:
    """From now on import the compiled machines, where there are any."""
    if not os.environ.get(INTERPRETED_VARIABLE) and folder().is_dir() and not is_in_use():
        sys.meta_path.insert(0, _CompiledFinder())


class _CompiledFinder:
    """Finds what is compiled, before the finder of sources does (importlib.abc.MetaPathFinder).

    And the one library that all modules are in; theirs only point there.
    """

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002 - the protocol's
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if fullname not in sources() and not fullname.endswith("__mypyc"):
            return None
        library = library_of(fullname)
        return spec_from_file_location(fullname, library, loader=ExtensionFileLoader(fullname, str(library)))
