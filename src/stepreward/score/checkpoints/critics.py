"""Critics of agents: of whole runs, with an output for each thing that may have gone wrong, and of tool calls."""

from __future__ import annotations

from stepreward.score.checkpoints.row import Checkpoint
from stepreward.score.encode.readout import Readout
from stepreward.score.encode.record import Conversation

_SENTIMENTS = ("sentiment_positive", "sentiment_neutral", "sentiment_negative")
_AGENT = (
    "misunderstood_intention", "did_not_follow_instruction", "insufficient_analysis", "insufficient_clarification",
    "improper_tool_use_or_setup", "loop_behavior", "insufficient_testing", "insufficient_debugging",
    "incomplete_implementation", "file_management_errors", "scope_creep", "risky_actions_or_permission",
    "other_agent_issue",
)  # fmt: skip
_INFRASTRUCTURE = ("infrastructure_external_issue", "infrastructure_agent_caused_issue")
_FOLLOW_UP = (
    "clarification_or_restatement", "correction", "direction_change", "vcs_update_requests",
    "progress_or_scope_concern", "frustration_or_complaint", "removal_or_reversion_request", "other_user_issue",
)  # fmt: skip
_OUTPUTS = ("success", *_SENTIMENTS, *_AGENT, *_INFRASTRUCTURE, *_FOLLOW_UP)

ROWS = (
    Checkpoint(
        ("OpenHands/openhands-critic-4b-v1.0",),
        Conversation(prompt_format="{prompt}", clean=("chomp",), tools=True, max_length=262_144, too_long="drop"),
        Readout(n_labels=len(_OUTPUTS), names=_OUTPUTS),
        source="repository OpenHands/software-agent-sdk openhands/sdk/critic/impl/api (client.py, critic.py); its "
        "model card; arXiv:2603.03800",
        aggregation="last",
        notes="The chance of success if the run ended with this action; the others of its 27 outputs are read by name "
        "(`--readout loop_behavior`, `--also loops=loop_behavior`). Each is a sigmoid of its own: it is trained with a "
        "binary cross-entropy for each, and in the answers that the repository shows the numbers add up to more than "
        "1. vLLM's `/classify` reads the last token of the chat, the line break behind the last message. The client "
        "sends text alone: calls and thinking of earlier messages are left out, as here. Tool definitions, which it "
        "demands, come from the problem's `tools`; without them the text has none. The card speaks of 26 labels, the "
        "client of 27: a head of another width is refused. The order is the client's, and was not checked on the "
        "weights; neither was their configuration. Several results behind one action are messages of their own here, "
        "there one, and line breaks at a message's end are dropped. A conversation that was condensed is shown whole. "
        "In a server: `URL#NAME?endpoint=classify`.",
    ),
    Checkpoint(
        ("ToolRM-Disc-Qwen3-4B-Instruct-2507",),
        Conversation(prompt_format="{prompt}", clean=("chomp",), max_length=16_384, too_long="drop"),
        Readout("value"),
        source="repository lirenhao1997/ToolRM eval/eval_trbench_local_discrm.py and scripts/train_toolrm_disc.sh; "
        "arXiv:2510.26167",
        aggregation="last",
        threshold=0.0,
        notes="ToolRM that scores, not the one that writes; no hub name is stated. The chat with the call as its last "
        "message, tool definitions only where the system message has them. Scores are bare numbers, for comparisons. "
        "Its measure is `evaluate --benchmark pairs --aggregate last` on TRBench.",
    ),
)
