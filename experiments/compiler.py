"""``hconf compile``: the protocol's machines as machine code; proxy/compiled.py says which, and finds them afterwards.

It takes a C compiler and Python's header files, and half a minute. Nothing but speed depends on it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Final

from proxy import compiled
from testbed.doctor import Capability
from topologies.errors import CapabilityError

COMPILERS: Final = ("cc", "gcc", "clang")
#: What was compiled last stays: the other branch that one comes back to, another clone's.
KEPT_MAX: Final = 4
#: So does what is younger: a process may still load from it, or somebody else be about to finish it.
KEPT_AT_LEAST_S: Final = 3_600.0
_UNFINISHED: Final = "making-"
_MEND: Final = "apt-get install gcc libc6-dev python3-dev && ./hconf compile"
#: Runs in a process of its own, in an empty folder: mypy and setuptools change more of theirs than they give back.
_BUILD: Final = """
import sys
from mypyc.build import mypycify
from setuptools import setup
options, jobs, *sources = sys.argv[1:]
extensions = mypycify(["--config-file", options, *sources], opt_level="2", debug_level="0", multi_file=True)
setup(name="hconf-compiled", packages=[], ext_modules=extensions,
      script_args=["build_ext", "--parallel", jobs, "--build-lib", "out", "--build-temp", "temp"])
"""
#: mypy checks types elsewhere; here it only has to know them. What has no stubs is of no interest.
_OPTIONS: Final = """[mypy]
strict = True
explicit_package_bases = True
namespace_packages = True
ignore_missing_imports = True
warn_unused_ignores = False
"""


def why_not() -> str:
    """Return what is missing for compiling; nothing if it can be done."""
    if not any(shutil.which(name) for name in COMPILERS):
        return "no C compiler"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return f"no header files of Python {sysconfig.get_python_version()}"
    if not os.access(sys.prefix, os.W_OK):
        return f"{sys.prefix} cannot be written"
    return ""


def capability() -> Capability:
    """Return what there is to say of it, for ``hconf doctor``."""
    if compiled.folder().is_dir():
        return Capability("compiled protocol", ok=True, detail=str(compiled.folder()), mend="", needed_for="speed")
    problem = why_not()
    return Capability(
        "compiled protocol",
        ok=False,
        detail=problem or "not compiled, or the sources have changed since: they are interpreted",
        mend=_MEND if problem else "./hconf compile",
        needed_for="speed",
    )


def _long_unused(folder: Path) -> list[Path]:
    """Return what may go: all but the newest, and what somebody who was killed has left unfinished."""
    by_age = sorted((path.stat().st_mtime, path) for path in folder.iterdir())
    finished = [path for _, path in by_age if not path.name.startswith(_UNFINISHED)]
    kept = set(finished[-KEPT_MAX + 1 :])
    before_s = time.time() - KEPT_AT_LEAST_S
    return [path for made_s, path in by_age if made_s < before_s and path not in kept]


def compile_machines() -> Path:
    """Compile, unless that was done, and remove what was made of other sources long ago. Returns: where. Raises: CapabilityError."""
    target = compiled.folder()
    if target.is_dir():
        return target
    if problem := why_not():
        raise CapabilityError(
            where="compile", problem=f"{problem}; without, everything works, but slower", remedy=_MEND
        )
    target.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=_UNFINISHED) as name:
        scratch = Path(name)
        (scratch / "mypy.ini").write_text(_OPTIONS, encoding="utf-8")
        names = [str(path.relative_to(compiled.ROOT)) for path in compiled.sources().values()]
        for top in {Path(name).parts[0] for name in names}:
            (scratch / top).symlink_to(compiled.ROOT / top)
        jobs = str(len(os.sched_getaffinity(0)))
        done = subprocess.run(
            [sys.executable, "-c", _BUILD, "mypy.ini", jobs, *names],
            cwd=scratch,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode:
            said = "\n".join(line for line in done.stdout.splitlines() if "error" in line)[-2_000:]
            raise CapabilityError(
                where="compile",
                problem=f"mypyc or the C compiler failed:\n{said or done.stdout[-2_000:]}",
                remedy="mend the sources; until then they are interpreted",
            )
        for old in _long_unused(target.parent):
            shutil.rmtree(old, ignore_errors=True)
        try:
            (scratch / "out").rename(target)
        except OSError:
            if not target.is_dir():  # else somebody else was quicker, with the same sources
                raise
    return target
