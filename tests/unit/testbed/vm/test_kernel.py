"""Which kernel is booted, and what is said where there is none."""

import shutil
import struct
from pathlib import Path

import pytest

from testbed.vm import kernel as kernels
from testbed.vm.kernel import BOOT_MODULES, find_busybox, find_kernel, is_static, kernels_below
from topologies.errors import CapabilityError, InputError


def install(root: Path, release: str, *, without: str = "") -> Path:
    folder = root / "lib" / "modules" / release / "kernel"
    folder.mkdir(parents=True)
    for name in BOOT_MODULES:
        if name != without:
            (folder / f"{name}.ko").touch()
    image = root / "boot" / f"vmlinuz-{release}"
    image.parent.mkdir(exist_ok=True)
    image.touch()
    return image


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "fetched"
    monkeypatch.setattr(kernels, "FETCHED", folder)
    monkeypatch.setattr(kernels, "kernels_below", lambda root: [] if root == Path("/") else kernels_below(root))
    return folder


def test_the_newest_that_can_boot(fetched: Path) -> None:
    for release in ("6.1.0-9-amd64", "6.1.0-56-amd64"):
        install(fetched, release)
    install(fetched, "6.12.0-1-cloud-amd64", without="9p")
    assert [one.release for one in kernels_below(fetched)] == [
        *("6.12.0-1-cloud-amd64", "6.1.0-56-amd64", "6.1.0-9-amd64"),
    ]
    assert find_kernel({}).release == "6.1.0-56-amd64"


def test_none_at_all(fetched: Path) -> None:
    with pytest.raises(CapabilityError, match=r"there is no kernel to boot in /boot .*sudo ./hconf vm run"):
        find_kernel({})
    install(fetched, "6.1.0-9-cloud-amd64", without="9p")
    with pytest.raises(CapabilityError, match=r"vmlinuz-6\.1\.0-9-cloud-amd64 lacks 9p"):
        find_kernel({})


def test_the_one_that_is_named(tmp_path: Path) -> None:
    image = install(tmp_path, "6.6.1")
    assert find_kernel({"HCONF_VM_KERNEL": str(image)}).modules == tmp_path / "lib" / "modules" / "6.6.1"
    for path, problem in ((tmp_path / "vmlinuz-1", "there is no such file"), (Path(__file__), "is no kernel image")):
        with pytest.raises(InputError, match=f"HCONF_VM_KERNEL={path}: {problem}"):
            find_kernel({"HCONF_VM_KERNEL": str(path)})
    with pytest.raises(CapabilityError, match="has no overlay in"):
        find_kernel({"HCONF_VM_KERNEL": str(install(tmp_path / "other", "6.6.1", without="overlay"))})


def test_busybox_must_need_no_libraries(fetched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: "/bin/sh")
    assert not is_static(Path("/bin/sh"))
    assert not is_static(Path(__file__))
    with pytest.raises(CapabilityError, match="apt-get install busybox-static"):
        find_busybox()
    (fetched / "bin").mkdir(parents=True)
    program = bytearray(64 + 56)
    program[:5] = b"\x7fELF\x02"
    struct.pack_into("<Q", program, 32, 64)
    struct.pack_into("<HH", program, 54, 56, 1)
    struct.pack_into("<I", program, 64, 1)  # PT_LOAD
    (fetched / "bin" / "busybox").write_bytes(program)
    assert find_busybox() == fetched / "bin" / "busybox"
