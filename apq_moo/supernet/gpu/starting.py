"""Many kernels started by one call, past Python: a loop over the driver's launch, in C.

It is compiled when it is first needed, by the compiler that Triton needs too.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import struct
import subprocess
import tempfile
from array import array
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from apq_moo.errors import warn

MOST_ARGUMENTS = 64
"""Of a kernel, at most, with those that Triton adds."""

TRITONS_OWN = 2
"""Arguments that Triton adds behind a kernel's own: memory for itself and for its profiler."""

_SOURCE = """
#include <stdint.h>

typedef int (*launch_t)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                        unsigned, void *, void **, void **);

/* Words of a kernel: function, programs, threads, bytes of shared memory, number of arguments, and
   these. Returns the driver's error, or 0. */
int start_all(launch_t launch, uint64_t *word, uint64_t count, void *stream) {
    uint64_t *end = word + count;
    void *arguments[MOST_ARGUMENTS];
    while (word < end) {
        uint64_t n = word[4];
        for (uint64_t i = 0; i < n; i++) arguments[i] = word + HEAD + i;
        unsigned programs = word[1], threads = word[2], shared = word[3];
        int error = !programs ? 0
            : launch((void *)word[0], programs, 1, 1, threads, 1, 1, shared, stream, arguments, 0);
        if (error) return error;
        word += HEAD + n;
    }
    return 0;
}
"""

HEAD = 5
"""Words ahead of a kernel's arguments."""

_WORD = "Q"


def words_of(
    function: int, programs: int, threads: int, shared: int, args: Sequence[int | float]
) -> array[int]:
    """A kernel as ``start_all`` reads it.

    Args:
        function: the driver's handle.
        programs: how many run.
        threads: of a program.
        shared: bytes of shared memory of a program.
        args: addresses, 32-bit integers, and floats, which are passed in single precision.
    """
    plain = [x & 0xFFFFFFFFFFFFFFFF if isinstance(x, int) else _bits(x) for x in args]
    count = len(plain) + TRITONS_OWN
    return array(
        _WORD, [function, programs, threads, shared, count, *plain, *[0] * TRITONS_OWN]
    )  # fmt: skip


def _bits(x: float) -> int:
    return int(struct.unpack("<I", struct.pack("<f", x))[0])


def no_words() -> array[int]:
    """Where kernels are gathered, empty."""
    return array(_WORD)


def starter(launch: int) -> Callable[[array[int], int], None]:
    """What starts all kernels that some words describe on a stream.

    Args:
        launch: address of the driver's function, or of one like it.

    Raises:
        OSError: there is no compiler, or what it made cannot be loaded.
        subprocess.SubprocessError: it failed.
    """
    start_all = _compiled().start_all
    start_all.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_void_p]

    def start(words: array[int], stream: int) -> None:
        address, count = words.buffer_info()
        error = start_all(launch, address, count, stream)
        if error:
            raise RuntimeError(f"the GPU's driver cannot start a kernel: error {error}")

    return start


@cache
def starter_of_driver() -> Callable[[array[int], int], None] | None:
    """:func:`starter` of the GPU's driver; None, with a warning, where there can be none."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        launch = ctypes.cast(driver.cuLaunchKernel, ctypes.c_void_p).value
        return starter(launch or 0)
    except (OSError, AttributeError, subprocess.SubprocessError) as error:
        warn(f"kernels are started one by one, which is slower: {error}")
        return None


@cache
def _compiled() -> ctypes.CDLL:
    named = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    if named is None:
        raise FileNotFoundError("there is no C compiler; install one, or name it by CC")
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "starting.c"), Path(folder, "starting.so")
        source.write_text(_SOURCE)
        given = [f"-DHEAD={HEAD}", f"-DMOST_ARGUMENTS={MOST_ARGUMENTS}"]
        subprocess.run(  # noqa: S603
            [*shlex.split(named), "-O2", "-shared", "-fPIC", *given, source, "-o", library],
            check=True, capture_output=True, timeout=60,
        )  # fmt: skip
        return ctypes.CDLL(str(library))
