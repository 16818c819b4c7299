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
# # Poisoned state
# *What the weights forgot, the optimizer remembers.*
#
# **Symptom:** I restored the last good weights, and one good step later every weight is NaN again.
#
# **You will** undo a bad step of a real VAE in five ways that leave something behind, find out who remembers it, and write the rescue that leaves nothing.
#
# **You need** to know what an optimizer keeps between two steps. `32_clip_or_detect` shows how a bad step is refused in time.
#
# **Minutes:** 25

# %%
from labkit import Bench, Panel, answer, check, compare, predict
from labkit.draw import draw_curves, draw_strip, draw_timeline
from labkit.failures import _aftermath as aftermath
from labkit.failures import poisoned_state

bench = Bench(poisoned_state)

# %% [markdown]
# ## The guide says
# > □ 定期检查参数: 是否有参数变为NaN
# >
# > □ 检查最终模型参数: 所有参数都应是有限值
#
# In English: *check regularly whether a parameter has become NaN; in the end all parameters must be finite.*
# Its checkpoint holds the model, the batch and the epoch.
#
# ## Predict
# A trained VAE, Adam, real cells. One batch has a broken entry: a count of 10 to the power of the slider.
# The bad step is taken, then noticed, and the weights are put back as they were before it.
# One good batch follows. What do you find if the broken count was Inf? And if it was ten billion?
#
# - **A** both times all is well: the weights are the good ones
# - **B** with Inf all weights are NaN again; with ten billion all is well
# - **C** with Inf all weights are NaN again; with ten billion they are good, and from now on half of the model hardly learns

# %%
predict(bench)

# %% [markdown]
# <details><summary>Answer</summary>
#
# **C.** Adam keeps two averages for every weight: of the gradients, and of their squares.
# A NaN in an average stays for ever, since 0.9 times NaN is NaN.
# A square of a giant stays for thousands of steps, and Adam divides each step by its root.
# </details>
#
# ## Break
# First Inf, then ten billion. Both times the weights are put back. The step that you see is the good one that follows.

# %%
print(bench.source("parameters"))
print(bench.turn("broken"))
print(bench.turn("frozen"))

# %% [markdown]
# The first culprit is no operation of this step. It is *Adam state*: bad before any op.
# The weights and the batch were good, and `optimizer.step()` mixed the old NaN in.
#
# In the second nothing is NaN, and no gradient is small. But what Adam remembers leaves 1e-7 of a step.
# The median weight of the encoder stands still. The decoder learns on, so the loss still falls.
#
# ## Look
# The good step after the rescue, operation by operation, from left to right: forward, backward, optimizer.

# %%
bench.turn("broken", rescue="model")
draw_timeline(bench.reading.report)

# %% [markdown]
# ### What to see
# From the data to the loss and back to every gradient, the numbers are well. The trouble begins in the optimizer, at its first operation.
# This is how a poisoned state looks in any trace: the culprit is something that was there before.
# A graph and histograms of the gradients show nothing but health here, so they are left out.
#
# Below, the case of ten billion over more steps: the length of each step of one weight matrix, on a log scale.

# %%
forms = {"weights put back": "model", "all put back": "whole"}
lengths = {name: aftermath.strides(poisoned_state.FORMS[form]) for name, form in forms.items()}
draw_curves(lengths, "step after the rescue", "log10 of the step's length")

# %% [markdown]
# ### What to see
# With the weights alone put back, each step is 0.9 times the one before. That is the momentum of the *bad* gradient, fading.
# It still moves the weights, and in the wrong direction. New gradients add nothing that counts.
# Adam forgets squares with a half-life of 693 steps. To forget these takes some 32 thousand.
#
# ## Turn
# Drag *power*. Try each *rescue*. Then set *noticed* to *before*: the loss was checked, and no step was taken.

# %%
spare = Bench(poisoned_state)  # for strips and contract; the panel keeps its setting
bench.turn("eval")
Panel(bench)

# %% [markdown]
# The panel opens with such a case. The bad batch was skipped: no backward, no step, nothing to rescue, it seems.
# But the forward pass had updated BatchNorm's running mean and variance.
# Training does not read them, so every training step is healthy. The first `eval()` gives NaN for every cell.
#
# ## Strip
# One knob, two rescues: the model, as in the guide's checkpoint, and everything.

# %%
stops = (0, 3, 5, 6, 10, 22, 23, 38, 40)
for form in ("model", "whole"):
    spare.turn("healthy", rescue=form)
    display(draw_strip(spare.sweep("power", stops), "power"))

# %% [markdown]
# ### What to see
# *Frozen* begins at a count of 100 000, with one parameter, and at a million it is half of them. Such a count passes every check for NaN and Inf.
# From 23 on Adam's average of squares is itself Inf, at first in 16 of its entries: those weights never move again.
# *Wrong* at the left end is small: the weights are back, and Adam's averages still hold a batch that the reference run has not seen.
#
# ## Why
# Adam [1] keeps $m$ and $v$ for every weight, and steps by
#
# $$\Delta w = -\eta\,\frac{\hat m}{\sqrt{\hat v} + \epsilon}, \qquad m \leftarrow 0.9\,m + 0.1\,g, \qquad v \leftarrow 0.999\,v + 0.001\,g^2$$
#
# A NaN in $g$ stays in $m$ and $v$ for ever.
# From $g = 5.8 \cdot 10^{20}$ on, $0.001\,g^2$ overflows float32: $v$ is Inf and $\Delta w = 0$, for ever.
# BatchNorm's running mean [2] is such an average too, and so is momentum. A loss scaler [3] halves its scale at every bad step.
#
# So the state of a run is: parameters, buffers, optimizer, scheduler, scaler, random numbers, the place in the data.
# What averages over the past must go back with the weights.
#
# 1. Kingma and Ba (2015), Adam, algorithm 1.
# 2. Ioffe and Szegedy (2015), Batch Normalization, algorithm 2.
# 3. Micikevicius et al. (2018), Mixed Precision Training, section 3.2.
#
# ## Repair
# Write the rescue. `mine(model, optimizer)` is called while all is well. It returns a function without arguments that puts everything back.
# That function may be called more than once, with training in between.


# %% tags=["exercise"]
def mine(model, optimizer):
    # Five lines are enough: copies, a function that loads them, and one trap.
    ...


# %% [markdown]
# ## Check
# <details><summary>Hint 1</summary>
#
# `model.state_dict()` holds parameters and buffers, and `optimizer.state_dict()` the averages.
# Both hold the live tensors: what you keep changes while you train. `copy.deepcopy` makes copies.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `model.load_state_dict` copies into the model. `optimizer.load_state_dict` takes the very tensors that you hand over and trains on in them.
# So hand it another copy, each time.
# </details>

# %%
check(bench, mine)

# %%
answer(bench)

# %% [markdown]
# ## Compare
# Every rescue after a count of Inf. *aliased* keeps a `state_dict` and no copy: it puts back what is there.
# *once* is right the first time.
#
# Below the table, three more memories. A run that skips every batch whose loss is not finite, after one NaN gradient.
# A loss scaler after 0, 10, 100 and 170 infinite gradients, and the weight after the good one that follows.
# Four micro-batches that are added up, one of them bad.

# %%
print(compare(bench, yours=poisoned_state.FORMS["whole"]), "\n")
for name, (made, skipped, finite) in aftermath.skipping().items():
    print(f"{name}: {made} updates, {skipped} skipped, weights finite: {finite}")
scales, weight = aftermath.scaler()
print(f"scale: {', '.join(f'{scale:g}' for scale in scales)}; the weight: {weight}")
for how, left in aftermath.accumulated().items():
    print(f"{how}: {left}")

# %% [markdown]
# The run that skips makes 6 updates of 40. Its weights are NaN, so every later loss is NaN, and it skips to the end without an error.
# `labkit.training.Run` counts refusals in a row, goes back to a verified state, and gives up with an error if that does not help.
#
# The scaler reaches a scale of exactly 0. The next good gradient is 0, unscaled by 1 / 0: NaN. It finds nothing wrong with it and steps.
# So count the steps that it skips, and stop after ten in a row.
#
# A sum of gradients is a memory as well. Look at each micro-batch before you add it, and count those that you added.
#
# ## Contract

# %%
assert spare.turn("healthy").verdict == spare.turn("repaired").verdict == "healthy"
assert spare.turn("broken").verdict == "nan", "good weights, a good batch, and NaN"
assert spare.turn("frozen").verdict == "frozen"
assert spare.turn("eval").verdict == "nan"
assert not spare.reading.report.harmed, "every gradient is well"
assert str(spare.turn("broken", rescue="aliased")) == str(spare.turn("broken", rescue="nothing"))
assert spare.turn("again", times=1).verdict == "healthy"
assert spare.turn("again").verdict == "nan"

# %% [markdown]
# **Carry away**
# - Finite weights are not a good state. Look at buffers and at the optimizer's state as well.
# - Put back everything that averages over the past, from copies, or nothing.
# - A skipped step is not a skipped batch: the forward pass had already changed BatchNorm.
# - Check the input before the forward pass. It is the only place where nothing remembers yet.
# - A skip without a count is a run that ends without an error and without a model.
#
# **Next:** `34_half_precision`, where numbers get lost without anything being infinite.
