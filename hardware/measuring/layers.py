"""Measuring every distinct layer of a space."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np

from apq_moo.errors import UserError
from apq_moo.files import check_suffix, growing
from apq_moo.hardware.layer_set import layer_set
from apq_moo.hardware.layer_table import LayerTable
from apq_moo.hardware.measuring.backends import Backend
from apq_moo.hardware.measuring.campaign import Callback, Campaign, CampaignFile
from apq_moo.hardware.measuring.timing import Rule
from apq_moo.hardware.table_files import SUFFIXES, write_table
from apq_moo.space import Layer, Space
from apq_moo.versions import versions

ROUNDS = 4
"""Visits to each layer, and at most twice as many."""

_SMALLEST_MS = 1e-6
"""What a layer costs at least, where it could not be told from an empty run."""

_CHAIN = 20
"""Further trivial operators, by which what an operator costs is told from what a run costs."""


def layers_of(space: Space, bits: tuple[int, ...]) -> list[Layer]:
    """Every distinct layer shape of a space, each at all the given bits.

    Those of the searchable blocks that some configuration needs, then the fixed layers.
    """
    found = layer_set(space)
    shapes: dict[tuple[int, ...], Layer] = {}
    for i in np.flatnonzero(found.needed()):
        layer = found.distinct[i]
        shape = (
            *(layer.c_in, layer.c_out, layer.size),
            *(layer.kernel, layer.stride, layer.groups),
        )
        shapes.setdefault(shape, layer)
    layers = [*shapes.values(), *space.fixed_layers()]
    return [replace(layer, w_bits=b, a_bits=b) for layer in layers for b in bits]


def measure_layers(
    space: Space,
    backend: Backend,
    path: Path,
    *,
    rule: Rule | None = None,
    seed: int = 0,
    callback: Callback | None = None,
) -> LayerTable:
    """Time every layer of a space on a backend and write the table.

    An unfinished measurement is kept in ``<path>.partial`` and continued by the same call.

    Args:
        space: the space.
        backend: what runs the layers.
        path: where the table goes.
        rule: how long to time each.
        seed: of the order.
        callback: see :meth:`Campaign.run`.

    Returns:
        The table. What a run takes beside its operators, by comparing chains of trivial ones, is
        taken off every layer, and stands as the constant that every network has beside its layers.

    Raises:
        UserError: the table exists already, the unfinished measurement is another's, or a file
            cannot be written.
    """
    if check_suffix(path, *SUFFIXES) == ".json":
        raise UserError(
            f"{path}: the published format has no place for spread and provenance; "
            "measure into .npz or .parquet"
        )
    if path.exists():
        raise UserError(f"-o {path} exists; remove it or name another file")
    rule = rule or Rule()
    begun = time.monotonic()
    layers = layers_of(space, backend.bits)
    chains = [partial(backend.trivial, n) for n in (1, 1 + _CHAIN)]
    runners = [partial(backend.layer, layer) for layer in layers]
    campaign = Campaign([*chains, *runners], rule, seed, ROUNDS)
    described = backend.describe()
    settings = {**described, "space": space.digest, "seed": seed, **asdict(rule)}
    file = CampaignFile(path.with_name(f"{path.name}.partial"), settings)
    with growing(path):
        campaign.run(file, callback)
    medians = campaign.medians()
    an_operator = (medians[1] - medians[0]) / _CHAIN
    a_run = max(float(medians[0] - an_operator), 0.0)
    pairs = {(bits, bits) for bits in backend.bits}
    table = LayerTable(
        names=tuple(layer.key for layer in layers),
        components=tuple(layer.component for layer in layers),
        units={"latency": "ms"},
        values={"latency": np.maximum(medians[2:] - a_run, _SMALLEST_MS)},
        spread={"latency": campaign.quartile_ranges()[2:]},
        repeats=campaign.counts()[2:],
        constant={"latency": a_run},
        bits=tuple(sorted(pairs)),
        provenance={
            "measured": described,
            "space": {"name": space.name, "digest": space.digest},
            "rule": asdict(rule),
            "seed": seed,
            "unsettled": sum(not campaign.settled(i) for i in range(len(layers) + 2)),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - begun, 1),
            "versions": versions(),
        },
    )
    write_table(path, table)
    file.path.unlink(missing_ok=True)
    return table
