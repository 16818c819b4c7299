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
# # detach
# *One of two ways.*
#
# **Symptom:** gradients are finite and not zero, and the spread of the latent state drifts to one.
#
# **You will** cut one of the two ways from a parameter to the loss, see that no check for missing gradients notices, and find it with a finite difference.
#
# **You need** to know what a VAE samples. `00_start_here` shows the model.
#
# **Minutes:** 20

# %%
from labkit import Bench, Panel, answer, check, compare, predict
from labkit.draw import draw_curves, draw_graph, draw_strip
from labkit.failures import detach

bench = Bench(detach)
bench.turn("healthy")

# %% [markdown]
# ## The guide says
# > z_detached = z.detach()  # ← 切断梯度 … 梯度无法传到encoder
#
# In English: *`z.detach()` cuts the gradient: it cannot reach the encoder.*
# It allows `detach` for logging, and for a stop-gradient that is meant.
#
# ## Predict
# The latent state is drawn as `z = mu + std * noise`, with `std = exp(logvar / 2)`.
# Somebody takes the random part for a constant and writes `z = mu + (std * noise).detach()`.
# The loss is reconstruction plus KL. Which gradient does the layer `fc_logvar` get?
#
# - **A** none, `grad` is `None`
# - **B** zeros
# - **C** the right one, since noise needs no gradient
# - **D** a finite one, not zero, and wrong

# %%
predict(bench)

# %% [markdown]
# <details><summary>Answer</summary>
#
# **D.** The log-variance reaches the loss twice: by the sample and by the KL.
# The sample is cut off, the KL is left.
# The noise needs no gradient, that is true. But `std` in front of it does.
# </details>
#
# ## Break
# First the guide's example where it holds: no KL, so that the state is the only way. Then the same word on one of two ways.

# %%
print(bench.source("state"), bench.turn("sole"), sep="\n")
print("\n" + bench.source("noise"), bench.turn("broken"), sep="\n")
said, measured = detach.slopes()["noise"]
print(f"slope: autograd says {round(said)}, a finite difference {round(measured)}")

# %% [markdown]
# With one way, the encoder gets nothing, and the verdict is *severed*.
# `grad is None` would tell you, and so would a look at the six missing histograms.
#
# With two ways every parameter has a gradient. Four of them are wrong.
# The last line asks another witness. Add a little to every log-variance and see how the loss changes.
# The loss is nearly flat there, since the model is trained. Autograd claims a slope of -3.
#
# ## Look
# The broken step as a graph. Data enters above, the loss is below.

# %%
draw_graph(bench.reading.report)

# %% [markdown]
# ### What to see
# `fc_logvar` has two ways down: by `noise_cut`, where the scissors are, and by `kl_per_latent`.
# The boxes are green all the same, since every box above the cut still has a way.
# Histograms show 12 ordinary hills, so they are left out. See instead what training makes of it.

# %%
draw_curves(detach.courses(), "step", "mean log-variance")

# %% [markdown]
# ### What to see
# Both runs go on from the same trained model.
# With the whole sample the data make the posterior narrower still.
# With the cut it goes to 0 within 30 steps, where the standard deviation is 1, the prior's.
# Nothing speaks against it any more. The model has forgotten how sure it is of each cell.
#
# ## Turn
# Try each sample, with and without the KL. Then shift the log-variance.

# %%
spare = Bench(detach)  # for strips and contract; the panel keeps its setting
bench.turn("broken")
Panel(bench)

# %% [markdown]
# At *kl* 0 the same cut is *severed*. At *shift* -4 it is *healthy*: there the KL's gradient is so large that the lost part does not count.
# How wrong a cut gradient is depends on what is left.
#
# ## Strip
# The weight of the KL: first with the cut, then with a mistake of another kind.

# %%
stops = (0, 0.5, 1, 2, 4)
spare.turn("broken")
display(draw_strip(spare.sweep("kl", stops), "kl"))
print(bench.source("data"), spare.turn("edited"), sep="\n")
display(draw_strip(spare.sweep("kl", stops), "kl"))

# %% [markdown]
# ### What to see
# Above: no second way at 0, so `fc_logvar` gets no gradient at all. From 0.5 on it gets a wrong one.
#
# Below: nothing is detached that is needed. But a detached copy shares its memory with the original.
# `exp` has saved `std` for its own derivative, and the edit changes it after the fact.
# Through `.detach()` PyTorch notices and raises an error. Through `.data` it does not, and four gradients are wrong.
#
# ## Why
# The log-variance $\ell$ reaches the loss by the state $z = \mu + e^{\ell/2}\epsilon$ [1] and by the KL $K$. With $R$ the reconstruction:
#
# $$\frac{dL}{d\ell} = \underbrace{\frac{\partial R}{\partial z}\cdot\tfrac12 e^{\ell/2}\epsilon}_{\text{cut by detach}} + \underbrace{\tfrac12\left(e^{\ell}-1\right)}_{\text{left}}$$
#
# In a trained model the two terms balance. Without the first, the second pulls every $\ell$ to 0.
# A sum with a term missing looks like any other number, so only a comparison finds it: a finite difference, or `torch.autograd.gradcheck` in float64.
#
# `detach()` returns a view of the same memory [2]. Autograd counts in-place changes and raises if a saved value was hit [3].
# `.data` hides from this count. A copy that may be edited needs `.detach().clone()`.
#
# 1. Kingma and Welling (2014), Auto-Encoding Variational Bayes, section 2.4.
# 2. PyTorch documentation, torch.Tensor.detach.
# 3. PyTorch documentation, Autograd mechanics.
#
# ## Repair
# Write how the latent state is drawn. You get the mean, the log-variance and the noise, each (cell, latent).
# Mean and log-variance must both hear the reconstruction.


# %% tags=["exercise"]
def mine(mu, logvar, noise):
    # One line is enough.
    ...


# %% [markdown]
# ## Check
# <details><summary>Hint 1</summary>
#
# The noise comes from outside and needs no gradient. Autograd knows that by itself; you need not help.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `std = torch.exp(0.5 * logvar)`. Write the sample as it stands in *Predict*, and cut nothing.
# </details>

# %%
check(bench, mine)

# %%
answer(bench)

# %% [markdown]
# ## Compare
# Every form on the same step. *Gradients alive* counts those that are finite and not zero; *harmed* are those that do not agree with float64.
# Below: what autograd says about a common shift of the log-variance, and what the loss really does.

# %%
print(compare(bench, yours=detach.FORMS["whole"]), "\n")
for form, (said, measured) in detach.slopes().items():
    print(f"{form:6} autograd {said:4.1f}   finite difference {measured:4.1f}")

# %% [markdown]
# All values agree with float64 to 7 digits: the forward pass of every form is right.
# *copy* is the only one that PyTorch itself refuses. Its backward stops, so the decoder is served and the encoder is not.
#
# ## Contract

# %%
assert spare.turn("sole").verdict == "severed"
assert spare.turn("broken").verdict == "wrong", "a gradient arrives, and it is not the true one"
assert spare.turn("broken", kl=0).verdict == "severed"
assert spare.turn("edited").verdict == "wrong"
assert spare.turn("repaired").verdict == "healthy"

# %% [markdown]
# **Carry away**
# - Count the ways from a parameter to the loss before you detach one.
# - `grad is not None` and `grad != 0` prove nothing where there are two ways. A finite difference does.
# - `detach()` shares memory. Write `.detach().clone()` for a copy that may be edited, and never `.data`.
# - For a log and for a stop-gradient that is meant, `detach` is right.
#
# **Next:** `13_item`, where a number leaves the graph altogether.
