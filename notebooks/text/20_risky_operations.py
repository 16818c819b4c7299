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
# # Risky operations
# *Every number has an edge.*
#
# **Symptom:** all inputs are finite, the formula is right, and the result is Inf, NaN or without slope.
#
# **You will** turn one number through nineteen operations in four dtypes, read off the exact float at which the value breaks and the other one at which the gradient does, and write a length that never breaks.
#
# **You need** to know what a float is: some digits, and an exponent that has an end.
#
# **Minutes:** 25

# %%
from labkit import Bench, Panel, answer, check, compare, predict
from labkit.draw import draw_curves, draw_map, draw_strip
from labkit.failures import risky_operations

bench = Bench(risky_operations)
bench.turn("healthy")

# %% [markdown]
# ## The guide says
# > NaN/Inf产生点完全图谱
#
# In English: *the complete atlas of the places where NaN and Inf are born.*
# It is a table with seven operations. For each it says when NaN comes, when Inf comes, and which guard helps.
# It names no dtype, and no gradient.
#
# ## Predict
# The vector (1.8e20, 2.4e20) has the length 3e20. The largest float32 is 3.4e38.
# What does `sqrt(x*x + y*y)` give in float32?
#
# - **A** 3e20
# - **B** a length that is a little wrong
# - **C** Inf, and a gradient that is not finite either
# - **D** Inf, and a gradient of exactly 0

# %%
predict(bench)

# %% [markdown]
# <details><summary>Answer</summary>
#
# **D.** The square of 2.4e20 is 5.8e40. That is beyond the largest float32, though the length itself would fit easily.
# On the way back the root sends $1 / (2\sqrt\infty) = 0$.
# </details>
#
# ## Break

# %%
print(bench.source("none"))
print(bench.turn("broken"))
print("truth", f"{bench.reading.reference:.3g}")
print("guide:", bench.turn("broken", guard="guide"))

# %% [markdown]
# Both inputs are finite and so is the result on paper. What is born in between is not.
# The guide has a row for `sqrt`, and its guard keeps what goes into the root at or above 0. It was never below.
#
# ## Look
# Now the guide's atlas beside what is measured, for four of its rows in float32.
# Each edge is found by bisection: the float before it, and the float behind it, are neighbours.
# *Guarded* is what is left behind the guide's own guard.

# %%
for op in ("exp", "log", "division", "lgamma"):
    print(risky_operations.beside(op))
for dtype in risky_operations.DTYPES:
    last = risky_operations.risks("exp", dtype)[-1]
    print(f"{dtype:9} exp is Inf from {last.low:.17g}")

# %% [markdown]
# ### What to see
# - `exp`: the edge is 88.7228394, not 88. Below -103.97 value and gradient are 0, of which the guide says nothing. Its clamp stops the overflow, and outside [-10, 10] the gradient is gone.
# - `log`: at 0 it is -Inf, not NaN. For the smallest numbers above 0 the value is finite and the gradient infinite. With eps there is still NaN below -1e-8, and -Inf at -1e-8.
# - `division`: 1/0 is Inf, not NaN. Between 2.9e-39 and 5.4e-20 the value is finite and the *gradient* is not. With eps there is a new pole at -1e-8.
# - `lgamma`: at -1 it is Inf, and between the poles it is finite: -0.5 gives 1.27. It is Inf above 4e36 too, and the guard does nothing there.
#
# - The other dtypes move every edge. In float16 the constant 1e-8 is 0: no guard is left.
#
# And a picture of one edge that comes early: 1/x, from $10^{-40}$ to $10^{5}$.

# %%
xs = [10.0 ** (k - 40) for k in range(46)]
draw_curves(risky_operations.profile("division", xs), "k, for x = 10^(k - 40)", "log10 of the size")

# %% [markdown]
# Read it from right to left: x shrinks. The gradient is $-1/x^2$, so its line is twice as steep.
# It ends at $10^{-19}$, where the value has half of its way before it. From there on, a check of the loss finds nothing.
#
# ## Turn
# Choose *op*. The argument is *x* times ten to the *power*. *Guard* `guide` puts the guide's guard in front; the others are ways to take a length.
# Try `exp` at 88.5 and 89, `acos` at 1, `x log x` at 0, `tanh` at 12, `division` at a power of -20.

# %%
spare = Bench(risky_operations)  # for strips and contract; the panel keeps its setting
Panel(bench)

# %% [markdown]
# `acos` at 1 and `x log x` at 0 have a good value and no finite gradient. Real data reach both points: a cell compared with itself, a gene that is not expressed.
# `tanh` and `sigmoid` never overflow. They are *dead* where the true slope is below the spacing of the floats near 1.
#
# ## Strip
# First `exp` in float32 and in float16. Then the length, for a vector that grows from $10^{-30}$ to $10^{30}$.
# Last, a map of all operations in float32, for arguments from $3 \cdot 10^{-36}$ to $3 \cdot 10^{36}$.

# %%
for dtype in ("float32", "float16"):
    spare.turn("healthy", op="exp", dtype=dtype)
    display(draw_strip(spare.sweep("x", (-110, -15, 0, 11, 11.5, 60, 88.5, 89)), "x"))
spare.turn("healthy", x=1.0)
display(draw_strip(spare.sweep("power", (-30, -23, -20, 0, 18, 19, 20, 30)), "power"))
spare.turn("broken")
display(draw_map(spare.map()))

# %% [markdown]
# Row 1: well up to 11.5, *exploding* at 60 and 88.5 (finite, and no optimizer can use it), Inf at 89. At -110 it is *wrong*: 0, where float64 has $10^{-48}$.
# Row 2: in float16 the same function ends at 11. At -15 it has one digit left: the result is subnormal.
# Row 3: a length breaks on both sides, at about half of the exponents.
# The map: only `log1p`, `x log x` and `softplus` are well over the whole range, and that for positive arguments alone.
# In the panel you can see it for the other dtypes, and behind the guide's guards.
#
# ## Why
# A format with the largest number $M$ and the smallest $m$ holds a square only between their roots:
#
# $$\sqrt{m} \;\lesssim\; |x| \;<\; \sqrt{M}: \qquad 1.8 \cdot 10^{19} \text{ in float32}, \quad 256 \text{ in float16}$$
#
# A sum of $k$ products ends $\sqrt{k}$ times earlier. That is the guide's row for `bmm`: with 32 entries each, 45.25 in float16. *Validate the inputs* cannot see it: every input is finite.
#
# The slope has edges of its own. $x^{-1}$ has the slope $-x^{-2}$, which leaves the floats first. $\log x$ and $\sqrt x$ have none at 0. The standard [1] rules each step. It does not know where you want to go.
#
# The cure for a length is old [2]: measure in a unit near the largest entry. If it is a power of two, nothing is rounded.
#
# 1. IEEE 754-2019, sections 3.3 and 7.
# 2. Blue (1978), A Portable Fortran Program to Find the Euclidean Norm of a Vector, ACM TOMS 4, 15.
#
# ## Repair
# Write the length of each row of `x`, shape (row, entry), in the dtype of `x`. It returns shape (row,).
# It must hold for 3e20 and 3e-24 in float32, and for 300 in float16. A row of zeros has length 0, and a finite gradient.


# %% tags=["exercise"]
def mine(x):
    # Three lines are enough: the unit of each row, not 0; the length in that unit; back.
    ...


# %% [markdown]
# ## Check
# <details><summary>Hint 1</summary>
#
# `x.detach().abs().amax(-1, keepdim=True)` is the largest entry of each row. For a row of zeros take 1 in its place, with `torch.where`.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `torch.linalg.vector_norm(x / unit, dim=-1)` has the gradient 0 at 0, where your own root has none.
# </details>

# %%
check(bench, mine)

# %%
answer(bench)

# %% [markdown]
# ## Compare
# The forms at the broken setting. Then the exact range of each in float32, for positive arguments.

# %%
print(compare(bench, yours=risky_operations.FORMS["scaled"]))
print()
for form in risky_operations.FORMS:
    spans = risky_operations.edges("length", "float32", form)
    well = [s for s in spans if s.value == s.gradient == "finite" and s.high > 0][-1]
    print(f"{form:7} value and gradient are finite from {well.low:.2g} to {well.high:.2g}")

# %% [markdown]
# `torch.linalg.vector_norm` ends at the same float as the formula on paper: the library squares too.
# *Eps* is finite at the small end, and wrong there: it makes a length of 1e-4 out of everything smaller.
# The scaled form goes to the ends of the format.
#
# ## Contract

# %%
assert spare.turn("healthy").verdict == "healthy"
assert spare.turn("broken").verdict == "inf"
assert spare.turn("healthy", op="exp", x=88.5).verdict != "inf", "the guide says Inf above 88"
assert spare.turn("healthy", op="log", x=0.0).verdict == "inf", "the guide says NaN"
assert spare.turn("gradient only").verdict == "inf"
assert spare.reading.value < 1e20
assert spare.turn("healthy", op="x log x", x=0.0).verdict == "nan"
assert spare.reading.value == 0
assert spare.turn("healthy", op="exp", x=15.0, guard="guide").verdict != "healthy"
assert spare.turn("repaired").verdict == "healthy"

# %% [markdown]
# **Carry away**
# - Value and gradient have edges of their own, in each dtype. Often the gradient breaks first.
# - A square halves the exponents that you have: 1.8e19 in float32, 256 in float16.
# - A finite input and a finite true result do not make a finite computation.
# - A guard moves an edge, or trades it for a slope of zero. Ask what is left behind it.
#
# **Next:** `21_masked_but_not_safe`, about bad values that are chosen away.
