"""no_grad: it stops the recording of a graph; it freezes nothing, and it cuts what passes through.

A VAE has two halves. One is pretrained and shall stay as it is, the other learns. Around a frozen
half that comes first, ``no_grad`` is right and saves memory. Around one that comes second, it cuts
the way back to the half that learns, and the KL term keeps everybody from noticing.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Generator, Tensor, nn

from labkit.bench import Claim, Reading, choice, dial
from labkit.cells.data import Cells, load_pbmc
from labkit.failures._batch import batch
from labkit.failures._halves import Decode, Encode, learners, trained_halves
from labkit.failures._whole import Gradients, blamed, gradients, judged
from labkit.models.likelihood import kl_standard_normal, nb_log_likelihood_from_logs
from labkit.models.vae import NBVAE, embed, sample_z
from labkit.probes.report import Report
from labkit.probes.trace import trace
from labkit.probes.verdict import Verdict
from labkit.training.train import trained_vae

Form = Callable[[Tensor, nn.Module, bool], Tensor]

TITLE = "no_grad"
NICKNAME = "the door that shuts behind you"
SYMPTOM = "Every gradient is alive, and the reconstruction gets no better."
CLAIM = Claim(
    quote="embed_model不在优化器中 → 正确使用no_grad",
    translation="embed_model is not in the optimizer: it is right to use no_grad",
    verdict="holds with a condition",
    truth="Right only if nothing that learns comes before it. A frozen half behind the one that "
    "learns must let the gradient through: requires_grad_(False), and no block.",
)
SOURCES = (
    "PyTorch documentation, Autograd mechanics: locally disabling gradient computation",
    "PyTorch documentation, torch.nn.BatchNorm1d: running statistics in training mode",
    "Ioffe and Szegedy (2015), Batch Normalization, ICML",
)
CARD = {
    "cause": "no_grad around a frozen part that lies between the loss and a part that learns.",
    "repair": "Freeze the weights, not the way: half.eval() and half.requires_grad_(False).",
    "proof": "The gradient of the half that learns agrees with the slope of the loss.",
}


def plain(x: Tensor, half: nn.Module, learns: bool) -> Tensor:
    """Nothing is done: only the optimizer leaves the frozen half alone."""
    return half(x)


def needless(x: Tensor, half: nn.Module, learns: bool) -> Tensor:
    """The guide's first example: the encoder is in no_grad, whether it learns or not."""
    with torch.set_grad_enabled(isinstance(half, Decode)):
        return half(x)


def no_grad(x: Tensor, half: nn.Module, learns: bool) -> Tensor:
    """The guide's rule: what does not learn runs in no_grad."""
    with torch.set_grad_enabled(learns):
        return half(x)


def weights_only(x: Tensor, half: nn.Module, learns: bool) -> Tensor:
    """The weights are frozen; BatchNorm and Dropout go on as in training."""
    return half.requires_grad_(learns)(x)


def frozen(x: Tensor, half: nn.Module, learns: bool) -> Tensor:
    """Weights, statistics and dropout stand still, and the gradient passes."""
    return half.requires_grad_(learns).train(learns)(x)


FORMS: dict[str, Form] = {
    "plain": plain,
    "needless": needless,
    "no_grad": no_grad,
    "weights": weights_only,
    "frozen": frozen,
}
FORM_KNOB = "run_as"


@dataclass(frozen=True)
class Settings:
    """The knobs of this bench."""

    learns: str = choice("decoder", ("decoder", "encoder", "both"), "what the optimizer holds")
    kl: float = dial(1.0, 0.0, 4.0, 0.5, "", "weight of the KL term; it does not pass the decoder")
    norm: str = choice("off", ("off", "on"), "a BatchNorm at the end of the encoder")
    run_as: str = choice("frozen", FORMS, "how each half is run")


CASES = {
    "healthy": Settings(),
    "guide": Settings(run_as="no_grad"),
    "broken": Settings(learns="encoder", run_as="no_grad"),
    "needless": Settings(learns="both", run_as="needless"),
    "drifting": Settings(norm="on", run_as="no_grad"),
    "repaired": Settings(learns="encoder", run_as="frozen"),
}
THROUGH = (
    "a gradient is alive and not the slope of the loss: the way through a frozen half is shut, or "
    "its statistics move. no_grad records no way back. Freeze the weights instead, and call eval()."
)
CHECKS = ((CASES["drifting"], Verdict.HEALTHY, THROUGH), (CASES["needless"], Verdict.HEALTHY, ""))
HINTS = {
    Verdict.WRONG: THROUGH,
    Verdict.FROZEN: "the half that does not learn gets a gradient, but no optimizer holds it. Tell "
    "its weights so: requires_grad_(learns).",
    Verdict.UNTRAINED: "nothing learns any more: everything is frozen. Freeze a half only where "
    "`learns` is False, and let the other one ask for gradients.",
}


def run(settings: Settings, repair: Form | None = None) -> Reading:
    """One training step of the trained model on 64 real cells, one half of it frozen.

    Args:
        settings: the knobs.
        repair: a function of the input, a half of the model and whether that half learns, in
            place of the chosen form. It is called once for each half.
    """
    form, cells = repair or FORMS[settings.run_as], batch()
    model = trained_halves(settings.norm)
    before = [buffer.clone() for buffer in model.norm.buffers()]
    optimizer = torch.optim.SGD(learners(model, settings.learns).values(), lr=1e-3)
    report = trace(lambda: loss(model, cells, form, settings), model, optimizer)
    reference, truth = _truth(settings.learns, settings.kl, settings.norm)
    if report.verdict in (Verdict.HEALTHY, Verdict.VANISHING):
        again = trained_halves(settings.norm)
        mine = gradients(loss(again, cells, form, settings), again)
        mine = {name: mine.get(name, torch.zeros_like(true)) for name, true in truth.items()}
        report = judged(report, mine, truth)
        if settings.learns == "decoder":
            report = _at_rest(report, before, list(model.norm.buffers()))
    value = report.losses[0] if report.losses else float("nan")
    return Reading(settings, report.verdict, report, value, reference)


def loss(model: NBVAE, cells: Cells, form: Form, settings: Settings) -> Tensor:
    """Negative ELBO in nats per cell; each half is run by a form."""
    reconstruction, kl = parts(model, cells, form, settings.learns)
    return reconstruction + settings.kl * kl if settings.kl else reconstruction


def parts(
    model: NBVAE, cells: Cells, form: Form, learns: str, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Reconstruction and KL, in nats per cell."""
    noise = Generator().manual_seed(seed)
    encode, decode = Encode(model, cells), Decode(model, cells)
    mu_z, logvar_z = form(cells.counts, encode, learns != "decoder").chunk(2, -1)
    z = sample_z(mu_z, logvar_z, noise)
    log_mu, log_r = form(z, decode, learns != "encoder").chunk(2, -1)
    log_p = nb_log_likelihood_from_logs(cells.counts, log_mu, log_r)
    return -log_p.sum(-1).mean(), kl_standard_normal(mu_z, logvar_z).mean()


def courses(steps: int = 60, lr: float = 5e-3) -> dict[str, list[float]]:
    """Reconstruction while a new encoder learns in front of the trained decoder, by form."""
    return {name: _course(FORMS[name], steps, lr) for name in ("no_grad", "frozen")}


def _course(form: Form, steps: int, lr: float) -> list[float]:
    cells, model = batch(), trained_halves("off")
    model.encoder = NBVAE.for_cells(cells, seed=1).encoder
    optimizer = torch.optim.Adam(model.encoder.parameters(), lr)
    path = []
    for step in range(steps):
        reconstruction, kl = parts(model, cells, form, "encoder", seed=step)
        optimizer.zero_grad()
        (reconstruction + kl).backward()
        optimizer.step()
        path.append(float(reconstruction.detach()))
    return path


def live_parts(passes: int = 20) -> dict[str, tuple[float, float]]:
    """What moves under no_grad, by mode: the running mean, and the share that dropout zeroes."""
    z, found = embed(trained_vae(), load_pbmc().train), {}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for mode, training in (("train()", True), ("eval()", False)):
            norm, drop = nn.BatchNorm1d(z.shape[1]).train(training), nn.Dropout(0.5).train(training)
            for _ in range(passes):
                norm(z)
            zeroed = float((drop(torch.ones_like(z)) == 0).float().mean())
            found[mode] = (round(float(norm.running_mean.norm()), 1), round(zeroed, 1))
    return found


def _at_rest(report: Report, before: list[Tensor], after: list[Tensor]) -> Report:
    """The report, or one that says *wrong* where the statistics of a frozen half moved."""
    moved = max((float((a - b).abs().max()) for a, b in zip(after, before, strict=True)), default=0)
    if not moved:
        return report
    norm = next((op for op in report.ops if "batch_norm" in op.name), report.ops[-1])
    remark = "no_grad does not freeze: the running statistics of the frozen half have moved"
    return replace(report, verdict=Verdict.WRONG, culprit=blamed(norm, remark, "batch_norm"))


@lru_cache(maxsize=64)
def _truth(learns: str, kl: float, norm: str) -> tuple[float, Gradients]:
    """The loss in float64 and the gradient of the half that learns."""
    model = trained_halves(norm).double()
    settings = Settings(learns=learns, kl=kl, norm=norm)
    value = loss(model, batch(torch.float64), frozen, settings)
    wanted = learners(model, learns)
    return float(value.detach()), {n: g for n, g in gradients(value, model).items() if n in wanted}
