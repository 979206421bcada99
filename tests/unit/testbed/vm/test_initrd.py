"""The initial RAM disk. That a kernel can read it, `./hconf test --vm` shows."""

import gzip
import lzma
import struct
from pathlib import Path

import pytest

from testbed.vm.initrd import build_initrd, cpio, depends_of, modules_in_order
from testbed.vm.kernel import BOOT_MODULES, GuestKernel
from topologies.errors import CapabilityError


def module(*depends: str) -> bytes:
    """Return what of a module matters here (modinfo(8)): the strings of its section .modinfo."""
    return b"\x7fELF...license=GPL\0softdepends=no\0depends=" + ",".join(depends).encode() + b"\0name=x\0"


@pytest.fixture
def kernel(tmp_path: Path) -> GuestKernel:
    """A kernel with 9p in a file for each kind of compression, and virtio_pci built in."""
    modules = tmp_path / "lib" / "modules" / "6.1.0-9-amd64"
    (modules / "kernel" / "fs").mkdir(parents=True)
    for name, data in {
        "9p.ko": module("9pnet", "netfs"),
        "9pnet.ko.xz": lzma.compress(module()),
        "netfs.ko.gz": gzip.compress(module()),
        "9pnet_virtio.ko": module("9pnet", "virtio-ring"),
        "virtio-ring.ko": module(),
        "virtio_console.ko": module("virtio_ring"),
        "overlay.ko": module(),
        "sch_netem.ko": module(),
    }.items():
        (modules / "kernel" / "fs" / name).write_bytes(data)
    (modules / "modules.builtin").write_text("kernel/drivers/virtio/virtio_pci.ko\n")
    return GuestKernel("6.1.0-9-amd64", tmp_path / "vmlinuz", modules)


def test_each_module_comes_after_those_it_needs(kernel: GuestKernel) -> None:
    order = list(modules_in_order(kernel, required=BOOT_MODULES, wanted=("sch_netem", "tun")))
    assert sorted(order) == sorted(
        ("9p", "9pnet", "netfs", "9pnet_virtio", "virtio_ring", "virtio_console", "overlay", "sch_netem")
    )
    assert order.index("9pnet") < order.index("9pnet_virtio") < order.index("9p")
    assert order.index("virtio_ring") < order.index("virtio_console")


def test_modules_are_unpacked(kernel: GuestKernel) -> None:
    modules = modules_in_order(kernel, required=["9p"], wanted=())
    assert all(data.startswith(b"\x7fELF") for data in modules.values())


def test_a_module_that_booting_takes_is_missed(kernel: GuestKernel) -> None:
    kernel.module_files  # noqa: B018  found before it is removed
    (kernel.modules / "kernel" / "fs" / "overlay.ko").unlink()
    with pytest.raises(CapabilityError, match=r"kernel 6\.1\.0-9-amd64: has no module overlay"):
        modules_in_order(GuestKernel(kernel.release, kernel.image, kernel.modules), required=BOOT_MODULES, wanted=())


def test_what_a_module_depends_on() -> None:
    assert depends_of(module("a", "b-c")) == ["a", "b_c"]
    assert depends_of(module()) == []
    assert depends_of(b"no module") == []


def test_archive_byte_for_byte() -> None:
    """Transcribed from the kernel's buffer-format.rst: 13 fields of eight hexadecimal digits after the magic number."""
    fields = (1, 0o100644, 0, 0, 1, 0, 2, 0, 0, 0, 0, 2, 0)
    member = b"070701" + b"".join(f"{field:08X}".encode() for field in fields) + b"a\0" + b"hi\0\0"
    assert cpio({"a": (0o100644, b"hi")})[: len(member)] == member
    assert cpio({})[110:121] == b"TRAILER!!!\0"
    assert len(cpio({"a": (0o100644, b"odd")})) % 4 == 0


def test_the_whole_of_it(kernel: GuestKernel, tmp_path: Path) -> None:
    busybox = tmp_path / "busybox"
    busybox.write_bytes(struct.pack("100s", b"\x7fELF"))
    archive = build_initrd(kernel, busybox=busybox, agent=("/usr/bin/python 3", "-S", "x.py"))
    assert b"exec switch_root /new '/usr/bin/python 3' -S x.py ||" in archive
    assert b"@" not in archive.replace(b"@@", b"")
    assert archive.count(b"070701") == 7 + 3 + 8 + 1  # directories, busybox, init and order, modules, the end
