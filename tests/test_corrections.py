"""What the write-ups have wrong, each beside the right figure, and why: one test a mistake.

A test computes the wrong figure as the write-up does and the right one, and asserts both. Where the figure was printed
by a write-up, it is measured on that write-up's own model, and the test skips where `EXERCISES_PUBLISHED_DIR` does not
say where the files are; what holds for any model is shown on ours too.

Two mistakes have no figure behind them, and so no test: the last plot of write-up 001 reads names that nothing defines
(`x_list` for `x_tokens`, and so on), so it drew nothing; and write-up 002 says in one sentence that a value is used by
the queries where its circuit is one of keys (that the keys do it is tested). That write-up 004's model "is able to do
the task" while four of its ten top guesses are right needs that model: `test_network.py` measures it, with a network.
"""

import json
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from exercises_utils.challenges.llm_multiplication import task as multiplication
from exercises_utils.challenges.palindromes import task as palindromes
from exercises_utils.challenges.sorted_list_one_head import task as one_head
from exercises_utils.challenges.sorted_list_two_heads import task as two_heads
from exercises_utils.challenges.sum_of_two_numbers import task as sums
from exercises_utils.models import published
from exercises_utils.models.huggingface import random_model
from exercises_utils.models.loading import load_model
from exercises_utils.models.native import build_model
from exercises_utils.models.sources import checkpoints_folder
from exercises_utils.tools import circuits
from exercises_utils.tools.hooks import ablate, record

NO_FILES = pytest.mark.skipif(
    published.LOCAL not in os.environ, reason=f"{published.LOCAL} does not say where the files are"
)
BOTH = pytest.mark.parametrize("instance", ["seed0", pytest.param("published", marks=NO_FILES)])


@pytest.fixture(scope="module")
def load(tmp_path_factory) -> Callable[[str, str], Any]:
    """Loads a model of a challenge, the published one from the files alone."""
    cache = tmp_path_factory.mktemp("cache")
    models: dict[tuple[str, str], Any] = {}

    def cached(challenge: str, instance: str) -> Any:
        if (challenge, instance) not in models:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(published, "cache_folder", lambda: cache)
                models[challenge, instance] = load_model(challenge, instance, device="cpu")
        return models[challenge, instance]

    return cached


# 000: the sorted list with one head


@BOTH
def test_000_the_four_terms_need_the_square_root_of_d_head(load, instance) -> None:
    """The write-up multiplies the four terms out, but leaves out 1/sqrt(d_head): its terms are 11.3 times too large.

    So they do not add up to the scores that the softmax gets; divided by sqrt(128), they do.
    """
    model = load("sorted_list_one_head", instance)
    tokens = one_head.make_data(8, seed=42).tokens
    with record(model, "blocks.0.attn.hook_attn_scores") as seen:
        model(tokens)
    scores = seen["blocks.0.attn.hook_attn_scores"][:, 0]
    token, position = model.W_E[tokens], model.W_pos[: tokens.shape[1]].expand(8, -1, -1)
    W_QK = model.W_Q[0, 0] @ model.W_K[0, 0].T
    terms = [query @ W_QK @ key.mT for query in (token, position) for key in (token, position)]
    seen_pairs = scores.isfinite()
    total = sum(terms)[seen_pairs]
    assert (total - scores[seen_pairs]).abs().max() > 100
    torch.testing.assert_close(total / 128**0.5, scores[seen_pairs], atol=1e-3, rtol=1e-4)


@NO_FILES
def test_000_counts_a_number_that_has_no_successor(load) -> None:
    """0.62 is 31 of 50 numbers that score their successor highest, but 49 has none: it is 31 of 49, 0.63."""
    model = load("sorted_list_one_head", "published")
    scores = circuits.qk_scores(model, (0, 0), model.W_E, model.W_E)[:50, :50]
    successor_on_top = scores.argmax(-1) == torch.arange(50) + 1
    assert successor_on_top.double().mean() == pytest.approx(0.62, abs=1e-9)
    assert not successor_on_top[49]
    assert int(successor_on_top[:49].sum()) == 31
    assert successor_on_top[:49].double().mean() == pytest.approx(0.6327, abs=1e-4)


# 001: the sorted list with two heads


@BOTH
def test_001_the_qk_caption_swaps_its_axes(load, instance) -> None:
    """The QK figure's rows are labelled "output logit", its columns "input token": rows are queries, columns keys.

    `W_E W_Q W_K^T W_E^T` gives, in the row of a number, the scores that it gives *from*; read the other way
    round, the scores of the model do not come out. And no logit is in it: it has no `W_U`.
    """
    model = load("sorted_list_two_heads", instance)
    tokens = two_heads.make_data(20, seed=43).tokens
    queries, keys = tokens[:, 11:20], tokens[:, :10]
    names = [f"blocks.0.attn.hook_{name}" for name in ("attn_scores", "q", "k")]
    with record(model, *names) as seen, record(model, "blocks.0.ln1.hook_scale") as scales:
        model(tokens)
    scale = scales["blocks.0.ln1.hook_scale"].squeeze(-1)
    for head in range(2):
        full = circuits.qk_scores(model, (0, head), model.W_E, model.W_E)
        rows_are_queries = full[queries[:, :, None], keys[:, None, :]]
        rows_are_keys = full[keys[:, None, :], queries[:, :, None]]
        # What tokens give tokens in the model: its scores with the positions' parts taken out.
        token = (model.W_E[tokens] / scale[..., None]) @ model.W_Q[0, head]
        key = (model.W_E[tokens] / scale[..., None]) @ model.W_K[0, head]
        by_hand = (token @ key.mT / 48**0.5)[:, 11:20, :10]
        divided = scale[:, 11:20, None] * scale[:, None, :10]
        torch.testing.assert_close(rows_are_queries / divided, by_hand, atol=1e-3, rtol=1e-4)
        real = seen["blocks.0.attn.hook_attn_scores"][:, head, 11:20, :10]
        assert _correlation(rows_are_queries, real) > 0.5
        assert _correlation(rows_are_keys, real) < _correlation(rows_are_queries, real) - 0.3


@NO_FILES
def test_001_the_ov_caption_gives_both_bands_to_one_head(load) -> None:
    """Its text: 0.1 copies most numbers, and 0.1 copies the others. The others, about 28 to 37, are those of 0.0."""
    model = load("sorted_list_two_heads", "published")
    copies = []
    for head in range(2):
        ov = (circuits.ov_output(model, (0, head), model.W_E) @ model.W_U)[:51, :51]
        own_on_top = ov.argmax(-1) == torch.arange(51)
        copies.append(own_on_top.nonzero().flatten().tolist())
    assert copies[0] == list(range(28, 38))
    assert copies[1] == [*range(29), *range(36, 51)]


def test_001_the_comment_at_the_last_figure_swaps_its_axes() -> None:
    """A comment says (list, source, prediction); indexed with `sources[:, None, :]` and `predictions[:, :, None]`,
    the attributions come as (list, prediction, source), as the figure beside it has them.
    """
    attributions = torch.arange(4 * 6 * 7).reshape(4, 6, 7)  # list, source position, predicted token
    lists, sources, predictions = torch.arange(4), torch.tensor([[0, 5]] * 4), torch.tensor([[2, 6]] * 4)
    picked = attributions[lists[:, None, None], sources[:, None, :], predictions[:, :, None]]
    assert picked[3, 0, 1] == attributions[3, 5, 2]  # prediction 0 (token 2), source 1 (position 5)
    assert picked[3, 0, 1] != attributions[3, 0, 6]  # what the comment says: source 0, prediction 1


# 002: palindromes


@NO_FILES
def test_002_prints_the_name_of_another_head(load) -> None:
    """ "mean ablating q in h0.0: 0.00046", and zero 2.49, are ablations of 1.0: stale loop variables are printed.

    The same ablations of 0.0, on the same 100 sequences, cost another thing altogether.
    """
    model = load("palindromes", "published")
    data = palindromes.make_data(100, seed=42)

    def cost(head: tuple[int, int], how: str) -> float:
        with ablate(model, [head], activation="q", how=how):
            ablated = palindromes.loss(model(data.tokens), data)
        return float(ablated - palindromes.loss(model(data.tokens), data))

    assert cost((1, 0), "mean") == pytest.approx(0.0004616, abs=2e-6)
    assert cost((1, 0), "zero") == pytest.approx(2.4908794, abs=2e-5)
    assert cost((0, 0), "mean") == pytest.approx(0.9412, abs=1e-3)
    assert abs(cost((0, 0), "zero") - 2.4908794) > 0.1


@NO_FILES
def test_002_the_heads_compose_through_keys_not_queries(load) -> None:
    """The sentence names queries, the evidence is of keys: mean queries of 1.0 cost nothing, mean keys do."""
    model = load("palindromes", "published")
    data = palindromes.make_data(500, seed=42)
    tokens, before = data.tokens, palindromes.loss(model(data.tokens), data)
    costs = {}
    for activation in "qk":
        with ablate(model, [(1, 0)], activation=activation, how="mean"):
            costs[activation] = float(palindromes.loss(model(tokens), data) - before)
    assert abs(costs["q"]) < 0.001
    assert costs["k"] > 0.1


@BOTH
def test_002_attributions_add_up_only_with_the_scales_of_layernorm(load, instance) -> None:
    """Its attributions leave out the last LayerNorm's scale, so their sum is no logit difference of the model.

    Divided by the scale of each sequence, which is not the same for palindromes and others, they add up.
    """
    model = load("palindromes", instance)
    data = palindromes.make_data(100, seed=42)
    logits, cache = model.run_with_cache(data.tokens)
    real = logits[:, -1, 0] - logits[:, -1, 1]
    direction = model.W_U[:, 0] - model.W_U[:, 1]
    bias = model.b_U[0] - model.b_U[1]
    components, _ = circuits.residual_components(cache)
    scale = cache["ln_final.hook_scale"][:, -1, 0]
    unscaled = (components @ direction).sum(0) + bias
    assert (unscaled - real).abs().mean() > 1
    torch.testing.assert_close(unscaled.sub(bias) / scale + bias, real, atol=1e-3, rtol=1e-3)
    of_palindromes, of_others = scale[data.is_palindrome].mean(), scale[~data.is_palindrome].mean()
    assert max(of_palindromes / of_others, of_others / of_palindromes) > 1.2


# 003: the sum of two numbers


def _flagged(data: sums.SumData) -> Bool[Tensor, "sum place"]:
    """The write-up's test for a carry, as Python reads it: a + (b % 10) != c."""
    return data.a + data.b % 10 != data.labels


def test_003_its_carries_are_of_two_kinds() -> None:
    """`a + b % 10 != c` is `a + (b % 10) != c`, since % binds as * does: it flags every column that overflows as well.

    On its 1,000 sums it counts 515, 715, 689 at the first three places; a carry *in* is at 515, 477, 440. Whether a
    sum has any carry comes out the same either way (826 do), so its ablations stand; its patterns by place mix two things.
    """
    data = sums.make_data(1000, seed=42)
    wrong, right = _flagged(data), (data.a + data.b) % 10 != data.labels
    assert wrong.sum(0)[:3].tolist() == [515, 715, 689]
    assert right.sum(0)[:3].tolist() == [515, 477, 440]
    assert torch.equal(right, sums.carry_in(data))
    assert torch.equal(wrong[:, 0], right[:, 0])  # the thousands never overflow
    overflows = data.a + data.b >= 10
    assert torch.equal(wrong, right | overflows)
    assert torch.equal(wrong.any(-1), right.any(-1))
    assert int(right.any(-1).sum()) == 826


@NO_FILES
def test_003_names_a_dimension_that_is_not_active(load) -> None:
    """Its formula has dimension 39 where its figures, and the model, have 37: row 39 of W_U is one of 44 alike."""
    model = load("sum_of_two_numbers", "published")
    norms = model.W_U[:, :10].norm(dim=-1)
    active = norms.topk(4).indices.sort().values.tolist()
    assert active == [19, 25, 26, 37]
    assert norms[39] == pytest.approx(float(norms.median()), rel=1e-3)
    assert norms[active].min() > 8 * norms[39]


@BOTH
def test_003_halves_two_embeddings(load, instance) -> None:
    """For "+" and "=" it takes half the sum of both embeddings, where the residual stream is the sum.

    The sum gives the scores that the model has at these keys; half of it gives others, by up to 1.3 on its model.
    """
    model = load("sum_of_two_numbers", instance)
    tokens = sums.make_data(100, seed=42).tokens
    names = [f"blocks.0.{name}" for name in ("attn.hook_attn_scores", "attn.hook_q", "ln1.hook_scale")]
    with record(model, *names) as seen:
        model(tokens)
    scores, q, scale = (seen[name] for name in names)
    wrong = []
    for position, token in ((4, sums.PLUS), (9, sums.EQUALS)):
        whole = (model.W_E[token] + model.W_pos[position]) / scale[:, position]
        for head in range(model.cfg.n_heads):
            queries, real = q[:, 9:13, head], scores[:, head, 9:13, position]
            constant = queries @ model.b_K[0, head] / 24**0.5  # the same for every key: no pattern has it
            of_whole = (queries @ (whole @ model.W_K[0, head])[..., None]).squeeze(-1) / 24**0.5
            torch.testing.assert_close(of_whole + constant, real, atol=1e-3, rtol=1e-3)
            wrong.append((of_whole / 2 + constant - real).abs().max())
    assert max(wrong) > 0.5


# 004: multiplication in a language model


def _metric(logits: Float[Tensor, "prompt position vocabulary"], answers: Any) -> Float[Tensor, " prompt"]:
    """The write-up's logit difference: every answer token, right minus wrong, at the *last* position; then the mean."""
    at_last = logits[:, -1].gather(-1, answers.flatten(1)).view(answers.shape)
    return (at_last[:, 0] - at_last[:, 1]).mean(-1)


@pytest.fixture(scope="module")
def small_qwen() -> Any:
    """Random weights, 14 query heads in two groups, as in the write-up's model."""
    return random_model(n_layers=2, d_model=56, n_heads=14, n_key_value_heads=2, d_vocab=15, device="cpu")


@pytest.fixture(scope="module")
def prompts_and_answers() -> tuple[Tensor, Tensor]:
    """Eight prompts of 14 tokens; twelve tokens of a right and a wrong answer, as the write-up makes them.

    Both begin with END and a space (0 and 12), and the wrong one is shorter and padded with token 0.
    """
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(0, 15, (8, 14), generator=generator)
    answers = torch.randint(1, 11, (8, 2, 12), generator=generator)
    answers[:, :, 0], answers[:, :, 1], answers[:, 1, -1] = 0, 12, 0
    return prompts, answers


def test_004_reads_every_digit_where_only_the_first_is_predicted() -> None:
    """It takes each answer token's logit at the last prompt position. What is predicted there is the first token only.

    Read there, the bundled model seems not to know the later digits; fed the right digits and read one by one where
    each is predicted, it does.
    """
    model = load_model("llm_multiplication", "seed0", device="cpu")
    products = multiplication.make_data(200, 4, answer_digits=5, order="long first")
    with torch.no_grad():
        logits = model(multiplication.sequences(products))
    digits = torch.tensor(multiplication.BUNDLED.digits)
    at_last = logits[:, multiplication.prompt_length(products) - 1][:, digits].argmax(-1)
    wrong = [
        float((at_last == multiplication.digit_at(products.product, p)).double().mean()) for p in range(5)
    ]
    right = [float(r.double().mean()) for r in multiplication.right_by_place(logits, products).values()]
    assert wrong[4] == pytest.approx(right[4])  # the first digit written is predicted there
    assert max(wrong[:4]) < 0.25
    assert min(right) > 0.5


def test_004_tokens_that_are_no_digits_are_in_its_mean(small_qwen, prompts_and_answers) -> None:
    """BOS and the space are the same in both answers, so two of its twelve terms are zero; padding sets a digit
    beside token 0, which is none. Without the two, the same difference is 12/10 as large.
    """
    prompts, answers = prompts_and_answers
    logits = small_qwen(prompts)
    at_last = logits[:, -1].gather(-1, answers.flatten(1)).view(answers.shape)
    terms = at_last[:, 0] - at_last[:, 1]
    assert (terms[:, :2] == 0).all()
    torch.testing.assert_close(terms[:, 2:].mean(-1), _metric(logits, answers) * 12 / 10)
    assert (answers[:, 1, -1] == 0).all()
    assert not set(multiplication.BUNDLED.digits) & {0}


def test_004_sets_a_sum_beside_a_mean(small_qwen, prompts_and_answers) -> None:
    """Its 2.746 is twelve times its 0.229: the same logit differences, added up in the one and averaged in the other.

    Attributions have to add up to what they attribute: the residual stream gives the mean once the sum is divided.
    """
    assert pytest.approx(0.229, abs=5e-4) == 2.746 / 12
    prompts, answers = prompts_and_answers
    logits, cache = small_qwen.run_with_cache(prompts)
    directions = small_qwen.W_U.T[answers[:, 0]] - small_qwen.W_U.T[answers[:, 1]]  # prompt, token, d_model
    biases = small_qwen.b_U[answers[:, 0]] - small_qwen.b_U[answers[:, 1]]
    resid = cache["resid_post", 1][:, -1] / cache["ln_final.hook_scale"][:, -1]
    terms = (directions @ resid[..., None]).squeeze(-1) + biases
    mean = _metric(logits, answers).mean()
    torch.testing.assert_close(terms.sum(-1).mean(), 12 * mean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(terms.mean(-1).mean(), mean, atol=1e-5, rtol=1e-4)


def test_004_its_corrupted_prompts_are_the_clean_ones(small_qwen, prompts_and_answers) -> None:
    """They are the same prompts in reverse order: the same logits, beside another prompt's answers.

    So "clean" need not be above "corrupted" (it is 0.23 to 0.27 there), and (patched - corrupted) / (clean - corrupted)
    has a denominator of either sign: a patch that helps can count as harm. And whole prompts differ, not one thing.
    """
    prompts, answers = prompts_and_answers
    corrupted = prompts.flip(0)
    torch.testing.assert_close(small_qwen(corrupted), small_qwen(prompts).flip(0), atol=1e-5, rtol=1e-4)
    assert ((corrupted != prompts).sum(-1) > 1).all()
    clean, other = 0.229, 0.27
    helped, harmed = clean + 0.05, other - 0.1
    assert (helped - other) / (clean - other) < 0 < (harmed - other) / (clean - other)


def test_004_its_value_sweep_patches_positions_for_heads(small_qwen, prompts_and_answers) -> None:
    """It patches `v[:, head]`, and the axis after the batch is the position: 14 heads, 14 tokens, so nothing stops it.

    What it calls head 5 is position 5 of both key/value heads; there are two of these, not fourteen.
    """
    prompts, _ = prompts_and_answers
    name = "blocks.1.attn.hook_v"
    values = {}
    for which, tokens in (("clean", prompts), ("corrupted", prompts.flip(0))):
        with record(small_qwen, name) as seen:
            small_qwen(tokens)
        values[which] = seen[name]
    assert values["clean"].shape[1:3] == (14, 2)  # positions, key/value heads
    assert small_qwen.cfg.n_heads == prompts.shape[1] == 14
    patched = values["corrupted"].clone()
    patched[:, 5, :] = values["clean"][:, 5, :]  # "head 5"
    changed = (patched != values["corrupted"]).any(0).any(-1)  # position, key/value head
    assert changed.nonzero().tolist() == [[5, 0], [5, 1]]
    patched = values["corrupted"].clone()
    patched[:, :, 1] = values["clean"][:, :, 1]  # one key/value head, at every position
    assert not (patched != values["corrupted"])[:, :, 0].any()


def test_004_describes_another_model() -> None:
    """It lists 12 layers, 768, 3072 and 50257, which are GPT-2's; the model that it loads has 24, 896, 4864, 151936."""
    path = checkpoints_folder() / "llm_multiplication" / "qwen2.5-0.5b.json"
    config = json.loads(path.read_text(encoding="utf-8"))["config"]
    sizes = [config[name] for name in ("n_layers", "d_model", "d_mlp", "d_vocab")]
    assert sizes == [24, 896, 4864, 151936] != [12, 768, 3072, 50257]
    assert (config["n_heads"], config["n_key_value_heads"]) == (14, 2)


# 001 to 003: loading


@pytest.mark.parametrize("task", [two_heads, palindromes, sums], ids=lambda task: task.CHALLENGE)
def test_001_to_003_load_nothing_without_strict(task) -> None:
    """`load_state_dict(weights, strict=False)` of an old state dict: TransformerLens 4 knows none of its names.

    It reports them and changes nothing, so the model answers with the weights that it was made with; strict, it refuses.
    """
    model = build_model(task.CONFIG, device="cpu", processed=False)
    tokens = task.make_data(2, seed=0).tokens
    before = model(tokens)
    old = {"embed.W_E": torch.ones(task.CONFIG.d_vocab, task.CONFIG.d_model)} | {
        f"blocks.{layer}.attn.W_{name}": torch.ones(
            task.CONFIG.n_heads, *_shape(task.CONFIG.d_model, task.CONFIG.d_head, name)
        )
        for layer in range(task.CONFIG.n_layers)
        for name in "QKVO"
    }
    report = model.load_state_dict(old, strict=False)
    assert set(report.unexpected_keys) == set(old)
    assert torch.equal(model(tokens), before)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        model.load_state_dict(old, strict=True)


def _shape(d_model: int, d_head: int, name: str) -> tuple[int, int]:
    return (d_head, d_model) if name == "O" else (d_model, d_head)


def _correlation(first: Float[Tensor, "..."], second: Float[Tensor, "..."]) -> float:
    return float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])
