"""The fifth examination, eighth room: healthy programs of vision, agents and rankings."""

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import nn

from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy


@healthy("He et al. 2022: a masked autoencoder, its positions are fixed, most patches unseen")
def masked_autoencoder_with_fixed_positions(_):
    class MAE(nn.Module):
        def __init__(self, n=9, d=8):
            super().__init__()
            self.patch, self.back = nn.Linear(6, d), nn.Linear(d, 6)
            self.position = nn.Parameter(torch.randn(n, d), requires_grad=False)
            self.mask_token = nn.Parameter(torch.zeros(d))
            self.encoder = nn.TransformerEncoderLayer(d, 2, 16, 0.0, batch_first=True)
            self.decoder = nn.TransformerEncoderLayer(d, 2, 16, 0.0, batch_first=True)

        def forward(self, x):
            b, n, _ = x.shape
            order = torch.rand(b, n).argsort(1)
            keep = order[:, :3]
            h = self.patch(x) + self.position
            seen = self.encoder(h.gather(1, keep[..., None].expand(-1, -1, 8)))
            full = torch.cat([seen, self.mask_token.expand(b, n - 3, 8)], 1)
            full = full.gather(1, order.argsort(1)[..., None].expand(-1, -1, 8)) + self.position
            mask = torch.ones(b, n).scatter(1, keep, 0.0)
            error = (self.back(self.decoder(full)) - x).square().mean(-1)
            return (error * mask).sum() / mask.sum()

    model, x = MAE(), torch.randn(4, 9, 6)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, betas=(0.9, 0.95))

    def step():
        optimizer.zero_grad()
        loss = model(x)
        loss.backward()
        optimizer.step()
        return loss.item()

    return Program(step, model, optimizer, 2)


@healthy("Mildenhall et al. 2020: coarse weights choose the fine samples without a gradient")
def fine_samples_from_detached_weights(_):
    class Field(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Linear(1, 16), nn.ReLU(), nn.Linear(16, 4))

    model = nn.ModuleDict({"coarse": Field(), "fine": Field()})
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)
    truth = torch.rand(6, 3)

    def render(field, z):
        raw = field(z[..., None])
        colour, sigma = raw[..., :3].sigmoid(), F.softplus(raw[..., 3])
        gaps = torch.cat([z[:, 1:] - z[:, :-1], torch.full((6, 1), 1e10)], -1)
        alpha = 1 - torch.exp(-sigma * gaps)
        clear = torch.cat([torch.ones(6, 1), (1 - alpha + 1e-10).cumprod(-1)[:, :-1]], -1)
        weights = alpha * clear
        return (weights[..., None] * colour).sum(1), weights

    def step():
        z = torch.linspace(1, 4, 8).expand(6, 8) + 0.1 * torch.rand(6, 8)
        coarse, weights = render(model["coarse"], z)
        cdf = (weights + 1e-5).cumsum(-1)
        cdf = (cdf / cdf[:, -1:]).detach()
        where = torch.searchsorted(cdf.contiguous(), torch.rand(6, 8)).clamp(max=7)
        extra = z.gather(1, where) + 0.05 * torch.rand(6, 8)
        fine, _ = render(model["fine"], torch.cat([z, extra], -1).sort(-1).values)
        loss = F.mse_loss(coarse, truth) + F.mse_loss(fine, truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item(), -10 * torch.log10(F.mse_loss(fine.detach(), truth))

    return Program(step, model, optimizer, 2)


@healthy("Teed, Deng 2020, RAFT: coordinates are detached before every refinement")
def flow_refined_from_detached_coordinates(_):
    class Raft(nn.Module):
        def __init__(self):
            super().__init__()
            self.features, self.cell = nn.Linear(4, 6), nn.GRUCell(8, 6)
            self.delta = nn.Linear(6, 2)

        def forward(self, a, b, rounds=3):
            u, v = self.features(a), self.features(b)
            net, flow, out = torch.tanh(u), torch.zeros(len(a), 2), []
            for _ in range(rounds):
                flow = flow.detach()
                net = self.cell(torch.cat([u * v, flow], -1), net)
                flow = flow + self.delta(net)
                out.append(flow)
            return out

    model, (a, b), truth = Raft(), torch.randn(2, 10, 4), torch.randn(10, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-4, eps=1e-8)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-4, 20)

    def step():
        guesses = model(a, b)
        loss = sum(0.8 ** (2 - i) * (g - truth).abs().mean() for i, g in enumerate(guesses))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        return loss.item()

    return Program(step, model, optimizer, 3)


@healthy("Kapturowski et al. 2019, R2D2: the recurrent state is warmed up without gradients")
def burn_in_before_the_unroll(_):
    class Q(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.LSTM(4, 8, batch_first=True), nn.Linear(8, 3)

        def forward(self, x, state=None):
            h, state = self.rnn(x, state)
            return self.head(h), state

    online, target = Q(), Q()
    target.load_state_dict(online.state_dict())
    target.requires_grad_(False)
    optimizer = torch.optim.Adam(online.parameters(), lr=1e-3, eps=1e-3)
    seen, actions = torch.randn(5, 12, 4), torch.randint(0, 3, (5, 12))
    rewards, done = torch.randn(5, 12), (torch.rand(5, 12) > 0.8)
    legal = torch.rand(5, 12, 3) > 0.3
    legal[..., 0] = True
    legal[done] = False  # nothing may be done after the end

    def step():
        with torch.no_grad():
            _, warm = online(seen[:, :4])
            _, other = target(seen[:, :4])
            after, _ = target(seen[:, 4:], other)
            best = after.masked_fill(~legal[:, 4:], float("-inf")).amax(-1)
            best = torch.where(done[:, 4:], torch.zeros(()), best)
            goal = rewards[:, 4:-1] + 0.99 * best[:, 1:]
        q, _ = online(seen[:, 4:], warm)
        chosen = q.gather(-1, actions[:, 4:, None]).squeeze(-1)[:, :-1]
        loss = F.smooth_l1_loss(chosen, goal)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(online.parameters(), 40.0)
        optimizer.step()
        with torch.no_grad():
            for p, q in zip(target.parameters(), online.parameters(), strict=True):
                p.lerp_(q, 0.005)
        return loss.item()

    return Program(step, nn.ModuleDict({"online": online, "target": target}), optimizer, 2)


@healthy("Xia et al. 2008: lists of unequal length ranked by Plackett and Luce, padded with -inf")
def lists_ranked_by_plackett_and_luce(_):
    model = nn.Sequential(nn.Linear(6, 10), nn.ELU(), nn.Linear(10, 1))
    x, relevance = torch.randn(4, 7, 6), torch.rand(4, 7)
    valid = torch.arange(7) < torch.tensor([[7], [5], [3], [1]])
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.05)

    def step():
        scores = model(x).squeeze(-1).masked_fill(~valid, float("-inf"))
        order = relevance.masked_fill(~valid, -1.0).argsort(1, descending=True)
        ranked = scores.gather(1, order)
        rest = ranked.flip(1).logcumsumexp(1).flip(1)
        kept = valid.gather(1, order)
        safe = torch.where(kept, ranked, 0.0)
        terms = torch.where(kept, rest, 0.0) - safe
        loss = terms.sum() / kept.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return Program(step, model, optimizer, 2)


@healthy("Carion et al. 2020, DETR: the matching is found in numpy, the losses are not")
def matching_by_a_detached_cost(_):
    class Detr(nn.Module):
        def __init__(self):
            super().__init__()
            self.queries = nn.Embedding(6, 8)
            self.layers = nn.ModuleList(
                nn.TransformerDecoderLayer(8, 2, 16, 0.0, batch_first=True) for _ in range(2)
            )
            self.classes, self.boxes = nn.Linear(8, 4), nn.Linear(8, 4)

        def forward(self, memory):
            h, outputs = self.queries.weight.expand(len(memory), -1, -1), []
            for layer in self.layers:
                h = layer(h, memory)
                outputs.append((self.classes(h), self.boxes(h).sigmoid()))
            return outputs

    model, memory = Detr(), torch.randn(2, 5, 8)
    labels = [torch.tensor([0, 2]), torch.tensor([1])]
    truth = [torch.rand(2, 4), torch.rand(1, 4)]
    weight = torch.tensor([1.0, 1.0, 1.0, 0.1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    @torch.no_grad()
    def match(scores, boxes, k):
        cost = torch.cdist(boxes[k], truth[k], p=1) - scores[k].softmax(-1)[:, labels[k]]
        return [torch.as_tensor(i) for i in linear_sum_assignment(cost.numpy())]

    def step():
        loss = 0.0
        for scores, boxes in model(memory):
            goal = torch.full(scores.shape[:2], 3)
            for k in range(2):
                rows, columns = match(scores, boxes, k)
                goal[k, rows] = labels[k][columns]
                loss = loss + F.l1_loss(boxes[k, rows], truth[k][columns])
            loss = loss + F.cross_entropy(scores.transpose(1, 2), goal, weight)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        return loss.item()

    return Program(step, model, optimizer, 2)
