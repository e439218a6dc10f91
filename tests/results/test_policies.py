"""One network as a file, in the package's format and in that of the code released with APQ."""

import json

import pytest

from apq_moo.deploy import choose
from apq_moo.errors import UserError
from apq_moo.results.policies import read_policy, write_policy
from apq_moo.space import Space, SpaceSpec, load_space
from apq_moo.study.warm_start import read_networks


@pytest.fixture(scope="module")
def imagenet():
    return load_space("imagenet")


def network(space, row):
    return space.decode(row)[0]


def test_both_formats_are_read_back(imagenet, tmp_path):
    subnet = network(imagenet, imagenet.largest())
    for form, name in (("json", "policy.json"), ("apq", "arch"), ("apq", "other.json")):
        path = tmp_path / name
        assert write_policy(path, imagenet, subnet, form)
        assert read_policy(path) == (imagenet, subnet)
        assert choose(path).subnet == subnet
        assert (read_networks(str(path), imagenet) == imagenet.largest()).all()


def test_the_released_file_is_a_list_of_two_parts(imagenet, tmp_path):
    write_policy(tmp_path / "arch", imagenet, network(imagenet, imagenet.largest()), "apq")
    architecture, bits = json.loads((tmp_path / "arch").read_text())
    assert list(architecture) == ["wid", "ks", "e", "d"]
    assert architecture["d"] == [4, 4, 4, 4, 4, 1]
    assert {len(each) for each in bits.values()} == {21}


def test_what_the_released_code_cannot_evaluate_is_told(imagenet, digits, tmp_path):
    file = tmp_path / "arch"
    assert not write_policy(file, digits, network(digits, digits.smallest()), "apq")
    assert read_policy(file, "digits")[1] == network(digits, digits.smallest())
    with pytest.raises(UserError, match="a list of 21 numbers"):
        read_policy(file)
    forbidden = imagenet.largest()  # 7x7, and at 4 bits no tile of it fits the accelerator
    forbidden[imagenet.bit_columns] = 0
    assert not write_policy(file, imagenet, network(imagenet, forbidden), "apq")


def test_a_subspace_is_written_in_the_blocks_of_the_larger_space(imagenet, tmp_path):
    content = dict(imagenet.spec.content)
    stages = [{**vars(stage), "depths": [2]} for stage in imagenet.spec.stages[:5]]
    data = {
        "name": "shallow", "part_of": "imagenet", "input_size": 224, "input_channels": 3,
        "classes": 1000, "stages": [*stages, {**vars(imagenet.spec.stages[5]), "depths": [1]}],
        "bits": {**content["bits"], "between": 16},
        "stem": {"channels": 32, "stride": 2}, "first_block": {"channels": 16},
        "feature_mix": {"channels": 1280},
    }  # fmt: skip
    space = Space(SpaceSpec.from_dict(json.loads(json.dumps(data))))
    assert space.n_blocks == 11
    assert write_policy(tmp_path / "arch", space, network(space, space.smallest()), "apq")
    _, found = read_policy(tmp_path / "arch")
    assert found.blocks == network(space, space.smallest()).blocks


def test_unknown_formats(imagenet, tmp_path):
    with pytest.raises(UserError, match="format=yaml: write one of json, apq"):
        write_policy(tmp_path / "a", imagenet, network(imagenet, imagenet.smallest()), "yaml")
