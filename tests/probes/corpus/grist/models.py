"""GRIST's PyTorch programs, third part: a classifier, a graph softmax and four RBMs."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus, Program
from tests.probes.corpus.grist.programs import PAPER, Variable, trained

corpus = Corpus()
fault = corpus.fault


@fault(
    "grist",
    "nan inf",
    "log",
    "hidden.weight hidden.bias output.weight output.bias",
    PAPER + "12, Skorch",
)
def g12_log_taken_by_the_training_loop(broken):
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.dropout, self.hidden = nn.Dropout(0.5), nn.Linear(6, 5)
            self.output = nn.Linear(5, 3)

        def forward(self, x):
            score = self.output(self.dropout(F.relu(self.hidden(x))))
            return F.softmax(score, dim=-1) if broken else F.log_softmax(score, dim=-1)

    class Net:
        def __init__(self, module):
            self.module, self.criterion = module, nn.NLLLoss()
            self.optimizer = torch.optim.SGD(module.parameters(), lr=0.1)

        def get_loss(self, guess, y):
            if broken:
                guess = torch.log(guess)  # fault
            return self.criterion(guess, y)

        def train_step(self, x, y):
            self.module.train()
            return trained(self.optimizer, self.get_loss(self.module(x), y))

    net, x = Net(Classifier()), torch.rand(20, 6) * 1500
    y = torch.arange(20) % 3
    return Program(lambda: net.train_step(x, y), net.module, net.optimizer)


@fault("grist", "nan inf", "log", "edge_attr", PAPER + "13, Pytorch_Geometric")
def g13_softmax_over_the_edges_of_a_node(broken):
    row = torch.tensor([0, 0, 0, 1, 1, 1])
    edge_attr = torch.tensor([0.0, 1.0, 2.0, 0.0, 1.0, 2.0], requires_grad=True)

    def softmax(score, index, nodes):
        top = torch.zeros(nodes).scatter_reduce(0, index, score.detach(), "amax")
        out = score.log() if broken else (score - top[index]).exp()  # fault
        total = torch.zeros(nodes).scatter_add(0, index, out)
        return out / total[index]

    return Program(lambda: (softmax(edge_attr, row, 2) * torch.arange(6.0)).sum())


class RBM(nn.Module):
    """A restricted Boltzmann machine; each program writes its own free energy."""

    def __init__(self, k, scale=1e-2):
        super().__init__()
        torch.manual_seed(0)
        self.k = k
        self.W = nn.Parameter(torch.randn(5, 8) * scale)
        self.v_bias, self.h_bias = nn.Parameter(torch.zeros(8)), nn.Parameter(torch.zeros(5))

    def sampled(self, p):
        return F.relu(torch.sign(p - Variable(torch.rand(p.size()))))

    def hidden(self, v):
        return self.sampled(torch.sigmoid(F.linear(v, self.W, self.h_bias)))

    def visible(self, h):
        return self.sampled(torch.sigmoid(F.linear(h, self.W.t(), self.v_bias)))

    def forward(self, v):
        h = self.hidden(v)
        for _ in range(self.k):
            v_ = self.visible(h)
            h = self.hidden(v_)
        return v, v_


@fault("grist", "inf nan", "exp", "W h_bias", PAPER + "22, git1_rbm")
def g22_free_energy_in_one_chain(broken):
    class Machine(RBM):
        def free_energy(self, v):
            wx = F.linear(v, self.W, self.h_bias)
            if not broken:
                return (-F.softplus(wx).sum(1) - v.mv(self.v_bias)).mean()
            return (-wx.exp().add(1).log().sum(1) - v.mv(self.v_bias)).mean()  # fault

    model, data = Machine(1, scale=60.0), torch.rand(6, 8)
    optimizer, losses = torch.optim.SGD(model.parameters(), 0.1), []

    def step():
        v, v1 = model(Variable(data).bernoulli())
        loss = model.free_energy(v) - model.free_energy(v1)
        losses.append(loss.item())
        return trained(optimizer, loss)

    return Program(step, model, optimizer)


@fault("grist", "inf nan", "exp", "W h_bias", PAPER + "51, RBM")
def g51_free_energy_after_five_rounds(broken):
    class Machine(RBM):
        def free_energy(self, v):
            field = v.mv(self.v_bias)
            wx = F.linear(v, self.W, self.h_bias)
            soft = wx.exp().add(1).log() if broken else torch.logaddexp(wx, 0 * wx)  # fault
            return (-soft.sum(1) - field).mean()

    model, data = Machine(5), (torch.rand(6, 8) > 0.5).float()
    with torch.no_grad():
        model.h_bias.fill_(100.0)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def step():
        v, v1 = model(data)
        loss = model.free_energy(v) - model.free_energy(v1)
        assert loss.data.item() != 0
        return trained(optimizer, loss)

    return Program(step, model, optimizer)


@fault("grist", "inf nan", "exp", "W h_bias", PAPER + "62, gongdols.denoising_RBM")
def g62_free_energy_of_a_noisy_picture(broken):
    class Machine(RBM):
        def free_energy(self, v):
            wx = F.linear(v, self.W, self.h_bias)
            self.objective = -1 * torch.max(wx)
            soft = torch.log(torch.exp(wx) + 1) if broken else F.softplus(wx)  # fault
            return (-torch.sum(soft, dim=1) - v.mv(self.v_bias)).mean()

    model = Machine(1)
    optimizer = torch.optim.Adam(model.parameters(), 0.005)
    picture = torch.rand(6, 8) * 1e4

    def step():
        data = Variable(picture + torch.rand(picture.size()) * 0.1, requires_grad=True)
        v, v1 = model(Variable(data, requires_grad=True))
        return trained(optimizer, model.free_energy(v) - model.free_energy(v1))

    return Program(step, model, optimizer)


@fault("grist", "inf nan", "exp", "W v_bias h_bias", PAPER + "63, gongdols.main")
def g63_free_energy_of_a_bright_picture(broken):
    class Machine(RBM):
        def free_energy(self, v):
            wx = F.linear(v, self.W, self.h_bias)
            if broken:
                wx = torch.exp(  # fault
                    wx
                )
                soft = torch.log(wx + 1)
            else:
                soft = F.softplus(wx)
            hidden = torch.sum(soft, dim=1)
            return (-hidden - v.mv(self.v_bias)).mean()

    model = Machine(1)
    optimizer = torch.optim.Adam(model.parameters(), 0.005)
    picture = torch.rand(4, 8) * 2e4

    def step():
        data = Variable(picture.view(-1, 8), requires_grad=True)
        v, v1 = model(data)
        return trained(optimizer, model.free_energy(v) - model.free_energy(v1))

    return Program(step, model, optimizer, 2)
