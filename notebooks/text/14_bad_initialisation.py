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
# # Bad initialisation
# *A number to the power of the depth.*
#
# **Symptom:** the loss falls a little and flattens, and a model with fewer layers learns better.
#
# **You will** start a real model too small, too large, all equal and dead, see that one loss curve hides three of the four, and draw weights that hold at any depth.
#
# **You need** to know what a layer, a ReLU and a gradient are.
#
# **Minutes:** 25

# %%
from labkit import Bench, Panel, answer, check, compare, predict
from labkit.draw import draw_curves, draw_gradients, draw_strip
from labkit.failures import bad_initialisation as start

bench = Bench(start)
bench.turn("healthy")

# %% [markdown]
# ## The guide says
# > 参数初始化避免过大或过小 · 检查模型初始化是否正常: check_gradient_flow(model)
#
# In English: *avoid an initialisation that is too large or too small*, and *before training, check that it is normal with check_gradient_flow(model)*.
#
# The first is true, and it does not say what too large is. The second is false: you will see below.
#
# The model is the lab's VAE on 64 real cells, untrained, with more hidden layers in its encoder.
# The last part of each reading says by how much these layers scale the signal. In the healthy run above it stays nearly as large as it was.
#
# ## Predict
# `gain` is the size of the weights, relative to the size that keeps a signal as large as it was.
# Somebody chose 0.4. With 4 hidden layers every gradient is alive.
# We go to 16 layers and change nothing else. What do you see in the first step?
#
# - **A** the same: each layer has the same weights as before
# - **B** a NaN
# - **C** gradients about four times smaller in the hidden layers
# - **D** gradients in the hidden layers that are less than a millionth of the decoder's

# %%
predict(bench)

# %% [markdown]
# <details><summary>Answer</summary>
#
# **D.** Every layer multiplies the signal by the gain on its way forward, and the gradient on its way back.
# So 16 layers multiply by `0.4 ** 16`, which is 4e-7.
# And 0.4 is no strange choice. It is what `torch.nn.Linear` does if nobody chooses:
# it draws from a uniform distribution whose spread is 0.41 of the size that a ReLU needs.
# </details>
#
# ## Break

# %%
print(bench.source("chosen"))
print(bench.turn("broken"))
print(bench.reading.culprit.source)

# %% [markdown]
# Every number is finite. The loss is as good as in the healthy run: at the start all models guess the same.
# The verdict is *vanishing*: nearly half of the parameters have a gradient that is less than a millionth of the largest one.
#
# ## Look

# %%
draw_gradients(bench.reading.report)

# %% [markdown]
# ### What to see
# The thirteen worst of 42. The decoder's hills are among the rest, seven powers of ten further to the right.
# The layers' `noise` is what their weights are made of. All of these hills stand at about the same place. A weight's gradient is the signal that enters, which shrinks from the first layer on, times the gradient that comes back, which shrinks from the last layer on.
# A bias has no signal in its gradient. It only shrinks on the way back, by about the gain in each layer, so the biases of the first two layers alone are among the worst.
#
# ## Turn
# Take the four ways to start badly, one at a time. Begin each with *healthy*.
# - *weights* to `chosen`, then drag *gain* and *depth*: the deeper, the narrower the range that works.
# - *draw* to `equal`: every weight of a layer is the same number, of a perfect size.
# - *bias* to -1: every ReLU is off for every cell.
# - *logvar* and *log_r*: the heads whose output goes through an exponential.
#
# The panel starts with four layers and a gain of 0.05, so that the whole graph fits a page.

# %%
spare = Bench(start)  # for strips and contract; the panel keeps its setting
bench.turn("broken", depth=4.0, gain=0.05)
Panel(bench)

# %% [markdown]
# The size of the weights is a matter of depth, and only of depth and fan.
# For `logvar` and `log_r` the size is a matter of what stands behind: `exp`.
# From a start of 7 the gradient is already out of proportion, from 20 it is infinite. The guide's number 20 is met here by chance:
# the sampler's noise of `exp(10)` enters the decoder, which takes an `exp` of its own.
# Low starts of `logvar` are safe. A `log_r` below -14 or above 17 leaves its head with no gradient to speak of.
#
# ## Strip
# The gain at three depths, without a kernel.

# %%
stops = (0.1, 0.4, 0.6, 0.8, 1.0, 1.1, 1.4, 2.0)
for depth in (2, 8, 24):
    spare.turn("broken", depth=depth)
    display(draw_strip(spare.sweep("gain", stops), "gain"))

# %% [markdown]
# With 2 layers everything works, from a tenth to the double.
# With 8 layers the ends fall off: *vanishing* below, Inf and NaN above.
# With 24 layers little more than 0.7 to 1.1 is left.
# There is no "too large" and no "too small" without a depth.
#
# ## Why
# A unit adds up $n$ inputs (its *fan in*) with weights of variance $\sigma^2$, and a ReLU keeps half of the mean square. After $D$ layers [1]
#
# $$\frac{\mathbb{E}\,h_D^2}{\mathbb{E}\,h_0^2} = \left(\frac{n\,\sigma^2}{2}\right)^{D} = g^{2D}$$
#
# with $g$ the gain. Only $\sigma^2 = 2/n$ gives 1 at every depth.
# Xavier's $2/(n_{in}+n_{out})$ was made for layers without a ReLU [2]: in equal layers it has $g = \sqrt{1/2}$.
# `torch.nn.Linear` draws from $\pm 1/\sqrt{n}$ [3], whose variance is $1/(3n)$: $g = \sqrt{1/6} = 0.41$.
#
# Size is not all. If two units are equal they get equal gradients, and stay equal: a layer of 64 copies is a layer of one unit.
# And a ReLU that is off for every cell passes no gradient at all.
#
# 1. He, Zhang, Ren and Sun (2015), Delving Deep into Rectifiers, eq. 10.
# 2. Glorot and Bengio (2010), Understanding the difficulty of training deep feedforward neural networks.
# 3. PyTorch documentation, `torch.nn.Linear`.
#
# ## Repair
# Write the weights. You get `noise`, shape (fan_out, fan_in), drawn from a standard normal distribution, and the gain that somebody chose.
# Return weights of the same shape that keep the size of a signal before a ReLU, whatever was chosen. Their mean square is what counts; you may also make them orthogonal.


# %% tags=["exercise"]
def mine(noise, gain):
    # One line is enough: the noise times a number that comes from its shape.
    ...


# %% [markdown]
# ## Check
# <details><summary>Hint 1</summary>
#
# `noise.shape[1]` is the number of inputs that a unit adds up. A sum of n independent terms has n times the variance of one.
# </details>
#
# <details><summary>Hint 2</summary>
#
# The variance must be `2 / noise.shape[1]`. A factor in front of the noise is a standard deviation: take the root.
# </details>

# %%
check(bench, mine)

# %%
answer(bench)

# %% [markdown]
# ## Compare
# *fan_out* is what you get from `nn.init` on a weight that is stored as (inputs, outputs): it takes the wrong side of the shape.
# Here the hidden layers are square, so that only the first one, 768 inputs and 64 units, is wrong.

# %%
print(compare(bench, yours=start.FORMS["he"]))
names = {"repaired": "He, 16 layers", "broken": "gain 0.4, 16 layers"}
ends = {case: start.trained(start.CASES[case]) for case in ("repaired", "broken", "equal", "dead")}
draw_curves({name: ends[case][0] for case, name in names.items()}, "step", "loss")

# %% [markdown]
# Xavier and *fan_out* are alive here: wrong by a factor, and 16 layers are not enough to kill.
# The curves part only after 40 steps. Until then both runs learn the same thing: the average cell, which the decoder's biases can say alone.
# A loss that falls is no proof that the encoder learns.
#
# Now the other two starts, all weights equal and every ReLU off, beside the one that is too small.

# %%
for case in ("broken", "equal", "dead"):
    losses, model = ends[case]
    stuck = abs(losses[-1] / ends["broken"][0][-1] - 1) < 0.01
    far = "moved" if start.moved(start.CASES[case], model) else "never moved by a bit"
    alike = f"{sum(start.copied(model))} of {len(start.copied(model))} layers are one unit"
    print(f"{case:7} {'same' if stuck else 'other'} loss; the first layer {far}; {alike}")

# %% [markdown]
# Three illnesses, one curve. What tells them apart is one look at the gradients after one backward:
# tiny in the first layers, alive everywhere, or exactly zero.
# The guide's check *before* training cannot make this difference: until the first backward no parameter of any model has a gradient.
# Run one step on real cells, look, and take the gradient away again.
# Equal units pass even then, since each of their gradients is of a healthy size. The bench compares the units with one another.
#
# ## Contract

# %%
assert spare.turn("healthy").verdict == "healthy"
assert spare.turn("broken").verdict == "vanishing"
assert spare.turn("broken", depth=4).verdict == "healthy", "the same weights, fewer layers"
assert spare.turn("large").verdict == "nan"
assert spare.turn("equal").verdict == "wrong"
assert spare.turn("equal", depth=1).verdict == "healthy", "the random heads tell the units apart"
assert spare.turn("dead").verdict == "dead"
assert spare.turn("repaired").verdict == "healthy"
untouched = start.started(start.CASES["healthy"], start.FORMS["he"])
assert all(p.grad is None for p in untouched.parameters()), "the guide's check before training"

# %% [markdown]
# **Carry away**
# - The depth is an exponent. Judge a start by what leaves the last layer, not by the weights.
# - Before a ReLU: variance 2 / fan in. `torch.nn.Linear` does not do that by itself.
# - A head in front of an exponential starts near zero.
# - Check a start after one backward on real data. Before it there is nothing to see.
# - A plateau of the loss has many causes. Look at the gradients of the first layers.
#
# **Next:** `15_reading_gradients`, the instruments for that look, and what each of them cannot see.
