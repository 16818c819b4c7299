"""Runaway operator: what is harmless in one step is a power in many.

A latent operator moves cells by A z + b. After n steps the state holds A^n, so what counts is how
A stretches, and it is A that counts: a bound on its parts, or on its eigenvalues, is none on it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from labkit.bench import Claim, Reading, choice, dial
from labkit.cells.data import load_pbmc
from labkit.failures._by_hand import scaled_down
from labkit.models.operator import OPERATOR_OFF, OperatorGuards, OperatorModel
from labkit.models.spectral import NormBound, log10_growth, spectral_norm
from labkit.models.vae import embed
from labkit.probes.trace import trace
from labkit.probes.verdict import Verdict
from labkit.training.carry import Move, moves_by_tissue
from labkit.training.train import trained_vae
from labkit.training.train_operator import train_operator

Form = Callable[[Tensor, Tensor], Tensor]


def mixed(alpha: Tensor, basis: Tensor) -> Tensor:
    """The weighted sum of the basis operators, as it comes."""
    return torch.einsum("ck,kij->cij", alpha, basis)


def each_basis(alpha: Tensor, basis: Tensor, most: float = 1.05) -> Tensor:
    """The guide's bound, made hard: no basis operator above 1.05. The weights are free."""
    return mixed(alpha, NormBound(most)(basis))


def radius(alpha: Tensor, basis: Tensor) -> Tensor:
    """No eigenvalue above 1: that decides about the end of all days, not about the way there."""
    A = mixed(alpha, basis)
    largest = torch.linalg.eigvals(A.detach().float()).abs().amax(-1).clamp(min=1)
    return A / largest.to(A.dtype)[:, None, None]


def clipped(alpha: Tensor, basis: Tensor) -> Tensor:
    """Every singular value at most 1. The vectors have no gradient where two values are equal."""
    A = mixed(alpha, basis)
    U, S, V = torch.linalg.svd(A.float())
    return ((U * S.clamp(max=1)[:, None]) @ V).to(A.dtype)


def bounded(alpha: Tensor, basis: Tensor, most: float = 1.0) -> Tensor:
    """Mix first, then scale the mixture down to norm 1 where it exceeds it."""
    return NormBound(most)(mixed(alpha, basis))


TITLE = "Runaway operator"
NICKNAME = "one step is no rollout"
SYMPTOM = "One step fits well; after many steps the states, and the gradients, are astronomical."
CLAIM = Claim(
    quote="spectral_penalty: 约束算子范数<1.05",
    translation="the spectral penalty keeps the norm of the operator below 1.05",
    verdict="incomplete guard",
    truth="It sees the basis operators. On real cells each of them ends near 1.05, and the "
    "operator that they add up to has norm 2.5. And 1.05^1000 is 1.5e21.",
)
SOURCES = (
    "Trefethen and Embree (2005), Spectra and Pseudospectra, chapters 14 to 16: transient growth",
    "Bengio, Simard and Frasconi (1994), Learning Long-Term Dependencies with Gradient Descent "
    "is Difficult",
    "Miyato et al. (2018), Spectral Normalization for Generative Adversarial Networks",
)
CARD = {
    "cause": "n steps multiply by A^n, and the norm of A is above 1.",
    "repair": "Bound the norm of the mixed A in the forward pass: by 1, or by G^(1/n).",
    "proof": "The largest state after n steps is no larger than before, for any weights.",
}
TOO_SMALL = (
    "A shrinks so much that a gradient is exactly zero, or nearly. What is healthy must come out "
    "as it went in: act only where the norm of A is above 1."
)
HINTS = {
    Verdict.EXPLODING: "finite, but a power of the step. What is multiplied with itself is A, the "
    "mixture: a bound on each basis operator or on the eigenvalues of A does not hold its norm.",
    Verdict.INF: "what is multiplied with itself is A, the mixture. Bound its spectral norm.",
    Verdict.NAN: "the operator starts as the identity, all of whose singular values are equal. "
    "The gradient of a singular vector divides by their difference: take the norm alone.",
    Verdict.DEAD: TOO_SMALL,
    Verdict.VANISHING: TOO_SMALL,
}
FORMS: dict[str, Form] = {
    "mixed": mixed,
    "each basis": each_basis,
    "radius": radius,
    "svd": clipped,
    "norm": bounded,
}
FORM_KNOB = "bound"
MAP = {"norm": (0.05, 0.4, 1.0, 1.5, 2.0, 2.5, 3.0), "bound": tuple(FORMS)}
RADIUS = 0.9  # every eigenvalue of the chain


@dataclass(frozen=True)
class Settings:
    """The knobs of this bench."""

    norm: float = dial(0.95, 0.05, 3.0, 0.05, "", "spectral norm of A, before any bound")
    steps: float = dial(4, 1, 32, 1, "steps", "how often A is applied")
    operator: str = choice("learned", ("learned", "identity", "chain"), "which A")
    bound: str = choice("mixed", FORMS, "from weights and basis operators to A")
    dtype: str = choice("float32", ("float16", "float32", "float64"), "of states and operator")


CASES = {
    "healthy": Settings(),
    "broken": Settings(norm=2.45, steps=24),
    "repaired": Settings(norm=2.45, steps=24, bound="norm"),
    "chain": Settings(norm=2.0, steps=32, operator="chain"),
    "contracting": Settings(norm=0.5, steps=32),
}
CHECKS = ((Settings(norm=1.5, steps=24, operator="identity"), Verdict.HEALTHY, ""),)
BY_HAND = ((scaled_down, "each condition's A has a norm of its own: scale it to 1, not 1.05."),)


class Rollout(nn.Module):
    """Cells, an offset before the first step as an encoder's bias would be, and n steps of A."""

    def __init__(self, model: OperatorModel, form: Form):
        super().__init__()
        self.operator, self.offset = model, nn.Parameter(torch.zeros(model.sizes[0]))
        model.operator = lambda condition: form(model.alpha(condition), model.basis)

    def forward(self, move: Move, steps: int) -> Tensor:
        """The last states, shape (cell, latent)."""
        conditions = (c.expand(len(move.before), -1) for c in (move.tissue, move.perturbation))
        return self.operator(move.before + self.offset, *conditions, steps, OPERATOR_OFF)


def run(settings: Settings, repair: Form | None = None) -> Reading:
    """One training step of the operator that carries real monocytes to dendritic cells.

    Args:
        settings: the knobs.
        repair: a function of weights, shape (condition, basis), and basis operators, shape
            (basis, latent, latent), to A, shape (condition, latent, latent).
    """
    form = repair or FORMS[settings.bound]
    (model, move), steps = _prepared(settings, settings.dtype, form), int(settings.steps)
    report = trace(lambda: loss(model, move, steps), model=model)
    with torch.no_grad():
        truth = float(loss(*_prepared(settings, "float64", form), steps))
    return Reading(settings, report.verdict, report, report.losses[0], truth)


def loss(model: Rollout, move: Move, steps: int) -> Tensor:
    """Energy distance of the moved cells to their target, without the target's own term."""
    z = model(move, steps)
    z, target = (t if t.dtype == torch.float64 else t.float() for t in (z, move.after))
    return 2 * _mean_distance(z, target) - _mean_distance(z, z)


def _mean_distance(a: Tensor, b: Tensor) -> Tensor:
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").mean()


@lru_cache(maxsize=1)
def cells_to_move() -> Move:
    """Latent states of the monocytes and dendritic cells of one tissue that may be trained on."""
    cells = load_pbmc()
    before, after = (
        cells.cell_type == cells.type_names.index(name) for name in ("CD14+ Monocyte", "Dendritic")
    )
    return moves_by_tissue(embed(trained_vae(), cells), cells, before, after, torch.ones(1))[0][0]


@lru_cache(maxsize=8)
def learned(penalty: float = 10.0, weights: str = "linear") -> OperatorModel:
    """An operator after 100 updates with the guide's penalty, one step at a time."""
    move = cells_to_move()
    model = OperatorModel(move.before.shape[1], len(move.tissue), 1, weights=weights)
    train_operator(model, [move], updates=100, guards=OPERATOR_OFF, penalty=penalty)
    return model


@torch.no_grad()
def matrix(model: OperatorModel) -> Tensor:
    """A of the tissue that was trained on, shape (latent, latent)."""
    move = cells_to_move()
    return model.operator(torch.cat([move.tissue, move.perturbation])[None])[0]


def chain(norm: float, size: int = 8) -> Tensor:
    """Each axis feeds the next: every eigenvalue is 0.9 (or the norm, if smaller)."""
    eye, step, low, high = torch.eye(size), torch.ones(size - 1).diag(1), 0.0, norm
    for _ in range(40):  # bisection: the norm grows with what is fed on
        middle = (low + high) / 2
        small = spectral_norm(min(RADIUS, norm) * eye + middle * step) < norm
        low, high = (middle, high) if small else (low, middle)
    return min(RADIUS, norm) * eye + low * step


def growth(steps: int = 150) -> dict[str, list[float]]:
    """log10 of how far n steps can stretch, for n from 1, by operator."""
    A = matrix(learned())
    named = {"learned, radius 1": A / torch.linalg.eigvals(A).abs().max()}
    named |= {"chain, norm 1.2": chain(1.2), "norm 1.05": 1.05 * torch.eye(len(A))}
    named |= {"learned, norm 1": NormBound()(A)}
    return {name: log10_growth(A, steps).tolist() for name, A in named.items()}


def ways(updates: int = 100, most: float = 1.05) -> dict[str, tuple[float, list[float]]]:
    """Three ways to hold the norm while training on real cells: the loss, A's singular values.

    The weights are convex, so that a bound on each basis operator is one on A.
    """
    bound, move = NormBound(most), cells_to_move()

    def trained(guards: OperatorGuards = OPERATOR_OFF, **options):
        model = OperatorModel(move.before.shape[1], len(move.tissue), 1)
        if options.pop("shrink", False):
            options["on_update"] = lambda *_: model.basis.data.copy_(bound(model.basis.detach()))
        losses = train_operator(model, [move], updates, guards=guards, **options).losses
        return losses[-1], torch.linalg.svdvals(guards.operator(matrix(model)[None])[0]).tolist()

    return {
        "penalty of weight 1": trained(penalty=1.0),
        "scaled after each step": trained(shrink=True),
        "bounded in the forward pass": trained(OperatorGuards(operator=bound)),
    }


def _prepared(settings: Settings, dtype: str, form: Form) -> tuple[Rollout, Move]:
    """A fresh rollout whose A has the wanted kind and norm, and the cells, in one dtype."""
    move, source = cells_to_move(), learned()
    model = OperatorModel(*source.sizes, weights="linear")
    model.load_state_dict(source.state_dict())
    with torch.no_grad():
        if settings.operator == "learned":  # by its weights, so that no basis operator exceeds 1.05
            scale = settings.norm / float(spectral_norm(matrix(source)))
            here = torch.cat([move.tissue, move.perturbation])[None]
            wanted = model.alpha(here)[0] * scale - 1 / len(model.basis)
            model.response.copy_(wanted / 2)  # tissue and perturbation, half each
        else:
            one = settings.norm * torch.eye(model.sizes[0])
            model.basis.copy_(one if settings.operator == "identity" else chain(settings.norm))
            model.response.zero_().requires_grad_(False)  # equal operators: nothing to weigh
    kind = getattr(torch, dtype)
    states = (t.to(kind) for t in (move.before, move.after, move.tissue, move.perturbation))
    return Rollout(model, form).to(kind), Move(*states)
