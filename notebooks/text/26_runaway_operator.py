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
# # Runaway operator
# *One step is no rollout.*
#
# **Symptom:** one step fits well. After many steps the states, and the gradients, are astronomical.
#
# **You will** take an operator that was learned on real cells and obeys the guide's bound to three digits, watch it run away all the same, and hold it where it can be held.
#
# **You need** to know what a matrix does to a vector. The *spectral norm* is the most that it can stretch one. The *spectral radius* is the size of its largest eigenvalue.
#
# **Minutes:** 25

# %%
from labkit import Bench, Panel, answer, check, compare, predict
from labkit.draw import draw_curves, draw_graph, draw_map, draw_strip
from labkit.failures import runaway_operator

bench = Bench(runaway_operator)
bench.turn("healthy")

# %% [markdown]
# One step moves a cell in latent space from $z$ to $A z + b$. Here it carries real monocytes to dendritic cells.
# $A = \sum_k \alpha_k B_k$ is a mixture of three basis operators. The weights $\alpha$ depend on tissue and perturbation.
#
# ## The guide says
# > spectral_penalty: 约束算子范数<1.05
#
# In English: *the spectral penalty keeps the operator's norm below 1.05.*
# And its list of ranges says: *spectral norm of the operator: [0, 1.05].*
#
# ## Predict
# The operator was trained with that penalty. You see the norms of its three basis operators in the next cell: 1.05.
# It was trained for one step. Now it takes 24. How far is the furthest cell carried?
#
# - **A** at most three times as far: $1.05^{24} = 3.2$
# - **B** about 25 times as far: 1.05 in each step, added up
# - **C** millions of times as far

# %%
predict(bench)

# %% [markdown]
# <details><summary>Answer</summary>
#
# **C.** The penalty sees the $B_k$. The cells are moved by $A$, and the weights $\alpha_k$ are free.
# Training wanted a larger $A$, so it made the weights larger.
# </details>
#
# ## Break

# %%
model = runaway_operator.learned()
largest = runaway_operator.spectral_norm
print("norm of each basis operator", [round(n, 2) for n in largest(model.basis).tolist()])
print("norm of the mixture A      ", round(largest(runaway_operator.matrix(model)).item(), 1))
print(bench.source("mixed"))
print(bench.turn("broken"))
print(bench.reading.culprit.source)

# %% [markdown]
# The guide's bound is kept, and $A$ stretches by 2.5 in one step.
# The verdict names the line of the rollout: each round multiplies the gradient by $A$ once more.
# Nothing is NaN, nothing is infinite. The loss is only a million times too large.
#
# ## Look

# %%
draw_graph(bench.reading.report)

# %% [markdown]
# ### What to see
# The rollout is one chain from top to bottom, and every round uses the same $A$.
# The number in a box is the gradient that comes back to it. It grows on the way up, by about the same factor in each round.
# The values grow as fast on the way down: the loss is a million times too large.
# Every parameter is pushed millions of times too hard, also the `offset`, which acts before the first step and knows least about the end.
#
# ## Turn
# Set *steps* to 1: all is well, at any norm. Then try the bounds one by one.
# Set *operator* to *chain* and try them again. Then *identity*, with *svd*.

# %%
spare = Bench(runaway_operator)  # for strips and contract; the panel keeps its setting
Panel(bench)

# %% [markdown]
# No bound but *norm* holds everywhere. *Each basis* fails on what was learned, *radius* fails on the chain, *svd* fails on the identity.
# In float64 the same run explodes in the same way. This is no rounding error: the guide's diagram, which blames *accumulated error of matrix products*, is wrong.
#
# ## Strip
# Each strip is *norm*. Above 24 steps without a bound; below 32 steps with the norm of $A$ bounded by 1.
# Last, a map of every bound, for the chain.

# %%
stops = (0.3, 0.6, 0.9, 1.2, 1.5, 2, 2.5, 3)
spare.turn("broken")
display(draw_strip(spare.sweep("norm", stops), "norm"))
spare.turn("broken", bound="norm", steps=32)
display(draw_strip(spare.sweep("norm", stops), "norm"))
spare.turn("broken", operator="chain")
display(draw_map(spare.map()))

# %% [markdown]
# Above: it explodes on the right. On the left it *vanishes*: 24 steps of a small $A$ leave no gradient for what came before them.
# Below: nothing explodes. The left end is as it was, since a bound does nothing below itself.
# (The red cell is a NaN that the library keeps ready for matrices that are not finite. Nobody takes it.)
# A contraction is the safe choice for the states and a bad one for learning.
# The map: no eigenvalue of the chain is above 0.9, so a bound on the eigenvalues does nothing. Up to a norm of 0.9 this chain is a multiple of the identity. There all singular values are equal, and *svd* is NaN.
#
# Now the growth alone, from 1 to 150 steps, as a power of ten.

# %%
lines = runaway_operator.growth()
draw_curves(lines, "step", "log10 of the growth")

# %% [markdown]
# *Norm 1.05*, the guide's limit, is a straight line up: $10^{3.2}$ at 150 steps, $10^{21}$ at 1000.
# *Chain* has all eigenvalues at 0.9, and norm 1.2. It grows 500-fold before it falls. Eigenvalues tell about the end, not about the way.
# *Learned, radius 1* was scaled by its eigenvalues. It never comes back below 1.
# *Learned, norm 1* only falls.
#
# ## Why
# After $n$ steps the state holds $A^n z$, and the gradient of an early state holds $(A^\top)^n$ [1, 2]. With the spectral norm,
#
# $$\|A^n\| \;\le\; \|A\|^n, \qquad \Big\|\sum_k \alpha_k B_k\Big\| \;\le\; \sum_k |\alpha_k|\, \|B_k\|$$
#
# So $\|A\| \le 1$ is enough for any horizon, and $G^{1/n}$ if $n$ steps may gain $G$.
# A bound on the $B_k$ is worth nothing while $\alpha$ is free.
# The spectral radius only tells about $n \to \infty$. Where eigenvectors are nearly parallel, the growth before that is enormous [1].
#
# A bound can be trained through, as in spectral normalisation [3]. Use the norm alone: the gradient of singular vectors divides by differences of singular values, and at the identity, where training starts, all of those are 0.
#
# 1. Trefethen and Embree (2005), Spectra and Pseudospectra, chapters 14 to 16.
# 2. Bengio, Simard and Frasconi (1994), Learning Long-Term Dependencies with Gradient Descent is Difficult.
# 3. Miyato et al. (2018), Spectral Normalization for Generative Adversarial Networks.
#
# ## Repair
# Write the mixture. It gets `alpha`, shape (condition, basis), and `basis`, shape (basis, latent, latent). It returns A, shape (condition, latent, latent).
# Where the norm of A is above 1, scale A down to 1. Elsewhere change nothing. Each condition has an A, and a norm, of its own.


# %% tags=["exercise"]
def mine(alpha, basis):
    # Three lines are enough: mix, measure, divide.
    ...


# %% [markdown]
# ## Check
# <details><summary>Hint 1</summary>
#
# `torch.einsum("ck,kij->cij", alpha, basis)` mixes. `torch.linalg.matrix_norm(A.float(), 2)` measures: it wants float32 at least.
# </details>
#
# <details><summary>Hint 2</summary>
#
# Divide by `norm.clamp(min=1)`, in the dtype of A. It needs two more axes: `[:, None, None]`.
# </details>

# %%
check(bench, mine)

# %%
answer(bench)

# %% [markdown]
# ## Compare
# The forms at the broken setting. *Radius* and *svd* look well here: the check tries the chain and the identity too.
# Below: three ways to hold the norm at 1.05 *while training* on the same cells, 100 updates each.

# %%
print(compare(bench, yours=runaway_operator.FORMS["norm"]))
print("\n" + " " * 28, "loss   largest  smallest singular value of A")
for way, (loss, values) in runaway_operator.ways().items():
    print(f"{way:28} {loss:5.2f}   {values[0]:.2f}     {values[-1]:.2f}")

# %% [markdown]
# The penalty is soft: it ends above its bound, since the data pull the other way.
# Scaling the parameters after each step keeps the bound, and it *collapses*: the scale shrinks all singular values with the largest, step after step. The smallest is nearly 0, and the loss is the worst of the three.
# In the forward pass the same scaling shrinks nothing for good: it has a gradient, and the parameters are free.
#
# ## Contract

# %%
assert spare.turn("healthy").verdict == "healthy"
assert spare.turn("broken").verdict == "exploding"
assert spare.turn("broken", dtype="float64").verdict == "exploding", "it is no rounding error"
assert spare.turn("broken", bound="each basis").verdict == "exploding", "the guide's bound"
assert spare.turn("chain", bound="radius").verdict == "exploding"
assert spare.turn("healthy", operator="identity", bound="svd").verdict == "nan"
assert spare.turn("contracting").verdict == "vanishing"
assert spare.turn("repaired").verdict == "healthy"

# %% [markdown]
# **Carry away**
# - Bound what is multiplied with itself. Bounded parts do not make a bounded whole.
# - The norm must be at most 1 for any horizon. 1.05 is a doubling every 14 steps.
# - Eigenvalues below 1 promise the end, not the way.
# - A penalty is a wish. A bound in the forward pass is a fact.
# - Far below 1 nothing explodes, and nothing early is learned.
#
# **Next:** `27_distance_at_zero`, about the distance in this operator's loss.
