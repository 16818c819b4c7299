"""Finite values, bad gradients."""

import torch
from torch import nn

from tests.probes.corpus.built.births import GH, linear
from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault = corpus.fault


def leaf(*values):
    return torch.tensor(values, requires_grad=True)


@fault("backward", "nan", "sqrt", "x", GH + "pytorch/pytorch/issues/187297")
def where_with_a_root_of_negatives(broken):
    x = leaf(-1.0, -4.0, 2.0)

    def step():
        inside = x if broken else torch.where(x > 0, x, torch.ones_like(x))
        root = torch.sqrt(inside)  # fault
        return torch.where(x > 0, root, x).sum()

    return Program(step)


@fault("backward", "nan", "exp", "x", GH + "pytorch/pytorch/issues/68425")
def where_with_an_exp_not_taken(broken):
    x = leaf(100.0, -1.0)

    def step():
        inside = x if broken else x.clamp(max=0)
        return torch.where(x <= 0, torch.exp(inside), 1 + x).sum()  # fault

    return Program(step)


@fault("backward", "nan inf", "log2", "x", GH + "pytorch/pytorch/issues/108618")
def where_with_a_log_of_zero(broken):
    x = leaf(0.0, 2.0, 3.0)

    def step():
        inside = x if broken else torch.where(x > 2, x, torch.ones_like(x))
        return torch.where(x > 2, torch.log2(inside), 2 * x).sum()  # fault

    return Program(step)


@fault("backward", "nan", "sqrt", "anchor", GH + "huggingface/sentence-transformers/pull/4033")
def distance_between_identical_embeddings(broken):
    anchor = torch.ones(3, 4, requires_grad=True)
    positive = torch.ones(3, 4)

    def step():
        if not broken:
            return torch.linalg.vector_norm(anchor - positive, dim=1).mean()
        square = (anchor - positive).square().sum(1)
        return torch.sqrt(square).mean()  # fault

    return Program(step)


@fault("backward", "nan inf", "acos", "q", GH + "kornia/kornia/issues/4007")
def quaternion_log_at_the_identity(broken):
    q = leaf(1.0, 0.0, 0.0, 0.0)

    def step():
        scalar, vector = q[0].clamp(-1, 1), q[1:]
        if not broken:
            return (vector * 2).sum() + (scalar - 1) ** 2
        angle = torch.acos(scalar)  # fault
        return (vector * angle).sum() + scalar

    return Program(step)


@fault("backward", "nan", "sqrt", "v", GH + "kornia/kornia/issues/4404")
def so3_exponential_at_zero(broken):
    v = torch.zeros(1, 3, requires_grad=True)

    def step():
        square = v.square().sum(1)
        inside = square if broken else square + 1e-20
        theta = inside.sqrt()  # fault
        small = theta < 1e-6
        safe = torch.where(small, torch.ones_like(theta), theta)
        factor = torch.where(small, 0.5 - theta**2 / 48, torch.sin(safe / 2) / safe)
        return (factor[:, None] * v).sum()

    return Program(step)


@fault("backward", "nan inf", "sqrt", "weight bias", GH + "keras-team/keras/issues/2960")
def standard_deviation_of_a_constant(broken):
    model, x = linear(4, 3), torch.ones(6, 4)

    def step():
        spread = model(x).var(0)
        spread = spread if broken else spread + 1e-5
        return spread.sqrt().sum()  # fault

    return Program(step, model)


@fault("backward", "nan", "sqrt", "0.weight", GH + "pytorch/pytorch/issues/2534")
def gradient_penalty_of_a_flat_critic(broken):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1, bias=False))

    def step():
        x = torch.rand(5, 3)
        x[0] = -50.0 * model[0].weight.detach().sum(0).sign()
        model[0].weight.data[:, :] = model[0].weight.data.abs()
        x[0] = -50.0
        x.requires_grad_()
        (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        square = slope.square().sum(1)
        square = square if broken else square + 1e-12
        size = torch.sqrt(square)  # fault
        return ((size - 1) ** 2).mean()

    return Program(step, model)


@fault("backward", "nan", "linalg_eigh _linalg_eigh", "a", GH + "pytorch/pytorch/issues/47599")
def eigenvectors_of_the_identity(broken):
    a = torch.eye(3) if broken else torch.diag(torch.tensor([1.0, 2.0, 3.0]))
    a.requires_grad_()

    def step():
        _, vectors = torch.linalg.eigh(a)  # fault
        return (vectors * torch.arange(9.0).reshape(3, 3)).sum()

    return Program(step)


@fault("backward", "nan", "linalg_svd _linalg_svd svd", "a", GH + "pytorch/pytorch/issues/49886")
def singular_vectors_of_a_rank_one_matrix(broken):
    a = torch.ones(4, 4) if broken else torch.diag(torch.arange(1.0, 5.0))
    a.requires_grad_()

    def step():
        u, s, vt = torch.linalg.svd(a)  # fault
        weights = torch.arange(16.0).reshape(4, 4)
        return (u * vt.T * weights).sum() + s.sum()

    return Program(step)


@fault("backward", "nan", "logsumexp", "x", GH + "pytorch/pytorch/issues/31829")
def logsumexp_of_an_empty_state(broken):
    x = leaf(0.5, 1.5)

    def step():
        closed = torch.full((2,), float("-inf"))
        rows = torch.stack([x + closed if broken else x - 50.0, x])
        total = torch.logsumexp(rows, dim=1)  # fault
        return total[1] + total[:1].exp().sum()

    return Program(step)


@fault("backward", "nan inf", "pow sqrt", "x", GH + "Ciela-Institute/caustics/pull/83")
def fractional_power_at_zero(broken):
    x = leaf(0.0, 1.0, 4.0)

    def step():
        inside = x if broken else x + 1e-6
        return (inside**0.5).sum()  # fault

    return Program(step)


@fault(
    "backward", "nan inf", "div sqrt", "x", "GRIST: Yan et al., ESEC/FSE 2021, its PyTorch programs"
)
def own_function_divides_by_zero(broken):
    class Root(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            y = x.clamp(min=0).sqrt()
            ctx.save_for_backward(y)
            return y

        @staticmethod
        def backward(ctx, grad):
            (y,) = ctx.saved_tensors
            floor = 0.0 if broken else 1e-3
            return grad / (2 * y.clamp(min=floor))  # fault

    x = leaf(0.0, 1.0)
    return Program(lambda: Root.apply(x).sum())


@fault("backward", "nan", "div", "x", GH + "rwth-i6/returnn/issues/1835")
def hook_normalises_a_zero_gradient(broken):
    x = leaf(1.0, 2.0)

    def step():
        y = x * 2
        if broken:
            y.register_hook(lambda grad: grad / grad.norm())  # fault
        return (y * torch.zeros(2)).sum() + y.detach().sum()

    return Program(step)


@fault(
    "backward", "nan inf", "norm linalg_vector_norm rsqrt", "x", GH + "pytorch/pytorch/issues/2421"
)
def inverse_root_of_a_square(broken):
    x = leaf(0.0, 3.0)

    def step():
        square = x.square()
        inside = square if broken else square + 1e-6
        return (square * torch.rsqrt(inside).nan_to_num(posinf=0.0)).sum()  # fault

    return Program(step)
