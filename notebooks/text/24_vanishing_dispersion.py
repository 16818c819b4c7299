# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   labkit:
#     kind: failure
# ---

# %% [markdown]
# # Vanishing dispersion
# *Too good to be true.*
#
# **Symptom:** the loss falls below what is possible. Every number is finite, every gradient is alive.
#
# **You will** watch a real VAE report a loss that it has not earned, find the subtraction that invents it, and write a likelihood whose value *and* gradient are true.
#
# **You need** to know what a log-likelihood is. `00_start_here` shows the model.
#
# **Minutes:** 25

# %%
from labkit import Bench, Panel, answer, check, compare, predict
from labkit.draw import draw_curves, draw_map, draw_strip
from labkit.failures import vanishing_dispersion

bench = Bench(vanishing_dispersion)
bench.turn("healthy")

# %% [markdown]
# ## The guide says
# > r过小 <1e-8 → lgamma(r) → 极大负值 → log_p异常 → loss异常 → 所有参数=NaN
#
# In English: *r too small: lgamma(r) is hugely negative, log p and the loss are abnormal, and all parameters become NaN.*
#
# Here `r` is the inverse dispersion of a gene: its counts have the variance $\mu + \mu^2 / r$.
# A small `r` means bursts. A large `r` means Poisson counts: the extra variance vanishes.
# The model learns log r, and the slider adds the same number to all of them.
#
# ## Predict
# The likelihood needs `lgamma(x + r) - lgamma(r)`. It is computed in float32.
# Where does it go wrong first?
#
# - **A** where r is tiny, near $10^{-8}$: minus infinity, as the guide says
# - **B** where r is huge, near $10^{38}$: overflow
# - **C** where r is near $10^5$ to $10^6$: finite and wrong
# - **D** nowhere that a gene would ever be

# %%
predict(bench)

# %% [markdown]
# <details><summary>Answer</summary>
#
# **C.** Both terms are near `r log r`, and their difference is near `x log r`.
# At $r = 10^6$ a float32 near $1.3 \cdot 10^7$ has a spacing of 1, so the difference is off by about as much, in each of 765 genes.
# And **A** has the sign wrong: see the first lines below.
# </details>
#
# ## Break

# %%
import torch

small, large = torch.tensor([1e-8, 1e-38]), torch.tensor(1e6)
print("small r, lgamma(r):", *(round(v, 2) for v in torch.lgamma(small).tolist()))
for r in (large, large.double()):
    difference = torch.lgamma(3 + r) - torch.lgamma(r)
    print("r = 1e6, lgamma(3 + r) - lgamma(r):", round(difference.item(), 2), r.dtype)
print(bench.turn("broken"))
print(bench.reading.culprit.source)

# %% [markdown]
# For small `r`, lgamma is *positive* and mild: it grows like $-\log r$, so 18 at $10^{-8}$ and 87 at $10^{-38}$. No float32 above 0 gives more than 103.28.
# For large `r` it is the difference that fails.
#
# The bench adds 12 to each log r, and the verdict is *wrong*: no NaN, no infinity, all gradients alive.
# The tracer found the line by carrying float64 beside float32, step by step: `trace(..., shadow=True)`.
# Without the shadow it would have said *healthy*.
#
# ## Look
# Left to right, the shift grows. What does each formula say the loss is?

# %%
lines = {
    form: vanishing_dispersion.profile(form) for form in ("guide", "torch.distributions", "truth")
}
draw_curves(
    {form: loss for form, (loss, _) in lines.items()}, "added to log r, nats", "loss, nats per cell"
)

# %% [markdown]
# ### What to see
# On paper the loss settles: from about 8 on, the genes are all but Poisson, and r hardly matters.
# The guide's formula leaves the truth at 10 and dives: it invents likelihood, and an optimizer will follow it.
# `torch.distributions` has the same subtraction and the same fate.
# Below, the size of the gradient that the layer of log r gets, on a log scale. The third formula takes its gammas in float64, and its *value* is right everywhere in this picture.

# %%
forms = ("float64 gammas", "truth")
lines = {form: vanishing_dispersion.profile(form)[1] for form in forms}
draw_curves(lines, "added to log r, nats", "log10 of the gradient's norm")

# %% [markdown]
# The true gradient fades, since r matters less and less. The computed one turns round at 7 and *grows*: it is noise, thousands of times too large at 12.
# In float64 the two slopes nearly cancel. But each is cast to float32 before they meet, and what is left of them is rounding.
# A right value is no proof of a right gradient.
#
# ## Turn
# Find the edge of each formula, on both sides. Then set *dtype* to float64: the edge moves to 20, and no further.

# %%
spare = Bench(vanishing_dispersion)  # for strips and contract; the panel keeps its setting
Panel(bench)

# %% [markdown]
# Look at the guide's formula far to the left as well, at -30. Nothing is NaN there. It is *dead*: the clamp that was to protect r has stopped its gradient.
#
# ## Strip
# The same knob without a kernel: the guide's formula, then float64 from end to end, in a float32 model.
# Last, a map of all forms over the whole track.

# %%
stops = (-30, -10, 0, 6, 8, 12, 16, 20)
for form in ("guide", "float64"):
    spare.turn("healthy", likelihood=form)
    display(draw_strip(spare.sweep("shift", stops), "shift"))
spare.turn("broken")
display(draw_map(spare.map()))

# %% [markdown]
# First: *wrong* from 8 on. At 8 only the gradient is, from 10 on the loss as well.
#
# Second: true up to 16, and wrong again at 20. Float64 has the same subtraction; it has 29 more bits to lose.
# *Vanishing* at both ends is no fault of the formula: there the likelihood really depends on r alone, or no longer on r.
#
# The map: each form but the last turns *wrong* on the right, and float64 later than the others.
# On the left the guide's form is *dead*: its floor of 1e-8 has no slope. The two others that work in float32 end in Inf or NaN.
# The stable form never lies: it is well, or its gradient truly vanishes.
#
# ## Why
# By Stirling's series [1], for $r \gg x$,
#
# $$\ln\Gamma(x + r) - \ln\Gamma(r) \;\approx\; \underbrace{(r \ln r + x \ln r)}_{\text{rounded to } 6 \cdot 10^{-8}\, r \ln r} - \underbrace{\; r \ln r \;}_{\text{rounded too}} \;=\; x \ln r$$
#
# The large parts cancel; their rounding errors do not [2].
# Per gene the error is near $6 \cdot 10^{-8}\, r \ln r$: 0.07 nats at $10^5$, 0.8 at $10^6$, 10 at $10^7$.
# The slope has the same form: $\psi(x + r) - \psi(r) \approx x / r$, of two numbers near $\ln r$.
#
# Two cures. Compute in a wider format from the first to the last operation: the edge moves out.
# Or subtract on paper what cancels, and compute only what is left: no edge.
#
# 1. Abramowitz and Stegun (1964), 6.1.41.
# 2. Goldberg (1991), What Every Computer Scientist Should Know About Floating-Point Arithmetic.
#
# ## Repair
# Write the log-probability of the counts. You get `x`, `log_mu` and `log_r`, all float32 and (cell, gene), and return the same.
#
# With $o = \log\mu - \log r$ it is $\ln\Gamma(x + r) - \ln\Gamma(r) - \ln\Gamma(x + 1) + r \log\sigma(-o) + x \log\sigma(o)$.


# %% tags=["exercise"]
def mine(x, log_mu, log_r):
    # Five lines are enough: mind where you enter float64, and where you leave it.
    ...


# %% [markdown]
# ## Check
# <details><summary>Hint 1</summary>
#
# `torch.lgamma(t)` and `torch.nn.functional.logsigmoid(t)` are all that you need. The gradient comes by itself.
# </details>
#
# <details><summary>Hint 2</summary>
#
# Cast `log_r` to float64 *before* `exp`. Then both slopes of `r` meet in float64. Cast the sum back, once.
# </details>

# %%
check(bench, mine)

# %%
answer(bench)

# %% [markdown]
# ## Compare
# *Digits* is how much of the loss agrees with the truth. *Float64 gammas* has seven, and is wrong: its gradient is noise.
# Below the table, 60 steps of training with the guide's formula, from a shift of 12: what it reports, and what is true.

# %%
print(compare(bench, yours=vanishing_dispersion.FORMS["float64"]))
reported, true = vanishing_dispersion.training("guide")
draw_curves({"reported": reported, "true": true}, "step", "loss, nats per cell")

# %% [markdown]
# The run looks brilliant. Most of what it has won does not exist.
# It learns something too, since the gradient in $\mu$ is fine. That is why nobody notices.
# So compare a suspicious loss with float64, once, on one batch.
#
# ## Contract

# %%
assert spare.turn("healthy").verdict == "healthy"
assert spare.turn("broken").verdict == "wrong"
assert spare.turn("broken", likelihood="torch.distributions").verdict == "wrong"
assert spare.turn("broken", likelihood="float64 gammas").verdict == "wrong", "the value is right"
assert spare.turn("broken", shift=20.0, dtype="float64").verdict == "wrong"
assert spare.turn("small").verdict == "dead", "not NaN, as the guide says"
assert spare.turn("repaired").verdict == "healthy"
assert torch.lgamma(torch.tensor(1e-8)) > 18

# %% [markdown]
# **Carry away**
# - A difference of two large numbers keeps the rounding errors of both. Look for lgamma, for squares of distances, for log of ratios.
# - Finite is not true. A loss that is better than it can be is an alarm.
# - Check the gradient against float64 as well as the value.
# - Enter the wide format before the numbers grow, and leave it once.
#
# **Next:** `25_log_of_almost_nothing`, where a small constant takes the learning away.
