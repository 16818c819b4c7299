"""no_grad: what it cuts, what it leaves alone, and what it does not freeze (guide, 1.2)."""

import torch
from torch import nn

from labkit.claims.entry import Ruling, claim, truth
from labkit.claims.subjects import error_of, linear, loss_of, normal, vae
from labkit.models.vae import NBVAE


@claim(
    "G05",
    chinese="z = model.encoder(x)  # z不会有梯度",
    english="Inside no_grad z has no gradient, and nothing can be back-propagated to the encoder.",
    where="1.2 no_grad",
    verdict="holds with a condition",
)
def a_loss_behind_no_grad_cannot_be_back_propagated(learns_behind: bool = True) -> Ruling:
    """The whole loss under no_grad; then the encoder alone, with a decoder that learns behind."""
    whole, x = nn.Sequential(linear(6, 3), linear(3, 6, seed=1)), normal(64, 6)
    with torch.no_grad():
        loud = error_of((whole(x) - x).square().mean().backward)
    whole[1].requires_grad_(learns_behind)
    losses, optimizer = [], torch.optim.SGD(whole.parameters(), 0.1)
    for _ in range(50):
        with torch.no_grad():
            z = whole[0](x)
        optimizer.zero_grad()
        loss = (whole[1](z) - x).square().mean()
        silent = error_of(loss.backward)
        optimizer.step()
        losses.append(float(loss.detach()))
    alone = whole[0].weight.grad is None
    return truth(bool(loud and silent), sometimes=bool(loud) and alone), (
        f"With the whole loss inside, backward raises {loud or 'nothing'}; with a decoder that "
        f"learns behind the block it raises {silent or 'nothing'} and the loss falls to "
        f"{losses[-1] / losses[0]:.0%} while the encoder's gradient stays "
        f"{'None' if alone else 'alive'}."
    )


@claim(
    "G06",
    chinese="embed_model不在优化器中 → 正确使用no_grad",
    english="What is not in the optimizer may be wrapped in no_grad.",
    where="1.2 no_grad, rule of the project",
    verdict="holds with a condition",
)
def what_is_not_in_the_optimizer_may_be_under_no_grad(block=torch.no_grad) -> Ruling:
    """A frozen encoder in front of what learns; a frozen decoder behind it."""
    in_front, through, behind = _encoder_gradients(block)
    # The KL has a graph of its own, so backward raises nothing: no weight penalty is needed.
    harmless = behind > 0.99 * through
    return truth(as_written=in_front > 0 and harmless, sometimes=in_front > 0), (
        f"A frozen half in front leaves the half that learns a gradient of {in_front:.2g}; a "
        f"frozen decoder behind the encoder, under no_grad, leaves it {behind:.2g} of "
        f"{through:.3g}, and nothing raises, because the KL still has a graph."
    )


def _encoder_gradients(block) -> tuple[float, float, float]:
    """Decoder behind a frozen encoder; encoder with the decoder's way open; and closed."""
    model = vae()
    model.encoder.requires_grad_(False)
    loss_of(model).backward()
    in_front = float(model.decoder.hidden.weight.grad.norm())
    model = vae()
    model.decoder.requires_grad_(False)
    loss_of(model).backward()
    through = float(model.encoder.fc_mu.weight.grad.norm())
    return in_front, through, float(_closed(vae(), block).encoder.fc_mu.weight.grad.norm())


def _closed(model: NBVAE, block) -> NBVAE:
    whole = model.decoder.forward

    def closed(*args, **options):
        with block():
            return whole(*args, **options)

    model.decoder.forward = closed
    loss_of(model).backward()
    return model


@claim(
    "G07",
    chinese="只对真正冻结的部分使用no_grad",
    english="no_grad is for the parts that are really frozen.",
    where="1.2 no_grad, checklist",
    verdict="holds with a condition",
)
def no_grad_freezes(mode: str = "train") -> Ruling:
    """BatchNorm and Dropout under no_grad, in a mode."""
    frozen = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5)).train(mode == "train")
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for seed in range(20):
            out = frozen(normal(64, 4, seed=seed) + 5)
    drift, zeros = float(frozen[0].running_mean.mean()), float((out == 0).float().mean())
    recorded = out.requires_grad
    still = drift == 0 and zeros == 0
    return truth(not recorded and still, sometimes=not recorded), (
        f"20 forward passes in {mode} mode under no_grad record no graph, but move BatchNorm's "
        f"running mean from 0 to {drift:.1f} and let Dropout zero {zeros:.0%}."
    )
