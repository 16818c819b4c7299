"""The latent operator: moves a population of cells in latent space, one affine step at a time.

Letters: `z` latent state (cell, latent); `B` basis operators (basis, latent, latent); `alpha`
their weights; `A` the mixture sum_k alpha_k B_k of one condition; `b` its shift (latent,).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit.models.guards import Function, Guard, unguarded
from labkit.models.spectral import NormBound, power_sigma, unit, unit_guide
from labkit.models.vae import check_shape

REFRESH = 1e-3  # of the first probe, mixed into the warm one: no direction is lost for ever


def refuse_nan(z: Tensor) -> Tensor:
    """The guide's check: raise for NaN. Inf passes, and states too far for any distance."""
    if z.isnan().any():
        raise FloatingPointError("NaN in the state")
    return z


@dataclass(frozen=True)
class OperatorGuards:
    """Where the operator can be protected; each field is a function of one tensor.

    Of the guide's four points, `iterate` is the second (each vector of the power iteration) and
    `state` the fourth (after each step of a rollout). The first is a term of the loss,
    `spectral_penalty`; what replaces it is `operator`, which sees A itself. The third is the
    form of the distance. `train_operator.PROTECTION` names all four together.
    """

    operator: Function = unguarded
    iterate: Function = unguarded
    state: Function = unguarded


OPERATOR_OFF = OperatorGuards()
OPERATOR_GUIDE = OperatorGuards(iterate=unit_guide, state=refuse_nan)
OPERATOR_REPAIRED = OperatorGuards(NormBound(1.0), unit, Guard("state", "refuse", -1e6, 1e6))


class OperatorModel(nn.Module):
    """One step takes z to A z + b; tissue and perturbation decide A and b. It starts at A = I.

    Args:
        latent_dim, n_tissues, n_perturbations: sizes of z and of the two parts of the condition.
        n_basis: number of basis operators.
        weights: `convex` (softmax: A never exceeds the largest B), or `linear`, the guide's: a
            bound on each B is then none on A (three of norm 1.05 at weights 2 overflow float32
            at step 50).
        seed: of the response to the condition; the global generator is left as it was.
    """

    def __init__(
        self,
        latent_dim: int,
        n_tissues: int,
        n_perturbations: int,
        n_basis: int = 3,
        weights: str = "convex",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if weights not in ("convex", "linear"):
            raise ValueError(f"weights: expected convex or linear; got {weights!r}")
        if min(latent_dim, n_tissues, n_perturbations, n_basis) < 1:
            raise ValueError("latent_dim, n_tissues, n_perturbations, n_basis: expected 1 or more")
        self.sizes, self.weights = (latent_dim, n_tissues, n_perturbations), weights
        generator = torch.Generator().manual_seed(seed)
        n_conditions = n_tissues + n_perturbations
        response = torch.randn(n_conditions, n_basis, generator=generator)
        probe = torch.randn(n_basis, latent_dim, 1, generator=generator)
        self.basis = nn.Parameter(torch.eye(latent_dim).repeat(n_basis, 1, 1))
        self.response = nn.Parameter(response - response.mean(1, keepdim=True))
        self.shift = nn.Parameter(torch.zeros(n_conditions, latent_dim))
        self.register_buffer("first_probe", probe / probe.norm(dim=1, keepdim=True))
        self.register_buffer("probe", self.first_probe.clone())

    def alpha(self, condition: Tensor) -> Tensor:
        """Weights of the basis operators, shape (condition, basis)."""
        response = condition @ self.response
        if self.weights == "convex":
            return response.softmax(-1)
        return response + 1 / len(self.basis)

    def operator(self, condition: Tensor) -> Tensor:
        """A, before any guard, of each row of tissue and perturbation side by side."""
        return torch.einsum("ck,kij->cij", self.alpha(condition), self.basis)

    def rollout(
        self,
        z0: Tensor,
        tissue: Tensor,
        perturbation: Tensor,
        steps: int = 1,
        guards: OperatorGuards = OPERATOR_REPAIRED,
    ) -> Tensor:
        """All states from z0 on, shape (step + 1, cell, latent).

        Args:
            z0: states, shape (cell, latent).
            tissue, perturbation: constants, shape (cell, tissue) and (cell, perturbation),
                one-hot as a rule. Cells with equal rows share one A.

        Raises:
            FloatingPointError: from `guards.state`, with the number of the step.

        Breaks when: A is not bounded: at norm 1.2 float32 overflows at step 482, and float64
        follows the same path. Bounded by 1, distances never grow, but b still moves the whole
        population `steps` times. Norm 0.9: after 175 steps the gradient is below 1e-8.

        Source: Bengio et al. 1994, Learning Long-Term Dependencies with Gradient Descent.
        """
        for name, value, size in zip(
            ("z0", "tissue", "perturbation"), (z0, tissue, perturbation), self.sizes, strict=True
        ):
            check_shape(name, value, (len(z0), size))
        if steps < 0:
            raise ValueError(f"steps: expected 0 or more; got {steps}")
        condition = torch.cat([tissue, perturbation], -1).to(z0)
        condition, row = condition.unique(dim=0, return_inverse=True)
        A, b = guards.operator(self.operator(condition))[row], (condition @ self.shift)[row]
        states = [z0]
        for step in range(1, steps + 1):
            z = (A @ states[-1].unsqueeze(-1)).squeeze(-1) + b
            try:
                states.append(guards.state(z))
            except FloatingPointError as error:
                raise FloatingPointError(f"rollout step {step}: {error}") from error
        return torch.stack(states)

    def forward(
        self,
        z0: Tensor,
        tissue: Tensor,
        perturbation: Tensor,
        steps: int = 1,
        guards: OperatorGuards = OPERATOR_REPAIRED,
    ) -> Tensor:
        """The last state of `rollout`, shape (cell, latent): the guide's z1_pred."""
        return self.rollout(z0, tissue, perturbation, steps, guards)[-1]

    def spectral_penalty(
        self, max_norm: float = 1.05, iterations: int = 1, normalise: Function = unit
    ) -> Tensor:
        """The guide's: squared excess over `max_norm` of the norms of all B, summed.

        Breaks when: the data want a larger norm. It then settles above `max_norm`: where they want
        1.3, at 1.22, 1.08 and 1.05 for weights 1, 10 and 100. And 1.05^1000 is 1.5e21 already.
        With linear weights it does not see A. Below `max_norm` its gradient is zero.
        """
        start = self.probe + REFRESH * self.first_probe
        sigma, probe = power_sigma(self.basis, start, iterations, normalise)
        with torch.no_grad():
            self.probe.copy_(torch.where(probe.isfinite(), probe, self.probe))
        return F.relu(sigma - max_norm).square().sum()
