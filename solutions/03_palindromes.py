# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 03 · Palindromes
#
# **How does a transformer with two layers and no MLP know that twenty numbers read the same in both directions?**
#
# Somewhere in it the first value has to meet the last, and the second the last but one. Somebody has to notice the one pair
# that differs, and tell `END`, where the answer is read. You will find out who notices, catch the message on its way, learn
# what it says, and then use it against the model.
#
# | | |
# |---|---|
# | **You will be able to** | read a classifier by direct logit attribution; find out by swaps what part of a head is enough, and whether it is needed; decode a message between heads; find the inputs through which it arrives; predict a model's mistakes from its mechanism |
# | **Time** | 2 to 2½ hours for the core, 8 exercises of which 5 are experiments; the optional part takes two to three more |
# | **Model** | 2 layers, 2 heads, attention only, LayerNorm, `d_model` 28, `d_head` 14: 8,262 parameters |
# | **Data** | `START`, twenty values from 0 to 30, `END`; two logits at `END`: *no palindrome* (0) and *palindrome* (1) |
# | **You need** | attention, the residual stream, hooks. Lessons 01 and 02 practise these; nothing is imported from them |
#
# Your answers also run on models of other shapes: take sizes from the arguments, never 20 or 21. Positions count from 0.
# *Rejected* means that the model says "no palindrome": its logit difference is below 0.
#
# The challenge is Callum McDougall's (ARENA, July 2023). Andy Arditi solved it first; this lesson follows him, and
# corrects and extends what he found.

# %% [markdown]
# ## Setup

# %%
import torch
from eindex import eindex
from jaxtyping import Float, Int
from torch import Tensor

from exercises_utils import available_instances, circuits, evidence, load_model, plotting
from exercises_utils.challenges.palindromes import (
    checks,
    game,
    mechanism,
    pictures,
    predictions,
    task,
)
from exercises_utils.plotting.drawing import assemble
from exercises_utils.tools import ablate, get_act_name, patch, record

# %%
_ = torch.set_grad_enabled(False)
model = load_model("palindromes")
data = task.make_data(size=2000, seed=1).to(model.cfg.device)
HEADS = [
    (layer, head)
    for layer in range(model.cfg.n_layers)
    for head in range(model.cfg.n_heads)
]
BOTH = list(range(model.cfg.n_heads))  # the heads of a layer
SECOND_HALF = list(task.SECOND_HALF)  # places 11 to 20
END = task.LENGTH + 1  # position 21

# %% [markdown]
# ## 0 · Can you fool it?
#
# Place $i$ holds a value, and place $21 - i$ is its **mirror**. In a palindrome every value equals the one at its mirror.
# Half of the training data are palindromes; the others break at about five of their ten pairs.
#
# On such data the model is nearly perfect. So be unfair to it. Type twenty values, or press a button:
#
# 1. Change one value of a palindrome so that the model does not notice.
# 2. Is every place as good for that as every other?
# 3. Find a palindrome that it rejects. (This one is hard.)
#
# Under your sequence you see the answer, and where each head of the model attends from the position that you choose. You
# need not read that yet.

# %%
best_try = game.play(model)

# %% [markdown]
# Your best failure is kept. In section 7 you may know why it works.

# %% [markdown]
# ## 1 · One number
#
# There are two logits, and one decision. The probability of *palindrome* depends on their difference alone:
#
# $$P(\text{palindrome}) = \frac{e^{\ell_1}}{e^{\ell_0} + e^{\ell_1}} = \sigma(\ell_1 - \ell_0)$$
#
# So the rest of this lesson is about one number for each sequence, the **logit difference** $\ell_1 - \ell_0$, and about the
# share of sequences that it rejects. Behind each share stand its 95 % interval and the number of sequences (where one sequence
# is used at ten places, the interval is bootstrapped over sequences).

# %% [markdown]
# ### Exercise 1 · `logit_diff` (core, a measurement)
# *Difficulty ●○○○○ · 4 minutes*
#
# **Why:** it is the number that every experiment below moves.
#
# For each sequence, return the logit of *palindrome* (index 1) minus the logit of *no palindrome* (index 0) at the last
# position. Logits, not probabilities.
#
# <details><summary>Hint 1</summary>
#
# `model(tokens)` has shape (sequence, position, verdict). What does the model say at positions it was never trained at?
# </details>
# <details><summary>Hint 2</summary>
#
# Index the position with `-1`, then subtract one column from the other.
# </details>


# %% nbgrader={"grade": false, "grade_id": "logit_diff", "locked": false, "schema_version": 3, "solution": true, "task": false}
def logit_diff(
    model, tokens: Int[Tensor, "sequence position"]
) -> Float[Tensor, " sequence"]:
    """Logit of "palindrome" minus logit of "no palindrome" at END, for each sequence."""
    ### BEGIN SOLUTION
    verdict = model(tokens)[:, -1]
    return verdict[:, 1] - verdict[:, 0]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_logit_diff", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.logit_diff(logit_diff)

# %%
verdict = checks.logit_diff.working(logit_diff)
difference = verdict(model, data.tokens)
by_class = {
    "palindromes": difference[data.is_palindrome],
    "others": difference[~data.is_palindrome],
}
plotting.histogram(
    by_class,
    title="Logit difference by class",
    x="logit difference, palindrome − no palindrome (logits)",
    y="sequences",
).show()
pictures.print_shares(
    {
        "palindromes rejected": by_class["palindromes"] < 0,
        "others accepted": by_class["others"] > 0,
    }
)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Two groups, far apart, with hardly a sequence on the wrong side of 0. Remember how wide the gap is: whoever decides has to
# move a sequence across all of it.
# </details>
#
# Who writes this number?

# %% [markdown]
# ## 2 · Who writes it?
#
# The residual stream at `END` is a sum: the token's embedding, the position's, what each head wrote there, and the output
# biases. The logits are linear in that sum, once the last LayerNorm has divided it by its scale. (The weights are
# *processed*: all else of LayerNorm is folded into the matrices. Section 9 shows what that changes.) So each part
# has its own share of the logit difference: **direct logit attribution** (DLA).
#
# First, do the parts add up to the whole?

# %%
_, cache = model.run_with_cache(data.tokens[:500])
components, component_names = circuits.residual_components(cache, position=-1)
gap = (components.sum(0) - cache["resid_post", model.cfg.n_layers - 1][:, -1]).abs().max()
print("components:", *component_names)
print(f"largest gap between their sum and the residual stream: {gap:.3f}")

# %% [markdown]
# ### Exercise 2 · `logit_attribution` (core, a measurement)
# *Difficulty ●●●○○ · 12 minutes*
#
# **Why:** DLA is the fastest way from "the model decides" to "this head decides".
#
# For each sequence, return each component's share of the logit difference at `END`, in logits towards "palindrome". The
# rows are those of `circuits.residual_components`, in their order, **and one more at the end** for the unembedding's bias
# `b_U`. Divide by the last LayerNorm's scale at `END`, each sequence by its own. The rows then add up to `logit_diff`.
#
# <details><summary>Hint 1</summary>
#
# The dot product of a sum is the sum of the dot products. With which vector of length `d_model`?
# </details>
# <details><summary>Hint 2</summary>
#
# $\ell_1 - \ell_0 = \frac{x}{s} \cdot (W_U[:, 1] - W_U[:, 0]) + b_U[1] - b_U[0]$, with the residual stream $x$ and its scale $s$.
# </details>
# <details><summary>Hint 3</summary>
#
# The scale is `cache["ln_final.hook_scale"][:, -1]`, of shape (sequence, 1). The last row is a constant: `.expand(1, len(tokens))`.
# </details>


# %% nbgrader={"grade": false, "grade_id": "logit_attribution", "locked": false, "schema_version": 3, "solution": true, "task": false}
def logit_attribution(
    model, tokens: Int[Tensor, "sequence position"]
) -> Float[Tensor, "component sequence"]:
    """Each component's share of the logit difference at END, in logits.

    Rows: embed, pos_embed, every head (0.0, 0.1, …), b_O, b_U. They add up to the whole.
    """
    ### BEGIN SOLUTION
    _, cache = model.run_with_cache(tokens)
    components, _ = circuits.residual_components(cache, position=-1)
    direction = model.W_U[:, 1] - model.W_U[:, 0]
    scale = cache["ln_final.hook_scale"][:, -1]  # (sequence, 1)
    shares = (components / scale) @ direction
    bias = (model.b_U[1] - model.b_U[0]).expand(1, len(tokens))
    return torch.cat([shares, bias])
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_logit_attribution", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.logit_attribution(logit_attribution)

# %%
attribution = checks.logit_attribution.working(logit_attribution)(model, data.tokens)
palindromes = attribution[:, data.is_palindrome]
others = attribution[:, ~data.is_palindrome]
both = {"palindromes": palindromes, "others": others}
plotting.bar(
    [*component_names, "b_U"],
    {name: rows.mean(-1) for name, rows in both.items()},
    errors={
        name: 1.96 * rows.std(-1) / rows.shape[-1] ** 0.5 for name, rows in both.items()
    },
    title="Direct logit attribution at END, by class (mean and 95 % interval)",
    x="component",
    y="logits towards “palindrome”",
).show()
for name, yes, no in zip(component_names, palindromes, others, strict=False):
    apart, auc = yes.mean() - no.mean(), (yes[:, None] > no).float().mean()
    print(f"{name:9s} difference of the means {apart:6.2f}   AUC {pictures.short(auc)}")

# %%
plotting.histogram_facets(
    {
        name: {"palindromes": palindromes[i], "others": others[i]}
        for i, name in enumerate(component_names)
        if "." in name
    },
    title="Direct logit attribution of the heads, sequence by sequence",
    x="logits towards “palindrome”",
    y="sequences",
).show()

# %% [markdown]
# The AUC is how often a palindrome lies above one of the others: 1 means that all lie above all; .5 means that the two cannot be told apart. Look at
# `pos_embed`: at `END` it writes *the same vector for every sequence*. What can it know?
#
# <details><summary>What you should see</summary>
#
# Nothing. Each sequence is divided by its own scale, and the scale is larger on non-palindromes. A constant, divided by that,
# separates the classes almost perfectly, and a component can separate that well, better than one of the two heads that write the verdict, and have read nothing.
#
# What is left when you look at sizes: the heads of layer 1 write the verdict. In the model that this lesson ships (`seed0`)
# they share it, 8.9 logits and 6.2; in others one does most of it. The heads of layer 0 add little to the difference *directly*.
# </details>
#
# But the heads of layer 1 can only repeat what stands at the places where `END` looks. So where does it look?

# %% [markdown]
# ## 3 · One value changed
#
# Take a palindrome, and change a single value. The two sequences below differ in one token, and in their label.

# %%
intact = data.tokens[data.is_palindrome][:300]
broken = {place: task.change_value(intact, place, seed=place) for place in SECOND_HALF}
plotting.display_sequence(task.str_tokens(intact[0]), mirrored=True, note="palindrome")
plotting.display_sequence(
    task.str_tokens(broken[14][0]), mirrored=True, note="one value changed, at place 14"
)

# %% [markdown]
# **Prediction 1.** In the second sequence, places 7 and 14 disagree. In the head of layer 1 that reacts more, where does `END`
# attend now?
#
# - **a** `START`
# - **b** both of them, about equally
# - **c** position 14, in the second half
# - **d** position 7, in the first half
#
# Write the letter in place of the dots. A prediction is kept and shown beside what comes; it never counts.

# %%
predictions.where_end_looks(...)

# %%
patterns = {}  # of the two sequences, in all heads: (head, query, key)
for name, tokens in {"intact": intact[:1], "changed": broken[14][:1]}.items():
    _, cache = model.run_with_cache(tokens)
    patterns[name] = torch.cat([cache["pattern", 0][0], cache["pattern", 1][0]])
plotting.heatmap_facets(
    {f"{layer}.{head}": patterns["changed"][i] for i, (layer, head) in enumerate(HEADS)},
    title="Attention with place 14 changed",
    x="key position",
    y="query position",
    unit="attention",
    signed=False,
).show()
before, after = patterns["intact"][2:, END], patterns["changed"][2:, END]  # layer 1
looks_at = int(after[(after - before).abs().sum(-1).argmax()].argmax())
came = {14: "changed", 7: "mirror", 0: "start"}.get(looks_at, f"position {looks_at}")
predictions.where_end_looks.compare(came)

# %% [markdown]
# The same to explore with the mouse (hover over a token to see where it attends):

# %% tags=["drop-output"]
plotting.attention_heads(
    patterns["changed"],
    task.str_tokens(broken[14][0]),
    names=[f"{layer}.{head}" for layer, head in HEADS],
)

# %% [markdown]
# That was one sequence and one place. Now all ten places, 300 sequences each:


# %%
def end_attention(tokens):
    """Where END attends in each head of layer 1, mean over sequences: (head, position)."""
    _, cache = model.run_with_cache(tokens)
    return cache["pattern", 1][:, :, END].mean(0)


rows = torch.stack([end_attention(tokens) for tokens in (intact, *broken.values())])
plotting.heatmap_facets(
    {f"head 1.{head}": rows[:, head] for head in BOTH},
    title="END's attention in layer 1, by changed place",
    x="position attended to",
    y="changed place",
    unit="attention",
    y_labels=["none", *map(str, SECOND_HALF)],
    signed=False,
).show()

# %% [markdown]
# In the top row nothing is wrong: in `seed0`, `END` rests at `START` in one head and looks around in the other. Go down row by row. Which head
# lets itself be pulled away, and to where? Is there a row
# in which nothing moves? Keep it in mind.
#
# `END` finds the wrong value among twenty, in one step. Somebody must have marked it before. Who could? Attention is
# causal: of two partners, only the second can see the other. (Later positions see both; look at the partner first.) So watch
# how the second half attends in layer 0:

# %%
_, cache = model.run_with_cache(intact)
plotting.heatmap_facets(
    {f"head 0.{head}": cache["pattern", 0][:, head].mean(0) for head in BOTH},
    title="Attention in layer 0 on palindromes (mean over 300)",
    x="key position",
    y="query position",
    unit="attention",
    signed=False,
).show()

# %% [markdown]
# ### Exercise 3 · `mirror_attention` (core, a measurement)
# *Difficulty ●●○○○ · 8 minutes*
#
# **Why:** "it attends to the mirror" is a claim about exactly these entries, and off by one it is a claim about others.
#
# `pattern` is one head's attention, for sequences of *any even* number $n$ of values between a `START` and an `END`. For each
# sequence return the attention from each position of the second half, $n/2 + 1$ to $n$ in this order, to its mirror: position
# $i$ to position $n + 1 - i$. That is $n/2$ numbers a sequence.
#
# <details><summary>Hint 1</summary>
#
# The last position is $n + 1$. What does that make of $n + 1 - i$?
# </details>
# <details><summary>Hint 2</summary>
#
# [`eindex`](https://github.com/callummcdougall/eindex) indexes by name: `eindex(pattern, queries, keys, "sequence [pair]
# [pair]")` takes, for every sequence and pair, row `queries[pair]` and column `keys[pair]`.
# </details>


# %% nbgrader={"grade": false, "grade_id": "mirror_attention", "locked": false, "schema_version": 3, "solution": true, "task": false}
def mirror_attention(
    pattern: Float[Tensor, "sequence query key"],
) -> Float[Tensor, "sequence pair"]:
    """Attention from each position of the second half to its mirror, in their order."""
    ### BEGIN SOLUTION
    last = pattern.shape[-1] - 1  # END
    queries = torch.arange(last // 2 + 1, last)
    return eindex(pattern, queries, last - queries, "sequence [pair] [pair]")
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_mirror_attention", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.mirror_attention(mirror_attention)

# %%
to_mirror = checks.mirror_attention.working(mirror_attention)
layer_0 = {
    place: model.run_with_cache(tokens)[1]["pattern", 0]
    for place, tokens in {"intact": intact, **broken}.items()
}
curves = {}
for head in BOTH:
    differ = [to_mirror(layer_0[p][:, head])[:, i] for i, p in enumerate(SECOND_HALF)]
    curves[f"head 0.{head}"] = {
        "values equal": to_mirror(layer_0["intact"][:, head]).T,
        "values differ": torch.stack(differ),
    }
pictures.by_place(
    curves,
    title="Attention to the mirror when the values agree and differ",
    y="attention to the mirror",
).show()

# %% [markdown]
# <details><summary>What you should see</summary>
#
# A head that compares has its two rows of points far apart. In `seed0` *both* heads of layer 0 attend more to the mirror when
# the values agree, 0.1 much more than 0.0. At one place, 20, the two differ only a little: the row that you kept in mind.
# </details>
#
# Attention that goes with the verdict need not be what the model uses. So is this the message? Looking cannot tell you.
# From here on you take the model apart while it runs.

# %% [markdown]
# ## 4 · Is that the message?
#
# Run a palindrome, and let one head attend, at *one place*, as it did when the value there was changed. Every token is still
# right. Should the model now say "no palindrome", then that row of 22 numbers has told it so.
#
# Before the first experiment, a control: a run that is patched with its own activations must not change.

# %%
_, own = model.run_with_cache(intact)
for activation in ("pattern", "z"):
    with patch(model, activation, 0, own[activation, 0]):
        change = (verdict(model, intact) - difference[data.is_palindrome][:300]).abs().max()
    print(f"{activation}, patched with its own: largest change {change:.4f} logits")

# %% [markdown]
# **Prediction 2.** Of 100 palindromes, how many will the model reject if one row of one head's attention comes from the broken
# run? Take the head that does more, and the mean over the ten places. Write a number in place of the dots.

# %%
predictions.one_row(...)

# %% [markdown]
# ### Exercise 4 · `swap_pattern` (core, an experiment)
# *Difficulty ●●●○○ · 12 minutes*
#
# **Why:** this turns "goes with" into "is used".
#
# Return the logit differences of the sequences in `intact` when `head`, a pair `(layer, head)`, attends **at query position
# `position`** as it does in the run on `broken`. Its other rows, all other heads and all values stay those of the intact run.
#
# The tool: inside `with patch(model, "pattern", layer, value, heads=[…], positions=[…]):` the model runs with these heads'
# rows, at these query positions, taken from `value`, a whole pattern (sequence, head, query, key).
#
# <details><summary>Hint 1</summary>
#
# Two runs. Which of them only serves to be copied from?
# </details>
# <details><summary>Hint 2</summary>
#
# `model.run_with_cache(broken)` gives logits and a cache; `cache["pattern", layer]` has the shape that `patch` wants.
# </details>


# %% nbgrader={"grade": false, "grade_id": "swap_pattern", "locked": false, "schema_version": 3, "solution": true, "task": false}
def swap_pattern(
    model,
    head: tuple[int, int],
    intact: Int[Tensor, "sequence position"],
    broken: Int[Tensor, "sequence position"],
    position: int,
) -> Float[Tensor, " sequence"]:
    """Logit differences on `intact` with one row of attention taken from `broken`."""
    ### BEGIN SOLUTION
    layer, index = head
    _, cache = model.run_with_cache(broken)
    pattern = cache["pattern", layer]
    with patch(model, "pattern", layer, pattern, heads=[index], positions=[position]):
        verdict = model(intact)[:, -1]
    return verdict[:, 1] - verdict[:, 0]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_swap_pattern", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.swap_pattern(swap_pattern)

# %% [markdown]
# A change of attention could do harm merely by being a change. So there is a control of the same size: rows from a run in which
# *both* partners were changed alike. The token at the place is the same as in the broken run, but the pair agrees.

# %%
swap = checks.swap_pattern.working(swap_pattern)


def rejected(run):
    """Which sequences are rejected, (place, sequence); `run(place)` gives logit differences."""
    return torch.stack([run(place) < 0 for place in SECOND_HALF])


agreeing = {place: tokens.clone() for place, tokens in broken.items()}
for place, tokens in agreeing.items():
    tokens[:, task.mirror(place)] = tokens[:, place]

turned = {"value really changed": rejected(lambda p: verdict(model, broken[p]))}
for name, source in {"pair broken": broken, "pair still equal": agreeing}.items():
    for h in BOTH:
        turned[f"row of 0.{h}, {name}"] = rejected(
            lambda p, h=h, source=source: swap(model, (0, h), intact, source[p], p)
        )

pictures.by_place(
    {"": turned},
    title="Share rejected, by intervention and place",
    y="share of palindromes rejected",
).show()
pictures.print_shares(turned)

# %% [markdown]
# Give names to what you see. They are found, not fixed: in another model they are others.

# %%
does = {(0, h): turned[f"row of 0.{h}, pair broken"].float().mean().item() for h in BOTH}
MATCHER, OTHER = max(does, key=does.get), min(does, key=does.get)
noticed = turned["value really changed"].float().mean(-1)
WEAK = SECOND_HALF[int(noticed.argmin())]  # where a change is noticed least
print(f"MATCHER {MATCHER}   OTHER {OTHER}   WEAK {WEAK}")
predictions.one_row.compare(100 * does[MATCHER])

# %% [markdown]
# <details><summary>What you should see</summary>
#
# One row of one head turns nearly as many verdicts as the real change, on sequences that *are* palindromes, token by token.
# The same swap in the other head, or from a run in which nothing is wrong, turns next to none. So for a single change that
# row is **enough**.
#
# At one place of `seed0`, 20, even the real change goes unnoticed. No swap can show anything there.
# </details>
#
# Enough is one half of a cause. The other: is the row also *needed*, or does the model hear of the change from elsewhere, too?
#
# **Prediction 3.** Now run the *broken* sequences, and put that one row right. Of 100, how many are still rejected?

# %%
predictions.row_restored(...)

# %% [markdown]
# ### Exercise 5 · `necessity` (core, an experiment)
# *Difficulty ●●●○○ · 8 minutes*
#
# **Why:** a row can be enough and still be one of several ways. If it is needed as well, you have found *the* way.
#
# Return three shares of **all** sequences in `broken`, as floats, in a dict:
#
# - `"broken"`: rejected as they are;
# - `"restored"`: rejected when the row of `head` at `position` is that of the run on `intact`;
# - `"control"`: the same with the row of the head `control`.
#
# <details><summary>Hint 1</summary>
#
# Rejected means: logit difference below 0. A share is the mean of a condition, `.float().mean().item()`.
# </details>
# <details><summary>Hint 2</summary>
#
# Have you written this intervention already?
# </details>
# <details><summary>Hint 3</summary>
#
# `swap_pattern` puts rows of its fourth argument into a run on its third. Exchange them.
# </details>


# %% nbgrader={"grade": false, "grade_id": "necessity", "locked": false, "schema_version": 3, "solution": true, "task": false}
def necessity(
    model,
    head: tuple[int, int],
    control: tuple[int, int],
    intact: Int[Tensor, "sequence position"],
    broken: Int[Tensor, "sequence position"],
    position: int,
) -> dict[str, float]:
    """Shares of `broken` that are rejected: as they are, or with one row restored."""

    ### BEGIN SOLUTION
    def share(differences):
        return (differences < 0).float().mean().item()

    return {
        "broken": share(logit_diff(model, broken)),
        "restored": share(swap_pattern(model, head, broken, intact, position)),
        "control": share(swap_pattern(model, control, broken, intact, position)),
    }
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_necessity", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.necessity(necessity)

# %%
needed = checks.necessity.working(necessity)
shares = [needed(model, MATCHER, OTHER, intact, broken[p], p) for p in SECOND_HALF]
pictures.share_map(
    torch.tensor([[at[key] for at in shares] for key in ("broken", "restored", "control")]),
    title="Share of broken sequences rejected, by restored row (300 a place)",
    x="changed place",
    y="restored",
    x_labels=SECOND_HALF,
    y_labels=["nothing", "matcher's row", "other's row"],
).show()
predictions.row_restored.compare(100 * sum(at["restored"] for at in shares) / len(shares))

# %% [markdown]
# Both directions beside each other, all ten places, every number with its control:


# %%
def both_ways(head):
    """What one row does: swapped into palindromes, and restored in broken sequences."""
    return {
        "palindromes, its row broken": rejected(
            lambda p: swap(model, head, intact, broken[p], p)
        ),
        "broken, its row restored": rejected(
            lambda p: swap(model, head, broken[p], intact, p)
        ),
    }


pictures.print_shares(
    {
        "palindromes": rejected(lambda p: verdict(model, intact)),
        "broken": rejected(lambda p: verdict(model, broken[p])),
        **{f"matcher: {name}": hits for name, hits in both_ways(MATCHER).items()},
        **{f"other head: {name}": hits for name, hits in both_ways(OTHER).items()},
    }
)

# %% [markdown]
# That was one wrong pair. Take sequences with several, and force the head at all ten places to look at the mirror, as if
# nothing were wrong anywhere:

# %%
drawn = task.make_data(size=1000, seed=2).to(model.cfg.device)
several = drawn.tokens[~drawn.is_palindrome]


def all_is_well(head):
    """Which of `several` are rejected when the head looks at the mirror from each place."""
    pattern = model.run_with_cache(several)[1]["pattern", 0].clone()
    for place in SECOND_HALF:
        pattern[:, head[1], place] = 0
        pattern[:, head[1], place, task.mirror(place)] = 1
    with patch(model, "pattern", 0, pattern, heads=[head[1]]):
        return verdict(model, several) < 0


pictures.print_shares(
    {
        "several pairs wrong": verdict(model, several) < 0,
        "… the matcher told that all is well": all_is_well(MATCHER),
        "… the other head told so": all_is_well(OTHER),
    }
)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# For one changed value the row is **needed** as well as enough: with it put right, the model accepts nearly all broken
# sequences, and the control changes little.
#
# With several wrong pairs that is less so. In `seed0` one in thirty is still rejected; in `seed4` half. There is
# a second route, and nobody has explained it. Keep the claim as small as
# its evidence: *for one changed value*.
# </details>
#
# So one row of one head tells `END` that a value is wrong. In which words?

# %% [markdown]
# ## 5 · What does it say?
#
# If the matcher does not look at the mirror when the values differ, where does it look?

# %%
for when in ("agree", "differ"):
    runs = {p: layer_0[p if when == "differ" else "intact"] for p in SECOND_HALF}
    rows = {p: pattern[:, MATCHER[1], p].mean(0) for p, pattern in runs.items()}
    mirror = sum(row[task.mirror(p)] for p, row in rows.items()) / len(rows)
    itself = sum(row[p] for p, row in rows.items()) / len(rows)
    print(f"values {when}: attention to the mirror {mirror:.2f}, to itself {itself:.2f}")

# %% [markdown]
# When a head attends from place $p$ to place $j$, it writes $j$'s value vector, times $W_O$, at $p$. So what the matcher writes
# at $p$ comes mostly from the mirror if all is well, and mostly from $p$ itself if not. `END` has to see the difference. Three
# hypotheses about what it reads there:
#
# - **half**: "I looked at the second half, so something is wrong."
# - **itself**: "I looked at myself, so something is wrong."
# - **name**: "I looked at place $j$", whoever says it; and layer 1 has learned which names mean trouble.
#
# You can tell them apart by making the matcher say things it never says: write at *every* place the message about *every*
# place, on palindromes, and see which are rejected.

# %%
predictions.sketches().show()

# %% [markdown]
# **Prediction 4.** Each sketch belongs to one hypothesis (in the third kind, *which* columns are dark is open). Which will come?
#
# - **a** the sketch of “second half = wrong”
# - **b** the sketch of “I looked at place j”
# - **c** the sketch of “I looked at myself”

# %%
predictions.what_it_says(...)

# %% [markdown]
# ### Exercise 6 · `send_message` (core, an experiment)
# *Difficulty ●●●○○ · 12 minutes*
#
# **Why:** to decode a message, send one yourself.
#
# Return the logit differences on `tokens` when `head` writes **at `place`** what it would if it attended there wholly to
# position `source`. All else stays as in the run. `source` may come after `place`: then the message is one that the causal mask
# would never let it write.
#
# A fact to use: a head's `z` at a place is the mean of its values `v`, weighted by its attention. Attending wholly to $j$ makes
# `z` there equal to `v` at $j$. Here `patch` wants a whole `z` (sequence, position, head, `d_head`).
#
# <details><summary>Hint 1</summary>
#
# One run for the cache, one with the patch. Which entries of `z` change, and what do they become?
# </details>
# <details><summary>Hint 2</summary>
#
# Work on `cache["z", layer].clone()`, so that nothing in the cache changes; patch with `heads=` and `positions=`.
# </details>


# %% nbgrader={"grade": false, "grade_id": "send_message", "locked": false, "schema_version": 3, "solution": true, "task": false}
def send_message(
    model,
    head: tuple[int, int],
    tokens: Int[Tensor, "sequence position"],
    place: int,
    source: int,
) -> Float[Tensor, " sequence"]:
    """Logit differences when the head writes at `place` as if it attended to `source`."""
    ### BEGIN SOLUTION
    layer, index = head
    _, cache = model.run_with_cache(tokens)
    z = cache["z", layer].clone()
    z[:, place, index] = cache["v", layer][:, source, index]
    with patch(model, "z", layer, z, heads=[index], positions=[place]):
        verdict = model(tokens)[:, -1]
    return verdict[:, 1] - verdict[:, 0]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_send_message", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.send_message(send_message)

# %%
send = checks.send_message.working(send_message)
few, ALL_PLACES = intact[:100], list(range(1, END))
sent = [
    torch.stack([send(model, MATCHER, few, p, j) for j in ALL_PLACES]) for p in SECOND_HALF
]
heard = torch.stack(sent)  # logit differences (place, message, sequence)
pictures.share_map(
    (heard < 0).float().mean(-1),
    title="Share rejected, by place and message (100 palindromes a cell)",
    x="message: the place that it is about",
    y="place where it is written",
    x_labels=ALL_PLACES,
    y_labels=SECOND_HALF,
).show()

# %%
message = torch.tensor(ALL_PLACES).expand(len(SECOND_HALF), -1)
written_at = torch.tensor(SECOND_HALF)[:, None].expand_as(message)
readings = {
    "half": (message > task.N_PAIRS).long(),
    "itself": (message == written_at).long(),
    "name": message,
    "(the place where it is written)": written_at,
}
explained = {}
for name, group in readings.items():
    values, labels, which = heard.mean(-1).cpu(), *group.unique(return_inverse=True)
    means = torch.stack([values[group == label].mean() for label in labels])
    explained[name] = float(means[which].var(correction=0) / heard.var(correction=0))
    print(
        f"share of the variance explained by {name:32s} {pictures.short(explained[name])}"
    )
predictions.what_it_says.compare(max(("half", "itself", "name"), key=explained.get))

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Columns. What counts is the place that the message is *about*; where it is written hardly matters. "I looked at 14" is as bad
# when 17 says it as when 14 does, so it is not *itself*. And it is not *half*: names of the second half are heard, but
# never all of them, and a name of the first half can be heard at some places (in `seed0`, place 1). ("Name" contains "half", so it must
# explain at least as much: read the gap between the two, and the columns.)
#
# In `seed0`, the unheard name in the second half is 20. Now read row 20: there the other names are heard as well as
# anywhere. `END` is not blind to that *place*. It is deaf to its *name*. (In `seed2` and `seed3` one row is dark nearly throughout: there
# `END` rests on that place, and any other message is trouble.)
# </details>
#
# A name is heard by somebody. Through which door does it come in?
#
# A head of layer 1 has three inputs: queries, keys and values. The matcher's row changes the residual stream at one place,
# and the readers take their keys and values from there.
#
# **Prediction 5.** Which of these inputs have to carry the row's message, for the model to reject a palindrome?
#
# - **a** values alone
# - **b** keys alone
# - **c** queries
# - **d** keys and values together; neither alone is enough

# %%
predictions.which_inputs(...)

# %% [markdown]
# ### Exercise 7 · `swap_inputs` (core, an experiment: path patching)
# *Difficulty ●●●●○ · 12 minutes*
#
# **Why:** a swap says that a message matters. A *path patch* says which way it takes.
#
# First the source: a run on `intact` in which **only `head`'s row at `position` is swapped** (the intervention of exercise 4, not
# the run on `broken`). Then return the logit differences of another run on `intact`, in which the heads `readers` (indices) of
# **the layer after `head`'s** get the activations named in `inputs` (some of `"q"`, `"k"`, `"v"`) from the source: keys and
# values at `position`, queries at the last position. All else is intact.
#
# The tool: `with record(model, name, …) as seen:` keeps activations of the runs inside it in `seen[name]`, under full names such as
# `get_act_name("k", layer)`. Blocks can be joined: `with patch(…), record(…) as seen:`.
#
# <details><summary>Hint 1</summary>
#
# Three runs: one on `broken` for its pattern; one on `intact` with that row, recorded; one on `intact` with what was
# recorded. Return the last.
# </details>
# <details><summary>Hint 2</summary>
#
# A changing number of `with` blocks: `with contextlib.ExitStack() as stack:` and in a loop `stack.enter_context(patch(…))`.
# </details>
# <details><summary>Hint 3</summary>
#
# `patch(model, name, layer + 1, seen[get_act_name(name, layer + 1)], heads=readers, positions=[…])` for each name of `inputs`.
# </details>


# %% nbgrader={"grade": false, "grade_id": "swap_inputs", "locked": false, "schema_version": 3, "solution": true, "task": false}
def swap_inputs(
    model,
    head: tuple[int, int],
    inputs: tuple[str, ...],
    intact: Int[Tensor, "sequence position"],
    broken: Int[Tensor, "sequence position"],
    position: int,
    readers: list[int],
) -> Float[Tensor, " sequence"]:
    """Logit differences on `intact` when inputs of the `readers` carry one swapped row."""
    ### BEGIN SOLUTION
    from contextlib import ExitStack

    layer, index = head
    names = {name: get_act_name(name, layer + 1) for name in inputs}
    pattern = model.run_with_cache(broken)[1]["pattern", layer]
    with (
        patch(model, "pattern", layer, pattern, heads=[index], positions=[position]),
        record(model, *names.values()) as seen,
    ):
        model(intact)
    with ExitStack() as stack:
        for name, full_name in names.items():
            at = intact.shape[1] - 1 if name == "q" else position
            value = seen[full_name]
            stack.enter_context(
                patch(model, name, layer + 1, value, heads=readers, positions=[at])
            )
        verdict = model(intact)[:, -1]
    return verdict[:, 1] - verdict[:, 0]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_swap_inputs", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.swap_inputs(swap_inputs)

# %%
through = checks.swap_inputs.working(swap_inputs)
INPUTS = {"queries": "q", "keys": "k", "values": "v", "keys and values": "kv"}


def carried(inputs, readers, head=MATCHER):
    """Which palindromes are rejected when these inputs of these readers carry a row."""
    return rejected(
        lambda p: through(model, head, tuple(inputs), intact, broken[p], p, readers)
    )


came_by = {name: carried(inputs, BOTH) for name, inputs in INPUTS.items()}
pictures.share_map(
    torch.stack([hits.float().mean(-1) for hits in came_by.values()]),
    title="Share rejected, by swapped input (300 a place)",
    x="changed place",
    y="inputs of layer 1",
    x_labels=SECOND_HALF,
    y_labels=list(INPUTS),
).show()
pictures.print_shares(came_by)

# %%
gap = 0.0
for place in SECOND_HALF:
    both = through(model, MATCHER, ("k", "v"), intact, broken[place], place, BOTH)
    gap = max(
        gap, (both - swap(model, MATCHER, intact, broken[place], place)).abs().max().item()
    )
print(f"keys and values together, against the swap of section 4: largest gap {gap:.4f}")
shares = {name: hits.float().mean().item() for name, hits in came_by.items()}
enough = [name for name in INPUTS if shares[name] > 0.9 * does[MATCHER]]
predictions.which_inputs.compare(enough[0])

# %% [markdown]
# What do the key and the value do alone? Watch `END` while place 14 gets one of them (means over 300):


# %%
def watch(name, run):
    """END's attention to place 14, in the head that attends there most, and its verdict."""
    logits, cache = run
    attention = cache["pattern", 1][:, :, END, 14].mean(0).max()
    vote = (logits[:, -1, 1] - logits[:, -1, 0]).mean()
    print(f"{name:14s} attention to place 14 {attention:.2f}, logit difference {vote:6.2f}")


with patch(model, "pattern", 0, layer_0[14], heads=[MATCHER[1]], positions=[14]):
    row_swapped = model.run_with_cache(intact)
watch("intact", model.run_with_cache(intact))
for name in ("key", "value"):
    with patch(model, name[0], 1, row_swapped[1][name[0], 1], positions=[14]):
        watch(name, model.run_with_cache(intact))
watch("key and value", row_swapped)

# %% [markdown]
# In the table of inputs, two results are no findings. Which, and why do they make good controls?
#
# <details><summary>What you should see</summary>
#
# **Queries** *must* do nothing: the row writes at its own place, and `END`'s query is made from `END`'s own stream. **Keys and
# values together** *must* be the swap of section 4, because there is no third way to `END`. If either fails, the patch is wrong.
#
# The finding is what neither does alone. *The verdict is written by values, so values should be enough*: this hypothesis is
# dead, because without the key nobody looks. In `seed0` the key alone does make `END` look, but what it finds there still
# says "all is well". **The key makes `END` look (K-composition), the value is what it then says (V-composition).** (In `seed2` and `seed3` keys alone turn a third of the
# verdicts: there `END` seems to be pulled away from a place whose vote it needs. Values alone turn next to none in any of five
# models.)
# </details>
#
# Last, who listens to whom? The same path patch, keys and values, into one head of layer 1 at a time:

# %%
listening = torch.stack([carried("kv", [reader]).float().mean(-1) for reader in BOTH])
pictures.share_map(
    listening,  # (reader, place)
    title="Share rejected, by reader (300 a place)",
    x="changed place",
    y="the only reader",
    x_labels=SECOND_HALF,
    y_labels=[f"1.{reader}" for reader in BOTH],
).show()
READERS = {
    place: [(1, reader) for reader in BOTH if listening[reader, i] > 0.5]
    for i, place in enumerate(SECOND_HALF)
}
print(READERS)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# In `seed0` nine places have one reader each, and one place has none. How the places are shared out differs from model to model: both
# heads, unevenly, or one head for all.
# </details>

# %% [markdown]
# ## 6 · Put it together
#
# You have all the pieces. Draw your mechanism before you see ours: fill in what your own results say, and run the cell again as
# often as you like. What is `None` stays open.

# %%
mine = {
    "who compares": None,  # a head, such as (0, 0)
    "looks at, if equal": None,  # "mirror" or "itself"
    "looks at, if different": None,  # "mirror" or "itself"
    "what it names": None,  # in your own words
    "arrives by": None,  # "queries", "keys", "values", or several
    "who reads": None,  # a list of heads
    "unheard name": None,  # a place
    "what END says": None,  # in your own words
}
assemble(mechanism.PLAN, mine, title="How the model knows: your pieces").show()

# %% [markdown]
# Does yours stand? Then look at ours, for this model:

# %%
ours = mechanism.pieces(MATCHER, READERS, WEAK)
assemble(mechanism.PLAN, ours, title="How the model knows: our pieces").show()

# %% [markdown]
# Where yours differs: which figure decides between the two? If none does, you may have found something.
#
# A mechanism that is right knows its own failures. Yours now names a pair that the model should miss. (Not every unheard
# name makes one: in `seed3` a change at place 11 is noticed three times in four, though its name goes unheard.) Perhaps there is
# a second kind, at the other pairs, that depends on the values.
#
# **Prediction 6.** At the places other than the weak one, which wrong value is accepted most often?
#
# - **a** the next number (15 for 14)
# - **b** all alike: only the place matters
# - **c** the one with the highest score in the matcher's token circuit

# %%
predictions.which_values(...)

# %% [markdown]
# ## 7 · Break it
#
# First your own best failure from the start. Which of the two kinds is it, or is it a third?

# %%
best_try.report()

# %% [markdown]
# To find confusable values we need the matcher's **token circuit**: the attention score that each value, as a query, gives each
# value as a key. (Exercise 10 takes it apart.) Here is one failure of each kind, with its probability:


# %%
token_scores = circuits.qk_scores(model, MATCHER, model.W_E[:-2], model.W_E[:-2])
token_scores.fill_diagonal_(-torch.inf)  # equal values are not confused, they are equal
# For each value at the mirror: the wrong value whose query likes it best.
LIKED = token_scores.argmax(0)


def with_value(tokens, place, of_mirror):
    """The sequences with `of_mirror[value at the mirror]` at a place."""
    changed = tokens.clone()
    changed[:, place] = of_mirror[changed[:, task.mirror(place)]]
    return changed


elsewhere = [place for place in SECOND_HALF if place != WEAK]
liked = {place: with_value(intact, place, LIKED) for place in elsewhere}
for tokens in (broken[WEAK], torch.cat(list(liked.values()))):
    scores = verdict(model, tokens)
    worst = task.str_tokens(tokens[scores.argmax()])
    note = f"P(palindrome) = {pictures.short(scores.max().sigmoid())}"
    plotting.display_sequence(worst, mirrored=True, note=note)

# %% [markdown]
# Two sequences prove that both kinds exist. How often do they happen? First the values:

# %%
NEXT = torch.tensor([*range(1, task.N_VALUES), 0], device=model.cfg.device)


def accepted(batches):
    """Which sequences are accepted: (place, sequence)."""
    return torch.stack([verdict(model, tokens) > 0 for tokens in batches])


kinds = {
    "liked": accepted(liked.values()),
    "next": accepted(with_value(intact, place, NEXT) for place in elsewhere),
    "random": accepted(broken[place] for place in elsewhere),
}
pictures.print_shares(
    {f"accepted, wrong value {name}": hits for name, hits in kinds.items()}
)
shares = {name: pictures.share(hits) for name, hits in kinds.items()}
best = max(shares, key=lambda name: shares[name].share)
above_chance = shares[best].low > shares["random"].high
predictions.which_values.compare(best if above_chance else "alike")

# %% [markdown]
# Then the places, one mismatched pair at a time:

# %%
PAIRS = list(range(1, task.N_PAIRS + 1))  # 1 is the outermost
one_pair = [task.one_mismatch(2000, pair, seed=pair).to(model.cfg.device) for pair in PAIRS]
noticed_pair = torch.stack([verdict(model, drawn.tokens) < 0 for drawn in one_pair])
pictures.by_place(
    {"": {"": noticed_pair}},
    title="One mismatched pair: share noticed (2,000 a pair)",
    x="pair, 1 the outermost",
    y="share called “no palindrome”",
    places=PAIRS,
).show()
pictures.print_shares({"one pair": noticed_pair, "several": verdict(model, several) < 0})

# %% [markdown]
# <details><summary>What you should see</summary>
#
# In `seed0` one pair is not noticed at all, and the model's near perfect accuracy hid it: a random non-palindrome breaks at
# about five pairs, and one of the others gives it away.
#
# At the other places nearly every random change is noticed. Let the weights choose the wrong value, and several times as many
# slip through. The next number does about as badly as chance: to this model, 14 and 15 are just two tokens.
# </details>

# %% [markdown]
# ### Exercise 8 · `counterexamples` (core, an experiment)
# *Difficulty ●●●○○ · 16 minutes*
#
# **Why:** an explanation that says where the model must fail can be proven wrong. That is what makes it worth having.
#
# Give `counterexamples`: a tensor of **50** different token sequences, (50, 22), none of them a palindrome, each `START`, twenty
# values from 0 to 30, `END`.
#
# - At least **40** must fool the model.
# - Of those that do, at least **20** must be intact at every pair that the model misses more than half the time (if it
#   misses none so often: at the pair that it misses most). Fifty failures at one pair are one failure, fifty times.
#
# The check measures which pairs these are. It also tells sequences that are **in distribution** (six different values or more
# in the first half) from others; both count. By hand or by code, from weights or from figures.
#
# <details><summary>Hint 1</summary>
#
# Two kinds of failure, so two searches. For each, start from many palindromes (`task.make_data`), and keep the best.
# </details>
# <details><summary>Hint 2</summary>
#
# `noticed_pair.float().mean(-1)` says which pairs to leave alone in the second search. There, try the liked value at every place.
# </details>
# <details><summary>Hint 3</summary>
#
# `tried[verdict(model, tried).argsort(descending=True)[:30]]`, where `tried` are a few thousand sequences from `with_value`.
# </details>

# %% nbgrader={"grade": false, "grade_id": "counterexamples", "locked": false, "schema_version": 3, "solution": true, "task": false}
### BEGIN SOLUTION
drawn = task.make_data(size=800, seed=5).to(model.cfg.device)
start_from = drawn.tokens[drawn.is_palindrome]
share_noticed = dict(zip(PAIRS, noticed_pair.float().mean(-1).tolist(), strict=True))
missed = [pair for pair, share in share_noticed.items() if share < 0.5]
missed = missed or [min(share_noticed, key=share_noticed.get)]


def most_accepted(places, count):
    """Sequences with one liked wrong value at these places: the most accepted ones."""
    tried = torch.cat([with_value(start_from, place, LIKED) for place in places])
    return tried[verdict(model, tried).argsort(descending=True)[:count]]


holes = [task.mirror(pair) for pair in missed]
good_places = [place for place in SECOND_HALF if place not in holes]
counterexamples = torch.cat([most_accepted(holes, 20), most_accepted(good_places, 30)])
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check_counterexamples", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.counterexamples(counterexamples)

# %%
found = checks.counterexamples.working(counterexamples)
at_weak = found[:, WEAK] != found[:, task.mirror(WEAK)]
groups = {
    "yours, at the weak pair": found[at_weak],
    "yours, elsewhere": found[~at_weak],
    "one random change, elsewhere": torch.cat([broken[place][:100] for place in elsewhere]),
}
plotting.strip(
    {name: verdict(model, tokens) for name, tokens in groups.items() if len(tokens)},
    title="Logit difference of non-palindromes, by where they come from",
    x="one sequence a point",
    y="logit difference",
    reference_lines={"above this line the model is fooled": 0.0},
).show()

# %% [markdown]
# Compare the last two: yours and random single changes, both away from the weak place.
#
# This is the end of the core. You have a mechanism, and it knows where it fails. What follows mends the model, looks closer,
# and tests how far the story can be trusted.

# %% [markdown]
# ## 8 · Mend it (optional)
#
# You know of two things that are odd at the weak place. The matcher may not look at the mirror from there, and its name may not be
# heard. Either could be *the* cause of the blindness. So mend them: give the matcher the attention that it ought to have, or
# lend the place a name that is heard, or do both.
#
# **Prediction 7.** What will make the model see there: accept palindromes, and reject broken sequences?
#
# - **a** either of the two
# - **b** only both together
# - **c** right attention alone
# - **d** a name that is heard, alone

# %%
predictions.how_to_mend(...)

# %% [markdown]
# ### Exercise 9 · `mend` (an experiment)
# *Difficulty ●●●●○ · 15 minutes*
#
# **Why:** two suspects, one blindness. Only an experiment that moves each alone, and both, can tell.
#
# Return the logit differences on `tokens` when `head`, at query `place` only,
#
# - attends wholly to `attend_to` (with `None`: as it does in the run), and
# - in *that row's* sum finds, where the value vector `v` of `place` stood, that of position `speak_as` (with `None`: its own).
#
# Other queries still see the true value of `place`. Position 0 is a position, not `None`.
#
# <details><summary>Hint 1</summary>
#
# `z` at the place is the row times the values. Change the row, change one value, multiply, and patch `z`.
# </details>
# <details><summary>Hint 2</summary>
#
# `torch.einsum("sk,skd->sd", row, values)`, with clones of the head's row at `place` and of its `v`.
# </details>


# %% nbgrader={"grade": false, "grade_id": "mend", "locked": false, "schema_version": 3, "solution": true, "task": false}
def mend(
    model,
    head: tuple[int, int],
    tokens: Int[Tensor, "sequence position"],
    place: int,
    attend_to: int | None = None,
    speak_as: int | None = None,
) -> Float[Tensor, " sequence"]:
    """Logit differences with the head's attention, or its own value, at `place` replaced."""
    ### BEGIN SOLUTION
    layer, index = head
    _, cache = model.run_with_cache(tokens)
    row = cache["pattern", layer][:, index, place].clone()
    if attend_to is not None:
        row[:] = 0
        row[:, attend_to] = 1
    values = cache["v", layer][:, :, index].clone()
    if speak_as is not None:
        values[:, place] = values[:, speak_as]
    z = cache["z", layer].clone()
    z[:, place, index] = torch.einsum("sk,skd->sd", row, values)
    with patch(model, "z", layer, z, heads=[index], positions=[place]):
        verdict = model(tokens)[:, -1]
    return verdict[:, 1] - verdict[:, 0]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_mend", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.mend(mend)

# %%
mended = checks.mend.working(mend)
LENT = SECOND_HALF[int(noticed.argmax())]  # the name of the place that is noticed best
right_key = {"intact": task.mirror(WEAK), "broken": WEAK}  # where the matcher ought to look
batches = {"intact": intact, "broken": broken[WEAK]}
outcome = {}
for way in ("nothing", "attention", "message", "both"):
    for kind, tokens in batches.items():
        attend_to = right_key[kind] if way in ("attention", "both") else None
        speak_as = LENT if way in ("message", "both") else None
        differences = mended(model, MATCHER, tokens, WEAK, attend_to, speak_as)
        outcome[f"{kind}, mended: {way}"] = differences < 0
pictures.print_shares(outcome)

# %%
rate = {name: hits.float().mean() for name, hits in outcome.items()}
works = [
    way
    for way in ("attention", "message", "both")
    if rate[f"broken, mended: {way}"] > 0.9 and rate[f"intact, mended: {way}"] < 0.1
]
print(
    f"weak place {WEAK}, lent the name of {LENT}; the model sees with: {', '.join(works)}"
)
predictions.how_to_mend.compare(
    "either" if works[:2] == ["attention", "message"] else works[0]
)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Right attention alone does not do it: the message then is right, and nobody listens to that name. A heard name alone is worse:
# where the matcher looks at itself *always*, a name that is heard makes the model reject palindromes, too. Both together:
# it sees, as well as at any other place.
#
# So the blindness has two halves, and each keeps the other in place: nobody need listen to a place that always says the same, and a
# place that nobody listens to need not look. That is a story, not a result. Which came first, training would have to show.
# </details>

# %% [markdown]
# ## 9 · More looking (optional)
#
# Why do equal values find each other, and at the right place? Two circuits read from the weights: values give each other
# scores, and so do positions.

# %% [markdown]
# ### Exercise 10 · `token_circuit` (a measurement)
# *Difficulty ●●●○○ · 12 minutes*
#
# **Why:** a pattern shows what happened on some inputs. The weights show it for all pairs of values at once.
#
# For a head `(layer, head)` return the attention score that each value (as a query, rows) gives each value (as a key, columns):
# `W_E` on both sides of $W_Q W_K^T$, without its last two rows (the special tokens), divided by $\sqrt{d_\text{head}}$ and by the
# LayerNorm `scale` once on each side. No biases, no softmax. Write out the product; `circuits.qk_scores` has done it for you once.
#
# <details><summary>Hint</summary>
#
# `model.W_Q[layer, head]` has shape (d_model, d_head); `queries @ keys.T` has the queries in its rows.
# </details>


# %% nbgrader={"grade": false, "grade_id": "token_circuit", "locked": false, "schema_version": 3, "solution": true, "task": false}
def token_circuit(
    model, head: tuple[int, int], scale: float
) -> Float[Tensor, "query_value key_value"]:
    """Attention scores that the values' embeddings give each other in one head."""
    ### BEGIN SOLUTION
    layer, index = head
    values = model.W_E[:-2] / scale
    queries = values @ model.W_Q[layer, index]
    keys = values @ model.W_K[layer, index]
    return queries @ keys.T / model.cfg.d_head**0.5
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_token_circuit", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.token_circuit(token_circuit)

# %%
_, clean = model.run_with_cache(intact)
scale = clean["scale", 0, "ln1"].mean().item()
circuit_of = checks.token_circuit.working(token_circuit)
by_value = {h: circuit_of(model, (0, h), scale) for h in BOTH}
plotting.heatmap_facets(
    {f"head 0.{h}": scores for h, scores in by_value.items()},
    title="Full QK circuit: scores that values give each other",
    x="key value",
    y="query value",
    unit="score",
).show()
for h, scores in by_value.items():
    top = scores.argmax(-1).cpu() == torch.arange(len(scores))
    print(f"head 0.{h}: the value itself is on top in {int(top.sum())} of {len(top)} rows")

# %%
by_position = {}
for h in BOTH:
    scores = circuits.qk_scores(model, (0, h), model.W_pos, model.W_pos, scale)
    by_position[f"head 0.{h}"] = circuits.causal(scores).softmax(-1)
plotting.heatmap_facets(
    by_position,
    title="Attention from the positions alone",
    x="key position",
    y="query position",
    unit="attention",
    signed=False,
).show()

# %% [markdown]
# <details><summary>What you should see</summary>
#
# In the matcher equal values like each other best: a diagonal. And positions like their mirror: with the main diagonal a λ, in
# `seed0` with a gap at the weak place. There the *other* head has a diagonal, too, in 84 % of its rows, and swapping its row turned next to nothing: what a circuit
# could do is not what the model uses.
# </details>

# %% [markdown]
# ### Exercise 11 · `attention_without_positions` (an experiment)
# *Difficulty ●●●○○ · 8 minutes*
#
# **Why:** to see what positions add, take them away.
#
# `tokens` is one sequence. Return the pattern of `head`, a head of layer 0, when the residual stream holds token embeddings *only*. All
# else is the model's: LayerNorm (of this shorter vector), biases, causal mask, softmax over keys.
#
# <details><summary>Hint</summary>
#
# The position embedding passes the hook `"hook_pos_embed"`; `model.hooks(fwd_hooks=[(name, function)])` is a `with` block.
# </details>


# %% nbgrader={"grade": false, "grade_id": "attention_without_positions", "locked": false, "schema_version": 3, "solution": true, "task": false}
def attention_without_positions(
    model, head: tuple[int, int], tokens: Int[Tensor, " position"]
) -> Float[Tensor, "query key"]:
    """The pattern of a head of layer 0 without the position embeddings."""
    ### BEGIN SOLUTION
    layer, index = head

    def nothing(activation, hook):
        return torch.zeros_like(activation)

    with model.hooks(fwd_hooks=[("hook_pos_embed", nothing)]):
        _, cache = model.run_with_cache(tokens[None])
    return cache["pattern", layer][0, index]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_attention_without_positions", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.attention_without_positions(attention_without_positions)

# %%
repetitive = torch.tensor([task.START, *[1, 2, 3, 4, 5] * 4, task.END]).to(model.cfg.device)
_, with_positions = model.run_with_cache(repetitive[None])
without = checks.attention_without_positions.working(attention_without_positions)
plotting.heatmap_facets(
    {
        "tokens only": without(model, MATCHER, repetitive),
        "tokens and positions": with_positions["pattern", 0][0, MATCHER[1]],
    },
    title="The matcher on 1 2 3 4 5, four times",
    x="key position",
    y="query position",
    unit="attention",
    signed=False,
).show()

# %% [markdown]
# Left, stripes: every place with the same value gets its part. Right, positions choose among them.

# %% [markdown]
# ### Exercise 12 · `composed_readings` (a measurement)
# *Difficulty ●●●○○ · 12 minutes*
#
# **Why:** you decoded the names by experiment. Can they be read from the weights alone?
#
# `query` is a reader's query at `END`, of length `d_head`. Return two rows, one number a position each, all positions:
#
# - row 0, what the name of the position is worth as a **key**: $W_\text{pos}\, W_{OV}^\text{matcher}\, W_K^\text{reader} \cdot q \,/ \sqrt{d_\text{head}}$;
# - row 1, its **vote**: $W_\text{pos}\, W_{OV}^\text{matcher}\, W_{OV}^\text{reader} \cdot (W_U[:, 1] - W_U[:, 0])$.
#
# No biases, no LayerNorm scales.
#
# <details><summary>Hint</summary>
#
# `circuits.ov_output(model, head, rows)` moves rows through a head's OV circuit.
# </details>


# %% nbgrader={"grade": false, "grade_id": "composed_readings", "locked": false, "schema_version": 3, "solution": true, "task": false}
def composed_readings(
    model,
    matcher: tuple[int, int],
    reader: tuple[int, int],
    query: Float[Tensor, " d_head"],
) -> Float[Tensor, "2 position"]:
    """What each position's name is worth to a reader: row 0 as a key, row 1 as a vote."""
    ### BEGIN SOLUTION
    layer, index = reader
    moved = circuits.ov_output(model, matcher, model.W_pos)
    keys = moved @ model.W_K[layer, index] @ query / model.cfg.d_head**0.5
    votes = circuits.ov_output(model, reader, moved) @ (model.W_U[:, 1] - model.W_U[:, 0])
    return torch.stack([keys, votes])
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_composed_readings", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.composed_readings(composed_readings)

# %%
readings_of = checks.composed_readings.working(composed_readings)
_, seen = model.run_with_cache(data.tokens, names_filter=[get_act_name("q", 1)])
weights_say = {
    h: readings_of(model, MATCHER, (1, h), seen["q", 1][:, END, h].mean(0)).cpu()[:, 1:END]
    for h in BOTH
}
pictures.by_place(
    {
        "keys: score at END": {f"head 1.{h}": rows[0] for h, rows in weights_say.items()},
        "votes for “palindrome”": {
            f"head 1.{h}": rows[1] for h, rows in weights_say.items()
        },
    },
    title="The names of the twenty places, read from the weights",
    y="without LayerNorm scales",
    places=ALL_PLACES,
).show()

# %%
for h, rows in weights_say.items():
    print(f"head 1.{h}: correlation of keys and votes {torch.corrcoef(rows)[0, 1]:.2f}")
loudest = torch.stack([rows[0] for rows in weights_say.values()]).max(0).values
measured = -heard.mean((0, 2)).cpu()  # your columns
ranks = torch.stack([loudest, measured]).argsort().argsort().double()
print(f"rank correlation of louder key and columns {torch.corrcoef(ranks)[0, 1]:.2f}")

# %% [markdown]
# Keys and votes are nearly one code: what makes `END` look also speaks against the palindrome.

# %% [markdown]
# ### Exercise 13 · `verdict_by_position` (a measurement)
# *Difficulty ●●●○○ · 10 minutes*
#
# **Why:** those were position embeddings alone. On real sequences the matcher moves whole values. Is what it says still about
# the place, or about the number that stands there?
#
# For each sequence and each value (all positions but the first and the last), take the matcher's value vector `v` there, move it
# through its $W_O$ and the reader's $W_{OV}$, and return the product with $W_U[:, 1] - W_U[:, 0]$. No scales.
#
# <details><summary>Hint</summary>
#
# `cache["v", layer]` has shape (sequence, position, head, d_head).
# </details>


# %% nbgrader={"grade": false, "grade_id": "verdict_by_position", "locked": false, "schema_version": 3, "solution": true, "task": false}
def verdict_by_position(
    model,
    matcher: tuple[int, int],
    reader: tuple[int, int],
    tokens: Int[Tensor, "sequence position"],
) -> Float[Tensor, "sequence value_position"]:
    """What the matcher's value at each position votes for through the reader."""
    ### BEGIN SOLUTION
    layer, index = matcher
    _, cache = model.run_with_cache(tokens)
    moved = cache["v", layer][:, 1:-1, index] @ model.W_O[layer, index]
    return circuits.ov_output(model, reader, moved) @ (model.W_U[:, 1] - model.W_U[:, 0])
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_verdict_by_position", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.verdict_by_position(verdict_by_position)

# %%
READER = (1, int(listening.mean(-1).argmax()))  # who hears most
votes_of = checks.verdict_by_position.working(verdict_by_position)
votes = votes_of(model, MATCHER, READER, data.tokens[:100]).cpu()
where = torch.tensor(ALL_PLACES)
plotting.scatter(
    {
        "100 sequences": (where.repeat(100), votes.flatten()),
        "one of them": (where, votes[0]),
    },
    title="What the value at each place votes for, if the matcher looks there",
    x="place",
    y="towards “palindrome” (logits × scales)",
).show()
between = votes.mean(0).var(correction=0) / votes.var(correction=0)
print(f"reader {READER}: {pictures.short(between)} of the variance lies between places")


# %%
def vote_written(tokens, head):
    """What a head of layer 0 *did* write, as votes through READER: (sequence, place)."""
    _, cache = model.run_with_cache(tokens)
    written = cache["z", 0][:, SECOND_HALF, head] @ model.W_O[0, head]
    return circuits.ov_output(model, READER, written) @ (model.W_U[:, 1] - model.W_U[:, 0])


panels = {}
for name, head in (("matcher", MATCHER[1]), ("other head", OTHER[1])):
    written = vote_written(data.tokens, head)
    for how, value in (("mean", written.mean(-1)), ("lowest", written.min(-1).values)):
        yes, no = value[data.is_palindrome], value[~data.is_palindrome]
        panels[f"{name}, {how} of ten places"] = {"palindromes": yes, "others": no}
        auc = (yes[:, None] > no).float().mean()
        print(f"{name}, {how} of the ten votes: AUC {pictures.short(auc)}")

# %%
plotting.histogram_facets(
    panels,
    title="Votes written in the second half",
    x="vote (logits × scales)",
    y="sequences",
).show()

# %% [markdown]
# One place out of order is enough, and a mean over ten places dilutes it. The lowest of the ten does not: a hint at what the softmax of
# `END`'s attention does, when it picks one place.

# %% [markdown]
# ### Exercise 14 · `composition_score` (a measurement)
# *Difficulty ●●○○○ · 6 minutes*
#
# **Why:** a screening of all pairs of heads, before any detailed work. How good is it?
#
# For matrices applied to row vectors, $x \to xA \to xAB$, return $\lVert AB\rVert / (\lVert A\rVert\,\lVert B\rVert)$ with Frobenius
# norms, as a number. $A$ will be an early head's $W_{OV}$, and $B$ a late head's $W_{QK}$ (Q), its transpose (K) or its $W_{OV}$ (V).
#
# <details><summary>Hint</summary>
#
# `matrix.norm()` is the root of the sum of squares.
# </details>


# %% nbgrader={"grade": false, "grade_id": "composition_score", "locked": false, "schema_version": 3, "solution": true, "task": false}
def composition_score(
    A: Float[Tensor, "d_in d_mid"], B: Float[Tensor, "d_mid d_out"]
) -> float:
    """How much of what A writes, B reads: |AB| / (|A| |B|), between 0 and 1."""
    ### BEGIN SOLUTION
    return ((A @ B).norm() / (A.norm() * B.norm())).item()
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_composition_score", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.composition_score(composition_score)

# %%
score = checks.composition_score.working(composition_score)
W_OV = model.W_V @ model.W_O  # (layer, head, d_model, d_model)
W_QK = model.W_Q @ model.W_K.transpose(-1, -2)
reads = {"Q": W_QK[1], "K": W_QK[1].transpose(-1, -2), "V": W_OV[1]}
pairs = [(a, b) for a in BOTH for b in BOTH]
sizes = (model.cfg.d_model, model.cfg.d_head)
random = circuits.random_composition_scores(*sizes, n=1000, seed=0)
plotting.bar(
    [f"0.{a} → 1.{b}" for a, b in pairs],
    {kind: [score(W_OV[0, a], W[b]) for a, b in pairs] for kind, W in reads.items()},
    title="Composition scores of layer 0 with layer 1",
    x="pair of heads",
    y="|AB| / (|A| |B|)",
    reference_lines={"largest of 1,000 random pairs": random.max().item()},
).show()
turns = {f"0.{a} → 1.{b}": carried("kv", [b], head=(0, a)) for a, b in pairs}
pictures.print_shares(turns)

# %% [markdown]
# Under the figure stands what the row of 0.x, carried by keys and values into 1.y, really turns. Is there a bar above the line
# whose row turns nothing? A score says what a head *could* read. Whether it does, only an intervention shows.

# %% [markdown]
# ### Exercise 15 · `ablation_costs` (an experiment)
# *Difficulty ●●○○○ · 12 minutes*
#
# **Why:** it is the bluntest experiment, and covers every head and input at once.
#
# `labels` are 1 for palindromes, 0 for others. For each layer and head return by how many **nats** the mean cross-entropy at the last
# position rises when `activation` (`"q"`, `"k"`, `"v"` or `"z"`) of that head alone is ablated in the way `how` (such as `"mean"`)
# over this batch: `with ablate(model, [(layer, head)], activation=activation, how=how):`.
#
# <details><summary>Hint</summary>
#
# `torch.nn.functional.cross_entropy(logits_at_end, labels)` is a mean over sequences, in nats.
# </details>


# %% nbgrader={"grade": false, "grade_id": "ablation_costs", "locked": false, "schema_version": 3, "solution": true, "task": false}
def ablation_costs(
    model,
    tokens: Int[Tensor, "sequence position"],
    labels: Int[Tensor, " sequence"],
    activation: str,
    how: str,
) -> Float[Tensor, "layer head"]:
    """Nats that ablating one activation adds to the loss at END, one head at a time."""

    ### BEGIN SOLUTION
    def loss():
        return torch.nn.functional.cross_entropy(model(tokens)[:, -1], labels)

    costs = torch.zeros(model.cfg.n_layers, model.cfg.n_heads)
    before = loss()
    for layer in range(model.cfg.n_layers):
        for head in range(model.cfg.n_heads):
            with ablate(model, [(layer, head)], activation=activation, how=how):
                costs[layer, head] = loss() - before
    return costs
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_ablation_costs", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.ablation_costs(ablation_costs)

# %%
costs_of = checks.ablation_costs.working(ablation_costs)
costs = {}
for how in ("zero", "mean", "resample", "noise"):
    rows = [costs_of(model, data.tokens, data.labels.long(), act, how) for act in "qkvz"]
    costs[f"{how} ablation"] = torch.stack(rows).flatten(1)
plotting.heatmap_facets(
    costs,
    title="Loss added by ablating one activation of one head",
    x="head",
    y="activation",
    unit="nats",
    x_labels=[f"{layer}.{head}" for layer, head in HEADS],
    y_labels=list("qkvz"),
    signed=False,
    text=True,
).show()

# %%
accepted_with = {}
for how in ("zero", "mean", "resample"):
    with ablate(model, [READER], how=how):
        name = f"palindromes accepted, {READER} ablated: {how}"
        accepted_with[name] = verdict(model, data.tokens)[data.is_palindrome] > 0
pictures.print_shares(accepted_with)
_, written = model.run_with_cache(data.tokens, names_filter=[get_act_name("result", 0)])
for name, (_, head) in (("matcher", MATCHER), ("other head", OTHER)):
    output = written["result", 0][:, SECOND_HALF, head]
    same = output.mean(0).pow(2).sum() / output.pow(2).mean(0).sum()
    print(
        f"{name}: {pictures.short(same)} of what it writes is the same for all (mean square)"
    )

# %% [markdown]
# <details><summary>What you should see</summary>
#
# The ways disagree. A reader at zero casts no vote, and in `seed0` the other one decides. At its *mean* it casts the same vote for all: and since
# its votes against are louder (before the scale), the mean is against palindromes. So ask what was put in the place of what was
# taken out.
#
# The other head of layer 0 costs hardly anything at its mean, and still most of what it writes differs between sequences: "its mean
# serves as well" is not "it is constant".
# </details>

# %% [markdown]
# ### Exercise 16 · `stale_label` (a question: find the bug)
# *Difficulty ●●○○○ · 3 minutes*
#
# A notebook sets `layer, head = 0, 0` in an early cell, to draw a pattern. Many cells later:
#
# ```python
# target_layer, target_head = 1, 0
#
# def zero_queries(q, hook):
#     if hook.layer() == target_layer:
#         q[:, :, target_head] = 0
#     return q
#
# loss = loss_with_hook("q", target_layer, zero_queries) - loss_before
# print(f"zero-ablating q in head {layer}.{head}: {loss:.3f}")
# ```
#
# It prints `zero-ablating q in head 0.0: 2.491`. Whose queries were ablated?
#
# - **a** head 0.0's, as the line says
# - **b** head 1.0's
# - **c** nobody's: the hook does not match
# - **d** those of all heads of layer 1
#
# <details><summary>Hint</summary>
#
# Which variables does the hook read, and which does the last line print?
# </details>

# %% nbgrader={"grade": false, "grade_id": "stale_label", "locked": false, "schema_version": 3, "solution": true, "task": false}
### BEGIN SOLUTION
stale_label = "b"
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check_stale_label", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.stale_label(stale_label)

# %% [markdown]
# Last, does processing the weights change the model? Compare with the weights as they were trained:

# %%
raw = load_model("palindromes", processed=False)
a, b = (of(data.tokens[:500])[:, -1] for of in (raw, model))
gaps = (a - b, a.log_softmax(-1) - b.log_softmax(-1))
gap, log_gap = (difference.abs().max() for difference in gaps)
print(f"largest difference in logits {gap:.3f}, in log-probabilities {log_gap:.3f}")
print("largest mean over d_model (W_E, W_pos, W_O, W_U), over verdicts (W_U), largest b_V:")
for name, of in {"trained": raw, "processed": model}.items():
    means = [of.W_E.mean(-1), of.W_pos.mean(-1), of.W_O.mean(-1), of.W_U.mean(0)]
    means += [of.W_U.mean(1), of.b_V]
    print(f"{name:9s}", *(f"{mean.abs().max():.3f}" for mean in means))

# %% [markdown]
# ### Exercise 17 · `what_processing_keeps` (a question)
# *Difficulty ●●○○○ · 3 minutes*
#
# Which of these can change when weights are processed (LayerNorm folded, what writes to the residual stream centred, `W_U`
# centred over its outputs, `b_V` folded into `b_O`)?
#
# - **a** the probability of *palindrome*
# - **b** the logit difference
# - **c** the two logits, by the same amount
# - **d** the attention patterns
#
# <details><summary>Hint</summary>
#
# Compare the two printed differences. What can differ between two sets of logits with the same log-probabilities?
# </details>

# %% nbgrader={"grade": false, "grade_id": "what_processing_keeps", "locked": false, "schema_version": 3, "solution": true, "task": false}
### BEGIN SOLUTION
what_processing_keeps = "c"
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check_what_processing_keeps", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.what_processing_keeps(what_processing_keeps)

# %% [markdown]
# ## 10 · Does the story hold? (optional)
#
# Two ways to be wrong, and to find out. For the first, `scorer.scores([heads, …])` says how much of the model's work is left when
# every *other* head is resampled: its output `z` at each position comes from another sequence. 1 is all of it, 0 is chance.

# %%
tested = data.tokens[:500]
scorer = evidence.CircuitScorer(
    model,
    tested,
    lambda logits: (logits[:, -1].argmax(-1) == data.labels[:500]).float().mean().item(),
    chance=0.5,
    ablation="resample",
)
nothing, everything = scorer.scores([[], HEADS])
print(f"no head kept {nothing:.2f}   all heads kept {everything:.2f}")

# %% [markdown]
# ### Exercise 18 · `circuit` (evidence)
# *Difficulty ●●○○○ · 12 minutes*
#
# **Why:** "these heads do it" means that the rest is not needed.
#
# Give `circuit`, a list of **at most three** heads `(layer, head)`. With every other head resampled it must keep **.80** of
#
# $$\frac{\text{accuracy} - \tfrac12}{\text{accuracy of the whole model} - \tfrac12}$$
#
# on 500 sequences, and each head must be worth .02 of it. Embeddings and biases stay. Sites `(layer, head, position)` will do, too (the
# position is where the head *writes*).
#
# <details><summary>Hint</summary>
#
# Name the heads from sections 4 and 5, and ask `scorer.scores`. Does each of them earn its place?
# </details>

# %% nbgrader={"grade": false, "grade_id": "circuit", "locked": false, "schema_version": 3, "solution": true, "task": false}
### BEGIN SOLUTION
from itertools import combinations

threes = list(combinations(HEADS, 3))
three = threes[int(scorer.scores(threes).argmax())]
# Without the heads that are hardly worth anything:
pairs_of_heads = [tuple(other for other in three if other != head) for head in three]
lost = scorer.scores([three])[0] - scorer.scores(pairs_of_heads)
circuit = [head for head, worth in zip(three, lost, strict=True) if worth >= 0.03]
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check_circuit", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.circuit(circuit)

# %%
chosen = checks.circuit.working(circuit)
rest = [head for head in HEADS if head not in chosen]
without = {f"without {a}.{b}": [h for h in HEADS if h != (a, b)] for a, b in HEADS}
kept = {"yours kept": chosen, "yours resampled": rest, **without}
accuracies = scorer.values(list(kept.values()))
half = 1.96 * (accuracies * (1 - accuracies) / len(tested)).sqrt()
plotting.bar(
    list(kept),
    scorer.scores_of(accuracies).tolist(),
    errors=(half / (scorer.trained - scorer.chance)).tolist(),
    title="Share of the model's work that is left (and 95 % interval)",
    x="what is kept",
    y="score (1 all, 0 chance)",
).show()

# %% [markdown]
# Enough and needed, once more: the second bar keeps all *but* your heads. The last four drop one head each from the whole model.

# %% [markdown]
# ### Exercise 19 · `explanation` (evidence)
# *Difficulty ●●●●● · 40 minutes*
#
# **Why:** a story can sound right and predict nothing. This one has to predict the model without the model, *mistakes included*.
#
# Write `explanation(model)`. It takes what it needs from the weights, or from runs of the model, into a dict `numbers` of tensors, and returns
# `simulate, numbers`. `simulate(inputs, numbers)` gets sequences (sequence, 22), and returns for each 1 (palindrome) or 0, or booleans. It sees
# **its two arguments only**, and `torch`, `einops` and the like; what it calls has to be defined inside it.
#
# Half of the sequences it is tried on the model gets wrong. The score is the mean of two agreements with the model, where it is right and
# where it is wrong. The perfect algorithm scores .50, and so does its opposite; the best rule that never reads the model (accept if at most
# one pair differs) scores .58 in `seed0`. **.70** passes, with at most **2,500** numbers (the model has 8,262 parameters).
#
# <details><summary>Hint 1</summary>
#
# One head may be enough. Its pattern follows from embeddings, `W_Q`, `W_K`, `b_Q`; in layer 0, LayerNorm's scale is the root of the
# mean square of embedding plus position embedding.
# </details>
# <details><summary>Hint 2</summary>
#
# When does a place look out of order? When it attends to the first half much less than in its own palindrome: the same second half, with
# its mirror image before it. Both can be computed.
# </details>
# <details><summary>Hint 3</summary>
#
# Ignore places at which no change is noticed. "Much less" needs one threshold: choose it on sequences of your own, and say so.
# </details>


# %% nbgrader={"grade": false, "grade_id": "explanation", "locked": false, "schema_version": 3, "solution": true, "task": false}
def explanation(model):
    """(simulate, numbers): a prediction of the answers, and the numbers it needs."""
    ### BEGIN SOLUTION
    layer, index = MATCHER
    W_E, W_pos = model.W_E[:-1], model.W_pos[:-1]  # no place that matters sees END
    W_Q, W_K = model.W_Q[layer, index], model.W_K[layer, index] / model.cfg.d_head**0.5
    numbers = {
        "query_of_value": W_E[:-1] @ W_Q,
        "query_of_place": W_pos[11:] @ W_Q,
        "query_bias": model.b_Q[layer, index],
        "key_of_token": W_E @ W_K,
        "key_of_place": W_pos @ W_K,
        # LayerNorm divides by the length of token plus place, which these three give
        "token_length": W_E.pow(2).mean(-1),
        "place_length": W_pos.pow(2).mean(-1),
        "together": 2 * W_E @ W_pos.T / model.cfg.d_model,
        # the places at which a change is noticed, from section 4
        "counts": (noticed > 0.5).float(),
        "threshold": torch.tensor(0.5),
    }

    def simulate(inputs, numbers):
        """Accepted, unless a place that counts attends much less than it should."""

        def to_first_half(tokens):
            """Attention of each place of the second half to the first half: (sequence, 10)."""
            tokens, places = tokens[:, :21], torch.arange(21)
            length = (
                numbers["token_length"][tokens]
                + numbers["place_length"]
                + numbers["together"][tokens, places]
            )
            scale = length.sqrt()[..., None]
            queries = numbers["query_of_value"][tokens[:, 11:]] + numbers["query_of_place"]
            keys = (numbers["key_of_token"][tokens] + numbers["key_of_place"]) / scale
            queries = queries / scale[:, 11:] + numbers["query_bias"]
            scores = queries @ keys.transpose(1, 2)
            later = places[None] > places[11:, None]
            return scores.masked_fill(later, float("-inf")).softmax(-1)[..., 1:11].sum(-1)

        in_order = inputs.clone()
        in_order[:, 1:11] = inputs[:, 11:21].flip(-1)
        suspicious = to_first_half(inputs) <= numbers["threshold"] * to_first_half(in_order)
        return ~(suspicious & (numbers["counts"] > 0)).any(-1)

    # One number is chosen, on sequences with one mismatched pair that are nobody's test.
    counting = [
        place for place, share in zip(SECOND_HALF, noticed, strict=True) if share > 0.5
    ]
    drawn = [
        task.one_mismatch(400, task.mirror(place), seed=100 + place) for place in counting
    ]
    own = torch.cat([one.tokens for one in drawn])
    accepts = (model(own.to(model.cfg.device))[:, -1].argmax(-1) == 1).cpu()

    def agreement(threshold):
        tried = {name: value.cpu() for name, value in numbers.items()}
        agrees = simulate(own, tried | {"threshold": torch.tensor(threshold)}) == accepts
        return (agrees[accepts].float().mean() + agrees[~accepts].float().mean()).item()

    numbers["threshold"] = torch.tensor(max([0.1 * i for i in range(1, 10)], key=agreement))
    return simulate, numbers
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_explanation", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.explanation(explanation)

# %%
pool = checks.explanation.pool
scored = evidence.simulation_score(*checks.explanation.working(explanation)(model), pool)
pictures.share_map(
    scored.agreement.T,
    title="Share of the model's answers predicted (blank: no such sequence)",
    x="kind of sequence",
    y="the model is",
    x_labels=scored.kind_names,
    y_labels=["wrong", "right"],
).show()
print(f"score {scored.score:.3f}, perfect algorithm {scored.perfect:.3f}")
parameters = sum(p.numel() for p in model.parameters())
print(f"numbers {scored.n_numbers}, of the model's {parameters}")

# %% [markdown] tags=["solution-only"]
# One head, read from its weights, ten flags and one threshold. *A place is in order if it attends to the first half about half as much as in its own
# palindrome, or more, or if nobody would notice.* The threshold was chosen on other sequences, as the best of nine; the flags were
# measured in section 4. That predicts about nine answers in ten, right ones and wrong ones. Of the rare palindromes that the model rejects, it predicts none: there the story ends.

# %% [markdown]
# ### Five models, one recipe
#
# Everything above is about one set of weights. Four more were trained with other seeds. What belongs to the task, and what to
# this model?


# %%
def compare(other):
    """By place, on 100 palindromes: is its name heard at 14? Who reads it? Do keys alone do?"""

    changed = {p: tokens[:100] for p, tokens in broken.items()}
    rows = [rejected(lambda p, h=h: swap(other, (0, h), few, changed[p], p)) for h in BOTH]
    matcher = (0, int(rows[1].sum() > rows[0].sum()))

    def path(inputs, readers):
        return rejected(
            lambda p: through(other, matcher, inputs, few, changed[p], p, readers)
        )

    return {
        "name heard": rejected(lambda p: send(other, matcher, few, 14, p)),
        "read by 1.0": path(("k", "v"), [0]),
        "read by 1.1": path(("k", "v"), [1]),
        "keys alone": path(("k",), BOTH),
    }


# %%
instances = [name for name in available_instances("palindromes") if name.startswith("seed")]
compared = [compare(load_model("palindromes", name)) for name in instances]
tables = {name: torch.stack([of[name] for of in compared]) for name in compared[0]}
pictures.share_map(
    {name: hits.float().mean(-1) for name, hits in tables.items()},
    title="Share rejected, in five models",
    x="place",
    y="model",
    x_labels=SECOND_HALF,
    y_labels=instances,
    text=False,
).show()

# %% [markdown]
# <details><summary>What you should see</summary>
#
# **Shared:** one head of layer 0 compares; its message is a name; keys and values carry it together; most names of the second half
# are heard, never all.
#
# **Each model's own:** which head that is; which name is not heard; who reads whom (both heads, unevenly, or one); and in two of them keys
# alone turn a third.
# </details>

# %% [markdown]
# ## 11 · What we know, and how well
#
# How does it know? In layer 0, **one head compares**: from nearly every place of the second half it looks at the mirror if the values agree, and at
# the place itself if they do not. What it writes is **the name of the place it looked at**. In layer 1, `END` says "palindrome"
# from wherever it looks, until it hears a name that means trouble: then **the key makes it look, and the value is what it says**.
#
# The numbers below are those of `seed0`; your cells print your model's.
#
# | claim | evidence | strength | what would refute it |
# |---|---|---|---|
# | The heads of layer 1 write the verdict | attribution that adds up: classes 6.2 and 8.9 logits apart, all else below .4 | strong; how they share it differs by model | a head of layer 0 that separates as much |
# | One row of one head carries a single change | swapped: .860 [.853, .867] rejected, the real change .895; controls: other head .006, pair still equal below .001 | strong (experiment, two controls) | the same effect from a run with nothing wrong |
# | That row is needed for it | restored: .035 [.029, .041] still rejected; control .868 | strong for one change; found since: with several, a second route notices some | a control that does as much |
# | The message names the place looked at | 10 places × 20 messages: the name explains .943 of the variance, half .754, the place written .002 | strong (experiment) | rows, halves or a diagonal |
# | It arrives by keys and values together | path patch of the row alone: keys .007, values 0, both .860 | strong; in two models keys alone do a part | values that do it alone |
# | The weak place fails twice | rejected, intact and broken: attention mended 0, 0; name lent .82, .82; both 0, 1 (300 each) | strong (experiment) | either mending enough |
# | The mistakes follow | wrong values chosen from weights pass .036 [.028, .043], random ones *there* .005; the explanation scores .92, the best blind rule .58 | strong; one threshold, chosen on other sequences | a score near the blind rule's |
#
# **Not understood.** Why a model neglects a pair, and which half of the neglect came first. What `END`'s own rows notice when many pairs
# break. Why it rejects some palindromes. What the other head is for. Why readers share unevenly.
#
# **Corrections to the write-up.** One sentence says Q where its evidence is about keys. Two printed lines name head 0.0 for ablations of 1.0
# (exercise 16). Its attributions leave out the LayerNorm scales, and so do not add up; yours do.
#
# **Related.** Names, keys and values are composition in the sense of [Elhage et al. (2021)](https://transformer-circuits.pub/2021/framework/index.html);
# path patching comes from [Wang et al. (2023)](https://arxiv.org/abs/2211.00593). On how to read such experiments, and how not to:
# [Heimersheim & Nanda (2024)](https://arxiv.org/abs/2404.15255).

# %%
predictions.summary()

# %%
checks.progress()
