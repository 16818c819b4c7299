"""The second examination, fourth room: recurrences, graphs, sound, tables of users and items."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import rnn

from tests.probes.corpus.case import Corpus
from tests.probes.corpus.second_exam import descent

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET, GH = "second_exam", "https://github.com/"


@fault(
    SET,
    "inf nan",
    "rnn_relu relu addmm linear",
    "?",
    "Le et al. 2015: a rectified recurrence that does not start as the identity, a long series",
)
def rectified_recurrence_over_a_long_series(broken):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.rnn = nn.RNN(1, 16, nonlinearity="relu", batch_first=True)
            gain = 2.0 if broken else 0.9
            nn.init.zeros_(self.rnn.bias_hh_l0)
            self.rnn.weight_hh_l0.data.copy_(torch.eye(16) * gain)
            nn.init.normal_(self.rnn.weight_ih_l0, std=0.01)
            self.out = nn.Linear(16, 1)

        def forward(self, series):
            h, _ = self.rnn(series)  # fault
            return self.out(h[:, -1])

    model = Net()
    time = torch.arange(160) / 10
    series = torch.sin(time + torch.rand(8, 1) * 6)[..., None]

    def loss_of():
        loss = F.mse_loss(model(series[:, :-1]), series[:, -1])
        return loss

    return descent(loss_of, model, torch.optim.Adam(model.parameters(), lr=1e-3))


@fault(
    SET,
    "vanishing",
    "rnn_tanh tanh addmm linear",
    "context.weight context.bias",
    "Bengio et al. 1994: a context that is given only as the first state of a long recurrence",
)
def context_given_only_at_the_start(broken):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.context, self.rnn = nn.Linear(5, 12), nn.RNN(3, 12, batch_first=True)
            self.out = nn.Linear(12, 2)
            nn.init.orthogonal_(self.rnn.weight_hh_l0, 0.3 if broken else 1.0)

        def forward(self, context, series):
            start = torch.tanh(self.context(context))[None]
            h, _ = self.rnn(series, start)  # fault
            return self.out(h[:, -1])

    model = Net()
    context, series, y = torch.randn(8, 5), 0.1 * torch.randn(8, 30, 3), torch.randint(0, 2, (8,))
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    return descent(lambda: F.cross_entropy(model(context, series), y), model, sgd, 2)


@healthy("torch.nn.utils.rnn: sentences padded with NaN and packed; the data of a packed sequence")
def packed_tagger_whose_padding_is_nan(_):
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.lstm = nn.LSTM(4, 6, 2, dropout=0.3, bidirectional=True, batch_first=True)
            self.out = nn.Linear(12, 5)

        def forward(self, packed):
            h, _ = self.lstm(packed)
            return rnn.PackedSequence(self.out(h.data), h.batch_sizes, *h[2:])

    model = Tagger()
    words = [torch.randn(n, 4) for n in (3, 7, 1, 5)]
    tags = [torch.randint(0, 5, (len(w),)) for w in words]
    padded = rnn.pad_sequence(words, batch_first=True, padding_value=torch.nan)
    lengths = torch.tensor([len(w) for w in words])
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)

    def loss_of():
        packed = rnn.pack_padded_sequence(padded, lengths, True, enforce_sorted=False)
        goal = rnn.pack_sequence(tags, enforce_sorted=False)
        return F.cross_entropy(model(packed).data, goal.data)

    return descent(loss_of, model, adam, 3)


@fault(
    SET,
    "inf nan",
    "new_full full scatter_reduce scatter_reduce_ amax mm linear",
    "?",
    "Hamilton et al. 2017: max pooling over the neighbours of a node that has none",
)
def largest_neighbour_of_a_lonely_node(broken):
    class Sage(nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            self.pool, self.mine = nn.Linear(inputs, 8), nn.Linear(inputs, outputs)
            self.theirs = nn.Linear(8, outputs, bias=False)

        def forward(self, x, source, target):
            h, where = torch.relu(self.pool(x))[source], target[:, None].expand(-1, 8)
            low = -torch.inf if broken else 0.0
            top = h.new_full((len(x), 8), low).scatter_reduce(0, where, h, "amax")  # fault
            return self.mine(x) + self.theirs(top)  # fault

    torch.manual_seed(0)
    model = nn.ModuleList([Sage(5, 8), Sage(8, 3)])
    x, y = torch.randn(6, 5), torch.randint(0, 3, (6,))
    source, target = torch.tensor([0, 1, 2, 3, 4, 5, 0]), torch.tensor([1, 2, 3, 4, 1, 2, 4])
    adam = torch.optim.Adam(model.parameters(), lr=1e-2)

    def loss_of():
        h = torch.relu(model[0](x, source, target))
        return F.cross_entropy(model[1](h, source, target), y)

    return descent(loss_of, model, adam)


@fault(
    SET,
    "exploding inf",
    "index_add index_add_ add mm addmm linear relu",
    "?",
    "Xu et al. 2019: sums over the neighbours of a dense graph, twelve layers, no norm",
)
def sums_over_a_dense_graph(broken):
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
            self.norm = nn.Identity() if broken else nn.LayerNorm(8)

        def forward(self, h, source, target):
            summed = torch.zeros_like(h).index_add(0, target, h[source])  # fault
            out = self.net(h + summed)  # fault
            return out if broken else self.norm(h + out)

    torch.manual_seed(0)
    model = nn.ModuleDict(
        {"layers": nn.ModuleList(Layer() for _ in range(12)), "out": nn.Linear(8, 2)}
    )
    for p in model["layers"].parameters():
        if p.dim() == 2:
            nn.init.kaiming_normal_(p)
    source, target = (torch.ones(40, 40) - torch.eye(40)).nonzero().t()
    x, y = torch.randn(40, 8), torch.tensor([1])
    sgd = torch.optim.SGD(model.parameters(), lr=1e-2)

    def loss_of():
        h = x
        for layer in model["layers"]:
            h = layer(h, source, target)
        return F.cross_entropy(model["out"](h.mean(0, keepdim=True)), y)

    return descent(loss_of, model, sgd)
