"""The third examination, eighth room: healthy programs of unusual training loops."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.probes.corpus.case import Corpus, Program
from tests.probes.corpus.third_exam.cuts import trained
from tests.probes.corpus.third_exam.optimizers import batch, two_layers

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy


@healthy("Williams 1992: REINFORCE with sampled actions and a baseline that is a moving average")
def policy_gradient_with_a_moving_baseline(_):
    model, (x, y) = two_layers(), batch()
    state = {"baseline": torch.zeros(())}

    def loss_of():
        policy = torch.distributions.Categorical(logits=model(x))
        action = policy.sample()
        reward = (action == y).float() + torch.linspace(0, 0.1, 12)
        gain = reward - state["baseline"]
        state["baseline"] = state["baseline"].lerp(reward.mean(), 0.1)
        return -(gain * policy.log_prob(action)).mean() - 0.01 * policy.entropy().mean()

    return trained(model, loss_of, steps=3)


@healthy("Howard, Ruder 2018: layers thawed one after the other, each added to the optimizer")
def layers_that_are_thawed_one_by_one(_):
    model, (x, y) = two_layers(), batch()
    model[0].requires_grad_(False)
    optimizer = torch.optim.Adam(model[2].parameters(), lr=1e-2)
    state = {"epoch": 0}

    def step():
        if state["epoch"] == 1:
            model[0].requires_grad_(True)
            optimizer.add_param_group({"params": model[0].parameters(), "lr": 1e-3})
        state["epoch"] += 1
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 3)


@healthy("Two tasks in turn: each batch belongs to one head, and each head waits for its batch")
def heads_that_learn_in_turn(_):
    torch.manual_seed(0)
    heads = nn.ModuleDict({"colour": nn.Linear(8, 3), "shape": nn.Linear(8, 2)})
    gains = nn.ParameterDict({"colour": torch.ones(8), "shape": torch.ones(8)})
    model = nn.ModuleDict({"body": nn.Linear(6, 8), "heads": heads, "gains": gains})
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    x, y = batch()
    tasks = ["colour", "shape"]

    def step():
        task = tasks[0]
        tasks.reverse()
        optimizer.zero_grad()
        h = torch.tanh(model["body"](x)) * model["gains"][task]
        loss = F.cross_entropy(model["heads"][task](h), y % (3 if task == "colour" else 2))
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 4)


@healthy("torch.jit.script: a network that was compiled, trained over a DataLoader")
def scripted_network_over_a_loader(_):
    x, y = batch()
    model = torch.jit.script(two_layers())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loader = DataLoader(TensorDataset(x, y), batch_size=5, shuffle=True)

    def epoch():
        for a, b in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(a), b)
            loss.backward()
            optimizer.step()
        return loss

    return Program(epoch, model, optimizer, 2)


@healthy("Schulman et al. 2015: a step along a vector, halved until the loss has fallen")
def backtracking_along_a_vector(_):
    model, (x, y) = two_layers(), batch()
    parameters = list(model.parameters())

    def step():
        loss = F.cross_entropy(model(x), y)
        grads = torch.autograd.grad(loss, parameters)
        direction = nn.utils.parameters_to_vector(grads)
        start = nn.utils.parameters_to_vector(parameters).detach().clone()
        for k in range(8):
            nn.utils.vector_to_parameters(start - 0.5**k * direction, parameters)
            with torch.no_grad():
                if F.cross_entropy(model(x), y) < loss:
                    break
        return loss.item()

    return Program(step, model, (), 2)


@healthy("Baydin et al. 2022: gradients without a backward, from one directional derivative")
def forward_gradients(_):
    model, (x, y) = two_layers(), batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)

    def loss_of(weights):
        return F.cross_entropy(torch.func.functional_call(model, weights, (x,)), y)

    def step():
        optimizer.zero_grad()
        weights = {k: p.detach() for k, p in model.named_parameters()}
        along = {k: torch.randn_like(w) for k, w in weights.items()}
        loss, slope = torch.func.jvp(loss_of, (weights,), (along,))
        for k, p in model.named_parameters():
            p.grad = slope * along[k]
        optimizer.step()
        return loss.item()

    return Program(step, model, optimizer, 2)


@healthy("A saliency map and an adversarial look at each step, then an ordinary update")
def saliency_before_an_update(_):
    model, (x, y) = two_layers(), batch()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3, momentum=0.5)
    maps = []

    def step():
        seen = x.clone().requires_grad_()
        model(seen).gather(1, y[:, None]).sum().backward()
        maps.append(seen.grad.abs().amax(0))
        model.zero_grad()
        noise = 0.1 * torch.randn_like(x)
        clean, noisy = F.cross_entropy(model(x), y), F.cross_entropy(model(x + noise), y)
        clean.backward(retain_graph=True)
        (0.5 * noisy + 0.1 * clean).backward()
        optimizer.step()
        optimizer.zero_grad()
        return clean.detach() + noisy.detach()

    return Program(step, model, optimizer, 2)
