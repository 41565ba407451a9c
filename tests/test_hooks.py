"""Interventions: what they change, what they leave, and that nothing stays on the model."""

import pytest
import torch
from transformer_lens.utilities import get_act_name

from exercises_utils.models.architecture import ModelConfig
from exercises_utils.models.native import build_model
from exercises_utils.tools.hooks import ablate, patch, record

CONFIG = ModelConfig(n_layers=2, n_heads=3, d_model=20, d_head=6, n_ctx=9, d_vocab=11, d_vocab_out=4)


@pytest.fixture(scope="module")
def model():
    return build_model(CONFIG, seed=1, device="cpu")


@pytest.fixture(scope="module")
def tokens():
    return torch.randint(11, (7, 9), generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def nothing_stays(model, tokens):
    before = model(tokens)
    yield
    assert not any(point.fwd_hooks for point in model.hook_dict.values())
    assert torch.equal(model(tokens), before)


def read(model, tokens, name, layer):
    return model.run_with_cache(tokens)[1][name, layer]


@pytest.mark.parametrize("activation", ["q", "k", "v", "z", "result", "attn_scores", "pattern"])
def test_patching_a_run_with_itself_changes_nothing(model, tokens, activation):
    for layer in (0, 1):
        with patch(model, activation, layer, read(model, tokens, activation, layer)):
            assert torch.allclose(model(tokens), model.forward(tokens), atol=1e-6)


def test_a_patch_reaches_the_chosen_heads_and_positions_only(model, tokens):
    z = read(model, tokens, "z", 0)
    new = torch.full_like(z, 3.0)
    name = get_act_name("z", 0)
    with patch(model, "z", 0, new, heads=[2], positions=[1, 4]), record(model, name) as seen:
        model(tokens)
    expected = z.clone()
    expected[:, [1, 4], 2] = 3.0
    assert torch.allclose(seen[name], expected, atol=1e-6)


def test_positions_of_a_pattern_are_queries(model, tokens):
    pattern = read(model, tokens, "pattern", 1)
    new = torch.zeros_like(pattern)
    name = get_act_name("pattern", 1)
    with patch(model, "pattern", 1, new, heads=[0], positions=[3]), record(model, name) as seen:
        model(tokens)
    expected = pattern.clone()
    expected[:, 0, 3] = 0.0
    assert torch.allclose(seen[name], expected, atol=1e-6)


def test_a_patch_of_one_sequence_is_used_for_all(model, tokens):
    z = read(model, tokens, "z", 0)[:1]
    with patch(model, "z", 0, z):
        one = model(tokens)
    with patch(model, "z", 0, z.expand(len(tokens), -1, -1, -1)):
        assert torch.equal(model(tokens), one)


@pytest.mark.parametrize("activation", ["q", "k", "v", "z", "result"])
def test_zero_and_mean_ablation_by_hand(model, tokens, activation):
    name = get_act_name(activation, 1)
    clean = read(model, tokens, activation, 1)
    for how, instead in (
        ("zero", torch.zeros_like(clean)),
        ("mean", clean.mean(0, keepdim=True).expand_as(clean)),
    ):
        expected = clean.clone()
        expected[:, :, 1] = instead[:, :, 1]
        with ablate(model, [(1, 1)], activation=activation, how=how), record(model, name) as seen:
            model(tokens)
        assert torch.allclose(seen[name], expected, atol=1e-5), how


def test_heads_of_several_layers_are_ablated_together(model, tokens):
    with ablate(model, [(0, 1), (1, 0), (1, 2)], how="zero"):
        together = model(tokens)
    with ablate(model, [(0, 1)], how="zero"), ablate(model, [(1, 0), (1, 2)], how="zero"):
        assert torch.allclose(model(tokens), together, atol=1e-6)


def test_the_mean_can_come_from_other_sequences(model, tokens):
    reference = torch.randint(11, (30, 9), generator=torch.Generator().manual_seed(5))
    mean = read(model, reference, "z", 0).mean(0)
    name = get_act_name("z", 0)
    with ablate(model, [(0, 2)], how="mean", reference=reference), record(model, name) as seen:
        model(tokens)
    assert torch.allclose(seen[name][:, :, 2], mean[None, :, 2].expand(len(tokens), -1, -1), atol=1e-6)


def test_resampling_gives_nobody_its_own_and_depends_on_the_seed(model, tokens):
    clean, name = read(model, tokens, "z", 0), get_act_name("z", 0)
    draws = []
    for seed in (0, 0, 1):
        with ablate(model, [(0, 1)], how="resample", seed=seed), record(model, name) as seen:
            model(tokens)
        drawn = seen[name][:, :, 1]
        assert not any(torch.allclose(drawn[i], clean[i, :, 1]) for i in range(len(tokens)))
        assert all(any(torch.allclose(row, clean[i, :, 1]) for i in range(len(tokens))) for row in drawn)
        draws.append(drawn)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_noise_is_standard_normal_and_leaves_the_global_random_state(model, tokens):
    state, name = torch.get_rng_state(), get_act_name("z", 0)
    many = tokens.repeat(60, 1)
    with ablate(model, [(0, 0)], how="noise"), record(model, name) as seen:
        model(many)
    drawn = seen[name][:, :, 0]
    assert abs(drawn.mean()) < 0.02
    assert abs(drawn.std() - 1) < 0.02
    assert torch.equal(torch.get_rng_state(), state)


def test_a_block_that_ends_in_an_error_leaves_nothing(model, tokens):
    with pytest.raises(RuntimeError, match="on purpose"), ablate(model, [(0, 0)]):
        raise RuntimeError("on purpose")


def test_record_keeps_copies(model, tokens):
    names = [get_act_name("resid_pre", 1), get_act_name("resid_post", 0)]

    def in_place(activation, hook):
        activation += 1.0

    with model.hooks(fwd_hooks=[(names[0], in_place)]), record(model, *names) as seen:
        model(tokens)
    assert (seen[names[0]] - seen[names[1]]).abs().max() > 0.5


def enter(block, run=lambda: None):
    with block:
        run()


def test_errors_say_what_was_expected(model, tokens):
    def run():
        model(tokens)

    with pytest.raises(ValueError, match="how is 'median'; expected one of zero, mean, resample, noise"):
        enter(ablate(model, [(0, 0)], how="median"))
    with pytest.raises(ValueError, match="activation is 'resid'; expected one of q, k, v"):
        enter(ablate(model, [(0, 0)], activation="resid"))
    with pytest.raises(ValueError, match="layer is 2; this model has layers 0 to 1"):
        enter(ablate(model, [(2, 0)]))
    with pytest.raises(TypeError, match="a head is a pair"):
        enter(ablate(model, [0]))
    with pytest.raises(IndexError, match="heads 0 to 2; got head 3"):
        enter(ablate(model, [(0, 3)]), run)
    with pytest.raises(KeyError, match="no hook 'pattern'"):
        enter(record(model, "pattern"))
    with pytest.raises(ValueError, match=r"has shape .*\(batch, head, query, key\)"):
        enter(patch(model, "pattern", 0, torch.zeros(7, 2, 9, 9)), run)
    with pytest.raises(ValueError, match="holds 3 sequences, the run 7"):
        enter(patch(model, "z", 0, read(model, tokens, "z", 0)[:3]), run)


def test_one_head_or_position_needs_no_list(model, tokens):
    other = model.run_with_cache(tokens.flip(0))[1]["pattern", 0]
    with patch(model, "pattern", 0, other, heads=[1], positions=[8]):
        expected = model(tokens)
    with patch(model, "pattern", 0, other, heads=1, positions=8):
        assert torch.equal(model(tokens), expected)
    assert not torch.equal(expected, model(tokens))
