# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   labkit:
#     kind: tool
# ---

# %% [markdown]
# # Your own model
# *A file that the lab has never seen.*
#
# **Symptom:** my own training was fine for forty steps. Now every number that it prints is `nan`.
#
# **You will** take a stranger's `train.py`, add four lines to it, and get from it the step, the batch and the line where the NaN was born. Then you replay that one step, repair it and prove the repair.
#
# **You need** a training loop of your own, or the one below.
#
# **Minutes:** 25

# %%
import torch

from labkit import Bench, Panel, answer, check, compare, trace
from labkit.draw import draw_graph
from labkit.failures import your_own_model

# %% [markdown]
# ## Question
# `home` is a temporary folder with one file in it. Nothing in that file knows of this lab.
# It reads reviews, word by word, and learns which of them are good ones. Here is its loop:

# %%
home = your_own_model.folder()
print(home.show("train.py", "main"))
print("\n$ python train.py")
print(home.run("python train.py"))

# %% [markdown]
# The loss falls, and then it is `nan`. In which step did it go wrong, and what is the damage?
#
# - **A** in step 50, and one step is lost
# - **B** somewhere between 41 and 50, and the whole model is lost
# - **C** in step 40: its gradient was bad, and the loss shows it later
# - **D** nobody can know without starting again
#
# <details><summary>Answer</summary>
#
# **B.** The loop prints each tenth step only. Step 40 was well, and so were its weights, or the loss could not have been finite.
# At the bad step the NaN went into all four parameters. From then on every loss is `nan`, whatever the batch.
# The print tells the last good step, not the first bad one. The guide's advice, `if torch.isnan(loss): raise` after each batch, would have found the step, with the weights already gone.
# </details>
#
# ## Instrument
# `labkit.watch` stays on while you train. It looks at every gradient before the optimizer may use it.
# Four lines, and the body of the loop stays as it is:

# %%
print(home.edit("train.py", your_own_model.WATCHED))
print("\n$ python train.py")
print(home.run("python train.py"))
home

# %% [markdown]
# The watch stopped the run at **step 41**, before the optimizer could write. The model in memory is still the good one of step 40.
# It had run the step again, under the tracer, from the same weights and the same random numbers. So it can name the line.
# And there is a new file: a *capsule*. It holds that batch, the state before it, the random numbers and the report. It holds no code.
#
# `labkit replay` starts the program again, lets the capsule take the place of its first batch, traces that one step and ends there:

# %%
print(home.run("labkit replay capsules/step000041.capsule"))

# %% [markdown]
# *Reproduced to the bit:* every gradient and the loss have the same bits as in the run that died, its dropout included.
# Forty steps of training were not needed. In your training it may be forty thousand.
#
# ## What it sees
# The capsule's report is the reading of a trace, so everything that you know from the benches works on it.

# %%
from labkit.watch.capsule import load

report = load(home.path / "capsules" / "step000041.capsule").report
draw_graph(report)

# %% [markdown]
# ### What to see
# Find the outlined operation: a softmax. What goes into it holds minus infinity, as a mask should.
# What comes out is NaN. All that is below it is lost, and on the way back the NaN reaches every parameter.
#
# Which review was it? The tracer keeps the place of the first bad entry, and the chain of what followed.

# %%
print("first bad entry: review {}, word {}".format(*report.culprit.index))
print(*(link.text for link in report.chain), sep="\n")

# %% [markdown]
# Review 5 of that batch is empty: the cleaning left no word of it. All its scores are hidden, and the softmax of nothing is 0/0.
#
# The same tracer works without a watch: as a function around one step, or as a block around a loop that you do not want to take apart.

# %%
torch.manual_seed(0)
train = home.load("train.py")
model, batches = train.Reader(), list(train.reviews())
print(trace(lambda: train.loss_of(model, batches[40]), model=model))
print(trace(lambda: train.loss_of(model, batches[41]), model=model))
with trace(model=model) as tracing:
    for batch in batches[40:43]:
        train.loss_of(model, batch).backward()
        tracing.step()
print("born in step", tracing.report.culprit.step, "of the block")

# %% [markdown]
# The stranger's step stands on a bench as well. One knob is the number of empty reviews.

# %%
spare = Bench(your_own_model)  # for strips and contract; the panel keeps its setting
bench = Bench(your_own_model)
bench.turn("broken")
Panel(bench)

# %% [markdown]
# One empty review of 32 is enough to lose all four parameters.
# Choose *nan_to_num*: the loss is finite now, and two parameters still get NaN. Choose *lowest number*: finite, alive, and not what is meant.
#
# ## What it misses
# **A step that reads what nobody kept.** Here a counter decides, and the replay counts on:

# %%
other = your_own_model.folder()
print(other.edit("train.py", your_own_model.COUNTED))
print("\n$ python train.py")
print(other.run("python train.py"))

# %% [markdown]
# It says so itself: *not reproduced*. What belongs to the step must be kept: `watch(..., keep=[...])` takes generators and everything with a `state_dict`.
#
# **A number that is finite and wrong.** Put the lowest finite number in the place of minus infinity:

# %%
other = your_own_model.folder()
print(other.edit("train.py", your_own_model.LOWEST))
print("\n$ python train.py")
print(other.run("python train.py"))
print(spare.turn("wrong"))

# %% [markdown]
# The watch is silent, and it is right: every number is finite. But the empty review now reads its own padding, twelve times, and learns from it.
# Only the bench says *wrong*, since it knows what is meant. A test of your own must know it for your model.
#
# A watch also refuses to start in distributed training, since a replay on one rank would wait for the others. `43_one_rank_poisons_all` shows what to do there.
#
# ## Try it on yours
# First on the stranger's. Write the weights of the words. You get `scores` and `mask`, both of shape (review, word); the mask is 0 where there is no word.
# A review with words is as before, also where scores are 100 or -100. In a review without, every weight is 0.
#
# <details><summary>Hint 1</summary>
#
# A softmax needs one finite score in each row. Hide nothing in the rows that are empty: `(mask == 0) & ~empty`.
# </details>
#
# <details><summary>Hint 2</summary>
#
# Now an empty row has weights that it must not have. `masked_fill(empty, 0.0)` takes them away, and their gradient with them.
# </details>


# %% tags=["exercise"]
def mine(scores, mask):
    # Three lines are enough: which reviews are empty, what is hidden from the softmax, the weights.
    ...


# %%
print(check(bench, mine))
display(answer(bench))
print(compare(bench, yours=your_own_model.FORMS["chosen away"]))

# %% [markdown]
# Now prove it where it broke. The library's answer goes into the stranger's file, and the training runs to its end.
# Then the capsule once more: the very step that died, with the repaired program.

# %%
repair = bench.source("chosen away")
home.edit("train.py", {"weights = attend(": "weights = chosen_away("})
home.edit("train.py", {"class Reader": f"{repair}\n\nclass Reader"})
home.edit("train.py", {"from torch import nn": "from torch import Tensor, nn"})
print(home.run("python train.py"))
replay = "labkit replay --expect healthy capsules/step000041.capsule"
print(home.run(replay).partition("...\n")[2])

# %% [markdown]
# *Repaired.* A capsule is a test: keep it beside the repair. With `--expect healthy` the exit code is 0 when the step runs well and the tracer is silent, and 1 when it still dies.
#
# ## Contract

# %%
assert report.verdict == "nan"
assert report.culprit.file == "train.py"
assert "softmax" in report.culprit.source
assert spare.turn("broken").verdict == spare.turn("broken", attend="nan_to_num").verdict == "nan"
assert spare.turn("wrong").verdict == "wrong"
assert spare.turn("repaired").verdict == "healthy"

# %% [markdown]
# **Carry away**
# - The first `nan` that you read is not the first that there was. Ask for the first bad *gradient*.
# - Look before the optimizer writes. Afterwards there is nothing left to look at.
# - Keep the step that died, not the run: batch, state, random numbers. It makes a test.
# - Repair what goes into the operation. Then replay, and see it run well.
# - Finite is not right. Say in a test of your own what your numbers mean.
#
# **Next:** `42_crash_and_recovery` keeps the run alive through all of this.
