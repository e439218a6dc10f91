"""Several processes over gloo give what one process gives for their shares together."""

import socket
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch

from apq_moo.data import images_of, load_images
from apq_moo.data.assets import SUPERNET, find_assets
from apq_moo.data.samples import load_samples
from apq_moo.errors import UserError
from apq_moo.space import Space, load_space
from apq_moo.supernet import backends
from apq_moo.supernet import distributed as supernet_distributed
from apq_moo.supernet.checkpoint import load_supernet
from apq_moo.supernet.distributed import ALONE, Group, join
from apq_moo.supernet.gradients import Student, TorchGradients
from apq_moo.supernet.network import Supernet, batch_norm
from apq_moo.supernet.sampling import SampleConfig, collect
from apq_moo.supernet.scoring import Scorer
from apq_moo.supernet.shared_norm import norm_over
from apq_moo.supernet.training import TrainConfig, Trainer
from apq_moo.workers import WorkerLostError


def test_gradients_are_averaged_over_the_shares(by_two):
    folder = by_two("gradients")
    found = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    space = load_space("digits")
    torch.manual_seed(0)
    net = Supernet(space)
    x, y = torch.rand(16, 1, 8, 8), torch.arange(16) % 10
    parts = []
    for rank in (0, 1):
        smallest = Student(space.decode(space.smallest())[0])
        TorchGradients(net).step(x[rank::2], y[rank::2], [smallest])
        parts.append([torch.zeros_like(p) if p.grad is None else p.grad for p in net.parameters()])
        net.zero_grad()
    differs = False
    for a, b, *both in zip(*parts, *found, strict=True):
        assert torch.equal(both[0], both[1])
        assert torch.allclose(both[0], (a + b) / 2, atol=1e-6)
        differs |= not torch.allclose(a, b, atol=1e-4)
    assert differs


def test_shared_statistics_give_the_gradients_of_all_images(by_two):
    """In double precision, with the largest kernels: smaller ones are derived in single."""
    folder = by_two("norms")
    found = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    space = load_space("digits")
    torch.manual_seed(1)
    net = Supernet(Space(replace(space.spec, between_bits=32))).double()
    x, y = torch.rand(16, 1, 8, 8, dtype=torch.float64), torch.arange(16) % 10
    first, small = space.decode(np.vstack([space.largest(), space.smallest()]))
    kernels = {block.stage: block.kernel for block in first.blocks}
    small = replace(small, blocks=tuple(replace(b, kernel=kernels[b.stage]) for b in small.blocks))
    TorchGradients(net).step(x, y, [Student(first), Student(small)])
    for p, *both in zip(net.parameters(), *found, strict=True):
        for grad in both:
            assert torch.allclose(grad, torch.zeros_like(p) if p.grad is None else p.grad)
    assert net.stem.weight.grad.abs().max() > 1e-3


def test_the_norm_of_one_process_is_torchs():
    torch.manual_seed(0)
    x = torch.randn(6, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    scale = torch.rand(3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True)
    norm = norm_over(ALONE)
    assert torch.allclose(norm(x, scale, bias), batch_norm(x, scale, bias))
    assert torch.autograd.gradcheck(norm, (x, scale, bias))
    low = x.detach().bfloat16().requires_grad_()
    norm(low, scale.float(), bias.float()).square().sum().backward()
    assert low.grad.dtype == torch.bfloat16


def test_kernels_leave_shared_statistics_to_torch(digits, monkeypatch, capsys):
    monkeypatch.setattr(backends, "_has_kernels", lambda _: True)
    assert isinstance(backends.gradients_on(Supernet(digits), group=Group(0, 2)), TorchGradients)
    assert capsys.readouterr().err == (
        "warning: the GPU's kernels do not share batch-norm statistics between processes; torch's "
        "own operators train instead\n"
    )


THREE_STEPS = TrainConfig(steps=3, warmup_steps=1, batch_size=64)
OTHER_STEPS = replace(THREE_STEPS, seed=1)
SIX_STEPS = {"steps": 6, "warmup_steps": 2, "batch_size": 256}


def trained(folder, printed, steps=6):
    """By two processes."""
    assert printed.count(f"trained {steps} steps") == 1
    assert [path.name for path in folder.iterdir()] == ["two.safetensors"]
    return load_supernet(folder / "two.safetensors", load_space("digits"))[0]


def distance(a, b):
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return sum(float((p - q).norm()) for p, q in pairs)


def test_two_processes_share_the_images(by_two, image_set):
    """Close to what one process does: they differ by batch-norm statistics of half the batch."""
    two = trained(by_two("images"), by_two.printed("images"))
    one, other = (
        Trainer(load_space("digits"), image_set, TrainConfig(**SIX_STEPS, seed=seed)).run()
        for seed in (0, 1)
    )
    assert 0 < distance(one, two) < 0.2 * distance(one, other)


def test_two_processes_share_images_and_statistics(by_two, image_set):
    two = trained(by_two("synced"), by_two.printed("synced"), steps=3)
    one, apart, other = (
        Trainer(load_space("digits"), image_set, config).run()
        for config in (THREE_STEPS, replace(THREE_STEPS, accumulation=2), OTHER_STEPS)
    )
    assert distance(one, two) < 1e-2 * distance(one, other)
    assert distance(one, two) < 0.1 * distance(one, apart)


def test_two_processes_share_images_in_files(by_two):
    """Just what one process does, but for the order in which sums are taken."""
    folder = by_two("streamed")
    assert by_two.printed("streamed").count("trained 3 steps") == 1
    space = load_space(folder / "streamed.toml")
    two, _ = load_supernet(folder / "two.safetensors", space)
    images = load_images(images_of(space))
    config = TrainConfig(steps=3, warmup_steps=2, batch_size=64, sync_batch_norm=True)
    begun = Trainer(space, images, config).supernet
    one = Trainer(space, images, config).run()
    assert 0 < distance(one, two) < 1e-3 * distance(one, begun)


def test_two_processes_share_the_subnets(torchrun, tmp_path, image_set):
    """Just what one process does, but for the order in which gradients are added."""
    settings = [part for name, value in SIX_STEPS.items()
                for part in (f"--{name.replace('_', '-')}", str(value))]  # fmt: skip
    levers = ("--sampling", "best-up", "--bit-sandwich", "--quantised-steps", "2")
    command = ("-m", "apq_moo", "supernet", "train", "--space", "digits", *settings, *levers)
    done = torchrun(*command, "--split", "subnets", "-o", "two.safetensors", folder=tmp_path)
    two = trained(tmp_path, done.stdout)
    config = TrainConfig(**SIX_STEPS, sampling="best-up", bit_sandwich=True, quantised_steps=2)
    one = Trainer(load_space("digits"), image_set, config).run()
    other = Trainer(load_space("digits"), image_set, replace(config, seed=1)).run()
    assert distance(one, two) < 1e-3 * distance(one, other)


def test_every_task_is_done_once_and_loads_are_even():
    costs = [5.0, 1.0, 4.0, 3.0, 1.0]
    mine = [Group(rank, 2).mine(costs) for rank in range(2)]
    assert sorted(mine[0] + mine[1]) == list(range(5))
    assert [sum(costs[task] for task in tasks) for tasks in mine] == [7.0, 7.0]
    assert Group(2, 3).mine([1.0]) == []


def test_what_cannot_be_shared_is_refused(digits, image_set):
    two = Group(0, 2)
    with pytest.raises(UserError, match="split must be one of images, subnets; not 'layers'"):
        Trainer(digits, image_set, TrainConfig(), "cpu", two, split="layers")
    with pytest.raises(UserError, match="split must be one of images, subnets; not 'subnet'"):
        Trainer(digits, image_set, TrainConfig(), split="subnet")
    Trainer(digits, image_set, TrainConfig(momentum_groups=True), split="subnets")
    with pytest.raises(UserError, match="momentum_groups lets them take turns"):
        Trainer(digits, image_set, TrainConfig(momentum_groups=True), "cpu", two, split="subnets")
    with pytest.raises(UserError, match="there is nothing for sync_batch_norm to share"):
        Trainer(digits, image_set, TrainConfig(sync_batch_norm=True), "cpu", two, split="subnets")
    alone = digits.decode(digits.smallest())[0]
    with pytest.raises(UserError, match="but there is one"):
        Trainer(digits, image_set, TrainConfig(), "cpu", two, alone, split="subnets")


def test_shares_are_equal_and_disjoint():
    batch = torch.arange(11)
    shares = [Group(rank, 3).share(batch) for rank in range(3)]
    assert [len(share) for share in shares] == [3, 3, 3]
    assert sorted(torch.cat(shares).tolist()) == list(range(9))
    assert torch.equal(ALONE.share(batch), batch)


def test_without_torchrun_a_process_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join("cpu") == (ALONE, torch.device("cpu"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="on='cuda', not 'cuda:1'"):
        join("cuda:1")


TOLD = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}


def test_processes_that_do_not_come_are_one_line_soon(monkeypatch):
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in (TOLD | {"MASTER_PORT": str(port)}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(supernet_distributed, "JOIN_S", 1.0)
    with pytest.raises(WorkerLostError) as told:
        join("cpu")
    assert str(told.value) == (
        "not all processes came within 1 s; see whether each was started, and start all again"
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "WORLD_SIZE='2' stands for several processes, but MASTER_PORT is not set; start"),
        ({"MASTER_PORT": "x"}, "but MASTER_PORT='x'; start them by torchrun, or unset WORLD_SIZE"),
        ({"MASTER_PORT": "1", "WORLD_SIZE": "many"}, "but WORLD_SIZE='many'; start"),
    ],
)
def test_an_environment_that_is_not_torchrun_s_is_told(monkeypatch, change, words):
    for name in (*TOLD, "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (TOLD | change).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=words):
        join("cpu")


def test_a_batch_smaller_than_the_group_is_refused(digits, image_set):
    with pytest.raises(UserError, match="batch_size=2 is less than 3 processes"):
        Trainer(digits, image_set, TrainConfig(batch_size=2), "cpu", Group(0, 3))


def test_two_processes_collect_the_same_samples(by_two, tmp_path):
    shipped, folder = find_assets(load_space("digits")).path(SUPERNET), by_two("collect")
    assert by_two.printed("collect").count("12 fp, 25 mp") == 1
    assert [path.name for path in folder.iterdir()] == ["two.npz"]
    space = load_space("digits")
    config = SampleConfig(fp=12, mp=25, fp_held_out=3, mp_held_out=3)
    one = collect(space, shipped, "digits", config, tmp_path / "one.npz")
    two = load_samples(folder / "two.npz", space)
    assert two.complete
    assert np.array_equal(two.X, one.X)
    assert np.array_equal(two.acc, one.acc)


def test_parts_of_an_interrupted_collection_are_taken_up(tmp_path, monkeypatch):
    """Whatever number of processes wrote them."""
    space = load_space("digits")
    shipped = find_assets(space).path(SUPERNET)
    config = SampleConfig(fp=6, mp=6, fp_held_out=3, mp_held_out=3)
    out = tmp_path / "samples.npz"
    whole = collect(space, shipped, "digits", config, out)
    out.unlink()
    for rank in range(3):
        acc = np.where(np.arange(len(whole.acc)) % 4 == rank, whole.acc, np.nan)
        replace(whole, acc=acc).save(tmp_path / f"samples.npz.part{rank}")
    measured = []
    count = Scorer.count

    def counting(self, subnets, *arguments, **options):
        measured.extend(map(bytes, space.encode(subnets)))
        return count(self, subnets, *arguments, **options)

    monkeypatch.setattr(Scorer, "count", counting)
    again = collect(space, shipped, "digits", config, out)
    assert np.array_equal(again.acc, whole.acc)
    assert sorted(measured) == sorted(map(bytes, whole.X[3::4]))
    assert [path.name for path in tmp_path.iterdir()] == ["samples.npz"]
