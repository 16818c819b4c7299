"""A training run into which one bad number is put, and a count of the bad after every operation."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from math import inf, nan

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam

from labkit.board import Square
from labkit.cells.data import Cells, load_pbmc
from labkit.failures._halves import trained_halves
from labkit.models.likelihood import kl_standard_normal, nb_log_likelihood_from_logs
from labkit.models.vae import NBVAE

CELLS, STEPS, WHEN = 16, 3, 1  # in a batch; training steps; the step into which it is put
BAD = {"nan": nan, "inf": inf, "zero": 0.0}
FORWARD = (
    "counts", "library", "input_layer", "fc_mu", "fc_logvar", "sample", "hidden", "log_mu",
    "log_r", "likelihood", "loss",
)  # fmt: skip
BACKWARD = ("log_r", "log_mu", "hidden", "sample", "fc_logvar", "fc_mu", "input_layer")
STATE = ("gradients", "Adam's memory", "running means", "parameters")
ROWS = (*FORWARD, *(f"∇ {name}" for name in BACKWARD), *STATE)
PHASES = ("forward",) * len(FORWARD) + ("backward",) * len(BACKWARD) + ("state",) * len(STATE)
READS = {  # place -> the parameter whose memory is poisoned in its stead
    "counts": "encoder.input_layer.weight",
    "library": "decoder.fc_mu.bias",
    "input_layer": "encoder.input_layer.bias",
    "fc_mu": "encoder.fc_mu.weight",
    "fc_logvar": "encoder.fc_logvar.weight",
    "sample": "decoder.hidden.weight",
    "hidden": "decoder.hidden.bias",
    "log_mu": "decoder.fc_mu.weight",
    "log_r": "decoder.fc_r.weight",
}
PLACES = tuple(READS)
STAYS = tuple(ROWS.index(name) for name in STATE[1:])  # what one step leaves to the next


@dataclass(frozen=True)
class Poison:
    """What is put in, and where. `phase` none: nothing is."""

    kind: str
    phase: str
    place: str
    cell: int
    entry: int


@dataclass(frozen=True, eq=False)
class Batch:
    """Some cells with noise of their own, so that a part of them is the same as in the whole."""

    cells: Cells
    noise: Tensor  # (cell, latent)
    number: Tensor  # (cell,) position in the whole batch

    def __getitem__(self, which: Tensor) -> "Batch":
        return Batch(self.cells[which], self.noise[which], self.number[which])

    def __len__(self) -> int:
        return len(self.cells)


@dataclass(eq=False)
class Program:
    """The loss of each cell; calls `look` with every value, and puts the poison where it goes."""

    poison: Poison
    now: bool = False  # is this the step into which it is put?
    look: Callable[[str, Tensor], None] | None = None

    def __call__(self, model: NBVAE, batch: Batch) -> Tensor:
        """Negative ELBO of each cell, in nats, shape (cell,)."""
        return negative_elbo(model, batch, self._at(batch.number))

    def _at(self, number: Tensor) -> Callable[[str, Tensor], Tensor]:
        def at(name: str, value: Tensor) -> Tensor:
            if self.now and self.poison.place == name:
                value = put_in(self.poison, value, number)
            if self.look is not None:
                self.look(name, value)
                if value.requires_grad and name in BACKWARD:
                    value.register_hook(lambda gradient: self.look(f"∇ {name}", gradient))
            return value

        return at


def negative_elbo(model: NBVAE, batch: Batch, at: Callable[[str, Tensor], Tensor]) -> Tensor:
    """One value a line; `at` sees each of them and may put something in its place."""
    cells = batch.cells
    x = at("counts", cells.counts)
    library = at("library", cells.library)
    h = at("input_layer", hidden(model.encoder.input_layer, x.log1p(), cells.tissue))
    mu = at("fc_mu", model.norm(model.encoder.fc_mu(h)))
    logvar = at("fc_logvar", model.encoder.fc_logvar(h))
    z = at("sample", mu + torch.exp(0.5 * logvar) * batch.noise)
    h = at("hidden", hidden(model.decoder.hidden, z, cells.tissue))
    log_size = (library / model.decoder.reference_library).log().unsqueeze(-1)
    log_mu = at("log_mu", model.decoder.fc_mu(h) + log_size)
    log_r = at("log_r", model.decoder.fc_r(h))
    log_p = at("likelihood", nb_log_likelihood_from_logs(x, log_mu, log_r))
    return at("loss", kl_standard_normal(mu, logvar) - log_p.sum(-1))


def hidden(layer: nn.Linear, values: Tensor, tissue: Tensor) -> Tensor:
    """A hidden layer that also reads the tissue."""
    return F.relu(layer(torch.cat([values, tissue], dim=-1)))


def put_in(poison: Poison, value: Tensor, number: Tensor) -> Tensor:
    """Make one number of a value bad, or one of the gradient that will arrive at it.

    Args:
        number: of the cells, shape (cell,), their positions in the whole batch.
    """
    bad, spot = BAD[poison.kind], number == poison.cell
    if value.dim() > 1:
        width = value.shape[1]
        spot = spot[:, None] & (torch.arange(width) == poison.entry % width)
    if poison.phase == "forward":
        return value.masked_fill(spot, bad)
    if poison.phase == "backward" and value.requires_grad:
        value.register_hook(lambda gradient: gradient.masked_fill(spot, bad))
    return value


@lru_cache(maxsize=2)
def _cells(dtype: torch.dtype) -> Cells:
    return load_pbmc().train[: STEPS * CELLS].to(dtype)


@dataclass(eq=False)
class Training:
    """The trained model goes on training, one batch for each step; the same bits every time."""

    poison: Poison
    form: Callable
    norm: str
    dtype: torch.dtype = torch.float32

    def __post_init__(self):
        self.model = trained_halves(self.norm).to(self.dtype)
        self.optimizer = Adam(self.model.parameters(), lr=1e-3)
        self.program = Program(self.poison)

    def batch(self, step: int) -> Batch:
        """The cells of a step."""
        generator = torch.Generator().manual_seed(step)
        cells = _cells(self.dtype)[step * CELLS : (step + 1) * CELLS]
        noise = torch.randn(CELLS, self.model.decoder.latent_dim, generator=generator)
        return Batch(cells, noise.to(self.dtype), torch.arange(CELLS))

    def begin(self, step: int) -> None:
        """What happens before a step: memory is poisoned between two steps."""
        self.program.now = step == WHEN and self.poison.kind != "none"
        if self.program.now and self.poison.phase == "memory":
            self._poison_memory()

    def take(self, step: int) -> None:
        """Take one training step."""
        self.form(self.program, self.model, self.batch(step), self.optimizer)

    def loss(self, step: int) -> float:
        """What the coming step would report: the mean loss of its cells, with nothing put in."""
        program, buffers = Program(replace(self.poison, kind="none")), self._buffers()
        before = [buffer.clone() for buffer in buffers]
        with torch.no_grad():
            value = float(program(self.model, self.batch(step)).mean())
            for buffer, old in zip(buffers, before, strict=True):
                buffer.copy_(old)
        return value

    def state(self) -> dict[str, list[Tensor]]:
        """All that stays between two steps."""
        kept = self.optimizer.state.values()
        memory = [state[key] for state in kept for key in ("exp_avg", "exp_avg_sq")]
        parameters = list(self.model.parameters())
        return dict(zip(STATE[1:], (memory, self._buffers(), parameters), strict=True))

    def _buffers(self) -> list[Tensor]:
        return [b for b in self.model.norm.buffers() if b.is_floating_point()]

    def _poison_memory(self) -> None:
        parameter = dict(self.model.named_parameters())[READS[self.poison.place]]
        memory = self.optimizer.state[parameter]["exp_avg"].view(-1)
        memory[self.poison.entry % len(memory)] = BAD[self.poison.kind]


def history(training: Training) -> tuple[tuple[tuple[Square, ...], ...], tuple[float, ...]]:
    """Train to the end: squares by step and row, and the loss before each step."""
    pairs = [(training.loss(step), _counted(training, step)) for step in range(STEPS)]
    return tuple(squares for _, squares in pairs), tuple(loss for loss, _ in pairs)


def losses(training: Training) -> tuple[float, ...]:
    """Train to the end: the loss before each step, and nothing counted."""
    found = []
    for step in range(STEPS):
        found.append(training.loss(step))
        training.begin(step)
        training.take(step)
    return tuple(found)


def _counted(training: Training, step: int) -> tuple[Square, ...]:
    seen: dict[str, Square] = {}

    def look(name: str, value: Tensor) -> None:
        found = square([value], cells=True)
        if name not in seen or found.bad >= seen[name].bad:  # of two passes the worse counts
            seen[name] = found

    training.program.look = look
    training.optimizer.zero_grad()
    training.begin(step)
    training.take(step)
    training.program.look = None
    gradients = [p.grad for p in training.model.parameters() if p.grad is not None]
    seen["gradients"] = square(gradients)
    seen |= {name: square(tensors) for name, tensors in training.state().items()}
    return tuple(seen.get(name, Square(0)) for name in ROWS)


@torch.no_grad()
def square(tensors: list[Tensor], cells: bool = False) -> Square:
    """Count the bad numbers of some tensors."""
    size = sum(tensor.numel() for tensor in tensors)
    if all(tensor.sum().isfinite() for tensor in tensors):  # the common case, and quick
        return Square(size)
    good = [tensor.isfinite() for tensor in tensors]
    bad = size - sum(int(it.sum()) for it in good)
    if not bad:
        return Square(size)
    word = "nan" if any(tensor.isnan().any() for tensor in tensors) else "inf"
    hit = int((~good[0]).reshape(len(good[0]), -1).any(-1).sum()) if cells and good[0].dim() else 0
    return Square(size, bad, word, hit)
