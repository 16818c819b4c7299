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
# # Crash and recovery
# *The last good state that was not.*
#
# **Symptom:** the run has crashed, and the file that should bring it back holds NaN, or cannot be read.
#
# **You will** crash a training of a real model in two ways, start it again from its file, and write the four lines that make the file worth its name.
#
# **You need** to know what a `state_dict` is. `45_your_own_model` shows how to find out why a run crashed.
#
# **Minutes:** 20

# %%
from labkit import Bench, Panel, answer, check, compare, predict
from labkit.draw import draw_gradients, draw_strip
from labkit.failures import crash_and_recovery

bench = Bench(crash_and_recovery)
bench.turn("healthy")

# %% [markdown]
# ## The guide says
# > 最后正常状态已保存至 last_good_state.pt
#
# In English: *the last good state has been saved to last_good_state.pt.*
#
# Its loop saves the model every 100 batches, trains one step, and stops if the loss is NaN.
#
# ## Predict
# In batch 99 the loss is finite, and one gradient is NaN. The optimizer takes the step.
# Batch 100 is the next: the loop saves, trains, sees that the loss is NaN, and stops with the message above.
# What is in the file?
#
# - **A** the state of batch 0, the last one that was saved before the trouble
# - **B** the state of batch 99, just before the bad step
# - **C** the NaN
# - **D** half a file

# %%
predict(bench)

# %% [markdown]
# <details><summary>Answer</summary>
#
# **C.** The save comes before the check, and nobody looked at what was saved.
# It went over the state of batch 0, which was the only good one.
# The message is printed all the same.
# </details>
#
# ## Break
# This is how the guide saves. Our run has six steps on 16 real cells each, and a save every four.
# In step 3 the gradient is NaN. The reading is of the run that was started again from the file.

# %%
print(bench.source("the guide's"))
print(bench.turn("broken"))

# %% [markdown]
# *Lost*: the file cannot bring the run back. The culprit is the line that wrote it, not the line where the NaN was born.
#
# ## Look
# Six steps were planned; this is the last of them, after the restart.

# %%
draw_gradients(bench.reading.report)

# %% [markdown]
# ### What to see
# In the file one parameter of 12 was NaN: the one whose gradient was bad in step 3.
# One step with it, and the loss is NaN. Now there is no good number left in any gradient.
# The graph tells nothing more here, so it is left to the panel.
#
# ## Turn
# Let the accident happen, and change how often the state is saved. Then try *power cut*: the process dies when half of the file is written.

# %%
spare = Bench(crash_and_recovery)  # for strips and contract; the panel keeps its setting
Panel(bench)

# %% [markdown]
# Set *every* to 1. Saving more often does not help: the newest state is always the worst one.
# Set *every* to 3: the file is from before the accident, all finite. The badge says *wrong*, and not *healthy*.
#
# ## Strip
# First the guide's way with a NaN gradient in step 3, saved more and more rarely. Then a power cut, for each way to save.

# %%
spare.turn("broken")
display(draw_strip(spare.sweep("every", 6), "every"))
spare.turn("half a file")
display(draw_strip(spare.sweep("save", 4), "save"))

# %% [markdown]
# Above: with 1, 2 and 4 the save of step 4 stores the NaN. With 3 the last file is good but not complete: the run that goes on from it is *another run*.
# With 5 and 6 the file is from step 0. Nothing is lost but all the work.
#
# Below: half a file is no file. Whoever writes over the last copy has, for a moment, no copy.
# The larger the model, the longer that moment.
#
# ## Why
# The next state of a training is a function of the whole present one. For Adam with noise $\xi$ in the model,
#
# $$(\theta, m, v, t, \xi)_{n+1} = F\big((\theta, m, v, t, \xi)_n,\ \text{batch}_n\big)$$
#
# with $\theta$ the weights, $m$ and $v$ the two running means of the optimizer and $t$ its count of steps [2].
# A file that holds only $\theta$ starts again with $m = v = 0$ and other noise. Nothing is broken, and it is another run.
#
# A file on disk is changed piece by piece. A rename is not: it happens or it does not [1].
# So write to another name, make sure that the bytes have arrived, and rename.
#
# 1. Pillai et al. (2014), All File Systems Are Not Created Equal, OSDI.
# 2. Kingma and Ba (2015), Adam: a method for stochastic optimization.
#
# ## Repair
# Write a save. It gets `state`, a dict of everything, and `path`, where the last good file lies. It returns nothing, and it does not raise: what it raises ends the training.
# `non_finite(state)` lists what is NaN or infinite. `torch.save` writes, `path.with_suffix(".new")` is another name, and `a.replace(b)` renames `a` to `b`.

# %% tags=["exercise"]
import torch

from labkit.training.checkpoint import non_finite


def mine(state, path):
    # Four lines are enough: look at the numbers, another name, save there, rename.
    ...


# %% [markdown]
# ## Check
# <details><summary>Hint 1</summary>
#
# If the state is not finite, do nothing at all. The last good file stays.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `torch.save(state, path)` cuts the old file to nothing before the first byte of the new one is written. Save under the other name, then `aside.replace(path)`.
# </details>

# %%
check(bench, mine)

# %%
answer(bench)

# %% [markdown]
# ## Compare
# *Digits* compares the last loss with that of a run that nothing disturbed. *All* means: to the bit.
#
# Below the table, the library's `save_checkpoint` is cut off at each of its boundaries: which state does the file hold then?
# Last, the same NaN with `labkit.watch` on. It does not need the file.

# %%
print(compare(bench, yours=crash_and_recovery.FORMS["atomic"]), "\n")
for boundary, state in crash_and_recovery.boundaries().items():
    print(f"cut {boundary:22} the file holds the {state} state")
print()
for choice in ("raise", "skip", "rollback"):
    print(f"{choice:9}", crash_and_recovery.watched(choice))

# %% [markdown]
# *Verified* survives the NaN and not the power cut. *Complete* survives neither: it is complete, and over the last copy.
# At each boundary the file is the old one or the new one, and never half of one.
#
# `labkit.guide.train_with_crash_recovery` is the guide's loop with all of this in it. It also keeps the batch that crashed, in a file of its own.
#
# ## Contract

# %%
assert spare.turn("healthy").verdict == "healthy"
assert spare.turn("broken").verdict == "lost", "NaN in the last good state"
assert spare.turn("broken", every=1.0).verdict == "lost", "saving more often does not help"
assert spare.turn("another run").verdict == "wrong", "weights alone are another run"
assert spare.turn("half a file").verdict == "lost"
assert spare.turn(save="atomic").verdict == "healthy"
assert spare.turn("repaired").value == spare.reading.reference, "to the bit"
assert set(crash_and_recovery.boundaries().values()) == {"old", "new"}

# %% [markdown]
# **Carry away**
# - Look before you save. The last state is the one that you know least about.
# - Never write over the only good copy. Write aside, then rename.
# - Weights are a part of the state. Optimizer, random numbers and place in the data are the rest.
# - A checkpoint that was never loaded is a hope. Start a run again from its file, and compare the bits.
#
# **Next:** `43_one_rank_poisons_all` has two processes, and one of them is sick.
