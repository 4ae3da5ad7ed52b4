"""What processes take of this machine, and what is left: processor time and memory, from /proc."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Usage(NamedTuple):
    """Of one process, all its threads together."""

    cpu_seconds: float  # since it was started
    resident_bytes: int
    shared_bytes: int  # of those, what is shared with other processes: the middleware's segments


def usage_of(pid: int) -> Usage:
    """Raises OSError when there is no such process."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    shared = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("RssShmem:")), 0)
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rsplit(")", 1)[1].split()
    user, system, resident = int(fields[11]), int(fields[12]), int(fields[21])
    return Usage((user + system) * _TICK, resident * _PAGE, 1024 * shared)


def busy_seconds() -> float:
    """Time that everybody together spent on the CPUs that this process may run on, since the machine was started."""
    ours = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    busy = 0.0
    for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
        name, *ticks = line.split()
        if name in ours:
            user, nice, system, _, _, interrupts, soft_interrupts = (int(value) for value in ticks[:7])
            busy += (user + nice + system + interrupts + soft_interrupts) * _TICK
    return busy


def available_bytes() -> int:
    """Memory that may be taken: what is free, and what the kernel gives back of its caches."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * _PAGE
