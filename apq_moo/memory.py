"""A bound on the memory that this process takes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STATUS = Path("/proc/self/status")


@contextmanager
def limited_memory(n_bytes: int) -> Iterator[None]:
    """Let this process take so much more memory than it has, on Linux; elsewhere any.

    For native libraries, to which what a file says of its sizes is not enough: what they ask for
    beyond fails, which they report. Other threads of the process are bound as well.

    Args:
        n_bytes: how much.
    """
    if sys.platform != "linux" or not _STATUS.is_file():
        yield
        return
    import resource

    before, most = resource.getrlimit(resource.RLIMIT_DATA)
    taken = 1024 * int(_STATUS.read_text().partition("VmData:")[2].split()[0])
    limits = [n for n in (taken + n_bytes, before, most) if n != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, most))
