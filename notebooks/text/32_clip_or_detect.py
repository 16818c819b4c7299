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
# # Clip or detect
# *One for all, and none for anybody.*
#
# **Symptom:** every gradient was finite, the optimizer stepped, and no weight has moved.
#
# **You will** see one line between `backward()` and `step()` turn four bad gradients into twelve bad parameters, and twelve good gradients into nothing. Then you will write that line yourself.
#
# **You need** to know what a gradient norm is. `22_exploding_logvar` shows where the large gradients come from.
#
# **Minutes:** 25

# %%
from labkit import Bench, Panel, answer, check, compare, predict
from labkit.draw import draw_curves, draw_gradients, draw_strip
from labkit.failures import clip_or_detect

bench = Bench(clip_or_detect)
bench.turn("healthy")

# %% [markdown]
# ## The guide says
# > ❌ 错误: 裁剪可能掩盖NaN
# >
# > ✅ 正确: 先检测再裁剪
#
# In English: *wrong: clipping may mask a NaN. Right: detect first, then clip.*
# Its code for "right" calls `clip_grad_norm_`, and then asks whether the norm that came back is NaN or Inf.
#
# ## Predict
# A trained VAE, 64 real cells. The slider adds the same number to every log-variance.
# The sampler is guarded, the KL is not, so its gradient grows like `exp(shift)`.
# At a shift of 50 the loss is 3e21. It is finite, and so is every one of the twelve gradients.
# `clip_grad_norm_(parameters, 100)` comes next, then `step()`. What happens?
#
# - **A** every parameter takes a step, and all steps together have the length 100 times the learning rate
# - **B** the large gradients are shortened, the small ones stay as they were
# - **C** nothing moves, and nothing is reported
# - **D** every parameter becomes NaN

# %%
predict(bench)

# %% [markdown]
# <details><summary>Answer</summary>
#
# **C.** The largest entry is near 1e21. Its square is 1e42, and float32 ends at 3.4e38.
# So the norm is Inf, the factor 100 / Inf is zero, and every gradient becomes exactly zero.
# The loss is finite, the gradients after it are finite, the optimizer runs. The model stands still for ever.
# </details>
#
# ## Break

# %%
print(bench.source("clip"))
print(bench.turn("broken"))
print(bench.turn("poisoned"))

# %% [markdown]
# The first verdict is *dead*. The culprit is the norm inside the clipping: finite numbers went in, Inf came out.
#
# The second is a shift of 95. There the KL itself overflows, and 4 of 12 gradients are not finite.
# The norm is NaN, and every gradient is multiplied by it. One step later 12 of 12 parameters are NaN.
# So clipping does not mask a NaN. It gives one to everybody.
#
# ## Look
# What the optimizer got at a shift of 50. First behind the common clip. Then with the same clip, its norm taken in float64.

# %%
display(draw_gradients(bench.turn("broken").report))
print(bench.turn("starved"))
draw_gradients(bench.reading.report)

# %% [markdown]
# ### What to see
# Above, every entry of every parameter is in the bin for zero.
#
# Below, the norm is right, and the step has the right length. But look how far apart the rows are.
# The KL's gradient is so long that it takes the whole bound for itself.
# The rest gets what is left: numbers near 1e-12 and less, which float32 rounds away when they are added to a weight.
# Eight of twelve parameters do not move by a single bit. They *starve*.
#
# ## Turn
# Drag *shift*. Choose what stands *between* backward and step. Then set *shift* to 0 and raise *scale*, the power of two of a loss scaler.

# %%
spare = Bench(clip_or_detect)  # for strips and contract; the panel keeps its setting
bench.turn("broken")
Panel(bench)

# %% [markdown]
# With *scale* at 16 the loss is multiplied by 65536, as for half precision.
# Clipped first and unscaled afterwards, a healthy gradient of length 26 becomes one of 0.0015: the bound was compared with the wrong number.
# The order is: unscale, measure, decide, clip, step.
#
# ## Strip
# The same knob without a kernel, for three forms: the habit, one norm in float64, and a norm for each parameter.

# %%
stops = (0, 15, 30, 50, 87, 95)
for form in ("clip", "wide", "each"):
    spare.turn("healthy", between=form)
    display(draw_strip(spare.sweep("shift", stops), "shift"))

# %% [markdown]
# ### What to see
# In the upper strip a clip that works at 15 is dead at 50, and poisons everything at 95.
# In the middle one nothing is dead, but the others starve from 30 on.
# The lower one is well as long as the loss is finite.
# At 87 the loss is Inf while every gradient is finite, since a mean divides. A check of the loss would refuse that step.
# At 95 the step is refused. The verdict names what is above: the KL.
#
# ## Why
# With $g$ all gradients side by side and $c$ the bound [1]:
#
# $$g \leftarrow g \cdot \min\!\left(1, \frac{c}{\lVert g \rVert}\right), \qquad \lVert g \rVert^2 = \sum_i g_i^2$$
#
# A NaN anywhere makes the factor NaN, for everybody.
# An entry above $\sqrt{3.4 \cdot 10^{38}} = 1.8 \cdot 10^{19}$ has a square that float32 does not hold, so the factor is 0.
# In float64 that square is an ordinary number.
#
# One factor for all keeps the direction of the step. If one parameter's gradient is a million times longer than the others', they get a millionth of a step.
# A bound for each part gives up the direction and keeps everybody learning [2].
#
# A factor computed on scaled gradients is wrong by the scale [3].
#
# 1. Pascanu, Mikolov and Bengio (2013), On the difficulty of training recurrent neural networks.
# 2. Brock et al. (2021), High-Performance Large-Scale Image Recognition Without Normalization.
# 3. PyTorch documentation, Automatic Mixed Precision examples.
#
# ## Repair
# Write what stands between `backward()` and `step()`. You get the list of parameters, the bound, and the loss scale that is in the gradients.
# Edit each `p.grad` in place. Return the norm that you found, as a number: if it is not finite, no step is taken.
# No parameter shall get a gradient longer than the bound, and none shall starve.


# %% tags=["exercise"]
def mine(parameters, max_norm, scale):
    # Six lines are enough: unscale, measure, decide, clip.
    ...


# %% [markdown]
# ## Check
# <details><summary>Hint 1</summary>
#
# `p.grad.double().norm().item()` is a length whose squares do not overflow. Take one for each parameter, after `p.grad.div_(scale)`.
# </details>
#
# <details><summary>Hint 2</summary>
#
# Look at all the norms before you touch a gradient. The sum of them is finite exactly if each of them is.
# A factor `min(1, max_norm / norm)` leaves a short gradient as it was; mind a norm of zero.
# </details>

# %%
check(bench, mine)

# %%
answer(bench)

# %% [markdown]
# ## Compare
# Every form at the broken setting. *guide* clips, then looks. *strict* is torch's own `error_if_nonfinite=True`: it looks, then clips.
# Below the table, three runs that start at a shift of 60, with plain gradient descent.

# %%
print(compare(bench, yours=clip_or_detect.FORMS["each"]))
draw_curves(clip_or_detect.courses(), "step", "mean log-variance")

# %% [markdown]
# *strict* keeps what it found, so that you can see which gradient was bad. *guide* raises when all twelve are zero or NaN already.
# But here nothing was bad: both refuse twelve finite gradients, since their norm is taken in float32.
# In training that is a run that refuses every step, for ever.
# With the norm in float64 the run comes home. With a bound for each parameter it comes home sooner, since everybody helps.
#
# A bound for each parameter has a price: where it acts, the step no longer points down the gradient. In a healthy run it does not act.
#
# ## Contract

# %%
assert spare.turn("healthy").verdict == "healthy"
assert spare.turn("broken").verdict == "dead", "finite gradients, and no step"
assert spare.turn("poisoned").note == "not finite: 4 gradients, 12 parameters"
assert spare.turn("poisoned", between="strict").note == "not finite: 4 gradients, 0 parameters"
assert spare.turn("starved").verdict == "frozen"
assert spare.turn("scaled").verdict == "wrong"
assert spare.turn("repaired").verdict == "healthy"

# %% [markdown]
# **Carry away**
# - Unscale, measure, decide, clip, step. In this order.
# - Take norms in float64. A finite gradient of 1e20 is large, not broken.
# - If a gradient is not finite, take no step, and say which parameter it was. Do not clip it.
# - Log the norm of each parameter, not only of all. Starving shows there and nowhere else.
#
# **Next:** `33_poisoned_state`: a step that was refused too late, and what remembers it.
