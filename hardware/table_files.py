"""Files of layer costs: the format of APQ's published table, and an own one of columns.

The published format is one JSON object from a layer's key to its ``latency`` in ms and ``energy``
in mJ, with ``head`` and ``tail`` for the fixed layers before and behind the searchable blocks. The
own one, ``.npz`` or ``.parquet``, adds units, spread, provenance, the bits that the device runs and
corrections found on whole networks.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from apq_moo.arrays import FloatArray
from apq_moo.errors import UserError, shown
from apq_moo.files import check_suffix, parse_json, read_bytes, read_json, replacing, write_text
from apq_moo.hardware.layer_table import (
    BLOCK,
    HEAD,
    LEAST,
    MOST,
    TAIL,
    Correction,
    LayerTable,
    parse_key,
)
from apq_moo.memory import limited_memory
from apq_moo.npz import HEADER, header_of, read_arrays
from apq_moo.reading import Must, read
from apq_moo.space.spec import COMPONENTS

FORMAT = "apq-moo layer costs 1"
SUFFIXES = (".json", ".npz", ".parquet")

_UNITS = {"latency": "ms", "energy": "mJ"}
_ENDS = {"stem": HEAD, "first_block": HEAD, "feature_mix": TAIL, "classifier": TAIL}
_MAX_BYTES = 2**27
_MAX_ROWS = 2**18
_MAX_COLUMNS = 64
_MAX_TEXT = 120
_KEY = b"apq_moo"
"""Of the header in a Parquet file's schema."""
_MAX_PARQUET = 2**24
_MAX_MEMORY = 2**29
"""Taken while a Parquet file is read, whose pages may claim other sizes than its description."""

_MAX_BITS = 64
_BitPair = Annotated[
    tuple[int, int],
    Must("a pair of integers", lambda pair: isinstance(pair, list) and len(pair) == 2),
]


@dataclass(frozen=True)
class _Header:
    format: str
    units: dict[str, str]
    constant: dict[str, float]
    bits: tuple[_BitPair, ...] | None
    corrections: dict[str, Correction]
    provenance: dict[str, Any]


def read_table(path: str | Path) -> LayerTable:
    """Read a table in either format; values may be anything (see :meth:`LayerTable.problems`).

    Raises:
        UserError: the file is missing, unreadable, malformed or of another version.
    """
    path = Path(path)
    suffix = check_suffix(path, *SUFFIXES)
    if suffix == ".json":
        return _from_published(read_json(path), str(path))
    columns, header = _read_npz(path) if suffix == ".npz" else _read_parquet(path)
    return _from_columns(columns, header, str(path))


def write_table(path: str | Path, table: LayerTable) -> None:
    """Write a table atomically; the suffix decides the format.

    Raises:
        UserError: another suffix, or it cannot be written.
    """
    suffix = check_suffix(path, *SUFFIXES)
    if suffix == ".json":
        write_text(path, json.dumps(published(table), indent=1) + "\n")
    elif suffix == ".npz":
        _write_npz(Path(path), table)
    else:
        _write_parquet(Path(path), table)


# -- the published format --------------------------------------------------------------------------


def published(table: LayerTable) -> dict[str, dict[str, float]]:
    """A table as the published format has it.

    Layers that the device cannot run are left out, as there. The fixed layers are summed up as
    ``head`` and ``tail``; what networks cost beside their layers goes to ``head``.
    """
    rows: dict[str, dict[str, float]] = {}
    ends: dict[str, dict[str, float]] = {
        end: dict.fromkeys(table.values, 0.0) for end in (HEAD, TAIL)
    }
    for cost, amount in table.constant.items():
        ends[HEAD][cost] += amount
    for i, (name, component) in enumerate(zip(table.names, table.components, strict=True)):
        costs = {cost: float(values[i]) for cost, values in table.values.items()}
        if component == BLOCK:
            if all(math.isfinite(value) for value in costs.values()):
                rows[name] = costs
        else:
            end = ends[_ENDS.get(component, component)]
            for cost, value in costs.items():
                end[cost] += value
    return rows | {end: costs for end, costs in ends.items() if any(costs.values())}


def _from_published(data: Any, source: str) -> LayerTable:
    if not isinstance(data, dict) or not data:
        raise UserError(f"{source}: expected an object from layers to their costs")
    first = next(iter(data.values()))
    units = {
        cost: unit for cost, unit in _UNITS.items() if isinstance(first, dict) and cost in first
    }
    if not units:
        raise UserError(f"{source}: {shown(next(iter(data)))} has no latency and no energy")
    values: dict[str, list[float]] = {cost: [] for cost in units}
    components = []
    for name, costs in data.items():
        try:
            if name not in {HEAD, TAIL}:
                _check_bits(parse_key(name))
        except UserError as error:
            raise UserError(f"{source}: {error}") from None
        if not isinstance(costs, dict) or set(costs) != set(units):
            raise UserError(f"{source}: {shown(name)} must have {' and '.join(units)}")
        for cost, value in costs.items():
            values[cost].append(_number(value, f"{source}: the {cost} of {shown(name)}"))
        components.append(name if name in {HEAD, TAIL} else BLOCK)
    arrays = {cost: np.array(column, dtype=np.float64) for cost, column in values.items()}
    return LayerTable(tuple(data), tuple(components), units, arrays)


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{what} must be a number, not {shown(value)}")
    return float(value)


def _check_bits(key: tuple[int, ...]) -> None:
    if not all(1 <= bits <= _MAX_BITS for bits in key[7:]):
        raise UserError(f"bits must lie between 1 and {_MAX_BITS}, not W{key[7]}A{key[8]}")


# -- columns ---------------------------------------------------------------------------------------


def _columns(table: LayerTable) -> dict[str, np.ndarray]:
    columns: dict[str, np.ndarray] = {
        "layer": np.array(table.names),
        "component": np.array(table.components),
    }
    for cost, values in table.values.items():
        columns[cost] = values
        if cost in table.spread:
            columns[f"{cost}_iqr"] = table.spread[cost]
    if table.repeats is not None:
        columns["repeats"] = table.repeats.astype(np.int64)
    return columns


def _header(table: LayerTable) -> str:
    return json.dumps(
        {
            "format": FORMAT,
            "units": dict(table.units),
            "constant": dict(table.constant),
            "bits": None if table.bits is None else [list(pair) for pair in table.bits],
            "corrections": {cost: asdict(item) for cost, item in table.corrections.items()},
            "provenance": dict(table.provenance),
        }
    )


def _write_npz(path: Path, table: LayerTable) -> None:
    header = np.frombuffer(_header(table).encode(), dtype=np.uint8)
    with replacing(path) as temporary, temporary.open("wb") as handle:
        np.savez_compressed(handle, header=header, **_columns(table))  # type: ignore[arg-type]


def _read_npz(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    columns = read_arrays(path, {"header": HEADER}, others="iufU", max_bytes=_MAX_BYTES)
    return columns, header_of(columns, path)


def _arrow() -> Any:
    try:
        import pyarrow
        import pyarrow.dataset
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(
            "parquet files need pyarrow: pip install 'apq-moo[parquet]', or use .npz"
        ) from error
    return pyarrow


def _write_parquet(path: Path, table: LayerTable) -> None:
    arrow = _arrow()
    columns = arrow.table(
        {
            name: arrow.array(values.tolist() if values.dtype.kind == "U" else values)
            for name, values in _columns(table).items()
        }
    ).replace_schema_metadata({_KEY: _header(table)})
    with replacing(path) as temporary, temporary.open("wb") as handle:  # of any name
        arrow.parquet.write_table(columns, handle)


def _read_parquet(path: Path) -> tuple[dict[str, np.ndarray], Any]:
    arrow = _arrow()
    content = read_bytes(path, _MAX_PARQUET)
    try:
        with limited_memory(_MAX_MEMORY):
            columns, header = _parquet_columns(arrow, content)
    except Exception as error:  # damaged files make pyarrow raise almost anything
        text = str(error) or type(error).__name__
        raise UserError(f"cannot read {path}: {text}") from error
    return columns, parse_json(header, f"the header of {path}")


def _parquet_columns(arrow: Any, content: bytes) -> tuple[dict[str, np.ndarray], bytes]:
    schema = arrow.parquet.read_schema(arrow.BufferReader(content))
    texts = [field.name for field in schema if arrow.types.is_string(field.type)]
    _check_parquet(arrow, schema, arrow.parquet.read_metadata(arrow.BufferReader(content)))
    # Texts stay numbers in a list of distinct ones, which unpack to no more than was read. Other
    # allocators keep room in store, up to which a bound on memory would not hold.
    format_ = arrow.dataset.ParquetFileFormat(dictionary_columns=texts)
    data = format_.make_fragment(arrow.BufferReader(content)).to_table(
        use_threads=False, memory_pool=arrow.system_memory_pool()
    )
    columns = {
        name: _texts_of(data[name]) if name in texts else data[name].to_numpy()
        for name in data.column_names
    }
    if _KEY not in (metadata := data.schema.metadata or {}):
        raise ValueError("it has no header, as this package writes one")
    return columns, metadata[_KEY]


def _check_parquet(arrow: Any, schema: Any, about: Any) -> None:
    """Check what a file says of itself, before any of its data is read."""
    if about.num_rows > _MAX_ROWS:
        raise ValueError(f"it has {about.num_rows} rows; this is no layer table")
    if len(schema) > _MAX_COLUMNS or len(set(schema.names)) < len(schema):
        raise ValueError("it has too many columns, or a column twice")
    kinds = arrow.types.is_string, arrow.types.is_integer, arrow.types.is_floating
    for field in schema:
        if not any(is_kind(field.type) for is_kind in kinds):
            raise ValueError(f"column {shown(field.name)} holds neither texts nor numbers")
    # No column's chunk is asked about itself: pyarrow aborts where one is malformed.
    sizes = [about.row_group(i).total_byte_size for i in range(about.num_row_groups)]
    if min(sizes, default=0) < 0 or sum(sizes) > _MAX_BYTES:
        raise ValueError(f"it unpacks to more than {_MAX_BYTES:,} bytes")


def _texts_of(column: Any) -> np.ndarray:
    """A column of few distinct texts, of which none is long."""
    if not len(column):
        return np.empty(0, dtype=np.str_)
    parts = []
    for chunk in column.chunks:
        distinct = chunk.dictionary.to_pylist()
        if chunk.null_count or any(text is None or len(text) > _MAX_TEXT for text in distinct):
            raise ValueError("a text is missing, or too long")
        parts.append(np.array(distinct, dtype=np.str_)[chunk.indices.to_numpy()])
    return np.concatenate(parts)


def _from_columns(columns: dict[str, np.ndarray], header: Any, source: str) -> LayerTable:
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise UserError(f"{source} is not a layer table of this version")
    found = read(_Header, header, source, "its header")
    units = _checked_units(found.units, source)
    for cost, correction in found.corrections.items():
        sane = LEAST <= correction.scale <= MOST and abs(correction.offset) <= MOST
        if cost not in units or not sane:
            raise UserError(f"{source}: the correction of {shown(cost)} is malformed")
    if any(abs(amount) > MOST for amount in found.constant.values()):
        raise UserError(f"{source}: a constant is larger than {MOST:g}")
    names, components = (_texts(columns, key, source) for key in ("layer", "component"))
    if len(components) != len(names):
        raise UserError(f"{source}: columns 'layer' and 'component' differ in length")
    if len(set(zip(components, names, strict=True))) != len(names):
        raise UserError(f"{source}: a layer occurs twice")
    for name, component in zip(names, components, strict=True):
        _check_row(name, component, source)
    n = len(names)
    return LayerTable(
        names,
        components,
        units,
        values={cost: _reals(columns, cost, n, source) for cost in units},
        spread={
            cost: _reals(columns, f"{cost}_iqr", n, source)
            for cost in units
            if f"{cost}_iqr" in columns
        },
        repeats=_reals(columns, "repeats", n, source) if "repeats" in columns else None,
        constant={cost: found.constant[cost] for cost in units if cost in found.constant},
        bits=found.bits,
        corrections=found.corrections,
        provenance=found.provenance,
    )


def _checked_units(units: dict[str, str], source: str) -> dict[str, str]:
    for cost, unit in units.items():
        if not cost.isidentifier():
            raise UserError(f"{source}: {shown(cost)} is no name of a cost")
        if unit != _UNITS.get(cost, unit):
            raise UserError(f"{source}: {cost} must be in {_UNITS[cost]}, not in {shown(unit)}")
    if not units:
        raise UserError(f"{source} has no costs")
    return units


def _texts(columns: dict[str, np.ndarray], key: str, source: str) -> tuple[str, ...]:
    column = columns.get(key)
    if column is None or column.ndim != 1 or (len(column) and column.dtype.kind != "U"):
        raise UserError(f"{source}: column {key!r} must hold texts")
    if len(column) > _MAX_ROWS:
        raise UserError(f"{source} has {len(column)} rows; this is no layer table")
    return tuple(map(str, column))


def _check_row(name: str, component: str, source: str) -> None:
    if component in {HEAD, TAIL} and name == component:
        return
    if component not in {BLOCK, *COMPONENTS}:
        raise UserError(f"{source}: {shown(component)} is no component of a network")
    try:
        _check_bits(parse_key(name))
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def _reals(columns: dict[str, np.ndarray], key: str, n: int, source: str) -> FloatArray:
    column = columns.get(key)
    if column is None or column.shape != (n,) or (n and column.dtype.kind not in "iuf"):
        raise UserError(f"{source}: column {key!r} must hold {n} numbers")
    return column.astype(np.float64)
