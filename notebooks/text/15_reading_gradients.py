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
# # Reading gradients
# *The norm that says nothing.*
#
# **Symptom:** loss and gradient norm look well, and one part of the model never learns.
#
# **You will** look at one broken step with every instrument that people use, see what each of them cannot see, and repair the step.
#
# **You need** to know what `.grad` is. `12_detach` and `14_bad_initialisation` give you things to look for.
#
# **Minutes:** 25

# %%
import torch

from labkit import Bench, Panel, answer, check, trace
from labkit.claims.gradient_tools import told
from labkit.draw import draw_gradients, draw_graph, torchviz_graph, visualize_gradients
from labkit.failures import reading_gradients as reading

# %% [markdown]
# ## Question
# The trained VAE gets a gate in front of each of its 765 genes. A gate is 0 or 1: the encoder reads this gene, or it does not.
# Which gates are open is to be learnt: there is a trained score for each gene, and a gate is open if its score is positive.
# Someone wrote `gate = torch.sigmoid(score).round()`, and multiplied the counts by it.
#
# The scores never learn anything. Who will tell you?
#
# - **A** the loss
# - **B** the total gradient norm, which every training loop logs
# - **C** the graph that torchviz draws
# - **D** none of these three
#
# <details><summary>Answer</summary>
#
# **D.** The rest of the model learns, and it carries loss and norm alone.
# torchviz draws the way from the scores to the loss, complete. It cannot draw that a slope on this way is zero.
# </details>
#
# ## Instrument
# Begin with the two numbers that every loop prints, for a good gate and for two bad ones.
# *Round* is the one above. *Compare* is `(score > 0).float()`. You will write the good one.

# %%
for form in ("straight-through", "round", "compare"):
    model, loss = reading.step(form)
    loss.backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(grads)
    none = "None" if model.score.grad is None else f"{int(model.score.grad.count_nonzero())} alive"
    about = f"loss {round(loss.item(), -1):.0f}, total norm {round(norm.item(), -1):.0f}"
    print(f"{form:17} {about}, score.grad: {none}")

# %% [markdown]
# One loss, one norm. A total norm is the root of a sum of squares: a large layer drowns a small one, dead or alive.
#
# The last column is where they differ, and the two bad ones differ from each other.
# **`None`** means that no graph leads to this parameter. **Zero** means that a graph leads there, and its slope is zero.
# The first has a cut to be found. The second has a flat place to be found. Never write one test for both.
#
# So ask each parameter by itself. This is what the lab's benches do, and what `labkit.trace` does for any model.
#
# ## What it sees

# %%
bench = Bench(reading)
print(bench.turn("severed"))
print(bench.turn("broken"))
draw_gradients(bench.reading.report)

# %% [markdown]
# ### What to see
# The worst row stands on top: `score`, and all of its entries are in the column *zero*. The other twelve rows are hills.
# The readings say 744 gates and not 765: the other 21 genes have no count in these 64 cells, so no gate of theirs could hear anything.
# The columns for NaN, infinities and zero are there even when they are empty. A histogram without them cannot show what is missing.
#
# A histogram says *that* a gradient is lost. The graph says *where*.
# Here is the other fault, *compare*. Then the bench: change the gate and watch both pictures. *spared* leaves some genes a good gate; *scale* multiplies the loss.

# %%
display(draw_graph(bench.turn("severed").report))
Panel(bench)

# %% [markdown]
# Look for the cut: from the gates upwards nothing is coloured, since no gradient ever goes there.
#
# ## What it misses
# Now the blind spots, one instrument at a time.
#
# **torchviz.** The same program twice, as torchviz draws it: from the latent means back to the parameters.

# %%
torchviz_graph.draw_torchviz(compare=reading.encoded("compare"), round=reading.encoded("round"))

# %% [markdown]
# Left: the branch with the cut is *not there*. No box, no mark, no gap. You find it only if you know that `score` should be somewhere.
# Right: the branch is there, whole, with its flat `RoundBackward0`. It looks as healthy as its neighbours.
# torchviz shows which leaves are connected. It knows nothing of values.
#
# **The guide's `check_gradient_flow`.** It looks at each parameter, which is right, and then asks three questions:
# is it None, does it hold a NaN, is its largest entry below 1e-8? `told` is these three questions. Here they are, on five gradients.


# %%
def seen(case, *options):
    model, loss = reading.step(*options)
    loss.backward()
    print(f"{case:32} {told(model.score.grad)}")


seen("all 765 gates deaf, zero", "round"), seen("all 765 gates deaf, None", "compare")
seen("764 of 765 gates deaf", "round", 1)
seen("all well, loss scaled by 1e-12", "straight-through", 0, -12.0)
print(f"{'an infinite gradient':32} {told(torch.tensor([torch.inf, 1.0]))}")

# %% [markdown]
# The first two are found. The last three are all wrong: one living gate hides 764, a good model is suspect, and Inf is normal.
# The lab's tool of the same name compares with the other parameters, counts the zeros, and asks for *finite*, not for *no NaN*:

# %%
from labkit.guide import check_gradient_flow, trace_gradient_path

model, loss = reading.step("round", 1)
loss.backward()
model.vae.requires_grad_(False)  # to keep the list short
check_gradient_flow(model)

# %% [markdown]
# **The guide's `trace_gradient_path`** reads `.grad` of tensors on the way. Only leaves keep one:

# %%
torch.manual_seed(0)
z0, layer = torch.randn(10, 32, requires_grad=True), torch.nn.Linear(32, 32)
z1 = layer(z0)
loss = z1.square().mean()
print("z1 keeps a gradient:", z1.is_leaf or z1.retains_grad)
trace_gradient_path(loss, z0=z0, z1=z1)
loss.backward(retain_graph=True)  # the guide's tool does this, and then your loop does it again
once = layer.weight.grad.norm().item()
loss.backward()
print("and now the gradient is", layer.weight.grad.norm().item() / once, "times as long")

# %% [markdown]
# So the original calls a healthy path cut, and doubles every gradient of the step that it looks at.
# `torch.autograd.grad` asks without writing, and works for every tensor on the way.
#
# **Histograms.** matplotlib leaves out what has no place on the axis, without a word. So does the guide's `visualize_gradients`.

# %%
import matplotlib.pyplot as plt

model, loss = reading.step("straight-through")
loss.backward()
model.score.grad[:5] = torch.nan
counts = plt.Figure().subplots().hist(model.score.grad.numpy(), bins=50)[0]
print(int(counts.sum()), "of", model.score.numel(), "entries are drawn")
visualize_gradients(model)

# %% [markdown]
# Above the picture: five entries are gone. In the picture, the lab's own: a column says NaN, 5.
#
# **`gradcheck`** compares a gradient with a finite difference. A flat place passes: the slope is zero, and it is right.
# And **all of the above** look at gradients. A parameter that no optimizer holds has a perfect one.

# %%
score = torch.randn(20, dtype=torch.float64, requires_grad=True)
print("gradcheck of the rounded gate:", torch.autograd.gradcheck(reading.FORMS["round"], score))
model, _ = reading.step("straight-through")
forgotten = torch.optim.Adam(model.vae.parameters())
print(trace(lambda: reading.loss(model, reading.cells()), model, forgotten))

# %% [markdown]
# Tell the tracer, or `check_gradient_flow`, of your optimizer, and it looks at what was *applied* as well.
# What none of these sees: a gradient that is alive and wrong, since one of two ways is cut. A finite difference sees that one. `12_detach` shows how.
#
# ## Try it on yours
# Before you turn to your own model, repair this one. Write a gate: it gets `score`, shape (gene,), and returns the same shape.
# Its value is 1 where the score is positive and 0 elsewhere. Its gradient is the gradient of `torch.sigmoid(score)`.
#
# <details><summary>Hint 1</summary>
#
# A comparison gives the value. Its graph is cut, and this time that is what you want.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `t - t.detach()` has the value zero and the gradient of `t`. Add it to a value that has no gradient.
# </details>


# %% tags=["exercise"]
def mine(score):
    # Two lines are enough: the soft gate, and the step with the soft gate's gradient.
    ...


# %%
check(bench, mine)

# %%
answer(bench)

# %% [markdown]
# On your own model, after one backward on a real batch:
#
# ```python
# from labkit.guide import check_gradient_flow
# check_gradient_flow(model, optimizer, loss=lambda: loss_of(model, batch), slope=0.1)
# ```
#
# One line for each parameter: is there a gradient, is it finite, is it alive in most units, is it fresh, does the optimizer apply it, and does it agree with a finite difference?
#
# ## Contract

# %%
spare = Bench(reading)  # the panel above keeps its setting
assert spare.turn("broken").verdict == "dead"
assert spare.turn("severed").verdict == "severed"
assert spare.turn("spared").verdict == "dead", "one living gate of 765"
assert spare.turn("scaled").verdict == "healthy", "no size is small by itself"
assert spare.turn("repaired").verdict == "healthy"
assert not check(bench, reading.FORMS["soft"]), "a soft gate is another model"

# %% [markdown]
# **Carry away**
# - One number for a whole model hides every single layer. Ask parameter by parameter.
# - `None` is a cut, zero is a flat place, NaN is neither. Three questions, three repairs.
# - "Small" has no meaning without "compared with what". Compare with the other parameters.
# - A picture of the graph shows ways, not values. A histogram shows values, and only those that it has a place for.
# - What counts in the end is whether the optimizer moved the parameter.
#
# **Next:** Part II, where NaN and Inf are born: `20_risky_operations`.
