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
# # Hunting the source
# *The last one to touch it is not the one who broke it.*
#
# **Symptom:** everything is NaN, and the tool that found it points at an innocent line.
#
# **You will** hunt one fault by halving, put seven detectors before the same eleven programs, and write the rule that names the guilty line.
#
# **You need** to know what forward and backward are.
#
# **Minutes:** 25

# %%
from labkit import Bench, Panel, answer, check, compare, guide, trace
from labkit.cells.data import load_pbmc
from labkit.draw import draw_graph
from labkit.failures import exploding_logvar, hunting_the_source
from labkit.models.vae import NBVAE

# %% [markdown]
# ## Question
# > torch.autograd.detect_anomaly(): 自动检测异常
#
# In English: *detect_anomaly detects anomalies by itself.* The guide also prints layer after layer, and hangs a hook on every module.
#
# An `exp` overflows to infinity. On the way back infinity meets a zero, two lines further up, and makes the first NaN.
# Which line does `detect_anomaly` name?
#
# - **A** the line with the `exp`
# - **B** the line further up, where the NaN appears
# - **C** both
# - **D** none: it hears only what happens in forward
#
# <details><summary>Answer</summary>
#
# **B.** It listens to backward functions, and only for NaN. It names the function that put out the first NaN.
# That function got an infinity, so it is innocent. The `exp` was earlier, and infinity is no anomaly to it.
# </details>
#
# ## Instrument
# **Halving.** "Did any of the first *k* operations make a bad number out of good ones?" The answer turns from no to yes only once as *k* grows.
# So ask in the middle, and throw one half away. The guide's title promises this, its function scans. This one does it.
#
# The model is the real one, on 64 real cells, with 90 added to the log-variance:

# %%
cells = load_pbmc().train[:64]
model = NBVAE.for_cells(cells)
model.encoder.fc_logvar.bias.data += 90.0
unguarded = exploding_logvar.FORMS["none"]
told = guide.debug_forward_pass(
    model, cells.counts, cells.tissue, loss=lambda m, *_: exploding_logvar.loss(m, cells, unguarded)
)

# %% [markdown]
# Read from above: every layer is finite. The guide's own function ends there, since it looks at no loss: all is well, it says.
# *First* is what halving found, with the number of runs that it took. *Trace* is what one traced run found.
#
# A second kind of halving goes over a *value*. How far may a knob be turned? To the exact float:


# %%
def breaks(bias):
    model.encoder.fc_logvar.bias.data.fill_(bias)
    return not exploding_logvar.loss(model, cells, unguarded).isfinite()


print(guide.bisect_knob(breaks, 0.0, 100.0))

# %% [markdown]
# ## What it sees
# Ten faults, each in a program of a few lines whose guilty line is known, and one healthy program with a mask of minus infinity.
# Each detector gets each program. *Line*: it names the guilty one. *Alarm*: it knows that something is wrong. A dash: silence.

# %%
seen = hunting_the_source.line_up()
print(" " * 18, *(f"{name:10}" for name in seen["none"]))
for fault, row in seen.items():
    print(f"{fault:18}", *(f"{word:10}" for word in row.values()))

# %% [markdown]
# ### What to see
# *Loss NaN* misses every infinity, and every NaN that is born on the way back.
# *Gradients*, the guide's first tool, hears nearly everything, and knows no more than that.
# *Hooks*, as the guide hangs them, see a module that returns one tensor. Nine of ten faults are elsewhere: between modules, in a tuple, in backward.
# *Full hooks* hear more, and still name a module and no line.
# *Anomaly* is `detect_anomaly`. It names three lines, and four times the wrong one.
# *Bisection* names the line where a bad number is born of good ones, and in backward the operation. A softmax that makes NaN of a mask's infinity is no such birth, and in *masked first* it blames an infinity that the program throws away.
# *Trace* also hears the last two, where no number is bad.
#
# These ten were chosen by the builders of the tracer. How it did on programs that it had never seen stands in `tests/probes/test_corpus.py`.
#
# One of them as a picture. Which box is guilty?

# %%
bench = Bench(hunting_the_source)
bench.turn("broken", fault="masked first", hunt="first bad")
draw_graph(bench.reading.report)

# %% [markdown]
# The *reciprocal* is infinite on purpose, and a `where` throws the infinity away. It is amber and harms nobody. The outlined *cosh* is guilty.
#
# On the bench a fault is planted, and a rule hunts it. What the rule names is mended. If it names the guilty line, the step is healthy.

# %%
Panel(bench)

# %% [markdown]
# The badge says whom the rule named. Try all four rules on *masked first*, then on *none*: *first bad* accuses a healthy program.
#
# ## What it misses
# **A number that is finite and wrong.** No detector of bad numbers hears it. `trace(..., shadow=True)` carries float64 beside each operation and names the first that goes astray on its way to a wrong loss:

# %%
import torch

level = torch.nn.Parameter(torch.tensor([10000.0, 10000.01, 10000.02]))
for shadow in (False, True):
    report = trace(lambda: level.square().mean() - level.mean().square(), shadow=shadow)
    print(f"shadow {shadow}: {report.verdict}")
print(report.culprit.op, "-", report.culprit.remark)

# %% [markdown]
# **A program that does not repeat itself.** Halving runs it again and again. If it draws its own random numbers, each run is another one; `guide.debug_forward_pass` puts back the generators that it knows.
#
# **What happens elsewhere:** in another process, in a compiled graph, on a device whose backward runs in threads of its own. The tracer runs compiled code as it was written. On another rank nobody is listening: `43_one_rank_poisons_all`.
#
# ## Try it on yours
# First a rule of your own. These are the events of the *empty row*, as your function gets them:

# %%
for number, event in enumerate(hunting_the_source.events("empty row")[3:13], start=3):
    print(f"{number:2}", event)

# %% [markdown]
# Each event has `op`, `line`, `given` (the worst that went in), `made` (the worst that came out) and `reaches` (what is bad in it reaches a loss, a gradient or a parameter).
# Return the number of the guilty event, or -1 if nobody is.
#
# <details><summary>Hint 1</summary>
#
# There are three ranks: ok, inf, nan. Who is guilty makes worse what it was given. Event 5 does not: the mask's infinity goes in and comes out.
# </details>
#
# <details><summary>Hint 2</summary>
#
# What is lost on the way harms nobody. Take the first event that makes it worse *and* reaches something.
# </details>


# %% tags=["exercise"]
def mine(events):
    # Four lines are enough: go through the events; compare two ranks; ask whether it reaches.
    ...


# %%
print(check(bench, mine))
display(answer(bench))
print(compare(bench, yours=hunting_the_source.FORMS["made worse"]))

# %% [markdown]
# On a model of yours the rule is `labkit.trace(step, model=model)`. It also asks what was cut, what is flat and what stands still.
#
# ## Contract

# %%
spare = Bench(hunting_the_source)  # the panel above keeps its setting
assert spare.turn("broken").verdict == "inf", "the first NaN is not the source"
assert "named: AddmmBackward0" in str(spare.reading)
assert spare.turn("healthy", hunt="first bad").verdict == "wrong", "a mask is accused"
assert spare.turn(fault="empty row", hunt="born of good").verdict == "nan"
assert spare.turn("repaired").verdict == "healthy"
assert {row["trace"] for fault, row in seen.items() if fault != "none"} == {"line"}
assert list(seen["none"].values()) == ["-"] * 7, "no false alarm"
assert [row["anomaly"] for row in seen.values()].count("line") == 3

# %% [markdown]
# **Carry away**
# - The first alarm is where a bad number was heard, not where it is from.
# - Infinity first: most NaN have one as their parent.
# - Ask who made it *worse*. A mask that hands on its infinity is innocent.
# - Ask whether it *arrives*. An infinity that is thrown away harms nobody.
# - Halve, do not scan: a thousand operations are ten questions.
#
# **Next:** `41_watch_it_spread` goes the other way, from the source to everyone it reaches.
