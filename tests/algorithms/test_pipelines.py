"""Stages one after the other, and what each can choose of the network that it is handed."""

from typing import ClassVar

import numpy as np
import pytest

from apq_moo.algorithms import ALGORITHMS
from apq_moo.algorithms.baselines.choice import DEPTH, Choice, cheapest_of, with_fields
from apq_moo.algorithms.baselines.pipeline import Pipeline
from apq_moo.algorithms.baselines.reference import nearest_blocks, reference_network
from apq_moo.algorithms.baselines.system import System, Target, within
from apq_moo.errors import UserError
from apq_moo.problems import APQProblem
from apq_moo.space import all_networks, load_space
from apq_moo.space.spec import FIELDS, ROLES


@pytest.fixture(scope="module")
def toy():
    return load_space("tests/problems/tiny.toml")


@pytest.fixture
def networks(toy):
    """All of them, as block configurations."""
    return toy.block_index(all_networks(toy))


def latency(space):
    return APQProblem(space, ("latency",))


# -- what can be chosen ----------------------------------------------------------------------------


def alike(space, index, base, fields):
    """Which networks differ from a base in these fields only, block by block."""
    rows = []
    (of,) = space.decode(space.from_block_index(base[None]))
    for subnet in space.decode(space.from_block_index(index)):
        same_depth = [b.stage for b in subnet.blocks] == [b.stage for b in of.blocks]
        kept = [name for name in FIELDS if name not in fields]
        rows.append(
            same_depth
            and all(
                getattr(b, name) == getattr(o, name)
                for b, o in zip(subnet.blocks, of.blocks, strict=True)
                for name in kept
            )
        )
    return np.array(rows)


@pytest.mark.parametrize("fields", [(), ("channels",), ROLES, ("kernel", *ROLES), FIELDS])
def test_the_cheapest_choice_is_that_of_all_networks(toy, networks, fields):
    free = latency(toy)
    for base in networks[[0, 400, 900, -1]]:
        rows = networks[alike(toy, networks, base, fields)]
        costs = free.costs(rows)["latency"]
        choice = Choice(free, base, fields, "it")
        assert choice.offers() == (len(rows) > 1)
        assert choice.least(free.tables["latency"]) == pytest.approx(costs.min(), rel=1e-12)
        bound = free.with_limits({"latency": costs.min()})
        found = Choice(bound, base, fields, "it").cheapest()
        assert free.costs(found[None])["latency"][0] == costs.min()
        assert (rows == found).all(axis=1).any()
        least = np.unique(free.costs(networks)["latency"])[0]
        if costs.min() > least:
            beyond = free.with_limits({"latency": (costs.min() + least) / 2})
            with pytest.raises(UserError, match=r"that it can choose has latency <= .* smallest"):
                Choice(beyond, base, fields, "it").cheapest()


def test_depths_may_be_chosen_too(toy, networks):
    """Blocks that the base lacks begin as the reference network's."""
    free = latency(toy)
    base = reference_network(free)
    assert (base == nearest_blocks(free)).all()
    shallow = toy.layout.cut(base[None], np.array([[1, 1]]))[0]
    for of in (base, shallow):
        choice = Choice(free, of, (DEPTH, "kernel"), "it")
        rows = np.array(
            [
                alike(toy, networks, like, ("kernel",))
                for like in (base, shallow)  # the same genes at both depths
            ]
        ).any(axis=0)
        costs = free.costs(networks[rows])["latency"]
        assert choice.least(free.tables["latency"]) == pytest.approx(costs.min(), rel=1e-12)
        cheapest = choice.cheapest()
        assert (networks[rows] == cheapest).all(axis=1).any()
        assert toy.layout.depths(cheapest[None]).tolist() == [[1, 1]]


def test_of_several_sets_the_cheapest(toy, networks):
    free = latency(toy)
    bases = networks[np.random.default_rng(2).integers(0, len(networks), 6)]
    kept = [networks[alike(toy, networks, base, ("channels",))] for base in bases]
    costs = np.concatenate([free.costs(rows)["latency"] for rows in kept])
    bound = free.with_limits({"latency": np.median(costs)})
    found = cheapest_of([Choice(bound, base, ("channels",), "it") for base in bases])
    assert free.costs(found[None])["latency"][0] == costs.min()
    least = free.costs(networks)["latency"].min()
    beyond = free.with_limits({"latency": (costs.min() + least) / 2})
    with pytest.raises(UserError, match="smallest reachable latency is") as caught:
        cheapest_of([Choice(beyond, base, ("channels",), "it") for base in bases])
    said = float(str(caught.value).split("reachable latency is ")[1].split()[0])
    assert costs.min() <= said <= costs.min() * 1.001


def test_fields_of_another_network(toy, networks):
    rng = np.random.default_rng(0)
    for base, other in networks[rng.integers(0, len(networks), (40, 2))]:
        for fields in (("channels",), (DEPTH, "kernel"), ROLES):
            mixed = with_fields(toy, base, other, fields)
            decoded = [
                toy.decode(toy.from_block_index(row[None]))[0] for row in (mixed, base, other)
            ]
            made, of, by = decoded
            shape = by if DEPTH in fields else of
            assert [b.stage for b in made.blocks] == [b.stage for b in shape.blocks]
            places = [
                np.flatnonzero(toy.layout.active(row[None])[0]) for row in (mixed, base, other)
            ]
            first, second = (
                dict(zip(p, s.blocks, strict=True))
                for p, s in zip(places[1:], (of, by), strict=True)
            )
            for b, block in zip(places[0], made.blocks, strict=True):
                for name in FIELDS:
                    source = second if (name in fields and b in second) or b not in first else first
                    assert getattr(block, name) == getattr(source[b], name)


# -- stages ----------------------------------------------------------------------------------------


class Drawn(System):
    """Draws channels, or bits, that meet its limits, ever again."""

    fields: ClassVar[tuple[str, ...] | None] = ("channels",)
    title = "drawn"

    def reach(self, target, base=None):
        choice = Choice(target.problem, base, self.fields, self.title)
        while True:
            index = np.tile(choice.cheapest(), (50, 1))
            for b, mask in enumerate(choice.open):
                if mask.any():
                    index[1:, b] = target.rng.choice(np.flatnonzero(mask), 49)
            yield index[target.region.contains_blocks(index)][-1:]
            self.record.append((dict(target.problem.constraints), target.budget))


class DrawnBits(Drawn):
    fields: ClassVar[tuple[str, ...] | None] = ROLES
    title = "drawn-bits"


def carry_out(pipeline, problem, budget, record=None):
    for system in pipeline.systems:
        system.record = [] if record is None else record
    search = within(pipeline.reach(Target(problem, budget, np.random.default_rng(4))), budget)
    batches = []
    try:
        index = next(search)
        while True:
            batches.append(index)
            index = search.send(problem.accuracy(index))
    except StopIteration:
        return np.vstack(batches)


@pytest.fixture(scope="module")
def under(problem_of):
    """Makes problems whose limit is a share of what the reference network costs."""
    free = problem_of("digits", ("acc",)).with_limits({"latency": 1e9})
    cost = free.costs(reference_network(free)[None])["latency"][0]
    return lambda share: free.with_limits({"latency": share * cost})


def test_each_stage_freezes_what_it_chose(under):
    """Walked by hand: 60 evaluations, three multiples of the limit, a half for each stage."""
    problem = under(0.8)
    space, record = problem.space, []
    limit = problem.constraints["latency"]
    asked = carry_out(Pipeline([Drawn(), DrawnBits()]), problem, 60, record)
    assert len(asked) == 60
    assert [limits["latency"] / limit for limits, _ in record] == pytest.approx(
        [1] * 20 + [1.25] * 10 + [1] * 10 + [1.5] * 10 + [1] * 10
    )
    assert {budget for _, budget in record} == {10}
    reference = reference_network(problem)
    for part, ratio in zip(np.split(asked, 3), (1, 1.25, 1.5), strict=True):
        first, second = np.split(part, 2)
        wider = problem.with_limits({"latency": ratio * limit})
        assert wider.region.contains_blocks(first).all()
        assert all(alike(space, first, reference, ("channels",)))
        best = first[problem.accuracy(first).argmax()]
        assert problem.region.contains_blocks(second).all()
        assert all(alike(space, second, best, ROLES))


def test_what_the_following_cannot_end_is_not_handed_on(under):
    """The limit is what the narrowest network has at its fewest bits: few others can reach it."""
    problem = under(0.8)
    whole = Choice(problem, reference_network(problem), ("channels", *ROLES), "it")
    tight = problem.with_limits({"latency": 1.02 * whole.least(problem.tables["latency"])})
    asked = carry_out(Pipeline([Drawn(), DrawnBits()], "3"), tight, 30)
    inside = tight.region.contains_blocks(asked)
    assert not inside[:15].all()
    assert inside[-15:].all()


def test_the_grid_is_one_search_where_it_changes_nothing(under):
    """A network that was handed on already is not worked on again: its share goes on."""
    problem = under(1.1)
    asked = carry_out(
        Pipeline([ALGORITHMS.get("uniform-width").system(), DrawnBits()]), problem, 60
    )
    assert len(asked) == 3 + 19
    assert (asked[[0, -2, -1]] == reference_network(problem)).all()
    record = []
    first = ALGORITHMS.get("mobilenetv2-8bit").system()
    assert len(carry_out(Pipeline([first, DrawnBits()]), problem, 60, record)) == 60
    assert {budget for _, budget in record} == {60}


@pytest.mark.parametrize("share", [0.4, 0.6, 0.9])
def test_width_then_bits_against_all_of_both(under, share):
    problem = under(share)
    width, bits = (ALGORITHMS.get(f"uniform-{name}").system() for name in ("width", "bits"))
    table, limit = problem.tables["latency"], problem.constraints["latency"]
    expected = []
    for ratio in (1, 1.25, 1.5):
        for wide in width.family(problem, reference_network(problem)):
            mixed = Choice(problem, wide, ROLES, "it").least(table)
            if table.gather(wide[None])[0] <= ratio * limit and mixed <= limit:
                rows = bits.family(problem, wide)
                expected += list(rows[table.gather(rows) <= limit][:1])
                break
    assert expected
    asked = carry_out(Pipeline([width, bits]), problem, 60)
    inside = asked[problem.region.contains_blocks(asked)]
    found = {row.tobytes() for row in inside}
    assert {row.tobytes() for row in expected} <= found
    products = [
        table.gather(row[None])[0]
        for wide in width.family(problem, reference_network(problem))
        for row in bits.family(problem, wide)
    ]
    with pytest.raises(UserError, match="that uniform-width\\+uniform-bits can choose") as caught:
        ALGORITHMS.get("uniform-width+uniform-bits").system().admit(
            problem.with_limits({"latency": 0.99 * min(products)})
        )
    said = float(str(caught.value).split("reachable latency is ")[1].split()[0])
    assert min(products) <= said <= min(products) * 1.001
