"""Where results are kept that can be had again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``$APQ_MOO_CACHE``, else ``apq-moo`` under ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if "APQ_MOO_CACHE" in os.environ:
        return Path(os.environ["APQ_MOO_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "apq-moo"
