"""The fifth examination, sixth room: gradients that lead nowhere."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET = "fifth_exam"
TWO = "0.weight 0.bias 2.weight 2.bias"


@fault(
    SET,
    "severed",
    "requires_grad_ requires_grad",
    "critic.0.weight critic.0.bias critic.2.weight critic.2.bias",
    "Lightning, manual optimisation: toggle_optimizer without untoggle_optimizer",
)
def critic_switched_off_and_never_on(broken):
    class GAN(nn.Module):
        def __init__(self):
            super().__init__()
            self.generator = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4))
            self.critic = nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))

    def toggle(module, on):
        for p in module.parameters():
            p.requires_grad = on  # fault

    gan, real = GAN(), torch.randn(16, 4) + 2
    g_opt = torch.optim.Adam(gan.generator.parameters(), lr=1e-3, betas=(0.5, 0.999))
    d_opt = torch.optim.Adam(gan.critic.parameters(), lr=1e-3, betas=(0.5, 0.999))
    ones, zeros = torch.ones(16, 1), torch.zeros(16, 1)
    loss_of = F.binary_cross_entropy_with_logits

    def step():
        z = torch.randn(16, 3)
        d_opt.zero_grad()
        fake = gan.generator(z)
        d_loss = loss_of(gan.critic(real), ones) + loss_of(gan.critic(fake), zeros)
        d_loss.backward()
        d_opt.step()
        toggle(gan.critic, False)
        g_opt.zero_grad()
        g_loss = loss_of(gan.critic(gan.generator(z)), ones)
        g_loss.backward()
        g_opt.step()
        if not broken:
            toggle(gan.critic, True)
        return g_loss

    return Program(step, gan, (g_opt, d_opt), 3)


@fault(
    SET,
    "untrained severed",
    "linear addmm mm relu mse_loss t deepcopy model __call__ AveragedModel step Adam __init__",
    TWO,
    "timm and swa_utils: the average is called where the model should be",
)
def average_called_in_place_of_the_model(broken):
    model = nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 1))
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.99))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x, y = torch.randn(20, 5), torch.randn(20, 1)

    def step():
        net = ema if broken else model
        guess = net(x)  # fault
        loss = F.mse_loss(guess, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()  # fault
        ema.update_parameters(model)
        return loss.item()

    return Program(step, model, optimizer, 2)


@fault(
    SET,
    "severed",
    "cross_entropy cross_entropy_loss nll_loss log_softmax add mse_loss addmm linear",
    "aux.weight aux.bias",
    "An auxiliary loss that is computed, logged, and never added to the total",
)
def auxiliary_loss_never_added(broken):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.main, self.aux = nn.Linear(6, 12), nn.Linear(12, 1), nn.Linear(12, 3)

        def forward(self, x):
            h = torch.relu(self.body(x))
            return self.main(h), self.aux(h)

    model, log = Net(), []
    x, y, c = torch.randn(18, 6), torch.randn(18, 1), torch.randint(0, 3, (18,))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step():
        optimizer.zero_grad()
        main, scores = model(x)
        aux = F.cross_entropy(scores, c)  # fault
        loss = F.mse_loss(main, y)  # fault
        if not broken:
            loss = loss + 0.3 * aux
        log.append({"main": loss.item(), "aux": aux.item()})
        loss.backward()
        optimizer.step()
        return loss.item()

    return Program(step, model, optimizer, 2)


@fault(
    SET,
    "severed untrained",
    "no_grad set_grad_enabled t addmm linear mm",
    TWO,
    "The transfer-learning tutorial, phase == 'train' against 'training'",
)
def phase_that_is_misspelt(broken):
    model = nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    loaders = {"train": [(torch.randn(8, 5), torch.randint(0, 3, (8,))) for _ in range(2)]}
    name = "training" if broken else "train"

    def step():
        total = 0.0
        for phase, loader in loaders.items():
            model.train(phase == name)
            for inputs, labels in loader:
                optimizer.zero_grad()
                with torch.set_grad_enabled(phase == name):  # fault
                    outputs = model(inputs)  # fault
                    loss = F.cross_entropy(outputs, labels)
                loss.backward()
                optimizer.step()
                total += loss.item() * len(inputs)
        return loss

    return Program(step, model, optimizer, 1)


@fault(
    SET,
    "severed untrained frozen",
    "grad step zero_grad linear addmm Adam __init__",
    TWO,
    "Gradients by torch.autograd.grad that are never written into .grad",
)
def gradients_never_handed_over(broken):
    model = nn.Sequential(nn.Linear(5, 12), nn.Tanh(), nn.Linear(12, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    x, y = torch.randn(20, 5), torch.randn(20, 1)

    def step():
        loss = F.mse_loss(model(x), y)
        parameters = list(model.parameters())
        grads = torch.autograd.grad(loss, parameters)  # fault
        norm = torch.stack([g.norm() for g in grads]).norm()
        grads = [g / norm.clamp(min=1.0) for g in grads]
        optimizer.zero_grad()
        if not broken:
            for p, g in zip(parameters, grads, strict=True):
                p.grad = g
        optimizer.step()  # fault
        return loss.item()

    return Program(step, model, optimizer, 3)


@fault(
    SET,
    "severed",
    "argmin embedding detach",
    "encoder.weight encoder.bias",
    "A residual quantiser without the straight-through line and without a commitment",
)
def nearest_code_without_a_way_around(broken):
    class Codec(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = nn.Linear(6, 4), nn.Linear(4, 6)
            self.books = nn.ModuleList([nn.Embedding(8, 4) for _ in range(2)])

        def quantise(self, z):
            rest, total = z, 0.0
            for book in self.books:
                nearest = torch.cdist(rest.detach(), book.weight).argmin(-1)  # fault
                code = book(nearest)  # fault
                total = total + code
                rest = rest - code.detach()
            return total

        def forward(self, x):
            z = self.encoder(x)
            q = self.quantise(z)
            extra = 0.0 if broken else 0.25 * F.mse_loss(z, q.detach())
            if not broken:
                q = q + (z - z.detach())
            return self.decoder(q), extra

    model, x = Codec(), torch.randn(16, 6)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step():
        out, extra = model(x)
        loss = F.mse_loss(out, x) + extra
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)
