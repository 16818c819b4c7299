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
# # Distance at zero
# *Everyone is a neighbour of himself.*
#
# **Symptom:** the loss is finite and plausible, and after one step every parameter is NaN.
#
# **You will** train an operator that carries real cells to other cells, lose it in one step without a single bad value in the forward pass, and repair a square root.
#
# **You need** the chain rule, and to know that $\sqrt{x}$ has the slope $1 / (2\sqrt{x})$.
#
# **Minutes:** 20

# %%
from labkit import Bench, Panel, answer, check, compare, predict
from labkit.draw import draw_graph, draw_map, draw_strip
from labkit.failures import distance_at_zero

bench = Bench(distance_at_zero)
bench.turn("healthy")

# %% [markdown]
# The model is one matrix and one shift. It carries blood cells of one type to those of another, in the latent space of the trained VAE.
# Its loss is the energy distance of the two clouds $X$ and $Y$ [1]: twice the mean distance between them, minus the mean distance within each.
#
# ## The guide says
# > sqrt(x) | x < 0 | clamp x到>=0
#
# In English: *sqrt gives NaN where x < 0. Clamp x to >= 0.*
# And later, as an item of its checklist: *all arguments of sqrt clamped to >= 0.*
#
# ## Predict
# So far each cell was compared with every *other* cell. Now a cell is also compared with itself, as in the textbook formula.
# A squared distance is never negative, so `sqrt` is safe. One training step. What comes out?
#
# - **A** nothing changes: a distance of 0 adds 0
# - **B** the loss is NaN
# - **C** the loss is finite, and some gradients are NaN
# - **D** the loss is finite, and every gradient is NaN

# %%
predict(bench)

# %% [markdown]
# <details><summary>Answer</summary>
#
# **D.** The value of the root at 0 is 0, and correct. Its slope there is infinite.
# The chain rule multiplies that slope by the slope of the square, which is 0. Zero times infinity is NaN.
# It is one of 24 terms that should add nothing, and it is added to everything.
# </details>
#
# ## Break
# One word is turned: *pairs*, from *others* to *all*.

# %%
print(bench.source("root"))
print(bench.turn("broken"))
print("loss", round(bench.reading.value, 4), " truth", round(bench.reading.reference, 4))

# %% [markdown]
# The loss is right to every digit shown. The verdict is NaN.
# The culprit is `SqrtBackward0`: it was born in the backward pass, in a line that computed a good value.
# A check such as `isnan(loss)` passes. The next step of the optimizer writes NaN into all parameters.
#
# ## Look

# %%
draw_graph(bench.reading.report)

# %% [markdown]
# ### What to see
# The upper half of a box is the value: all are well, down to the loss.
# The lower half is the gradient that arrives. Behind the outlined root, `sum` and `pow` get an infinite one.
# The slope of the square is 0 there, so what `pow` hands on is NaN. It goes up to the matrix and the shift.
# Only 24 of 576 pairs are to blame, and none of them was needed.
#
# ## Turn
# Set *pairs* back to *others*, and let one cell of the target come near one of the moved cells: drag *gap* to the left.
# Then choose other lengths. Then change the unit of the space with *scale*.

# %%
spare = Bench(distance_at_zero)  # for strips and contract; the panel keeps its setting
Panel(bench)

# %% [markdown]
# Two cells that are different on paper can be equal in float32. So the diagonal is not the only place.
#
# ## Strip
# Each strip is one knob. First *gap*, with no cell compared to itself.
# Then *scale* for the form with a constant, and a map of that form: which constant goes with which scale?

# %%
spare.turn("healthy")
display(draw_strip(spare.sweep("gap", (0, -2, -4, -6, -7, -7.5, -8, -12)), "gap"))
spare.turn("broken", length="eps")
display(draw_strip(spare.sweep("scale", (4, 2, 0, -1, -2, -3, -4, -6)), "scale"))
display(draw_map(spare.map()))

# %% [markdown]
# First: at a distance of $10^{-7.5}$ the two cells differ in the last bit, and all is well. The slope of the root is huge, the difference is tiny, and their product is at most 1.
# At $10^{-8}$ float32 stores the same numbers for both. One pair of 576 is enough.
#
# Second: a constant inside the root, $\sqrt{d^2 + 10^{-8}}$, with all pairs. Nothing is NaN.
# But each distance is now too large, and $10^{-8}$ has a unit: that of the latent space, squared.
# Where the cells are $10^{-2}$ apart and less, the loss is wrong, and no alarm rings. In the table below it is right, since here they are about 1 apart.
#
# The map has a staircase in its upper left: a constant that is $10^6$ times smaller is true for cells that are a thousand times closer.
# Its lowest row is NaN from end to end. There float32 stores the constant as 0, and the root is bare again.
# In the panel choose *vector_norm* or *double where*: no constant, and every cell of the map is green.
#
# ## Why
# For a pair with the difference $\delta$ the program takes $d = \sqrt{s}$ with $s = \delta \cdot \delta$. Its chain rule is
#
# $$\frac{\partial d}{\partial \delta} = \frac{1}{2\sqrt{s}} \cdot 2\,\delta \;=\; \frac{\delta}{|\delta|}, \qquad \text{at } \delta = 0:\quad \infty \cdot 0 = \mathrm{NaN}$$
#
# On paper the two factors cancel, and the result has the length 1. The program multiplies them.
#
# At 0 a distance has no slope, but every vector of length at most 1 is a *subgradient* [2], and 0 is a good choice.
# `torch.linalg.vector_norm` and `torch.cdist` make it.
# Your own root must be kept away from the 0: put something else in its place *before* the root, and the 0 back *after* it.
# A mask after the root alone hides the value and not the gradient: $0 \cdot \infty$ is computed all the same.
#
# 1. Székely and Rizzo (2013), Energy statistics, J. Stat. Plan. Inference 143, 1249.
# 2. Rockafellar (1970), Convex Analysis, section 23.
#
# ## Repair
# Write a length. It gets `gap`, shape (pair, latent), the difference of two cells in each row. It returns the lengths, shape (pair,).
# A row of zeros shall have the length 0 and the gradient 0. Use `sqrt`, and no norm from torch.


# %% tags=["exercise"]
def mine(gap):
    # Three lines are enough: the squared lengths, where they are 0, and two calls of torch.where.
    ...


# %% [markdown]
# ## Check
# <details><summary>Hint 1</summary>
#
# `torch.where(zero, 1.0, square)` gives the root a 1 wherever it would have met a 0. The gradient does not pass through the branch that was not chosen.
# </details>
#
# <details><summary>Hint 2</summary>
#
# A second `torch.where(zero, 0.0, ...)` around the root puts the 0 back. Both are needed: the first saves the gradient, the second the value.
# </details>

# %%
check(bench, mine)

# %%
answer(bench)

# %% [markdown]
# ## Compare
# Every form at the broken setting, then the loss in training, with nothing to stop a bad step.

# %%
print(compare(bench, yours=distance_at_zero.FORMS["double where"]))
print()
for form, losses in distance_at_zero.descents().items():
    print(
        f"{form:12}  first step {losses[0]:6.2f}   second {losses[1]:6.2f}   last {losses[-1]:6.2f}"
    )

# %% [markdown]
# *Root* and the guide's *clamp* have a good first loss and no second.
#
# Look at *where* in the list: its loss stays finite, and it is *negative*, which an energy distance over all pairs never is.
# All parameters are NaN. `NaN > 0` is false, so the mask takes every NaN for a zero distance and hides it in the loss as well.
# A loss that was never NaN is no proof.
#
# Three whole distances that people use:

# %%
for name, reading in distance_at_zero.in_use().items():
    print(f"{name:36} {reading.verdict}")

# %% [markdown]
# The guide's whole form computes $|x|^2 + |y|^2 - 2xy$ and clamps: rounding makes some squares negative, some 0 and some positive.
# `torch.cdist` is safe, but has no second derivative. `labkit.models.energy` is safe, and holds no distances in memory.
#
# ## Contract

# %%
assert spare.turn("healthy").verdict == "healthy"
assert spare.turn("broken").verdict == spare.turn("broken", length="clamp").verdict == "nan"
assert spare.turn("broken", length="where").verdict == "nan", "a mask after the root is too late"
assert spare.turn("twins").verdict == "nan", "two equal cells are enough"
assert spare.turn("broken", length="eps", scale=-4.0).verdict == "wrong"
assert spare.turn("broken", length="vector_norm", scale=-4.0).verdict == "healthy"
assert spare.turn("repaired").verdict == "healthy"

# %% [markdown]
# **Carry away**
# - Safe in value is not safe in slope. Ask of every function what its derivative does at the edge of its domain.
# - Repair the input of the dangerous operation, not its output.
# - A constant inside a root has a unit. State it, or do without.
# - A step is bad when a *gradient* is not finite. A finite loss says nothing about that.
#
# **Next:** the failure `masked_but_not_safe` takes the same trap through other functions.
