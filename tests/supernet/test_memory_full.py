"""What a GPU's memory cannot hold, by what pretends to be one."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from apq_moo import errors
from apq_moo.errors import UserError
from apq_moo.supernet import backends, training
from apq_moo.supernet.distributed import Group
from apq_moo.supernet.evaluation import Evaluator
from apq_moo.supernet.gradients import TorchGradients
from apq_moo.supernet.scoring import Scorer
from apq_moo.supernet.training import TrainConfig, Trainer


@pytest.fixture
def holding(monkeypatch):
    """How many images fit; passes that were tried are listed."""
    tried = []

    def of(fit):
        class Small(TorchGradients):
            def step(self, x, y, students, soft=None):
                tried.append(len(x))
                if len(x) > fit:
                    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate ...")
                return super().step(x, y, students, soft)

        monkeypatch.setattr(training, "gradients_on", lambda net, *_, **__: Small(net))
        return tried

    return of


def test_the_batch_that_fits_is_named(holding, digits, image_set):
    """100 images in two passes of 50: half are too many, 12 fit, which takes 9 passes."""
    tried = holding(20)
    config = TrainConfig(steps=1, warmup_steps=0, batch_size=100, accumulation=2)
    trainer = Trainer(digits, image_set, config)
    with pytest.raises(UserError) as told:
        trainer.run()
    assert tried == [50, 25, 12]
    assert str(told.value) == (
        "the memory of cpu is full: of 50 images in one pass 12 fit; add accumulation=9 to have 9 "
        "passes a step, or lower batch_size=100"
    )


def test_a_share_of_several_processes_is_what_must_fit(holding, digits, image_set):
    holding(20)
    config = TrainConfig(steps=1, warmup_steps=1, batch_size=100, sync_batch_norm=True)
    trainer = Trainer(digits, image_set, config, "cpu", Group(1, 2))
    with pytest.raises(UserError, match="of 50 images in one pass 12 fit; add accumulation=5 to"):
        trainer.run()


def test_what_fits_is_tried_by_what_trains(monkeypatch, digits, image_set):
    """With shared statistics torch's operators, which need more memory than the kernels."""
    monkeypatch.setattr(backends, "_has_kernels", lambda _: True)
    tried, way = [], TorchGradients.step

    def step(gradients, x, *rest):
        tried.append(len(x))
        if len(x) > 20:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate ...")
        return way(gradients, x, *rest)

    monkeypatch.setattr(TorchGradients, "step", step)
    config = TrainConfig(steps=1, warmup_steps=1, batch_size=100, sync_batch_norm=True)
    with pytest.raises(UserError, match="of 50 images in one pass 12 fit"):
        Trainer(digits, image_set, config, "cpu", Group(1, 2)).run()
    assert tried == [50, 25, 12]


def test_where_nothing_fits_the_command_says_so_in_one_line(holding, tmp_path, monkeypatch, capsys):
    from apq_moo.cli import main

    tried = holding(0)
    monkeypatch.chdir(tmp_path)
    command = (
        "supernet train --space digits --steps 1 --batch-size 9 --init digits -o a.safetensors"
    )
    with pytest.raises(SystemExit) as stop:
        main(command.split())
    assert stop.value.code == 2
    assert tried == [9, 4, 2, 1]
    assert capsys.readouterr().err == (
        "error: the memory of cpu is full: not even one image passes through the largest subnet; "
        "free what other processes hold of it, or use a smaller space\n"
    )
    assert not list(tmp_path.iterdir())


def test_a_gpu_that_is_full_elsewhere_is_one_line(monkeypatch, tmp_path, capsys):
    from apq_moo.cli import main

    def full(*_of, **_options):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate ...")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "batches_of", full)
    with pytest.raises(SystemExit) as stop:
        main(["supernet", "train", "--space", "digits", "--steps", "1", "-o", "a.safetensors"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        "error: the memory of the GPU is full; free what other processes hold of it, have less "
        "done at a time, or name another device with `--on`\n"
    )
    assert not list(tmp_path.iterdir())


@pytest.fixture
def classifying(monkeypatch):
    """How many images can be classified at a time; those that were tried are listed."""
    tried, way = [], Evaluator.logits

    def of(fit):
        def logits(evaluator, subnet, images, *, quantised):
            tried.append(len(images))
            if len(images) > fit:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate ...")
            return way(evaluator, subnet, images, quantised=quantised)

        monkeypatch.setattr(Evaluator, "logits", logits)
        monkeypatch.setattr(errors, "_warned", set())
        return tried

    return of


SPLITS = ("validation", "test")


def test_as_many_images_are_classified_as_fit(classifying, nets, digits, image_set, capsys):
    """900 images: 450 and 225 are too many, so that there are nine passes, of 112 but for one."""
    some = {"validation": image_set.validation[:400], "test": image_set.test[:500]}
    scorer = Scorer(nets["digits"], replace(image_set, **some))
    subnets, at = digits.decode(digits.sample(2, np.random.default_rng(0))), np.array([True, False])
    wanted = scorer.count(subnets, SPLITS, quantised=at)
    tried = classifying(200)
    found = scorer.count(subnets, SPLITS, quantised=at)
    assert tried[:4] == [900, 900, 450, 225]
    assert tried[4:] == [112] * 16 + [4] * 2
    assert found.tolist() == wanted.tolist()
    assert capsys.readouterr().err == (
        "warning: the memory of cpu is full: 112 images are classified at a time\n"
    )
    tried.clear()
    assert scorer.count(subnets, SPLITS, quantised=at).tolist() == wanted.tolist()
    assert max(tried) == 112


def test_where_not_one_image_is_classified(classifying, nets, digits, image_set):
    scorer = Scorer(nets["digits"], image_set)
    classifying(0)
    with pytest.raises(
        UserError, match=r"^the memory of cpu is full: the \d+ images that calibrate"
    ):
        scorer.count(digits.decode(digits.smallest()), SPLITS, quantised=True)
