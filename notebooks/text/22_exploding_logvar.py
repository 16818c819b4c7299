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
# # Exploding log-variance
# *The exponent without the half.*
#
# **Symptom:** the loss is `inf` from one step to the next, and a few steps later every weight is NaN.
#
# **You will** break the KL term of a real VAE with one slider, name the line where the infinity is born, and repair it without killing the gradient.
#
# **You need** to know what `exp` does and what a VAE is. `00_start_here` shows both.
#
# **Minutes:** 20

# %%
from labkit import Bench, Panel, answer, check, compare, predict
from labkit.draw import draw_curves, draw_gradients, draw_graph, draw_map, draw_strip
from labkit.failures import exploding_logvar

bench = Bench(exploding_logvar)
bench.turn("healthy")

# %% [markdown]
# ## The guide says
# > logvar过大 >20 → exp溢出 → std=Inf
#
# In English: *logvar too large (> 20): exp overflows, and the standard deviation is Inf.*
#
# Its repair is a clamp of logvar to [-10, 10], in the sampler and in the KL.
#
# ## Predict
# The encoder gives each cell a mean and a log-variance.
# The sampler needs `std = exp(logvar / 2)`.
# The KL divergence needs `exp(logvar)`.
# The slider adds the same number to every log-variance, in float32.
# What breaks first, and near which number?
#
# - **A** the standard deviation, near 20
# - **B** the standard deviation, near 177
# - **C** the KL, near 88
# - **D** both at once

# %%
predict(bench)

# %% [markdown]
# <details><summary>Answer</summary>
#
# **C.** The largest float32 is about 3.4e38, and its logarithm is 88.72.
# The KL's exponent has no half in it, so it reaches that edge first.
# The standard deviation is still finite at 177.
# At 20 it is 22026, which is large but not infinite.
# </details>
#
# ## Break
# This is the form that most people write. The log-variance goes where it is needed, as it is.

# %%
print(bench.source("none"))
print(bench.turn("broken"))
print(bench.reading.culprit.source)

# %% [markdown]
# The reading is one line: the verdict, the operation where it was born, its place, and what went in.
# The inputs of that operation were finite. Its output was not. That makes it the culprit.
# The last line is the culprit's own source: the KL divergence, with an `exp` that has no half in it.
#
# ## Look
# The same step as a graph. Data enters above, the loss is below.

# %%
draw_graph(bench.reading.report)

# %% [markdown]
# ### What to see
# Follow the infinity from the outlined operation down to the loss, and then back up with the gradient.
# The reconstruction half of the graph is well: the sampler's `exp` holds, since its exponent is halved.
# On the way back, `Inf * 0` makes NaN. It enters the encoder through `fc_logvar`.
# The guide says that now *all* parameters are NaN. Count them below.

# %%
draw_gradients(bench.reading.report)

# %% [markdown]
# Each row is one parameter, and all rows share one axis.
# The bins for NaN, infinities and zero are always there, so nothing can hide in a missing bar.
# `fc_mu` and the whole decoder still have a finite gradient.
# The set of harmed parameters tells you which path the infinity took.
#
# ## Turn
# Drag the slider. Break it, repair it, and try the guide's clamp at a shift of 15.
# The arrow keys move one step; Home and End go to the ends.

# %%
spare = Bench(exploding_logvar)  # for strips and contract; the panel keeps its setting
Panel(bench)

# %% [markdown]
# Stop at 86: the loss is Inf, and yet every gradient is finite and no parameter is harmed.
# A mean divides, so it spreads a finite gradient from an infinite value.
# Stop at 185: now the sampler has overflowed as well, and the NaN reaches every parameter.
#
# ## Strip
# The same knob without a kernel: first with no guard, then with the guide's clamp in both places.
# Last, a map of two knobs: no guard, in every dtype. The panel above has it too; there a click sets the bench.

# %%
stops = (-20, 0, 20, 60, 86, 90, 120, 185)
spare.turn("healthy")
display(draw_strip(spare.sweep("shift", stops), "shift"))
spare.turn(guard="clamp")
display(draw_strip(spare.sweep("shift", stops), "shift"))
spare.turn("broken")
display(draw_map(spare.map()))

# %% [markdown]
# Above: at 20, where the guide sees an overflow, every value is finite.
# The loss becomes Inf near 86, and NaN only when the sampler overflows too.
#
# Middle: with the clamp nothing is Inf and nothing is NaN. But the badge does not say *healthy*.
# Outside [-10, 10] the clamp's derivative is exactly zero.
# The log-variance hears nothing any more, from the KL or from the data.
#
# The map: in float32 the KL overflows near 86, and the sampler near 176, twice as far out. float16 has both behind it at 21.
# bfloat16 and float32 share their edges: they have the same exponent, and only digits differ.
# In float64 nothing overflows here, and yet the gradients explode from 24 on. A wider dtype moves the edge, and it is no repair.
#
# ## Why
# For the KL divergence from the posterior to the standard normal, per latent,
#
# $$\mathrm{KL} = \tfrac12\left(\mu^2 + e^{\ell} - 1 - \ell\right), \qquad \frac{\partial\,\mathrm{KL}}{\partial \ell} = \tfrac12\left(e^{\ell} - 1\right)$$
#
# with $\ell$ the log-variance [1].
# A number format whose largest value is $M$ holds $e^{\ell}$ up to $\ell = \ln M$, and $e^{\ell/2}$ up to $2 \ln M$.
# That is 11.09 and 22.18 in float16, 88.72 and 177.45 in float32 [3].
# The guide's *20* is nearly right for the sampler in float16, and for nothing else.
#
# The derivative is the restoring force: the larger $\ell$, the harder the KL pulls it back.
# A clamp multiplies this force by zero outside its range.
# A straight-through cap [2] limits the value and lets the force pass.
#
# 1. Kingma and Welling (2014), Auto-Encoding Variational Bayes, appendix B.
# 2. Bengio, Léonard and Courville (2013), Estimating or Propagating Gradients Through Stochastic Neurons.
# 3. IEEE 754-2019, binary16 and binary32.
#
# ## Repair
# Write a guard. It gets `logvar`, shape (cell, latent), and returns the same shape.
# The value must stay in [-10, 10], on both sides. The gradient must pass everywhere, whole: a small leak is no way home.


# %% tags=["exercise"]
def mine(logvar):
    # Two lines are enough: the capped value, and the gradient of what was not capped.
    ...


# %% [markdown]
# ## Check
# <details><summary>Hint 1</summary>
#
# `torch.clamp` gives you the right value. What you need besides is a term whose value is zero and whose gradient is one.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `t - t.detach()` has the value zero and the gradient one.
# </details>

# %%
check(bench, mine)

# %%
answer(bench)

# %% [markdown]
# ## Compare
# Every form at the broken setting, and what it costs a healthy run.
# *Digits* is how many decimal digits of the loss agree with the same step in float64.
# *Healthy run* asks whether the guard changes a model that has no trouble.
#
# Below the table, what it means in training: three runs that start at a shift of 90.
# Each takes safe steps: a step whose loss or gradient is not finite is refused.

# %%
print(compare(bench, yours=exploding_logvar.FORMS["straight-through"]))
draw_curves(exploding_logvar.recoveries(), "step", "mean log-variance")

# %% [markdown]
# Without a guard every step is refused: the run is safe, and it stands still.
# With the clamp every step is accepted, and the log-variance drifts without aim.
# With the straight-through cap it comes back. It overshoots first, since Adam remembers the large gradients.
#
# ## Contract

# %%
assert spare.turn("healthy").verdict == "healthy"
assert spare.turn("broken").verdict == "inf"
assert spare.turn("broken", shift=20.0).verdict not in ("inf", "nan"), "the guide says it overflows"
assert spare.turn("broken", guard="clamp").verdict == "dead"
assert spare.turn("repaired").verdict == "healthy"

# %% [markdown]
# **Carry away**
# - Look for every `exp`. The one without a factor in its exponent overflows first.
# - The edge is the logarithm of the largest number of the dtype. Know it for yours.
# - A clamp in front of a loss trades an alarm for silence. Cap the value, and let the gradient pass.
# - Clip the gradient norm as well: a repaired run that starts far out begins with a large step.
#
# **Next:** put your own model on the bench. `labkit.trace(step, model=model)` gives the same reading for any training step.
