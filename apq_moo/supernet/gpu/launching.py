"""How kernels are launched on a device, past Triton's public interface where it is known.

What is launched again and again is kept as a :class:`Stretch` of launches and repeated as a whole,
with other addresses in some places: the work of finding tiles, grids and arguments is done once,
and where the driver can be called directly, the host starts all kernels of a subnet at once.
"""

from __future__ import annotations

import math
from array import array
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import triton
from torch import Tensor

from apq_moo.supernet.gpu.plans import MOST_SHARED
from apq_moo.supernet.gpu.starting import (
    HEAD,
    MOST_ARGUMENTS,
    TRITONS_OWN,
    no_words,
    starter_of_driver,
    words_of,
)

STARTED_DIRECTLY = "3.6."
"""Versions of Triton whose compiled kernels were tried without its public launch."""

_KEPT = 50_000
"""Stretches at most, of some kilobytes each."""


@dataclass(frozen=True)
class Start:
    """How a compiled kernel is started.

    Attributes:
        start: from programs, device, arguments and constants.
        words: the same as words for the driver, from programs and arguments; None where the
            kernel needs more than a plain launch.
    """

    start: Callable[[int, int, list[Any], tuple[Any, ...]], None]
    words: Callable[[int, list[Any]], array[int]] | None


@dataclass(frozen=True)
class _Launch:
    kernel: Any
    programs: int
    args: tuple[Any, ...]
    constants: tuple[Any, ...]
    warps: int
    stages: int


@dataclass(frozen=True)
class Stretch:
    """Launches that follow each other.

    Attributes:
        launches: them; variables are without contents.
        places: launch, argument and variable of every argument that is a variable.
        words: in place of both, all of them for the driver, where it is called directly.
        slots: of these words those that are variables, and which.
    """

    launches: Sequence[_Launch]
    places: Sequence[tuple[int, int, int]]
    words: array[int] | None = None
    slots: Sequence[tuple[int, int]] = ()


class Launcher:
    """Launches kernels on one device.

    Args:
        device: where their tensors lie.

    Attributes:
        device: it.
        shared: bytes of shared memory that a program can have.
        repeats: whether stretches are kept and repeated.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.shared = shared_memory(device)
        self.repeats = True
        self._ready: dict[tuple[Any, ...], Start] = {}
        self._tensors: dict[int, tuple[int, ...]] = {}
        self._stretches: OrderedDict[Hashable, Stretch] = OrderedDict()
        self._seen: set[Hashable] = set()
        self._forgotten = 0
        self._recorded: list[tuple[_Launch, Start | None]] | None = None
        self._words = no_words()

    def launch(
        self, kernel: Any, programs: int, args: tuple[Any, ...], constants: tuple[Any, ...],
        warps: int = 4, stages: int = 3,
    ) -> None:  # fmt: skip
        """Launch a kernel, past Triton's look at every argument where it has been seen before.

        What a compiled kernel depends on is its constants and the types of its tensors: all
        pointers are multiples of 16 bytes, and integers are not specialised, but for pitches,
        which are all multiples of :data:`PITCH`. It is then started as Triton itself starts it,
        without the description it would make for profilers: subnets of usual size run as fast as
        the host can launch them. How Triton starts a kernel is not public, so versions other than
        :data:`STARTED_DIRECTLY` launch every time as the public interface does.
        """
        self.flush()
        number = id(kernel)  # a kernel's own hash is slow
        tensors = self._tensors.get(number)
        if tensors is None:
            found = [place for place, x in enumerate(args) if isinstance(x, Tensor)]
            tensors = self._tensors[number] = tuple(found)
        key = number, constants, warps, stages, tuple([args[place].dtype for place in tensors])
        ready = self._ready.get(key)
        if ready is not None:
            ready.start(programs, args[tensors[0]].get_device(), addressed(args), constants)
        else:
            ready = launched_first(kernel, programs, args, constants, warps, stages)
            if ready is not None:
                self._ready[key] = ready
        if self._recorded is not None:
            launch = _Launch(kernel, programs, args, constants, warps, stages)
            self._recorded.append((launch, ready))

    def do(self, key: Hashable, variables: Sequence[Tensor], work: Callable[[], object]) -> None:
        """Do what launches kernels and nothing else, or repeat its launches.

        What comes for the first time is only done, since it may never come again; the second time
        it is recorded. Repeated launches may wait until :meth:`flush`.

        Args:
            key: the same for what launches the same, but for the variables.
            variables: tensors whose addresses may differ from one time to the next; every other
                one stays where it is, or :meth:`forget` has been called.
            work: what to do.
        """
        found = self._stretches.get(key) if self.repeats else None
        if found is not None:
            self._repeat(found, variables)
            return
        self.flush()
        if not self.repeats or key not in self._seen:
            if len(self._seen) > _KEPT:
                self._seen.clear()
            self._seen.add(key)
            work()
            return
        forgotten, self._recorded = self._forgotten, []
        try:
            work()
            if self._forgotten == forgotten:
                stretch = _stretch(self._recorded, variables)
                if stretch is not None:
                    self._stretches[key] = stretch
        finally:
            self._recorded = None
        if len(self._stretches) > _KEPT:
            self._stretches.popitem(last=False)

    def _repeat(self, stretch: Stretch, variables: Sequence[Tensor]) -> None:
        if stretch.words is not None:
            begin = len(self._words)
            self._words.extend(stretch.words)
            addresses = [x.data_ptr() for x in variables]
            for at, variable in stretch.slots:
                self._words[begin + at] = addresses[variable]
            return
        self.flush()
        args = [list(launch.args) for launch in stretch.launches]
        for number, place, variable in stretch.places:
            like: Tensor = args[number][place]
            args[number][place] = in_place_of(variables[variable], like.shape, like.dtype)
        for launch, given in zip(stretch.launches, args, strict=True):
            self.launch(
                launch.kernel, launch.programs, tuple(given), launch.constants, launch.warps,
                launch.stages,
            )  # fmt: skip

    def flush(self) -> None:
        """Start what :meth:`do` has gathered."""
        if not self._words:
            return
        start = starter_of_driver()
        assert start is not None
        words, self._words = self._words, no_words()
        start(words, stream_of(self.device))

    def forget(self) -> None:
        """Forget all stretches, since what they use is to move."""
        self.flush()
        self._stretches.clear()
        self._forgotten += 1


def launched_first(
    kernel: Any, programs: int, args: tuple[Any, ...], constants: tuple[Any, ...],
    warps: int, stages: int,
) -> Start | None:  # fmt: skip
    """Launch a kernel by Triton's public interface; how to start it past that, if it can be."""
    # Products and sums are rounded one by one, as everywhere else.
    compiled = kernel[(programs,)](
        *args, *constants, num_warps=warps, num_stages=stages, enable_fp_fusion=False
    )
    # It is None where kernels are interpreted.
    if compiled is None or not triton.__version__.startswith(STARTED_DIRECTLY):
        return None
    return Start(_starter(compiled), _wording(compiled, len(args)))


def addressed(args: Sequence[Any]) -> list[Any]:
    """Arguments with addresses in place of tensors."""
    return [x.data_ptr() if isinstance(x, Tensor) else x for x in args]


def in_place_of(memory: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """The beginning of a tensor's memory in another shape and type."""
    size = math.prod(shape) * dtype.itemsize
    return memory.view(-1).view(torch.uint8)[:size].view(dtype).view(*shape)


def _stretch(
    recorded: Sequence[tuple[_Launch, Start | None]], variables: Sequence[Tensor]
) -> Stretch | None:
    """What was launched, for repetition; None where variables cannot be told apart."""
    numbers = {x.data_ptr(): number for number, x in enumerate(variables)}
    if len(numbers) < len(variables):
        return None
    places = [
        (at, place, numbers[x.data_ptr()])
        for at, (launch, _) in enumerate(recorded)
        for place, x in enumerate(launch.args)
        if isinstance(x, Tensor) and x.data_ptr() in numbers
    ]
    words = _words_of_all(recorded)
    if words is None:
        launches = [launch for launch, _ in recorded]
        for at, place, _ in places:
            args = list(launches[at].args)
            args[place] = torch.empty_like(args[place], device="meta")
            launches[at] = replace(launches[at], args=tuple(args))
        return Stretch(launches, places)
    begins = [HEAD]
    for launch, _ in recorded:
        begins.append(begins[-1] + len(launch.args) + TRITONS_OWN + HEAD)
    slots = [(begins[at] + place, variable) for at, place, variable in places]
    return Stretch([], [], words, slots)


def _words_of_all(recorded: Sequence[tuple[_Launch, Start | None]]) -> array[int] | None:
    """Launches for the driver; None where one of them is more than a plain launch."""
    words = no_words()
    for launch, ready in recorded:
        if ready is None or ready.words is None or starter_of_driver() is None:
            return None
        words.extend(ready.words(launch.programs, addressed(launch.args)))
    return words


def stream_of(device: torch.device) -> int:
    """The driver's handle of the stream on which torch works."""
    return int(triton.runtime.driver.active.get_current_stream(device.index or 0))


def shared_memory(device: torch.device) -> int:
    """Bytes of shared memory that a program can have on a device, as Triton grants it."""
    if device.type != "cuda":
        return MOST_SHARED
    properties = triton.runtime.driver.active.utils.get_device_properties(device.index or 0)
    return int(properties["max_shared_mem"])


def _starter(compiled: Any) -> Callable[[int, int, list[Any], tuple[Any, ...]], None]:
    """What starts a compiled kernel: programs, device, arguments and constants."""
    stream_of = triton.runtime.driver.active.get_current_stream
    run, function, described = compiled.run, compiled.function, compiled.packed_metadata

    def usual(programs: int, device: int, args: list[Any], constants: tuple[Any, ...]) -> None:
        stream = stream_of(device)
        run(programs, 1, 1, stream, function, described, None, None, None, *args, *constants)

    if run.global_scratch_size or run.profile_scratch_size:
        return usual
    launch, together, early = run.launch, run.launch_cooperative_grid, run.launch_pdl

    def at_once(programs: int, device: int, args: list[Any], constants: tuple[Any, ...]) -> None:
        launch(
            programs, 1, 1, stream_of(device), function, together, early, None, None,
            described, None, None, None, *args, *constants,
        )  # fmt: skip

    return at_once


def _wording(compiled: Any, given: int) -> Callable[[int, list[Any]], array[int]] | None:
    """A compiled kernel as words, from programs and arguments; see :class:`Start`."""
    run, kinds = compiled.run, [str(kind) for kind in compiled.src.signature.values()]
    plain = all(kind.startswith("*") or kind in ("i32", "fp32") for kind in kinds[:given])
    plain &= all(kind == "constexpr" for kind in kinds[given:])
    plain &= given + TRITONS_OWN <= MOST_ARGUMENTS and run.num_ctas == 1
    memory = run.global_scratch_size or run.profile_scratch_size
    if not plain or memory or run.launch_cooperative_grid or run.launch_pdl:
        return None
    function, shared = int(compiled.function), int(compiled.metadata.shared)
    threads = 32 * int(compiled.metadata.num_warps)

    def words(programs: int, args: list[Any]) -> array[int]:
        return words_of(function, programs, threads, shared, args)

    return words
