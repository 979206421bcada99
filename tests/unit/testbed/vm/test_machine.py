"""What is asked for before anything boots. That it boots is tried by `./hconf test --vm` and tests/emulation."""

import shutil
from pathlib import Path

import pytest

from testbed.vm import accelerators
from testbed.vm import machine as machines
from testbed.vm.accelerators import accelerators_to_try, remember_kvm
from testbed.vm.kernel import QEMU, GuestKernel
from testbed.vm.machine import Command, Machine, choose_machine, run_in_guest
from topologies.errors import CapabilityError, InputError


@pytest.fixture(autouse=True)
def big_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(machines, "_available_mb", lambda: 8_000)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2})
    monkeypatch.setattr("platform.machine", lambda: "x86_64")


def test_what_is_chosen() -> None:
    assert choose_machine(cpus=None, memory_mb=None) == Machine(3, 3_072, None)
    assert choose_machine(cpus=1, memory_mb=1_000, accelerator="tcg") == Machine(1, 1_000, "tcg")


def test_a_small_machine_gives_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "_available_mb", lambda: 2_000)
    assert choose_machine(cpus=None, memory_mb=None).memory_mb == 1_500


@pytest.mark.parametrize(
    ("cpus", "memory_mb", "message"),
    [
        (0, None, "--cpus: 0 is outside 1 to 3"),
        (4, None, "--cpus: 4 is outside 1 to 3"),
        (1, 100, "--memory-mb: 100 is below 512"),
    ],
)
def test_wrong_wishes(cpus: int, memory_mb: int | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose_machine(cpus=cpus, memory_mb=memory_mb)


def test_too_much_memory() -> None:
    with pytest.raises(CapabilityError, match=r"would get 9000 MB, and 8000 MB are available .*--memory-mb 6000"):
        choose_machine(cpus=None, memory_mb=9_000)


def test_no_qemu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(CapabilityError, match=r"fix: apt-get install --no-install-recommends qemu-system-x86\)"):
        choose_machine(cpus=None, memory_mb=None)


def test_another_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(CapabilityError, match="boots x86_64 kernels, and this machine is aarch64"):
        choose_machine(cpus=None, memory_mb=None)


def test_what_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device, kernel = tmp_path / "kvm", GuestKernel("6.1.0", tmp_path / "vmlinuz-6.1.0", tmp_path)
    monkeypatch.setattr(accelerators, "KVM_DEVICE", device)
    monkeypatch.setattr(accelerators, "FETCHED", tmp_path / ".vm")
    assert accelerators_to_try(None, kernel) == ["tcg", "tcg"]
    with pytest.raises(CapabilityError, match="is not there, or this user may not use it"):
        accelerators_to_try("kvm", kernel)
    device.touch()
    assert accelerators_to_try(None, kernel) == ["kvm", "tcg", "tcg"]
    assert accelerators_to_try("kvm", kernel) == ["kvm"]
    remember_kvm(kernel)
    assert accelerators_to_try(None, kernel) == ["tcg", "tcg"]
    assert accelerators_to_try(None, GuestKernel("6.2.0", kernel.image, tmp_path)) == ["kvm", "tcg", "tcg"]


def test_a_guest_that_hangs_before_it_is_up_is_tried_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that is none: QEMU ends, or its firmware finds nothing, each time."""
    monkeypatch.undo()
    if shutil.which(QEMU) is None:
        pytest.skip("takes qemu-system-x86_64")
    image = tmp_path / "vmlinuz-6.1.0"
    image.write_bytes(bytes(4_096))
    monkeypatch.setattr(machines, "find_kernel", lambda: GuestKernel("6.1.0", image, tmp_path))
    monkeypatch.setattr(machines, "find_busybox", lambda: image)
    monkeypatch.setattr(machines, "build_initrd", lambda *_, **__: b"")
    monkeypatch.setattr(machines, "BOOT_LIMIT_S", {"kvm": 1.0, "tcg": 1.0})
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    notes: list[str] = []
    with pytest.raises(CapabilityError, match=r"did not come up with kernel 6\.1\.0 under emulation"):
        run_in_guest(Machine(1, 512, "tcg"), Command(["true"], tmp_path), note=notes.append)
    assert notes == ["the guest did not come up with kernel 6.1.0 under emulation (TCG): trying once more"]
    assert list(tmp_path.iterdir()) == [image]
