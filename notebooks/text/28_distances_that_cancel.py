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
# # Distances that cancel
# *The same digits twice.*
#
# **Symptom:** neighbours are at distance 0 or far too far, and it changes with the origin.
#
# **You will** align two batches of real cells, move both of them away from the origin, watch the nearest neighbours become strangers, and find out when centring and float64 help and when they do not.
#
# **You need** to know that $|x - y|^2 = |x|^2 + |y|^2 - 2\,x \cdot y$.
#
# **Minutes:** 20

# %%
from labkit import Bench, Panel, answer, check, compare, predict
from labkit.draw import draw_curves, draw_graph, draw_map, draw_strip
from labkit.failures import distances_that_cancel

bench = Bench(distances_that_cancel)
bench.turn("healthy")

# %% [markdown]
# The cells are of one type, in two batches of 40, in the latent space of the trained VAE. A shift is trained to align them.
# Its loss is the mean distance from each cell to the nearest one of the other batch.
# A knob moves *all* cells by the same vector: it adds the *offset* to each of the 8 coordinates. On paper no distance changes.
#
# ## The guide says
# > 所有sqrt的参数都clamp到>=0
#
# In English: *clamp all arguments of sqrt to >= 0.*
# Its energy distance computes $\sqrt{|x|^2 + |y|^2 - 2xy}$ in float32, and that is why it needs the clamp.
#
# ## Predict
# Float32 has seven digits. The cells are about 1 apart. How large may the number be that is added to each coordinate, until the training step is wrong by more than 1 %?
#
# - **A** $10^6$: seven digits, minus one
# - **B** $10^4$
# - **C** $10^{1.5}$, which is 32

# %%
predict(bench)

# %% [markdown]
# <details><summary>Answer</summary>
#
# **C.** It is the *squares* that are subtracted: with 32 in each of 8 coordinates a cell lies at 91, the squares are near 8000, and float32 rounds them by 0.0005. In several steps, and for neighbours that are 0.5 apart, that is enough for the gradient.
# Each power of ten in the offset costs two digits.
# </details>
#
# ## Break
# 100 is added to every coordinate of every cell.

# %%
print(bench.source("expansion"))
print(bench.turn("broken"))
print("and at 1000:", bench.turn("lost"))

# %% [markdown]
# At 100 the loss is right to two digits. The *gradient* is wrong: the loss is a mean, in which errors cancel, and a gradient divides by each distance.
# At 1000 some squares are 0. The root of 0 has no slope, and every gradient is NaN: `27_distance_at_zero` again, this time for cells that do not coincide at all.
#
# ## Look

# %%
draw_graph(bench.turn("lost").report)

# %% [markdown]
# ### What to see
# In a box stands the largest value, and then *∇* if the gradient that arrives is lost.
# All values are well, from top to bottom. Below the cells there are two large numbers, near $10^7$: the squares, and the product. The `sub` makes 0 to 40 out of them.
# Then the clamp: it is healthy, it only hides what came out negative. Then the root, where the gradient is lost.
# Histogram and graph can only tell of numbers that are not finite. How wrong the finite ones are needs the truth beside it:

# %%
lines = {form: distances_that_cancel.errors(form) for form in ("expansion", "subtract")}
draw_curves(lines, "log10 of the offset", "log10 of the loss's error")

# %% [markdown]
# The expansion climbs by two digits for each power of ten, and is useless from $10^3$ on.
# *Subtract* takes the difference first and squares it afterwards. It climbs by one digit, and not by its own fault: float32 *stores* a cell at $10^6$ to 0.06.
#
# ## Turn
# Move the cells with *offset*, all of them or *half*. Choose other distances, then float64.

# %%
spare = Bench(distances_that_cancel)  # for strips and contract; the panel keeps its setting
Panel(bench)

# %% [markdown]
# `torch.cdist` fails like the guide's formula. It uses the same expansion as soon as one side has more than 25 rows. A test with 10 cells never sees it.
# Its gradient at 0 is 0, so it never says NaN. It stays *wrong*.
#
# ## Strip
# The offset, for the expansion, for the centred expansion with half of the cells moved, and for *subtract*.
# Last, a map of every distance at every offset, with half of the cells moved.

# %%
stops = (0, 1, 1.5, 2, 3, 4, 5, 6)
for distance, moved in (("expansion", "all"), ("centred", "half"), ("subtract", "all")):
    spare.turn("healthy", distance=distance, moved=moved)
    display(draw_strip(spare.sweep("offset", stops), "offset"))
spare.turn("two groups")
display(draw_map(spare.map()))

# %% [markdown]
# Row 1: *wrong* from $10^{1.5}$, NaN from $10^{3}$.
# Row 2: centring has helped nobody: the two groups are as far from their mean as from the origin.
# Row 3: well up to $10^4$. Beyond, what was stored has lost the digits, and no formula can bring them back. Centre before you store.
# The map: two rows hold further than the others, and none to the end.
#
# ## Why
# Let $u$ be the rounding unit, $6 \cdot 10^{-8}$ in float32. Each of the three terms is rounded relative to its own size:
#
# $$|x|^2 + |y|^2 - 2\,x \cdot y \;=\; |x - y|^2 + \varepsilon, \qquad |\varepsilon| \lesssim 4u\,|x|^2$$
#
# The relative error of the squared distance is therefore near $4u\,(|x| / |x - y|)^2$: two digits for each power of ten. This is *catastrophic cancellation* [1]. The subtraction itself is exact. It only uncovers what was rounded before.
#
# Subtracting first costs nothing in digits: the difference of two floats within a factor of two of each other is exact (Sterbenz [2]), and what is squared afterwards is small.
# Centring makes $|x|$ small, if one centre fits all. Float64 makes $u$ small, until $|x|$ is large again.
#
# 1. Goldberg (1991), What Every Computer Scientist Should Know About Floating-Point Arithmetic.
# 2. Higham (2002), Accuracy and Stability of Numerical Algorithms, section 2.5.
#
# ## Repair
# Write the distances of two batches: `x` (cell, latent) and `y` (other cell, latent) to (cell, other cell), in the dtype of `x`.
# They must hold for two groups of cells that are far apart, and in float64 at an offset of $10^7$.
# Two cells may lie in the same place: their distance is 0, and the gradient is finite.


# %% tags=["exercise"]
def mine(x, y):
    # One line is enough: what comes first, the square or the difference?
    ...


# %% [markdown]
# ## Check
# <details><summary>Hint 1</summary>
#
# `x[:, None] - y` has the shape (cell, other cell, latent).
# </details>
#
# <details><summary>Hint 2</summary>
#
# `torch.linalg.vector_norm(..., dim=-1)`, or `torch.cdist` with a `compute_mode` that forbids the matrix product.
# </details>

# %%
check(bench, mine)

# %%
answer(bench)

# %% [markdown]
# ## Compare
# The forms at the broken setting. Then: how many cells find their true nearest neighbour, and the energy distance of the two batches, as the guide takes it and as the lab does.

# %%
print(compare(bench, yours=distances_that_cancel.FORMS["subtract"]))
print()
for offset in (0.0, 2.0, 3.0, 4.0):
    right, zero = distances_that_cancel.neighbours("expansion", offset)
    energy = distances_that_cancel.energies(offset)
    told = "  ".join(f"{who} {value:5.2f}" for who, value in energy.items())
    print(f"10^{offset:g}: true neighbours {right:4.0%}, zeros {zero:4.0%};  energy: {told}")

# %% [markdown]
# At $10^4$ the guide's energy distance is *negative*. No distance is, and the clamp in it was no help.
# The lab's energy distance uses the matrix product too, where it may: each tile of cells is seen from its own middle, and pairs that are still too near are subtracted one by one. So it needs no memory for (cell, other cell, latent), and does not see the origin.
#
# ## Contract

# %%
assert spare.turn("healthy").verdict == "healthy"
assert spare.turn("broken").verdict == "wrong"
assert spare.turn("lost").verdict == "nan"
assert spare.turn("lost", distance="cdist").verdict == "wrong"
assert spare.turn("lost", distance="centred").verdict == "healthy"
assert spare.turn("two groups").verdict == "nan", "no centre fits two groups"
assert spare.turn("broken", distance="expansion", offset=7.0, dtype="float64").verdict == "nan"
assert spare.turn("stored").verdict == "wrong", "what was rounded is gone"
assert spare.turn("repaired").verdict == "healthy"

# %% [markdown]
# **Carry away**
# - Subtract first, square afterwards.
# - A squared distance that needs a clamp at 0 has told you that its digits are gone.
# - Move all data by a vector: what should not change, and does, has cancelled.
# - Centring helps one group. Float64 moves the edge, and brings back nothing that was stored in float32.
# - `torch.cdist` changes its method at 26 rows.
#
# **Next:** `29_chunks_that_save_nothing`: subtracting first needs memory, and chunks are said to save it.
