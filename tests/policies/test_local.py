"""LocalPolicy against the model itself: exact probabilities, teacher forcing, `generate`, and its own promises."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency, chisquare
from tiny_models import byte_level, letters, sentence_piece, tiny
from transformers import MistralConfig, MistralForCausalLM

from stepreward.core.errors import InputError, ModelError
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Continuation, Policy, Propose
from stepreward.core.types import Problem, Step
from stepreward.policies.local import LocalPolicy

BYTES = byte_level()
MODELS = {"qwen2": tiny("qwen2", BYTES), "llama": tiny("llama", BYTES, seed=1)}
PROBLEMS = [Problem(str(i), "Mia has " + "12 + " * (i % 7) + f"{i} apples.") for i in range(24)]


def policy(family: str = "qwen2", **settings: Any) -> LocalPolicy:
    return LocalPolicy(MODELS[family], BYTES, **{"max_tokens": 60, **settings})


def ask(problem: Problem = PROBLEMS[3], prefix: tuple[Step, ...] = (), seed: int = 0, **settings: Any) -> Propose:
    return Propose(problem, prefix, Key.seed(seed).fold(problem.id), **settings)


def ids_of(answer: Continuation) -> list[int]:
    return [token for step in answer.steps for token in step.tokens or ()]


def logprobs_of(answer: Continuation) -> list[float]:
    return [value for step in answer.steps for value in step.logprobs or ()]


# The distribution -----------------------------------------------------------------------------------------------------


def exact(model: Any, prompt: tuple[int, ...], eos: int, limit: int) -> dict[tuple[int, ...], float]:
    """Probability of every token sequence that ends with eos or at the limit, by enumeration."""
    probabilities, open_ = {}, {(): 1.0}
    for _ in range(limit):
        longer = {}
        for written, mass in open_.items():
            with torch.no_grad():
                following = model(torch.tensor([[*prompt, *written]])).logits[0, -1].double().softmax(-1)
            for token, p in enumerate(following.tolist()):
                (probabilities if token == eos else longer)[(*written, token)] = mass * p
        open_ = longer
    return probabilities | open_


def pooled(
    counts: Counter[tuple[int, ...]], expected: dict[tuple[int, ...], float], n: int
) -> tuple[list[float], list[float]]:
    """Observed and expected counts, sequences expected fewer than 5 times in one cell."""
    cells = [s for s, p in expected.items() if n * p >= 5]
    seen, wanted = [float(counts[s]) for s in cells], [n * expected[s] for s in cells]
    return [*seen, n - sum(seen)], [*wanted, n - sum(wanted)]


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_sequences_have_the_model_s_exact_probabilities(family: str) -> None:
    tokenizer = letters("abcd")  # white space alone is no step, and its tokens are in none
    model = tiny(family, tokenizer, seed=2)
    local = LocalPolicy(model, tokenizer, max_tokens=3, batch_size=500)
    n = 6000
    (answers,) = local.propose([Propose(Problem("p", "ab"), (), Key.seed(0), n=n)])
    eos = tokenizer.eos_token_id
    counts = Counter((*ids_of(a), eos) if a.finished else tuple(ids_of(a)) for a in answers)
    expected = exact(model, local.prompt_ids(Problem("p", "ab")), eos, 3)
    assert sum(expected.values()) == pytest.approx(1)
    assert set(counts) <= set(expected)
    # A right sampler fails for 1 seed in 1000; the seed is fixed.
    assert chisquare(*pooled(counts, expected, n)).pvalue > 1e-3


def test_generate_samples_the_same_distribution() -> None:
    tokenizer = letters("abcd")  # white space alone is no step, and its tokens are in none
    model = tiny("qwen2", tokenizer, seed=2)
    local = LocalPolicy(model, tokenizer, max_tokens=2, batch_size=500)
    problem, n, eos = Problem("p", "ab"), 4000, tokenizer.eos_token_id
    (answers,) = local.propose([Propose(problem, (), Key.seed(1), n=n)])
    ours = Counter((*ids_of(a), eos) if a.finished else tuple(ids_of(a)) for a in answers)
    torch.manual_seed(0)
    prompt = torch.tensor([local.prompt_ids(problem)]).expand(n, -1)
    out = model.generate(prompt, do_sample=True, top_k=0, max_new_tokens=2, pad_token_id=eos)[:, prompt.shape[1] :]
    theirs = Counter((eos,) if row[0] == eos else tuple(row) for row in out.tolist())
    cells = [s for s in ours | theirs if ours[s] + theirs[s] >= 10]
    assert chi2_contingency([[ours[s] for s in cells], [theirs[s] for s in cells]]).pvalue > 1e-3


@pytest.mark.sampled(2)
@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_greedy_equals_generate(family: str) -> None:
    greedy = policy(family, temperature=0, max_tokens=30)
    for problem, (answer,) in zip(PROBLEMS, greedy.propose([ask(p) for p in PROBLEMS]), strict=True):
        prompt = torch.tensor([greedy.prompt_ids(problem)])
        out = MODELS[family].generate(prompt, do_sample=False, max_new_tokens=30, pad_token_id=0)[0, prompt.shape[1] :]
        assert ids_of(answer) + [BYTES.eos_token_id] * answer.finished == out.tolist()


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_log_probabilities_equal_teacher_forced_ones(family: str) -> None:
    local = policy(family, temperature=0.8, top_k=40)
    for problem, (answer,) in zip(PROBLEMS, local.propose([ask(p) for p in PROBLEMS]), strict=True):
        prompt, written = list(local.prompt_ids(problem)), ids_of(answer)
        with torch.no_grad():
            logits = MODELS[family](torch.tensor([prompt + written])).logits[0]
        forced = logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(-1, torch.tensor(written)[:, None].long())
        assert np.allclose(forced[:, 0], logprobs_of(answer), atol=1e-4)


# The key alone decides ------------------------------------------------------------------------------------------------


@pytest.mark.sampled(2)
@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_a_sample_is_the_same_whatever_else_is_in_the_batch(family: str) -> None:
    questions = [ask(p, n=1 + i % 3, until="step" if i % 5 == 0 else "end") for i, p in enumerate(PROBLEMS)]
    alone = [policy(family, max_tokens=32).propose([q])[0] for q in questions[:6]]
    backwards = policy(family, batch_size=33, max_tokens=32).propose(questions[::-1])[::-1]
    # Bits, not tolerance: log-probabilities are compared too.
    assert backwards[:6] == alone
    # One row at a time is slow; nine questions with 18 samples fill its place anew often enough.
    for rows, some in ((1, 9), (5, 24), (64, 24)):
        local = policy(family, batch_size=rows, max_tokens=32)
        assert local.propose(questions[:some]) == backwards[:some], rows


def test_sample_i_does_not_depend_on_how_many_are_asked() -> None:
    local = policy()
    assert local.propose([ask(n=9)])[0][:2] == local.propose([ask(n=2)])[0]
    assert local.propose([ask(n=2)]) != local.propose([ask(n=2, seed=1)])
    assert local.propose([replace(ask(n=3), first=4)])[0] == local.propose([ask(n=9)])[0][4:7]


def test_a_policy_that_was_used_before_gives_the_same_samples() -> None:
    local = policy()
    first = local.propose([ask(n=3)])
    local.propose([ask(p, n=4, max_tokens=100) for p in PROBLEMS])
    assert local.propose([ask(n=3)]) == first


# Steps and ends -------------------------------------------------------------------------------------------------------


def test_one_step_is_the_first_step_of_the_solution_and_is_continued_from_its_tokens() -> None:
    local = policy(temperature=1.5)
    whole, one = local.propose([ask(n=40), ask(n=40, until="step")])
    for solution, step in zip(whole, one, strict=True):
        assert step.steps == solution.steps[:1]
        assert not step.finished or len(solution.steps) <= 1
    full = next(a for a in whole if len(a.steps) > 1)
    # Greedy from the prefix is greedy from prompt and sampled ids, by `generate`.
    greedy = policy(temperature=0, max_tokens=8)
    (((after),),) = greedy.propose([ask(prefix=full.steps[:1])])
    prompt = torch.tensor([[*greedy.prompt_ids(PROBLEMS[3]), *(full.steps[0].tokens or ())]])
    out = MODELS["qwen2"].generate(prompt, do_sample=False, max_new_tokens=8, pad_token_id=0)[0, prompt.shape[1] :]
    assert ids_of(after) + [BYTES.eos_token_id] * after.finished == out.tolist()


def test_a_prefix_without_tokens_is_tokenised_step_by_step() -> None:
    def encoded(text: str) -> tuple[int, ...]:
        return tuple(BYTES(text, add_special_tokens=False)["input_ids"])

    local = policy()
    texts = (Step("Mia has\n"), Step("12 + 5"))
    tokens = tuple(Step(s.text, tokens=encoded(s.text)) for s in texts)
    mixed = (texts[0], tokens[1])
    by_text, by_tokens, by_both = local.propose([ask(prefix=p, n=3) for p in (texts, tokens, mixed)])
    assert by_text == by_tokens == by_both


@pytest.mark.parametrize("separator", ["\n", "\n\n", "a"])
def test_texts_tokens_and_ends_fit_together(separator: str) -> None:
    local = policy(separator=separator, temperature=1.2)
    answers = list(itertools.chain(*local.propose([ask(p, n=4) for p in PROBLEMS])))
    assert {a.finished for a in answers} == {True, False}
    for a in answers:
        tokens = ids_of(a)
        assert "".join(s.text for s in a.steps) == BYTES.decode(tokens, skip_special_tokens=False)
        assert all(s.tokens and len(s.tokens) == len(s.logprobs or ()) for s in a.steps)
        assert all(separator in s.text for s in a.steps[:-1])
        assert BYTES.eos_token_id not in tokens
        assert a.n_tokens == len(tokens) + a.finished
        assert a.truncated == (not a.finished)
        assert not a.truncated or a.n_tokens == 60


def test_limits_cut_and_a_finished_step_is_not_cut() -> None:
    local = policy(temperature=1.5)
    (steps,) = local.propose([ask(n=60, until="step", max_tokens=20)])
    for a in steps:
        ended = bool(a.steps) and a.steps[0].text.endswith("\n")
        assert len(a.steps) <= 1
        assert a.truncated == (not a.finished and not ended)
        assert a.n_tokens <= 20
    length = next(a.n_tokens for a in steps if not a.finished and not a.truncated)
    i = next(i for i, a in enumerate(steps) if not a.finished and not a.truncated)
    (again,) = local.propose([ask(n=i + 1, until="step", max_tokens=length)])
    assert again[i] == steps[i]


def test_a_prefix_that_fills_the_context_gets_no_tokens() -> None:
    short = tiny("qwen2", BYTES, max_position_embeddings=20)
    local = LocalPolicy(short, BYTES, max_tokens=50)
    fits, full = Problem("fits", "ab"), Problem("full", "12 + 5 = 17 apples " * 20)
    ((first,), (second,)) = local.propose([ask(fits), ask(full)])
    assert first.finished or first.n_tokens == 20 - len(local.prompt_ids(fits))
    assert second == Continuation((), finished=False, n_tokens=0, truncated=True)
    assert local.propose([]) == []
    assert local.propose([ask(n=0)]) == [[]]


# Work -----------------------------------------------------------------------------------------------------------------


class Spy:
    """Records the shapes of the model's inputs."""

    def __init__(self, model: Any) -> None:
        self.shapes: list[tuple[int, int]] = []
        self.hook = model.register_forward_pre_hook(self.see, with_kwargs=True)

    def see(self, _: Any, __: Any, kwargs: dict[str, Any]) -> None:
        self.shapes.append(tuple(kwargs["input_ids"].shape))


@pytest.fixture
def spy() -> Any:
    watching = Spy(MODELS["qwen2"])
    yield watching
    watching.hook.remove()


def test_samples_of_one_prefix_share_its_encoding(spy: Spy) -> None:
    policy(max_tokens=2).propose([ask(n=30), ask(seed=1, n=30)])
    prefills = [shape for shape in spy.shapes if shape[1] > 1]
    assert len(prefills) == 1
    assert prefills[0][0] == 1


def test_finished_rows_are_dropped_and_places_refilled() -> None:
    # Every token, the end too, has a chance of about 1 in 13: lengths are geometric.
    tokenizer = letters("abcdefghijk\n")
    model = tiny("qwen2", tokenizer, spread=0.02)
    spy = Spy(model)
    local = LocalPolicy(model, tokenizer, max_tokens=120, batch_size=128)
    answers = local.propose([ask(Problem(str(i), "abc" * (1 + i % 7)), n=20) for i in range(48)])
    lengths = [a.n_tokens for a in itertools.chain(*answers)]
    rows = sum(n for n, width in spy.shapes if width == 1)
    assert np.std(lengths) / np.mean(lengths) > 0.3
    assert max(n for n, width in spy.shapes if width == 1) == 128
    # Padding, refilling in groups and the tail of the last rows cost less than a third.
    assert sum(lengths) <= rows <= 1.34 * sum(lengths)


# Prompts, names, loading ----------------------------------------------------------------------------------------------


def test_prompts() -> None:
    problem = Problem("p", "ab")
    assert BYTES.decode(policy().prompt_ids(problem)) == "ab\n"
    assert BYTES.decode(policy(template="Q: {prompt} A:").prompt_ids(problem)) == "Q: ab A:"
    chat = byte_level()
    chat.chat_template = (
        "{% for m in messages %}<{{m.role}}>{{m.content}}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
    )
    local = LocalPolicy(MODELS["qwen2"], chat)
    assert chat.decode(local.prompt_ids(problem)) == "<user>ab<a>"
    with pytest.raises(InputError, match="problem 'p' has no tokens"):
        policy(template="{prompt}").propose([ask(Problem("p", ""))])


def test_steps_of_a_sentence_piece_model_keep_their_spaces() -> None:
    tokenizer = sentence_piece()
    local = LocalPolicy(tiny("llama", tokenizer), tokenizer, max_tokens=40)
    (answers,) = local.propose([Propose(Problem("p", "a b"), (), Key.seed(0), n=300, max_tokens=6)])
    context = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = [tokenizer.decode(context + ids_of(a)) for a in answers]
    # Runs of broken bytes are decoded as wholes by byte fallback, so they are not compared.
    clean = [(a, text) for a, text in zip(answers, whole, strict=True) if "\ufffd" not in text]
    assert len(clean) >= 10
    assert all("a" + "".join(s.text for s in a.steps) == text for a, text in clean)


def test_a_saved_model_is_the_same_policy_and_the_name_tells_others_apart(tmp_path: Any) -> None:
    MODELS["qwen2"].save_pretrained(tmp_path / "tiny")
    BYTES.save_pretrained(tmp_path / "tiny")
    loaded = LocalPolicy.load(tmp_path / "tiny", device="cpu", max_tokens=60)
    assert loaded.name.startswith("tiny-")
    assert loaded.name.split("-")[1] == policy().name.split("-")[1]
    assert loaded.propose([ask(n=3)]) == policy().propose([ask(n=3)])
    satisfies: Policy = loaded
    assert (satisfies.batch_size, satisfies.concurrency) == (256, 1)
    others = [policy(temperature=0.5), policy(separator="a"), policy(max_tokens=61), policy("llama"), policy(top_k=3)]
    assert len({p.name for p in [*others, policy(), policy(template="{prompt}")]}) == 7
    assert policy(batch_size=3).name == policy().name


# Errors ---------------------------------------------------------------------------------------------------------------


def test_unknown_models_are_named(tmp_path: Any) -> None:
    with pytest.raises(ModelError, match="no built-in policy is called 'builtin:chess'; known: "):
        LocalPolicy.load("builtin:chess")
    with pytest.raises(ModelError, match="does not exist"):
        LocalPolicy.load(tmp_path / "missing")
    with pytest.raises(ModelError, match=r"no config\.json"):
        LocalPolicy.load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot load a causal language model"):
        LocalPolicy.load(tmp_path)
    with pytest.raises(ModelError, match="torch has no dtype 'float33'"):
        LocalPolicy.load(tmp_path, dtype="float33")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"batch_size": 0}, "batch_size"),
        ({"template": "no place"}, "{prompt}"),
        ({"separator": ""}, "separator"),
        ({"temperature": -1.0}, "temperature"),
    ],
)
def test_settings_out_of_range_are_errors(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        policy(**settings)


def test_models_that_would_be_sampled_wrongly_are_refused() -> None:
    sliding = tiny("qwen2", BYTES, use_sliding_window=True, sliding_window=8, max_window_layers=0)
    with pytest.raises(ModelError, match="layers of type sliding_attention"):
        LocalPolicy(sliding, BYTES)
    sizes = {"vocab_size": len(BYTES), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    mistral = MistralForCausalLM(MistralConfig(**sizes, **heads, sliding_window=8)).eval()
    with pytest.raises(ModelError, match=r"sliding window of 8 tokens|layers of type"):
        LocalPolicy(mistral, BYTES)
    flex = tiny("qwen2", BYTES)
    flex.config._attn_implementation = "flex_attention"
    with pytest.raises(ModelError, match="attention 'flex_attention'"):
        LocalPolicy(flex, BYTES)


def test_a_tokenizer_without_an_end_is_refused() -> None:
    endless = byte_level()
    endless.eos_token = None
    model = tiny("qwen2", BYTES, eos_token_id=None)
    model.generation_config.eos_token_id = None
    with pytest.raises(ModelError, match="end token"):
        LocalPolicy(model, endless)


def test_damaged_weights_are_an_error_not_a_sample() -> None:
    model = tiny("qwen2", BYTES)
    model.model.norm.weight.data[0] = float("nan")
    with pytest.raises(ModelError, match="logits are not finite"):
        LocalPolicy(model, BYTES).propose([ask()])


def test_eager_attention_gives_the_same_solutions() -> None:
    model = tiny("qwen2", BYTES, attn_implementation="eager")
    eager = LocalPolicy(model, BYTES, max_tokens=30).propose([ask(p) for p in PROBLEMS])
    fused = policy(max_tokens=30).propose([ask(p) for p in PROBLEMS])
    assert [ids_of(a) for (a,) in eager] == [ids_of(a) for (a,) in fused]


# What nobody waits for ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [4, 16])
def test_samples_that_are_not_wanted_any_more_are_left_and_the_others_are_what_they_are(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second question is given up after some tokens; the first and third get what they get without it."""
    monkeypatch.setattr("stepreward.policies.decode._GLANCE", 0.0)
    made = policy(batch_size=rows)
    asked = [ask(PROBLEMS[i], n=3) for i in range(3)]
    looks = itertools.count()
    first, second, third = made.propose_while(lambda i: i != 1 or next(looks) < 7, asked)
    whole = made.propose(asked)
    assert [ids_of(a) for a in (*first, *third)] == [ids_of(a) for a in (*whole[0], *whole[2])]
    assert not any(a.interrupted for a in (*first, *third))
    for left, full in zip(second, whole[1], strict=True):
        assert ids_of(full)[: len(ids_of(left))] == ids_of(left)
        assert left.interrupted == (left != full)
    assert any(a.interrupted for a in second)
    if rows > 9:
        assert any(0 < a.n_tokens <= 7 for a in second if a.interrupted), "all were under way, a token a look"
    assert sum(a.n_tokens for a in second) < sum(a.n_tokens for a in whole[1])


def test_nothing_is_sampled_that_nobody_wants_and_the_next_questions_are_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stepreward.policies.decode._GLANCE", 0.0)
    made = policy()
    ((none,),) = made.propose_while(lambda i: False, [ask()])
    assert (none.interrupted, none.truncated, none.n_tokens, none.steps) == (True, True, 0, ())
    looks = itertools.count()
    ((some,),) = made.propose_while(lambda i: next(looks) < 4, [ask()])
    assert some.interrupted
    assert made.propose([ask()]) == policy().propose([ask()])


def test_each_step_says_how_sure_the_model_was_of_it() -> None:
    """Against the definition on the logits of a pass over the whole text: KL(uniform || p), a mean over the tokens."""
    one = policy(separator="a", temperature=0.7, top_k=20)
    questions = [ask(problem, n=3) for problem in PROBLEMS[:4]]
    for question, answers in zip(questions, one.propose(questions), strict=True):
        prompt = one.prompt_ids(question.problem)
        for answer in answers:
            written = ids_of(answer)
            with torch.no_grad():
                logits = MODELS["qwen2"](torch.tensor([[*prompt, *written]])).logits[0].double()
            p = logits[len(prompt) - 1 :].softmax(-1)
            expected, at = -(p * p.shape[-1]).log().mean(-1), 0
            for step in answer.steps:
                count = len(step.tokens or ())
                certainty = step.meta["self_certainty"]
                assert certainty == pytest.approx(expected[at : at + count].mean().item(), rel=1e-4)
                assert certainty > 0
                at += count
            assert at == len(written)
