"""``log``: the last records and messages of a node, and what is added to them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

#: Of each file, so much is read from its end.
_TAIL_BYTES: Final = 1 << 20
#: Records that come every second and say how full things are; shown only when asked for by name.
_REGULAR: Final = frozenset({"counters", "state"})


@dataclass
class NodeLog:
    """The raw records and log files of one node. `read` returns what is new since the last call."""

    raw: Path
    processes: Sequence[str]
    epoch_s: float
    kinds: frozenset[str] = frozenset()  #: records to show; none: all but the regular ones
    _read_bytes: dict[Path, int] = field(default_factory=dict)

    def read(self) -> list[str]:
        """Return the new records in the order of time, then the new lines of log files."""
        records: list[tuple[float, str]] = []
        said: list[str] = []
        for process in self.processes:
            for line in self._new_lines(self.raw / f"{process}.jsonl"):
                record = _decoded(line)
                if record is not None and self._is_wanted(str(record["kind"])):
                    records.append((record["t_s"], self._spell(record, process)))
            said += [f"{process}: {line}" for line in self._new_lines(self.raw / "log" / f"{process}.log")]
        return [line for _, line in sorted(records)] + said

    def _is_wanted(self, kind: str) -> bool:
        return kind in self.kinds if self.kinds else kind not in _REGULAR

    def _spell(self, record: dict[str, Any], process: str) -> str:
        fields = " ".join(
            f"{name}={json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value}"
            for name, value in record.items()
            if name not in ("kind", "t_s", "node", "process", "sha256") and value != ""
        )
        return f"{record['t_s'] - self.epoch_s:9.3f} s  {process.rpartition('.')[2]:<9}  {record['kind']}  {fields}"

    def _new_lines(self, path: Path) -> list[str]:
        """Return the whole lines that were not returned yet."""
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                begin = self._read_bytes.get(path, max(0, size - _TAIL_BYTES))
                file.seek(begin)
                content = file.read()
        except OSError:
            return []  # it has none
        whole = content[: content.rfind(b"\n") + 1]
        self._read_bytes[path] = begin + len(whole)
        return whole.decode("utf-8", errors="replace").splitlines()


def _decoded(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None  # the first line of a tail is seldom whole
    return record if isinstance(record, dict) and "kind" in record and "t_s" in record else None
