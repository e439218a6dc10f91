"""Tables of pages are what the files of results beside them give."""

import csv
import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apq_moo.benchmarks.compare.published import SCORES
from apq_moo.benchmarks.experiments import fidelity, measured_search
from apq_moo.data.assets import find_assets
from apq_moo.defaults import DEFAULT_PREDICTOR
from apq_moo.predictors.curves import mean_and_band
from apq_moo.space import Space, load_space

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "fashion.md").read_text()
TRIALS = (DOCS / "fashion-trials.md").read_text()


def _row(begins: str, page: str = TRIALS) -> list[str]:
    (line,) = [line for line in page.splitlines() if line.startswith(f"| {begins} |")]
    return [cell.strip() for cell in line.strip("|").split("|")[1:]]


def _curves(name: str) -> list[dict[str, str]]:
    with (DOCS / "data" / name).open() as file:
        return list(csv.DictReader(file))


def test_learning_curves():
    values = defaultdict(list)
    for row in _curves("fashion-learning-curves-before.csv"):
        found = float(row["pairwise_accuracy"])
        values[row["predictor"]].append((int(row["n_mp"]), found))
    assert len(values) == 7
    for predictor, points in values.items():
        sizes = sorted({n for n, _ in points})
        cells = []
        for size in sizes:
            chosen = [value for n, value in points if n == size]
            assert len(chosen) == 10
            cells.append("{:.3f} ± {:.3f}".format(*mean_and_band(chosen)))
        assert _row(predictor) == cells


def test_learning_curves_of_the_supernet_that_ships():
    """The mean and the band of every predictor and size, on both sets of images."""
    values = defaultdict(list)
    for row in _curves("fashion-learning-curves.csv"):
        for labels in ("pairwise_accuracy", "pairwise_accuracy_test"):
            values[row["predictor"], row["n_mp"], labels].append(float(row[labels]))
    table = PAGE.split("| pairs in the right order |")[1].split("\n\n")[0].splitlines()[2:]
    assert len(table) == len({predictor for predictor, *_ in values})
    for line in table:
        name, *cells = (cell.strip(" `") for cell in line.strip("|").split("|"))
        found = [values[name, size, "pairwise_accuracy"] for size in ("250", "1250", "5000")]
        found.append(values[name, "5000", "pairwise_accuracy_test"])
        assert {len(scores) for scores in found} == {10}
        assert cells == ["{:.3f} ± {:.3f}".format(*mean_and_band(scores)) for scores in found]


def test_the_gaussian_process_beside_boosted_trees():
    rows = _curves("fashion-gaussian-process.csv")
    for predictor in ("gp", "xgboost-stacked"):
        cells = [
            ", ".join(
                f"{float(row[figure]):.3f}"
                for row in rows
                if (row["predictor"], row["n_mp"]) == (predictor, size)
            )
            for figure in ("pairwise_accuracy", "kendall_tau")
            for size in ("250", "1250", "5000")
        ]
        assert _row(f"`{predictor}`") == cells
    # On the subsets of the table of all, which boosted trees show.
    names = ("predictor", "n_mp", "seed", "pairwise_accuracy")
    known = {
        tuple(row[name] for name in names) for row in _curves("fashion-learning-curves-before.csv")
    }
    assert {tuple(row[name] for name in names) for row in rows[6:]} <= known


def test_predictors_of_digits():
    values = defaultdict(list)
    for row in _curves("digits-learning-curves.csv"):
        for figure in ("pairwise_accuracy", "pairwise_accuracy_test"):
            values[row["predictor"], figure, int(row["n_mp"])].append(float(row[figure]))
    page = (DOCS / "digits.md").read_text().split("## Predictors")[1].split("\n\n")[2]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines()[2:]]
    assert len(values) == 6 * len(rows) == 66
    for name, *cells in rows:
        found = [
            np.mean(values[name, figure, n])
            for figure in ("pairwise_accuracy", "pairwise_accuracy_test")
            for n in (100, 500, 1500)
        ]
        assert cells == [f"{value:.3f}" for value in found]


def test_choices_on_a_split():
    cells = defaultdict(list)
    for row in _curves("fashion-choices.csv"):
        figures = float(row["pairwise_accuracy"]), float(row["rmse"])
        cells[row["predictor"]].append("{:.3f}, {:.2f}".format(*figures))
    table = TRIALS.split("| on a split |")[1].split("\n\n")[0]
    lines = [line.strip("| ").split(" | ") for line in table.replace("`", "").splitlines()[2:]]
    assert {name: found for name, *found in lines} == dict(cells)


def _mean_gap(gaps, macs, low, high):
    return np.mean([gap for gap, m in zip(gaps, macs, strict=True) if low <= m < high])


def test_ways_to_draw_subnets():
    found = json.loads((DOCS / "data" / "fashion-draws.json").read_text())
    table = TRIALS.split("## Which random subnets")[1].split("## Shrinking")[0]
    lines = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line] for line in lines if line[1].strip().isdigit()]
    assert len(rows) == len(found["trainings"]) == 5
    for cells, training in zip(rows, found["trainings"], strict=True):
        assert cells[0].startswith(training["draw"])
        assert int(cells[1]) == training["random_subnets"]
        accuracies = [training[of]["test"] for of in ("largest", "smallest", "smallest_3_bits")]
        gaps = [_mean_gap(training["gaps"], found["macs"], *r) for r in ((0, 1.5e6), (1.5e6, 9e6))]
        wanted = [*(f"{x:.2f}" for x in accuracies), *(f"{gap:.1f}" for gap in gaps)]
        wanted += [f"{training[f'tau_{split}']:.3f}" for split in ("validation", "test")]
        random_bits = training["random_bits_validation"]
        assert cells[2:] == [*wanted, "" if random_bits is None else f"{random_bits:.2f}"]
    networks = json.loads((DOCS / "data" / "fashion-fidelity-size.json").read_text())["networks"]
    networks.sort(key=lambda network: network["macs"])
    assert found["macs"] == [network["macs"] for network in networks]
    kinds = {0: "inherited_uniform", 4: "inherited"}
    for training, kind in ((found["trainings"][i], kind) for i, kind in kinds.items()):
        gaps = [n["alone"]["validation"] - n[kind]["validation"] for n in networks]
        assert training["gaps"] == pytest.approx(gaps, abs=1e-9)


def test_the_supernet_that_ships():
    manifest = find_assets(load_space("fashion")).manifest
    supernet = manifest["supernet"]
    for name, bits in (("largest", "8 bits"), ("smallest", "3 bits")):
        for kind, precision in (("fp", "full"), ("mp", bits)):
            found = supernet["named"][name][kind]
            row = f"| {name} | {precision} | {found['validation']:.2f} | {found['test']:.2f} |"
            assert row in PAGE
    for kind, words in (("fp", "full precision"), ("mp", "random bits")):
        names = ("mean", "spread", "noise", "calibration_noise")
        cells = " | ".join(f"{supernet[name][kind]:.2f}" for name in names)
        assert f"| uniform, {words} | {cells} | {supernet['tau'][kind]:.3f} |" in PAGE
    for option in ("steps", "warmup_steps", "batch_size", "random_subnets", "quantised_steps"):
        assert f"--{option.replace('_', '-')} {manifest['train'][option]}" in " ".join(PAGE.split())
    assert manifest["acc_test"] == supernet["named"]["largest"]["fp"]["test"]


def test_how_predictors_of_the_supernet_that_ships_rank():
    taus = find_assets(load_space("fashion")).manifest["held_out_kendall_tau"]
    table = PAGE.split("| predictor | Kendall tau |")[1].split("\n\n")[0].splitlines()[2:]
    ranked = sorted(taus.items(), key=lambda entry: -entry[1])
    assert table == [f"| `{name}` | {tau:.3f} |" for name, tau in ranked]
    assert ranked[0][0] == DEFAULT_PREDICTOR


def test_networks_alone_beside_the_supernet_that_ships():
    state = json.loads((DOCS / "data" / "fashion-fidelity-16000.json").read_text())
    manifest = find_assets(load_space("fashion")).manifest
    assert (
        state["settings"]["supernet_sha256"]
        == (manifest["files"]["supernet.safetensors"]["sha256"])
    )
    assert state["settings"]["train"]["steps"] == manifest["train"]["steps"]
    trained = state["networks"]
    assert len(trained) == 17
    table = PAGE.split("| million operations |")[1].split("\n\n")[0].splitlines()[2:]
    rows = []
    for network in sorted(trained, key=lambda network: network["macs"]):
        known, alone = (network[of]["validation"] for of in ("inherited", "alone"))
        cells = (
            f"{network['macs'] / 1e6:.2f}",
            *(f"{x:.2f}" for x in (known, alone, alone - known)),
        )
        rows.append(f"| {' | '.join(cells)} |")
    assert table == rows
    validation, test, again = fidelity.taus(trained).values()
    text = " ".join(PAGE.split())
    assert f"tau is {validation:.3f} on the validation and {test:.3f} on the test images" in text
    assert f"rank the 17 by {again:.3f}" in text
    macs, gaps = np.array(
        [
            (
                network["macs"] / 1e6,
                network["alone"]["validation"] - network["inherited"]["validation"],
            )
            for network in trained
        ]
    ).T
    middle, small = gaps[(macs > 1.5) & (macs < 9)].mean(), gaps[macs < 1.5].mean()
    assert f"{middle:.1f} points more alone than they inherit and those below {small:.1f}" in text
    assert gaps[macs > 13].max() < 0


@pytest.mark.parametrize(("kind", "steps"), [("size", 3200), ("accuracy", 9600)])
def test_fidelity(kind, steps):
    state = json.loads((DOCS / "data" / f"fashion-fidelity-{kind}.json").read_text())
    assert state["settings"]["spread"] == kind
    assert state["settings"]["train"]["steps"] == steps
    networks = state["networks"]
    now = load_space("fashion")
    space = Space(replace(now.spec, between_bits=16))  # as it was
    assert state["settings"]["digest"] == space.digest
    rows = np.array([network["x"] for network in networks])
    assert len({tuple(row) for row in rows}) == len(networks) == 17
    assert space.valid(rows).all()
    (line,) = [line for line in TRIALS.splitlines() if f"--spread {kind}`:" in line]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1:] == [f"{steps:,}", *(f"{tau:.3f}" for tau in fidelity.taus(networks).values())]


def _table(header: str) -> list[list[str]]:
    """The rows of the only table whose header begins so."""
    lines = TRIALS.splitlines()
    (start,) = [i for i, line in enumerate(lines) if line.startswith(f"| {header} |")]
    end = next(i for i in range(start, len(lines)) if not lines[i].startswith("|"))
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines[start + 2 : end]
    ]


RANGES = {
    "extremes": "extremes",
    "0.1 and 99.9 %": "percentile 99.9",
    "least squared error, each subnet its own": "least error, each subnet",
    "least squared error, one for all subnets": "least error, one for all",
    "the same, levels of two's complement": "least error, one for all, two's complement",
    "the same, weights at 3 and 4 bits clipped too": (
        "least error, one for all, two's complement, weights clipped too"
    ),
    "two's complement, 8-bit integers between blocks": (
        "least error, one for all, two's complement, 8-bit integers between blocks"
    ),
    "two's complement, 16-bit integers between blocks": (
        "least error, one for all, two's complement, 16-bit integers between blocks"
    ),
}
TRAINED = {
    "(before)": "before",
    "least error, fitted every 100 steps": "least error, fitted every 100 steps",
    "learned steps (LSQ) from these": "learned steps, then least error",
    "learned steps, and measured in them": "learned steps",
    "extremes of the batch": "extremes of the batch, then least error",
    "moving average of extremes": "moving average of extremes, then least error",
}
LEVERS = {
    "none": "none",
    "adaptive alpha-divergence": "alpha",
    "moving average of the weights": "average",
    "bits widen by and by, 8 first": "bit-phases",
    "best of three of a size": "best-up",
    "moments of their own for small subnets": "momentum-groups",
}


@pytest.mark.parametrize(
    ("header", "part", "names"),
    [("ranges", "untrained", RANGES), ("ranges in training", "trained", TRAINED)],
)
def test_ranges(header, part, names):
    found = json.loads((DOCS / "data" / "fashion-ranges.json").read_text())[part]
    found = found.get("figures", found)
    rows = _table(header)
    assert [row[0] for row in rows] == list(names)
    for name, *cells in rows:
        figures = found[names[name]]
        means = [
            f"{figures[f'{n}/{b}']:.2f}" for n in ("sizes", "uniform") for b in ("random", 3, 4)
        ]
        assert cells[:6] == means
        assert cells[6:] in ([], [f"{end:.1f}" for end in figures["ends/3"]])


def test_noise_of_calibration():
    found = json.loads((DOCS / "data" / "fashion-ranges.json").read_text())
    figures = found["calibration noise"]["figures"]
    said = []
    for name in (
        "extremes",
        "least error, each subnet",
        "least error, one for all, two's complement",
    ):
        said += [f"{figures[name]['1000'][of]:.2f}" for of in ("sizes", "uniform")]
    assert said == ["0.45", "0.55", "0.17", "0.14", "0.15", "0.12"]
    text = " ".join(TRIALS.split())
    assert (
        "0.45 and 0.55 points with extremes, 0.17 and 0.14 with each subnet's least error, "
        "0.15 and 0.12 with one range for all"
    ) in text


LONGER = {
    "none": "none",
    "best of three of a size": "best-up",
    "random erasing": "erasing",
    "both ends at their fewest bits too": "bit-sandwich",
}


@pytest.mark.parametrize(
    ("header", "file", "names"),
    [
        ("lever", "fashion-levers.json", LEVERS),
        ("lever, 3,600 steps", "fashion-levers-3600.json", LONGER),
    ],
)
def test_levers(header, file, names):
    found = json.loads((DOCS / "data" / file).read_text())["levers"]
    rows = _table(header)
    assert [row[0] for row in rows] == list(names)
    assert sorted(names.values()) == sorted(found)
    columns = ["largest, full precision", "smallest, full precision", "smallest, 3 bits"]
    if names is LONGER:
        columns.insert(1, "largest, 3 bits")
    for of in ("sizes", "uniform"):
        columns += [f"{of}, {at}" for at in ("full precision", "random bits", "3 bits")]
    for name, *cells in rows:
        accuracies = found[names[name]]["accuracies"]
        for cell, column in zip(cells, columns, strict=True):
            assert float(cell) == pytest.approx(accuracies[column]["test"], abs=0.0051)


SEARCHES = {
    "surrogate": "`surrogate`",
    "linas": "DyNAS-T's rule",
    "msunas": "NSGANetV2's rule",
    "once": "fitted once",
    "nsga2": "NSGA-II, populations of 20",
}


def _measured_searches(space: str) -> tuple[dict[str, Any], str]:
    """The results of a space, and the table of it and what follows."""
    found = json.loads((DOCS / "data" / f"{space}-measured-search.json").read_text())
    page = (DOCS / "searching.md").read_text()
    (table,) = [part for part in page.split("\n\n") if f" on `{space}` | 100 |" in part]
    assert set(found["runs"]) == set(SEARCHES)
    return found, table


def test_measured_networks_to_a_regret():
    found, table = _measured_searches("tiny")
    medians = {
        name: measured_search.medians(list(of.values())) for name, of in found["runs"].items()
    }
    until = {name: measured_search.first_below(of, 0.001) for name, of in medians.items()}
    for name, title in SEARCHES.items():
        last = f"{until[name]:,}" if name != "once" else ""
        cells = [f"{medians[name][n]:.5f}" for n in (100, 250, 500)]
        assert _row(title, table) == [*cells, last, str(len(found["runs"][name]))]
    assert len(found["runs"]["surrogate"]) == len(found["runs"]["nsga2"]) == 31
    page = " ".join((DOCS / "searching.md").read_text().split())
    times = until["nsga2"] / until["surrogate"]
    assert f"NSGA-II measures {times:.0f} times as many networks" in page
    seconds = np.median([run["cpu_s"] for run in found["runs"]["surrogate"].values()])
    assert f"To 500 networks the search takes {seconds:.0f} s of one core" in page


@pytest.mark.parametrize(
    ("space", "seeds", "budgets"),
    [("digits", 2, (100, 200, 1000)), ("fashion", 3, (100, 200, 1000))],
)
def test_measured_networks_to_a_hypervolume(space, seeds, budgets):
    found, table = _measured_searches(space)
    assert {len(of) for of in found["runs"].values()} == {seeds}
    supernet = find_assets(load_space(space)).manifest["files"]["supernet.safetensors"]
    assert found["settings"]["data"]["supernet.safetensors"] == supernet["sha256"]
    for name, title in SEARCHES.items():
        median = measured_search.medians(list(found["runs"][name].values()))
        assert _row(title, table) == [f"{median[n]:.3f}" for n in budgets]


BENCHMARK = (DOCS / "benchmark.md").read_text()


def _tables(page: str) -> list[list[list[str]]]:
    """Cells of a page's tables, without their heads' rules."""
    blocks = [block.splitlines() for block in page.split("\n\n") if block.startswith("| ")]
    return [
        [
            [cell.strip(" *") for cell in line.strip("|").split("|")]
            for line in lines
            if "---" not in line
        ]
        for lines in blocks
    ]


def test_scores_of_the_benchmark():
    """Medians of every seed's scores, with quartiles where the page has them."""
    values = defaultdict(list)
    with SCORES.open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for score in ("hv", "regret", "coverage"):
            key = row["space"], row["algorithm"], f"{row['objectives']}, {score}"
            values[key].append(float(row[score] or np.nan))
    tables = dict(zip(("fashion", "tiny"), _tables(BENCHMARK), strict=False))
    for space, (head, *rows) in tables.items():
        assert len(rows) == 17
        for name, *cells in rows:
            for column, cell in zip(head[1:], cells, strict=True):
                scores = values[space, name, column]
                assert len(scores) == 31
                low, middle, high = np.quantile(scores, (0.25, 0.5, 0.75))
                quartiles = f" [{low:.4f}, {high:.4f}]" if space == "fashion" else ""
                assert cell.replace("*", "") == f"{middle:.4f}{quartiles}"


def test_audits():
    for number, name in ((2, "fashion-audit"), (3, "fashion-predictors-audit")):
        found = json.loads((DOCS / "data" / f"{name}.json").read_text())
        assert f"{found['networks']:,}" in BENCHMARK
        assert f"{found['seconds']:.0f}" in BENCHMARK
        known = {}
        for row in found["rows"]:
            title, _, rest = row["problem"].partition(" (")
            if title == "fashion acc+latency":
                predictor = [rest.split(",")[0]] if number == 3 else []
                known[*predictor, row["label"]] = row
        _, *rows = _tables(BENCHMARK)[number]
        assert len(rows) == len(known)
        for cells in rows:
            row = known[tuple(cells[: number - 1])]
            tau = [f"{row['kendall_tau']:.2f}"] if number == 2 else []
            assert cells[number - 1 :] == [
                *(
                    f"{row[of]:.3f}"
                    for of in ("predicted_hv", "true_hv_validation", "true_hv_test")
                ),
                *tau,
                *(f"{row[of]:+.2f}" for of in ("overestimate_points", "worst_tenth_points")),
            ]


def test_what_the_page_says_of_all_audited_fronts():
    """Mean and worst overestimates on three problems, and whether they grow with what is found."""
    from scipy.stats import spearmanr

    rows = json.loads((DOCS / "data" / "fashion-audit.json").read_text())["rows"]
    assert max(abs(row["overestimate_points"]) for row in rows) == pytest.approx(0.09, abs=0.005)
    worst = sorted(rows, key=lambda row: abs(row["worst_tenth_points"]))
    assert worst[-1]["label"] == "exact"
    assert abs(worst[-1]["worst_tenth_points"]) == pytest.approx(0.40, abs=0.005)
    assert abs(worst[-2]["worst_tenth_points"]) < 0.29
    correlations = [
        spearmanr(*([row[of] for row in rows if row["problem"] == problem] for of in names))
        for problem in dict.fromkeys(row["problem"] for row in rows)
        for names in [("predicted_hv", "overestimate_points")]
    ]
    text = " ".join(BENCHMARK.split())
    assert (
        "correlations of {:.2f}, {:.2f} and {:.2f}".format(*(c.statistic for c in correlations))
        in text
    )
    assert "(p = {:.2f}, {:.2f} and {:.2f},".format(*(c.pvalue for c in correlations)) in text


def test_fine_tuned_members_beside_training_alone():
    state = json.loads((DOCS / "data" / "fashion-tuned-fronts.json").read_text())
    manifest = find_assets(load_space("fashion")).manifest
    assert (
        state["settings"]["supernet_sha256"]
        == (manifest["files"]["supernet.safetensors"]["sha256"])
    )
    page = (DOCS / "deploy.md").read_text()
    (table,) = [rows for rows in _tables(page) if rows[0][-1] == "alone (16,000 steps)"]
    rows = []
    for member in state["members"]:
        known = {"inherited": member["inherited"]}
        for name, found in member["trained"].items():
            worse = found["validation"] < known["inherited"]["validation"]
            known[name] = known["inherited"] if worse else found
        cells = [
            f"{known[of]['validation']:.2f} / {known[of]['test']:.2f}" if of in known else ""
            for of in ("inherited", "1 epoch", "5 epochs", "20 epochs", "tenth", "alone")
        ]
        rows.append([f"{member['macs'] / 1e6:.2f}", f"{member['bits']:.1f}", *cells])
    assert table[1:] == rows


def test_speed_at_the_size_of_the_paper():
    found = json.loads((DOCS / "data" / "imagenet-speed.json").read_text())
    evaluated, trained = _tables((DOCS / "imagenet.md").read_text().split("## Speed at 224")[1])[:2]
    for name, *cells in evaluated[1:]:
        of = found[f"evaluation {name}"]
        wanted = [of[key] for key in ("ms", "calibration_ms", "floor_ms")]
        texts = [*(f"{value:.1f}" for value in wanted), f"{wanted[0] / wanted[2]:.2f}"]
        sliced = found.get(f"sliced random bits, float32, {name}", {}).get("ms")
        assert cells == [*texts, "" if sliced is None else f"{sliced:,.0f}"]
    for batch, *cells in trained[1:]:
        texts = []
        for way in ("kernels", "torch"):
            of = found.get(f"training, {way}, batch {batch.replace(',', '')}")
            texts += (
                ["", ""] if of is None else [f"{of['images_per_s']:,.0f}", f"{of['peak_gib']:.1f}"]
            )
        assert cells == texts
    hours = 120 * 1_281_167 / found["training, kernels"] / 3600
    assert f"are {hours:.0f} hours of one H200" in (DOCS / "imagenet.md").read_text()


def test_systems_on_tiny():
    with (DOCS / "data" / "tiny-systems.csv").open() as file:
        known = {(row["system"], row["target"]): row for row in csv.DictReader(file)}
    page = (DOCS / "systems.md").read_text().split("## On tiny")[1]
    for name, *cells in _tables(page)[0][1:]:
        texts = []
        for target in ("latency-0.15", "energy-0.2", "size-46"):
            row = known[name.strip("`"), target]
            assert int(row["found"]) == int(row["seeds"]) == 31
            low, regret, high = (float(row[key]) for key in ("regret_q1", "regret", "regret_q3"))
            texts.append(f"{regret:.2f} ({low:.2f}-{high:.2f}), {float(row['acc_test']):.2f}")
        assert cells == texts
