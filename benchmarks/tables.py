"""Scores of a benchmark as tables for papers and pages: Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence

from apq_moo.benchmarks.analysis import Part, ProblemResults, Score
from apq_moo.benchmarks.statistics import Ranks

_TITLES = {"front": "all evaluated", "population": "final population"}


SHOWN = ("hv", "igd+", "epsilon")
SHOWN_IF_TRUE = ("regret", "coverage")


def indicators_of(problem: ProblemResults) -> list[str]:
    """The indicators that tables show: more where the true front is known."""
    return [*SHOWN, *(SHOWN_IF_TRUE if problem.known_kind == "true" else ())]


def _cell(score: Score) -> str:
    """Median and quartiles, or that no run came to its end."""
    if score.summary is None:
        return "failed"
    found = score.summary
    return f"{found.median:.4f} [{found.q1:.4f}, {found.q3:.4f}]"


def _marks(score: Score) -> str:
    """How many algorithms are significantly better and worse."""
    return f"{len(score.worse_than)}/{len(score.better_than)}"


def _columns(
    problem: ProblemResults, indicators: Sequence[str], part: Part
) -> tuple[list[int], dict[str, list[Score]]]:
    """Rows by the first indicator, the best first, and every column."""
    columns = {name: problem.scores(name, part) for name in indicators}
    first = columns[indicators[0]]
    order = sorted(range(len(first)), key=lambda i: _worth(first[i], indicators[0]))
    return order, columns


def _worth(score: Score, indicator: str) -> float:
    from apq_moo.benchmarks.scores import INDICATORS

    if score.summary is None:
        return float("inf")
    median = score.summary.median
    return -median if INDICATORS.get(indicator).larger_is_better else median


def markdown_table(problem: ProblemResults, indicators: Sequence[str], part: Part = "front") -> str:
    """One problem's scores as a Markdown table.

    Medians and quartiles over seeds; bold where no algorithm is significantly better. The last
    column counts the algorithms that are significantly better and worse by the first indicator.

    Args:
        problem: its results.
        indicators: names of :data:`apq_moo.benchmarks.scores.INDICATORS`.
        part: what is scored.

    Raises:
        UserError: an unknown indicator.
    """
    order, columns = _columns(problem, indicators, part)
    lines = [
        f"{problem.title}; {_TITLES[part]}",
        "",
        f"| algorithm | {' | '.join(indicators)} | better/worse | seeds |",
        f"|---|{'---|' * (len(indicators) + 2)}",
    ]
    for i in order:
        cells = []
        for name in indicators:
            score = columns[name][i]
            text = _cell(score)
            cells.append(f"**{text}**" if score.best else text)
        first = columns[indicators[0]][i]
        seeds = f"{len(first.values)}" + (f" ({first.failed} failed)" if first.failed else "")
        lines.append(f"| {first.label} | {' | '.join(cells)} | {_marks(first)} | {seeds} |")
    return "\n".join(lines)


def latex_table(problem: ProblemResults, indicators: Sequence[str], part: Part = "front") -> str:
    """The same as a LaTeX table for the package ``booktabs``."""
    order, columns = _columns(problem, indicators, part)
    head = " & ".join(_escaped(name) for name in ("algorithm", *indicators, "better/worse"))
    lines = [
        r"\begin{table}",
        rf"\caption{{{_escaped(problem.title)}; {_TITLES[part]}. Medians and quartiles.}}",
        rf"\begin{{tabular}}{{l{'r' * len(indicators)}c}}",
        r"\toprule",
        head + r" \\",
        r"\midrule",
    ]
    for i in order:
        cells = []
        for name in indicators:
            score = columns[name][i]
            text = _cell(score)
            cells.append(rf"\textbf{{{text}}}" if score.best else text)
        first = columns[indicators[0]][i]
        lines.append(" & ".join([_escaped(first.label), *cells, _marks(first)]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"])


def ranks_table(ranks: Ranks) -> str:
    """Mean ranks over problems as a Markdown table, the best first."""
    order = sorted(range(len(ranks.names)), key=lambda i: ranks.mean_ranks[i])
    rows = [f"| {ranks.names[i]} | {ranks.mean_ranks[i]:.2f} |" for i in order]
    return "\n".join(["| algorithm | mean rank |", "|---|---|", *rows])


_SPECIAL = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
}


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(character, character) for character in text)
