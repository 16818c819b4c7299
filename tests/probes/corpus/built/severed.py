"""No graph leads from the loss to a parameter, or no optimizer to it."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.built.births import GH, linear
from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault = corpus.fault
ENCODER = "encoder.weight encoder.bias"


class Auto(nn.Module):
    """An encoder and a decoder; `between` stands where a fault goes."""

    def __init__(self, between=lambda h: h):
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.decoder = nn.Linear(4, 3), nn.Linear(3, 4)
        self.between = between

    def forward(self, x):
        return self.decoder(self.between(torch.tanh(self.encoder(x))))


def fit(model, x, optimizer=None, steps=1):
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), x)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, steps)


@fault("severed", "severed", "detach", ENCODER, GH + "speechbrain/speechbrain/issues/1396")
def features_are_detached(broken):
    def between(h):
        return h.detach() if broken else h  # fault

    return fit(Auto(between), torch.rand(5, 4))


@fault("severed", "severed", "data detach", ENCODER, GH + "DeepRank/deeprank/issues/210")
def features_taken_by_data(broken):
    def between(h):
        if broken:
            h = h.data  # fault
        return h * 2

    return fit(Auto(between), torch.rand(5, 4))


@fault(
    "severed",
    "severed",
    "item _local_scalar_dense tensor",
    "weight bias",
    GH + "mperezcarrasco/PyTorch-DAGMM/issues/4",
)
def loss_made_anew_from_its_value(broken):
    model, x = linear(), torch.rand(5, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        loss = model(x).square().mean()
        if broken:
            loss = torch.tensor(loss.item(), requires_grad=True)  # fault
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer)


@fault(
    "severed", "severed", "tensor", "weight bias", GH + "Lightning-AI/pytorch-lightning/issues/9299"
)
def losses_collected_in_torch_tensor(broken):
    model, x = linear(), torch.rand(5, 4)

    def step():
        parts = [row.square().mean() for row in model(x)]
        if broken:
            return torch.tensor(parts, requires_grad=True).sum()  # fault
        return torch.stack(parts).sum()

    return Program(step, model)


@fault("severed", "severed", "detach numpy", ENCODER, GH + "HuXiaoling/TopoLoss/issues/8")
def features_go_through_numpy(broken):
    def between(h):
        if broken:
            array = h.detach().numpy()  # fault
            return torch.from_numpy(array * 2)
        return h * 2

    return fit(Auto(between), torch.rand(5, 4))


@fault("severed", "severed", "tolist", ENCODER, GH + "pytorch/ignite/pull/1675")
def features_go_through_a_list(broken):
    def between(h):
        if broken:
            return torch.tensor(h.tolist()) * 2  # fault
        return h * 2

    return fit(Auto(between), torch.rand(5, 4))


@fault("severed", "severed", "argmax", ENCODER, GH + "eriklindernoren/Keras-GAN/issues/61")
def mask_made_by_argmax(broken):
    def between(h):
        if broken:
            return F.one_hot(h.argmax(1), 3).float()  # fault
        return torch.softmax(h, 1)

    return fit(Auto(between), torch.rand(5, 4))


@fault("severed", "severed", "gt", ENCODER, GH + "keras-team/keras/issues/11157")
def mask_made_by_a_comparison(broken):
    def between(h):
        if broken:
            return (h > 0).float()  # fault
        return torch.sigmoid(h)

    return fit(Auto(between), torch.rand(5, 4))


@fault("severed", "dead", "round", ENCODER, GH + "lucidrains/vector-quantize-pytorch/issues/108")
def codes_are_rounded(broken):
    def between(h):
        code = torch.round(h * 4)  # fault
        return code if broken else h * 4 + (code - h * 4).detach()

    return fit(Auto(between), torch.rand(5, 4))


@fault("severed", "severed", "no_grad t addmm", ENCODER, GH + "deepinv/deepinv/issues/166")
def gradient_mode_left_off(broken):
    class Late(Auto):
        def forward(self, x):
            torch.set_grad_enabled(not broken)
            h = torch.tanh(self.encoder(x))  # fault
            torch.set_grad_enabled(True)
            return self.decoder(h)

    return fit(Late(), torch.rand(5, 4))


@fault(
    "severed",
    "severed",
    "no_grad t addmm",
    ENCODER,
    GH + "Lightning-AI/pytorch-lightning/issues/20644",
)
def encoder_under_no_grad(broken):
    model, x = Auto(), torch.rand(5, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        with torch.set_grad_enabled(not broken):
            h = model.encoder(x)  # fault
        loss = F.mse_loss(model.decoder(h), x)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@fault(
    "severed",
    "severed",
    "requires_grad_ requires_grad",
    ENCODER,
    GH + "Lightning-AI/pytorch-lightning/issues/7405",
)
def requires_grad_left_off(broken):
    model, x = Auto(), torch.rand(5, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), x)
        loss.backward()
        optimizer.step()
        model.encoder.requires_grad_(False)  # fault
        F.mse_loss(model(x), x)
        if not broken:
            model.encoder.requires_grad_(True)
        return loss

    return Program(step, model, optimizer, 3)


@fault(
    "severed",
    "frozen",
    "add_param_group",
    "head.weight head.bias",
    GH + "zjunlp/HVPNeT/issues/5",
    building=True,
)
def head_left_out_of_the_optimizer(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"body": nn.Linear(4, 3), "head": nn.Linear(3, 2)})
    trained = model.body.parameters() if broken else model.parameters()
    optimizer = torch.optim.SGD(trained, lr=0.1)  # fault
    x = torch.rand(5, 4)

    def step():
        optimizer.zero_grad()
        loss = model.head(torch.tanh(model.body(x))).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@fault(
    "severed",
    "frozen",
    "add_param_group Linear uniform_ empty",
    "layers.0.weight layers.0.bias",
    GH + "pytorch/pytorch/issues/59925",
    building=True,
)
def layers_hidden_in_a_list(broken):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            layers = [nn.Linear(4, 4)]  # fault
            self.layers = layers if broken else nn.ModuleList(layers)
            self.out = nn.Linear(4, 1)

        def forward(self, x):
            for layer in self.layers:
                x = torch.tanh(layer(x))
            return self.out(x)

    model, x = Net(), torch.rand(5, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@fault(
    "severed",
    "frozen",
    "add_param_group Linear uniform_ empty",
    "1.weight 1.bias",
    GH + "pytorch/pytorch/issues/54765",
    building=True,
)
def layer_replaced_after_the_optimizer(broken):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1))
    x = torch.rand(5, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    if broken:
        model[1] = nn.Linear(3, 1)  # fault

    def step():
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@fault("severed", "severed", "detach", "weight bias", GH + "coqui-ai/Trainer/pull/87")
def detached_loss_without_backward(broken):
    model, x = linear(), torch.rand(5, 4)

    def step():
        loss = model(x).square().mean()
        return loss.detach() if broken else loss  # fault

    return Program(step, model)


@fault("severed", "wrong", "mul_ zero_ div_", "", GH + "pytorch/pytorch/issues/9391")
def saved_result_changed_behind_autograd(broken):
    x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)

    def step():
        y = x.exp()
        if broken:
            y.data.mul_(0.1)  # fault
        else:
            y = y * 0.1
        return y.sum()

    return Program(step)
