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
# # 02 · Sorted list, two heads
#
# **How do two attention heads share the work of sorting ten numbers, and when does the sharing break?**
#
# A model with one layer reads ten numbers and writes them again in order. It has two heads and no MLP. You will find
# out which head answers which number, by taking heads away and by reading their weights, and see that the two
# accounts agree. Then you will find lists that the model gets wrong, and show with one intervention what is, and what
# is not, to blame.
#
# | | |
# |---|---|
# | **You will be able to** | measure what a head is worth, number by number, by ablation; read OV and QK circuits of a model with LayerNorm; tell a failure to look from a failure to copy; attribute a logit to single source tokens; reject an explanation that sounds right |
# | **Time** | core path: 8 exercises, 2 to 2½ hours with reading. Optional exercises are marked; the core does not need them (the near neighbours of section 5 are the best of them) |
# | **Model** | 1 layer, 2 heads, attention only, LayerNorm, `d_model` 96, `d_head` 48 |
# | **Data** | ten different numbers from 0 to 50, `SEP`, the same numbers in order: 21 tokens |
# | **You need** | hooks, OV and QK circuits, as practised in lesson 01; what you wrote there is `circuits.…` here |
#
# The challenge and the analysis that this lesson follows, corrects and extends are Callum McDougall's (ARENA, October
# 2023).

# %% [markdown]
# ## Setup

# %%
from collections import Counter

import torch
from eindex import eindex
from jaxtyping import Float, Int
from torch import Tensor

from exercises_utils import available_instances, circuits, evidence, load_model, plotting
from exercises_utils.challenges.sorted_list_two_heads import checks, task
from exercises_utils.challenges.sorted_list_two_heads import evidence as evidence_task
from exercises_utils.evidence import accuracy
from exercises_utils.tools import ablate, patch

torch.set_grad_enabled(False)

model = load_model("sorted_list_two_heads")
data = task.make_data(size=2000, seed=1).to(model.cfg.device)
HEADS = [(0, head) for head in range(model.cfg.n_heads)]
HEAD_NAMES = [f"head {layer}.{head}" for layer, head in HEADS]
NUMBERS = list(range(task.N_NUMBERS))

# %% [markdown]
# Positions 0 to 9 hold the list, position 10 holds `SEP`, positions 11 to 20 the sorted list. The model predicts the
# next token. The ten **answers** are read at the ten **answer positions** 10 to 19: at `SEP` the smallest number, at
# each sorted number the next one. Nothing is asked at position 20.

# %%
for tokens in data.tokens[:3]:
    plotting.display_sequence(task.str_tokens(tokens))

# %%
right = task.correct(model(data.tokens), data)
print(f"answers that are right, on {len(data)} fresh lists: {right.float().mean():.4f}")
print(f"lists with all ten answers right: {right.all(-1).float().mean():.4f}")
print(f"parameters: {sum(p.numel() for p in model.parameters())}")

# %% [markdown]
# ## 1 · How good are the answers?

# %% [markdown]
# ### Exercise 1 · `answer_probabilities` (core)
# *Difficulty ●○○○○ · 5 minutes*
#
# **Why:** the loss, and every cost that you will measure, is a function of these numbers.
#
# Return, for each list, the probability that the model gives to the **right** answer at each of the ten answer
# positions, in their order. The right answers are the tokens after `SEP`, which is in the middle: with $2L + 1$
# tokens, `SEP` is at position $L$, and the answer positions are $L$ to $2L - 1$. Write it for any $L$. Probabilities,
# not log-probabilities.
#
# <details><summary>Hint 1</summary>
#
# `model(tokens)` gives logits of shape (list, position, token). A softmax over the last axis makes probabilities.
# </details>
# <details><summary>Hint 2</summary>
#
# `eindex(probabilities, answers, "list answer [list answer]")` picks one entry for each list and answer, and so does
# `probabilities.gather(-1, answers[..., None])[..., 0]`.
# </details>


# %% nbgrader={"grade": false, "grade_id": "answer_probabilities", "locked": false, "schema_version": 3, "solution": true, "task": false}
def answer_probabilities(
    model, tokens: Int[Tensor, "batch position"]
) -> Float[Tensor, "batch answer"]:
    """The probability of the right answer at each answer position."""
    ### BEGIN SOLUTION
    separator = tokens.shape[1] // 2
    probabilities = model(tokens)[:, separator:-1].softmax(-1)
    return eindex(probabilities, tokens[:, separator + 1 :], "batch answer [batch answer]")
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_answer_probabilities", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.answer_probabilities(answer_probabilities)

# %%
probabilities_of = checks.answer_probabilities.working(answer_probabilities)
# The lists of the write-up:
published_draw = task.make_data(size=500, seed=43).to(model.cfg.device)
p = probabilities_of(model, published_draw.tokens)
print("500 lists, seed 43                this model   write-up's model")
print(f"mean cross-entropy (nats)           {-p.log().mean():.3f}        0.039")
print(f"mean probability of the answer      {p.mean():.3f}        0.966")
print(f"median                              {p.median():.3f}        0.981")
print(f"minimum                             {p.min():.3f}        0.001")

# %% [markdown]
# Nearly always sure and nearly always right, with a rare answer that is far off. The right-hand column is the
# original model, on the same lists: another set of weights, much the same quality. Now one list, seen whole: every
# probability at every answer position.

# %%
example = data.tokens[0]
answer_tokens = task.str_tokens(example)[10:20]
map_of_one = model(example[None])[0, 10:20, :51].softmax(-1)
plotting.heatmap(
    map_of_one,
    title="One list: what the model expects next",
    x="number",
    y="current token",
    unit="probability",
    y_labels=answer_tokens,
    signed=False,
).show()

# %% [markdown]
# **What you should see:** in each row one cell darker than all others, at the number that the *next* row's label
# names. So the cells walk to the right as the sorted list goes on.

# %% [markdown]
# ## 2 · What happened to the weights? (optional)
#
# The model that you loaded has **processed** weights. LayerNorm's weight and bias are folded into the matrices behind
# it, what is written to the residual stream is centred, and so is `W_U` over the tokens. This section asks what that
# changes. `load_model(…, processed=False)` gives the weights as they were trained. The rest of the lesson needs only
# the answer: *no probability*.

# %% [markdown]
# ### Exercise 2 · `folded_unembedding` (optional)
# *Difficulty ●●○○○ · 10 minutes*
#
# **Why:** "read the weights" means nothing while a LayerNorm with weights of its own stands between two matrices.
#
# The last LayerNorm computes $n \odot w + b$, where $n$ is the residual stream minus its mean, divided by its
# standard deviation, and $w$, $b$ are `model.ln_final.w` and `model.ln_final.b`. Then comes the unembedding, $\cdot\,
# W_U + b_U$. Return $(W_U', b_U')$ such that $n\, W_U' + b_U'$ are the same logits. `model` has **raw** weights. Fold
# only; centre nothing.
#
# <details><summary>Hint</summary>
#
# $(n \odot w + b)\, W_U + b_U = n\,(\mathrm{diag}(w)\, W_U) + (b\, W_U + b_U)$.
# </details>


# %% nbgrader={"grade": false, "grade_id": "folded_unembedding", "locked": false, "schema_version": 3, "solution": true, "task": false}
def folded_unembedding(
    model,
) -> tuple[Float[Tensor, "d_model d_vocab_out"], Float[Tensor, " d_vocab_out"]]:
    """W_U and b_U with the last LayerNorm's weight and bias folded in."""
    ### BEGIN SOLUTION
    weight, bias = model.ln_final.w, model.ln_final.b
    return weight[:, None] * model.W_U, bias @ model.W_U + model.b_U
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_folded_unembedding", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.folded_unembedding(folded_unembedding)

# %%
raw = load_model("sorted_list_two_heads", processed=False)
W_U_folded, b_U_folded = checks.folded_unembedding.working(folded_unembedding)(raw)
_, raw_cache = raw.run_with_cache(data.tokens[:500])
residual = raw_cache["resid_post", 0]
normalised = residual - residual.mean(-1, keepdim=True)
normalised = normalised / (normalised.pow(2).mean(-1, keepdim=True) + raw.cfg.eps).sqrt()
gap = (normalised @ W_U_folded + b_U_folded - raw(data.tokens[:500])).abs().max()
print(f"folded unembedding: largest difference from the model's logits {gap:.3f}")
off = W_U_folded - model.W_U
print(f"difference from the processed W_U: {off.abs().max():.3f}")
print(
    f"… the same, centred over tokens and over d_model: "
    f"{(off - off.mean(1, keepdim=True) - off.mean(0) + off.mean()).abs().max():.3f}"
)

# %% [markdown]
# ### Exercise 3 · `what_folding_changes` (optional: predict, then reveal)
# *Difficulty ●●○○○ · 3 minutes*
#
# Which of these can differ between the raw and the processed model?
#
# - **a** the probabilities
# - **b** the attention patterns
# - **c** the logits, all of one position by the same amount
# - **d** the order of the answers, from the likeliest to the least likely
#
# <details><summary>Hint</summary>
#
# Centring `W_U` over the tokens takes the same number from all logits of a position. What does the softmax do with
# that?
# </details>

# %% nbgrader={"grade": false, "grade_id": "what_folding_changes", "locked": false, "schema_version": 3, "solution": true, "task": false}
### BEGIN SOLUTION
what_folding_changes = "c"
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check_what_folding_changes", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.what_folding_changes(what_folding_changes)

# %%
_, cache_500 = model.run_with_cache(data.tokens[:500])
raw_logits, logits_500 = raw(data.tokens[:500]), model(data.tokens[:500])
differences = {
    "logits": raw_logits - logits_500,
    "log-probabilities": raw_logits.log_softmax(-1) - logits_500.log_softmax(-1),
    "attention": raw_cache["pattern", 0] - cache_500["pattern", 0],
}
for name, difference in differences.items():
    print(f"largest difference raw − processed, {name:18s} {difference.abs().max():.3f}")
for name, of in {"raw": raw, "processed": model}.items():
    print(
        f"{name:10s} largest mean over d_model: W_E {of.W_E.mean(-1).abs().max():.4f}  "
        f"W_O {of.W_O.mean(-1).abs().max():.4f}   largest mean of W_U over tokens {of.W_U.mean(-1).abs().max():.4f}"
    )

# %% [markdown]
# Log-probabilities and attention patterns stay. Single matrices change, and that is the point: in the processed
# model, the input of the heads and of the unembedding is the residual stream **divided by one number a position**,
# the LayerNorm *scale*, and by nothing else.
#
# How bad would it be to take even that number for a constant? Plots of circuits do so, silently.

# %% [markdown]
# ### Exercise 4 · `constant_scale_logits` (optional)
# *Difficulty ●●○○○ · 8 minutes*
#
# **Why:** a circuit read from the weights has one scale for all lists. Know the error before you trust the picture.
#
# Return the logits at the answer positions if the last LayerNorm divided by one number everywhere: the mean of its
# scale over lists *and answer positions*. (`resid_post` of the last layer) / (mean scale) @ `W_U` + `b_U`. Everything
# before stays as it is. `model` has processed weights.
#
# <details><summary>Hint</summary>
#
# `cache["ln_final.hook_scale"]` has shape (list, position, 1). Cut out the answer positions *before* you take the
# mean.
# </details>


# %% nbgrader={"grade": false, "grade_id": "constant_scale_logits", "locked": false, "schema_version": 3, "solution": true, "task": false}
def constant_scale_logits(
    model, tokens: Int[Tensor, "batch position"]
) -> Float[Tensor, "batch answer d_vocab_out"]:
    """Logits at the answer positions with one LayerNorm scale for all."""
    ### BEGIN SOLUTION
    separator = tokens.shape[1] // 2
    _, cache = model.run_with_cache(tokens)
    scale = cache["ln_final.hook_scale"][:, separator:-1].mean()
    residual = cache["resid_post", model.cfg.n_layers - 1][:, separator:-1]
    return residual / scale @ model.W_U + model.b_U
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_constant_scale_logits", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.constant_scale_logits(constant_scale_logits)

# %%
constant_of = checks.constant_scale_logits.working(constant_scale_logits)


def quality(answer_logits, of=data):
    """(mean cross-entropy in nats, share of right answers) of logits at the answer positions."""
    log_probs = answer_logits.log_softmax(-1)
    return (
        -eindex(log_probs, of.labels, "batch answer [batch answer]").mean().item(),
        (answer_logits.argmax(-1) == of.labels).float().mean().item(),
    )


def with_first_scale(replacement):
    """Answer logits when the scale in front of the heads is replaced."""
    hooks = [("blocks.0.ln1.hook_scale", lambda scale, hook: replacement(scale))]
    with model.hooks(fwd_hooks=hooks):
        return task.answer_logits(model(data.tokens))


scales = {
    "true scales": task.answer_logits(model(data.tokens)),
    "last: one number": constant_of(model, data.tokens),
    "first: mean a position": with_first_scale(lambda s: s.mean(0).expand_as(s)),
    "first: one number": with_first_scale(lambda s: s.mean().expand_as(s)),
}
plotting.bar(
    list(scales),
    [quality(answer_logits)[0] for answer_logits in scales.values()],
    title="The price of a constant LayerNorm scale",
    x="which LayerNorm's scale is replaced",
    y="cross-entropy (nats)",
).show()
for name, answer_logits in scales.items():
    loss_now, share = quality(answer_logits)
    print(f"{name:24s} {loss_now:.3f} nats   {share:.3f} of the answers right")

# %% [markdown]
# At the end a constant scale costs confidence and hardly an answer: it multiplies all logits of a position by one
# number (`b_U` apart). In front of the heads it costs answers, because there it multiplies *scores*, which a softmax
# turns into other patterns. So: read OV pictures with one scale in peace (another scale stretches a row and leaves
# its order), and QK pictures with care.

# %% [markdown]
# ## 3 · Where do the heads look?
#
# One list, both heads. Hover over a token to see where it attends.

# %% tags=["drop-output"]
_, one = model.run_with_cache(example[None])
plotting.attention_heads(
    one["pattern", 0][0], task.str_tokens(example), names=[f"0.{h}" for _, h in HEADS]
)

# %%
by_value = example[:10].argsort()  # the places of the list, smallest number first
plotting.heatmap_facets(
    {
        name: one["pattern", 0][0, head, 10:20][:, by_value]
        for head, name in enumerate(HEAD_NAMES)
    },
    title="One list: attention from the answer positions to the list (its columns put in order)",
    x="number in the list",
    y="token at the answer position",
    unit="attention",
    x_labels=[str(number) for number in example[by_value].tolist()],
    y_labels=answer_tokens,
    signed=False,
).show()

# %% [markdown]
# The columns are sorted for the eye only; in the model the list stands in any order. A cell on the diagonal is
# attention to the right answer: `SEP` to the smallest number, each number to the next.

# %% [markdown]
# ### Exercise 5 · `sep_attends_to` (optional: predict, then reveal)
# *Difficulty ●○○○○ · 2 minutes*
#
# `SEP` is the same token in every list. On ordinary lists, to what does it attend most in the list, taking both heads
# together?
#
# - **a** the smallest number
# - **b** the largest number
# - **c** the number at position 0
# - **d** nothing in particular: its attention is spread evenly
#
# <details><summary>Hint</summary>
#
# What has to be answered there? And how could a query that is always the same find it? (Through the keys.)
# </details>

# %% nbgrader={"grade": false, "grade_id": "sep_attends_to", "locked": false, "schema_version": 3, "solution": true, "task": false}
### BEGIN SOLUTION
sep_attends_to = "a"
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check_sep_attends_to", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.sep_attends_to(sep_attends_to)

# %%
_, cache = model.run_with_cache(data.tokens)
pattern = cache["pattern", 0]  # (list, head, query, key)
order = data.tokens[:, :10].argsort(-1)
to_ranks = eindex(pattern[:, :, 10:20, :10], order, "batch head answer [batch rank]").mean(
    0
)
plotting.heatmap_facets(
    {name: to_ranks[head] for head, name in enumerate(HEAD_NAMES)},
    title="Mean attention to the list, by rank of the number (2,000 lists)",
    x="rank in the list (0: smallest)",
    y="answer position",
    unit="attention",
    y_labels=[str(position) for position in task.ANSWER_POSITIONS],
    signed=False,
).show()

# %% [markdown]
# **What you should see:** in both heads most attention is near the diagonal: the right answer, but also its
# neighbours on either side. It is a blurred "attend to the next number". Neither head looks as sure as the answers
# are.

# %% [markdown]
# ### Exercise 6 · `attention_to_next` (core)
# *Difficulty ●●○○○ · 10 minutes*
#
# **Why:** the diagonal of that figure in numbers, without sorting anything.
#
# For each head of layer 0 and each answer position, return the attention to the place **in the list** (positions $0
# \dots L-1$) where the right answer stands, averaged over the lists. If it stands there more than once, add up the
# attention to all its places.
#
# <details><summary>Hint 1</summary>
#
# `tokens[:, None, :L] == answers[:, :, None]` is true, for each list and answer, wherever in the list the answer
# stands.
# </details>
# <details><summary>Hint 2</summary>
#
# Multiply the pattern (answer positions as queries, the first $L$ positions as keys) by that mask and sum over keys.
# `cache["pattern", 0]` has shape (list, head, query, key).
# </details>


# %% nbgrader={"grade": false, "grade_id": "attention_to_next", "locked": false, "schema_version": 3, "solution": true, "task": false}
def attention_to_next(
    model, tokens: Int[Tensor, "batch position"]
) -> Float[Tensor, "head answer"]:
    """Mean attention of each head from each answer position to the right answer in the list."""
    ### BEGIN SOLUTION
    separator = tokens.shape[1] // 2
    _, cache = model.run_with_cache(tokens)
    to_list = cache["pattern", 0][:, :, separator:-1, :separator]
    answers = tokens[:, separator + 1 :]
    is_answer = tokens[:, None, :separator] == answers[:, :, None]  # batch answer key
    return (to_list * is_answer[:, None]).sum(-1).mean(0)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_attention_to_next", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.attention_to_next(attention_to_next)

# %%
to_next = checks.attention_to_next.working(attention_to_next)(model, data.tokens)
plotting.line(
    {name: to_next[head] for head, name in enumerate(HEAD_NAMES)},
    title="Attention to the right answer",
    x="answer position (10: SEP)",
    y="attention (mean over lists)",
    x_values=list(task.ANSWER_POSITIONS),
).show()
is_answer = data.tokens[:, None, :10] == data.labels[:, :, None]
attention = (pattern[:, :, 10:20, :10] * is_answer[:, None]).sum(-1)  # list, head, answer
tops = [pattern[:, head, 10:20, :10].argmax(-1) for _, head in HEADS]
hits = torch.stack([eindex(is_answer, top, "batch answer [batch answer]") for top in tops])
for head, name in enumerate(HEAD_NAMES):
    print(
        f"{name}: the place it attends to most in the list is the right answer in {hits[head].float().mean():.3f} of the cases"
    )
print(f"at least one of the two: {hits.any(0).float().mean():.3f}")

# %% [markdown]
# Compare the printed numbers with the share of right answers above. Each head often looks elsewhere; together they do
# better than either; and the model is right more often still. So when one head looks away, how does the model know
# whom to believe? By position, as in the line plot, neither head is ahead everywhere. Try by *number*:

# %%
by_number = torch.stack(
    [
        torch.stack([attention[:, head][data.labels == t].mean() for t in NUMBERS])
        for _, head in HEADS
    ]
)
plotting.line(
    {name: by_number[head] for head, name in enumerate(HEAD_NAMES)},
    title="The same attention, by the number that is the right answer",
    x="right answer",
    y="attention (mean over lists)",
    x_values=NUMBERS,
).show()

# %% [markdown]
# Now there is structure: stretches of numbers in which one head looks at the answer much more than the other. But
# attention is not use. Take the heads away and see.

# %% [markdown]
# ## 4 · Who answers what?
#
# **Mean ablation**: a head's output is replaced by its mean over lists, position by position. What it writes for all
# lists alike stays; what depends on the list is gone. First the control: one list is its own mean, so nothing may
# change.

# %%
with ablate(model, HEADS, how="mean"):
    alone = model(data.tokens[:1])
print(
    f"largest change by mean ablation of a single list: {(alone - model(data.tokens[:1])).abs().max():.4f}"
)

# %% [markdown]
# ### Exercise 7 · `ablation_costs` (core)
# *Difficulty ●●○○○ · 8 minutes*
#
# **Why:** the first question about any head: what is it worth?
#
# For each head of layer 0, return by how many **nats** the mean cross-entropy over lists and answer positions rises
# when that head alone is mean-ablated (its `z`, at all positions, over the lists of `tokens`). `hooks.ablate` is a
# `with` block: `with ablate(model, [(0, head)], how="mean"):`.
#
# <details><summary>Hint</summary>
#
# Cross-entropy is minus the mean log-probability of the right answers. Your `answer_probabilities` works inside the
# block, too.
# </details>


# %% nbgrader={"grade": false, "grade_id": "ablation_costs", "locked": false, "schema_version": 3, "solution": true, "task": false}
def ablation_costs(model, tokens: Int[Tensor, "batch position"]) -> Float[Tensor, " head"]:
    """Nats that mean-ablating each head of layer 0 adds to the loss."""

    ### BEGIN SOLUTION
    def loss():
        logits = model(tokens)[:, tokens.shape[1] // 2 : -1]
        answers = tokens[:, tokens.shape[1] // 2 + 1 :]
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), answers.flatten())

    before, costs = loss(), []
    for head in range(model.cfg.n_heads):
        with ablate(model, [(0, head)], how="mean"):
            costs.append(loss() - before)
    return torch.stack(costs)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_ablation_costs", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.ablation_costs(ablation_costs)

# %%
costs = checks.ablation_costs.working(ablation_costs)(model, published_draw.tokens)
for head, name in enumerate(HEAD_NAMES):
    published = (0.920, 4.963)[head]
    print(
        f"mean ablation of {name}: {costs[head]:.3f} nats   (write-up's head 0.{head}: {published:.3f})"
    )

# %% [markdown]
# Both are needed. In the write-up's model one head matters more than five times as much as the other; whether yours
# is so lopsided, the printed lines say. Head numbers mean nothing across models. One number a head hides the question
# anyway: *which answers* does it cost?

# %% [markdown]
# ### Exercise 8 · `costs_by_number` (core)
# *Difficulty ●●●○○ · 12 minutes*
#
# **Why:** it turns "one head matters more" into a map of who answers what.
#
# The same ablation, one head of layer 0 at a time, with the mean over *all* lists of `tokens`. But average the rise of
# the cross-entropy separately for each number: entry `[head, t]` is the mean rise, in nats, over all answers (any list,
# any answer position) whose right answer is `t`. The numbers are all tokens but the last (`SEP`). A number that is
# never the right answer in `tokens` gets NaN.
#
# <details><summary>Hint 1</summary>
#
# Keep the rise as a tensor (list, answer). Then `rise[answers == t].mean()`; the mean of nothing is NaN already.
# </details>
# <details><summary>Hint 2</summary>
#
# A loop over numbers is fine: there are 51.
# </details>


# %% nbgrader={"grade": false, "grade_id": "costs_by_number", "locked": false, "schema_version": 3, "solution": true, "task": false}
def costs_by_number(
    model, tokens: Int[Tensor, "batch position"]
) -> Float[Tensor, "head number"]:
    """Nats that mean-ablating a head adds where each number is the right answer."""
    ### BEGIN SOLUTION
    separator = tokens.shape[1] // 2
    answers = tokens[:, separator + 1 :]

    def losses():  # (list, answer)
        log_probs = model(tokens)[:, separator:-1].log_softmax(-1)
        return -eindex(log_probs, answers, "batch answer [batch answer]")

    before, costs = losses(), []
    for head in range(model.cfg.n_heads):
        with ablate(model, [(0, head)], how="mean"):
            rise = losses() - before
        costs.append(
            torch.stack([rise[answers == t].mean() for t in range(model.cfg.d_vocab - 1)])
        )
    return torch.stack(costs)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_costs_by_number", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.costs_by_number(costs_by_number)

# %%
costs_of = checks.costs_by_number.working(costs_by_number)
number_costs = costs_of(model, data.tokens)
owner = number_costs.argmax(0)
plotting.line(
    {f"without {name}": number_costs[head] for head, name in enumerate(HEAD_NAMES)},
    title="What each head is worth, by the number that is the right answer",
    x="right answer",
    y="cross-entropy added (nats)",
    x_values=NUMBERS,
).show()
for head, name in enumerate(HEAD_NAMES):
    mine, others = number_costs[head][owner == head], number_costs[head][owner != head]
    print(
        f"{name}: worth {mine.mean():.2f} nats on the {len(mine)} numbers where it is worth more, {others.mean():.2f} on the others"
    )
print("worth more at each number 0 … 50:", "".join(map(str, owner.tolist())))
looks_more = by_number.argmax(0)
print(
    f"the head that is worth more is also the one that looks at the answer more: {(looks_more == owner).sum()} of {len(owner)} numbers"
)

# %% [markdown]
# **What you should see:** two lines that take turns. The vocabulary falls into **bands** of successive numbers; in
# the middle of each band one head is worth several nats and the other next to nothing; at the borders they cross.
# Call the head that costs more the **owner** of a number. (Look at 0, too: if it is in the list it is the answer at
# `SEP`, and it hardly misses either head. What a head writes there for all lists alike stays in a mean ablation.)
#
# Now compare with the figure before: the head that *looks* more at an answer is not always the one that answers it
# (last line). Attention alone would have drawn the borders in other places.
#
# The prediction is a sharp one: for each answer, its owner alone should do.

# %% [markdown]
# ### Exercise 9 · `owners_only` (core)
# *Difficulty ●●●○○ · 12 minutes*
#
# **Why:** ablating one head everywhere does not show that the other is enough anywhere. This does.
#
# `owner[t]` is a head of layer 0 for each number `t`. At each answer position of each list, the head `owner[right
# answer]` keeps its own `z`; every other head's `z` there is replaced by its mean over the lists of `tokens` at that
# position. Return the logits at the answer positions. Any number of heads. (It uses the right answers, on purpose: it
# asks what the heads carry, not whether the model could do the choosing.)
#
# <details><summary>Hint 1</summary>
#
# `cache["z", 0]` has shape (list, position, head, d_head). Build a new tensor of that shape and put it in place with
# `with patch(model, "z", 0, new):`.
# </details>
# <details><summary>Hint 2</summary>
#
# `owner[answers]` is a head for each list and answer. Compared with `torch.arange(n_heads)`, on a new last axis, it
# is a mask (list, answer, head); `torch.where` chooses between `z` and its mean. Cut the answer positions out, and
# write them back.
# </details>


# %% nbgrader={"grade": false, "grade_id": "owners_only", "locked": false, "schema_version": 3, "solution": true, "task": false}
def owners_only(
    model, tokens: Int[Tensor, "batch position"], owner: Int[Tensor, " number"]
) -> Float[Tensor, "batch answer d_vocab_out"]:
    """Answer logits when only the owner of the right answer keeps its output."""
    ### BEGIN SOLUTION
    separator = tokens.shape[1] // 2
    _, cache = model.run_with_cache(tokens)
    z = cache["z", 0].clone()
    heads = torch.arange(model.cfg.n_heads, device=tokens.device)
    keeps = owner[tokens[:, separator + 1 :]][..., None] == heads  # (list, answer, head)
    at_answers = z[:, separator:-1]
    z[:, separator:-1] = torch.where(keeps[..., None], at_answers, at_answers.mean(0))
    with patch(model, "z", 0, z):
        return model(tokens)[:, separator:-1]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_owners_only", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.owners_only(owners_only)

# %%
only = checks.owners_only.working(owners_only)
kept = {
    "only the owner": only(model, data.tokens, owner),
    "only the other head": only(model, data.tokens, 1 - owner),
}
share_right = {}
for name, answer_logits in kept.items():
    is_right = (answer_logits.argmax(-1) == data.labels).float()
    print(f"{name:20s} {is_right.mean():.3f} of the answers right")
    share_right[name] = torch.stack([is_right[data.labels == t].mean() for t in NUMBERS])
plotting.line(
    share_right,
    title="One head for each answer: its owner, or the other one",
    x="right answer",
    y="share of answers right",
    x_values=NUMBERS,
).show()

# %% [markdown]
# One head at a time is nearly enough, if it is the right one; the other one is nearly useless away from the borders
# (and from 0). The owner alone loses most at the borders between bands: compare the dips with the crossings above.
# There the other head alone is right in a good part of the cases, and only both *together* in nearly all.

# %% [markdown]
# ### Exercise 10 · `number_ranges` (optional)
# *Difficulty ●●○○○ · 8 minutes*
#
# **Why:** the sentence under the write-up's OV figure gives both bands to the same head, 0.1. A sentence that code
# writes cannot do that.
#
# From `owner`, a head for each number, return a dict: for each head that owns a number, its runs of successive
# numbers as pairs `(first, last)`, in order. `[0, 0, 1, 0]` gives `{0: [(0, 1), (3, 3)], 1: [(2, 2)]}`. Heads are
# plain `int`s, and so are the numbers.
#
# <details><summary>Hint</summary>
#
# `itertools.groupby(enumerate(owner.tolist()), key=…)`, or a loop that starts a new run whenever the head changes.
# </details>


# %% nbgrader={"grade": false, "grade_id": "number_ranges", "locked": false, "schema_version": 3, "solution": true, "task": false}
def number_ranges(owner: Int[Tensor, " number"]) -> dict[int, list[tuple[int, int]]]:
    """The runs of successive numbers that each head owns."""
    ### BEGIN SOLUTION
    ranges: dict[int, list[tuple[int, int]]] = {}
    heads = owner.tolist()
    first = 0
    for number, head in enumerate(heads):
        if number + 1 == len(heads) or heads[number + 1] != head:
            ranges.setdefault(head, []).append((first, number))
            first = number + 1
    return ranges
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_number_ranges", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.number_ranges(number_ranges)

# %%
ranges_of = checks.number_ranges.working(number_ranges)
for head, ranges in sorted(ranges_of(owner).items()):
    print(f"{HEAD_NAMES[head]} owns", ", ".join(f"{a}–{b}" for a, b in ranges))

# %% [markdown]
# ### The same from the weights
#
# The ablation needed 2,000 lists. The weights know nothing of lists. Do they show the same bands?
#
# In lesson 01 you wrote the full OV and QK circuits. Here a head's input is divided by LayerNorm's scale, and so is
# what the unembedding reads, so that the two circuits get typical scales as arguments. That puts them into logits and
# into scores.

# %% [markdown]
# ### Exercise 11 · `head_circuits` (core)
# *Difficulty ●●●○○ · 10 minutes*
#
# **Why:** OV says what a head writes if it attends to a token, QK whether it attends. Together they are the head.
#
# For one head, `(layer, head)`, return two matrices over all tokens (`SEP` is the last). `ov[source, prediction]`:
# the logits that attending to `source` adds, $W_E\,W_V\,W_O\,W_U$ divided by `scale * final_scale`. `qk[query, key]`:
# the scores, $W_E\,W_Q\,W_K^T\,W_E^T$ divided by $\sqrt{d_\text{head}}$ and by `scale ** 2`. No biases, no positions,
# no softmax.
#
# <details><summary>Hint</summary>
#
# `circuits.ov_output` and `circuits.qk_scores` do most of it; the unembedding and `final_scale` are left to you.
# </details>


# %% nbgrader={"grade": false, "grade_id": "head_circuits", "locked": false, "schema_version": 3, "solution": true, "task": false}
def head_circuits(
    model, head: tuple[int, int], scale: float, final_scale: float
) -> tuple[Float[Tensor, "source prediction"], Float[Tensor, "query key"]]:
    """The full OV circuit, in logits, and the full QK circuit, in scores, of one head."""
    ### BEGIN SOLUTION
    written = circuits.ov_output(model, head, model.W_E, scale)
    scores = circuits.qk_scores(model, head, model.W_E, model.W_E, scale)
    return written @ model.W_U / final_scale, scores
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_head_circuits", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.head_circuits(head_circuits)

# %%
scale = cache["scale", 0, "ln1"].mean().item()
final_scale = cache["ln_final.hook_scale"][:, 10:20].mean().item()
circuits_of = checks.head_circuits.working(head_circuits)
both = [circuits_of(model, head, scale, final_scale) for head in HEADS]
ov, qk = (torch.stack(list(matrices)) for matrices in zip(*both, strict=True))
plotting.heatmap_facets(
    {name: ov[head, :51, :51] for head, name in enumerate(HEAD_NAMES)},
    title="OV: which logits rise when a head attends to a number?",
    x="prediction",
    y="number attended to",
    unit="logits",
).show()

# %% [markdown]
# **What you should see:** a head *copies* a number if the cell on the diagonal is high: attending to it makes it the
# answer. Each head's diagonal is dark along some stretches and faint along the others, where it is even negative here
# and there. What is missing in one head is there in the other.

# %%
plotting.line(
    {name: ov[head, :51, :51].diagonal() for head, name in enumerate(HEAD_NAMES)},
    title="The diagonal alone: what copying adds to a number's own logit",
    x="number attended to",
    y="logits, for attention 1",
    x_values=NUMBERS,
).show()

# %% [markdown]
# There is more in the OV figure than the diagonal. For the numbers that a head owns, take the mean at each distance
# from the diagonal:

# %%
distances = range(-35, 36)
by_distance = {}
for head, name in enumerate(HEAD_NAMES):
    mine = (owner == head).nonzero().flatten()
    reached = [mine[(mine + k >= 0) & (mine + k < 51)] for k in distances]
    by_distance[name] = torch.stack(
        [
            ov[head, sources, sources + k].mean()
            for k, sources in zip(distances, reached, strict=True)
        ]
    )
plotting.line(
    by_distance,
    title="OV: what a head adds near and far from a number it owns (mean over its numbers)",
    x="prediction minus the number attended to",
    y="logits, for attention 1",
    x_values=list(distances),
).show()
for name, profile in by_distance.items():
    lowest = int(profile.nan_to_num(torch.inf).argmin())
    print(
        f"{name}: at 0 {profile[35]:+.1f}; just below (−1 to −3) {profile[32:35].mean():+.1f}; just above (1 to 3) {profile[36:39].mean():+.1f}; "
        f"lowest {profile[lowest]:+.1f} at {distances[lowest]:+d}"
    )

# %% [markdown]
# Two things to remember. *Next to the peak* the profile is lopsided: a head that attends to a number also lifts the
# numbers just below it, and pushes down those just above it. Section 5 shows what that is good for. *Far from the
# peak* there are troughs, the red lines of the heatmap: attending to a number speaks loudly *against* numbers at a
# certain distance. It looks as if numbers that far apart were written along the same directions with opposite signs.
# That would save room; it is not tested here.

# %%
plotting.heatmap_facets(
    {name: qk[head, :, :51] for head, name in enumerate(HEAD_NAMES)},
    title="QK: which scores do numbers give each other? (rows: who asks; the last row is SEP)",
    x="key number",
    y="query token",
    unit="score",
    y_labels=[*map(str, NUMBERS), "SEP"],
).show()
for head, name in enumerate(HEAD_NAMES):
    numbers_only = qk[head, :51, :51]
    bands = {"5 keys below": range(-5, 0), "itself": [0], "5 keys above": range(1, 6)}
    means = {
        where: torch.cat([numbers_only.diagonal(k) for k in offsets]).mean().item()
        for where, offsets in bands.items()
    }
    print(name, "mean score:", {where: round(mean, 1) for where, mean in means.items()})

# %% [markdown]
# Read the QK circuits in rows: who asks is on the left. Scores are on the whole higher to the right of the diagonal,
# for keys *above* the query, than on it or below, and they fall off again further to the right. But they are
# blotched, and a row's best key is often not the next number; exercise 14 looks into that. The write-up's figure of
# these two matrices labels the axes "output logit" and "input token", names that would suit an OV circuit: here
# both axes are inputs.

# %% [markdown]
# ### Exercise 12 · `copying_head` (optional)
# *Difficulty ●●○○○ · 8 minutes*
#
# **Why:** the owner of each number, without running the model.
#
# `ov` holds the heads' OV circuits, `SEP` included as the last row and column. For each *number* $t$, a head's
# **copying margin** is its logit for $t$ when it attends to $t$, minus the largest of its logits for any *other
# number*: `ov[h, t, t]` − max over $u \ne t$ of `ov[h, t, u]`. Leave `SEP` out, as a row and as a column. Return the
# head with the largest margin for each number; of equal ones, the lowest.
#
# <details><summary>Hint</summary>
#
# Put minus infinity on the diagonal of a copy to get the best other number.
# </details>


# %% nbgrader={"grade": false, "grade_id": "copying_head", "locked": false, "schema_version": 3, "solution": true, "task": false}
def copying_head(ov: Float[Tensor, "head source prediction"]) -> Int[Tensor, " number"]:
    """For each number, the head that copies it with the largest margin."""
    ### BEGIN SOLUTION
    numbers = ov[:, :-1, :-1]
    own = numbers.diagonal(dim1=1, dim2=2)
    others = numbers.clone()
    others.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
    return (own - others.amax(-1)).argmax(0)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_copying_head", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.copying_head(copying_head)

# %%
copier_of = checks.copying_head.working(copying_head)
copier = copier_of(ov)
print("by ablation:     ", "".join(map(str, owner.tolist())))
print("from the weights:", "".join(map(str, copier.tolist())))
print(f"they agree on {(owner == copier).sum()} of {len(owner)} numbers")
print("they differ on:", [t for t in NUMBERS if owner[t] != copier[t]])
print(
    "… there the two costs, in nats, are:",
    [
        tuple(round(c, 2) for c in number_costs[:, t].tolist())
        for t in NUMBERS
        if owner[t] != copier[t]
    ],
)

# %% [markdown]
# Two accounts with nothing in common but the model: one from running it with a head missing, the other from a product
# of four matrices. They differ at most at a few numbers: look at their costs to see whether anything much was at
# stake there.

# %% [markdown]
# ### Does the sharing lie in what the heads write, or in where they look? (optional)
#
# The bands are in OV: a head copies some numbers and not others. A model could stop there, with two heads that look
# at the same place. (Whether they do, the attention by number in section 3 gave a hint.)

# %% [markdown]
# ### Exercise 13 · `shared_pattern` (optional)
# *Difficulty ●●○○○ · 8 minutes*
#
# **Why:** if both heads looked for the same thing, either pattern would serve for both.
#
# Return the logits at the answer positions when **all** heads of layer 0 use the attention pattern that head `giver`
# has in the same run. Values and output weights stay each head's own.
#
# <details><summary>Hint</summary>
#
# `cache["pattern", 0][:, giver : giver + 1]` keeps the head axis; `.expand` repeats it. `with patch(model, "pattern",
# 0, …):` puts it in place.
# </details>


# %% nbgrader={"grade": false, "grade_id": "shared_pattern", "locked": false, "schema_version": 3, "solution": true, "task": false}
def shared_pattern(
    model, tokens: Int[Tensor, "batch position"], giver: int
) -> Float[Tensor, "batch answer d_vocab_out"]:
    """Answer logits when every head attends as the head `giver` does."""
    ### BEGIN SOLUTION
    _, cache = model.run_with_cache(tokens)
    patterns = cache["pattern", 0]
    with patch(model, "pattern", 0, patterns[:, giver : giver + 1].expand_as(patterns)):
        return model(tokens)[:, tokens.shape[1] // 2 : -1]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_shared_pattern", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.shared_pattern(shared_pattern)

# %%
with patch(model, "pattern", 0, pattern):  # the control: its own pattern
    unchanged = model(data.tokens)
print(
    f"largest change when every head gets its own pattern: {(unchanged - model(data.tokens)).abs().max():.4f}"
)
share_with = checks.shared_pattern.working(shared_pattern)
shared = {}
for head, name in enumerate(HEAD_NAMES):
    is_right = (share_with(model, data.tokens, head).argmax(-1) == data.labels).float()
    shared[f"both attend as {name}"] = torch.stack(
        [is_right[data.labels == t].mean() for t in NUMBERS]
    )
    own = owner[data.labels] == head
    print(
        f"both attend as {name}: right on {is_right[own].mean():.3f} of the answers it owns, {is_right[~own].mean():.3f} of the others"
    )
plotting.line(
    shared,
    title="Both heads with one pattern",
    x="right answer",
    y="share of answers right",
    x_values=NUMBERS,
).show()

# %% [markdown]
# A head's pattern serves both heads well on the numbers that it owns, and much worse on the others, where it often
# looks at the wrong place. So the heads specialise twice: a head looks well where it copies. Where it copies nothing,
# it can afford to look elsewhere, and it does.

# %% [markdown]
# ### What does a number look for? (optional)
#
# The QK figure has no positions and one scale for everything. For a single query the scores can be computed exactly.

# %% [markdown]
# ### Exercise 14 · `key_scores` (optional)
# *Difficulty ●●●○○ · 12 minutes*
#
# **Why:** these are the scores that the softmax really sees, for a query of your choice.
#
# Return the attention scores that the token `query` at `position` gives to each number $0, 1, \dots$ (`SEP` left out)
# standing in the list, in one head. The query's residual stream is $W_E[\text{query}] +
# W_\text{pos}[\text{position}]$. A key's is $W_E[\text{key}]$ plus the *mean* of $W_\text{pos}$ over the list's
# positions $0 \dots L-1$, where $2L + 1$ is `model.cfg.n_ctx`. Divide each by its own LayerNorm scale,
# $\sqrt{\text{mean}(x^2) + \epsilon}$ with $\epsilon$ = `model.cfg.eps`. Include `b_Q` and `b_K`, and
# $1/\sqrt{d_\text{head}}$.
#
# <details><summary>Hint</summary>
#
# Queries: `x / scale @ model.W_Q[layer, head] + model.b_Q[layer, head]`; keys in the same way, one row a number.
# </details>


# %% nbgrader={"grade": false, "grade_id": "key_scores", "locked": false, "schema_version": 3, "solution": true, "task": false}
def key_scores(
    model, head: tuple[int, int], query: int, position: int
) -> Float[Tensor, " number"]:
    """Scores that one query gives to every number in the list, LayerNorm and biases included."""

    ### BEGIN SOLUTION
    def normalise(x):
        return x / (x.pow(2).mean(-1, keepdim=True) + model.cfg.eps).sqrt()

    layer, index = head
    in_list = model.W_pos[: model.cfg.n_ctx // 2].mean(0)
    q = normalise(model.W_E[query] + model.W_pos[position]) @ model.W_Q[layer, index]
    k = normalise(model.W_E[:-1] + in_list) @ model.W_K[layer, index]
    q, k = q + model.b_Q[layer, index], k + model.b_K[layer, index]
    return k @ q / model.cfg.d_head**0.5
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_key_scores", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.key_scores(key_scores)

# %%
scores_of = checks.key_scores.working(key_scores)
for query, position in ((25, 15), (42, 18)):
    plotting.bar(
        list(map(str, NUMBERS)),
        {
            name: scores_of(model, head, query, position)
            for head, name in zip(HEADS, HEAD_NAMES, strict=True)
        },
        title=f"What {query} looks for, at position {position}",
        x="key number",
        y="score",
    ).show()

# %%
queries = range(10, 46)
best_offset = torch.stack(
    [
        torch.stack([scores_of(model, head, q, 15)[q + 1 :].argmax() + 1 for q in queries])
        for head in HEADS
    ]
)
for head, name in enumerate(HEAD_NAMES):
    is_next = best_offset[head] == 1
    print(
        f"{name}: of the numbers above a query d (10 to 45), d + 1 scores highest for {int(is_next.sum())} of {len(queries)} queries; "
        f"median offset of the best {int(best_offset[head].median())}"
    )

# %% [markdown]
# So a head does not have "the next number" in its scores. Often a number two, three or more steps above scores higher
# than the next one. On most lists this does not show, because most of those numbers are not in the list. Section 5
# puts them in on purpose.

# %% [markdown]
# ### Exercise 15 · `position_key_scores` (optional)
# *Difficulty ●●○○○ · 8 minutes*
#
# **Why:** the write-up noticed that some high queries give high scores to very small numbers, and asked why they do
# not attend to them.
#
# Its suspect is the query's *position*: late positions hold high numbers. Return $W_\text{pos}\,W_Q\,W_K^T\,W_E^T$
# divided by $\sqrt{d_\text{head}}$ and `scale ** 2`: what each position (all of them, as queries, rows) adds to the
# score of each token (all of them, as keys, columns). No biases.
#
# <details><summary>Hint</summary>
#
# `circuits.qk_scores` with `W_pos` on one side and `W_E` on the other. Which side asks?
# </details>


# %% nbgrader={"grade": false, "grade_id": "position_key_scores", "locked": false, "schema_version": 3, "solution": true, "task": false}
def position_key_scores(
    model, head: tuple[int, int], scale: float
) -> Float[Tensor, "position key"]:
    """What the query's position adds to the score of each key token."""
    ### BEGIN SOLUTION
    return circuits.qk_scores(model, head, model.W_pos, model.W_E, scale)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_position_key_scores", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.position_key_scores(position_key_scores)

# %%
position_scores_of = checks.position_key_scores.working(position_key_scores)
position_scores = {
    name: position_scores_of(model, head, scale)
    for head, name in zip(HEADS, HEAD_NAMES, strict=True)
}
plotting.heatmap_facets(
    {name: scores[10:20, :51] for name, scores in position_scores.items()},
    title="What the query's position adds to the score of each number",
    x="key number",
    y="query position",
    unit="score",
    y_labels=[str(position) for position in task.ANSWER_POSITIONS],
).show()

# %% [markdown]
# In the row of `SEP` the smallest numbers gain, which is how a query that is always the same could find the smallest.
# (Here it is the position that asks: the row of the token `SEP`, the last one of the QK figure, is pale.) In the rows
# below, the smallest numbers lose.
#
# Is it the position that keeps high numbers from attending to small ones? Two tests. First the terms: how far, in
# scores, is the average of the keys 0 to 4 from the number that follows, for high queries late in the list? Then the
# intervention: give every sorted number the position part of the *first* one, in the query, and look at where the
# high numbers attend.

# %%
high, late = range(40, 50), slice(17, 20)
for head, name in enumerate(HEAD_NAMES):
    tokens_say = torch.stack([qk[head, q, :5].mean() - qk[head, q, q + 1] for q in high])
    by_position = position_scores[name][late].mean(0)
    positions_say = torch.stack([by_position[:5].mean() - by_position[q + 1] for q in high])
    print(
        f"{name}: smallest numbers minus next number, queries 40–49 at positions 17–19: "
        f"tokens {tokens_say.mean():+.1f}, position {positions_say.mean():+.1f}"
    )

query_of_position = torch.einsum("pd,hde->phe", model.W_pos, model.W_Q[0])
ln_scale = cache["scale", 0, "ln1"][..., None]
first_for_all = (
    query_of_position[11:12] - query_of_position[11:20]
)  # (position, head, d_head)
moved = cache["q", 0].clone()
moved[:, 11:20] += first_for_all / ln_scale[:, 11:20]
is_high = data.tokens[:, 11:20] >= 40
owns = owner[data.labels[:, 1:], None] == torch.arange(
    model.cfg.n_heads, device=owner.device
)  # list, query, head
owns = owns.transpose(1, 2)  # (list, head, query)
is_small = (data.tokens[:, :10] <= 10)[:, None, None]  # (list, 1, 1, key)


def report(name):
    """Attention of high numbers to small ones, and what becomes of their answers."""
    logits_now, now = model.run_with_cache(data.tokens)
    to_small = (now["pattern", 0][:, :, 11:20, :10] * is_small).sum(-1)
    log_probs = task.answer_logits(logits_now).log_softmax(-1)
    loss_now = -eindex(log_probs, data.labels, "list answer [list answer]")[:, 1:][is_high]
    answered = task.correct(logits_now, data)[:, 1:][is_high].float().mean()
    high_queries = is_high[:, None].expand_as(owns)
    by_owner, by_other = to_small[high_queries & owns], to_small[high_queries & ~owns]
    print(
        f"{name:26s} owner {by_owner.mean():.3f}, other head {by_other.mean():.3f}; right {answered:.3f}, loss {loss_now.mean():.3f}"
    )


print("attention of 40 and above to 0–10, by the answer's owner and by the other head:")
with patch(model, "q", 0, cache["q", 0]):  # the control: the model's own queries
    report("own position")
with patch(model, "q", 0, moved):
    report("position 11 for all")
cleared = pattern.clone()
forbidden = (is_high[:, None] & ~owns)[..., None] & is_small
cleared[:, :, 11:20, :10] = cleared[:, :, 11:20, :10].masked_fill(forbidden, 0)
with patch(model, "pattern", 0, cleared):
    report("other head's taken away")
to_small = (pattern[:, :, 11:20, :10] * is_small).sum(-1)
for head, name in enumerate(HEAD_NAMES):
    idle = to_small[:, head][is_high & ~owns[:, head]]
    print(
        f"{name}: as the other head ({len(idle)} answers) gives 0–10 {idle.mean():.3f} of its attention; "
        f"copying a number from 0 to 10 adds {ov[head].diagonal()[:11].mean():+.1f} to its own logit (mean)"
    )

# %% [markdown]
# The position's term has the sign that the write-up says: it counts against the smallest numbers. But so does, on
# average, the tokens' own term, and with the position of the first sorted number the *owner* of the answer still
# hardly attends to small numbers. So for the owner the position is a helper at most. (It does matter for something:
# some of those answers are wrong without it.)
#
# And the question has a second answer, which the write-up does not consider. Look at the other head in the first
# line, and at the bars of 42 above. In the model of the stored output (`seed0`) some high numbers *do* attend to
# small ones, in the head that does not own the answer: nearly always head 0.1. It does no harm: taking that attention
# away changes next to nothing (third line). The last lines say why that may be: head 0.1 does not copy those small
# numbers either. A head that does not own the answer may look where it likes, as long as it does not own what it
# looks at.

# %% [markdown]
# ## 5 · Why are near neighbours no trouble? (optional)
#
# A puzzle from the write-up, and it is a good one. Let the list hold $x = d$, $y = d+1$ and $z = d+2$. At $x$ the
# answer is $y$. But you saw that $x$ often gives $z$ a higher score than $y$. A head that copies what it attends to
# should answer $z$. Does it?


# %%
def near_lists(size, seed):
    """Lists that hold d, d + 1, d + 2, with the positions of the query d and of the two sources."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(0, task.N_NUMBERS - 2, (size, 1), generator=generator)
    numbers = torch.arange(task.N_NUMBERS)
    put_in = (numbers >= first) & (numbers <= first + 2)
    weights = torch.rand(size, task.N_NUMBERS, generator=generator) - 2 * put_in
    chosen = weights.argsort(-1)[:, :10]
    shuffle = torch.rand(size, 10, generator=generator).argsort(-1)
    tokens = task.from_lists(chosen.gather(-1, shuffle)).tokens
    query = 11 + (tokens[:, 11:] == first).long().argmax(-1)
    places = [(tokens[:, :10] == first + k).long().argmax(-1) for k in (1, 2)]
    return tokens, first[:, 0], query, torch.stack(places, -1)


near, d, query, places = (t.to(model.cfg.device) for t in near_lists(3000, seed=0))
rows = torch.arange(len(near))
logits_near, near_cache = model.run_with_cache(near)
at_query = near_cache["pattern", 0][rows, :, query]  # (list, head, key)
to_yz = eindex(at_query, places, "list head [list source]")
head_of_y = owner[d + 1]
owner_looks = to_yz[rows, head_of_y]  # (list, source)
hard = owner_looks[:, 1] >= owner_looks[:, 0]
answer_at_x = logits_near[rows, query].argmax(-1)
wrong_anywhere = ~task.correct(logits_near, task.SortedListData(near)).all(-1)
print(
    f"lists with a wrong answer anywhere: {wrong_anywhere.float().mean():.3f} with a triple, {(~right.all(-1)).float().mean():.3f} as in training"
)
print(f"right at x, all {len(near)} lists: {(answer_at_x == d + 1).float().mean():.3f}")
print(f"y's owner attends to z at least as much as to y: {hard.float().mean():.3f}")
print(
    f"… right at x on those {int(hard.sum())} lists: {(answer_at_x[hard] == d[hard] + 1).float().mean():.3f}"
)
tokens_hard, d_hard, query_hard, places_hard = (t[hard] for t in (near, d, query, places))

# %% [markdown]
# It does not. On the **hard triples**, where the owner of $y$ attends to $z$ at least as much as to $y$, the answer
# is still $y$ in nearly all cases. (Measure at $x$ itself: elsewhere these lists have fewer numbers and wider gaps, and are wrong more
# often; see the first line.)
#
# Three explanations. **One:** the other head helps. **Two:** the direct path, embedding to unembedding, prefers $y$.
# **Three:** the owner itself, in what it writes when it attends to $z$. The write-up rejects the first two and
# accepts the third. Test all three, on all hard triples at once.

# %% [markdown]
# ### Exercise 16 · `without_direct_path` (optional)
# *Difficulty ●●○○○ · 8 minutes*
#
# **Why:** the test of explanation two.
#
# Return the logits at the answer positions without what the token's embedding writes directly: subtract
# $W_E[\text{token}] / s \; W_U$, where the token is the one *at* the answer position and $s$ is the last LayerNorm's
# scale of the untouched run there. The scale is not computed again, and the position embedding stays.
#
# <details><summary>Hint</summary>
#
# `cache["embed"]` is $W_E[\text{token}]$ at every position.
# </details>


# %% nbgrader={"grade": false, "grade_id": "without_direct_path", "locked": false, "schema_version": 3, "solution": true, "task": false}
def without_direct_path(
    model, tokens: Int[Tensor, "batch position"]
) -> Float[Tensor, "batch answer d_vocab_out"]:
    """Answer logits minus what the token embedding adds to them directly."""
    ### BEGIN SOLUTION
    separator = tokens.shape[1] // 2
    logits, cache = model.run_with_cache(tokens)
    direct = cache["embed"] / cache["ln_final.hook_scale"] @ model.W_U
    return (logits - direct)[:, separator:-1]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_without_direct_path", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.without_direct_path(without_direct_path)

# %%
direct_path = (model.W_E @ model.W_U / final_scale)[:51, :51]
offsets = range(-6, 7)
plotting.bar(
    [f"{k:+d}" if k else "itself" for k in offsets],
    [direct_path.diagonal(k).mean() for k in offsets],
    title="The direct path: what a number adds to the logits around it (mean over numbers)",
    x="prediction minus the number itself",
    y="logits",
).show()

# %% [markdown]
# The direct path knows something: it speaks against the number that you stand on, and for the one after it. So
# explanation two is not silly. Now the third, which needs a finer tool.

# %% [markdown]
# ### Exercise 17 · `dla_from_sources` (optional)
# *Difficulty ●●●●○ · 15 minutes*
#
# **Why:** direct logit attribution of single *source tokens*: who put how much on which logit, through which head.
#
# For each list, head `(layer, head)` writes at position `queries[list]` a sum over the positions it attends to.
# Return, for each of the positions `sources[list]` and tokens `predictions[list]`, the logits that this source adds
# to that prediction: attention × value vector, through $W_O$, divided by the last LayerNorm's scale at the query,
# times that column of $W_U$. Take `pattern`, `v` and the scale from the run.
#
# <details><summary>Hint 1</summary>
#
# With `rows = torch.arange(len(tokens))`: `cache["v", layer][rows[:, None], sources, head]` has shape (list, source,
# d_head), and `cache["pattern", layer][rows[:, None], head, queries[:, None], sources]` has shape (list, source).
# </details>
# <details><summary>Hint 2</summary>
#
# `model.W_U[:, predictions]` has shape (d_model, list, prediction).
# </details>


# %% nbgrader={"grade": false, "grade_id": "dla_from_sources", "locked": false, "schema_version": 3, "solution": true, "task": false}
def dla_from_sources(
    model,
    tokens: Int[Tensor, "batch position"],
    head: tuple[int, int],
    queries: Int[Tensor, " batch"],
    sources: Int[Tensor, "batch source"],
    predictions: Int[Tensor, "batch prediction"],
) -> Float[Tensor, "batch source prediction"]:
    """Logits that each source adds to each prediction at the query, through one head."""
    ### BEGIN SOLUTION
    layer, index = head
    _, cache = model.run_with_cache(tokens)
    rows = torch.arange(len(tokens), device=tokens.device)
    attention = cache["pattern", layer][rows[:, None], index, queries[:, None], sources]
    values = cache["v", layer][rows[:, None], sources, index]
    written = attention[..., None] * values @ model.W_O[layer, index]
    written = written / cache["ln_final.hook_scale"][rows, queries][:, None]
    return torch.einsum("bsd,dbp->bsp", written, model.W_U[:, predictions])
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_dla_from_sources", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.dla_from_sources(dla_from_sources)

# %%
dla_of = checks.dla_from_sources.working(dla_from_sources)

# Attribution must add up: all sources of all heads, the embeddings and the biases are the logits.
some, at = near[:50], query[:50]
all_sources = torch.arange(21).expand(50, -1)
all_tokens = torch.arange(52).expand(50, -1)
from_heads = sum(
    dla_of(model, some, head, at, all_sources, all_tokens).sum(1) for head in HEADS
)
bare = model.W_E[some[rows[:50], at]] + model.W_pos[at] + model.b_O[0]
bare = bare / near_cache["ln_final.hook_scale"][rows[:50], at] @ model.W_U + model.b_U
print(
    f"largest gap between the sum of all attributions and the logits: {(from_heads + bare - logits_near[rows[:50], at]).abs().max():.3f}"
)

yz = torch.stack([d + 1, d + 2], -1)
dla = torch.stack([dla_of(model, near, head, query, places, yz) for head in HEADS], 1)
through_owner = dla[rows, head_of_y]  # (list, source, prediction)
easy = ~hard
plotting.heatmap_facets(
    {
        f"{int(easy.sum())} lists: more attention to y": through_owner[easy].mean(0),
        f"{int(hard.sum())} lists: at least as much to z": through_owner[hard].mean(0),
    },
    title="What y's owner adds at x (mean): a source in each row, a prediction in each column",
    x="prediction",
    y="source",
    unit="logits",
    x_labels=["y", "z"],
    y_labels=["y", "z"],
    text=True,
).show()

# %%
on_hard = through_owner[hard]
facts = {
    "y → y, positive": on_hard[:, 0, 0] > 0,
    "z → z, positive": on_hard[:, 1, 1] > 0,
    "y → z, negative": on_hard[:, 0, 1] < 0,
    "z → y, positive": on_hard[:, 1, 0] > 0,
    "z → z above y → y": on_hard[:, 1, 1] > on_hard[:, 0, 0],
    "all four: y above z": on_hard.sum(1)[:, 0] > on_hard.sum(1)[:, 1],
}
for fact, holds in facts.items():
    print(f"{fact:22s} in {holds.float().mean():.3f} of the hard triples")

# %% [markdown]
# The diagonal of each panel is copying. On the hard triples, copying alone would favour $z$ more often than $y$
# (fifth line). The two other cells decide: $z$, attended to, also pushes up $y$ a little, and $y$, attended to,
# mostly pushes $z$ down a little. That is the ridge *beside* the diagonal of the OV figure: what a head copies it
# smears downwards, not upwards.
#
# That is still attribution. Now the interventions, all on the hard triples. Four things are taken away, one at a
# time: the other head (`owners_only`), the owner, the direct path, and the two cells (their logits subtracted, in
# both heads; as with the direct path, the last LayerNorm's scale stays what it was).

# %%
owner_kept = only(model, tokens_hard, owner)
other_kept = only(model, tokens_hard, 1 - owner)
no_direct = checks.without_direct_path.working(without_direct_path)(model, tokens_hard)
r, at = torch.arange(len(tokens_hard)), query_hard - 10
no_cells = logits_near[rows, query][hard].clone()
both_heads = dla[hard].sum(1)
no_cells[r, d_hard + 1] -= both_heads[:, 1, 0]
no_cells[r, d_hard + 2] -= both_heads[:, 0, 1]
after = {
    "untouched": logits_near[rows, query][hard],
    "no other head": owner_kept[r, at],
    "no direct path": no_direct[r, at],
    "no two cells": no_cells,
    "no owner": other_kept[r, at],
}
says = {name: answer_logits.argmax(-1) for name, answer_logits in after.items()}
outcome = {
    "y (right)": [(a == d_hard + 1).float().mean().item() for a in says.values()],
    "z": [(a == d_hard + 2).float().mean().item() for a in says.values()],
}
plotting.bar(
    list(says),
    outcome,
    title="Hard triples: what is answered at x when one thing is taken away",
    x="taken away",
    y="share of the triples",
).show()
for name, said in says.items():
    y_said, z_said = said == d_hard + 1, said == d_hard + 2
    print(
        f"{name:16s} y {y_said.float().mean():.3f}   z {z_said.float().mean():.3f}   "
        f"something else {(~y_said & ~z_said).float().mean():.3f}"
    )

# %% [markdown]
# **The hypotheses that failed.** If the other head, or the direct path, were what keeps $z$ down, taking it away
# would make the model say $z$ on most of these triples. It does so on few: compare the bars for $z$. (Without the
# direct path more answers are lost, but to numbers that are neither.) Only without the two cells does the model say
# $z$ about as often as $y$. So the third explanation holds, as in the write-up, and over many triples, not only in
# four examples. The owner itself is of course needed for everything.

# %% [markdown]
# ### Exercise 18 · `swapped_axes` (optional: find the bug)
# *Difficulty ●●○○○ · 5 minutes*
#
# Attributions like these are easy to mislabel. Here `lists` has shape (list,), and `sources` and `tokens` have shape
# (list, 2):
#
# ```python
# dla = written / scale @ W_U   # (list, source position, prediction)
# picked = dla[lists[:, None, None], sources[:, None, :], tokens[:, :, None]]
# # picked: (list, source, prediction)
# heatmap(picked[0], x=["source y", "source z"], y=["prediction y", "prediction z"])
# ```
#
# `heatmap` draws rows along `y` and columns along `x`. The last comment says what the axes of `picked` are, and the
# figure's labels say it, too.
#
# - **a** comment and figure are both right
# - **b** the comment is wrong, the figure is right
# - **c** the comment is right, the figure is wrong
# - **d** comment and figure are both wrong
#
# <details><summary>Hint</summary>
#
# `picked[l, i, j]` takes `sources[l, ?]` and `tokens[l, ?]`: which index goes where? An axis of length 1 is repeated.
# </details>

# %% nbgrader={"grade": false, "grade_id": "swapped_axes", "locked": false, "schema_version": 3, "solution": true, "task": false}
### BEGIN SOLUTION
swapped_axes = "b"
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check_swapped_axes", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.swapped_axes(swapped_axes)

# %% [markdown]
# The write-up has this comment. Its axes are swapped; the figure beside it is right. Two more from the same pages:
# the code of that figure uses names (`x_list`, `y_list`, `z_list`) that are never defined, so it cannot be what drew
# the figure; and the sentence under the OV figure gives both bands of the vocabulary to head 0.1. None of this changes
# its conclusions, and each costs a reader an hour.

# %% [markdown]
# ## 6 · Where it breaks
#
# On fresh lists the model is nearly perfect. These are harder: lists with high numbers only (30 to 50); lists with a
# **gap** of 25 or more between two neighbours of the sorted list; and lists with **repeats**, which it has never
# seen.

# %%
kinds = {
    "as in training": data,
    "all high": task.high_lists(1000, seed=3),
    "wide gap": task.gap_lists(1000, seed=3),
    "repeats": task.repeat_lists(1000, seed=3),
}
kinds = {name: lists.to(model.cfg.device) for name, lists in kinds.items()}
right_by_kind = {
    name: task.correct(model(some.tokens), some) for name, some in kinds.items()
}
plotting.bar(
    list(kinds),
    {
        "answers right": [float(r.float().mean()) for r in right_by_kind.values()],
        "lists with all ten right": [
            float(r.all(-1).float().mean()) for r in right_by_kind.values()
        ],
    },
    title="Three kinds of lists that the model does badly",
    x="lists",
    y="share",
).show()
for name, r in right_by_kind.items():
    print(
        f"{name:16s} answers {r.float().mean():.3f}   lists {r.all(-1).float().mean():.3f}"
    )

# %% [markdown]
# High lists and wide gaps are valid inputs; they are merely rare in training. Repeats are a different task: "the next
# number" and "the next *larger* number" part ways only if a number comes twice.

# %% [markdown]
# ### Exercise 19 · `counterexamples` (core)
# *Difficulty ●●○○○ · 15 minutes*
#
# **Why:** an explanation that is right about the mechanism knows where the mechanism breaks.
#
# Give `counterexamples`, a tensor of **50** sequences of shape (50, 21): ten **different** numbers from 0 to 50 in
# any order, `SEP`, the same numbers in order (`task.from_lists(lists).tokens` makes them from lists). None may be
# there twice. A sequence counts if the model answers wrongly at *one or more* of the ten answer positions. **40 of
# the 50** must count. You may build them by hand or by code.
#
# The check also tells apart what is **in distribution** (smallest number 20 or less *and* no gap above 25, as 994 of
# 1,000 training lists have) from what is not. Both count.
#
# <details><summary>Hint 1</summary>
#
# `SEP` asks the same thing of every list. Which smallest number has it hardly ever met?
# </details>
# <details><summary>Hint 2</summary>
#
# In training, a number seldom has to look up by more than 20. Make many lists with one wide gap, ask the model, and
# keep those that it gets wrong.
# </details>

# %% nbgrader={"grade": false, "grade_id": "counterexamples", "locked": false, "schema_version": 3, "solution": true, "task": false}
### BEGIN SOLUTION
# A gap of 20 to 25 somewhere: in distribution, and wider than the heads are used to.
tries = task.gap_lists(4000, seed=5, gap=20).to(model.cfg.device)
typical = evidence_task.in_distribution(tries.tokens)
margins = evidence_task.margin(model(tries.tokens), tries.tokens).masked_fill(
    ~typical, -torch.inf
)
counterexamples = tries.tokens[margins.argsort(descending=True)[:50]]
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check_counterexamples", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.counterexamples(counterexamples)

# %%
by_chance = evidence.random_search(
    model,
    lambda size, generator: task.make_data(size, generator).tokens,
    margin=evidence_task.margin,
    budget=2000,
)
found = checks.counterexamples.working(counterexamples)
plotting.strip(
    {
        "500 of the 2,000 random": by_chance[:500],
        "your 50": evidence_task.margin(model(found), found),
    },
    title="How far lists are from being answered wrongly",
    x="where they come from",
    y="margin: best wrong − right logit",
    reference_lines={"above this line an answer is wrong": 0.0},
).show()
print(f"random lists with a wrong answer: {int((by_chance > 0).sum())} of {len(by_chance)}")

# %% [markdown]
# ### Looking or copying?
#
# A wrong answer can come about in two ways. The heads look at the right place and copy badly (OV): then the *sharing*
# breaks. Or they look at the wrong place (QK). One intervention tells them apart: make them look right, and change
# nothing else. Predict first: which of the bars above will it lift?
#
# The control, for an intervention on patterns: a run's own pattern, put back, changes nothing.

# %%
with patch(model, "pattern", 0, pattern):
    untouched = model(data.tokens)
print(
    f"largest change when a run keeps its own pattern: {(untouched - model(data.tokens)).abs().max():.4f}"
)

# %% [markdown]
# ### Exercise 20 · `right_attention` (core)
# *Difficulty ●●●○○ · 12 minutes*
#
# **Why:** it is the experiment that answers the second half of the lesson's question.
#
# At every answer position, give **every** head of layer 0 this row of attention: 1 at the place in the list
# (positions $0 \dots L-1$) where the right answer stands, 0 everywhere else. (If it stands there several times: equal
# shares.) All other rows of the pattern, and all values, stay. Return the logits at the answer positions.
#
# <details><summary>Hint 1</summary>
#
# Start from a copy of `cache["pattern", 0]`, (list, head, query, key). Set the rows of the answer positions to zero,
# and then the entries of their first $L$ columns.
# </details>
# <details><summary>Hint 2</summary>
#
# The mask of exercise 6, as numbers and divided by its sum over places, is what the rows should be.
# </details>


# %% nbgrader={"grade": false, "grade_id": "right_attention", "locked": false, "schema_version": 3, "solution": true, "task": false}
def right_attention(
    model, tokens: Int[Tensor, "batch position"]
) -> Float[Tensor, "batch answer d_vocab_out"]:
    """Answer logits when every head attends to the right answer and to nothing else."""
    ### BEGIN SOLUTION
    separator = tokens.shape[1] // 2
    _, cache = model.run_with_cache(tokens)
    pattern = cache["pattern", 0].clone()
    answers = tokens[:, separator + 1 :]
    wanted = (tokens[:, None, :separator] == answers[:, :, None]).to(pattern)
    pattern[:, :, separator:-1] = 0
    pattern[:, :, separator:-1, :separator] = (wanted / wanted.sum(-1, keepdim=True))[
        :, None
    ]
    with patch(model, "pattern", 0, pattern):
        return model(tokens)[:, separator:-1]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_right_attention", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.right_attention(right_attention)

# %%
looking_right = checks.right_attention.working(right_attention)
repaired = {
    name: (looking_right(model, some.tokens).argmax(-1) == some.labels)
    for name, some in kinds.items()
}
plotting.bar(
    list(kinds),
    {
        "as it is": [float(r.float().mean()) for r in right_by_kind.values()],
        "made to look at the right answer": [
            float(r.float().mean()) for r in repaired.values()
        ],
    },
    title="What becomes of the answers when the heads are made to look",
    x="lists",
    y="share of answers right",
).show()
for name, r in repaired.items():
    wrong = ~right_by_kind[name]
    print(
        f"{name:16s} wrong answers: {int(wrong.sum()):4d}   made right by looking right: {int((wrong & r).sum()):4d}   "
        f"right answers lost: {int((~wrong & ~r).sum())}"
    )

# %% [markdown]
# Compare the counts in each line. With both heads made to look at the right number, whoever owns it copies it, and
# who does not own it does not disturb. But attention 1 is more than a head gives a number in most ordinary runs. Is
# it enough to move *half* of each row's attention to the right answer, and to leave the rest where it is, halved?

# %%
for name, some in kinds.items():
    rows_now = model.run_with_cache(some.tokens)[1]["pattern", 0].clone()
    wanted = (some.tokens[:, None, :10] == some.labels[:, :, None]).to(rows_now)
    rows_now[:, :, 10:20] *= 0.5
    rows_now[:, :, 10:20, :10] += 0.5 * (wanted / wanted.sum(-1, keepdim=True))[:, None]
    with patch(model, "pattern", 0, rows_now):
        half = task.correct(model(some.tokens), some)
    wrong = ~right_by_kind[name]
    print(
        f"{name:16s} wrong answers: {int(wrong.sum()):4d}   made right by looking half: {int((wrong & half).sum()):4d}   "
        f"right answers lost: {int((~wrong & ~half).sum())}"
    )

# %% [markdown]
# Half is enough for nearly all of them. On these lists the sharing of the vocabulary, the OV side, is sound. **What
# breaks is where the heads look.** How?

# %%
kind_rows, looks = [], []
for name, some in kinds.items():
    pattern_now = model.run_with_cache(some.tokens)[1]["pattern", 0][:, :, 10:20]
    q, answer, key = (
        some.tokens[:, 10:20, None],
        some.labels[..., None],
        some.tokens[:, None],
    )
    is_key = {
        "the answer": key == answer,
        "itself": (key == q) & (key != answer) & (key != task.SEP),
        "larger": (key > answer) & (key != task.SEP),
        "smaller": (key < answer) & (key != q),
        "SEP": key == task.SEP,
    }
    shares = torch.stack(
        [(pattern_now * mask[:, None]).sum(-1) for mask in is_key.values()], -1
    )  # (list, head, answer, where)
    of_owner = eindex(shares, owner[some.labels], "list [list answer] answer where")
    for verdict, which in (("right", right_by_kind[name]), ("wrong", ~right_by_kind[name])):
        kind_rows.append(f"{name}: {verdict}")
        looks.append(of_owner[which].mean(0))
plotting.heatmap(
    torch.stack(looks),
    title="Where the answer's owner looks, when the answer is right and when it is wrong",
    x="attended to",
    y="lists",
    unit="attention",
    x_labels=list(is_key),
    y_labels=kind_rows,
    signed=False,
    text=True,
).show()
at_separator = (~right_by_kind["all high"]).float().sum(0)
print(
    f"all high: {at_separator[0] / at_separator.sum():.2f} of the wrong answers are at SEP"
)

# %% [markdown]
# Read it in pairs of rows. ("Itself" is the number at the answer position, in the list and in the sorted part. Where
# the answer is a repeat of it, both count as "the answer".)
#
# - **All high**: nearly all the wrong answers are at `SEP` (the share is printed). No small number is there to be
#   found, and its attention goes to numbers larger than the answer and to `SEP` itself.
# - **Wide gap**: the attention stays where the number is: on itself, and on `SEP`.
# - **Repeats**: it goes to a larger number. The model was never taught that a number can come twice.
#
# If a head that looks at itself copies what it sees, the model should answer with the number itself. Does it?

# %%
outcomes = []
for name in ("all high", "wide gap", "repeats"):
    some, wrong = kinds[name], ~right_by_kind[name]
    says_now = task.answer_logits(model(some.tokens)).argmax(-1)
    no_path = checks.without_direct_path.working(without_direct_path)(model, some.tokens)
    for a in (says_now, no_path.argmax(-1)):
        itself = a == some.tokens[:, 10:20]
        in_list = (a[..., None] == some.tokens[:, None, :10]).any(-1)
        parts = {
            "the answer": a == some.labels,
            "itself": itself & (a != some.labels),
            "skips": in_list & (a > some.labels),
            "other in list": in_list & (a < some.labels) & ~itself,
            "not in list": ~in_list & ~itself,
        }
        outcomes.append(torch.stack([p[wrong].float().mean() for p in parts.values()]))
plotting.heatmap(
    torch.stack(outcomes),
    title="What is said instead, with and without the direct path",
    x="answer",
    y="lists",
    unit="share of the<br>wrong answers",
    x_labels=list(parts),
    y_labels=[
        f"{name}{how}"
        for name in ("all high", "wide gap", "repeats")
        for how in ("", ", no direct path")
    ],
    signed=False,
    text=True,
).show()

# %% [markdown]
# Over a wide gap it seldom says the number itself. Most often it says a number that is **not in the list at all**.
# The direct path is why: it speaks against the number that one stands on, and where nothing else was written loudly,
# some third number wins. Without the direct path (the second row of each pair) the model says the number itself much more
# often. On repeats it *skips* to a larger number; there the direct path speaks against the very answer, and without it a
# good part of these answers would be right. On high lists it skips, or says something that is not there.

# %%
wide = task.gap_lists(1500, seed=6, gap=13).to(model.cfg.device)
lists = torch.cat([data.tokens, wide.tokens, kinds["wide gap"].tokens])
lists = task.SortedListData(lists)
logits_lists, cache_lists = model.run_with_cache(lists.tokens)
steps = lists.labels[:, 1:] - lists.tokens[:, 11:20]  # gap above each sorted number
answered = task.correct(logits_lists, lists)[:, 1:].float()
at_number = cache_lists["pattern", 0][:, :, 11:20]
same = {
    "the next number": lists.labels[:, 1:, None],
    "itself": lists.tokens[:, 11:20, None],
}
by_gap = {"share right": [], "attention to the next number": [], "attention to itself": []}
sizes = [(g, g + 1) for g in range(1, 32, 2)]
owners_there = owner[lists.labels[:, 1:]]
for low, up in sizes:
    these = (steps >= low) & (steps <= up)
    by_gap["share right"].append(answered[these].mean())
    for what, token in same.items():
        share = (at_number * (lists.tokens[:, None] == token)[:, None]).sum(-1)
        of_owner = eindex(share, owners_there, "list [list answer] answer")
        by_gap[f"attention to {what}"].append(of_owner[these].mean())
plotting.line(
    by_gap,
    title="How far can a number look? (attention of the answer's owner)",
    x="gap to the next number",
    y="share",
    x_values=[f"{low}–{up}" for low, up in sizes],
).show()

# %% [markdown]
# From a gap of about 6 on, the attention to the next number shrinks as it moves away. Beyond 20 the attention to the
# number itself grows, and the answers go. In training only one gap in 200 is 20 or more; so there was little to gain
# by getting them right.

# %% [markdown]
# ## 7 · Does the explanation hold? (optional)
#
# Two more ways to be wrong. The first needs an instrument: `scorer.scores([sites, …])` says how much of the model's
# work is left when everything outside the sites is *resampled*, that is taken from another list. The control is in
# its printed line.

# %%
scorer = evidence.CircuitScorer(
    model,
    data.tokens[:500],
    accuracy(evidence_task, data.tokens[:500]),
    chance=evidence_task.CHANCE,
    ablation="resample",
)
everywhere = [(0, head, p) for _, head in HEADS for p in task.ANSWER_POSITIONS]
none, one_each, whole = (
    scorer.scores([[]])[0],
    scorer.scores([[head] for head in HEADS]),
    scorer.scores([everywhere])[0],
)
print(f"no head kept: {none:.2f}   both heads at all answer positions: {whole:.2f}")
print(
    "one head alone:",
    ", ".join(f"{n} {s:.2f}" for n, s in zip(HEAD_NAMES, one_each, strict=True)),
)

# %% [markdown]
# ### Exercise 21 · `circuit` (optional)
# *Difficulty ●●●○○ · 10 minutes*
#
# **Why:** with two heads, "both" is no finding. But which head matters *where* follows from the bands: early answers
# are small numbers, late ones large.
#
# Give `circuit`, a list of **at most 15** sites `(0, head, position)` with an answer position 10 to 19 (there are
# 20). The check resamples every site outside it and scores
#
# $$\frac{\text{share of right answers, everything else resampled} - \text{chance}}{\text{share of right answers of the whole model} - \text{chance}}$$
#
# on 200 lists. Chance, 0.09, is the share of the best guess that does not look at the list. It must reach **0.80**, and
# the sites of each head that you name must be worth 0.02 of it.
#
# <details><summary>Hint</summary>
#
# For each head and answer position: what share of the right answers there does the head own? Keep the 15 sites with
# the largest shares.
# </details>

# %% nbgrader={"grade": false, "grade_id": "circuit", "locked": false, "schema_version": 3, "solution": true, "task": false}
### BEGIN SOLUTION
owned = torch.stack([(owner[data.labels] == head).float().mean(0) for _, head in HEADS])
best = owned.flatten().argsort(descending=True)[:15].tolist()
circuit = sorted((0, site // 10, 10 + site % 10) for site in best)
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check_circuit", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.circuit(circuit)

# %%
named = checks.circuit.working(circuit)
share_owned = torch.stack(
    [(owner[data.labels] == head).float().mean(0) for _, head in HEADS]
)
lost = 1 - scorer.scores(
    [[site for site in everywhere if site != dropped] for dropped in everywhere]
).view(len(HEADS), -1)
plotting.scatter(
    {name: (share_owned[head], lost[head]) for head, name in enumerate(HEAD_NAMES)},
    title="What a site is worth, and what the bands predict (20 sites)",
    x="share of the answers at that position that the head owns",
    y="score lost without the site",
).show()
random_sets = evidence.random_circuits(everywhere, len(named), count=200, seed=0)
random_scores = scorer.scores(random_sets)
score_named = float(scorer.scores([named])[0])
plotting.strip(
    {f"200 random circuits of {len(named)} of the 20 sites": random_scores},
    title="Your circuit among random ones",
    x="everything else resampled",
    y="share of the model's work",
    reference_lines={"your circuit": score_named},
).show()
print(
    f"score {score_named:.2f}; {100 * (random_scores < score_named).float().mean():.1f} % of the random circuits score less"
)

# %% [markdown]
# The owner map, made from *single* ablations, foretells what each head is worth at each place: the points lie roughly
# along a line. (A tenth of the answers is read at each position, so a site can cost about a tenth of the score at
# most.)

# %% [markdown]
# ### Exercise 22 · `explanation` (optional)
# *Difficulty ●●●●● · 40 minutes*
#
# **Why:** a story about a model can sound right and predict nothing. Here it has to predict, without the model, what
# the model answers: also where it is *wrong*.
#
# Write `explanation(model)`. It reads what it needs from the weights (and, if you like, from runs of the model) into
# a dict `numbers` of tensors, and returns `simulate, numbers`. `simulate(inputs, numbers)` gets sequences of shape
# (list, 21) and your numbers, and returns the ten predicted answers, whole numbers of shape (list, 10). It runs
# **without a model in reach**: only its arguments, `torch`, `einops` and the like.
#
# Half of the lists have a mistake of the model somewhere. Your score is the mean of two agreements with the model,
# one over all *answers* that it gets right, one over those that it gets wrong. Sorting perfectly scores 0.50.
# **0.65** passes, with **40,000** numbers or fewer (all of the model's parameters are more, and explain nothing).
#
# <details><summary>Hint 1</summary>
#
# A softmax over tables of scores, then tables of logits: one of each for each head. The list's order should not
# matter, so one key for each number in the list will do. What else does an answer position attend to?
# </details>
# <details><summary>Hint 2</summary>
#
# Wrong answers come from attention to `SEP` and to the sorted part, and from the direct path. Give keys in the sorted
# part a table of their own. The position of the query matters, too.
# </details>
# <details><summary>Hint 3</summary>
#
# Compute the vectors exactly, with LayerNorm, for a token at an average place of the list (mean of `W_pos[:10]`) and
# of the sorted part. Then shrink: the score is nearly a sum of a part from the query's token and one from its
# position, and an SVD of that table needs few dimensions.
# </details>


# %% nbgrader={"grade": false, "grade_id": "explanation", "locked": false, "schema_version": 3, "solution": true, "task": false}
def explanation(model):
    """(simulate, numbers): a prediction of the model's answers, and the numbers it needs."""
    ### BEGIN SOLUTION
    W_E, W_pos, rank = model.W_E, model.W_pos, 10

    def normalise(x):
        return x / (x.pow(2).mean(-1, keepdim=True) + model.cfg.eps).sqrt()

    # What can be attended to: a number in the list (wherever it stands), SEP, a number in the sorted part.
    sources = normalise(
        torch.cat(
            [
                W_E[:-1] + W_pos[:10].mean(0),
                W_E[-1:] + W_pos[10],
                W_E[:-1] + W_pos[11:20].mean(0),
            ]
        )
    )
    queries = normalise(W_E[:-1] + W_pos[11:20, None])  # (position, number, d_model)
    separator = normalise(W_E[-1] + W_pos[10])
    numbers = {
        # added by the token and the place themselves, whatever is attended to (up to a scale)
        "direct_of_token": W_E @ model.W_U,
        "direct_of_place": (W_pos[10:20] + model.b_O[0]) @ model.W_U,
    }
    asks, keys = [], []
    for _, head in HEADS:
        W_Q, b_Q = model.W_Q[0, head], model.b_Q[0, head]
        k = (sources @ model.W_K[0, head] + model.b_K[0, head]) / model.cfg.d_head**0.5
        k = k - k.mean(0)  # the same for all keys: the softmax does not see it
        scores = (queries @ W_Q + b_Q) @ k.T  # (position, number, source)
        of_token = scores.mean(0)
        of_place = (scores - of_token).mean(1)
        of_separator = (separator @ W_Q + b_Q) @ k.T
        table = torch.cat([of_token, of_separator[None], of_place])
        left, size, right = torch.linalg.svd(table, full_matrices=False)
        asks.append(left[:, :rank] * size[:rank])
        keys.append(right[:rank].T)
    numbers |= {"asks": torch.stack(asks), "keys": torch.stack(keys)}
    # What a source writes: a token's part plus a place's, divided by the length of the two together.
    places = torch.stack([W_pos[:10].mean(0), W_pos[10], W_pos[11:20].mean(0)])
    W_OV_U = model.W_V[0] @ model.W_O[0] @ model.W_U  # (head, d_model, prediction)
    numbers["token_writes"], numbers["place_writes"] = W_E @ W_OV_U, places @ W_OV_U
    numbers["length"] = (W_E + places[:, None]).pow(2).mean(-1).sqrt()  # (place, token)

    def simulate(inputs, numbers):
        """Attend by the sum of a token's and a place's question; copy; add the direct path."""
        tokens, asking = inputs[:, :20], inputs[:, 10:20]
        kind = (torch.arange(20) >= 10).long() + (
            torch.arange(20) > 10
        )  # list, SEP, sorted
        source = tokens + 52 * (kind == 2)  # the row of each key in the tables
        ask = numbers["asks"][:, asking]  # (head, list, answer, rank)
        ask[:, :, 1:] += numbers["asks"][:, None, 52:]  # the places 11 to 19
        scores = ask @ numbers["keys"][:, source].transpose(-1, -2)
        later = torch.arange(20) > torch.arange(10, 20)[:, None]
        attention = scores.masked_fill(later, float("-inf")).softmax(-1)
        writes = numbers["token_writes"][:, tokens] + numbers["place_writes"][:, None, kind]
        writes = writes / numbers["length"][kind, tokens][..., None]
        logits = (attention @ writes).sum(0)
        logits = logits + numbers["direct_of_token"][asking] + numbers["direct_of_place"]
        return logits[..., :51].argmax(-1)

    return simulate, numbers
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_explanation", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.explanation(explanation)

# %%
pool = checks.explanation.pool
simulate, numbers = checks.explanation.working(explanation)(model)
scored = evidence.simulation_score(simulate, numbers, pool)
plotting.heatmap(
    scored.agreement.T,
    title="Where the explanation predicts the model",
    x="kind of list",
    y="the answer is",
    unit="share<br>predicted",
    x_labels=list(scored.kind_names),
    y_labels=["wrong", "right"],
    signed=False,
    text=True,
).show()
print(f"score {scored.score:.2f}   perfect sorting {scored.perfect:.2f}")
print(
    f"numbers used: {scored.n_numbers}; parameters of the model: {sum(p.numel() for p in model.parameters())}"
)

# %% tags=["solution-only"]
simulate, numbers = explanation(model)
owned_only = numbers["token_writes"].clone()
for head in range(model.cfg.n_heads):
    owned_only[head, :51][owner != head] = 0
lesions = {
    "all of it": {},
    "owned numbers only": {"token_writes": owned_only},
    "no direct path": {"direct_of_token": 0 * numbers["direct_of_token"]},
    "no place in queries": {
        "asks": torch.cat([numbers["asks"][:, :52], 0 * numbers["asks"][:, 52:]], 1)
    },
}
scores_without = {
    name: evidence.simulation_score(simulate, numbers | changed, pool)
    for name, changed in lesions.items()
}
plotting.bar(
    list(lesions),
    {
        "where the model is right": [s.where_right for s in scores_without.values()],
        "where it is wrong": [s.where_wrong for s in scores_without.values()],
    },
    title="What each part of the explanation is worth",
    x="what is kept, or left out",
    y="share of the answers predicted",
).show()
for name, s in scores_without.items():
    print(f"{name:20s} score {s.score:.2f}")

# %% [markdown] tags=["solution-only"]
# Two softmaxes over tables, no order in the list, one average place for the list and one for the sorted part in the
# keys, ten dimensions for each head's scores: where the model is right, what is left of it nearly always says the
# same; where it is wrong, mostly (least over a wide gap). The lesions tell what the mistakes are made of. Where the model is right, the cruder versions still
# predict most answers; it is the *wrong* answers that need every part. In "owned numbers only" a head writes nothing
# for a number that it does not own. What it does write there is small in the OV figure; it seems to decide when no
# owned number gets much attention.

# %% [markdown]
# ## 8 · Five models, one recipe (optional)
#
# Everything above is about one set of weights. Four more were trained with the same recipe and other seeds. Which
# findings belong to the task, and which to this model?

# %%
instances = [
    name for name in available_instances("sorted_list_two_heads") if name.startswith("seed")
]
models = {name: load_model("sorted_list_two_heads", name) for name in instances}
all_costs = {name: costs_of(other, data.tokens) for name, other in models.items()}
owners = {name: c.argmax(0) for name, c in all_costs.items()}
plotting.heatmap(
    torch.stack([c[0] - c[1] for c in all_costs.values()]),
    title="Who answers which number, in five models (blue: head 0.0, red: head 0.1)",
    x="right answer",
    y="model",
    unit="cost of 0.0<br>minus 0.1 (nats)",
    x_labels=list(map(str, NUMBERS)),
    y_labels=instances,
).show()


# %%
def typical_scales(other):
    """The mean scales of both LayerNorms, as in section 4."""
    _, seen = other.run_with_cache(data.tokens)
    return (
        seen["scale", 0, "ln1"].mean().item(),
        seen["ln_final.hook_scale"][:, 10:20].mean().item(),
    )


def share(answer_logits, of=data):
    return (answer_logits.argmax(-1) == of.labels).float().mean().item()


table, left_over, wrong_before, ov_of = {}, {}, {}, {}
for name, other in models.items():
    own, mean_scales = owners[name], typical_scales(other)
    ov_of[name] = torch.stack([circuits_of(other, h, *mean_scales)[0] for h in HEADS])
    bands = [r for runs in ranges_of(own).values() for r in runs]
    row = {
        "all heads": share(task.answer_logits(other(data.tokens))),
        "owner only": share(only(other, data.tokens, own)),
        "other head only": share(only(other, data.tokens, 1 - own)),
        "owner copies best": (own == copier_of(ov_of[name])).float().mean().item(),
    }
    left_over[name], wrong_before[name] = [], 0
    for kind in ("all high", "wide gap", "repeats"):
        some = kinds[kind]
        before = task.correct(other(some.tokens), some)
        row[kind] = before.float().mean().item()
        wrong_before[name] += int((~before).sum())
        said = looking_right(other, some.tokens).argmax(-1)
        row[f"{kind}, made to look"] = (said == some.labels).float().mean().item()
        missed = said != some.labels
        left_over[name] += zip(
            some.labels[missed].tolist(),
            said[missed].tolist(),
            before[missed].tolist(),
            strict=True,
        )
    table[name] = row
    owned_by = ", ".join(
        f"0.{h}: " + " ".join(f"{a}–{b}" for a, b in runs)
        for h, runs in sorted(ranges_of(own).items())
    )
    print(f"{name}: {len(bands)} bands; {owned_by}")
columns = list(next(iter(table.values())))
plotting.heatmap(
    torch.tensor([[row[column] for row in table.values()] for column in columns]),
    title="The main findings in five models",
    x="model",
    y="measurement",
    unit="share of answers",
    x_labels=instances,
    y_labels=columns,
    signed=False,
    text=True,
).show()

# %%
for name, missed in left_over.items():
    spoilt = sum(before for _, _, before in missed)
    print(
        f"{name}: made to look, {wrong_before[name] - len(missed) + spoilt} of {wrong_before[name]} wrong answers become right; "
        f"{spoilt} right answers become wrong"
    )
    seen_there = models[name].run_with_cache(data.tokens)[1]["pattern", 0]
    to_answer = (seen_there[:, :, 10:20, :10] * is_answer[:, None]).sum(-1)
    pairs = Counter((answer, said) for answer, said, _ in missed)
    for (answer, said), times in pairs.most_common(3):
        print(
            f"    {said} said for {answer}, {times} times; what the heads do with {answer}:"
        )
        for _, h in HEADS:
            gives = to_answer[:, h][data.labels == answer].mean()
            loudest = int(ov_of[name][h, answer, :51].argmax())
            print(
                f"    0.{h} gives it {gives:.2f} of its attention (as in training), and would write mostly {loudest}"
            )

# %%
print("hard triples in each model: y said when one thing is taken away (z in brackets)")
for name, other in models.items():
    logits_there, seen = other.run_with_cache(near)
    at_x = seen["pattern", 0][rows, :, query]
    looks_yz = eindex(at_x, places, "list head [list source]")
    own = owners[name][d + 1]
    is_hard = looks_yz[rows, own, 1] >= looks_yz[rows, own, 0]
    cells = sum(dla_of(other, near, head, query, places, yz) for head in HEADS)
    without = logits_there[rows, query].clone()
    without[rows, d + 1] -= cells[:, 1, 0]
    without[rows, d + 2] -= cells[:, 0, 1]
    direct_gone = checks.without_direct_path.working(without_direct_path)(other, near)
    runs = {
        "nothing": logits_there[rows, query],
        "other head": only(other, near, owners[name])[rows, query - 10],
        "direct path": direct_gone[rows, query - 10],
        "two cells": without,
    }
    said = {what: run.argmax(-1)[is_hard] - d[is_hard] for what, run in runs.items()}
    print(
        f"{name} ({int(is_hard.sum())}):",
        "   ".join(
            f"{what} {(s == 1).float().mean():.2f} ({(s == 2).float().mean():.2f})"
            for what, s in said.items()
        ),
    )

# %% [markdown]
# Each row of the first figure is a model. Head numbers mean nothing across rows: exchange the two heads of a model,
# and it is the same model.
#
# **What they share.** In each of them the numbers fall into bands of successive numbers. The owner alone gives nearly
# all of the right answers, the other head alone about one in ten (chance is 0.09), and the weights name the same
# owners for nearly all numbers. On hard lists, making the heads look at the right number makes nearly every answer
# right. Near neighbours are kept apart by the two cells: without them about half of the hard triples become $z$,
# without the other head or the direct path few do.
#
# **Where they differ.** How many bands there are, where the borders lie, and how even the split is: in `seed3` one
# head owns a few numbers only, as in the write-up's model. The task does not fix the division. (This lesson's answers pass
# every check on the write-up's own weights, too: `EXERCISES_INSTANCE=published`.)
#
# **The exception.** In `seed2` making both heads look spoils a few hundred answers, most of which were right before,
# and all of them are the same one: 8 is read as 7. In that model 8 is the first number of a band, and the other head,
# which owns 7, writes 7 when it attends to 8 (printed above). Left alone, that head gives 8 little attention, and the
# harm is not done. So the sharing can be broken by force: at a border, a head that looks at a number just outside its
# band may miscopy it. It works because each head mostly keeps its eyes off such numbers.

# %% [markdown]
# ## 9 · What we know, and how well
#
# How do two heads share the work? **By number.** Each number has an owner, which copies it when it attends to it; the
# numbers of an owner form bands. (At the borders both are needed.) Both heads look for "the next number", roughly, and a head looks better where it
# owns the answer. When does the sharing break? **Hardly ever**: on every kind of list tried here it is the *looking*
# that breaks. Where the next number is far away, or no small number is there for `SEP` to find, or the next number is
# the same again, the owner looks elsewhere. Had it looked there, it would have copied the answer. The one exception
# found, a border number of one model, had to be forced.
#
# | claim | evidence | strength | what would refute it |
# |---|---|---|---|
# | Nearly each number is answered by one head, in bands | cost of each head by number; the owner alone gives nearly all right answers, the other head about one in ten; five models | strong (intervention) | a number in the middle of a band that survives without its owner, and not without the other |
# | The bands are in the OV circuits | copying margins name the same owners | weights, in agreement with the intervention | an owner that does not copy its numbers |
# | Each head also looks better where it owns | one pattern for both heads costs the giver's own numbers little and the others much | strong (intervention), for this model | answers that do not mind whose pattern is used |
# | Wrong answers are wrong looks | with attention on the right answer nearly all answers are right, on three kinds of hard lists, in five models; in this model half of the attention is enough | strong (intervention); for one border number of `seed2` both heads' full attention does harm | wrong answers that stay, in the middle of a band |
# | Near neighbours are kept apart by what an owner writes beside the diagonal | attributions that add up; taking away two of their cells makes the answer $z$ in about half of the hard triples, taking away the other head or the direct path in few | strong; but logits were subtracted, the model was not run again without them | few answers $z$ without the two cells |
# | The direct path speaks against the number itself | without it, more of the wrong answers over a wide gap are the number itself | intervention, for this model | as many without it as with it |
# | Their position keeps high numbers from attending to the smallest | the term has that sign; exchanging it changes the owner's attention to small numbers little | not supported as the main reason, in this model | an owner's attention to small numbers that rises far when the position is exchanged |
# | The account is complete enough to predict mistakes | tables from the weights foretell right and wrong answers on lists chosen without them | strong (prediction) | a score near one half |
#
# **Not understood.** Why bands, and not, say, odd and even numbers; why the borders are where they are. A head's OV
# circuit has rank 48 at most and there are 51 numbers, so neither head could copy all of them independently: whether
# that is what makes them divide the numbers is not tested. What makes one head miss the next number mostly where
# the other one owns it. Why, in this model, 0 needs neither head much.
#
# **Corrections to the write-up.** The sentence under its OV figure gives both bands to head 0.1. The axes of its QK
# figure have names that would suit an OV circuit. Its text puts the positions of the position figure on the key side;
# its code has them, rightly, on the query side. A comment at its last figure swaps two axes, and the code of that
# figure uses names that are not defined. Its four near-neighbour examples become a statistic here, and its accepted
# explanation stands. That positions keep high numbers from attending to zero is more than our measurement says of our
# model.

# %%
checks.progress()
