"""Step scores in Inspect itself, where it is installed (`make evals` does that beside the environment)."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.connect.judge import Judge

pytest.importorskip("inspect_ai")
from inspect_ai import Epochs, Task, score
from inspect_ai import eval as run
from inspect_ai.agent import react
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog, read_eval_log
from inspect_ai.model import (
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    ContentReasoning,
    ContentText,
    ModelOutput,
    ModelUsage,
    get_model,
)
from inspect_ai.scorer import Score, answer, match, mean, stderr
from inspect_ai.scorer import scorer as inspect_scorer
from inspect_ai.solver import Solver, generate, solver
from inspect_ai.tool import Tool, tool

from stepreward.connect.inspect_ai import REDUCERS, step_scores, with_step_scores
from stepreward.core.errors import InputError, UnknownNameError
from stepreward.policies.model_sources import resolve
from stepreward.score.encode.per_step import EncoderRecord
from stepreward.score.load import load
from stepreward.score.model.step_reward_model import StepRewardModel

pytestmark = [
    pytest.mark.filterwarnings("ignore:The 'initial' parameter is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning"),
]
QUESTION = "What is 12 + 5?"
RIGHT, WRONG = "12 + 5 = 17\n\nANSWER: 17", "12 + 5 = 16\n\nANSWER: 16"


@pytest.fixture(autouse=True)
def _nothing_left_unclosed() -> Iterator[None]:
    """What Inspect leaves open is closed here, where its warning is known."""
    yield
    gc.collect()


def said(content: Any) -> ModelOutput:
    return counted(ModelOutput.from_content("mockllm/model", content))


def counted(output: ModelOutput) -> ModelOutput:
    """Else the mock would count tokens, with a vocabulary from the network."""
    output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
    return output


def evaluate(task: Task, outputs: Sequence[ModelOutput], folder: Path) -> EvalLog:
    """A run with one sample after the other, so that outputs are told in the order of the samples."""
    model = get_model("mockllm/model", custom_outputs=list(outputs))
    (log,) = run(task, model=model, log_dir=str(folder), display="none", max_samples=1, max_tasks=1)
    assert log.status == "success", log.error
    return read_eval_log(log.location)


def asking(scorer: Any, *inputs: Any, **named: Any) -> Task:
    samples = [Sample(text, target="17") for text in inputs or (QUESTION,)]
    return Task(dataset=samples, solver=named.pop("solver", generate()), scorer=scorer, **named)


def metric(log: EvalLog, reducer: str | None = None, name: str | None = None) -> dict[str, float]:
    """Metrics of the one scorer that fits."""
    assert log.results is not None
    (found,) = [s for s in log.results.scores if reducer in (None, s.reducer) and name in (None, s.name)]
    return {key: value.value for key, value in found.metrics.items()}


def test_a_checkpoint_scores_what_the_model_wrote(tmp_path: Path) -> None:
    checkpoint = tmp_path / "model"
    StepRewardModel.from_backbone(resolve("builtin:arithmetic"), EncoderRecord()).save_pretrained(checkpoint)
    task = asking(step_scores(str(checkpoint), aggregate="product"), QUESTION, QUESTION)
    log = evaluate(task, [said(RIGHT), said(WRONG)], tmp_path)
    expected = load(checkpoint).score(QUESTION, ["12 + 5 = 17\n\n", "ANSWER: 17"])
    assert log.samples is not None
    told = log.samples[0].scores["step_scores"]
    assert told.metadata == {
        "steps": ["12 + 5 = 17\n\n", "ANSWER: 17"],
        "step_scores": pytest.approx(expected.tolist()),
        "step_total": pytest.approx(expected.prod()),
    }
    assert (told.value, told.answer) == (pytest.approx(expected.prod()), RIGHT)
    assert told.explanation.splitlines()[1] == f"- {expected[1]:.3f}: ANSWER: 17"
    totals = [sample.scores["step_scores"].value for sample in log.samples]
    # Two samples: the standard error of their mean is half their distance.
    assert metric(log) == pytest.approx({"mean": np.mean(totals), "stderr": abs(totals[0] - totals[1]) / 2})
    assert log.eval.scorers[0].options["scorer"] == str(checkpoint)


@tool
def add() -> Tool:
    async def execute(a: int, b: int) -> str:
        """Adds.

        Args:
            a: first number.
            b: second number.
        """
        return f"The sum is {a + b}"

    return execute


def test_an_agent_is_scored_at_its_own_messages(tmp_path: Path) -> None:
    judge = Judge()
    call = counted(ModelOutput.for_tool_call("mockllm/model", "add", {"a": 12, "b": 5}, content="I add."))
    done = counted(ModelOutput.for_tool_call("mockllm/model", "submit", {"answer": "17"}, content="So 17."))
    task = asking(step_scores(judge, segment=""), solver=react(tools=[add()]))
    log = evaluate(task, [call, done], tmp_path)
    told = log.samples[0].scores["step_scores"].metadata
    assert told["step_scores"][:2] == [0.2, 0.9]
    assert told["steps"][0] == 'I add.\n{"name": "add", "arguments": {"a": 12, "b": 5}}'
    steps = judge.asked[0].steps
    assert [(step.kind, step.agent) for step in steps][:2] == [("action", None), ("observation", "add")]
    assert steps[1].text == "The sum is 17"
    assert judge.asked[0].problem.messages[-1] == {"role": "user", "content": QUESTION}
    assert judge.asked[0].problem.messages[0]["role"] == "system"


def test_examples_in_the_prompt_are_given_and_not_scored(tmp_path: Path) -> None:
    judge = Judge()
    shown = [
        ChatMessageSystem(content="Be brief."),
        ChatMessageUser(content="1 + 1?"),
        ChatMessageAssistant(content="2"),
        ChatMessageUser(content=QUESTION),
    ]
    evaluate(asking(step_scores(judge), shown), [said("17")], tmp_path)
    (asked,) = judge.asked
    assert asked.problem.text == "Be brief.\n\n1 + 1?\n\n2\n\n" + QUESTION
    assert asked.problem.reference == "17"
    assert [step.text for step in asked.steps] == ["17"]


def test_reasoning_told_apart_is_scored_or_left_out(tmp_path: Path) -> None:
    content = [
        ContentReasoning(reasoning="First.\n\nThen 17."),
        ContentReasoning(reasoning="bm90IHRob3VnaHQ=", redacted=True, summary="Sealed."),
        ContentText(text="It is 16."),
    ]
    task = asking([step_scores(Judge()), step_scores(Judge(), reasoning="drop")])
    log = evaluate(task, [said(content)], tmp_path)
    kept, dropped = (log.samples[0].scores[name].metadata for name in ("step_scores", "step_scores1"))
    assert kept["steps"] == ["First.\n\n", "Then 17.\nSealed.\n\n", "It is 16."]
    assert kept["step_scores"] == [0.2, 0.9, 0.2]
    assert dropped["steps"] == ["It is 16."]
    with pytest.raises(InputError, match="keep or drop"):
        step_scores(Judge(), reasoning="lose")  # type: ignore[arg-type]


@solver
def only_output(text: str) -> Solver:
    async def solve(state: Any, generate: Any) -> Any:
        state.output = ModelOutput.from_content("mockllm/model", text)
        return state

    return solve


def test_an_output_without_messages_is_scored(tmp_path: Path) -> None:
    log = evaluate(asking(step_scores(Judge()), solver=only_output("So 17.")), [], tmp_path)
    assert metric(log)["mean"] == 0.9


def test_what_cannot_be_scored_is_unscored_and_tells_why(tmp_path: Path) -> None:
    log = evaluate(asking(step_scores(Judge()), *"abc"), [said(""), said("too long"), said("So 17.")], tmp_path)
    empty, refused, _ = (sample.scores["step_scores"] for sample in log.samples)
    assert (empty.reason, refused.reason) == ("no_response", "scoring_failed")
    assert refused.explanation == "a trajectory has too many tokens"
    assert refused.metadata == {"steps": ["too long"], "step_scores": [None], "step_total": None}
    assert metric(log)["mean"] == 0.9
    assert log.results.scores[0].unscored_samples == 2


def test_epochs_are_chosen_among_by_step_scores(tmp_path: Path) -> None:
    graded = with_step_scores(answer("line"), Judge(), aggregate="last")
    reducers = ["mean", "stepreward/best_of_n", "stepreward/weighted_vote"]
    task = asking([graded, step_scores(Judge()), match()], QUESTION, "Again?", epochs=Epochs(4, reducers))
    # Best of n is right where any epoch is. For voting, three times 0.2 is less than 0.9, and 16 loses both times.
    log = evaluate(task, [said(text) for _ in range(4) for text in (WRONG, WRONG)][:6] + [said(RIGHT)] * 2, tmp_path)
    by_name = {(s.name, s.reducer): s for s in log.results.scores}
    accuracy = {key: s.metrics["accuracy"].value for key, s in by_name.items() if key[0] == "with_step_scores"}
    assert list(accuracy.values()) == [0.25, 1.0, 1.0]
    best = by_name["step_scores", "stepreward/best_of_n"].metrics["mean"].value
    assert best == 0.9
    # Another scorer's epochs hold no step scores: nothing is chosen, and nothing is claimed.
    assert by_name["match", "stepreward/best_of_n"].unscored_samples == 2
    assert log.reductions is not None
    chosen = next(r for r in log.reductions if r.reducer == "stepreward/best_of_n" and r.scorer == "with_step_scores")
    assert chosen.samples[0].metadata["step_scores"] == [0.9, 0.9]


def test_every_selection_by_totals_is_a_reducer() -> None:
    scores = [
        Score(value="I", answer="16", metadata={"step_total": 0.5}),
        Score(value="C", answer="17 ", metadata={"step_total": 0.4}),
        Score(value="C", answer="17", metadata={"step_total": 0.3}),
        Score(value="I", answer=None, metadata={"step_total": None}),
    ]
    made = [make() for make in REDUCERS]
    chosen = [reduce(scores).value for reduce in made]
    # best-of-n; weighted 0.7 to 0.5; majority 2 of 4 is not more than half, so the best mean; 0.8 on the mean reward;
    # Borda with weights 1, sqrt(3/4), sqrt(1/2).
    assert chosen == ["I", "C", "I", "I", "C"]
    silent = [score.model_copy(update={"metadata": None}) for score in scores]
    for reduce in made:
        assert reduce(silent).reason == "scoring_failed"


@inspect_scorer(metrics=[mean(), stderr()])
def undecided() -> Any:
    async def score(state: Any, target: Any) -> None:
        return None

    return score


def test_a_verdict_stays_another_scorers(tmp_path: Path) -> None:
    log = evaluate(asking(with_step_scores(undecided(), Judge())), [said(RIGHT)], tmp_path)
    assert not log.samples[0].scores
    with pytest.raises(InputError, match="got 'match'; pass match"):
        with_step_scores("match", Judge())  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError):
        step_scores(Judge(), segment="paragraphs")


def test_a_log_is_scored_again(tmp_path: Path) -> None:
    log = evaluate(asking(match()), [said(RIGHT)], tmp_path)
    again = score(log, step_scores(Judge()), action="append", display="none")
    assert {s.name for s in again.results.scores} == {"match", "step_scores"}
    assert metric(again, name="step_scores")["mean"] == 0.9
