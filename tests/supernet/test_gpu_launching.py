"""How kernels are started and repeated, on kernels that only say so: the same on every machine."""

import ctypes
from functools import partial
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("triton")

from apq_moo.supernet.gpu import graphs, launching, starting


def test_what_comes_often_is_recorded_and_the_longest_unused_forgotten(monkeypatch):
    """On records that only count how often they are replayed."""
    replayed = []

    def record(work, uses):
        graph = SimpleNamespace(replay=lambda: replayed.append(float(work())))
        return SimpleNamespace(graph=graph, result=work(), uses=uses())

    monkeypatch.setattr(graphs, "_KEPT", 2)
    replays = graphs.Replays(torch.device("cuda"))
    monkeypatch.setattr(replays, "_record", record)

    def do(key):
        found = replays.do(key, lambda: torch.tensor(float(key)), tuple)
        assert float(found) == key

    for turn in range(graphs._SEEN_BEFORE):
        do(1)
        do(100 + turn)
    assert not replayed
    do(1)
    for key in (2, 3):
        for _ in range(graphs._SEEN_BEFORE + 1):
            do(key)
        do(1)
    assert replayed == [1, 2, 1, 3, 1]
    assert list(replays._recorded) == [3, 1]
    replays.allow(graphs._MOST_WORK + 1)
    do(3)
    assert len(replayed) == 5
    replays.allow(graphs._MOST_WORK)
    do(3)
    assert replayed[5:] == [3]
    held = replays.hold("x", torch.ones(2))
    assert not replays._recorded  # they read what lay elsewhere
    assert replays.hold("x", torch.zeros(2)) is held
    assert replays.hold("x", torch.zeros(3)) is not held


class Recorder:
    """A kernel that says how it is launched: by Triton's public interface, or past it."""

    packed_metadata = None
    launch_cooperative_grid = launch_pdl = False
    profile_scratch_size = 0
    num_ctas = 1
    metadata = SimpleNamespace(num_warps=4, shared=32)

    def __init__(self, scratch):
        kinds = {"x": "*fp32", "n": "i32", "FLAG": "constexpr"}
        self.src = SimpleNamespace(signature=kinds)
        self.function = 77
        self.launches = []
        self.run = self
        self.global_scratch_size = scratch

    def __getitem__(self, grid):
        def launch(*arguments, **_options):
            self.launches.append(("public", grid[0], len(arguments)))
            return self

        return launch

    def __call__(self, programs, _y, _z, stream, *rest):
        self.launches.append(("direct", programs, len(rest) - 5))

    def launch(self, programs, _y, _z, stream, *rest):
        self.launches.append(("at once", programs, len(rest) - 9))


@pytest.mark.parametrize(
    ("version", "scratch", "second"),
    [
        ("3.6.0", 0, "at once"),
        ("3.6.1+git", 8, "direct"),
        ("3.60.0", 0, "public"),
        ("3.8.0", 0, "public"),
    ],
)
def test_kernels_are_started_directly_by_versions_that_were_tried(
    monkeypatch, version, scratch, second
):
    kernel = Recorder(scratch)
    active = SimpleNamespace(get_current_device=lambda: 0, get_current_stream=lambda _: 7)
    driver = SimpleNamespace(driver=SimpleNamespace(active=active))
    triton = SimpleNamespace(__version__=version, runtime=driver)
    monkeypatch.setattr(launching, "triton", triton)
    launcher = launching.Launcher(torch.device("cpu"))
    x = torch.zeros(4)
    for programs in (3, 5):
        launcher.launch(kernel, programs, (x, 2), (True,))
    launcher.launch(kernel, 1, (x.half(), 2), (True,))  # another type is another kernel
    assert kernel.launches == [("public", 3, 3), (second, 5, 3), ("public", 1, 3)]


@pytest.mark.parametrize("kind", ["i32", "i64"])
def test_stretches_are_started_by_one_call_where_all_their_kernels_are_plain(monkeypatch, kind):
    """What is told the driver: other addresses of what varies, all else as it was."""
    kernel, told = Recorder(0), []
    kernel.src.signature["n"] = kind
    active = SimpleNamespace(get_current_device=lambda: 0, get_current_stream=lambda _: 7)
    driver = SimpleNamespace(driver=SimpleNamespace(active=active))
    triton = SimpleNamespace(__version__="3.6.0", runtime=driver)
    monkeypatch.setattr(launching, "triton", triton)
    start = lambda words, stream: told.append((list(words), stream))  # noqa: E731
    monkeypatch.setattr(launching, "starter_of_driver", lambda: start)
    launcher = launching.Launcher(torch.device("cpu"))
    stays, xs = torch.zeros(4), [torch.zeros(4) for _ in range(4)]

    def work(x):
        launcher.launch(kernel, 3, (x, 2), (True,))
        launcher.launch(kernel, 5, (stays, 6), (True,))

    for x in xs:
        launcher.do("key", [x], partial(work, x))
    launcher.flush()
    if kind == "i64":
        assert [one[0] for one in kernel.launches] == ["public", *["at once"] * 7]
        return
    assert len(kernel.launches) == 4
    (words, stream) = told.pop()
    assert not told
    assert stream == 7
    head = [77, 3, 128, 32, 4], [77, 5, 128, 32, 4]
    second = [*head[1], stays.data_ptr(), 6, 0, 0]
    first = ([*head[0], x.data_ptr(), 2, 0, 0] for x in xs[2:])
    assert words == [word for one in first for word in (*one, *second)]
    launcher.forget()
    launcher.do("key", xs[:1], partial(work, xs[0]))
    assert len(kernel.launches) == 6


def test_the_loop_in_c_hands_the_driver_what_the_words_say():
    address, number = ctypes.c_void_p, ctypes.c_uint
    kind = ctypes.CFUNCTYPE(
        ctypes.c_int, address, *[number] * 7, address, ctypes.POINTER(address), address
    )
    told = []

    @kind
    def launch(function, *rest):
        *sizes, stream, arguments, more = rest
        values = [ctypes.c_uint64.from_address(arguments[at]).value for at in range(4)]
        told.append((function, sizes, stream, values, more))
        return 0 if function != 9 else 700

    start = starting.starter(ctypes.cast(launch, address).value)
    words = starting.words_of(5, 3, 128, 64, [2**40, -2, 1.5])
    words.extend(starting.words_of(6, 0, 128, 64, [1, 2]))  # nothing to do
    words.extend(starting.words_of(7, 2, 256, 0, [8, 9]))
    start(words, 99)
    half = 0x3FC00000  # of 1.5 in single precision
    assert told == [
        (5, [3, 1, 1, 128, 1, 1, 64], 99, [2**40, 2**64 - 2, half, 0], None),
        (7, [2, 1, 1, 256, 1, 1, 0], 99, [8, 9, 0, 0], None),
    ]
    with pytest.raises(RuntimeError, match="error 700"):
        start(starting.words_of(9, 1, 32, 0, [0, 0]), 0)


def test_without_a_compiler_kernels_are_started_one_by_one(monkeypatch, capsys):
    monkeypatch.setenv("CC", "/nowhere/cc")
    monkeypatch.setattr(starting.ctypes, "CDLL", lambda _: SimpleNamespace(cuLaunchKernel=launch))
    launch = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 0)
    for of in (starting.starter_of_driver, starting._compiled):
        of.cache_clear()
    assert starting.starter_of_driver() is None
    assert "one by one" in capsys.readouterr().err
    for of in (starting.starter_of_driver, starting._compiled):
        of.cache_clear()
