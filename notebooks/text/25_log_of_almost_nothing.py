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
# # Log of almost nothing
# *The pull that fades when it is needed.*
#
# **Symptom:** a loss that is high and finite stays where it is. What is predicted near 0 stays near 0.
#
# **You will** take a small constant that everyone adds, watch it eat the learning signal of 765 genes, see it vanish in float16, and do without it.
#
# **You need** the chain rule, and $\log$ and $\exp$.
#
# **Minutes:** 20

# %%
from labkit import Bench, Panel, answer, check, compare, predict
from labkit.draw import draw_curves, draw_gradients, draw_map, draw_strip
from labkit.failures import log_of_almost_nothing

bench = Bench(log_of_almost_nothing)
bench.turn("healthy")

# %% [markdown]
# ## The guide says
# > 所有log运算: 参数+eps
#
# In English: *all logs: add eps to the argument.* Its eps is 1e-8.
# Its matrix says that `log(x)` is NaN for x <= 0. In fact it is NaN below 0, and minus infinity at 0.
#
# ## Predict
# The decoder predicts the mean count $\mu$ of each gene. The likelihood needs $\log(\mu + 10^{-8})$.
# A gene has 5 counts in a cell, and the model predicts $\mu = 10^{-11}$: it is as wrong as can be.
# How hard do the 5 counts pull $\log \mu$ up?
#
# - **A** with a force of 5, as at any other $\mu$ that is far too small
# - **B** with a force near $10^{11}$, since the slope of log is $1/\mu$
# - **C** with a force of 0.005
# - **D** with none: the constant has replaced $\mu$

# %%
predict(bench)

# %% [markdown]
# <details><summary>Answer</summary>
#
# **C.** The slope of $\log(\mu + \varepsilon)$ in $\log \mu$ is $\mu / (\mu + \varepsilon)$, here one thousandth.
# The true slope of $\log \mu$ in $\log \mu$ is 1, everywhere.
# So the further off the model is, the less it hears.
# </details>
#
# ## Break
# The slider lowers every $\log \mu$ of the trained model by the same number, here 40.

# %%
print(bench.source("log(exp + eps)"))
print(bench.turn("broken"))
print("loss", round(bench.reading.value), " truth", round(bench.reading.reference))

# %% [markdown]
# The verdict is *vanishing*: the gradient of the layer that predicts $\mu$ is a few billionths of the largest one.
# The loss is half of the truth, and would be the same for every smaller $\mu$. It is the loss of the constant.
#
# ## Look

# %%
draw_gradients(bench.reading.report)

# %% [markdown]
# ### What to see
# Two rows stand far to the left of all others: `decoder.fc_mu`, the layer that is wrong.
# The layers that are well get all of the gradient. No row is all zero, nothing is NaN, and the norm of the whole gradient looks ordinary.
# Below: the size of that layer's gradient, on a log scale, as $\log \mu$ is lowered.

# %%
lines = {way: log_of_almost_nothing.pull(way) for way in ("log(exp + eps)", "log mu")}
draw_curves(lines, "taken from log mu, nats", "log10 of the gradient's norm")

# %% [markdown]
# The true pull grows at first, since the model gets worse. Then it is constant: each count pulls with the force of one count.
# With eps it turns down near 18, which is $-\ln 10^{-8}$, and falls by a factor of $e$ per nat.
#
# ## Turn
# Try the other ways. Then set *dtype* to float16, start at 0 and go down.

# %%
spare = Bench(log_of_almost_nothing)  # for strips and contract; the panel keeps its setting
Panel(bench)

# %% [markdown]
# In float16 the smallest positive number is 6e-8. So 1e-8 is 0, and the guard is not there at all.
#
# ## Strip
# The guide's way in float32, then in float16, then a floor instead of a sum.
# Last, a map of the guide's way: is there an eps that is right?

# %%
stops = (0, -5, -7, -15, -17, -25, -40, -120)
for way, dtype in (
    ("log(exp + eps)", "float32"),
    ("log(exp + eps)", "float16"),
    ("log(clamp)", "float32"),
):
    spare.turn("healthy", way=way, dtype=dtype)
    display(draw_strip(spare.sweep("shift", stops), "shift"))
spare.turn("broken")
display(draw_map(spare.map()))

# %% [markdown]
# First: *wrong* from 17 on, when the smallest $\mu$ is lost in eps. Then vanishing. At 120 `exp` underflows, and the layer is dead.
#
# Second, float16: at 7 the first $\mu$ of a gene is 0. Its log is minus infinity, and the gradient is NaN.
# The loss itself can still be finite there: that gene had no count.
#
# Third: a floor of 1e-8 does not disturb what is above it. Below it nothing passes.
#
# The map answers with a staircase: each smaller eps buys a little more of the green, nine to ten nats for four powers of ten.
# Then comes the lowest row. There eps is so small that the slope of the log, one over eps, overflows, and the step is Inf or NaN.
# In the panel choose float16, where every row but the highest is Inf. Then choose *log mu*, which has no eps, and the whole map is one colour.
#
# ## Why
# With $a = \log \mu$, what the layer puts out, the likelihood of a count $x \gg \mu$ has the slope $x$ in $a$ [1]. The guarded log changes it to
#
# $$\frac{\partial}{\partial a}\, x \log\!\left(e^{a} + \varepsilon\right) \;=\; x\,\frac{\mu}{\mu + \varepsilon} \;\to\; x\,\frac{\mu}{\varepsilon} \quad \text{for } \mu \ll \varepsilon$$
#
# A softplus in place of exp has the same limit.
# A smaller eps moves the place, until the dtype cannot hold it: 6e-8 in float16 [2], 1e-45 in float32.
#
# The log of $\mu$ was never the trouble. `exp` was: the layer had $\log \mu$, the program made $\mu$ of it, and took the log again.
# A likelihood that takes $\log \mu$ needs no eps. For probabilities, `log_softmax` and `logsigmoid` do the same.
#
# 1. Lopez et al. (2018), Deep generative modeling for single-cell transcriptomics.
# 2. IEEE 754-2019, binary16.
#
# ## Repair
# The likelihood takes $\log \mu$. Write the way from the layer's output `a`, which means $\log \mu$, to what the likelihood takes.
# It must hold from 0 to -120, in each dtype.


# %% tags=["exercise"]
def mine(a):
    # One line is enough. It is the shortest answer in this lab.
    ...


# %% [markdown]
# ## Check
# <details><summary>Hint 1</summary>
#
# What is $\log(\exp(a))$ on paper?
# </details>
#
# <details><summary>Hint 2</summary>
#
# Where does a number underflow, in `exp` or in `log`? Leave out the one that does.
# </details>

# %%
check(bench, mine)

# %%
answer(bench)

# %% [markdown]
# ## Compare
# Every way at the broken setting. Note *log(exp)*: no guard, and healthy here. Float32 holds `exp(-40)` without help; near -88 its numbers end.
# Below the table: the bias of the layer is trained from 30 below. What is the true loss?

# %%
print(compare(bench, yours=log_of_almost_nothing.FORMS["log mu"]))
lines = {way: log_of_almost_nothing.recovery(way) for way in ("log(exp + eps)", "log mu")}
draw_curves(lines, "step", "true loss, nats per cell")

# %% [markdown]
# With eps the layer hardly moves in 60 steps. With $\log \mu$ it comes back.
#
# ## Contract

# %%
assert spare.turn("healthy").verdict == "healthy"
assert spare.turn("broken").verdict == "vanishing"
assert spare.turn("broken", way="log(clamp)").verdict == "dead"
assert spare.turn("broken", shift=-25.0).verdict == "wrong"
assert spare.turn("broken", way="log(exp)").verdict == "healthy", "the guard was the illness"
assert spare.turn("half").verdict == "inf", "1e-8 is 0 in float16"
assert spare.turn("half", way="log mu").verdict == "healthy"
assert spare.turn("repaired").verdict == "healthy"

# %% [markdown]
# **Carry away**
# - A constant inside a log is a floor for the loss and an end of learning. State its size beside the numbers that it meets.
# - Ask whether the dtype can hold it.
# - Do not leave the logarithm, and you need no way back.
# - A loss that is high, finite and constant is a symptom. Look at the gradients layer by layer.
#
# **Next:** `27_distance_at_zero`, where the value is right and the slope is infinite.
