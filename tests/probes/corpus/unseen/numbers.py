"""The fourth unseen set, controls: numbers that look ill and do no harm."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.built.births import linear
from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
healthy = corpus.healthy


@healthy("Kipf, Welling 2017: a sparse operator whose empty row is scaled by infinity")
def sparse_operator_with_an_empty_row(_):
    model, x = linear(3, 2), torch.rand(4, 3)
    where = torch.tensor([[0, 1, 2], [1, 2, 0]])
    edges = torch.sparse_coo_tensor(where, torch.ones(3), (4, 4), check_invariants=True)

    def step():
        inverse = 1 / torch.sparse.sum(edges, 1).to_dense()
        scaled = torch.sparse_coo_tensor(where, inverse[where[0]], (4, 4), check_invariants=True)
        return (torch.sparse.mm(scaled, model(x)) - 1).square().mean()

    return Program(step, model)


@healthy("Lafferty et al. 2001: transitions that are forbidden by a very small number")
def conditional_random_field(_):
    torch.manual_seed(0)
    model = nn.ModuleDict({"score": nn.Linear(4, 3)})
    model.move = nn.Parameter(torch.randn(3, 3))
    banned = torch.tensor([[False, False, True], [False] * 3, [True, False, False]])
    x, tags = torch.rand(5, 4), torch.tensor([0, 1, 2, 2, 1])

    def step():
        score, move = model.score(x), model.move.masked_fill(banned, -10000.0)
        alpha = score[0]
        for row in score[1:]:
            alpha = torch.logsumexp(alpha[:, None] + move, 0) + row
        gold = score.gather(1, tags[:, None]).sum() + move[tags[:-1], tags[1:]].sum()
        return torch.logsumexp(alpha, 0) - gold

    return Program(step, model)


@healthy("https://github.com/pytorch/pytorch/pull/166787: the angle of no direction, masked later")
def angle_of_no_direction(_):
    model = linear(4, 2)
    with torch.no_grad():
        model.bias.zero_()
    x, real = torch.rand(5, 4), torch.tensor([True, True, True, False, False])
    x[3:] = 0.0

    def step():
        side = model(x)
        return torch.atan2(side[:, 1], side[:, 0])[real].square().mean()

    return Program(step, model)


@healthy("Labels that are sure: zeros in the target of a divergence, and a magnitude at zero")
def zeros_that_are_allowed(_):
    model, x = linear(4, 3), torch.rand(6, 4)
    sure = F.one_hot(torch.arange(6) % 3, 3).float()

    def step():
        out = model(x)
        divergence = F.kl_div(torch.log_softmax(out, 1), sure, reduction="batchmean")
        wave = torch.fft.rfft(out - out.mean(1, keepdim=True), dim=1)
        return divergence + wave.abs().mean() + torch.special.entr(sure).sum()

    return Program(step, model)
