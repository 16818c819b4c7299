"""The fourth unseen set, more controls: training loops that look ill."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint

from tests.probes.corpus.built.births import linear
from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
healthy = corpus.healthy


@healthy("Vaswani et al. 2017: rows of padding that attend to nothing, left out of the loss")
def rows_of_padding_without_any_key(_):
    torch.manual_seed(0)
    model, x = nn.ModuleDict({"q": nn.Linear(4, 4), "v": nn.Linear(4, 4)}), torch.rand(2, 3, 4)
    real = torch.tensor([[True, True, True], [True, False, False]])

    def step():
        mask = (real[:, :, None] & real[:, None, :])[:, None]
        q, v = model.q(x)[:, None], model.v(x)[:, None]
        out = F.scaled_dot_product_attention(q, q, v, attn_mask=mask)[:, 0]
        return (out[real] - 1).square().mean()

    return Program(step, model)


@healthy("Chen et al. 2016 and Srivastava et al. 2014: recomputed blocks with dropout")
def recomputed_blocks_with_dropout(_):
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Dropout(0.5)) for _ in range(3)]
    model, x = nn.Sequential(*blocks, nn.Linear(4, 1)), torch.rand(6, 4)

    def step():
        h = x
        for block in model[:3]:
            h = h + checkpoint(block, h, use_reentrant=False)
        return (model[3](h) - 1).square().mean()

    return Program(step, model)


@healthy("Liu, Nocedal 1989: many evaluations in one step")
def quasi_newton_with_a_line_search(_):
    model, x, y = linear(4, 2), torch.rand(8, 4), torch.rand(8, 2)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4, line_search_fn="strong_wolfe")

    def step():
        def closure():
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            loss.backward()
            return loss

        return optimizer.step(closure)

    return Program(step, model, optimizer, 2)


@healthy("Smith 2018: one cycle of the rate, an averaged model, clipped sums of two batches")
def cycle_average_and_accumulation(_):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=4)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    batches = torch.rand(2, 6, 4)

    def step():
        optimizer.zero_grad(set_to_none=True)
        for batch in batches:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                out = model(batch)
            ((out.float() - 1).square().mean() / 2).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        schedule.step()
        average.update_parameters(model)

    return Program(step, model, optimizer, 3)


@healthy("A history that starts as NaN and is read by nanmean alone")
def history_that_starts_as_nan(_):
    model, x = linear(4, 1), torch.rand(6, 4)
    model.register_buffer("history", torch.full((10,), float("nan")))
    optimizer, seen, best = torch.optim.SGD(model.parameters(), lr=0.1), [], [float("inf")]

    def step():
        optimizer.zero_grad()
        loss = (model(x) - 1).square().mean()
        loss.backward()
        optimizer.step()
        model.history[len(seen)] = loss.detach()
        seen.append(model.history.nanmean().item())
        best[0] = min(best[0], loss.item())
        return loss

    return Program(step, model, optimizer, 2)


@healthy("Shazeer et al. 2017: an expert that no token is sent to in this batch")
def expert_without_tokens_in_one_step(_):
    torch.manual_seed(0)
    model = nn.ModuleDict({"gate": nn.Linear(4, 2)})
    model["experts"] = nn.ModuleList([nn.Linear(4, 1), nn.Linear(4, 1)])
    batches, count = torch.randn(2, 6, 4), [0]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with torch.no_grad():
        model.gate.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [-1.0, 0, 0, 0]]))
    batches[0, :, 0], batches[1, :, 0] = batches[0, :, 0].abs() + 1, -batches[1, :, 0].abs() - 1

    def step():
        optimizer.zero_grad()
        x = batches[count[0] % 2]
        count[0] += 1
        chance = torch.softmax(model.gate(x), 1)
        weight, choice = chance.max(1)
        out = torch.zeros(6, 1)
        for number, expert in enumerate(model.experts):
            chosen = (choice == number).nonzero()[:, 0]
            out = out.index_add(0, chosen, weight[chosen, None] * expert(x[chosen]))
        loss = (out - 1).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@healthy("Ho, Salimans 2022: a condition that is dropped for a whole batch")
def condition_dropped_in_one_step(_):
    torch.manual_seed(0)
    model = nn.ModuleDict({"label": nn.Embedding(3, 4), "guess": nn.Linear(4, 4)})
    x, count = torch.rand(6, 4), [0]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def step():
        optimizer.zero_grad()
        hint = model.label(torch.arange(6) % 3) * float(count[0] % 2)
        count[0] += 1
        loss = (torch.tanh(model.guess(x + hint)) - x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@healthy("Bai et al. 2019: a fixed point found without gradients, then one step with them")
def fixed_point_found_without_gradients(_):
    model, x = linear(3, 3, scale=0.5), torch.rand(6, 3)
    read = nn.Linear(3, 1)
    both = nn.ModuleDict({"net": model, "read": read})

    def step():
        with torch.no_grad():
            z = torch.zeros(6, 3)
            while (gap := torch.tanh(model(z) + x) - z).norm() > 1e-4:
                z = z + gap
        z = torch.tanh(model(z) + x)
        return (read(z) - 1).square().mean()

    return Program(step, both)


@healthy("Goodfellow et al. 2015: training on a sign of the input's gradient")
def training_on_adversarial_inputs(_):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), torch.rand(6, 4)
    y, optimizer = torch.arange(6) % 3, torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        moved = x.clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(F.cross_entropy(model(moved), y), moved)
        moved = (x + 0.05 * slope.sign()).clamp(0, 1).detach()
        optimizer.zero_grad()
        loss = F.cross_entropy(model(moved), y)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@healthy("Finn et al. 2017 by torch.func: weights that are built in the step")
def fast_weights_by_functional_call(_):
    torch.manual_seed(0)
    model, x, y = nn.Linear(4, 2), torch.rand(6, 4), torch.rand(6, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def step():
        weights = dict(model.named_parameters())
        inner = F.mse_loss(functional_call(model, weights, (x[:3],)), y[:3])
        slopes = torch.autograd.grad(inner, list(weights.values()), create_graph=True)
        fast = {k: w - 0.1 * s for (k, w), s in zip(weights.items(), slopes, strict=True)}
        optimizer.zero_grad()
        loss = F.mse_loss(functional_call(model, fast, (x[3:],)), y[3:])
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@healthy("Radford et al. 2021: a trained temperature that is held under a hundred")
def temperature_held_under_a_bound(_):
    torch.manual_seed(0)
    model = nn.ModuleDict({"image": nn.Linear(4, 3), "text": nn.Linear(5, 3)})
    model.scale = nn.Parameter(torch.tensor(4.6))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    x, y = torch.rand(6, 4), torch.rand(6, 5)

    def step():
        optimizer.zero_grad()
        one, two = F.normalize(model.image(x), dim=1), F.normalize(model.text(y), dim=1)
        logits = model.scale.exp() * one @ two.t()
        goal = torch.arange(6)
        loss = (F.cross_entropy(logits, goal) + F.cross_entropy(logits.t(), goal)) / 2
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            model.scale.clamp_(0, 4.6052)
        return loss

    return Program(step, model, optimizer, 2)
