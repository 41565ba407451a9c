"""Models in Hugging Face's format: what is saved is what loads, every mend of `huggingface.py`, and every refusal."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformer_lens import patching
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from exercises_utils.challenges.llm_multiplication.tokenizer import build_tokenizer
from exercises_utils.models import cards, checkpoints, huggingface, sources
from exercises_utils.models.architecture import QwenConfig
from exercises_utils.models.cards import (
    WEIGHTS,
    CheckpointError,
    FolderCard,
    MalformedCardError,
    MissingCardError,
    MissingWeightsError,
    NotFiniteError,
    SwappedError,
    TamperedError,
    TruncatedError,
    UnsafeFileError,
    WrongWeightsError,
    card_path,
)
from exercises_utils.models.checkpoints import load_checkpoint, read_folder, require_free
from exercises_utils.models.huggingface import (
    build,
    load_tokenizer,
    random_model,
    random_weights,
    save_folder,
)
from exercises_utils.models.loading import load_model, model_and_card
from exercises_utils.models.sources import available_instances, checkpoint_path, lesson_instances

# Unequal sizes; d_head is not d_model / n_heads, and in the last one the vocabulary is as wide as the stream.
CONFIGS = [
    QwenConfig(2, 24, 4, 2, 10, 40, 32, 15, 10_000.0, 1e-6),
    QwenConfig(1, 24, 6, 2, 4, 40, 32, 15, 500.0, 1e-5),
    QwenConfig(2, 16, 2, 1, 8, 24, 32, 16, 10_000.0, 1e-6),
]
CONFIG = CONFIGS[0]
ATOL = 1e-4


def tokens_for(config: QwenConfig, batch: int = 5, length: int = 9) -> Tensor:
    return torch.randint(0, config.d_vocab, (batch, length), generator=torch.Generator().manual_seed(5))


def load_folder(folder: Path, **settings: Any) -> TransformerBridge:
    """The model in a folder without a card, as one from the hub is read and built."""
    return build(*read_folder(folder), load_tokenizer(folder), device="cpu", **settings)


def plain_model(config: QwenConfig, seed: int = 3, **changes: Any) -> Qwen2ForCausalLM:
    """Hugging Face's own model with random weights; nothing of it goes through this package's loader."""
    with torch.random.fork_rng():
        model = Qwen2ForCausalLM(
            Qwen2Config(
                vocab_size=config.d_vocab,
                hidden_size=config.d_model,
                intermediate_size=config.d_mlp,
                num_hidden_layers=config.n_layers,
                num_attention_heads=config.n_heads,
                num_key_value_heads=config.n_key_value_heads,
                head_dim=config.d_head,
                max_position_embeddings=config.n_ctx,
                rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
                rms_norm_eps=config.eps,
                tie_word_embeddings=True,
                **changes,
            )
        )
    model.load_state_dict(random_weights(config, seed), strict=False)
    return model.eval().requires_grad_(False)


def card_for(folder: Path, config: QwenConfig = CONFIG, **changes: Any) -> FolderCard:
    hashes = {
        file.name: checkpoints.hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()
    }
    values = {
        "challenge": "toy",
        "instance": folder.name,
        "config": config,
        "training": {},
        "data": "none",
        "seed": 0,
        "versions": {},
        "accuracy": {},
        "hard_slices": {},
        "sha256": hashes.pop(WEIGHTS),
        "files": hashes,
    }
    return FolderCard(**{**values, **changes})


def write_card(folder: Path, **changes: Any) -> None:
    card_path(folder).write_text(card_for(folder, **changes).to_json())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An intact folder with its card beside it."""
    folder = tmp_path / "seed0"
    save_folder(plain_model(CONFIG), build_tokenizer(), folder)
    write_card(folder)
    return folder


@pytest.fixture(scope="module")
def model() -> TransformerBridge:
    return random_model(2, 24, 4, 2, 40, 15, d_head=10, seed=1, tokenizer=build_tokenizer(), device="cpu")


# ---- the same model ----------------------------------------------------------------------------------------


def test_what_is_saved_comes_back(folder: Path) -> None:
    weights, card = load_checkpoint(folder, "toy")
    assert card == card_for(folder)
    expected = random_weights(CONFIG, 3)
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert sorted(file.name for file in folder.iterdir()) == sorted([WEIGHTS, *huggingface.FILES])
    assert sorted(file.name for file in folder.parent.iterdir()) == ["seed0", "seed0.json"]
    assert all(file.stat().st_mode & 0o777 == 0o644 for file in folder.iterdir())


@pytest.mark.parametrize("config", CONFIGS)
def test_the_shapes_are_those_of_transformers(config: QwenConfig) -> None:
    theirs = {name: tuple(weight.shape) for name, weight in plain_model(config).state_dict().items()}
    assert theirs.pop("lm_head.weight") == theirs["model.embed_tokens.weight"]
    assert config.shapes() == theirs
    assert QwenConfig.from_huggingface(plain_model(config).config.to_dict()) == config


@pytest.mark.parametrize("processed", [False, True])
@pytest.mark.parametrize("config", CONFIGS)
def test_logits_are_those_of_transformers(tmp_path: Path, config: QwenConfig, processed: bool) -> None:
    plain, tokens = plain_model(config), tokens_for(config)
    save_folder(plain, build_tokenizer(), tmp_path / "model")
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model"
    ).eval()  # another way in, and another attention
    expected = theirs(tokens).logits.detach()
    torch.testing.assert_close(expected, plain(tokens).logits, atol=ATOL, rtol=0)
    logits = load_folder(tmp_path / "model", processed=processed)(tokens)
    if processed:
        assert (logits - expected).abs().max() > 0.01  # centring is not a no-op here
        logits, expected = logits.log_softmax(-1), expected.log_softmax(-1)
    torch.testing.assert_close(logits, expected, atol=ATOL, rtol=0)


@pytest.mark.parametrize("config", CONFIGS)
def test_processed_weights_are_those_of_transformer_lens(config: QwenConfig) -> None:
    """It processes the raw model itself; ours is the same, but for the axis that it may guess wrongly."""
    weights = random_weights(config, 3)
    theirs = TransformerBridge.boot_transformers(
        "Qwen2",
        hf_model=plain_model(config),
        tokenizer=huggingface.numbered_tokenizer(config.d_vocab),
        device="cpu",
    )
    theirs.enable_compatibility_mode(disable_warnings=True)
    ours = build(config, weights, device="cpu")
    names = ["W_E", "W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V", "b_O", "W_in", "W_gate", "W_out"]
    for name in names:
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), atol=1e-5, rtol=0, msg=name)
    if config.d_vocab != config.d_model:
        torch.testing.assert_close(ours.W_U, theirs.W_U, atol=1e-5, rtol=0)
        tokens = tokens_for(config)
        torch.testing.assert_close(ours(tokens), theirs(tokens), atol=ATOL, rtol=0)


@pytest.mark.parametrize("config", CONFIGS)
def test_identities_of_processed_weights(config: QwenConfig) -> None:
    weights = random_weights(config, 3)
    before = {name: weight.clone() for name, weight in weights.items()}
    processed, raw = (build(config, weights, device="cpu", processed=choice) for choice in (True, False))
    assert all(torch.equal(weights[name], before[name]) for name in weights)  # the caller's are the caller's
    assert torch.equal(processed.W_E, weights["model.embed_tokens.weight"])
    assert torch.equal(raw.W_E, raw.W_U.mT)
    assert processed.W_U.mean(-1).abs().max() < 1e-6 < raw.W_U.mean(-1).abs().max()
    assert processed.b_V.abs().max() == 0 < raw.b_V.abs().max()
    for norm in (
        *(norm for block in processed.blocks for norm in (block.ln1, block.ln2)),
        processed.ln_final,
    ):
        assert torch.equal(norm.weight, torch.ones(config.d_model))
    tokens = tokens_for(config)
    logits, cache = processed.run_with_cache(tokens)
    by_hand = cache["resid_post", -1] / cache["ln_final.hook_scale"] @ processed.W_U + processed.b_U
    torch.testing.assert_close(by_hand, logits, atol=ATOL, rtol=0)


def test_weights_explain_attention(model: TransformerBridge) -> None:
    """Scores and results from `hook_rot_q`, `hook_rot_k`, patterns and weights, with keys shared between heads."""
    _, cache = model.run_with_cache(tokens_for(CONFIG))
    for layer in range(2):
        at = {name: cache[name, layer] for name in ("rot_q", "rot_k", "v", "pattern", "attn_scores", "z")}
        k, v = (at[name].repeat_interleave(2, dim=2) for name in ("rot_k", "v"))
        scores = torch.einsum("bqhd,bkhd->bhqk", at["rot_q"], k) / 10**0.5
        past = torch.ones(9, 9).tril().bool()
        assert torch.isneginf(at["attn_scores"][..., ~past]).all()
        torch.testing.assert_close(at["attn_scores"][..., past], scores[..., past], atol=ATOL, rtol=0)
        z = torch.einsum("bhqk,bkhd->bqhd", at["pattern"], v)
        torch.testing.assert_close(at["z"], z, atol=ATOL, rtol=0)
        result = torch.einsum("bqhd,hdm->bqhm", z, model.W_O[layer])
        torch.testing.assert_close(cache["result", layer], result, atol=ATOL, rtol=0)
        total = result.sum(2) + model.b_O[layer]
        torch.testing.assert_close(cache["attn_out", layer], total, atol=ATOL, rtol=0)


def test_loading_leaves_the_global_random_state_and_the_output_alone(
    folder: Path, capfd: pytest.CaptureFixture
) -> None:
    # Not Python's own: beartype, which checks every call here, draws from it.
    state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_folder(folder)
        random_model(device="cpu")
    assert torch.equal(torch.get_rng_state(), state[0])
    assert (np.random.get_state()[1] == state[1]).all()  # noqa: NPY002
    said = capfd.readouterr()
    assert said.out + said.err == ""


def test_a_model_is_ready_to_be_read(model: TransformerBridge) -> None:
    assert not model.training
    assert not any(weight.requires_grad for weight in model.parameters())
    assert not any(module.training for module in model.modules())


def test_another_number_type(folder: Path) -> None:
    before = (folder / WEIGHTS).read_bytes()
    model = load_folder(folder, dtype=torch.bfloat16)
    logits = model(tokens_for(CONFIG))
    assert logits.dtype == torch.bfloat16
    expected = load_folder(folder)(tokens_for(CONFIG)).softmax(-1)
    assert (logits.float().softmax(-1) - expected).abs().mean() < 0.02
    assert (folder / WEIGHTS).read_bytes() == before


def test_random_models_are_drawn_from_their_seed() -> None:
    one, same, other = (random_model(seed=seed, device="cpu").W_Q for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert random_model(3, 36, 6, 3, 20, 11, device="cpu").W_K.shape == (3, 3, 36, 6)


# ---- tokens ------------------------------------------------------------------------------------------------


def test_the_course_s_tokenizer_survives_transformer_lens(folder: Path) -> None:
    for _ in range(2):  # a second model from the same folder too
        model = load_folder(folder)
        ids = [0, 2, 3, 11, 12, 4, 5, 13, 12, 5, 1, 9]
        assert model.to_tokens("12 x 34 = 408").tolist() == [ids]
        assert model.to_tokens("12 x 34 = 408", prepend_bos=False).tolist() == [ids[1:]]
        assert model.to_str_tokens("1 x 2 =") == ["<|endoftext|>", "1", " x", " ", "2", " ="]
        assert model.to_string(torch.tensor(ids[1:])) == "12 x 34 = 408"
        with torch.no_grad():
            assert torch.equal(model("12 x 34 ="), model(torch.tensor([ids[:8]])))


def test_a_tokenizer_in_memory_serves_several_models() -> None:
    tokenizer = build_tokenizer()
    for _ in range(2):
        model = random_model(tokenizer=tokenizer, device="cpu")
        assert model.to_tokens(["1 x", "2 ="]).tolist() == [[0, 2, 11], [0, 3, 13]]
    assert tokenizer.bos_token is None


def test_qwens_own_tokenizer_is_left_to_transformers(tmp_path: Path) -> None:
    """A folder as on the hub: Qwen2's class, which cuts the text by its own pattern and merges byte pairs."""
    from transformers import Qwen2Tokenizer

    letters = ["x", "=", "Ġ", *"0123456789"]
    vocabulary = {token: index for index, token in enumerate([*letters, "Ġx", "Ġ="])}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[("Ġ", "x"), ("Ġ", "=")])
    config = QwenConfig(1, 8, 2, 1, 4, 8, 16, len(tokenizer), 10_000.0, 1e-6)
    save_folder(plain_model(config), tokenizer, tmp_path / "model")
    named = json.loads((tmp_path / "model" / "tokenizer_config.json").read_text())["tokenizer_class"]
    assert named.startswith("Qwen2Tokenizer")
    assert isinstance(load_tokenizer(tmp_path / "model"), Qwen2Tokenizer)
    model = load_folder(tmp_path / "model")
    assert model.to_str_tokens("12 x 3 =") == ["<|endoftext|>", "1", "2", " x", " ", "3", " ="]


# ---- hooks -------------------------------------------------------------------------------------------------

# These need a setting of TransformerLens of their own, or are another name's work (o.hook_out: hook_attn_out).
OFF = (
    "hook_pos_embed",
    "rotary_emb.hook_out",
    "_input",
    "hook_mlp_in",
    "hook_attn_in",
    "hook_hidden_states",
    "o.hook_out",
)
WHOLE_NUMBERS = ("embed.hook_in", "rotary_emb.hook_in")


def test_every_hook_can_be_edited_by_returning_and_in_place(model: TransformerBridge) -> None:
    tokens = tokens_for(CONFIG)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        plain, cache = model.run_with_cache(tokens)
        names = [name for name in model.hook_dict if not name.endswith(OFF)]
        assert set(cache) == set(names)
        for name in names:
            if name in WHOLE_NUMBERS:
                continue

            def changed(value: Tensor) -> Tensor:
                ramp = 0.3 * torch.arange(value.shape[-1]) / value.shape[-1]
                return torch.where(value.isfinite(), 1.5 * value + ramp, value)

            returned = model.run_with_hooks(tokens, fwd_hooks=[(name, lambda value, hook: changed(value))])
            in_place = model.run_with_hooks(tokens, fwd_hooks=[(name, _in_place(changed))])
            assert (returned - plain).abs().max() > 1e-4, name
            assert torch.equal(returned, in_place), name
        torch.testing.assert_close(model(tokens), plain, atol=0, rtol=0)  # no hook is left behind


def _in_place(change: Callable[[Tensor], Tensor]) -> Callable:
    def hook(value: Tensor, hook: Any) -> None:
        value.copy_(change(value))

    return hook


def test_an_edit_changes_no_activation_that_was_cached_before(model: TransformerBridge) -> None:
    tokens = tokens_for(CONFIG)
    with torch.no_grad():
        _, untouched = model.run_with_cache(tokens)
        for edited in (
            "blocks.1.hook_resid_pre",
            "blocks.1.hook_resid_mid",
            "blocks.1.hook_attn_out",
            "ln_final.hook_in",
        ):
            seen: dict[str, Tensor] = {}

            def keep(value: Tensor, hook: Any, seen: dict[str, Tensor] = seen) -> None:
                seen[hook.name] = value

            def triple(value: Tensor, hook: Any) -> None:
                value.mul_(3)

            before = [
                "blocks.0.hook_out",
                "blocks.1.attn.hook_in",
                "blocks.0.mlp.hook_out",
                "blocks.1.attn.hook_result",
            ]
            if edited == "blocks.1.hook_resid_pre":
                before = ["blocks.0.hook_out", "blocks.0.mlp.hook_out", "blocks.0.hook_resid_mid"]
            hooks = [(name, keep) for name in before]
            model.run_with_hooks(tokens, fwd_hooks=[*hooks, (edited, triple)])
            for name, value in seen.items():
                assert torch.equal(value, untouched[name]), (edited, name)


def test_an_edit_of_resid_mid_reaches_the_mlp_and_the_stream(model: TransformerBridge) -> None:
    """Natively only the MLP would read it."""
    tokens = tokens_for(CONFIG)
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens)
        shift = torch.randn(24, generator=torch.Generator().manual_seed(0))
        seen = {}
        model.run_with_hooks(
            tokens,
            fwd_hooks=[
                ("blocks.0.hook_resid_mid", lambda value, hook: value + shift),
                ("blocks.0.hook_resid_post", lambda value, hook: seen.update(post=value)),
                ("blocks.0.hook_mlp_out", lambda value, hook: seen.update(mlp=value)),
            ],
        )
        mid = cache["resid_mid", 0] + shift
        assert not torch.allclose(seen["mlp"], cache["mlp_out", 0], atol=1e-3)
        torch.testing.assert_close(seen["post"], mid + seen["mlp"], atol=1e-5, rtol=0)
        # Patching all of it from another run gives that run's answer.
        other = tokens.roll(1, dims=0)
        _, clean = model.run_with_cache(other)
        for position in (None, -1):
            patched = model.run_with_hooks(
                tokens,
                fwd_hooks=[("blocks.1.hook_resid_mid", lambda value, hook: clean["resid_mid", 1])],
            )
            at = slice(None) if position is None else position
            torch.testing.assert_close(patched[:, at], model(other)[:, at], atol=1e-5, rtol=0)


def test_transformer_lens_s_own_patching_of_resid_mid_is_right(model: TransformerBridge) -> None:
    clean, corrupted = tokens_for(CONFIG)[:2, :5], tokens_for(CONFIG)[2:4, :5]
    with torch.no_grad():
        _, cache = model.run_with_cache(clean)
        found = patching.get_act_patch_resid_mid(model, corrupted, cache, lambda logits: logits[0, -1, 3])
        for layer, position in ((0, 1), (1, 4), (0, 4)):

            def put(value: Tensor, hook: Any, layer: int = layer, position: int = position) -> Tensor:
                value = value.clone()
                value[:, position] = cache["resid_mid", layer][:, position]
                return value

            expected = model.run_with_hooks(corrupted, fwd_hooks=[(f"blocks.{layer}.hook_resid_mid", put)])[
                0, -1, 3
            ]
            torch.testing.assert_close(found[layer, position], expected, atol=1e-5, rtol=0)


def test_gradients_reach_resid_mid_through_both_ways(model: TransformerBridge) -> None:
    tokens = tokens_for(CONFIG)[:1]
    shift = torch.zeros(24, requires_grad=True)
    hooks = [("blocks.1.hook_resid_mid", lambda value, hook: value + shift)]
    model.run_with_hooks(tokens, fwd_hooks=hooks)[0, -1, 3].backward()
    step = torch.randn(24, generator=torch.Generator().manual_seed(0)) * 1e-2
    with torch.no_grad():
        up, down = (
            model.run_with_hooks(
                tokens, fwd_hooks=[("blocks.1.hook_resid_mid", lambda value, hook, s=sign: value + s * step)]
            )[0, -1, 3]
            for sign in (1, -1)
        )
    assert shift.grad is not None
    torch.testing.assert_close((up - down) / 2, shift.grad @ step, atol=1e-4, rtol=1e-2)


# ---- each way to be wrong ----------------------------------------------------------------------------------


def without_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def without_folder(folder: Path) -> None:
    shutil.rmtree(folder)


def without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def without_card(folder: Path) -> None:
    card_path(folder).unlink()


def with_one_file_more(folder: Path) -> None:
    (folder / "generation_config.json").write_text("{}")


def with_a_pickle_more(folder: Path) -> None:
    torch.save({}, folder / "pytorch_model.bin")


def pickled_weights(folder: Path) -> None:
    torch.save(random_weights(CONFIG, 3), folder / WEIGHTS)
    write_card(folder)


def truncated(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])


def one_byte_changed(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(bytes(content))


def swapped(folder: Path) -> None:
    other = folder.with_name("seed1")
    save_folder(plain_model(CONFIG, seed=4), build_tokenizer(), other)
    write_card(other)
    shutil.copyfile(other / WEIGHTS, folder / WEIGHTS)


def changed_tokenizer(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('" x"', '" y"'))


def changed_config(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "num_attention_heads": 8}))


def config_that_is_not_the_card_s(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "rms_norm_eps": 1e-3}))
    write_card(folder)


def config_with_code(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "auto_map": {"AutoModel": "evil.Model"}}))
    write_card(folder)


def _rewrite(folder: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(
        {name: weight.contiguous() for name, weight in weights.items()}, folder / WEIGHTS, {"format": "pt"}
    )
    write_card(folder)


def missing_weight(folder: Path) -> None:
    _rewrite(folder, lambda weights: weights.pop("model.norm.weight"))


def transposed_weight(folder: Path) -> None:
    name = "model.embed_tokens.weight"
    _rewrite(folder, lambda weights: weights.update({name: weights[name].mT}))


def half_precision(folder: Path) -> None:
    _rewrite(
        folder, lambda weights: weights.update({name: weight.half() for name, weight in weights.items()})
    )


def nan_weight(folder: Path) -> None:
    _rewrite(folder, lambda weights: weights["model.norm.weight"].__setitem__(0, torch.nan))


def card_of_a_file(folder: Path) -> None:
    values = json.loads(card_path(folder).read_text())
    config = {
        "n_layers": 1,
        "d_model": 6,
        "n_heads": 2,
        "d_head": 4,
        "n_ctx": 5,
        "d_vocab": 7,
        "d_vocab_out": 3,
    }
    config |= {"normalization": "LN", "attention_biases": True, "unembed_bias": True}
    values = {**values, "kind": "native", "config": config}
    del values["files"], values["variant"]
    card_path(folder).write_text(json.dumps(values))


def card_without_files(folder: Path) -> None:
    values = json.loads(card_path(folder).read_text())
    del values["files"]
    card_path(folder).write_text(json.dumps(values))


def heads_that_do_not_divide(folder: Path) -> None:
    values = json.loads(card_path(folder).read_text())
    values["config"]["n_key_value_heads"] = 3
    card_path(folder).write_text(json.dumps(values))


BROKEN: list[tuple[Callable[[Path], None], type[CheckpointError], str]] = [
    (without_weights, MissingWeightsError, "There is no weights file .*model.safetensors"),
    (without_folder, MissingWeightsError, "There is no weights file"),
    (without_tokenizer, MissingWeightsError, "has no tokenizer.json"),
    (without_card, MissingCardError, "has no card: seed0.json is missing"),
    (with_one_file_more, TamperedError, "holds what its card does not name: generation_config.json"),
    (with_a_pickle_more, UnsafeFileError, "pytorch_model.bin. Nothing of it was loaded"),
    (pickled_weights, UnsafeFileError, "is a pickle"),
    (truncated, TruncatedError, "its header announces"),
    (one_byte_changed, TamperedError, "has SHA-256 [0-9a-f]{64}; its card says"),
    (swapped, SwappedError, "the weights that belong to seed1.json, not to seed0.json"),
    (changed_tokenizer, TamperedError, "tokenizer.json is not the file that its card was written for"),
    (changed_config, TamperedError, "config.json is not the file"),
    (config_that_is_not_the_card_s, WrongWeightsError, "and the card have different sizes"),
    (config_with_code, WrongWeightsError, "auto_map"),
    (missing_weight, WrongWeightsError, r"needs \['model.norm.weight'\]"),
    (transposed_weight, WrongWeightsError, r"is torch.float32 \(24, 15\); expected torch.float32 \(15, 24\)"),
    (half_precision, WrongWeightsError, "is torch.float16"),
    (nan_weight, NotFiniteError, "model.norm.weight holds NaN"),
    (card_of_a_file, MalformedCardError, "is the card of a file"),
    (card_without_files, MalformedCardError, r"missing fields \['files'\]"),
    (heads_that_do_not_divide, MalformedCardError, "n_heads a multiple of n_key_value_heads"),
]


@pytest.mark.parametrize(("damage", "error", "message"), BROKEN, ids=[case[0].__name__ for case in BROKEN])
def test_each_damage_has_its_own_error(
    folder: Path, damage: Callable[[Path], None], error: type[CheckpointError], message: str
) -> None:
    load_checkpoint(folder, "toy")
    damage(folder)
    with pytest.raises(error, match=message) as raised:
        model_and_card(folder, "toy", device="cpu")
    assert type(raised.value) is error
    assert str(folder.parent) in str(raised.value)


def test_what_a_file_browser_leaves_is_not_a_file_more(folder: Path) -> None:
    (folder / ".DS_Store").write_bytes(b"\0")
    load_checkpoint(folder, "toy")


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (without_weights, MissingWeightsError, "Only safetensors are loaded"),
        (lambda folder: (folder / "config.json").unlink(), MissingWeightsError, "no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), WrongWeightsError, "cannot be used"),
        (lambda folder: (folder / "config.json").write_text("[]"), WrongWeightsError, "cannot be used"),
        (config_with_code, WrongWeightsError, "auto_map"),
        (missing_weight, WrongWeightsError, "do not belong to this config: model.norm.weight"),
        (
            lambda folder: (folder / "tokenizer_config.json").unlink(),
            MissingWeightsError,
            "no tokenizer_config",
        ),
    ],
)
def test_a_folder_without_a_card_is_checked_too(
    folder: Path, damage: Callable[[Path], None], error: type[CheckpointError], message: str
) -> None:
    damage(folder)
    with pytest.raises(error, match=message):
        load_folder(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "llama"},
        {"tie_word_embeddings": False},
        {"use_sliding_window": True},
        {"hidden_act": "gelu"},
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}},
        {"num_hidden_layers": None},
        {"num_hidden_layers": "2"},
        {"rope_parameters": {}},
    ],
)
def test_other_models_are_not_read(changes: dict[str, Any]) -> None:
    values = plain_model(CONFIG).config.to_dict()
    assert QwenConfig.from_huggingface(values) == CONFIG
    with pytest.raises(ValueError, match="Qwen2 model"):
        QwenConfig.from_huggingface({**values, **changes})


# ---- saving, finding ---------------------------------------------------------------------------------------


def test_a_folder_is_replaced_whole_or_not_at_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {file.name: file.read_bytes() for file in folder.iterdir()}

    def fails(self: Any, path: Path) -> None:
        (Path(path) / "tokenizer.json").write_text("half of")
        raise OSError("the disk is full")

    tokenizer = build_tokenizer()
    monkeypatch.setattr(type(tokenizer), "save_pretrained", fails)
    for target in (folder, folder.with_name("new")):
        with pytest.raises(OSError, match="the disk is full"):
            save_folder(plain_model(CONFIG, seed=4), tokenizer, target)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert sorted(path.name for path in folder.parent.iterdir()) == ["seed0", "seed0.json"]
    monkeypatch.undo()
    save_folder(plain_model(CONFIG, seed=4), build_tokenizer(), folder)
    assert torch.equal(
        load_file(folder / WEIGHTS)["model.norm.weight"], random_weights(CONFIG, 4)["model.norm.weight"]
    )
    with pytest.raises(TamperedError):
        load_checkpoint(folder)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["seed0", "seed0.json"]


def test_nothing_is_overwritten_unasked(folder: Path) -> None:
    with pytest.raises(cards.CheckpointExistsError, match=r"seed0 and .*seed0.json exists already"):
        require_free(folder, force=False, folder=True)
    require_free(folder, force=True, folder=True)
    require_free(folder.with_name("seed7"), force=False, folder=True)
    with pytest.raises(CheckpointError, match="is a folder's, without .safetensors"):
        require_free(folder.with_suffix(".safetensors"), force=True, folder=True)


def test_folders_are_instances(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = folder.parent / "checkpoints"
    (shelf / "toy").mkdir(parents=True)
    monkeypatch.setattr(sources, "checkpoints_folder", lambda: shelf)
    for name, variant in (("seed10", "default"), ("seed2", "default"), ("small", "other")):
        shutil.copytree(folder, shelf / "toy" / name)
        write_card(shelf / "toy" / name, variant=variant)
    (shelf / "toy" / "evidence").mkdir()
    (shelf / "toy" / "far.json").write_text('{"kind": "hub"}')
    assert available_instances("toy") == ["seed2", "seed10", "small"]
    assert lesson_instances("toy") == ["seed2", "seed10"]
    assert checkpoint_path("toy", "seed2") == shelf / "toy" / "seed2"
    assert load_model("toy", "seed2", device="cpu").cfg.n_key_value_heads == 2
    assert load_model("toy", folder, device="cpu").cfg.d_model == 24
    assert load_model("toy", str(folder), device="cpu").cfg.d_model == 24
    with pytest.raises(cards.UnknownInstanceError, match='seed2, seed10, small; or "far" from the hub'):
        load_model("toy", "seed1")
    (shelf / "other").mkdir()
    with pytest.raises(cards.WrongChallengeError):
        load_model("other", folder)


def test_loading_reaches_for_no_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*arguments: Any, **keywords: Any) -> None:
        raise AssertionError("the network was reached for")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert model_and_card(folder, "toy", device="cpu")[0].to_tokens("1 x 2").shape == (1, 5)
