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
# # item
# *A number has no past.*
#
# **Symptom:** `backward` runs, the loss is right, and half of the parameters have no gradient.
#
# **You will** turn one term of a real loss into a number, see which parameters it leaves behind, and sort ten ways out of the graph.
#
# **You need** to know what `backward()` does. `00_start_here` shows the model.
#
# **Minutes:** 15

# %%
from labkit import Bench, Panel, answer, check, compare, predict
from labkit.draw import draw_curves, draw_gradients, draw_graph, draw_strip
from labkit.failures import item

bench = Bench(item)
bench.turn("healthy")

# %% [markdown]
# ## The guide says
# > combined_loss = loss_value + regularization  # 无法反向传播
#
# In English: *`combined_loss = loss_value + regularization` cannot be back-propagated*, if `loss_value` came from `loss.item()`.
# Its rule: call `.item()` for the log only, and keep tensors in the computation.
#
# ## Predict
# The loss of a VAE is reconstruction plus KL.
# The reconstruction needs encoder and decoder, the KL needs the encoder only.
# You write `total = reconstruction.item() + kl` and call `total.backward()`. What happens?
#
# - **A** an error: there is nothing to differentiate
# - **B** no error, and no parameter has a gradient
# - **C** no error, the decoder has no gradient, the encoder has a wrong one
# - **D** no error, and all gradients are right

# %%
predict(bench)

# %% [markdown]
# <details><summary>Answer</summary>
#
# **C.** The sum is a tensor, since the KL is one, and it has the KL's graph.
# So backward runs. It reaches the encoder by the KL, and the decoder not at all.
# </details>
#
# ## Break

# %%
print(bench.source("item"), bench.turn("broken"), sep="\n")
print("\n" + bench.source("list"), bench.turn("all"), sep="\n")

# %% [markdown]
# The first form is the guide's. It raises no error: what was added to the number still has a graph.
# The verdict is *severed*, and all 12 parameters are harmed: six get nothing, six get the KL's gradient alone.
#
# The second form makes a new tensor of two numbers. PyTorch would refuse it with an error.
# `requires_grad=True` silences the error, and nothing at all is trained.
#
# ## Look
# The guide's form as a graph. Data enters above, the loss is below.

# %%
bench.turn("broken")
draw_graph(bench.reading.report)

# %% [markdown]
# ### What to see
# The branch with the decoder ends without a gradient. Each of its boxes says *none*.
# The loss below it stands alone with the KL. Now the parameters:

# %%
draw_gradients(bench.reading.report)

# %% [markdown]
# ### What to see
# Six rows of the decoder have no histogram. This is the case in which a look at the gradients is enough.
# The six rows of the encoder look well and are marked as wrong: they pull every cell to the same place.
#
# ## Turn
# Try each way to add, and change the weight of the KL.

# %%
spare = Bench(item)  # for strips and contract; the panel keeps its setting
Panel(bench)

# %% [markdown]
# *numpy* and *data* do the same as *item*, by another name. *list* loses both terms.
# The value of the loss is right in all of them, so a curve of the loss shows nothing on the first step.
#
# ## Strip
# Every way to add, at the same setting.

# %%
spare.turn("broken")
display(draw_strip(spare.sweep("total"), "total"))
draw_curves(item.courses(), "step", "reconstruction, nats per cell")

# %% [markdown]
# ### What to see
# The curves go on from the trained model. With tensors the reconstruction of the 64 cells gets better.
# With `.item()` it is lost within six steps. The encoder is pulled to the prior, and the decoder cannot follow.
#
# ## Why
# A tensor carries a value and a `grad_fn`, the operation that made it. A Python number carries a value [1].
# With $R$ the reconstruction, $K$ the KL and $\theta$ the parameters,
#
# $$\frac{\partial}{\partial\theta}\left(\texttt{R.item()} + K\right) = \frac{\partial K}{\partial\theta}$$
#
# since a number is a constant [2]. If every term is a number, there is no graph, and backward says so.
#
# Other ways out of the graph are quieter still. A comparison or an `argmax` gives whole numbers, which have no gradient.
# `round` has one, and it is zero everywhere [3].
#
# 1. PyTorch documentation, torch.Tensor.item.
# 2. PyTorch documentation, Autograd mechanics.
# 3. Bengio, Léonard and Courville (2013), Estimating or Propagating Gradients Through Stochastic Neurons.
#
# ## Repair
# Write the total of two scalar tensors, the reconstruction and the weighted KL.
# Both must teach.


# %% tags=["exercise"]
def mine(reconstruction, kl):
    # One line is enough.
    ...


# %% [markdown]
# ## Check
# <details><summary>Hint 1</summary>
#
# What do you need a number for? Only for the log, and that can wait until the total is done.
# </details>
#
# <details><summary>Hint 2</summary>
#
# Tensors add as they are. No conversion is needed.
# </details>

# %%
check(bench, mine)

# %%
answer(bench)

# %% [markdown]
# ## Compare
# Every form on the same step. Then ten ways on from a tensor `t`: which of them lets a gradient back?
# Last the mirror image of the mistake. Ten steps are logged in a list: how much saved memory does it keep alive?

# %%
print(compare(bench, yours=item.FORMS["tensors"]), "\n")
for way, fate in item.exits().items():
    print(f"{way:26} {fate}")
print()
for what, kept in item.megabytes_logged().items():
    print(f"MB kept by a log of {what}, 10 steps: {kept}")

# %% [markdown]
# The severed forms are cheaper, since half of the backward pass is gone. A step that suddenly runs faster is a symptom.
#
# Read the middle as a list of exits. Where it says *no graph*, nothing that lies in front learns by this way.
# `torch.as_tensor` keeps the tensor and its graph. `torch.tensor` copies the values alone.
#
# A log that keeps the loss itself keeps the graph of every step. Keep `loss.item()` or `loss.detach()` instead: for the log the guide is right.
#
# ## Contract

# %%
assert spare.turn("broken").verdict == "severed"
assert not spare.reading.report.error, "the guide says that it cannot be back-propagated"
assert spare.turn("all").verdict == "severed"
assert spare.turn("repaired").verdict == "healthy"
assert item.exits()["t.round()"] == "zero"

# %% [markdown]
# **Carry away**
# - Add tensors. Take the number for the log from the finished loss.
# - A sum with one living term hides the dead ones: backward raises no error.
# - After the first backward, ask which parameters have `grad is None`.
# - `requires_grad=True` on a new tensor connects it with nothing.
#
# **Next:** `22_exploding_logvar`, where the graph is whole and the numbers are not.
