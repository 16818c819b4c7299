"""The third examination, second room: graphs that are cut by PyTorch's own machinery."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize

from tests.probes.corpus.case import Corpus, Program
from tests.probes.corpus.third_exam.optimizers import TWO, batch, two_layers

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET, GH = "third_exam", "https://github.com/"


def trained(model, loss_of, steps=2, lr=1e-2):
    """A program of plain Adam steps on a loss."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)

    def step():
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, steps)


@fault(
    SET,
    "severed",
    "no_grad mul _weight_norm _weight_norm_interface forward cached __enter__",
    "body.parametrizations.weight.original0 body.parametrizations.weight.original1",
    "torch.nn.utils.parametrize.cached: first filled under no_grad, then trained on",
)
def cached_weight_from_an_evaluation(broken):
    torch.manual_seed(0)
    body = nn.utils.parametrizations.weight_norm(nn.Linear(6, 8))
    model = nn.ModuleDict({"body": body, "head": nn.Linear(8, 3)})
    x, y = batch()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def net(x):
        return model["head"](torch.tanh(model["body"](x)))  # fault

    def step():
        optimizer.zero_grad()
        with parametrize.cached():
            with torch.set_grad_enabled(not broken):
                baseline = net(x).argmax(1)  # fault
            loss = F.cross_entropy(net(x), y) + 0.0 * (baseline == y).float().mean()
            loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@fault(
    SET,
    "severed",
    "state_dict detach clone",
    TWO,
    GH + "pytorch/pytorch/issues/49171, a functional call on the values of the state dict",
)
def functional_call_on_a_state_dict(broken):
    model, (x, y) = two_layers(), batch()
    temperature = nn.Parameter(torch.ones(()))
    optimizer = torch.optim.Adam([*model.parameters(), temperature], lr=1e-2)

    def step():
        optimizer.zero_grad()
        weights = model.state_dict() if broken else dict(model.named_parameters())  # fault
        noisy = {k: w + 0.01 * torch.ones_like(w) for k, w in weights.items()}
        out = torch.func.functional_call(model, noisy, (x,))
        loss = F.cross_entropy(out / temperature, y)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


ENSEMBLE = " ".join(f"{i}.{k}.{w}" for i in range(3) for k in (0, 2) for w in ("weight", "bias"))


@fault(
    SET,
    "severed",
    "stack_module_state stack construct_stacked_leaf detach",
    ENSEMBLE,
    "torch.func.stack_module_state: the stacked copy is differentiated, the members are optimised",
)
def ensemble_whose_stacked_copy_is_trained(broken):
    members, (x, y) = nn.ModuleList(two_layers() for _ in range(3)), batch()
    optimizer = torch.optim.Adam(members.parameters(), lr=1e-2)

    def predict(params):
        one = lambda p: torch.func.functional_call(members[0], p, (x,))  # noqa: E731
        return torch.func.vmap(one)(params)

    def step():
        optimizer.zero_grad()
        if broken:
            stacked, _ = torch.func.stack_module_state(list(members))  # fault
        else:
            named = [dict(m.named_parameters()) for m in members]
            stacked = {k: torch.stack([n[k] for n in named]) for k in named[0]}
        loss = F.cross_entropy(predict(stacked).flatten(0, 1), y.repeat(3))
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, members, optimizer, 2)


@fault(
    SET,
    "severed",
    "mark_non_differentiable apply TopK TopKBackward",
    "score.weight score.bias",
    "torch.autograd.Function: values marked as non-differentiable along with their indices",
)
def best_values_marked_as_not_differentiable(broken):
    class TopK(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, k):
            values, places = x.topk(k, dim=1)
            ctx.save_for_backward(places)
            ctx.shape = x.shape
            if broken:
                ctx.mark_non_differentiable(values, places)  # fault
            else:
                ctx.mark_non_differentiable(places)
            return values, places

        @staticmethod
        def backward(ctx, grad, _):
            (places,) = ctx.saved_tensors
            return grad.new_zeros(ctx.shape).scatter_add(1, places, grad), None

    torch.manual_seed(0)
    model = nn.ModuleDict({"score": nn.Linear(6, 5), "value": nn.Linear(6, 5)})
    x, y = batch()
    goal = y.float()

    def loss_of():
        best, places = TopK.apply(model["score"](x), 2)  # fault
        value = model["value"](x).gather(1, places)
        return F.mse_loss((best.softmax(1) * value).sum(1) + best[:, 0], goal)

    return trained(model, loss_of)


@fault(
    SET,
    "severed",
    "_values values",
    "edge",
    GH + "rusty1s/pytorch_sparse/issues/73",
)
def sparse_values_read_behind_autograd(broken):
    class Propagate(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(4, 5)
            self.edge = nn.Parameter(torch.ones(6))
            self.register_buffer("index", torch.tensor([[0, 0, 1, 2, 3, 3], [1, 2, 0, 3, 0, 1]]))

        def forward(self):
            a = torch.sparse_coo_tensor(self.index, self.edge, (4, 4)).coalesce()
            kept = torch.rand(6) < 0.9
            values = a._values() if broken else a.values()  # fault
            dropped = torch.sparse_coo_tensor(a.indices(), values * kept / 0.9, (4, 4))
            return torch.sparse.mm(dropped, self.embed.weight)

    torch.manual_seed(0)
    model, y = Propagate(), torch.randn(4, 5)
    return trained(model, lambda: F.mse_loss(model(), y))


@fault(
    SET,
    "severed",
    "copy_ copy setitem __setitem__ zeros_like _to_copy",
    "fine.weight fine.bias",
    "discuss.pytorch.org: predictions written into a tensor that was made like the tokens",
)
def predictions_written_among_integers(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"coarse": nn.Linear(6, 4), "fine": nn.Linear(6, 4)})
    x, _ = batch()
    counts = torch.randint(0, 9, (12, 4))

    def loss_of():
        guess = torch.zeros_like(counts, dtype=None if broken else torch.float32)  # fault
        fine = 5 * model["fine"](x)
        for i in range(4):
            guess[:, i] = fine[:, i]  # fault
        return F.mse_loss(guess + model["coarse"](x), counts.float())

    return trained(model, loss_of)


@fault(
    SET,
    "severed",
    "index copy_ setitem __setitem__ getitem __getitem__ index_put_ clone copy",
    "change.weight change.bias",
    "discuss.pytorch.org: `x[rows][:, 0] = v` writes into a copy that is thrown away",
)
def assignment_to_a_copy_made_by_an_index(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"change": nn.Linear(6, 1), "read": nn.Linear(6, 3)})
    x, y = batch()
    rows = torch.tensor([0, 2, 5, 7])

    def loss_of():
        state = x.clone()
        new = model["change"](x[rows])[:, 0]
        if broken:
            state[rows][:, 0] = new  # fault
        else:
            state[rows, 0] = new
        return F.cross_entropy(model["read"](state), y)

    return trained(model, loss_of)


@fault(
    SET,
    "severed",
    "argsort sort _to_copy to float",
    "score.0.weight score.0.bias score.2.weight",
    "A rank correlation as a loss: ranks by argsort are integers",
)
def rank_correlation_by_argsort(broken):
    torch.manual_seed(0)
    score = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1, bias=False))
    model = nn.ModuleDict({"score": score, "scale": nn.Linear(6, 1)})
    x, _ = batch()
    goal = x[:, 0].argsort().argsort().float()

    def rank(score):
        if broken:
            return score.argsort().argsort().float()  # fault
        return torch.sigmoid((score[:, None] - score[None]) / 0.1).sum(1)

    def loss_of():
        a = rank(model["score"](x)[:, 0])
        order = 1 - F.cosine_similarity(a - a.mean(), goal - goal.mean(), dim=0)
        return order + 0.1 * F.mse_loss(model["scale"](x)[:, 0], x[:, 0])

    return trained(model, loss_of)
