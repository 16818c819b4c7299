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
# # Chunks that save nothing
# *The loop lets go, autograd does not.*
#
# **Symptom:** it works on a thousand cells, and dies for lack of memory on twenty thousand.
#
# **You will** count, to the byte, what a training step holds while it runs, see what chunks save and what they do not, and write a mean distance for any number of cells.
#
# **You need** to know that a backward pass uses values of the forward pass.
#
# **Minutes:** 20

# %%
from labkit import Bench, Panel, answer, check, compare, predict
from labkit.draw import draw_curves, draw_map, draw_strip
from labkit.failures import chunks_that_save_nothing

bench = Bench(chunks_that_save_nothing)
bench.turn("healthy")

# %% [markdown]
# An operator carries cells to other cells. Its loss needs the mean distance of all cells to all cells: a matrix of cells times cells.
# The plan allows 1 GB. Gradients are traced on 100 real cells. Bytes are counted for all of them, on tensors of full size that hold no numbers, so that your machine is safe.
#
# ## The guide says
# > energy_distance: 分块计算防止内存溢出
#
# In English: *energy distance: computing in chunks prevents running out of memory.*
#
# ## Predict
# 20000 cells: the matrix has 400 million entries, 1.6 GB in float32. The loss needs two such matrices.
# The loop takes 1000 rows at a time, 80 MB, adds them up and goes on. Then comes `backward()`.
# How much waits for it when the forward pass is done?
#
# - **A** 80 MB, the last chunk
# - **B** 160 MB, a chunk of each matrix
# - **C** 3.2 GB, all chunks of both

# %%
predict(bench)

# %% [markdown]
# <details><summary>Answer</summary>
#
# **C.** The slope of a distance is $(x - y) / |x - y|$, so the backward pass needs the distance.
# Autograd keeps every one of them. To it, twenty chunks are just a matrix in twenty pieces.
# </details>
#
# ## Break

# %%
print(bench.source("chunked"))
print("no gradient:", bench.turn("no_grad"))
print(bench.turn("broken"))

# %% [markdown]
# The verdict is *memory*: no number is wrong and every gradient is alive, but the step does not fit.
# Without gradients the same code needs 0.08 GB. There the guide is right.
#
# ## Look
# Here a graph tells nothing, since every value is well. What tells is the bytes that live while one step runs.

# %%
draw_curves(chunks_that_save_nothing.histories(), "part of the step, of 25", "GB alive")

# %% [markdown]
# ### What to see
# This is a step until its peak is past. *Whole* takes 8 GB: two matrices that wait, and three more that the backward pass makes on its way.
# *Chunked* climbs chunk by chunk to 3.2 GB: that is the forward pass. Then the backward pass walks down, as slowly.
# Chunks do save something: the *temporaries* of the backward pass are small now. What waits is the same.
# *Recomputed* stays on the ground. Each chunk's distances are made, summed, thrown away, and made once more when their slope is needed.
#
# ## Turn
# Change *rows*: more chunks, smaller chunks. Change *cells*, *mean* and *gradient*. The badge tells the peak.

# %%
spare = Bench(chunks_that_save_nothing)  # for strips and contract; the panel keeps its setting
Panel(bench)

# %% [markdown]
# At 20000 cells no number of rows gets *chunked* below 3.2 GB. To *delete* each chunk in the loop does not help either: Python lets go of its name, autograd keeps the tensor.
#
# ## Strip
# First the rows of a chunk, at 20000 cells. Then the number of cells, and the same as a map for every form.

# %%
spare.turn("broken")
display(draw_strip(spare.sweep("rows", (1000, 5000, 20000)), "rows"))
display(draw_strip(spare.sweep("cells", (1000, 5000, 10000, 11500, 20000)), "cells"))
display(draw_map(spare.map()))

# %% [markdown]
# Row 1: it never fits.
# Row 2: the chunked form ends between 10000 and 11500 cells.
# The map: chunks move the end a little to the right, deleting moves nothing, and the recomputed form does not end here. One grows with the square of the cells, the other with the cells.
#
# ## Why
# For the backward pass of $d = |x - y|$ autograd must have $d$. With $n$ cells in chunks of $c$ rows,
#
# $$\text{waiting} \;=\; \frac{n}{c} \cdot (c \cdot n) \;=\; n^2, \qquad \text{recomputed:} \quad c \cdot n + n$$
#
# The chunk $c$ falls out of the first. Only what does not wait can be small.
#
# *Checkpointing* [1] keeps the inputs of a chunk, which are $c + n$ rows, and runs the chunk again when its gradient is asked for. The price is a second forward pass.
# Another way is to take the gradient of each chunk at once, in the forward pass, and keep only that: $n$ rows. The lab's `energy_distance` does so, in an autograd function of its own.
#
# What waits can be counted with hooks [2]. It is the same number on every machine, unlike what the operating system reports.
#
# 1. Chen et al. (2016), Training Deep Nets with Sublinear Memory Cost.
# 2. PyTorch, saved_tensors_hooks.
#
# ## Repair
# Write the mean distance. You get `x` (cell, latent), `y` (other cell, latent) and `rows`, the size of a chunk. Return a scalar with a gradient.
# At no time may more than a few chunks be alive. (A difference `x[:, None] - y` is as large as 8 of them.) (It is counted on tensors without numbers, so do not call `.item()`.)


# %% tags=["exercise"]
def mine(x, y, rows):
    # Four lines are enough: a function of one chunk, its checkpoint for each chunk, the sum.
    ...


# %% [markdown]
# ## Check
# <details><summary>Hint 1</summary>
#
# `torch.utils.checkpoint.checkpoint(f, part, y, use_reentrant=False)` gives `f(part, y)` and keeps only `part` and `y`.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `f` must do all that is large: the distances *and* their sum. One checkpoint around the whole loop saves nothing at the end: the backward pass then runs the whole loop at once.
# </details>

# %%
check(bench, mine)

# %%
answer(bench)

# %% [markdown]
# ## Compare
# The forms at the broken setting. Then two whole energy distances, with gradients, on real numbers: MB alive at most.

# %%
print(compare(bench, yours=chunks_that_save_nothing.FORMS["recomputed"]))
print()
for cells in (500, 1000, 2000):
    used = chunks_that_save_nothing.distances(cells)
    print(f"{cells:5} cells: " + ", ".join(f"{who} {size:.0f} MB" for who, size in used.items()))

# %% [markdown]
# The table counts the operations of the step with 100 cells. *Recomputed* pays in time: each distance is computed twice.
# The guide's own distance needs more than the mean here, since its square, clamp and root wait as well. The lab's needs tiles of 512 times 512, and a gradient.
#
# ## Contract

# %%
case, matrices = spare.failure.CASES["broken"], 2 * 4 * 20000**2
used = {name: chunks_that_save_nothing.count(f, case) for name, f in spare.failure.FORMS.items()}
assert used["whole"].waiting > matrices
assert used["chunked"].waiting > matrices
assert used["recomputed"].peak < 0.1 * used["chunked"].peak
assert spare.turn("healthy").verdict == "healthy"
assert spare.turn("broken").verdict == "memory"
assert spare.turn("broken", mean="deleted").verdict == "memory"
assert spare.turn("no_grad").verdict == "healthy"
assert spare.turn("repaired").verdict == "healthy"

# %% [markdown]
# **Carry away**
# - Under `no_grad` a chunk is gone after its turn. With gradients it waits.
# - Ask what waits for the backward pass, and count it: `torch.autograd.graph.saved_tensors_hooks`.
# - Put the checkpoint around what is large and becomes small: distances that are summed.
# - Deleting a name frees nothing that autograd holds.
# - A program can be counted at any size on device `meta`, before it is run.
#
# **Next:** Part III, `30_defence_in_depth`.
