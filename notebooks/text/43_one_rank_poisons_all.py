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
# # One rank poisons all
# *Shared fairly.*
#
# **Symptom:** every rank is NaN, though the data of this one is fine. Or the job just stands still.
#
# **You will** train one model in two real processes, make one of them sick, see two wrong cures, and write the one line that is right.
#
# **You need** to know what a training step is. No second machine and no GPU: two processes on this one talk through `torch.distributed` and gloo.
#
# **Minutes:** 20

# %%
from labkit import Bench, Panel, answer, check, compare, predict
from labkit.draw import draw_gradients, draw_strip
from labkit.failures import one_rank_poisons_all

bench = Bench(one_rank_poisons_all)
bench.turn("healthy")

# %% [markdown]
# ## The guide says
# > 每个batch后检测loss: if torch.isnan(loss): raise
#
# In English: *check the loss after every batch, and raise if it is NaN.*
# It has one process in mind. With several, each would look after itself.
#
# ## Predict
# Two ranks take three steps. Each computes gradients on cells of its own; then an *all-reduce* gives both the mean, and both move their copy of the model.
# In the first step the loss of rank 1 is NaN. Rank 1 is careful: it skips that step, with a plain `continue`.
# What happens?
#
# - **A** rank 0 takes the step alone, and all goes on
# - **B** rank 0 stops at once with an error
# - **C** both go on, rank 0's first gradient is averaged with rank 1's second, and at the end rank 0 waits for ever
# - **D** rank 0 becomes NaN

# %%
predict(bench)

# %% [markdown]
# <details><summary>Answer</summary>
#
# **C.** An all-reduce knows no step numbers. It pairs the first call here with the first call there.
# Rank 1 has skipped one, so its second step answers rank 0's first.
# Rank 0 comes three times and rank 1 twice. The third time nobody is there.
# </details>
#
# ## Break
# First without any care. The guard stands between `backward` and the all-reduce. It says whether to take the step, and here it always says yes.
# The reading is what rank 0 saw, the *healthy* one.

# %%
print(bench.source("take it"))
print(bench.turn("broken"))
print(bench.reading.culprit.source)

# %% [markdown]
# Rank 0's own loss was finite, and so were its gradients. The mean of a number and NaN is NaN.
# One all-reduce later every parameter of both ranks is lost.
#
# ## Look

# %%
draw_gradients(bench.reading.report)

# %% [markdown]
# ### What to see
# Twelve rows of NaN, on the rank whose data is fine. No operation of this process has made them, so no graph of this process can show their birth.
# That is why the culprit is the line at which the two ranks meet.
#
# ## Turn
# Choose the accident and the guard. *NaN gradient* has a finite loss on both ranks.

# %%
spare = Bench(one_rank_poisons_all)  # for strips and contract; the panel keeps its setting
Panel(bench)

# %% [markdown]
# Choose *skip alone*: for a second nothing moves. Then gloo gives up, since we told it to. By default it waits half an hour.
# Choose *vote if well*: a vote to which the sick rank does not come is no vote.
#
# ## Strip
# The same sick rank under each guard.

# %%
spare.turn("broken")
display(draw_strip(spare.sweep("guard", 4), "guard"))
for guard in ("skip alone", "agree"):
    print(f"{guard}:", *one_rank_poisons_all.meetings(guard), sep="\n  ")

# %% [markdown]
# *Skip alone*: no parameter is NaN, and two averages are of gradients that do not belong together. No alarm rings for those. The wait at the end is the only sign.
# *Agree*: both skip step 0, and then they meet in step.
#
# ## Why
# With $n$ ranks and the gradient $g_k$ of rank $k$, an all-reduce gives every rank the same mean [1]:
#
# $$\bar g = \frac1n \sum_{k=1}^{n} g_k, \qquad g_j = \mathrm{NaN} \;\Rightarrow\; \bar g = \mathrm{NaN} \ \text{ on all } n \text{ ranks}$$
#
# The chance that a step is bad grows with the number of ranks.
# A collective has no address and no number. Every rank must call the same ones in the same order [2].
# So a rank may not decide alone whether to call one. What depends on the data of one rank must first be told to all: by a collective that everyone calls in any case.
#
# The minimum of a flag does it: 1 where all is finite, 0 where not. It costs one number per step.
#
# 1. Li et al. (2020), PyTorch Distributed: Experiences on Accelerating Data Parallel Training, VLDB 13.
# 2. PyTorch documentation, torch.distributed.
#
# ## Repair
# Write the guard. It gets `finite`, whether the loss and all gradients of *this* rank are finite, and `minimum`, a function that takes the smallest of a number over both ranks. It returns whether to take the step.
# Your function runs once for each rank. Each call of `minimum` is a real all-reduce between the two processes.


# %% tags=["exercise"]
def mine(finite, minimum):
    # One line is enough. Ask yourself who calls `minimum`, and when.
    ...


# %% [markdown]
# ## Check
# <details><summary>Hint 1</summary>
#
# Both ranks must call `minimum`, in every step, whatever `finite` is. What should each of them bring?
# </details>
#
# <details><summary>Hint 2</summary>
#
# `float(finite)` is 1.0 or 0.0, and the smallest is 0.0 as soon as one rank is sick. `bool(...)` makes an answer of it. Beware of `finite and minimum(...)`: where `finite` is false Python does not call what follows.
# </details>

# %%
check(bench, mine)

# %%
answer(bench)

# %% [markdown]
# ## Compare
# Each guard with the sick rank. *Digits* compares the last loss of rank 0 with the same steps in float64, in one process.

# %%
compare(bench, yours=one_rank_poisons_all.FORMS["agree"])

# %% [markdown]
# *Skip alone* keeps three digits: its run looks nearly right. That is what makes it dangerous.
#
# There is a second way: look *after* the all-reduce. Then all ranks see the same mean, and each decides the same without a vote. `GradScaler` with `DistributedDataParallel` works like this. It needs no message, and it cannot say which rank was sick.
#
# ## Contract

# %%
assert spare.turn("healthy").verdict == "healthy"
assert spare.turn("broken").verdict == "nan", "a healthy rank is poisoned"
assert len(spare.reading.report.harmed) == 12
assert spare.turn("deadlock").verdict == "deadlock", "a local skip"
assert spare.turn(guard="vote if well").verdict == "deadlock", "a vote that not all attend"
assert spare.turn("repaired").verdict == "healthy"
assert spare.turn(accident="NaN gradient").verdict == "healthy", "a finite loss is no proof"

# %% [markdown]
# **Carry away**
# - What one rank brings, all take home.
# - Never decide alone whether to call a collective. `continue`, `break`, `raise` and `and` are decisions.
# - Tell first, then decide: the minimum of a flag, called by all, always.
# - Give your process group a timeout that you can bear to wait for.
# - A job that stands still is a symptom like NaN. Count who came to which meeting.
#
# **Next:** `44_tests_that_catch`, so that it does not come back.
