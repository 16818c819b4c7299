"""The fourth unseen set, third part: severed, dead and frozen by the way a program trains."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.built.births import GH
from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault = corpus.fault
SET = "unseen"


@fault(
    SET,
    "nan",
    "step addcdiv_ _foreach_addcdiv_ addcdiv",
    "weight",
    "Kingma, Ba 2015: an epsilon of zero, and words that a batch does not hold",
)
def adam_without_epsilon_on_unused_words(broken):
    torch.manual_seed(0)
    model = nn.Embedding(6, 3)
    words = torch.tensor([0, 1, 1, 4])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, eps=0.0 if broken else 1e-8)

    def step():
        optimizer.zero_grad()
        loss = (model(words) - 1).square().mean()
        loss.backward()
        optimizer.step()  # fault
        return loss

    return Program(step, model, optimizer)


@fault(
    SET,
    "severed",
    "item _local_scalar_dense",
    "actor.weight actor.bias",
    GH + "isayev/ReLeaSE/issues/39",
)
def policy_gradient_of_a_number(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"actor": nn.Linear(4, 3), "critic": nn.Linear(4, 1)})
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    state, action, gain = torch.rand(5, 4), torch.tensor([0, 1, 2, 0, 1]), torch.rand(5)

    def step():
        optimizer.zero_grad()
        value, loss = model.critic(state)[:, 0], 0.0
        chances = torch.log_softmax(model.actor(state), 1)
        for i in range(5):
            chance = chances[i, action[i]]
            chance = chance.item() if broken else chance  # fault
            loss = loss - chance * (gain[i] - value[i].detach())
        loss = loss + F.mse_loss(value, gain)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@fault(
    SET,
    "severed",
    "detach",
    "codes.weight",
    "van den Oord et al. 2017: a codebook without the loss that moves it",
)
def codebook_without_its_own_loss(broken):
    torch.manual_seed(0)
    parts = {"encode": nn.Linear(4, 2), "codes": nn.Embedding(5, 2), "decode": nn.Linear(2, 4)}
    model, x = nn.ModuleDict(parts), torch.rand(6, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def step():
        optimizer.zero_grad()
        z = model.encode(x)
        code = model.codes(torch.cdist(z, model.codes.weight).argmin(1))
        loss = F.mse_loss(model.decode(z + (code - z).detach()), x)  # fault
        loss = loss + 0.25 * F.mse_loss(z, code.detach())  # fault
        if not broken:
            loss = loss + F.mse_loss(code, z.detach())
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@fault(
    SET,
    "severed",
    "detach",
    "generator.weight generator.bias",
    GH + "nikhilsinghmus/image2reverb/issues/37",
)
def generator_behind_a_detached_fake(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"generator": nn.Linear(3, 2), "critic": nn.Linear(2, 1)})
    real, noise = torch.rand(6, 2), torch.rand(6, 3)
    first = torch.optim.Adam(model.generator.parameters(), lr=0.01)
    second = torch.optim.Adam(model.critic.parameters(), lr=0.01)

    def step():
        fake = model.generator(noise)
        second.zero_grad()
        score = F.softplus(-model.critic(real)) + F.softplus(model.critic(fake.detach()))
        score.mean().backward()
        second.step()
        first.zero_grad()
        judged = model.critic(fake.detach() if broken else fake)  # fault
        loss = F.softplus(-judged).mean()
        loss.backward()
        first.step()
        return loss

    return Program(step, model, (first, second), 2)


@fault(
    SET,
    "severed",
    "detach",
    "0.weight 0.bias",
    "A forward hook that stores features and hands the stored ones on",
)
def hook_that_returns_what_it_stored(broken):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
    x, stored = torch.rand(6, 4), {}

    def keep(_, __, output):
        stored["features"] = output.detach()  # fault
        return stored["features"] if broken else None

    model[1].register_forward_hook(keep)
    return Program(lambda: model(x).square().mean(), model)


@fault(
    SET,
    "severed",
    "to long _to_copy",
    "where.weight where.bias",
    "Jaderberg et al. 2015: what a sampled grid is for",
)
def crop_at_an_integer_place(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"where": nn.Linear(16, 1), "read": nn.Linear(3, 1)})
    line = torch.rand(5, 16)

    def step():
        start = torch.sigmoid(model.where(line)) * 12
        if broken:
            place = start.long() + torch.arange(3)  # fault
            crop = line.gather(1, place)
        else:
            place = start + torch.arange(3.0)
            low = place.detach().floor().long()
            share = place - low
            crop = (1 - share) * line.gather(1, low) + share * line.gather(1, low + 1)
        return (model.read(crop) - 1).square().mean()

    return Program(step, model)


@fault(
    SET,
    "severed",
    "no_grad t addmm",
    "encode.weight encode.bias",
    "torch.inference_mode: features that are cloned to be allowed back",
)
def features_cloned_out_of_inference_mode(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"encode": nn.Linear(4, 3), "read": nn.Linear(3, 1)})
    x = torch.rand(6, 4)

    def step():
        with torch.inference_mode(broken):
            h = model.encode(x)  # fault
        return (model.read(h.clone()) - 1).square().mean()

    return Program(step, model)


@fault(
    SET,
    "frozen",
    "add_param_group",
    "margin.weight",
    GH + "ronghuaiyang/arcface-pytorch/issues/20",
    building=True,
)
def margin_head_left_out_of_the_optimizer(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"embed": nn.Linear(4, 3), "margin": nn.Linear(3, 5, bias=False)})
    groups = [{"params": model.embed.parameters(), "weight_decay": 1e-4}]
    if not broken:
        groups.append({"params": model.margin.parameters(), "weight_decay": 0.0})
    optimizer = torch.optim.AdamW(groups, lr=0.01)  # fault
    x, y = torch.rand(6, 4), torch.arange(6) % 5

    def step():
        optimizer.zero_grad()
        unit = F.normalize(model.embed(x), dim=1)
        cosine = F.linear(unit, F.normalize(model.margin.weight, dim=1))
        loss = F.cross_entropy(8 * (cosine - 0.2 * F.one_hot(y, 5)), y)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 3)


@fault(
    SET,
    "frozen",
    "add_param_group",
    "body.weight body.bias",
    GH + "Lightning-AI/pytorch-lightning/issues/514",
    building=True,
)
def body_unfrozen_after_the_optimizer(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"body": nn.Linear(4, 3), "head": nn.Linear(3, 1)})
    model.body.requires_grad_(False)
    ready = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(ready, lr=0.1)  # fault
    x, epoch = torch.rand(6, 4), [0]

    def step():
        if epoch[0] == 1:
            model.body.requires_grad_(True)
            if not broken:
                optimizer.add_param_group({"params": list(model.body.parameters())})
        epoch[0] += 1
        optimizer.zero_grad()
        loss = (model.head(torch.tanh(model.body(x))) - 1).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 3)
