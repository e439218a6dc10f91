"""Writing pictures: which files they may go to, and bytes that do not change from run to run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from apq_moo.files import check_suffix, replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PICTURES = (".png", ".svg", ".pdf")

# Without what says when, and by which version, a picture was drawn.
_METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
}


def picture_type(path: str | Path) -> str:
    """``png``, ``svg`` or ``pdf``, by the end of a file's name.

    Raises:
        UserError: it ends otherwise.
    """
    return check_suffix(path, *PICTURES).lstrip(".")


def log_ticks(axis: Axes) -> None:
    """A logarithmic scale with ticks at 1, 2 and 5 times powers of ten, written out."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def save_picture(figure: Figure, path: str | Path, dpi: int = 120) -> None:
    """Write a figure atomically.

    Args:
        figure: the figure.
        path: a PNG, SVG or PDF file.
        dpi: dots an inch of a PNG.

    Raises:
        UserError: another kind of file, or it cannot be written.
    """
    kind = picture_type(path)
    for axis in figure.axes:
        legend = axis.get_legend()
        texts = [axis.title, axis.xaxis.label, axis.yaxis.label]
        for text in texts + (legend.get_texts() if legend else []):
            text.set_parse_math(False)  # names may have a dollar sign
    if figure.get_suptitle():
        figure._suptitle.set_parse_math(False)  # type: ignore[attr-defined]
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=dpi, format=kind, metadata=_METADATA[kind])
