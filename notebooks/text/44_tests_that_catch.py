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
# # Tests that catch
# *Green, and broken.*
#
# **Symptom:** every test of extreme inputs is green, and the model breaks on its first day.
#
# **You will** spoil a good model in four ways, watch the guide's test stay green for each, and write the two lines that make it a test.
#
# **You need** to know what `assert` is for. `22_exploding_logvar`, `23_dead_clamp` and `27_distance_at_zero` show the faults that are planted here.
#
# **Minutes:** 20

# %%
from labkit import Bench, Panel, answer, check, compare, predict
from labkit.draw import draw_gradients, draw_strip
from labkit.failures import tests_that_catch

bench = Bench(tests_that_catch)
bench.turn("healthy")

# %% [markdown]
# ## The guide says
# > ✅ 所有极端输入测试通过
#
# In English: *all extreme input tests passed.*
#
# It feeds a model zeros, then a million everywhere, then a millionth everywhere. Each time it asserts that the loss is not NaN.
#
# ## Predict
# A colleague has changed the model. Three changes, each on its own:
# the KL overflows and the loss is infinite; the loss is right and its gradient is NaN; one head gets a gradient of exactly zero.
# How many of the three does the guide's test catch?
#
# - **A** all three
# - **B** the first two
# - **C** the first
# - **D** none

# %%
predict(bench)

# %% [markdown]
# <details><summary>Answer</summary>
#
# **D.** Infinity is not NaN, so the first is green.
# The test never calls `backward`, so it cannot see a NaN in a gradient, and still less a zero.
# It asks one question of one number.
# </details>
#
# ## Break
# A test is a gate. Green: the changed model is shipped. Red: the last good one stays.
# The reading is one training step of *what was shipped*, on real cells.

# %%
print(bench.source("not NaN"))
print(bench.turn("broken"))
print(bench.turn("NaN gradient"))
print(bench.turn("dead head"))

# %% [markdown]
# Three broken models, three green tests. The culprit is the line in the model. The test has let it through.
#
# ## Look
# These are the gradients of the last one, the dead head. Its loss is finite, on every input.

# %%
draw_gradients(bench.reading.report)

# %% [markdown]
# ### What to see
# Two rows hold nothing but zeros: the log-variance head learns nothing, for ever.
# Every other row is a hill. No value of the forward pass is odd, so no test of the forward pass can see it.
# (Some zeros are in order: a ReLU that is off for all cells passes none. What counts is a row without a hill.)
#
# ## Turn
# Choose a fault, then a test. Then make the large input larger.

# %%
spare = Bench(tests_that_catch)  # for strips and contract; the panel keeps its setting
Panel(bench)

# %% [markdown]
# *Large* goes from one molecule to $10^{12}$, and the guide's test stays green at every stop.
# The inputs are not what breaks these models. More extreme inputs make a weak question louder, not better.
#
# ## Strip
# The dead head, under four tests. Then *thin ice*: a model that is well today, since nothing limits its log-variance and nothing has pushed it yet. Its test is the strictest one.

# %%
spare.turn("dead head")
display(draw_strip(spare.sweep("test", 4), "test"))
spare.turn("thin ice")
display(draw_strip(spare.sweep("extremes", 2), "extremes"))

# %% [markdown]
# Above: only a test that asks for life refuses the dead head. *Healthy* means here that the good model was kept.
#
# Below: with extreme inputs alone the thin ice holds, and breaks on the first day. The test that catches it also sets the *heads* of the model to extremes: plus and minus 100 on a bias whose exponential is taken.
# Training moves heads. No input moves them as far.
#
# ## Why
# A test of a training step must look at what training uses: the loss $L$ and, for each parameter $\theta_i$, its gradient.
#
# $$L \in \mathbb{R}, \qquad \nabla_{\theta_i} L \in \mathbb{R}^{n_i}, \qquad \nabla_{\theta_i} L \neq 0 \ \text{ on real data}$$
#
# $\mathbb{R}$ holds neither NaN nor infinity [2].
# The guide's test asks for the first, without infinity. The last one cannot be asked of extreme inputs:
# here an input of a million pushes the log-variance back into the range where the clamp has a slope, and the dead head wakes up.
#
# Steps of training belong into a test suite as much as outputs do [1].
#
# 1. Breck et al. (2017), The ML Test Score, IEEE Big Data.
# 2. IEEE 754-2019.
#
# ## Repair
# Write the question. You get `gradients`, a dict of tensors by parameter, each of shape (input, ...), and `losses`, shape (input,).
# Input 0 holds real cells, the others are extremes. Return `True` where the test is green, as a Python `bool`.


# %% tags=["exercise"]
def mine(gradients, losses):
    # Three lines are enough: everything is finite; each gradient of input 0 has something in it.
    ...


# %% [markdown]
# ## Check
# <details><summary>Hint 1</summary>
#
# `isnan` knows one kind of bad number. `isfinite` knows all three. Ask it of the losses and of every gradient.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `g[0].any()` is true where the gradient on real cells is not zero everywhere. Each parameter must pass, so `all(...)` goes around it, and `bool(...)` makes a Python bool of a tensor.
# </details>

# %%
check(bench, mine)

# %%
answer(bench)

# %% [markdown]
# ## Compare
# Each fault against each question. First with extreme inputs, then with extreme heads as well.

# %%
print(compare(bench, yours=tests_that_catch.FORMS["alive"]))
for extremes in tests_that_catch.EXTREMES:
    print(f"\n{extremes:18}", *(f"{test:17}" for test in tests_that_catch.FORMS))
    for fault, seen in tests_that_catch.lights(extremes).items():
        print(f"{fault:18}", *(f"{light:17}" for light in seen.values()))

# %% [markdown]
# Read the boards by column. The first row must be green and all others red: only the last column of the second board has that.
# With the heads at extremes even *not NaN* sees the overflow: it grows until infinity meets infinity. By luck, not by its question.
#
# `labkit.guide.test_extreme_inputs` asks all of this of a model of yours:

# %%
import torch

from labkit import guide

torch.manual_seed(0)
tested = guide.test_extreme_inputs()

# %% [markdown]
# Its last two lines plant a NaN and an infinity in the input. A test suite must also know that its alarm can ring.
#
# ## Contract

# %%
assert spare.turn("healthy").verdict == "healthy"
assert spare.turn("broken").verdict == "inf", "green, and the loss is infinite"
assert spare.turn("NaN gradient").verdict == "nan"
assert spare.turn("dead head").verdict == "dead"
assert spare.turn("dead head", test="finite gradients").verdict == "dead"
assert spare.turn("thin ice").verdict == "inf", "extreme inputs do not move a head"
assert spare.turn("thin ice", extremes="inputs and heads").verdict == "healthy"
assert spare.turn("repaired").verdict == "healthy"
assert tested

# %% [markdown]
# **Carry away**
# - Infinity is not NaN. Write `isfinite`.
# - Run `backward` in the test. Training uses gradients, and so must its test.
# - Finite is not alive. Ask of every parameter whether it learns from real data.
# - Set the heads to extremes, not only the inputs.
# - Break the model on purpose and see the test red. Green alone says nothing about a test.
#
# **Next:** `40_hunting_the_source`, for the day on which a test is red.
