"""A supervisor of its own: builds the tree, says ``up``, and stays until its standard input ends.

python -m tests.emulation.supervise RUN_ID RUN_DIR [failing process]
"""

import subprocess
import sys
from pathlib import Path

import trio

from testbed.emulation.network import emulated_network
from testbed.plan import NetworkPlan
from tests.emulation.machine import STAND_IN, TREE


async def main() -> None:
    plan = NetworkPlan(sys.argv[1], TREE, 7, Path(sys.argv[2]))
    async with emulated_network(plan, node_program=STAND_IN) as network:
        await network.in_mininet(network.net.get("ue1").cmd, "sleep 1000 &")
        other = network.net.get("ue2").popen(["sh", "-c", "echo detached; exec sleep 1000"], stdout=subprocess.PIPE)
        other.stdout.readline()  # Until mnexec has made a session for it, it is in this process's group.
        print("up", flush=True)
        await trio.lowlevel.wait_readable(sys.stdin)
    print("down", flush=True)


if __name__ == "__main__":
    interrupted = False
    try:
        trio.run(main)
    except* KeyboardInterrupt:  # each interrupt is one, and trio hands them on in a group
        interrupted = True
    sys.exit(130 if interrupted else 0)
