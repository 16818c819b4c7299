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
# # no_grad
# *The door that shuts behind you.*
#
# **Symptom:** every gradient is alive, and the reconstruction gets no better.
#
# **You will** freeze one half of a real VAE, cut the other half off by doing so, and freeze it again without harm.
#
# **You need** to know what `backward()` and an optimizer do. `00_start_here` shows the model.
#
# **Minutes:** 20

# %%
from labkit import Bench, Panel, answer, check, compare, predict
from labkit.draw import draw_curves, draw_graph, draw_strip
from labkit.failures import no_grad

bench = Bench(no_grad)
bench.turn("healthy")

# %% [markdown]
# ## The guide says
# > embed_model不在优化器中 → 正确使用no_grad
#
# In English: *embed_model is not in the optimizer, so it is right to use no_grad.*
#
# Its example of the mistake is an encoder that should learn and runs in a `no_grad` block.
# Then, it says, the loss cannot be back-propagated to the encoder.
#
# ## Predict
# A VAE has two halves. The encoder comes first, the decoder second.
# The loss is the reconstruction, which needs both, plus the KL, which needs the encoder only.
# The decoder is pretrained and not in the optimizer. Following the guide's rule, it runs in `no_grad`.
# The encoder shall learn. What do you get?
#
# - **A** an error in `backward()`
# - **B** no gradient for the encoder, and no error
# - **C** a gradient for every parameter of the encoder, and all of them wrong
# - **D** what you want

# %%
predict(bench)

# %% [markdown]
# <details><summary>Answer</summary>
#
# **C.** The reconstruction is cut off, the KL is not.
# So the encoder learns from the KL alone: it learns to say the same for every cell.
# Without the KL it would be **A**, and you would notice.
# </details>
#
# ## Break
# First the guide's own mistake, with both halves in the optimizer. Then its rule, with the encoder in the optimizer.

# %%
print(bench.source("needless"), bench.turn("needless"), sep="\n")
print("\n" + bench.source("no_grad"), bench.turn("broken"), sep="\n")

# %% [markdown]
# The guide's mistake raises no error. The decoder behind the block has a graph, so `backward()` runs.
# It is silent and *severed*: six parameters never get a gradient, and the other six learn around them.
#
# The guide's rule is worse. All six gradients of the encoder are alive, and each of them is *wrong*.
# The frozen half lies between the encoder and the reconstruction, and `no_grad` shuts that way.
#
# ## Look
# The step that follows the guide's rule, as a graph. Data enters above, the loss is below.

# %%
draw_graph(bench.reading.report)

# %% [markdown]
# ### What to see
# There are two ways from the encoder to the loss: `kl_per_latent`, and the decoder.
# The scissors in the decoder show where the second one ends.
# The boxes are green all the same: whatever learns still has a way.
# A histogram of these gradients shows six ordinary hills, so it is left out.
# What the encoder learns tells more. Below, a new encoder learns in front of the trained decoder, twice.

# %%
draw_curves(no_grad.courses(), "step", "reconstruction, nats per cell")

# %% [markdown]
# ### What to see
# With the way open, the reconstruction falls by almost 190 nats in 60 steps.
# With `no_grad` around the decoder it stays where it began.
# That encoder has learned one thing: its KL went from 0.13 to 0.002, since it says the same for every cell.
#
# ## Turn
# Choose what *learns* and how each half is run. Then take the KL away.

# %%
spare = Bench(no_grad)  # for strips and contract; the panel keeps its setting
bench.turn("broken")
Panel(bench)

# %% [markdown]
# At *kl* 0 the same mistake is loud: nothing leads from the loss to the encoder, and the badge says *severed*.
# An auxiliary term that is still alive is what makes a cut silent: a KL, a weight penalty, a second head.
#
# ## Strip
# Three things that can learn. Above the guide's rule, below the same with frozen weights and an open way.

# %%
spare.turn("guide")
display(draw_strip(spare.sweep("learns"), "learns"))
spare.turn("healthy")
display(draw_strip(spare.sweep("learns"), "learns"))
print(spare.turn("drifting"))

# %% [markdown]
# ### What to see
# If the decoder learns, the frozen encoder comes first, and the rule is right: nothing that learns lies above the block.
# If the encoder learns, the rule cuts. The lower strip holds in all three.
#
# The last line is a second surprise. Here the rule is right about gradients, but the frozen encoder ends in a BatchNorm.
# Under `no_grad` it still counts its running statistics, and uses those of the batch. The frozen half has changed.
#
# ## Why
# With $z$ what the encoder says, $d$ the decoder, $R$ the reconstruction and $K$ the KL:
#
# $$\frac{\partial L}{\partial z} = \frac{\partial R}{\partial d}\,\frac{\partial d}{\partial z} + \frac{\partial K}{\partial z}$$
#
# The gradient passes *through* the decoder, by $\partial d / \partial z$. It does not matter whether the decoder's weights learn.
# `no_grad` records no operation [1], so the first term is gone.
# `requires_grad_(False)` takes the weights out of the graph and leaves the operations in.
#
# Neither stops what a module does in training mode. BatchNorm keeps averaging [2, 3], and Dropout keeps dropping.
# That is what `eval()` is for.
#
# 1. PyTorch documentation, Autograd mechanics.
# 2. PyTorch documentation, torch.nn.BatchNorm1d.
# 3. Ioffe and Szegedy (2015), Batch Normalization.
#
# ## Repair
# Write how a half is run. You get its input, the half (a module of one tensor), and whether it learns.
# A half that does not learn must not change in any way, and the gradient must pass through it.


# %% tags=["exercise"]
def mine(x, half, learns):
    # One or two lines are enough; a block is not needed.
    ...


# %% [markdown]
# ## Check
# <details><summary>Hint 1</summary>
#
# Two switches of a module: one for its weights, one for its mode. Both take `learns`.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `half.requires_grad_(learns)` and `half.train(learns)`. Then call it, without a block.
# </details>

# %%
check(bench, mine)

# %%
answer(bench)

# %% [markdown]
# ## Compare
# Every form where the encoder learns and the decoder is frozen. *Excused* are the frozen parameters: nobody expects a gradient there.
# Below the table: what goes on under `no_grad`, by mode, in 20 passes of the real latent states:
# the length of a BatchNorm's running mean, and the share of entries that Dropout sets to zero.

# %%
print(compare(bench, yours=no_grad.FORMS["frozen"]), "\n")
for mode, (mean, dropped) in no_grad.live_parts().items():
    print(f"{mode:8} running mean of length {mean:g}, {dropped:.0%} of the entries dropped")

# %% [markdown]
# *plain* does nothing about freezing. Its gradients are right, but those of the decoder are computed for nobody.
# It costs more operations, and the bench calls a parameter with a gradient that no optimizer holds *frozen*.
# *weights* and *frozen* differ only where a module behaves differently in training. With BatchNorm only *frozen* holds.
#
# ## Contract

# %%
assert spare.turn("guide").verdict == "healthy", "a frozen half in front: the rule is right"
assert spare.turn("broken").verdict == "wrong", "a frozen half behind: it is not"
assert spare.turn("broken", kl=0).verdict == "severed"
assert spare.turn("needless").verdict == "severed"
assert spare.turn("drifting").verdict == "wrong"
assert spare.turn("repaired", norm="on").verdict == "healthy"

# %% [markdown]
# **Carry away**
# - Ask of each frozen part: does anything that learns lie in front of it? If so, no block.
# - Freeze with two switches: `requires_grad_(False)` and `eval()`. Add `no_grad` only where nothing in front learns.
# - A cut beside a living path raises no error. Compare one gradient with the slope of the loss.
# - After the first `backward()`, look for `grad is None` among all parameters that the optimizer holds.
#
# **Next:** `12_detach`, the same cut by a single word.
