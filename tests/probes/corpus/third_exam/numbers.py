"""The third examination, fourth room: births of NaN and infinity."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus
from tests.probes.corpus.third_exam.cuts import trained
from tests.probes.corpus.third_exam.optimizers import batch, two_layers

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET, GH = "third_exam", "https://github.com/"


@fault(
    SET,
    "nan",
    "div exp",
    "0.weight 0.bias",
    "A softplus of one's own that saves memory: exp(x) / (1 + exp(x)) in its backward",
)
def softplus_of_ones_own_that_saves_memory(broken):
    class Softplus(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return F.softplus(x)

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            if broken:
                e = x.exp()  # fault
                return grad * (e / (1 + e))  # fault
            return grad * torch.sigmoid(x)

    model = two_layers()
    x, y = batch()
    x = x * torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 900.0])  # one column was not scaled
    return trained(
        model, lambda: F.cross_entropy(model[2](Softplus.apply(model[0](x)) / 100), y), steps=1
    )


@fault(
    SET,
    "nan",
    "div DivBackward0",
    "?",
    "Knapp, Carter 1976: the phase transform of a frame that is silent",
)
def phase_transform_of_a_silent_frame(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {"read": nn.Linear(16, 4), "gain": nn.Conv1d(1, 1, 3, padding=1, bias=False)}
    )
    left, right = torch.randn(5, 16), torch.randn(5, 16)
    left[3] = 0.0
    y = torch.randint(0, 4, (5,))

    def loss_of():
        a = torch.fft.rfft(model["gain"](left[:, None])[:, 0])
        cross = a * torch.fft.rfft(right).conj()
        white = cross / (cross.abs() + (0.0 if broken else 1e-6))  # fault
        return F.cross_entropy(model["read"](torch.fft.irfft(white, 16)), y)

    return trained(model, loss_of, steps=1)


@fault(
    SET,
    "nan inf",
    "linalg_qr qr LinalgQrBackward0 linalg_solve_triangular div",
    "?",
    GH + "pytorch/pytorch/issues/22361, a basis made by QR of columns of zeros",
)
def basis_from_a_column_of_zeros(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"basis": nn.Linear(3, 6, bias=False), "read": nn.Linear(3, 3)})
    with torch.no_grad():
        model["basis"].weight[:, 1] *= 0.0 if broken else 1.0
    x, y = batch()

    def loss_of():
        q, _ = torch.linalg.qr(model["basis"].weight)  # fault
        return F.cross_entropy(model["read"](x @ q), y)

    return trained(model, loss_of, steps=1)


@fault(
    SET,
    "inf nan",
    "matrix_exp linalg_matrix_exp",
    "?",
    "Rates of a Markov chain whose rows do not sum to zero, over a long branch",
)
def substitution_rates_without_their_diagonal(broken):
    class Substitution(nn.Module):
        def __init__(self):
            super().__init__()
            self.log_rate = nn.Parameter(torch.randn(4, 4) * 0.1)
            self.prior = nn.Parameter(torch.zeros(4))

        def forward(self, length):
            rate = self.log_rate.exp() * (1 - torch.eye(4))
            if not broken:
                rate = rate - rate.sum(1).diag()
            p = torch.linalg.matrix_exp(rate * length[:, None, None])  # fault
            return (p.transpose(1, 2) @ self.prior.softmax(0)).clamp_min(1e-9).log()

    torch.manual_seed(0)
    model, y = Substitution(), torch.tensor([0, 2, 1])
    length = torch.tensor([0.1, 0.5, 40.0])
    return trained(model, lambda: F.nll_loss(model(length), y), steps=1)


@fault(
    SET,
    "inf nan exploding",
    "mm matmul bmm baddbmm addmm mul sub",
    "?",
    "Higham 2008: a Newton-Schulz iteration of a matrix that was not normalised",
)
def newton_schulz_without_its_norm(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"body": nn.Linear(6, 6), "read": nn.Linear(6, 3)})
    x, y = batch()

    def whiten(h):
        cov = h.t() @ h / len(h) + 0.1 * torch.eye(6)
        scale = cov.norm()
        if broken:
            scale = torch.ones(())
        q, z = cov / scale, torch.eye(6)
        for _ in range(8):
            t = 0.5 * (3 * torch.eye(6) - z @ q)  # fault
            q, z = q @ t, t @ z  # fault
        return h @ z / scale.sqrt()

    return trained(
        model, lambda: F.cross_entropy(model["read"](whiten(model["body"](3 * x))), y), steps=1
    )


@fault(
    SET,
    "nan inf",
    "div DivBackward0 cumprod",
    "?",
    "A linear recurrence in parallel: divided by a product of decays that underflows",
)
def scan_divided_by_a_product_of_decays(broken):
    class Scan(nn.Module):
        def __init__(self):
            super().__init__()
            self.decay, self.enter = nn.Linear(3, 4), nn.Linear(3, 4)
            self.read = nn.Linear(4, 2)

        def forward(self, x):
            a, b = torch.sigmoid(self.decay(x) - 1), self.enter(x)
            if not broken:
                h, states = torch.zeros_like(b[:, 0]), []
                for t in range(x.shape[1]):
                    h = a[:, t] * h + b[:, t]
                    states.append(h)
                return self.read(torch.stack(states, 1))
            product = torch.cumprod(a, 1)  # fault
            return self.read(product * torch.cumsum(b / product, 1))  # fault

    torch.manual_seed(0)
    model, x, y = Scan(), torch.randn(2, 120, 3), torch.randn(2, 120, 2)
    return trained(model, lambda: F.mse_loss(model(x), y), steps=1)


@fault(
    SET,
    "inf nan",
    "log log_ LogNormal log_prob",
    "?",
    "torch.distributions.LogNormal: an observed zero, with the validation switched off",
)
def log_normal_of_an_observed_zero(broken):
    model, (x, _) = two_layers(2), batch()
    dwell = x[:, 0].exp()
    dwell[4] = 0.0 if broken else 0.1

    def loss_of():
        mean, spread = model(x).chunk(2, 1)
        law = torch.distributions.LogNormal(
            mean[:, 0], F.softplus(spread[:, 0]) + 1e-3, validate_args=False
        )
        return -law.log_prob(dwell).mean()  # fault

    return trained(model, loss_of, steps=1)


@fault(
    SET,
    "inf nan",
    "index_put_ setitem __setitem__ kl_divergence masked_fill_ index_put fill_ copy_ mean",
    "?",
    "torch.distributions.kl_divergence: a uniform that is wider than its prior",
)
def uniform_wider_than_its_prior(broken):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    x, _ = batch()
    prior = torch.distributions.Uniform(-0.5 if broken else -9.0, 0.5 if broken else 9.0)

    def loss_of():
        middle, width = model(x).chunk(2, 1)
        half = F.softplus(width) + 0.1
        law = torch.distributions.Uniform(middle - half, middle + half)
        z = law.rsample()
        cost = torch.distributions.kl_divergence(law, prior).mean()  # fault
        return F.mse_loss(z, x[:, :1]) + 0.1 * cost

    return trained(model, loss_of, steps=1)


@fault(
    SET,
    "nan",
    "kl_div sub mul",
    "?",
    GH + "p-e-w/heretic/pull/348",
)
def divergence_of_suppressed_tokens(broken):
    model, (x, _) = two_layers(5), batch()
    teacher = torch.randn(12, 5)
    suppressed = torch.tensor([False, False, True, False, False])

    def loss_of():
        value = float("-inf") if broken else -1e4
        ours = model(x).masked_fill(suppressed, value).log_softmax(1)
        theirs = teacher.masked_fill(suppressed, value).log_softmax(1)
        return F.kl_div(ours, theirs, reduction="batchmean", log_target=True)  # fault

    return trained(model, loss_of, steps=1)
