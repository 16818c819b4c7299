"""The fifth examination, third room: attention, language, half precision and statistics."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET = "fifth_exam"


@fault(
    SET,
    "nan",
    "div",
    "q.weight k.weight v.weight out.weight out.bias",
    "Linear attention with a ReLU feature map: no feature of a query is active",
)
def linear_attention_without_active_features(broken):
    class LinearAttention(nn.Module):
        def __init__(self, d=6):
            super().__init__()
            self.q, self.k = nn.Linear(d, d, bias=False), nn.Linear(d, d, bias=False)
            self.v, self.out = nn.Linear(d, d, bias=False), nn.Linear(d, 2)

        def forward(self, x):
            q, k, v = F.relu(self.q(x)), F.relu(self.k(x)), self.v(x)
            state = torch.einsum("btd,bte->bde", k, v)
            mass = torch.einsum("btd,bd->bt", q, k.sum(1)).unsqueeze(-1)
            eps = 0.0 if broken else 1e-6
            y = torch.einsum("btd,bde->bte", q, state) / (mass + eps)  # fault
            return self.out(y.mean(1))

    model = LinearAttention()
    x, y = torch.randn(4, 5, 6), torch.randint(0, 2, (4,))
    x[2, 4] = 0.0  # a word that is not in the table
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return Program(step, model, optimizer, 1)


@fault(
    SET,
    "nan inf",
    "pow",
    "?",
    "gelu_new in float16: the cube overflows, tanh hides it, backward does not",
)
def tanh_gelu_in_half_precision(broken):
    class Gelu(nn.Module):
        def forward(self, x):
            y = x if broken else x.clamp(-30, 30)
            cube = torch.pow(y, 3.0)  # fault
            return 0.5 * x * (1.0 + torch.tanh(0.79788456 * (y + 0.044715 * cube)))

    model = nn.Sequential(nn.Linear(4, 8), Gelu(), nn.Linear(8, 3)).half()
    with torch.no_grad():
        model[0].bias[0] = 300.0  # one outlier feature, as large models have them
    x, y = torch.randn(6, 4).half(), torch.randint(0, 3, (6,))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x).float(), y)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 1)


@fault(
    SET,
    "nan",
    "corrcoef div true_divide",
    "0.weight 0.bias",
    "Cogswell et al. 2016, decorrelation by torch.corrcoef over a unit that is dead",
)
def correlations_of_a_dead_unit(broken):
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    with torch.no_grad():
        model[0].bias[2] = -50.0
    x, y = torch.randn(16, 5), torch.randint(0, 3, (16,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step():
        hidden = model[1](model[0](x))
        logits = model[2](hidden)
        units = hidden.T if broken else hidden.T[hidden.detach().std(0) > 0]
        r = torch.corrcoef(units)  # fault
        extra = (r - torch.diag(torch.diag(r))).square().mean()
        loss = F.cross_entropy(logits, y) + 0.1 * extra
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return Program(step, model, optimizer, 1)


@fault(
    SET,
    "nan",
    "sqrt",
    "0.weight 0.bias 2.weight 2.bias",
    "Gretton et al. 2012: the unbiased discrepancy is negative, and its root is taken",
)
def root_of_an_unbiased_discrepancy(broken):
    torch.manual_seed(5)
    encoder = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    batch = torch.randn(16, 4)
    source, target = batch[::2], batch[::2].flip(0)  # one domain, twice
    optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-3)

    def kernel(a, b):
        return torch.exp(-0.5 * (a[:, None] - b[None]).pow(2).sum(-1))

    def discrepancy(a, b):
        n, m = len(a), len(b)
        inner = (kernel(a, a).sum() - n) / (n * (n - 1)) + (kernel(b, b).sum() - m) / (m * (m - 1))
        square = inner - 2 * kernel(a, b).mean()
        if not broken:
            return square
        return square.sqrt()  # fault

    def step():
        optimizer.zero_grad()
        loss = discrepancy(encoder(source), encoder(target))
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, encoder, optimizer, 1)


@fault(
    SET,
    "inf nan",
    "log",
    "?",
    "Welleck et al. 2020: unlikelihood of a token that the model is sure of",
)
def unlikelihood_of_a_sure_token(broken):
    class LM(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.rnn = nn.Embedding(9, 8), nn.GRU(8, 8, batch_first=True)
            self.head = nn.Linear(8, 9)

        def forward(self, tokens):
            return self.head(self.rnn(self.embed(tokens))[0])

    model, tokens = LM(), torch.randint(1, 9, (3, 7))
    with torch.no_grad():
        model.head.bias[4] = 40.0  # it repeats one word for ever
    tokens[:, 2] = 4
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step():
        logits = model(tokens[:, :-1])
        log_p = logits.log_softmax(-1)
        likelihood = F.nll_loss(log_p.transpose(1, 2), tokens[:, 1:])
        p = log_p.exp().gather(-1, tokens[:, :-1, None])
        rest = 1 - p if broken else (1 - p).clamp(min=1e-5)
        loss = likelihood - rest.log().mean()  # fault
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return Program(step, model, optimizer, 1)


@fault(
    SET,
    "inf nan",
    "exp",
    "?",
    "RWKV: the weighted sums of exponentials without the running maximum",
)
def weighted_keys_without_their_maximum(broken):
    class TimeMix(nn.Module):
        def __init__(self, d=4):
            super().__init__()
            self.key, self.value = nn.Linear(d, d, bias=False), nn.Linear(d, d)
            self.decay, self.out = nn.Parameter(torch.zeros(d)), nn.Linear(d, 1)

        def forward(self, x):
            k, v = self.key(x), self.value(x)
            if not broken:
                k = k - k.detach().amax(1, keepdim=True)
            top = torch.full_like(v[:, 0], 1e-6)
            bottom = torch.full_like(top, 1e-6)
            outputs = []
            for t in range(x.shape[1]):
                weight = torch.exp(k[:, t])  # fault
                top = torch.exp(-self.decay.exp()) * top + weight * v[:, t]
                bottom = torch.exp(-self.decay.exp()) * bottom + weight
                outputs.append(top / bottom)
            return self.out(torch.stack(outputs, 1)).squeeze(-1)

    model, x = TimeMix(), torch.randn(3, 6, 4)
    x[1, 3] *= 2000.0
    y = torch.randn(3, 6)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step():
        optimizer.zero_grad()
        loss = F.smooth_l1_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 1)
