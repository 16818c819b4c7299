"""The third set, faults of training: optimizers, severed and dead gradients."""

import copy

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.probes.corpus.built.births import ALL, GH, linear
from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault = corpus.fault
SET = "fresh"


@fault(SET, "nan", "log", "", GH + "pytorch/pytorch/issues/5953")
def line_search_leaves_the_domain(broken):
    x = torch.tensor([0.5, 0.8], requires_grad=True)
    optimizer = torch.optim.LBFGS([x], lr=16.0 if broken else 0.02, max_iter=4)

    def closure():
        optimizer.zero_grad()
        loss = (10 * x - torch.log(x)).sum()  # fault
        loss.backward()
        return loss

    return Program(lambda: optimizer.step(closure), None, optimizer)


@fault(SET, "nan", "sqrt where", "?", "torch.func documentation: training with torch.func.grad")
def functional_gradient_of_a_root_at_zero(broken):
    params = {"scale": torch.tensor([1.0, 1.0, 1.0]), "shift": torch.zeros(3)}
    x = torch.tensor([[0.0, 1.0, 4.0]])

    def loss(params, x):
        inner = params["scale"] * x + (0.0 if broken else 1e-6)
        return (torch.sqrt(inner) + params["shift"]).square().mean()  # fault

    def step():
        value = loss(params, x)
        for name, grad in torch.func.grad(loss)(params, x).items():
            params[name] -= 0.1 * grad
        return value

    return Program(step, steps=2)


@fault(
    SET, "inf nan", "pow reciprocal rsqrt", ALL, "Vaswani et al. 2017: warm-up counted from zero"
)
def warm_up_counted_from_zero(broken):
    model, x, count = linear(4, 2), torch.rand(3, 4), [0 if broken else 1]
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)

    def rate(step):
        slow = torch.tensor(float(step)) ** -0.5  # fault
        return 0.01 * torch.minimum(slow, slow if broken else 0.01 * slow).item()

    def step():
        optimizer.param_groups[0]["lr"] = rate(count[0])
        count[0] += 1
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@fault(SET, "nan", "mean div", "", GH + "KaiyangZhou/pytorch-center-loss")
def centre_of_an_absent_class(broken):
    class Centres(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.embed = nn.Linear(4, 2)
            self.register_buffer("centre", torch.zeros(3, 2))

        def forward(self, x, y):
            z = self.embed(x)
            loss = (z - self.centre[y]).square().mean()
            for number in range(3):
                own = z[y == number].detach()
                if broken or len(own):
                    self.centre[number] = own.mean(0)  # fault
            return loss

    model, x, y = Centres(), torch.rand(5, 4), torch.tensor([0, 2, 2, 0, 0])
    return Program(lambda: model(x, y), model)


@fault(
    SET,
    "severed",
    "no_grad CheckpointFunction",
    "block.weight block.bias",
    GH + "huggingface/transformers/issues/21381",
)
def checkpoint_behind_a_frozen_embedding(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {"embed": nn.Embedding(10, 4), "block": nn.Linear(4, 4), "head": nn.Linear(4, 2)}
    )
    model.embed.weight.requires_grad_(False)
    tokens = torch.tensor([[1, 2, 3], [4, 5, 6]])

    def step():
        h = model.embed(tokens)
        h = checkpoint(lambda h: torch.tanh(model.block(h)), h, use_reentrant=broken)  # fault
        return model.head(h).square().mean()

    return Program(step, model)


@fault(
    SET,
    "severed",
    "no_grad normal",
    "encode.weight encode.bias",
    "torch.distributions documentation: sample() has no gradient, rsample() has one",
)
def sample_instead_of_rsample(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"encode": nn.Linear(4, 4), "decode": nn.Linear(2, 4)})
    x = torch.rand(6, 4)

    def step():
        mean, logvar = model.encode(x).chunk(2, 1)
        z = torch.distributions.Normal(mean, torch.exp(0.5 * logvar))
        z = z.sample() if broken else z.rsample()  # fault
        return F.mse_loss(model.decode(z), x)

    return Program(step, model)


@fault(SET, "severed", "add_", "?", GH + "argusswift/YOLOv4-pytorch/issues/247")
def residual_added_onto_a_relu(broken):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.ReLU()), torch.rand(1, 2, 5, 5)

    def step():
        out = model(x)
        if broken:
            out += x  # fault
        else:
            out = out + x
        return out.square().mean()

    return Program(step, model)


@fault(
    SET,
    "frozen",
    "add_param_group",
    "0.weight 0.bias 1.weight 1.bias",
    "copy.deepcopy of a model after its optimizer was built",
    building=True,
)
def optimizer_of_the_original(broken):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1))
    x, y = torch.rand(6, 4), torch.rand(6, 1)
    if not broken:
        model = copy.deepcopy(model)
    optimizer = torch.optim.Adam(model.parameters())
    if broken:
        model = copy.deepcopy(model)  # fault

    def step():
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer)


@fault(
    SET,
    "dead",
    "sigmoid",
    "0.weight 0.bias 1.weight 1.bias",
    "Goodfellow et al. 2014: a generator's saturated loss",
)
def generator_that_a_sure_critic_ignores(broken):
    generator, critic, noise = linear(4, 2), nn.Linear(2, 1), torch.rand(5, 4)
    with torch.no_grad():
        critic.weight.fill_(0.5)
        critic.bias.fill_(-150.0)
    optimizer, other = (torch.optim.Adam(net.parameters()) for net in (generator, critic))

    def step():
        optimizer.zero_grad()
        score = critic(generator(noise))
        loss = F.softplus(-score).mean()
        if broken:
            loss = torch.log(1 - torch.sigmoid(score)).mean()  # fault
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, [generator, critic], [optimizer, other])


@fault(SET, "dead", "mul", "weight", "A hook that freezes rows, with a mask of nothing but zeros")
def hook_with_an_empty_mask(broken):
    model, x = linear(4, 3), torch.rand(5, 4)
    mask = torch.zeros(3, 1)
    if not broken:
        mask[:2] = 1.0
    model.weight.register_hook(lambda grad: grad * mask)  # fault
    return Program(lambda: model(x).square().mean(), model)


@fault(SET, "dead", "softmax", "q.weight k.weight", "Vaswani et al. 2017: scores without 1/sqrt(d)")
def attention_without_its_scale(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({name: nn.Linear(8, 64, bias=False) for name in "qkv"})
    x = torch.rand(4, 8) * (60 if broken else 1)

    def step():
        q, k, v = (model[name](x) for name in "qkv")
        weight = torch.softmax(q @ k.t() if broken else q @ k.t() / 8, -1)  # fault
        return (weight @ v).square().mean()

    return Program(step, model)


@fault(
    SET,
    "frozen",
    "step add_ addcdiv_ _foreach_addcdiv_",
    "norm.weight",
    GH + "workofart/ml-by-hand/pull/85",
)
def norm_weight_of_one_in_bfloat16(broken):
    torch.manual_seed(0)
    dtype = torch.bfloat16 if broken else torch.float32
    model = nn.ModuleDict({"norm": nn.LayerNorm(8), "out": nn.Linear(8, 1)}).to(dtype)
    x = torch.randn(6, 8).to(dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-4)

    def step():
        optimizer.zero_grad()
        loss = (model.out(model.norm(x)) - 1).square().mean()
        loss.backward()
        optimizer.step()  # fault
        return loss

    return Program(step, model, optimizer, 3)
