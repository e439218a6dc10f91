"""The kernels against the plain torch path; on a CPU Triton interprets them."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

from apq_moo.errors import UserError
from apq_moo.space import Space, SpaceSpec
from apq_moo.supernet.evaluation import Evaluator
from apq_moo.supernet.gpu import evaluator, graphs, plans, workspace
from apq_moo.supernet.gpu.evaluator import GpuEvaluator
from apq_moo.supernet.gpu.training import GpuGradients
from apq_moo.supernet.gradients import Student, TorchGradients
from apq_moo.supernet.network import Supernet
from apq_moo.supernet.range_fitting import fit_ranges

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")


@pytest.fixture(autouse=True)
def float32_convolutions(monkeypatch):
    """The reference of cuDNN is float32's, not TF32's, whose roundings change levels."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


TOML = {
    "name": "tiny",
    "input_size": 7,
    "input_channels": 2,
    "classes": 5,
    "channel_step": 4,
    "bits": {
        **{role: [2, 3, 8] for role in ("w_pw", "a_pw", "w_dw", "a_dw")},
        "fixed": 8,
        "between": 16,
    },
    "stem": {"channels": 8, "kernel": 3},
    "stages": [
        {"width": 12, "stride": 2, "depths": [1, 2], "kernels": [3, 5], "expand": [0.5, 2]},
        {"width": 20, "stride": 1, "depths": [1], "kernels": [3], "expand": [1, 2]},
    ],
}
SPACE = Space(SpaceSpec.from_dict(TOML))


INTEGERS = Space(SpaceSpec.from_dict(TOML | {"bits": TOML["bits"] | {"between": 8}}))


@pytest.fixture(scope="module", autouse=True)
def patched_once():
    """Interpreted kernels find Triton's functions replaced: once, not in each call of a function.

    The interpreter looks through all of Triton's functions whenever one calls another, which takes
    about as long as what is interpreted. It also works out whether integers overflow, of which it
    tells when debugging only, and has a table made for each type that it looks up.
    """
    if DEVICE == "cuda":
        yield
        return
    from triton.runtime import interpreter

    builder, type_of = interpreter.interpreter_builder, interpreter._get_np_dtype
    options = builder.options
    if not options.debug:
        builder.options = replace(options, sanitize_overflow=False)
    of_scalar = cache(type_of)
    interpreter._get_np_dtype = lambda kind: (type_of if kind.scalar.is_ptr() else of_scalar)(
        kind.scalar
    )
    scopes, patch = {}, interpreter._patch_lang
    language = {id(interpreter.tl), id(interpreter.tl.core)}

    def patched(function):
        modules = frozenset(map(id, function.__globals__.values())) & language
        if modules not in scopes:
            scopes[modules] = patch(function)
        return interpreter._LangPatchScope()

    interpreter._patch_lang = patched
    yield
    interpreter._patch_lang, interpreter._get_np_dtype = patch, type_of
    builder.options = options
    for scope in reversed(scopes.values()):
        scope.restore()


@pytest.fixture
def supernet():
    return in_ranges(SPACE)


def in_ranges(space):
    net = network(space)
    fit_ranges(net, pictures()[:4], subnets=4)
    return net


def network(space):
    torch.manual_seed(3)
    net = Supernet(space)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "norm" in name or "transforms" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return net.to(DEVICE)


@pytest.fixture(params=["planes", "patches"])
def spatial(request, monkeypatch):
    """Both ways of depthwise convolution: large planes are cut into patches."""
    if request.param == "patches":
        monkeypatch.setattr(plans, "LARGEST_PLANE", 8)
        monkeypatch.setattr(workspace, "_MANY_TILES", 0)
    plans._plan.cache_clear()
    yield request.param
    plans._plan.cache_clear()


def subnets(n=1, space=SPACE):
    rows = np.vstack([space.largest(), space.sample(n, np.random.default_rng(5))])
    return space.decode(rows)


def pictures():
    return torch.rand(8, 2, 7, 7, generator=torch.Generator().manual_seed(0)).to(DEVICE)


@pytest.mark.parametrize("between", [8, pytest.param(16, marks=pytest.mark.slow)])
def test_logits_in_the_supernet_s_ranges_are_the_reference_s(between, spatial):
    space, x = SPACE if between == 16 else INTEGERS, pictures()
    net = in_ranges(space)
    reference, fast = Evaluator(net, x[:4]), GpuEvaluator(net, x[:4])
    for subnet in subnets(space=space):
        wanted = reference.logits(subnet, x[4:], quantised=True)
        assert wanted.std() > 0.01
        assert torch.equal(fast.logits(subnet, x[4:], quantised=True), wanted)


@pytest.mark.parametrize("space", [SPACE, INTEGERS], ids=["16", "8"])
def test_without_ranges_networks_run_in_full_precision_only(space):
    net, x = network(space), pictures()[:4]
    (subnet,) = space.decode(space.smallest())
    fast, kernels = GpuEvaluator(net, x), _kernels(net)
    prepared = fast.prepare(x)
    assert fast.logits(subnet, prepared, quantised=False).isfinite().all()
    assert np.isfinite(_step(kernels, [Student(subnet)]))
    with pytest.raises(UserError, match="no ranges"):
        fast.logits(subnet, prepared, quantised=True)
    with pytest.raises(UserError, match="no ranges"):
        _step(kernels, [Student(subnet, quantised=True)])
    fit_ranges(net, x, subnets=2)
    assert np.isfinite(_step(kernels, [Student(subnet, quantised=True)]))


@pytest.mark.parametrize("space", [SPACE, INTEGERS], ids=["16", "8"])
def test_what_was_launched_for_one_subnet_is_repeated_for_others(space, monkeypatch):
    """At other bits, and on other images."""
    net, x = in_ranges(space), pictures()
    (first,) = space.decode(space.smallest())
    blocks = [replace(block, w_pw=8, a_pw=3, w_dw=3, a_dw=8) for block in first.blocks]
    other = replace(first, blocks=tuple(blocks))
    reference, fast = Evaluator(net, x[:4]), GpuEvaluator(net, x[:4])
    for _ in range(3):  # rooms have grown, and launches are recorded
        fast.logits(first, x[4:], quantised=True)
    done = []
    for name in ("_calibrate", "_infer"):
        monkeypatch.setattr(fast, name, lambda *_, name=name: done.append(name))
    for subnet, images in ((other, 1 - x[4:]), (first, x[4:])):
        wanted = reference.logits(subnet, images, quantised=True)
        found = fast.logits(subnet, images, quantised=True)
        assert not done
        assert torch.equal(found, wanted)
    fast.forget()
    fast.logits(first, x[4:], quantised=True)
    assert done


@pytest.mark.parametrize("known", [True, False])
def test_ranges_that_are_fitted_again_are_those_of_the_calibration_too(known):
    """The first layer's levels of its images were rounded in the ranges of before."""
    net, x = in_ranges(SPACE) if known else network(SPACE), pictures()
    (subnet,) = SPACE.decode(SPACE.smallest())
    reference, fast = Evaluator(net, x[:4]), GpuEvaluator(net, x[:4])
    fit_ranges(net, 0.3 * x[:4], subnets=2)
    fast.forget()
    wanted = reference.logits(subnet, x[4:], quantised=True)
    assert torch.equal(fast.logits(subnet, x[4:], quantised=True), wanted)


def test_images_that_are_too_many_to_run_at_once_give_the_same(supernet, monkeypatch):
    x, subnet = pictures(), SPACE.decode(SPACE.smallest())[0]
    fast = GpuEvaluator(supernet, x[:4])
    wanted = fast.logits(subnet, x[1:], quantised=True)
    monkeypatch.setattr(evaluator, "_TOGETHER", 3 * 49)
    parts = fast.prepare(x[1:])
    assert [part.n for part in parts.parts] == [3, 3, 1]
    assert torch.equal(fast.logits(subnet, parts, quantised=True), wanted)


def test_activations_are_observed_as_the_reference_does():
    net, x = network(INTEGERS), pictures()
    (subnet,) = INTEGERS.decode(INTEGERS.largest())
    seen = {}
    for way in (Evaluator(net, x[:4]), GpuEvaluator(net, x[:4])):
        way.observe(subnet, lambda place, x: seen.setdefault(place, []).append(x.float()))
    assert seen.keys() == net.ranges.places.keys()
    for place, (wanted, found) in seen.items():
        assert found.numel() == wanted.numel(), place
        assert float(found.mean()) == pytest.approx(float(wanted.mean()), abs=0.01), place
        assert float(found.std()) == pytest.approx(float(wanted.std()), abs=0.01), place


def test_full_precision_logits_agree_to_half_precision(supernet, spatial):
    images = torch.rand(8, 2, 7, 7, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    reference, fast = Evaluator(supernet, images[:4]), GpuEvaluator(supernet, images[:4])
    prepared = fast.prepare(images[4:])
    for subnet in subnets():
        wanted = reference.logits(subnet, images[4:], quantised=False)
        found = fast.logits(subnet, prepared, quantised=False)
        assert torch.allclose(found, wanted, atol=0.01)
        assert not torch.equal(found, wanted)


def test_ranges_clip_other_images(supernet):
    x = torch.rand(4, 2, 7, 7, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    reference, fast = Evaluator(supernet, x), GpuEvaluator(supernet, x)
    subnet = subnets()[0]
    wanted = reference.logits(subnet, 3 * x - 1, quantised=True)
    assert torch.equal(fast.logits(subnet, 3 * x - 1, quantised=True), wanted)


def _step(way, students, soft=None):
    """Loss of one step on four images; the gradients are left in the supernet."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(4, 2, 7, 7, generator=generator).half().float().to(DEVICE)
    return float(way.step(x, torch.arange(4, device=DEVICE), students, soft))


def _kernels(supernet, distillation="kl"):
    exact = {} if DEVICE == "cuda" else {"backward_type": torch.float32}
    return GpuGradients(supernet, 0.2, distillation, forward_type=torch.float32, **exact)


@pytest.mark.parametrize(
    ("spatial", "quantised", "distillation"),
    [
        ("planes", False, "alpha"),
        ("planes", True, "kl"),
        ("planes", "clipped", "kl"),
        ("patches", True, "kl"),
        pytest.param("patches", False, "alpha", marks=pytest.mark.slow),
        pytest.param("patches", "clipped", "kl", marks=pytest.mark.slow),
    ],
    indirect=["spatial"],
)
def test_gradients_are_autograd_s(supernet, spatial, quantised, distillation):
    """Relative to their norm; the shift behind a projection that feeds a norm has none."""
    if quantised == "clipped":
        supernet.ranges.load(supernet.ranges.tensor() * 0.5)  # a good part is clipped
        quantised = True
    students = [Student(subnet, quantised) for subnet in subnets()]
    loss = _step(TorchGradients(supernet, 0.2, distillation), students)
    wanted = {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in supernet.named_parameters()
    }
    supernet.zero_grad(set_to_none=True)
    assert _step(_kernels(supernet, distillation), students) == pytest.approx(loss, abs=1e-3)
    typical = float(np.median([float(g.norm()) for g in wanted.values()]))
    tolerance = 0.05 if DEVICE == "cpu" else 0.3
    for name, parameter in supernet.named_parameters():
        error = float((parameter.grad - wanted[name]).norm())
        assert error < tolerance * max(float(wanted[name].norm()), 0.1 * typical), name


def test_all_learn_from_predictions_that_are_given(supernet):
    students = [Student(subnet) for subnet in subnets()[1:]]
    soft = torch.rand(4, 5, generator=torch.Generator().manual_seed(2)).softmax(1).to(DEVICE)
    grads = []
    for way in (TorchGradients(supernet, 0.2), _kernels(supernet)):
        _step(way, students, soft)
        assert len(way.logits) == len(students)
        grads.append(supernet.classifier.weight.grad.clone())
        supernet.zero_grad(set_to_none=True)
    assert float((grads[0] - grads[1]).norm()) < 0.05 * float(grads[0].norm())


@pytest.mark.parametrize(
    ("quantised", "grads"), [(False, "kept"), (True, "missing"), (True, "others")]
)
def test_a_step_replaces_the_gradients_of_the_one_before(supernet, quantised, grads, monkeypatch):
    """Whether they are still there, or others stand in their place."""
    students = [Student(SPACE.decode(SPACE.smallest())[0], quantised)]
    kernels = _kernels(supernet)
    loss = _step(kernels, students)
    wanted = [parameter.grad.clone() for parameter in supernet.parameters()]
    assert any(bool(grad.any()) for grad in wanted)
    if grads == "missing":
        supernet.zero_grad(set_to_none=True)
    elif grads == "others":
        for parameter in supernet.parameters():
            parameter.grad = torch.full_like(parameter, 7.0)
    else:  # what has been launched three times is only repeated
        for _ in range(2):
            _step(kernels, students)
        for name in ("_forward_part", "_backward_part"):
            monkeypatch.setattr(kernels, name, pytest.fail)
    assert _step(kernels, students) == pytest.approx(loss, abs=1e-6)
    for parameter, grad in zip(supernet.parameters(), wanted, strict=True):
        assert torch.allclose(parameter.grad, grad, rtol=1e-4, atol=1e-6)


def test_what_is_recorded_is_of_as_many_images(supernet, monkeypatch):
    """Planes of 4 and of 3 images fill the same rows."""
    student, kernels, keys = Student(SPACE.decode(SPACE.smallest())[0]), _kernels(supernet), []
    monkeypatch.setattr(kernels._replays, "do", lambda key, *_: keys.append(key))
    shapes = {kernels._begin(pictures()[:n])[1].shape for n in (3, 4)}
    assert len(shapes) == 1
    keys.clear()
    for n in (3, 4):
        kernels.predict(pictures()[:n], student)
    assert len({key for key in keys if key != "begin"}) == 2


@pytest.mark.skipif(DEVICE == "cpu", reason="CUDA graphs need a GPU")
@pytest.mark.parametrize("quantised", [False, True])
def test_what_is_replayed_is_what_is_done(supernet, quantised, monkeypatch):
    """Of one subnet in every step, from the third on by a graph, while ranges are fitted again."""
    monkeypatch.setattr(graphs, "_SEEN_BEFORE", 2)
    twin = in_ranges(SPACE)
    rare, often = (Student(subnet, quantised) for subnet in subnets())
    replaying, doing = _kernels(supernet), _kernels(twin)
    doing._replays._possible = False
    x, y = pictures(), torch.arange(8, device=DEVICE) % 5
    for step in range(8):
        if step in (2, 5):
            for net in (supernet, twin):
                fit_ranges(net, pictures()[:4] * (1 + step), subnets=2, seed=step)
        images = x * (1 + 0.1 * step)
        for way in (replaying, doing):
            way.step(images, y, [often, rare, often] if step % 2 else [often, often])
        soft = doing.logits[0].softmax(1)
        assert torch.allclose(replaying.predict(images, often), doing.predict(images, often))
        for way in (replaying, doing):
            way.step(images, y, [often], soft)
        for a, b in zip(replaying.logits, doing.logits, strict=True):
            assert torch.allclose(a, b, atol=1e-3)
        for a, b in zip(supernet.parameters(), twin.parameters(), strict=True):
            assert float((a.grad - b.grad).norm()) <= 1e-2 * max(float(b.grad.norm()), 1e-2)
        with torch.no_grad():
            for net in (supernet, twin):
                for parameter in net.parameters():
                    parameter.add_(0.01)
    assert len(replaying._replays._recorded) > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"w_pw": [2, 12]}, "12 bits; on a GPU 8 are the most"),
        ({"between": 32}, "between = 16"),
        ({"between": 8, "a_pw": [4, 32]}, "integers between blocks and offers 32 bits"),
    ],
)
def test_a_space_that_the_kernels_cannot_run_is_refused(change, words):
    space = Space(SpaceSpec.from_dict(TOML | {"bits": TOML["bits"] | change}))
    with pytest.raises(UserError, match=words):
        GpuEvaluator(Supernet(space), torch.rand(4, 2, 7, 7))


def test_floating_point_roles_run_beside_quantised_ones(supernet):
    bits = TOML["bits"] | {"w_dw": [3, 32], "a_pw": [4, 32]}
    space = Space(SpaceSpec.from_dict(TOML | {"bits": bits}))
    net = Supernet(space).to(DEVICE)
    x = torch.rand(4, 2, 7, 7, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    fit_ranges(net, x, subnets=4)
    subnet = space.decode(space.largest())[0]
    blocks = tuple(
        replace(block, w_dw=(3, 32)[i % 2], a_pw=(32, 4)[i % 2])
        for i, block in enumerate(subnet.blocks)
    )
    subnet = replace(subnet, blocks=blocks)
    wanted = Evaluator(net, x).logits(subnet, x, quantised=True)
    found = GpuEvaluator(net, x).logits(subnet, x, quantised=True)
    assert float((found - wanted).norm()) < 0.1 * float(wanted.norm())


def test_bytes_are_prepared_as_floats_are(supernet):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (5, 2, 7, 7), dtype=np.uint8)
    floats = torch.from_numpy(pixels / np.float32(255))
    kernels = GpuEvaluator(supernet, torch.from_numpy(pixels).to(DEVICE))
    (given,), (wanted,) = (kernels.prepare(x).parts for x in (torch.from_numpy(pixels), floats))
    assert torch.equal(given.floats, wanted.floats)
    assert torch.equal(given.levels, wanted.levels)
    assert torch.equal(kernels.calibration.floats, wanted.floats)
