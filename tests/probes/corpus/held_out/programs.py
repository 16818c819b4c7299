"""Programs written after the tracer had been frozen, to see what it does on unseen ones.

The score of the first run is kept in ``test_corpus.py``; what was mended since then is said there.
"""

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.built.births import ALL, GH, linear
from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy


@fault("held out", "nan", "cos x", "x", GH + "pytorch/pytorch/issues/18287")
def cosine_of_a_masked_infinity(broken):
    x = torch.tensor([0.5, float("inf") if broken else 2.0], requires_grad=True)

    def step():
        return torch.where(x < 1.0, torch.cos(x), torch.zeros_like(x)).sum()  # fault

    return Program(step)


@fault("held out", "nan", "div", "x", GH + "pytorch/pytorch/issues/36923")
def branch_that_divides_by_zero(broken):
    x = torch.ones((), requires_grad=True)
    t = 0.0 if broken else 0.5

    def step():
        y = t * (x / t)  # fault
        return torch.where(x >= t, x, y)

    return Program(step)


@fault("held out", "inf nan", "exp", "alpha.weight alpha.bias", GH + "ethanhe42/KL-Loss/issues/4")
def precision_of_a_confident_box(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"box": nn.Linear(4, 2), "alpha": nn.Linear(4, 2)})
    with torch.no_grad():
        model.alpha.bias.fill_(-95.0 if broken else 0.0)
    x, y = torch.rand(6, 4), torch.rand(6, 2)

    def step():
        error = F.smooth_l1_loss(model.box(x).detach(), y, reduction="none")
        alpha = model.alpha(x)
        weight = torch.exp(-alpha)  # fault
        return (weight * error + 0.5 * alpha).mean() + F.mse_loss(model.box(x), y)

    return Program(step, model)


@fault("held out", "nan", "var", ALL, GH + "digantamisra98/EvoNorm/pull/5")
def instance_spread_of_one_pixel(broken):
    model, x = linear(4, 3), torch.rand(5, 4)

    def step():
        h = model(x).reshape(5, 3, 1, 1) if broken else model(x).reshape(5, 1, 3, 1)
        spread = h.var(dim=(2, 3), keepdim=True)  # fault
        return (h / torch.maximum((spread + 1e-5).sqrt(), h.detach().abs() + 1)).sum()

    return Program(step, model)


@fault("held out", "inf", "_ctc_loss ctc_loss", ALL, GH + "FangShancheng/ABINet/issues/65")
def ctc_with_a_label_that_is_too_long(broken):
    torch.manual_seed(0)
    model, x = nn.Linear(5, 4), torch.rand(2 if broken else 6, 1, 5)
    length = torch.tensor([x.shape[0]])

    def step():
        log_p = model(x).log_softmax(-1)
        return F.ctc_loss(log_p, torch.tensor([[1, 2, 1]]), length, torch.tensor([3]))  # fault

    return Program(step, model)


@fault("held out", "nan inf", "log", ALL, "GRIST: Yan et al., ESEC/FSE 2021, its PyTorch programs")
def mask_multiplied_after_the_logarithm(broken):
    model, x = linear(4, 3, scale=700), torch.ones(5, 4)
    target = torch.tensor([1, 2, 0, 1, 2])

    def step():
        chosen = F.one_hot(target, 3).float()
        if not broken:
            return -(F.log_softmax(model(x) / 700, 1) * chosen).sum(1).mean()
        p = F.softmax(model(x), 1)
        return -(torch.log(p) * chosen).sum(1).mean()  # fault

    return Program(step, model)


@fault("held out", "wrong", "mul_ div_", "?", GH + "meta-pytorch/torchrec/pull/2836")
def weights_rescaled_between_forward_and_backward(broken):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 1))
    x = torch.rand(6, 4)

    def step():
        loss = model(x).square().mean()
        if broken:
            model[1].weight.data.mul_(0.5)  # fault
        loss.backward()
        return loss

    return Program(step, model)


@fault(
    "held out",
    "severed",
    "copy_ fill_ index_put_ setitem",
    "?",
    GH + "pytorch/pytorch/issues/74874",
)
def result_of_sigmoid_overwritten(broken):
    x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)

    def step():
        gate = torch.sigmoid(x)
        if broken:
            gate[1] = 2.0  # fault
        gate.sum().backward()

    return Program(step)


@fault("held out", "dead", "tanh", "0.weight 0.bias", GH + "shidi1985/L2RPN/issues/6")
def unscaled_inputs_saturate_tanh(broken):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    x = torch.rand(6, 3) * (1e5 if broken else 1.0) + 1
    y = torch.rand(6, 1)

    def step():
        h = model[0](x)
        h = model[1](h)  # fault
        return F.mse_loss(model[2](h), y)

    return Program(step, model)


@fault(
    "held out", "frozen", "add_ step _foreach_add_", "weight", GH + "zyushun/Adam-mini/issues/26"
)
def half_precision_descent_stands_still(broken):
    torch.manual_seed(0)
    dtype = torch.float16 if broken else torch.float32
    model = nn.Linear(6, 4, bias=False)
    with torch.no_grad():
        model.weight.uniform_(1.0, 2.0)
    model = model.to(dtype)
    x = torch.rand(8, 6).to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5)

    def step():
        optimizer.zero_grad()
        loss = model(x).float().mean()
        loss.backward()
        optimizer.step()  # fault
        return loss

    return Program(step, model, optimizer, 2)


@fault(
    "held out",
    "dead severed",
    "mul_ _foreach_mul_ clip_grad_norm_",
    "weight bias",
    GH + "OpenNMT/OpenNMT-py/issues/1140",
)
def gradients_clipped_to_a_norm_of_zero(broken):
    model, x = linear(4, 2), torch.rand(5, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.0 if broken else 5.0)  # fault
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@fault(
    "held out",
    "dead",
    "native_layer_norm layer_norm",
    "?",
    GH + "caogang/wgan-gp/issues/16",
)
def normalising_a_single_feature(broken):
    torch.manual_seed(0)
    width = 1 if broken else 4
    model = nn.Sequential(nn.Linear(3, width), nn.LayerNorm(width), nn.Linear(width, 1))
    x, y = torch.rand(6, 3), torch.rand(6, 1)

    def step():
        h = model[0](x)
        h = model[1](h)  # fault
        return F.mse_loss(model[2](h), y)

    return Program(step, model)


@fault(
    "held out",
    "exploding",
    "addmm mm linear",
    "?",
    "d2l.ai, Numerical Stability and Initialization",
)
def layers_with_unit_variance_weights(broken):
    torch.manual_seed(0)
    model = nn.ModuleList(nn.Linear(32, 32, bias=False) for _ in range(16))
    with torch.no_grad():
        for layer in model:
            layer.weight.normal_(0.0, 1.0 if broken else 32**-0.5)
    x = torch.randn(8, 32)

    def step():
        h = x
        for layer in model:
            h = layer(h)  # fault
        return h.mean()

    return Program(step, model)


@fault(
    "held out",
    "severed",
    "no_grad",
    "encoder.weight encoder.bias",
    GH + "arneschneuing/DiffSBDD/issues/10",
)
def decorated_feature_extractor(broken):
    torch.manual_seed(0)
    model = nn.ModuleDict({"encoder": nn.Linear(4, 3), "head": nn.Linear(3, 1)})
    optimizer = torch.optim.Adam(model.parameters())
    x, y = torch.rand(6, 4), torch.rand(6, 1)

    def features(x):
        return torch.relu(model.encoder(x) + 1)  # fault

    extract = torch.no_grad()(features) if broken else features

    def step():
        optimizer.zero_grad()
        loss = F.mse_loss(model.head(extract(x)), y)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@fault(
    "held out",
    "nan inf",
    "div true_divide reciprocal",
    "weight bias",
    GH + "huggingface/transformers/issues/11461",
)
def rms_norm_in_half_precision(broken):
    model = linear(4, 4, scale=0.001).half() if broken else linear(4, 4, scale=0.001)
    x = torch.full((3, 4), 1e-3).to(model.weight.dtype)
    with torch.no_grad():
        model.bias.zero_()

    def step():
        h = model(x)
        size = h.pow(2).mean(-1, keepdim=True).sqrt()
        out = h / (size + 1e-8)  # fault
        return out.float().square().mean()

    return Program(step, model)


# -- controls ---------------------------------------------------------------------------------


@healthy("A precision of 0 / 0 that is only logged; scikit-learn calls it an undefined metric")
def undefined_metric_in_the_log(_):
    model, x, y = linear(4, 2), torch.rand(6, 4), torch.ones(6, dtype=torch.long)
    log = []

    def step():
        out = model(x)
        with torch.no_grad():
            hits = ((out.argmax(1) == 5) & (y == 5)).sum()
            log.append((hits / (out.argmax(1) == 5).sum()).item())
        return F.cross_entropy(out, y)

    return Program(step, model)


@healthy("Beam search keeps scores of -inf for what is not allowed")
def forbidden_tokens(_):
    model, x = linear(4, 6), torch.rand(5, 4)
    banned = torch.tensor([1, 4])

    def step():
        logits = model(x).index_fill(1, banned, float("-inf"))
        return F.cross_entropy(logits, torch.tensor([0, 2, 3, 5, 0]))

    return Program(step, model)


@healthy("nn.Embedding with padding_idx: the padding row has no gradient")
def padded_embedding(_):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(8, 4, padding_idx=0), nn.Linear(4, 1))
    tokens = torch.tensor([[1, 2, 0, 0], [3, 4, 5, 0]])
    optimizer = torch.optim.Adam(model.parameters())

    def step():
        optimizer.zero_grad()
        loss = model(tokens).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 3)


@healthy("Tarvainen, Valpola 2017: a teacher that is the moving average of its student")
def mean_teacher_inside_the_model(_):
    torch.manual_seed(0)
    model = nn.ModuleDict({"student": nn.Linear(4, 2), "teacher": nn.Linear(4, 2)})
    x = torch.rand(6, 4)
    optimizer = torch.optim.SGD(model.student.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        with torch.no_grad():
            goal = model.teacher(x)
        loss = F.mse_loss(model.student(x), goal)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(
                model.teacher.parameters(), model.student.parameters(), strict=True
            ):
                slow.mul_(0.99).add_(fast, alpha=0.01)
        return loss

    return Program(step, model, optimizer, 2)


@healthy("Kingma, Dhariwal 2018: the last layer of a coupling starts at zero")
def coupling_that_starts_as_the_identity(_):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 4))
    nn.init.zeros_(model[2].weight)
    nn.init.zeros_(model[2].bias)
    x = torch.randn(10, 4)

    def step():
        a, b = x.chunk(2, 1)
        scale, shift = model(a).chunk(2, 1)
        z = torch.cat([a, b * scale.exp() + shift], 1)
        return 0.5 * z.square().sum(1).mean() - scale.sum(1).mean()

    return Program(step, model)


@healthy("Schulman et al. 2017: the clipped objective of PPO is flat for some samples")
def ppo_with_clipped_ratios(_):
    model, x = linear(4, 3), torch.rand(8, 4)
    old = model(x).log_softmax(1).detach() + 0.4 * torch.randn(8, 3)
    advantage = torch.randn(8, 3)

    def step():
        ratio = (model(x).log_softmax(1) - old).exp()
        return -torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()

    return Program(step, model)


@healthy("Two optimizers that take turns; in one step each sees the other's gradients")
def two_optimizers_every_other_step(_):
    torch.manual_seed(0)
    model = nn.ModuleDict({"a": nn.Linear(4, 3), "b": nn.Linear(3, 1)})
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.1) for part in model.values()]
    x, y, turn = torch.rand(6, 4), torch.rand(6, 1), [0]

    def step():
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = F.mse_loss(model.b(torch.tanh(model.a(x))), y)
        loss.backward()
        optimizers[turn[0] % 2].step()
        turn[0] += 1
        return loss

    return Program(step, model, optimizers, 2)
