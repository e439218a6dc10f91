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
from apq_moo.benchmarks.report import plots, sections, systems
from apq_moo.benchmarks.systems.comparison import FILE as COMPARISON
from apq_moo.files import is_file, read_json, write_text


def write_report(folder: str | Path, out: str | Path) -> None:
    """Write a self-contained page about a run, a benchmark or a comparison, finished or not.

    Args:
        folder: of any of these.
        out: the HTML file.

    Raises:
        UserError: the folder holds none, nothing has come to its end, or the file cannot be
            written.
    """
    if is_file(Path(folder) / COMPARISON):
        title, body = systems.contents(folder)
    else:
        title, body = _contents(Analysis.read(folder))
    _write(out, title, body)


def _contents(analysis: Analysis) -> tuple[str, str]:
    """Title and body of the page of a run or a benchmark."""
    parts = [_head(analysis), sections.failures(analysis)]
    parts += [_problem(problem, number) for number, problem in enumerate(analysis.problems)]
    parts.append(sections.ranks(analysis))
    audit = analysis.folder / AUDIT
    if audit.is_file():
        parts.append(sections.audit(read_json(audit)))
    parts += [sections.costs(analysis), sections.reproducing(analysis)]
    return _title(analysis), "\n".join(part for part in parts if part)


def _write(out: str | Path, title: str, body: str) -> None:
    from plotly.offline import get_plotlyjs

    plotly, script = get_plotlyjs(), _text("page.js")
    page = Template(_text("page.html")).substitute(
        policy=_policy(plotly, script),
        title=escape(title),
        style=_text("style.css"),
        body=body,
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


def _problem(problem: ProblemResults, number: int) -> str:
    name = f"problem{number}"
    parts = [f'<h2 id="{name}">{escape(problem.title)}</h2>', "<h3>Fronts</h3>"]
    many = any(len(problem.of(label)) > 1 for label in problem.labels)
    if many:
        parts.append('<p class="note">Of each algorithm, the run of median hypervolume.</p>')
    found = plots.members(problem)
    parts += [
        sections.plot(f"{name}-front{i}", plot, subnet=True)
        for i, plot in enumerate(plots.front_plots(problem, found), 1)
    ]
    parts.append(sections.data(f"{name}-networks", plots.networks(problem, found)))
    parts += [
        "<h3>Hypervolume over evaluations</h3>",
        sections.plot(f"{name}-curve", plots.curves(problem)),
    ]
    if many and len(problem.objectives) == 2:
        parts += [
            "<h3>Attainment surfaces</h3>",
            '<p class="note">What half of the runs reached, and a quarter and three quarters '
            "(dotted).</p>",
            sections.plot(f"{name}-attainment", plots.attainment(problem)),
        ]
    parts += ["<h3>Scores of all that was evaluated</h3>", sections.scores(problem, "front")]
    if any(len(o.population) for label in problem.labels for o in problem.of(label)):
        parts.append("<h3>Scores of the final population</h3>")
        parts.append(sections.scores(problem, "population"))
    parts.append(sections.reading(problem))
    return "\n".join(parts)
