"""The diagram of the VAE: each arrow of the guide, with one fault put in at its start."""

import torch

from labkit.claims.entry import Ruling, truth
from labkit.claims.paths import arrow
from labkit.claims.subjects import edge, non_finite
from labkit.claims.walk import INF, put, share, walk


@arrow("vae", "A", "B", verdict="false", claims=("G39",))
def a_large_logvar_makes_std_inf(logvar: float = 21.0) -> Ruling:
    """A -> B."""
    std = walk(logvar=put(logvar)).at["std"]
    first = edge(non_finite(lambda v: (0.5 * v).exp()), 0.0, 500.0)[1]
    return truth(bool((std == INF).all())), (
        f"At logvar = {logvar:g} std is {float(std.max()):.0f}; it is Inf from {first:.2f} on."
    )


@arrow("vae", "B", "C", verdict="holds with a condition", claims=("G40",))
def an_infinite_std_makes_z_infinite(std: float = INF) -> Ruling:
    """B -> C."""
    z = walk(std=put(std)).at["z"]
    up, down = share(z == INF), share(z == -INF)
    return truth(up == 1, sometimes=up + down == 1), (
        f"{up:.0%} of z is +Inf and {down:.0%} -Inf; where the noise is exactly 0 it is NaN."
    )


@arrow("vae", "C", "D", verdict="false", claims=("G41",))
def an_infinite_z_makes_mu_x_infinite(entries: int = 1) -> Ruling:
    """C -> D."""
    mu = walk(z=put(INF, entries)).at["mu_x"]
    inf, nan = share(mu == INF), share(mu.isnan())
    return truth(inf == 1), (
        f"With {entries} of 8 coordinates of z infinite {nan:.0%} of mu_x is NaN and {inf:.0%} Inf."
    )


@arrow("vae", "D", "E", verdict="holds", claims=("G42",))
def the_log_of_an_infinite_mu_is_infinite(mu: float = INF) -> Ruling:
    """D -> E."""
    log_mu = walk(mu_x=put(mu)).at["log_mu"]
    return truth(bool((log_mu == INF).all())), (
        f"With mu_x = {mu:g}, log(mu_x) is {float(log_mu.max()):g} everywhere."
    )


@arrow("vae", "E", "F", verdict="false", claims=("G42", "G43"))
def an_infinite_log_makes_the_loss_infinite(mu: float = INF) -> Ruling:
    """E -> F: the loss of F, and then all its gradients; at last a loss that is Inf by itself."""
    step, alone = walk(mu_x=put(mu)), walk(loss=lambda t: t + INF)
    everything = len(alone.bad) == len(alone.gradients)
    return truth(step["loss"] == INF and everything), (
        f"The loss is {step['loss']:g}, as Inf - Inf is NaN; and a loss that is Inf spoils "
        f"{len(alone.bad)} of {len(alone.gradients)} gradients by itself: it depends on the way."
    )


@arrow("vae", "G", "H", verdict="false", claims=("G45",))
def a_small_r_makes_lgamma_hugely_negative(r: float = 1e-8) -> Ruling:
    """G -> H."""
    lgamma = float(walk(r=put(r)).at["lgamma"].max())
    return truth(lgamma < -100), f"With r = {r:.0e}, lgamma(r) is {lgamma:+.2f}."


@arrow("vae", "H", "I", verdict="holds with a condition", claims=("G46",))
def lgamma_of_a_small_r_makes_log_p_abnormal(r: float = 1e-8) -> Ruling:
    """H -> I."""
    step, healthy = walk(r=put(r)), walk()
    least, finite = float(step.at["log_p"].min()), bool(step.at["log_p"].isfinite().all())
    worse = step["loss"] > 2 * healthy["loss"]
    return truth(not finite, sometimes=worse), (
        f"With r = {r:.0e}, log_p is {'finite' if finite else 'not finite'}, {least:.0f} at the "
        f"worst, and the loss is {step['loss']:.0f} instead of {healthy['loss']:.0f}: high, no "
        "more."
    )


@arrow("vae", "I", "F", verdict="false", claims=("G46",))
def an_abnormal_log_p_makes_all_nan(r: float = 1e-8) -> Ruling:
    """I -> F."""
    step = walk(r=put(r))
    return truth(len(step.bad) == len(step.gradients)), (
        f"With r = {r:.0e} the loss is {step['loss']:.0f}, and {len(step.bad)} of "
        f"{len(step.gradients)} gradients are bad."
    )


@arrow("vae", "J", "K", verdict="holds with a condition", claims=("G47",))
def the_log_of_eps_is_minus_18(mu: float = 0.0) -> Ruling:
    """J -> K."""
    single, half = (
        float(walk(mu_x=put(mu), dtype=dtype).at["log_mu"].max())
        for dtype in (torch.float32, torch.float16)
    )
    near = [abs(v + 18) < 0.5 for v in (single, half)]
    return truth(all(near), sometimes=any(near)), (
        f"With mu_x = {mu:g} it is {single:.2f} in float32 and {half:g} in float16, where eps is 0."
    )


@arrow("vae", "K", "L", verdict="holds", claims=("G48",))
def a_small_eps_underflows_to_zero(eps: float = 1e-46) -> Ruling:
    """K -> L."""
    log_mu = float(walk(mu_x=put(0.0), eps=eps).at["log_mu"].max())
    return truth(log_mu == -INF), f"With eps = {eps:.0e}, log(0 + eps) is {log_mu:g} in float32."
