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
# | **You will be able to** | read a classifier by direct logit attribution; read a head's attention from its weights; show with a swap of activations that one head talks to another, and say through which of its inputs; predict a model's mistakes from its mechanism |
# | **Time** | core path: 8 exercises, about 85 minutes. Optional exercises are marked; the core does not need them (through which inputs the message arrives, exercise 11, is the best of them) |
# | **Model** | 2 layers, 2 heads, attention only, LayerNorm, `d_model` 28, `d_head` 14: 8,262 parameters |
# | **Data** | `START`, twenty values from 0 to 30, `END`. Two logits at `END`: *no palindrome* (index 0) and *palindrome* (index 1) |
# | **You need** | the attention formula, the residual stream, hooks. Lessons 01 and 02 practise these; nothing is imported from them |
#
# The challenge was set by Callum McDougall (ARENA, July 2023); the analysis that this lesson follows, corrects and extends is
# Andy Arditi's.

# %% [markdown]
# ## Setup

# %%
from itertools import combinations

import torch
from eindex import eindex
from jaxtyping import Float, Int
from torch import Tensor

from exercises_utils import available_instances, circuits, evidence, load_model, plotting
from exercises_utils.challenges.palindromes import checks, task
from exercises_utils.challenges.palindromes import evidence as evidence_task
from exercises_utils.evidence import accuracy
from exercises_utils.tools import ablate, patch, record

torch.set_grad_enabled(False)

model = load_model("palindromes")
data = task.make_data(size=2000, seed=1).to(model.cfg.device)
HEADS = [
    (layer, head)
    for layer in range(model.cfg.n_layers)
    for head in range(model.cfg.n_heads)
]

# %% [markdown]
# A sequence has 22 positions. `START` stands at position 0, the values at positions 1 to 20, `END` at position 21.
# The **mirror** of position $i$ is position $21 - i$: a sequence is a palindrome when every value equals the value at
# its mirror. Half of the data are palindromes. In the others, each value of the second half was replaced by a
# random one with probability ½, so a typical non-palindrome breaks at about five of its ten pairs.
#
# Values that differ from their mirror are marked below.

# %%
for tokens, is_palindrome in zip(data.tokens[:4], data.is_palindrome[:4], strict=True):
    plotting.display_sequence(
        task.str_tokens(tokens),
        mirrored=True,
        note="palindrome" if is_palindrome else "no palindrome",
    )

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
difference = checks.logit_diff.working(logit_diff)(model, data.tokens)
plotting.histogram(
    {
        "palindromes": difference[data.is_palindrome],
        "others": difference[~data.is_palindrome],
    },
    title="The verdict on 2,000 sequences",
    x="logit difference, palindrome − no palindrome (logits)",
    y="sequences",
).show()

# %% [markdown]
# **What you should see:** two groups on either side of 0, far apart, and hardly a sequence on the wrong side. Judged by
# fresh data the model is nearly perfect. Section 6 asks it harder questions.

# %% [markdown]
# ## 2 · Who writes the verdict?
#
# The residual stream at `END` is a sum: the token's embedding, the position's embedding, what each head wrote there,
# and the output biases. The logits are a linear function of that sum, once the last LayerNorm's scale is known. (The
# weights are *processed*: LayerNorm's centring, weights and biases are folded into the matrices around it, so that all
# that is left of it is a division by one number. An optional section at the end shows that this leaves every probability as it was.)
#
# First the sum itself. If the parts did not add up to the whole, nothing after this would mean anything.

# %%
tokens = data.tokens[:500]
_, cache = model.run_with_cache(tokens)
components, labels = circuits.residual_components(cache, position=-1)
whole = cache["resid_post", 1][:, -1]
print("components:", labels)
print(
    f"largest gap between the sum of the parts and the residual stream: {(components.sum(0) - whole).abs().max():.3f}"
)

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
# LayerNorm's scale, sequence by sequence. (The write-up leaves that out. Here it matters: the scale is about three times larger on
# non-palindromes, and without it the two heads of layer 1 come out level.)
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
component_names = [*labels, "b_U"]
by_class = {
    "palindromes": attribution[:, data.is_palindrome],
    "others": attribution[:, ~data.is_palindrome],
}
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
    {
        name: {group: shares[i] for group, shares in by_class.items()}
        for i, name in enumerate(component_names[:-2])
    },
    title="The same, sequence by sequence",
    x="logits towards “palindrome”",
    y="sequences",
).show()

# %% [markdown]
# A component that tells palindromes from others has its two colours apart. A small gap proves nothing: `pos_embed` writes the
# same vector for every sequence and still shows one, because each sequence is divided by its own scale. And a component can
# matter without showing up here at all, because DLA sees only what is written *directly* to `END` and read by the unembedding.

# %% [markdown]
# ### Exercise 3 · `reading_head` (core)
# *Difficulty ●○○○○ · 3 minutes*
#
# **Why:** name the head before you explain it. It is not the same one in every trained model: *find* it, so that your
# notebook still works when the model was trained from another seed.
#
# Give `reading_head` as a pair `(layer, head)`: the head whose direct contribution separates palindromes from others
# most. The check measures that on other sequences; where two heads are within a tenth of each other, both pass.
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
broken = {
    position: task.change_value(intact, position, seed=position)
    for position in task.SECOND_HALF
}
plotting.display_sequence(task.str_tokens(intact[0]), mirrored=True, note="palindrome")
plotting.display_sequence(
    task.str_tokens(broken[14][0]), mirrored=True, note="one value changed, at position 14"
)

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
    """Where END attends in each head of layer 1, mean over sequences: (head, position)."""
    _, cache = model.run_with_cache(tokens, names_filter=["blocks.1.attn.hook_pattern"])
    return cache["pattern", 1][:, :, END].mean(0)


others = data.tokens[~data.is_palindrome][:300]
rows = torch.stack(
    [
        end_attention(batch)
        for batch in (intact, *(broken[p] for p in task.SECOND_HALF), others)
    ]
)
plotting.heatmap_facets(
    {f"head 1.{head}": rows[:, head] for head in range(model.cfg.n_heads)},
    title="Where END attends when one value of a palindrome is changed",
    x="position attended to",
    y="changed position",
    unit="attention",
    y_labels=["none", *map(str, task.SECOND_HALF), "random"],
    signed=False,
).show()

# %% [markdown]
# Read a panel row by row. In the top row nothing is wrong, and `END` has a **resting pattern**, a different one in each head. In
# most of the others, one of the two heads has left it for the changed position itself: the two heads share the places between
# them. Is there a row in which neither has moved? Remember it. In the last row, several pairs are wrong at once.
#
# It looks as if somebody had marked the wrong value before the heads of layer 1 look. Section 5 tests that. One sequence, seen
# whole, in all four heads (hover over a token to see where it attends):

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
# Of two partners, only the second can compare, because only it can see the other. (Later positions see both, too; look at the
# partner first.) If a head of layer 0 does the
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
_, clean = model.run_with_cache(intact)
attention_when = {}
for head in range(model.cfg.n_heads):
    equal = to_mirror(clean["pattern", 0][:, head]).mean(0)
    different = []
    for pair, position in enumerate(task.SECOND_HALF):
        _, changed = model.run_with_cache(
            broken[position], names_filter=["blocks.0.attn.hook_pattern"]
        )
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
# A head that compares has its two lines far apart. Where the gap closes, the head compares nothing: is it the row that you
# remembered from the figure above? In this model *both* heads attend more to the mirror when the values agree, one much more
# than the other. Whether the model uses either is another question: section 5.

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
scale = clean["scale", 0, "ln1"].mean().item()
circuit_of = checks.token_circuit.working(token_circuit)
token_scores = {
    head: circuit_of(model, (0, head), scale) for head in range(model.cfg.n_heads)
}
plotting.heatmap_facets(
    {f"head 0.{head}": scores for head, scores in token_scores.items()},
    title="Full QK circuit: what score does a value give another value?",
    x="key value",
    y="query value",
    unit="score",
).show()
for head, scores in token_scores.items():
    share = (scores.argmax(-1).cpu() == torch.arange(len(scores))).float().mean()
    print(
        f"head 0.{head}: the value itself has the highest score in {share:.4f} of the rows"
    )

# %% [markdown]
# The scale is the mean over positions and sequences; the true one differs by token and position. Dividing a row by another number
# leaves its top entry in place; dividing each column by its own could move it.

# %% [markdown]
# ### Exercise 7 · `matching_head` (core)
# *Difficulty ●○○○○ · 3 minutes*
#
# Give `matching_head` as `(layer, head)`: the head of layer 0 that compares values. Find it with your own measurements, so
# that the cell still works on another trained model. (Both heads may attend by value; take the one whose gap is
# larger.) The check puts what each head does *on a broken sequence* into the run on an intact one, and
# asks which head makes the model change its mind.
#
# <details><summary>Hint</summary>
#
# `attention_when[head]` holds the two curves of the figure above; the gap between them, averaged over positions, is one
# number a head.
# </details>

# %% nbgrader={"grade": false, "grade_id": "matching_head", "locked": false, "schema_version": 3, "solution": true, "task": false}
### BEGIN SOLUTION
gaps = [
    (curves["values equal"] - curves["values differ"]).mean()
    for curves in attention_when.values()
]
matching_head = (0, int(torch.stack(gaps).argmax()))
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check_matching_head", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.matching_head(matching_head)

# %%
MATCHER = checks.matching_head.working(matching_head)
print("the matching head:", MATCHER)

# %% [markdown]
# ### Which of several equal values? (optional)
#
# Equal values can stand anywhere, but only one place is the mirror. Embeddings cannot tell two places with the same value
# apart; positions can.

# %% [markdown]
# ### Exercise 8 · `position_circuit` (optional)
# *Difficulty ●●○○○ · 5 minutes*
#
# **Why:** the same circuit with positions in place of values says where the head looks whatever the values are.
#
# As in exercise 6, with `W_pos` on both sides, all rows of it: return the score that each position (as a query, rows) gives
# each position (as a key, columns), divided by $\sqrt{d_\text{head}}$ and by `scale ** 2`. Fill in the whole square; the
# figure hides what the causal mask hides.
#
# <details><summary>Hint</summary>
#
# `circuits.qk_scores` is the tool of exercise 6 with any vectors on both sides.
# </details>


# %% nbgrader={"grade": false, "grade_id": "position_circuit", "locked": false, "schema_version": 3, "solution": true, "task": false}
def position_circuit(
    model, head: tuple[int, int], scale: float
) -> Float[Tensor, "query key"]:
    """Attention scores that the position embeddings give each other in one head."""
    ### BEGIN SOLUTION
    return circuits.qk_scores(model, head, model.W_pos, model.W_pos, scale)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_position_circuit", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.position_circuit(position_circuit)

# %%
position_scores = circuits.causal(
    checks.position_circuit.working(position_circuit)(model, MATCHER, scale)
)
plotting.heatmap(
    position_scores.softmax(-1),
    title=f"Head {MATCHER[0]}.{MATCHER[1]}: attention from the positions alone",
    x="key position",
    y="query position",
    unit="attention",
    signed=False,
).show()

# %% [markdown]
# **What you should see:** on the whole a mark on the antidiagonal of the lower half, from each position of the second half
# back to its mirror: with the main diagonal it looks like a λ. Rows in which the mirror is *not* marked are worth
# remembering.

# %% [markdown]
# ### Exercise 9 · `attention_without_positions` (optional)
# *Difficulty ●●●○○ · 10 minutes*
#
# **Why:** to see what positions add, take them away.
#
# `tokens` is one sequence. Return the pattern of `head`, a head of layer 0, for a residual stream that holds the token
# embeddings *only*: no position embedding, everything else as in the model (the LayerNorm of this vector, the
# biases of queries and keys, the causal mask, the softmax over keys).
#
# <details><summary>Hint 1</summary>
#
# The short way: run the model with a hook on `"hook_pos_embed"` that returns zeros, and read the pattern from the cache
# (`model.hooks(fwd_hooks=[(name, function)])` is a `with` block, inside it `run_with_cache` works as usual).
# </details>
# <details><summary>Hint 2</summary>
#
# The long way: LayerNorm by hand is `x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()`: the embeddings are centred
# already.
# </details>


# %% nbgrader={"grade": false, "grade_id": "attention_without_positions", "locked": false, "schema_version": 3, "solution": true, "task": false}
def attention_without_positions(
    model, head: tuple[int, int], tokens: Int[Tensor, " position"]
) -> Float[Tensor, "query key"]:
    """The pattern of a head of layer 0 with no position embeddings in the residual stream."""
    ### BEGIN SOLUTION
    layer, index = head
    with model.hooks(
        fwd_hooks=[
            ("hook_pos_embed", lambda activation, hook: torch.zeros_like(activation))
        ]
    ):
        _, cache = model.run_with_cache(tokens[None])
    return cache["pattern", layer][0, index]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_attention_without_positions", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.attention_without_positions(attention_without_positions)

# %%
repetitive = torch.tensor([task.START, *[1, 2, 3, 4, 5] * 4, task.END])
_, with_positions = model.run_with_cache(repetitive[None])
without = checks.attention_without_positions.working(attention_without_positions)(
    model, MATCHER, repetitive
)
plotting.heatmap_facets(
    {
        "tokens only": without,
        "tokens and positions": with_positions["pattern", MATCHER[0]][0, MATCHER[1]],
    },
    title=f"Head {MATCHER[0]}.{MATCHER[1]} on 1 2 3 4 5, four times",
    x="key position",
    y="query position",
    unit="attention",
    signed=False,
).show()

# %% [markdown]
# On the left, attention is spread over every place that holds the same value: stripes. Positions choose among them. Only rows 13
# and 18 have a mirror that holds the same value, and there nearly all attention goes to it. Apart from mixed terms, the two
# circuits are added before the softmax: a place gets most if value and position both fit.

# %% [markdown]
# ## 5 · Is that the message?
#
# So far everything was looking. The matching head's attention *goes with* the verdict; that does not show that the model
# *uses* it. To show that, change the attention, and nothing else.
#
# Take a palindrome and the same sequence with one value changed. Run the **intact** one, but let one head attend, at the
# changed position only, as it did in the **broken** one. Every token is still right. If the model now says "no
# palindrome", that one row of attention is the message.
#
# Before the first intervention of a kind, a control: putting a run's own activation back must change nothing.

# %%
_, own = model.run_with_cache(intact)
before = model(intact)
with patch(model, "pattern", 0, own["pattern", 0]):
    after = model(intact)
print(
    f"largest change when a run is patched with itself: {(after - before).abs().max():.4f}"
)

# %% [markdown]
# ### Exercise 10 · `swap_pattern` (core)
# *Difficulty ●●●○○ · 15 minutes*
#
# **Why:** this is the experiment that turns "correlates with" into "is used".
#
# Return the logit differences of the sequences in `intact` when `head`, given as `(layer, head)`, attends **at query
# position `position`** as it does in the run on `broken`. All other rows of its pattern, all other heads and all values
# stay those of the intact run.
#
# `hooks.patch` is a `with` block: `with patch(model, "pattern", layer, value, heads=[…], positions=[…]):` runs the model
# with these heads' rows, at these query positions, taken from `value`, a whole pattern of shape (sequence, head, query,
# key).
#
# <details><summary>Hint 1</summary>
#
# Two runs: one on `broken` with `run_with_cache`, one on `intact` inside the block.
# </details>
# <details><summary>Hint 2</summary>
#
# `cache["pattern", layer]` has the shape that `patch` wants. Read the logits at `END` as in exercise 1.
# </details>


# %% nbgrader={"grade": false, "grade_id": "swap_pattern", "locked": false, "schema_version": 3, "solution": true, "task": false}
def swap_pattern(
    model,
    head: tuple[int, int],
    intact: Int[Tensor, "sequence position"],
    broken: Int[Tensor, "sequence position"],
    position: int,
) -> Float[Tensor, " sequence"]:
    """Logit differences on `intact` with one head's row of attention taken from `broken`."""
    ### BEGIN SOLUTION
    layer, index = head
    _, cache = model.run_with_cache(broken)
    with patch(
        model,
        "pattern",
        layer,
        cache["pattern", layer],
        heads=[index],
        positions=[position],
    ):
        verdict = model(intact)[:, -1]
    return verdict[:, 1] - verdict[:, 0]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_swap_pattern", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.swap_pattern(swap_pattern)

# %%
swap = checks.swap_pattern.working(swap_pattern)
verdict = checks.logit_diff.working(logit_diff)


def rejected(differences):
    """The share of sequences that the model calls no palindrome."""
    return (differences < 0).float().mean()


flips = {
    "value really changed": torch.stack(
        [rejected(verdict(model, broken[p])) for p in task.SECOND_HALF]
    )
}
for head in range(model.cfg.n_heads):
    name = f"only the attention of head 0.{head} swapped"
    flips[name] = torch.stack(
        [rejected(swap(model, (0, head), intact, broken[p], p)) for p in task.SECOND_HALF]
    )

plotting.bar(
    [str(p) for p in task.SECOND_HALF],
    flips,
    title="One row of attention is enough, except where the model is blind",
    x="changed position",
    y="share called “no palindrome”",
).show()

# %% [markdown]
# The sequences behind the second and third bars *are* palindromes, token by token. Where the swap in the matching head is as
# high as the bar of the real change, that single row of attention carries the whole message. The other head's swap is
# the control: the same intervention in a place that should not matter, or matters less.
#
# A position where the first bar is missing is **blind**: there the model does not notice a real change. You have now met it
# in three figures.

# %% [markdown]
# ### Exercise 11 · `swap_inputs` (optional)
# *Difficulty ●●●○○ · 10 minutes*
#
# **Why:** a head of layer 1 can receive the message in three ways: in its queries, in its keys, or in its values. Which?
#
# As in exercise 10, but in the layer that reads: return the logit differences on `intact` when, **in all heads of layer
# `layer`**, the activations named in `inputs` (some of `"q"`, `"k"`, `"v"`) are taken from the run on `broken`, at one
# place each: keys and values at `position`, queries at `END`.
#
# <details><summary>Hint</summary>
#
# `contextlib.ExitStack` enters several `with` blocks: `stack.enter_context(patch(model, name, layer, value, positions=[…]))`.
# </details>


# %% nbgrader={"grade": false, "grade_id": "swap_inputs", "locked": false, "schema_version": 3, "solution": true, "task": false}
def swap_inputs(
    model,
    layer: int,
    inputs: tuple[str, ...],
    intact: Int[Tensor, "sequence position"],
    broken: Int[Tensor, "sequence position"],
    position: int,
) -> Float[Tensor, " sequence"]:
    """Logit differences on `intact` with some of a layer's q, k, v taken from `broken`.

    Queries at END; keys and values at `position`; all heads of the layer.
    """
    ### BEGIN SOLUTION
    from contextlib import ExitStack

    _, cache = model.run_with_cache(broken)
    end = intact.shape[1] - 1
    with ExitStack() as stack:
        for name in inputs:
            place = end if name == "q" else position
            stack.enter_context(
                patch(model, name, layer, cache[name, layer], positions=[place])
            )
        verdict = model(intact)[:, -1]
    return verdict[:, 1] - verdict[:, 0]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_swap_inputs", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.swap_inputs(swap_inputs)

# %%
swap_in = checks.swap_inputs.working(swap_inputs)
through = {
    "queries": ("q",),
    "keys": ("k",),
    "values": ("v",),
    "keys and values": ("k", "v"),
}
flips_through = {
    name: torch.stack(
        [
            rejected(swap_in(model, 1, inputs, intact, broken[p], p))
            for p in task.SECOND_HALF
        ]
    )
    for name, inputs in through.items()
}
plotting.heatmap(
    torch.stack(list(flips_through.values())),
    title="Through which input of layer 1 does the message arrive?",
    x="changed position",
    y="swapped",
    unit="share called<br>“no palindrome”",
    x_labels=[str(p) for p in task.SECOND_HALF],
    y_labels=list(flips_through),
    signed=False,
    text=True,
).show()

# %%
_, source = model.run_with_cache(broken[14])
with (
    patch(model, "k", 1, source["k", 1], positions=[14]),
    record(model, "blocks.1.attn.hook_pattern") as seen,
):
    differences = verdict(model, intact)
before, after = (
    p[:, :, END, 14].mean(0).max()
    for p in (clean["pattern", 1], seen["blocks.1.attn.hook_pattern"])
)
print(f"END's attention to position 14, in the head that attends to it more: {before:.2f}")
print(
    f"… with the keys of position 14 swapped: {after:.2f}; mean logit difference: {differences.mean():.2f}"
)

# %% [markdown]
# Read the rows. Swapping queries turns no verdict here: what `END` asks does not depend on the change. (Exercise 12 prints how much
# its query does vary.)
#
# **A hypothesis that failed:** the reading head writes the verdict, so the message should arrive in its *values*, and swapping
# them should be enough. It is not: nobody looks at the place, because its key is still that of a place in order. And keys alone
# make `END` look (the printed lines), but what it finds there still votes "palindrome". It takes **both**: the key makes `END` look
# (K-composition), the value makes what it finds a vote against (V-composition). Section 8 asks whether that is so in other
# models; in some, keys alone can do a part.

# %% [markdown]
# ### The same from the weights (optional)
#
# What does the matching head write, so that the reading head finds it? Follow its output for each position that it might
# attend to. At a place in the second half with a partner that agrees, it attends to the partner, in the *first* half. If
# they disagree, it attends elsewhere, mostly to the place itself, in the *second* half. So what it writes must tell the
# halves apart.

# %% [markdown]
# ### Exercise 12 · `composed_key_scores` (optional)
# *Difficulty ●●●○○ · 10 minutes*
#
# **Why:** K-composition, as a formula over weights.
#
# `query` is the reading head's query at `END` (a vector of length `d_head`). For each position $i$ return the score it gives
# to a key made from the *position embedding* of $i$ alone, moved by the matching head's OV circuit ($W_{OV} = W_V W_O$: what a head
# writes when it attends to a vector):
# $W_\text{pos}\, W_{OV}^\text{matcher}\, W_K^\text{reader} \cdot q \,/ \sqrt{d_\text{head}}$. Leave out biases and LayerNorm
# scales: one number per position, `START` and `END` included.
#
# <details><summary>Hint</summary>
#
# `circuits.ov_output(model, matcher, model.W_pos)` is the first part. Then multiply by the reader's `W_K`, then by the query.
# </details>


# %% nbgrader={"grade": false, "grade_id": "composed_key_scores", "locked": false, "schema_version": 3, "solution": true, "task": false}
def composed_key_scores(
    model,
    matcher: tuple[int, int],
    reader: tuple[int, int],
    query: Float[Tensor, " d_head"],
) -> Float[Tensor, " position"]:
    """The reading head's score for each position, moved into its keys by the matching head."""
    ### BEGIN SOLUTION
    layer, index = reader
    moved = circuits.ov_output(model, matcher, model.W_pos)
    return moved @ model.W_K[layer, index] @ query / model.cfg.d_head**0.5
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_composed_key_scores", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.composed_key_scores(composed_key_scores)

# %% [markdown]
# ### Exercise 13 · `composed_verdict` (optional)
# *Difficulty ●●○○○ · 8 minutes*
#
# **Why:** V-composition: what is that same vector worth if the reading head attends to it?
#
# For each position $i$ return $W_\text{pos}\, W_{OV}^\text{matcher}\, W_{OV}^\text{reader} \cdot (W_U[:, 1] - W_U[:, 0])$: what
# the position embedding, moved by both heads, adds to the logit difference (palindrome minus no palindrome). Again without
# biases and scales.
#
# <details><summary>Hint</summary>
#
# `circuits.ov_output` twice, then the direction from exercise 2.
# </details>


# %% nbgrader={"grade": false, "grade_id": "composed_verdict", "locked": false, "schema_version": 3, "solution": true, "task": false}
def composed_verdict(
    model, matcher: tuple[int, int], reader: tuple[int, int]
) -> Float[Tensor, " position"]:
    """What each position, moved by the matching and the reading head, adds to the verdict."""
    ### BEGIN SOLUTION
    moved = circuits.ov_output(
        model, reader, circuits.ov_output(model, matcher, model.W_pos)
    )
    return moved @ (model.W_U[:, 1] - model.W_U[:, 0])
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_composed_verdict", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.composed_verdict(composed_verdict)

# %%
_, seen = model.run_with_cache(data.tokens, names_filter=["blocks.1.attn.hook_q"])
key_scores_of = checks.composed_key_scores.working(composed_key_scores)
verdict_of = checks.composed_verdict.working(composed_verdict)
key_scores, votes_composed = {}, {}
for head in range(model.cfg.n_heads):
    queries = seen["q", 1][:, END, head]
    mean_query = queries.mean(0)
    spread = (queries - mean_query).norm(dim=-1).mean() / mean_query.norm()
    print(
        f"END's query in head 1.{head}: distance from the mean query, as a share of its length: {spread:.3f}"
    )
    name = f"read by head 1.{head}"
    key_scores[name] = key_scores_of(model, MATCHER, (1, head), mean_query)
    votes_composed[name] = verdict_of(model, MATCHER, (1, head))
plotting.line_facets(
    {"keys: score at END": key_scores, "values: towards “palindrome”": votes_composed},
    title="What the matching head moves from each position, read by layer 1 (weights only)",
    x="position that the matching head attends to",
    y="score, without LayerNorm scales",
    x_values=POSITIONS,
).show()

# %% [markdown]
# Positions 11 to 20 are the second half. Each head of layer 1 scores *its own* places of the second half high: together they
# cover 11 to 19, the split that you saw in section 3. Where a head's key score is high, its value curve is negative: being
# looked at there is a vote against. A place that is high for neither head is a candidate for a blind spot.

# %% [markdown]
# ### Exercise 14 · `composition_score` (optional)
# *Difficulty ●●○○○ · 8 minutes*
#
# **Why:** a quick screening of all pairs of heads, before any of the detailed work above.
#
# For two matrices applied to row vectors one after the other, $x \to xA \to xAB$, return
# $\lVert AB\rVert / (\lVert A\rVert\,\lVert B\rVert)$ with Frobenius norms, as a number. Here
# $A$ will be an early head's $W_{OV}$, and $B$ a late head's $W_{QK}$ (for Q), its transpose (for K) or its $W_{OV}$ (for V).
#
# <details><summary>Hint</summary>
#
# `matrix.norm()` is the Frobenius norm: the root of the sum of squares.
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
pairs = [
    (early, late) for early in range(model.cfg.n_heads) for late in range(model.cfg.n_heads)
]
scores = {
    kind: [score(W_OV[0, early], W[late]) for early, late in pairs]
    for kind, W in reads.items()
}
baseline = circuits.random_composition_scores(
    model.cfg.d_model, model.cfg.d_head, n=300, seed=0
)
print(
    f"random matrices of this shape: mean {baseline.mean():.3f}, standard deviation {baseline.std():.3f}"
)
ours, library = (
    torch.tensor(scores["K"]).view(2, 2),
    model.all_composition_scores("K")[0, :, 1].cpu(),
)
print(
    f"largest difference from TransformerLens's own K scores: {(ours - library).abs().max():.4f}"
)
plotting.bar(
    [f"0.{early} → 1.{late}" for early, late in pairs],
    scores,
    title="Composition scores of layer 0 with layer 1",
    x="pair of heads",
    y="|AB| / (|A| |B|)",
    reference_lines={
        "random: mean + 2 standard deviations": (
            baseline.mean() + 2 * baseline.std()
        ).item()
    },
).show()

# %% [markdown]
# A score says that a head *could* read what another writes, if anything is written there. The highest bars are keys and values
# of the matching head, as in the swaps of exercise 11. But a bar of the *other* head is above the line too (0.0 → 1.1, V), and
# swapping that head's attention turned hardly a verdict. Scores are for screening; interventions decide.

# %% [markdown]
# ### Exercise 15 · `verdict_by_position` (optional)
# *Difficulty ●●●○○ · 10 minutes*
#
# **Why:** the composed circuit above used position embeddings alone. On real sequences the matching head moves whole
# values. What is each of these values worth as a vote?
#
# For each sequence and each of the twenty values (positions 1 to 20), take the matching head's value vector `v` at that
# position, move it through its own $W_O$ and the reading head's $W_{OV}$, and return its product with
# $W_U[:, 1] - W_U[:, 0]$. Without LayerNorm scales, as in the write-up, so that the figure can be set beside its own (with the
# sign turned round: it measures towards "no palindrome").
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
    """What the matching head's value at each position adds through the reading head."""
    ### BEGIN SOLUTION
    layer, index = matcher
    _, cache = model.run_with_cache(tokens)
    written = cache["v", layer][:, 1:-1, index] @ model.W_O[layer, index]
    layer, index = reader
    return (
        written
        @ model.W_V[layer, index]
        @ model.W_O[layer, index]
        @ (model.W_U[:, 1] - model.W_U[:, 0])
    )
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_verdict_by_position", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.verdict_by_position(verdict_by_position)

# %%
votes = checks.verdict_by_position.working(verdict_by_position)(
    model, MATCHER, READER, data.tokens[:100]
)
where = torch.arange(1, task.LENGTH + 1)
plotting.scatter(
    {
        "100 sequences": (where.repeat(100, 1).flatten(), votes.flatten()),
        "one of them": (where, votes[0]),
    },
    title=f"What each value of head {MATCHER[0]}.{MATCHER[1]} is worth as a vote through head {READER[0]}.{READER[1]}",
    x="position",
    y="towards “palindrome” (logits × scales)",
).show()
print(f"standard deviation over sequences, mean over positions: {votes.std(0).mean():.3f}")
print(f"standard deviation over positions of the mean:          {votes.mean(0).std():.3f}")

# %% [markdown]
# Compare the two printed numbers. If positions differ much more than sequences do, the vote is a property of the *place*,
# not of the value that stands there: the matching head's value says "first half" or "second half", and its **attention**,
# not its value, depends on whether partners agree.

# %% [markdown]
# ### What each input of each head is worth (optional)
#
# Ablation is blunter than a swap, but it covers everything at once. Each input of each head (q, k, v) and its output (z) is
# replaced at all positions, by its mean over sequences, position by position, or by zeros, and we see what it costs.

# %% [markdown]
# ### Exercise 16 · `ablation_costs` (optional)
# *Difficulty ●●○○○ · 10 minutes*
#
# **Why:** the write-up's closing table: which heads matter, and through what.
#
# `labels` are 1 for palindromes, 0 for others. Return, for each layer and head, by how many **nats** (natural-log units of loss) the mean cross-entropy at
# `END` rises when `activation` (`"q"`, `"k"`, `"v"` or `"z"`) of that head alone is ablated in the way `how` (`"mean"` or
# `"zero"`). `hooks.ablate` is a `with` block: `with ablate(model, [(layer, head)], activation=activation, how=how):`.
#
# <details><summary>Hint</summary>
#
# `torch.nn.functional.cross_entropy(logits_at_end, labels)` is in nats and takes the mean over sequences.
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
# The control: one sequence is its own mean, so ablating it by its mean changes nothing.
with ablate(model, HEADS, how="mean"):
    alone = model(data.tokens[:1])
print(
    f"largest change by mean ablation of one sequence: {(alone - model(data.tokens[:1])).abs().max():.4f}"
)

costs_of = checks.ablation_costs.working(ablation_costs)
labels_1_or_0 = data.labels.long()
head_names = [f"{layer}.{head}" for layer, head in HEADS]
costs = {
    how: torch.stack(
        [
            costs_of(model, data.tokens, labels_1_or_0, activation, how).flatten()
            for activation in "qkvz"
        ]
    )
    for how in ("mean", "zero")
}
unharmed = task.loss(model(data.tokens), data).item()


def cost(head, activation, how):
    with ablate(model, [head], activation=activation, how=how):
        return task.loss(model(data.tokens), data).item() - unharmed


costs["resample"] = torch.tensor(
    [[cost(head, a, "resample") for head in HEADS] for a in "qkvz"]
)
plotting.heatmap_facets(
    {f"{how} ablation": table for how, table in costs.items()},
    title="What it costs to ablate one activation of one head",
    x="head",
    y="activation",
    unit="nats",
    x_labels=head_names,
    y_labels=list("qkvz"),
    text=True,
).show()

# %%
ways = {
    how: [cost(head, "z", how) for head in HEADS]
    for how in ("zero", "mean", "resample", "noise")
}
plotting.bar(
    head_names,
    ways,
    title="Four ways to ablate a head's output z",
    x="head",
    y="loss added (nats)",
).show()
for how in ("zero", "mean", "resample"):
    with ablate(model, [READER], how=how):  # the mean is over the whole batch: both classes
        accepted = 1 - rejected(verdict(model, data.tokens)[data.is_palindrome])
    print(
        f"head {READER[0]}.{READER[1]}, {how:8s}: {accepted:.3f} of the palindromes are still accepted"
    )

# %% [markdown]
# The four ways disagree, and the last lines say why. A reading head at zero casts no vote: the other one decides, and most
# verdicts stay. A reading head at its *mean* casts the same vote for every sequence. Half of them make it vote "no palindrome",
# which is the louder of its two votes (before LayerNorm's scale), so the mean is against palindromes, and few or none are still
# accepted. Resampling leaves about half of them accepted, though it costs most in nats: it is confidently wrong. Standard normal
# noise has nothing to do with the size of the activation, so its bar says least. Before you read an ablation, ask what was put
# in the place of what was taken out. (Even the batch matters: over palindromes alone, the mean would be a palindrome's vote.)

# %% [markdown]
# **The other head of layer 0.** Its mean in its place costs next to nothing. The write-up wonders whether such a head writes
# roughly the same for all sequences. Does it? For each head of layer 0, place by place:

# %%
_, written = model.run_with_cache(data.tokens, names_filter=["blocks.0.attn.hook_result"])
for head in range(model.cfg.n_heads):
    output = written["result", 0][:, list(task.SECOND_HALF), head]
    same = output.mean(0).pow(2).sum() / output.pow(2).mean(0).sum()
    print(
        f"head 0.{head}: {same:.3f} of what it writes in the second half (mean square) is the same for all"
    )

# %% [markdown]
# It does not: of what the head that does not match writes, only about a third is the same for all. So "its mean serves as well"
# and "it is constant" are two claims, and the ablation supports only the first: the model does not *need* the difference. Another
# sequence's output in its place does a little harm (0.12 nats in the figure above).

# %% [markdown]
# ### Exercise 17 · `stale_label` (optional: find the bug)
# *Difficulty ●●○○○ · 4 minutes*
#
# A notebook sets `layer, head = 0, 0` in an early cell, to draw one head's pattern. Many cells later it zero-ablates the queries
# of one head:
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
# The line prints variables that an early cell left behind; the hook used its own. Two printed lines of write-up 002 have this
# bug. Names that are computed where they are used (`f"{layer}.{head}"` inside the loop that ablates) cannot go stale.

# %% [markdown]
# ## 6 · Where it fails
#
# The accuracy on fresh data is high, but most non-palindromes in the data break at several pairs, and noticing one of them
# is enough. The honest test has **exactly one** mismatched pair, here 2,000 sequences for each of the ten pairs.

# %%
one_pair = [task.one_mismatch(2000, pair, seed=pair) for pair in range(1, task.N_PAIRS + 1)]
noticed = [
    task.correct(model(pair_data.tokens), pair_data).float().mean().item()
    for pair_data in one_pair
]
plotting.bar(
    [f"{pair}, {task.mirror(pair)}" for pair in range(1, task.N_PAIRS + 1)],
    noticed,
    title="Sequences with exactly one mismatched pair",
    x="positions of the pair",
    y="share called “no palindrome”",
).show()
print(
    f"all data: {right.mean():.4f}   one mismatched pair: {sum(noticed) / len(noticed):.4f}"
)

# %% [markdown]
# This is what the accuracy on fresh data hides. It is also what your circuit predicts: a pair is missed where the matching
# head's attention does not depend on the values, or where what it writes does not make `END` look.
#
# Besides the place, the **values** matter: two different values whose score in the token circuit is almost as high as that of
# equal ones can pass for equal.

# %% [markdown]
# ### Exercise 18 · `counterexamples` (core)
# *Difficulty ●●●○○ · 20 minutes*
#
# **Why:** an explanation that is right about the mechanism knows where the mechanism breaks.
#
# Give `counterexamples`, a tensor of **50** token sequences of shape (50, 22): `START`, twenty values, `END`. Each must be
# valid, none may be there twice, none may be a palindrome, and the model must take them for palindromes. The check passes
# when at least **40 of the 50** fool the model. You may build them by hand or by code, from the weights or from the figures;
# what you may not do is give the model the same sequence twice.
#
# The check also tells apart what is **in distribution** (six different values or more in the first half, as 999 of 1,000
# training sequences have) from what is not. Both count.
#
# <details><summary>Hint 1</summary>
#
# Start from palindromes, `data.tokens[data.is_palindrome]`, and change a value at the position that the model is blindest to.
# </details>
# <details><summary>Hint 2</summary>
#
# No blind position in your model? Then choose the values. For a head that compares, look in its token circuit for two
# *different* values with a high score: `scores[query_value, key_value]`, where the query is the value in the second half.
# Try the best pairs of values at every position with a score of the model's own (exercise 1), and keep the best.
# </details>

# %% nbgrader={"grade": false, "grade_id": "counterexamples", "locked": false, "schema_version": 3, "solution": true, "task": false}
### BEGIN SOLUTION
# From the mechanism: at each position, the wrong value that the matching head likes best.
palindromes = data.tokens[data.is_palindrome][:100]
confusable = token_scores[MATCHER[1]].clone()
confusable.fill_diagonal_(-torch.inf)
# For each value of the first half: the wrong value in the second half that scores it highest.
likes = confusable.argmax(0)
candidates = []
for position in task.SECOND_HALF:
    changed = palindromes.clone()
    changed[:, position] = likes[changed[:, task.mirror(position)]]
    candidates.append(changed)
fooled = torch.stack(
    [(verdict(model, changed) > 0).float().mean() for changed in candidates]
)
tried = torch.cat(candidates)
counterexamples = tried[verdict(model, tried).argsort(descending=True)][:50]
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check_counterexamples", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.counterexamples(counterexamples)


# %%
def non_palindromes(size, generator):
    drawn = task.make_data(4 * size, generator)
    return drawn.tokens[~drawn.is_palindrome][:size]


by_chance = evidence.random_search(
    model, non_palindromes, margin=evidence_task.margin, budget=1000
)
found = checks.counterexamples.working(counterexamples)
plotting.strip(
    {"1,000 random": by_chance, "your 50": verdict(model, found)},
    title="How far non-palindromes are from fooling the model",
    x="where they come from",
    y="margin: wrong minus right logit",
    reference_lines={"above this line the model is fooled": 0.0},
).show()
print(
    f"random non-palindromes that fool the model: {int((by_chance > 0).sum())} of {len(by_chance)}"
)

# %% tags=["solution-only"]
outside = torch.cat(
    [c for c, share in zip(candidates, fooled, strict=True) if share < fooled.max()]
)
at_random = torch.cat(
    [
        task.change_value(palindromes, p, seed=p)
        for p in task.SECOND_HALF
        if fooled[p - 11] < fooled.max()
    ]
)
tries = {
    "all ten places, wrong value from the weights": tried,
    "without the blindest place, from the weights": outside,
    "without the blindest place, wrong value at random": at_random,
}
for name, sequences in tries.items():
    print(
        f"{name:50s} {int((verdict(model, sequences) > 0).sum()):4d} of {len(sequences)} fool the model"
    )

# %% [markdown] tags=["solution-only"]
# As many tries as chance had, and many times the finds. The blind place gives most of them. The other places show the second
# route: there, a wrong value that the matching head's token circuit likes slips through more often than one drawn at random.

# %% [markdown]
# ## 7 · Does the explanation hold? (optional)
#
# Two more ways to be wrong, and to find out. The first needs an instrument: `scorer.scores([heads, …])` says, for each list of
# heads, how much of the model's work is left when every *other* head is resampled. The control is in its printed line: all
# heads kept is all of the work, no head kept is chance or a little less.

# %%
scorer = evidence.CircuitScorer(
    model,
    data.tokens[:500],
    lambda logits: (logits[:, -1].argmax(-1) == data.labels[:500]).float().mean().item(),
    chance=0.5,
    ablation="resample",
)
print(
    f"no head kept: {scorer.scores([[]])[0]:.2f}   all heads kept: {scorer.scores([HEADS])[0]:.2f}"
)

# %% [markdown]
# ### Exercise 19 · `circuit` (optional)
# *Difficulty ●●○○○ · 8 minutes*
#
# **Why:** "these heads do it" means that the rest of the model is not needed.
#
# Give `circuit`, a list of **at most three** heads `(layer, head)`. The check *resamples* every head outside it: its output
# `z` at each position is replaced by the one it has on another sequence, drawn at random. What is left is scored as
#
# $$\frac{\text{accuracy with everything else resampled} - \tfrac12}{\text{accuracy of the whole model} - \tfrac12}$$
#
# on 500 sequences, half of them palindromes: 1 is all of the work, 0 is chance. It must reach **0.80**, and each head must be
# worth at least 0.02 of it, or it does not belong. Embeddings, biases and the unembedding stay.
#
# If you like, name sites `(layer, head, position)` instead of heads: the position is the one where the head *writes*. The
# check then also says how your circuit does among 1,000 random ones of as many sites.
#
# <details><summary>Hint</summary>
#
# Name the heads from sections 2 and 5, and ask `scorer.scores`. Does one head of layer 1 suffice in your model?
# </details>

# %% nbgrader={"grade": false, "grade_id": "circuit", "locked": false, "schema_version": 3, "solution": true, "task": false}
### BEGIN SOLUTION
both = [MATCHER, (1, 0), (1, 1)]
one_reader = [[MATCHER, (1, head)] for head in range(model.cfg.n_heads)]
scores = scorer.scores([both, *one_reader])
circuit = (
    both if scores[0] > scores[1:].max() + 0.02 else one_reader[int(scores[1:].argmax())]
)
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check_circuit", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.circuit(circuit)

# %%
sets = [heads for size in range(1, 5) for heads in combinations(HEADS, size)]
set_scores = scorer.scores(sets)
plotting.strip(
    {
        f"{size} of 4": [
            float(s)
            for heads, s in zip(sets, set_scores, strict=True)
            if len(heads) == size
        ]
        for size in range(1, 5)
    },
    title="Every set of heads, with all others resampled",
    x="heads kept",
    y="share of the model's work",
    reference_lines={
        "your circuit": float(scorer.scores([checks.circuit.working(circuit)])[0])
    },
).show()

# %% [markdown]
# Four heads make few sets, so a first rank among the four sets of three says little by itself. What says more: no set without
# the matching head gets above 0.06, with it one reader gets about half and both nearly all.

# %%
sites = [(*MATCHER, p) for p in task.SECOND_HALF] + [
    (1, head, END) for head in range(model.cfg.n_heads)
]
stored = (
    checks.explanation.evidence().circuits
)  # 1,000 random circuits of each size, scored once
site_scorer = evidence.CircuitScorer(
    model, stored.tokens, accuracy(evidence_task, stored.tokens), chance=0.5
)
among = evidence.percentile_among_random(
    site_scorer, sites, sites=stored.sites, values=stored.values(len(sites))
)
plotting.strip(
    {f"1,000 random circuits of {len(sites)} sites": among.scores},
    title="The matching head in the second half, and layer 1 at END, among random circuits",
    x="everything else at its mean",
    y="share of the model's work",
    reference_lines={"this circuit": among.score},
).show()
print(
    f"score {among.score:.2f}; {among.percentile:.1f} % of the random circuits score less"
)

# %% [markdown]
# With positions there are many circuits, and the comparison says something: twelve of the model's head-and-position sites do
# what the whole model does (on 128 stored sequences, with everything else at its mean).

# %% [markdown]
# ### Exercise 20 · `explanation` (optional)
# *Difficulty ●●●●● · 40 minutes*
#
# **Why:** a story about a model can sound right and predict nothing. Here it has to predict, without the model, what the
# model answers: also where it is *wrong*.
#
# Write `explanation(model)`. It reads what it needs from the weights (and, if you like, from runs of the model) into a dict
# `numbers` of tensors, and returns `simulate, numbers`. `simulate(inputs, numbers)` gets token sequences of shape
# (sequence, 22) and your numbers, and returns 1 (palindrome) or 0, or booleans, one for each sequence. It runs **without a model in reach**: only
# its arguments, `torch`, `einops` and the like.
#
# The sequences are hard ones: half of them the model gets wrong. Your score is the mean of two agreements with the model,
# one over the inputs that it gets right, one over those that it gets wrong. The perfect algorithm scores 0.50, and so
# does its opposite. **0.65** passes; the check also counts your numbers (the model has 8,262).
#
# <details><summary>Hint 1</summary>
#
# Follow the message to its source. The matching head's pattern can be computed from embeddings, `W_Q`, `W_K` and `b_Q` alone:
# in layer 0 the LayerNorm's scale is the root of the mean square of embedding plus position embedding.
# </details>
# <details><summary>Hint 2</summary>
#
# One head may be enough. When does a place look out of order to the rest of the model? When it attends to the first half
# much less than it would if all were well.
# </details>
# <details><summary>Hint 3</summary>
#
# "If all were well" can be computed too: the same second half, with its own mirror image as the first half. No number has to
# be fitted: half as much is a threshold that works.
# </details>


# %% nbgrader={"grade": false, "grade_id": "explanation", "locked": false, "schema_version": 3, "solution": true, "task": false}
def explanation(model):
    """(simulate, numbers): a prediction of the model's answers, and the numbers it needs."""
    ### BEGIN SOLUTION
    layer, index = MATCHER
    W_E, W_pos = model.W_E[:-1], model.W_pos[:-1]  # no position that matters sees END
    root = model.cfg.d_head**0.5
    numbers = {
        "query_of_value": W_E[:-1] @ model.W_Q[layer, index],
        "query_of_place": W_pos[11:] @ model.W_Q[layer, index],
        "query_bias": model.b_Q[layer, index],
        "key_of_token": W_E @ model.W_K[layer, index] / root,
        "key_of_place": W_pos @ model.W_K[layer, index] / root,
        # LayerNorm divides by the length of token plus place, which these three give
        "token_length": W_E.pow(2).mean(-1),
        "place_length": W_pos.pow(2).mean(-1),
        "together": 2 * W_E @ W_pos.T / model.cfg.d_model,
    }

    def attention_to_first_half(tokens, numbers):
        """Of each place in the second half, in the matching head: (sequence, 10)."""
        tokens, places = tokens[:, :21], torch.arange(21)
        length = (
            numbers["token_length"][tokens]
            + numbers["place_length"]
            + numbers["together"][tokens, places]
        )
        scale = length.sqrt()[..., None]
        queries = (
            numbers["query_of_value"][tokens[:, 11:]] + numbers["query_of_place"]
        ) / scale[:, 11:]
        keys = (numbers["key_of_token"][tokens] + numbers["key_of_place"]) / scale
        scores = (queries + numbers["query_bias"]) @ keys.transpose(1, 2)
        later = places[None] > places[11:, None]
        return scores.masked_fill(later, float("-inf")).softmax(-1)[..., 1:11].sum(-1)

    def simulate(inputs, numbers):
        """Accepted, unless a place attends to the first half less than half as it should."""
        in_order = inputs.clone()
        in_order[:, 1:11] = inputs[:, 11:21].flip(-1)
        wanted = attention_to_first_half(in_order, numbers) / 2
        return (attention_to_first_half(inputs, numbers) > wanted).all(-1)

    return simulate, numbers
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_explanation", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.explanation(explanation)

# %%
pool = checks.explanation.pool
scored = evidence.simulation_score(*checks.explanation.working(explanation)(model), pool)
plotting.heatmap(
    scored.agreement.T,
    title="Where the explanation predicts the model (blank: no such sequence)",
    x="kind of sequence",
    y="the model is",
    unit="share<br>predicted",
    x_labels=list(scored.kind_names),
    y_labels=["wrong", "right"],
    signed=False,
    text=True,
).show()
print(
    f"score {scored.score:.2f}   perfect algorithm {scored.perfect:.2f}   its opposite {scored.opposite:.2f}"
)
print(
    f"numbers used: {scored.n_numbers}; parameters of the model: {sum(p.numel() for p in model.parameters())}"
)

# %% [markdown] tags=["solution-only"]
# One head, read from its weights, and one sentence: *a place is in order if it attends to the first half at least half as much as
# it would in its own palindrome; the model accepts if all ten places are in order.* No layer 1, nothing
# fitted but the choice of one half, a quarter of the model's numbers, and most right and wrong answers are predicted. What it
# misses is as telling: of the rare palindromes that this model rejects (top left cell) it predicts none. They need something
# that is not in this head.

# %% [markdown]
# ## 8 · Five models, one recipe (optional)
#
# Everything above is about one set of weights. Four more were trained with the same recipe and other seeds. Which of your
# findings belong to the task, and which to this model? For each of them: swap one thing between an intact and a broken
# sequence, as in exercises 10 and 11, and count the verdicts that turn.


# %%
def turned(other, swap_one):
    """The share of 100 palindromes whose verdict turns, for each position changed."""
    few = intact[:100]
    return torch.stack(
        [
            rejected(swap_one(other, few, task.change_value(few, p, seed=p), p))
            for p in task.SECOND_HALF
        ]
    )


instances = [name for name in available_instances("palindromes") if name.startswith("seed")]
models = {name: load_model("palindromes", name) for name in instances}
experiments = {
    "the value itself": lambda m, x, changed, p: verdict(m, changed),
    "pattern of 0.0": lambda m, x, changed, p: swap(m, (0, 0), x, changed, p),
    "pattern of 0.1": lambda m, x, changed, p: swap(m, (0, 1), x, changed, p),
    "layer 1: queries": lambda m, x, changed, p: swap_in(m, 1, ("q",), x, changed, p),
    "layer 1: keys": lambda m, x, changed, p: swap_in(m, 1, ("k",), x, changed, p),
    "layer 1: values": lambda m, x, changed, p: swap_in(m, 1, ("v",), x, changed, p),
    "layer 1: keys and values": lambda m, x, changed, p: swap_in(
        m, 1, ("k", "v"), x, changed, p
    ),
}
across = {
    name: torch.stack([turned(other, swap_one) for other in models.values()])
    for name, swap_one in experiments.items()
}
plotting.heatmap_facets(
    across,
    title="What has to be swapped for the verdict to turn, in five models",
    x="changed position",
    y="model",
    unit="share turned",
    x_labels=[str(p) for p in task.SECOND_HALF],
    y_labels=instances,
    signed=False,
).show()
for name, table in across.items():
    print(
        f"{name:26s}",
        "  ".join(
            f"{instance} {row.mean():.2f}"
            for instance, row in zip(instances, table, strict=True)
        ),
    )

# %% [markdown]
# The rows of a panel are the five models; the columns are the places where a value was changed.
#
# **What they share.** In each model the message passes through *one* head of layer 0: swapping one row of that head's pattern
# does nearly all that changing the value does, and swapping the other head's does nearly nothing. Which of the two heads it
# is depends on the seed. In each model keys *and* values of layer 1 together carry the message on; values alone never do.
#
# **Where they differ.** Keys alone do next to nothing in three models, and in the other two turn about a third of the
# verdicts, very unevenly by place. A guess: there, a place in order that is looked at votes against, too. Not tested. Each model
# has a blind or a weak place (the light cells of the first panel), and nothing in the task says which pair to neglect. And
# one model has a second route: in `seed4`, swapping the queries at `END` turns some verdicts, and at its weak place half of
# what it notices arrives so. (This lesson's answers pass every check on the write-up's own weights, too:
# `EXERCISES_INSTANCE=published`.)

# %% [markdown]
# ### Does processing the weights change the model? (optional)
#
# Everything above used processed weights. Compare with the weights as they were trained.

# %%
raw = load_model("palindromes", processed=False)
raw_log_probs, log_probs = (
    m(data.tokens[:500])[:, -1].log_softmax(-1) for m in (raw, model)
)
raw_logits, logits_now = raw(data.tokens[:500])[:, -1], model(data.tokens[:500])[:, -1]
print(
    f"largest difference in logits:            {(raw_logits - logits_now).abs().max():.3f}"
)
print(
    f"largest difference in log-probabilities: {(raw_log_probs - log_probs).abs().max():.3f}"
)
for name, of in {"trained": raw, "processed": model}.items():
    means = {
        "W_E": of.W_E.mean(-1),
        "W_pos": of.W_pos.mean(-1),
        "W_O": of.W_O.mean(-1),
        "W_U": of.W_U.mean(0),
    }
    print(
        f"{name}: largest mean over d_model",
        {part: round(mean.abs().max().item(), 3) for part, mean in means.items()},
    )
    print(
        f"{name}: largest mean of W_U over the verdicts {of.W_U.mean(1).abs().max():.3f}, largest b_V {of.b_V.abs().max():.3f}"
    )

# %% [markdown]
# ### Exercise 21 · `what_processing_keeps` (optional)
# *Difficulty ●●○○○ · 3 minutes*
#
# Which of these can change when weights are processed (LayerNorm folded, everything that writes to the residual stream
# centred, `W_U` centred over its outputs, `b_V` folded into `b_O`)?
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
# ## 9 · What we know, and how well
#
# How does it know? **One head of layer 0 compares** (both attend by value; only one head's attention reaches the verdict). At each position of the second half it attends to the mirror if the
# values agree, and elsewhere if they do not. **Its output says which half it attended to**, and so whether the place is in
# order. **The heads of layer 1 read.** The key makes `END` look at a place that is out of order, the value votes "no palindrome"
# when it is looked at; otherwise `END` rests somewhere and votes "palindrome".
#
# | claim | evidence | strength | what would refute it |
# |---|---|---|---|
# | The heads of layer 1 write the verdict, here both | attribution that adds up; replacing one by its mean or by another sequence's output costs about 2 nats (by zeros: 0.15) | strong (intervention) | a head of layer 0 that separates the classes as much |
# | `END` attends to places that are out of order | END rows when one value is changed | correlation, on 300 sequences a position | rows that do not move at places the model notices |
# | One head of layer 0 compares, and its comparison is used | token circuit with the diagonal on top, pattern with equal and different values; but the other head attends by value too, with the diagonal on top in 84 % of its rows | weights and correlation | a diagonal without effect, as the other head's: only the next line tells them apart |
# | The message is one row of that head's pattern | swap of one row turns nearly as many verdicts as the real change; the same swap in the other head nearly none | strong (intervention with control) | verdicts that stay when the row is swapped at a place the model notices |
# | It arrives mainly through keys *and* values of layer 1 | swaps of q, k, v, alone and together, in five models; queries do nothing in four of them and a little in `seed4` | strong (intervention); how much keys do alone differs between models | queries that turn many verdicts; values that do alone |
# | The matching head's output tells places of the second half from those of the first, each place to one of the readers | composed circuits from position embeddings; votes vary by place more than by value | from weights, without LayerNorm scales | a noticed place that is high for neither reader |
# | The mistakes follow from the mechanism | blind places and confusable values give counterexamples far above chance; the explanation predicts right and wrong answers | strong (prediction on sequences chosen without it) | a score near one half |
#
# **Not understood.** Why a model neglects a pair at all, and which one. What the other head of layer 0 is for: what
# it writes differs between sequences, and the model hardly needs the difference; noise in its place does harm.
# How the two heads of layer 1 divide the places between them, and whether training pushes them to. Why the model rejects some
# palindromes, which the explanation of exercise 20 does not foresee.
#
# **Corrections to the write-up.** One sentence names the Q input where the evidence, and the sentence after it, are about keys;
# exercises 11 to 13 show keys and values. Two of its printed lines name head 0.0 for ablations of head 1.0 (exercise 17). Its
# attributions leave out the LayerNorm scales and so do not add up to the logit difference; yours do.

# %%
checks.progress()
