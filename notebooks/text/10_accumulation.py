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
# # Accumulation
# *The innocent plus sign.*
#
# **Symptom:** every parameter has a gradient, and it comes from the last term of the sum only.
#
# **You will** clear a line of code that is blamed for lost gradients, find the lines that really lose them, and see what a running sum does lose.
#
# **You need** to know what `backward()` does. `00_start_here` shows the model.
#
# **Minutes:** 20

# %%
from labkit import Bench, Panel, answer, check, compare, predict
from labkit.draw import draw_graph, draw_map, draw_strip
from labkit.failures import accumulation

bench = Bench(accumulation)
bench.turn("healthy")

# %% [markdown]
# ## The guide says
# > `result = result + ...` 创建新张量，旧的计算图被detach
#
# In English: *`result = result + ...` creates a new tensor, and the old graph is detached.*
# Only the last term would keep its gradient.
#
# Its repair is to collect the terms in a list and to take `torch.stack(terms).sum()`.
#
# ## Predict
# Eight real cells, one loss each. The loss of the batch is their mean.
# Which line makes the gradient come from the last cell only?
#
# - **A** `total = total + term`
# - **B** `total = total.data + term`
# - **C** `torch.tensor([term.item() for term in terms]).mean()`
# - **D** `torch.stack(terms).mean()`

# %%
predict(bench)

# %% [markdown]
# <details><summary>Answer</summary>
#
# **B.** In each round it strips the total of its graph and adds one term that still has one.
# After the loop, the last term is the only one with a graph.
# A and D keep every term. C keeps none.
# </details>
#
# ## Break
# First the line that the guide blames.

# %%
print(bench.source("running"), bench.turn("guide"), sep="\n")
print(*accumulation.history("running"), "\n")
print(bench.source("data"), bench.turn("broken"), sep="\n")

# %% [markdown]
# Above, the line that the guide blames. It is healthy: all 12 gradients are alive, and each agrees with float64.
# A new tensor is made in each round, that is true. But it remembers the old one.
# The line in the middle walks back from the loss, parent by parent: a division and eight additions, for eight cells.
#
# Below, the line that does what the guide describes.
# The loss is the same to the last bit. Twelve gradients are finite and not zero, and each of them is wrong.
# No counting of gradients can see this. The bench compares them with the true ones.
# The culprit's line says `.data`: that is a `detach` without a word.
#
# ## Look
# The same step as a graph. Data enters above, the loss is below.

# %%
draw_graph(bench.reading.report)

# %% [markdown]
# ### What to see
# The loop is the group at the bottom, `through_data`, one row for each round.
# Scissors mark the cuts: one in each round, so that only the last term has a way to the loss.
# The boxes are green all the same. Every parameter still gets a gradient, by that last term.
# That is the trap. A partial cut looks like a working step.
# A histogram of these gradients would show 12 ordinary hills, so it is left out here.
# Compare with a list of numbers, where nothing is left:

# %%
print(bench.source("list"), bench.turn("broken", total="list"), sep="\n")
draw_graph(bench.reading.report)

# %% [markdown]
# ### What to see
# Every parameter is cut off. `requires_grad=True` makes the new tensor a leaf of its own.
# It silences the error that PyTorch would raise, and it connects nothing.
#
# ## Turn
# Try each way to add up. Then set `bfloat16`, `running`, and move *cells* to the right.

# %%
spare = Bench(accumulation)  # for strips and contract; the panel keeps its setting
bench.turn("broken")
Panel(bench)

# %% [markdown]
# In float32 the badge of `running` is green at any number of cells, and that of `data` at none.
# In bfloat16 `running` turns to *wrong* at 128 cells, with a gradient that is right.
# In float16 `running` and the guide's `stacked` are Inf there, and `mean` is healthy.
#
# ## Strip
# What a running sum does lose is digits. In bfloat16, with 2 to 512 cells: first one reduction, then the running sum.
# Last, a map: the running sum with every number of cells in every dtype. The panel above has the same map; there a click sets the bench.

# %%
stops = (2, 32, 128, 256, 512)
spare.turn("stalled", total="mean")
display(draw_strip(spare.sweep("cells", stops), "cells"))
print(spare.turn("stalled"))
display(draw_strip(spare.sweep("cells", stops), "cells"))
display(draw_map(spare.map()))

# %% [markdown]
# ### What to see
# Above one reduction, below the running sum. The line between them is the reading at 512 cells.
# At 512 cells the total stands at 262144. Adding one more cell, some hundreds of nats, changes nothing.
# The loss is 20 % too low, and all 12 gradients are right: autograd never rounds a plus sign.
# At 256 cells the errors happen to cancel. Rounding is not monotone, so one good size proves nothing.
#
# The map has that accident as a small green window in the row of bfloat16.
# Its two upper rows fail for different reasons. bfloat16 has the range and lacks the digits, and float16 has more digits and lacks the range.
# With 104 cells the total passes 65504, the largest float16.
#
# ## Why
# The derivative of a sum is the sum of the derivatives, and `AddBackward0` hands its gradient to both parents [1].
# Values are another matter: a number format rounds after each addition,
#
# $$\mathrm{fl}(T + t) = T \quad \text{if } |t| < \tfrac12\,\mathrm{ulp}(T)$$
#
# with $T$ the total, $t$ the next term and ulp the spacing of numbers at $T$ [2].
# bfloat16 has 8 significant bits [3]. So a total stalls when it is 256 to 512 times its terms.
# `torch.stack(terms).mean()` adds in float32 and rounds once.
# The guide's `stack().sum()` rounds well too, but in float16 the sum itself is Inf above 65504.
# The mean never gets there.
#
# 1. PyTorch documentation, Autograd mechanics.
# 2. Higham (1993), The accuracy of floating point summation.
# 3. IEEE 754-2019 for binary16 and binary32; bfloat16 is binary32 without its last 16 bits.
#
# ## Repair
# Write the mean of some terms. You get them as arguments, each a scalar tensor.
# Every term must keep its gradient, and 512 terms in bfloat16 must keep their digits.


# %% tags=["exercise"]
def mine(*terms):
    # One line is enough.
    ...


# %% [markdown]
# ## Check
# <details><summary>Hint 1</summary>
#
# Make one tensor of all terms with a function that autograd knows. `torch.tensor` is not one.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `torch.stack` keeps every graph. Then reduce once: not a sum and a division, but the mean.
# </details>

# %%
check(bench, mine)

# %%
answer(bench)

# %% [markdown]
# ## Compare
# Every form at the broken setting, 8 cells in float32. *Gradients alive* counts those that are finite and not zero; *harmed* are those that do not agree with float64.
# Below the table: the guide's own case, what waiting for one backward costs, a counter, and a weight.

# %%
print(compare(bench, yours=accumulation.FORMS["mean"]), "\n")
rows = {form: accumulation.chunked_distance(form)[0] for form in ("running", "stacked", "data")}
print("of 96 rows, with a gradient:", rows)
for how, held in accumulation.megabytes_held().items():
    print(f"MB that wait for backward, {how}: {held}")
print("0 + 1, 5000 times:", accumulation.running_sum(0, 1, 5000))
print("1 - 0.001, 1000 times:", accumulation.running_sum(1, -1e-3, 1000))

# %% [markdown]
# In float32 and with 8 terms the guide's wrong form and its repair are equally right.
#
# The guide's own case is a distance between two clouds of cells, added up in chunks of rows.
# The running sum reaches every row, as the stack does. Only `.data` loses all chunks but the last.
# So the guide's change in that function cannot have repaired a gradient.
#
# Both keep the graph of every chunk until the one backward.
# If memory is short, call `backward()` in each chunk: gradients add up by themselves.
#
# A counter is a running sum, and so is a weight.
# In bfloat16 the counter stops at 256, and the weight has not moved at all, although every update was right.
#
# ## Contract

# %%
assert spare.turn("guide").verdict == "healthy", "the guide says that it loses gradients"
assert spare.turn("broken").verdict == "wrong"
assert spare.turn("broken", total="list").verdict == "severed"
assert spare.turn("stalled").verdict == "wrong"
assert spare.turn("repaired", cells=512, dtype="bfloat16").verdict == "healthy"

# %% [markdown]
# **Carry away**
# - `total = total + term` is innocent. Look for `.data`, `.item()`, `float()` and `torch.tensor` beside it.
# - A gradient that is alive can be wrong. Compare it once with a finite difference, or with float64.
# - Reduce once, in a wide format: `torch.stack(terms).mean()`.
# - To save memory, call `backward()` for each chunk.
#
# **Next:** `11_no_grad`, where a block of code takes the gradient away on purpose, and too much of it.
