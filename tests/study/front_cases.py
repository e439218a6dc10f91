"""Searches whose ``front.csv`` was frozen: every algorithm on every kind of accuracy and limit.

Run as a script it writes ``tests/data/fronts.json`` again; what that holds is behaviour that
changes of structure must leave as it is, to nine digits.
"""

import csv
import hashlib
import json
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

ALGORITHMS = (
    "apq-ga",
    "apq-ga-released",
    "nsga2",
    "random",
    "nsga3",
    "unsga3",
    "moead",
    "sms-emoa",
    "age-moea2",
    "rvea",
    "spea2",
    "ctaea",
    "regularized-evolution",
    "local-search",
    "exact",
)

PUBLISHED = "published.pt"
"""In the folder where the searches run: a checkpoint in the released form, with fixed weights."""

KINDS = {
    "tiny": ("--space", "tiny", "--predictor", "table"),
    "digits-mlp": ("--space", "digits", "--predictor", "mlp"),
    "digits-xgboost": ("--space", "digits", "--predictor", "xgboost-stacked"),
    "fashion": (),
    "fashion-limit": ("--max", "latency=0.2", "--max", "size=120"),
    "fashion-three": ("--objectives", "acc,latency,size"),
    "imagenet": ("--space", "imagenet", "--predictor", PUBLISHED, "--max", "latency=12.8"),
    "fashion-uniform": ("--max", "latency=0.2", "--max", "size=120", "--start", "uniform"),
}

UNIFORM = ("apq-ga", "apq-ga-released", "nsga2", "random", "regularized-evolution")
"""Algorithms that are searched with by a uniform start too."""

FILE = Path(__file__).parents[1] / "data" / "fronts.json"


def arguments(kind: str, algo: str) -> list[str]:
    """The options of a search, without its folder."""
    small = ["--pop-size", "10", "--sweep", "3", "--budget", "240", "--seed", "5"]
    return ["run", "--algo", algo, *KINDS[kind], *small]


def cases() -> list[tuple[str, str]]:
    """Kinds and algorithms; ``exact`` needs samples, which imagenet has none of."""
    some = {
        "fashion-uniform": UNIFORM,
        "imagenet": [name for name in ALGORITHMS if name != "exact"],
    }
    return [(kind, algo) for kind in KINDS for algo in some.get(kind, ALGORITHMS)]


def write_published(folder: Path) -> None:
    """Write a checkpoint in the released form.

    Its weights are multiples of a power of two, so that no processor rounds their sums otherwise.
    """
    rng = np.random.default_rng(2020)
    sizes = {"layers.0.0": (400, 520), "layers.1.0": (400, 400), "layers.2.0": (400, 400)}
    sizes |= {"quantize_fc": (400, 252), "regressor": (1, 400)}
    weights = {}
    for name, (n_out, n_in) in sizes.items():
        values = rng.integers(-16, 17, (n_out, n_in)) / 256
        weights[f"{name}.weight"] = torch.tensor(values, dtype=torch.float32)
        weights[f"{name}.bias"] = torch.tensor(rng.integers(0, 9, n_out) / 256).float()
    weights["regressor.weight"] /= 64
    weights["regressor.bias"] += 0.6
    torch.save(weights, folder / PUBLISHED)


def summary(front: Path) -> dict[str, object]:
    """What is frozen of a ``front.csv``: a checksum, and its ends for a reader's eyes.

    Numbers are rounded to 9 digits: processors differ in the last ones of what their vector
    instructions sum and raise to powers, and a search only in how it ranks equals.
    """
    rows = [
        {name: _rounded(text) for name, text in row.items()}
        for row in csv.DictReader(front.read_text().splitlines())
    ]
    ends = [{k: v for k, v in row.items() if k != "subnet"} for row in (rows[0], rows[-1])]
    checksum = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    return {"sha256": checksum, "rows": len(rows), "ends": ends}


def _rounded(text: str) -> str:
    try:
        return f"{float(text):.9g}"
    except ValueError:
        return text


def main() -> None:
    """Search, and write what came of it."""
    from apq_moo.cli import main as command

    with tempfile.TemporaryDirectory() as folder:
        os.environ["APQ_MOO_CACHE"] = folder
        os.chdir(folder)
        write_published(Path(folder))
        frozen = {}
        for kind, algo in cases():
            name = f"{kind}/{algo}"
            with suppress(SystemExit):
                command([*arguments(kind, algo), "--out", name])
            frozen[name] = summary(Path(name) / "front.csv")
            sys.stderr.write(f"{name}: {frozen[name]['rows']} rows\n")
        FILE.write_text(json.dumps(frozen, indent=1) + "\n")


if __name__ == "__main__":
    main()
