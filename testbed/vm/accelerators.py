"""What runs the guest's instructions: KVM where the guest boots with it, else emulation (TCG)."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final, Literal

from testbed.vm.kernel import FETCHED, GuestKernel
from topologies.errors import CapabilityError

Accelerator = Literal["kvm", "tcg"]

KVM_DEVICE: Final = Path("/dev/kvm")


def accelerators_to_try(wanted: Accelerator | None, kernel: GuestKernel) -> list[Accelerator]:
    """Return what to try, in this order. Raises: CapabilityError if KVM is *wanted* and is not there.

    Emulation has two tries: now and then the guest hangs before its kernel says anything (QEMU 7.2; one boot of a dozen).
    """
    usable = os.access(KVM_DEVICE, os.R_OK | os.W_OK)
    if wanted == "kvm" and not usable:
        raise CapabilityError(
            where=str(KVM_DEVICE),
            problem="is not there, or this user may not use it",
            remedy="load the module kvm_intel or kvm_amd, or leave --accelerator out",
        )
    if wanted is not None:
        return [wanted] if wanted == "kvm" else ["tcg", "tcg"]
    tried = _kvm_memory().is_file() and _kvm_memory().read_text(encoding="utf-8") == _this_boot(kernel)
    return ["kvm", "tcg", "tcg"] if usable and not tried else ["tcg", "tcg"]


def remember_kvm(kernel: GuestKernel) -> None:
    """Do not try KVM again before the host boots anew: each try takes its time."""
    with contextlib.suppress(OSError):
        _kvm_memory().parent.mkdir(exist_ok=True)
        _kvm_memory().write_text(_this_boot(kernel), encoding="utf-8")


def _kvm_memory() -> Path:
    return FETCHED / "kvm-does-not-boot"


def _this_boot(kernel: GuestKernel) -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot} {kernel.release}\n"
