"""The guide's five protection points of the VAE, each with faults put in front of it."""

from math import exp

import torch
import torch.nn.functional as F
from torch import Tensor

from labkit.claims.protection import Outcome, point
from labkit.claims.subjects import error_of, slope
from labkit.claims.vae_guards import ONE_CLAMP
from labkit.claims.walk import put, walk
from labkit.models.guards import GUIDE, Guards
from labkit.models.likelihood import nb_log_likelihood, nb_log_likelihood_guide

EPS = 1e-8  # the guide's
INF = float("inf")


def finite(value: Tensor | float) -> bool:
    """Whether nothing in it is NaN or Inf."""
    return bool(torch.as_tensor(value).isfinite().all())


def score(x: float, mu: float, r: float, dtype=torch.float32, eps: float = EPS) -> float:
    """The guide's log-probability of one count."""
    return float(nb_log_likelihood_guide(*torch.tensor([x, mu, r], dtype=dtype), eps=eps))


@point(
    "clamp logvar in the sampler",
    chinese="sample_z: clamp logvar到[-10, 10]",
    where="VAE 1",
    claims=("G49",),
    stops=("std = Inf (logvar 178)", "std = Inf in float16 (logvar 23)"),
    lets_through=("KL = Inf (logvar 89)", "NaN in logvar", "noise that drowns z (logvar 15)"),
)
def the_sampler(guards: Guards = ONE_CLAMP) -> Outcome:
    """The clamp of `sample_logvar` alone."""
    steps = {v: walk(guards=guards, logvar=put(v)) for v in (178.0, 89.0, torch.nan, 15.0)}
    half = walk(guards=guards, dtype=torch.float16, logvar=put(23.0))
    pull = float(steps[15.0].gradients["encoder.fc_logvar.bias"].norm())
    return (
        {
            "std = Inf (logvar 178)": finite(steps[178.0].at["std"]),
            "std = Inf in float16 (logvar 23)": finite(half.at["std"]),
            "KL = Inf (logvar 89)": finite(steps[89.0].at["kl"]),
            "NaN in logvar": finite(steps[torch.nan].at["z"]),
            "noise that drowns z (logvar 15)": float(steps[15.0].at["std"].max()) < 10,
        },
        f"Outside the reconstruction gives 0; the raw KL still pulls, with {pull:.0e} at logvar = "
        "15.",
    )


@point(
    "clamp logvar in the KL as well",
    chinese="elbo_loss: clamp logvar_z到[-10, 10]",
    where="VAE 2",
    claims=("G50",),
    stops=("KL = Inf (logvar 89)",),
    lets_through=("NaN in logvar", "a logvar that stays outside (15)"),
)
def the_kl(guards: Guards = GUIDE) -> Outcome:
    """Both clamps."""
    steps = {v: walk(guards=guards, logvar=put(v)) for v in (89.0, torch.nan, 15.0)}
    pull = float(steps[15.0].gradients["encoder.fc_logvar.bias"].norm())
    return {
        "KL = Inf (logvar 89)": finite(steps[89.0].at["kl"]),
        "NaN in logvar": finite(steps[torch.nan].at["loss"]),
        "a logvar that stays outside (15)": pull > 0,
    }, f"Outside it is {pull:g}, from the reconstruction and from the KL."


@point(
    "clamp r > eps and x >= 0 in the likelihood",
    chinese="nb_log_likelihood: clamp r到>eps, x到>=0",
    where="VAE 3",
    claims=("G32", "G51"),
    stops=("r below 0", "a count below 0"),
    lets_through=("NaN in r", "r = Inf", "r = 0 in float16", "bad data that nobody hears of"),
)
def the_likelihood(eps: float = EPS) -> Outcome:
    """Bad counts and bad r."""
    _, outside = slope(lambda r: r.clamp(min=eps).lgamma(), -5.0)
    return {
        "r below 0": finite(score(3.0, 2.0, -5.0, eps=eps)),
        "a count below 0": finite(score(-3.0, 2.0, 1.0, eps=eps)),
        "NaN in r": finite(score(3.0, 2.0, torch.nan, eps=eps)),
        "r = Inf": finite(score(3.0, 2.0, INF, eps=eps)),
        "r = 0 in float16": finite(score(3.0, 2.0, 0.0, torch.float16, eps)),
        "bad data that nobody hears of": error_of(lambda: score(-3.0, 2.0, 1.0, eps=eps)) != "",
    }, f"Below the floor it is {outside:g}."


@point(
    "r + eps in the decoder",
    chinese="DecoderNB: r添加eps下界",
    where="VAE 4",
    claims=("G52", "D04"),
    stops=("r = 0",),
    lets_through=("r = 0 in float16", "r = Inf (log r 89)", "lost digits (log r 16)"),
)
def the_decoder(eps: float = EPS) -> Outcome:
    """r + eps at both ends."""

    def guarded(log_r: float, dtype=torch.float32) -> float:
        r = torch.tensor(log_r, dtype=dtype).exp() + eps
        return score(3.0, 2.0, float(r), dtype, eps=0.0)

    exact = float(nb_log_likelihood(*torch.tensor([3.0, 2.0, exp(16)], dtype=torch.float64)))
    counts = torch.tensor([3.0, 2.0])
    pull = slope(lambda a: nb_log_likelihood_guide(*counts, F.softplus(a) + eps, 0.0), -30.0)[1]
    return {
        "r = 0": finite(guarded(-200.0)),
        "r = 0 in float16": finite(guarded(-200.0, torch.float16)),
        "r = Inf (log r 89)": finite(guarded(89.0)),
        "lost digits (log r 16)": abs(guarded(16.0) - exact) < 0.01,
    }, f"Alive and faint: {abs(pull):.0e} where r = softplus(-30) + eps."


@point(
    "log(. + eps)",
    chinese="所有log运算: 参数+eps",
    where="VAE 5",
    claims=("G22", "G53", "D05"),
    stops=("log(0)",),
    lets_through=("log(0) in float16", "an argument below -eps", "a pull that fades (mu 1e-11)"),
)
def the_logs(eps: float = EPS) -> Outcome:
    """log(x + eps)."""

    def guarded(x: float, dtype=torch.float32) -> float:
        return float((torch.tensor(x, dtype=dtype) + eps).log())

    pull = slope(lambda a: 5 * (a.exp() + eps).log(), -25.0)[1]
    return {
        "log(0)": finite(guarded(0.0)),
        "log(0) in float16": finite(guarded(0.0, torch.float16)),
        "an argument below -eps": finite(guarded(-10 * eps)),
        "a pull that fades (mu 1e-11)": pull > 2.5,
    }, f"A count of 5 at mu = 1e-11 pulls log mu with {pull:.1g} instead of 5."
