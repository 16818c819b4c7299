# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   labkit:
#     kind: index
# ---

# %% [markdown]
# # Start here
# *A real model on the bench.*
#
# This lab has one subject: why gradients die and numbers blow up, and how to repair them.
# You break a real model with a slider, see where the NaN is born and how far it spreads, and repair it.
#
# 中文版：[从这里开始](zh/00_start_here.ipynb)

# %% [markdown]
# **You will** meet the cells, train the model, read one training step as a picture, and turn your first bench.
#
# **You need** Python and a little PyTorch: tensors, `backward()`, an optimizer.
#
# **Minutes:** 15

# %%
from labkit import Bench, Panel, predict, progress, record, trace
from labkit.cells import data
from labkit.draw import draw_counts, draw_curves, draw_graph, draw_latent, draw_scores
from labkit.models import vae
from labkit.training import evaluate, train

# %% [markdown]
# ## The cells
# 700 human blood cells, 765 genes, counted molecule by molecule [1].
# Nothing here is simulated.

# %%
cells = data.load_pbmc()
cells

# %%
draw_counts(cells.counts, cells.library)

# %% [markdown]
# ### What to see
# Left: each dot is a gene. If the counts were Poisson, every dot would lie on the line.
# Most lie above it, so the variance needs a parameter of its own.
# The negative binomial has one, $r$: its variance is $\mu + \mu^2 / r$.
# Right: the cells differ in how many molecules were read. The model is given this *library size*.

# %% [markdown]
# ## The model
# A variational autoencoder with a negative binomial likelihood, `NBVAE`.
# The encoder turns counts into a mean and a log-variance for eight latent numbers.
# The decoder turns a sample of them back into $\mu$ and $r$ for each gene.
# The *tissue* that the guide's model is given is here the phase of the cell cycle.
# The cell type is never shown to the model.

# %%
model = vae.NBVAE.for_cells(cells.train)
run = train.train_vae(model, cells, on_epoch=progress.bar(train.EPOCHS))
draw_curves({"training loss": run.losses}, "step", "nats per cell")

# %% [markdown]
# ### What to see
# The loss falls fast and then flattens: 20 passes over 524 cells, in a few seconds.
# A step whose loss or gradient were not finite would be refused, and counted.
#
# ## Is it any good?
# The score is the log-likelihood of cells that the training never saw. Higher is better.
# *pooled* gives every cell the average profile. *per_type* is told the cell type, which our model is not.
# *elbo* and *bound* are our model, judged from below: its true value is higher still.

# %%
score = evaluate.held_out(model, cells)
draw_scores(score.likelihoods, "log-likelihood of a new cell, nats")

# %% [markdown]
# ### What to see
# Our model is right of both, although *per_type* is told what it is looking at.
# Its latent space is the reason:

# %%
draw_latent(vae.embed(model, cells), cells.cell_type, cells.type_names)

# %% [markdown]
# ### What to see
# Each dot is a cell, placed by the two main directions of the latent space.
# The model never saw a type, and yet cells of very different types lie apart: of the 15 nearest neighbours of a B cell, 14 are B cells on average.
# The five kinds of T cell differ in few genes. They overlap.
# More than three in four new cells have the type that most of their 15 nearest training cells have.
# This is the healthy model that most benches in this lab start from. A few bring one of their own, and say so.

# %% [markdown]
# ## One training step, seen whole
# `labkit.trace` runs one step of any PyTorch program under instruments.

# %%
import torch

batch = cells.train[:64]
noise = torch.Generator().manual_seed(0)
inputs = (batch.counts, batch.tissue, model, batch.library)
report = trace(lambda: vae.elbo_loss(*inputs, generator=noise)[0], model=model)
report

# %%
draw_graph(report)

# %% [markdown]
# ### What to see
# Counts enter above, the loss is below. Each box is one operation, grouped by the module or function it belongs to.
# The number in a box is the largest value that left it. A grey box needs no gradient.
# Keep this picture in mind: in a broken step it will not be so green.

# %%
from labkit.draw import draw_gradients, draw_timeline

draw_gradients(report)

# %% [markdown]
# ### What to see
# One row per parameter, all on one axis: how many gradient entries have which size.
# A healthy row is a hill. The columns on the right count what has no place on the axis: NaN, infinities, zero.
# Zeros are not always a fault: a ReLU that is off for all 64 cells passes no gradient to its weights.

# %%
draw_timeline(report)

# %% [markdown]
# ### What to see
# The same step from left to right, first forward, then backward.
# Each bar spans the sizes of the values in one operation.
# The line above is the largest number that the format can hold. The distance to it is the *headroom*.

# %% [markdown]
# ## How a bench works
# A bench holds one failure mode. One method changes it: `turn`.
# What comes back is a *reading*: a verdict, a culprit, and how far the harm spreads.

# %%
bench = Bench("exploding_logvar")
bench.turn("healthy")

# %%
bench.turn("broken")

# %%
bench.turn("repaired")

# %% [markdown]
# The panel is the same bench with handles. Whatever you turn here, you could have written as the line that *copy* gives you.

# %%
Panel(bench)

# %% [markdown]
# ### What to see
# Read the badge first: is it well? Then the outlined box: where did it start? Then the colours: how far did it spread?
# Press *break*, then *repair*. Then find the edge yourself with the slider.

# %% [markdown]
# ## Your record
# `make lab` has put your own copies of the notebooks into `my_lab/`. Beside them the lab keeps one small file:
# what you predicted, what you broke, what you repaired, and with how many hints. It is yours. It is sent nowhere, and you may delete it.
#
# Each notebook asks before it shows. Change its cell `predict(bench)` to `predict(bench, "C")`: your answer is noted, and the right one is not given away.
# Stuck in an exercise? `hint(bench)` gives the next hint of its notebook.

# %%
predict(bench)

# %%
record.mine()

# %% [markdown]
# In your own copy this cell shows where you stand. What you have not attempted is never counted as wrong.
# It also names what to do next: first what you tried and did not finish, then the next gap.
# Or say what you see, in your own words:

# %%
print(record.suggest("one layer never moves"))

# %% [markdown]
# ## Where to go
# | what you see | go to |
# |---|---|
# | my loss is Inf, and soon everything is NaN | `22_exploding_logvar` |
# | my loss is finite, and after one step every parameter is NaN | `27_distance_at_zero` |
# | my masked loss is right, and after one step every parameter is NaN | `21_masked_but_not_safe` |
# | inputs are finite, the formula is right, and the result is Inf or NaN | `20_risky_operations` |
# | one step is fine, and after many steps of a rollout everything is astronomical | `26_runaway_operator` |
# | I went back to good weights, and one step later everything is NaN again | `33_poisoned_state` |
# | I have guards everywhere, and something is still wrong | `30_defence_in_depth` |
# | it trains in float32, and not in float16 or bfloat16 | `34_half_precision` |
# | my run crashed, and the checkpoint holds NaN or cannot be read | `42_crash_and_recovery` |
# | one of several processes goes NaN, and all of them hang or die | `43_one_rank_poisons_all` |
# | my own model went NaN | `45_your_own_model` |
# | how far does one NaN get, and when is it too late? | `41_watch_it_spread` |
# | something is NaN, and I do not know where it began | `40_hunting_the_source` |
# | my loss falls, but one layer never moves | `23_dead_clamp` |
# | my loss is high, finite and does not move | `25_log_of_almost_nothing` |
# | my loss falls a little and flattens, and fewer layers learn better | `14_bad_initialisation` |
# | loss and gradient norm look well, and one part of the model never learns | `15_reading_gradients` |
# | every gradient was finite, the optimizer stepped, and no weight has moved | `32_clip_or_detect` |
# | every gradient is alive, but one part of the loss gets no better | `11_no_grad` |
# | my frozen model changes | `11_no_grad` |
# | backward runs, and half of the parameters have no gradient | `13_item` |
# | gradients are alive, and the latent spread drifts to one | `12_detach` |
# | my posterior widens to the prior | `12_detach` |
# | my gradient disagrees with a finite difference | `12_detach` |
# | I add up losses in a loop, and only the last one seems to count | `10_accumulation` |
# | only the last batch seems to count | `10_accumulation` |
# | my loss in bfloat16 is too low | `10_accumulation` |
# | my log-likelihood is too good to be true | `24_vanishing_dispersion` |
# | a loss that must be >= 0 is negative | `27_distance_at_zero` |
# | my KL is negative | `31_stable_transforms` |
# | distances are 0 or far too large, and they change with the origin | `28_distances_that_cancel` |
# | I compute in chunks, and memory is as full as before | `29_chunks_that_save_nothing` |
# | memory grows with every logged loss | `13_item` |
# | every test is green, and the model breaks on its first day | `44_tests_that_catch` |
# | I want a case to solve | `46_whodunit` |
# | I want everything on one page | `99_reference_card` |
#
# 1. Zheng et al. (2017), Massively parallel digital transcriptional profiling of single cells, doi:10.1038/ncomms14049.

# %%
spare = Bench("exploding_logvar")  # the panel above keeps its setting
assert spare.turn("healthy").verdict == "healthy"
assert spare.turn("broken").verdict == "inf"
assert report.verdict == "healthy"
assert score.pooled < score.per_type < score.elbo < score.bound
assert score.neighbours > 0.7
