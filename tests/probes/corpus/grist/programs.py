"""GRIST's PyTorch programs, first half: regressions whose loss takes the log of a probability.

Yan et al., ESEC/FSE 2021, collected 63 programs with numerical bugs; 22 of them are PyTorch. Each
is written anew here with its way of building data, leaves and loss, and with an input of the
kind that their search finds: large enough to saturate. The repaired form reads the same input.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import Variable

from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault = corpus.fault
PAPER = "GRIST, Yan et al., ESEC/FSE 2021, program "


def marks(scale):
    """Hours and marks of six students, the last three of whom pass; far too large."""
    x = torch.tensor([[1.0, 3.0], [2.0, 2.0], [2.0, 4.0], [4.0, 4.0], [5.0, 6.0], [6.0, 5.0]])
    return x * scale, torch.tensor([[0.0], [0.0], [0.0], [1.0], [1.0], [1.0]])


def classes(scale):
    torch.manual_seed(0)
    return torch.rand(8, 4) * scale, torch.tensor([2, 2, 1, 1, 1, 0, 0, 2])


def trained(optimizer, loss):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


@fault("grist", "nan inf", "log", "z", PAPER + "23, pytorch_tu")
def g23_scores_that_become_a_leaf_again(broken):
    z = torch.tensor([[0.0, 150.0, 1.0], [2.0, 0.5, -160.0]], requires_grad=True)

    def step():
        nonlocal z
        z = Variable(z, requires_grad=True)
        y = torch.tensor([0, 2])
        chosen = torch.zeros_like(z).scatter_(1, y.unsqueeze(1), 1)
        if not broken:
            return (chosen * -F.log_softmax(z, dim=1)).sum(dim=1).mean()
        guess = F.softmax(z, dim=1)
        return (chosen * -torch.log(guess)).sum(dim=1).mean()  # fault

    return Program(step, steps=2)


@fault(
    "grist",
    "nan inf",
    "log",
    "W b",
    PAPER + "26, PyTorchDeepLearningStart.0401_logistic_regression",
)
def g26_logistic_regression_by_hand(broken):
    x, y = marks(40.0)
    W, b = torch.zeros((2, 1), requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([W, b], lr=1)

    def step():
        score = x.matmul(W) + b
        guess = torch.sigmoid(score)
        right = ((guess >= torch.FloatTensor([0.5])).float() == y).float().mean().item()
        if broken:
            cost = -(y * torch.log(guess) + (1 - y) * torch.log(1 - guess)).mean()  # fault
        else:
            cost = F.binary_cross_entropy_with_logits(score, y)
        trained(optimizer, cost)
        return cost, right

    return Program(step, None, optimizer, 3)


@fault(
    "grist",
    "nan inf",
    "log",
    "z",
    PAPER + "27, PyTorchDeepLearningStart.0503_softmax_regression_cost",
)
def g27_one_class_takes_all(broken):
    torch.manual_seed(1)
    z = (torch.rand(3, 5) * 500).requires_grad_(True)

    def step():
        y = torch.randint(5, (3,)).long()
        chosen = torch.zeros_like(z)
        chosen.scatter_(1, y.unsqueeze(1), 1)
        log_p = F.log_softmax(z, 1) if not broken else torch.log(F.softmax(z, dim=1))  # fault
        return (chosen * -log_p).sum(dim=1).mean()

    return Program(step, steps=3)


@fault(
    "grist", "nan inf", "log", "W b", PAPER + "32, PyTorchDeepLearningStart.0504_softmax_regression"
)
def g32_one_bias_for_all_classes(broken):
    x, y = classes(40.0)
    chosen = torch.zeros(8, 3)
    chosen.scatter_(dim=1, index=y.unsqueeze(dim=1), value=1)
    W, b = torch.zeros((4, 3), requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([W, b], lr=0.1)

    def step():
        score = x.matmul(W) + b
        if not broken:
            return trained(optimizer, -(chosen * F.log_softmax(score, 1)).sum().mean())
        guess = F.softmax(score, dim=1)
        return trained(optimizer, (chosen * -torch.log(guess)).sum().mean())  # fault

    return Program(step, None, optimizer, 3)


@fault("grist", "nan inf", "log", "W b", PAPER + "33, TodayILearned.logistic_classification")
def g33_cost_written_over_two_lines(broken):
    x, y = marks(25.0)
    W, b = torch.zeros((2, 1), requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([W, b], lr=1)

    def step():
        score = x.matmul(W) + b
        guess = 1 / (1 + torch.exp(-score.clamp(min=-80)))
        cost = F.binary_cross_entropy_with_logits(score, y)
        if broken:
            cost = -(
                y * torch.log(guess) + (1 - y) * torch.log(1 - guess)  # fault
            ).mean()
        return trained(optimizer, cost)

    return Program(step, None, optimizer, 3)


@fault("grist", "nan inf", "log", "W b", PAPER + "34, TodayILearned.softmax_classification")
def g34_targets_made_like_the_guess(broken):
    x, y = classes(500.0)
    W, b = torch.zeros((4, 3), requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([W, b], lr=0.1)

    def step():
        guess = F.softmax(x.matmul(W) + b, dim=1)
        chosen = torch.zeros_like(guess)
        chosen.scatter_(1, y.unsqueeze(1), 1)
        if broken:
            cost = (chosen * -torch.log(guess)).sum(dim=1).mean()  # fault
        else:
            cost = F.cross_entropy(x.matmul(W) + b, y)
        return trained(optimizer, cost)

    return Program(step, None, optimizer, 3)


@fault("grist", "nan inf", "log", "0.weight 0.bias", PAPER + "37, MachineLearning.lab05")
def g37_sequential_that_ends_in_a_sigmoid(broken):
    torch.manual_seed(0)
    x, y = (Variable(torch.from_numpy(part.numpy())) for part in marks(60.0))
    model = nn.Sequential(nn.Linear(2, 1), nn.Sigmoid())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step():
        optimizer.zero_grad()
        guess = model(x)
        if not broken:
            return trained(optimizer, F.binary_cross_entropy_with_logits(model[0](x), y))
        cost = -(y * torch.log(guess) + (1 - y) * torch.log(1 - guess)).mean()  # fault
        return trained(optimizer, cost)

    return Program(step, model, optimizer, 3)


@fault("grist", "nan inf", "log", "0.weight 0.bias", PAPER + "38, MachineLearning.lab09")
def g38_xor_without_a_hidden_layer(broken):
    torch.manual_seed(0)
    x = torch.from_numpy(np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.float32))
    y = torch.from_numpy(np.array([[0], [1], [1], [0]], dtype=np.float32))
    model = nn.Sequential(nn.Linear(2, 1, bias=True), nn.Sigmoid())
    with torch.no_grad():
        model[0].weight.fill_(200.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        score = model[0](x)
        guess = model(x)
        if not broken:
            return trained(optimizer, F.binary_cross_entropy_with_logits(score, y))
        cost = -(y * torch.log(guess) + (1 - y) * torch.log(1 - guess)).mean()  # fault
        return trained(optimizer, cost)

    return Program(step, model, optimizer, 2)
