"""What all systems that APQ is compared with promise, and the controls among them."""

from itertools import product

import numpy as np
import pytest

from apq_moo.algorithms import ALGORITHMS
from apq_moo.algorithms.baselines.reference import reference_depths, reference_network
from apq_moo.algorithms.baselines.system import Target, within
from apq_moo.algorithms.strategy import Context
from apq_moo.errors import UserError
from apq_moo.hardware import find_device, minimum
from apq_moo.problems import APQProblem
from apq_moo.problems.evaluated import Evaluated
from apq_moo.space import load_space
from apq_moo.study.epsilon_constraint import with_parts
from apq_moo.testing import AlgorithmConformance
from apq_moo.testing.strategies import limited_problem

FREE = ["spos", "chamnet:batch=10:samples=20:predictions=200:finals=3"]
"""Choose among all networks; the others keep most genes of a reference network."""

CONTROLS = ["mobilenetv2-8bit", "uniform-width", "uniform-bits", "greedy", "milp"]

PIPELINES = [
    "uniform-width+uniform-bits",
    "amc+haq:stages=1.25:amc__hidden=8:amc__episodes=6:haq__hidden=8:haq__episodes=6",
]

AGENTS = [f"{name}:hidden=8:episodes=8:warmup=2" for name in ("amc", "haq")]


class TestFreeSystems(AlgorithmConformance):
    @pytest.fixture(params=FREE)
    def algorithm(self, request):
        return ALGORITHMS.get(request.param)


class TestControls(AlgorithmConformance):
    """Limits are shares of what the reference network costs: of the whole space few are met."""

    draws = False

    @pytest.fixture(params=["uniform-bits", "greedy", "milp"])
    def algorithm(self, request):
        return ALGORITHMS.get(request.param)

    @pytest.fixture
    def make_problem(self, space):
        return lambda share: under_a_share(space, 0.8 + share)


class TestAgents(AlgorithmConformance):
    """On a space where latency and energy hardly know bits, so that size is limited."""

    @pytest.fixture
    def space(self):
        return load_space("tiny")

    @pytest.fixture(params=AGENTS)
    def algorithm(self, request):
        return ALGORITHMS.get(request.param)

    @pytest.fixture
    def make_problem(self, space):
        return lambda share: under_a_share(space, 0.85 + share, limit="size")


def under_a_share(space, share, objectives=("acc",), limit="latency"):
    free = limited_problem(space).with_limits({limit: 1e9})
    cost = free.costs(reference_network(free)[None])[limit][0]
    return free.with_limits({limit: share * cost}, objectives)


def drive(name, problem, budget, seed=0, points=None):
    """All that a system evaluates, in order, and its strategy."""
    strategy = ALGORITHMS.get(name).strategy()
    context = Context(problem, budget, seed)
    if points is not None:
        context = with_parts(context, points)
    return Evaluated.join(list(strategy.rounds(context))), strategy


def ask(search, answer):
    """Drive a search; what it asked for, batch by batch, and what it returns."""
    asked = []
    try:
        index = next(search)
        while True:
            asked.append(index)
            index = search.send(answer(index))
    except StopIteration as stop:
        return asked, stop.value


# -- what drives systems ---------------------------------------------------------------------------


def test_a_budget_cuts_the_last_batch_and_all_is_handed_back():
    def search():
        yield np.array([[1], [5]])
        yield np.array([[9], [7], [11]])
        raise AssertionError("it was asked on")

    asked, (index, scores) = ask(within(search(), 4), lambda index: index[:, 0] / 2)
    assert [batch.tolist() for batch in asked] == [[[1], [5]], [[9], [7]]]
    assert index[:, 0].tolist() == [1, 5, 9, 7]
    assert scores.tolist() == [0.5, 2.5, 4.5, 3.5]

    def once():
        yield np.array([[3]])

    assert ask(within(once(), 4), lambda index: index[:, 0] / 2)[1][1].tolist() == [1.5]
    assert [len(part) for part in ask(within(once(), 0), None)[1]] == [0, 0]


@pytest.mark.parametrize("name", [*FREE, *CONTROLS, *PIPELINES, *AGENTS])
def test_returned_networks_meet_the_limits_by_the_tables(name, digits):
    """Costs are computed again layer by layer, not from what the search gathered."""
    share = 1.0 if name == "mobilenetv2-8bit" else 0.9
    problem = under_a_share(digits, share, ("acc", "latency"))
    found, _ = drive(name, problem, 60, points=None if name == "mobilenetv2-8bit" else 2)
    rows = np.flatnonzero(found.feasible)
    assert len(rows)
    device = find_device("bitfusion")
    for subnet in problem.space.decode(found.genotypes[rows]):
        latency = device.layer_costs(problem.space.layers(subnet))["latency"].sum()
        assert latency <= problem.constraints["latency"] * (1 + 1e-12)
    assert len(found) <= 60


def test_parameters_are_named_and_checked():
    spos = ALGORITHMS.get("spos:top=5:prob=1").system()
    assert (spos.top, spos.prob) == (5, 1.0)
    for text, said in {
        "spos:tops=5": "spos has no parameter 'tops'; it has size, top",
        "spos:top=many": "spos: top must be an integer, not 'many'",
        "spos:prob=2": r"spos: prob must lie in \(0, 1\], not 2",
        "spos:mutants=40": "mutants=40 and crossovers=25 are more than a generation of size=50",
        "spos:faithful=typo": "spos: no slip 'typo' is known of it; faithful names some of",
        "uniform-bits:a=1": "uniform-bits has no parameter 'a'; it has none",
        "nsga2:pop=3": "nsga2 takes no parameters; systems do: mobilenetv2-8bit, uniform-width",
        "uniform-width+spos": "spos chooses everything: it is no stage of a pipeline",
        "uniform-bits+mobilenetv2-8bit": "mobilenetv2-8bit can only be the first stage",
        "uniform-width+nsga2": "nsga2 is no stage of a pipeline; systems do: mobilenetv2-8bit",
        "uniform-width+uniform-bits:a=1": r"has no parameter 'a'; it has stages, uniform-width__",
        "uniform-width+uniform-bits:uniform-bits__a=1": "uniform-bits has no parameter 'a'; it has",
        "uniform-width+uniform-bits:stages=1/x": "stages are multiples of the limits above 0 and",
        "haq+amc+haq": "haq is a stage twice: what it chose stays, so name it once",
        "amc:lbound=0.9:rbound=0.5": "amc: 0 < lbound <= rbound <= 1 must hold, not lbound=0.9 and",
        "haq:agent=dqn": "haq: agent is one of ddpg, ",
        "spos:top": "'top' in 'spos:top': write NAME:PARAMETER=VALUE, such as",
    }.items():
        with pytest.raises(UserError, match=said):
            ALGORITHMS.get(text)
    assert "spos:top=5" in ALGORITHMS
    assert "spso:top=5" not in ALGORITHMS


def test_accuracy_has_to_be_an_objective(problem_of):
    with pytest.raises(UserError, match="spos maximises acc: add it to the objectives"):
        drive("spos", problem_of("digits", ("latency", "energy")), 100, points=2)


# -- the reference network -------------------------------------------------------------------------


def test_the_reference_network_is_mobilenetv2():
    """Where a space offers it: kernels of 3, six times the input width, MobileNetV2's depths."""
    space = load_space("imagenet")
    problem = APQProblem(space, ("latency",))
    (subnet,) = space.decode(space.from_block_index(reference_network(problem)[None]))
    stages = [block.stage for block in subnet.blocks]
    assert [stages.count(number) for number in range(6)] == [2, 3, 4, 3, 3, 1]
    assert {block.kernel for block in subnet.blocks} == {3}
    inputs = [16, 24, 24, 40, 40, 40, 80, 80, 80, 80, 96, 96, 96, 192, 192, 192]
    widths = [16, *[24] * 2, *[40] * 3, *[80] * 4, *[96] * 3, *[192] * 3]
    assert len(inputs) == len(widths)
    assert [block.channels for block in subnet.blocks] == [6 * width for width in widths]
    assert {(b.w_pw, b.a_pw, b.w_dw, b.a_dw) for b in subnet.blocks} == {(8, 8, 8, 8)}


def test_without_its_options_the_nearest(problem_of, space):
    """On the toy: kernel 3, all channels (expansion 2), 8 bits, and the deepest stages."""
    problem = problem_of(space)
    if space.name != "tiny":
        return
    (subnet,) = space.decode(space.from_block_index(reference_network(problem)[None]))
    assert [(b.stage, b.kernel, b.channels, b.a_dw) for b in subnet.blocks] == [
        (0, 3, 8, 8),
        (0, 3, 8, 8),
        (1, 3, 8, 8),
    ]
    assert reference_depths(space).tolist() == [2, 1]


# -- controls --------------------------------------------------------------------------------------


@pytest.fixture
def toy():
    return load_space("tests/problems/tiny.toml")


def test_uniform_width_is_the_widest_that_fits(problem_of, digits):
    """Against all multiples, walked by hand: equal shares of each block's channels."""
    free = problem_of("digits", ("acc",))
    base = reference_network(free)
    (subnet,) = digits.decode(digits.from_block_index(base[None]))
    shares = sorted({c / 32 for c in (8, 16, 24, 32)} | {c / 48 for c in range(8, 49, 8)})
    latencies = []
    for share in np.linspace(0.01, 1, 200):
        blocks = subnet.to_dict()
        for block, plan in zip(blocks["blocks"], _plans(digits, subnet), strict=True):
            options = plan.options["channels"]
            fits = [c for c in options if c <= share * block["channels"] + 1e-9]
            block["channels"] = max(fits, default=options[0])
        X = digits.encode([blocks])
        latencies.append((share, float(free.evaluate_raw(X)["acc"][0]), X))
    assert len(shares) > 4
    reference_ms = float(APQProblem(digits, ("latency",)).costs(base[None])["latency"][0])
    for limit in (0.5, 0.75, 0.9):
        problem = free.with_limits({"latency": limit * reference_ms})
        fitting = [X for _, _, X in latencies if problem.feasible_rows(X)[0]]
        if not fitting:
            continue
        found, _ = drive("uniform-width", problem, 10)
        assert found.feasible.tolist() == [True]
        np.testing.assert_array_equal(found.genotypes, fitting[-1])


def _plans(space, subnet):
    seen: dict[int, int] = {}
    for block in subnet.blocks:
        place = seen.get(block.stage, 0)
        seen[block.stage] = place + 1
        yield space.plans[space.layout.stage_blocks[block.stage].start + place]


def test_uniform_bits_have_one_width(problem_of, digits):
    free = problem_of("digits", ("acc",))
    base = reference_network(free)
    reference_ms = float(APQProblem(digits, ("latency",)).costs(base[None])["latency"][0])
    widths = []
    for share in np.linspace(0.3, 1, 12):
        problem = free.with_limits({"latency": share * reference_ms})
        try:
            found, _ = drive("uniform-bits", problem, 10)
        except UserError as error:
            assert "that uniform-bits can choose has latency <=" in str(error)  # noqa: PT017
            continue
        (subnet,) = digits.decode(found.genotypes)
        (width,) = {bits for b in subnet.blocks for bits in (b.w_pw, b.a_pw, b.w_dw, b.a_dw)}
        widths.append(width)
    assert widths == sorted(widths)
    assert len(set(widths)) >= 3
    assert widths[-1] == 8


def test_what_leaves_no_choice_is_refused(problem_of):
    with pytest.raises(UserError, match="chooses bits, of which space 'mobilenet' offers one"):
        drive("uniform-bits", problem_of("mobilenet", ("acc",)), 10)


def test_unreachable_limits_name_the_smallest(problem_of, digits):
    problem = problem_of("digits", ("acc",), quantile=0.01)
    base = reference_network(problem)[None]
    smallest = problem.costs(base)["latency"][0]
    with pytest.raises(UserError, match="that mobilenetv2-8bit can choose has") as caught:
        drive("mobilenetv2-8bit", problem, 10)
    said = float(str(caught.value).split("reachable latency is ")[1].split()[0])
    assert smallest <= said <= smallest * 1.001


def test_a_sweep_spends_nothing_on_limits_out_of_reach(digits):
    """The parts that a control can reach share the budget; the others ask for nothing."""
    problem = limited_problem(digits).with_limits({})
    found, _ = drive("mobilenetv2-8bit", problem, 100, points=8)
    context = with_parts(Context(problem, 100, 0), 8)
    base = reference_network(problem)[None]
    reach = [part.problem.region.contains_blocks(base)[0] for part in context.parts]
    assert len(found) == sum(reach)
    assert 0 < sum(reach) < 8


# -- SPOS ------------------------------------------------------------------------------------------


def generations(space, name="spos:generations=20", quantile=0.3, budget=5000, seed=1):
    problem = limited_problem(space, quantile, ("acc",))
    system = ALGORITHMS.get(name).system()
    target = Target(problem, budget, np.random.default_rng(seed))
    worth = problem.accuracy
    asked, _ = ask(within(system.search([target]), budget), worth)
    return problem, system, asked, worth


def test_the_published_setting_is_1050_evaluations(digits):
    problem, _, asked, _ = generations(digits)
    assert [len(index) for index in asked] == [50] * 21
    index = np.vstack(asked)
    assert len(np.unique(index, axis=0)) == 1050
    assert problem.region.contains_blocks(index).all()


def test_children_come_from_the_ten_best(digits):
    """Every block of a crossover is of a parent; a mutant's genes are mostly its parent's."""
    problem, _, asked, worth = generations(digits)
    space = problem.space
    for number in (1, 3):
        known = np.vstack(asked[:number])
        top = known[np.argsort(-worth(known), kind="stable")[:10]]
        X, tops = space.from_block_index(asked[number]), space.from_block_index(top)
        active = space.active_genes(X)
        awake = space.active_genes(tops)
        mutants, crossed = slice(0, 25), slice(25, 50)
        same = ((X[mutants, None] == tops) & active[mutants, None] & awake).sum(axis=2)
        both = (active[mutants, None] & awake).sum(axis=2)
        assert 0.8 < (same / both).max(axis=1).mean() < 0.98  # 10 % of the genes are drawn anew
        pairs = [
            ((X[crossed] == a) & awake[i] | (X[crossed] == b) & awake[j] | ~active[crossed]).sum(1)
            for (i, a), (j, b) in product(enumerate(tops), repeat=2)
        ]
        inherited = np.max(pairs, axis=0) == space.n_var
        # Random networks stand in, at the end, for crossovers that were known already.
        assert inherited[:10].all()
        assert (np.diff(inherited.astype(int)) <= 0).all()


def test_the_forgotten_generation_never_enters_the_top(digits):
    kept, forgotten = (
        generations(digits, f"spos:generations=4{slip}")
        for slip in ("", ":faithful=forgotten-generation")
    )
    np.testing.assert_array_equal(np.vstack(kept[2]), np.vstack(forgotten[2]))
    for (problem, system, asked, worth), n in ((kept, 5), (forgotten, 4)):
        known = np.vstack(asked[:n])
        best = known[np.argsort(-worth(known), kind="stable")[:10]]
        np.testing.assert_array_equal(system.population(), problem.space.from_block_index(best))
    assert not ALGORITHMS.get("spos").reports_kept
    assert ALGORITHMS.get("spos:faithful=all").reports_kept


def test_rejection_gives_up_where_the_authors_code_does_not(digits):
    problem, _, asked, _ = generations(digits, "spos:generations=2:faithful=rejection")
    assert problem.region.contains_blocks(np.vstack(asked)).all()
    table = problem.tables["latency"]
    least, _ = minimum(table, problem.feasible)
    tight = problem.with_limits({"latency": 1.1 * least})
    with pytest.raises(UserError, match="random networks in a row that break a limit; the"):
        drive("spos:faithful=rejection", tight, 50)
    assert drive("spos", tight, 50)[0].feasible.all()


def test_spos_beats_random_draws(problem_of):
    problem = problem_of("digits", ("acc",), quantile=0.3)
    best = {
        name: np.median([drive(name, problem, 1050, seed)[0].F.min() for seed in range(2)])
        for name in ("spos", "random")
    }
    assert best["spos"] < best["random"]
