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
# # Masked, but not safe
# *Zero times NaN.*
#
# **Symptom:** the masked loss is finite and right, and after one step every parameter is NaN.
#
# **You will** train a VAE on cells with missing counts, lose all of it behind a mask that works, find out which comparisons hide a NaN from you, and write a mean that is safe.
#
# **You need** to know what a mask and a mean are.
#
# **Minutes:** 20

# %%
from labkit import Bench, Panel, answer, check, compare, predict
from labkit.draw import draw_graph, draw_strip
from labkit.failures import masked_but_not_safe
from labkit.models.likelihood import nb_log_likelihood_from_logs

bench = Bench(masked_but_not_safe)

# %% [markdown]
# In 32 real cells some counts were not measured. Whoever wrote the file put a -1 in their place.
# The encoder gets a 0 there. The likelihood of -1 is NaN, so the loss takes the mean over the other entries.
#
# ## The guide says
# > 每个batch后检测loss: if torch.isnan(loss): raise
#
# In English: *check the loss after each batch: if isnan(loss), raise.*
#
# ## Predict
# The mask works: no missing entry is in the loss, and the loss agrees with float64 to eight digits.
# 30 % of the entries are missing. One training step. Which gradients are NaN?
#
# - **A** none: what is not in the loss has no gradient
# - **B** those of the decoder's last layer, where the missing genes are
# - **C** all of them

# %%
predict(bench)

# %% [markdown]
# <details><summary>Answer</summary>
#
# **C.** The mask gives the missing entries the weight 0 in the backward pass. But the backward pass goes on, through the likelihood, whose slope there is NaN.
# 0 times NaN is NaN. The sums of the layers below carry it into every parameter.
# </details>
#
# ## Break

# %%
print(bench.turn("healthy"))
print(bench.source("where"))
print(bench.turn("broken"))
print("loss", round(bench.reading.value, 4), " truth", round(bench.reading.reference, 4))
print(*(f"{link.event}: {link.text}" for link in bench.reading.report.chain[:3]), sep="\n")

# %% [markdown]
# Three lines tell the story. *Born*: the likelihood of -1. *Masked*: `torch.where` takes it out of the value. *Reborn*: the backward pass of the likelihood.
# The guide's check looks at the value, and the value is right.
#
# ## Look

# %%
draw_graph(bench.reading.report)

# %% [markdown]
# ### What to see
# The upper half of a box is the value, the lower half the gradient that arrives.
# One box has a NaN above: the likelihood. The box below it is `where`, and it is well: the mask works.
# On the way back the gradient enters the likelihood with zeros where the mask stands, and leaves it with NaN.
#
# ## Turn
# Set *missing* to 0: healthy. Then choose the other masks, and the other markers.
# With the marker 0 the broken mask is safe: a 0 can be scored. It is what stands in the gaps that matters.
# Then take some cells away altogether with *empty*.

# %%
spare = Bench(masked_but_not_safe)  # for strips and contract; the panel keeps its setting
Panel(bench)

# %% [markdown]
# With *empty* the mean of a cell without counts is 0/0: a second NaN, born in the mean itself.
#
# ## Strip
# More and more entries are missing: first `where`, then `nan_to_num`, then the gaps filled with zeros.

# %%
for mask in ("where", "nan_to_num", "zeros"):
    spare.turn("healthy", mask=mask)
    display(draw_strip(spare.sweep("missing", (0, 5, 30, 60, 90)), "missing"))

# %% [markdown]
# Rows 1 and 2: lost with the first missing entry. `nan_to_num` is a mask like any other.
# Row 3: nothing is NaN, and it is *wrong*. A count that was not measured is no count of zero.
#
# Which operations hide a NaN? Here is what becomes of `t = [1, nan, 3]`:

# %%
for expression, result in masked_but_not_safe.passes_through().items():
    print(f"{expression:30} {result}")

# %% [markdown]
# Sum, max, min, clamp and relu hand it on. `fmax`, `where(t > 0)` and a boolean index swallow it. `argmax` answers with its place, so a network that is all NaN predicts class 0.
#
# *Every* comparison with NaN is false. So `if loss > 1e3: raise` never fires, and counts of `t > 2` and `t <= 2` do not add up to 3.
# Python's `min` depends on the order: one keeps the best loss, the other makes NaN the best.
# Ask `not (loss < 1e3)`: that is true for all that is not well.
#
# ## Why
# Let $y = m \cdot f(x_\theta)$ with the mask $m = 0$. The chain rule has three factors:
#
# $$\frac{\partial y}{\partial \theta} = m \cdot f'(x_\theta) \cdot \frac{\partial x_\theta}{\partial \theta} = 0 \cdot \mathrm{NaN} \cdot \dots = \mathrm{NaN}$$
#
# On paper the first factor ends it. A program multiplies all of them, and IEEE 754 says that $0 \cdot \mathrm{NaN}$ and $0 \cdot \infty$ are NaN [1].
# `torch.where`, `masked_fill`, `nan_to_num` and an index all send back a 0, and all of them sit behind $f$.
#
# So act in front: give $f$ an argument that it can bear. What comes out is finite, 0 times finite is 0, and the mask behind $f$ takes the value out.
# Both are needed. The first saves the gradient, the second the value.
#
# 1. IEEE 754-2019, sections 5.11 and 6.2.
#
# ## Repair
# Write the loss. You get the counts `x`, `log_mu`, `log_r` and `seen` (1 where measured, else 0), each (cell, gene).
# Return the mean, over the cells in which anything was measured, of their mean over what was measured; with a minus sign.
# `nb_log_likelihood_from_logs(x, log_mu, log_r)` gives the log-probability of each entry.


# %% tags=["exercise"]
def mine(x, log_mu, log_r, seen):
    # Four lines are enough: safe counts, masked log-probabilities, their number, the mean.
    ...


# %% [markdown]
# ## Check
# <details><summary>Hint 1</summary>
#
# `torch.where(seen > 0, x, 0.0)` in front of the likelihood, and `torch.where(seen > 0, ..., 0.0)` behind it.
# </details>
#
# <details><summary>Hint 2</summary>
#
# A cell with nothing measured has the count 0: divide by `count.clamp(min=1)`, and take the mean over the cells with `count > 0`.
# </details>

# %%
check(bench, mine)

# %%
answer(bench)

# %% [markdown]
# ## Compare
# Every mask at the broken setting, then the loss of four training steps, with nothing to stop a bad one.

# %%
print(compare(bench, yours=masked_but_not_safe.FORMS["before and after"]))
print()
for mask, losses in masked_but_not_safe.descents().items():
    print(f"{mask:17} loss of each step: " + "  ".join(f"{loss:.3f}" for loss in losses))

# %% [markdown]
# Look at `nan_to_num`. After one step every parameter is NaN, every log-probability is NaN, each of them becomes 0, and the loss is 0.
# It is the best loss that a likelihood of counts can have. No alarm will ever ring, and a script that keeps the best model keeps this one.
#
# ## Contract

# %%
assert spare.turn("healthy").verdict == "healthy"
assert spare.turn("broken").verdict == "nan"
assert abs(spare.reading.value - spare.reading.reference) < 1e-5, "the loss is right"
assert spare.turn("broken", mask="nan_to_num").verdict == "nan"
assert spare.turn("broken", mask="zeros").verdict == "wrong"
assert spare.turn("repaired", empty=2.0).verdict == "healthy"
assert not (float("nan") > 1e3)
assert not (float("nan") < 1e3)

# %% [markdown]
# **Carry away**
# - Choose a bad value away *before* the operation that cannot bear it, and the result away after it.
# - A mask that looks for NaN hides the NaN that you did not expect.
# - Write an alarm so that NaN sets it off: `not (loss < limit)`.
# - Missing is not zero. Divide by what you have seen, and have a floor for nothing.
#
# **Next:** `22_exploding_logvar`, where one `exp` of two overflows.
