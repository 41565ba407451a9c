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
# To compare the first value with the last, the second with the last but one, and so on, something has to bring
# the values together, and something has to notice a single pair that differs. You will find the head that does
# the first, the head that does the second, and the message that passes between them. Then you will use what you
# know to write non-palindromes that the model takes for palindromes.
#
# | | |
# |---|---|
# | **You will be able to** | read a classifier by direct logit attribution; read a head's attention from its weights; prove with a swap of activations that one head talks to another, and say through which of its inputs; predict a model's mistakes from its mechanism |
# | **Time** | core path: 8 exercises, about 85 minutes. Optional exercises are marked; the core does not need them |
# | **Model** | 2 layers, 2 heads, attention only, LayerNorm, `d_model` 28, `d_head` 14: about 7,400 parameters |
# | **Data** | `START`, twenty values from 0 to 30, `END`. Two logits at `END`: *no palindrome* (index 0) and *palindrome* (index 1) |
# | **You need** | the attention formula, the residual stream, hooks. Lessons 01 and 02 practise these; nothing is imported from them |
#
# The challenge was set by Callum McDougall (ARENA, July 2023); the first analysis, which this lesson follows,
# corrects and extends, is Andy Arditi's.

# %% [markdown]
# ## Setup

# %%
import plotly.graph_objects as go
import torch
from eindex import eindex
from jaxtyping import Float, Int
from torch import Tensor

from exercises_utils import circuits, plotting
from exercises_utils.checkpoints import available_instances
from exercises_utils.hooks import ablate, patch, record
from exercises_utils.models import load_model
from exercises_utils.palindromes import checks, task

torch.set_grad_enabled(False)

model = load_model("palindromes")
data = task.make_data(size=2000, seed=1)
HEADS = [(layer, head) for layer in range(model.cfg.n_layers) for head in range(model.cfg.n_heads)]

# %% [markdown]
# A sequence has 22 positions. `START` stands at position 0, the values at positions 1 to 20, `END` at position 21.
# The **mirror** of position $i$ is position $21 - i$: a sequence is a palindrome when every value equals the value at
# its mirror. Half of the data are palindromes. In the others, each value of the second half was replaced by a
# random one with probability ½, so a typical non-palindrome breaks at about five of its ten pairs.
#
# Values that differ from their mirror are marked below.

# %%
for tokens, is_palindrome in zip(data.tokens[:4], data.is_palindrome[:4], strict=True):
    plotting.display_sequence(task.str_tokens(tokens), mirrored=True, note="palindrome" if is_palindrome else "no palindrome")

# %%
logits = model(data.tokens)[:, -1]  # (sequence, verdict), at END
right = (logits.argmax(-1) == data.labels).float()
print(f"accuracy on {len(data.tokens)} fresh sequences: {right.mean():.4f}")
print(f"parameters: {sum(p.numel() for p in model.parameters())}")

# %% [markdown]
# ## 1 · The verdict
#
# Two logits, one decision. The probability of *palindrome* is a function of their difference alone:
#
# $$P(\text{palindrome}) = \frac{e^{\ell_1}}{e^{\ell_0} + e^{\ell_1}} = \sigma(\ell_1 - \ell_0)$$
#
# so everything that follows is about one number per sequence, the **logit difference** $\ell_1 - \ell_0$. Positive: the
# model says palindrome.

# %% [markdown]
# ### Exercise 1 · `logit_diff` (core)
# *Difficulty ●○○○○ · 5 minutes*
#
# **Why:** it is the number that every later measurement moves.
#
# Return, for each sequence, the logit of *palindrome* (index 1) minus the logit of *no palindrome* (index 0), read at
# `END`, the last position. Logits, not probabilities.
#
# <details><summary>Hint 1</summary>
#
# `model(tokens)` has shape (sequence, position, verdict). The model was trained at the last position only; what it says
# elsewhere means nothing.
# </details>
# <details><summary>Hint 2</summary>
#
# Index the position with `-1`, then subtract one column from the other.
# </details>


# %% nbgrader={"grade": false, "grade_id": "logit_diff", "locked": false, "schema_version": 3, "solution": true, "task": false}
def logit_diff(model, tokens: Int[Tensor, "sequence position"]) -> Float[Tensor, " sequence"]:
    """The logit of "palindrome" minus the logit of "no palindrome" at END, for each sequence."""
    ### BEGIN SOLUTION
    verdict = model(tokens)[:, -1]
    return verdict[:, 1] - verdict[:, 0]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_logit_diff", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.logit_diff(logit_diff)

# %%
difference = checks.logit_diff.working(logit_diff)(model, data.tokens)
plotting.histogram(
    {"palindromes": difference[data.is_palindrome], "others": difference[~data.is_palindrome]},
    title="The verdict on 2,000 sequences",
    x="logit difference, palindrome − no palindrome (logits)",
    y="sequences",
).show()

# %% [markdown]
# **What you should see:** two groups on either side of 0, far apart. The few sequences of the second group on the right
# of 0 are the model's mistakes. All of them are false alarms of the same kind: non-palindromes that it accepts. Keep
# them in mind; section 6 says which ones they are, and why.

# %% [markdown]
# ## 2 · Who writes the verdict?
#
# The residual stream at `END` is a sum: the token's embedding, the position's embedding, what each head wrote there,
# and the output biases. The logits are a linear function of that sum, once the last LayerNorm's scale is known. (The
# weights are *processed*: LayerNorm's centring, weights and biases are folded into the matrices around it, so that all
# that is left of it is a division by one number. An optional section at the end proves that this changes nothing.)
#
# First the sum itself. If the parts did not add up to the whole, nothing after this would mean anything.

# %%
tokens = data.tokens[:500]
_, cache = model.run_with_cache(tokens)
components, labels = circuits.residual_components(cache, position=-1)
whole = cache["resid_post", 1][:, -1]
print("components:", labels)
print(f"largest gap between the sum of the parts and the residual stream: {(components.sum(0) - whole).abs().max():.3f}")

# %% [markdown]
# ### Exercise 2 · `logit_attribution` (core)
# *Difficulty ●●●○○ · 15 minutes*
#
# **Why:** direct logit attribution (DLA) says how much of the logit difference each component wrote *directly*. It is the
# fastest way from "the model decides" to "this head decides".
#
# For each component of the residual stream at `END`, return its share of the logit difference (palindrome minus no
# palindrome), in logits, for each sequence. Keep the order of `circuits.residual_components`, and add one last row for
# the unembedding's bias `b_U`. **The rows of your result add up to the logit difference**, exactly: divide by the last
# LayerNorm's scale, sequence by sequence (the write-up leaves that out, which changes the sizes but not the story).
#
# <details><summary>Hint 1</summary>
#
# $\ell_1 - \ell_0 = \frac{x}{s} \cdot (W_U[:, 1] - W_U[:, 0]) + b_U[1] - b_U[0]$, where $x$ is the residual stream and $s$
# the scale. $x$ is a sum, and the dot product of a sum is the sum of the dot products.
# </details>
# <details><summary>Hint 2</summary>
#
# The scale at `END` is `cache["ln_final.hook_scale"][:, -1]`, with a last axis of length 1.
# `einops.einsum(a, b, "component sequence d_model, d_model -> component sequence")` does the products.
# </details>
# <details><summary>Hint 3</summary>
#
# The bias is the same for all sequences: a row of length `len(tokens)` filled with `model.b_U[1] - model.b_U[0]`.
# </details>


# %% nbgrader={"grade": false, "grade_id": "logit_attribution", "locked": false, "schema_version": 3, "solution": true, "task": false}
def logit_attribution(model, tokens: Int[Tensor, "sequence position"]) -> Float[Tensor, "component sequence"]:
    """Each component's share of the logit difference at END, in logits; the last row is b_U's.

    Rows: embed, pos_embed, every head (0.0, 0.1, …), b_O, b_U. They add up to the logit difference.
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
component_names = [*labels, "b_U"]
by_class = {"palindromes": attribution[:, data.is_palindrome], "others": attribution[:, ~data.is_palindrome]}
plotting.bar(
    component_names,
    {name: shares.mean(-1) for name, shares in by_class.items()},
    errors={name: shares.std(-1) for name, shares in by_class.items()},
    title="Direct logit attribution at END (mean; bars: one standard deviation)",
    x="component",
    y="logits towards “palindrome”",
).show()

# %%
plotting.histogram_facets(
    {name: {group: shares[i] for group, shares in by_class.items()} for i, name in enumerate(component_names[:-2])},
    title="The same, sequence by sequence",
    x="logits towards “palindrome”",
    y="sequences",
).show()

# %% [markdown]
# Only a component whose two colours lie apart can tell palindromes from others. A component can be large and useless (it
# pushes all sequences the same way), and it can matter without showing up here at all, because DLA sees only what is
# written *directly* to `END` and read by the unembedding.

# %% [markdown]
# ### Exercise 3 · `reading_head` (core)
# *Difficulty ●○○○○ · 3 minutes*
#
# **Why:** name the head before you explain it. It is not the same one in every trained model: *find* it, so that your
# notebook still works when the model was trained from another seed.
#
# Give `reading_head` as a pair `(layer, head)`: the head whose direct contribution separates palindromes from others
# most. The check does not look at attributions: it ablates each head and looks at the damage.
#
# <details><summary>Hint</summary>
#
# Subtract the mean over the others from the mean over palindromes, for each row, and take the head with the largest
# difference. Rows 2, 3, … are the heads, in the order of `HEADS`.
# </details>

# %% nbgrader={"grade": false, "grade_id": "reading_head", "locked": false, "schema_version": 3, "solution": true, "task": false}
### BEGIN SOLUTION
separation = by_class["palindromes"].mean(-1) - by_class["others"].mean(-1)
reading_head = HEADS[int(separation[2 : 2 + len(HEADS)].argmax())]
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check_reading_head", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.reading_head(reading_head)

# %%
READER = checks.reading_head.working(reading_head)
print("the reading head:", READER)

# %% [markdown]
# ## 3 · Where does `END` look?
#
# The reading head writes the verdict at `END`, so what it writes depends on where `END` attends. Take palindromes, and
# change a single value of each. `task.change_value` puts another random value at one position and leaves the other 19 as
# they are, so the two versions differ in one token and have opposite labels.

# %%
intact = data.tokens[data.is_palindrome][:300]
broken = {position: task.change_value(intact, position, seed=position) for position in task.SECOND_HALF}
plotting.display_sequence(task.str_tokens(intact[0]), mirrored=True, note="palindrome")
plotting.display_sequence(task.str_tokens(broken[14][0]), mirrored=True, note="one value changed, at position 14")

# %% [markdown]
# ### Exercise 4 · `where_end_looks` (optional: predict, then reveal)
# *Difficulty ●○○○○ · 2 minutes*
#
# In the second sequence, positions 7 and 14 disagree. Where will `END` attend, in the reading head?
#
# - **a** at position 7, the partner in the first half
# - **b** at position 14, the partner in the second half
# - **c** at both, equally
# - **d** at `START`
#
# Answer with the letter, before you run the next figure.
#
# <details><summary>Hint</summary>
#
# Attention is causal: a position sees only what stands before it. Which of the two partners can know that they disagree?
# </details>

# %% nbgrader={"grade": false, "grade_id": "where_end_looks", "locked": false, "schema_version": 3, "solution": true, "task": false}
### BEGIN SOLUTION
where_end_looks = "b"
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check_where_end_looks", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.where_end_looks(where_end_looks)

# %%
END = task.LENGTH + 1
POSITIONS = list(range(task.LENGTH + 2))


def end_attention(tokens):
    """Where END attends in the reading head: the mean over sequences."""
    _, cache = model.run_with_cache(tokens, names_filter=[f"blocks.{READER[0]}.attn.hook_pattern"])
    return cache["pattern", READER[0]][:, READER[1], END].mean(0)


rows = [end_attention(intact)] + [end_attention(broken[position]) for position in task.SECOND_HALF]
plotting.heatmap(
    torch.stack(rows),
    title=f"Where END attends in head {READER[0]}.{READER[1]}, when one value of a palindrome is changed",
    x="position attended to",
    y="changed position",
    unit="attention",
    x_labels=["START", *map(str, POSITIONS[1:-1]), "END"],
    y_labels=["none", *map(str, task.SECOND_HALF)],
    signed=False,
).show()

# %% [markdown]
# Read it row by row. In the top row nothing is wrong and `END` rests somewhere: each trained model has its own **resting
# place**. In most other rows `END` has left it for the changed position itself. In some rows it has not: remember which.
#
# So the reading head does not compare anything. By the time it looks, somebody has marked the value that is wrong. One
# sequence, seen whole, in all four heads (hover over a token to see where it attends):

# %% tags=["drop-output"]
_, one = model.run_with_cache(broken[14][:1])
plotting.attention_heads(
    torch.cat([one["pattern", layer][0] for layer in range(model.cfg.n_layers)]),
    task.str_tokens(broken[14][0]),
    names=[f"{layer}.{head}" for layer, head in HEADS],
)

# %%
plotting.heatmap_facets(
    {f"{layer}.{head}": one["pattern", layer][0, head] for layer, head in HEADS},
    title="Attention patterns for the sequence changed at position 14",
    x="key position",
    y="query position",
    unit="attention",
    signed=False,
).show()

# %% [markdown]
# ## 4 · Who compares?
#
# Only the second of two partners can compare, because only it can see the other. If a head of layer 0 does the
# comparing, its attention from position $21 - i$ back to position $i$ should be strong when the two values are equal and
# weak when they differ.

# %% [markdown]
# ### Exercise 5 · `mirror_attention` (core)
# *Difficulty ●●○○○ · 8 minutes*
#
# **Why:** a claim about "attention to the mirror" needs exactly these entries of the pattern, and an off-by-one here
# ruins everything after it.
#
# `pattern` is one head's attention pattern, of shape (sequence, query, key), for sequences of *any even* number of values
# $n$ between a `START` and an `END`. For each sequence return the attention from each position of the second half to its
# mirror: $n/2$ numbers, in the order of the second half's positions. With $n = 20$: queries 11 to 20, keys 10 to 1.
#
# <details><summary>Hint 1</summary>
#
# With `n` values the last position is `n + 1`, and the mirror of `i` is `n + 1 - i`.
# </details>
# <details><summary>Hint 2</summary>
#
# [`eindex`](https://github.com/callummcdougall/eindex) indexes by name: `eindex(pattern, queries, keys, "sequence [pair]
# [pair]")` takes, for every sequence and pair, the entry at row `queries[pair]` and column `keys[pair]`.
# </details>


# %% nbgrader={"grade": false, "grade_id": "mirror_attention", "locked": false, "schema_version": 3, "solution": true, "task": false}
def mirror_attention(pattern: Float[Tensor, "sequence query key"]) -> Float[Tensor, "sequence pair"]:
    """Attention from each position of the second half to its mirror, in the order of the second half."""
    ### BEGIN SOLUTION
    last = pattern.shape[-1] - 1  # END
    queries = torch.arange(last // 2 + 1, last)
    return eindex(pattern, queries, last - queries, "sequence [pair] [pair]")
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_mirror_attention", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.mirror_attention(mirror_attention)

# %%
to_mirror = checks.mirror_attention.working(mirror_attention)
_, clean = model.run_with_cache(intact)
attention_when = {}
for head in range(model.cfg.n_heads):
    equal = to_mirror(clean["pattern", 0][:, head]).mean(0)
    different = []
    for pair, position in enumerate(task.SECOND_HALF):
        _, changed = model.run_with_cache(broken[position], names_filter=["blocks.0.attn.hook_pattern"])
        different.append(to_mirror(changed["pattern", 0][:, head])[:, pair].mean())
    attention_when[head] = {"values equal": equal, "values differ": torch.stack(different)}

plotting.line_facets(
    {f"head 0.{head}": curves for head, curves in attention_when.items()},
    title="Attention of the second half to its mirror (mean over 300 sequences)",
    x="position",
    y="attention to the mirror",
    x_values=list(task.SECOND_HALF),
).show()

# %% [markdown]
# A head that compares has its two lines far apart. The gap closes at some positions: are they the ones that you
# remembered from the figure above?

# %% [markdown]
# ### Exercise 6 · `token_circuit` (core)
# *Difficulty ●●●○○ · 15 minutes*
#
# **Why:** patterns show *that* equal values attend to each other on these inputs. The weights show it for all pairs of
# values at once, without running the model: that is the full QK circuit.
#
# For one head of layer 0, given as `(layer, head)`, return the attention score that each value (as a query, rows) gives
# each value (as a key, columns): the embeddings `W_E` on both sides of $W_Q W_K^T$, divided by $\sqrt{d_\text{head}}$ and
# by the LayerNorm `scale` once on each side (so by `scale ** 2`). Leave out the biases `b_Q`, `b_K`, and the two special
# tokens, which are the last two rows of `W_E`. Scores, not probabilities: no softmax.
#
# <details><summary>Hint 1</summary>
#
# `model.W_Q[layer, head]` has shape (d_model, d_head). A query is `embedding @ W_Q / scale`.
# </details>
# <details><summary>Hint 2</summary>
#
# `queries @ keys.T` has the queries in its rows.
# </details>


# %% nbgrader={"grade": false, "grade_id": "token_circuit", "locked": false, "schema_version": 3, "solution": true, "task": false}
def token_circuit(model, head: tuple[int, int], scale: float) -> Float[Tensor, "query_value key_value"]:
    """Attention scores that the values' embeddings give each other in one head of layer 0."""
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
scale = clean["scale", 0, "ln1"].mean().item()
token_scores = {head: checks.token_circuit.working(token_circuit)(model, (0, head), scale) for head in range(model.cfg.n_heads)}
plotting.heatmap_facets(
    {f"head 0.{head}": scores for head, scores in token_scores.items()},
    title="Full QK circuit: what score does a value give another value?",
    x="key value",
    y="query value",
    unit="score",
).show()
for head, scores in token_scores.items():
    share = (scores.argmax(-1) == torch.arange(len(scores))).float().mean()
    print(f"head 0.{head}: the value itself has the highest score in {share:.4f} of the rows")

# %% [markdown]
# The scale is the mean over positions and sequences. The true one differs from position to position, so this circuit is
# an approximation; its diagonal is what matters here, and dividing a row by another number does not move it.

# %% [markdown]
# ### Exercise 7 · `matching_head` (core)
# *Difficulty ●○○○○ · 3 minutes*
#
# Give `matching_head` as `(layer, head)`: the head of layer 0 that compares values. Find it with your own measurements, so
# that the cell still works on another trained model. (In some trained models both heads take part; then take the one
# that does more of it.) The check puts what each head does *on a broken sequence* into the run on an intact one, and
# asks which head makes the model change its mind.
#
# <details><summary>Hint</summary>
#
# `attention_when[head]` holds the two curves of the figure above; the gap between them, averaged over positions, is one
# number a head.
# </details>

# %% nbgrader={"grade": false, "grade_id": "matching_head", "locked": false, "schema_version": 3, "solution": true, "task": false}
### BEGIN SOLUTION
gaps = [(curves["values equal"] - curves["values differ"]).mean() for curves in attention_when.values()]
matching_head = (0, int(torch.stack(gaps).argmax()))
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check_matching_head", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.matching_head(matching_head)

# %%
MATCHER = checks.matching_head.working(matching_head)
print("the matching head:", MATCHER)
