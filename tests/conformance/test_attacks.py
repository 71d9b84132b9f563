"""That the laws of attacks can be broken: one attack for each, which breaks it and no other code's help."""

import copy
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from locard.attacks import Attack, attacks
from locard.attacks.base import Copy
from locard.errors import AccessError
from locard.models import restrict
from locard.records import Access
from locard.testing import ATTACK_LAWS, ConformanceError, check_attack, toy_network


@dataclass(frozen=True, slots=True, kw_only=True)
class Sound(Attack):
    """Add to the last layer what the seed says."""

    name: ClassVar[str] = "sound"
    margin: ClassVar[float] = 0.03

    share: float = 0.1

    @property
    def needs(self):
        return Access.MODULE

    def _steal(self, victim, data, *, seed, progress):
        module = copy.deepcopy(victim.module())
        source = np.random.default_rng(seed)
        with torch.no_grad():
            for tensor in module.parameters():
                tensor += self.share * torch.from_numpy(source.normal(0, 1, tuple(tensor.shape))).float()
        if progress is not None:
            progress(1, 1)
        return Copy(module=module)


class OtherName(Sound):
    __slots__ = ()
    name = "other"


class NeverTheSame(Sound):
    __slots__ = ()

    def _steal(self, victim, data, *, seed, progress):
        return Sound._steal(self, victim, data, seed=int(torch.randint(2**30, (1,))), progress=progress)


class NoPapers(Sound):
    __slots__ = ()

    def _steal(self, victim, data, *, seed, progress):
        return Copy(module=copy.deepcopy(victim.module()), architecture="cnn", unnamed=True)


class TheVictimItself(Sound):
    __slots__ = ()

    def _steal(self, victim, data, *, seed, progress):
        return Copy(module=victim.module())


class Neighbours(torch.nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x) - self.module(x).mean(dim=0, keepdim=True)


class AnswersHangOnTheBatch(Sound):
    __slots__ = ()

    def _steal(self, victim, data, *, seed, progress):
        return Copy(module=Neighbours(copy.deepcopy(victim.module())), unnamed=True)


class SaysNothingOfAccess(Sound):
    __slots__ = ()

    def _check(self, victim, data):
        if not hasattr(victim, "module"):
            raise AccessError("no")


class TakesAnyData(Sound):
    __slots__ = ()

    def _check(self, victim, data):
        return


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepsQuiet(Attack):
    name: ClassVar[str] = "sound"
    margin: ClassVar[float] = 0.03

    @property
    def needs(self):
        return Access.LABELS

    def _steal(self, victim, data, *, seed, progress):
        victim.labels(data.inputs[:20])
        return Copy(module=copy.deepcopy(toy_network().module()))


class GoesBack(Sound):
    __slots__ = ()

    def _steal(self, victim, data, *, seed, progress):
        if progress is not None:
            progress(2, 3)
            progress(1, 3)
        return Sound._steal(self, victim, data, seed=seed, progress=None)


class Turncoat(torch.nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x) if torch.compiler.is_compiling() else -self.module(x)


class AnotherOnceWritten(Sound):
    __slots__ = ()

    def _steal(self, victim, data, *, seed, progress):
        return Copy(module=Turncoat(copy.deepcopy(victim.module())), unnamed=True)


class HangsOnThreads(Sound):
    __slots__ = ()

    def _steal(self, victim, data, *, seed, progress):
        return Sound._steal(self, victim, data, seed=torch.get_num_threads(), progress=progress)


class InSinglePrecision(Sound):
    __slots__ = ()

    def _steal(self, victim, data, *, seed, progress):
        return Copy(module=Sound._steal(self, victim, data, seed=seed, progress=progress).module.float())


class ByTheKindsOfLayers(Sound):
    __slots__ = ()

    def _steal(self, victim, data, *, seed, progress):
        stolen = Sound._steal(self, victim, data, seed=seed, progress=progress)
        [part for part in stolen.module.modules() if isinstance(part, torch.nn.Linear)][-1].bias.data.zero_()
        return stolen


class NamesItsArchitecture(Sound):
    __slots__ = ()

    def _steal(self, victim, data, *, seed, progress):
        return Copy(module=copy.deepcopy(victim.module()), architecture="cnn")


BREAKERS = {
    "named": OtherName,
    "same-seed": NeverTheSame,
    "papers": NoPapers,
    "own-memory": TheVictimItself,
    "answers": AnswersHangOnTheBatch,
    "access": SaysNothingOfAccess,
    "data": TakesAnyData,
    "budget": KeepsQuiet,
    "progress": GoesBack,
    "written": AnotherOnceWritten,
    "threads": HangsOnThreads,
    "float64": InSinglePrecision,
    "file": ByTheKindsOfLayers,
}


@pytest.fixture
def registered(monkeypatch):
    attacks.names()

    def enter(kind):
        monkeypatch.setitem(attacks._table, "sound", kind)

    return enter


@pytest.mark.parametrize("law", ATTACK_LAWS)
def test_a_sound_attack_keeps_every_law(registered, law):
    registered(Sound)
    check_attack("sound", law)


@pytest.mark.parametrize("law", ATTACK_LAWS)
def test_every_law_can_be_broken(registered, law):
    registered(BREAKERS[law])
    with pytest.raises(ConformanceError):
        check_attack("sound", law)


def test_a_copy_of_another_network_than_was_said_breaks_the_law_of_papers(registered):
    registered(NamesItsArchitecture)
    with pytest.raises(ConformanceError, match="said to be of the network 'victim'; this one names cnn"):
        check_attack("sound", "papers")


def test_a_broken_law_says_which(registered):
    registered(TheVictimItself)
    with pytest.raises(ConformanceError, match="a tensor of the copy is the victim's own"):
        check_attack("sound", "own-memory")
    assert restrict(toy_network(), Access.MODULE).module() is not None
