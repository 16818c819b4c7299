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
# # Whodunit
# *One line, and a budget.*
#
# **Symptom:** yesterday the training worked. Today it does not, and nobody remembers having changed anything.
#
# **You will** hunt a fault in a program that you do not know, pay for each look, accuse a line, repair it, and compare your score with a colleague's.
#
# **You need** a few failures from Parts I to III in your memory.
#
# **Minutes:** 30

# %%
from labkit.whodunit import Case

# %% [markdown]
# ## Question
# The program learns how many hours a repair will take. A job is a set of parts, each with four measurements.
# The net weighs the parts, and its loss has two terms: `fit`, the likelihood of the hours, and `crowd`, which keeps the jobs apart.
# Here is a case for practice. Read the two logs.

# %%
case = Case(14)
case

# %% [markdown]
# In step 0 the loss and both of its terms are as they were yesterday. The norm of the gradient is NaN. What do you know, for nothing?
#
# - **A** the data hold a NaN
# - **B** something in the forward pass makes a NaN
# - **C** something in the backward pass makes a NaN
# - **D** the optimizer was poisoned
#
# <details><summary>Answer</summary>
#
# **C.** The forward pass of step 0 is finite to the last term, so it met no NaN, in the data or elsewhere.
# The norm is taken before the optimizer steps for the first time.
# So a derivative is NaN where its value is not. Few operations do that, and you have met them.
# </details>
#
# ## Instrument
# Each probe has a price. What is left of the 20 points counts in the end.
#
# | probe | price | tells |
# |---|---|---|
# | `case.batch(step)` | 1 | what goes in |
# | `case.outputs("function", step)` | 2 | what a function or method returns |
# | `case.state(step)` | 2 | buffers, and the optimizer's memory |
# | `case.moved()` | 3 | how far each parameter went |
# | `case.gradients(step)` | 3 | None, zero, NaN or alive, for each parameter |
# | `case.slope("parameter", step)` | 3 | gradient against finite difference |
# | `case.read("function")` | 5 | the source, with line numbers |
# | `case.trace(step)` | 10 | the tracer's verdict, and its line |
#
# The functions are `jobs`, `fit`, `crowd`, `loss_of`, `start` and `step`; the methods of the net are `measure`, `scaled`, `features`, `weights` and `forward`.
#
# The tracer is the best probe, and it costs half of all you have. A NaN in the gradient asks for the gradients:

# %%
case.gradients()

# %% [markdown]
# ## What it sees
# ### What to see
# `level` and `spread` have a healthy gradient. They are the last layers before `fit`, so `fit` is innocent.
# Everything above them is NaN. They share the pooled features, which go into `fit` and into `crowd`.
# So the NaN comes back from `crowd`. One reading is enough:

# %%
case.read("crowd")

# %% [markdown]
# The distance of a job to itself is zero, and there the slope of a root is infinite.
# Accuse: the line, and one word of it that names the culprit. A wrong line costs 5 points.

# %%
case.accuse(75, "sqrt")

# %% [markdown]
# Then the repair. It is put in the place of the line, the program trains again, and three things are asked:
# is every number finite, is every gradient alive, and is it yesterday's run? What hides a symptom fails the third.

# %%
print(case.repair(75, "distance = difference.abs().sum(-1)"))
print(case.repair(75, "distance = (difference.square().sum(-1) + 1e-12).sqrt()"))
print(case.line())

# %% [markdown]
# The first try was finite, and another distance. The second is a repair. The last line is what you show to a colleague who had the same case.
#
# ## What it misses
# Not every case is loud. In the next one no number is NaN and no gradient is missing.

# %%
quiet = Case(20)
quiet

# %%
quiet.trace(2)

# %% [markdown]
# Ten points, and the tracer says *healthy*: every value is finite, every gradient is alive, every update counts.
# It cannot know what you *meant*. The logs told more, and for nothing. Go down the column `crowd`: yesterday it fell to less than half, today it stays where it began.
# A term that is in the loss and does not fall: somebody keeps its gradient from arriving. Where would you read?
#
# Look at what is free before you pay, and ask cheap questions that cut the program in two.
#
# ## Try it on yours
# Choose a number from 0 to 24 and you have a case of your own: each of them is another fault. From 25 on they come again, in another order.
# Play it with the probes in cells of your own, as above. Or write down how you solve it: a function that gets a fresh case, looks, and returns the line, the culprit and the new code.

# %% tags=["exercise"]
mine_is = Case(7)


def mine(case):
    # Three lines are enough once you know: look, look again, return line, "culprit", "new code".
    ...


# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Compare the two logs column by column, and find the first step that differs. Is it loud (NaN, Inf), still (nothing changes), or only worse?
# </details>
#
# <details><summary>Hint 2</summary>
#
# Loud: find the first function whose output is odd. Still: ask for the gradients, then for what moved. Only worse: ask for the state, then for a slope.
# </details>
#
# <details><summary>Hint 3</summary>
#
# `case.accuse` with a wrong line costs 5 points, and it tells you on which side of it the changed line stands.
# </details>

# %%
mine_is.check(mine)

# %% [markdown]
# `case.give_up()` shows the line. In your own copies a solved case is kept in your record.
#
# **In a room:** everybody takes the same seed, and compares the last line. 100 is a line found without a single look.
# Whoever leads the room has the key.
#
# ## Contract

# %%
assert case.score > 80
assert case.spent == 8
assert quiet.trace(2).startswith("healthy")
assert repr(Case(3)) == repr(Case(3)), "a seed is the same case for everybody"

# %% [markdown]
# **Carry away**
# - Read what is free first: which column, and from which step on?
# - Finite value and NaN gradient: a derivative. Both bad: a value. All fine and no progress: a cut, a flat place, or an optimizer.
# - A good probe cuts the program in two. An expensive one is worth it when two halves are too many.
# - A repair is proved by yesterday's run, not by the silence of an alarm.
#
# **Next:** `99_reference_card`, everything on one page.
