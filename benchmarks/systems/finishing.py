"""The best networks of a comparison fine-tuned, the same for all systems, each network once."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from apq_moo.arrays import IntArray
from apq_moo.benchmarks.systems.settings import Settings
from apq_moo.deadlines import Deadline, OutOfTimeError
from apq_moo.errors import UserError
from apq_moo.files import is_file
from apq_moo.npz import read_arrays, write_arrays
from apq_moo.space import load_space
from apq_moo.workers import in_workers

FILE = "finished.npz"


@dataclass(frozen=True)
class Finished:
    """A network that was fine-tuned.

    Attributes:
        acc_val: accuracy in percent on validation images; that before, if it was higher.
        acc_test: on test images, of the same weights.
        seconds: of the fine-tuning.
    """

    acc_val: float
    acc_test: float
    seconds: float


_Key = tuple[int, bytes]


def known_finished(folder: Path, settings: Settings) -> Mapping[bytes, Finished]:
    """What was fine-tuned earlier, for as many epochs as are asked for, by canonical genotype.

    Raises:
        UserError: the file is damaged.
    """
    known = _read(folder / FILE, settings)
    return {x: found for (epochs, x), found in known.items() if epochs == settings.finish}


def _read(path: Path, settings: Settings) -> dict[_Key, Finished]:
    if not is_file(path):
        return {}
    arrays = read_arrays(path, {"X": ("iu", 2), "epochs": ("iu", 1), "found": ("f", 2)})
    X, epochs, found = (arrays[name] for name in ("X", "epochs", "found"))
    if (
        found.shape != (len(X), 3)
        or len(epochs) != len(X)
        or not np.isfinite(found).all()
        or (found < 0).any()
        or (found[:, :2] > 100).any()
    ):
        raise UserError(f"{path} is damaged: its arrays do not belong together; delete it")
    X = X.astype(np.int64)
    if len(X):
        load_space(settings.space).check(X)
    rows = zip(X, epochs.tolist(), found.tolist(), strict=True)
    return {(n, x.tobytes()): Finished(*row) for x, n, row in rows}


def _write(path: Path, known: Mapping[_Key, Finished]) -> None:
    found = [(one.acc_val, one.acc_test, one.seconds) for one in known.values()]
    arrays = {
        "X": np.array([np.frombuffer(x, dtype=np.int64) for _, x in known]),
        "epochs": np.array([epochs for epochs, _ in known], dtype=np.int64),
        "found": np.array(found, dtype=np.float64),
    }
    write_arrays(path, arrays)


def finish(
    folder: Path,
    settings: Settings,
    networks: Iterable[IntArray],
    *,
    jobs: int = 1,
    on: Sequence[str] = (),
    callback: Callable[[int, int], None] = lambda _done, _total: None,
    deadline: Deadline | None = None,
) -> None:
    """Fine-tune what was not yet, and keep what came of it.

    By the same settings for all systems, see :func:`apq_moo.deploy.tuning.finetune`.

    Args:
        folder: of the comparison.
        settings: whose space, assets and number of epochs; nothing is done for 0.
        networks: canonical genotypes, shape ``(n_var,)`` each.
        jobs: fine-tunings at a time.
        on: where torch trains; fine-tunings take turns on these. By default on the CPU.
        callback: told ``(networks done, in all)``.
        deadline: when fine-tunings that have not ended are left.

    Raises:
        UserError: networks cannot be fine-tuned, or what was kept is damaged.
    """
    if not settings.finish:
        return
    path = folder / FILE
    known = _read(path, settings)
    new = {x.tobytes(): x for x in networks if (settings.finish, x.tobytes()) not in known}
    if not new:
        return
    places = on or ("cpu",)
    calls = [
        (settings.space, settings.assets, settings.finish, x, places[i % len(places)], deadline)
        for i, x in enumerate(new.values())
    ]
    callback(0, len(calls))
    with closing(in_workers(_finish_one, calls, jobs)) as finished:
        done = 0
        for x, found in finished:
            if found is None:  # out of time
                continue
            done += 1
            known[settings.finish, x.tobytes()] = found
            _write(path, known)
            callback(done, len(calls))


def _finish_one(
    name: str, assets: str | None, epochs: int, x: IntArray, on: str, deadline: Deadline | None
) -> tuple[IntArray, Finished | None]:
    from apq_moo.data import load_images
    from apq_moo.data.assets import find_assets
    from apq_moo.deploy.tuning import TuningConfig, finetune
    from apq_moo.problems.trained import supernet_assets

    space = load_space(name)
    (subnet,) = space.decode(x[None])
    images = load_images(supernet_assets(find_assets(space, assets)).images)
    size = min(TuningConfig.batch_size, len(images.train))
    config = TuningConfig(steps=epochs * math.ceil(len(images.train) / size))

    def tell(_done: int, _total: int) -> None:
        if deadline is not None:
            deadline.check()

    try:
        tell(0, 0)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "network"
            tuned = finetune(space, subnet, out, config, assets=assets, on=on, callback=tell)
    except OutOfTimeError:
        return x, None
    kept = tuned.tuned if tuned.gained else tuned.inherited
    return x, Finished(kept["validation"], kept["test"], tuned.seconds)
