"""One network as a file: the package's own JSON, or that of the code released with APQ."""

from __future__ import annotations

from pathlib import Path

from apq_moo.errors import UserError
from apq_moo.files import read_json, write_json
from apq_moo.space import Space, Subnet, embed, load_space, superspace
from apq_moo.space.released import in_two_parts, is_released

JSON, APQ = "json", "apq"
NAMES = {JSON: "policy.json", APQ: "arch"}
"""By format, what a policy's file is called where its user names none.

The released code looks for ``arch`` in the folder that it is given.
"""

PUBLISHED = "imagenet"
"""The space of the released code."""


def check_format(name: str) -> None:
    """Refuse an unknown format.

    Raises:
        UserError: it is none of :data:`NAMES`.
    """
    if name not in NAMES:
        raise UserError(f"format={name}: write one of {', '.join(NAMES)}")


def write_policy(path: str | Path, space: Space, subnet: Subnet, form: str = JSON) -> bool:
    """Write a network.

    Args:
        path: the file.
        space: the network's; of a subspace, the released format takes the larger one's blocks.
        subnet: a member of it.
        form: one of :data:`NAMES`.

    Returns:
        Whether whoever reads the format can evaluate the network: the released code knows those of
        :data:`PUBLISHED` only.

    Raises:
        UserError: an unknown format, a network of another space, or the file cannot be written.
    """
    check_format(form)
    X = space.encode([subnet])
    if form == JSON:
        write_json(path, subnet.to_dict())
        return True
    (released,) = superspace(space).released(embed(space, X))
    write_json(path, in_two_parts(released))
    published = load_space(PUBLISHED)
    try:
        return bool(published.valid(published.encode([released]))[0])
    except UserError:
        return False


def read_policy(path: str | Path, space: str | None = None) -> tuple[Space, Subnet]:
    """Read a network, in either format, and find its space.

    Args:
        path: the file.
        space: the network's; by default the preset that the file names, or :data:`PUBLISHED` in the
            released format, which names none.

    Raises:
        UserError: the file is missing or malformed, or its network is of another space.
    """
    data = read_json(path)
    if not is_released(data):
        subnet = Subnet.from_dict(data)
        loaded = load_space(space or subnet.space)
        loaded.encode([subnet])
        return loaded, subnet
    loaded = load_space(space or PUBLISHED)
    (subnet,) = loaded.decode(loaded.encode([data]))
    return loaded, subnet
