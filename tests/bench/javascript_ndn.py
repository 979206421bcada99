"""What NDN libraries for JavaScript, unchanged, see of the network: as tests/bench/python_ndn.py, with NDNts and with ndn-js.

    sudo python -m tests.bench.javascript_ndn [--interests 1000] [--delay-ms 5]

Takes Node.js and npm, which fetches the two into a temporary folder. NDNts speaks the formats of today, PIT tokens and routes
that run out included; ndn-js signs commands with RSA in the older format, as the C++ and Python libraries of its family did.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import trio

from tests.bench.python_ndn import Applications, run

PROGRAMS = Path(__file__).parent / "javascript"


def main() -> int:
    """Parse arguments, fetch the libraries, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interests", type=int, default=1_000)
    parser.add_argument("--delay-ms", type=float, default=5.0, help="of each of the four links, one way")
    arguments = parser.parse_args()
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        print("Node.js or npm is missing; apt-get install nodejs npm")
        return 3
    with tempfile.TemporaryDirectory() as folder:
        programs = shutil.copytree(PROGRAMS, Path(folder) / "programs")
        subprocess.run([npm, "install", "--no-audit", "--no-fund", "--silent"], cwd=programs, check=True)
        good = True
        for name, program in (("NDNts", "ndnts.mjs"), ("ndn-js", "ndn-js.cjs")):
            command = (node, str(programs / program))
            applications = Applications(name, (*command, "produce"), (*command, "consume"))
            good &= trio.run(run, applications, arguments.interests, arguments.delay_ms)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
