from dataclasses import replace

import pytest
import torch

from apq_moo.errors import UserError
from apq_moo.space import Space, load_space
from apq_moo.supernet import backends
from apq_moo.supernet.backends import evaluator_for, gradients_on
from apq_moo.supernet.devices import torch_device, why_not_on_gpu, why_not_on_this
from apq_moo.supernet.evaluation import Evaluator
from apq_moo.supernet.gradients import TorchGradients
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


def test_an_old_gpu_is_left_to_torch_in_one_line(monkeypatch, capsys):
    assert why_not_on_this((8, 0)) is why_not_on_this((9, 0)) is why_not_on_this((12, 0)) is None
    monkeypatch.setattr(backends, "device_of", lambda _: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    for _ in range(2):
        assert isinstance(gradients_on(Supernet(load_space("digits"))), TorchGradients)
    assert capsys.readouterr().err == (
        "warning: the GPU's compute capability is 7.5; the kernels need 8.0 or later; torch's own "
        "operators run instead\n"
    )
