"""The page, in a real browser; tables and pictures."""

import json
import re
import shutil
import time
from dataclasses import replace
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from codecarbon.input import DataSource

from apq_moo.benchmarks.compare import bench
from apq_moo.benchmarks.compare.analysis import Analysis
from apq_moo.benchmarks.compare.plan import BenchPlan
from apq_moo.benchmarks.compare.scores import hypervolume
from apq_moo.benchmarks.compare.statistics import compare_pairs, least_p
from apq_moo.benchmarks.compare.store import Outcome, Store
from apq_moo.benchmarks.compare.tables import caution, latex_table, markdown_table
from apq_moo.benchmarks.report import pictures, plots, sections, write_report
from apq_moo.data.assets import find_assets
from apq_moo.errors import UserError
from apq_moo.results.run import execute
from apq_moo.space import load_space
from apq_moo.study.config import RunConfig
from apq_moo.study.folder import RunFolder

PLAN = BenchPlan(
    spaces=("digits",),
    algos=("apq-ga", "nsga2", "random"),
    objectives=("acc,latency", "acc,latency,energy", "acc", "acc,latency,energy,size"),
    seeds=3,
    budgets=(400,),
    sweeps=(2,),
    pop_size=20,
    predictors=("additive",),
)
AUDIT = {
    "networks": 12,
    "rule": "all of <them>",
    "seconds": 12.3,
    "rows": [
        {
            "problem": "digits",
            "label": "nsga2",
            "seeds": 2,
            "networks": 12,
            "predicted_hv": 1.0,
            "true_hv_validation": 0.9,
            "true_hv_test": 0.8,
            "kendall_tau": 0.7,
            "overestimate_points": 1.5,
            "worst_tenth_points": -2.5,
        }
    ],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A benchmark of three problems with a failed and a missing run, and an audit."""
    base = tmp_path_factory.mktemp("report")
    whole = bench.begin(base / "whole", PLAN)
    bench.run(whole)
    store = Store.create(base / "b", PLAN, whole.about() | {"format": whole.about()["format"]})
    outcomes = whole.outcomes()
    for outcome in outcomes[:-2]:
        store.put(outcome)
    failed = Outcome(outcomes[-2].cell, "failed", error="<b>disk & full</b>")
    store.put(failed)
    (base / "b" / "audit.json").write_text(json.dumps(AUDIT))
    return base / "b"


@pytest.fixture(scope="module")
def page(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(folder, path)
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
        "--window-size=1200,900",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield chrome
    chrome.quit()


def visit(browser, path):
    browser.get(path.as_uri())
    wait(lambda: browser.execute_script("return document.documentElement.dataset.ready") == "yes")


def wait(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.05)


def test_the_page_loads_alone_and_without_an_error(browser, page):
    visit(browser, page)
    assert browser.get_log("browser") == []
    loaded = browser.execute_script(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
    )
    assert [name for name in loaded if not name.startswith("data:")] == []
    own = page.read_text(encoding="utf-8").partition("<script>")[0]  # before plotly.js
    assert not re.search(r'(src|href)="(https?:)?//', own)


def test_every_plot_shows_its_points(browser, page, folder):
    visit(browser, page)
    counts = "return document.getElementById(arguments[0]).data.map(t => [t.name, t.x.length])"
    for number, problem in enumerate(Analysis.read(folder).problems):
        shown = browser.execute_script(counts, f"problem{number}-front1")
        wanted = {label: len(problem.typical(label).front) for label in problem.labels}
        if len(problem.objectives) > 3:  # a line of four points and a gap for each network
            wanted = {label: 5 * count for label, count in wanted.items()}
        elif len(problem.objectives) > 1:
            wanted["front of all runs"] = len(problem.known)
        assert dict(shown) == wanted
        curves = browser.execute_script(counts, f"problem{number}-curve")
        assert {name for name, _ in curves if name} == set(problem.labels)
    plots = browser.execute_script("return [...document.querySelectorAll('.plot')].map(p => p.id)")
    assert [name for name in plots if "-front" in name] == [
        *("problem0-front1", "problem1-front1", "problem1-front2", "problem1-front3"),
        *("problem2-front1", "problem3-front1"),
    ]
    assert [name for name in plots if "attainment" in name] == ["problem0-attainment"]


def test_a_network_under_the_pointer_is_drawn(browser, page, folder):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    visit(browser, page)
    plot = browser.find_element(By.ID, "problem0-front1")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    problem = Analysis.read(folder).problems[0]
    outcome = problem.typical("nsga2")
    # The others' points might cover it.
    browser.execute_async_script(
        """const [g, name, done] = arguments;
        Plotly.restyle(g, {visible: g.data.map(t => t.name === name)}).then(() => done());""",
        plot, "nsga2",
    )  # fmt: skip
    place = browser.execute_script(
        """const g = arguments[0], box = g.getBoundingClientRect();
        const t = g.data.find(t => t.name === arguments[1]), i = arguments[2];
        const {xaxis: x, yaxis: y} = g._fullLayout;
        return [x._offset + x.d2p(t.x[i]) - box.width / 2,
                y._offset + y.d2p(t.y[i]) - box.height / 2];""",
        plot, "nsga2", len(outcome.front) - 1,
    )  # fmt: skip
    box = browser.find_element(By.ID, "problem0-front1-subnet")
    assert box.find_elements(By.TAG_NAME, "rect") == []
    pointer = ActionChains(browser)
    pointer.move_to_element_with_offset(plot, round(place[0]), round(place[1])).perform()
    wait(lambda: box.find_elements(By.TAG_NAME, "rect"))
    title = box.find_element(By.TAG_NAME, "p").text
    subnets = problem.subnets(outcome)
    bars = box.find_elements(By.TAG_NAME, "rect")
    blocks = int(re.search(r"(\d+) blocks", title)[1])
    assert len(bars) == 4 * blocks
    accuracy = float(re.search(r"acc ([\d.]+) %", title)[1])
    row = int(np.abs(-outcome.front[:, 0] - accuracy).argmin())
    assert blocks == len(subnets[row].blocks)
    assert f"{subnets[row].mean_bits:.2f} bits on average" in title
    texts = [text.text for text in box.find_elements(By.TAG_NAME, "text")]
    assert str(subnets[row].blocks[0].channels) in texts


def test_three_objectives_are_shown_in_every_pair(browser, page, folder):
    visit(browser, page)
    problem = Analysis.read(folder).problems[1]
    points = problem.natural(problem.typical("nsga2").front)
    script = """const t = document.getElementById(arguments[0]).data.find(t => t.name === "nsga2");
        return [t.x, t.y, t.text];"""
    for number, (y, x) in enumerate(((0, 1), (0, 2), (1, 2)), 1):
        found = browser.execute_script(script, f"problem1-front{number}")
        np.testing.assert_allclose(found[0], points[:, x], rtol=1e-5)
        np.testing.assert_allclose(found[1], points[:, y], rtol=1e-5)
    subnet = problem.subnets(problem.typical("nsga2"))[0]
    assert f"acc {points[0, 0]:.4g} %" in found[2][0]
    assert f"{len(subnet.blocks)} blocks<br>{subnet.mean_bits:.2f} bits on avera" in found[2][0]


def test_four_objectives_lie_on_scaled_axes(browser, page, folder):
    visit(browser, page)
    problem = Analysis.read(folder).problems[3]
    front = problem.typical("random").front
    found = browser.execute_script(
        """const t = document.getElementById("problem3-front1").data;
        return t.find(t => t.name === "random").y;"""
    )
    rows = np.array(found, dtype=float).reshape(len(front), 5)
    np.testing.assert_allclose(rows[:, :4], problem.bounds.normalise(front), rtol=1e-4, atol=1e-9)
    assert np.isnan(rows[:, 4]).all()


def test_the_legend_hides_an_algorithm(browser, page):
    from selenium.webdriver.common.by import By

    visit(browser, page)
    plot = browser.find_element(By.ID, "problem0-front1")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    names = plot.find_elements(By.CSS_SELECTOR, ".legendtoggle")
    names[1].click()
    seen = "return arguments[0].data.map(t => t.visible ?? true)"
    wait(lambda: browser.execute_script(seen, plot).count("legendonly") == 1)


def test_the_page_fits_a_phone(browser, page):
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        visit(browser, page)
        widths = browser.execute_script(
            "return [document.documentElement.scrollWidth, window.innerWidth]"
        )
        # No legend covers the plot or an axis's title.
        overlaps = browser.execute_script(
            """const box = (plot, what) => plot.querySelector(what).getBoundingClientRect();
            const apart = (a, b) => a.bottom <= b.top + 1 || b.bottom <= a.top + 1;
            return [...document.querySelectorAll(".plot")].filter(plot => {
                const legend = box(plot, ".legend .bg");
                const title = plot.querySelector(".xtitle");
                return legend.right > 390 || !apart(legend, box(plot, ".nsewdrag"))
                    || (title && !apart(legend, title.getBoundingClientRect()));
            }).map(plot => plot.id);"""
        )
        assert overlaps == []
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert widths[0] <= widths[1] == 390


def test_what_the_page_says(page, folder):
    body = page.read_text(encoding="utf-8").partition("<script>")[0]
    text = unescape(re.sub(r"<[^>]+>", " ", body))
    assert "&lt;b&gt;disk &amp; full&lt;/b&gt;" in body
    assert "1 runs failed" in text
    assert "1 runs are still to be carried out" in text
    assert "all of &lt;them&gt;" in body
    assert "codecarbon" in text
    assert 'algos = ["apq-ga", "nsga2", "random"]' in text
    assert "apq-ga; nsga2; random" in text
    assert "400 a search" in text
    assert "So few runs cannot differ significantly" in text
    problem = Analysis.read(folder).problems[0]
    for label in problem.labels:
        volumes = [hypervolume(o.front, problem.bounds) for o in problem.of(label)]
        low, middle, high = np.quantile(volumes, (0.25, 0.5, 0.75))
        assert f"{middle:.4f} [{low:.4f}, {high:.4f}]" in text
    assert page.stat().st_size < 8e6


def test_what_the_assets_cost(tmp_path, monkeypatch):
    """GPU energy on the reader's grid, or where codecarbon is not installed."""
    folder = tmp_path / "assets"
    shutil.copytree(find_assets(load_space("fashion")).folder, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["seconds"] = {"train": 481.1, "samples": 529.0}
    manifest["gpu_joules"] = {"train": 168_000, "samples": 263_000}
    manifest["gpu_joules_note"] = "by NVML"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    train, samples = manifest["seconds"].values()
    watt_hours = (168_000 + 263_000) / 3600
    monkeypatch.setenv("APQ_MOO_COUNTRY", "FRA")
    plan = BenchPlan(
        spaces=("fashion",), algos=("random",), seeds=1, budgets=(100,), assets=str(folder)
    )
    bench.run(bench.begin(str(tmp_path / "b"), plan))
    analysis = Analysis.read(tmp_path / "b")
    text = sections.costs(analysis)
    hours = (train + samples) / 3600
    assert f"train {train:.0f} s, samples {samples:.0f} s ({hours:.2f} h)" in text
    grams = watt_hours / 1000 * DataSource().get_global_energy_mix_data()["FRA"]["carbon_intensity"]
    found = re.search(
        r"([0-9.]+) Wh of the GPU alone, ([0-9.]+) g of CO2e on the grid of FRA", text
    )
    assert [float(x) for x in found.groups()] == pytest.approx([watt_hours, grams], rel=0.01)
    monkeypatch.setattr(sections, "co2e_kg", lambda kwh: None)
    assert f"{found[1]} Wh of the GPU alone (by NVML" in sections.costs(analysis)
    # Those that ship were not metered, and nothing is said of what is not known.
    bench.run(bench.begin(str(tmp_path / "c"), replace(plan, assets=None)))
    told = sections.costs(Analysis.read(tmp_path / "c"))
    assert "Assets of fashion: train 711 s" in told
    assert "Wh of the GPU" not in told


def test_a_country_that_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("APQ_MOO_COUNTRY", "Atlantis")
    store = bench.begin(str(tmp_path / "b"), replace(PLAN, seeds=1))
    with pytest.raises(UserError, match="'Atlantis' is no country whose grid is known") as caught:
        bench.run(store)
    assert len(str(caught.value).splitlines()) == 1
    assert not list(store.outcomes())


def test_the_plan_of_the_page_is_the_plan(page, tmp_path):
    text = page.read_text(encoding="utf-8")
    plan = unescape(re.search(r"<pre>(spaces.*?)</pre>", text, flags=re.DOTALL)[1])
    (tmp_path / "plan.toml").write_text(plan)
    assert BenchPlan.read(tmp_path / "plan.toml") == PLAN


def test_a_plan_with_limits_is_a_plan(tmp_path):
    plan = replace(PLAN, limits={"latency": 1e-7, "energy": 2.0}, assets='a "b"\\c\x7f\x85')
    assert sections.plan_toml(plan.to_dict()).replace("\n", "").isprintable()
    (tmp_path / "plan.toml").write_text(sections.plan_toml(plan.to_dict()), encoding="utf-8")
    assert BenchPlan.read(tmp_path / "plan.toml") == plan


def test_what_a_terminal_would_obey_is_not_among_commands():
    about = {"config": {"space": "\x1b[2J"}, "versions": {"a\x1b": "\x9b"}, "processor": "\x1b"}
    page = sections.reproducing(SimpleNamespace(about=about))
    assert page.replace("\n", "").isprintable()
    assert r"--space &#x27;\x1b[2J&#x27;" in page


def test_fewest_runs_that_can_differ(folder):
    problem = Analysis.read(folder).problems[0]
    assert least_p(3, 3) == pytest.approx(2 * 3 / 2**3)
    assert problem.seeds_needed == 7
    assert not any(score.best for score in problem.scores("hv"))
    samples = {name: np.arange(8.0) + 10 * i for i, name in enumerate("abc")}
    least = min(c.p_adjusted for c in compare_pairs(samples, paired=True, larger_is_better=True))
    assert least == pytest.approx(2 * 3 / 2**8) == least_p(3, 8)


def test_an_audit_of_single_members_has_no_tau():
    row = AUDIT["rows"][0] | {"label": "<i>"}
    for tau, cell in ((0.7, "0.700"), (float("nan"), "none"), (None, "none")):
        found = sections.audit(AUDIT | {"rows": [row | {"kendall_tau": tau}]})
        assert f"<td>{cell}</td>" in found
        assert "<td>&lt;i&gt; on digits</td>" in found
    found = sections.audit(AUDIT | {"rows": [row | {"networks": "<script>alert(1)</script>"}]})
    assert "<script>" not in found
    assert "&lt;script&gt;" in found


def test_a_run_s_page(tmp_path, browser):
    config = RunConfig(
        algo="nsga2", space="digits", predictor="additive", budget=200, pop_size=20,
        limits={"latency": 0.03},
    )  # fmt: skip
    execute(RunFolder.create(tmp_path / "r", config, verify=None, overwrite=False))
    write_report(tmp_path / "r", tmp_path / "r.html")
    visit(browser, tmp_path / "r.html")
    assert browser.get_log("browser") == []
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "apq-moo run --algo nsga2 --objectives acc,latency --space digits" in text
    assert "--max latency=0.03" in text


def test_records_with_less_or_more_than_is_known(tmp_path, folder):
    config = RunConfig(algo="random", space="digits", predictor="additive", budget=40, pop_size=10)
    run = RunFolder.create(tmp_path / "r", config, verify=None, overwrite=False)
    execute(run)
    run.store(cost=[3], plan=3, processor=None, versions=None)
    write_report(run.path, tmp_path / "r.html")
    body = (tmp_path / "r.html").read_text(encoding="utf-8").partition("<script>")[0]
    assert "s of searching in all" in body
    assert "apq-moo run --algo random" in body
    shutil.copytree(folder, tmp_path / "b")
    entry = {"seconds": 1.0, "jobs": 1, "energy_kwh": None, "co2e_kg": 1.0}
    Store.open(tmp_path / "b").note(cost=[entry])
    assert "energy was not metered" in sections.costs(Analysis.read(tmp_path / "b"))


def test_pages_that_cannot_be_written(tmp_path, folder):
    with pytest.raises(UserError, match="holds neither a run"):
        write_report(tmp_path, tmp_path / "x.html")
    Store.create(tmp_path / "empty", PLAN, {})
    with pytest.raises(UserError, match="no finished cells yet"):
        write_report(tmp_path / "empty", tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()
    for found in ({}, {"rows": [{}], "networks": 3, "rule": "", "seconds": 1}, {"rows": 3}):
        with pytest.raises(UserError, match=r"audit\.json is malformed"):
            sections.audit(found)


HOSTILE = (
    """<img src=x onerror="document.title='owned'">""",
    "</script><script>document.title='owned'</script>",
    """"><svg onload="document.title='owned'">""",
    "</title><script>document.title='owned'</script>",
    "<!--<script>\u2028${document.title='owned'}",
)


def test_no_text_of_a_file_is_markup_or_runs(folder, tmp_path, browser, monkeypatch):
    text = " ".join(HOSTILE)
    names = dict(zip(PLAN.algos, HOSTILE, strict=False))
    about = {"versions": {text: text}, "processor": text}
    store = Store.create(tmp_path / "b", PLAN, about)
    entry = {"seconds": 1.0, "jobs": 1, "energy_kwh": 1.0, "co2e_kg": 1.0}
    store.note(cost=[{**entry, "cpu": text, "country": text}])
    for outcome in Store.open(folder).outcomes():
        cell = replace(outcome.cell, label=names[outcome.cell.label])
        store.put(replace(outcome, cell=cell, error=text))
    row = AUDIT["rows"][0] | {"label": text, "problem": text, "networks": text}
    (store.folder / "audit.json").write_text(json.dumps(AUDIT | {"rows": [row], "rule": text}))
    manifest = {"accelerator": text, "seconds": {text: 1.0}, "gpu_joules": {text: 1.0}}
    manifest["gpu_joules_note"] = text
    monkeypatch.setattr(sections, "find_assets", lambda *_: SimpleNamespace(manifest=manifest))
    monkeypatch.setattr(sections, "country", lambda: text)
    write_report(store.folder, tmp_path / "r.html")
    visit(browser, tmp_path / "r.html")
    assert browser.title == "3 algorithms on digits"
    assert browser.get_log("browser") == []  # none was blocked either
    assert (
        browser.execute_script("return document.querySelector('img, [onerror], [onload]')") is None
    )
    kinds = "return [...document.scripts].filter(s => s.type !== 'application/json').length"
    assert browser.execute_script(kinds) == 2
    legend = "return [...document.querySelectorAll('.legendtext')].map(t => t.textContent)"
    assert set(names.values()) <= set(browser.execute_script(legend))
    shown = browser.execute_script("return document.body.textContent")
    for words in (
        f"{text} on {text}",
        f"for {text} on the grid of {text}",
        f"({text})",
        f"{text} 1 s",
    ):
        assert words in shown


def test_json_in_a_page_ends_no_script():
    value = {"a": [*HOSTILE, "&amp;\u2028\u2029-->"]}
    found = plots.as_json(value)
    assert json.loads(found) == value
    assert not set(found) & set("<>&\u2028\u2029")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"networks": "<b>"}, "one of its figures is no number"),
        ({"rows": [{}]}, "it has no 'label'"),
    ],
)
def test_a_malformed_audit_is_one_line(change, words):
    with pytest.raises(UserError, match=f"audit.json is malformed: {words}"):
        sections.audit(AUDIT | change)


def test_markdown_and_latex(folder):
    analysis = Analysis.read(folder)
    problem = analysis.problems[0]
    lines = markdown_table(problem, ["hv", "igd+"]).splitlines()
    assert lines[2] == "| algorithm | hv | igd+ | better/worse | seeds |"
    assert lines[-2:] == ["", caution(problem)]
    medians = {s.label: s.summary.median for s in problem.scores("hv")}
    found = [line.split(" | ")[0].removeprefix("| ") for line in lines[4:-2]]
    assert found == sorted(medians, key=medians.get, reverse=True)
    latex = latex_table(problem, ["hv"])
    assert latex.count(r" \\") == 1 + len(problem.labels)
    assert latex.index(r"\toprule") < latex.index(r"\midrule") < latex.index(r"\bottomrule")
    assert r"\textbf{" not in latex + "".join(lines)
    assert "3 algorithms need 7 seeds" in latex
    last = markdown_table(analysis.problems[3], ["hv"])
    assert "(1 failed or missing)" in last


@pytest.mark.parametrize("kind", ["svg", "png", "pdf"])
def test_pictures_are_drawn_the_same_twice(folder, tmp_path, kind):
    analysis = Analysis.read(folder)
    problem = analysis.problems[0]
    for name, draw in (
        ("fronts", lambda path: pictures.draw_fronts(path, problem)),
        ("curves", lambda path: pictures.draw_curves(path, problem, ["nsga2"])),
        ("attainment", lambda path: pictures.draw_attainment(path, problem)),
        ("ranks", lambda path: pictures.draw_ranks(path, analysis)),
    ):
        first, second = (tmp_path / f"{name}{i}.{kind}" for i in (1, 2))
        draw(first)
        draw(second)
        assert first.read_bytes() == second.read_bytes()
        if kind == "svg":
            text = first.read_text(encoding="utf-8")
            width = float(re.search(r'width="([\d.]+)pt"', text)[1])
            assert width == pytest.approx(72 * pictures.WIDTH_IN, abs=1)


def test_many_algorithms_get_a_panel_each(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MOST_TOLD_APART", 2)
    two, three, *_ = Analysis.read(folder).problems
    medians = {label: np.median(two.values(label, "hv")) for label in two.labels}
    for draw, problem, parts in (
        (pictures.draw_fronts, two, 1),
        (pictures.draw_fronts, three, 2),
        (pictures.draw_curves, two, 1),
        (pictures.draw_attainment, two, 1),
    ):
        draw(tmp_path / "x.svg", problem)
        texts = re.findall(r"<!-- (.+) -->", (tmp_path / "x.svg").read_text(encoding="utf-8"))
        assert sorted(t for t in texts if t in two.labels) == sorted([*two.labels] * parts)
        if problem is two:  # the best first, each with its score
            order = sorted(medians, key=lambda label: -medians[label])
            assert [t for t in texts if t in two.labels] == order
            assert [t for t in texts if re.fullmatch(r"0\.\d{4}|1\.\d{4}", t)] == [
                f"{medians[label]:.4f}" for label in order
            ]
        draw(tmp_path / "y.svg", problem, ["random", "nsga2"])
        texts = re.findall(r"<!-- (.+) -->", (tmp_path / "y.svg").read_text(encoding="utf-8"))
        assert not any("median hypervolume" in text for text in texts)


def test_pictures_that_cannot_be_drawn(folder, tmp_path):
    analysis = Analysis.read(folder)
    two, three, one, _ = analysis.problems
    for draw, words in (
        (lambda: pictures.draw_fronts(tmp_path / "x.gif", two), "ends in .png"),
        (lambda: pictures.draw_fronts(tmp_path / "x.svg", one), "two objectives at least"),
        (lambda: pictures.draw_attainment(tmp_path / "x.svg", three), "need two objectives"),
        (lambda: pictures.draw_curves(tmp_path / "x.svg", two, ["walk"]), "no algorithm 'walk'"),
    ):
        with pytest.raises(UserError, match=words):
            draw()
    assert not list(tmp_path.iterdir())
    single = replace(PLAN, objectives=("acc,latency",), seeds=1)
    store = Store.create(tmp_path / "b", single, {})
    for outcome in Store.open(folder).outcomes():
        if outcome.cell.key in {cell.key for cell in single.cells()}:
            store.put(outcome)
    with pytest.raises(UserError, match="ranks need at least 2 problems"):
        pictures.draw_ranks(tmp_path / "x.svg", Analysis.read(store.folder))


def test_the_commands_report_and_plot(folder, tmp_path, monkeypatch, capsys):
    from apq_moo.cli import main

    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        return int(stop.value.code or 0), capsys.readouterr()

    code, _ = call("report", folder, "-o", "r.html", "--markdown", "t.md", "--latex", "t.tex")
    assert code == 0
    assert Path("t.md").read_text().count("| algorithm") == 4
    code, printed = call("report", folder, "-o", "r.html")
    assert code == 2
    assert "r.html exists" in printed.err
    assert call("plot", folder, "-o", "p.svg", "--kind", "curves", "--problem", "2")[0] == 0
    for arguments, words in (
        (("--kind", "pie"), "unknown kind of picture 'pie'; known: fronts"),
        (("--problem", "9"), "--problem 9: there are 4"),
        (("--algos", "walk"), "no algorithm 'walk'"),
    ):
        code, printed = call("plot", folder, "-o", "q.svg", *arguments)
        assert code == 2
        assert words in printed.err
