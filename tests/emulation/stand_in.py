"""A stand-in for the zygote and the node program: the protocol of both, and a node that does as it is told.

Besides the control channel's ``ping`` and ``stop``: ``crash`` ends with status 3, ``deaf`` ignores ``stop`` and SIGTERM
from then on, ``say`` sends an event, ``intfs`` lists the interfaces it sees, ``refuse`` is refused.
"""

import ctypes
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

CLONE_NEWNET = 0x40000000


def node(name: str, config_path: str, netns_fd: int, control_fd: int) -> None:
    ctypes.CDLL(None).setns(netns_fd, CLONE_NEWNET)
    config = json.loads(Path(config_path).read_bytes())
    control = socket.socket(fileno=control_fd)

    def say(message: dict[str, Any]) -> None:
        control.sendall(json.dumps(message).encode() + b"\n")

    if os.environ.get("STAND_IN_FAILS") == name:
        print("told to fail", flush=True)
        os._exit(4)
    if os.environ.get("STAND_IN_NEVER_READY") != name:
        say({"event": "ready", "t_s": time.monotonic()})
    lines = control.makefile("rb")
    deaf = False
    for line in lines:
        request = json.loads(line)
        reply: dict[str, Any] = {"id": request["id"], "ok": True}
        match request["op"]:
            case "ping":
                reply["node"] = config["node"]
            case "say":
                say({"event": request["event"], "t_s": time.monotonic(), "word": request["word"]})
            case "crash":
                os._exit(3)
            case "deaf":
                deaf = True
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            case "intfs":
                reply["intfs"] = [intf for _, intf in socket.if_nameindex()]
            case "stop":
                if deaf:
                    continue
                say(reply)
                os._exit(0)
            case _:
                reply = {"id": request["id"], "ok": False, "error": "told to refuse"}
        say(reply)
    os._exit(0)


def main() -> None:
    channel = socket.socket(fileno=int(sys.argv[sys.argv.index("--socket-fd") + 1]))
    names: dict[int, str] = {}
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)

    def reap(flags: int) -> None:
        while names:
            pid, status, usage = os.wait4(-1, flags)
            if pid == 0:
                return
            ended = {"exited": names.pop(pid), "pid": pid, "status": os.waitstatus_to_exitcode(status)}
            ended |= {"cpu_s": usage.ru_utime + usage.ru_stime, "max_rss_bytes": usage.ru_maxrss * 1024}
            channel.send(json.dumps(ended).encode())

    channel.send(json.dumps({"zygote": "ready", "pid": os.getpid()}).encode())
    while True:
        readable, _, _ = select.select([channel.fileno(), wake_read], [], [])
        if wake_read in readable:
            os.read(wake_read, 4096)
            reap(os.WNOHANG)
        if channel.fileno() not in readable:
            continue
        data, fds, _, _ = socket.recv_fds(channel, 65536, 4)
        message = json.loads(data) if data else {"op": "exit"}
        if message["op"] == "exit":
            break
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            channel.close()
            log = os.open(message["log_path"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(log, 1)
            os.dup2(log, 2)
            node(message["name"], message["config_path"], *fds)
        for fd in fds:
            os.close(fd)
        names[pid] = message["name"]
        channel.send(json.dumps({"spawned": message["name"], "pid": pid}).encode())
    for pid in names:
        os.kill(pid, signal.SIGTERM)
    give_up_s = time.monotonic() + 1.0
    while names and time.monotonic() < give_up_s:
        reap(os.WNOHANG)
        time.sleep(0.002)
    for pid in names:
        os.kill(pid, signal.SIGKILL)
    reap(0)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
