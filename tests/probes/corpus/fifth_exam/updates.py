"""The fifth examination, fifth room: scaled losses, natural gradients, decays and warm-ups."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET = "fifth_exam"


@fault(
    SET,
    "inf nan",
    "mul",
    "?",
    "apex, static loss scale: a loss in float16 times 65536",
)
def loss_scaled_in_half_precision(broken):
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4)).half()
    masters = [p.detach().clone().float() for p in model.parameters()]
    optimizer = torch.optim.SGD(masters, lr=0.05, momentum=0.9)
    x, y = torch.randn(8, 6).half(), torch.randint(0, 4, (8,))
    scale = 65536.0 if broken else 128.0

    def step():
        loss = F.nll_loss(model(x).log_softmax(-1), y)
        model.zero_grad()
        scaled = loss * scale  # fault
        scaled.backward()
        for master, p in zip(masters, model.parameters(), strict=True):
            master.grad = p.grad.float() / scale
        optimizer.step()
        with torch.no_grad():
            for master, p in zip(masters, model.parameters(), strict=True):
                p.copy_(master)
        return loss.item()

    return Program(step, model, optimizer, 2)


@fault(
    SET,
    "nan",
    "div",
    "weight bias",
    "Schulman et al. 2015, TRPO: conjugate gradients that go on after they have converged",
)
def conjugate_gradients_past_convergence(broken):
    policy = nn.Linear(3, 2)
    states, actions = torch.randn(20, 3), torch.randint(0, 2, (20,))
    advantages = torch.randn(20)

    def fisher_product(v):
        log_p = policy(states).log_softmax(-1)
        kl = (log_p.detach().exp() * (log_p.detach() - log_p)).sum(-1).mean()
        grads = torch.autograd.grad(kl, list(policy.parameters()), create_graph=True)
        flat = torch.cat([g.reshape(-1) for g in grads])
        hv = torch.autograd.grad((flat * v).sum(), list(policy.parameters()))
        return torch.cat([h.reshape(-1) for h in hv]) + 0.1 * v

    def conjugate_gradients(b, rounds=60, tolerance=0.0 if broken else 1e-10):
        x, r, p = torch.zeros_like(b), b.clone(), b.clone()
        rr = r @ r
        for _ in range(rounds):
            if rr < tolerance:
                break
            ap = fisher_product(p)
            alpha = rr / (p @ ap)  # fault
            x, r = x + alpha * p, r - alpha * ap
            new = r @ r
            p, rr = r + (new / rr) * p, new  # fault
        return x

    def step():
        log_p = policy(states).log_softmax(-1)
        chosen = log_p.gather(1, actions[:, None]).squeeze(1)
        surrogate = ((chosen - chosen.detach()).exp() * advantages).mean()
        policy.zero_grad()
        surrogate.backward()
        g = torch.cat([p.grad.reshape(-1) for p in policy.parameters()])
        direction = conjugate_gradients(g)
        length = (0.02 / (direction @ fisher_product(direction)).clamp(min=1e-8)).sqrt()
        flat = nn.utils.parameters_to_vector(policy.parameters()).detach()
        nn.utils.vector_to_parameters(flat + length * direction, policy.parameters())
        return -surrogate.item()

    return Program(step, policy, (), 1)


@fault(
    SET,
    "exploding inf nan",
    "step mul_ mul _foreach_mul_ AdamW __init__ linear addmm mm square mse_loss",
    "?",
    "AdamW with a decay that was meant for L2: rate times decay is above two",
)
def decay_that_overshoots_zero(broken):
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))
    x, y = torch.randn(32, 4), torch.randn(32, 1)
    decay = 50.0 if broken else 0.05
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=decay)  # fault

    def step():
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()  # fault
        return loss.item()

    return Program(step, model, optimizer, 24)


@fault(
    SET,
    "frozen",
    "step add_ _foreach_add_ addcdiv_ _foreach_addcdiv_ LambdaLR Adam __init__",
    "0.weight 0.bias 2.weight 2.bias",
    "A warm-up that counts in whole numbers: step // warmup is zero for an epoch",
)
def warm_up_with_an_integer_division(broken):
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
    x, y = torch.randn(32, 4), torch.randn(32, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    warm, count = 1000, 0

    def rate():
        return 1e-3 * min(1, count // warm if broken else (count + 1) / warm)

    def step():
        nonlocal count
        for group in optimizer.param_groups:
            group["lr"] = rate()  # fault
        count += 1
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()  # fault
        return loss.item()

    return Program(step, model, optimizer, 4)


@fault(
    SET,
    "nan",
    "div",
    "0.weight 0.bias 2.weight 2.bias",
    "Pearson loss of a head that starts at zero: nothing varies",
)
def pearson_of_a_head_that_starts_at_zero(broken):
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))
    if broken:
        nn.init.zeros_(model[2].weight)
        nn.init.zeros_(model[2].bias)
    x, y = torch.randn(16, 6), torch.randn(16)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def pearson(a, b):
        a, b = a - a.mean(), b - b.mean()
        return (a * b).sum() / (a.square().sum() * b.square().sum()).sqrt()  # fault

    def step():
        optimizer.zero_grad()
        loss = 1 - pearson(model(x).squeeze(-1), y)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@fault(
    SET,
    "inf nan",
    "pow square mul",
    "?",
    "Quadratic units, six layers of them, and inputs in their own units",
)
def quadratic_units_in_a_deep_stack(broken):
    class Quadratic(nn.Module):
        def __init__(self, d):
            super().__init__()
            self.a, self.norm = nn.Linear(d, d), nn.Identity() if broken else nn.LayerNorm(d)

        def forward(self, x):
            return self.norm(self.a(x).pow(2))  # fault

    model = nn.Sequential(*[Quadratic(5) for _ in range(6)], nn.Linear(5, 1))
    x, y = 40 * torch.randn(12, 5), torch.randn(12, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step():
        optimizer.zero_grad()
        loss = F.smooth_l1_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return Program(step, model, optimizer, 1)
