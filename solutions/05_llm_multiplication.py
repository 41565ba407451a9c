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
# # 05 · A language model multiplies
#
# **When a language model multiplies, does it compute, remember or guess, and where in the model does each operand digit reach
# each digit of the answer?**
#
# `123 x 45 = 5535`. A language model writes such an answer from left to right, so the digit that depends on everything comes
# first and the easy one last. You will measure each digit of the answer where it is predicted, find out which parts of the
# model write it, and then follow single digits of the two numbers through layers and positions by activation patching. At the
# end you will know by which layer each operand digit has reached each digit of this model's answer, which digits it gets right
# for numbers that it has never seen, and where it fails.
#
# | | |
# |---|---|
# | **You will be able to** | measure a language model digit by digit; build pairs of prompts for activation patching, with controls; patch positions, heads, values and patterns, in a model with grouped-query attention; tell a direct effect from a total one; see through a published analysis that does not add up |
# | **Time** | core path: 8 exercises, 2 to 2½ hours with reading. Optional exercises are marked; the core does not need them |
# | **Model** | a small Qwen2 that comes with the course (4 layers, `d_model` 128, 4 query heads that share 2 key/value heads, MLPs of 512, RMSNorm, rotary positions), trained on products. With one name changed, the same cells are for Qwen2.5-0.5B |
# | **Data** | `123 x 45 = 5535`: a token for each digit, and ` x`, ` `, ` =`, ` ` between them, as Qwen's tokenizer writes it |
# | **You need** | the residual stream, direct logit attribution, hooks (lessons 02 to 04; the tools of those lessons are imported) |
#
# The lesson starts from the write-up *LLM multiplication* (2025), which looks at Qwen2.5-0.5B with the tools of Neel Nanda's
# *Exploratory Analysis Demo*. Several of its measurements do not measure what they seem to; you will find out which, and why.
# What it reports of the large model is marked here as **reported**. Nothing that we see in the small model is a claim about the
# large one.

# %% [markdown]
# ## Setup

# %%
from contextlib import ExitStack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from exercises_utils import DEFAULT_INSTANCE, evidence, load_model, patching, plotting
from exercises_utils.challenges.llm_multiplication import checks, task
from exercises_utils.challenges.llm_multiplication import evidence as evidence_task
from exercises_utils.evidence import accuracy
from exercises_utils.tools import ablate, get_act_name, patch, record

torch.set_grad_enabled(False)

MODEL = DEFAULT_INSTANCE  # "seed0" comes with the course; "qwen2.5-0.5b" is fetched from the hub
model = load_model("llm_multiplication", MODEL)
VOCABULARY = task.Vocabulary.of(model.tokenizer)
DIGIT_IDS = list(VOCABULARY.digits)  # the token ids of "0" to "9"
N_LAYERS, N_HEADS = model.cfg.n_layers, model.cfg.n_heads
N_KV = model.cfg.n_key_value_heads
SLOW = N_LAYERS > 8  # then sweeps show a progress bar
PLACES = list(task.PLACES)  # units, tens, hundreds, thousands, ten-thousands
DIGITS = [str(digit) for digit in range(10)]

# %% [markdown]
# Two models stand behind this loader. The **bundled** one is small, was trained by the course on three-digit by two-digit
# products in both orders, and needs no network. A tenth of the pairs of numbers was **held out** of its training, in both
# orders. The **real** one, `load_model("llm_multiplication", "qwen2.5-0.5b")`, has 494 million parameters. It is fetched from
# the hub (1 GB), needs about 5 GB of memory in float32 and 4 in bfloat16 (the loader says so first, and takes bfloat16
# where there is less room), and a GPU if you do not want to wait for the sweeps of sections 4 and 5. Whatever the model, the
# cells below take token ids from its tokenizer and sizes from its config. (The write-up quotes the sizes of another model: 12
# layers and a width of 768. Print them; do not copy them.)

# %%
cfg = model.cfg
print(
    f"layers {cfg.n_layers}, d_model {cfg.d_model}, d_mlp {cfg.d_mlp}, vocabulary {cfg.d_vocab}"
)
print(
    f"query heads {cfg.n_heads}, key/value heads {cfg.n_key_value_heads}, d_head {cfg.d_head}"
)

# %% [markdown]
# **Is it still the model that was published?** A bridge between two libraries can go wrong silently, so compare: the logits of
# Hugging Face's own implementation, of the bridge as it was loaded, and of the bridge with processed weights. Processing (the
# RMSNorm weights folded into the next matrix, the unembedding centred) may move all logits of a position by one constant, so
# the last comparison is between log-probabilities.

# %%
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

disable_progress_bar()
sample = task.make_data(8, seed=0, answer_digits=5, order="long first")
tokens = task.sequences(sample, VOCABULARY)
folder = model.tokenizer.name_or_path  # where the weights lie
plain = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
plain = plain.to(model.cfg.device)
raw = load_model("llm_multiplication", MODEL, processed=False)
reference = plain(tokens.to(model.cfg.device)).logits
gaps = {
    "bridge, logits": (raw(tokens) - reference).abs().max(),
    "processed bridge, log-probabilities": (
        model(tokens).log_softmax(-1) - reference.log_softmax(-1)
    )
    .abs()
    .max(),
}
for name, gap in gaps.items():
    print(f"{name}: largest difference from Hugging Face {gap:.4f}")
    assert gap < 1e-4 or model.cfg.dtype != torch.float32
n_parameters = sum(p.numel() for p in plain.parameters())
print(f"parameters, the tied embedding counted once: {n_parameters:,}")
del plain, raw

# %% [markdown]
# ### What things are called
#
# Shapes say what can be patched. Look for the **key/value heads**: in grouped-query attention several query heads share one key
# and one value.

# %%
_, cache = model.run_with_cache(tokens[:1])
weights = ["W_E", "W_Q", "W_K", "W_V", "W_O", "W_in", "W_gate", "W_out", "W_U"]
print("weights")
for name in weights:
    print(f"  {name:8s}{tuple(getattr(model, name).shape)}")
activations = {
    "resid_pre": "(batch, position, d_model)",
    "q": "(batch, position, query head, d_head)",
    "k": "(batch, position, key/value head, d_head)",
    "v": "(batch, position, key/value head, d_head)",
    "rot_q": "q after the rotary embedding",
    "rot_k": "k after the rotary embedding",
    "attn_scores": "(batch, query head, query, key)",
    "pattern": "(batch, query head, query, key)",
    "z": "(batch, position, query head, d_head)",
    "attn_out": "(batch, position, d_model)",
    "resid_mid": "(batch, position, d_model)",
    "mlp_out": "(batch, position, d_model)",
}
print("activations of layer 0")
for name, axes in activations.items():
    full = get_act_name(name, 0)
    print(f"  {full:32s}{str(tuple(cache[full].shape)):18s}{axes}")

# %% [markdown]
# `W_Q` and `W_O` have one matrix for each query head, `W_K` and `W_V` one for each key/value head; the pattern and `z` belong to
# query heads. Keep this in mind for section 5.
#
# ## 1 · What it reads, and what it answers

# %%
for row, product in zip(tokens[:3], sample.product[:3].tolist(), strict=True):
    plotting.display_sequence(
        task.str_tokens(row, VOCABULARY), note=f"the product is {product}"
    )
PROMPT = task.prompt_length(sample)  # tokens before the product's first digit
print(
    f"tokens before the answer: {PROMPT}; the first digit of the answer is predicted at position {PROMPT - 1}"
)

# %% [markdown]
# Qwen has no token for the beginning of a text. We put `<|endoftext|>` (**END** from here on) first on purpose: it is what stood
# before a text in training, and first positions are often used as a resting place of attention. (The library does *not* add it by itself.)
#
# The right digits are fed (**teacher forcing**): at each position the model sees the prompt and the right digits so far, and
# predicts the next one. So each digit of the answer has its own position, one before the digit itself.
#
# **Places** are counted from the right: place 0 is the units, place 4 the ten-thousands. That is the same digit of a product
# whatever its length.

# %%
logits = model(tokens)
first = 0
n_answer = int(sample.n_answer_digits[first])
chances = logits[first, PROMPT - 1 : PROMPT - 1 + n_answer].softmax(-1)
of_digits = chances[:, DIGIT_IDS]
written = str(int(sample.product[first]))
plotting.heatmap(
    torch.cat([of_digits, 1 - of_digits.sum(-1, keepdim=True)], dim=-1).T,
    title=f"What the model would write next: {sample.prompts[first]} …",
    x="next digit (the right one)",
    y="prediction",
    unit="probability",
    x_labels=[
        f"{task.PLACES[n_answer - 1 - i]} ({digit})" for i, digit in enumerate(written)
    ],
    y_labels=[*DIGITS, "other"],
    signed=False,
).show()

# %% [markdown]
# ### Exercise 1 · `answer_logits` (core)
# *Difficulty ●●○○○ · 8 minutes*
#
# **Why:** everything in this lesson is read at the answer. The write-up reads *all* digits of the answer at the last position of
# the prompt. There at most the first one is predicted.
#
# Return, for each row, the logits of the ten digits where each digit of the product is predicted: shape (batch, place, digit),
# **units first**: place 0 is the digit that is written last. `logits` has shape (batch, position, vocabulary) and comes from
# sequences with the right digits fed. `ids` are the token ids of "0" to "9". `prompt_length` counts all tokens before the
# product's first digit; that digit stands at position `prompt_length` and is predicted one position before. `n_answer` is the
# number of digits of each product. The sequences may go on after the product. Logits, not probabilities.
#
# <details><summary>Hint 1</summary>
#
# In the order in which they are written, the digits are predicted at positions `prompt_length - 1`, `prompt_length`, …,
# `prompt_length + n_answer - 2`.
# </details>
# <details><summary>Hint 2</summary>
#
# `logits[:, start:stop][..., ids]`, and then the middle axis the other way round: `.flip(1)`.
# </details>


# %% nbgrader={"grade": false, "grade_id": "answer_logits", "locked": false, "schema_version": 3, "solution": true, "task": false}
def answer_logits(
    logits: Float[Tensor, "batch position vocabulary"],
    ids: list[int],
    prompt_length: int,
    n_answer: int,
) -> Float[Tensor, "batch place digit"]:
    """Logits of the ten digits where each digit of the product is predicted, units first."""
    ### BEGIN SOLUTION
    at = slice(prompt_length - 1, prompt_length - 1 + n_answer)
    return logits[:, at][..., ids].flip(1)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_answer_logits", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.answer_logits(answer_logits)

# %%
answers_of = checks.answer_logits.working(answer_logits)
by_place = answers_of(logits, DIGIT_IDS, PROMPT, n_answer)
guesses = by_place.argmax(-1).flip(1)
for prompt, right, guess in zip(
    sample.prompts, sample.product.tolist(), guesses.tolist(), strict=True
):
    said = "".join(map(str, guess))
    marks = "".join(" " if a == b else "^" for a, b in zip(str(right), said, strict=True))
    print(f"{prompt} {right}   digit by digit: {said} {marks}")

# %% [markdown]
# ### Exercise 2 · `place_accuracy` (core)
# *Difficulty ●○○○○ · 5 minutes*
#
# **Why:** "the model can multiply" is not one number. Some digits of a product are easy.
#
# Return the share of rows in which the top digit is the right digit, for each place, units first. `logits` is what exercise 1
# returns; `products` are the right products, all with as many digits as there are places.
#
# <details><summary>Hint</summary>
#
# `products // 10**place % 10` is the digit at a place. `task.digit_at(products, place)` does the same.
# </details>


# %% nbgrader={"grade": false, "grade_id": "place_accuracy", "locked": false, "schema_version": 3, "solution": true, "task": false}
def place_accuracy(
    logits: Float[Tensor, "batch place digit"], products: Int[Tensor, " batch"]
) -> Float[Tensor, " place"]:
    """The share of right digits at each place, units first."""
    ### BEGIN SOLUTION
    places = torch.arange(logits.shape[1])
    right = task.digit_at(products[:, None], places)  # (batch, place)
    return (logits.argmax(-1).cpu() == right).float().mean(0)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_place_accuracy", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.place_accuracy(place_accuracy)

# %%
accuracy_of = checks.place_accuracy.working(place_accuracy)


def answers(of_model, products):
    """The ten digits' logits at each place of these products, units first."""
    vocabulary = task.Vocabulary.of(of_model.tokenizer)
    return answers_of(
        of_model(task.sequences(products, vocabulary)),
        list(vocabulary.digits),
        task.prompt_length(products),
        int(products.n_answer_digits[0]),
    )


def accuracy_row(of_model, products):
    """Accuracy at five places; blank where the products have no such place."""
    found = accuracy_of(answers(of_model, products), products.product)
    return torch.cat([found, torch.full((5 - len(found),), float("nan"))])


held_out = task.make_data(2000, seed=1, answer_digits=5)
sets = {
    "five digits, trained": task.make_data(1000, seed=1, answer_digits=5, held_out=False),
    "five digits, held out": held_out[:1000],
    "… 3 × 2": held_out[held_out.a > held_out.b][:500],
    "… 2 × 3": held_out[held_out.a < held_out.b][:500],
    "four digits, trained": task.make_data(1000, seed=1, answer_digits=4, held_out=False),
    "four digits, held out": task.make_data(1000, seed=1, answer_digits=4),
}
rows = {name: accuracy_row(model, products) for name, products in sets.items()}
plotting.heatmap(
    torch.stack(list(rows.values())).flip(1),
    title="Right digits, by place (in the order in which they are written)",
    x="place",
    y="products",
    unit="share right",
    x_labels=PLACES[::-1],
    y_labels=list(rows),
    signed=False,
    text=True,
).show()

# %% [markdown]
# **What you should see:** products that the model has never seen are answered nearly as well as those that it was trained on, in
# both orders, short ones and long ones. A table of remembered products could not do that: in this sense it **computes** (by whatever
# method; accuracy does not tell). But compare the rows "trained" and "held out" once more, at the hundreds and thousands: there
# the model is right a few percent more often where it was trained. That part of its accuracy is **remembered**: it belongs to the
# pairs that it saw. Units and tens are right in every row. (Section 6 asks what
# kind of mistakes are left, and section 8 shows a model of the same architecture that remembers much more.)
#
# Reported of the real model, for one prompt of five by five digits, right digits fed: 4 of the 10 digits are right. "The model is
# able to do the task", as the write-up has it, is not what these figures say.
#
# How much does it matter *where* one reads?

# %%
fives = task.make_data(1000, seed=2, answer_digits=5, order="long first")
their_logits = model(task.sequences(fives, VOCABULARY))
at_prompt_end = their_logits[:, PROMPT - 1][:, DIGIT_IDS][:, None].expand(-1, 5, -1)
where = {
    "where each digit is predicted": answers_of(their_logits, DIGIT_IDS, PROMPT, 5),
    "all at the last prompt position": at_prompt_end,
}
plotting.bar(
    PLACES[::-1],
    {name: accuracy_of(read, fives.product).flip(0) for name, read in where.items()},
    title="The same run, read in two ways",
    x="place",
    y="share right",
    reference_lines={"one guess in ten": 0.1},
).show()

# %% [markdown]
# At the last prompt position the model says the *first* digit. Read as an answer at the other places, what it says there is no
# better than one guess in ten. The write-up's logit differences, attributions and patching scores are made of twelve "answer tokens"
# that are all read at one position: the beginning-of-text token, the space, the digits, and zeros from padding. And its prompts end with
# ` =`, without the space: what the model predicts there is the space, which is the same in the right and in the wrong answer. So
# **none** of the twelve is a prediction of a digit where it is predicted.
#
# ## 2 · One number for "how right"
#
# Accuracy jumps. For attribution and patching we want a number that moves smoothly, and that is linear in the logits: the
# logit of the right digit minus the logit of a **wrong** one. Which wrong one? The write-up perturbs the product. So do we,
# with the products that keep their number of digits:


# %%
def perturbations(product: int) -> dict[str, int]:
    """Wrong answers that look like the right one."""
    digits = str(product)
    return {
        "+ 1": product + 1,
        "− 1": product - 1,
        "+ 10": product + 10,
        "− 10": product - 10,
        "doubled": product * 2,
        "halved": product // 2,
        "reversed": int(digits[::-1]),
        "sorted": int("".join(sorted(digits))),
        "rotated left": int(digits[1:] + digits[0]),
        "rotated right": int(digits[-1] + digits[:-1]),
        "each digit + 1": int("".join(str((int(d) + 1) % 10) for d in digits)),
        "each digit − 1": int("".join(str((int(d) - 1) % 10) for d in digits)),
    }


for prompt, product in zip(sample.prompts[:2], sample.product[:2].tolist(), strict=True):
    listed = ", ".join(f"{name} {wrong}" for name, wrong in perturbations(product).items())
    print(f"{prompt} {product}; wrong: {listed}")
print(
    f"the other order: {task.Products(sample.b, sample.a).prompts[0]} {int(sample.product[0])}"
)

# %% [markdown]
# ### Exercise 3 · `logit_difference` (core)
# *Difficulty ●●○○○ · 8 minutes*
#
# **Why:** it is the number that attribution takes apart and that patching moves.
#
# Return, for each row and place, the logit of the right product's digit minus the logit of the wrong product's digit: shape
# (batch, place), units first. `logits` is what exercise 1 returns. `right` and `wrong` hold whole products, all with as many
# digits as there are places. Where the two digits agree the difference is 0. Nothing is averaged.
#
# <details><summary>Hint</summary>
#
# `task.digit_at(right[:, None], torch.arange(n_places))` has shape (batch, place). `logits.gather(-1, index[..., None])` takes
# one entry of the last axis.
# </details>


# %% nbgrader={"grade": false, "grade_id": "logit_difference", "locked": false, "schema_version": 3, "solution": true, "task": false}
def logit_difference(
    logits: Float[Tensor, "batch place digit"],
    right: Int[Tensor, " batch"],
    wrong: Int[Tensor, " batch"],
) -> Float[Tensor, "batch place"]:
    """Logit of the right product's digit minus logit of the wrong product's, by place."""

    ### BEGIN SOLUTION
    def of(products):
        digits = task.digit_at(products[:, None], torch.arange(logits.shape[1]))
        return logits.gather(-1, digits[..., None].to(logits.device))[..., 0]

    return of(right) - of(wrong)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_logit_difference", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.logit_difference(logit_difference)

# %%
difference_of = checks.logit_difference.working(logit_difference)
read = where["where each digit is predicted"]
table = {}
for name in perturbations(10_000):
    wrong = torch.tensor(
        [perturbations(product)[name] for product in fives.product.tolist()]
    )
    keep = task.n_digits(wrong) == 5
    difference = difference_of(read[keep], fives.product[keep], wrong[keep])
    differs = torch.stack(
        [
            task.digit_at(wrong[keep], p) != task.digit_at(fives.product[keep], p)
            for p in range(5)
        ],
        1,
    ).to(difference.device)
    total = (difference * differs).sum(0) / differs.sum(0)
    table[name] = torch.where(differs.sum(0) >= 20, total, float("nan"))
plotting.heatmap(
    torch.stack(list(table.values())).flip(1),
    title="Logit difference between the right product and a perturbed one (where their digits differ)",
    x="place",
    y="wrong answer",
    unit="logits",
    x_labels=PLACES[::-1],
    y_labels=list(table),
    text=True,
).show()

# %% [markdown]
# **What you should see:** all numbers are positive: on average the right digit leads. By how much depends on the wrong answer
# as well as on the place: look at `+ 10` and `− 10` in the column of the hundreds. A mean over places and perturbations would be a
# number about the mixture, not about the model. (Blank: fewer than 20 products differ there.)
#
# A logit is the residual stream at the end, divided by its RMSNorm scale, times a column of `W_U`. So a logit *difference* is
# the projection of that stream on **one direction**, `W_U[:, right] − W_U[:, wrong]`: the constant that all logits may share
# drops out.

# %%
directions = model.W_U[:, DIGIT_IDS].T  # (digit, d_model)
directions = directions - directions.mean(0)
cosines = torch.nn.functional.cosine_similarity(
    directions[:, None], directions[None], dim=-1
)
plotting.heatmap(
    cosines,
    title="Directions of the ten digits in W_U (mean taken off)",
    x="digit",
    y="digit",
    unit="cosine",
).show()

# %% [markdown]
# Neighbours point a little the same way (along the diagonal), and some pairs that are far apart oppose each other. It is not the
# circle of lesson 04: there 9 would be next to 0, and here these two oppose each other a little.
#
# ## 3 · Looking: who writes the answer?
#
# Before touching anything, look at what is written where. Two ways: stop early (the **logit lens**), or take the sum apart
# (**direct logit attribution**).

# %% [markdown]
# ### Exercise 4 · `lens` (optional)
# *Difficulty ●●○○○ · 8 minutes*
#
# **Why:** the residual stream is a sum that grows. Reading it early says when the answer has become readable.
#
# Return the logits of the ten digits at `position` if everything after a depth were left out: shape (depth, batch, digit). The
# depths are: before layer 0, after its attention, after its MLP (that is before layer 1), and so on to after the last MLP:
# `2 * n_layers + 1` of them. At each depth divide the residual stream by **its own** RMSNorm scale, the square root of (the mean
# of its squares over `d_model`, plus `model.cfg.eps`), then apply `model.W_U` and `model.b_U`. The weights of the final RMSNorm
# are folded into `W_U` already. The last depth is the model's own logits.
#
# <details><summary>Hint 1</summary>
#
# `hook_resid_pre` and `hook_resid_mid` of each layer, and `hook_resid_post` of the last one.
# </details>
# <details><summary>Hint 2</summary>
#
# `with record(model, *names) as seen: model(tokens)`, with names such as `get_act_name("resid_mid", layer)`.
# </details>


# %% nbgrader={"grade": false, "grade_id": "lens", "locked": false, "schema_version": 3, "solution": true, "task": false}
def lens(
    model, tokens: Int[Tensor, "batch position"], position: int, ids: list[int]
) -> Float[Tensor, "depth batch digit"]:
    """Digit logits read from the residual stream at each depth, with its own scale."""
    ### BEGIN SOLUTION
    names = [
        get_act_name(part, layer)
        for layer in range(model.cfg.n_layers)
        for part in ("resid_pre", "resid_mid")
    ]
    names.append(get_act_name("resid_post", model.cfg.n_layers - 1))
    with record(model, *names) as seen:
        model(tokens)
    stream = torch.stack([seen[name][:, position] for name in names])
    scale = (stream.pow(2).mean(-1, keepdim=True) + model.cfg.eps).sqrt()
    return (stream / scale @ model.W_U + model.b_U)[..., ids]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_lens", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.lens(lens)

# %%
lens_of = checks.lens.working(lens)
some = fives[:300]
some_tokens = task.sequences(some, VOCABULARY)
DEPTHS = ["embed"] + [
    f"{part} {layer}" for layer in range(N_LAYERS) for part in ("attn", "mlp")
]


def reads_at(place):
    """The position at which the digit at this place of a five-digit product is predicted."""
    return PROMPT - 1 + 4 - place


seen_at = {}
for place in reversed(range(5)):
    at_depth = lens_of(model, some_tokens, reads_at(place), DIGIT_IDS)
    right = task.digit_at(some.product, place).to(at_depth.device)
    seen_at[PLACES[place]] = (at_depth.argmax(-1) == right).float().mean(-1)
plotting.line(
    seen_at,
    title="Logit lens: is the right digit on top already?",
    x="after",
    y="share right",
    x_values=DEPTHS,
).show()

# %% [markdown]
# **What you should see:** for most of the way hardly more than a constant guess (three in ten products begin with the same digit),
# then, before the last layer, about half of the thousands, the first digits and the units, and hardly any tens and hundreds; at every place
# the largest step is the last one. So the lens does not say when an answer is *known*, only when it is written in the
# language of `W_U`. Hold this against section 4.

# %% [markdown]
# ### Exercise 5 · `component_attribution` (core)
# *Difficulty ●●●○○ · 15 minutes*
#
# **Why:** the logit difference is a sum over everything that wrote to the stream. A sum that does not add up is not an
# attribution.
#
# Return what each component adds to `logit(right) − logit(wrong)` at `position`, for each row, in logits: shape (component,
# batch). The components are, in this order: the embedding; for each layer the attention's output and the MLP's output; and last
# the unembedding's bias `b_U`. That makes `2 + 2 * n_layers`. `right` and `wrong` are **token ids**, one a row. Divide every
# component by **the model's own** final RMSNorm scale at that position of that row (`ln_final.hook_scale`), not by its own. Do
# not average. The sum over components must be the model's logit difference.
#
# <details><summary>Hint 1</summary>
#
# The names are `"hook_embed"`, `get_act_name("attn_out", layer)`, `get_act_name("mlp_out", layer)` and
# `"ln_final.hook_scale"`.
# </details>
# <details><summary>Hint 2</summary>
#
# The direction of a row is `model.W_U[:, right] - model.W_U[:, wrong]`, of shape (d_model, batch). The bias adds
# `model.b_U[right] - model.b_U[wrong]`, and it is not divided by anything.
# </details>


# %% nbgrader={"grade": false, "grade_id": "component_attribution", "locked": false, "schema_version": 3, "solution": true, "task": false}
def component_attribution(
    model,
    tokens: Int[Tensor, "batch position"],
    position: int,
    right: Int[Tensor, " batch"],
    wrong: Int[Tensor, " batch"],
) -> Float[Tensor, "component batch"]:
    """What each component adds to logit(right) - logit(wrong) at a position, in logits."""
    ### BEGIN SOLUTION
    names = ["hook_embed"]
    for layer in range(model.cfg.n_layers):
        names += [get_act_name("attn_out", layer), get_act_name("mlp_out", layer)]
    scale_name = "ln_final.hook_scale"
    with record(model, *names, scale_name) as seen:
        model(tokens)
    parts = torch.stack([seen[name][:, position] for name in names])
    parts = parts / seen[scale_name][:, position]  # the same for every component
    direction = (model.W_U[:, right] - model.W_U[:, wrong]).T  # (batch, d_model)
    bias = model.b_U[right] - model.b_U[wrong]
    return torch.cat([(parts * direction).sum(-1), bias[None]])
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_component_attribution", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.component_attribution(component_attribution)

# %%
attribution_of = checks.component_attribution.working(component_attribution)


def other_digits(digits, seed):
    """For each digit another one, at random."""
    step = torch.randint(1, 10, digits.shape, generator=torch.Generator().manual_seed(seed))
    return (digits + step) % 10


IDS = torch.tensor(DIGIT_IDS)
attributed, largest_gap = {}, 0.0
for place in reversed(range(5)):
    right = task.digit_at(some.product, place)
    wrong = other_digits(right, seed=place)
    parts = attribution_of(model, some_tokens, reads_at(place), IDS[right], IDS[wrong])
    at = model(some_tokens)[:, reads_at(place)]
    rows = torch.arange(len(some))
    whole = at[rows, IDS[right]] - at[rows, IDS[wrong]]
    largest_gap = max(largest_gap, (parts.sum(0) - whole).abs().max().item())
    attributed[PLACES[place]] = parts.mean(1)
COMPONENTS = [*DEPTHS, "b_U"]
plotting.heatmap(
    torch.stack(list(attributed.values())),
    title="What each component adds to the logit difference (mean over 300 products)",
    x="component",
    y="place",
    unit="logits",
    x_labels=COMPONENTS,
    y_labels=list(attributed),
    text=True,
).show()
print(
    f"largest gap between the sum of the components and the logit difference: {largest_gap:.4f}"
)
last = COMPONENTS.index(f"mlp {N_LAYERS - 1}")
for name, parts in attributed.items():
    print(
        f"{name}: {parts.sum():.1f} logits, of which the last MLP writes {parts[last] / parts.sum():.2f}"
    )

# %% [markdown]
# **What you should see:** at every place the **last MLP** writes most of the difference, directly (the shares are printed). That is
# true, it adds up, and it says very little: the last MLP has to get the answer, or what it makes it from, from somewhere.
# Attribution finds who *writes* the answer. Who *works it out* is a question about indirect effects, and needs interventions.

# %% [markdown]
# ### Exercise 6 · `sum_or_mean` (optional: find the bug)
# *Difficulty ●○○○○ · 3 minutes*
#
# The write-up prints an average logit difference of **0.229** for its eight prompts, with twelve answer tokens each. Then it
# computes the same number from the final residual stream:
#
# ```python
# average_logit_diff = einsum("batch d_model, batch head d_model -> ", stream, logit_diff_directions) / len(prompts)
# ```
#
# (`logit_diff_directions` has shape (8, 12, 896)) and prints **2.746**. What happened?
#
# - **a** the normalisation is missing in the second figure
# - **b** the one is a mean over twelve answer tokens, the other their sum
# - **c** rounding: the second way sums many small terms
# - **d** the BOS token is missing in one of the two runs
#
# <details><summary>Hint</summary>
#
# Divide the one by the other.
# </details>

# %% nbgrader={"grade": false, "grade_id": "sum_or_mean", "locked": false, "schema_version": 3, "solution": true, "task": false}
### BEGIN SOLUTION
sum_or_mean = "b"
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check_sum_or_mean", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.sum_or_mean(sum_or_mean)

# %% [markdown]
# A number that should be equal and is not is the cheapest alarm there is. The write-up prints both and goes on; every
# attribution after it is on a scale that is twelve times that of the logit difference it is about.

# %% [markdown]
# ### Exercise 7 · `head_attribution` (optional)
# *Difficulty ●●●○○ · 10 minutes*
#
# **Why:** an attention output is a sum over heads, so the same attribution works head by head.
#
# As exercise 5, but for each **query head**: shape (layer, head, batch), in logits. What a head writes is its `z` at `position`
# times its own `W_O`; the attention's output bias `b_O` belongs to no head and is left out. Same scale: the model's own final
# one.
#
# <details><summary>Hint</summary>
#
# `model.W_O[layer]` has shape (head, d_head, d_model); `get_act_name("z", layer)` is (batch, position, head, d_head).
# </details>


# %% nbgrader={"grade": false, "grade_id": "head_attribution", "locked": false, "schema_version": 3, "solution": true, "task": false}
def head_attribution(
    model,
    tokens: Int[Tensor, "batch position"],
    position: int,
    right: Int[Tensor, " batch"],
    wrong: Int[Tensor, " batch"],
) -> Float[Tensor, "layer head batch"]:
    """What each query head adds to logit(right) - logit(wrong) at a position, in logits."""
    ### BEGIN SOLUTION
    names = [get_act_name("z", layer) for layer in range(model.cfg.n_layers)]
    scale_name = "ln_final.hook_scale"
    with record(model, *names, scale_name) as seen:
        model(tokens)
    z = torch.stack([seen[name][:, position] for name in names])
    result = torch.einsum("lbhd,lhdm->lhbm", z, model.W_O)
    direction = (model.W_U[:, right] - model.W_U[:, wrong]).T  # (batch, d_model)
    return (result / seen[scale_name][:, position] * direction).sum(-1)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_head_attribution", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.head_attribution(head_attribution)

# %%
heads_of = checks.head_attribution.working(head_attribution)
directly = {}
for place in reversed(range(5)):
    right = task.digit_at(some.product, place)
    wrong = other_digits(right, seed=place)
    directly[PLACES[place]] = heads_of(
        model, some_tokens, reads_at(place), IDS[right], IDS[wrong]
    ).mean(-1)
plotting.heatmap_facets(
    directly,
    title="What each head adds to the logit difference directly",
    x="head",
    y="layer",
    unit="logits",
).show()
table = torch.stack(list(directly.values()))  # (place, layer, head)
HEADS = [(layer, head) for layer in range(N_LAYERS) for head in range(N_HEADS)]
most, least = table.amax(0), table.amin(0)  # over places
positive = [HEADS[i] for i in most.flatten().argsort(descending=True)[:3].tolist()]
negative = [HEADS[i] for i in least.flatten().argsort()[:3].tolist()]
for name, of_heads, values in (
    ("most positive", positive, most),
    ("most negative", negative, least),
):
    listed = (f"{layer}.{head} ({values[layer, head]:+.2f})" for layer, head in of_heads)
    print(f"{name}, each at its best place:", ", ".join(listed))
for place, name in enumerate(directly):
    total = attributed[name].sum()
    print(f"{name}: all heads together {table[place].sum():.2f} of {total:.1f} logits")

# %% [markdown]
# The write-up finds positive and **negative heads** (heads that lower the right answer's lead) in this way, and shows their patterns
# for one prompt. So do we (hover over a token to see where it attends). A head can be in both lists: it may raise the lead at one
# place and lower it at another.

# %% tags=["drop-output"]
_, one = model.run_with_cache(tokens[:1])
shown = [*positive, *negative]
plotting.attention_heads(
    torch.stack([one["pattern", layer][0, head] for layer, head in shown]),
    task.str_tokens(tokens[0], VOCABULARY),
    names=[f"{layer}.{head}" for layer, head in shown],
)

# %%
plotting.heatmap_facets(
    {
        f"{layer}.{head} ({value:+.2f})": one["pattern", layer][0, head]
        for (layer, head), value in zip(
            shown,
            [*(most[head] for head in positive), *(least[head] for head in negative)],
            strict=True,
        )
    },
    title=f"The three most positive and most negative heads, {sample.prompts[0]} {written}",
    x="key position",
    y="query position",
    unit="attention",
    signed=False,
).show()

# %% [markdown]
# Look at the size of the numbers before you make a story of them: the printed sums of all heads are a small part of each logit
# difference, and what single heads take off is smaller still. **A hypothesis that failed:** that the heads which matter are the ones with
# a large direct effect. Section 5 finds those that matter, and they are others. A pattern is no evidence either: the write-up
# reads "self-attention" and "the first token" off such pictures, for one prompt; what a head moves from there, and whether anybody
# uses it, a picture cannot say.
#
# ## 4 · Testing: pairs that differ in one digit
#
# Activation patching needs two prompts that differ in **exactly one thing**. Ours differ in one digit of one number: `345 x 67`
# and `385 x 67`. The first is the **clean** one, the second the **corrupted** one. Run the model on the corrupted prompt, but
# take one activation from the clean run. If the answer moves back to the clean one, the digit's influence passes through that
# activation. (Whether as the digit itself or as something worked out from it, patching does not say.)
#
# Two details decide whether this measures anything. **Teacher forcing:** for the digits after the first, the digits before must
# be fed, and they are fed from the *clean* product to both. Otherwise the two sequences would differ in the answer as well, and
# the clean digits would arrive by the answer's own tokens. **The metric:** the logit of the clean product's digit minus the
# logit of the corrupted product's digit, at one place, for pairs whose products differ there.

# %% [markdown]
# ### Exercise 8 · `pair_tokens` (core)
# *Difficulty ●●○○○ · 8 minutes*
#
# **Why:** most patching experiments that go wrong went wrong here.
#
# `clean` and `corrupted` are `task.Products`, row by row the two multiplications of a pair: equal but for one digit of one
# number, so their prompts have the same length, and all products have the same number of digits. Return the two tensors of
# token ids, each of shape (batch, `prompt_length + n_answer`): the clean prompt with the clean product, and the corrupted prompt
# with **the clean product**. No END after the answer. In each row the two differ in exactly one token.
#
# <details><summary>Hint</summary>
#
# `task.sequences(products, vocabulary)` gives END, prompt, space, right product, END. Cut the last column off, and copy the
# columns from `task.prompt_length(clean)` on from the clean ones to the corrupted ones.
# </details>


# %% nbgrader={"grade": false, "grade_id": "pair_tokens", "locked": false, "schema_version": 3, "solution": true, "task": false}
def pair_tokens(
    clean: task.Products, corrupted: task.Products, vocabulary: task.Vocabulary
) -> tuple[Int[Tensor, "batch position"], Int[Tensor, "batch position"]]:
    """Clean and corrupted sequences, both with the clean product, without END after it."""
    ### BEGIN SOLUTION
    clean_tokens = task.sequences(clean, vocabulary)[:, :-1]
    corrupted_tokens = task.sequences(corrupted, vocabulary)[:, :-1].clone()
    start = task.prompt_length(clean)
    corrupted_tokens[:, start:] = clean_tokens[:, start:]
    return clean_tokens, corrupted_tokens
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_pair_tokens", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.pair_tokens(pair_tokens)

# %%
tokens_of = checks.pair_tokens.working(pair_tokens)
OPERAND = {  # the digit: its number, its place in it, its position in the sequence
    "a2": ("a", 2, 1),
    "a1": ("a", 1, 2),
    "a0": ("a", 0, 3),
    "b1": ("b", 1, 6),
    "b0": ("b", 0, 7),
}


def draw_pairs(name, place, size, seed):
    """(clean, corrupted): one digit of one number differs, and so does the product's digit at `place`."""
    number, power, _ = OPERAND[name]
    generator = torch.Generator().manual_seed(seed)
    clean = task.make_data(6000, generator, answer_digits=5, order="long first")
    old = task.digit_at(clean.a if number == "a" else clean.b, power)
    change = (other_digits(old, seed) - old) * 10**power
    a = clean.a + change if number == "a" else clean.a
    b = clean.b + change if number == "b" else clean.b
    keep = (task.n_digits(a) == 3) & (task.n_digits(b) == 2) & (task.n_digits(a * b) == 5)
    keep &= task.digit_at(a * b, place) != task.digit_at(clean.product, place)
    return clean[keep][:size], task.Products(a[keep][:size], b[keep][:size])


pair = [some_products[:1] for some_products in draw_pairs("a1", 1, 1, seed=0)]
for row in (both[0] for both in tokens_of(*pair, VOCABULARY)):
    plotting.display_sequence(task.str_tokens(row, VOCABULARY))
print(
    f"clean product {int(pair[0].product)}, product of the corrupted prompt {int(pair[1].product)}; fed: the clean one's digits"
)

# %% [markdown]
# **Before any patching: does the clean run beat the corrupted one?** Where it does not, a "recovered share" divides by noise.
# Names for short: `a2`, `a1`, `a0` are the hundreds, tens and units of the first number, `b1` and `b0` the tens and units of the
# second, `p4` to `p0` the places of the product, first digit to units.
# For each digit of the two numbers and each place of the answer, the next cell draws pairs and asks whether the model prefers
# the clean product's digit in the clean run, and the corrupted product's digit in the corrupted run: whether its answer
# **follows** that operand digit. Some cells stay empty because of arithmetic: the hundreds of `a` cannot change the units of the
# product.


# %%
def margins(all_logits, clean, corrupted):
    """For each pair: logit of the clean product's digit minus the corrupted product's, by place."""
    return difference_of(
        answers_of(all_logits, DIGIT_IDS, PROMPT, 5), clean.product, corrupted.product
    )


ROWS = 12  # pairs for each operand digit and place
follows = torch.full((5, 5), float("nan"))
kept = []  # (operand digit, place, clean, corrupted)
for i, name in enumerate(OPERAND):
    for place in range(5):
        clean, corrupted = draw_pairs(name, place, 150, seed=10 * i + place)
        if len(clean) < 50:
            continue
        clean_tokens, corrupted_tokens = tokens_of(clean, corrupted, VOCABULARY)
        towards_clean = margins(model(clean_tokens), clean, corrupted)[:, place]
        towards_corrupted = margins(model(corrupted_tokens), clean, corrupted)[:, place]
        good = ((towards_clean > 0) & (towards_corrupted < 0)).cpu()
        follows[i, place] = good.float().mean()
        if good.sum() >= ROWS:
            kept.append((i, place, clean[good][:ROWS], corrupted[good][:ROWS]))
plotting.heatmap(
    follows.flip(1),
    title="Does the answer follow the operand digit? (both runs of a pair on their own side)",
    x="place of the answer",
    y="operand digit",
    unit="share of pairs",
    x_labels=PLACES[::-1],
    y_labels=list(OPERAND),
    signed=False,
    text=True,
).show()

# %% [markdown]
# **What you should see:** high numbers nearly everywhere, lowest in the column of the hundreds and at the thousands. Note what the
# corrupted run is asked: the digits before are those of the *clean* product, and often contradict its prompt. That it mostly
# follows the prompt all the same says that each digit depends on the operands, and that where these and the digits before
# disagree the operands mostly win. (It does not say that the digits before are not used: where they give the size of the product
# away, a model may use them, and some of the pairs that are missing here may be such.)
#
# From here on we use pairs on which both runs are on their own side, so that there is something to recover.

# %% [markdown]
# ### Exercise 9 · `corrupted_that_is_not` (optional: find the bug)
# *Difficulty ●○○○○ · 3 minutes*
#
# The write-up's clean prompts are eight multiplications. Its corrupted prompts are **the same eight in reverse order**; its metric
# is the mean over the batch of the logit difference between each row's right and wrong answer, where row $i$ keeps the answers of
# the clean prompt $i$. It reports 0.23 for the clean run and **0.27 for the corrupted one**, and normalises patching scores so
# that 0 is the corrupted run and 1 the clean one. What is wrong with that?
#
# - **a** nothing: each row has another row's prompt, so its answer is wrong for it
# - **b** reversing a batch moves the padding, so the positions do not match
# - **c** the rows are unrelated prompts, and the corrupted metric is not below the clean one
# - **d** the batch of eight is too small; with more prompts the two averages would move apart
#
# <details><summary>Hint</summary>
#
# What would a score of 1 mean, if the corrupted run was better to begin with? And with what was each prompt patched?
# </details>

# %% nbgrader={"grade": false, "grade_id": "corrupted_that_is_not", "locked": false, "schema_version": 3, "solution": true, "task": false}
### BEGIN SOLUTION
corrupted_that_is_not = "c"
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check_corrupted_that_is_not", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.corrupted_that_is_not(corrupted_that_is_not)

# %% [markdown]
# ### The control
#
# All pairs in one batch, with one number out for each operand digit and place. Patching a run with **itself** must change
# nothing at all: the control before the first intervention. The other end of the scale: patching *everything* at the position
# of the changed digit before layer 0 turns the corrupted prompt into the clean one.

# %%
parts = [tokens_of(clean, corrupted, VOCABULARY) for _, _, clean, corrupted in kept]
CLEAN = torch.cat([both[0] for both in parts])
CORRUPTED = torch.cat([both[1] for both in parts])
GROUP = torch.tensor([i * 5 + place for i, place, *_ in kept]).repeat_interleave(ROWS)
PAIR_PLACE = GROUP % 5
TOWARDS = torch.cat([task.digit_at(clean.product, place) for _, place, clean, _ in kept])
AWAY = torch.cat(
    [task.digit_at(corrupted.product, place) for _, place, _, corrupted in kept]
)


def effect_by_digit_and_place(read_logits):
    """(operand digit, place): mean logit difference, clean minus corrupted digit. Logits at the five answer positions."""
    rows = torch.arange(len(GROUP))
    at = read_logits[rows, 4 - PAIR_PLACE]  # answer positions are in the order of writing
    difference = at[rows, IDS[TOWARDS]] - at[rows, IDS[AWAY]]
    total = torch.zeros(25).index_add(0, GROUP, difference.float().cpu())
    return (total / GROUP.bincount(minlength=25)).view(5, 5)  # 0 / 0 is NaN: no such pairs


def metric(all_logits):
    """The same from the logits at all positions."""
    return effect_by_digit_and_place(all_logits[:, PROMPT - 1 : PROMPT + 4])


with record(model, get_act_name("resid_pre", 1)) as own:
    untouched = model(CORRUPTED)
with model.hooks(
    fwd_hooks=[
        (get_act_name("resid_pre", 1), lambda x, hook: own[get_act_name("resid_pre", 1)])
    ]
):
    patched_with_itself = model(CORRUPTED)
print(
    f"largest change when a run is patched with itself: {(patched_with_itself - untouched).abs().max():.4f}"
)
clean_effect, corrupted_effect = metric(model(CLEAN)), metric(untouched)
print(
    f"pairs: {len(CLEAN)}; each differs in {int((CLEAN != CORRUPTED).sum(1).max())} token"
)
print(
    f"clean run: all means above 0: {bool((clean_effect[clean_effect.isfinite()] > 0).all())}; "
    f"corrupted run: all below 0: {bool((corrupted_effect[corrupted_effect.isfinite()] < 0).all())}"
)

# %% [markdown]
# ### Exercise 10 · `patch_positions` (core)
# *Difficulty ●●●○○ · 15 minutes*
#
# **Why:** this is the map of the model: when, and where, does a digit's influence sit?
#
# For each layer and position run `model` on `corrupted_tokens` with **one activation at one position** taken from the run on
# `clean_tokens`, and return the normalised effect: (patched − corrupted) / (clean − corrupted), so 0 is "nothing recovered" and
# 1 "all recovered". `activation` is the short name of something of shape (batch, position, d_model), such as `"resid_pre"` (the
# residual stream before the layer), `"attn_out"` or `"mlp_out"`. `metric` takes the logits of a run, of shape (batch, position,
# vocabulary), and returns a tensor: a single number, or several at once. The result has the shape (layer, position, *the
# metric's own shape*), and each entry is normalised by its own clean and
# corrupted value. All layers, all positions, no hooks left on the model.
#
# <details><summary>Hint 1</summary>
#
# Record the clean activations of all layers first: `with record(model, *names) as seen: clean = metric(model(clean_tokens))`.
# </details>
# <details><summary>Hint 2</summary>
#
# A hook gets the activation and returns a new one: `new = value.clone(); new[:, position] = seen[name][:, position]; return
# new`. Put it on with `with model.hooks(fwd_hooks=[(name, hook)]):`.
# </details>
# <details><summary>Hint 3</summary>
#
# A function that is made in a loop sees the loop's *last* values when it is called later. Call the model inside the loop, or
# bind the values with a function that makes the hook.
# </details>


# %% nbgrader={"grade": false, "grade_id": "patch_positions", "locked": false, "schema_version": 3, "solution": true, "task": false}
def patch_positions(
    model,
    clean_tokens: Int[Tensor, "batch position"],
    corrupted_tokens: Int[Tensor, "batch position"],
    metric,
    activation: str,
) -> Float[Tensor, "layer position ..."]:
    """Recovered share of the metric when one position of one layer comes from the clean run."""
    ### BEGIN SOLUTION
    names = [get_act_name(activation, layer) for layer in range(model.cfg.n_layers)]
    with record(model, *names) as seen:
        clean = metric(model(clean_tokens))
    corrupted = metric(model(corrupted_tokens))

    def patched(name, position):
        def hook_fn(value, hook):
            new = value.clone()
            new[:, position] = seen[name][:, position]
            return new

        with model.hooks(fwd_hooks=[(name, hook_fn)]):
            return metric(model(corrupted_tokens))

    sweep = [
        torch.stack(
            [patched(name, position) for position in range(corrupted_tokens.shape[1])]
        )
        for name in names
    ]
    return (torch.stack(sweep) - corrupted) / (clean - corrupted)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_patch_positions", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.patch_positions(patch_positions)

# %%
positions_of = checks.patch_positions.working(patch_positions)
AT = [
    "END",
    "a2",
    "a1",
    "a0",
    "x",
    "sp",
    "b1",
    "b0",
    "=",
    "sp2",
    "p4",
    "p3",
    "p2",
    "p1",
    "p0",
]
LAYERS = [str(layer) for layer in range(N_LAYERS)]
# From a1 to p4, the first digit of the answer.
one_group = list(OPERAND).index("a1") * 5 + 4
few = one_group == GROUP


def metric_of_few(all_logits):
    """One number: the first digit of the answer."""
    at = all_logits[:, PROMPT - 1]
    rows = torch.arange(len(at))
    return (at[rows, IDS[TOWARDS[few]]] - at[rows, IDS[AWAY[few]]]).mean()


first_map = positions_of(model, CLEAN[few], CORRUPTED[few], metric_of_few, "resid_pre")
plotting.heatmap(
    first_map,
    title="From a1 to p4: residual stream before each layer, one position from the clean run",
    x="position",
    y="before layer",
    unit="recovered",
    x_labels=AT,
    text=True,
).show()

# %% [markdown]
# **What you should see:** before layer 0 all of it is at the operand digit itself, of course. Then nearly all of it jumps, in one
# layer (layer 1), to the last token of the prompt (`sp2`, the space after `=`), where the first digit, `p4`, is predicted. Other
# positions recover a few percent at most.
#
# ### A faster sweep
#
# One whole run of the model for each site is slow, and nearly all of it is done in vain. A patch before layer $L$ at position
# $p$ changes nothing in the layers below, which are as in the corrupted run; and nothing at the positions before $p$, because
# attention does not look ahead. And before the first token in which the two prompts differ there is nothing to patch at all.

# %% [markdown]
# ### Exercise 11 · `sweep_share` (optional)
# *Difficulty ●●○○○ · 6 minutes*
#
# **Why:** on a large model this is the difference between minutes and an hour.
#
# Count work in **cells**: one layer at one position. The simple sweep has `n_layers * n_positions` sites, and each costs a whole
# forward pass of `n_layers * n_positions` cells. The clever one visits only the sites at positions `first` to
# `n_positions - 1` (in every layer 0 to `n_layers - 1`), and for the site (layer $L$, position $p$) it computes only layers $L$
# to `n_layers - 1` at positions $p$ to `n_positions - 1`. Return the cells of the clever sweep as a share of those of the simple
# one.
#
# <details><summary>Hint</summary>
#
# A double sum of `(n_layers - L) * (n_positions - p)`.
# </details>


# %% nbgrader={"grade": false, "grade_id": "sweep_share", "locked": false, "schema_version": 3, "solution": true, "task": false}
def sweep_share(n_layers: int, n_positions: int, first: int) -> float:
    """The share of the simple sweep's work that a patch can change at all."""
    ### BEGIN SOLUTION
    needed = sum(
        (n_layers - layer) * (n_positions - position)
        for layer in range(n_layers)
        for position in range(first, n_positions)
    )
    return needed / (n_layers * n_positions) ** 2
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_sweep_share", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.sweep_share(sweep_share)

# %%
share_of = checks.sweep_share.working(sweep_share)
length = CLEAN.shape[1]
print(
    f"this model, {length} positions, first difference at 1: {share_of(N_LAYERS, length, 1):.2f} of the work"
)
print(
    f"24 layers, 14 positions, first difference at 8: {share_of(24, 14, 8):.2f} of the work"
)

# %% [markdown]
# `patching.get_act_patch` of this course does that (and a few things more: see its docstring), for every kind of activation. Its
# values are those of one whole run a site. Its metric gets the logits at the positions `read` alone.

# %%
READ = list(range(PROMPT - 1, PROMPT + 4))  # where the five digits are predicted


def sweep(activation):
    """(layer, site, operand digit, place): recovered shares, for every site of a kind."""
    values = patching.get_act_patch(
        model,
        CLEAN,
        CORRUPTED,
        effect_by_digit_and_place,
        activation,
        read=READ,
        progress=SLOW,
    )
    return (values.cpu() - corrupted_effect) / (clean_effect - corrupted_effect)


resid = sweep("resid_pre")
FROM, TO = divmod(one_group, 5)
gap = (resid[:, :, FROM, TO] - first_map.cpu()).abs().max()
print(f"largest difference from your map: {gap:.4f}")
assert gap < 1e-3

# %% [markdown]
# Now all operand digits and all places. First the mean over operand digits: one map for each place.


# %%
def over_digits(scores):
    """Mean over the operand digits that have pairs: the map of each place."""
    return {PLACES[place]: scores[..., place].nanmean(-1) for place in reversed(range(5))}


plotting.heatmap_facets(
    over_digits(resid),
    title="Residual stream before each layer: where is the operand digit's influence on this place?",
    x="position",
    y="before layer",
    unit="recovered",
    x_labels=AT,
).show()

# %% [markdown]
# **What you should see:** five different maps. (`p4` is predicted at `sp2`, `p3` at the token `p4`, and so on.) Read each from top to
# bottom: the influence starts at the operand digits (left) and ends where the place is read (right). The colours on the left are
# pale because each map is a mean: before layer 0 each operand position recovers everything for its own digit and nothing for the
# others, so it shows 0.2 where five digits have pairs, 0.25 where four, 0.5 where two. A dark cell holds *all* operand digits.
#
# - **`p4`**, the first digit: one step. Nearly all is at the operand digits before layer 1, and where it is read before layer 2.
# - **`p3`**: the same step, but to *three* positions: `=`, `sp2` and the token `p4`. The later layers collect it from there.
# - **`p2`**, the middle digit: smeared over operands, `=`, `sp2`, `p4` and `p3` before layer 2, and not all there before layer 3.
# - **`p1`** and **`p0`**, the last digits: most of it one layer later than the first. Look at `p1` before layer 2: the influence has left `a1`
#   and `b1` and sits at `a0` and `b0` (a little already where `p1` is read): the last token of each number has gathered the
#   influence of the digit before it.

# %%
attention_map, mlp_map = sweep("attn_out"), sweep("mlp_out")
for name, scores in {"attention": attention_map, "MLP": mlp_map}.items():
    plotting.heatmap_facets(
        over_digits(scores),
        title=f"Output of each {name}: recovered when it comes from the clean run",
        x="position",
        y="layer",
        unit="recovered",
        x_labels=AT,
    ).show()

# %% [markdown]
# **What you should see:** attention matters in the layer in which the influence moves: layer 1 for the first digit (and, inside the
# numbers, for `p1`), mostly layer 2 for the last two, layers 1, 2 *and* 3 for the thousands and hundreds. The MLP of layer 0 matters at the operand digits
# themselves, before much has moved; the later MLPs matter where attention has just brought something, and in the last layers
# where the place is read. Only attention can move anything between positions. What the MLPs do with what has been brought, these maps
# do not say.
#
# ### Which digit, to which place, when?
#
# The maps so far are means over operand digits. Apart, they answer the lesson's question. For each operand digit and place,
# follow the position where the place is read: how much of the digit's influence is there before each layer?

# %%
positions = [position for *_, position in OPERAND.values()]
arrived = torch.stack([resid[:, READ[4 - place], :, place] for place in range(5)], dim=-1)
plotting.heatmap_facets(
    {f"before layer {layer}": arrived[layer].flip(-1) for layer in range(1, N_LAYERS)},
    title="What has arrived where the place is read",
    x="place of the answer",
    y="operand digit",
    unit="recovered",
    x_labels=["p4", "p3", "p2", "p1", "p0"],
    y_labels=list(OPERAND),
).show()

# %% [markdown]
# ### Exercise 12 · `reach` (optional)
# *Difficulty ●●○○○ · 6 minutes*
#
# **Why:** "arrives in layer 2" should be a number that code can compare between digits, and between models.
#
# `scores` are those of `patch_positions` with `"resid_pre"` for one operand digit: shape (layer, position, place). For each place
# $i$ return the smallest layer $L$ such that before layer $L$ **and before every later one** the residual stream at position
# `read_positions[i]` recovers at least `threshold`: the digit has arrived, for good. Where it has not arrived before any layer,
# return the number of layers (it arrives in the last one, or not at all). Where a place's scores are NaN, return −1.
#
# <details><summary>Hint</summary>
#
# Go backwards: start with the number of layers, and lower it as long as the layer above also passes.
# </details>


# %% nbgrader={"grade": false, "grade_id": "reach", "locked": false, "schema_version": 3, "solution": true, "task": false}
def reach(
    scores: Float[Tensor, "layer position place"],
    read_positions: list[int],
    threshold: float,
) -> Int[Tensor, " place"]:
    """For each place the layer before which the digit has arrived for good, where it is read."""
    ### BEGIN SOLUTION
    n_layers = scores.shape[0]
    arrival = []
    for place, position in enumerate(read_positions):
        at = scores[:, position, place]
        layer = n_layers
        while layer > 0 and at[layer - 1] >= threshold:
            layer -= 1
        arrival.append(-1 if at.isnan().any() else layer)
    return torch.tensor(arrival)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_reach", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.reach(reach)

# %%
reach_of = checks.reach.working(reach)
READ_BY_PLACE = READ[::-1]  # units first
arrival = torch.stack(
    [reach_of(resid[:, :, i], READ_BY_PLACE, 0.5) for i in range(5)]
).float()
plotting.heatmap(
    torch.where(arrival < 0, float("nan"), arrival).flip(1),
    title=f"Before which layer half of it has arrived ({N_LAYERS}: only in the last layer)",
    x="place of the answer",
    y="operand digit",
    unit="layer",
    x_labels=PLACES[::-1],
    y_labels=list(OPERAND),
    signed=False,
    text=True,
).show()
for place in reversed(range(5)):
    column = arrival[:, place]
    column = column[column >= 0]
    print(
        f"{PLACES[place]}: arrives before layer {', '.join(f'{int(one)}' for one in column.tolist())}, mean {column.mean():.1f}"
    )

# %% [markdown]
# And where is it while it is under way? The next figure adds up, before each layer, what single positions recover, by kind of
# position. (Single patches are not exactly additive: for the thousands and hundreds the five lines add up to less than 1.)

# %%
panels = {}
for place in reversed(range(5)):
    groups = {
        "its own token": torch.zeros(N_LAYERS),
        "another operand token": torch.zeros(N_LAYERS),
    }
    groups |= {
        name: torch.zeros(N_LAYERS)
        for name in ("= and space", "earlier answer tokens", "where it is read")
    }
    digits = [i for i in range(5) if resid[0, 0, i, place].isfinite()]
    for i in digits:
        for position in range(1, READ[-1] + 1):
            at = resid[:, position, i, place] / len(digits)
            if position == READ[4 - place]:
                groups["where it is read"] += at
            elif position == positions[i]:
                groups["its own token"] += at
            elif position <= positions[-1]:
                groups["another operand token"] += at
            elif position < PROMPT:
                groups["= and space"] += at
            else:
                groups["earlier answer tokens"] += at
    panels[PLACES[place]] = groups
plotting.line_facets(
    panels,
    title="Where an operand digit's influence on a place is, layer by layer",
    x="before layer",
    y="recovered",
    x_values=LAYERS,
).show()

# %% [markdown]
# This is the lesson's question about *where*, answered for this model. The **first digit** gets nearly all of it from the operand
# tokens in one step, early. For the **tens**, part of it moves within each number first ("another operand token"), and most reaches
# the answer position in layer 2; so does most of it for the **units**, without that detour. For the **thousands**, part of it passes
# by way of `=` and the space, before the position where they are read. And for the **hundreds** it goes every way at once, and is
# late. They are also the digit on which the model's answer follows the operands least.
#
# ## 5 · Which heads carry it?
#
# A layer's attention output is the sum of its heads' outputs. Each output is **values** mixed by a **pattern**. All can be
# patched one head at a time.

# %% [markdown]
# ### Exercise 13 · `patch_heads` (core)
# *Difficulty ●●●○○ · 12 minutes*
#
# **Why:** this finds the heads that matter by what they do to the answer, directly or through others.
#
# As exercise 10, but **one head at a time, at all positions**: return the normalised effect, shape (layer, head, *the metric's
# shape*). `activation` is `"z"`, `"q"`, `"k"` or `"v"`, of shape (batch, position, head, d_head), or `"pattern"`, of shape
# (batch, head, query, key). There is one column for each head *of that activation*: query heads for `z`, `q` and `pattern`,
# key/value heads for `k` and `v`.
#
# `hooks.patch` of lesson 03: `with patch(model, activation, layer, value, heads=[head]):` takes these heads of a whole activation
# `value` from another run.
#
# <details><summary>Hint</summary>
#
# The number of heads of an activation is `seen[name].shape[2]`, or `shape[1]` for the pattern.
# </details>


# %% nbgrader={"grade": false, "grade_id": "patch_heads", "locked": false, "schema_version": 3, "solution": true, "task": false}
def patch_heads(
    model,
    clean_tokens: Int[Tensor, "batch position"],
    corrupted_tokens: Int[Tensor, "batch position"],
    metric,
    activation: str,
) -> Float[Tensor, "layer head ..."]:
    """Recovered share of the metric when one head's activation comes from the clean run."""
    ### BEGIN SOLUTION
    names = [get_act_name(activation, layer) for layer in range(model.cfg.n_layers)]
    with record(model, *names) as seen:
        clean = metric(model(clean_tokens))
    corrupted = metric(model(corrupted_tokens))
    n_heads = seen[names[0]].shape[1 if activation == "pattern" else 2]
    effects = []
    for layer, name in enumerate(names):
        for head in range(n_heads):
            with patch(model, activation, layer, seen[name], heads=[head]):
                effects.append(metric(model(corrupted_tokens)))
    patched = torch.stack(effects).unflatten(0, (len(names), n_heads))
    return (patched - corrupted) / (clean - corrupted)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_patch_heads", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.patch_heads(patch_heads)

# %%
patched_heads = checks.patch_heads.working(patch_heads)
yours = patched_heads(model, CLEAN[few], CORRUPTED[few], metric_of_few, "z")
z_map = sweep("z")  # the same for all operand digits and places
gap = (z_map[:, :, FROM, TO] - yours.cpu()).abs().max()
print(f"from a1 to p4, largest difference from your map: {gap:.4f}")
plotting.heatmap_facets(
    over_digits(z_map),
    title="Output (z) of one head from the clean run, at all positions",
    x="head",
    y="layer",
    unit="recovered",
    text=True,
).show()
overall = z_map.flatten(2).nanmean(-1)
order = overall.flatten().argsort(descending=True)
top_heads = [HEADS[i] for i in order[:6].tolist()]
listed = (f"{layer}.{head} ({overall[layer, head]:.2f})" for layer, head in top_heads)
print("largest mean effect:", ", ".join(listed))
listed = (f"{layer}.{head}" for layer, head in positive)
print("largest direct effect (section 3):", ", ".join(listed))
lowest = z_map.nan_to_num(0).amin((2, 3))
layer, head = HEADS[int(lowest.argmin())]
print(f"most negative effect on one digit and place: {layer}.{head} ({lowest.min():.2f})")

# %% [markdown]
# **What you should see:** the heads with the largest effect are in layers 1 and 2, where the maps of section 4 say that digits
# move. Those with the largest *direct* effect are in the last layer: their effect on the answer is visible and small. And by this
# measure no head works against the answer: the most negative effect of all is printed, and is close to 0.
#
# What do these heads attend to, where the places are read? (A pattern says what a head *could* bring. The figure before says
# that what the head writes is used, all positions together; not that it is used at these.)

# %%
_, cache = model.run_with_cache(some_tokens)
plotting.heatmap_facets(
    {
        f"{layer}.{head}": cache["pattern", layer][
            :, head, READ[0] : READ[-1] + 1, : READ[-1] + 1
        ].mean(0)
        for layer, head in sorted(top_heads)
    },
    title="Mean attention of the six heads with the largest effect, where the five digits are predicted",
    x="key",
    y="predicts",
    unit="attention",
    x_labels=AT[: READ[-1] + 1],
    y_labels=["p4", "p3", "p2", "p1", "p0"],
    signed=False,
).show()

# %% [markdown]
# **What you should see:** pairs of columns. Where `p4` is predicted, two heads of layer 1 attend to the first digit of each number,
# `a2` and `b1`, two others to the second digit of each, `a1` and `b0`. Where `p1` is predicted, the two heads of layer 2 attend to
# `a0` and `b0`, which by then hold more than their own digit (section 4). For `p0` one head of layer 1 looks at `a0`: section 4 found
# that about half of this digit's influence has arrived there before layer 2. **Bringing two digits to one place does not multiply
# them:** a head's output is a weighted sum of values. The product has to come from something that is not linear, the MLPs or patterns
# that depend on the digits. Which of them, nothing here has tested.
#
# ### Values, patterns, and who shares what
#
# A head's output changes because its **values** change, or because its **pattern** does. Patch them separately. Values belong to
# key/value heads, so first: which query heads read which of them?

# %% [markdown]
# ### Exercise 14 · `query_heads_of` (optional)
# *Difficulty ●○○○○ · 4 minutes*
#
# **Why:** comparing "values" with "outputs" head by head goes wrong when there are fewer of one than of the other.
#
# Return the list of query heads, in order, that read key/value head `kv_head`, when `n_heads` query heads share
# `n_key_value_heads` key/value heads as in Llama and Qwen: **neighbours share**. With 4 and 2, query heads 0 and 1 read
# key/value head 0.
#
# <details><summary>Hint</summary>
#
# Each key/value head serves `n_heads // n_key_value_heads` query heads, one after the other.
# </details>


# %% nbgrader={"grade": false, "grade_id": "query_heads_of", "locked": false, "schema_version": 3, "solution": true, "task": false}
def query_heads_of(kv_head: int, n_heads: int, n_key_value_heads: int) -> list[int]:
    """The query heads that read this key/value head."""
    ### BEGIN SOLUTION
    group = n_heads // n_key_value_heads
    return list(range(kv_head * group, (kv_head + 1) * group))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_query_heads_of", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.query_heads_of(query_heads_of)

# %%
group_of = checks.query_heads_of.working(query_heads_of)
for kv_head in range(N_KV):
    print(f"key/value head {kv_head}: query heads {group_of(kv_head, N_HEADS, N_KV)}")
# From the model itself: a head's z is its pattern times the values of its key/value head.
pattern, v, z = (cache[name, 0] for name in ("pattern", "v", "z"))
for kv_head in range(N_KV):
    mixed = torch.einsum("bhqk,bkd->bqhd", pattern, v[:, :, kv_head])
    fits = [h for h in range(N_HEADS) if (mixed[:, :, h] - z[:, :, h]).abs().max() < 1e-3]
    print(
        f"z equals pattern times the values of key/value head {kv_head} for query heads {fits}"
    )

# %% [markdown]
# ### Exercise 15 · `positions_for_heads` (optional: find the bug)
# *Difficulty ●○○○○ · 3 minutes*
#
# The write-up patches values with this hook, for `head_index` from 0 to 13 in each layer. `hook_v` has the shape (batch, position,
# key/value head, d_head) = (8, 14, 2, 64), and the model has 14 query heads:
#
# ```python
# corrupted_head_vector[:, head_index, :, :] = clean_cache[hook.name][:, head_index, :, :]
# ```
#
# It runs without an error. What did it do?
#
# - **a** values have 14 heads like queries, so the line patches head by head, as meant
# - **b** indices beyond the two heads are ignored, so only heads 0 and 1 were patched
# - **c** PyTorch repeats the two key/value heads to 14, so each was patched seven times
# - **d** the prompts have 14 tokens and the model 14 query heads, so every index is a valid position: each entry patches the
#   values of all key/value heads at one position
#
# <details><summary>Hint</summary>
#
# Which axis is the second one? How many positions does its prompt have?
# </details>

# %% nbgrader={"grade": false, "grade_id": "positions_for_heads", "locked": false, "schema_version": 3, "solution": true, "task": false}
### BEGIN SOLUTION
positions_for_heads = "d"
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check_positions_for_heads", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.positions_for_heads(positions_for_heads)

# %% [markdown]
# There happen to be as many positions as query heads, so nothing complains. Its scatter of "value against output", and "value plus
# pattern is about output", compare positions with heads. With two key/value heads there would have been an `IndexError` for the
# third, and a lesson in grouped-query attention.

# %% [markdown]
# To set outputs beside values they must be counted in the same units: key/value heads. So all query heads that read one
# key/value head are patched **together**, in one run: the effect of a group is not the sum of its heads' effects.


# %%
def group_effects(activation):
    """(layer, key/value head, operand digit, place): recovered with the heads of one group from the clean run."""
    names = [get_act_name(activation, layer) for layer in range(N_LAYERS)]
    with record(model, *names) as seen:
        model(CLEAN)
    effects = []
    for layer, name in enumerate(names):
        for kv_head in range(N_KV):
            heads = group_of(kv_head, N_HEADS, N_KV)
            with patch(model, activation, layer, seen[name], heads=heads):
                effects.append(metric(model(CORRUPTED)))
    patched = torch.stack(effects).unflatten(0, (N_LAYERS, N_KV))
    return (patched - corrupted_effect) / (clean_effect - corrupted_effect)


z_groups, pattern_groups = group_effects("z"), group_effects("pattern")

# %%
v_map = sweep("v")
pattern_map = sweep("pattern")
for name, scores in {
    "values, by key/value head": v_map,
    "pattern, by query head": pattern_map,
}.items():
    plotting.heatmap_facets(
        over_digits(scores),
        title=f"One head's {name}, from the clean run",
        x="head",
        y="layer",
        unit="recovered",
        text=True,
    ).show()


def by_layer(across, up):
    """Points for the scatter: one for each operand digit, place and key/value head, by layer."""
    points = {}
    for layer in range(N_LAYERS):
        x, y = across[layer].flatten(), up[layer].flatten()
        good = x.isfinite() & y.isfinite()
        points[f"layer {layer}"] = (x[good], y[good])
    return points


plotting.scatter(
    by_layer(v_map, z_groups),
    title="Values against outputs: one point for each key/value head, operand digit and place",
    x="recovered by the values",
    y="recovered by the outputs of its query heads",
).show()
plotting.scatter(
    by_layer(pattern_groups, z_groups),
    title="Patterns against outputs",
    x="recovered by the patterns",
    y="recovered by the outputs",
).show()


def correlation(x, y):
    """Pearson's, over all finite points."""
    good = x.isfinite() & y.isfinite()
    return torch.corrcoef(torch.stack([x[good], y[good]]))[0, 1].item()


both = v_map + pattern_groups
print(
    f"correlation with the outputs: values {correlation(v_map, z_groups):.2f}, patterns {correlation(pattern_groups, z_groups):.2f}, values + patterns {correlation(both, z_groups):.2f}"
)
gap = (both - z_groups).abs()
print(
    f"values + patterns miss the outputs by {gap[gap.isfinite()].mean():.3f} on average, at most {gap[gap.isfinite()].max():.2f}"
)

# %% [markdown]
# **What you should see:** points of the first scatter lie near the diagonal, those of the second do not. What a head carries when
# one digit changes is mostly in its *values*; patterns recover little, some 0.3 at most. The sum of both is close to the outputs, on
# average. (The write-up says the same of the real model; there, the "values" were positions. With values that are values it is a
# claim that can be checked, and it is nearly, not exactly, true here: the printed largest miss.)
#
# **Does it follow that the model hardly needs to look at different places for different prompts?** Predict, then run the next
# cells: all patterns of the whole model from the clean run; then all patterns of a layer replaced by their mean over prompts, or
# by another prompt's.

# %%
for activation in ("pattern", "v"):
    names = [get_act_name(activation, layer) for layer in range(N_LAYERS)]
    with record(model, *names) as seen:
        model(CLEAN)
    with ExitStack() as stack:
        for layer, name in enumerate(names):
            stack.enter_context(patch(model, activation, layer, seen[name]))
        recovered = (metric(model(CORRUPTED)) - corrupted_effect) / (
            clean_effect - corrupted_effect
        )
    by_place = ", ".join(
        f"{PLACES[p]} {recovered[:, p].nanmean():.2f}" for p in reversed(range(5))
    )
    print(f"every {activation} of every layer from the clean run: {by_place}")

# %%
judged = task.sequences(fives[:300], VOCABULARY)


def accuracy_now(tokens_now):
    return accuracy_of(
        answers_of(model(tokens_now), DIGIT_IDS, PROMPT, 5), fives.product[:300]
    )


rows = {"nothing": accuracy_now(judged)}
with ablate(model, HEADS, activation="pattern", how="mean"):
    alone = model(judged[:1])
print(
    f"control, one prompt's pattern is its own mean: largest change {(alone - model(judged[:1])).abs().max():.4f}"
)
for how, name in {"mean": "mean", "resample": "another prompt's"}.items():
    for layer in range(N_LAYERS):
        heads = [head for head in HEADS if head[0] == layer]
        with ablate(model, heads, activation="pattern", how=how):
            rows[f"patterns, layer {layer}: {name}"] = accuracy_now(judged)
for layer in range(N_LAYERS):
    heads = [head for head in HEADS if head[0] == layer]
    with ablate(model, heads, activation="z", how="mean"):
        rows[f"outputs, layer {layer}: mean"] = accuracy_now(judged)
plotting.heatmap(
    torch.stack(list(rows.values())).flip(1),
    title="Right digits when all attention patterns, or outputs, of a layer are replaced",
    x="place",
    y="replaced",
    unit="share right",
    x_labels=PLACES[::-1],
    y_labels=list(rows),
    signed=False,
    text=True,
).show()

# %% [markdown]
# **A hypothesis that failed:** that the model has a fixed wiring, in which only the values change. Between two prompts that differ in
# one digit the values do most of it (the printed lines), and patching such pairs shows no more. But with another prompt's patterns in layers 1 or 2 the
# model falls apart at several places: where its heads look does depend on the prompt, and has to fit. **A pair tests what differs
# within the pair, and nothing else.** That is its strength and its limit.
#
# The last rows are a second, coarser look at what section 4 found: with the mean in place of what attention brings in layer 1, the
# first four digits are lost; in layer 2, most of all the last three; in layer 3, mainly the hundreds. (All positions are replaced at
# once, so a loss does not say where.)
#
# ## 6 · Where it fails
#
# The map says where the influence of the digits goes, not how the answer is made of them. Mistakes can tell more. If a digit is **read off an estimate** of the product, it should be wrong where the
# product is close to a boundary: `23998` and `24003` are near each other, and their thousands differ. If it is worked out with
# exact carries, the distance to a boundary should not matter. (A carry that is itself *estimated* from the lower digits errs at the same
# boundaries: what follows cannot tell these two apart.)

# %%
bundled = model if MODEL == "seed0" else load_model("llm_multiplication", "seed0")
many = task.make_data(4000, seed=4, answer_digits=5, order="long first")
said = answers(model, many).argmax(-1).cpu()
right_digits = task.digit_at(many.product[:, None], torch.arange(5))
error = (said - right_digits + 4) % 10 - 4  # −4 to 5, around the circle of digits
counts = {
    PLACES[place]: [int((error[:, place] == e).sum()) for e in range(-4, 6) if e]
    for place in reversed(range(5))
}
plotting.bar(
    [f"{e:+d}" for e in range(-4, 6) if e],
    counts,
    title=f"Wrong digits of {len(many):,} held-out products: by how much?",
    x="digit that is said minus right digit (around the circle)",
    y="answers",
).show()
for name, of_place in counts.items():
    wrong = sum(of_place)
    beside = of_place[3] + of_place[4]
    print(f"{name}: {wrong} wrong, of which {beside} by one")

# %%
BINS = 20
panels = {}
for place in (4, 3, 2):
    below = (
        many.product % 10**place
    ).float() / 10**place  # how far above the last boundary, 0 to 1
    which = (below * BINS).long().clamp(max=BINS - 1)
    right_here = (error[:, place] == 0).float()
    total = torch.zeros(BINS).index_add(0, which, right_here)
    panels[PLACES[place]] = total / which.bincount(minlength=BINS)
plotting.line_facets(
    {name: {"": shares} for name, shares in panels.items()},
    title="Right digits, by where the product lies between two boundaries of its place",
    x="what is below the place, as a share",
    y="share right",
    x_values=[(i + 0.5) / BINS for i in range(BINS)],
).show()

# %% [markdown]
# **What you should see:** no wrong tens and units at all; thousands that are wrong nearly always, and hundreds mostly, by **one**; and, in
# the second figure, wrong thousands (and first digits) at both ends of an interval, just above and just below a boundary, and hardly
# any in the middle. That is what reading off an estimate looks like. For the hundreds it is half true: more mistakes towards the
# ends, some nearly everywhere. (It is behaviour. It says *when* the model errs; which weights estimate, no figure here shows.) With the rows of
# section 1 the words of the question get a place each: units and tens are **computed**; thousands, and hundreds less clearly, come
# out as a good **estimate** would, with errors near boundaries; and for pairs that were trained on nearly all of these errors are
# gone: what is right there is in part **remembered**.

# %%
generator = torch.Generator().manual_seed(5)
long = torch.randint(2000, 10_000, (1500,), generator=generator)
short = torch.randint(2, 10, (1500,), generator=generator)
keep = long * short >= 10_000
near = (many.product + 50) % 1000 < 100
kinds = {
    "three digits × two (trained on such)": many[:500],
    "… within 50 of a round thousand": many[near],
    "four digits × one (never seen)": task.Products(long[keep][:500], short[keep][:500]),
    "one digit × four (never seen)": task.Products(short[keep][:500], long[keep][:500]),
}
plotting.heatmap(
    torch.stack([accuracy_row(model, products) for products in kinds.values()]).flip(1),
    title="Right digits on products chosen on purpose",
    x="place",
    y="products",
    unit="share right",
    x_labels=PLACES[::-1],
    y_labels=list(kinds),
    signed=False,
    text=True,
).show()

# %% [markdown]
# **What you should see:** close to a round thousand more than a quarter of the thousands are wrong. That is *in* the distribution: numbers of the
# same kind as in training. Four digits times one is *outside*: the same task, five operand digits as well, but such prompts never
# came up, and nearly everything fails, the units too; the first digit fails least. Such mistakes
# say that what the model has learned does not carry over to numbers of other lengths. They say little about how it multiplies.

# %% [markdown]
# ### Exercise 16 · `counterexamples` (core)
# *Difficulty ●●●○○ · 12 minutes*
#
# **Why:** an explanation that is right about the mechanism knows where the mechanism breaks.
#
# Give `counterexamples`, a tensor of **50** token sequences of shape (50, 16) in the bundled model's tokens: multiplications whose two
# numbers have **five digits together**, in either order, none twice: END, the prompt, a space, the **right** product, END, and END up
# to 16. `evidence_task.tokens_of(products)` writes them out. The bundled model, with the right digits fed, must give at least one
# wrong answer in at least **40** of the 50; what it says after the last digit of a four-digit product counts as well. At least **30**
# of these must be **in distribution**: three digits and two. The check counts both kinds.
#
# <details><summary>Hint 1</summary>
#
# Outside the distribution it is easy: see the last figure.
# </details>
# <details><summary>Hint 2</summary>
#
# Inside: which products are near a boundary of the thousands? Take pairs that were held out (`task.split()` gives both parts), in
# both orders (`task.both_orders`), and let the model sort them by `evidence_task.margin(logits, tokens)`.
# </details>

# %% nbgrader={"grade": false, "grade_id": "counterexamples", "locked": false, "schema_version": 3, "solution": true, "task": false}
### BEGIN SOLUTION
# In distribution, from the mechanism: held-out pairs with a product near a round thousand.
_, never_trained = task.split()
beside = task.both_orders(never_trained)
rest = beside.product % 1000
inside = evidence_task.tokens_of(beside[(rest < 30) | (rest >= 970)])
inside = inside[
    evidence_task.margin(bundled(inside), inside).cpu().argsort(descending=True)[:40]
]
# Out of it: four digits times one.
longer = torch.arange(1234, 1244)
outside = evidence_task.tokens_of(task.Products(longer, torch.full_like(longer, 7)))
counterexamples = torch.cat([inside, outside])
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check_counterexamples", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.counterexamples(counterexamples)

# %%
by_chance = evidence.random_search(
    bundled, evidence_task.random_inputs, margin=evidence_task.margin, budget=500
)
found = checks.counterexamples.working(counterexamples)
found_margins = evidence_task.margin(bundled(found), found).cpu()
typical = evidence_task.in_distribution(found)
plotting.strip(
    {
        "500 random products": by_chance,
        "yours, in distribution": found_margins[typical],
        "yours, out of it": found_margins[~typical],
    },
    title="How far products are from fooling the model",
    x="where they come from",
    y="margin: wrong minus right logit",
    reference_lines={"above this line the model is fooled": 0.0},
).show()
print(
    f"random products that fool the model: {int((by_chance > 0).sum())} of {len(by_chance)}"
)

# %% [markdown]
# The margin is that of the worst of the five answers. **What you should see:** your finds above the line, random products mostly far
# below it.

# %% [markdown]
# ## 7 · Does the explanation hold? (optional)
#
# Two more ways to be wrong, and to find out. Both judge the bundled model. First the **circuit**: `scorer.scores([circuit, …])` says,
# for each list of sites (layer, head, position), how much of the model's work is left when every *other* site is resampled from
# another product. The MLPs stay, and compute on what is left. The control is in the printed line.

# %%
judged_tokens = evidence_task.typical_inputs(100, torch.Generator().manual_seed(6))
scorer = evidence.CircuitScorer(
    bundled,
    judged_tokens,
    accuracy(evidence_task, judged_tokens),
    chance=evidence_task.CHANCE,
    ablation="resample",
)
SITES = list(evidence_task.SITES)
print(
    f"no site kept: {scorer.scores([[]])[0]:.2f}   all {len(SITES)} kept: {scorer.scores([SITES])[0]:.2f}"
)

# %% [markdown]
# ### Exercise 17 · `circuit` (optional)
# *Difficulty ●●●○○ · 12 minutes*
#
# **Why:** a map of where things are is worth something if what is *not* on it can be thrown away.
#
# Give `circuit`, a list of **at most 60** sites `(layer, head, position)`: query heads, at the position where the head *writes*. 176
# sites can matter: layers 0 to 2 at positions 1 to 13, layer 3 at positions 9 to 13. The check resamples `z` at every other site
# on 100 products of three by two digits with five digits in the answer, and scores what is left as (share of right digits −
# chance) / (the whole model's − chance), with chance 0.18. It must reach **0.70**.
#
# <details><summary>Hint 1</summary>
#
# The map of the attention outputs (section 4) says which positions of which layer matter to some place. That leaves far fewer
# than 176 sites.
# </details>
# <details><summary>Hint 2</summary>
#
# Then drop those sites whose loss costs least. Accuracy is coarse on a hundred products; the mean log-probability of the right
# digits is not.
# </details>

# %% nbgrader={"grade": false, "grade_id": "circuit", "locked": false, "schema_version": 3, "solution": true, "task": false}
### BEGIN SOLUTION
pruning_tokens = evidence_task.typical_inputs(32, torch.Generator().manual_seed(7))


def mean_log_probability(read_logits):
    """Of the right digits: smoother than accuracy."""
    log_probs = read_logits[:, 9:14].log_softmax(-1)
    return (
        log_probs.gather(-1, pruning_tokens[:, 10:15, None].to(log_probs.device))
        .mean()
        .item()
    )


pruner = evidence.CircuitScorer(
    bundled, pruning_tokens, mean_log_probability, chance=-1000.0, ablation="resample"
)
# From the map: the layers and positions whose attention output recovers anything at any place.
strongest = attention_map.nan_to_num(0).amax((2, 3))  # (layer, position)
circuit = [site for site in SITES if strongest[site[0], site[2]] > 0.05]
print(f"sites on the map of attention outputs: {len(circuit)}")
while len(circuit) > 60:
    values = pruner.values([[kept for kept in circuit if kept != site] for site in circuit])
    n_kept = max(60, len(circuit) - 20)
    circuit = [circuit[i] for i in sorted(values.argsort()[:n_kept].tolist())]
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check_circuit", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.circuit(circuit)

# %%
sites = [tuple(site) for site in checks.circuit.working(circuit)]
panels = {}
for layer in range(4):
    shown = torch.zeros(4, 14)
    for _, head, position in [site for site in sites if site[0] == layer]:
        shown[head, position] = 1
    panels[f"layer {layer}"] = shown
plotting.heatmap_facets(
    panels,
    title=f"A circuit of {len(sites)} sites: it keeps {scorer.scores([sites])[0]:.2f} of the model's work",
    x="position",
    y="head",
    unit="kept",
    x_labels=AT[:14],
    signed=False,
).show()

# %% [markdown]
# **What you should see:** (for the solution's circuit) the maps again. Layer 0 at a few positions of the operands and around `=`; layer
# 1 at the last tokens of the numbers and from `=` on; layer 2 where digits are predicted; layer 3 nearly only where `p3` and `p2` are
# predicted (at the tokens `p4` and `p3`). The candidates were taken from the map, so that they lie on it is no second piece of evidence;
# that most of the model's work is left when all else is resampled is one. (The title's score is for these 100 products; the check draws
# others.) A third of the sites is not a small circuit: in layers 1 and 2 most heads take part. Other sets of sites may do as well.

# %% [markdown]
# ### Exercise 18 · `explanation` (optional)
# *Difficulty ●●●●● · 40 minutes*
#
# **Why:** whoever knows how a model fails can say what it will answer to products that it gets wrong.
#
# Write `explanation(model)`, which returns `(simulate, numbers)`. `numbers` is a dict of tensors; `simulate(inputs, numbers)` gets
# token ids of shape (input, 16), *with the right product in them*, and returns the model's **five answers** as whole numbers, shape
# (input, 5), **in the order in which they are written** (the first digit first): 0 to 9 for a digit, 10 for the end of the
# product, which is the fifth answer when a product has four digits. The model is not in scope in `simulate`; **at most 500 numbers**
# may be used (the model has 987,000 parameters, and makes some 1,850 mistakes in all).
#
# The check plays it on products of three and two digits in both orders, from held-out pairs and others (`checks.explanation.pool`);
# half of them the model gets wrong somewhere. The score is the mean of the agreement where the model is wrong and where it is right, each place
# counting alike in both. The perfect algorithm scores 0.50. Needed: **0.65**. If you fit anything to the model's answers, leave the
# pool's pairs out, in both orders: otherwise it is no prediction.
#
# <details><summary>Hint 1</summary>
#
# The two figures of section 6: by how much it errs, and where.
# </details>
# <details><summary>Hint 2</summary>
#
# For hundreds and thousands: how near is the product to the next digit, on either side? Decide between "one too small", "right"
# and "one too large". Fit the borders to the model's answers to other held-out products, and give its mistakes as much weight as
# all that it gets right.
# </details>


# %% nbgrader={"grade": false, "grade_id": "explanation", "locked": false, "schema_version": 3, "solution": true, "task": false}
def explanation(model):
    """(simulate, numbers): the model's five answers, predicted with its mistakes."""

    ### BEGIN SOLUTION
    def read(inputs):
        """The operand digits, the longer number first; the product; how many digits it has."""
        long_first = inputs[:, 4:5] == 11  # " x" after three digits
        long = torch.where(long_first, inputs[:, 1:4], inputs[:, 5:8]) - 1
        short = torch.where(long_first, inputs[:, 6:8], inputs[:, 1:3]) - 1
        length = 4 + (inputs[:, 14] != 0).long()
        product = torch.zeros_like(length)
        for column in range(5):
            longer = 10 * product + inputs[:, 10 + column] - 1
            product = torch.where(column < length, longer, product)
        return torch.cat([long, short], dim=1), product, length

    def features(inputs, place):
        """How near the product is to where this digit changes, on either side; and the digits."""
        digits, product, _ = read(inputs)
        above = product % 10**place / 10**place
        near = [side**power for side in (above, 1 - above) for power in (1, 4, 16, 64)]
        known = torch.cat([digits, product[:, None] // 10**place % 10], dim=1)
        one_hot = torch.nn.functional.one_hot(known, 10).flatten(1)
        return torch.cat([torch.stack(near, dim=1), one_hot], dim=1)

    def simulate(inputs, numbers):
        _, _, length = read(inputs)
        answers = torch.where(inputs[:, 10:15] == 0, 10, inputs[:, 10:15] - 1)
        rows = torch.arange(len(inputs))
        for place in (2, 3):  # hundreds, thousands; all else is answered rightly
            off = (features(inputs, place) @ numbers["readout"][place - 2]).argmax(-1) - 1
            column = length - 1 - place
            answers[rows, column] = (answers[rows, column] + off) % 10
        return answers

    # Held-out pairs, but for those of the pool, in either order.
    def code(products):
        low, high = (
            torch.minimum(products.a, products.b),
            torch.maximum(products.a, products.b),
        )
        return 100 * high + low

    pairs = task.split()[1]
    asked = evidence_task.products_of(checks.explanation.pool.tokens)
    others = task.both_orders(pairs[~torch.isin(code(pairs), code(asked))])
    chosen = torch.randperm(len(others), generator=torch.Generator().manual_seed(21))[:8000]
    tokens = evidence_task.tokens_of(others[chosen])
    right = evidence_task.right_answers(tokens)
    said = evidence_task.answers(model(tokens)).cpu()
    length = read(tokens)[2]
    readout = []
    for place in (2, 3):
        column = (length - 1 - place)[:, None]
        off = (
            (said - right).gather(1, column)[:, 0] + 1
        ) % 10  # 0: one too small, 2: too large
        known, off = features(tokens, place).double()[off < 3], off[off < 3]
        # Mistakes are rare: together they weigh as much here as all that is right.
        weight = torch.where(off == 1, 0.5 / (off == 1).sum(), 0.5 / (off != 1).sum())[
            :, None
        ]
        target = torch.nn.functional.one_hot(off, 3).double()
        pull = 1e-3 * torch.eye(known.shape[1]).double()
        solved = torch.linalg.solve(
            known.T @ (weight * known) + pull, known.T @ (weight * target)
        )
        readout.append(solved.float())
    return simulate, {"readout": torch.stack(readout)}
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_explanation", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.explanation(explanation)

# %%
pool = checks.explanation.pool
simulate, numbers = checks.explanation.working(explanation)(bundled)
predicted, n_numbers = evidence.run_simulation(simulate, numbers, pool)
scored = evidence_task.score_by_place(predicted, pool, n_numbers)
plotting.heatmap(
    scored.agreement,
    title="Where the explanation predicts the model (blank: no such answer)",
    x="the model's answer is",
    y="kind of product",
    unit="share predicted",
    x_labels=["wrong", "right"],
    y_labels=list(scored.kind_names),
    signed=False,
    text=True,
).show()
print(
    f"score {scored.score:.2f}   perfect algorithm {scored.perfect:.2f}   its opposite {scored.opposite:.2f}"
)
print(f"numbers used: {scored.n_numbers}")

# %% [markdown] tags=["solution-only"]
# This is a law of the model's *behaviour*, fitted to its answers: hundreds and thousands come out one too small or one too large
# where the product lies close to the next digit, more or less so for some digits of the numbers. (The pool's pairs were left out of
# the fit.) It says when the model errs, and which way. It does not say which weights
# estimate the product, and no number in it was read from the weights.

# %% [markdown]
# ## 8 · Computed, remembered, guessed (optional)
#
# The bundled model answers products that it has never seen. Would it have to? Take the same architecture and the same optimiser
# (for 3,000 steps, not 16,000), but **two-digit by two-digit** products: there are few enough to remember (3,686 pairs to train on). That model is
# `load_model("llm_multiplication", "two_digits")`.

# %%
remembers = load_model("llm_multiplication", "two_digits")


def by_split(of_model, digits, answer_digits):
    """Accuracy by place on pairs trained on, and on held-out ones."""
    found = {}
    for name, is_held_out in {"trained": False, "held out": True}.items():
        available = task.split(digits)[is_held_out]
        size = min(600, int((available.n_answer_digits == answer_digits).sum()))
        products = task.make_data(
            size, seed=6, digits=digits, held_out=is_held_out, answer_digits=answer_digits
        )
        found[name] = accuracy_row(of_model, products)
    return found


compared = {}
for title, (of_model, digits, lengths) in {
    "3 × 2": (bundled, (3, 2), (5, 4)),
    "2 × 2": (remembers, (2, 2), (4, 3)),
}.items():
    for answer_digits in lengths:
        for name, row in by_split(of_model, digits, answer_digits).items():
            compared[f"{title}, {answer_digits} digits, {name}"] = row
plotting.heatmap(
    torch.stack(list(compared.values())).flip(1),
    title="Three digits by two, and two by two: right digits on pairs trained on and held out",
    x="place",
    y="products",
    unit="share right",
    x_labels=PLACES[::-1],
    y_labels=list(compared),
    signed=False,
    text=True,
).show()


# %%
def how_sure(of_model, products):
    """Mean probability of the top digit where it is right and where it is wrong, all places together."""
    read = answers(of_model, products).softmax(-1).cpu()
    top = read.max(-1)
    digits = task.digit_at(products.product[:, None], torch.arange(read.shape[1]))
    right_here = top.indices == digits
    return top.values[right_here].mean(), top.values[~right_here].mean()


for title, (of_model, digits, length) in {
    "3 × 2": (bundled, (3, 2), 5),
    "2 × 2": (remembers, (2, 2), 4),
}.items():
    available = task.split(digits)[1]
    size = min(600, int((available.n_answer_digits == length).sum()))
    products = task.make_data(size, seed=6, digits=digits, answer_digits=length)
    if_right, if_wrong = how_sure(of_model, products)
    print(
        f"{title}, held out: probability of the digit that it says {if_right:.2f} where it is right, {if_wrong:.2f} where it is wrong"
    )

# %% [markdown]
# **What you should see:** on pairs that they were trained on both models are right everywhere, or nearly. On held-out pairs the small
# task's model is right at the units, and mostly at the first digit; in between it is wrong about every second time. So much of what
# it gets right in the middle of the pairs that it saw is **remembered**. For the others it does not **guess** blindly either: half of
# the middle digits right is far more than one in ten. The units it computes, although it would not have had to. A likely reason for
# the difference is that the larger task has twenty times as many pairs to learn, so that remembering is not the cheap way. But these
# are two models, one of each kind, trained for different times: the figure shows the difference and does not test the reason. (And
# the printed lines: where they are wrong, both models still give the digit that they say a high probability. Confidence is no sign of
# computing.)
#
# **Reported** of Qwen2.5-0.5B, for one product of five by five digits: 4 of 10 digits right with the right digits fed. The first has
# 74 %; of those after it most have 13 to 33 % for the top digit, little more than a guess among ten; one is a 0, with 70 %, where an 8 is
# right. Whether it computes any of these, or remembers, cannot be told from one prompt. With `MODEL = "qwen2.5-0.5b"` the cells of
# sections 1 to 5 measure it place by place. (Its training data are not published, so the rows "trained" and "held out" mean nothing for
# it: what it remembers needs another test. The course's authors had no network that reaches the hub, so no result of that run is in this notebook, and
# nothing that the bundled model does is a claim about it.)

# %% [markdown]
# ## 9 · What we know, and how well
#
# Does it compute, remember or guess? **The bundled model computes** units and tens: it gets them right on pairs that it never saw as
# on others. It gets hundreds and thousands right in about 96 of 100 held-out cases, and errs like an **estimate**, by one, the thousands next to
# round numbers; on pairs that it was trained on it is right nearly always, and that difference is **remembered**. And where does each
# digit arrive? The first digit's position collects most of the influence of all operand digits in layer 1. The last digits' positions collect most in layer 2, from the last token of each number, which
# for the tens has gathered the digit before it. The middle is collected in layers 1 to 3, partly by way of `=` and the positions before.
#
# | claim | evidence | strength | what would refute it |
# |---|---|---|---|
# | Units and tens are computed (right on unseen pairs), hundreds and thousands in about 96 of 100 cases | accuracy by place on pairs trained on and held out, both orders | strong that it generalises (the split is by unordered pairs); says nothing of the method | a held-out pair that stands in training in another form |
# | Each digit of the answer depends on the operands; where the digits fed before it disagree, the operands mostly win | the corrupted run follows its prompt with the clean digits fed | good; pairs that do not follow are left out of the patching; that the digits fed are not used was not tested | a place that follows the digits fed |
# | The last MLP writes most of the logit difference | attribution that adds up to 1e-4 | strong, and about the last step only | components that do not add up |
# | More than half of each operand digit's influence reaches the first digit's position in layer 1, the tens' position by the end of layer 2 | residual stream, attention and MLP outputs patched at every position; `reach`; outputs of whole layers replaced | strong (interventions with a no-op control), for this model, for pairs that differ in one digit | an operand digit that arrives earlier or later at the same threshold |
# | For the tens, the influence of the digit before is gathered at the last token of each number | the map of `p1`: influence of `a1` at `a0`, of `b1` at `b0`, before layer 2 | strong (intervention) | influence of `a1` that stays at `a1` |
# | Within a pair the values carry most of the difference, the patterns less | patches of values, patterns and outputs by key/value head; all at once | strong for such pairs | pairs of one digit that patterns restore |
# | Attention patterns depend on the prompt all the same, and have to | patterns of other prompts break layers 1 and 2 | strong (intervention) | no loss with another prompt's patterns |
# | Thousands (hundreds less clearly) err as if read off an estimate | mistakes by one, near boundaries; the explanation predicts them | correlation and prediction; **no** intervention | mistakes in the middle of the intervals, as the hundreds have some |
# | The model of the small task remembers much of its middle digits | `two_digits`: right where trained, about half right where held out | strong for this one model; that the number of pairs is the reason was not tested | a two-digit model, trained in this way, that answers held-out pairs |
#
# **Not understood.** How an MLP multiplies two digits, and in what form: we followed *where* digits go, not what they become. How the
# estimate of the size is made, and by which weights. Why the hundreds take so many ways. How the part that is remembered is stored:
# `two_digits` would be the place to look. And all of it for the large model.
#
# **Corrections to the write-up.** It reads every digit of the answer at the last prompt position (section 1), where the space and no
# digit is predicted, with the beginning-of-text token and padding among the "answer tokens". Its 2.746 is twelve times its 0.229 (exercise 6). Its corrupted
# prompts are its clean prompts in another order, and score better (exercise 9), so that its patching scores cannot be read. Its value
# sweep patches positions (exercise 15). Its list of sizes is another model's.

# %%
checks.progress()
