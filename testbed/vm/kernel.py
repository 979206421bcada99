"""The kernel that a virtual machine boots: found in /boot, or where the launcher has unpacked one."""

from __future__ import annotations

import os
import re
import shutil
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from topologies.errors import CapabilityError, InputError

ROOT: Final = Path(__file__).resolve().parents[2]
#: Where ``./hconf vm`` unpacks what the distribution's packages bring, without installing a second kernel.
FETCHED: Final = ROOT / ".vm"
#: Names the kernel image to boot; its modules are expected in ../lib/modules/<release> as seen from its folder.
KERNEL_VARIABLE: Final = "HCONF_VM_KERNEL"

QEMU: Final = "qemu-system-x86_64"
ARCHITECTURE: Final = "x86_64"

#: Without these there is no root file system and no way to talk to the guest.
BOOT_MODULES: Final = ("virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay")
#: What an experiment may want of the kernel; whichever is missing in the guest is missing there as it would be here.
RUN_MODULES: Final = (
    *("virtio_rng", "tun", "veth", "bridge", "ifb", "af_packet", "sch_netem", "sch_prio", "sch_tbf", "sch_htb"),
    *("sch_fq", "sch_fq_codel", "sch_ingress", "cls_u32", "cls_flower", "cls_matchall", "cls_bpf", "act_mirred"),
    *("act_gact", "nf_tables"),
)
#: Modules lie about compressed where the distribution says so; the packer opens these.
SUFFIXES: Final = (".ko", ".ko.xz", ".ko.gz", ".ko.zst")

_IMAGE: Final = re.compile(r"vmlinuz-(?P<release>\d.*)")
_ELF_INTERPRETER: Final = 3  # PT_INTERP


@dataclass(frozen=True)
class GuestKernel:
    """A kernel image, and the folder of its modules."""

    release: str  #: as ``uname -r`` says in the guest
    image: Path
    modules: Path

    @cached_property
    def module_files(self) -> Mapping[str, Path]:
        """Return the file of each module, by its name as the kernel has it (underscores)."""
        found: dict[str, Path] = {}
        for folder, _, names in os.walk(self.modules / "kernel"):
            for name in names:
                base, dot, kind = name.partition(".")
                if dot + kind in SUFFIXES:
                    found[base.replace("-", "_")] = Path(folder, name)
        return found

    @cached_property
    def built_in(self) -> frozenset[str]:
        """Return the names of what would be modules, but is part of the image."""
        try:
            lines = (self.modules / "modules.builtin").read_text(encoding="utf-8").splitlines()
        except OSError:
            return frozenset()
        return frozenset(Path(line).name.partition(".")[0].replace("-", "_") for line in lines)

    def missing(self, modules: Iterable[str]) -> list[str]:
        """Return those of *modules* that this kernel does not have."""
        return [name for name in modules if name not in self.module_files and name not in self.built_in]


def find_kernel(environment: Mapping[str, str] = os.environ) -> GuestKernel:
    """Return the kernel to boot: the one that is named, else the newest of /boot, else the one that was fetched.

    Raises: InputError if the named one is none; CapabilityError if there is none that can boot so.
    """
    if named := environment.get(KERNEL_VARIABLE):
        return _named_kernel(Path(named))
    rejected: list[str] = []
    for kernel in [*kernels_below(Path("/")), *kernels_below(FETCHED)]:
        if lacks := kernel.missing(BOOT_MODULES):
            rejected.append(f"{kernel.image} lacks {', '.join(lacks)}")
        elif not os.access(kernel.image, os.R_OK):
            rejected.append(f"{kernel.image} cannot be read by this user")
        else:
            return kernel
    raise CapabilityError(
        where="hconf vm",
        problem="there is no kernel to boot" + (f" ({'; '.join(rejected)})" if rejected else " in /boot"),
        remedy="start it once as `sudo ./hconf vm run ...`, which fetches one without installing it; or "
        f"apt-get install linux-image-amd64; or {KERNEL_VARIABLE}=/path/to/vmlinuz-<release>",
    )


def _named_kernel(image: Path) -> GuestKernel:
    matched = _IMAGE.fullmatch(image.name)
    where = f"{KERNEL_VARIABLE}={image}"
    if matched is None or not image.is_file():
        raise InputError(
            where=where,
            problem="is no kernel image" if image.exists() else "there is no such file",
            remedy="name a file such as /boot/vmlinuz-6.1.0-18-amd64",
        )
    modules = image.resolve().parent.parent / "lib" / "modules" / matched["release"]
    kernel = GuestKernel(matched["release"], image, modules)
    if lacks := kernel.missing(BOOT_MODULES):
        raise CapabilityError(
            where=where,
            problem=f"has no {', '.join(lacks)} in {modules}",
            remedy="name a stock kernel whose modules are there",
        )
    return kernel


def kernels_below(root: Path) -> list[GuestKernel]:
    """Return the kernels of boot/ below *root*, the newest first; those of Debian's cloud flavour lack 9p."""
    found = []
    for image in (root / "boot").glob("vmlinuz-*"):
        if (matched := _IMAGE.fullmatch(image.name)) is not None:
            release = matched["release"]
            found.append(GuestKernel(release, image, root / "lib" / "modules" / release))
    return sorted(found, key=lambda kernel: _version(kernel.release), reverse=True)


def _version(release: str) -> list[int]:
    """Return what orders releases.

    >>> _version("6.1.0-9-amd64") < _version("6.1.0-56-amd64")
    True
    """
    return [int(number) for number in re.findall(r"\d+", release)]


def find_busybox() -> Path:
    """Return a busybox that needs no libraries. Raises: CapabilityError if there is none."""
    candidates = [FETCHED / "bin" / "busybox", *(Path(path) for path in [shutil.which("busybox")] if path)]
    for path in candidates:
        if path.is_file() and is_static(path):
            return path
    raise CapabilityError(
        where="hconf vm",
        problem="there is no busybox that needs no libraries",
        remedy="start it once as `sudo ./hconf vm run ...`, which fetches one; or apt-get install busybox-static",
    )


def is_static(path: Path) -> bool:
    """Tell whether a program is a 64-bit ELF file that asks for no dynamic loader (elf(5))."""
    with path.open("rb") as file:
        header = file.read(64)
        if len(header) < 64 or header[:5] != b"\x7fELF\x02":
            return False
        (table,) = struct.unpack_from("<Q", header, 32)
        size, count = struct.unpack_from("<HH", header, 54)
        file.seek(table)
        entries = file.read(size * count)
    return all(struct.unpack_from("<I", entries, index * size)[0] != _ELF_INTERPRETER for index in range(count))
