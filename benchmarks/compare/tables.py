"""Scores of a benchmark as tables for papers and pages: Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from apq_moo.benchmarks.compare.analysis import Part, ProblemResults, Score
from apq_moo.benchmarks.compare.scores import INDICATORS

_TITLES = {"front": "all evaluated", "population": "final population"}


SHOWN = ("hv", "igd+", "epsilon")
SHOWN_IF_TRUE = ("regret", "coverage")


def indicators_of(problem: ProblemResults) -> list[str]:
    """The indicators that tables show: more where the true front is known."""
    return [*SHOWN, *(SHOWN_IF_TRUE if problem.known_kind == "true" else ())]


def cell_text(score: Score, *, quartiles: bool = True) -> str:
    """Median and quartiles, or why there is none."""
    found = score.summary
    if found is None:
        return "nothing found" if score.finished else "no run ended"
    spread = f" [{found.q1:.4f}, {found.q3:.4f}]" if quartiles else ""
    return f"{found.median:.4f}{spread}"


def seeds_text(score: Score) -> str:
    """How many runs came to their end, and how many did not."""
    return f"{score.finished}" + (f" ({score.failed} failed or missing)" if score.failed else "")


def caution(problem: ProblemResults) -> str:
    """That nothing can be significant, where that is so; else nothing."""
    needed = problem.seeds_needed
    if not needed or len(problem.labels) < 2:
        return ""
    return (
        f"So few runs cannot differ significantly, whatever they find: {len(problem.labels)} "
        f"algorithms need {needed} seeds."
    )


def _marks(score: Score) -> str:
    """How many algorithms are significantly better and worse."""
    return f"{len(score.worse_than)}/{len(score.better_than)}"


def _head(indicators: Sequence[str]) -> list[str]:
    return ["algorithm", *indicators, "better/worse", "seeds"]


def _rows(
    problem: ProblemResults, indicators: Sequence[str], part: Part, bold: Callable[[str], str]
) -> list[list[str]]:
    """Cells of each algorithm, the best by the first indicator first."""
    columns = [problem.scores(name, part) for name in indicators]
    rows = []
    for scores in sorted(zip(*columns, strict=True), key=lambda row: _worth(row[0], indicators[0])):
        first = scores[0]
        cells = [bold(cell_text(score)) if score.best else cell_text(score) for score in scores]
        rows.append([first.label, *cells, _marks(first), seeds_text(first)])
    return rows


def _worth(score: Score, indicator: str) -> float:
    if score.summary is None:
        return float("inf")
    median = score.summary.median
    return -median if INDICATORS.get(indicator).larger_is_better else median


def markdown_table(problem: ProblemResults, indicators: Sequence[str], part: Part = "front") -> str:
    """One problem's scores as a Markdown table.

    Medians and quartiles over seeds; bold where no algorithm is significantly better, if one could
    be. The column before the last counts the algorithms that are significantly better and worse by
    the first indicator.

    Args:
        problem: its results.
        indicators: names of :data:`apq_moo.benchmarks.compare.scores.INDICATORS`.
        part: what is scored.

    Raises:
        UserError: an unknown indicator.
    """
    lines = [
        f"{problem.title}; {_TITLES[part]}",
        "",
        f"| {' | '.join(_head(indicators))} |",
        f"|---|{'---|' * (len(indicators) + 2)}",
    ]
    rows = _rows(problem, indicators, part, lambda text: f"**{text}**")
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, "", caution(problem)] if caution(problem) else lines)


def latex_table(problem: ProblemResults, indicators: Sequence[str], part: Part = "front") -> str:
    """The same as a LaTeX table for the package ``booktabs``."""
    rows = _rows(problem, indicators, part, lambda text: rf"\textbf{{{text}}}")
    marks = (
        caution(problem)
        or "Bold: no algorithm is significantly better; better/worse: how many are, by the first "
        "column."
    )
    lines = [
        r"\begin{table}",
        rf"\caption{{{_escaped(problem.title)}; {_TITLES[part]}. Medians and quartiles. {marks}}}",
        rf"\begin{{tabular}}{{l{'r' * len(indicators)}cc}}",
        r"\toprule",
        " & ".join(_head(indicators)) + r" \\",
        r"\midrule",
        *(" & ".join([_escaped(row[0]), *row[1:]]) + r" \\" for row in rows),
    ]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"])


_SPECIAL = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
}


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(character, character) for character in text)
