"""What the benchmark of NSGA-II's operators counts, and that its parts add up."""

import re

import numpy as np
import pytest

from apq_moo.benchmarks.speed import operator_speed
from apq_moo.space import Layout, Space, load_space


def test_nothing_is_encoded_in_a_round():
    before = [vars(owner).get(name) for name, owner in operator_speed._COUNTED.items()]
    found = operator_speed.measure(load_space("digits"), 30, 5)
    after = [vars(owner).get(name) for name, owner in operator_speed._COUNTED.items()]
    assert found.calls["canonical"] == found.calls["block_index"] == 0
    assert 1 <= found.calls["number"] < 4  # once for each mating
    assert sum(found.parts_s.values()) == pytest.approx(found.cpu_s)
    assert min(found.parts_s.values()) >= 0
    assert after[2] is before[2] is Layout.number
    again = operator_speed.measure(load_space("digits"), 30, 5)
    assert again.checksum == found.checksum


def test_accuracies_are_sums_over_blocks():
    space = load_space("tiny")
    accuracy = operator_speed.BlockAccuracy(space)
    X = space.sample(20, np.random.default_rng(0))
    index = space.block_index(X)
    wanted = [
        60 + sum(gains[number] for gains, number in zip(accuracy._gains, row, strict=True))
        for row in index
    ]
    np.testing.assert_allclose(accuracy.predict(X), wanted, rtol=1e-15)
    assert accuracy._gains[0][-1] == 0
    assert accuracy.spent_s >= 0


def test_what_it_prints(capsys):
    operator_speed.main(["--pop-size", "20", "--rounds", "2", "--repeats", "2"])
    first, second, *parts, floor = capsys.readouterr().out.splitlines()
    assert first.startswith("a round of 20 on fashion: canonical 0.00 times, block_index 0.00")
    assert float(second.split(" ms")[0]) > 0
    names = [re.fullmatch(r"  (\w+): [\d.]+ ms", line)[1] for line in parts]
    assert names == [*operator_speed._PARTS, "evaluation", "loop"]
    assert floor.startswith("floor, of pymoo itself: ")
    with pytest.raises(SystemExit):
        operator_speed.main(["--rounds", "0"])
    assert Space.canonical.__name__ == "canonical"
