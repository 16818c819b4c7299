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
# # Half precision
# *Lost in rounding.*
#
# **Symptom:** after `model.half()` the loss is fine, the gradients are fine, and one step later every weight is NaN.
#
# **You will** move a real VAE into float16 and bfloat16, lose an eps, most gradients and most updates, and get all of them back.
#
# **You need** to know what a dtype is. `25_log_of_almost_nothing` shows an eps that float16 does not have.
#
# **Minutes:** 25

# %%
from labkit import Bench, Panel, answer, check, compare, predict
from labkit.draw import draw_curves, draw_gradients, draw_strip
from labkit.failures import _formats, half_precision

bench = Bench(half_precision)
bench.turn("healthy")

# %% [markdown]
# ## The guide says
# > mu = F.softplus(self.fc_mu(h)) + eps  # 确保>0
#
# In English: *this ensures that mu is above 0.* Its eps is 1e-8, everywhere.
# That is the eps of Adam as well, which divides each step by `sqrt(v) + eps`.
#
# ## Predict
# A trained VAE in float32 and Adam with a learning rate of 0.001. We call `model.to(torch.float16)` and take one ordinary step on 64 real cells.
# The loss is 644.5 as before, and every gradient is finite and ordinary. What are the weights after the step?
#
# - **A** right to three digits, which is what float16 has
# - **B** unchanged, since the updates are too small
# - **C** NaN

# %%
predict(bench)

# %% [markdown]
# <details><summary>Answer</summary>
#
# **C.** Adam squares each gradient. The square of 1e-4 is 1e-8, and in float16 that is zero.
# Its eps is zero too. So Adam divides by zero wherever a gradient is small, and by a gradient of zero it makes 0 / 0.
# </details>
#
# ## Break

# %%
print(_formats.table(), "\n")
print(bench.source("pure"))
print(bench.turn("broken"))

# %% [markdown]
# The table asks the formats themselves. float16 is precise and narrow: three digits, from 6e-8 to 65504.
# bfloat16 is wide and coarse: the range of float32, and a first step above 1 of 0.008.
#
# The verdict is *nan*, and the culprit is `addcdiv_`, the division inside `optimizer.step()`. Forward and backward are well.
#
# ## Look
# Suppose that the weights stay in float32, and only the matrix products run in float16. Then the optimizer is safe.
# Now make the loss a mean over genes and cells in place of a sum, a few more factors, and it is 100 000 times smaller.
# Adam does not care about the size of a loss. What does float16 say?

# %%
print(bench.turn("underflow"))
draw_gradients(bench.reading.report)

# %% [markdown]
# ### What to see
# Look at the column *zero*. Of `decoder.fc_r.weight` two thirds of the entries are exactly zero, and of `decoder.fc_mu.weight` a sixth.
# In float64 hardly any are. The others end abruptly near 1e-8.
# Of the encoder's input layer three quarters are zero in every dtype: hidden units that never fire. That is no fault.
# The fault is a zero that float64 does not have, and only a comparison shows it.
#
# ## Turn
# Set *dtype*, and see what becomes of each *step*. *power* makes the loss smaller, *rate* is the learning rate.

# %%
spare = Bench(half_precision)  # for strips and contract; the panel keeps its setting
bench.turn("rounded")
Panel(bench)

# %% [markdown]
# The panel opens in bfloat16, all of it, with a learning rate of 1e-4. Nothing is NaN, every gradient is right to two digits.
# Most weights do not move. A weight of 0.1 has neighbours 0.0005 away, and an update of 1e-4 is rounded back to where it came from.
#
# ## Strip
# First the learning rate in pure bfloat16. Then the size of the loss in float16, without and with a scale of 1024.

# %%
spare.turn("rounded")
display(draw_strip(spare.sweep("rate", (-2.5, -3, -4, -5, -6)), "rate"))
for form in ("autocast", "scaled"):
    spare.turn("repaired", step=form)
    display(draw_strip(spare.sweep("power", (0, 2, 4, 5, 6)), "power"))

# %% [markdown]
# ### What to see
# Above: the smaller the learning rate, the more parameters stand still. *Every* pure run in bfloat16 is frozen in part.
# Middle: small gradients vanish one parameter after the other.
# Below: scaled by 1024 on the way down, and divided by it at the end, they all arrive.
#
# ## Why
# A format with $p$ significant bits rounds to steps of $2^{1-p}$, relative to the number. So
#
# $$w + \Delta w = w \quad\text{where}\quad |\Delta w| < 2^{-p}\,|w|, \qquad p = 8 \text{ (bfloat16)},\; 11 \text{ (float16)},\; 24 \text{ (float32)}$$
#
# up to a factor of two. bfloat16 loses updates below 0.2 to 0.4 % of a weight [2].
# float16 loses what is below $2^{-24} = 6 \cdot 10^{-8}$ [3]: gradients, their squares, an eps.
#
# The gradient is linear in the loss. A loss times 1024 has gradients times 1024, and a power of two changes no digit [1].
# Too large a scale overflows at 65504. `torch.amp.GradScaler` looks for the right one and skips steps until it has it.
# `autocast` keeps what needs digits in float32, and the weights as well [4].
#
# 1. Micikevicius et al. (2018), Mixed Precision Training.
# 2. Kalamkar et al. (2019), A Study of BFLOAT16.
# 3. IEEE 754-2019.
# 4. PyTorch documentation, Automatic Mixed Precision.
#
# ## Repair
# Write one training step. You get a model with float32 weights, an Adam over them, a function from the model to its loss, and the dtype.
# The matrix products shall run in that dtype. The run shall end where float64 does. Return the loss.


# %% tags=["exercise"]
def mine(model, optimizer, loss, dtype):
    # Eight lines are enough: a block for the forward pass, a scale down and up, a step.
    ...


# %% [markdown]
# ## Check
# <details><summary>Hint 1</summary>
#
# `with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):` around the forward pass, and only there.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `(value * 1024).backward()`, then `p.grad.div_(1024)` for each parameter, then the step. 65536 is too much here.
# </details>

# %%
check(bench, mine)

# %%
answer(bench)

# %% [markdown]
# ## Compare
# Every form in float16. Below the table, two runs of 60 steps in bfloat16 with a learning rate of 1e-4.

# %%
print(compare(bench, yours=half_precision.FORMS["scaled"]))
draw_curves(half_precision.courses(), "step", "loss, nats per cell")

# %% [markdown]
# *larger eps* is the advice that one reads: 1e-4 instead of 1e-8. It stops the NaN, and it is another optimizer. Its run ends elsewhere, and with a small loss it stands still.
# *autocast* is right at this size of loss and dead at a smaller one.
#
# In the picture the pure run falls at less than half the speed. Nothing tells it from a learning rate that is too small.
#
# Two things stay in float32 whatever you do: counts, since float16 has no 2049 and bfloat16 no 257, and the likelihood.
# The last line of the first table is one count of 1001: off by 5 nats in either half precision.
#
# ## Contract

# %%
assert spare.turn("broken").verdict == "nan"
assert spare.reading.culprit.phase == "optimizer"
assert spare.turn("broken", step="larger eps").verdict == "wrong"
assert spare.turn("rounded").verdict == "frozen"
assert spare.turn("underflow").verdict == "dead"
assert spare.turn("underflow", step="scaled").verdict == "healthy"
assert spare.turn("repaired").verdict == "healthy"

# %% [markdown]
# **Carry away**
# - Never call `.half()` or `.bfloat16()` on a model that you train. Weights and optimizer state stay in float32.
# - bfloat16 needs no loss scale and float16 does. A power of two costs no digit.
# - Count the zeros in a gradient, and compare with one step in float32.
# - An eps is a number of its dtype. Ask `torch.tensor(eps, dtype=dtype)` what is left of it.
# - Sums, counts, likelihoods: float32 or more.
#
# **Next:** `30_defence_in_depth`, or Part IV, `40_hunting_the_source`.
