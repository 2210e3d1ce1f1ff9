"""Shapes of requests: OpenAI's chat, our own steps, and the token interfaces of vLLM and SGLang."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stepreward.core.errors import UnknownNameError

Text = Annotated[str, Field(max_length=1_000_000)]
Name = Annotated[str, Field(max_length=512)]
Tokens = Annotated[list[Annotated[int, Field(ge=0, le=2**31 - 1)]], Field(min_length=1, max_length=1_000_000)]
Stop = Annotated[str, Field(min_length=1, max_length=1000)]
Texts = Text | Annotated[list[Text], Field(min_length=1, max_length=1024)]
Setting = bool | int | float | str


HARMLESS = frozenset({
    "user", "metadata", "store", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "service_tier",
    "request_id", "rid", "priority", "cache_salt",
})  # fmt: skip
"""Fields about the client, which do not change the answer."""
SAMPLES: dict[str, list[Any]] = {
    "functions": [[]], "function_call": ["none", "auto"], "response_format": [{"type": "text"}], "audio": [],
    "modalities": [["text"]], "logprobs": [False, 0], "top_logprobs": [0], "prompt_logprobs": [False],
    "frequency_penalty": [0], "presence_penalty": [0], "repetition_penalty": [1], "length_penalty": [1],
    "logit_bias": [{}], "typical_p": [1], "min_tokens": [0], "ignore_eos": [False],
    "best_of": [1], "use_beam_search": [False], "stop_token_ids": [[]], "include_stop_str_in_output": [False],
    "skip_special_tokens": [True], "spaces_between_special_tokens": [True], "echo": [False], "bad_words": [[]],
    "add_generation_prompt": [True], "continue_final_message": [False], "add_special_tokens": [False],
    "chat_template": [], "documents": [[]], "verbosity": [],
    "include_reasoning": [True], "separate_reasoning": [True], "thinking_token_budget": [], "web_search_options": [],
    "prediction": [], "guided_json": [], "guided_regex": [], "guided_choice": [], "guided_grammar": [],
    "structured_outputs": [], "parallel_tool_calls": [True], "truncate_prompt_tokens": [], "truncation_side": [],
    "allowed_token_ids": [], "logits_processors": [[]], "return_token_ids": [False], "vllm_xargs": [{}],
    "return_tokens_as_token_ids": [False], "mm_processor_kwargs": [{}], "kv_transfer_params": [],
}  # fmt: skip
"""Fields of a chat that no search honours, each with the values, beside null, that are accepted."""
TOKENS: dict[str, list[Any]] = {
    "chat_template": [], "chat_template_kwargs": [{}], "mm_processor_kwargs": [{}], "media_io_kwargs": [{}],
    "dimensions": [], "normalize": [], "padding": [False], "prompt_embeds": [], "return_text_in_prompts": [],
    "instruction": [], "data": [], "additional_data": [], "softmax": [True], "chat_template_content_format": ["auto"],
    "echo": [False], "tools": [[]], "documents": [[]],
}  # fmt: skip
"""The same for the token interfaces."""


class Shape(BaseModel):
    """A part of a request; unknown fields are ignored, as clients send back what servers sent."""

    model_config = ConfigDict(allow_inf_nan=False)


class ClientRequest(BaseModel):
    """A request: a field that cannot be honoured is refused, unless its value changes nothing."""

    model_config = ConfigDict(allow_inf_nan=False, extra="forbid")
    refused: ClassVar[dict[str, list[Any]]] = {}
    """Fields that similar servers know and this one does not honour, with the values that change nothing."""

    @model_validator(mode="before")
    @classmethod
    def _honoured(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        other = {k: v for k, v in given.items() if k not in cls.model_fields and k not in HARMLESS}
        wrong = [
            f"this server cannot honour {name!r}: leave it out"
            if name in cls.refused
            else str(UnknownNameError("field", str(name)[:64], [*cls.model_fields, *cls.refused]))
            for name, value in other.items()
            if (value is not None and value not in cls.refused[name] if name in cls.refused else True)
        ]
        if wrong:
            raise ValueError("; ".join(wrong[:8]))
        return {k: v for k, v in given.items() if k in cls.model_fields}


class TextPart(Shape):
    """A part of a message's content."""

    type: Literal["text"]
    text: Text


class CalledFunction(Shape):
    """The function of a tool call."""

    name: Annotated[str, Field(min_length=1, max_length=512)]
    arguments: Text = ""
    """JSON, as the model wrote it."""


class ToolCall(Shape):
    """A call of a tool by the model."""

    id: Name = ""
    type: Literal["function"] = "function"
    function: CalledFunction


class Message(Shape):
    """A message of a conversation."""

    role: Annotated[str, Field(min_length=1, max_length=64)]
    content: Text | Annotated[list[TextPart], Field(max_length=1000)] | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=128)] | None = None
    """Calls by the assistant."""
    tool_call_id: Name | None = None
    """In a tool's result, the call that it answers."""

    @model_validator(mode="after")
    def _says_something(self) -> Message:
        if self.content is None and not self.tool_calls:
            raise ValueError("a message needs content, or tool_calls")
        return self

    @property
    def text(self) -> str:
        """Its content as one string."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class Function(Shape):
    """A function that the model may call."""

    model_config = ConfigDict(allow_inf_nan=False, extra="allow")
    name: Annotated[str, Field(min_length=1, max_length=512)]


class Tool(Shape):
    """A tool that the model may call; its schema is sent to the policy's server unchanged."""

    type: Literal["function"]
    function: Function


Messages = Annotated[list[Message], Field(min_length=1, max_length=1000)]


Choice = Literal["none", "auto", "required"] | dict[Name, Any] | None
"""Whether the model must call a tool, may, or must not, or the tool that it must."""


class SearchOptions(Shape):
    """How to search; the field `stepreward` of a request, `extra_body` of OpenAI's client.

    No client sends it by itself: a field that is not known is a mistake, and refused.
    """

    model_config = ConfigDict(allow_inf_nan=False, extra="forbid")
    method: Name | None = None
    """Name of a search; see GET /v1/models."""
    settings: dict[Name, Setting] = Field(default={}, max_length=64)
    """Settings of the search by name."""
    deadline: Annotated[float, Field(ge=0.05)] | None = None
    """Seconds after which the best answer so far is returned."""
    generated_tokens: Annotated[int, Field(ge=1)] | None = None
    """Most tokens generated, those of rejected candidates included."""
    scores: bool = False
    """Return the score of each step."""


class StreamOptions(Shape):
    """Options of a streamed answer."""

    include_usage: bool = False


class ChatRequest(ClientRequest):
    """OpenAI's POST /v1/chat/completions, as far as a search can honour it."""

    refused: ClassVar[dict[str, list[Any]]] = SAMPLES

    model: Name
    """The name of the model, or NAME:METHOD, or NAME:METHOD?setting=value&setting=value."""
    messages: Messages
    n: Annotated[int, Field(ge=1, le=128)] | None = 1
    """Choices: the answer chosen, then the other candidates from the best; fewer where there are fewer."""
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    """Likeliest tokens to sample from, where the policy can; -1 and 0 are all."""
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the likeliest token's probability to sample from, where the policy can."""
    chat_template_kwargs: Annotated[dict[Name, Any], Field(max_length=64)] | None = None
    """What the policy's chat template reads beside the messages, where it has one."""
    reasoning_effort: Name | None = None
    """How much the policy thinks, where it can."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Most tokens of the answer."""
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    """Texts before which the answer ends."""
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    """Tools that the model may call, where the policy can: a candidate may end in a call."""
    tool_choice: Choice = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    """Equal seeds draw equal samples where the model's server honours seeds."""
    budget: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Candidates, for clients of its-hub; `stepreward.settings` is more precise."""
    stepreward: SearchOptions = SearchOptions()


class StepText(Shape):
    """A step with more than its text."""

    text: Text
    kind: Literal["action", "observation"] = "action"
    """An observation is context and gets no score."""
    role: Annotated[str, Field(min_length=1, max_length=64)] = "assistant"
    agent: Name | None = None


class StepsRequest(ClientRequest):
    """Steps to score: of a problem, or after steps that were scored before."""

    model: Name | None = None
    problem: Text | Messages | None = None
    """The problem, as one text or as messages; left out with `prefix`."""
    prefix: Name | None = None
    """The handle of an earlier answer: only the steps after it are sent and scored."""
    reference: Text | None = None
    """The problem's reference answer, for models that read it; a handle keeps it."""
    steps: Annotated[list[Text | StepText], Field(min_length=1, max_length=2000)]
    aggregate: Name | None = None
    """How `total` aggregates the scores; by default the model's own aggregation."""


class StepsBatch(ClientRequest):
    """Several requests at once; each is answered or refused by itself."""

    items: Annotated[list[StepsRequest], Field(min_length=1, max_length=256)]


class MonitorRequest(ClientRequest):
    """A turn of a run to be watched, or all turns so far: the action, then what was answered."""

    session: Name | None = None
    """The handle of an earlier answer: the turn follows those before; without it a run begins."""
    problem: Text | Messages | None = None
    """The run's task, for a model that reads it."""
    steps: Annotated[list[Text | StepText], Field(min_length=1, max_length=2000)] | None = None
    messages: Messages | None = None
    """The turn as OpenAI's messages, in place of `steps`; of a new run, those before the assistant's are its task."""
    scores: Annotated[list[float], Field(min_length=1, max_length=2000)] | None = None
    """A score for each action, for a monitor that reads scores; a server with a model scores by itself."""


class TokenInput(ClientRequest):
    """The fields of vLLM's /pooling and /classify."""

    refused: ClassVar[dict[str, list[Any]]] = TOKENS

    model: Name | None = None
    input: Text | Tokens | Annotated[list[Text | Tokens], Field(min_length=1, max_length=1024)] | None = None
    messages: Messages | None = None
    add_special_tokens: bool = True
    truncate_prompt_tokens: Annotated[int, Field(ge=-1)] | None = None
    """Keeps the first so many tokens, or the last; -1 keeps what the model holds."""
    truncation_side: Literal["left", "right"] | None = None
    """Which end is cut off: right by default, as vLLM has it."""
    add_generation_prompt: bool | None = None
    """Of `messages`: whether the opening of an answer follows them."""
    continue_final_message: bool | None = None
    """Of `messages`: whether the last one stays open."""
    task: Name | None = None
    """The task for vLLM; here each path has exactly one."""
    use_activation: bool | None = None
    activation: bool | None = None
    """The older name of `use_activation`."""

    @property
    def activated(self) -> bool:
        """Whether softmax or sigmoid is applied."""
        chosen = self.activation if self.use_activation is None else self.use_activation
        return True if chosen is None else chosen


class PoolingRequest(TokenInput):
    """vLLM's POST /pooling: outputs at every token, or at the tokens that end steps where the model has such."""

    encoding_format: Literal["float", "base64", "bytes", "bytes_only"] = "float"
    """Numbers, base64, or bytes, whose header `metadata` tells the inputs apart; `bytes_only` has no such header."""
    embed_dtype: Literal["float32", "float16", "bfloat16", "fp8_e4m3", "fp8_e5m2"] = "float32"
    """Type of the numbers in base64 and bytes."""
    endianness: Literal["native", "little", "big"] = "native"


class ClassifyRequest(TokenInput):
    """vLLM's POST /classify with `input`, SGLang's with `text`: outputs at the last token."""

    text: Text | Annotated[list[Text], Field(min_length=1, max_length=1024)] | None = None


class PairRequest(ClientRequest):
    """The fields of vLLM's /score and /rerank beside their texts."""

    refused: ClassVar[dict[str, list[Any]]] = TOKENS

    model: Name | None = None
    truncate_prompt_tokens: Annotated[int, Field(ge=-1)] | None = None
    """Keeps the first so many tokens of a pair, or the last; -1 keeps what the model holds."""
    truncation_side: Literal["left", "right"] | None = None
    """Which end is cut off: right by default, as vLLM has it."""
    use_activation: bool | None = None
    """Whether a score is a probability; false gives the output of the head."""
    max_tokens_per_query: Annotated[int, Field(ge=0)] = 0
    """Most tokens read of the first text; 0 is all."""
    max_tokens_per_doc: Annotated[int, Field(ge=0)] = 0
    """Most tokens read of the second text; 0 is all."""


class ScoreRequest(PairRequest):
    """vLLM's POST /score, in any of its names; SGLang's with `query` and `items`."""

    text_1: Texts | None = None
    text_2: Texts | None = None
    queries: Texts | None = None
    documents: Texts | None = None
    data_1: Texts | None = None
    data_2: Texts | None = None
    query: Text | Tokens | None = None
    items: Text | Annotated[list[Text | Tokens], Field(min_length=1, max_length=1024)] | None = None
    item_first: bool = False
    """SGLang's: the item precedes the query."""
    label_token_ids: Annotated[list[int], Field(min_length=1, max_length=1024)] | None = None
    """SGLang's: the tokens to score, of a model that reads label tokens."""
    apply_softmax: bool = False
    """SGLang's: the scores of an item sum to 1."""


class RerankRequest(PairRequest):
    """vLLM's POST /rerank: documents from the best to the worst."""

    query: Text
    documents: Texts
    top_n: Annotated[int, Field(ge=0)] = 0
    """Only the best so many; 0 is all."""
