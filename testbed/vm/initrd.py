"""The initial RAM disk, made for each start: busybox, the modules, and a script that finds the root file system.

Source of the format: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel ("newc" cpio).
"""

from __future__ import annotations

import gzip
import lzma
import re
import shlex
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from testbed.vm.kernel import BOOT_MODULES, RUN_MODULES, GuestKernel
from topologies.errors import CapabilityError

ROOT_TAG: Final = "hconf-root"  #: of the 9p share that is the root file system
_DIRECTORIES: Final = ("bin", "dev", "lower", "modules", "new", "proc", "upper")
_REGULAR, _DIRECTORY = 0o100_000, 0o040_000
_DEPENDS: Final = re.compile(rb"(?<![a-z_])depends=([^\0]*)\0")

#: Runs as PID 1. What fails is said on the serial line, which the host keeps, and ends the machine.
INIT: Final = """#!/bin/busybox sh
PATH=/bin
/bin/busybox --install -s /bin
fail() { echo "hconf-vm: $*" >/dev/console; reboot -f; sleep 60; }
mount -t proc proc /proc
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do
    insmod /modules/$module.ko || echo "hconf-vm: the module $module was not loaded" >/dev/console
done
mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=524288 @TAG@ /lower ||
    fail "the root file system of the host cannot be mounted over 9p"
mount -t tmpfs -o size=75% upper /upper || fail "no tmpfs"
mkdir /upper/data /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work overlay /new ||
    fail "no overlay over 9p"
umount /proc
umount /dev
exec switch_root /new @AGENT@ || fail "the guest's first program cannot be started"
"""


def build_initrd(kernel: GuestKernel, *, busybox: Path, agent: Sequence[str]) -> bytes:
    """Return the RAM disk for *kernel*; after it *agent* runs as PID 1, on the host's files.

    Raises: CapabilityError if a module that booting takes is missing or cannot be unpacked.
    """
    modules = modules_in_order(kernel, required=BOOT_MODULES, wanted=RUN_MODULES)
    script = INIT.replace("@TAG@", ROOT_TAG).replace("@AGENT@", shlex.join(agent))
    files: dict[str, tuple[int, bytes]] = dict.fromkeys(_DIRECTORIES, (_DIRECTORY | 493, b""))
    files["bin/busybox"] = (_REGULAR | 0o755, busybox.read_bytes())
    files["init"] = (_REGULAR | 0o755, script.encode())
    files["modules/order"] = (_REGULAR | 0o644, "\n".join(modules).encode() + b"\n")
    files |= {f"modules/{name}.ko": (_REGULAR | 0o644, data) for name, data in modules.items()}
    return cpio(files)


def cpio(files: Mapping[str, tuple[int, bytes]]) -> bytes:
    """Return a "newc" archive of path -> (mode, contents), owned by root, without times."""
    archive = bytearray()

    def add(name: str, mode: int, data: bytes, number: int) -> None:
        path = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
        archive.extend(b"070701" + b"".join(b"%08X" % field for field in fields) + path)
        archive.extend(b"\0" * (-len(archive) % 4))
        archive.extend(data)
        archive.extend(b"\0" * (-len(archive) % 4))

    for number, (name, (mode, data)) in enumerate(files.items(), start=1):
        add(name, mode, data, number)
    add("TRAILER!!!", 0, b"", 0)
    return bytes(archive)


def modules_in_order(kernel: GuestKernel, *, required: Iterable[str], wanted: Iterable[str]) -> dict[str, bytes]:
    """Return module -> contents, each after those that it depends on; what is built in is left out.

    Which others a module needs stands in the module itself (``depends=``); depmod's list is not there before a kernel
    is installed. Raises: CapabilityError.
    """
    loaded: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in loaded or name in kernel.built_in:
            return
        path = kernel.module_files.get(name)
        if path is None:
            raise CapabilityError(
                where=f"kernel {kernel.release}",
                problem=f"has no module {name} in {kernel.modules}",
                remedy="boot a stock kernel: see ./hconf vm --help",
            )
        data = _unpacked(path)
        for needed in depends_of(data):
            add(needed)
        loaded[name] = data

    for name in required:
        add(name)
    for name in wanted:
        if not kernel.missing([name]):
            add(name)
    return loaded


def depends_of(module: bytes) -> list[str]:
    """Return the modules that a module says it needs.

    >>> depends_of(b"license=GPL" + bytes(1) + b"depends=9pnet,fscache" + bytes(1))
    ['9pnet', 'fscache']
    """
    found = _DEPENDS.search(module)
    return [name.replace("-", "_") for name in found[1].decode().split(",") if name] if found else []


def _unpacked(path: Path) -> bytes:
    unpack: Callable[[bytes], bytes]
    match path.suffix:
        case ".xz":
            unpack = lzma.decompress
        case ".gz":
            unpack = gzip.decompress
        case ".zst":
            unpack = _zstd
        case _:
            return path.read_bytes()
    return unpack(path.read_bytes())


def _zstd(data: bytes) -> bytes:
    try:
        return subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise CapabilityError(
            where="hconf vm",
            problem=f"this kernel's modules cannot be unpacked: zstd {error}",
            remedy="apt-get install zstd",
        ) from error
