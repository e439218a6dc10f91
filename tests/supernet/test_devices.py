from dataclasses import replace

import pytest
import torch

from apq_moo.errors import UserError
from apq_moo.space import Space, load_space
from apq_moo.supernet.backends import evaluator_for
from apq_moo.supernet.devices import torch_device, why_not_on_gpu
from apq_moo.supernet.evaluation import Evaluator
from apq_moo.supernet.network import Supernet


def test_the_cpu_is_always_there():
    assert torch_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:", "cuda:one", "cpu:", "cuda:-1", "CPU"])
def test_an_unknown_device_is_refused(name):
    wanted = "here: torch finds" if name == "cuda:" else "known: cpu, cuda"
    with pytest.raises(UserError, match=wanted):
        torch_device(name)


def test_a_missing_gpu_is_named():
    missing = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(UserError, match=f"no device '{missing}' here: torch finds .* GPUs"):
        torch_device(missing)


def test_on_a_cpu_the_plain_evaluator_is_used():
    space = Space(replace(load_space("digits").spec, between_bits=32))
    assert isinstance(evaluator_for(Supernet(space), torch.rand(4, 1, 8, 8)), Evaluator)
    reason = why_not_on_gpu(space)
    assert reason is not None
    assert "between = 8 or between = 16" in reason
