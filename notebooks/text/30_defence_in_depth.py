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
# # Defence in depth
# *Three locks and an open window.*
#
# **Symptom:** every guard is on, no alarm has rung, and the model learns from data that are not data.
#
# **You will** count what each of the guide's guards caught, hid and killed on real cells, find the faults that pass all three layers, and write a defence that says what it refuses.
#
# **You need** to know the VAE and its guards. `23_dead_clamp` shows what a clamp does to a gradient.
#
# **Minutes:** 30

# %%
from labkit import Bench, Panel, answer, check, compare, predict
from labkit.draw import draw_gradients, draw_strip
from labkit.failures import _layers, defence_in_depth

bench = Bench(defence_in_depth)
bench.turn("healthy", guards="guide")

# %% [markdown]
# ## The guide says
# > 原则1: 多层防护（Defense in Depth）
# > 层次1: 模型输出层添加保护 · 层次2: 损失函数输入验证 · 层次3: 运行时检测
#
# In English: *layer 1, guard the outputs of the model; layer 2, validate the inputs of the loss; layer 3, check at run time.*
# Layer 1 is an eps and two clamps. Layer 2 is `clamp(x, min=0)` and `clamp(r, min=eps)`. Layer 3 asks whether the loss is NaN or Inf.
#
# ## Predict
# All three layers are on. Five faults come, one at a time:
# a count of NaN, a count of -0.5, a count of 0.37 as in data that were normalised, log-variances 15 too low, and a distance between cells in the loss, `sqrt(clamp(d², 0))`.
# How many of them does layer 3, the check of the loss, see?
#
# - **A** all five
# - **B** three
# - **C** one

# %%
predict(bench)

# %% [markdown]
# <details><summary>Answer</summary>
#
# **C**, the NaN. The -0.5 was edited to 0, the 0.37 was scored as it is, the log-variance was clamped and its gradient went to zero.
# The distance has a finite value and a NaN as gradient. One step later a third of the weights is NaN, and only then the loss.
# </details>
#
# ## Break

# %%
print(bench.source("guide"))
print("logvar - 15:  ", bench.turn("broken"))
print("count of -0.5:", bench.turn("edited"))
print("count of NaN: ", bench.turn("passed"))

# %% [markdown]
# Three faults, three answers. The first is *dead*: the loss is finite, and a layer gets no gradient.
# The second is *wrong*, and the verdict knows it only because we spoilt the entry ourselves. The loss differs from the true one in its seventh digit.
# The third is *nan*: a clamp hands NaN on.
#
# ## Look
# The guard audit runs the step once with every guard under observation, and once more without each.
# Guards that altered nothing are left out here.

# %%
for shift, entry in ((0.0, "none"), (0.0, "-0.5"), (-15.0, "none")):
    print(f"\nlog-variance {shift:+g}, a count of {entry}")
    print(*(r for r in defence_in_depth.audit(shift, entry) if r.altered), sep="\n")
bench.turn("broken")
draw_gradients(bench.reading.report)

# %% [markdown]
# ### What to see
# First block: in a healthy run no gradient is killed, and the loss keeps its bits. The two eps alter entries by up to 1e-8, which changes no loss here.
# Four of the guide's six points have nothing to do. That is what a guard costs when all is well: nothing that you can see.
#
# Second block: one count was altered, by 0.5. That is all that is left of a fault in the data.
#
# Third block: both clamps altered every log-variance, and killed all 512 gradients. The histogram shows the two rows that are left with zeros.
# *Killed* means: a gradient arrives behind the guard, and none leaves in front of it.
#
# ## Turn
# Drag *shift*, spoil an *entry*, and try the *guards*. *cover* is the guide's and `nan_to_num` on top.

# %%
spare = Bench(defence_in_depth)  # for strips and contract; the panel keeps its setting
bench.turn("covered")
Panel(bench)

# %% [markdown]
# The panel opens with a NaN under the cover. The cover works: what comes out of each point is finite.
# It is of no use, since the encoder had read the count before the first guard stood in its way.
#
# ## Strip
# The same entries under the guide's guards, under none, and refused. Below, the log-variance under the guide's guards and under the repaired ones.

# %%
for guards in ("guide", "off", "repaired"):
    spare.turn("healthy", guards=guards)
    display(draw_strip(spare.sweep("entry"), "entry"))
for guards in ("guide", "repaired"):
    spare.turn("healthy", guards=guards)
    display(draw_strip(spare.sweep("shift", (-40, -15, 0, 8, 15, 90)), "shift"))

# %% [markdown]
# ### What to see
# In the first strip -0.5 and 0.37 are *wrong*, and nobody would know.
# In the second, without any guard, -0.5 at least is a NaN. A guard that edits is worse here than none.
# In the third each spoilt count is refused before there is a loss. *Healthy* says here that nothing was harmed; there is no gradient, so there are no lamps.
# The encoder has read the count all the same: the point stands where the guide put it, behind the encoder. A BatchNorm in there would remember, as in `33_poisoned_state`.
#
# The lower strips are the price of the two clamps, and the repair: outside [-10, 10] the guide's layer is dead, and the repaired one is alive.
#
# ## Why
# A guard in the way of a value $v$ is a function $g$, and what it does to learning is its slope:
#
# $$\frac{\partial L}{\partial v} = g'(v)\,\frac{\partial L}{\partial g}, \qquad g'_{\text{clamp}} = 0 \text{ outside}, \quad g'_{\text{straight-through}} = 1 \text{ everywhere}$$
#
# So a guard can *refuse* a value, *edit* it, or *edit it and stop its gradient*. Each is right somewhere.
# Data that are wrong must be refused: only you know what they should have been. An old rule says: the default is no [1].
# And say so at once, by name [2].
# A value that the model made may be capped, if its gradient passes [3].
#
# Layers help if they ask different questions. Three clamps ask the same one.
#
# 1. Saltzer and Schroeder (1975), The Protection of Information in Computer Systems.
# 2. Shore (2004), Fail Fast, IEEE Software 21.
# 3. Bengio, Léonard and Courville (2013), Estimating or Propagating Gradients Through Stochastic Neurons.
#
# ## Repair
# Write one function for all points. You get a tensor and the name of its point: `counts`, `logvar`, `sample_logvar`, `kl_logvar` or `log_r`.
# Refuse with a ValueError what is no count. Keep the log-variance in [-10, 10], and let its gradient pass.


# %% tags=["exercise"]
def mine(value, point):
    # Five lines are enough: counts, logvar, and everything else.
    ...


# %% [markdown]
# ## Check
# <details><summary>Hint 1</summary>
#
# `labkit.cells.data.validate_counts(value)` returns the counts, or raises an error that names the cell, the gene and the rule.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `logvar` stands in front of both uses of the log-variance. One cap there is enough: `labkit.models.guards.straight_through(value)`.
# </details>

# %%
check(bench, mine)

# %%
answer(bench)

# %% [markdown]
# ## Compare
# Every form at the broken setting. Then five faults under the guide's guards, and who hears them.
# Then one step with the distance in the loss: was it taken, and how many of twelve parameters are finite after it?
# Last, what the guide's other range, log r in [-5, 5], does to a healthy model, beside a wider one.

# %%
print(compare(bench, yours=defence_in_depth.FORMS["repaired"]), "\n")
print(_layers.alarms(), "\n")
for name, (taken, finite) in _layers.one_step().items():
    print(f"{name}: step {'taken' if taken else 'refused'}, {finite} of 12 parameters finite")
for low, high in ((-5.0, 5.0), (-8.0, 12.0)):
    print(f"[{low:g}, {high:g}]", _layers.range_audit(low, high))

# %% [markdown]
# Read the alarms by column. The guide's check of the loss hears one fault of five. Each of the others is heard by exactly one check:
# is this data, are the gradients finite, are they alive. None of these questions is asked by the guide's layers.
#
# A step that is checked by its loss takes the NaN into four parameters. `safe_step` looks at the gradients before anything is touched.
#
# The guide's range for log r is exceeded by 1.5 % of the entries of a healthy model. They are nearly Poisson genes, with little noise beyond counting.
# 749 of them can learn no more. It costs these cells 0.03 nats each; with larger counts it costs more.
#
# The column *cost* counts tensor operations relative to the repaired form. A guard is cheap in time. Its price is what it hides.
#
# ## Contract

# %%
assert spare.turn("healthy").verdict == spare.turn("repaired").verdict == "healthy"
assert spare.turn("broken").verdict == "dead"
assert spare.turn("edited").verdict == spare.turn("edited", entry="0.37").verdict == "wrong"
assert spare.turn("passed").verdict == spare.turn("covered").verdict == "nan"
assert spare.turn("passed", guards="repaired").note.startswith("refused: counts, check 'finite'")
assert _layers.one_step()["safe_step"] == (False, 12)

# %% [markdown]
# **Carry away**
# - Refuse data, cap values, check gradients: three layers that ask three questions.
# - Validate before the first operation that reads. A guard behind it comes too late.
# - Audit your guards: what did they alter, what did they kill, what would the loss be without them?
# - A guard that never alters anything in a healthy run is well placed. One that alters much is a part of the model.
# - Silence is not health.
#
# **Next:** `31_stable_transforms`, rewritings that need no guard.
