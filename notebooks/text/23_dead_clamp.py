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
# # Dead clamp
# *The door that locks from outside.*
#
# **Symptom:** the loss is finite, it even falls, and one layer has not moved since the first step.
#
# **You will** lock a layer of a real VAE with the guard that was meant to protect it, see why no alarm rings, and build a guard that lets the layer come home.
#
# **You need** to know what a gradient is. `22_exploding_logvar` shows what the clamp was put there for.
#
# **Minutes:** 25

# %%
from labkit import Bench, Panel, answer, check, compare, predict
from labkit.draw import draw_curves, draw_gradients, draw_map, draw_strip
from labkit.failures import dead_clamp

bench = Bench(dead_clamp)
bench.turn("healthy")

# %% [markdown]
# ## The guide says
# > sample_z: clamp logvar到[-10, 10] · elbo_loss: clamp logvar_z到[-10, 10]
#
# In English: *clamp the log-variance to [-10, 10], in the sampler and in the loss.*
# These are the first two of its protection points. The healthy run above already has both.
# A trained encoder gives log-variances between -4.4 and -0.6, so the clamp has nothing to do.
#
# ## Predict
# Now every log-variance starts 15 lower, near -17. Both clamps are on.
# The sampler's standard deviation is then `exp(-5)`, the smallest that the clamp allows.
# We train. What do you see?
#
# - **A** the loss is NaN
# - **B** the loss is stuck
# - **C** the loss falls as in a good run, the log-variance comes back
# - **D** the loss falls as in a good run, and the layer that makes the log-variance never changes by a single bit

# %%
predict(bench)

# %% [markdown]
# <details><summary>Answer</summary>
#
# **D.** The rest of the model learns, and it can lower the loss without this layer.
# No value is NaN, none is large, the gradient norm looks ordinary.
# Both ways to the loss lead through the clamp, and there its slope is zero.
# </details>
#
# ## Break

# %%
print(bench.source("clamp"))
print(bench.turn("broken"))
print(bench.reading.culprit.source)

# %% [markdown]
# The verdict is *dead*: every value is finite, and a gradient is exactly zero. Not small: zero.
# The culprit is a backward operation, `ClampBackward1`. Forward, nothing is wrong at all.
# Two of twelve parameters are harmed: the weight and the bias of `fc_logvar`.
#
# ## Look

# %%
draw_gradients(bench.reading.report)

# %% [markdown]
# ### What to see
# Two rows have all of their entries in the bin for zero.
# The other ten rows are hills, as in any healthy run.
# A mean over all parameters, or one total gradient norm, would not show the two.
#
# ## Turn
# Drag *shift* to both sides and watch where the badge changes.
# Then set *place* to *sampler*: now the KL sees the raw log-variance, and the layer lives.
# Then try the smooth caps, far out.

# %%
spare = Bench(dead_clamp)  # for strips and contract; the panel keeps its setting
Panel(bench)

# %% [markdown]
# In the graph, follow the gradient up from the loss.
# It reaches the clamp from two sides, the sampler's and the KL's. It does not leave the clamp.
# `fc_mu` beside it is alive, and so is the layer below, which both share.
#
# ## Strip
# The same knob without a kernel. First the clamp. Then two smooth caps that are often used instead of it.
# Last, a map of every guard at every shift.

# %%
stops = (-60, -25, -15, 0, 12, 15, 60, 95)
for form in ("clamp", "softplus", "tanh"):
    spare.turn("healthy", guard=form)
    display(draw_strip(spare.sweep("shift", stops), "shift"))
spare.turn("broken")
display(draw_map(spare.map()))

# %% [markdown]
# First: the clamp dies on both sides. At 12 some cells are inside and some are not.
# There the badge says healthy, since one cell that is inside keeps the whole parameter alive. The cells outside are silent all the same.
#
# Second: the softplus cap is alive at 15, and its gradient is 1e-10 at 60. Its slope falls like `exp(-distance)`.
#
# Third: the tanh cap holds out longer. At 95 it is as dead as the clamp: in float32 `tanh` is exactly 1 from 9.011 on.
# A smooth cap moves the place where the layer dies. It does not remove it.
#
# The map: without a guard the step is well on the left and explodes on the right. The clamp is dead on both sides.
# The two last rows are green from end to end. They cap the value and let the gradient through.
# In the panel, set *place* to *sampler* and see another map. The left side is green in every row, since the KL is never cut.
# On the right nothing protects the KL, and every row ends in Inf.
#
# ## Why
# The KL has a force that pulls every log-variance $\ell$ home [1]. A guard $g$ multiplies it by its slope:
#
# $$\frac{\partial L}{\partial \ell} = \frac{\partial L}{\partial g}\, g'(\ell), \qquad g'_{\text{clamp}} = 0, \quad g'_{\text{softplus}} \approx e^{-d}, \quad g'_{\tanh} \approx 4 e^{-2|\ell|/10}$$
#
# at a distance $d$ outside the range [2].
# Zero times any force is zero. A float has a floor as well, so the other two become zero further out.
#
# A straight-through cap [3] has the slope one everywhere: the way home is open.
# So is the way out: what wants a value beyond the cap pushes for ever, and nothing answers.
# Control engineers call this *wind-up*.
# So, outside, let a gradient pass only if its step leads back [4].
#
# 1. Kingma and Welling (2014), Auto-Encoding Variational Bayes, appendix B.
# 2. The softplus cap: Chua et al. (2018), Deep Reinforcement Learning in a Handful of Trials, appendix A.1.
# 3. Bengio, Léonard and Courville (2013), Estimating or Propagating Gradients Through Stochastic Neurons.
# 4. Ballé, Hwang and Agustsson, TensorFlow Compression, `lower_bound` with `identity_if_towards`.
#
# ## Repair
# Write a guard. It gets `logvar`, shape (cell, latent), and returns the same shape, in [-10, 10].
# Outside the range a gradient shall pass if the step against it leads back, and stop if it leads further out.


# %% tags=["exercise"]
def mine(logvar):
    # Four lines are enough: a straight-through cap, and a hook that looks at the sign.
    ...


# %% [markdown]
# ## Check
# <details><summary>Hint 1</summary>
#
# The straight-through cap is `logvar.clamp(-10, 10).detach() + (logvar - logvar.detach())`.
# A step goes against the gradient: at 15, a positive gradient leads back, and a negative one leads out.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `out.register_hook(f)` replaces the gradient that arrives at `out` by `f(gradient)`. Register it only if `out.requires_grad`.
# </details>

# %%
check(bench, mine)

# %%
answer(bench)

# %% [markdown]
# ## Compare
# Every form at the broken setting. *None* is no guard at all: here the guard itself was the illness.
# Below the table, what it means in training: two runs that start 40 below.

# %%
print(compare(bench, yours=dead_clamp.FORMS["inward"]))
print("\nnever moved behind the clamp:", ", ".join(dead_clamp.still()))
draw_curves(dead_clamp.recoveries(forms=("clamp", "inward")), "step", "mean log-variance")

# %% [markdown]
# Behind the clamp the layer keeps every bit of its weights.
# What it puts out drifts all the same, since the layer below is shared with `fc_mu` and learns.
# So a run can drift back into the range by luck. It cannot steer.
# A softplus cap ends where the clamp does, from here.
#
# Why not plain straight-through? It opens the way out as well as the way home.
# Here the guide's other range, log r in [-5, 5], stands in front of the likelihood. For many genes the data want more than 5.

# %%
draw_curves(dead_clamp.windups(), "step", "loss, nats per cell")

# %% [markdown]
# Straight-through winds up: the values behind the cap run away, the layers below follow, and the loss suffers.
# *Inward* has no such price, and it can come home.
#
# ## Contract

# %%
assert spare.turn("healthy").verdict == "healthy"
assert spare.turn("broken").verdict == spare.turn("above").verdict == "dead"
assert spare.turn("broken", place="sampler").verdict == "healthy", "the KL alone pulls it back"
assert spare.turn("broken", shift=-60.0, guard="softplus").verdict == "vanishing"
assert spare.turn("broken", shift=95.0, guard="tanh").verdict == "dead"
assert "further out" in str(spare.turn("above", guard="straight-through"))
assert spare.turn("repaired").verdict == "healthy"

# %% [markdown]
# **Carry away**
# - A guard in front of every use of a value cuts every force on it. Leave one way home, or let the gradient pass.
# - No NaN check, no loss curve and no gradient norm sees a gradient that is exactly zero. Count zeros, parameter by parameter.
# - A smooth cap is a clamp that dies later.
# - Straight-through opens both directions. Close the one that leads out.
#
# **Next:** `24_vanishing_dispersion`, where every number is finite and alive, and wrong.
