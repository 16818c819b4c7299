"""The third examination, sixth room: healthy programs of optimizers, graphs and hooks."""

import copy

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

from tests.probes.corpus.case import Corpus, Program
from tests.probes.corpus.third_exam.cuts import trained
from tests.probes.corpus.third_exam.optimizers import batch, two_layers

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy


@healthy("torch.optim.SparseAdam beside AdamW: sparse tables, an empty bag, words nobody used")
def sparse_table_with_an_optimizer_of_its_own(_):
    torch.manual_seed(0)
    bag = nn.EmbeddingBag(20, 6, mode="mean", sparse=True)
    model = nn.ModuleDict({"bag": bag, "net": two_layers()})
    words, starts = torch.tensor([1, 4, 4, 7, 9, 2, 3]), torch.tensor([0, 2, 2, 5])
    y = torch.tensor([0, 1, 2, 1])
    sparse = torch.optim.SparseAdam(list(model["bag"].parameters()), lr=1e-2)
    dense = torch.optim.AdamW(model["net"].parameters(), lr=1e-2)

    def step():
        for optimizer in (sparse, dense):
            optimizer.zero_grad()
        loss = F.cross_entropy(model["net"](model["bag"](words, starts)), y)
        loss.backward()
        for optimizer in (sparse, dense):
            optimizer.step()
        return loss

    return Program(step, model, [sparse, dense], 2)


@healthy("Izmailov et al. 2018: AveragedModel, SWALR, statistics renewed for the average")
def averaged_model_with_renewed_statistics(_):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)
    )
    average = torch.optim.swa_utils.AveragedModel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    schedule = torch.optim.swa_utils.SWALR(optimizer, swa_lr=0.05, anneal_epochs=2)
    x, y = batch()

    def step():
        optimizer.zero_grad(set_to_none=False)
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        nn.utils.clip_grad_value_(model.parameters(), 0.5)
        optimizer.step()
        schedule.step()
        average.update_parameters(model)
        torch.optim.swa_utils.update_bn([x[:6], x[6:]], average)
        return loss

    return Program(step, model, optimizer, 3)


@healthy("EMA weights are copied in for an evaluation, and the trained ones are copied back")
def average_swapped_in_and_out_by_copies(_):
    model, (x, y) = two_layers(), batch()
    average = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.NAdam(model.parameters(), lr=1e-2, decoupled_weight_decay=True)
    best = {"score": float("inf"), "weights": None}

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
                slow.lerp_(fast, 0.1)
        kept = {k: v.clone() for k, v in model.state_dict().items()}
        model.load_state_dict(average.state_dict())
        with torch.no_grad():
            score = F.cross_entropy(model(x), y).item()
        if score < best["score"]:
            best.update(score=score, weights=copy.deepcopy(model.state_dict()))
        model.load_state_dict(kept)
        return loss

    return Program(step, model, optimizer, 3)


@healthy("torch.nn.utils.parametrizations: an orthogonal recurrence, cached over its time steps")
def orthogonal_recurrence_that_is_cached(_):
    torch.manual_seed(0)
    hidden = nn.utils.parametrizations.orthogonal(nn.Linear(5, 5, bias=False))
    model = nn.ModuleDict({"enter": nn.Linear(6, 5), "hidden": hidden, "read": nn.Linear(5, 3)})
    x, y = batch()

    def loss_of():
        h = torch.zeros(12, 5)
        with parametrize.cached():
            for _ in range(6):
                h = torch.tanh(model["enter"](x) + model["hidden"](h))
        return F.cross_entropy(model["read"](h), y)

    return trained(model, loss_of)


@healthy("torch.func: an ensemble whose stacked weights are the ones that are trained")
def ensemble_of_stacked_weights(_):
    members, (x, y) = [two_layers() for _ in range(3)], batch()
    stacked, buffers = torch.func.stack_module_state(members)
    skeleton = copy.deepcopy(members[0]).to("meta")
    optimizer = torch.optim.Adam(stacked.values(), lr=1e-2)

    def one(weights, buffer):
        out = torch.func.functional_call(skeleton, (weights, buffer), (x,))
        return F.cross_entropy(out, y)

    def step():
        optimizer.zero_grad()
        loss = torch.func.vmap(one)(stacked, buffers).sum()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, None, optimizer, 2)


@healthy("torch.func.jacrev and hessian: a penalty on the slope of a network, without a backward")
def penalty_on_a_jacobian_by_functions(_):
    model, (x, y) = two_layers(), batch()

    def loss_of():
        weights = dict(model.named_parameters())
        call = lambda w, t: torch.func.functional_call(model, w, (t,))  # noqa: E731
        slopes = torch.func.vmap(torch.func.jacrev(call, argnums=1), (None, 0))(weights, x)
        return F.cross_entropy(model(x), y) + 0.01 * slopes.square().mean()

    return trained(model, loss_of)


@healthy("Bengio et al. 2013: a straight-through estimator that returns None for its threshold")
def straight_through_function_with_a_none(_):
    class Binarise(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, threshold):
            ctx.save_for_backward(x)
            return (x > threshold).to(x.dtype)

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return grad * (x.abs() < 3), None

    model, (x, y) = two_layers(), batch()
    return trained(
        model, lambda: F.cross_entropy(model[2](Binarise.apply(model[0](x), torch.tensor(0.1))), y)
    )


@healthy("Hooks that only look: forward, full backward, tensor, post-accumulate")
def hooks_that_only_look(_):
    model, (x, y) = two_layers(), batch()
    seen = {}
    for name, module in model.named_children():
        module.register_forward_hook(lambda m, i, o, n=name: seen.update({n: o.std().item()}))
        module.register_full_backward_hook(lambda m, gi, go, n=name: seen.update({n + "g": go[0]}))
    for name, p in model.named_parameters():
        p.register_post_accumulate_grad_hook(lambda q, n=name: seen.update({n: q.grad.abs().max()}))

    def loss_of():
        h = model[1](model[0](x))
        h.register_hook(lambda g: seen.update(h=g.norm()))
        return F.cross_entropy(model[2](h), y)

    return trained(model, loss_of)


@healthy("torch.utils.checkpoint under autocast: bfloat16, dropout, recomputation in backward")
def recomputation_under_autocast(_):
    torch.manual_seed(0)
    blocks = nn.ModuleList(
        nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6), nn.GELU(), nn.Dropout(0.2))
        for _ in range(3)
    )
    model = nn.ModuleDict({"blocks": blocks, "head": nn.Linear(6, 3)})
    x, y = batch()

    def loss_of():
        with torch.autocast("cpu", torch.bfloat16):
            h = x
            for block in model["blocks"]:
                h = h + checkpoint(block, h, use_reentrant=False)
            return F.cross_entropy(model["head"](h).float(), y)

    return trained(model, loss_of)


@healthy("torch.amp: unscaled before clipping, two batches accumulated, one scale for all")
def scaled_clipped_and_accumulated(_):
    model, (x, y) = two_layers(), batch()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)

    def step():
        for half in (slice(0, 6), slice(6, 12)):
            with torch.autocast("cpu", torch.float16):
                out = model(x[half])
            loss = F.cross_entropy(out.float(), y[half]) / 2
            scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0, error_if_nonfinite=True)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return loss

    return Program(step, model, optimizer, 3)


@healthy("A run that is resumed: weights and optimizer state read into new objects before training")
def resumed_into_new_objects(_):
    old, (x, y) = two_layers(), batch()
    first = torch.optim.Adam(old.parameters(), lr=1e-2)
    F.cross_entropy(old(x), y).backward()
    first.step()
    model = two_layers()
    model.load_state_dict(copy.deepcopy(old.state_dict()))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    optimizer.load_state_dict(copy.deepcopy(first.state_dict()))

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)
