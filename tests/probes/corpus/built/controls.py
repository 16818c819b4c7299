"""Healthy programs that look ill to a careless eye."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.built.births import GH, linear
from tests.probes.corpus.built.severed import Auto, fit
from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
healthy = corpus.healthy


@healthy(GH + "pytorch/pytorch/issues/26098")
def causal_mask_with_minus_infinity(_):
    model, x = linear(4, 4), torch.rand(3, 4)
    mask = torch.full((3, 3), float("-inf")).triu(1)

    def step():
        h = model(x)
        return (torch.softmax(h @ h.t() + mask, -1) @ h).square().mean()

    return Program(step, model)


@healthy(GH + "pytorch/pytorch/issues/27968")
def padding_mask_in_multihead_attention(_):
    torch.manual_seed(0)
    model, x = nn.MultiheadAttention(4, 2, batch_first=True), torch.rand(2, 3, 4)
    hidden = torch.tensor([[False, False, True], [False, True, True]])
    return Program(lambda: model(x, x, x, key_padding_mask=hidden)[0].square().mean(), model)


@healthy(GH + "wenet-e2e/wenet/pull/2299")
def ctc_with_its_table_of_infinities(_):
    torch.manual_seed(0)
    model, x = nn.Linear(5, 4), torch.rand(6, 2, 5)
    target = torch.tensor([[1, 2], [3, 1]])
    lengths = torch.tensor([6, 6]), torch.tensor([2, 2])
    return Program(lambda: F.ctc_loss(model(x).log_softmax(-1), target, *lengths), model)


@healthy(GH + "wenet-e2e/wenet/pull/2299")
def ctc_drops_an_impossible_target(_):
    torch.manual_seed(0)
    model, x = nn.Linear(5, 4), torch.rand(3, 2, 5)
    target, lengths = (
        torch.tensor([[1, 1, 1], [1, 2, 0]]),
        (torch.tensor([3, 3]), torch.tensor([3, 2])),
    )

    def step():
        return F.ctc_loss(model(x).log_softmax(-1), target, *lengths, zero_infinity=True)

    return Program(step, model)


@healthy(GH + "pytorch/pytorch/issues/37154")
def cdist_between_identical_rows(_):
    x = torch.rand(5, 3, requires_grad=True)
    return Program(lambda: torch.cdist(x, x).mean())


@healthy(GH + "pytorch/pytorch/pull/26512")
def scaler_skips_one_overflow(_):
    model, x = linear(4, 2), torch.rand(3, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)

    def step():
        optimizer.zero_grad()
        loss = (model(x) * 4).square().mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update(2.0**10)
        return loss

    return Program(step, model, optimizer, 3)


@healthy(GH + "jax-ml/jax/pull/8140")
def nanmean_over_missing_data(_):
    model, x, y = linear(4, 2), torch.rand(5, 4), torch.rand(5, 2)
    y[1, 0] = y[3, 1] = float("nan")
    return Program(lambda: (model(x) - y.nanmean(0)).square().mean(), model)


@healthy(GH + "gnn-tracking/gnn_tracking/issues/172")
def missing_targets_chosen_away(_):
    model, x, y = linear(4, 2), torch.rand(5, 4), torch.rand(5, 2)
    y[1, 0] = float("nan")
    seen = ~y.isnan()
    return Program(lambda: (model(x)[seen] - y[seen]).square().mean(), model)


@healthy(
    "Mnih et al. 2015, target network of DQN; ClownW/Reinforcement-learning-with-PyTorch/issues/3"
)
def target_network_without_gradient(_):
    model = linear(4, 2)
    target, x = copy.deepcopy(model), torch.rand(5, 4)
    optimizer = torch.optim.Adam(model.parameters())

    def step():
        optimizer.zero_grad()
        with torch.no_grad():
            goal = 1 + 0.9 * target(x).amax(1)
        loss = F.mse_loss(model(x)[:, 0], goal)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(target.parameters(), model.parameters(), strict=True):
                slow.lerp_(fast, 0.1)
        return loss

    return Program(step, nn.ModuleDict({"model": model, "target": target}), optimizer, 3)


@healthy("Transformers documentation: freezing the base model")
def frozen_embedder(_):
    model, x = Auto(), torch.rand(5, 4)
    model.encoder.requires_grad_(False)
    return fit(model, x, torch.optim.Adam(model.parameters()), 2)


@healthy(GH + "arneschneuing/DiffSBDD/issues/10")
def head_trained_on_features_under_no_grad(_):
    model, x = Auto(), torch.rand(5, 4)
    optimizer = torch.optim.SGD(model.decoder.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        with torch.no_grad():
            h = model.encoder(x)
        loss = F.mse_loss(model.decoder(h), x)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@healthy(GH + "cloneofsimo/lora")
def lora_starts_at_zero(_):
    torch.manual_seed(0)
    model = nn.ParameterDict({"down": torch.rand(4, 2), "up": torch.zeros(2, 3)})
    base, x = torch.rand(4, 3), torch.rand(5, 4)
    return Program(lambda: (x @ base + x @ model["down"] @ model["up"]).square().mean(), model)


@healthy(GH + "cloneofsimo/lora")
def lora_over_three_steps(_):
    torch.manual_seed(0)
    model = nn.ParameterDict({"down": torch.rand(4, 2), "up": torch.zeros(2, 3)})
    base, x = torch.rand(4, 3), torch.rand(5, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        loss = (x @ base + x @ model["down"] @ model["up"]).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 3)


@healthy("https://arxiv.org/abs/1502.03167: a bias before BatchNorm cancels")
def bias_before_batch_norm(_):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 1))
    return fit_target(model, 3)


def fit_target(model, steps):
    x, y = torch.rand(16, 4), torch.rand(16, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def step():
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, steps)


@healthy("Vaswani et al. 2017: softmax does not see the bias of the keys")
def key_bias_of_attention(_):
    torch.manual_seed(0)
    model = nn.ModuleDict({name: nn.Linear(8, 8) for name in ("q", "k", "v")})
    x = torch.rand(2, 6, 8)

    def step():
        q, k, v = (model[name](x) for name in ("q", "k", "v"))
        return (torch.softmax(q @ k.transpose(1, 2) / 8**0.5, -1) @ v).square().mean()

    return Program(step, model)


@healthy(GH + "Lightning-AI/pytorch-lightning/issues/591")
def alternating_networks_of_a_gan(_):
    torch.manual_seed(0)
    maker, judge = nn.Linear(3, 4), nn.Linear(4, 1)
    real = torch.rand(6, 4)
    adam = [torch.optim.Adam(net.parameters(), lr=1e-3) for net in (maker, judge)]

    def step():
        adam[1].zero_grad()
        fake = maker(torch.rand(6, 3))
        (F.softplus(judge(fake.detach())) + F.softplus(-judge(real))).mean().backward()
        adam[1].step()
        adam[0].zero_grad()
        loss = F.softplus(-judge(fake)).mean()
        loss.backward()
        adam[0].step()
        return loss

    return Program(step, nn.ModuleDict({"maker": maker, "judge": judge}), adam, 3)


@healthy(GH + "facebookresearch/ConvNeXt/pull/91")
def warm_up_from_a_rate_of_zero(_):
    model, x = linear(4, 2), torch.rand(5, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda count: count / 4)

    def step():
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        schedule.step()
        return loss

    return Program(step, model, optimizer, 3)


@healthy(GH + "pytorch/pytorch/issues/68941")
def straight_through_gumbel(_):
    torch.manual_seed(0)
    return fit(Auto(lambda h: F.gumbel_softmax(h, hard=True)), torch.rand(5, 4))


@healthy("PyTorch documentation of ReduceLROnPlateau: the best value starts at infinity")
def best_value_starts_at_infinity(_):
    model, x = linear(4, 2), torch.rand(5, 4)
    best = torch.tensor(float("inf"))

    def step():
        loss = model(x).square().mean()
        best.copy_(torch.minimum(best, loss.detach()))
        return loss

    return Program(step, model)


@healthy(GH + "karpathy/makemore/issues/22")
def batch_norm_in_training(_):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten())
    x = torch.rand(4, 1, 5, 5)
    return Program(lambda: model(x).square().mean(), model)


@healthy(GH + "pytorch/pytorch/issues/156212")
def double_where(_):
    x = torch.tensor([-1.0, 0.0, 4.0], requires_grad=True)

    def step():
        ok = x > 0
        return torch.where(ok, torch.sqrt(torch.where(ok, x, torch.ones_like(x))), x).sum()

    return Program(step)


@healthy(GH + "pytorch/pytorch/issues/715")
def unused_layer_of_a_module_list(_):
    torch.manual_seed(0)
    model = nn.ModuleList([nn.Linear(4, 2), nn.Linear(4, 2)])
    x = torch.rand(5, 4)
    return Program(lambda: model[0](x).square().mean(), model)


@healthy(GH + "openai/CLIP/issues/15")
def unset_memory_that_is_filled(_):
    x = torch.rand(4, requires_grad=True)

    def step():
        torch.use_deterministic_algorithms(True)
        try:
            out = torch.empty(4)
        finally:
            torch.use_deterministic_algorithms(False)
        out[:] = x * 2
        return out.sum()

    return Program(step)


@healthy("https://pytorch.org/docs/stable/notes/amp_examples.html: gradient accumulation")
def gradients_accumulate_over_four_steps(_):
    model, x, count = linear(4, 2), torch.rand(5, 4), [0]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        loss = model(x).square().mean()
        loss.backward()
        count[0] += 1
        if count[0] % 4 == 0:
            optimizer.step()
            optimizer.zero_grad()
        return loss

    return Program(step, model, optimizer, 4)


@healthy(GH + "daikichiba9511/my-kaggle-template/issues/9")
def bad_batch_is_skipped_by_hand(_):
    model, count = linear(4, 2), [0]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        count[0] += 1
        x = torch.rand(5, 4)
        if count[0] == 2:
            x[0, 0] = float("nan")
        loss = model(x).square().mean()
        if not torch.isfinite(loss):
            return loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 3)


@healthy(GH + "Haian-Jin/LVSM/pull/19")
def clipping_a_large_gradient(_):
    model, x = linear(4, 2), torch.rand(5, 4) * 50
    optimizer = torch.optim.Adam(model.parameters())

    def step():
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@healthy(GH + "philtabor/Youtube-Code-Repository/issues/59")
def logging_by_item_and_numpy(_):
    model, x, seen = linear(4, 2), torch.rand(5, 4), []
    optimizer = torch.optim.Adam(model.parameters())

    def step():
        optimizer.zero_grad()
        out = model(x)
        loss = out.square().mean()
        seen.append((loss.item(), out.detach().numpy().max(), out.argmax(1).tolist()))
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@healthy(GH + "huggingface/transformers/pull/19229")
def mask_of_the_smallest_number(_):
    model, x = linear(4, 4), torch.rand(3, 4)
    hidden = torch.ones(3, 3, dtype=torch.bool).triu(1)

    def step():
        h = model(x)
        scores = (h @ h.t()).masked_fill(hidden, torch.finfo(torch.float32).min)
        return (torch.softmax(scores, -1) @ h).square().mean()

    return Program(step, model)


@healthy("Chen, He 2021: SimSiam stops the gradient on purpose")
def stop_gradient_between_two_views(_):
    torch.manual_seed(0)
    model, a, b = Auto(), torch.rand(5, 4), torch.rand(5, 4)

    def step():
        return -F.cosine_similarity(model(a), model.encoder(b).detach() @ torch.ones(3, 4)).mean()

    return Program(step, model)


@healthy(GH + "KevinMusgrave/pytorch-metric-learning/issues/227")
def hinge_already_satisfied(_):
    model, x = linear(4, 1), torch.rand(5, 4)
    with torch.no_grad():
        model.bias.fill_(9.0)
    return Program(lambda: torch.relu(1 - model(x)).mean(), model)
