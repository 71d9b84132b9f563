"""A victim that was read from a file is robbed like any other, and its copies can be written again."""

import numpy as np
import pytest

from locard.attacks import bare, build
from locard.models import exported, load, onnx, restrict
from locard.models.torch_module import TorchModel
from locard.records import Access
from locard.testing import toy_data, toy_network

WRITE = {".pt2": exported.save, ".onnx": onnx.export}
X = toy_data().inputs[:20]


@pytest.fixture(scope="module", params=sorted(WRITE))
def victim(request, tmp_path_factory):
    """Without a normalisation in front, so that nothing lies around what was read."""
    path = tmp_path_factory.mktemp("victim") / f"victim{request.param}"
    model = TorchModel(bare(toy_network().module()), domain=toy_network().domain)
    WRITE[request.param](model, path)
    return load(path, trust=True)


@pytest.mark.parametrize("name", ["disguise", "noise", "prune-channels", "smooth"])
def test_its_copies_answer_from_either_file_as_they_do_here(victim, tmp_path, name):
    attack = build(name, {"prune-channels": {"recovery": 0}, "smooth": {"copies": 4}}.get(name, {}))
    copy = TorchModel(attack.derive(restrict(victim, Access.MODULE)).module, domain=victim.domain)
    here = restrict(copy, Access.LOGITS).logits(X)
    for suffix, write in WRITE.items():
        write(copy, tmp_path / f"copy{suffix}")
        there = restrict(load(tmp_path / f"copy{suffix}", trust=True), Access.LOGITS).logits(X)
        assert np.abs(here - there).max() <= 1e-4 * np.abs(here).max()
