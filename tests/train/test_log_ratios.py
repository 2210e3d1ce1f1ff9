"""Log-ratio models: packed log-probabilities, their sums, training, checkpoints and cached references."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import stepreward
from stepreward.core.errors import InputError, ModelError
from stepreward.core.runtime.flows import Score
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.policies.model_sources import resolve
from stepreward.score.encode.packing import pack, step_tokens
from stepreward.score.encode.readout import Readout
from stepreward.score.encode.record import EncoderRecord, PerStep
from stepreward.score.implicit import ImplicitScorer, LanguageModel
from stepreward.score.model.log_ratio_model import LogRatioModel
from stepreward.train.data.labelled_trees import labelled_trees
from stepreward.train.data.training_set import TrainingSet
from stepreward.train.objective import Objective
from stepreward.train.other_models.reference import add_references, tree_logprobs
from stepreward.train.scratch import starting_model
from stepreward.train.settings import TrainSettings
from stepreward.train.step_trainer import StepTrainer
from stepreward.train.trainer import finished, train

FOLDER = resolve("builtin:arithmetic")
TOKENIZER = AutoTokenizer.from_pretrained(FOLDER)
BETA = 0.1
SETTINGS = TrainSettings(
    objective="dpo", epochs=2, learning_rate=1e-3, batch_tokens=600, row_tokens=200, evaluations=2, beta=BETA
)


def solution(number: int, lines: list[str], outcome: float, label: list[float], watched: int = -1) -> Trajectory:
    """Steps of one line each, of which one may be an observation."""
    kinds = ["observation" if i == watched else "action" for i in range(len(lines))]
    steps = tuple(Step(line, kind=kind) for line, kind in zip(lines, kinds, strict=True))  # type: ignore[arg-type]
    problem = Problem(f"p{number}", f"Mia has {number} apples and buys 5.")
    return Trajectory(problem, steps, outcome, columns={"label": np.array(label)})


def rows(n: int = 6) -> list[Trajectory]:
    """Branches: a shared first step, an observation in the middle of some."""
    made = []
    for i in range(n):
        first = f"{i} + 5 = {i + 5}"
        made.append(solution(i, [first, f"Answer: {i + 5}"], 1.0, [1.0, 1.0]))
        made.append(solution(i, [first, f"Answer: {i + 6}"], 0.0, [1.0, 0.0]))
        made.append(solution(i, [first, f"tool says {i}", "so it is done", f"Answer: {i}"], 0.0, [1, np.nan, 0, 0], 1))
    return [replace(one, facts={"log_weight": one.outcome}) for one in made]


def moved(folder: Path, seed: int, size: float = 0.02) -> Path:
    """The built-in policy with other weights."""
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight += size * torch.randn(weight.shape, generator=noise)
    model.save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return folder


def plain_logprobs(causal: Any, one: Trajectory) -> tuple[list[np.ndarray], list[int]]:
    """Log-probabilities of each action's tokens by one pass over the whole text, and which steps they are."""
    ids = TOKENIZER(one.problem.text + "\n", add_special_tokens=False)["input_ids"]
    spans = []
    for i, step in enumerate(one.steps):
        begin = len(ids)
        ids = ids + TOKENIZER(step.text, add_special_tokens=False)["input_ids"]
        ids = ids + TOKENIZER("\n", add_special_tokens=False)["input_ids"]
        spans.append((i, begin, len(ids)))
    with torch.no_grad():
        found = causal(torch.tensor([ids])).logits[0].double().log_softmax(-1).numpy()
    kept = [(i, a, b) for i, a, b in spans if one.steps[i].kind == "action"]
    return [np.array([found[t - 1, ids[t]] for t in range(a, b)]) for _, a, b in kept], [i for i, _, _ in kept]


def causal_of(folder: str | Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize("row_tokens", [10_000, 60])
def test_packed_log_probabilities_are_those_of_plain_passes(row_tokens: int) -> None:
    """Also of the first token of a branch, whose predecessor is the last token of the step above it."""
    model = LogRatioModel.from_policy(FOLDER, EncoderRecord(PerStep(), Readout("implicit")))
    objective = TrainSettings(objective="implicit-prm").loss()
    trees = labelled_trees(rows(), objective)
    data = TrainingSet(trees, model.encoder, objective, row_tokens=row_tokens, batch_tokens=10_000)
    found = tree_logprobs(LanguageModel.load(FOLDER), [one for _, one in data.parts], 300, 600)
    causal, compared = causal_of(FOLDER), 0
    for (tree, encoded), values in zip(data.parts, found, strict=True):
        assert len(values) == len(encoded)
        batch = pack([encoded])
        said = step_tokens(batch)
        node_of = batch.node[said.read].numpy()
        for path, one in zip(tree.paths, tree.trajectories(), strict=True):
            expected, steps = plain_logprobs(causal, one)
            for logprobs, i in zip(expected, steps, strict=True):
                own = said.column.numpy()[node_of == path[i]]
                np.testing.assert_allclose(values[own], logprobs, atol=2e-5)
                compared += 1
    assert compared == 6 * 7
    assert all((values[: int(one.length[0])] == 0).all() for values, (_, one) in zip(found, data.parts, strict=True))


def test_rewards_of_steps_and_totals_are_beta_times_the_sum_over_their_tokens(tmp_path: Path) -> None:
    other = moved(tmp_path / "reference", 1)
    settings = replace(SETTINGS, objective="implicit-prm", reference=str(other))
    model = starting_model(FOLDER, record=settings.loss().record(PerStep()))
    assert isinstance(model, LogRatioModel)
    data = TrainingSet(
        labelled_trees(rows(), settings.loss()), model.encoder, settings.loss(), row_tokens=200, batch_tokens=600
    )
    add_references([data], model, settings, "cpu", tmp_path)
    policy, frozen, seen = causal_of(FOLDER), causal_of(other), 0
    for at in range(len(data)):
        batch = data[at]
        outputs = model(batch.packed)
        rewards = batch.gather(model.step_logits(model.step_outputs(outputs, batch.packed))).detach().numpy()
        trees = [data.parts[i][0] for row in data.plans[at] for i in row]
        for one, mask, row in zip([t for tree in trees for t in tree.trajectories()], batch.mask, rewards, strict=True):
            pair = [plain_logprobs(causal, one)[0] for causal in (policy, frozen)]
            expected = [BETA * (a - b).sum() for a, b in zip(*pair, strict=True)]
            np.testing.assert_allclose(row[mask.numpy()], expected, atol=1e-4)
            seen += 1
        # The total of the cross-entropy is their sum: -log sigmoid of it where right.
        loss = settings.loss()(model, outputs, batch)
        sums = np.where(batch.mask.numpy(), rewards, 0).sum(1)
        right = batch.data["outcome"].numpy()
        assert float(loss) == pytest.approx(np.mean(np.logaddexp(0, np.where(right > 0.5, -sums, sums))), rel=1e-4)
    assert seen == 18


def started(objective: str, **settings: Any) -> tuple[LogRatioModel, TrainSettings]:
    chosen = replace(SETTINGS, objective=objective, **settings).on(FOLDER, resolve)
    model = starting_model(FOLDER, record=chosen.loss().record(PerStep()))
    assert isinstance(model, LogRatioModel)
    return model, chosen


AT_ZERO = {"dpo": np.log(2), "implicit-prm": np.log(2), "implicit-nca": 2 * np.log(2), "implicit-kto": 0.5}


@pytest.mark.parametrize("objective", AT_ZERO)
def test_a_policy_that_is_its_reference_has_the_known_loss(objective: str, tmp_path: Path) -> None:
    model, settings = started(objective)
    data = TrainingSet(
        labelled_trees(rows(), settings.loss()), model.encoder, settings.loss(), row_tokens=200, batch_tokens=600
    )
    add_references([data], model, settings, "cpu", tmp_path)
    for i in range(len(data)):
        outputs = model(data[i].packed)
        assert float(outputs.detach().abs().max()) < 1e-5
        assert float(settings.loss()(model, outputs, data[i])) == pytest.approx(AT_ZERO[objective], abs=1e-5)


def test_scores_of_the_checkpoint_are_those_of_the_end_of_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, settings = started("dpo")
    trees = labelled_trees(rows(), settings.loss())
    sets: list[TrainingSet] = []

    def kept(parts: Any, *args: Any) -> None:
        add_references(parts, *args)
        sets.extend(parts)

    monkeypatch.setattr("stepreward.train.trainer.add_references", kept)
    result = train(trees, model, tmp_path / "model", settings, held_out=trees)
    assert result.metrics["loss"] < 0.6
    scorer = stepreward.load(tmp_path / "model")
    assert isinstance(scorer, ImplicitScorer)
    assert scorer.record.readout == Readout("implicit", beta=BETA, reference=str(FOLDER))
    assert scorer.use.aggregate == "last"
    compared = 0
    with torch.no_grad():
        for at in range(len(sets[1])):
            batch = sets[1][at]
            reads = model.step_outputs(model(batch.packed), batch.packed)
            ended = model.record.readout.combined(model.score_parts(reads), batch.previous)[batch.read.numpy()]
            several = [t for row in sets[1].plans[at] for i in row for t in sets[1].parts[i][0].trajectories()]
            answers = scorer.score_many([Score(t.problem, t.steps) for t in several])
            for row, mask, answer in zip(ended, batch.mask.numpy(), answers, strict=True):
                scored = answer.scores[~np.isnan(answer.scores)]
                np.testing.assert_allclose(scored, row[mask], atol=1e-5)
                compared += len(scored)
    assert compared == 6 * 7
    # A causal language model again: transformers loads it, and its log-ratios are those scores.
    policy, frozen, one = causal_of(tmp_path / "model"), causal_of(FOLDER), rows(1)[2]
    pair = [plain_logprobs(causal, one)[0] for causal in (policy, frozen)]
    expected = np.cumsum([BETA * (a - b).sum() for a, b in zip(*pair, strict=True)])
    np.testing.assert_allclose(
        scorer.score_many([Score(one.problem, one.steps)])[0].scores[[0, 2, 3]], expected, atol=1e-4
    )


def test_the_reference_is_computed_once_and_a_resumed_training_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    load = LanguageModel.load.__func__  # type: ignore[attr-defined]

    def counted(cls: Any, name: Any, *args: Any) -> LanguageModel:
        loaded.append(str(name))
        return load(cls, name, *args)

    monkeypatch.setattr(LanguageModel, "load", classmethod(counted))

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    settings = replace(started("dpo")[1], save_seconds=0.0)
    trees = labelled_trees(rows(), settings.loss())
    with monkeypatch.context() as broken:
        broken.setattr(StepTrainer, "evaluate", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(trees, started("dpo")[0], tmp_path / "model", settings, held_out=trees)
    assert loaded == [str(FOLDER)]
    (path,) = (tmp_path / "model" / "unfinished").glob("frozen-*.safetensors")
    whole = load_file(path)["numbers"]
    train(trees, started("dpo")[0], tmp_path / "model", settings, held_out=trees)
    assert loaded == [str(FOLDER)]
    # A file that was cut is computed again; other data and another reference have files of their own.
    model, data = (
        started("dpo")[0],
        TrainingSet(trees, started("dpo")[0].encoder, settings.loss(), row_tokens=200, batch_tokens=600),
    )
    work = tmp_path / "work"
    add_references([data], model, settings, "cpu", work)
    (path,) = work.iterdir()
    assert len(whole) == 2 * len(load_file(path)["numbers"])
    path.write_bytes(path.read_bytes()[:50])
    data.reference = []
    add_references([data], model, settings, "cpu", work)
    assert sum(map(len, data.reference)) == len(load_file(path)["numbers"])
    assert loaded == [str(FOLDER)] * 3
    other = moved(tmp_path / "other", 2)
    model.record = replace(model.record, readout=replace(model.record.readout, reference=str(other)))
    add_references([data], model, settings, "cpu", work)
    assert len([*work.iterdir()]) == 2


def test_a_reference_with_other_weights_is_another_training(tmp_path: Path) -> None:
    other = moved(tmp_path / "reference", 1)
    model, settings = started("dpo", reference=str(other))
    trees = labelled_trees(rows(), settings.loss())
    train(trees, model, tmp_path / "model", replace(settings, epochs=0.1))
    again = started("dpo", reference=str(other))[0]
    assert finished(trees, again, tmp_path / "model", replace(settings, epochs=0.1)) is not None
    moved(other, 3)
    assert finished(trees, again, tmp_path / "model", replace(settings, epochs=0.1)) is None


def test_a_guide_equal_to_the_reference_and_equal_prompts_train_dpo(tmp_path: Path) -> None:
    def weights(name: str, **settings: Any) -> np.ndarray:
        model, chosen = started(name, epochs=1, **settings)
        train(labelled_trees(rows(), chosen.loss()), model, tmp_path / name, chosen)
        state = load_file(tmp_path / name / "model.safetensors")
        return np.concatenate([state[key].ravel() for key in sorted(state)])

    plain = weights("dpo")
    np.testing.assert_allclose(weights("tgdpo", guide=str(FOLDER)), plain, atol=1e-5)
    prompts = ("{prompt}\n", "{prompt}\n")
    np.testing.assert_allclose(weights("t-reg", contrast=prompts), plain, atol=1e-5)


def test_tokens_behind_other_prompts_are_compared_one_by_one(tmp_path: Path) -> None:
    model, settings = started("t-reg", contrast=("Be right. {prompt}\n", "{prompt} Be wrong, very wrong.\n"))
    trees = labelled_trees(rows(2), settings.loss())
    data = TrainingSet(trees, model.encoder, settings.loss(), row_tokens=200, batch_tokens=600)
    add_references([data], model, settings, "cpu", tmp_path)
    causal, batch = causal_of(FOLDER), data[0]
    several = [t for row in data.plans[0] for i in row for t in data.parts[i][0].trajectories()]
    for one, guide in zip(several, batch.data["guide"].numpy(), strict=True):
        both = [
            np.concatenate(plain_logprobs(causal, replace(one, problem=replace(one.problem, prompt=text)))[0])
            for text in (f"Be right. {one.problem.text}", f"{one.problem.text} Be wrong, very wrong.")
        ]
        np.testing.assert_allclose(guide[~np.isnan(guide)], both[0] - both[1], atol=5e-5)


def test_siblings_are_steps_behind_one_prefix_with_different_labels(tmp_path: Path) -> None:
    model, settings = started("step-dpo")
    trees = labelled_trees(rows(1), settings.loss())
    data = TrainingSet(trees, model.encoder, settings.loss(), row_tokens=200, batch_tokens=600)
    add_references([data], model, settings, "cpu", tmp_path)
    batch = data[0]
    # After the shared first step: the right answer over the wrong one; what follows the observation has no sibling.
    assert batch.data["siblings"].tolist() == [[0, 1, 1, 1]]
    assert batch.data["gap"].tolist() == [1.0]
    alone = [replace(one, columns={"label": np.full(len(one), np.nan)}) for one in rows(1)]
    with pytest.raises(InputError, match="supervised step"):
        labelled_trees(alone, settings.loss())


@pytest.mark.parametrize("objective", ["brain", "implicit-kto", "dpo", "step-dpo"])
def test_solutions_that_are_compared_stay_in_one_batch_or_are_refused(objective: str) -> None:
    model, settings = started(objective)
    trees = labelled_trees(rows(2), settings.loss())
    data = TrainingSet(trees, model.encoder, settings.loss(), row_tokens=20, batch_tokens=200)
    assert [len(tree.ends) for tree, _ in data.parts] == [3, 3]
    with pytest.raises(InputError, match=r"problem 'p0' has more than 40 tokens .*raise batch_tokens"):
        TrainingSet(trees, model.encoder, settings.loss(), row_tokens=20, batch_tokens=40)


def test_settings_and_models_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="weighs tokens: name a guide or two contrast prompts"):
        TrainSettings(objective="tgdpo").loss()
    with pytest.raises(InputError, match="dpo has no guide"):
        TrainSettings(objective="dpo", guide="org/model").loss()
    with pytest.raises(ValueError, match="contrast is two prompts"):
        TrainSettings(objective="t-reg", contrast=("{prompt}",))
    for name, options in (("dpo", {"both_ways": True}), ("dpo", {"surprise": True}), ("siblings", {"both_ways": True})):
        with pytest.raises(InputError, match="drop both_ways and surprise"):
            Objective.of(name).record(PerStep(), **options)
    with pytest.raises(InputError, match="a log-ratio is one"):
        TrainSettings(objective="quantile", reference="org/model").loss()
    model, settings = started("dpo")
    with pytest.raises(InputError, match="bce trains a head, the model has log-ratios"):
        train(labelled_trees(rows()), model, tmp_path, replace(settings, objective="bce", reference=""))
    with pytest.raises(InputError, match="pass another backbone"):
        starting_model("scratch", record=model.record)
    trees = labelled_trees(rows(2), settings.loss())
    data = TrainingSet(trees, model.encoder, settings.loss(), row_tokens=200, batch_tokens=600)
    other = moved(tmp_path / "other", 1)
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    tokenizer.add_tokens(["apples"])
    tokenizer.save_pretrained(other)
    model.record = replace(model.record, readout=replace(model.record.readout, reference=str(other)))
    with pytest.raises(ModelError, match="two models of one tokenizer"):
        add_references([data], model, settings, "cpu", tmp_path)


def test_models_that_rescale_their_logits_are_refused() -> None:
    config = AutoConfig.for_model(
        "cohere", vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        logit_scale=0.5,
    )  # fmt: skip
    with pytest.raises(ModelError, match="changes its logits by logit_scale"):
        LanguageModel.of(AutoModelForCausalLM.from_config(config))


def test_head_objectives_of_totals_train_log_ratios_to_a_named_reference(tmp_path: Path) -> None:
    """`bradley-terry` with a reference is `dpo`."""
    made = {}
    for name, settings in (("dpo", {}), ("bradley-terry", {"reference": str(FOLDER)})):
        model, chosen = started(name, epochs=1, **settings)
        train(labelled_trees(rows(), chosen.loss()), model, tmp_path / name, chosen)
        made[name] = load_file(tmp_path / name / "model.safetensors")
    assert all(np.array_equal(made["dpo"][key], made["bradley-terry"][key]) for key in made["dpo"])
