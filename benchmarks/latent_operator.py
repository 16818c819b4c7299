"""What bounds a rollout, what it costs, and what an operator learned on real cells is worth.

`python benchmarks/latent_operator.py`
"""

from collections.abc import Callable
from dataclasses import replace
from statistics import median
from time import process_time

import torch

from labkit.cells.data import Cells, load_pbmc
from labkit.cells.simulate import Truth, simulate
from labkit.models.guards import unguarded
from labkit.models.operator import OPERATOR_GUIDE, OPERATOR_OFF, OPERATOR_REPAIRED, OperatorModel
from labkit.models.spectral import NormBound, log10_growth, spectral_norm
from labkit.models.vae import embed
from labkit.training.carry import Move, carry, moves_by_tissue
from labkit.training.train import trained_vae
from labkit.training.train_operator import operator_loss, train_operator

LATENT, CELLS, UPDATES, LR, WANTED = 8, 256, 1000, 0.01, 1.3
PAIRS = (
    ("CD14+ Monocyte", "Dendritic"),
    ("CD8+/CD45RA+ Naive Cytotoxic", "CD8+ Cytotoxic T"),
    ("CD19+ B", "Dendritic"),
)
ONE = torch.ones(1)


def scale(A: torch.Tensor) -> torch.Tensor:
    """All singular values times the same number."""
    return NormBound(1.05)(A)


def clip(A: torch.Tensor) -> torch.Tensor:
    """Each singular value for itself: the nearest matrix of norm 1.05."""
    u, s, v = torch.linalg.svd(A)
    return u @ torch.diag_embed(s.clamp(max=1.05)) @ v


def bounded(bound: float):
    return replace(OPERATOR_REPAIRED, operator=NormBound(bound))


# name: guards, weight of the penalty, what is done to the basis after each update
FORMS: dict[str, tuple] = {
    "nothing": (OPERATOR_OFF, 0.0, unguarded),
    **{f"penalty {w:g}": (OPERATOR_GUIDE, w, unguarded) for w in (0.1, 1.0, 10.0, 100.0)},
    "scaled after each step": (OPERATOR_OFF, 0.0, scale),
    "clipped after each step": (OPERATOR_OFF, 0.0, clip),
    "bound 1.05 (ours)": (bounded(1.05), 0.0, unguarded),
    "bound 1 (ours)": (bounded(1.0), 0.0, unguarded),
}


def stretched() -> Move:
    """24 clusters, and other cells of the same clusters turned and stretched by 1.3."""
    g = torch.Generator().manual_seed(0)
    centres = 1.5 * torch.randn(24, LATENT, generator=g)
    kinds = torch.randint(24, (2, CELLS), generator=g)
    before, after = centres[kinds] + 0.4 * torch.randn(2, CELLS, LATENT, generator=g)
    turn = torch.linalg.matrix_exp(
        0.15 * (t := torch.randn(LATENT, LATENT, generator=g)) - 0.15 * t.T
    )
    return Move(before, WANTED * after @ turn.T, ONE, ONE)


def bounds_table() -> None:
    move, rows, models = stretched(), {}, {}
    for name, (guards, penalty, after_update) in FORMS.items():
        models[name] = model = OperatorModel(LATENT, 1, 1, n_basis=1)
        fit(model, move, guards, penalty, after_update)
        A = guards.operator(model.operator(torch.ones(1, 2))).detach()[0]
        loss = operator_loss(model, [move], guards=guards).item()
        rows[name] = (A, loss)
    cost = step_costs(move, models)
    print(f"The data want norm {WANTED}; {UPDATES} updates, {CELLS} cells, {LATENT} latents\n")
    heads = ("sigma max", "sigma min", "distance", "lg|A^100|", "lg|A^1000|")
    print(f"{'':<24}" + "".join(f"{head:>11}" for head in heads) + f"{'time':>7}")
    for name, (A, loss) in rows.items():
        sigma, growth = torch.linalg.svdvals(A), log10_growth(A, 1000)
        norms = f"{sigma[0]:>11.4f}{sigma[-1]:>11.3f}{loss:>11.4f}"
        print(f"{name:<24}{norms}{growth[99]:>11.1f}{growth[999]:>11.1f}{cost[name]:>7.2f}")


def fit(model, move, guards, penalty, after_update: Callable) -> None:
    @torch.no_grad()
    def on_update(update: int, loss: float) -> None:
        model.basis.copy_(after_update(model.basis))

    options = {"guards": guards, "penalty": penalty}
    train_operator(model, [move], UPDATES, LR, on_update=on_update, **options)


def step_costs(move: Move, models: dict, rounds: int = 90) -> dict[str, float]:
    """Time of one update over that of no protection, median of interleaved rounds."""
    steppers = {name: stepper(models[name], move, *form) for name, form in FORMS.items()}
    times = {name: [] for name in steppers}
    for turn in range(rounds):
        names = list(steppers)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            step = steppers[name]
            start = process_time()
            step()
            times[name].append(process_time() - start)
    base = times["nothing"]
    return {n: median(a / b for a, b in zip(t, base, strict=True)) for n, t in times.items()}


def stepper(model, move: Move, guards, penalty: float, after_update: Callable) -> Callable:
    """One more update of a fitted model, so that what bounds is at work."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        operator_loss(model, [move], guards=guards, penalty=penalty).backward()
        optimizer.step()
        with torch.no_grad():
            model.basis.copy_(after_update(model.basis))

    return step


def cells_table(seeds=(0, 1, 2), bounds=(1.0, 1.05, 3.0)) -> None:
    """Held-out distance with 95 % intervals: bound of the norm, pair of types, seed of the VAE."""
    cells = load_pbmc()
    print("\n\nReal cells, one step: energy distance to the held-out target, 95 % interval")
    for source, target in PAIRS:
        before, after = (cells.cell_type == cells.type_names.index(t) for t in (source, target))
        for seed in seeds:
            z = embed(trained_vae(seed), cells)
            pairs = moves_by_tissue(z, cells, before, after, ONE)
            for bound in bounds:
                guards = bounded(bound)
                model = OperatorModel(z.shape[1], cells.tissue.shape[1], 1)
                train_operator(model, [train for train, _ in pairs], guards=guards)
                result = carry(model, pairs, guards=guards)
                if bound == bounds[0]:
                    size = f"{len(result.before)} to {len(result.target)} cells"
                    print(f"\n{source} -> {target}, VAE seed {seed}, {size}")
                    for name in ("no change", "mean shift"):
                        print(f"  {name:<22} {result.distances[name]}")
                name, gain = f"operator, norm <= {bound:g}", f"gain over shift {result.gain}"
                print(f"  {name:<22} {result.distances['operator']}   {gain}")


def truth_table(sizes=(800, 1600, 3200), seeds=(0, 1)) -> None:
    """Simulated cells: how near the learned operator comes to the true one."""
    print("\n\nSimulated cells, compared within each tissue, and across tissues")
    print(f"{'cells':>6}{'seed':>5}{'norm of A - truth':>20}{'error of action':>17}{'across':>9}")
    for n in sizes:
        for seed in seeds:
            cells, truth = simulate(n, 10, n_types=6, seed=seed)
            within = moves_by_tissue(truth.z, cells, ~truth.perturbed, truth.perturbed, ONE)
            A, action = recovered(cells, truth, [train for train, _ in within])
            _, across = recovered(cells, truth, pooled(cells, truth))
            print(f"{n:>6}{seed:>5}{A:>20.3f}{action:>17.1%}{across:>9.1%}")


def pooled(cells: Cells, truth: Truth) -> list[Move]:
    """One comparison for all tissues together."""
    before, after = (part & ~cells.held_out for part in (~truth.perturbed, truth.perturbed))
    return [Move(truth.z[before], truth.z[after], cells.tissue[before], ONE)]


def recovered(cells: Cells, truth: Truth, moves: list[Move]) -> tuple[float, float]:
    """Worst error of A, and error of the action on held-out cells over the size of the action."""
    n_tissues = cells.tissue.shape[1]
    model = OperatorModel(truth.z.shape[1], n_tissues, 1)
    train_operator(model, moves)
    tested = cells.held_out & truth.perturbed
    start, end, tissue = truth.z_before[tested], truth.z[tested], cells.tissue[tested]
    with torch.no_grad():
        rows = torch.cat([torch.eye(n_tissues), torch.ones(n_tissues, 1)], 1)
        A = OPERATOR_REPAIRED.operator(model.operator(rows))
        got = model(start, tissue, torch.ones(len(start), 1))
    action = (got - end).norm() / (start - end).norm()
    return float(spectral_norm(A - truth.operator).max()), float(action)


if __name__ == "__main__":
    torch.set_num_threads(1)
    bounds_table()
    cells_table()
    truth_table()
