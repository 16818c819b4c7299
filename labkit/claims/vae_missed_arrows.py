"""The arrows that the guide's diagram of the VAE misses, each run with one fault."""

from dataclasses import replace

from labkit.claims.entry import Ruling, truth
from labkit.claims.paths import arrow
from labkit.claims.subjects import cells
from labkit.claims.walk import INF, put, share, walk
from labkit.models.guards import GUIDE, OFF
from labkit.models.likelihood import nb_log_likelihood


@arrow("vae", "A far", "KL", verdict="holds", claims=("G44",), by_guide=False)
def a_large_logvar_makes_the_kl_inf(logvar: float = 89.0) -> Ruling:
    """Missed: A far -> KL."""
    step = walk(logvar=put(logvar))
    std = float(step.at["std"].max())
    return truth(step["kl"] == INF and std < INF), (
        f"At logvar = {logvar:g} the KL is {step['kl']:g}, while std is {std:.0e}."
    )


@arrow("vae", "KL", "trunk", verdict="holds", claims=("G43",), by_guide=False)
def an_infinite_kl_spoils_the_encoder_alone(logvar: float = 89.0) -> Ruling:
    """Missed: KL -> trunk."""
    step = walk(logvar=put(logvar))
    layers = sorted({n.rsplit(".", 1)[0] for n in step.bad})
    return truth(layers == ["encoder.fc_logvar", "encoder.input_layer"]), (
        f"{len(step.bad)} of {len(step.gradients)} gradients are bad, those of "
        f"{' and '.join(layers) or 'none'}; fc_mu and the decoder are well until the next step."
    )


@arrow("vae", "C", "mu NaN", verdict="holds", claims=("G41",), by_guide=False)
def an_infinite_z_makes_mu_x_nan(entries: int = 1) -> Ruling:
    """Missed: C -> mu NaN."""
    step = walk(z=put(INF, entries))
    nan = share(step.at["mu_x"].isnan())
    return truth(nan == 1), (
        f"{nan:.0%} of mu_x is NaN, the loss is {step['loss']:g}, and {len(step.bad)} of "
        f"{len(step.gradients)} gradients are bad."
    )


@arrow("vae", "D", "loss NaN", verdict="holds", claims=("G42",), by_guide=False)
def an_infinite_mu_x_makes_the_loss_nan(mu: float = INF) -> Ruling:
    """Missed: D -> loss NaN."""
    loss = walk(mu_x=put(mu))["loss"]
    return truth(loss != loss), f"With mu_x = {mu:g} the loss is {loss:g}."


@arrow("vae", "r large", "wrong", verdict="holds", claims=("D04", "G52"), by_guide=False)
def a_large_r_makes_log_p_wrong(r: float = 1e8) -> Ruling:
    """Missed: r large -> wrong."""
    step = walk(r=put(r))
    exact = nb_log_likelihood(cells().counts, step.at["mu_x"], step.at["r"])
    off = float((step.at["log_p"] - exact).abs().max())
    return truth(off > 1 and not step.bad), (
        f"With r = {r:.0e} log_p is up to {off:.0f} nats off, and {len(step.bad)} gradients are "
        "bad: "
        "nothing shows it."
    )


@arrow("vae", "clamped", "dead", verdict="holds", claims=("G50",), by_guide=False)
def both_clamps_kill_the_gradient(logvar: float = 15.0) -> Ruling:
    """Missed: clamped -> dead."""
    both, one = (
        walk(guards=guards, logvar=put(logvar)).gradients["encoder.fc_logvar.bias"]
        for guards in (GUIDE, replace(GUIDE, kl_logvar=OFF.kl_logvar))
    )
    return truth(not bool(both.any()) and bool(one.any())), (
        f"At logvar = {logvar:g} the gradient of fc_logvar is {float(both.norm()):g} with both "
        f"clamps, and {float(one.norm()):.0e} with that of the sampler alone."
    )


@arrow("vae", "J", "faint", verdict="holds", claims=("G53", "D05"), by_guide=False)
def a_mu_far_below_eps_gets_no_pull(mu: float = 1e-12) -> Ruling:
    """Missed: J -> faint."""
    step = walk(mu_x=lambda t: t * (mu / t.detach()))  # the slope in log mu stays
    pull, healthy = (s.gradients["decoder.fc_mu.bias"].norm() for s in (step, walk()))
    return truth(float(pull) < 1e-2 * float(healthy)), (
        f"With mu_x = {mu:.0e} the pull on fc_mu is {float(pull):.1g}; for the model as it starts "
        "it "
        f"is {float(healthy):.1g}."
    )
