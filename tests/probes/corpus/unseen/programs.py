"""A fourth set of unseen programs: bad values born in losses, layers, distances and graphs."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.built.births import ALL, GH, linear
from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault = corpus.fault
SET = "unseen"


@fault(SET, "nan", "div", "temperature", GH + "NVIDIA-NeMo/Automodel/pull/3850")
def temperature_divides_a_padded_candidate(broken):
    model, x = linear(4, 3), torch.rand(5, 4)
    model.temperature = nn.Parameter(torch.tensor(0.5))
    padded = torch.zeros(5, 4, dtype=torch.bool)
    padded[1:, 3] = True
    keys = torch.randn(4, 3)

    def step():
        scores = F.normalize(model(x), dim=1) @ F.normalize(keys, dim=1).t()
        if broken:
            scores = scores.masked_fill(padded, float("-inf"))
            scores = scores / model.temperature  # fault
        else:
            scores = (scores / model.temperature).masked_fill(padded, float("-inf"))
        return F.cross_entropy(scores, torch.zeros(5, dtype=torch.long))

    return Program(step, model)


@fault(
    SET,
    "nan",
    "log",
    "",
    GH + "philtabor/Actor-Critic-Methods-Paper-To-Code/issues/7",
)
def squashed_action_wider_than_one(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"mean": nn.Linear(4, 2), "log_std": nn.Linear(4, 2)})
    x, limit = torch.rand(6, 4), 2.0

    def step():
        policy = torch.distributions.Normal(model.mean(x) + 1, model.log_std(x).exp())
        raw = policy.rsample()
        action = torch.tanh(raw) * limit
        squashed = action if broken else torch.tanh(raw)
        correction = torch.log(1 - squashed.pow(2) + 1e-6)  # fault
        chance = (policy.log_prob(raw) - correction).sum(1)
        return (0.2 * chance + action.square().sum(1)).mean()

    return Program(step, model)


@fault(SET, "nan", "div", ALL, GH + "TiankaiHang/Min-SNR-Diffusion-Training/issues/2")
def signal_to_noise_weight_of_pure_noise(broken):
    model, clean = linear(4, 4), torch.rand(6, 4)
    kept = torch.linspace(0.99, 0.0 if broken else 0.01, 10)
    noise, when = torch.randn(6, 4), torch.tensor([0, 2, 4, 6, 8, 9])

    def step():
        share = kept[when, None]
        noisy = share.sqrt() * clean + (1 - share).sqrt() * noise
        ratio = share / (1 - share)
        weight = ratio.clamp(max=5.0) / ratio  # fault
        return (weight * (model(noisy) - noise).square()).mean()

    return Program(step, model)


@fault(
    SET,
    "nan",
    "sqrt",
    "guess.weight guess.bias",
    GH + "lucidrains/imagen-pytorch/issues/161",
    building=True,
)
def noise_schedule_stretched_to_few_steps(broken):
    class Diffusion(nn.Module):
        def __init__(self, steps):
            super().__init__()
            torch.manual_seed(0)
            self.guess = nn.Linear(4, 4)
            scale = 1000 / steps
            beta = torch.linspace(1e-4 * scale, 0.02 * scale, steps)
            kept = torch.cumprod(1 - beta, 0)
            self.register_buffer("signal", kept.sqrt())  # fault
            self.register_buffer("noise", (1 - kept).sqrt())

        def forward(self, clean, when, noise):
            noisy = self.signal[when, None] * clean + self.noise[when, None] * noise
            return self.guess(noisy)

    model = Diffusion(10 if broken else 40)
    clean, noise, when = torch.rand(6, 4), torch.randn(6, 4), torch.tensor([0, 3, 5, 7, 8, 9])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        loss = F.mse_loss(model(clean, when, noise), noise)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer)


@fault(
    SET,
    "nan",
    "add",
    "query.weight query.bias key.weight key.bias",
    GH + "huggingface/transformers/pull/27114",
)
def two_masks_of_the_smallest_number(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"query": nn.Linear(4, 4), "key": nn.Linear(4, 4)})
    x, least = torch.rand(2, 5, 4), torch.finfo(torch.float32).min
    ahead = torch.ones(5, 5, dtype=torch.bool).triu(1)
    padded = torch.tensor([[False] * 5, [True] * 3 + [False] * 2])

    def step():
        causal = torch.zeros(5, 5).masked_fill(ahead, least)[None]
        absent = torch.zeros(2, 5).masked_fill(padded, least)
        if broken:
            mask = causal + absent[:, None, :] + absent[:, :, None]  # fault
        else:
            mask = torch.minimum(causal, torch.minimum(absent[:, None, :], absent[:, :, None]))
        scores = model.query(x) @ model.key(x).transpose(1, 2) / 2
        weight = torch.softmax(scores + mask, 2)
        return (weight @ x).square().mean()

    return Program(step, model)


@fault(SET, "nan", "mul", ALL, GH + "huggingface/trl/pull/7252")
def entropy_cleaned_after_the_product(broken):
    model, x = linear(4, 3), torch.rand(5, 4)
    banned = torch.tensor([False, False, True])

    def step():
        logits = model(x).masked_fill(banned, float("-inf"))
        log_p = torch.log_softmax(logits, 1)
        safe = log_p if broken else log_p.masked_fill(banned, 0.0)
        each = torch.exp(log_p) * safe  # fault
        return each.nan_to_num(nan=0.0).sum(1).mean()

    return Program(step, model)


@fault(SET, "nan inf", "sqrt", ALL, GH + "pyg-team/pytorch_geometric/pull/6042")
def spread_over_a_single_neighbour(broken):
    model, x = linear(4, 3), torch.rand(5, 4)
    source, target = torch.tensor([0, 1, 2, 3, 0]), torch.tensor([1, 1, 2, 2, 3])

    def mean(values):
        count = torch.zeros(5).index_add(0, target, torch.ones(5)).clamp(min=1)
        return torch.zeros(5, 3).index_add(0, target, values) / count[:, None]

    def step():
        message = model(x)[source]
        variance = mean(message.square()) - mean(message).square()
        spread = variance.clamp(min=0.0 if broken else 1e-5).sqrt()  # fault
        return (spread - 1).square().mean()

    return Program(step, model)


@fault(SET, "nan inf", "pow", "?", GH + "graph4ai/graph4nlp/pull/250")
def degree_of_a_node_whose_edges_are_dropped(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"gate": nn.Linear(1, 1), "read": nn.Linear(3, 1)})
    x, length, kept = torch.rand(4, 3), torch.rand(4, 1), torch.tensor([1.0, 1.0, 0.0, 0.0])
    source, target = torch.tensor([0, 1, 2, 3]), torch.tensor([1, 0, 3, 3])

    def step():
        weight = torch.sigmoid(model.gate(length))[:, 0] * kept
        degree = torch.zeros(4).index_add(0, target, weight) + (0.0 if broken else 1e-3)
        scale = degree.pow(-0.5)  # fault
        scale = scale.masked_fill(scale == float("inf"), 0.0)
        value = scale[target] * weight * scale[source]
        hidden = torch.zeros(4, 3).index_add(0, target, value[:, None] * x[source])
        return (model.read(hidden) - 1).square().mean()

    return Program(step, model)


@fault(SET, "nan", "log", ALL, "Maddison et al. 2017: Gumbel noise from half-precision uniforms")
def gumbel_noise_from_rounded_uniforms(broken):
    model, x = linear(4, 3), torch.rand(5, 4)
    uniform = torch.tensor([[0.2, 0.7, 0.5], [0.1, 0.9999, 0.4]]).half().float().repeat(3, 1)[:5]
    if not broken:
        uniform = uniform.clamp(max=0.999)

    def step():
        noise = -torch.log(-torch.log(uniform))  # fault
        choice = torch.softmax((model(x) + noise) / 0.5, 1)
        return (choice * torch.arange(3.0)).sum(1).mean()

    return Program(step, model)
