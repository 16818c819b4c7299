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
# # Watch it spread
# *Patient zero.*
#
# **Symptom:** one number was NaN, and some operations later everything is. Nobody saw the way it took.
#
# **You will** put one bad number into the training of a real VAE, walk with it operation by operation, and write a training step that loses one cell instead of the run.
#
# **You need** to know what a forward pass, a backward pass and an optimizer step are.
#
# **Minutes:** 35

# %%
from labkit import Bench, Panel, answer, check, compare, predict
from labkit.draw import draw_board, draw_graph, draw_strip
from labkit.failures import watch_it_spread

bench = Bench(watch_it_spread)
bench.turn("healthy")

# %% [markdown]
# ## The guide says
# > loss=Inf → backward → 所有参数=NaN
#
# In English: *the loss is Inf; backward; all parameters are NaN.*
#
# That is the end of a road. This notebook is about the road.
#
# ## Predict
# Three training steps, numbered 0, 1 and 2. Each has 16 cells of its own.
# Before step 1, one count of one cell becomes NaN. Nobody looks for it.
# Which is the first tensor of the run in which no number is good?
#
# - **A** what the first layer puts out, in step 1
# - **B** the losses of the cells, in step 1
# - **C** the gradients of the weights, in step 1
# - **D** the parameters, in step 2

# %%
predict(bench)

# %% [markdown]
# <details><summary>Answer</summary>
#
# **C.** The NaN takes its whole cell in the first layer, and stays in that cell for all of the forward pass and nearly all of the backward pass.
# Then the gradient of a weight is a sum over the cells. There it gets everybody.
# Half of what stays from this step to the next is bad at the end of the same step.
# </details>
#
# ## Break
# This is the training step that most people write. `each` gives the loss of every cell.
# The knobs *step* and *op* are the moment at which you look. The bad number is put in at the start of step 1.

# %%
print(bench.source("plain"))
print(bench.turn("broken", step=1, op=2))
print(bench.turn("broken", step=1))
print(bench.turn("broken", step=2))

# %% [markdown]
# The first line looks just behind the first layer, the second at the end of step 1. They name the place of birth.
# The third line looks one step later, and the trail is cold: the weights were bad before any operation ran.
# That is what a detector tells you that looks once per epoch.
#
# ## Look
# The whole run on one board, up to the last moment before the weights.
# A column is a step, a row is a tensor, and a bar is its bad share.

# %%
bench.turn("broken", step=1, op=17)
draw_board(watch_it_spread.board(bench.settings))

# %% [markdown]
# ### What to see
# Go down the middle column.
# One count of 12240 is bad, then 128 units of 2048, 8 latents of 128, 765 rates of 12240.
# Each of them is one sixteenth: all of one cell, and nothing of the others.
# Even the losses are 15 good ones and one NaN, until `mean` makes one number of them.
# The gradients on the way back stay in their row as well. The last row of *backward* has 128 bad numbers.
#
# The graph is the forward pass of the same step, stopped in the middle.

# %%
bench.turn("broken", step=1, op=6)
draw_graph(bench.reading.report)

# %% [markdown]
# What is grey and has a dash has not run yet.
# The colour tells you where the NaN is, and not how much of a tensor it has taken. For that you need the board.
#
# ## Turn
# Take the slider *op* and press the right arrow key: one operation for each press.
# Take *step* for one training step. A click on the board goes to that moment.
# Then choose another *kind*, *phase* and *place*, and start again.

# %%
spare = Bench(watch_it_spread)  # for strips and contract; the panel keeps its setting
bench.turn("broken", step=1, op=0)
Panel(bench)

# %% [markdown]
# Try these, and predict before you look:
# - *norm* on: BatchNorm takes a mean over the cells. After `fc_mu` all 16 cells are bad.
# - *phase* memory: one of 598804 numbers in Adam's memory. The loss of step 1 is fine. One weight is not, and in step 2 it takes every cell.
# - *kind* zero, *place* library: the loss is Inf, and no parameter is harmed.
#
# ## Strip
# The same walk without a kernel: step 1, operation by operation, then ten outbreaks in a table.

# %%
spare.turn("broken", step=1)
display(draw_strip(spare.sweep("op", (0, 2, 5, 6, 9, 10, 13, 17, 18, 21)), "op"))
print(watch_it_spread.outbreaks())

# %% [markdown]
# The film: forward the NaN runs down the graph, backward it climbs up again. Nobody is harmed until the gradients come.
#
# The table: *half-life* counts operations from the birth until half of all that stays is bad: weights, Adam's memory, running means.
# *Copy* is the last step after which a copy would still save the run.
# - It is always step 0 where anything stays bad. The step that is poisoned is already too late.
# - A NaN in one rate, one gene of one cell, takes longer. Its first step spoils a part of the weights, and the second spreads it.
# - A gradient that meets a sleeping unit is gone: below zero the slope of a ReLU is chosen to be 0, not multiplied. One unit further it takes three quarters.
# - A zero is no NaN. It becomes one only where somebody takes its log or divides by it.
#
# ## Why
# A NaN goes wherever its number goes [1]. What widens it is a sum over an axis. For the weights of a layer with input $h$ and gradient $\delta$ at its output,
#
# $$\frac{\partial L}{\partial W_{jk}} = \sum_{i \,\in\, \text{cells}} \delta_{ij}\, h_{ik}$$
#
# Row $i$ of $\delta$ and $h$ belongs to one cell. Before this sum nothing leaves its row.
# A layer sums over its inputs, so one gene takes the whole cell. A weight's gradient sums over cells, so one cell takes the weights.
# BatchNorm sums over cells in the forward pass [2], and moves the meeting to the front.
# Adam keeps running means of gradients [3]: $m \leftarrow \beta m + (1 - \beta) g$ has no way back from NaN.
#
# 1. IEEE 754-2019, section 6.2.
# 2. Ioffe and Szegedy (2015), Batch Normalization, algorithm 1.
# 3. Kingma and Ba (2015), Adam, algorithm 1.
#
# ## Repair
# Write a training step that loses the bad cell and keeps the other fifteen.
# `each(model, batch)` gives the loss of every cell. `batch[good]` is the part of a batch under a mask.
# `safe_step(loss, optimizer, model.named_parameters(), max_norm=float("inf"))` refuses a step whose loss or gradient is not finite.


# %% tags=["exercise"]
from labkit.training.safe_step import safe_step


def mine(each, model, batch, optimizer):
    # Five lines are enough: look at the cells without a gradient, then train with the good ones.
    ...


# %% [markdown]
# ## Check
# <details><summary>Hint 1</summary>
#
# `nanmean` gives a finite loss, and it is too late: the backward pass still goes through the bad cell. Look first, under `torch.no_grad()`, and compute the losses once more.
# </details>
#
# <details><summary>Hint 2</summary>
#
# With BatchNorm the first look mixes the cells and spoils the running means. In `model.eval()` it does neither. Do not forget `model.train()` afterwards.
# </details>

# %%
check(bench, mine)

# %%
answer(bench)

# %% [markdown]
# ## Compare
# Every loop, seen at the end of step 2. Below, the board of the quarantine.

# %%
print(compare(bench, yours=watch_it_spread.FORMS["quarantine"]))
spare.turn("repaired", norm="on")
draw_board(watch_it_spread.board(spare.settings))

# %% [markdown]
# *Clip* divides every gradient by one norm. A NaN norm is for all, and a healthy run changes as well.
# *Nanmean* has a finite loss and NaN weights.
# *Skip* saves the run and loses 15 good cells: two digits of the loss are those of the run that misses one cell only.
# *Quarantine* has that run to seven digits. On the board the first look meets the NaN, and below the losses nothing does.
# None of them helps against a NaN in Adam's memory. For that, keep a copy that was verified: `33_poisoned_state`.
#
# ## Contract

# %%
column = watch_it_spread.board(watch_it_spread.CASES["broken"]).columns[1]
bad = dict(zip(watch_it_spread.ROWS, column, strict=True))
assert bad["∇ input_layer"].cells == 1, "it stays in its cell up to the last gradient"
assert bad["gradients"].bad == bad["gradients"].size, "and there it takes everybody"
assert watch_it_spread.board(watch_it_spread.OUTBREAKS["zero as a library size"]).spread.bad == 0
assert spare.turn("broken", loop="skip", norm="on").verdict == "nan", "a running mean remembers"
assert spare.turn("repaired").verdict == "healthy"

# %% [markdown]
# **Carry away**
# - A NaN widens at a sum. Ask of every sum: over which axis, and who shares it?
# - Within a step there is time: the forward and the backward pass keep it in its cell. After the step there is none.
# - A copy of the run is worth keeping only if all of it is finite: weights, buffers, optimizer.
# - A finite loss proves little. In two of the ten outbreaks above the loss of the poisoned step was finite, and the run was lost.
#
# **Next:** `33_poisoned_state` puts a run back on its feet, and `40_hunting_the_source` finds the birth in a program that you have not seen.
