"""The prompt over a network that is not there: commands, mistakes, completion, what is said meanwhile."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from testbed.shell.cli import Shell
from testbed.shell.command import Command, only, words_of
from testbed.shell.terminal import TerminalGuard, copy_size, keys_of, modes_of, read_key
from topologies.errors import InputError


class Host:
    """As far as the shell needs one where no command is run in it."""

    waiting = False

    def __init__(self, name: str) -> None:
        self.name = name


NET = {name: Host(name) for name in ("csr1", "ue1", "ue2")}
Run = Callable[[str], str]


def greet(words: Sequence[str]) -> str:
    only(words, 2, "greet")
    if words == ["nobody"]:
        raise InputError(where="greet nobody", problem="is nobody", remedy="greet somebody")
    if words == ["badly"]:
        raise ValueError("a bug")
    return f"hello {'+'.join(words)}"


GREET = Command(
    "greet", "WHOM", "greets", greet, lambda before, _word: [] if before else ["ue1", "loud="], ("greet ue1",)
)


@pytest.fixture
def typed() -> list[str]:
    return []


@pytest.fixture
def run(typed: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(script: str) -> str:
        monkeypatch.setattr(sys, "stdin", Script(script))
        Shell(NET, [GREET], on_line=typed.append).converse()
        return capsys.readouterr().out

    return run


class Script(io.StringIO):
    def fileno(self) -> int:
        return 0


def test_words_are_split_as_a_shell_does_and_comments_left_out(run: Run, typed: list[str]) -> None:
    out = run("greet 'a # b' c # said\n\n# nothing\n   greet x\n")
    assert "hello a # b+c\n" in out
    assert "hello x\n" in out
    assert typed == ["greet 'a # b' c", "greet x"]


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("gret x", "gret: there is no such command or node\n  fix: did you mean `greet`?"),
        ("ue7 ls", "did you mean `ue"),
        ("ue1", "ue1: no command is given\n  fix: write it behind: ue1 ip addr"),
        ("greet nobody", "greet nobody: is nobody\n  fix: greet somebody"),
        ("greet a b c", "`c` is one word too many"),
        ("greet 'a", "close the quote"),
        ("greet badly", "*** ValueError: a bug"),
        ("switch s1 start", "not for this network"),
        ("iperf", "would kill every iperf"),
        ("py", "no expression is given"),
        ("py 1 +", "SyntaxError"),
        ("py [host.name for host in net.values() if ue1]", "['csr1', 'ue1', 'ue2']"),
        ("py 0", "0"),
        ("px x = 7; print(x)", "7"),
        ("source", "no file is given"),
        ("source /no/such", "No such file"),
        ("xterm ue9", "there is no node `ue9`"),
        ("help", "greet WHOM"),
        ("help greet", "usage: greet WHOM\n  greets\n\n  hconf> greet ue1"),
        ("greet --help", "usage: greet WHOM"),
        ("help px", "usage: px STATEMENT"),
        ("help ue1", "usage: ue1 COMMAND"),
        ("help gret", "did you mean `greet`?"),
        ("nodes", "csr1 ue1 ue2"),
        ("time greet x", "*** Elapsed time"),
        ("noecho greet x", "hello x"),
    ],
)  # fmt: skip
def test_a_line_and_its_answer_and_the_next_line_is_heard(run: Run, line: str, answer: str) -> None:
    out = run(f"{line}\ngreet again\n")
    assert answer in out
    assert "hello again" in out
    assert "Traceback" not in out


def test_exit_leaves_and_what_follows_is_not_done(run: Run) -> None:
    assert "hello" not in run("exit\ngreet x\n")
    assert "hello" not in run("quit\ngreet x\n")


def test_a_file_is_run_line_by_line(run: Run, typed: list[str], tmp_path: Path) -> None:
    (tmp_path / "f").write_text("greet a\n# no\ngreet b\nexit\ngreet c\n")
    out = run(f"source {tmp_path / 'f'}\ngreet d\n")
    assert ("hconf> greet a\nhello a" in out, "hello b" in out, "hello c" in out) == (True, True, False)
    assert "greet a" in typed


def test_what_is_said_meanwhile_stands_before_the_next_prompt(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys, "stdin", Script("greet x\n"))
    shell = Shell(NET, [])
    shell._wake = lambda: None  # type: ignore[method-assign]  # the signal would find no handler yet
    shell.notify("a link went down")
    shell.converse()
    assert capsys.readouterr().out.startswith("a link went down\nhconf> greet x")


@pytest.mark.parametrize(
    ("line", "word", "found"),
    [
        ("gr", "gr", ["greet "]),
        ("u", "u", ["ue1 ", "ue2 "]),
        ("greet ", "", ["loud=", "ue1 "]),
        ("greet ue1 ", "", []),
        ("help gr", "gr", ["greet "]),
        ("time gr", "gr", ["greet "]),
        ("ue1 ping u", "u", ["ue1 ", "ue2 "]),
        ("xterm c", "c", ["csr1 "]),
        ("status x", "x", []),
    ],
)
def test_completion(line: str, word: str, found: list[str]) -> None:
    assert Shell(NET, [GREET]).completions(line, len(line) - len(word)) == found


def test_names_of_files_are_completed(tmp_path: Path) -> None:
    (tmp_path / "faults.hconf").touch()
    (tmp_path / "folder").mkdir()
    line = f"source {tmp_path}/f"
    assert Shell(NET, []).completions(line, len("source ")) == [f"{tmp_path}/faults.hconf ", f"{tmp_path}/folder/"]


def test_words_of_keeps_backslashes_out_of_nothing() -> None:
    assert words_of(r'a "b\"c" d=e', where="x") == ["a", 'b"c', "d=e"]


def test_a_terminal_is_put_back_also_when_nobody_does(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    before = modes_of(theirs)
    assert before is not None
    with keys_of(theirs, "raw"):
        assert modes_of(theirs) != before
        os.write(ours, b"\x03")
        assert read_key(theirs, 5.0) == b"\x03"
    assert modes_of(theirs) == before
    assert read_key(theirs, 0.0) == b""

    monkeypatch.setattr(os, "isatty", lambda fd: fd == 0)
    saved = os.dup(0)
    os.dup2(theirs, 0)
    try:
        guard = TerminalGuard()
        with keys_of(theirs, "keys"):
            guard.close()  # as if this process were gone
            assert modes_of(theirs) == before
    finally:
        os.dup2(saved, 0)
        os.close(saved)
    copy_size(theirs, ours)
    os.close(ours)
    os.close(theirs)


def test_what_is_no_terminal_is_left_alone(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+b") as file, keys_of(file.fileno(), "raw"):
        assert modes_of(file.fileno()) is None
