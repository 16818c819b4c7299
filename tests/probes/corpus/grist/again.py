"""GRIST's PyTorch programs, second part: more regressions, and losses of two libraries."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus, Program
from tests.probes.corpus.grist.programs import PAPER, Variable, classes, marks, trained

corpus = Corpus()
fault = corpus.fault


@fault("grist", "nan inf", "log", "z", PAPER + "46, Study.torch20_softmax")
def g46_softmax_cost_of_random_targets(broken):
    torch.manual_seed(2)
    z = (torch.randn(3, 5) * 200).requires_grad_(True)

    def step():
        guess = F.softmax(z, dim=1)
        y = torch.randint(5, (3,))
        chosen = torch.zeros_like(guess)
        chosen.scatter_(1, y.unsqueeze(1), 1)
        if not broken:
            return F.nll_loss(F.log_softmax(z, dim=1), y)
        cost = chosen * -torch.log(guess)  # fault
        return cost.sum(dim=1).mean()

    return Program(step)


@fault("grist", "nan inf", "log", "W b", PAPER + "47, Study.torch21_Softmax_Reg1")
def g47_softmax_regression(broken):
    x, y = classes(400.0)
    chosen = torch.zeros(8, 3)
    chosen.scatter_(1, y.unsqueeze(1), 1)
    W, b = torch.zeros((4, 3), requires_grad=True), torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.SGD([W, b], lr=0.1)

    def step():
        if not broken:
            return trained(optimizer, F.cross_entropy(x.matmul(W) + b, y))
        guess = F.softmax(x.matmul(W) + b, dim=1)
        return trained(optimizer, (chosen * -torch.log(guess)).sum(dim=1).mean())  # fault

    return Program(step, None, optimizer, 3)


@fault("grist", "nan inf", "log", "W b", PAPER + "53, DataScience.h02")
def g53_leaves_made_anew_in_each_round(broken):
    x, y = marks(50.0)
    x, W, b = x[:, :1], torch.zeros(1, 1), torch.zeros(1, 1)

    def step():
        nonlocal W, b
        W.requires_grad_(True)
        b.requires_grad_(True)
        score = torch.mm(x, W) + b
        if broken:
            guess = torch.sigmoid(score)
            cost = torch.mean(-y * torch.log(guess) - (1 - y) * torch.log(1 - guess))  # fault
        else:
            cost = F.binary_cross_entropy_with_logits(score, y)
        cost.backward()
        with torch.no_grad():
            W = W - 1.0 * W.grad
            b = b - 1.0 * b.grad
        return cost

    return Program(step, steps=3)


@fault("grist", "nan inf", "log", "W b", PAPER + "54, DataScience.h03")
def g54_softmax_regression_with_adam(broken):
    x, y = classes(3000.0)
    target = F.one_hot(y, 3).float()
    W = torch.zeros(4, 3, requires_grad=True)
    b = torch.zeros(1, 3, requires_grad=True)
    optimizer = torch.optim.Adam([W, b], lr=0.1)

    def step():
        score = torch.mm(x, W) + b
        if broken:
            guess = torch.softmax(score, dim=1)
            cost = -torch.mean(torch.sum(target * torch.log(guess), dim=1))  # fault
        else:
            cost = -torch.mean(torch.sum(target * torch.log_softmax(score, 1), dim=1))
        return trained(optimizer, cost)

    return Program(step, None, optimizer, 3)


@fault("grist", "nan inf", "log", "W b", PAPER + "56, start_beginner_kaggle.01")
def g56_losses_shown_before_the_training(broken):
    x, y = marks(30.0)
    W, b = torch.zeros((2, 1), requires_grad=True), torch.zeros(1, requires_grad=True)
    shown = -(y * torch.log(torch.sigmoid(x.matmul(W) + b)))
    shown = [shown.mean().item(), F.binary_cross_entropy(torch.sigmoid(x.matmul(W) + b), y)]
    optimizer = torch.optim.SGD([W, b], lr=1)

    def step():
        score = x.matmul(W) + b
        yes, no = F.logsigmoid(score), F.logsigmoid(-score)
        if broken:
            yes = torch.log(torch.sigmoid(score))
            no = torch.log(1 - torch.sigmoid(score))  # fault
        return trained(optimizer, -(y * yes + (1 - y) * no).mean())

    return Program(step, None, optimizer, 3)


@fault("grist", "nan inf", "log", "z", PAPER + "57, start_beginner_kaggle.03")
def g57_product_of_target_and_log(broken):
    z = torch.tensor([[0.0, -120.0, 3.0, 1.0, 2.0]], requires_grad=True)

    def step():
        nonlocal z
        z = Variable(z, requires_grad=True)
        chosen = torch.zeros(1, 5).scatter_(1, torch.tensor([[0]]), 1)
        guess = F.softmax(z, dim=1)
        log_p = torch.log(guess) if broken else F.log_softmax(z, dim=1)  # fault
        return (chosen * -log_p).sum(dim=1).mean()

    return Program(step, steps=2)


@fault("grist", "nan inf", "exp", "x", PAPER + "4, Pytorch_Geometric_Fork")
def g04_kl_of_a_graph_autoencoder(broken):
    class Variational(nn.Module):
        def __init__(self, encoder):
            super().__init__()
            self.encoder = encoder

        def encode(self, *inputs):
            self.mu, self.logvar = self.encoder(*inputs)
            return self.mu + torch.randn_like(self.mu) * torch.exp(0.5 * self.logvar.clamp(max=20))

        def kl(self):
            s = self.logvar if broken else self.logvar.clamp(max=10) + 0 * self.logvar
            return -0.5 * torch.mean(torch.sum(1 + s - self.mu**2 - s.exp(), dim=1))  # fault

    model = Variational(lambda x: (x, x))
    x = torch.tensor([[1.0, -1.0], [1.0, 2.0], [2.0, 95.0]], requires_grad=True)

    def step():
        model.encode(x)
        return model.kl()

    return Program(step)


@fault("grist", "nan", "sqrt", "y_pred", PAPER + "5, MatchZoo")
def g05_root_of_a_softmax_in_a_ranking_loss(broken):
    class RankLoss(nn.Module):
        def forward(self, y_pred, y_true, negatives=2):
            stride = negatives + 1
            logits = torch.cat([y_pred[i::stride, :] for i in range(stride)], dim=-1)
            labels = torch.cat([y_true[i::stride, :] for i in range(stride)], dim=-1)
            if not broken:
                return -(labels * torch.exp(0.5 * F.log_softmax(logits, -1))).sum(-1).mean()
            return -(labels * torch.sqrt(F.softmax(logits, dim=-1))).sum(-1).mean()  # fault

    y_true = torch.tensor([[1.0], [0.0], [0.0], [0.0], [1.0], [0.0]])
    y_pred = torch.tensor([[0.8], [0.1], [0.1], [110.0], [0.1], [0.2]], requires_grad=True)
    loss = RankLoss()
    return Program(lambda: loss(y_pred, y_true))
