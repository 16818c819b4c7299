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
# # Stable transforms
# *A stable way to another number.*
#
# **Symptom:** since the formula was made stable, the KL is negative and the log-variance runs away.
#
# **You will** put a well-known trick into the KL of a real VAE, watch it teach the opposite, and learn which rewritings keep the number.
#
# **You need** to know what `exp` and `log` do. `22_exploding_logvar` shows the KL.
#
# **Minutes:** 25

# %%
from labkit import Bench, Panel, answer, check, compare, predict
from labkit.draw import draw_curves, draw_strip
from labkit.failures import _transforms, stable_transforms

bench = Bench(stable_transforms)
bench.turn("healthy")

# %% [markdown]
# ## The guide says
# > ❌ 不稳定: diff = torch.exp(a) - torch.exp(b)
# >
# > ✅ 稳定: log-sum-exp技巧
# > max_val = torch.max(a, b)
# > diff = torch.exp(a - max_val) - torch.exp(b - max_val)
#
# In English: *a difference of exponentials may overflow; stable is the log-sum-exp trick.*
#
# ## Predict
# The KL of a VAE holds such a difference: `exp(logvar) - exp(0)`.
# We write it as the guide does. What becomes of training?
#
# - **A** the same as before, without overflow
# - **B** it depends on the sign of the log-variance: below zero all is as before, above zero the KL rewards what it should punish
# - **C** NaN

# %%
predict(bench)

# %% [markdown]
# <details><summary>Answer</summary>
#
# **B.** Below zero the maximum is 0, and taking it out changes nothing.
# Above zero the difference becomes `1 - exp(-logvar)`, which is never more than 1.
# What is left of the KL is `(mu² + 1 - logvar) / 2`: the larger the log-variance, the better, without end.
# </details>
#
# ## Break
# A trained encoder gives log-variances between -4.4 and -0.6. The slider adds 3.

# %%
print(bench.source("guide"))
print(bench.turn("broken"))
print(bench.turn("broken", shift=10.0))

# %% [markdown]
# No NaN, no Inf, and every gradient is alive. The verdict is *wrong*: the number is another one.
# With 10 added the KL is -22. A KL is never negative.
#
# ## Look
# No probe of a single run can see this, since every number is ordinary. What shows it is training.
# Two runs start 25 above, one with the guide's difference, one with `expm1`. The sampler is guarded in both.

# %%
draw_curves(stable_transforms.courses(), "step", "mean log-variance")

# %% [markdown]
# ### What to see
# With the right KL the log-variance comes back.
# With the guide's it climbs without end: each nat more is half a nat of KL less, so the force that should pull it home pushes it out.
# A histogram of the gradients shows twelve ordinary hills in both runs, so it is left out.
#
# ## Turn
# Drag *shift* with each form. Then set *shift* to 0 and raise *collapse*: it moves the posterior towards the prior, as in a model that ignores its latent space.

# %%
spare = Bench(stable_transforms)  # for strips and contract; the panel keeps its setting
bench.turn("broken")
Panel(bench)

# %% [markdown]
# At a *collapse* of 4 the KL is 1.6e-7, and *plain* is 7 % off. At 5 it is negative.
# Two numbers near 1 were subtracted, and float32 keeps nothing below 6e-8 of a number near 1. Putting the maximum back does not help: only *expm1* subtracts before it takes `exp`.
#
# ## Strip
# Above the guide's form over the shift. Below, *plain* and *expm1* as the posterior collapses.

# %%
spare.turn("healthy", form="guide")
display(draw_strip(spare.sweep("shift", (-40, -5, 0, 3, 10, 40, 95)), "shift"))
for form in ("plain", "expm1"):
    spare.turn("healthy", form=form)
    display(draw_strip(spare.sweep("collapse", (0, 2, 3, 4, 5, 6)), "collapse"))

# %% [markdown]
# ### What to see
# The guide's form is right as long as every log-variance is below zero, so a test on a healthy model passes.
# At 95 the true KL is 1e41. No float32 holds it, and an Inf there is an honest answer. The guide's form says -362.
# In the middle strip digits vanish without a sign. In the lower one they stay.
#
# ## Why
# With $m = \max(a, b)$:
#
# $$e^a - e^b = e^m \left( e^{a-m} - e^{b-m} \right) = e^b \left( e^{a-b} - 1 \right)$$
#
# The guide stops after the bracket and forgets $e^m$.
# The trick that it names is another one: $\log(e^a + e^b) = m + \log(e^{a-m} + e^{b-m})$. There $m$ is put back, as a sum [2].
#
# A subtraction of nearly equal numbers is exact. What it shows is the rounding that was there before.
# So subtract first, in the exponent: $a - b$ is small and keeps its digits, and `expm1` computes $e^x - 1$ without a 1 [1].
# `log1p`, `logsigmoid`, `softplus` and `logsumexp` exist for the same reason.
# An importance-weighted bound [3] is a log of a mean of such exponentials.
#
# 1. Higham (2002), Accuracy and Stability of Numerical Algorithms, section 1.14.
# 2. Blanchard, Higham and Higham (2021), Accurately computing the log-sum-exp and softmax functions.
# 3. Burda, Grosse and Salakhutdinov (2016), Importance Weighted Autoencoders.
#
# ## Repair
# Write `exp(a) - exp(b)` so that it is right for (3, 1) and keeps its digits where a and b are nearly equal.


# %% tags=["exercise"]
def mine(a, b):
    # One line is enough.
    ...


# %% [markdown]
# ## Check
# <details><summary>Hint 1</summary>
#
# Take the factor `exp(b)` out of both terms. What is left in the bracket?
# </details>
#
# <details><summary>Hint 2</summary>
#
# `torch.expm1(x)` is `exp(x) - 1`, right to the last digit also for a tiny `x`.
# </details>

# %%
check(bench, mine)

# %%
answer(bench)

# %% [markdown]
# ## Compare
# First the forms at a shift of 3. Then everyday transforms in float32, as written, as the guide writes them, and stable.
# Each entry is two numbers: how many digits of the value are right, and how many of the slope; 7 is all that float32 has.

# %%
print(compare(bench, yours=stable_transforms.FORMS["expm1"]), "\n")
print(_transforms.table())
print("\nlog p(x), cells of 64 with a finite value:", _transforms.marginals())

# %% [markdown]
# `log(a / b)` with two small numbers is well as it stands: 1e-30 over 3e-30 is a third. The guide has this the wrong way round.
# What breaks it is a ratio out of range, and there `log a - log b` helps. The guide's `+ eps` drowns both numbers: no digit is left.
# The stable form has a price of its own. Two logarithms near -69 are subtracted, and two digits go.
#
# `log(sigmoid(x) + eps)` has the right size near 0 and no slope at -110, where the model is most wrong. `logsigmoid` has slope 1.
#
# The last line is real. The log-likelihood of a cell is near -600, and `exp(-600)` is zero in float32.
# So a likelihood that averages over draws of z is lost for every cell, unless it is `logsumexp`.
#
# The last right form may still be Inf: a difference of 8e38 does not fit. Then stay in the log, and carry the sign beside it.
#
# ## Contract

# %%
assert spare.turn("healthy", form="guide").verdict == "healthy", "below zero nobody sees it"
assert spare.turn("broken").verdict == "wrong"
assert spare.turn("broken", shift=10.0).value < 0, "a negative KL"
for form in ("plain", "put back"):
    assert spare.turn("cancelled", form=form).verdict == "wrong"
assert spare.turn("cancelled", form="expm1").verdict == "healthy"
assert spare.turn("repaired").verdict == "healthy"

# %% [markdown]
# **Carry away**
# - A stable form is first of all the same number. Try it at (3, 1), and compare its slope as well.
# - What is taken out must be put back: a factor as a factor, in a log as a sum.
# - Subtract before `exp`, not after. Use `expm1`, `log1p`, `logsumexp`, `logsigmoid`, `softplus`.
# - An eps inside a log is a decision: below it there are no digits and no gradient.
# - Finite is not right.
#
# **Next:** `32_clip_or_detect`, what to do with a gradient that is too large all the same.
