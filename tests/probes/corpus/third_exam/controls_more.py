"""The third examination, seventh room: healthy programs of layers, losses and distributions."""

import torch
import torch.distributions as D
import torch.nn.functional as F
from torch import nn

from tests.probes.corpus.case import Corpus
from tests.probes.corpus.third_exam.cuts import trained
from tests.probes.corpus.third_exam.optimizers import batch, two_layers

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy


@healthy("torch.nn.Transformer: causal mask of -inf, padding masks of booleans, padded labels")
def translation_with_masks_of_two_kinds(_):
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {
            "words": nn.Embedding(11, 8, padding_idx=0),
            "net": nn.Transformer(8, 2, 1, 1, 16, dropout=0.1, batch_first=True),
            "read": nn.Linear(8, 11),
        }
    )
    source, target = torch.randint(1, 11, (3, 6)), torch.randint(1, 11, (3, 5))
    source[1, 4:], target[2, 3:] = 0, 0
    causal = nn.Transformer.generate_square_subsequent_mask(4)

    def loss_of():
        seen = target[:, :-1]
        h = model["net"](
            model["words"](source),
            model["words"](seen),
            tgt_mask=causal,
            src_key_padding_mask=(source == 0).float().masked_fill(source == 0, float("-inf")),
            tgt_key_padding_mask=(seen == 0).float().masked_fill(seen == 0, float("-inf")),
        )
        out = model["read"](h)
        return F.cross_entropy(out.flatten(0, 1), target[:, 1:].flatten(), ignore_index=0)

    return trained(model, loss_of)


@healthy("Packed sequences of unequal lengths, both ways, the padded outputs pooled by a maximum")
def packed_sentences_pooled_by_a_maximum(_):
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {
            "words": nn.Embedding(9, 6, padding_idx=0, max_norm=1.0),
            "rnn": nn.GRU(6, 5, bidirectional=True, batch_first=True),
            "read": nn.Linear(10, 3),
        }
    )
    tokens, lengths = torch.randint(1, 9, (4, 7)), torch.tensor([3, 7, 1, 5])
    tokens[torch.arange(7) >= lengths[:, None]] = 0
    y = torch.tensor([0, 1, 2, 1])

    def loss_of():
        packed = nn.utils.rnn.pack_padded_sequence(
            model["words"](tokens), lengths, batch_first=True, enforce_sorted=False
        )
        out, _ = model["rnn"](packed)
        out, _ = nn.utils.rnn.pad_packed_sequence(
            out, batch_first=True, padding_value=float("-inf")
        )
        return F.cross_entropy(model["read"](out.max(1).values), y)

    return trained(model, loss_of)


@healthy("Jaderberg et al. 2015: a transformer that starts at the identity and looks beyond")
def spatial_transformer_from_the_identity(_):
    torch.manual_seed(0)
    model = nn.ModuleDict({"locate": nn.Linear(64, 6), "read": nn.Conv2d(1, 3, 3)})
    nn.init.zeros_(model["locate"].weight)
    model["locate"].bias.data.copy_(torch.tensor([1.3, 0, 0.2, 0, 1.3, 0.1]))
    pictures, y = torch.rand(12, 1, 8, 8), batch()[1]

    def loss_of():
        theta = model["locate"](pictures.flatten(1)).view(-1, 2, 3)
        grid = F.affine_grid(theta, pictures.shape, align_corners=False)
        seen = F.grid_sample(pictures, grid, align_corners=False)
        seen = F.interpolate(seen, scale_factor=1.5, mode="bicubic", antialias=True)
        return F.cross_entropy(model["read"](seen).amax((2, 3)), y)

    return trained(model, loss_of)


@healthy("Li et al. 2021: complex weights on a few modes, and the magnitude of silent ones")
def fourier_layer_with_silent_modes(_):
    class Spectral(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, dtype=torch.cfloat) * 0.3)
            self.read = nn.Linear(25, 3)

        def forward(self, x):
            z = torch.fft.rfft(x)
            low = F.pad(z[:, :4] * self.weight, (0, z.shape[1] - 4))
            return self.read(torch.cat([torch.fft.irfft(low, 16), low.abs()], 1))

    torch.manual_seed(0)
    model, y = Spectral(), batch()[1]
    x = torch.randn(12, 16)
    x[3] = 0.0
    return trained(model, lambda: F.cross_entropy(model(x), y))


@healthy("A maximum over each node's edges by scatter, and infinities where there is none")
def maximum_over_the_edges_by_scatter(_):
    torch.manual_seed(0)
    model = nn.ModuleDict({"message": nn.Linear(6, 4), "read": nn.Linear(4, 3)})
    x, y = batch()
    target = torch.tensor([0, 0, 1, 1, 1, 3, 3, 4, 4, 4, 6, 6])  # nodes 2 and 5 have no edge

    def loss_of():
        message = model["message"](x)
        place = target[:, None].expand_as(message)
        pooled = torch.full((7, 4), float("-inf")).scatter_reduce(0, place, message, "amax")
        pooled = pooled.masked_fill(pooled.isinf(), 0.0)
        return F.cross_entropy(model["read"](pooled), y[:7])

    return trained(model, loss_of)


@healthy("Mixtures, transforms and divergences of torch.distributions, all by rsample")
def distributions_of_many_kinds(_):
    torch.manual_seed(0)
    model = nn.ModuleDict({"net": two_layers(6), "mix": nn.Linear(6, 2)})
    x, _ = batch()
    action = torch.rand(12) * 1.6 - 0.8

    def loss_of():
        out = model["net"](x)
        law = D.Normal(out[:, 0], F.softplus(out[:, 1]) + 0.1)
        squashed = D.TransformedDistribution(law, [D.TanhTransform(cache_size=1)])
        draw = squashed.rsample()
        entropy = -squashed.log_prob(draw).mean()
        parts = D.Normal(out[:, 2:4], 0.5 + F.softplus(out[:, 4:6]))
        mixture = D.MixtureSameFamily(D.Categorical(logits=model["mix"](x)), parts)
        cost = D.kl_divergence(law, D.Normal(0.0, 1.0)).mean()
        return (
            cost
            - squashed.log_prob(action).mean()
            - mixture.log_prob(action).mean()
            - 0.1 * entropy
        )

    return trained(model, loss_of)


@healthy("Relaxed and straight-through samples: OneHotCategoricalStraightThrough, RelaxedBernoulli")
def relaxed_and_straight_through_samples(_):
    torch.manual_seed(0)
    model = nn.ModuleDict({"net": two_layers(5), "gate": nn.Linear(6, 5), "read": nn.Linear(5, 3)})
    x, y = batch()

    def loss_of():
        hard = D.OneHotCategoricalStraightThrough(logits=model["net"](x)).rsample()
        gate = D.RelaxedBernoulli(torch.tensor(0.5), logits=model["gate"](x)).rsample()
        return F.cross_entropy(model["read"](hard * 2 + gate), y)

    return trained(model, loss_of)


@healthy("Losses at their edges: sure probabilities, counts of zero, no variance, equal vectors")
def losses_at_their_edges(_):
    torch.manual_seed(0)
    model = nn.ModuleDict({"net": two_layers(4), "rate": nn.Linear(6, 1)})
    x, y = batch()
    counts = torch.arange(12.0) % 3

    def loss_of():
        out = model["net"](x)
        sure = torch.sigmoid(40 * out[:, 0])
        loss = F.binary_cross_entropy(sure, (out[:, 0] > 0).float().detach())
        loss = loss + F.poisson_nll_loss(model["rate"](x)[:, 0], counts, full=True)
        var = F.relu(out[:, 1]).clone()
        loss = loss + 1e-4 * F.gaussian_nll_loss(out[:, 2], counts, var, eps=1e-2)
        anchor = out[:, :3]
        loss = loss + F.triplet_margin_loss(anchor, anchor.roll(1, 0), -anchor)
        same = F.cosine_embedding_loss(anchor, torch.zeros_like(anchor), torch.ones(12))
        return loss + same + F.cross_entropy(out[:, 1:], y)

    return trained(model, loss_of)


@healthy("Products with an exact zero: torch.prod and torch.cumprod have derivatives there")
def products_with_an_exact_zero(_):
    torch.manual_seed(0)
    model = nn.Linear(6, 5)
    x, _ = batch()
    x[4] = 0.0
    with torch.no_grad():
        model.bias[1] = 0.0

    def loss_of():
        h = model(x)
        return h.prod(1).square().mean() + h.cumprod(1).mean().square() + h.square().mean()

    return trained(model, loss_of)


@healthy("Ledoit, Wolf 2004: eigenvalues that repeat, low rank, a log determinant")
def linear_algebra_that_is_well_posed(_):
    torch.manual_seed(0)
    model = nn.Linear(6, 4, bias=False)
    x, _ = batch()

    def loss_of():
        h = model(x[:3])  # three samples, four dimensions: a covariance of low rank
        cov = h.t() @ h / 3
        values = torch.linalg.eigvalsh(0.1 * torch.eye(4) + cov)
        whole = torch.logdet(cov + 0.1 * torch.eye(4))
        return values.log().sum() - 0.5 * whole + 0.01 * torch.linalg.svdvals(h).sum()

    return trained(model, loss_of)


@healthy("Batch norm in eval mode inside a trained network, and a channel that never varies")
def frozen_statistics_and_a_constant_channel(_):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 8),
        nn.BatchNorm1d(8, momentum=None),
        nn.ReLU6(),
        nn.Linear(8, 8),
        nn.BatchNorm1d(8).eval(),
        nn.Hardswish(),
        nn.Linear(8, 3),
    )
    x, y = batch()
    x[:, 2] = 1.0
    return trained(model, lambda: F.cross_entropy(model(x), y))


@healthy("Masked assignment and index_put with repeated rows, written out of place and in place")
def assignments_in_and_out_of_place(_):
    torch.manual_seed(0)
    model = nn.ModuleDict({"a": nn.Linear(6, 4), "b": nn.Linear(6, 4), "read": nn.Linear(4, 3)})
    x, y = batch()
    rows = torch.tensor([0, 0, 3, 5])

    def loss_of():
        h = torch.zeros(12, 4)
        h[:] = model["a"](x)
        h[x[:, 0] > 0] = model["b"](x)[x[:, 0] > 0]
        h = h.index_put((rows,), model["b"](x[:4]), accumulate=True)
        h = h.masked_scatter(x[:, 1:5] > 1.5, model["a"](x).flatten())
        h[:, 1] *= 0.5
        h += h.detach().mean(0, keepdim=True)
        return F.cross_entropy(model["read"](h.relu_()), y)

    return trained(model, loss_of)
