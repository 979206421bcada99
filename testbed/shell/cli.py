"""Mininet's CLI over a network that is up, with commands of ours besides its own.

Runs in the main thread, where Python delivers what Ctrl-C means, and is the only one to call Mininet there; who looks
after the network does so in another thread. What is said from there (`notify`) is printed between two commands, or at
once where the user has not begun to type.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Final

from testbed.shell.command import Command, words_of
from testbed.shell.host_command import run_in_host, to_screen
from topologies.errors import HconfError, InputError, nearest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # as in testbed.emulation.mininet_net
    from mininet import log as mininet_log
    from mininet.cli import CLI

PROMPT: Final = "hconf> "
HISTORY_MAX: Final = 1_000
#: Notices that nobody has read yet; older ones are dropped.
NOTICES_MAX: Final = 200
#: Wakes the main thread when there is something to say, or when the network is gone.
_WAKE: Final = signal.SIGUSR1
_INDENT: Final = 2

#: Programs that reach another host by IP, which hosts forward for nobody.
_BY_IP: Final = frozenset(
    {"ping", "traceroute", "tracepath", "mtr", "iperf", "iperf3", "nc", "ncat", "telnet", "ssh", "curl"}
)

#: What Mininet has and this network has not, and what to do instead.
_NOT_HERE: Final = {
    "switch": "this network has routers and links, no switches: see `link`, or `fault link-down`",
    "dpctl": "this network has no switches",
    "ports": "this network has no switches: see `intfs`",
    "iperf": "Mininet's would kill every iperf of this machine: `csr1 iperf3 -s -D`, then `ue1 iperf3 -c csr1`",
    "iperfudp": "Mininet's would kill every iperf of this machine: `csr1 iperf3 -s -D`, then `ue1 iperf3 -u -c csr1`",
    "pingpair": "`ue1 ping -c 1 csr1` pings one neighbour, `pingall` every neighbour",
    "pingpairfull": "`ue1 ping -c 1 csr1` pings one neighbour, `pingall` every neighbour",
    "pingallfull": "`pingall` shows every round trip",
}

#: Mininet's own commands that stay, and what they do.
_MININET: Final = {
    "nodes": ("", "lists all nodes"),
    "net": ("", "lists who is connected to whom"),
    "dump": ("", "shows each node's interfaces, addresses and process"),
    "intfs": ("", "lists the interfaces of each node"),
    "sh": ("COMMAND", "runs a command in this machine's own shell"),
    "py": ("EXPRESSION", "evaluates Python; `net` is the Mininet object, nodes stand under their names"),
    "px": ("STATEMENT", "executes Python"),
    "xterm": ("NODE ...", "opens a terminal window in nodes; takes an X display"),
    "gterm": ("NODE ...", "the same with gnome-terminal"),
    "x": ("NODE [COMMAND]", "runs an X program in a node"),
    "noecho": ("NODE COMMAND", "as NODE COMMAND, which echoes only where the program wants it"),
    "source": ("FILE", "runs the commands in a file"),
    "time": ("COMMAND", "says how long a command took"),
    "exit": ("", "ends the shell; the network is removed and the report made. Also `quit`, and Ctrl-D"),
}


class NetworkGoneError(BaseException):
    """The network broke down or is being removed; whatever the user does is over."""


class HangUpError(BaseException):
    """The terminal was closed, or somebody asked this process to end, by the signal *number*."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Shell(CLI):  # type: ignore[misc]  # mininet is not typed
    """The prompt. `converse` returns when the user leaves.

    Args:
        net: the Mininet object; nobody else may use it meanwhile.
        commands: ours; one that has the name of one of Mininet's takes its place.
        on_line: is given every line that is typed.
        history: file of what was typed before; None: there is none.
    """

    prompt = PROMPT

    def __init__(
        self,
        net: Any,  # noqa: ANN401  mininet is not typed
        commands: Iterable[Command],
        *,
        on_line: Callable[[str], None] = lambda _line: None,
        history: Path | None = None,
    ) -> None:
        # Not CLI.__init__, which would start the loop.
        super(CLI, self).__init__(stdin=sys.stdin, stdout=sys.stdout)
        self.mn, self.locals = net, {"net": net}
        self.inputFile: Path | None = None
        self.commands: Mapping[str, Command] = {command.name: command for command in commands}
        self._on_line, self._history = on_line, history
        self._terminal = sys.stdin.fileno() if sys.stdin.isatty() and sys.stdout.isatty() else None
        self.use_rawinput = self._terminal is not None
        self._thread = threading.main_thread()
        self._notices: deque[str] = deque(maxlen=NOTICES_MAX)
        self._remember: Callable[[], None] = lambda: None  #: the last line, in the history
        self._is_typing = False  #: a line is being typed, or nothing is
        self._is_gone = False
        self._interrupted_once = False

    # ------------------------------------------------------------------ for other threads

    def notify(self, text: str) -> None:
        """Say something, as soon as it is in nobody's way."""
        self._notices.append(text)
        self._wake()

    def say_gone(self) -> None:
        """The network is no more: whatever the user does ends."""
        self._is_gone = True
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pthread_kill(self._thread.ident or 0, _WAKE)

    # ------------------------------------------------------------------ the loop

    def converse(self) -> None:
        """Take commands until the user leaves. Raises: NetworkGoneError, HangUpError."""
        signal.signal(_WAKE, self._on_wake)
        try:
            with self._line_editing(), _mininet_speaks_here():
                self._converse()
        finally:
            signal.signal(_WAKE, signal.SIG_IGN)  # as it was, what is still on its way would end the process

    def _converse(self) -> None:
        while True:
            try:
                self._free_nodes()
                self.cmdloop()
            except KeyboardInterrupt:
                self._is_typing = False
                self.stdout.write("\n")
                if self._terminal is None:
                    return
            else:
                return

    def _free_nodes(self) -> None:
        """End what was interrupted and still runs in a host."""
        for node in self.mn.values():
            if node.waiting and getattr(node, "shell", None) is not None:
                node.sendInt()
                node.waitOutput()

    def preloop(self) -> None:
        self.show_notices()

    def cmdloop(self, intro: str | None = None) -> None:
        """As Cmd's, with notices before each prompt and without an echo of the prompt where nobody types."""
        del intro
        self.preloop()
        stop: object = None
        while not stop:
            try:
                line = self._read_line()
            except EOFError:
                line = "EOF"
            stop = self.onecmd(self.precmd(line))
            self.show_notices()

    def _read_line(self) -> str:
        if self._terminal is None:
            line = sys.stdin.readline()
            if not line:
                raise EOFError
            self.stdout.write(f"{self.prompt}{line.rstrip()}\n")  # a log of a script shows what was asked
            self.stdout.flush()
            return line.rstrip("\n")
        self._is_typing = True
        try:
            if self._is_gone:
                raise NetworkGoneError
            line = input(self.prompt)
        finally:
            self._is_typing = False
        self._remember()
        return line

    def _on_wake(self, _number: int, _frame: FrameType | None) -> None:
        if self._is_gone:
            raise NetworkGoneError
        if self._is_typing and not _line_so_far():
            self.stdout.write("\r\x1b[K")
            self.show_notices()
            self.stdout.write(self.prompt)
            self.stdout.flush()

    def show_notices(self) -> None:
        """Print what was said since the last time."""
        while self._notices:
            self.stdout.write(self._notices.popleft() + "\n")
        self.stdout.flush()

    # ------------------------------------------------------------------ one line

    def precmd(self, line: str) -> str:
        """Leave out a comment: `#` at the start or behind a space, outside of quotes."""
        quote = ""
        for at, one in enumerate(line):
            if one in "\"'":
                quote = "" if quote == one else quote or one
            elif one == "#" and not quote and (at == 0 or line[at - 1].isspace()):
                return line[:at].rstrip()
        return line

    def onecmd(self, line: str) -> object:
        """Do what a line says. Returns: whether to leave."""
        line = line.strip()
        if not line:
            return None
        if line != "EOF":
            self._on_line(line)
        try:
            return self._do(line)
        except HconfError as error:
            self._say_wrong(error)
        except (KeyboardInterrupt, SystemExit):
            raise
        except Exception as error:  # noqa: BLE001  of Mininet or of an evaluated line; the network goes on
            self.stdout.write(f"*** {type(error).__name__}: {error}\n")
        return None

    def _do(self, line: str) -> object:
        name, _, rest = line.partition(" ")
        rest = rest.strip()
        if name in ("help", "?"):
            self.do_help(rest)
            return None
        if name in self.mn:
            self._run_in_host(name, rest)
            return None
        if line.startswith("!"):
            name, rest = "sh", line[1:].strip()
        if (command := self.commands.get(name)) is not None:
            if rest in ("-h", "--help"):
                self.stdout.write(command.help() + "\n")
                return None
            words = words_of(rest, where=name) if rest else []
            if text := command.run(words):
                self.stdout.write(text.rstrip("\n") + "\n")
            return None
        if name in _NOT_HERE:
            raise InputError(where=name, problem="is not for this network", remedy=_NOT_HERE[name])
        if name == "EOF":
            self.stdout.write("\n" if self._terminal is not None else "")
            return True
        if name in ("exit", "quit"):
            return True
        if name in _MININET:
            return getattr(self, f"do_{name}")(rest)
        raise self._unknown(name)

    def _unknown(self, name: str) -> InputError:
        close = nearest(name, [*self.all_commands(), *self.mn])
        known = f"did you mean {' or '.join(f'`{one}`' for one in close)}?" if close else "`help` lists the commands"
        return InputError(where=name, problem="there is no such command or node", remedy=known)

    def _say_wrong(self, error: HconfError) -> None:
        self.stdout.write(f"{error.where}: {error.problem}\n  fix: {error.remedy}\n")

    def all_commands(self) -> list[str]:
        """Return the names of all commands."""
        return sorted({*self.commands, *_MININET, "help", "quit"})

    # ------------------------------------------------------------------ Mininet's commands, where they differ

    def _run_in_host(self, name: str, command: str) -> None:
        if not command:
            raise InputError(where=name, problem="no command is given", remedy=f"write it behind: {name} ip addr")
        said = command.split(" ")
        if said[0] in _BY_IP:
            for far in (word for word in said[1:] if word in self.mn and word != name):
                if not self.mn[name].connectionsTo(self.mn[far]):
                    self.stdout.write(
                        f"({far} is no neighbour of {name}: no IP leads there, only names do; see `ndn`)\n"
                    )
        words = [(self.mn[word].defaultIntf().updateIP() or word) if word in self.mn else word for word in said]
        terminal = self._terminal if self.inputFile is None else None
        run_in_host(
            self.mn[name],
            " ".join(words),
            terminal=terminal,
            write=lambda text: to_screen(text, is_raw=terminal is not None),
        )

    def default(self, line: str) -> None:
        """Mininet's `noecho` and `x` come here with what follows."""
        self._do(line)

    def isatty(self) -> bool:
        """Mininet's own way to change our terminal is not ours."""
        return False

    def do_py(self, line: str) -> None:
        """Mininet's keeps silent about 0, False and empty results."""
        if not line:
            raise InputError(where="py", problem="no expression is given", remedy="for example: py net.get('ue1').IP()")
        try:
            result = eval(line, self.getLocals())  # noqa: S307  the user's own, as root
        except Exception as error:  # noqa: BLE001  whatever it was
            self.stdout.write(f"{type(error).__name__}: {error}\n")
            return
        if result is not None:
            self.stdout.write(f"{result if isinstance(result, str) else repr(result)}\n")

    def do_px(self, line: str) -> None:
        """One name space for all lines, so that functions see what lines before have made."""
        if not line:
            raise InputError(where="px", problem="no statement is given", remedy="for example: px print(net.hosts)")
        try:
            exec(line, self.getLocals())  # noqa: S102  the user's own, as root
        except Exception as error:  # noqa: BLE001  whatever it was
            self.stdout.write(f"{type(error).__name__}: {error}\n")

    def do_source(self, line: str) -> None:
        """Run the commands in a file, which are recorded one by one."""
        if not line:
            raise InputError(where="source", problem="no file is given", remedy="for example: source my-faults.hconf")
        path = Path(line).expanduser()
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                where=f"source {line}",
                problem=f"cannot be read: {getattr(error, 'strerror', None) or error}",
                remedy="check the name",
            ) from error
        if self.inputFile is not None:
            raise InputError(where=f"source {line}", problem="a file cannot run another", remedy="run them in turn")
        self.inputFile = path
        try:
            for one in lines:
                if text := self.precmd(one).strip():
                    self.stdout.write(f"{self.prompt}{text}\n")
                    if self.onecmd(text):
                        break
        finally:
            self.inputFile = None

    def do_time(self, line: str) -> None:
        """Say how long a command took."""
        begun_s = time.monotonic()
        self._do(line)
        self.stdout.write(f"*** Elapsed time: {time.monotonic() - begun_s:.6f} secs\n")

    def do_xterm(self, line: str, term: str = "xterm") -> None:
        """Open a terminal window in each of the nodes."""
        names = line.split()
        if not names:
            raise InputError(
                where=term, problem="no node is named", remedy=f"for example: {term} {next(iter(self.mn))}"
            )
        for name in names:
            if name not in self.mn:
                raise self._no_node(term, name)
        if "DISPLAY" not in os.environ:
            raise InputError(
                where=term,
                problem="there is no X display here (DISPLAY is not set)",
                remedy=f"connect with `ssh -X` and start again with `sudo -E`; or type at the node here: {names[0]} bash",
            )
        super().do_xterm(line, term=term)

    def do_x(self, line: str) -> None:
        name = line.split(" ", maxsplit=1)[0]
        if name not in self.mn:
            raise self._no_node("x", name)
        super().do_x(line)

    def do_noecho(self, line: str) -> None:
        self._do(line)

    def _no_node(self, where: str, name: str) -> InputError:
        close = nearest(name, self.mn)
        remedy = f"did you mean {' or '.join(f'`{one}`' for one in close)}?" if close else "`nodes` lists them"
        return InputError(where=where, problem=f"there is no node `{name}`", remedy=remedy)

    def do_help(self, line: str) -> None:
        """Say what there is, or all of one command."""
        name = line.split(" ", maxsplit=1)[0]
        if not name:
            self.stdout.write(self._overview())
        elif (command := self.commands.get(name)) is not None:
            self.stdout.write(command.help() + "\n")
        elif name in _MININET:
            usage, says = _MININET[name]
            self.stdout.write(f"usage: {name} {usage}".rstrip() + f"\n  {says}\n")
        elif name in self.mn:
            self.stdout.write(f"usage: {name} COMMAND\n  runs a command in the host {name}; Ctrl-C interrupts it\n")
        else:
            raise self._unknown(name)

    def _overview(self) -> str:
        ours = [(f"{command.name} {command.usage}".rstrip(), command.says) for command in self.commands.values()]
        theirs = [(f"{name} {usage}".rstrip(), says) for name, (usage, says) in _MININET.items()]
        host = next(iter(self.mn))
        theirs.insert(
            0, ("NODE COMMAND", f"runs a command in a node; names of nodes become addresses: {host} ping -c 1 ...")
        )
        width = max(len(usage) for usage, _ in (*ours, *theirs) if len(usage) <= 34) + 2
        lines = ["The conference, and what befalls it:"]
        for title, rows in (("", ours), ("As in Mininet:", theirs)):
            lines += ["", title] if title else []
            for usage, says in rows:
                if len(usage) > width - 2:
                    lines += [" " * _INDENT + usage, " " * (_INDENT + width) + says]
                else:
                    lines.append(" " * _INDENT + usage.ljust(width) + says)
        return "\n".join([*lines, "", "`help COMMAND` says more and gives examples; Tab completes every name.", ""])

    # ------------------------------------------------------------------ line editing

    def completions(self, line: str, begin: int) -> list[str]:
        """Return what the word that begins at *begin* in *line* may become."""
        before, word = line[:begin].split(), line[begin:]
        try:
            return sorted({one for one in self._candidates(before, word) if one.startswith(word)})
        except Exception:  # noqa: BLE001  a mistake in a line must not end the editing of it
            return []

    def _candidates(self, before: Sequence[str], word: str) -> Iterable[str]:
        if before[:1] in (["time"], ["noecho"]):
            before = before[1:]
        if not before:
            return (f"{name} " for name in (*self.all_commands(), *self.mn))
        name = before[0]
        if (command := self.commands.get(name)) is not None:
            return [one if one.endswith(("=", ",", "/")) else f"{one} " for one in command.complete(before[1:], word)]
        if name in ("help", "?"):
            return (f"{name} " for name in (*self.all_commands(), *self.mn))
        if name in self.mn or name in ("xterm", "gterm", "x"):
            return (f"{name} " for name in self.mn)
        if name in ("source", "sh"):
            return _files(word)
        return ()

    @contextlib.contextmanager
    def _line_editing(self) -> Iterator[None]:
        """Completion, and a history that the next shell has as well."""
        if self._terminal is None:
            yield
            return
        try:
            import readline  # noqa: PLC0415  where Python was built without it, lines are not edited
        except ImportError:
            yield
            return
        found: list[str] = []

        def complete(_text: str, state: int) -> str | None:
            if state == 0:
                found[:] = self.completions(readline.get_line_buffer()[: readline.get_endidx()], readline.get_begidx())
            return found[state] if state < len(found) else None

        readline.set_completer(complete)
        readline.set_completer_delims(" \t")
        is_libedit = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if is_libedit else "tab: complete")
        readline.set_auto_history(True)
        readline.clear_history()
        history = self._history

        def remember() -> None:
            if history is not None:
                with contextlib.suppress(OSError):  # at once: a shell that is killed has no later
                    readline.append_history_file(1, history)

        if history is not None:
            with contextlib.suppress(OSError):
                history.touch(mode=0o600)
                readline.read_history_file(history)
        self._remember = remember
        try:
            yield
        finally:
            readline.set_completer(None)
            if history is not None:
                with contextlib.suppress(OSError):
                    readline.set_history_length(HISTORY_MAX)
                    readline.write_history_file(history)


def _line_so_far() -> str:
    try:
        import readline  # noqa: PLC0415  as above
    except ImportError:
        return " "  # not known: do not disturb
    return readline.get_line_buffer()


def _files(word: str) -> list[str]:
    """Return the names of files and folders that begin with *word*."""
    path = Path(word).expanduser()
    folder, beginning = (path, "") if word.endswith("/") else (path.parent, path.name)
    shown = word[: len(word) - len(beginning)]
    with contextlib.suppress(OSError):
        return [
            f"{shown}{one.name}/" if one.is_dir() else f"{shown}{one.name} "
            for one in folder.iterdir()
            if one.name.startswith(beginning)
        ]
    return []


@contextlib.contextmanager
def _mininet_speaks_here() -> Iterator[None]:
    """Mininet's output goes to where ours goes, and not where it went before."""
    handler = mininet_log.lg.handlers[0]
    before = handler.setStream(sys.stdout)
    try:
        yield
    finally:
        if before is not None:
            handler.setStream(before)
