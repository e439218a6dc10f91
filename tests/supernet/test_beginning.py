"""What is copied computes what it did; what is cut are the least important channels."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from apq_moo.errors import UserError
from apq_moo.space import Space, SpaceSpec
from apq_moo.supernet.beginning import begin_with, resized
from apq_moo.supernet.checkpoint import save_supernet
from apq_moo.supernet.network import Supernet


def space(name="small", kernels=(3,), middle=2, depth=2, width=8, mix=12, classes=5, channels=2):
    bits = {role: [4, 8] for role in ("w_pw", "a_pw", "w_dw", "a_dw")}
    stage = {"stride": 2, "kernels": list(kernels), "expand": [1, middle]}
    return Space(
        SpaceSpec.from_dict(
            {
                "name": name, "input_size": 8, "input_channels": channels, "classes": classes,
                "channel_step": 4, "bits": {**bits, "fixed": 8, "between": 16},
                "stem": {"channels": 8, "kernel": 3}, "first_block": {"channels": 8, "kernel": 3},
                "feature_mix": {"channels": mix},
                "stages": [
                    {**stage, "width": width, "depths": list(range(1, depth + 1))},
                    {**stage, "width": 12, "depths": [1]},
                ],
            }
        )
    )  # fmt: skip


def random_supernet(of, seed=0):
    torch.manual_seed(seed)
    supernet = Supernet(of)
    with torch.no_grad():
        for name, p in supernet.named_parameters():
            if ".norm." in name:
                p.uniform_(0.5, 1.5)
            elif "transforms" in name:
                p.add_(torch.randn_like(p), alpha=0.05)
    return supernet


@pytest.fixture
def trained(tmp_path):
    supernet = random_supernet(space())
    path = tmp_path / "s.safetensors"
    save_supernet(path, supernet)
    return supernet, path


def logits(supernet, x):
    with torch.no_grad():
        return supernet(x, supernet.space.decode(supernet.space.largest())[0])


def plain(name):
    """What a tensor of the small space is called where no supernet is described."""
    if not name.startswith("blocks."):
        return name
    _, number, rest = name.split(".", 2)
    stage, position = divmod(int(number), 2)
    return f"stages.{stage}.{position}.{rest}"


X = torch.rand(16, 2, 8, 8, generator=torch.Generator().manual_seed(1))


def test_the_same_space_is_the_same_function(trained):
    supernet, path = trained
    new = random_supernet(space(), 1)
    begun = begin_with(new, path)
    assert begun.copied == begun.weights
    assert begun.fresh == ()
    torch.testing.assert_close(logits(new, X), logits(supernet, X), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "more",
    [
        {"kernels": (3, 5, 7)}, {"middle": 4}, {"depth": 3}, {"width": 12}, {"mix": 20},
        {"kernels": (3, 5), "middle": 6, "depth": 4, "width": 16, "mix": 16},
    ],
)  # fmt: skip
def test_what_a_larger_space_has_beyond_changes_nothing_yet(trained, more):
    supernet, path = trained
    new = random_supernet(space("large", **more), 1)
    begun = begin_with(new, path)
    assert 0 < begun.copied < begun.weights
    torch.testing.assert_close(logits(new, X), logits(supernet, X), atol=2e-3, rtol=1e-3)
    assert not torch.equal(logits(random_supernet(new.space, 1), X), logits(new, X))


def test_of_a_narrower_block_the_most_important_channels_are_kept(trained):
    """It is what the largest network computes with the other channels taken out."""
    supernet, path = trained
    narrow = random_supernet(space("narrow", middle=1), 1)
    begin_with(narrow, path)
    with torch.no_grad():
        for block in supernet.blocks:
            order = block.importance().argsort(descending=True)
            block.project.weight[:, order[len(order) // 2 :]] = 0.0
    torch.testing.assert_close(logits(narrow, X), logits(supernet, X), atol=1e-4, rtol=1e-4)


def test_plain_files_grey_images_and_other_classes(trained, tmp_path):
    supernet, _ = trained
    path = tmp_path / "plain.safetensors"
    tensors = {plain(name): value for name, value in supernet.state_dict().items()}
    save_file(tensors, path, {"format": "pt"})
    same = random_supernet(space(), 1)
    assert begin_with(same, path).fresh == ()
    torch.testing.assert_close(logits(same, X), logits(supernet, X), atol=1e-4, rtol=1e-4)
    grey = random_supernet(space("grey", classes=7, channels=1), 1)
    begun = begin_with(grey, path)
    assert begun.fresh == ("classifier",)
    assert "not there: classifier" in str(begun)
    torch.testing.assert_close(
        grey.stem.weight[:, 0], supernet.stem.weight.sum(1), atol=1e-6, rtol=1e-6
    )


def test_kernels_are_cut_and_surrounded():
    weight = torch.arange(25.0).reshape(1, 1, 5, 5)
    assert resized(weight, 3).flatten().tolist() == [6, 7, 8, 11, 12, 13, 16, 17, 18]
    assert torch.equal(resized(resized(weight, 9), 5), weight)
    assert resized(weight, 9).sum() == weight.sum()


def test_what_is_refused(trained, tmp_path):
    _, path = trained
    new = random_supernet(space(), 1)
    bad = tmp_path / "bad.safetensors"
    for tensors, said in (
        ({"a.weight": torch.ones(2)}, "has no layer of this supernet"),
        ({"stem.weight": torch.ones(2)}, "stem.weight must be floats of 4 dimensions"),
        ({"stem.weight": torch.full((8, 2, 3, 3), torch.nan)}, "not finite"),
        ({"blocks.0.expand.weight": torch.ones(2, 2, 1, 1)}, "blocks are called stages.S.B"),
        (
            {
                "stages.0.0.project.weight": torch.ones(8, 8, 1, 1),
                "stages.0.0.depthwise.weight": torch.ones(6, 1, 3, 3),
            },
            "the layers of stages.0.0 differ in their middle channels",
        ),
    ):
        save_file(tensors, bad)
        with pytest.raises(UserError, match=said):
            begin_with(new, bad)
    with pytest.raises(UserError, match="cannot read"):
        begin_with(new, tmp_path / "none.safetensors")
    bad.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match="cannot read"):
        begin_with(new, bad)


def test_a_preset_that_ships_a_supernet():
    digits = Space(replace(space().spec, input_channels=1))
    begun = begin_with(random_supernet(digits, 1), "digits")
    assert begun.path == "digits"
    assert begun.copied > 0
