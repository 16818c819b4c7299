"""The third set, healthy controls: programs that look ill and are not."""

import copy
import itertools

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.probes.corpus.built.births import GH, linear
from tests.probes.corpus.case import Corpus, Program
from tests.probes.corpus.grist.programs import trained

corpus = Corpus()
healthy = corpus.healthy


def stack(*sizes):
    torch.manual_seed(0)
    pairs = itertools.pairwise(sizes)
    return nn.Sequential(*[layer for a, b in pairs for layer in (nn.Linear(a, b), nn.Tanh())])


@healthy("torch.nn.functional.scaled_dot_product_attention with a mask of padding and of time")
def attention_with_a_boolean_mask(_):
    model, x = linear(8, 24), torch.rand(2, 5, 8)
    real = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    mask = torch.ones(5, 5).tril().bool() & real[:, None, None, :]

    def step():
        q, k, v = (part.unflatten(2, (2, 4)).transpose(1, 2) for part in model(x).chunk(3, 2))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return out.transpose(1, 2)[real].square().mean()

    return Program(step, model)


@healthy("torch.utils.checkpoint documentation: both ways of recomputing a block")
def blocks_recomputed_in_backward(_):
    model, x = stack(4, 6, 6, 2), torch.rand(5, 4)

    def step():
        h = model[:2](x)
        h = checkpoint(model[2:4], h, use_reentrant=True)
        return checkpoint(model[4:], h, use_reentrant=False).square().mean()

    return Program(step, model)


@healthy("Press, Wolf 2017: one weight for the embedding and for the output")
def tied_embedding(_):
    torch.manual_seed(0)
    model = nn.ModuleDict({"embed": nn.Embedding(9, 4), "out": nn.Linear(4, 9, bias=False)})
    model.out.weight = model.embed.weight
    tokens = torch.tensor([[1, 2, 3], [4, 5, 6]])
    optimizer = torch.optim.AdamW(model.parameters())

    def step():
        logits = model.out(model.embed(tokens[:, :-1]))
        return trained(optimizer, F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()))

    return Program(step, model, optimizer, 2)


@healthy("Ganin, Lempitsky 2015: the reversal starts with a strength of zero")
def gradient_reversal_at_the_start(_):
    class Reverse(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, strength):
            ctx.strength = strength
            return x.view_as(x)

        @staticmethod
        def backward(ctx, grad):
            return -ctx.strength * grad, None

    body, label, domain = stack(4, 5), nn.Linear(5, 3), nn.Linear(5, 2)
    model, x = nn.ModuleDict({"body": body, "label": label, "domain": domain}), torch.rand(6, 4)
    y = torch.arange(6)

    def step():
        h = body(x)
        loss = F.cross_entropy(label(h), y % 3)
        return loss + F.cross_entropy(domain(Reverse.apply(h, 0.0)), y % 2)

    return Program(step, model)


@healthy("Miyato et al. 2018: spectral norm, both in its old and in its new form")
def spectral_norm_in_training(_):
    model, x = stack(4, 5, 5, 1), torch.rand(6, 4)
    nn.utils.spectral_norm(model[0])
    nn.utils.parametrizations.spectral_norm(model[2])
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3)
    return Program(lambda: trained(optimizer, model(x).mean()), model, optimizer, 2)


@healthy("Fine-tuning with frozen statistics: BatchNorm in eval mode, its backbone frozen")
def frozen_backbone_with_batch_norm_in_eval(_):
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU()).eval().requires_grad_(False)
    model = nn.ModuleDict({"body": body, "head": nn.Linear(5, 2)})
    x = torch.rand(1, 4)
    optimizer = torch.optim.Adam(p for p in model.parameters() if p.requires_grad)

    def step():
        return trained(optimizer, (model.head(body(x)) - 1).square().mean())

    return Program(step, model, optimizer, 2)


@healthy("torch.optim.SparseAdam with nn.Embedding(sparse=True)")
def sparse_gradients_of_an_embedding(_):
    torch.manual_seed(0)
    model = nn.Embedding(20, 3, sparse=True)
    optimizer, rows = torch.optim.SparseAdam(model.parameters()), torch.tensor([1, 1, 7])
    return Program(lambda: trained(optimizer, model(rows).square().sum()), model, optimizer, 2)


@healthy("Polyak averages beside the training, kept under no_grad")
def average_of_the_weights(_):
    model, x = stack(4, 5, 1), torch.rand(6, 4)
    shadow, optimizer = copy.deepcopy(model), torch.optim.AdamW(model.parameters(), lr=1e-2)

    def step():
        loss = trained(optimizer, (model(x) - 1).square().mean())
        with torch.no_grad():
            for kept, now in zip(shadow.parameters(), model.parameters(), strict=True):
                kept.lerp_(now, 0.1)
            return loss, F.mse_loss(shadow(x), model(x)).item()

    return Program(step, model, optimizer, 3)


@healthy("Jang et al. 2017, hard samples; van den Oord et al. 2017, straight-through codes")
def hard_choices_with_a_way_around(_):
    torch.manual_seed(0)
    model = nn.ModuleDict({"net": nn.Linear(4, 3), "code": nn.Embedding(5, 3)})
    x = torch.rand(6, 4)

    def step():
        z = model.net(x)
        nearest = model.code(torch.cdist(z, model.code.weight).argmin(1))
        loss = F.mse_loss(nearest, z.detach()) + 0.25 * F.mse_loss(z, nearest.detach())
        choice = F.gumbel_softmax(z + (nearest - z).detach(), tau=0.5, hard=True)
        return loss + (choice * torch.arange(3.0)).sum(1).mean()

    return Program(step, model)


@healthy("torch.func documentation: gradients of each sample, an update by hand")
def gradients_of_each_sample(_):
    model, x, y = linear(4, 2), torch.rand(5, 4), torch.rand(5, 2)
    params = {name: p.detach().clone() for name, p in model.named_parameters()}

    def loss(params, x, y):
        out = torch.func.functional_call(model, params, (x[None],))
        return F.mse_loss(out, y[None])

    def step():
        each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(params, x, y)
        for name, grad in each.items():
            params[name] = params[name] - 0.1 * grad.mean(0)
        return torch.func.vmap(loss, in_dims=(None, 0, 0))(params, x, y).mean()

    return Program(step, steps=2)


@healthy("torch.optim.LBFGS documentation: a closure that is called several times a step")
def line_search_that_stays_in_the_domain(_):
    model, x, y = stack(3, 4, 1), torch.rand(8, 3), torch.rand(8, 1)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=5, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        return loss

    return Program(lambda: optimizer.step(closure), model, optimizer, 2)


@healthy("Ioffe, Szegedy 2015: the batch mean takes a bias away, here in a VAE with KL alone")
def bias_before_batch_norm_under_a_small_kl(_):
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU())
    model = nn.ModuleDict({"body": body, "mean": nn.Linear(16, 3), "logvar": nn.Linear(16, 3)})
    x = torch.rand(64, 6)

    def step():
        h = model.body(x)
        mean, logvar = model.mean(h), model.logvar(h)
        return 1e-4 * 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum(1).mean()

    return Program(step, model)


@healthy("Gulrajani et al. 2017: a penalty on the gradient, two backward passes deep")
def gradient_penalty(_):
    critic, x = stack(4, 6, 1), torch.rand(5, 4)

    def step():
        mixed = (x * torch.rand(5, 1)).requires_grad_(True)
        (grad,) = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)
        return critic(x).mean() + 10 * (grad.norm(2, dim=1) - 1).square().mean()

    return Program(step, critic)


@healthy("Finn et al. 2017: a step inside the step, differentiated through")
def inner_step_of_maml(_):
    w, b = torch.full((3, 1), 0.3, requires_grad=True), torch.zeros(1, requires_grad=True)
    x, y = torch.rand(6, 3), torch.rand(6, 1)

    def step():
        inner = F.mse_loss(x[:3] @ w + b, y[:3])
        gw, gb = torch.autograd.grad(inner, (w, b), create_graph=True)
        return F.mse_loss(x[3:] @ (w - 0.1 * gw) + (b - 0.1 * gb), y[3:])

    return Program(step)


@healthy("Chen et al. 2020: a view is never its own negative, so its score is -inf")
def contrast_without_the_diagonal(_):
    model, x = linear(6, 4), torch.rand(8, 6)

    def step():
        z = F.normalize(model(x), dim=1)
        score = (z @ z.t() / 0.1).fill_diagonal_(float("-inf"))
        return F.cross_entropy(score, torch.arange(8).roll(4))

    return Program(step, model)


@healthy("Peebles, Xie 2023: gates that an all-zero layer computes, so that blocks start closed")
def gates_that_start_closed(_):
    torch.manual_seed(0)
    model = nn.ModuleDict({"gate": nn.Linear(3, 4), "block": nn.Linear(4, 4)})
    model["out"] = nn.Linear(4, 1)
    nn.init.zeros_(model.gate.weight)
    nn.init.zeros_(model.gate.bias)
    x, c = torch.rand(5, 4), torch.rand(5, 3)
    return Program(lambda: model.out(x + model.gate(c) * model.block(x)).square().mean(), model)


@healthy("Li et al. 2021: complex weights on the spectrum of a field")
def complex_weights_on_a_spectrum(_):
    torch.manual_seed(0)
    weight, x = nn.Parameter(torch.randn(5, dtype=torch.cfloat)), torch.rand(3, 8)
    optimizer = torch.optim.Adam([weight], lr=1e-2)

    def step():
        wave = torch.fft.irfft(torch.fft.rfft(x) * weight, n=8)
        return trained(optimizer, (wave - 1).square().mean())

    return Program(step, None, optimizer, 2)


@healthy(GH + "Lightning-AI/pytorch-lightning/issues/19517: validation inside the training step")
def validation_between_two_steps(_):
    model, x = stack(4, 5, 1), torch.rand(6, 4)
    model.add_module("drop", nn.Dropout(0.5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        with torch.inference_mode():
            before = model.eval()(x).mean().item()
        loss = trained(optimizer, (model.train()(x) - 1).square().mean())
        return loss, before

    return Program(step, model, optimizer, 2)
