"""A head with an entry for each next token: what it learns of a teacher, what it never saw, and how it is read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.cli.running import invoke
from tests.train.toy import toy_labels, toy_model

import stepreward
from stepreward.core.catalog import loss as family
from stepreward.core.errors import InputError, ModelError, SteprewardError
from stepreward.core.runtime.flows import Score
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.policies.model_sources import resolve
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.encode.packing import pack, step_tokens
from stepreward.score.encode.readout import Readout
from stepreward.score.encode.record import EncoderRecord, PerStep
from stepreward.score.load import load
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.score.model.vocabulary_head import VocabularyHead
from stepreward.score.next_tokens import next_token_scores
from stepreward.train.data.labelled_trees import labelled_trees
from stepreward.train.data.training_set import TrainingSet
from stepreward.train.other_models.teacher import add_teacher, of_steps, taught_record
from stepreward.train.scratch import starting_model, starting_record
from stepreward.train.settings import TrainSettings
from stepreward.train.trainer import train

NEXT = EncoderRecord(PerStep(), Readout("value", next_token=True))


def world() -> list[Trajectory]:
    """Six solutions of one problem: every one of three words, then one of two."""
    problem = Problem("p", "Say")
    words = [(a, b) for a in ("good", "fine", "bad") for b in ("well", "nice")]
    return [Trajectory(problem, tuple(Step(f"{word}\n") for word in pair)) for pair in words]


def teacher(folder: Path, *, scale: float = 1.0, record: EncoderRecord | None = None) -> StepRewardModel:
    """A reward model with random numbers that differ from token to token."""
    made = toy_model(seed=3, record=record)
    with torch.no_grad():
        for weight in made.head.parameters():
            weight.mul_(scale / 0.1)
    made.save_pretrained(folder)
    return made.eval()


@torch.inference_mode()
def behind(model: StepRewardModel, ids: list[int]) -> float:
    """The scalar model's score of tokens."""
    at = (torch.tensor([0]), torch.tensor([len(ids) - 1]))
    return float(model.forward_padded(torch.tensor([ids]), torch.tensor([len(ids)]), *at)[0, 0].sigmoid())


def trained(tmp_path: Path, **more: object) -> tuple[StepRewardModel, StepRewardModel, Path]:
    """The teacher, the student of it, and the student's folder."""
    taught_by = teacher(tmp_path / "teacher")
    settings = TrainSettings(
        **{"objective": "saffron", "teacher": str(tmp_path / "teacher"), "epochs": 200, "learning_rate": 3e-2,
           "evaluations": 1, "weight_decay": 0.0, **more},
    )  # fmt: skip
    student = toy_model(seed=0, record=taught_record(settings.teacher, settings.loss()))
    trees = labelled_trees(world(), settings.loss())
    out = tmp_path / "student"
    train(trees, student, out, settings)
    return taught_by, student.eval(), out


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[StepRewardModel, StepRewardModel, Path]:
    return trained(tmp_path_factory.mktemp("taught"))


def test_a_vocabulary_of_one_token_is_the_plain_squared_error() -> None:
    hidden, target = torch.randn(7, 5), torch.randn(1, 7)
    head = VocabularyHead(torch.randn(1, 5), torch.randn(1))
    values = head.entry(hidden, torch.zeros(7, dtype=torch.long))
    torch.testing.assert_close(values, torch.nn.functional.linear(hidden, head.weight, head.bias)[:, 0])
    made = family["saffron"].take({"token_values": values[None], "token_targets": target})
    plain = {"logits": values[None], "labels": target, "mask": torch.ones(1, 7, dtype=torch.bool)}
    assert float(made) == float(family["mse"].take(plain, link="none"))


def test_numbers_by_hand() -> None:
    """(1 - 3)^2 and (0.5 - 0)^2 over two tokens; per trajectory both rows count alike."""
    values, targets = torch.tensor([[1.0, 0.5], [2.0, 9.0]]), torch.tensor([[3.0, 0.0], [2.0, torch.nan]])
    data = {"token_values": values, "token_targets": targets}
    assert float(family["saffron"].take(data)) == pytest.approx(4.25 / 3)
    assert float(family["saffron"].take(data, per="trajectory")) == pytest.approx(4.25 / 4)


def test_only_the_token_that_comes_next_has_a_gradient() -> None:
    model = toy_model(record=NEXT)
    tree = model.encoder.encode_tree(labelled_trees(world(), family_settings().loss())[0])
    batch = pack([tree])
    model(replace(batch, said=step_tokens(batch))).sum().backward()
    head = model.head
    assert isinstance(head, VocabularyHead)
    own = np.bincount(tree.ids[of_steps(tree)], minlength=len(head.weight))
    assert head.bias.grad is not None
    np.testing.assert_array_equal(head.bias.grad.numpy(), own)
    assert head.weight.grad is None


def family_settings() -> TrainSettings:
    return TrainSettings(objective="saffron", teacher="t")


def test_each_entry_is_the_score_of_the_prefix_with_that_token(
    pair: tuple[StepRewardModel, StepRewardModel, Path],
) -> None:
    """Parity with the scalar model for every prefix and every token that the little world has."""
    taught_by, student, folder = pair
    scorer = load(folder)
    assert isinstance(scorer, DiscriminativeScorer)
    spread = []
    for row in world():
        ids = [*student.encoder.prompt_ids(row.problem)]
        start = len(ids)
        for step in row.steps:
            ids += student.encoder.step_ids(step)
        for at in range(start, len(ids)):
            # The scalar model reads the prefix with the token, its student the prefix alone.
            said = behind(taught_by, ids[: at + 1])
            (entries,) = next_token_scores(scorer, [Score(row.problem, ())], [ids[start:at]])
            assert entries[ids[at]] == pytest.approx(said, abs=0.02)
            spread.append(said)
        # The score of a step is the entry of its last token.
        found = scorer.score("Say", [step.text for step in row.steps])
        (last,) = next_token_scores(
            scorer, [Score(row.problem, row.steps[:1])], [student.encoder.step_ids(row.steps[1])[:-1]]
        )
        assert found[1] == pytest.approx(last[ids[-1]], abs=1e-6)
        (plain,) = DiscriminativeScorer(taught_by).score_many([Score(row.problem, row.steps)])
        np.testing.assert_allclose(found, plain.scores, atol=0.02)
    assert np.std(spread) > 0.1


def test_a_token_that_training_never_saw_is_worth_nothing(
    pair: tuple[StepRewardModel, StepRewardModel, Path],
) -> None:
    _, student, folder = pair
    words = {i for row in world() for step in row.steps for i in student.encoder.step_ids(step)}
    scorer = load(folder, readout="", cache_bytes=1 << 30)
    assert isinstance(scorer, DiscriminativeScorer)
    (bare,) = next_token_scores(scorer, [Score(Problem("p", "Say"), ())])
    assert set(np.flatnonzero(bare > 0)) == words
    head = scorer.model.head
    assert isinstance(head, VocabularyHead)
    assert set(np.flatnonzero(head.seen.numpy())) == words
    entries = head.entries(torch.randn(2, head.weight.shape[1]))
    assert (entries == -torch.inf).sum(1).tolist() == [len(head.weight) - len(words)] * 2
    # The last token of a step is its separator, so that a step of unseen words has a score all the same.
    assert 0 < scorer.score("Say", ["Something\n"])[0] < 1


def test_prefixes_of_several_questions_are_each_their_own(pair: tuple[StepRewardModel, StepRewardModel, Path]) -> None:
    _, student, folder = pair
    scorer = load(folder)
    assert isinstance(scorer, DiscriminativeScorer)
    questions = [Score(row.problem, row.steps[:n]) for row in world() for n in (0, 1)]
    more = [student.encoder.step_ids(row.steps[n])[:1] for row in world() for n in (0, 1)]
    together = next_token_scores(scorer, questions, more)
    alone = [next_token_scores(scorer, [q], [m])[0] for q, m in zip(questions, more, strict=True)]
    np.testing.assert_allclose(together, alone, atol=1e-6)
    with pytest.raises(ValueError, match="zip"):
        next_token_scores(scorer, questions, more[:1])
    with pytest.raises(InputError, match="has no entry for each next token"):
        next_token_scores(DiscriminativeScorer(toy_model()), questions)
    scorer = load(folder, readout="1 - score")
    assert isinstance(scorer, DiscriminativeScorer)
    with pytest.raises(InputError, match="its score is a formula"):
        next_token_scores(scorer, questions)


def test_held_out_tokens_that_training_does_not_see_have_no_target(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    taught_by = teacher(tmp_path / "teacher")
    settings = replace(family_settings(), teacher=str(tmp_path / "teacher"))
    student = toy_model(record=NEXT)
    one, other = (
        TrainingSet(
            labelled_trees(rows, settings.loss()), student.encoder, settings.loss(), row_tokens=256, batch_tokens=512
        )
        for rows in (world()[:2], world()[4:])
    )
    add_teacher([one, other], student, settings, "cpu", tmp_path)
    (learned,), (kept,) = list(one), list(other)
    assert "held-out tokens are others" in caplog.text
    # "bad" alone is new; "well", "nice" and the line breaks are not.
    new = sum(step.text == "bad\n" for row in world()[4:] for step in row.steps)
    tokens = len(student.encoder.step_ids(Step("bad\n"))) - 1
    assert kept.token is not None
    real = kept.token >= 0
    assert int((kept.data["token_targets"].isnan() & real).sum()) == new * tokens
    assert not learned.data["token_targets"][learned.token >= 0].isnan().any()  # type: ignore[operator]
    # A target is what the teacher says at that token: at the end of a step, its logit.
    (scored,) = DiscriminativeScorer(taught_by).score_many([Score(world()[0].problem, world()[0].steps)])
    last = learned.data["token_targets"][0][int((learned.token[0] >= 0).sum()) - 1]  # type: ignore[index]
    assert float(last.sigmoid()) == pytest.approx(scored.scores[-1], abs=1e-5)
    # Without a teacher nothing is known.
    bare = TrainingSet(
        labelled_trees(world(), settings.loss()), student.encoder, settings.loss(), row_tokens=256, batch_tokens=512
    )
    assert bare[0].data["token_targets"].isnan().all()


@pytest.mark.parametrize(
    ("kind", "labels", "threshold"),
    [("sigmoid", 1, 0.5), ("softmax", 2, 0.5), ("value", 1, 0.5), ("difference", 2, 0.75)],
)
def test_scores_are_in_the_unit_of_the_teacher(kind: str, labels: int, threshold: float, tmp_path: Path) -> None:
    encoding = PerStep(prompt_format="Q: {prompt}\n", max_length=99)
    record = EncoderRecord(encoding, Readout(kind, n_labels=labels), aggregation="mean")  # type: ignore[arg-type]
    toy_model(record=record).save_pretrained(tmp_path)
    made = starting_record(tmp_path, family_settings().loss(), teacher=str(tmp_path))
    expected = "value" if kind == "value" else "sigmoid"
    other = replace(family_settings(), readout="1 - score").loss()
    assert starting_record(tmp_path, other, teacher=str(tmp_path)).readout.kind == expected
    assert made == EncoderRecord(encoding, Readout(expected, next_token=True), "mean", threshold)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (EncoderRecord(PerStep(read="before")), "not read at the end of steps"),
        (EncoderRecord(both_ways=True), "not read at the end of steps"),
        (EncoderRecord(readout=Readout(formula="1 - score")), "no function of one number a token"),
        (NEXT, "no function of one number a token"),
        (EncoderRecord(readout=Readout("value", n_labels=2, begins=1)), "no function of one number a token"),
    ],
)
def test_teachers_that_cannot_be_read_behind_each_token(record: EncoderRecord, said: str, tmp_path: Path) -> None:
    toy_model(record=record).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=said):
        taught_record(str(tmp_path), family_settings().loss())


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="saffron learns the scores of a teacher; name a reward model as teacher"):
        TrainSettings(objective="saffron").loss()
    with pytest.raises(InputError, match="bce has no teacher; leave teacher out"):
        TrainSettings(teacher="x").loss()
    with pytest.raises(InputError, match="do not fit"):
        train(labelled_trees(world(), family_settings().loss()), toy_model(), tmp_path, family_settings())
    with pytest.raises(InputError, match="leave out keep_head"):
        starting_record("x", family_settings().loss(), teacher="y", keep_head=True)
    for wrong in ({"n_labels": 2}, {"kind": "tanh"}, {"surprise": True}):
        with pytest.raises(ValueError, match="next_token"):
            Readout(**{"kind": "value", "next_token": True, **wrong})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="read='at'"):
        EncoderRecord(PerStep(read="before"), Readout(next_token=True))
    with pytest.raises(ModelError, match="weight, bias and seen"):
        VocabularyHead.of({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)})


def test_the_head_begins_as_that_of_the_language_model(tmp_path: Path) -> None:
    record = replace(NEXT, encoding=PerStep(max_length=500))
    model = starting_model(resolve("builtin:arithmetic"), record=record)
    assert isinstance(model, StepRewardModel)
    head = model.head
    assert isinstance(head, VocabularyHead)
    ids = torch.tensor([model.encoder.plain("2 + 3 = 5\n")])
    with torch.no_grad():
        hidden = model.backbone(ids)[0][0]
    rows = model.backbone.get_input_embeddings().weight
    torch.testing.assert_close(head.entries(hidden), hidden.float() @ rows.float().T)
    assert not head.weight.requires_grad
    assert head.bias.requires_grad
    model.save_pretrained(tmp_path)
    again = StepRewardModel.from_pretrained(tmp_path)
    assert isinstance(again.head, VocabularyHead)
    torch.testing.assert_close(again.head.state_dict(), head.state_dict())


def test_from_the_command_line_with_adapters(tmp_path: Path) -> None:
    rows = tmp_path / "rows.parquet"
    stepreward.write(rows, toy_labels(6, 0))
    common = f"--data {rows} --epochs 1 --held-out 0.3 --json"
    invoke(f"train {common} --out {tmp_path / 'prm'}")
    made = json.loads(invoke(
        f"train {common} --out {tmp_path / 'mrm'} --objective saffron --teacher {tmp_path / 'prm'} --lora-rank 2 "
        "--set per=trajectory"
    ))  # fmt: skip
    assert np.isfinite(made["metrics"]["loss"])
    said = json.loads((tmp_path / "mrm" / "stepreward.json").read_text())
    assert (said["readout"]["next_token"], said["readout"]["kind"]) == (True, "sigmoid")
    invoke(f"score --data {rows} --model {tmp_path / 'mrm'} --out {tmp_path / 'scored.parquet'}")
    with pytest.raises(SteprewardError, match="next_token and both_ways need more"):
        stepreward.load(f"http://localhost:9#{tmp_path / 'mrm'}")
