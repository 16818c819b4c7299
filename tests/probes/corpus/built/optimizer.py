"""Faults of the optimizer phase."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.built.births import GH, linear
from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault = corpus.fault


def training(model, optimizer, loss, steps=2, before_step=lambda: None):
    def step():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        before_step()
        optimizer.step()
        return value

    return Program(step, model, [optimizer], steps)


@fault(
    "optimizer",
    "nan inf",
    "addcdiv_ div step",
    "weight bias",
    GH + "afiaka87/glide-finetune/issues/5",
)
def adam_in_half_precision(broken):
    model = linear(4, 2).half()
    x = torch.full((3, 4), 0.5).half()
    optimizer = torch.optim.Adam(model.parameters(), eps=1e-8 if broken else 1e-4)

    def step():
        optimizer.zero_grad()
        loss = model(x).float().mean() * 1e-4
        loss.backward()
        optimizer.step()  # fault
        return loss

    return Program(step, model, optimizer, 2)


@fault("optimizer", "inf", "addcmul_ mul_ step", "?", GH + "AntixK/PyTorch-VAE/issues/16")
def second_moment_overflows(broken):
    model, x = linear(4, 1), torch.ones(3, 4)
    optimizer = torch.optim.Adam(model.parameters())
    scale = 1e21 if broken else 1.0

    def step():
        optimizer.zero_grad()
        loss = (model(x) * scale).mean()
        loss.backward()
        optimizer.step()  # fault
        return loss

    return Program(step, model, [optimizer], 2)


@fault(
    "optimizer",
    "dead inf",
    "linalg_vector_norm _foreach_norm norm square mul pow sum",
    "weight",
    GH + "tracel-ai/burn/issues/5699",
)
def clipping_norm_overflows(broken):
    torch.manual_seed(0)
    model = nn.Linear(4, 1, bias=False)
    x = torch.full((3, 4), 1e21 if broken else 1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def clip():
        (grad,) = (p.grad for p in model.parameters())
        norm = grad.square().sum().sqrt()  # fault
        grad.mul_((1.0 / norm).clamp(max=1.0))

    return training(model, optimizer, lambda: model(x).mean(), before_step=clip)


@fault("optimizer", "nan", "div div_", "weight", GH + "google/flax/issues/1671")
def renormalise_a_zero_row(broken):
    torch.manual_seed(0)
    model = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        model.weight[0] = 0.0
    x = torch.zeros(4, 3)
    x[:, 0] = 0.0 if broken else 1.0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        loss = (model(x) - 1).square().mean()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            size = model.weight.norm(dim=1, keepdim=True)
            model.weight.div_(size)  # fault
        return loss

    return Program(step, model, optimizer, 1)


@fault("optimizer", "nan inf", "div", "weight bias", GH + "karpathy/nanoGPT/pull/691")
def schedule_divides_zero_by_zero(broken):
    model, x = linear(4, 2), torch.rand(3, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    warm, total, count = 1, 1 if broken else 9, [0]

    def rate():
        count[0] += 1
        progress = torch.tensor(float(count[0] - warm)) / (total - warm)  # fault
        return 0.1 * (1 - progress.item())

    def step():
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = rate()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@fault(
    "optimizer", "exploding", "step add_ _foreach_add_", "?", GH + "ray-project/ray/issues/14878"
)
def learning_rate_far_too_large(broken):
    model, x = linear(4, 1), torch.rand(8, 4) * 3
    optimizer = torch.optim.SGD(model.parameters(), lr=5.0 if broken else 0.01)

    def step():
        optimizer.zero_grad()
        loss = (model(x) - 1).square().mean()
        loss.backward()
        optimizer.step()  # fault
        return loss

    return Program(step, model, optimizer, 5)


@fault("optimizer", "severed", "zero_grad", "weight bias", GH + "cloneofsimo/lora/issues/263")
def zero_grad_after_backward(broken):
    model, x = linear(4, 2), torch.rand(3, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        if not broken:
            optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        if broken:
            optimizer.zero_grad()  # fault
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@fault("optimizer", "severed", "zero_grad zero_", "weight bias", GH + "sacmehta/EdgeNets/issues/14")
def zero_grad_in_place_after_backward(broken):
    model, x = linear(4, 2), torch.rand(3, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        if broken:
            optimizer.zero_grad(set_to_none=False)  # fault
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@fault("optimizer", "frozen", "step add_ addcdiv_", "weight", GH + "pytorch/ao/pull/1124")
def bfloat16_weights_do_not_move(broken):
    torch.manual_seed(0)
    model = nn.Linear(8, 4, bias=False)
    with torch.no_grad():
        model.weight.uniform_(0.5, 1.0)
    model = model.to(torch.bfloat16 if broken else torch.float32)
    x = torch.rand(6, 8).to(model.weight.dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0)

    def step():
        optimizer.zero_grad()
        loss = model(x).float().square().mean()
        loss.backward()
        optimizer.step()  # fault
        return loss

    return Program(step, model, optimizer, 3)


@fault("optimizer", "nan inf", "log", "weight bias", GH + "pytorch/pytorch/pull/26512")
def every_step_skipped_by_the_scaler(broken):
    model, x = linear(4, 2), torch.rand(3, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)

    def step():
        optimizer.zero_grad()
        out = model(x)
        inside = out * 0 if broken else out.square() + 1
        loss = F.mse_loss(torch.log(inside) + out, torch.zeros(3, 2))  # fault
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    return Program(step, model, optimizer, 4)
