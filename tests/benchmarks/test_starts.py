"""The experiment on first networks: its table, against a search of its own."""

import numpy as np

from apq_moo.benchmarks.compare.bounds import bounds_of
from apq_moo.benchmarks.compare.scores import hypervolume
from apq_moo.benchmarks.experiments.starts import main
from apq_moo.study.config import RunConfig
from apq_moo.study.search import Search


def test_the_table_has_medians_of_both_starts(capsys):
    main(["--algos", "nsga2,apq-ga/2", "--space", "tiny", "--predictor", "table", "--seeds", "3",
          "--marks", "20,240", "--pop-size", "20"])  # fmt: skip
    head, _, *rows = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in (head, *rows)]
    assert cells[0] == ["algorithm", "uniform, 20", "sizes, 20", "uniform, 240", "sizes, 240"]
    assert [row[0] for row in cells[1:]] == ["nsga2", "apq-ga/2"]
    for column, start in ((3, "uniform"), (4, "sizes")):
        volumes = []
        for seed in range(3):
            search = Search(
                RunConfig("nsga2", space="tiny", predictor="table", budget=240, pop_size=20,
                          start=start, seed=seed)
            )  # fmt: skip
            volumes.append(hypervolume(search.run().front().F, bounds_of(search.problem)))
        assert cells[1][column] == f"{np.median(volumes):.3f}"
