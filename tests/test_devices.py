"""Devices: where models go, that data is the same everywhere, and that the package's functions mix no devices.

The second device is a stand-in (`other_device`): these tests find mixed devices without a GPU. They do not say that anything
has run on one.
"""

import importlib
import re

import pytest
import torch

from exercises_utils.evidence import scores as evidence
from exercises_utils.evidence.stored import accuracy
from exercises_utils.models import devices, hub, huggingface
from exercises_utils.models.devices import default_device, lesson_device
from exercises_utils.models.huggingface import random_model
from exercises_utils.models.loading import load_model
from exercises_utils.models.native import build_model
from exercises_utils.models.sources import hub_addresses
from exercises_utils.tools import circuits
from exercises_utils.tools.hooks import HOW, PER_HEAD, ablate, patch, record
from exercises_utils.tools.patching import get_act_patch
from tests.other_device import OTHER, Elsewhere, MixedDevicesError, other_device
from tools.environment import ROOT

CHALLENGES = ["palindromes", "sorted_list_one_head", "sorted_list_two_heads", "sum_of_two_numbers"]
SOURCES = [*(ROOT / "exercises_utils").rglob("*.py"), *(ROOT / "solutions").glob("*.py")]


def module(challenge, name):
    return importlib.import_module(f"exercises_utils.challenges.{challenge}.{name}")


# ------------------------------------------------------------------------------------------------ the stand-in


def test_the_stand_in_refuses_what_a_gpu_refuses():
    with other_device():
        there, here = torch.arange(6.0, device="cuda").view(2, 3), torch.ones(3)
        index = torch.tensor([1, 0])
        for mixed in (
            lambda: there + here,
            lambda: torch.cat([there[0], here]),
            lambda: there @ here,
            lambda: here[index.to("cuda")],
            lambda: here.gather(0, index.to("cuda")),
            lambda: torch.nn.functional.embedding(index, there),
            lambda: here.copy_(there[0]) + there[0],
            lambda: torch.randn(2, device="cuda", generator=torch.Generator()),
            lambda: there.numpy(),
        ):
            with pytest.raises(MixedDevicesError):
                mixed()
        assert there.device == (there + 1).device == there.clone().device == OTHER
        assert there.cpu().equal(torch.arange(6.0).view(2, 3))
        assert (there * torch.tensor(2.0)).tolist() == [[0, 2, 4], [6, 8, 10]]
        assert there[index].tolist() == [[3, 4, 5], [0, 1, 2]]
        assert there[[index, torch.tensor([2, 0])]].tolist() == there[[1, 0], [2, 0]].tolist() == [5, 0]
        there[index == 1] = torch.tensor(9.0)
        there += 1
        assert there.sum().item() == 45
        assert f"{there.max():.1f}" == "10.0"
        assert torch.tensor([[there[0, 1], 2]]).tolist() == [[10, 2]]
        assert torch.nn.Linear(3, 1).to("cuda").double()(there.double()).dtype == torch.float64
        assert here.to(there).device == torch.tensor([1], device="cuda").device == OTHER
    assert isinstance(there, Elsewhere)


# ----------------------------------------------------------------------------------------- where models go


@pytest.fixture
def with_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("EXERCISES_DEVICE", raising=False)


def test_much_work_goes_to_the_gpu_and_lessons_do_not(with_a_gpu, monkeypatch):
    assert (default_device(), lesson_device()) == (torch.device("cuda"), torch.device("cpu"))
    monkeypatch.setenv("EXERCISES_DEVICE", "")
    assert (default_device(), lesson_device()) == (torch.device("cuda"), torch.device("cpu"))
    for named in ("cpu", "cuda", "meta"):
        monkeypatch.setenv("EXERCISES_DEVICE", named)
        assert default_device() == lesson_device() == torch.device(named)
    monkeypatch.delenv("EXERCISES_DEVICE")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert default_device() == lesson_device() == torch.device("cpu")


@pytest.mark.parametrize("challenge", [*CHALLENGES, "llm_multiplication"])
def test_the_models_of_the_lessons_stay_on_the_cpu(challenge, with_a_gpu, monkeypatch):
    assert load_model(challenge, "seed0").W_E.device == torch.device("cpu")
    monkeypatch.setenv("EXERCISES_DEVICE", "cuda")
    with other_device():
        assert load_model(challenge, "seed0").W_E.device == OTHER


def test_random_models_stay_on_the_cpu(with_a_gpu, monkeypatch):
    config = module("palindromes", "task").CONFIG
    assert build_model(config).W_E.device == random_model().W_E.device == torch.device("cpu")
    monkeypatch.setenv("EXERCISES_DEVICE", "cuda")
    with other_device():
        assert build_model(config).W_E.device == random_model().W_E.device == OTHER


def test_the_model_from_the_hub_goes_to_the_gpu(with_a_gpu, monkeypatch):
    address = hub_addresses("llm_multiplication")["qwen2.5-0.5b"]
    measured, loaded, small = [], [], random_model()
    monkeypatch.setattr(devices, "free_memory", lambda device: measured.append(device))
    monkeypatch.setattr(hub.OnHub, "fetch", lambda model: address.parent)
    monkeypatch.setattr(hub.OnHub, "read", lambda model, path: ({}, model.card))
    monkeypatch.setattr(huggingface, "load_tokenizer", lambda folder: None)
    monkeypatch.setattr(huggingface, "build", lambda *given: (loaded.append(given[3]), small)[1])
    load_model("llm_multiplication", "qwen2.5-0.5b")
    load_model("llm_multiplication", "qwen2.5-0.5b", device="cpu")
    monkeypatch.setenv("EXERCISES_DEVICE", "cpu")
    load_model("llm_multiplication", "qwen2.5-0.5b")
    assert measured == loaded == [torch.device(name) for name in ("cuda", "cpu", "cpu")]


def test_a_gpu_that_is_named_and_not_there_is_no_reason_to_use_the_cpu(monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.setenv("EXERCISES_DEVICE", "cuda")
    with pytest.raises((AssertionError, RuntimeError), match="(?i)cuda"):
        load_model("palindromes")


def test_devices_are_handled_in_one_place():
    """Free memory of a GPU is asked of its driver; all else asks `default_device`, `lesson_device`, or a tensor."""
    assert len(SOURCES) > 50
    names = re.compile(r"""\.cuda\(|["']cuda[":']|\.to\(\s*["'](?!cpu)|set_default_device|is_available\(\)""")
    found = {
        (path.relative_to(ROOT).as_posix(), line.strip())
        for path in SOURCES
        for line in path.read_text().splitlines()
        if names.search(line)
    }
    assert found == {
        ("exercises_utils/models/devices.py", 'automatic = "cuda" if torch.cuda.is_available() else "cpu"'),
        ("exercises_utils/models/devices.py", 'if device.type == "cuda":'),
    }


@pytest.mark.parametrize("challenge", CHALLENGES)
def test_data_is_the_same_wherever_it_goes(challenge, monkeypatch):
    task = module(challenge, "task")
    here = task.make_data(size=64, seed=3)
    monkeypatch.setenv("EXERCISES_DEVICE", "cuda")
    with other_device():
        drawn = task.make_data(size=64, seed=3)
        assert drawn.tokens.device == torch.device("cpu")
        there = drawn.to("cuda")
        assert type(there) is type(here)
        assert there.tokens.device == there.labels.device == OTHER
        for data in (drawn, there, there.to("cpu")):
            assert data.tokens.cpu().equal(here.tokens)
            assert data.labels.cpu().equal(here.labels)


# --------------------------------------------------------------------------------- what the package computes


@pytest.fixture(scope="module", params=CHALLENGES)
def both(request):
    """Compares what a function of a model, the challenge's modules and data gives here and on the other device."""
    challenge = request.param
    task, of_evidence = module(challenge, "task"), module(challenge, "evidence")
    data = task.make_data(size=64, seed=3)
    with torch.no_grad(), other_device():
        here, there = (load_model(challenge, "seed0", device=device) for device in ("cpu", "cuda"))

    def compare(what):
        expected = torch.as_tensor(what(here, task, of_evidence, data))
        with other_device():
            found = what(there, task, of_evidence, data)
            found = found.cpu() if isinstance(found, torch.Tensor) else torch.tensor(found)
        torch.testing.assert_close(found, expected, check_dtype=False)

    return compare


def test_tokens_on_the_cpu_go_to_the_model(both):
    both(lambda model, task, of_evidence, data: model(data.tokens))
    both(lambda model, task, of_evidence, data: model.run_with_cache(data.tokens)[1]["z", 0])
    both(lambda model, task, of_evidence, data: model(data.tokens.to(model.W_E.device)))


def test_the_tasks_judge_logits_wherever_they_are(both):
    both(lambda model, task, of_evidence, data: task.loss(model(data.tokens), data))
    both(lambda model, task, of_evidence, data: task.correct(model(data.tokens), data))
    both(lambda model, task, of_evidence, data: of_evidence.answers(model(data.tokens)))
    both(lambda model, task, of_evidence, data: of_evidence.margin(model(data.tokens), data.tokens))
    both(lambda model, task, of_evidence, data: accuracy(of_evidence, data.tokens)(model(data.tokens)))


def test_data_goes_to_the_model_whole(both):
    def share(model, task, of_evidence, data):
        data = data.to(model.cfg.device)
        logits = model(data.tokens)
        right = logits[:, -1, : len(data)].argmax(-1) == data.labels.flatten()[: len(data)]
        assert task.correct(logits, data).device == data.tokens.device
        return accuracy(of_evidence, data.tokens)(logits) + right.float().mean().item()

    both(share)


@pytest.mark.parametrize("activation", PER_HEAD + ("pattern",))
def test_interventions(both, activation):
    for how in HOW:
        for reference in (None, slice(20)):

            def ablated(model, task, of_evidence, data, how=how, reference=reference):
                others = data.tokens[reference] if reference else None
                with ablate(model, [(0, 0)], activation=activation, how=how, reference=others):
                    return model(data.tokens)[:, -1]

            both(ablated)

    def patched(model, task, of_evidence, data):
        name = f"blocks.0.attn.hook_{activation}"
        with record(model, name) as seen:
            model(data.tokens.flip(0))
        with patch(model, activation, 0, seen[name], heads=[0], positions=[2, 3]):
            return model(data.tokens)[:, -1]

    both(patched)


def test_circuits(both):
    def scores(model, task, of_evidence, data):
        return circuits.causal(circuits.qk_scores(model, (0, 0), model.W_pos, model.W_pos)).softmax(-1)

    def written(model, task, of_evidence, data):
        return circuits.ov_output(model, (0, 0), model.W_E) @ model.W_U

    def parts(model, task, of_evidence, data):
        return circuits.residual_components(model.run_with_cache(data.tokens)[1])[0].sum(0)

    both(scores)
    both(written)
    both(lambda *what: parts(*what) if what[1].CONFIG.attention_biases else what[0].W_E)


@pytest.mark.parametrize("ablation", ["mean", "resample"])
def test_scores_of_circuits(both, ablation):
    def score(model, task, of_evidence, data):
        scorer = evidence.CircuitScorer(
            model, data.tokens, accuracy(of_evidence, data.tokens), chance=0.0, trained=1.0, ablation=ablation
        )
        heads = scorer.all_heads
        found = evidence.circuit_score(scorer, heads[:1])
        return [found.score, found.empty, *scorer.scores([heads, scorer.all_sites[::2]]).tolist()]

    both(score)


def test_scores_of_counterexamples(both):
    def search(model, task, of_evidence, data):
        return evidence.random_search(model, of_evidence.hard_inputs, margin=of_evidence.margin, budget=200)

    both(search)


@pytest.mark.parametrize("activation", ["resid_pre", "z", "pattern"])
def test_activation_patching(both, activation):
    def sweep(model, task, of_evidence, data):
        def metric(logits):
            return (logits[:, -1, 0] - logits[:, -1, 1]).mean()

        clean, corrupted = data.tokens[:4], data.tokens[4:8]
        return get_act_patch(model, clean, corrupted, metric, activation, progress=False)

    both(sweep)


def test_random_models_have_the_same_weights_everywhere():
    config = module("palindromes", "task").CONFIG
    here = build_model(config, seed=5, device="cpu")
    with other_device():
        there = build_model(config, seed=5, device="cuda")
        assert {
            name: weight.cpu().equal(here.state_dict()[name]) for name, weight in there.state_dict().items()
        }
        assert there.W_E.device == OTHER
