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
# # 01 · Sorted list, one head
#
# **How does one attention head, with nothing else, sort ten numbers?**
#
# A transformer can hardly be smaller: one layer, one head, no MLP, no LayerNorm, no biases. It reads ten numbers and
# writes them in order. Everything that it computes fits into eight small tables, and you will compute all eight, rebuild
# the model from them, and take it apart. A good story about it is soon found, "look at the right number and copy it", and
# the figures seem to agree. You will find out how much of the model that story explains, what it leaves out, and which
# lists the model gets wrong for that reason.
#
# | | |
# |---|---|
# | **You will be able to** | use hooks, caches and factored matrices in TransformerLens 4; read a head's OV and QK circuits from its weights; split attention scores into terms that add up; rebuild a model from tables and operate on it; tell what is seen from what is shown by an intervention |
# | **Time** | core path: 8 exercises, 2 to 2½ hours with reading. Optional exercises are marked; the core does not need them |
# | **Model** | 1 layer, 1 head, attention only, no LayerNorm, no biases, `d_model` = `d_head` = 128: 81,408 parameters |
# | **Data** | `BOS`, ten numbers from 0 to 49 (repeats allowed), `MID`, the same ten in order. Fifty logits, one for each number |
# | **You need** | Python, the basics of PyTorch, and the formula of attention. No other tutorial: section 0 shows the tools on this very model |
#
# The challenge and its first analysis are Connor Kissane's ("Sorting fixed-length lists"; "the write-up" from here on).
# This lesson follows it, corrects some of its figures and conclusions (the list is at the end), and goes on from there.

# %% [markdown]
# ## Setup

# %%
from itertools import combinations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from exercises_utils import available_instances, circuits, evidence, load_model, plotting
from exercises_utils.challenges.sorted_list_one_head import checks, task
from exercises_utils.challenges.sorted_list_one_head import evidence as evidence_task
from exercises_utils.tools import patch

torch.set_grad_enabled(False)

model = load_model("sorted_list_one_head")
data = task.make_data(size=2000, seed=1).to(model.cfg.device)

# %% [markdown]
# A sequence has 22 tokens. `BOS` (token 50) stands at position 0, the list at positions 1 to 10, `MID` (token 51) at
# position 11, the sorted list at positions 12 to 21.

# %%
for tokens in data.tokens[:3]:
    plotting.display_sequence(task.str_tokens(tokens))

# %% [markdown]
# The model sees the whole sequence, but each position sees only itself and what stands before it. It is asked ten times: at
# `MID` for the smallest number, and at every sorted number but the last for the next one. So the **answer positions**
# are 11 to 20 (`task.ANSWER_POSITIONS`), and the right answers are the tokens at 12 to 21 (`data.labels`).
#
# The checks run your functions on this model and on random ones of other sizes: with more numbers, layers or heads, on
# sequences that are shorter than `W_pos`, on a single list. So take sizes from the arguments. `BOS` and `MID` are always
# the last two tokens, answers are always at 11 to 20, and where an exercise speaks of *the* head, it is head 0 of layer 0.

# %% [markdown]
# ## 0 · TransformerLens in fifteen minutes
#
# TransformerLens runs a transformer and lets you read, and change, every number inside it. Calling a model gives the logits
# at every position: shape (list, position, number).

# %%
logits = model(data.tokens)
print("tokens", tuple(data.tokens.shape), "  logits", tuple(logits.shape))

# %% [markdown]
# ### Exercise 1 · `answer_accuracy` (core)
# *Difficulty ●○○○○ · 5 minutes*
#
# **Why:** an off-by-one between what the model is asked and where it is read is the commonest mistake there is. Make it
# here, where the check tells you.
#
# Return, for each of the ten answer positions, the share of the lists for which the number with the highest logit is the
# right one. The logits at position $p$ predict the token at position $p + 1$. The first entry belongs to `MID`.
#
# <details><summary>Hint 1</summary>
#
# The logits that count stand at positions 11 to 20: `logits[:, 11:21]`. The right answers are `tokens[:, 12:22]`.
# </details>
# <details><summary>Hint 2</summary>
#
# `argmax(-1)` takes the highest logit; compare, make it float, and take the mean over the lists, which are axis 0.
# </details>


# %% nbgrader={"grade": false, "grade_id": "answer_accuracy", "locked": false, "schema_version": 3, "solution": true, "task": false}
def answer_accuracy(
    model, tokens: Int[Tensor, "batch position"]
) -> Float[Tensor, " answer"]:
    """Share of lists answered rightly at each of the ten answer positions, MID first."""
    ### BEGIN SOLUTION
    answers = model(tokens)[:, 11:21].argmax(-1)
    return (answers == tokens[:, 12:22]).float().mean(0)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_answer_accuracy", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.answer_accuracy(answer_accuracy)

# %%
ANSWERS = list(task.ANSWER_POSITIONS)
ANSWER_NAMES = [f"{p} (MID)" if p == task.MID_POSITION else str(p) for p in ANSWERS]
by_position = checks.answer_accuracy.working(answer_accuracy)(model, data.tokens)
plotting.bar(
    ANSWER_NAMES,
    1 - by_position,
    title="Wrong answers on 2,000 lists",
    x="answer position",
    y="share wrong",
).show()
whole = task.correct(logits, data).all(-1).float().mean()
loss = task.loss(logits, data)
print(
    f"share of right answers: {by_position.mean():.4f}   lists without a mistake: {whole:.4f}"
)
print(f"loss over the ten answer positions: {loss:.4f} nats")
print(f"as hard as a choice between {loss.exp():.3f} numbers")

# %% [markdown]
# One answer in a few hundred is wrong, most of them in the middle of the list. (A loss of $\ell$ **nats** is the mean of
# $-\ln p$, with $p$ the probability of the right number. As hard as a choice between $e^\ell$ equally likely numbers: that is
# the last printed line.) Keep the mistakes in mind. They will tell more about the mechanism than the right answers.
#
# **The cache.** `run_with_cache` returns the logits and a dictionary with every activation on the way. Names are long
# (`"blocks.0.attn.hook_pattern"`) or short (`cache["pattern", 0]`, the 0 is the layer); both work.

# %%
_, cache = model.run_with_cache(data.tokens)
for name, meaning in {
    "hook_embed": "list, position, d_model: the token's embedding",
    "hook_pos_embed": "list, position, d_model: the position's embedding",
    "blocks.0.hook_resid_pre": "list, position, d_model: their sum, the residual stream",
    "blocks.0.attn.hook_q": "list, position, head, d_head: queries",
    "blocks.0.attn.hook_k": "list, position, head, d_head: keys",
    "blocks.0.attn.hook_v": "list, position, head, d_head: values",
    "blocks.0.attn.hook_attn_scores": "list, head, query, key: q · k / √d_head, −inf where key > query",
    "blocks.0.attn.hook_pattern": "list, head, query, key: softmax of the scores over keys",
    "blocks.0.attn.hook_z": "list, position, head, d_head: values, weighted by the pattern",
    "blocks.0.hook_resid_post": "list, position, d_model: with what the head wrote added",
}.items():
    print(f"{name:31s}{tuple(cache[name].shape)!s:19s} {meaning}")

# %% [markdown]
# ### Exercise 2 · `mean_pattern` (core)
# *Difficulty ●○○○○ · 5 minutes*
#
# **Why:** the pattern is the first thing to look at in an attention head, and its axes are the first thing to get wrong.
#
# Run the model on `tokens` and return the attention pattern (after the softmax) of the head, averaged over the lists: one
# row for each query position, one column for each key position (22 and 22 here).
#
# <details><summary>Hint</summary>
#
# `cache["pattern", 0]` has the axes (list, head, query, key). Take head 0, then the mean over the lists.
# </details>


# %% nbgrader={"grade": false, "grade_id": "mean_pattern", "locked": false, "schema_version": 3, "solution": true, "task": false}
def mean_pattern(
    model, tokens: Int[Tensor, "batch position"]
) -> Float[Tensor, "query key"]:
    """The attention pattern of head 0.0 (layer 0, head 0), averaged over lists."""
    ### BEGIN SOLUTION
    _, cache = model.run_with_cache(tokens)
    return cache["pattern", 0][:, 0].mean(0)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_mean_pattern", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.mean_pattern(mean_pattern)

# %%
PLACES = [
    "BOS",
    *(f"a{i}" for i in range(1, 11)),
    "MID",
    *(f"s{i}" for i in range(1, 11)),
]
average = checks.mean_pattern.working(mean_pattern)(model, data.tokens)
plotting.heatmap(
    average,
    title="Mean attention pattern: a1…a10 the list, s1…s10 the sorted list",
    x="key: where it looks",
    y="query: where it stands",
    unit="attention",
    x_labels=PLACES,
    y_labels=PLACES,
    signed=False,
).show()
to = {
    "BOS": average[ANSWERS, 0],
    "the list": average[ANSWERS, 1:11].sum(-1),
    "MID": average[ANSWERS, 11],
    "the sorted part": average[ANSWERS, 12:].sum(-1),
}
for name, share in to.items():
    print(f"{name:16s}", " ".join(f"{s:.2f}" for s in share))

# %% [markdown]
# **What you should see:** the rows that count are the answer positions, `MID` to `s9` (printed below the figure, one
# column each). They look at the list, on average at every place of it alike: a number can stand anywhere. Some
# attention goes to `BOS` and to `MID`, and nearly none to the sorted part, though the numbers printed so far stand
# there. Can the head do without them? Section 5 puts that to the test. The last answer is special: there, next to
# nothing goes anywhere but to the list.
#
# **Hooks.** A hook is a function that gets an activation while the model runs, and may return another one instead. `with
# model.hooks(fwd_hooks=[(name, function)]):` puts it on and takes it off again. Before the first change, the control:
# a hook that changes nothing must change nothing.

# %%
SCORES = "blocks.0.attn.hook_attn_scores"


def same(activation, hook):
    return activation


with model.hooks(fwd_hooks=[(SCORES, same)]):
    after = model(data.tokens)
print(f"largest change by a hook that changes nothing: {(after - logits).abs().max():.4f}")

# %% [markdown]
# ### Exercise 3 · `hide_position` (core)
# *Difficulty ●●○○○ · 12 minutes*
#
# **Why:** your first intervention. To make a place invisible, nothing has to be deleted: it is enough that no query can
# attend to it.
#
# Return the model's logits at all positions when **no query can attend to key `position`** (1 to 21), with the tokens as they
# are. Do it with a hook on `"blocks.0.attn.hook_attn_scores"` (there is one layer) that sets the scores of that *key* to minus
# infinity for every head and query; the softmax that follows then gives it no attention and shares the rest out anew. The
# hook must be gone afterwards.
#
# <details><summary>Hint 1</summary>
#
# The scores have the axes (list, head, query, key). `scores[..., position] = float("-inf")` sets one key for all queries.
# </details>
# <details><summary>Hint 2</summary>
#
# Define `def hide(scores, hook):` inside your function; it changes a `clone()` of the scores and returns it. Run the model inside
# `with model.hooks(fwd_hooks=[(name, hide)]):`.
# </details>


# %% nbgrader={"grade": false, "grade_id": "hide_position", "locked": false, "schema_version": 3, "solution": true, "task": false}
def hide_position(
    model, tokens: Int[Tensor, "batch position"], position: int
) -> Float[Tensor, "batch position d_vocab_out"]:
    """The model's logits when no query can attend to `position`."""

    ### BEGIN SOLUTION
    def hide(scores, hook):
        scores = scores.clone()
        scores[..., position] = float("-inf")
        return scores

    with model.hooks(fwd_hooks=[("blocks.0.attn.hook_attn_scores", hide)]):
        return model(tokens)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_hide_position", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.hide_position(hide_position)

# %% [markdown]
# ### Exercise 4 · `what_if_hidden` (optional: predict, then reveal)
# *Difficulty ●○○○○ · 2 minutes*
#
# Take lists whose smallest number occurs once, and hide its place in the list. The sorted part is after `MID`, so `MID`
# cannot see it. What does the model answer at `MID`?
#
# - **a** the smallest number, as before
# - **b** the second smallest
# - **c** the largest
# - **d** this or that; there is no rule
#
# Answer with the letter, before you run the next figure.
#
# <details><summary>Hint</summary>
#
# What is left in sight of `MID` is a list of nine numbers.
# </details>

# %% nbgrader={"grade": false, "grade_id": "what_if_hidden", "locked": false, "schema_version": 3, "solution": true, "task": false}
### BEGIN SOLUTION
what_if_hidden = "b"
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check_what_if_hidden", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.what_if_hidden(what_if_hidden)

# %%
hide = checks.hide_position.working(hide_position)
smallest, second = data.labels[:, 0], data.labels[:, 1]
shares = {"the smallest": [], "the second smallest": [], "another number": []}
for place in task.LIST_POSITIONS:
    chosen = (data.tokens[:, place] == smallest) & (smallest < second)
    answer = hide(model, data.tokens[chosen], place)[:, task.MID_POSITION].argmax(-1)
    is_first, is_second = answer == smallest[chosen], answer == second[chosen]
    shares["the smallest"].append(is_first.float().mean())
    shares["the second smallest"].append(is_second.float().mean())
    shares["another number"].append((~is_first & ~is_second).float().mean())
plotting.bar(
    [f"a{place}" for place in task.LIST_POSITIONS],
    shares,
    title="What MID answers when the place of the smallest number is hidden",
    x="hidden place",
    y="share of the lists",
).show()

# %% [markdown]
# Nothing but the attention to one place was changed, and the answer moves on by one number. So what `MID` answers
# depends on what it *sees* of the list, wherever that stands. This is an intervention: it supports "the model uses this
# attention", where a picture of a pattern supports only "this could be used".
#
# **Factored matrices.** A head's four matrices only ever act in pairs: $W_{QK} = W_Q W_K^T$ decides where it looks,
# $W_{OV} = W_V W_O$ what it writes. `model.QK` and `model.OV` hold them as products that are not multiplied out
# (`FactoredMatrix`): with `@` you go on multiplying, `.AB` gives the matrix. It has at most `d_head` dimensions, which
# is why the factors are kept; in a model with small heads that saves most of the work.

# %%
OV = model.OV[0, 0]  # layer 0, head 0
moved = model.W_E[:3] @ OV  # three tokens' embeddings, as the head would write them
print("OV:", tuple(OV.shape), "=", tuple(OV.A.shape), "@", tuple(OV.B.shape))
print("three embeddings @ OV:", tuple(moved.shape), type(moved).__name__)
by_hand = model.W_E[:3] @ model.W_V[0, 0] @ model.W_O[0, 0]
print(f"largest difference from W_E @ W_V @ W_O: {(moved.AB - by_hand).abs().max():.4f}")

# %% [markdown]
# That is all you need: tokens in, logits out, a cache to read, hooks to change, and matrices to multiply.

# %% [markdown]
# ## 1 · Looking
#
# One list, seen whole: where does each answer position look? The column labels give the places and what stands there.

# %%
example = task.from_lists([[31, 8, 22, 15, 40, 22, 3, 35, 12, 27]])
_, one = model.run_with_cache(example.tokens)
named = [
    token if place == token else f"{place}: {token}"
    for place, token in zip(PLACES, task.str_tokens(example.tokens[0]), strict=True)
]
plotting.heatmap(
    one["pattern", 0][0, 0, ANSWERS, :21],
    title="Attention of the ten answer positions for one list",
    x="key: where it looks",
    y="query: where it stands",
    unit="attention",
    x_labels=named[:21],
    y_labels=named[11:21],
    signed=False,
).show()

# %% [markdown]
# The same to explore: hover over a token to see where it attends.

# %% tags=["drop-output"]
plotting.attention_heads(one["pattern", 0][0], task.str_tokens(example.tokens[0]), ["0.0"])

# %% [markdown]
# Each row looks at numbers near the right answer, and at the number itself among them. Three more lists, with the
# columns ordered by *size* (the ten numbers of the list, smallest first), so that the right answer of each row is on
# the diagonal:

# %%
in_order = data.tokens[:, 1:11].argsort(dim=-1, stable=True)
to_list = cache["pattern", 0][:, 0, 11:21, 1:11]
by_size = to_list.gather(-1, in_order[:, None].expand(-1, 10, -1))
plotting.heatmap_facets(
    {
        **{f"list {i}": by_size[i] for i in range(3)},
        "mean of 2,000 lists": by_size.mean(0),
    },
    title="Attention to the list, its numbers in order of size",
    x="rank of the number looked at (1: smallest)",
    y="query",
    unit="attention",
    x_labels=[str(i) for i in range(1, 11)],
    y_labels=PLACES[11:21],
    signed=False,
).show()

# %% [markdown]
# **What you should see:** a band along the diagonal. On average each answer position looks most at numbers of about the right
# size, and at others beside it. Only at the last answer position (`s9`, bottom row) is it clear-cut.
#
# It suggests a **first hypothesis**, the write-up's summary: *the head attends most to the right number, and copies what
# it attends to.* Two claims, then, one about where it looks (QK) and one about what it writes (OV). Both can be
# measured.

# %% [markdown]
# ### Exercise 5 · `attention_to_answer` (optional)
# *Difficulty ●●○○○ · 10 minutes*
#
# **Why:** "attends to the right number" needs a number of its own, and repeated numbers need care.
#
# For each of the ten answer positions, return the attention that goes to the right answer, averaged over the lists: the
# sum over **all places of the list part** (positions 1 to 10) that hold the number which is right there. A number that
# stands twice in the list has two places.
#
# <details><summary>Hint 1</summary>
#
# `tokens[:, None, 1:11] == tokens[:, 12:22, None]` has the axes (list, answer, place) and is true where a place holds the right
# number.
# </details>
# <details><summary>Hint 2</summary>
#
# The pattern of the answer positions to the list part is `cache["pattern", 0][:, 0, 11:21, 1:11]`: the same axes.
# Multiply, sum over places, mean over lists.
# </details>


# %% nbgrader={"grade": false, "grade_id": "attention_to_answer", "locked": false, "schema_version": 3, "solution": true, "task": false}
def attention_to_answer(
    model, tokens: Int[Tensor, "batch position"]
) -> Float[Tensor, " answer"]:
    """Mean attention from each answer position to all copies of the right number in the list."""
    ### BEGIN SOLUTION
    _, cache = model.run_with_cache(tokens)
    to_list = cache["pattern", 0][:, 0, 11:21, 1:11]
    is_right = tokens[:, None, 1:11] == tokens[:, 12:22, None]
    return (to_list * is_right).sum(-1).mean(0)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_attention_to_answer", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.attention_to_answer(attention_to_answer)

# %%
to_right = checks.attention_to_answer.working(attention_to_answer)(model, data.tokens)
plotting.line(
    {
        "the right number": to_right,
        "other numbers in the list": to["the list"] - to_right,
        "BOS": to["BOS"],
        "MID": to["MID"],
    },
    title="Where the attention goes (mean over 2,000 lists)",
    x="answer position",
    y="attention",
    x_values=ANSWER_NAMES,
).show()

# %% [markdown]
# The right number gets a small part of the attention: less than the other numbers together at every answer position but the
# last. A head that only copied would mix in a lot of other numbers. And yet it is nearly always right.

# %% [markdown]
# ## 2 · What does it write?
#
# With no LayerNorm and no biases, the logits are a plain sum. Let $t_k$ be the token at position $k$, and $A_{qk}$ the
# attention from $q$ to $k$:
#
# $$\text{logits}_q = \sum_k A_{qk}\,\big(\underbrace{W_E[t_k] W_{OV} W_U}_{\text{the token looked at}} + \underbrace{W_\text{pos}[k]
# W_{OV} W_U}_{\text{its position}}\big) + \underbrace{W_E[t_q] W_U + W_\text{pos}[q] W_U}_{\text{direct: what stands at } q}$$
#
# The token term has one row of fifty logits for each of the 52 tokens. That table is the **full OV circuit**.

# %% [markdown]
# ### Exercise 6 · `full_ov_circuit` (core)
# *Difficulty ●●○○○ · 8 minutes*
#
# **Why:** it says what attending to a token does to the answer, for all tokens at once, without running the model.
#
# Return $W_E W_V W_O W_U$: in row $t$ the logits that the head adds if it gives all its attention to token $t$ (its
# embedding, not its position). All 52 rows, `BOS` and `MID` included (they are the last two); 50 columns, one for each
# logit. A plain tensor.
#
# <details><summary>Hint</summary>
#
# `model.W_E` is (52, 128), `model.W_V[0, 0]` and `model.W_O[0, 0]` belong to layer 0, head 0, `model.W_U` is (128, 50). Or use
# `model.OV[0, 0]`, and `.AB` at the end.
# </details>


# %% nbgrader={"grade": false, "grade_id": "full_ov_circuit", "locked": false, "schema_version": 3, "solution": true, "task": false}
def full_ov_circuit(model) -> Float[Tensor, "d_vocab d_vocab_out"]:
    """What attending to each token (row) adds to each logit (column)."""
    ### BEGIN SOLUTION
    return (model.W_E @ model.OV[0, 0] @ model.W_U).AB
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_full_ov_circuit", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.full_ov_circuit(full_ov_circuit)

# %%
ov_token = checks.full_ov_circuit.working(full_ov_circuit)(model)
plotting.heatmap(
    ov_token[:50],
    title="Full OV circuit: what attending to a number adds to the logits",
    x="logit",
    y="number attended to",
    unit="logits",
).show()

# %% [markdown]
# **What you should see:** a diagonal, as copying wants it, but not on an empty ground. Most numbers push up not only
# themselves but a whole side of the scale, and push down the other.

# %% [markdown]
# ### Exercise 7 · `copying_share` (optional)
# *Difficulty ●○○○○ · 4 minutes*
#
# **Why:** the write-up's measure of "it copies".
#
# `ov` is a full OV circuit with two rows more than columns. Return, as a number, the share of the *number* rows (the
# first $n$ of $n + 2$) whose highest entry is in the row's own column. The last two rows, `BOS` and `MID`, do not
# count.
#
# <details><summary>Hint</summary>
#
# `ov[:-2].argmax(-1)` against `torch.arange(...)`.
# </details>


# %% nbgrader={"grade": false, "grade_id": "copying_share", "locked": false, "schema_version": 3, "solution": true, "task": false}
def copying_share(ov: Float[Tensor, "d_vocab d_vocab_out"]) -> float:
    """Share of the numbers whose own logit is the highest in their row."""
    ### BEGIN SOLUTION
    numbers = ov[:-2]
    own = torch.arange(len(numbers), device=ov.device)
    return (numbers.argmax(-1) == own).float().mean().item()
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_copying_share", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.copying_share(copying_share)

# %%
share_of_rows = checks.copying_share.working(copying_share)
print(f"share of rows with their own number on top: {share_of_rows(ov_token):.4f}")

# %% [markdown]
# The figure is as high as it can be, as in the write-up (1.0 there). Does that show that the head copies? It says that
# *all* attention on one number would give that number (position and direct path left aside). You have seen that the
# attention is spread: hardly ever is it all on one number.

# %% [markdown]
# ### Exercise 8 · `position_bias` (optional)
# *Difficulty ●○○○○ · 4 minutes*
#
# **Why:** the second term. A sorted list should not depend on where a number stood.
#
# Return $W_\text{pos} W_V W_O W_U$: in row $k$ the logits that the head adds for the *position* $k$ if it gives it all
# its attention. A row for every position (22 here).
#
# <details><summary>Hint</summary>
#
# Exercise 6 with `model.W_pos`.
# </details>


# %% nbgrader={"grade": false, "grade_id": "position_bias", "locked": false, "schema_version": 3, "solution": true, "task": false}
def position_bias(model) -> Float[Tensor, "position d_vocab_out"]:
    """What attending to each position (row) adds to each logit (column)."""
    ### BEGIN SOLUTION
    return (model.W_pos @ model.OV[0, 0] @ model.W_U).AB
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_position_bias", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.position_bias(position_bias)

# %%
ov_position = checks.position_bias.working(position_bias)(model)
plotting.heatmap(
    ov_position[:21],
    title="What attending to a position adds to the logits",
    x="logit",
    y="position attended to",
    unit="logits",
    y_labels=PLACES[:21],
).show()
in_list = ov_position[1:11]
print(f"list positions: standard deviation over positions {in_list.std(0).mean():.1f}")
print(f"                standard deviation over logits    {in_list.mean(0).std():.1f}")

# %% [markdown]
# The ten rows of the list are nearly the same: where a number stood makes next to no difference here. The write-up
# calls this a constant bias. Constant over *positions*, yes. Over *logits* it is far from constant, and so it does not
# cancel in the softmax that makes probabilities of logits. Whether the model needs it is a question for section 4.

# %% [markdown]
# ### Exercise 9 · `copied_answers` (optional)
# *Difficulty ●●●○○ · 12 minutes*
#
# **Why:** take the hypothesis at its word, and count.
#
# Return, for each list and each answer position, the number that a head which *only copied* would answer: the number (0
# to 49) that gets most attention. Attention to several places that hold the same number adds up; all places in sight of
# the query count (the sorted part too); `BOS` and `MID` are no numbers and cannot be answered.
#
# <details><summary>Hint 1</summary>
#
# Make a table of shape (list, answer, number) of the attention that each number gets, and take the argmax.
# </details>
# <details><summary>Hint 2</summary>
#
# `torch.nn.functional.one_hot(tokens, d_vocab)` has shape (list, position, token). The pattern times it sums attention by
# token: (list, query, position) @ (list, position, token). Cut off the last two tokens. `d_vocab` is `model.cfg.d_vocab`.
# </details>


# %% nbgrader={"grade": false, "grade_id": "copied_answers", "locked": false, "schema_version": 3, "solution": true, "task": false}
def copied_answers(
    model, tokens: Int[Tensor, "batch position"]
) -> Int[Tensor, "batch answer"]:
    """The number with most attention at each answer position: a pure copier's answers."""
    ### BEGIN SOLUTION
    _, cache = model.run_with_cache(tokens)
    pattern = cache["pattern", 0][:, 0, 11:21]
    which = torch.nn.functional.one_hot(tokens, model.cfg.d_vocab).to(pattern.dtype)
    return (pattern @ which)[..., :-2].argmax(-1)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_copied_answers", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.copied_answers(copied_answers)

# %%
copied = checks.copied_answers.working(copied_answers)(model, data.tokens)
copier_right = (copied == data.labels).float().mean(0)
plotting.line(
    {"the model": by_position, "the number it attends to most": copier_right},
    title="How often is the number with most attention the right one?",
    x="answer position",
    y="share right",
    x_values=ANSWER_NAMES,
).show()
print(f"the model {by_position.mean():.4f}   a copier {copier_right.mean():.4f}")

# %% [markdown]
# **The first hypothesis fails as an account of the model.** Answering the number with most attention is right far more
# often than chance, and at the last answer position it is nearly as good as the model. In the middle it is wrong in more
# than a third of the lists, and in nearly all of these the model is right. Whatever else the head writes must make up for
# that. First, how it comes to look where it looks.

# %% [markdown]
# ## 3 · Where does it look?
#
# An attention score is a product of a query and a key. Both are made from a sum, embedding plus position embedding, so the
# score is a sum of four products:
#
# $$\frac{(e_q + p_q) W_{QK} (e_k + p_k)^T}{\sqrt{d_\text{head}}} = \frac{e_q W_{QK} e_k^T + e_q W_{QK} p_k^T + p_q W_{QK} e_k^T + p_q W_{QK}
# p_k^T}{\sqrt{d_\text{head}}}$$
#
# Read `token→position` as: what the *token* at the query's place wants of the *position* of the key.

# %% [markdown]
# ### Exercise 10 · `score_terms` (core)
# *Difficulty ●●●○○ · 15 minutes*
#
# **Why:** four simple tables are easier to read than one sum of them, and they add up exactly, so that nothing can hide.
#
# Return the four terms for each list, with the axes (query part, key part, list, query, key). On the first two axes
# index 0 means token and 1 means position: `terms[1, 0]` is `position→token`. Each is divided by
# $\sqrt{d_\text{head}}$. The sum over the first two axes is the model's `attn_scores` wherever the key is not after the
# query; what you return above the diagonal is not judged.
#
# <details><summary>Hint 1</summary>
#
# `cache["embed"]` and `cache["pos_embed"]` are the two parts, both (list, position, d_model). `torch.stack` them to
# (part, list, position, d_model).
# </details>
# <details><summary>Hint 2</summary>
#
# Queries are `parts @ model.W_Q[0, 0]`, keys `parts @ model.W_K[0, 0]`. Then
# `einops.einsum(queries, keys, "query_part batch query d, key_part batch key d -> query_part key_part batch query key")`
# (or `torch.einsum` with single letters), over `model.cfg.d_head ** 0.5`.
# </details>


# %% nbgrader={"grade": false, "grade_id": "score_terms", "locked": false, "schema_version": 3, "solution": true, "task": false}
def score_terms(
    model, tokens: Int[Tensor, "batch position"]
) -> Float[Tensor, "query_part key_part batch query key"]:
    """The attention scores in four terms: token (0) or position (1), query side first."""
    ### BEGIN SOLUTION
    _, cache = model.run_with_cache(tokens)
    parts = torch.stack([cache["embed"], cache["pos_embed"]])
    queries, keys = parts @ model.W_Q[0, 0], parts @ model.W_K[0, 0]
    terms = torch.einsum("xbqd,ybkd->xybqk", queries, keys)
    return terms / model.cfg.d_head**0.5
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_score_terms", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.score_terms(score_terms)

# %%
terms_of = checks.score_terms.working(score_terms)
terms = terms_of(model, data.tokens)
PARTS = ("token", "position")
TERMS = [(query, key) for query in PARTS for key in PARTS]


def term(all_terms, name):
    """One of the four terms, by its name (query part, key part)."""
    return all_terms[PARTS.index(name[0]), PARTS.index(name[1])]


seen = torch.ones(22, 22).tril().bool()
gap = (terms.sum((0, 1)) - cache["attn_scores", 0][:, 0])[:, seen].abs().max()
print(f"largest gap between the sum of the terms and the model's scores: {gap:.4f}")
plotting.heatmap_facets(
    {
        f"{query}→{key}": circuits.causal(term(terms, (query, key)).mean(0))
        for query, key in TERMS
    },
    title="The four terms of the scores, mean over 2,000 lists",
    x="key position",
    y="query position",
    unit="score",
).show()

# %% [markdown]
# Averages hide what depends on the numbers, so the same for the list of section 1. A softmax over keys does not care for what is
# added to a whole row; compare *within* rows.

# %%
example_terms = terms_of(model, example.tokens)
plotting.heatmap_facets(
    {
        f"{query}→{key}": circuits.causal(term(example_terms, (query, key))[0])
        for query, key in TERMS
    },
    title="The four terms for one list: 31 8 22 15 40 22 3 35 12 27",
    x="key position",
    y="query position",
    unit="score",
).show()
plotting.heatmap(
    circuits.causal(example_terms.sum((0, 1))[0])[ANSWERS],
    title="Their sum in the answer rows: the attention scores for this list",
    x="key: where it looks",
    y="query: where it stands",
    unit="score",
    x_labels=named,
    y_labels=named[11:21],
).show()

# %% [markdown]
# Read the answer rows, 11 to 20:
#
# - **Two terms tell numbers apart**, `token→token` and `position→token`: their columns differ with the number that stands there.
# - **Two terms tell places apart**, `token→position` and `position→position`. In the list part they are flat along each row.
#   Between `BOS`, the list, `MID` and the sorted part they are not.
# - In the sorted part (columns 12 and on) `token→position` is high in places, which the write-up found confusing.
#   `position→position` is low there nearly everywhere, and where `token→position` is high `token→token` is low, too. Only
#   the sum counts (last figure), and it is low.
#
# Since each part is a row of `W_E` or `W_pos`, all that the terms can ever be stands in four tables:

# %%
QK_tables = {
    "token_token": circuits.qk_scores(model, (0, 0), model.W_E, model.W_E),
    "token_position": circuits.qk_scores(model, (0, 0), model.W_E, model.W_pos),
    "position_token": circuits.qk_scores(model, (0, 0), model.W_pos, model.W_E),
    "position_position": circuits.qk_scores(model, (0, 0), model.W_pos, model.W_pos),
}
plotting.heatmap(
    QK_tables["token_token"][:50, :50],
    title="token→token: what a number at the query's place wants of other numbers",
    x="key: number looked at",
    y="query: number last printed",
    unit="score",
).show()
plotting.line(
    {f"at {p}": QK_tables["position_token"][p, :50] for p in (11, 13, 15, 17, 19, 20)},
    title="position→token: what an answer position wants of numbers",
    x="key: number looked at",
    y="score",
    x_values=list(range(50)),
).show()
numbers_only = QK_tables["token_token"][:50, :50]
step_up = (numbers_only.diagonal(1) - numbers_only.diagonal()[:49]).mean()
near_above = torch.stack([numbers_only.diagonal(d)[:20].mean() for d in range(1, 6)]).mean()
far_above = torch.stack(
    [numbers_only.diagonal(d)[:20].mean() for d in range(21, 26)]
).mean()
print(f"token→token: the successor's score minus the number's own, mean: {step_up:.2f}")
print(
    f"from 0–19 to numbers 1 to 5 above {near_above:.2f}, to numbers 21 to 25 above {far_above:.2f}"
)

# %% [markdown]
# **`token→token`** steps up at the diagonal: from the number last printed to the numbers just above it. For the smaller
# numbers (upper half) it falls again further right. In a row's own words: *bigger than me, but not too much bigger*.
#
# **`position→token`** says: early positions prefer small numbers, late positions large ones. The last answer position
# is special: its preference is far stronger than any other's. There the answer is the largest number, so "the larger
# the better" is all it takes.

# %%
plotting.heatmap(
    QK_tables["token_position"][:50, :21],
    title="token→position: what a number at the query's place wants of positions",
    x="key position",
    y="query: number",
    unit="score",
    x_labels=PLACES[:21],
).show()
plotting.heatmap(
    circuits.causal(QK_tables["position_position"])[ANSWERS][:, :21],
    title="position→position: what an answer position wants of positions",
    x="key position",
    y="query position",
    unit="score",
    x_labels=PLACES[:21],
    y_labels=ANSWER_NAMES,
).show()
for name, rows in {
    "token→position": QK_tables["token_position"][:50],
    "position→position": QK_tables["position_position"][ANSWERS],
}.items():
    over_list = rows[:, 1:11].std(-1).mean()
    kinds_of_place = torch.stack([rows[:, 0], rows[:, 1:11].mean(-1), rows[:, 11]], -1)
    print(
        f"{name:18s} standard deviation in a row: over list places {over_list:.2f}, "
        f"over BOS, list, MID {kinds_of_place.std(-1).mean():.2f}"
    )

# %% [markdown]
# **`position→position`**, from row 12 on, favours the list and disfavours the sorted part. **`token→position`** treats
# all places of the list alike; how much `BOS` and `MID` get beside them depends on the number last printed. It looks
# like a detail. Section 5 will show that it is not.

# %% [markdown]
# ### Exercise 11 · `successor_share` (optional)
# *Difficulty ●●○○○ · 5 minutes*
#
# **Why:** a rough figure for "bigger than me, but not too much bigger".
#
# `token_scores` is a `token→token` table (rows are queries) for $n$ numbers and two special tokens, which are last.
# Return, as a number, the share of the numbers $t$ whose highest score *among number keys* is $t + 1$. The last number
# has no successor and does not count: $n - 1$ numbers do.
#
# <details><summary>Hint</summary>
#
# Rows `[: n - 1]`, columns `[:n]`, `argmax(-1)`, compare with `torch.arange(1, n)`.
# </details>


# %% nbgrader={"grade": false, "grade_id": "successor_share", "locked": false, "schema_version": 3, "solution": true, "task": false}
def successor_share(token_scores: Float[Tensor, "d_vocab d_vocab"]) -> float:
    """Share of the numbers that score their successor highest, the last number left out."""
    ### BEGIN SOLUTION
    n = len(token_scores) - 2
    favourite = token_scores[: n - 1, :n].argmax(-1)
    successors = torch.arange(1, n, device=favourite.device)
    return (favourite == successors).float().mean().item()
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_successor_share", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.successor_share(successor_share)

# %%
successors = checks.successor_share.working(successor_share)(QK_tables["token_token"])
favourite = QK_tables["token_token"][:50, :50].argmax(-1)
print(f"share of the 49 numbers that score their successor highest: {successors:.4f}")
plotting.scatter(
    {
        "favourite": (range(50), favourite),
        "successor": (range(49), range(1, 50)),
    },
    title="The number that each number scores highest",
    x="query: number",
    y="key with the highest score",
).show()

# %% [markdown]
# Nearly always the favourite is above its number (nothing is above 49). Often it is the successor, less often than in
# the write-up's model. But here and there it is ten or more above. A table's top entry says little by itself: the
# scores above the diagonal are nearly level for a while, and `position→token` is added to them.

# %% [markdown]
# ### Exercise 12 · `what_is_wrong_with_062` (optional: find the bug)
# *Difficulty ●●○○○ · 5 minutes*
#
# The write-up reports that a share of **0.62** of the numbers score their successor highest. Its line, in our words,
# with `QK` the matrix $W_Q W_K^T$ and no $\sqrt{d_\text{head}}$ anywhere:
#
# ```python
# favourite = (W_E @ QK @ W_E.T)[:-2, :-2].argmax(-1)
# share = (favourite == torch.arange(50) + 1).float().mean()     # 0.62, which is 31 of 50
# ```
#
# What is wrong?
#
# - **a** without $1/\sqrt{d_\text{head}}$ other keys come out on top, so that 31 is a wrong count
# - **b** 31 is right and 50 is not, because 49 has no successor; and what the missing root changes is something else
# - **c** the argmax has to be taken over the queries, `argmax(0)`
# - **d** `BOS` and `MID` belong to the count: 31 of 52
#
# <details><summary>Hint</summary>
#
# Dividing a row by a positive number: what stays, what changes? And what would have to be the favourite of 49?
# </details>

# %% nbgrader={"grade": false, "grade_id": "what_is_wrong_with_062", "locked": false, "schema_version": 3, "solution": true, "task": false}
### BEGIN SOLUTION
what_is_wrong_with_062 = "b"
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check_what_is_wrong_with_062", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.what_is_wrong_with_062(what_is_wrong_with_062)


# %%
def with_scores(tokens, edit, on=model):
    """A model's logits when `edit` has changed its scores (list, head, query, key)."""
    with on.hooks(fwd_hooks=[(SCORES, lambda scores, hook: edit(scores.clone()))]):
        return on(tokens)


def share_right(some_logits, of=data):
    """The share of right answers over all lists and answer positions."""
    return task.correct(some_logits, of).float().mean().item()


root = model.cfg.d_head**0.5
unscaled = with_scores(data.tokens, lambda scores: scores * root)
print(f"31 of 49: {31 / 49:.2f}")
print(f"right answers with the model's scores:           {share_right(logits):.4f}")
print(f"right answers with scores that lack 1/√d_head:   {share_right(unscaled):.4f}")

# %% [markdown]
# The root changes no favourite, but it changes every softmax: scores eleven times too large put most of the attention
# on one token, and with attention so narrow the head answers badly. (So spread attention is not just untidy: this model
# needs it. Section 4 says what for.) Terms that are to be *compared with the model's scores* must have the root; the
# write-up's do not.

# %% [markdown]
# ### Exercise 13 · `slope_by_position` (optional)
# *Difficulty ●●○○○ · 8 minutes*
#
# **Why:** "early positions prefer small numbers" as ten numbers, and how special the last one is.
#
# For each of the ten answer positions (11 to 20), fit a straight line to the `position→token` scores of all numbers (0 to
# 49 here, without `BOS` and `MID`), with $1/\sqrt{d_\text{head}}$, by least squares, and return its slope: score per number.
#
# <details><summary>Hint</summary>
#
# With $x$ the numbers minus their mean, the slope is $\sum x y / \sum x^2$. `circuits.qk_scores(model, (0, 0), queries,
# keys)` makes scores of any vectors, with the root.
# </details>


# %% nbgrader={"grade": false, "grade_id": "slope_by_position", "locked": false, "schema_version": 3, "solution": true, "task": false}
def slope_by_position(model) -> Float[Tensor, " answer"]:
    """Slope of the position→token scores over the numbers, at each answer position."""
    ### BEGIN SOLUTION
    numbers = model.W_E[: model.cfg.d_vocab_out]
    scores = circuits.qk_scores(model, (0, 0), model.W_pos[11:21], numbers)
    x = torch.arange(len(numbers)).to(scores)
    x = x - x.mean()
    return scores @ x / (x @ x)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_slope_by_position", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.slope_by_position(slope_by_position)

# %%
slopes = checks.slope_by_position.working(slope_by_position)(model)
plotting.bar(
    ANSWER_NAMES,
    slopes,
    title="position→token: how much more score a number gets than the number below it",
    x="answer position",
    y="slope (score per number)",
).show()

# %% [markdown]
# From below zero to above it, in order: each position asks for a larger number than the one before. The last one asks
# several times as loudly as the one before it.

# %% [markdown]
# ## 4 · The model in eight tables
#
# Four tables give the scores, two what the head writes, two the direct path. If that is the whole model, the model can be
# thrown away.

# %%
tables = {
    **QK_tables,
    "ov_token": ov_token,
    "ov_position": model.W_pos @ model.W_V[0, 0] @ model.W_O[0, 0] @ model.W_U,
    "direct_token": model.W_E @ model.W_U,
    "direct_position": model.W_pos @ model.W_U,
}
for name, table in tables.items():
    print(f"{name:18s}{tuple(table.shape)}")
print("numbers in all:", sum(table.numel() for table in tables.values()))

# %% [markdown]
# ### Exercise 14 · `rebuilt_logits` (core)
# *Difficulty ●●●○○ · 15 minutes*
#
# **Why:** the strongest test of "nothing is missing", and a model that you can operate on table by table.
#
# From the eight tables alone, without the model, return the logits for `tokens` at **all** positions. In the four score tables
# the query is the row and the key the column, and $1/\sqrt{d_\text{head}}$ is already in them. Do not forget the causal mask.
# A sequence may have fewer positions than the tables: use the first ones (`[:n]`).
#
# <details><summary>Hint 1</summary>
#
# `table[tokens]` takes a row for each token. For `token_token` both sides are tokens: `table[tokens[:, :, None],
# tokens[:, None, :]]` has the axes (list, query, key). For `position_token`, take columns: `table[:n, tokens]`, with
# `n = tokens.shape[1]`, has the axes (query, list, key).
# </details>
# <details><summary>Hint 2</summary>
#
# `circuits.causal(scores)` puts minus infinity where the key comes after the query; then `softmax(-1)`. The pattern
# (list, query, key) times what each key is worth, `ov_token[tokens] + ov_position` (list, key, logit), is what the head writes.
# </details>


# %% nbgrader={"grade": false, "grade_id": "rebuilt_logits", "locked": false, "schema_version": 3, "solution": true, "task": false}
def rebuilt_logits(
    tables: dict[str, Float[Tensor, "row column"]], tokens: Int[Tensor, "batch position"]
) -> Float[Tensor, "batch position d_vocab_out"]:
    """The model's logits at all positions, from its eight tables."""
    ### BEGIN SOLUTION
    n = tokens.shape[1]
    scores = (
        tables["token_token"][tokens[:, :, None], tokens[:, None, :]]
        + tables["token_position"][tokens, :n]
        + tables["position_token"][:n, tokens].transpose(0, 1)
        + tables["position_position"][:n, :n]
    )
    pattern = circuits.causal(scores).softmax(-1)
    written = pattern @ (tables["ov_token"][tokens] + tables["ov_position"][:n])
    return written + tables["direct_token"][tokens] + tables["direct_position"][:n]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_rebuilt_logits", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.rebuilt_logits(rebuilt_logits)

# %%
rebuild = checks.rebuilt_logits.working(rebuilt_logits)
difference = (rebuild(tables, data.tokens) - logits).abs().max()
print(f"largest logit: {logits.abs().max():.0f}")
print(f"largest difference between rebuilt and model: {difference:.3f}")
small = difference < 1e-5 * logits.abs().max()
print(f"below 1e-5 of the largest logit: {bool(small)}")

# %% [markdown]
# Small, but is it nothing? The logits are large, and 32-bit floats have about seven digits, so rounding can do this much.
# The same in 64 bits, which have about sixteen digits, tells rounding from a mistake:

# %%
precise = load_model("sorted_list_one_head").double()
E, P, U = precise.W_E, precise.W_pos, precise.W_U
W_OV = precise.W_V[0, 0] @ precise.W_O[0, 0]
W_QK = precise.W_Q[0, 0] @ precise.W_K[0, 0].T / precise.cfg.d_head**0.5
precise_tables = {
    "token_token": E @ W_QK @ E.T,
    "token_position": E @ W_QK @ P.T,
    "position_token": P @ W_QK @ E.T,
    "position_position": P @ W_QK @ P.T,
    "ov_token": E @ W_OV @ U,
    "ov_position": P @ W_OV @ U,
    "direct_token": E @ U,
    "direct_position": P @ U,
}
difference = (rebuild(precise_tables, data.tokens) - precise(data.tokens)).abs().max()
print(f"largest difference in 64 bits: {difference:.4f}")
for bound in ("1e-4", "1e-8"):
    print(f"below {bound}: {bool(difference < float(bound))}")

# %% [markdown]
# With more digits the difference is gone: it was rounding. The eight tables *are* the model. It has 81,408 parameters,
# the tables fewer than 13,000 numbers. Now operate: change a table, rebuild, count. The control is done, since unchanged
# tables give the model.
#
# ### What copies, and what else?
#
# Look at single rows of the OV table (with the list positions' bias added, which goes with every number of the list).

# %%
effective = tables["ov_token"][:50] + tables["ov_position"][1:11].mean(0)
plotting.line(
    {f"attending to {number}": effective[number] for number in (5, 15, 25, 35, 45)},
    title="What a number in the list adds to the logits",
    x="logit",
    y="logits",
    x_values=list(range(50)),
).show()


def slope(rows, low, high):
    """Mean slope of the rows' own logits, from `low` to `high` numbers beside the row's number."""
    return torch.stack(
        [(effective[r, r + high] - effective[r, r + low]) / (high - low) for r in rows]
    ).mean()


for name, rows in {
    "small numbers (10–14)": range(10, 15),
    "large numbers (35–39)": range(35, 40),
}.items():
    below, above = slope(rows, -9, -1), slope(rows, 1, 9)
    print(f"{name}: {below:6.1f} logits per number below it, {above:6.1f} above it")

# %% [markdown]
# This is no copier's row. Each has a small **tip** at its own number, on top of a long **ramp**. The ramps of small
# numbers are nearly level up to the number and fall after it: *the answer is not above me*. Those of large numbers rise
# up to the number and stay nearly level: *the answer is not below me*. (At the far end they bend back. The number 25,
# in the middle, has a short slope on each side.) To copy, the tip would be enough. What are the ramps for?
#
# Split the table. A number's tip is what its own logit has more than the mean of its two neighbours.

# %%
inner = torch.arange(1, 49)
tips = effective.new_zeros(50)
tips[1:49] = (
    effective[inner, inner]
    - (effective[inner, inner - 1] + effective[inner, inner + 1]) / 2
)
tips[0], tips[49] = tips[1], tips[48]  # the ends have one neighbour: take the next tip

only_tips = {name: torch.zeros_like(table) for name, table in tables.items()}
only_tips |= QK_tables
only_tips["ov_token"][:50] = torch.diag(tips)
without_tips = dict(tables)
without_tips["ov_token"] = tables["ov_token"].clone()
without_tips["ov_token"][:50] -= torch.diag(tips)
one_bias = dict(tables)
one_bias["ov_position"] = tables["ov_position"].clone()
one_bias["ov_position"][1:11] = tables["ov_position"][1:11].mean(0)
no_list_bias = {**tables, "ov_position": tables["ov_position"].clone()}
no_list_bias["ov_position"][1:11] = 0
no_bias = {**tables, "ov_position": torch.zeros_like(tables["ov_position"])}
no_direct = {
    **tables,
    "direct_token": torch.zeros_like(tables["direct_token"]),
    "direct_position": torch.zeros_like(tables["direct_position"]),
}
operations = {
    "the model": tables,
    "only tips: a copier": only_tips,
    "without tips": without_tips,
    "same bias at all list places": one_bias,
    "no bias at list places": no_list_bias,
    "no position bias at all": no_bias,
    "no direct path": no_direct,
}
distances = {
    name: (task.answer_logits(rebuild(changed, data.tokens)).argmax(-1) - data.labels).abs()
    for name, changed in operations.items()
}
plotting.heatmap(
    torch.tensor(
        [[(d == 0).float().mean(), (d <= 1).float().mean()] for d in distances.values()]
    ),
    title="What is left when a part of the tables is changed",
    x="share of the answers",
    y="tables",
    unit="share",
    x_labels=["right", "off by one at most"],
    y_labels=list(operations),
    signed=False,
    text=True,
).show()

# %% [markdown]
# **What you should see**, from the top:
#
# - *Only tips*, a head that copies with the model's own attention, misses more than a quarter of the answers.
# - *Without tips* few answers are exactly right, but nearly all are **off by one at most**. So the ramps know about
#   where the answer is, and not which number near there is in the list. Only numbers that are in the list have tips.
# - The position bias may be the same at all places of the list: hardly anything changes. Without it there, much is
#   lost: it is a part of the ramps (the curves above have it in them). If `BOS`'s and `MID`'s bias goes, too, less is
#   lost: they weigh against the list's.
# - The direct path is worth a few answers in a thousand.
#
# **A better hypothesis.** *The ramps find the neighbourhood, the tips choose the number.* Every number that is attended
# to pulls: the small ones hold the answer down, the large ones hold it up, and the logits peak where the pulls balance.
# That needs attention on both sides of the answer, not on the answer alone: this may be why the attention is spread.
#
# Watch the balance move. In the list 31 8 22 15 40 22 3 35 12 27 the number 22 stands twice. At the first printed 22
# the right answer is 22 again, at the second one 27. The curves are the logits, and the logits without tips, each with
# its own mean over the numbers shown taken off.

# %%
window = range(14, 36)
balance = {}
for position, name in ((16, "after the first 22"), (17, "after the second 22")):
    curves = {
        "without tips": rebuild(without_tips, example.tokens)[0, position],
        "the model": rebuild(tables, example.tokens)[0, position],
    }
    balance[name] = {
        label: curve[window.start : window.stop] - curve[window.start : window.stop].mean()
        for label, curve in curves.items()
    }
plotting.line_facets(
    balance,
    title="The logits near the answer, after 22 was printed once and twice",
    x="logit",
    y="logits, centred",
    x_values=list(window),
).show()

# %% [markdown]
# Without tips there is one broad hill, whose top lies near the right answer. Numbers that are in the list and get
# attention stick out of it. From the first panel to the second the hill moves to the right, from 22 towards 27, although
# the same list is in sight. What moved it? The only difference between the two queries is their position. Section 5 puts
# that to the test.

# %% [markdown]
# ### Exercise 15 · `second_differences` (optional)
# *Difficulty ●●○○○ · 5 minutes*
#
# **Why:** "a ramp with a bend and a tip at its own number" is a claim about all fifty rows. Second differences are zero
# on a straight line, so they show the bends and nothing else.
#
# For each row $f$ of `ov` return $f(x+1) - 2f(x) + f(x-1)$ for the inner numbers $x = 1 … n-2$: column $j$ of your result
# belongs to $x = j + 1$.
#
# <details><summary>Hint</summary>
#
# Three slices of the same table: `ov[:, 2:]`, `ov[:, 1:-1]`, `ov[:, :-2]`. Or `ov.diff(dim=-1)`, twice.
# </details>


# %% nbgrader={"grade": false, "grade_id": "second_differences", "locked": false, "schema_version": 3, "solution": true, "task": false}
def second_differences(
    ov: Float[Tensor, "source logit"],
) -> Float[Tensor, "source inner_logit"]:
    """How sharply each row bends at each inner number: f(x + 1) − 2 f(x) + f(x − 1)."""
    ### BEGIN SOLUTION
    return ov[:, 2:] - 2 * ov[:, 1:-1] + ov[:, :-2]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_second_differences", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.second_differences(second_differences)

# %%
bends = checks.second_differences.working(second_differences)(effective)
plotting.heatmap(
    bends,
    title="Where the rows of the OV table bend",
    x="number x",
    y="number attended to",
    unit="second<br>difference",
    x_labels=[str(x) for x in range(1, 49)],
).show()
own = bends[inner, inner - 1]
elsewhere = bends.clone()
for shift in (-1, 0, 1):
    rows = inner[(inner - 1 + shift >= 0) & (inner - 1 + shift < 48)]
    elsewhere[rows, rows - 1 + shift] = float("nan")
print(f"at the own number: mean {own.mean():.1f}, from {own.min():.1f} to {own.max():.1f}")
print(f"two or more away:  mean size {elsewhere[~elsewhere.isnan()].abs().mean():.1f}")

# %% [markdown]
# One line: every row bends sharply at its own number, and the other way to its sides, as a tip does. Near the own
# number the rows are otherwise straight; far from it (the corners) they are ragged.

# %% [markdown]
# ## 5 · Which terms does it need?
#
# Four terms make the scores. Drop some, and see what the head still sorts.

# %% [markdown]
# ### Exercise 16 · `accuracy_with_terms` (core)
# *Difficulty ●●●○○ · 12 minutes*
#
# **Why:** a table that looks meaningful may not be needed, and one that looks like a detail may be. Only ablation tells.
#
# Return the share of right answers, over all lists and the ten answer positions, when the head's scores are the sum of
# the terms in `kept` **only**. `kept` is a list of pairs (query part, key part), such as `[("token", "token"),
# ("position", "token")]`. The other terms are dropped, which is to say zero; with nothing kept all scores are zero.
# (Zero is as good as any other constant: a softmax does not notice what is added to a whole row.) Causal mask and
# softmax stay as they are.
#
# <details><summary>Hint 1</summary>
#
# `terms_of(model, tokens)`, from section 3, gives the terms; a hook on `"blocks.0.attn.hook_attn_scores"` can return
# what you like. The axes are (list, head, query, key): add the head axis with `[:, None]`.
# </details>
# <details><summary>Hint 2</summary>
#
# The mask is part of the scores that you replace: `circuits.causal(scores)`. Count as in exercise 1.
# </details>


# %% nbgrader={"grade": false, "grade_id": "accuracy_with_terms", "locked": false, "schema_version": 3, "solution": true, "task": false}
def accuracy_with_terms(
    model, tokens: Int[Tensor, "batch position"], kept: list[tuple[str, str]]
) -> float:
    """Share of right answers when the scores are made of the kept terms alone."""
    ### BEGIN SOLUTION
    parts = ("token", "position")
    terms = terms_of(model, tokens)
    scores = torch.zeros_like(terms[0, 0])
    for query_part, key_part in kept:
        scores = scores + terms[parts.index(query_part), parts.index(key_part)]

    def replace(activation, hook):
        return circuits.causal(scores)[:, None]

    with model.hooks(fwd_hooks=[("blocks.0.attn.hook_attn_scores", replace)]):
        answers = model(tokens)[:, 11:21].argmax(-1)
    return (answers == tokens[:, 12:22]).float().mean().item()
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_accuracy_with_terms", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.accuracy_with_terms(accuracy_with_terms)

# %%
accuracy_with = checks.accuracy_with_terms.working(accuracy_with_terms)
few = data.tokens[:1000]
subsets = [kept for size in range(5) for kept in combinations(TERMS, size)]
shares = [float(accuracy_with(model, few, list(kept))) for kept in subsets]
answer_right = task.correct(model(few), task.SortedListData(few))
print(
    f"control: all four kept {shares[-1]:.4f}, the model {answer_right.float().mean():.4f}"
)
share_of = {frozenset(kept): share for kept, share in zip(subsets, shares, strict=True)}
tok, pos = PARTS
numbers_told = {
    "none": set(),
    "tok→tok": {(tok, tok)},
    "pos→tok": {(pos, tok)},
    "both": {(tok, tok), (pos, tok)},
}
places_told = {
    "none": set(),
    "tok→pos": {(tok, pos)},
    "pos→pos": {(pos, pos)},
    "both": {(tok, pos), (pos, pos)},
}
plotting.heatmap(
    torch.tensor(
        [
            [share_of[frozenset(a | b)] for b in places_told.values()]
            for a in numbers_told.values()
        ]
    ),
    title="Right answers with some of the four terms",
    x="kept: terms for places",
    y="kept: for numbers",
    unit="share right",
    x_labels=list(places_told),
    y_labels=list(numbers_told),
    signed=False,
    text=True,
).show()
for name in TERMS:
    kept = [other for other in TERMS if other != name]
    print(f"without {name[0]}→{name[1]:10s}{shares[subsets.index(tuple(kept))]:.4f}")

# %% [markdown]
# **What you should see:** only with all four (lower right corner) is it the model. `token→token` and `position→token`
# carry most, as the tables suggested, but the two alone (lower left) are a long way from it. And dropping
# `token→position`, the inconspicuous one, costs more than dropping `position→position`.
#
# Dropping takes out the whole term, and what it has in common for all lists with it. To take out only what depends on
# the list, replace the term by its mean over lists, or by another list's.

# %%
all_terms = terms_of(model, few)


def put(scores_now):
    """Right answers of the model with these scores (list, query, key)."""
    changed = with_scores(few, lambda _: circuits.causal(scores_now)[:, None])
    return share_right(changed, task.SortedListData(few))


ways = {"dropped": [], "mean over lists": [], "another list's": []}
for name in TERMS:
    this, total = term(all_terms, name), all_terms.sum((0, 1))
    ways["dropped"].append(put(total - this))
    ways["mean over lists"].append(put(total - this + this.mean(0)))
    ways["another list's"].append(put(total - this + this.roll(1, 0)))
plotting.bar(
    [f"{query}→{key}" for query, key in TERMS],
    ways,
    title="Three ways to ablate a term",
    x="term",
    y="share right",
    reference_lines={"the model": put(all_terms.sum((0, 1)))},
).show()

# %% [markdown]
# `position→position` is the same for every list, so its mean is itself, and ablating it in the last two ways is no
# ablation: what it adds is a fixed preference. The three others carry something about the list. **That includes
# `token→position`**, which in the list part is level: what it carries is how much attention `BOS` and `MID` get, given
# the number last printed. Do they matter? Hide them from the answer positions.


# %%
def hidden(keys):
    """An edit that hides some keys from the answer positions."""

    def edit(scores):
        scores[:, :, 11:21, keys] = float("-inf")
        return scores

    return edit


without = {
    "nothing hidden": logits,
    "BOS hidden": with_scores(data.tokens, hidden([0])),
    "MID hidden": with_scores(data.tokens, hidden([11])),
    "the sorted part hidden": with_scores(data.tokens, hidden(list(range(12, 22)))),
}
plotting.line(
    {
        name: task.correct(changed, data).float().mean(0)
        for name, changed in without.items()
    },
    title="What if the answer positions cannot see BOS, MID or the sorted part?",
    x="answer position",
    y="share right",
    x_values=ANSWER_NAMES,
).show()
for name, changed in without.items():
    error = task.answer_logits(changed).argmax(-1) - data.labels
    low, high = (error < 0).float().mean(), (error > 0).float().mean()
    print(
        f"{name:24s}right {share_right(changed):.4f}   too small {low:.4f}   too large {high:.4f}"
    )

# %% [markdown]
# The sorted part is not needed: the head does *not* look back at what it has printed. (The number that it stands on
# speaks as a query.) But `BOS` and `MID`, which are in every sequence and say nothing about the list, are needed for many
# answers: `BOS` mostly for the early ones, `MID` for the later ones. Only the first and the last answer hardly need them.
# What do they write?

# %%
worth = {
    "BOS": tables["ov_token"][task.BOS] + tables["ov_position"][0],
    "MID": tables["ov_token"][task.MID] + tables["ov_position"][task.MID_POSITION],
    "number 5 in the list": effective[5],
    "number 45 in the list": effective[45],
}
plotting.line(
    worth,
    title="What BOS and MID add to the logits, beside a small and a large number",
    x="logit",
    y="logits",
    x_values=list(range(50)),
).show()

# %% [markdown]
# More, for the same attention, than the two numbers. They are **counterweights**. Where `BOS` is needed most the
# answers are small, and there its curve rises: it pulls away from the smallest numbers, so without it mistakes are
# mostly too small. Where `MID` is needed most the answers are larger, and there its curve falls: it pulls away from the
# largest, so without it they are mostly too large (the printed lines). How much attention the two get depends, among
# other things, on the number last printed, through `token→position`.
#
# ### How does it know how often a number was printed?
#
# If 22 stands twice in the list, the answer after the first printed 22 is 22, and after the second it is not. Both
# queries see the same list and stand on the same token, and what was printed does not matter (it can be hidden). Only
# the **position** of the query is left. At position 16, five numbers are printed. If as many numbers of the list are at
# most 22, it is time to move on; if more are, a copy is left. So, a prediction: tell a query that it stands one
# position later, and it skips the copy that is left. Tell it that it stands one earlier, and it repeats a number that
# has no copy left.
#
# Only queries are changed: $q' = (e + p_{\text{another position}}) W_Q$. Keys, values and the direct path stay.

# %%
repeats = task.triple_lists(2000, seed=2).to(model.cfg.device)
current = repeats.labels[:, :-1]
copies = (repeats.labels[:, None] == current[..., None]).sum(-1)
printed = torch.stack(
    [(repeats.labels[:, : i + 1] == current[:, i : i + 1]).sum(-1) for i in range(9)], -1
)


def answers_at(shift, on=model):
    """The nine answers after MID when the queries think that they stand `shift` later."""
    standing = (torch.arange(22) + shift).clamp(12, 20)
    queries = (on.W_E[repeats.tokens] + on.W_pos[standing]) @ on.W_Q[0, 0]
    with patch(on, "q", 0, queries[:, :, None], positions=ANSWERS[1:]):
        return task.answer_logits(on(repeats.tokens))[:, 1:].argmax(-1)


shifted = {shift: answers_at(shift) for shift in (-1, 0, 1)}
untouched = task.answer_logits(model(repeats.tokens))[:, 1:].argmax(-1)
agree = (shifted[0] == untouched).float().mean()
print(f"control, queries at their own position: the same answers {agree:.4f}")
situations = [(c, n) for c in (1, 2, 3) for n in range(1, c + 1)]
inside = torch.zeros_like(current, dtype=torch.bool)
inside[:, 1:-1] = True  # a position earlier and a position later are answer positions, too


def says_again(answers, c, n):
    """How often the number last printed is answered again, of `c` copies with `n` printed."""
    chosen = (copies == c) & (printed == n) & inside
    return (answers == current)[chosen].float().mean()


plotting.heatmap(
    torch.tensor(
        [[says_again(shifted[shift], c, n) for shift in (-1, 0, 1)] for c, n in situations]
    ),
    title="How often the number last printed is answered again",
    x="where the query thinks that it stands",
    y="copies in the list, printed so far",
    unit="share “again”",
    x_labels=["one earlier", "where it is", "one later"],
    y_labels=[f"{c} in the list, {n} printed" for c, n in situations],
    signed=False,
    text=True,
).show()
leaves = (copies > printed) & inside & (shifted[-1] != current)
smaller = (shifted[-1] < current)[leaves].float().mean()
print(f"one earlier, a copy left, and yet not again: a smaller number in {smaller:.2f}")

# %% [markdown]
# In this model the prediction holds where it was made. In the rows with no copy left (1 of 1, 2 of 2, 3 of 3), a query
# that thinks it stands one position earlier mostly repeats the number. In the rows with one copy left (1 of 2, 2 of 3),
# one that thinks it stands one later mostly leaves it; with two left (1 of 3) it stays. So the *query's position* says
# how many numbers have been printed, and the head weighs it against the numbers in sight: it works with something like a
# rank, and does not look up what it has printed.
#
# Where a copy is left anyway, a query moved one *earlier* should simply stay. In the row "1 of 3" it often does not, and
# then goes back to a smaller number (the last printed line): the pulls are not exact ranks. And look at the middle
# column, the model itself: the last row should be zero, and "1 of 2" should be one.

# %% [markdown]
# ## 6 · Where it fails
#
# A mechanism predicts its mistakes. This one balances pulls, so it should err where the balance is close, or where the
# tip of the right number is too weak. Two slices of the data where it is weak:

# %%
slices = {
    "all": task.make_data(6000, seed=3),
    "a number three times": task.triple_lists(4000, seed=3),
    "a gap of 20 or more": task.gap_lists(4000, seed=3),
}
slices = {name: lists.to(model.cfg.device) for name, lists in slices.items()}


def kinds_of_mistake(of):
    """How many answers are wrong, in which way, for a hundred lists."""
    answers = task.answer_logits(model(of.tokens)).argmax(-1)
    last = torch.nn.functional.pad(of.labels[:, :-1], (1, 0), value=-1)
    wrong = answers != of.labels
    in_list = (answers[..., None] == of.labels[:, None]).any(-1)
    stays = wrong & (answers == last)
    leaves = wrong & ~stays & in_list & (of.labels == last)
    other = wrong & ~stays & ~leaves & in_list
    kinds = {
        "repeats the last number once too often": stays,
        "leaves a number before its last copy": leaves,
        "says a number that is not in the list": wrong & ~in_list,
        "another number of the list": other,
    }
    return {name: 100 * kind.sum() / len(of) for name, kind in kinds.items()}, wrong


mistakes = {name: kinds_of_mistake(of) for name, of in slices.items()}
plotting.bar(
    list(mistakes),
    {
        kind: [counts[kind] for counts, _ in mistakes.values()]
        for kind in mistakes["all"][0]
    },
    title="Mistakes by kind",
    x="lists",
    y="wrong answers in 100 lists",
).show()
for name, (_, wrong) in mistakes.items():
    print(f"{name:22s} lists without a mistake: {1 - wrong.any(-1).float().mean():.4f}")

# %% [markdown]
# Where a number stands **three times**, the model mostly *repeats it once too often*. Where there is a **gap**, it
# often says a number that *is not in the list at all*. Two different failures, so look at each.
#
# **Three copies.** A number that stands three times gets attention at three places, and each copy brings a tip. When
# all three are printed the hill should have moved on, but three tips stick out of it. They should win where the hill is
# still high, that is, where the next number is *close*.
#
# **A gap.** The next number is far above the query, and `token→token` likes numbers that are *not too much bigger*. It
# may get so little attention that its tip does not stick out of the hill. Then the hill's top wins, near the right
# number and not in the list. So mistakes should come where the right number gets *little attention*. Both are
# predictions:

# %%
gaps = slices["a gap of 20 or more"]
three = slices["a number three times"]


def steps(of):
    """The last number, the step to the right answer, the mistakes, and attention to the right number."""
    some_logits, some_cache = model.run_with_cache(of.tokens)
    wrong = ~task.correct(some_logits, of)[:, 1:]
    step = of.labels.diff(dim=-1)
    is_right = of.tokens[:, None, 1:11] == of.labels[..., None]
    attention = (some_cache["pattern", 0][:, 0, 11:21, 1:11] * is_right).sum(-1)
    count = (of.labels[:, None] == of.labels[:, :-1, None]).sum(-1)
    return step, wrong, attention[:, 1:], count


step, wrong, _, count = steps(three)
near = list(range(1, 11))
plotting.line(
    {
        f"after the last of {name}": [
            wrong[(count == c) & (step == s)].float().mean() for s in near
        ]
        for c, name in ((1, "one copy"), (2, "two copies"), (3, "three copies"))
    },
    title="Mistakes after the last copy, by the distance to the next number",
    x="distance to the next number",
    y="share wrong",
    x_values=near,
).show()
step, wrong, attention, _ = steps(gaps)
edges = (0, 0.04, 0.08, 0.12, 0.16, 0.2, 0.3, 1)
between = [
    (attention >= low) & (attention < high)
    for low, high in zip(edges, edges[1:], strict=False)
]
plotting.line(
    {
        name: [wrong[chosen & which].float().mean() for chosen in between]
        for name, which in (
            ("next number 20 or more away", step >= 20),
            ("1 to 19 away", (step > 0) & (step < 20)),
        )
    },
    title="Lists with a gap: mistakes by the attention that the right number gets",
    x="attention to the right number",
    y="share wrong",
    x_values=[f"{low:.2f}–{high:.2f}" for low, high in zip(edges, edges[1:], strict=False)],
).show()
across_gap = step >= 20
for name, chosen in (
    ("the next number near", (step > 0) & ~across_gap),
    ("across a gap, right answers", across_gap & ~wrong),
    ("across a gap, wrong answers", across_gap & wrong),
):
    print(f"mean attention to the right number, {name:28s} {attention[chosen].mean():.2f}")

# %% [markdown]
# Both hold, as correlations. Now as interventions, at exactly the queries that fail. If three tips are too many, hiding
# *one copy* from such a query should mend it, and hiding a smaller or a larger number should not, or less. If the right
# number has too little attention in a gap, *adding 1 to its score* at that query should mend it, and adding 1 to
# another number's score should not, or less. (Adding 1 makes a place's weight $e \approx 2.7$ times as large before the
# softmax divides.)


# %%
def mended(of, failing, change, which, on=model):
    """The share of failing answers that are right when the score of one place of a kind is changed.

    `failing` is (list, answer after MID). `which` says, from the list part, the number last printed and the right
    answer, which places (failing, place) are of the kind; one of them is drawn at random.
    """
    lists, answers = failing.nonzero(as_tuple=True)
    last, right = of.labels[lists, answers], of.labels[lists, answers + 1]
    places = which(of.tokens[lists, 1:11], last[:, None], right[:, None])
    generator = torch.Generator().manual_seed(0)
    place = (torch.rand(places.shape, generator=generator) * places.cpu()).argmax(-1) + 1
    rows = torch.arange(len(lists))

    def edit(scores):
        scores[rows, 0, answers + 12, place] += change
        return scores

    new = with_scores(of.tokens[lists], edit, on)[rows, answers + 12].argmax(-1)
    return (new == right)[places.any(-1)].float().mean().item()


def failures(on=model):
    """Where the last number is repeated after three copies, and where the next one is missed across a gap."""
    found = []
    for of in (three, gaps):
        answers = task.answer_logits(on(of.tokens)).argmax(-1)[:, 1:]
        last, step = of.labels[:, :-1], of.labels.diff(dim=-1)
        count = (of.labels[:, None] == last[..., None]).sum(-1)
        wrong = answers != of.labels[:, 1:]
        stuck = wrong & (count == 3) & (step > 0) & (answers == last)
        found.append(stuck if of is three else wrong & (step >= 20))
    return found


PLACES_OF = {
    "a copy of the last number": lambda x, last, right: x == last,
    "the right number": lambda x, last, right: x == right,
    "a smaller number": lambda x, last, right: x < last,
    "a larger number": lambda x, last, right: x > right,
}
stuck, starved = failures()
_, _, _, count = steps(three)
after_three = (count == 3) & (three.labels.diff(dim=-1) > 0)
print(f"stuck, of all answers after three copies: {stuck.sum() / after_three.sum():.3f}")
print(f"wrong, of all answers across a gap:       {starved.sum() / across_gap.sum():.3f}")
untouched = [
    mended(of, failing, 0.0, PLACES_OF["the right number"])
    for of, failing in ((three, stuck), (gaps, starved))
]
print(f"control, 0 added: {untouched[0]:.2f} and {untouched[1]:.2f} mended")
plotting.heatmap(
    torch.tensor(
        [
            [mended(three, stuck, -torch.inf, which), mended(gaps, starved, 1.0, which)]
            for which in PLACES_OF.values()
        ]
    ),
    title="Mistakes mended by changing the score of one place at the query that fails",
    x="mistake and change",
    y="the place changed",
    unit="share<br>mended",
    x_labels=["stuck: hidden", "gap: 1 added"],
    y_labels=list(PLACES_OF),
    signed=False,
    text=True,
).show()
lists, places = stuck.nonzero(as_tuple=True)
hill = rebuild(without_tips, three.tokens[lists])[torch.arange(len(lists)), places + 12]
last, following = three.labels[lists, places], three.labels[lists, places + 1]
moved_on = (
    (hill.gather(1, following[:, None]) > hill.gather(1, last[:, None])).float().mean()
)
print(f"stuck, but without tips the next number is above the last: {moved_on:.2f}")

# %% [markdown]
# In each column the place that the mechanism names mends about nine in ten of the mistakes, and the others far fewer.
# (Hiding a smaller number mends some as well, as it should: small numbers hold the answer down, too. Hiding the right
# number, of course, mends nothing.)
#
# The last line corrects the first story. If three *tips* were all there is to it, the hill alone would have moved on in
# all of the stuck cases. In this model it has in about half. In the others the hill itself still favours the number:
# three copies do not only bring three tips, they also pull three times.
#
# So there is a quantitative account of when this head goes wrong: **after three copies, the closer the next number, the
# likelier; across a gap, the less attention the right number gets, the likelier.** (A number that is near is hardly
# ever missed for want of attention: the hill has its top near it anyway.) Both follow from the design, a hill made of
# pulls, and tips in proportion to attention.

# %% [markdown]
# ### Exercise 17 · `counterexamples` (core)
# *Difficulty ●●●○○ · 15 minutes*
#
# **Why:** an explanation that is right about the mechanism knows where the mechanism breaks.
#
# Give `counterexamples`, a tensor of **50** token sequences of shape (50, 22): `BOS`, ten numbers from 0 to 49, `MID`,
# the same ten in order. Each must be valid, none may be there twice, and at least **40 of the 50** must fool the model:
# at one answer position or more its highest logit is not the right number. You may build them by hand or by code; you
# may try them on the model.
#
# The check also tells apart what is **in distribution** (seven different numbers or more and no gap of 30 or more, as
# 996 of 1,000 training lists have) from what is not. Both count.
#
# <details><summary>Hint 1</summary>
#
# `task.from_lists(lists)` makes sequences of lists of ten numbers; its `.tokens` is what is asked for.
# `task.correct(model(tokens), data)` says which answers are right.
# </details>
# <details><summary>Hint 2</summary>
#
# Three copies of a number, and its successor close by: the first figure of this section gives the odds. Fill up with
# random numbers, try a few hundred, keep those that fool the model.
# </details>

# %% nbgrader={"grade": false, "grade_id": "counterexamples", "locked": false, "schema_version": 3, "solution": true, "task": false}
### BEGIN SOLUTION
# From the mechanism: three copies of a number and its successor, and six numbers elsewhere.
generator = torch.Generator().manual_seed(0)
number = torch.randint(5, 44, (600, 1), generator=generator)
shifts = torch.rand(600, 46, generator=generator).argsort(-1)[:, :6]
others = (number + 3 + shifts) % 50  # all different, none within 2 of the number
tried = task.from_lists(torch.cat([number.expand(-1, 3), number + 1, others], -1))
fooled = ~task.correct(model(tried.tokens), tried).all(-1).cpu()
counterexamples = tried.tokens[fooled][:50]
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check_counterexamples", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.counterexamples(counterexamples)

# %%
found = checks.counterexamples.working(counterexamples)
by_chance = evidence.random_search(
    model,
    lambda size, generator: task.make_data(size, generator).tokens,
    margin=evidence_task.margin,
    budget=1000,
)
plotting.strip(
    {
        "1,000 random lists": by_chance,
        "your 50": evidence_task.margin(model(found), found),
    },
    title="How far lists are from fooling the model",
    x="where they come from",
    y="margin: best wrong minus right logit",
    reference_lines={"above this line the model is fooled": 0.0},
).show()
print(
    f"share of the random lists that fool the model: {(by_chance > 0).float().mean():.3f}"
)

# %% tags=["solution-only"]
print(f"three copies and the successor: {fooled.float().mean():.2f} fool the model")

# %% [markdown] tags=["solution-only"]
# Built from the mechanism, most lists fool the model; of random lists a few in a hundred do. Nothing about them is
# exotic: they are valid lists, and in distribution by the check's definition.

# %% [markdown]
# ## 7 · Does the explanation hold? (optional)

# %% [markdown]
# ### Exercise 18 · `circuit` (optional)
# *Difficulty ●●○○○ · 5 minutes*
#
# **Why:** "these terms do the work" means that the others can go.
#
# With one head there is no choice of heads, so the circuit is a set of score terms. Give `circuit`, a list of **at most
# three** pairs (query part, key part). The others are dropped, as in exercise 16. What is left is scored on 500 lists
# as
#
# $$\frac{\text{accuracy with the kept terms} - \tfrac1{50}}{\text{accuracy of the model} - \tfrac1{50}}$$
#
# It must reach **0.75**, and each term must be worth 0.02 of it or more. Find it by your own measurements, so that the
# cell works on other models too.
#
# <details><summary>Hint</summary>
#
# `shares` and `subsets` hold what every set of terms is worth.
# </details>

# %% nbgrader={"grade": false, "grade_id": "circuit", "locked": false, "schema_version": 3, "solution": true, "task": false}
### BEGIN SOLUTION
three_terms = [i for i, kept in enumerate(subsets) if len(kept) == 3]
circuit = list(subsets[max(three_terms, key=lambda i: shares[i])])
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check_circuit", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.circuit(circuit)

# %%
chosen = checks.circuit.working(circuit)
accuracy_now = answer_right.float().mean().item()
scores_of_sets = [(share - 1 / 50) / (accuracy_now - 1 / 50) for share in shares]
plotting.strip(
    {
        f"{size} kept": [
            score
            for kept, score in zip(subsets, scores_of_sets, strict=True)
            if len(kept) == size
        ]
        for size in range(5)
    },
    title="Every set of terms, the others dropped",
    x="number of terms",
    y="share of the model's work",
    reference_lines={
        "your circuit": scores_of_sets[
            next(
                i
                for i, kept in enumerate(subsets)
                if set(kept) == {tuple(t) for t in chosen}
            )
        ]
    },
).show()

# %% [markdown]
# There are only four sets of three, so a first rank says little. What says more: in this model the other sets of three
# lose more than a quarter of the work, and the best pair does, too.

# %% [markdown]
# ### Exercise 19 · `explanation` (optional)
# *Difficulty ●●●●○ · 30 minutes*
#
# **Why:** a story about a model can sound right and predict nothing. Here it has to predict, without the model, what the
# model answers: also where it is *wrong*.
#
# Write `explanation(model)`. It reads what it needs from the weights into a dict `numbers` of tensors, and returns
# `simulate, numbers`. `simulate(inputs, numbers)` gets token sequences of shape (sequence, 22) and your numbers, and
# returns the ten answers for each, whole numbers of shape (sequence, 10). It runs **without a model in reach**: only
# its arguments, `torch`, `einops` and the like.
#
# The lists are hard ones: half of them the model gets wrong somewhere. Your score is the mean of two agreements with
# the model's answers, one over the answers that it gets right, one over those that it gets wrong. The perfect algorithm
# scores 0.50. **0.70** passes, with **8,000 numbers at most**. All eight tables would score 1.00 and explain little:
# they have 12,876 numbers. Say with fewer what the head does: what does it *not* need?
#
# <details><summary>Hint 1</summary>
#
# Sections 4 and 5 list what hardly matters: which place of the list a number has, the sorted part, the direct path.
# </details>
# <details><summary>Hint 2</summary>
#
# Then there are only twelve keys: `BOS`, ten numbers, `MID`. A score is (token or `MID` at the query, key token) plus
# (query position, key token); fold what the key's *kind of place* adds into the same two tables. A key is worth one row
# of fifty logits.
# </details>


# %% nbgrader={"grade": false, "grade_id": "explanation", "locked": false, "schema_version": 3, "solution": true, "task": false}
def explanation(model):
    """(simulate, numbers): a prediction of the model's answers, and the numbers it needs."""
    ### BEGIN SOLUTION
    # A number in the list is worth the same at all ten places. BOS and MID have one place each.
    place = model.W_pos[1:11].mean(0).expand(50, -1)
    keys = model.W_E + torch.cat([place, model.W_pos[[0]], model.W_pos[[11]]])
    numbers = {
        "from_token": circuits.qk_scores(model, (0, 0), model.W_E, keys),
        "from_position": circuits.qk_scores(model, (0, 0), model.W_pos[11:21], keys),
        "worth": keys @ model.W_V[0, 0] @ model.W_O[0, 0] @ model.W_U,
    }

    def simulate(inputs, numbers):
        """Each answer position weighs BOS, the list and MID; their worth adds up."""
        seen, here = inputs[:, None, :12], inputs[:, 11:21, None]
        positions = torch.arange(10)[:, None]
        scores = (
            numbers["from_token"][here, seen] + numbers["from_position"][positions, seen]
        )
        return (scores.softmax(-1) @ numbers["worth"][inputs[:, :12]]).argmax(-1)

    return simulate, numbers
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_explanation", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.explanation(explanation)

# %%
pool = checks.explanation.pool
simulate, numbers = checks.explanation.working(explanation)(model)
scored = evidence.simulation_score(simulate, numbers, pool)
plotting.heatmap(
    scored.agreement,
    title="Where the explanation predicts the model's answers",
    x="the model's answer is",
    y="kind of list",
    unit="share<br>predicted",
    x_labels=["wrong", "right"],
    y_labels=list(scored.kind_names),
    signed=False,
    text=True,
).show()


# %%
def tables_answer(changed):
    return task.answer_logits(rebuild(changed, pool.tokens)).argmax(-1)


ladder = {
    "perfect": scored.perfect,
    "copier": evidence.score_answers(
        checks.copied_answers.working(copied_answers)(
            model, pool.tokens.to(model.cfg.device)
        ),
        pool,
    ).score,
    "tips only": evidence.score_answers(tables_answer(only_tips), pool).score,
    "yours": scored.score,
    "no direct": evidence.score_answers(tables_answer(no_direct), pool).score,
    "all tables": evidence.score_answers(tables_answer(tables), pool).score,
}
plotting.bar(
    list(ladder),
    list(ladder.values()),
    title="How well different accounts predict the model's answers on hard lists",
    x="account",
    y="score",
    reference_lines={"what knowing the task is worth": scored.perfect},
).show()
print(
    f"score {scored.score:.2f}   perfect algorithm {scored.perfect:.2f}   its opposite {scored.opposite:.2f}"
)
print(
    f"numbers used: {scored.n_numbers}; parameters of the model: {sum(p.numel() for p in model.parameters())}"
)

# %% [markdown] tags=["solution-only"]
# Three tables: how a query's number and its position weigh `BOS`, the fifty numbers and `MID`, and what each of these
# is worth. No places in the list, no sorted part, no direct path: less than half of the numbers of the eight tables. It
# predicts most of the mistakes, which are close calls by nature. The copier, which was the first hypothesis, scores
# below the perfect algorithm.

# %% [markdown]
# ## 8 · Five models, one recipe (optional)
#
# Everything above is about one set of weights. Others were trained with the same recipe and other seeds. Which findings
# belong to the task, and which to this model?


# %%
def tables_of(other):
    """The eight tables of any model of this challenge."""
    W_OV = other.W_V[0, 0] @ other.W_O[0, 0]
    parts = {"token": other.W_E, "position": other.W_pos}
    return {
        **{
            f"{query}_{key}": circuits.qk_scores(other, (0, 0), parts[query], parts[key])
            for query, key in TERMS
        },
        **{f"ov_{part}": vectors @ W_OV @ other.W_U for part, vectors in parts.items()},
        **{f"direct_{part}": vectors @ other.W_U for part, vectors in parts.items()},
    }


def findings(other):
    """The lesson's main figures for one model."""
    some = task.SortedListData(few)
    all_tables = tables_of(other)
    row = all_tables["ov_token"][:50] + all_tables["ov_position"][1:11].mean(0)
    tip = row.new_zeros(50)
    tip[1:49] = row[inner, inner] - (row[inner, inner - 1] + row[inner, inner + 1]) / 2
    tip[0], tip[49] = tip[1], tip[48]
    copier = {name: torch.zeros_like(table) for name, table in all_tables.items()}
    copier |= {name: all_tables[name] for name in QK_tables}
    copier["ov_token"][:50] = torch.diag(tip)
    flat = {**all_tables, "ov_token": all_tables["ov_token"].clone()}
    flat["ov_token"][:50] -= torch.diag(tip)
    off = (task.answer_logits(rebuild(flat, few)).argmax(-1) - some.labels).abs()
    attention = other.run_with_cache(few)[1]["pattern", 0][:, 0, 11:21]
    which = torch.nn.functional.one_hot(few, 52).float()
    most = (attention @ which)[..., :50].argmax(-1)
    best = all_tables["token_token"][:49, :50].argmax(-1)
    earlier, later = answers_at(-1, other), answers_at(1, other)
    stuck, starved = failures(other)
    return {
        "right answers": share_right(other(few), some),
        "most attention is right": (most == some.labels).float().mean(),
        "own number on top (OV)": (
            all_tables["ov_token"][:50].argmax(-1).cpu() == torch.arange(50)
        )
        .float()
        .mean(),
        "successor scored highest (QK)": (best.cpu() == torch.arange(1, 50)).float().mean(),
        "tips only: right": share_right(rebuild(copier, few), some),
        "without tips: right": (off == 0).float().mean(),
        "… off by one at most": (off <= 1).float().mean(),
        **{
            f"without {name[0]}→{name[1]}": float(
                accuracy_with(other, few, [kept for kept in TERMS if kept != name])
            )
            for name in TERMS
        },
        "2 of 2 printed, one earlier: again": says_again(earlier, 2, 2),
        "1 of 2 printed, one later: again": says_again(later, 2, 1),
        "stuck: hide a copy, mended": mended(
            three, stuck, -torch.inf, PLACES_OF["a copy of the last number"], other
        ),
        "gap: add to the right one, mended": mended(
            gaps, starved, 1.0, PLACES_OF["the right number"], other
        ),
        "lists right: with three copies": task.correct(other(three.tokens), three)
        .all(-1)
        .float()
        .mean(),
        "lists right: with a gap": task.correct(other(gaps.tokens), gaps)
        .all(-1)
        .float()
        .mean(),
    }


instances = [
    name for name in available_instances("sorted_list_one_head") if name.startswith("seed")
]
models = {name: load_model("sorted_list_one_head", name) for name in instances}
across = {name: findings(other) for name, other in models.items()}
plotting.heatmap(
    torch.tensor([list(row.values()) for row in across.values()]).T,
    title="The same measurements in all models",
    x="model",
    y="measurement",
    unit="share",
    x_labels=instances,
    y_labels=list(across[instances[0]]),
    signed=False,
    text=True,
).show()

# %% [markdown]
# Each row is one measurement of this lesson, each column a model.
#
# **What they share** is nearly everything. In each model the number with most attention is the right one in seven
# answers of ten or so, and the model in more than ninety-nine of a hundred; each row of the OV table has its own number
# on top; tips alone miss a quarter or more, ramps alone are nearly always off by one at most. All four terms are
# needed. The query's position says how many are printed. Both mistakes are there, and both are mostly mended as the
# mechanism says.
#
# **Where they differ** is in degree: how often the favourite is the successor (never as often as in the write-up's
# model, 31 of 49), what dropping `position→position` costs, and how many of the hard lists are right.
#
# The write-up's figures are from its author's own weights: accuracy 0.9945 (256 lists, seed 42), own number on top 1.0,
# successor 0.62 (of 50; 0.63 of 49). This lesson's answers pass every check on those weights, too
# (`EXERCISES_INSTANCE=published`).

# %% [markdown]
# ## 9 · What we know, and how well
#
# How does it sort? **Each answer position spreads its attention over the numbers of about the right size**, by the
# number last printed (*bigger than me, not too much*), and by how many have been printed, which is its position.
# **Every number looked at pulls the logits**, small ones down, large ones up, with `BOS` and `MID` as counterweights,
# so that the logits form a hill over the right answer. **A tip on each number that is looked at** makes the hill's
# winner a number of the list.
#
# | claim | evidence | strength | what would refute it |
# |---|---|---|---|
# | Nothing is missing from the eight tables | logits rebuilt from them: in 32 bits the difference is below 1e-5 of the largest logit, in 64 bits it is below 1e-8 | exact (identity) | a difference that does not go away in 64 bits |
# | The model uses what `MID` sees of the list | the place of the smallest number hidden: the second smallest is answered | strong (intervention) | an answer that stays |
# | It does not look at what it has printed | the sorted part hidden: the same accuracy to about a thousandth | strong (intervention) | accuracy that falls |
# | "It attends to the right number and copies it" is not how it works | the number with most attention is right in about 0.7 of the answers; tips alone give about as many; every OV row has its own number on top all the same | strong (first by observation, second by an edit of the tables) | a copier that is right where the model is |
# | Ramps find the neighbourhood, tips choose the number | tables without tips: few right, nearly all off by one at most; tips without ramps: more than a quarter wrong | strong (intervention on the rebuilt model) | tables without tips that are far off |
# | All four score terms are needed | each dropped, and replaced by its mean or another list's (`position→position` is the same for all lists: only dropping tests it) | strong (intervention) | a subset of three that gives the model |
# | `token→position` matters through `BOS` and `MID` | it is level over the list (weights); hiding `BOS` costs about a third of the answers, hiding `MID` about half | observation and intervention, but not on this term at these keys alone | a change of the term at those two keys alone without effect |
# | The query's position says how many are printed | queries moved by one position repeat or leave a number as predicted; with copies left, one earlier is predicted less well | strong (intervention), not exact | repeats that do not follow the position |
# | After three copies it errs because the copies weigh too much, the closer the next number the more | error by distance (observation); hiding a copy mends about nine in ten, another place far fewer. That it is their *tips* alone holds in about half of the cases | strong (intervention with controls); the part of the tips is an observation | another place that mends as many |
# | Across a gap it errs because the right number gets little attention | error by attention (observation); one more on its score mends about nine in ten, on another far fewer | strong (intervention with controls) | the same |
# | An account without places, sorted part and direct path predicts the model | score far above the perfect algorithm's on hard lists, right and wrong answers alike | strong (prediction) | a score near one half |
#
# **Not understood.** Why the ramps have the shapes they have, and bend back at the far end. Why training leaves three
# copies unbalanced: they are rare (1 list in 24), and what mends them may harm two copies, but nobody has shown that.
# Where the odd favourites in `token→token` come from. How exact the rank is: a query moved one position earlier goes
# wrong where the prediction says that nothing should change.
#
# **Corrections to the write-up.** Its score terms lack $1/\sqrt{d_\text{head}}$ and so do not add up to the model's
# scores. Its 0.62 counts 49, which has no successor. "Attends the most to the correct token" and "copies" hold for most
# answers and do not explain the accuracy (exercise 9, section 4). Its "constant bias" of positions is constant over
# positions only; without it at the list's places four in ten answers or more are lost (section 4). And "each token
# attends uniformly to all places of the list" leaves out `BOS` and `MID`, for which that term is needed (section 5).

# %%
checks.progress()
