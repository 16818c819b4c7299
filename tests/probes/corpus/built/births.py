"""Bad values born in the forward pass."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault = corpus.fault
GH = "https://github.com/"
ALL = "weight bias"


def linear(inputs=4, outputs=3, scale=1.0):
    torch.manual_seed(0)
    layer = nn.Linear(inputs, outputs)
    with torch.no_grad():
        layer.weight.mul_(scale)
    return layer


class Gaussian(nn.Module):
    """An encoder with a mean and a log-variance head, and a decoder."""

    def __init__(self, shift=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.mean, self.logvar, self.decode = nn.Linear(5, 2), nn.Linear(5, 2), nn.Linear(2, 5)
        with torch.no_grad():
            self.logvar.bias.add_(shift)

    def forward(self, x):
        return self.mean(x), self.logvar(x)


@fault(
    "birth", "inf", "exp", "logvar.weight logvar.bias", GH + "vanderschaarlab/synthcity/issues/331"
)
def kl_of_unbounded_logvar(broken):
    model, x = Gaussian(90.0 if broken else 0.0), torch.rand(6, 5)

    def step():
        mean, logvar = model(x)
        kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum(1)  # fault
        return F.mse_loss(model.decode(mean), x) + kl.mean()

    return Program(step, model)


@fault(
    "birth",
    "nan",
    "exp",
    "mean.weight mean.bias logvar.weight logvar.bias decode.weight decode.bias",
    GH + "pyg-team/pytorch_geometric/issues/500",
)
def reparametrize_with_exploding_logstd(broken):
    model, x = Gaussian(95.0 if broken else 0.0), torch.rand(6, 5)

    def step():
        mean, logstd = model(x)
        z = mean + torch.randn_like(logstd) * torch.exp(logstd)  # fault
        return F.mse_loss(model.decode(z), x)

    return Program(step, model)


@fault("birth", "nan", "exp", ALL, GH + "mlberkeley/scae-pytorch/pull/4")
def softmax_by_hand(broken):
    model, x = linear(scale=400), torch.ones(6, 4)

    def step():
        logits = model(x)
        if not broken:
            logits = logits - logits.amax(1, keepdim=True)
        weight = torch.exp(logits)  # fault
        return (weight / weight.sum(1, keepdim=True))[:, 0].mean()

    return Program(step, model)


@fault("birth", "inf", "log", ALL, GH + "RasmussenLab/vamb/issues/12")
def cross_entropy_with_a_probability_of_zero(broken):
    model, x = linear(scale=900), torch.ones(6, 4)
    depth = torch.full((6, 3), 1 / 3)

    def step():
        if not broken:
            return F.cross_entropy(model(x), depth)
        p = torch.softmax(model(x), dim=1)
        return -(depth * p.log()).sum(1).mean()  # fault

    return Program(step, model)


@fault("birth", "nan", "log", "", GH + "philtabor/Actor-Critic-Methods-Paper-To-Code/issues/7")
def log_of_a_negative_jacobian(broken):
    model, x = linear(scale=4), torch.ones(6, 4)

    def step():
        raw = model(x)
        action = torch.tanh(raw) * 2.0
        inside = action if broken else torch.tanh(raw)
        correction = torch.log(1 - inside.pow(2) + 1e-6)  # fault
        return -correction.sum(1).mean()

    return Program(step, model)


@fault("birth", "inf", "atanh", ALL, GH + "rlworkgroup/garage/pull/2129")
def unsquash_an_action_at_the_bound(broken):
    model, x = linear(), torch.ones(6, 4)

    def step():
        action = torch.ones(6, 3)
        if not broken:
            action = action.clamp(-1 + 1e-6, 1 - 1e-6)
        raw = torch.atanh(action)  # fault
        return ((raw - model(x)) ** 2).mean()

    return Program(step, model)


@fault("birth", "nan", "std", ALL, GH + "DLR-RM/stable-baselines3/issues/325")
def advantage_of_a_batch_of_one(broken):
    model, x = linear(4, 1), torch.rand(1 if broken else 5, 4)

    def step():
        advantage = torch.rand(x.shape[0])
        spread = advantage.std()  # fault
        advantage = (advantage - advantage.mean()) / (spread + 1e-8)
        return -(model(x).squeeze(1) * advantage).mean()

    return Program(step, model)


@fault("birth", "nan", "nll_loss_forward cross_entropy", ALL, GH + "pytorch/pytorch/issues/70348")
def every_label_ignored(broken):
    model, x = linear(), torch.rand(6, 4)
    target = torch.full((6,), -100) if broken else torch.tensor([0, 1, 2, -100, 1, 0])

    def step():
        return F.cross_entropy(model(x), target)  # fault

    return Program(step, model)


@fault("birth", "nan", "_softmax softmax", ALL, GH + "pytorch/pytorch/issues/41508")
def attention_row_without_keys(broken):
    model, x = linear(4, 4), torch.rand(3, 4)
    hidden = torch.zeros(3, 3, dtype=torch.bool)
    hidden[1] = True
    if not broken:
        hidden[1, 1] = False

    def step():
        h = model(x)
        scores = (h @ h.t()).masked_fill(hidden, float("-inf"))
        weight = torch.softmax(scores, dim=-1)  # fault
        return (weight @ h).square().mean()

    return Program(step, model)


@fault(
    "birth",
    "nan",
    "_softmax softmax",
    "in_proj_weight in_proj_bias out_proj.weight out_proj.bias",
    GH + "pytorch/pytorch/issues/160064",
)
def multihead_attention_fully_masked(broken):
    torch.manual_seed(0)
    model, x = nn.MultiheadAttention(4, 2, batch_first=True), torch.rand(2, 3, 4)
    hidden = torch.tensor([[False, False, True], [True, True, broken]])

    def step():
        out, _ = model(x, x, x, key_padding_mask=hidden)  # fault
        return out.square().mean()

    return Program(step, model)


@fault("birth", "nan inf", "addmm mm linear", ALL, GH + "huggingface/transformers/issues/5651")
def feed_forward_in_half_precision(broken):
    torch.manual_seed(0)
    dtype = torch.float16 if broken else torch.bfloat16
    model = nn.Linear(64, 8).to(dtype)
    x = torch.full((4, 64), 9000.0, dtype=dtype)
    with torch.no_grad():
        model.weight.fill_(0.2)

    def step():
        h = model(x)  # fault
        return (h.float() - h.float().mean()).square().mean() * 1e-9

    return Program(step, model)


@fault("birth", "nan", "pow", ALL, GH + "pyg-team/pytorch_geometric/issues/61")
def degree_of_negative_edge_weights(broken):
    model, x = linear(4, 2), torch.rand(3, 4)
    edges = torch.tensor([[0.0, 1.0, -2.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])

    def step():
        weight = edges if broken else edges.abs()
        norm = weight.sum(1).pow(-0.5)  # fault
        norm = norm.masked_fill(norm == float("inf"), 0.0)
        return (norm[:, None] * weight @ model(x)).square().mean()

    return Program(step, model)


@fault("birth", "nan inf", "div", ALL, GH + "mllam/neural-lam/pull/537")
def softplus_scale_underflows(broken):
    model, x = linear(4, 2), torch.ones(6, 4)
    with torch.no_grad():
        model.bias[1] = -120.0

    def step():
        mean, raw = model(x).unbind(1)
        scale = F.softplus(raw)
        if not broken:
            scale = scale.clamp(min=1e-6)
        z = (1.0 - mean) / scale  # fault
        return z.abs().mean()

    return Program(step, model)


@fault("birth", "nan", "parameter weight", ALL, GH + "gordicaleksa/pytorch-GAT/issues/11")
def parameter_never_initialised(broken):
    model, x = linear(), torch.rand(6, 4)
    if broken:
        with torch.no_grad():
            model.weight[0, 0] = float("nan")

    def step():
        return model(x).square().mean()  # fault

    return Program(step, model)


@fault("birth", "nan", "input x batch", ALL, GH + "scverse/scvi-tools/issues/2103")
def nan_in_the_counts(broken):
    model, x = linear(), torch.rand(6, 4)
    if broken:
        x[2, 1] = float("nan")

    def step():
        return F.softplus(model(x)).mean()  # fault

    return Program(step, model)


@fault("birth", "nan", "var", "", GH + "pytorch/pytorch/issues/1381")
def running_variance_of_one_sample(broken):
    class OwnBatchNorm(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.scale = nn.Parameter(torch.rand(3) + 0.5)
            self.register_buffer("running_var", torch.ones(3))

        def forward(self, x):
            biased = x.var(0, unbiased=False)
            with torch.no_grad():
                fresh = x.var(0)  # fault
                self.running_var.mul_(0.9).add_(fresh, alpha=0.1)
            return self.scale * ((x - x.mean(0)) / (biased + 1e-5).sqrt() + 1)

    model, x = OwnBatchNorm(), torch.rand(1 if broken else 4, 3)
    return Program(lambda: model(x).square().sum(), model)


@fault("birth", "nan inf", "log", "x", GH + "jeanfeydy/geomloss/issues/51")
def sinkhorn_between_a_point_and_itself(broken):
    torch.manual_seed(0)
    x = torch.rand(1, 2, requires_grad=True)
    y = x.detach().clone() + (0.0 if broken else 0.3)

    def step():
        cost = torch.cdist(x, y)
        scale = torch.log(cost.amax())  # fault
        return (cost * torch.exp(scale - 1)).sum() + scale * 0.1

    return Program(step)


@fault("birth", "nan inf", "reciprocal div", ALL, GH + "PythonOT/POT/issues/54")
def sinkhorn_with_an_empty_bin(broken):
    model, points = linear(4, 3), torch.rand(5, 4)
    mass = torch.tensor([0.5, 0.5, 0.0 if broken else 0.2])

    def step():
        cost = model(points).square()
        kernel = torch.exp(-cost)
        scaled = kernel * (1.0 / mass)  # fault
        return (scaled / scaled.sum(1, keepdim=True) * cost).sum()

    return Program(step, model)


@fault("birth", "nan inf", "sum", "", GH + "chelsea0x3b/dfdx/issues/748")
def half_precision_sum_overflows(broken):
    model = linear(4, 3)
    x = torch.full((6, 4), 200.0)

    def step():
        h = model(x).square() + 4000.0
        h = h.half() if broken else h
        total = h.sum()  # fault
        return total.float() * 1e-6

    return Program(step, model)


@fault("birth", "nan", "div", "direction", GH + "KohakuBlueleaf/LyCORIS/pull/166")
def weight_decomposition_of_a_zero_row(broken):
    class Dora(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.direction = nn.Parameter(torch.rand(3, 4))
            with torch.no_grad():
                self.direction[1] = 0.0

        def forward(self, x):
            size = self.direction.norm(dim=1, keepdim=True)
            if not broken:
                size = size + 1e-6
            return x @ (self.direction / size).t()  # fault

    model, x = Dora(), torch.rand(5, 4)
    return Program(lambda: model(x).square().mean(), model)


@fault("birth", "nan", "div", ALL, GH + "thu-ml/tianshou/pull/1298")
def advantages_that_are_all_equal(broken):
    model, x = linear(4, 1), torch.rand(5, 4)
    advantage = torch.ones(5)

    def step():
        spread = advantage.std() + (0.0 if broken else 1e-8)
        scaled = (advantage - advantage.mean()) / spread  # fault
        return -(model(x).squeeze(1) * (scaled + 0.1)).mean()

    return Program(step, model)


@fault("birth", "nan inf", "exp", ALL, GH + "scverse/scvi-tools/issues/727")
def library_size_in_log_space(broken):
    model, counts = linear(4, 4), torch.poisson(torch.full((6, 4), 3.0))

    def step():
        library = torch.full((6, 1), 95.0 if broken else 3.0)
        rate = torch.exp(library) * torch.softmax(model(counts), 1)  # fault
        return (rate - counts * rate.log()).mean()

    return Program(step, model)


@fault("birth", "nan", "div", ALL, GH + "nvidia-cosmos/cosmos-rl/pull/155")
def masked_mean_over_nothing(broken):
    model, x = linear(), torch.rand(6, 4)
    mask = torch.zeros(6) if broken else torch.tensor([1.0, 0, 1, 1, 0, 0])

    def step():
        loss = model(x).square().mean(1)
        return (loss * mask).sum() / mask.sum()  # fault

    return Program(step, model)


@fault("birth", "nan", "div_ div", ALL, GH + "ISISNeutronMuon/MDANSE/issues/530")
def normalise_in_place_by_a_zero_sum(broken):
    model, x = linear(4, 2), torch.rand(3, 4)

    def step():
        graph = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 1.0]])
        if not broken:
            graph = graph + torch.eye(3)
        graph /= graph.sum(1, keepdim=True)  # fault
        return (graph @ model(x)).square().mean()

    return Program(step, model)


@fault("birth", "nan", "empty", "", GH + "pyg-team/pytorch_geometric/issues/1129")
def aggregate_into_unset_memory(broken):
    model, x = linear(4, 2), torch.rand(3, 4)

    def step():
        torch.use_deterministic_algorithms(True)  # makes unset memory NaN, so that it is unset here
        try:
            out = torch.empty(4, 2) if broken else torch.zeros(4, 2)  # fault
        finally:
            torch.use_deterministic_algorithms(False)
        out[:3] = model(x)
        return out.square().mean()

    return Program(step, model)


@fault("birth", "nan inf", "log", ALL, GH + "deepspeedai/DeepSpeed/issues/771")
def bad_number_through_item(broken):
    model, x = linear(4, 2), torch.rand(3, 4)
    seen = torch.tensor(0.0 if broken else 2.0)

    def step():
        weight = torch.log(seen).item()  # fault
        return model(x).square().mean() * weight

    return Program(step, model)


@fault("birth", "nan", "y input", ALL, GH + "jax-ml/jax/pull/8140")
def nanmean_of_a_difference(broken):
    model, x, y = linear(4, 2), torch.rand(5, 4), torch.rand(5, 2)
    y[1, 0] = float("nan")

    def step():
        seen = torch.ones(5, dtype=torch.bool) if broken else ~y.isnan().any(1)
        return (model(x)[seen] - y[seen]).square().nanmean()  # fault

    return Program(step, model)
