"""The fourth examination, fourth room: functions, hooks, optimizers and gradients by hand."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from tests.probes.corpus.case import Corpus, Program
from tests.probes.corpus.fourth_exam.built import learn
from tests.probes.corpus.fourth_exam.leaves import data, net

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy


@healthy("Gomez et al. 2017: a reversible block that rebuilds its input inside the backward")
def block_that_rebuilds_its_input(_):
    class Couple(torch.autograd.Function):
        @staticmethod
        def forward(ctx, a, b, f, g, *weights):
            ctx.f, ctx.g, ctx.count = f, g, len(weights)
            with torch.no_grad():
                c = a + f(b)
                d = b + g(c)
            ctx.save_for_backward(c, d)
            return c, d

        @staticmethod
        def backward(ctx, gc, gd):
            c, d = ctx.saved_tensors
            with torch.enable_grad():
                c1 = c.detach().requires_grad_()
                out = ctx.g(c1)
                wg = list(ctx.g.parameters())
                slope, *by_g = torch.autograd.grad(out, [c1, *wg], gd)
                b1 = (d - out).detach().requires_grad_()
                gc = gc + slope
                wf = list(ctx.f.parameters())
                slope, *by_f = torch.autograd.grad(ctx.f(b1), [b1, *wf], gc)
            return gc, gd + slope, None, None, *by_f, *by_g

    torch.manual_seed(0)
    f = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    g = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    model = nn.ModuleDict({"f": f, "g": g, "enter": nn.Linear(6, 6), "read": nn.Linear(6, 3)})
    optimizer, (x, y) = torch.optim.Adam(model.parameters(), lr=1e-2), data()

    def step():
        optimizer.zero_grad()
        a, b = model["enter"](x).chunk(2, 1)
        c, d = Couple.apply(a, b, f, g, *f.parameters(), *g.parameters())
        loss = F.cross_entropy(model["read"](torch.cat([c, d], 1)), y)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@healthy("Hsu et al. 2024: a cross entropy by chunks that computes its gradients in the forward")
def cross_entropy_with_gradients_in_the_forward(_):
    class Fused(torch.autograd.Function):
        @staticmethod
        def forward(ctx, h, weight, y, chunk=4):
            slope_h, slope_w = torch.zeros_like(h), torch.zeros_like(weight)
            loss = torch.zeros(())
            for i in range(0, len(h), chunk):
                part, target = h[i : i + chunk], y[i : i + chunk]
                logits = part @ weight.t()
                norm = logits.logsumexp(1)
                loss += (norm - logits.gather(1, target[:, None])[:, 0]).sum()
                p = (logits - norm[:, None]).exp_()
                p[torch.arange(len(p)), target] -= 1.0
                slope_h[i : i + chunk] = p @ weight / len(h)
                slope_w += p.t() @ part / len(h)
            ctx.save_for_backward(slope_h, slope_w)
            wrong = (h @ weight.t()).argmax(1).ne(y)
            ctx.mark_non_differentiable(wrong)
            return loss / len(h), wrong

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, g, _wrong):
            slope_h, slope_w = ctx.saved_tensors
            return slope_h * g, slope_w * g, None, None

    torch.manual_seed(0)
    model = nn.ModuleDict({"body": nn.Linear(6, 8), "head": nn.Linear(8, 3, bias=False)})
    optimizer, (x, y) = torch.optim.AdamW(model.parameters(), lr=1e-2), data()

    def step():
        optimizer.zero_grad()
        h = torch.tanh(model["body"](x))
        loss, wrong = Fused.apply(h, model["head"].weight, y)
        loss.backward()
        optimizer.step()
        return loss.detach(), wrong.float().mean().item()

    return Program(step, model, optimizer, 3)


@healthy("Hubara et al. 2016: signs forward, a window of one backward, so some gradients are zero")
def signs_with_a_window_backward(_):
    class Sign(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return torch.where(x >= 0, 1.0, -1.0)

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * (x.abs() <= 1)

    class Binary(nn.Linear):
        def forward(self, x):
            return F.linear(x, Sign.apply(self.weight), self.bias)

    torch.manual_seed(0)
    model = nn.Sequential(
        Binary(6, 8, bias=False), nn.BatchNorm1d(8), nn.Hardtanh(), nn.Linear(8, 3)
    )
    (x, y), optimizer = data(), torch.optim.Adam(model.parameters(), lr=1e-2)
    return Program(lambda: learn(model, x, y, optimizer), model, optimizer, 3)


@healthy("Lv et al. 2023: each parameter is updated and its gradient dropped inside the backward")
def update_inside_the_backward(_):
    model, (x, y) = net(), data()
    own = {p: torch.optim.Adam([p], lr=1e-2, foreach=False) for p in model.parameters()}

    def update(p):
        own[p].step()
        own[p].zero_grad()

    for p in model.parameters():
        p.register_post_accumulate_grad_hook(update)

    def step():
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss.detach()

    return Program(step, model, (), 3)


@healthy("Both kinds of checkpointing in one net, gradients gathered over two traced steps")
def both_kinds_of_checkpointing(_):
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {
            "enter": nn.Linear(6, 8),
            "old": nn.Sequential(*[nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(4)]),
            "new": nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Dropout(0.1)),
            "read": nn.Linear(8, 3),
        }
    )
    optimizer, (x, y) = torch.optim.AdamW(model.parameters(), lr=1e-2), data()
    count = [0]

    def step():
        part = slice(0, 6) if count[0] % 2 == 0 else slice(6, 12)
        h = model["enter"](x[part])
        h = checkpoint_sequential(model["old"], 2, h, use_reentrant=True)
        h = checkpoint(model["new"], h, use_reentrant=False)
        loss = F.cross_entropy(model["read"](h), y[part]) / 2
        loss.backward()
        count[0] += 1
        if count[0] % 2 == 0:
            optimizer.step()
            optimizer.zero_grad()
        return loss.item()

    return Program(step, model, optimizer, 4)


@healthy("Hooks of every kind: scaled, clamped and masked gradients, features kept, norms logged")
def hooks_of_every_kind(_):
    model, (x, y) = net(act=nn.ReLU), data()
    log, kept = [], {}
    mask = torch.ones(8, 6)
    mask[:, 2] = 0  # a column that is held on purpose
    model[0].weight.register_hook(lambda g: g * mask)
    model[2].bias.register_hook(lambda g: g.clamp(-0.5, 0.5))
    model[0].register_full_backward_hook(lambda m, gi, go: log.append(go[0].norm().item()))
    model[1].register_full_backward_pre_hook(lambda m, go: (go[0] * 0.5,))
    model[1].register_forward_hook(lambda m, i, o: kept.update(h=o.detach()))
    model[2].register_forward_pre_hook(lambda m, i: (i[0].nan_to_num(),))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        out = model(x)
        out.register_hook(lambda g: log.append(g.abs().max().item()))
        out.retain_grad()
        loss = F.cross_entropy(out, y)
        loss.backward()
        log.append(out.grad.norm().item() + kept["h"].mean().item())
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 3)


@healthy("Chen et al. 2023: Lion by hand, the sign of an average, decay beside it")
def lion_by_hand(_):
    model, (x, y) = net(), data()
    momenta = {}

    @torch.no_grad()
    def update(lr=1e-2, b1=0.9, b2=0.99, decay=0.01):
        for p in model.parameters():
            m = momenta.setdefault(p, torch.zeros_like(p))
            p.mul_(1 - lr * decay)
            p.add_((b1 * m + (1 - b1) * p.grad).sign_(), alpha=-lr)
            m.lerp_(p.grad, 1 - b2)
            p.grad = None

    def step():
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        update()
        return loss

    return Program(step, model, (), 4)


@healthy(
    "Yao et al. 2021: a diagonal of the curvature by random signs, kept, the step divided by it"
)
def curvature_by_random_signs(_):
    model, (x, y) = net(), data()
    parameters = list(model.parameters())
    square = [torch.zeros_like(p) for p in parameters]
    count = [0]

    def step():
        model.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward(create_graph=True)
        grads = [p.grad for p in parameters]
        signs = [torch.randint_like(p, 2) * 2 - 1 for p in parameters]
        hv = torch.autograd.grad(grads, parameters, signs, only_inputs=True, retain_graph=False)
        count[0] += 1
        with torch.no_grad():
            for p, g, h, z, v in zip(parameters, grads, hv, signs, square, strict=True):
                v.mul_(0.9).addcmul_(h * z, h * z, value=0.1)
                p -= 0.05 * g / ((v / (1 - 0.9 ** count[0])).sqrt() + 1e-2)
                p.grad = None
        return loss.item()

    return Program(step, model, (), 3)


@healthy("Chen et al. 2018: weights of tasks learnt from the norms of their gradients, renormed")
def weights_of_tasks_from_gradient_norms(_):
    torch.manual_seed(0)
    body, one, two = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 1)
    weigh = nn.Parameter(torch.ones(2))
    model = nn.ModuleDict({"body": body, "one": one, "two": two})
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    other, (x, y), first = torch.optim.Adam([weigh], lr=1e-2), data(), []

    def step():
        h = torch.tanh(body(x))
        losses = torch.stack(
            [F.cross_entropy(one(h), y), 5 * two(h)[:, 0].sub(x[:, 0]).square().mean()]
        )
        if not first:
            first.append(losses.detach())
        optimizer.zero_grad()
        (weigh * losses).sum().backward(retain_graph=True)
        weigh.grad.zero_()
        norms = []
        for i in range(2):
            g = torch.autograd.grad(losses[i], body.weight, retain_graph=True, create_graph=True)
            norms.append(torch.norm(weigh[i] * g[0]))
        norms = torch.stack(norms)
        ratio = losses.detach() / first[0]
        wanted = norms.mean().detach() * (ratio / ratio.mean()) ** 1.5
        weigh.grad = torch.autograd.grad((norms - wanted).abs().sum(), weigh)[0]
        other.step()
        optimizer.step()
        with torch.no_grad():
            weigh.mul_(2 / weigh.sum())
        return losses.sum().item()

    models = {"net": model, "weigh": nn.ParameterList([weigh])}
    return Program(step, models, [optimizer, other], 3)


@healthy("Behler, Parrinello 2007 with a rectified net: energies and the forces, both fitted")
def energies_and_forces_of_a_rectified_net(_):
    model = net(out=1, act=nn.ReLU)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    places = data()[0] * 0.5
    energy, force = places.square().sum(1, keepdim=True), -2 * places

    def step():
        optimizer.zero_grad()
        r = places.clone().requires_grad_(True)
        e = model(r)
        f = -torch.autograd.grad(e.sum(), r, create_graph=True)[0]
        loss = F.mse_loss(e, energy) + 10 * F.mse_loss(f, force)
        loss.backward()
        optimizer.step()
        return {"loss": loss, "mae": (f - force).abs().mean().item()}

    return Program(step, model, optimizer, 3)


@healthy("Koh, Liang 2017 beside training: slopes of single samples and a product for the log")
def slopes_of_samples_for_the_log(_):
    model, (x, y) = net(), data()
    optimizer, log = torch.optim.SGD(model.parameters(), lr=0.1), []
    last = list(model[2].parameters())

    def step():
        model.eval()
        test = torch.autograd.grad(F.cross_entropy(model(x[:2]), y[:2]), last)
        train = torch.autograd.grad(F.cross_entropy(model(x), y), last, create_graph=True)
        inner = sum((a * b).sum() for a, b in zip(train, test, strict=True))
        log.append([h.norm().item() for h in torch.autograd.grad(inner, last)])
        each = [
            torch.autograd.grad(F.cross_entropy(model(a[None]), b[None]), last)
            for a, b in zip(x, y, strict=True)
        ]
        log.append([sum((a * b).sum().item() for a, b in zip(g, test, strict=True)) for g in each])
        model.train()
        return learn(model, x, y, optimizer)

    return Program(step, model, optimizer, 2)
