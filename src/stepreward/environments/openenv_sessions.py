"""Environments of OpenEnv servers: an episode is a session over a WebSocket, an action a typed JSON object.

The protocol is that of the released package openenv 0.10.0: `/schema` states what an action is, and `/ws` takes the
messages `reset`, `step` and `close`. Its routes `/reset` and `/step` make a new environment each and keep no episode.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import httpx

from stepreward.core.catalog import environment
from stepreward.core.errors import EpisodeError, InputError
from stepreward.core.optional import optional
from stepreward.core.runtime.acts import REWORDS, Observation
from stepreward.core.segment.tool_calls import ANSWERS, stated_calls
from stepreward.core.types import TOOLS, Problem, Step
from stepreward.core.vocabulary import Flag
from stepreward.environments.episode_pool import EpisodePool
from stepreward.environments.given_commands import declared_tool

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

ACT = "act"
"""Name of the tool that an action is declared as."""
MOST_BYTES = 64 << 20
"""Of one message of the server."""
RESET = "reset"
"""Key of a problem's meta: what goes to the server's reset beside the seed."""
_METADATA = "metadata"
_PLAIN = {"string": str, "integer": int, "number": float}
"""Kinds of a lone field that a text states without JSON."""
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


class _Session:
    """A connection to a server, open until it is closed.

    Args:
        opening: what `websockets.sync.client.connect` makes, a context manager in all its versions.
        timeout: seconds without an answer.
    """

    def __init__(self, opening: AbstractContextManager[ClientConnection], timeout: float) -> None:
        self._exits, self._timeout = ExitStack(), timeout
        self._connection = self._exits.enter_context(opening)

    def tell(self, message: Mapping[str, Any]) -> None:
        """Sends a message that has no answer."""
        self._connection.send(json.dumps(message))

    def asked(self, message: Mapping[str, Any]) -> Any:
        """The answer to a message, of any kind."""
        self.tell(message)
        return json.loads(self._connection.recv(self._timeout))

    def close(self) -> None:
        """Closes the connection; a broken one too."""
        self._exits.close()


class OpenEnvServer:
    """A server, what an action of it is, and the sessions that are open.

    A session that another episode took over is taken back by acting again: what is shown then must be what was shown
    before.

    Args:
        url: of the server.
        sessions: most connections at a time; servers allow one unless they say otherwise.
        timeout: seconds without an answer.

    Raises:
        InputError: the server cannot be reached, or states no action.
        ModelError: websockets is not installed.
    """

    def __init__(self, url: str, sessions: int, timeout: float) -> None:
        self.url, self._most, self._timeout = url.rstrip("/"), sessions, timeout
        try:
            answer = httpx.get(f"{self.url}/schema", timeout=timeout)
            answer.raise_for_status()
            schema = answer.json()["action"]
            self.action: dict[str, Any] = {
                **schema, "properties": {n: s for n, s in schema["properties"].items() if n != _METADATA}
            }  # fmt: skip
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"{self.url}/schema states no action of OpenEnv: {type(error).__name__}: {error}"
            raise InputError(what, remedy="write openenv:http://HOST:PORT of a server that is up") from error
        self._client, self._errors = optional("websockets.sync.client"), optional("websockets.exceptions")
        self._sockets: dict[OpenEnvEpisode, _Session] = {}
        """Who has a connection, the one that waited longest first."""

    def connected(self, episode: OpenEnvEpisode) -> tuple[_Session, bool]:
        """An episode's connection, and whether it had it already.

        Raises:
            EpisodeError: none can be opened.
        """
        socket = self._sockets.pop(episode, None)
        had = socket is not None
        if socket is None and len(self._sockets) >= self._most:
            socket = self._sockets.pop(next(iter(self._sockets)))
        if socket is None:
            try:
                address = f"ws{self.url.removeprefix('http')}/ws"
                socket = _Session(
                    self._client.connect(address, open_timeout=self._timeout, max_size=MOST_BYTES), self._timeout
                )
            except (OSError, self._errors.WebSocketException) as error:
                raise EpisodeError(f"{self.url}/ws opens no session: {error}") from error
        self._sockets[episode] = socket
        return socket, had

    def asked(self, episode: OpenEnvEpisode, kind: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """The server's answer to a message in an episode's session.

        Raises:
            EpisodeError: the session broke, or the server refuses.
        """
        socket = self._sockets[episode]
        try:
            answer = socket.asked({"type": kind, "data": data})
        except (OSError, ValueError, self._errors.WebSocketException) as error:
            self.left(episode, broken=True)
            raise EpisodeError(f"the session with {self.url} broke: {error}") from error
        if not isinstance(answer, dict) or answer.get("type") not in ("observation", "error"):
            raise EpisodeError(f"{self.url} answers {kind} with {answer!r:.200}, and no observation")
        return answer

    def left(self, episode: OpenEnvEpisode, *, broken: bool = False) -> None:
        """Frees an episode's connection: it is closed."""
        socket = self._sockets.pop(episode, None)
        if socket is None:
            return
        if not broken:
            # A server that is gone has lost the session too.
            with suppress(self._errors.WebSocketException):
                socket.tell({"type": "close"})
        socket.close()


class OpenEnvEpisode:
    """An episode of a server; a `core.runtime.acts.Environment`.

    The reset gets `meta["seed"]` of the problem, or else a digest of its id, and `meta["reset"]`. The outcome
    is `success` where the observation or its metadata has it, else whether the sum of rewards is positive at the end.

    Args:
        server: where it runs.
        turns: most turns, those without an action among them; then the episode is over.
    """

    def __init__(self, server: OpenEnvServer, turns: int = 50) -> None:
        self._most, self._turns = turns, 0
        self._server, self._reset, self._first = server, dict[str, Any](), dict[str, Any]()
        self._done: list[tuple[dict[str, Any], dict[str, Any]]] = []
        """Actions of this episode, and what the server answered to each."""
        self._total = 0.0

    def reset(self, problem: Problem) -> Observation:
        """Begins an episode.

        Raises:
            EpisodeError: the server does not begin one.
        """
        own = str(problem.meta.get(REWORDS, problem.id))
        seed = int(problem.meta.get("seed", zlib.crc32(own.encode())))
        self._reset = {"seed": seed, "episode_id": own[:255], **problem.meta.get(RESET, {})}
        self._server.connected(self)
        self._first = self._data_of("reset", self._reset)
        return self._seen(self._first, {})

    def act(self, action: Step) -> Observation:
        """Executes the action that a turn states; an invalid one gets an error message and changes nothing.

        Raises:
            EpisodeError: the server fails, or shows something else where it acts again.
        """
        self._turns += 1
        stated, call = _stated(action, self._server.action)
        answers = {ANSWERS: call} if call else {}
        wrong = _misfit(stated, self._server.action)
        if wrong:
            return self._untaken(wrong, answers)
        assert isinstance(stated, dict)
        self._resume()
        answer = self._server.asked(self, "step", stated)
        if answer["type"] == "error":
            error = answer.get("data") or {}
            if error.get("code") == "VALIDATION_ERROR":
                return self._untaken(str(error.get("message")), answers)
            raise EpisodeError(f"{self._server.url} fails at {stated!r:.200}: {error.get('message', error)}")
        self._done.append((stated, answer["data"]))
        return self._seen(answer["data"], answers)

    def close(self) -> None:
        """Ends the session."""
        self._server.left(self)

    def _resume(self) -> None:
        """Comes back to where the episode was, if another took its session."""
        if self._server.connected(self)[1]:
            return
        self._same(self._data_of("reset", self._reset), self._first)
        for action, before in self._done:
            self._same(self._data_of("step", action), before)

    def _same(self, again: Mapping[str, Any], before: Mapping[str, Any]) -> None:
        """Compares what is shown with what was shown.

        Raises:
            EpisodeError: they differ.
        """
        if _text(again) != _text(before):
            what = f"{self._server.url} shows {_text(again)!r:.200} where it showed {_text(before)!r:.200}"
            remedy = "give problems a seed that its reset honours, or allow it more sessions"
            raise EpisodeError(f"{what} after the same actions; {remedy}")

    def _data_of(self, kind: str, data: Mapping[str, Any]) -> dict[str, Any]:
        answer = self._server.asked(self, kind, data)
        if answer["type"] == "error":
            error = answer.get("data") or {}
            remedy = "; lower sessions=" if error.get("code") == "CAPACITY_REACHED" else ""
            self._server.left(self, broken=True)
            raise EpisodeError(f"{self._server.url} refuses {kind}: {error.get('message', error)}{remedy}")
        made: dict[str, Any] = answer["data"]
        return made

    def _seen(self, data: Mapping[str, Any], answers: Mapping[str, Any]) -> Observation:
        reward = data.get("reward")
        given = float("nan") if reward is None else float(reward)
        self._total += 0.0 if reward is None else given
        done = bool(data.get("done")) or self._turns >= self._most
        known = {**(data.get(_METADATA) or {}), **(data.get("observation") or {})}
        won = float(known["success"]) if isinstance(known.get("success"), bool | int | float) else float(
            done and self._total > 0
        )  # fmt: skip
        return Observation.of(
            _text(data), role="tool" if answers else "user", meta={**answers}, reward=given, done=done,
            outcome=min(max(won, 0.0), 1.0),
        )  # fmt: skip

    def _untaken(self, wrong: str, answers: Mapping[str, Any]) -> Observation:
        fields = json.dumps(self._server.action.get("properties", {}), ensure_ascii=False)
        text = f"No action was taken: {wrong}. An action is a JSON object of {fields}.\n"
        over, role = self._turns >= self._most, "tool" if answers else "user"
        return Observation.of(text, role=role, meta={**answers}, done=over, outcome=0.0)


def _stated(turn: Step, schema: Mapping[str, Any]) -> tuple[Any, str]:
    """The action that a turn states, and the id of the call that states it; None where it states none.

    It is the arguments of a call of `act`, a JSON object in the text, or, where an action has one field, the text
    itself or the last number in it.
    """
    calls = [call for call in stated_calls(turn) if call.get("name") == ACT]
    if calls:
        return calls[-1].get("arguments"), str(calls[-1].get("id") or "")
    start, end = turn.text.find("{"), turn.text.rfind("}")
    if 0 <= start < end:
        try:
            return json.loads(turn.text[start : end + 1]), ""
        except (ValueError, RecursionError):
            pass
    fields: Mapping[str, Any] = schema.get("properties", {})
    needed = [name for name in fields if name in schema.get("required", ())] or [*fields]
    if len(needed) != 1 or (kind := fields[needed[0]].get("type")) not in _PLAIN:
        return None, ""
    if kind == "string":
        return {needed[0]: turn.text.strip()}, ""
    found = _NUMBER.findall(turn.text)
    try:
        return ({needed[0]: _PLAIN[kind](found[-1])}, "") if found else (None, "")
    except ValueError:
        return None, ""


def _misfit(stated: Any, schema: Mapping[str, Any]) -> str:
    """Why something is no action; "" where it is one."""
    if not isinstance(stated, dict):
        return "none was read"
    errors = optional("jsonschema").Draft202012Validator(schema).iter_errors(stated)
    return next((error.message for error in errors), "")


def _text(data: Mapping[str, Any]) -> str:
    """What an observation shows: its one text, or its fields as JSON."""
    fields = {n: v for n, v in (data.get("observation") or {}).items() if n not in (_METADATA, "reward", "done")}
    if len(fields) == 1 and isinstance(only := next(iter(fields.values())), str):
        return only if only.endswith("\n") else f"{only}\n"
    return f"{json.dumps(fields, ensure_ascii=False)}\n"


def _declared(schema: Mapping[str, Any], problem: Problem) -> Problem:
    """The problem with the server's action as a tool."""
    about = str(schema.get("description") or "Acts in the environment.")
    return replace(problem, meta={**problem.meta, TOOLS: [declared_tool(ACT, about, schema)]})


@environment.method("openenv", note="the session protocol of openenv 0.10.0; wording of observations ours")
def openenv_episodes(
    *,
    place: str = "",
    turns: Annotated[int, Flag(low=1)] = 50,
    sessions: Annotated[int, Flag(low=1)] = 1,
    timeout: Annotated[float, Flag(low=0.1)] = 60.0,
    live: Annotated[int, Flag(low=1)] = 64,
) -> EpisodePool:
    """Episodes of an OpenEnv server: `openenv:http://HOST:PORT`.

    Args:
        place: address of the server, which follows the name and a colon.
        turns: most turns of an episode.
        sessions: most sessions open at a time; with fewer than episodes that go on, actions are executed again.
        timeout: seconds without an answer.
        live: most episodes kept between actions.

    Raises:
        InputError: the server cannot be reached, or states no action.
    """
    server = OpenEnvServer(place, sessions, timeout)
    make, name = partial(OpenEnvEpisode, server, turns), f"openenv {server.url} turns={turns}"
    return EpisodePool(make, name, live=live, prepare=partial(_declared, server.action))
