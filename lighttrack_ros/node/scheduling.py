"""How the kernel treats the node's threads: nice, SCHED_FIFO, and the CPUs that they may run on. Linux only.

All threads of the process are treated alike: the tracking thread waits for the middleware's, which bring the image,
and for Python's lock, which any of the others may hold.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from lighttrack_ros.errors import LightTrackError

ALL_CPUS = "all"


class Scheduling:
    """Of this process, as it was when this was made."""

    def __init__(self) -> None:
        self._cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()

    def arrange(self, nice: int, fifo_priority: int, cpus: str) -> str:
        """Treat every thread that there is, and those that they start, like this.

        Args:
            nice: -20 to 19; less than 0 comes before other processes.
            fifo_priority: of SCHED_FIFO, 1 to 99; 0: the ordinary scheduler.
            cpus: numbers with commas between, or "all" for those that there were at first.

        Returns:
            What the system does not permit and how to have it permitted; empty if all was done.

        Raises:
            LightTrackError: `cpus` names none that this process may use.
        """
        if not self._cpus:
            return "nice, fifo_priority and cpus work on Linux only" if (nice, fifo_priority, cpus) != _NOTHING else ""
        wanted = self._chosen(cpus)
        refused = []
        # Nothing is asked for that is so already: it would need no permission.
        for thread in _threads():
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                if os.sched_getaffinity(thread) != wanted:
                    os.sched_setaffinity(thread, wanted)
                try:
                    if os.getpriority(os.PRIO_PROCESS, thread) != nice:
                        os.setpriority(os.PRIO_PROCESS, thread, nice)
                except PermissionError:
                    refused.append(f"nice {nice} (LimitNICE, `ulimit -e {20 - nice}`)")
                try:
                    if os.sched_getparam(thread).sched_priority != fifo_priority:
                        policy = os.SCHED_FIFO if fifo_priority else os.SCHED_OTHER
                        os.sched_setscheduler(thread, policy, os.sched_param(fifo_priority))
                except PermissionError:
                    refused.append(f"fifo_priority {fifo_priority} (LimitRTPRIO, `ulimit -r {fifo_priority}`)")
        if not refused:
            return ""
        return (
            f"not permitted: {', '.join(dict.fromkeys(refused))}; permit it in /etc/security/limits.conf, with that "
            "ulimit, or in a container with --cap-add=SYS_NICE"
        )

    def _chosen(self, cpus: str) -> set[int]:
        if cpus == ALL_CPUS:
            return self._cpus
        numbers = {int(word) if word.strip().isdecimal() else -1 for word in cpus.split(",")}
        if not numbers <= self._cpus:
            there = ",".join(map(str, sorted(self._cpus)))
            raise LightTrackError(f"parameter cpus is {cpus!r}, expected {ALL_CPUS} or some of {there}")
        return numbers


_NOTHING = (0, 0, ALL_CPUS)


def _threads() -> list[int]:
    return [int(path.name) for path in Path("/proc/self/task").iterdir()]
