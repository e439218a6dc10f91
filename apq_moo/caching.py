"""Where results are kept that can be had again."""

from __future__ import annotations

import os
from pathlib import Path

from apq_moo.errors import UserError


def cache_folder() -> Path:
    """``$APQ_MOO_CACHE``, else ``apq-moo`` under ``$XDG_CACHE_HOME`` or ``~/.cache``.

    Raises:
        UserError: there is none of these.
    """
    if "APQ_MOO_CACHE" in os.environ:
        return Path(os.environ["APQ_MOO_CACHE"])
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # neither HOME nor an entry of passwd
        raise UserError(
            "there is no home folder for a cache; set APQ_MOO_CACHE to a folder of yours"
        ) from None
    return Path(base) / "apq-moo"
