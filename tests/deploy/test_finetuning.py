"""Fine-tuning a subnet at its bits."""

import json
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from apq_moo.cli import main
from apq_moo.deploy import cut_out, execute, load_network
from apq_moo.deploy.tunable import LearnedSteps
from apq_moo.deploy.tuning import Tuner, TuningConfig
from apq_moo.errors import UserError
from apq_moo.space import load_space, sample_sizes
from apq_moo.supernet.scoring import Scorer

SPACE = load_space("digits")
SHORT = TuningConfig(steps=6, batch_size=32, freeze=0.5)


def call(*arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code or 0


def subnets(n=2):
    return SPACE.decode(sample_sizes(SPACE, n, np.random.default_rng(3)))


def same(a, b):
    """Whether two integer networks are the same to the last bit."""
    return all(
        np.array_equal(getattr(p, part), getattr(q, part))
        for p, q in zip(a.layers, b.layers, strict=True)
        for part in ("weight", "gain", "bias")
    ) and [(p.input, p.output, p.total) for p in a.layers] == [
        (q.input, q.output, q.total) for q in b.layers
    ]


def test_it_begins_as_what_searches_measured(trained, image_set):
    scorer = Scorer(trained, image_set)
    for subnet in subnets():
        tuner = Tuner(trained, subnet, image_set, SHORT)
        folded = tuner.network.folded()
        network = cut_out(trained, subnet, image_set)
        assert same(tuner.integers(folded, {}), network)
        wanted = scorer.accuracies([subnet], ["validation"], quantised=True)[0, 0]
        assert tuner.accuracy(folded, "validation") == pytest.approx(wanted, abs=1e-9)


def test_learned_steps_have_the_gradients_of_lsq():
    """Equation 3 of Esser et al.: rounding errors within, ends outside, and the scale of 2.2."""
    quantiser = LearnedSteps(torch.tensor(0.5), -4, 3)
    x = torch.tensor([0.3, -0.9, 1.4, 5.0, -7.0], requires_grad=True)
    y = quantiser(x)
    assert y.tolist() == [0.5, -1.0, 1.5, 1.5, -2.0]
    weights = torch.tensor([1.0, 10.0, 100.0, 1000.0, 10000.0])
    (y * weights).sum().backward()
    assert x.grad.tolist() == [1.0, 10.0, 100.0, 0.0, 0.0]
    inside = [(round(v / 0.5) - v / 0.5) for v in (0.3, -0.9, 1.4)]
    of_step = float(np.dot([*inside, 3, -4], weights.numpy()))
    scale = 1 / np.sqrt(5 * 3)
    assert float(quantiser.ratio.grad) == pytest.approx(of_step * scale * 0.5, rel=1e-5)


def test_each_channel_learns_its_own_step():
    quantiser = LearnedSteps(torch.tensor([0.5, 2.0]), -3, 3)
    y = quantiser(torch.tensor([[0.6, 9.0], [0.6, 9.0]]))
    assert y.tolist() == [[0.5, 1.5], [0.0, 6.0]]
    y[1].sum().backward()
    assert quantiser.ratio.grad[0] == 0
    assert quantiser.ratio.grad[1] != 0


def test_an_interrupted_tuning_is_the_undisturbed_one(trained, image_set, tmp_path):
    subnet = subnets()[0]
    whole = Tuner(trained, subnet, image_set, SHORT)
    wanted = whole.integers(whole.run(), {})

    def stop(step, _steps):
        if step == 4:
            raise KeyboardInterrupt

    first = Tuner(trained, subnet, image_set, SHORT)
    with pytest.raises(KeyboardInterrupt):
        first.run(callback=stop)
    first.save(tmp_path / "a.training")
    second = Tuner(trained, subnet, image_set, SHORT)
    second.load(tmp_path / "a.training")
    second.save(tmp_path / "b.training")
    assert (tmp_path / "a.training").read_bytes() == (tmp_path / "b.training").read_bytes()
    assert second.step == 4
    assert same(second.integers(second.run(), {}), wanted)
    assert not same(cut_out(trained, subnet, image_set), wanted)


def test_late_batch_norms_keep_their_statistics(trained, image_set):
    tuner = Tuner(trained, subnets()[0], image_set, SHORT)
    seen = []
    tuner.run(callback=lambda *_: seen.append(tuner.network.layers[0].mean.clone()))
    moved = [not torch.equal(a, b) for a, b in pairwise(seen)]
    assert moved == [True, True, False, False, False]


def test_few_bits_gain_and_what_learned_is_what_is_exported(trained, image_set):
    subnet = subnets(3)[1]
    tuner = Tuner(trained, subnet, image_set, TuningConfig(steps=60))
    before = tuner.accuracy(tuner.network.folded(), "validation")
    folded = tuner.run()
    assert tuner.accuracy(folded, "validation") > before + 1
    network = tuner.integers(folded, {"supernet_sha256": "0" * 64})
    assert network.origin["finetuned"]["steps"] == 60
    assert network.subnet == subnet
    part = image_set.test.images[:200]
    with torch.no_grad():
        floats = tuner.network(torch.from_numpy(part))
    exact = execute(network, part)
    assert (floats.argmax(1).numpy() == exact.argmax(1)).mean() > 0.97
    right = (
        100 * (execute(network, image_set.test.images).argmax(1) == image_set.test.labels).mean()
    )
    assert right == pytest.approx(tuner.accuracy(folded, "test"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"labels": 2}, "labels must lie within 0 and 1, not 2"),
        ({"average_decay": 1}, "average_decay must be at least 0 and below 1"),
        ({"learning_rate": float("nan")}, "learning_rate must be a finite number"),
    ],
)
def test_settings_are_checked(change, words):
    with pytest.raises(UserError, match=words):
        replace(SHORT, **change)


def test_what_belongs_to_another_is_refused(trained, image_set, tmp_path):
    one, other = subnets()
    file = tmp_path / "a.training"
    Tuner(trained, one, image_set, SHORT).save(file)
    with pytest.raises(UserError, match="fine-tuning of another network"):
        Tuner(trained, other, image_set, SHORT).load(file)
    with pytest.raises(UserError, match="begun with other settings"):
        Tuner(trained, one, image_set, replace(SHORT, seed=1)).load(file)
    with pytest.raises(UserError, match="trained on other images"):
        Tuner(trained, one, replace(image_set, train=image_set.test), SHORT).load(file)


def test_a_tuning_that_diverges_says_so(trained, image_set):
    config = replace(SHORT, learning_rate=1e30)
    with pytest.raises(UserError, match=r"diverged before step 6.*lower learning_rate"):
        Tuner(trained, subnets()[0], image_set, config).run()


def test_the_command_stores_a_network_and_says_what_it_gained(tmp_path, image_set, capsys):
    (subnet,) = subnets(1)
    policy, out = tmp_path / "policy.json", tmp_path / "net.safetensors"
    policy.write_text(json.dumps(subnet.to_dict()))
    command = ("finetune", policy, "-o", out, "--steps", 4, "--batch-size", 32)
    assert call(*command, "--resume") == 2
    assert "nothing to resume" in capsys.readouterr().err
    assert call(*command) == 0
    said = capsys.readouterr().out
    network = load_network(out)
    assert network.subnet == subnet
    for split in ("validation", "test"):
        part = image_set.split(split)
        right = 100 * (execute(network, part.images).argmax(1) == part.labels).mean()
        ((before, after),) = re.findall(rf"{split}: (.*) % inherited, (.*) % fine", said)
        assert right in (pytest.approx(float(value), abs=0.0051) for value in (before, after))
    assert [path.name for path in tmp_path.glob("net*")] == ["net.safetensors"]
    assert call(*command) == 2
    assert "exists" in capsys.readouterr().err
