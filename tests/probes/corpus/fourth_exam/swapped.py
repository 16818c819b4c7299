"""The fourth examination, third room: weights that are swapped, averaged, clamped, restored."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus, Program
from tests.probes.corpus.fourth_exam.built import learn
from tests.probes.corpus.fourth_exam.leaves import data, net

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy


@healthy("tf.train.ExponentialMovingAverage in PyTorch: shadow applied by .data, then restored")
def shadow_applied_and_taken_back(_):
    model, (x, y) = net(), data()
    shadow = {n: p.data.clone() for n, p in model.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def step():
        loss = learn(model, x, y, optimizer)
        for n, p in model.named_parameters():
            shadow[n] = 0.9 * shadow[n] + 0.1 * p.data
        backup = {}
        for n, p in model.named_parameters():
            backup[n], p.data = p.data, shadow[n]
        model.eval()
        with torch.no_grad():
            F.cross_entropy(model(x), y).item()
        model.train()
        for n, p in model.named_parameters():
            p.data = backup[n]
        return loss

    return Program(step, model, optimizer, 3)


@healthy("Nichol et al. 2018: Reptile, the weights moved a part of the way to the adapted ones")
def weights_moved_part_of_the_way(_):
    model, (x, y) = net(), data()
    outer = 0.5

    def step():
        before = copy.deepcopy(model.state_dict())
        inner = torch.optim.SGD(model.parameters(), lr=0.1)
        task = torch.randint(0, 12, (8,))
        for _ in range(3):
            loss = learn(model, x[task], y[task], inner)
        after = model.state_dict()
        model.load_state_dict({n: before[n] + (after[n] - before[n]) * outer for n in before})
        return loss

    return Program(step, model, (), 3)


@healthy("Jaderberg et al. 2017: a population, the worst takes the weights of the best")
def worst_takes_the_weights_of_the_best(_):
    x, y = data()
    models = nn.ModuleList([net(), net(), net()])
    for model in models[1:]:
        for p in model.parameters():
            p.data.add_(0.1 * torch.randn_like(p))
    optimizers = [torch.optim.Adam(m.parameters(), lr=10**-k) for k, m in enumerate(models, 1)]

    def step():
        losses = [learn(m, x, y, o) for m, o in zip(models, optimizers, strict=True)]
        order = torch.stack(losses).argsort()
        best, worst = int(order[0]), int(order[-1])
        models[worst].load_state_dict(models[best].state_dict())
        optimizers[worst].load_state_dict(copy.deepcopy(optimizers[best].state_dict()))
        for group in optimizers[worst].param_groups:
            group["lr"] *= 0.8 if torch.rand(()) < 0.5 else 1.2
        return losses[best]

    return Program(step, models, optimizers, 3)


@healthy("Chowdhery et al. 2022: back to the last checkpoint when the loss jumps, batch skipped")
def back_to_the_checkpoint_on_a_jump(_):
    model, (x, y) = net(), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    state = {"n": 0, "last": None, "saved": None}

    def step():
        state["n"] += 1
        seen = -60 * x if state["n"] == 3 else x
        loss = F.cross_entropy(model(seen), y)
        if state["last"] is not None and loss.item() > 1.3 * state["last"]:
            model.load_state_dict(state["saved"][0])
            optimizer.load_state_dict(state["saved"][1])
            return state["last"]
        state["last"] = loss.item()
        state["saved"] = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return Program(step, model, optimizer, 5)


@healthy("Arjovsky et al. 2017: a critic clamped to a box, five steps for one of the generator")
def critic_clamped_to_a_box(_):
    torch.manual_seed(0)
    maker = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    critic = nn.Sequential(nn.Linear(2, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
    om = torch.optim.RMSprop(maker.parameters(), lr=5e-4)
    oc = torch.optim.RMSprop(critic.parameters(), lr=5e-3)

    def step():
        critic.requires_grad_(True)
        for _ in range(5):
            for p in critic.parameters():
                p.data.clamp_(-0.01, 0.01)
            real = torch.randn(16, 2) * 0.5 + 2
            with torch.no_grad():
                fake = maker(torch.randn(16, 3))
            critic.zero_grad()
            gap = critic(fake).mean() - critic(real).mean()
            gap.backward()
            oc.step()
        critic.requires_grad_(False)
        maker.zero_grad()
        loss = -critic(maker(torch.randn(16, 3))).mean()
        loss.backward()
        om.step()
        return {"loss": loss.detach(), "gap": -gap.detach()}

    return Program(step, {"maker": maker, "critic": critic}, [om, oc], 2)


@healthy("Lee, Seung 1999 by projected gradient: factors clamped at zero, many entries stay there")
def factors_clamped_at_zero(_):
    torch.manual_seed(0)
    counts = torch.rand(10, 3) @ torch.rand(3, 8)
    counts[:4, :4] = 0
    w, h = nn.Parameter(torch.rand(10, 4)), nn.Parameter(torch.rand(4, 8))
    model = nn.ParameterDict({"w": w, "h": h})
    optimizer = torch.optim.SGD([w, h], lr=0.05)

    def step():
        optimizer.zero_grad()
        loss = (counts - w @ h).square().sum() + 0.1 * (w.sum() + h.sum())
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for p in (w, h):
                p.clamp_(min=0.0)
        return loss

    return Program(step, model, optimizer, 10)


@healthy("Cooper (2022): a constrained problem, ascent on a multiplier that stays above zero")
def ascent_on_a_multiplier(_):
    model, (x, y) = net(), data()
    multiplier = nn.Parameter(torch.tensor([0.0, 0.3]))
    primal = torch.optim.Adam(model.parameters(), lr=1e-2)
    dual = torch.optim.SGD([multiplier], lr=0.1, maximize=True)

    def step():
        primal.zero_grad()
        dual.zero_grad()
        size = sum(p.square().sum() for p in model.parameters())
        share = model(x).softmax(1)[:, 0].mean()
        defect = torch.stack([size - 50.0, 0.4 - share])
        loss = F.cross_entropy(model(x), y) + (multiplier * defect).sum()
        loss.backward()
        primal.step()
        dual.step()
        with torch.no_grad():
            multiplier.clamp_(min=0)
        return loss

    return Program(step, {"net": model, "bound": nn.ParameterList([multiplier])}, (primal, dual), 4)


@healthy("Marquardt 1963: a damped step, refused and taken back when the error grows")
def damped_step_that_is_refused(_):
    torch.manual_seed(0)
    curve = nn.ParameterDict({"a": torch.tensor(1.0), "k": torch.tensor(0.1)})
    t = torch.linspace(0, 4, 20)
    seen = 2.5 * torch.exp(-1.3 * t) + 0.02 * torch.randn(20)
    state = {"damp": 1e-4}

    def residual(a, k):
        return a * torch.exp(-k * t) - seen

    def step():
        a, k = curve["a"], curve["k"]
        ja, jk = torch.autograd.functional.jacobian(residual, (a.detach(), k.detach()))
        j = torch.stack([ja, jk], 1)
        with torch.no_grad():
            r = residual(a, k)
            move = torch.linalg.solve(j.T @ j + state["damp"] * torch.eye(2), -j.T @ r)
            old = [p.clone() for p in (a, k)]
            a += move[0]
            k += move[1]
            if residual(a, k).square().sum() > r.square().sum():
                a.copy_(old[0])
                k.copy_(old[1])
                state["damp"] *= 10
            else:
                state["damp"] /= 3
        loss = residual(a, k).square().sum()
        loss.backward()
        state["slope"] = (a.grad.abs() + k.grad.abs()).item()
        a.grad = k.grad = None
        return loss

    return Program(step, curve, (), 6)


@healthy("Johnson, Zhang 2013: variance reduced with the gradients of a snapshot of the weights")
def gradients_of_a_snapshot(_):
    model, (x, y) = net(), data()
    snapshot = copy.deepcopy(model)
    full = [torch.zeros_like(p) for p in model.parameters()]
    count = [0]

    def grads(m, a, b):
        return torch.autograd.grad(F.cross_entropy(m(a), b), list(m.parameters()))

    def step():
        if count[0] % 3 == 0:
            snapshot.load_state_dict(model.state_dict())
            full[:] = grads(snapshot, x, y)
        count[0] += 1
        rows = torch.randint(0, 12, (4,))
        now, then = grads(model, x[rows], y[rows]), grads(snapshot, x[rows], y[rows])
        with torch.no_grad():
            for p, a, b, c in zip(model.parameters(), now, then, full, strict=True):
                p -= 0.1 * (a - b + c)
        return F.cross_entropy(model(x), y).item()

    return Program(step, model, (), 4)


@healthy("Malladi et al. 2023: two looks along a seeded noise, walked there and back in place")
def two_looks_along_a_seeded_noise(_):
    model, (x, y) = net(), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    count = [0]

    @torch.no_grad()
    def walk(far):
        torch.manual_seed(count[0])
        for p in model.parameters():
            p.data.add_(far * 1e-2 * torch.randn_like(p))

    def step():
        count[0] += 1
        with torch.no_grad():
            walk(1)
            up = F.cross_entropy(model(x), y)
            walk(-2)
            down = F.cross_entropy(model(x), y)
            walk(1)
        slope = (up - down).item() / 2e-2
        torch.manual_seed(count[0])
        for p in model.parameters():
            p.grad = slope * torch.randn_like(p)
        optimizer.step()
        optimizer.zero_grad()
        return up

    return Program(step, model, optimizer, 3)


@healthy("McMahan et al. 2017: clients train copies, their weights are averaged by their sizes")
def clients_averaged_by_their_sizes(_):
    server, (x, y) = net(), data()
    parts = [slice(0, 3), slice(3, 7), slice(7, 12)]

    def step():
        states, losses = [], []
        for part in parts:
            client = copy.deepcopy(server)
            optimizer = torch.optim.SGD(client.parameters(), lr=0.1, momentum=0.9)
            for _ in range(2):
                losses.append(learn(client, x[part], y[part], optimizer))
            states.append({k: v.clone() for k, v in client.state_dict().items()})
        sizes = [part.stop - part.start for part in parts]
        mean = {
            k: sum(n * s[k] for n, s in zip(sizes, states, strict=True)) / 12 for k in states[0]
        }
        server.load_state_dict(mean)
        return torch.stack(losses).mean()

    return Program(step, server, (), 2)


@healthy("Lillicrap et al. 2016: two targets follow by small steps, actor and critic in turn")
def targets_that_follow_by_small_steps(_):
    torch.manual_seed(0)
    actor = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1), nn.Tanh())
    critic = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1))
    actor_t, critic_t = copy.deepcopy(actor), copy.deepcopy(critic)
    oa = torch.optim.Adam(actor.parameters(), lr=1e-3)
    oc = torch.optim.Adam(critic.parameters(), lr=1e-2, weight_decay=1e-2)
    s, a, r = torch.randn(16, 4), torch.rand(16, 1) * 2 - 1, torch.randn(16, 1)
    following, done = torch.randn(16, 4), (torch.rand(16, 1) < 0.2).float()

    def step():
        q_next = critic_t(torch.cat([following, actor_t(following)], 1))
        wanted = r + 0.99 * (1 - done) * q_next.detach()
        critic.zero_grad()
        value = F.mse_loss(critic(torch.cat([s, a], 1)), wanted)
        value.backward()
        oc.step()
        actor.zero_grad()
        policy = -critic(torch.cat([s, actor(s)], 1)).mean()
        policy.backward()
        oa.step()
        for new, old in ((actor_t, actor), (critic_t, critic)):
            for p, q in zip(new.parameters(), old.parameters(), strict=True):
                p.data.copy_(p.data * 0.995 + q.data * 0.005)
        return value + policy

    models = {"actor": actor, "critic": critic, "actor_target": actor_t, "critic_target": critic_t}
    return Program(step, models, (oa, oc), 3)
