"""The examination, a second lot of controls: tiny scales, unused values, gradients set by hand."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus, Program
from tests.probes.corpus.exam.mechanisms import batch, classified, small
from tests.probes.corpus.exam.science import trained

corpus = Corpus()
healthy = corpus.healthy


@healthy(
    "Touvron et al. 2021; Bachlechner et al. 2021: branches of weight 1e-6, and of weight zero"
)
def residual_branches_that_start_tiny(_):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
            self.scale, self.gate = nn.Parameter(torch.full((8,), 1e-6)), nn.Linear(8, 8)
            self.zero = nn.Parameter(torch.zeros(()))

        def forward(self, h):
            return h + self.scale * self.net(h) + self.zero * torch.tanh(self.gate(h))

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), Block(), Block(), nn.Linear(8, 3))
    return classified(model, torch.optim.AdamW(model.parameters(), lr=1e-3), 3)


@healthy("Mildenhall et al. 2020: a disparity of empty rays that is shown and never learned from")
def disparity_that_is_only_shown(_):
    torch.manual_seed(0)
    model, t = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 4)), torch.rand(8) + 1
    points, colour, inside = torch.randn(6, 8, 3), torch.rand(6, 3), torch.ones(6, 8)
    inside[4] = 0.0
    shown = []

    def loss_of():
        out = model(points)
        alpha = 1 - torch.exp(-F.softplus(out[..., 3]) * inside * 0.3)
        clear = torch.cumprod(torch.cat([torch.ones(6, 1), 1 - alpha + 1e-10], 1), 1)[:, :-1]
        weight = alpha * clear
        shown.append((weight.sum(1) / (weight * t).sum(1)).detach())
        seen = (weight[..., None] * torch.sigmoid(out[..., :3])).sum(1)
        return F.mse_loss(seen + (1 - weight.sum(1, keepdim=True)), colour)

    return trained(model, loss_of, 2)


@healthy("Abadi et al. 2016: gradients of each sample by torch.func, clipped, noised, set by hand")
def private_gradients_set_by_hand(_):
    model, (x, y) = small(), batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def loss_of(weights, row, label):
        out = torch.func.functional_call(model, weights, row[None])
        return F.cross_entropy(out, label[None])

    each = torch.func.vmap(torch.func.grad_and_value(loss_of), in_dims=(None, 0, 0))

    def step():
        weights = {k: p.detach() for k, p in model.named_parameters()}
        grads, losses = each(weights, x, y)
        size = torch.stack([g.flatten(1).norm(dim=1) for g in grads.values()]).norm(dim=0)
        share = (1.0 / (size + 1e-6)).clamp(max=1.0)
        for name, p in model.named_parameters():
            g = torch.einsum("i,i...->...", share, grads[name])
            p.grad = (g + 0.1 * torch.randn_like(g)) / len(x)
        optimizer.step()
        optimizer.zero_grad()
        return losses.mean()

    return Program(step, model, optimizer, 2)


@healthy("Sohn et al. 2020: pseudo-labels of which none is sure enough at first")
def pseudo_labels_that_are_not_sure_yet(_):
    model, (x, y) = small(), batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, nesterov=True, momentum=0.9)
    unlabelled = torch.randn(20, 6)

    def step():
        with torch.no_grad():
            sure, guess = model(unlabelled).softmax(1).max(1)
        keep = (sure > 0.95).float()
        strong = model(unlabelled + 0.3 * torch.randn(20, 6))
        loss = (F.cross_entropy(strong, guess, reduction="none") * keep).mean()
        loss = loss + F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@healthy("torch.nn.CTCLoss with zero_infinity: an impossible transcript is left out")
def impossible_transcript_that_is_left_out(_):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(4, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv1d(8, 5, 1))
    audio = torch.randn(3, 4, 12)
    words = torch.tensor([[1, 2, 3, 4], [2, 2, 3, 3], [1, 2, 1, 0]])
    heard, spoken = torch.tensor([6, 5, 6]), torch.tensor([4, 4, 3])

    def loss_of():
        log_p = model(audio).permute(2, 0, 1).log_softmax(2)
        return F.ctc_loss(log_p, words, heard, spoken, zero_infinity=True)

    return trained(model, loss_of, 2)


@healthy("Zhang et al. 2019; Izmailov et al. 2018: slow weights, swapped in for a look")
def slow_weights_that_are_swapped_in(_):
    model, (x, y) = small(), batch()
    slow = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def step():
        for _ in range(2):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
        fast = copy.deepcopy(model.state_dict())
        for k, v in fast.items():
            slow[k] += 0.5 * (v - slow[k])
        model.load_state_dict(slow)
        model.eval()
        with torch.inference_mode():
            (model(x).argmax(1) == y).float().mean().item()
        model.train()
        return loss

    return Program(step, model, optimizer, 2)


@healthy("Kendall et al. 2018; Yu et al. 2020: task gradients taken apart, projected, put back")
def task_gradients_put_back_by_hand(_):
    torch.manual_seed(0)
    model = nn.ModuleDict({"body": nn.Linear(6, 8), "a": nn.Linear(8, 3), "b": nn.Linear(8, 1)})
    model.register_parameter("log_var", nn.Parameter(torch.zeros(2)))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x, y = batch()
    shared = list(model["body"].parameters())

    def step():
        optimizer.zero_grad()
        h = torch.tanh(model["body"](x))
        losses = [F.cross_entropy(model["a"](h), y), model["b"](h).square().mean()]
        grads = [torch.autograd.grad(loss, shared, retain_graph=True) for loss in losses]
        total = sum(loss * (-s).exp() + s for loss, s in zip(losses, model.log_var, strict=True))
        total.backward()
        with torch.no_grad():
            for p, g, other in zip(shared, *grads, strict=True):
                crossed = (g * other).sum().clamp(max=0.0)
                p.grad = g + other - crossed / other.square().sum().clamp(min=1e-12) * other
        optimizer.step()
        return total

    return Program(step, model, optimizer, 2)
