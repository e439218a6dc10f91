"""Putting the page together."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from apq_moo.benchmarks.compare.analysis import Analysis, ProblemResults
from apq_moo.benchmarks.compare.audit import FILE as AUDIT
from apq_moo.benchmarks.report import plots, sections
from apq_moo.files import read_json, write_text


def write_report(folder: str | Path, out: str | Path) -> None:
    """Write a self-contained page about a run or a benchmark, finished or not.

    Args:
        folder: of either.
        out: the HTML file.

    Raises:
        UserError: the folder holds neither, nothing has come to its end, or the file cannot be
            written.
    """
    from plotly.offline import get_plotlyjs

    analysis = Analysis.read(folder)
    parts = [_head(analysis), sections.failures(analysis)]
    parts += [_problem(problem, number) for number, problem in enumerate(analysis.problems)]
    parts.append(sections.ranks(analysis))
    audit = analysis.folder / AUDIT
    if audit.is_file():
        parts.append(sections.audit(read_json(audit)))
    parts += [sections.costs(analysis), sections.reproducing(analysis)]
    plotly, script = get_plotlyjs(), _text("page.js")
    page = Template(_text("page.html")).substitute(
        policy=_policy(plotly, script),
        title=escape(_title(analysis)),
        style=_text("style.css"),
        body="\n".join(part for part in parts if part),
        plotly=plotly,
        script=script,
    )
    write_text(out, page)


def _policy(*scripts: str) -> str:
    """The content security policy: nothing is loaded, and no other script runs.

    plotly.js writes styles of its own, which differ from version to version; the icon is a `data:`.
    """
    hashes = (b64encode(sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{found}'" for found in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _text(name: str) -> str:
    return (files("apq_moo.benchmarks.report") / name).read_text(encoding="utf-8")


def _title(analysis: Analysis) -> str:
    labels = {label for problem in analysis.problems for label in problem.labels}
    spaces = ", ".join(dict.fromkeys(problem.space.name for problem in analysis.problems))
    if len(labels) == 1:
        return f"{labels.pop()} on {spaces}"
    return f"{len(labels)} algorithms on {spaces}"


def _head(analysis: Analysis) -> str:
    problems = analysis.problems
    links = "".join(f'<a href="#problem{i}">{escape(p.title)}</a>' for i, p in enumerate(problems))
    seeds = f"{analysis.seeds} seed{'s' if analysis.seeds > 1 else ''}"
    return (
        f"<h1>{escape(_title(analysis))}</h1>"
        f"<p>{len(problems)} problem{'s' if len(problems) > 1 else ''}, {seeds} of each algorithm. "
        "Tap or point at a network of a front to see its layers and bits; tap a name in a legend "
        f"to hide it.</p>{sections.compared(analysis)}<nav>{links}</nav>"
    )


def _plot(name: str, plot: plots.Plot, *, subnet: bool = False) -> str:
    hint = '<p class="note">Point at a network, or tap it, to see its layers and bits here.</p>'
    box = f'<div class="subnet" id="{name}-subnet">{hint}</div>' if subnet else ""
    return f'<div class="plot" id="{name}"></div>{box}' + _data(f"{name}-data", plot)


def _data(name: str, value: plots.Plot) -> str:
    return f'<script type="application/json" id="{name}">{plots.as_json(value)}</script>'


def _problem(problem: ProblemResults, number: int) -> str:
    name = f"problem{number}"
    parts = [f'<h2 id="{name}">{escape(problem.title)}</h2>', "<h3>Fronts</h3>"]
    many = any(len(problem.of(label)) > 1 for label in problem.labels)
    if many:
        parts.append('<p class="note">Of each algorithm, the run of median hypervolume.</p>')
    found = plots.members(problem)
    parts += [
        _plot(f"{name}-front{i}", plot, subnet=True)
        for i, plot in enumerate(plots.front_plots(problem, found), 1)
    ]
    parts.append(_data(f"{name}-networks", plots.networks(problem, found)))
    parts += [
        "<h3>Hypervolume over evaluations</h3>",
        _plot(f"{name}-curve", plots.curves(problem)),
    ]
    if many and len(problem.objectives) == 2:
        parts += [
            "<h3>Attainment surfaces</h3>",
            '<p class="note">What half of the runs reached, and a quarter and three quarters '
            "(dotted).</p>",
            _plot(f"{name}-attainment", plots.attainment(problem)),
        ]
    parts += ["<h3>Scores of all that was evaluated</h3>", sections.scores(problem, "front")]
    if any(len(o.population) for label in problem.labels for o in problem.of(label)):
        parts.append("<h3>Scores of the final population</h3>")
        parts.append(sections.scores(problem, "population"))
    parts.append(sections.reading(problem))
    return "\n".join(parts)
