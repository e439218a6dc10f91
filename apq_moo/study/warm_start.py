"""Networks to begin a search with, instead of random ones."""

from __future__ import annotations

from pathlib import Path

from apq_moo.algorithms.exact.search import AdditiveAccuracy, ExactSearch
from apq_moo.arrays import IntArray
from apq_moo.errors import UserError
from apq_moo.files import is_folder, parse_json, read_csv, read_json
from apq_moo.problems import APQProblem
from apq_moo.space import Space, belonging, load_space, refuse_other_space
from apq_moo.space.released import is_released
from apq_moo.study.inputs import SPACE

EXACT = "exact"
"""Stands for the exact front of the additive surrogate."""


def source_file(source: str) -> Path | None:
    """The file that a source is read from, or None for :data:`EXACT`."""
    if source == EXACT:
        return None
    path = Path(source)
    return path / "front.csv" if is_folder(path) else path


def read_networks(source: str, space: Space) -> IntArray:
    """The networks of a run's folder, of a ``front.csv``, or of a policy's JSON.

    Returns:
        Canonical genotypes, shape ``(n, n_var)``.

    Raises:
        UserError: it cannot be read, holds no networks of the space, or is of a run of a space that
            has changed since.
    """
    path = source_file(source)
    assert path is not None
    if (run := path.with_name("run.json")).is_file():
        record = read_json(run)
        data = record.get("data") if isinstance(record, dict) else None
        if isinstance(data, dict) and SPACE in data:
            copy = run.with_name(f"{SPACE}.toml")
            config = record.get("config")
            said = {"space": config.get("space") if isinstance(config, dict) else None}
            said |= belonging(load_space(copy)) if copy.is_file() else {}
            said["digest"] = data[SPACE]
            refuse_other_space(said, space, f"warm_start={source}: that run")
    if path.suffix in {".json", ""}:
        data = read_json(path)
        several = isinstance(data, list) and not is_released(data)
        return space.encode(data if several else [data])
    columns = read_csv(path)
    if "subnet" not in columns:
        raise UserError(f"{path} is no table with a column 'subnet'")
    subnets = [parse_json(text, f"a subnet in {path}") for text in columns["subnet"]]
    if not subnets:
        raise UserError(f"{path} holds no networks to start from")
    return space.encode(subnets)


def exact_networks(problem: APQProblem, surrogate: AdditiveAccuracy) -> IntArray:
    """The exact front of a surrogate under a problem's limits.

    Raises:
        UserError: the problem has no accuracy to maximise, or costs that do not add up.
    """
    search = ExactSearch(surrogate)
    search.setup(problem, seed=0)
    return search.X
