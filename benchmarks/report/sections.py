"""Tables and texts of the page."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from apq_moo.benchmarks.compare.analysis import Analysis, Part, ProblemResults, Score
from apq_moo.benchmarks.compare.metering import co2e_kg, country
from apq_moo.benchmarks.compare.scores import INDICATORS
from apq_moo.benchmarks.compare.statistics import a12
from apq_moo.benchmarks.compare.tables import caution, cell_text, indicators_of, seeds_text
from apq_moo.benchmarks.report import plots
from apq_moo.data.assets import find_assets
from apq_moo.errors import UserError, escaped


class Best(str):
    """A cell that stands out in a table."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table of texts."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = []
    for row in rows:
        cells = (
            f"<td{' class=best' if isinstance(cell, Best) else ''}>{escape(cell)}</td>"
            for cell in row
        )
        body.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr>{top}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def plot(name: str, figure: plots.Plot, *, subnet: bool = False) -> str:
    """A place for a plot, and perhaps below it for the network under the pointer."""
    hint = '<p class="note">Point at a network, or tap it, to see its layers and bits here.</p>'
    box = f'<div class="subnet" id="{name}-subnet">{hint}</div>' if subnet else ""
    return f'<div class="plot" id="{name}"></div>{box}' + data(f"{name}-data", figure)


def data(name: str, value: plots.Plot) -> str:
    """What the page's script reads."""
    return f'<script type="application/json" id="{name}">{plots.as_json(value)}</script>'


def facts(of: Mapping[str, Sequence[str]]) -> str:
    """A list of facts by name, each value once."""
    items = (
        f"<dt>{name}</dt><dd>{escape(escaped('; '.join(dict.fromkeys(values))))}</dd>"
        for name, values in of.items()
    )
    return f"<dl>{''.join(items)}</dl>"


def compared(analysis: Analysis) -> str:
    """What was compared, as a list of facts."""
    problems = analysis.problems
    configs = [problem.config for problem in problems]
    known = {
        "spaces": [problem.space.name for problem in problems],
        "objectives": ["+".join(problem.objectives) for problem in problems],
        "algorithms": [label for problem in problems for label in problem.labels],
        "seeds": [str(analysis.seeds)],
        "evaluations": [f"{problem.budget:,} a search" for problem in problems],
        "accuracy": [config.predictor for config in configs],
        "device": [config.device for config in configs],
    }
    return facts(known)


def _cell(score: Score) -> str:
    return Best(cell_text(score)) if score.best else cell_text(score)


def scores(problem: ProblemResults, part: Part) -> str:
    """Scores of one problem with marks of significance, and A12 against the best."""
    names = indicators_of(problem)
    columns = {name: problem.scores(name, part) for name in names}
    first = columns[names[0]]
    done = [score for score in first if score.summary is not None]
    best = max(done, key=lambda s: s.summary.median if s.summary else 0.0) if done else None
    rows = []
    for i, score in enumerate(first):
        effect = (
            "" if best is None or not len(score.values) else f"{a12(score.values, best.values):.2f}"
        )
        rows.append(
            [
                score.label,
                *(_cell(columns[name][i]) for name in names),
                f"{len(score.worse_than)} / {len(score.better_than)}",
                effect,
                seeds_text(score),
            ]
        )
    head = ["algorithm", *names, "better / worse", "A12", "seeds"]
    return table(head, rows)


def reading(problem: ProblemResults) -> str:
    """How to read a table of scores."""
    lines = [
        f"<li><b>{escape(name)}</b>: {escape(INDICATORS.get(name).summary)}; "
        f"{'larger' if INDICATORS.get(name).larger_is_better else 'smaller'} is better</li>"
        for name in indicators_of(problem)
    ]
    lines.append("<li>Medians and quartiles over seeds.</li>")
    if len(problem.labels) > 1:
        marks = caution(problem) or (
            "In colour: no other algorithm is significantly better (signed-rank test where seeds "
            "are paired, else rank-sum, Holm's correction, 0.05)."
        )
        lines.append(
            f"<li>{escape(marks)} <b>better / worse</b>: how many algorithms are significantly "
            "better and worse by the first indicator. <b>A12</b>: chance that a run scores more "
            "than one of the best algorithm (0.5: alike).</li>"
        )
    return f'<ul class="note">{"".join(lines)}</ul>'


def failures(analysis: Analysis) -> str:
    """Failed and missing cells, or nothing."""
    failed = [outcome for problem in analysis.problems for outcome in problem.failures()]
    parts = []
    if failed:
        items = "".join(
            f"<li>{escape(o.cell.label)} on {escape(o.cell.problem)}, seed {o.cell.config.seed}: "
            f"{escape(o.error)}</li>"
            for o in failed
        )
        parts.append(f"<p>{len(failed)} runs failed:</p><ul>{items}</ul>")
    if analysis.missing:
        parts.append(f"<p>{analysis.missing} runs are still to be carried out.</p>")
    return f'<div class="failed">{"".join(parts)}</div>' if parts else ""


def ranks(analysis: Analysis) -> str:
    """Mean ranks over problems, if there are enough of them."""
    found = analysis.ranks("hv")
    if found is None:
        return ""
    order = sorted(range(len(found.names)), key=lambda i: found.mean_ranks[i])
    rows = [[found.names[i], f"{found.mean_ranks[i]:.2f}"] for i in order]
    return (
        "<h2>Over all problems</h2>"
        f"<p>Mean ranks by hypervolume over {found.problems} problems (1 is best). Friedman's "
        f"test: p = {found.p:.2g}. By Nemenyi's test, ranks that differ by less than "
        f"{found.critical_difference:.2f} do not differ significantly.</p>"
        + table(["algorithm", "mean rank"], rows)
    )


def audit(found: Mapping[str, Any]) -> str:
    """Predicted and measured fronts, from ``audit.json``.

    Raises:
        UserError: it is malformed.
    """
    try:
        rows = [
            [
                f"{row['label']} on {row['problem']}",
                f"{row['predicted_hv']:.4f}",
                f"{row['true_hv_validation']:.4f}",
                f"{row['true_hv_test']:.4f}",
                _tau(row["kendall_tau"]),
                f"{row['overestimate_points']:+.2f}",
                _points(row.get("worst_tenth_points")),
                str(row["networks"]),
            ]
            for row in found["rows"]
        ]
        text = (
            f"{found['networks']:,} distinct networks were measured in {found['seconds']:,.0f} s: "
            f"{escape(str(found['rule']))}."
        )
    except KeyError as error:
        raise UserError(f"audit.json is malformed: it has no {error}") from error
    except (TypeError, ValueError) as error:
        raise UserError("audit.json is malformed: one of its figures is no number") from error
    head = ["", "predicted HV", "HV, validation", "HV, test", "tau", "overestimate"]
    head += ["worst tenth", "networks"]
    return (
        "<h2>Do predicted fronts hold?</h2>"
        f"<p>Members of predicted fronts, measured on the supernet. {text} Hypervolumes are those "
        "of these members; tau is Kendall's, between predicted and measured accuracy along a "
        "front; the overestimate is in points of accuracy, of all members and of the tenth where "
        "it is largest in magnitude. Medians over seeds.</p>" + table(head, rows)
    )


def _points(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"


def _tau(value: float | None) -> str:
    """A rank correlation; one member, or equal accuracies, have none."""
    return "none" if value is None or math.isnan(value) else f"{value:.3f}"


def costs(analysis: Analysis) -> str:
    """What the searches and the space's assets cost."""
    outcomes = [o for problem in analysis.problems for o in problem.outcomes if o.ok]
    seconds = sum(o.seconds.get("search", 0.0) for o in outcomes)
    evaluations = sum(o.evaluations for o in outcomes)
    measured = sum(o.measured for o in outcomes)
    lines = [
        f"{len(outcomes):,} searches, {seconds:,.0f} s of searching in all; {evaluations:,} "
        f"evaluations, of which {measured:,} were measured on a supernet and "
        f"{evaluations - measured:,} came from a predictor or a table."
    ]
    for entry in analysis.about.get("cost") or []:
        line = f"{entry['seconds']:,.0f} s of wall time, {entry['jobs']} searches at a time"
        if entry.get("energy_kwh") is not None and entry.get("co2e_kg") is not None:
            line += (
                f": {1000 * entry['energy_kwh']:.3g} Wh and {1000 * entry['co2e_kg']:.3g} g of "
                f"CO2e, estimated by codecarbon for {entry.get('cpu')} on the grid of "
                f"{entry.get('country')}"
            )
        else:
            line += "; energy was not metered (codecarbon was not installed)"
        lines.append(line + ".")
    for name in dict.fromkeys(problem.space.name for problem in analysis.problems):
        problem = next(p for p in analysis.problems if p.space.name == name)
        lines += _assets(problem)
    return "<h2>Cost</h2><ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _assets(problem: ProblemResults) -> list[str]:
    """What making a space's assets cost, as far as their manifest says."""
    try:
        manifest = find_assets(problem.space, problem.config.assets).manifest
    except UserError:
        return []
    spent = manifest.get("seconds")
    if not isinstance(spent, dict) or "accelerator" not in manifest:
        return []
    parts = ", ".join(f"{stage} {float(value):.0f} s" for stage, value in spent.items())
    hours = sum(float(value) for value in spent.values()) / 3600
    line = f"Assets of {problem.space.name}: {parts} ({hours:.2f} h) on {manifest['accelerator']}"
    joules = manifest.get("gpu_joules") or {}
    if spent.keys() <= joules.keys():
        kwh = sum(float(joules[stage]) for stage in spent) / 3.6e6
        line += f"; {1000 * kwh:.3g} Wh of the GPU alone"
        emitted = co2e_kg(kwh)
        if emitted is not None:
            line += f", {1000 * emitted:.3g} g of CO2e on the grid of {country()}"
        if "gpu_joules_note" in manifest:
            line += f" ({manifest['gpu_joules_note']})"
    return [f"{line}."]


def reproducing(analysis: Analysis) -> str:
    """The plan or configuration, the commands and the versions."""
    about = analysis.about
    if "plan" in about:
        plan = plan_toml(about["plan"])
        command = "apq-moo bench --plan plan.toml --out BENCH\napq-moo report BENCH -o report.html"
    else:
        plan = json.dumps(about["config"], indent=2)
        command = f"{_run_command(about['config'])} --out RUN\napq-moo report RUN -o report.html"
    known = about.get("versions") or {}
    versions = ", ".join(f"{name} {text}" for name, text in known.items())
    return (
        f"<h2>How to reproduce it</h2><pre>{escape(plan)}</pre><pre>{escape(command)}</pre>"
        f"<p>{escape(escaped(versions))}; {escape(escaped(about.get('processor') or ''))}.</p>"
    )


def plan_toml(plan: Mapping[str, Any]) -> str:
    """A plan, as :meth:`BenchPlan.to_dict` gives it, as TOML."""
    limits = plan.get("limits") or {}
    entries = {name: value for name, value in plan.items() if name != "limits"}
    lines = [f"{name} = {_toml(value)}" for name, value in entries.items() if value is not None]
    if limits:
        lines += ["", "[limits]", *(f"{name} = {_toml(value)}" for name, value in limits.items())]
    return "\n".join(lines)


def _toml(value: Any) -> str:
    """Texts, numbers and lists of them read the same in JSON, but for what cannot be seen."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(one if one.isprintable() else f"\\U{ord(one):08x}" for one in text)


def _run_command(config: Mapping[str, Any]) -> str:
    """The command that carries out a run of this configuration."""
    words = ["apq-moo run"]
    for name, value in config.items():
        if name == "limits":
            words += [f"--max {limit}={bound}" for limit, bound in value.items()]
        elif name == "objectives":
            words.append(f"--objectives {','.join(value)}")
        elif value is not None:
            words.append(f"--{name.replace('_', '-')} {shlex.quote(str(value))}")
    return escaped(" ".join(words))
